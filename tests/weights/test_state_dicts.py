"""Names and layouts of other libraries, without those libraries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import encoders, weights
from jaxssl.config.errors import ConfigError
from jaxssl.config.naming import named_leaves
from jaxssl.encoders import positions
from jaxssl.encoders.resnet import ResNet
from jaxssl.weights.vit import interpolate

VIT = {"name": "vit", "width": 16, "depth": 2, "heads": 2, "patch": 4, "image_size": 16}
CONVNEXT = {"name": "convnext", "blocks": (1, 2), "width": 8, "patch": 2}
ENCODERS = {
    "vit": VIT,
    "vit without a class token": VIT | {"pool": "mean", "qkv_bias": False},
    "vit like DINOv2's g": VIT | {"ffn": "swiglu", "layer_scale": 0.5, "pool": "cls_mean"},
    "scanned vit": VIT | {"scan": True, "layer_scale": 0.5},
    "vit with registers": VIT | {"registers": 2},
    "vit with sinusoids": VIT | {"posemb": "sincos2d"},
    "convnext": CONVNEXT | {"version": 1, "layer_scale": 0.5},
    "convnext v2": CONVNEXT | {"version": 2},
}


def made(config, seed=0):
    """An encoder whose every array differs from what it starts with."""
    encoder = encoders.build(config, dtype=jnp.float32)
    return encoder, filled(encoder, seed)


def filled(encoder, seed=0, side=16):
    shapes = jax.eval_shape(
        lambda: encoder.init(jax.random.key(0), jnp.zeros((1, side, side, 3)), train=False)
    )
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: 0.1 + 0.4 * rng.random(a.shape, np.float32), shapes)


def same(a, b):
    a, b = named_leaves(a), named_leaves(b)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("name", [n for n in ENCODERS if "registers" not in n])
def test_there_and_back(name):
    encoder, variables = made(ENCODERS[name])
    same(weights.from_state_dict(encoder, weights.to_state_dict(encoder, variables)), variables)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_there_and_back_with_batch_statistics(bottleneck):
    encoder = ResNet((1, 2), bottleneck, "cifar", 4, True)
    variables = filled(encoder)
    state = weights.to_state_dict(encoder, variables)
    same(weights.from_state_dict(encoder, state), variables)
    # Statistics are not mistaken for scales, nor the mean for the variance.
    norm = variables["batch_stats"]["stage1_block0"]["norm_shortcut"]
    np.testing.assert_array_equal(state["layer2.0.downsample.1.running_var"], norm["var"])


def test_the_class_tokens_position_goes_into_the_token_beside_registers():
    encoder, variables = made(ENCODERS["vit with registers"])
    state = weights.to_state_dict(encoder, variables)
    assert state["pos_embed"].shape == (1, 16, 16) and state["reg_token"].shape == (1, 2, 16)
    back = weights.from_state_dict(encoder, state)
    x = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    apply = jax.jit(lambda v: encoder.apply(v, x, train=False)["pooled"])
    np.testing.assert_allclose(apply(back), apply(variables), atol=1e-5)
    assert not np.any(back["params"]["position_embedding"][0])


def test_a_scanned_and_a_looped_encoder_share_a_file():
    encoder, variables = made(ENCODERS["scanned vit"])
    state = weights.to_state_dict(encoder, variables)
    looped = encoders.build(VIT | {"layer_scale": 0.5}, dtype=jnp.float32)
    again = weights.from_state_dict(looped, state)
    same(weights.to_state_dict(looped, again), state)
    stacked = variables["params"]["transformer"]["blocks"]["attention"]["qkv"]["kernel"]
    single = again["params"]["transformer"]["block1"]["attention"]["qkv"]["kernel"]
    np.testing.assert_array_equal(single, stacked[1])


def test_names_and_shapes_are_timms():
    encoder, variables = made(VIT | {"depth": 1, "mask_token": True})
    shapes = {k: v.shape for k, v in weights.to_state_dict(encoder, variables).items()}
    assert shapes == {
        "cls_token": (1, 1, 16),
        "pos_embed": (1, 17, 16),
        "patch_embed.proj.weight": (16, 3, 4, 4),
        "patch_embed.proj.bias": (16,),
        "blocks.0.norm1.weight": (16,),
        "blocks.0.norm1.bias": (16,),
        "blocks.0.attn.qkv.weight": (48, 16),
        "blocks.0.attn.qkv.bias": (48,),
        "blocks.0.attn.proj.weight": (16, 16),
        "blocks.0.attn.proj.bias": (16,),
        "blocks.0.norm2.weight": (16,),
        "blocks.0.norm2.bias": (16,),
        "blocks.0.mlp.fc1.weight": (64, 16),
        "blocks.0.mlp.fc1.bias": (64,),
        "blocks.0.mlp.fc2.weight": (16, 64),
        "blocks.0.mlp.fc2.bias": (16,),
        "norm.weight": (16,),
        "norm.bias": (16,),
    }


def test_dinov2s_names():
    encoder, variables = made(ENCODERS["vit like DINOv2's g"] | {"mask_token": True})
    state = weights.to_state_dict(encoder, variables)
    other = {"mlp.fc1": "mlp.w12", "mlp.fc2": "mlp.w3", "blocks.1.": "blocks.1.1."}
    for known, name in (other | {"blocks.0.": "blocks.0.0."}).items():
        state = {key.replace(known, name): value for key, value in state.items()}
    state["mask_token"] = variables["params"]["mask_token"][None]
    same(weights.from_state_dict(encoder, state), variables)
    # An encoder that masks nothing has no use for the token.
    del variables["params"]["mask_token"]
    encoder, _ = made(ENCODERS["vit like DINOv2's g"])
    same(weights.from_state_dict(encoder, state), variables)


def test_dinov2s_registers():
    encoder, variables = made(VIT | {"registers": 2})
    state = weights.to_state_dict(encoder, variables)
    state["register_tokens"] = state.pop("reg_token")
    state["pos_embed"] = variables["params"]["position_embedding"][None]  # none for registers
    state["cls_token"] = variables["params"]["class_token"][None]
    same(weights.from_state_dict(encoder, state), variables)
    # timm's other layout: positions for the class token, the registers and the patches.
    place = state["pos_embed"]
    more = np.full((1, 2, 16), 0.25, np.float32)
    state["pos_embed"] = np.concatenate([place[:, :1], more, place[:, 1:]], axis=1)
    found = weights.from_state_dict(encoder, state)["params"]
    np.testing.assert_array_equal(found["registers"], variables["params"]["registers"] + 0.25)
    same(found["position_embedding"], variables["params"]["position_embedding"])


def test_maes_file_with_its_decoder():
    encoder, variables = made(ENCODERS["vit with sinusoids"])
    state = weights.to_state_dict(encoder, variables)
    own = positions.sincos2d(16, (4, 4), (4, 4))
    np.testing.assert_array_equal(state["pos_embed"], np.pad(own, ((1, 0), (0, 0)))[None])
    state |= {"mask_token": np.zeros((1, 1, 8)), "decoder_embed.weight": np.zeros((8, 16))}
    same(weights.from_state_dict(encoder, state), variables)
    # Into learned positions they go as they are.
    learned = encoders.build(VIT, dtype=jnp.float32)
    found = weights.from_state_dict(learned, state)["params"]["position_embedding"]
    np.testing.assert_array_equal(found, state["pos_embed"][0])
    state["pos_embed"] = state["pos_embed"] + 0.1
    with pytest.raises(ConfigError, match="weights: pos_embed: found other positions"):
        weights.from_state_dict(encoder, state)


def test_positions_of_another_grid_are_interpolated():
    _, variables = made(VIT)
    small, _ = made(VIT | {"image_size": (8, 12)})
    state = weights.to_state_dict(encoders.build(VIT, dtype=jnp.float32), variables)
    found = weights.from_state_dict(small, state)["params"]["position_embedding"]
    table = variables["params"]["position_embedding"]
    np.testing.assert_array_equal(found[0], table[0])  # the class token's is nobody's neighbour
    np.testing.assert_array_equal(found[1:], interpolate(table[1:], (4, 4), (2, 3)))


def test_bicubic_weights():
    # Keys' kernel with a = -0.75 half way between two places: (a / 8, (4 - a) / 8, ...).
    line = np.eye(4, dtype=np.float32)
    halved = interpolate(line, (1, 4), (1, 2))
    np.testing.assert_allclose(halved[0], [0.5, 0.59375, -0.09375, 0], atol=1e-7)  # edge repeated
    np.testing.assert_allclose(halved[1], [0, -0.09375, 0.59375, 0.5], atol=1e-7)
    constant = interpolate(np.ones((9, 2), np.float32), (3, 3), (5, 4))
    np.testing.assert_allclose(constant, 1, atol=1e-6)


def test_pointwise_convolutions_are_dense_layers():
    encoder, variables = made(ENCODERS["convnext v2"])
    state = weights.to_state_dict(encoder, variables)
    for name in [n for n in state if ".mlp.fc" in n and n.endswith("weight")]:
        state[name] = state[name][:, :, None, None]
    same(weights.from_state_dict(encoder, state), variables)


def test_every_fault_is_named_in_one_line():
    encoder, variables = made(VIT)
    state = weights.to_state_dict(encoder, variables)
    del state["norm.bias"], state["blocks.1.mlp.fc2.weight"]
    state["blocks.2.norm1.bias"] = np.zeros(16)
    state["head.weight"] = np.zeros((10, 16))  # a classifier: no part of the encoder
    state["patch_embed.proj.weight"] = np.zeros((16, 3, 8, 8))
    with pytest.raises(ConfigError) as found:
        weights.from_state_dict(encoder, state, source="vit.npz")
    assert str(found.value) == (
        "vit.npz: missing blocks.1.mlp.fc2.weight, norm.bias; not of the encoder "
        "blocks.2.norm1.bias; patch_embed.proj.weight is (16, 3, 8, 8), expected (16, 3, 4, 4)"
    )


@pytest.mark.parametrize(
    "config, name, message",
    [
        (VIT | {"pool": "mean"}, "cls_token", "not of the encoder cls_token"),
        (VIT, "head_norm.weight", "not of the encoder head_norm.weight"),
        (CONVNEXT, "head.bias", "not of the encoder head.bias"),
    ],
)
def test_what_has_no_place_is_refused(config, name, message):
    encoder, variables = made(config)
    state = weights.to_state_dict(encoder, variables) | {name: np.zeros((1, 1, 16))}
    with pytest.raises(ConfigError, match=message):
        weights.from_state_dict(encoder, state)


def test_channels_must_fit():
    encoder, variables = made(VIT)
    state = weights.to_state_dict(encoder, variables)
    with pytest.raises(ConfigError, match=r"weight is \(16, 3, 4, 4\), expected \(16, 1, 4, 4\)"):
        weights.from_state_dict(encoder, state, channels=1)


def test_encoders_that_others_do_not_have():
    convnet = encoders.build({"name": "convnet", "widths": (8,), "strides": (1,)}, dtype=None)
    with pytest.raises(ConfigError, match="found a ConvNet, expected one of ViT, ResNet"):
        weights.from_state_dict(convnet, {})
    clips = encoders.build(VIT | {"frames": 2}, dtype=jnp.float32)
    with pytest.raises(ConfigError, match=r"encoder\.frames: found 2, expected 1"):
        weights.from_state_dict(clips, {})
