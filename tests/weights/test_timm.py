"""The same features here and from timm's models under PyTorch, both ways."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import encoders, weights
from jaxssl.encoders.resnet import ResNet
from jaxssl.weights.vit import interpolate

torch = pytest.importorskip("torch", reason="compares with PyTorch")

SIDE = 32
VIT = {"name": "vit", "size": "Ti", "width": 48, "depth": 2, "patch": 8, "image_size": SIDE}
CONVNEXT = {"name": "convnext", "blocks": (1, 1, 1, 1), "width": 8}


def pair(name):
    """(encoder here, timm's model)."""
    timm = pytest.importorskip("timm", reason="compares with timm's models")
    vit = timm.models.vision_transformer
    like = {"img_size": SIDE, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    like |= {"num_classes": 0}
    convnext = {"depths": (1,) * 4, "dims": (8, 16, 32, 64), "num_classes": 0}
    block = timm.models.resnet
    here, there = {
        "vit": (VIT, lambda: vit.VisionTransformer(**like)),
        "vit, mean of patches": (
            VIT | {"pool": "mean", "posemb": "sincos2d"},
            lambda: vit.VisionTransformer(
                **like, class_token=False, global_pool="avg", fc_norm=False
            ),
        ),
        "vit like DINOv2's g": (
            VIT | {"registers": 2, "layer_scale": 0.1, "ffn": "swiglu"},
            lambda: vit.VisionTransformer(
                **like,
                reg_tokens=2,
                no_embed_class=True,
                init_values=0.1,
                mlp_ratio=16 / 3,
                mlp_layer=timm.layers.SwiGLUPacked,
                act_layer=torch.nn.SiLU,
            ),
        ),
        "resnet": (
            ResNet((1, 1, 1, 1), True, "imagenet", 64, True),
            lambda: block.ResNet(block.Bottleneck, [1, 1, 1, 1], num_classes=0),
        ),
        "resnet of plain blocks": (
            ResNet((1, 1, 1, 1), False, "imagenet", 64, True),
            lambda: block.ResNet(block.BasicBlock, [1, 1, 1, 1], num_classes=0),
        ),
        "convnext": (
            CONVNEXT | {"version": 1, "layer_scale": 0.1},
            lambda: timm.models.convnext.ConvNeXt(**convnext, ls_init_value=0.1),
        ),
        "convnext v2": (
            CONVNEXT | {"version": 2},
            lambda: timm.models.convnext.ConvNeXt(**convnext, use_grn=True, ls_init_value=None),
        ),
    }[name]
    encoder = here if isinstance(here, ResNet) else encoders.build(here, dtype=jnp.float32)
    return encoder, there().eval()


def moved_by(seed, noise):
    """Moves every array by something else: one that is not carried over shows."""
    rng = np.random.default_rng(seed)

    def move(a):
        moved = a * (1 + 0.2 * rng.random(a.shape)) + noise * rng.normal(size=a.shape)
        return moved.astype(np.float32)

    return move


@pytest.mark.parametrize(
    "name",
    [
        "vit",
        "vit, mean of patches",
        "vit like DINOv2's g",
        "resnet",
        "resnet of plain blocks",
        "convnext",
        "convnext v2",
    ],
)
def test_the_same_features_both_ways(name):
    assert max(differences(*pair(name), SIDE)) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_small_patch16_224", "resnet50", "convnext_tiny"])
def test_whole_models_at_224_pixels(name):
    timm = pytest.importorskip("timm", reason="compares with timm's models")
    here = {
        "vit_small_patch16_224": {"name": "vit", "size": "S", "patch": 16, "image_size": 224},
        "resnet50": {"name": "resnet", "depth": 50},
        "convnext_tiny": {"name": "convnext", "size": "tiny", "version": 1},
    }[name]
    encoder = encoders.build(here, dtype=jnp.float32)
    found = differences(encoder, timm.create_model(name, num_classes=0).eval(), 224, 0.01)
    print(f"{name}: imported {found[0]:.1e}, exported {found[1]:.1e}")
    assert max(found) < 1e-4


def differences(encoder, model, side, noise=0.02):
    """The largest difference of features of timm's weights here, and of those of here in timm."""
    x = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)

    @jax.jit
    def here(variables):
        with jax.default_matmul_precision("highest"):
            return encoder.apply(variables, x, train=False)["pooled"]

    def there():
        with torch.no_grad():
            return model(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()

    def put(state):
        model.load_state_dict({n: torch.as_tensor(np.float32(a)) for n, a in state.items()})

    apart = lambda variables: float(np.abs(np.asarray(here(variables)) - there()).max())
    theirs = {n: t.numpy() for n, t in model.state_dict().items()}
    fixed = {n: a for n, a in theirs.items() if n == "pos_embed" or "num_batches" in n}
    move = moved_by(1, noise)
    moved = {n: move(a) for n, a in theirs.items() if n not in fixed}
    if getattr(encoder, "posemb", "") == "sincos2d":
        own = weights.to_state_dict(encoder, zeros(encoder, side))["pos_embed"]
        fixed["pos_embed"] = own
    put(moved | fixed)
    variables = weights.from_state_dict(encoder, moved | fixed)
    imported = apart(variables)

    other = jax.tree.map(moved_by(2, noise), variables)
    assert apart(other) > 1e-3
    put(weights.to_state_dict(encoder, other))
    return imported, apart(other)


def zeros(encoder, side):
    image = jnp.zeros((1, side, side, 3))
    shapes = jax.eval_shape(lambda: encoder.init(jax.random.key(0), image, train=False))
    return jax.tree.map(lambda a: np.zeros(a.shape, np.float32), shapes)


@pytest.mark.parametrize("size", [(7, 5), (2, 3)])
def test_positions_are_interpolated_as_pytorch_does(size):
    table = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
    image = torch.from_numpy(table.reshape(1, 4, 4, 6)).permute(0, 3, 1, 2)
    found = torch.nn.functional.interpolate(image, size=size, mode="bicubic", align_corners=False)
    expected = found.permute(0, 2, 3, 1).reshape(-1, 6).numpy()
    np.testing.assert_allclose(interpolate(table, (4, 4), size), expected, atol=1e-5)
