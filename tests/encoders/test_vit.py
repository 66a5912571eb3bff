"""Vision transformer: options change the cost and never the meaning."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import encoders
from jaxssl.encoders import positions
from jaxssl.errors import ConfigError

TINY = {"name": "vit", "width": 16, "depth": 2, "heads": 2, "patch": 4, "image_size": 16}
B, T, D, L, H = 3, 16, 16, 2, 2


def vit(dtype=jnp.float32, **fields):
    return encoders.build(TINY | fields, dtype=dtype)


def images(side=16, seed=1):
    return np.float32(np.random.default_rng(seed).normal(size=(B, side, side, 3)))


def init(net, side=16):
    """Parameters, spread out so that no test passes because weights are nearly zero."""
    make = lambda key: net.init(key, images(side), train=False)
    shapes = jax.eval_shape(make, jax.random.key(0))
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)
    return jax.tree.unflatten(tree, [np.float32(rng.normal(0, 0.3, x.shape)) for x in leaves])


@functools.partial(jax.jit, static_argnums=0, static_argnames="capture")
def run(net, params, x, **kwargs):
    return net.apply(params, x, train=False, **kwargs)


def row_of(others, value):
    """An image of `others`, and `value` in its second row of patches."""
    image = np.full((16, 16, 1), others, np.float32)
    image[4:8] = value
    return image


def assert_close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def base():
    """A ViT with everything in it, its parameters and its output."""
    net = vit(pool="cls_mean", registers=2, mask_token=True, layer_scale=0.5)
    params = init(net)
    out = run(net, params, images(), capture=("layers", "class_layers", "attention"))
    return net, params, jax.tree.map(np.asarray, out)


@pytest.mark.smoke
def test_outputs(base):
    _, params, out = base
    assert out["pooled"].shape == (B, 2 * D)
    assert out["tokens"].shape == (B, T, D)
    assert out["layers"].shape == (L, B, T, D)
    assert out["class_layers"].shape == (L, B, D)
    assert out["attention"].shape == (B, H, T + 3, T + 3)
    assert_close(out["attention"].sum(-1), np.ones((B, H, T + 3)))
    assert_close(out["pooled"][:, D:], out["tokens"].mean(1))
    x, norm = out["layers"][-1], params["params"]["norm"]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    assert_close(out["tokens"], x * norm["scale"] + norm["bias"], 1e-4)


def test_captures_nothing_unasked(base):
    net, params, out = base
    plain = run(net, params, images())
    assert set(plain) == {"pooled", "tokens"}
    assert_close(plain["tokens"], out["tokens"])


def test_attention_agrees_with_scaled_dot_products():
    net = vit(depth=1, pool="mean")
    params = init(net)["params"]
    x = images()
    out = run(net, {"params": params}, x, capture=("attention",))
    patches = x.reshape(B, 4, 4, 4, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(B, T, 48)
    h = patches @ params["patch_embedding"]["kernel"] + params["patch_embedding"]["bias"]
    h = h + params["position_embedding"]
    block = params["transformer"]["block0"]
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-6)
    h = h * block["norm1"]["scale"] + block["norm1"]["bias"]
    qkv = h @ block["attention"]["qkv"]["kernel"] + block["attention"]["qkv"]["bias"]
    q, k = (qkv[..., i * D : i * D + D // H] for i in (0, 1))  # the first head
    expected = np.exp(q @ k.swapaxes(1, 2) / (D // H) ** 0.5)
    expected /= expected.sum(-1, keepdims=True)
    assert_close(out["attention"][:, 0], expected, 1e-4)


@pytest.mark.parametrize("remat", ["none", "full", "dots"])
def test_scan_equals_loop(base, remat):
    net, params, out = base
    scanned = vit(
        pool="cls_mean", registers=2, mask_token=True, layer_scale=0.5, scan=True, remat=remat
    )
    blocks = params["params"]["transformer"]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), blocks["block0"], blocks["block1"])
    restacked = {"params": params["params"] | {"transformer": {"blocks": stacked}}}
    expected = jax.eval_shape(lambda k: scanned.init(k, images(), train=False), jax.random.key(0))
    assert jax.tree.map(jnp.shape, restacked) == jax.tree.map(jnp.shape, expected)
    got = run(scanned, restacked, images(), capture=("layers", "class_layers", "attention"))
    jax.tree.map(assert_close, got, out)
    keep = np.array([[0, 1.0], [1.25, 0], [1.25, 1.25]])
    assert_close(
        run(scanned, restacked, images(), keep=keep)["tokens"],
        run(net, params, images(), keep=keep)["tokens"],
    )


@pytest.mark.parametrize("remat", ["full", "dots"])
def test_remat_keeps_value_and_gradient(remat):
    def value(kind):
        net = vit(depth=1, remat=kind)
        loss = lambda p: (run(net, p, images())["tokens"] ** 2).mean()
        return jax.jit(jax.value_and_grad(loss))(init(net))

    jax.tree.map(lambda a, b: assert_close(a, b, 1e-4), value(remat), value("none"))


def test_fused_attention_equals_einsum(base):
    _, params, out = base
    fused = vit(pool="cls_mean", registers=2, mask_token=True, layer_scale=0.5, attention="fused")
    assert_close(run(fused, params, images())["tokens"], out["tokens"], 1e-4)


def test_all_tokens_kept_equals_none(base):
    net, params, out = base
    tokens = np.tile(np.arange(T), (B, 1))
    got = run(net, params, images(), tokens=tokens)
    assert_close(got["pooled"], out["pooled"])
    assert_close(got["tokens"], out["tokens"])


def test_permuted_kept_tokens_permute_the_outputs(base):
    net, params, _ = base
    tokens = np.array([[0, 5, 9, 15], [1, 2, 3, 4], [7, 8, 6, 0]])
    order = np.array([2, 0, 3, 1])
    got = run(net, params, images(), tokens=tokens)
    permuted = run(net, params, images(), tokens=tokens[:, order])
    assert got["tokens"].shape == (B, 4, D)
    assert_close(permuted["tokens"], got["tokens"][:, order], 1e-4)
    assert_close(permuted["pooled"], got["pooled"], 1e-4)


def test_dropped_patches_are_not_seen(base):
    net, params, _ = base
    tokens = np.tile(np.arange(4, 8), (B, 1))  # the second row of patches
    elsewhere = row_of(1, 0)
    got = run(net, params, images() + 9 * elsewhere, tokens=tokens)
    assert_close(got["pooled"], run(net, params, images(), tokens=tokens)["pooled"])


def test_mask_hides_content_and_nothing_else(base):
    net, params, out = base
    none = run(net, params, images(), mask=np.zeros((B, T), bool))
    assert_close(none["tokens"], out["tokens"])
    mask = np.tile((np.arange(T) // 4) == 1, (B, 1))
    row = row_of(0, 9)
    masked = run(net, params, images(), mask=mask)
    assert_close(run(net, params, images() + row, mask=mask)["tokens"], masked["tokens"])
    assert np.abs(masked["tokens"] - out["tokens"]).max() > 0.1
    # Masked and kept together: the mask is by patch, not by position in the sequence.
    tokens = np.tile(np.array([[5, 0, 4, 15]]), (B, 1))
    kept = run(net, params, images(), mask=mask, tokens=tokens)
    assert_close(
        run(net, params, images() + row, mask=mask, tokens=tokens)["tokens"], kept["tokens"]
    )


def test_keep_scales(base):
    net, params, out = base
    run_keep = lambda keep: run(net, params, images(), keep=keep, capture=("layers",))
    assert_close(run_keep(np.ones((B, L)))["tokens"], out["tokens"])
    dropped = run_keep(np.zeros((B, L)))["layers"]
    assert_close(dropped[0], dropped[1], 0)
    mixed = run_keep(np.array([[1.0, 0], [1, 1], [0, 0]]))["layers"]
    assert_close(mixed[1, 0], mixed[0, 0], 0)  # sample 0 skips block 1
    assert_close(mixed[0, 0], out["layers"][0, 0])
    assert_close(mixed[:, 1], out["layers"][:, 1])
    assert_close(mixed[:, 2], dropped[:, 2])


def test_layer_scale_starts_at_its_value():
    net = vit(layer_scale=0.125)
    init = lambda key: net.init(key, images(), train=False)["params"]["transformer"]["block1"]
    scale = jax.jit(lambda key: init(key)["scale2"])(jax.random.key(0))
    assert_close(scale, np.full(D, 0.125))


def test_bfloat16_is_close_to_float32(base):
    _, params, out = base
    half = vit(jnp.bfloat16, pool="cls_mean", registers=2, mask_token=True, layer_scale=0.5)
    got = run(half, params, images(), capture=("attention",))
    assert got["pooled"].dtype == jnp.bfloat16
    assert got["attention"].dtype == jnp.float32
    assert np.abs(np.float32(got["tokens"]) - out["tokens"]).mean() < 0.05
    shapes = jax.eval_shape(lambda k: half.init(k, images(), train=False), jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("posemb", ["learned", "sincos2d"])
def test_other_image_sizes(posemb):
    net = vit(depth=1, posemb=posemb)
    params = init(net)
    assert run(net, params, images(8))["tokens"].shape == (B, 4, D)
    assert run(net, params, np.ones((1, 8, 24, 3)))["tokens"].shape == (1, 12, D)


def test_interpolation():
    table = np.random.default_rng(0).normal(size=(12, 5))
    np.testing.assert_array_equal(positions.interpolate(table, (3, 4), (3, 4)), table)
    assert_close(positions.interpolate(np.ones((12, 5)), (3, 4), (7, 2)), np.ones((14, 5)))
    # A ramp along the columns stays one, and the same in every row.
    ramp = np.tile(np.arange(8.0), 8)[:, None]
    wide = positions.interpolate(ramp, (8, 8), (8, 16)).reshape(8, 16)
    assert_close(wide[0], wide[5])
    assert_close(np.diff(wide[0, 4:12]), np.full(7, 0.5))


def test_sincos_formula():
    table = positions.sincos2d(8, (3, 4), (3, 4)).reshape(3, 4, 8)
    x, y, f = 3, 2, np.array([1.0, 0.01])
    expected = np.concatenate([np.sin(x * f), np.cos(x * f), np.sin(y * f), np.cos(y * f)])
    assert_close(table[y, x], expected)
    # At half the resolution, a place lies between the two that it covers.
    half = positions.sincos2d(8, (4, 4), (2, 2)).reshape(2, 2, 8)
    assert_close(half[0, 1, :2], np.sin(2.5 * f))


def test_sincos_has_no_position_parameter():
    net = vit(posemb="sincos2d", pool="mean")
    shapes = jax.eval_shape(lambda k: net.init(k, images(), train=False), jax.random.key(0))
    assert set(shapes["params"]) == {"patch_embedding", "transformer", "norm"}


@pytest.mark.parametrize(
    ("side", "kwargs", "message"),
    [
        (18, {}, "divisible by encoder.patch = 4"),
        (16, {"mask": np.zeros((B, T), bool)}, "encoder.mask_token: found False"),
        (16, {"keep": np.ones((B, 3))}, r"found drop-path scales of shape \(3, 3\)"),
        (16, {"capture": ("layer",)}, "capture: found 'layer'.*did you mean 'layers'"),
    ],
)
def test_calls_that_cannot_work(side, kwargs, message):
    net = vit(depth=2)
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(
            lambda k: net.init(k, images(side), train=False, **kwargs), jax.random.key(0)
        )
