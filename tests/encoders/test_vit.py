"""Vision transformer: options change the cost and never the meaning."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import encoders
from jaxssl.config.errors import ConfigError
from jaxssl.encoders import positions

TINY = {"name": "vit", "width": 16, "depth": 2, "heads": 2, "patch": 4, "image_size": 16}
B, T, D, L, H = 3, 16, 16, 2, 2


def vit(dtype=jnp.float32, **fields):
    return encoders.build(TINY | fields, dtype=dtype)


def images(side=16, seed=1):
    return np.float32(np.random.default_rng(seed).normal(size=(B, side, side, 3)))


def init(net, x=None):
    """Parameters, spread out so that no test passes because weights are nearly zero."""
    make = lambda key: net.init(key, images() if x is None else x, train=False)
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
    out = run(net, params, images(), capture=net.captures)
    return net, params, jax.tree.map(np.asarray, out)


@pytest.mark.smoke
def test_outputs(base):
    _, params, out = base
    assert out["pooled"].shape == (B, 2 * D)
    assert out["tokens"].shape == (B, T, D)
    assert out["layers"].shape == (B, L, T, D)
    assert out["class_layers"].shape == (B, L, D)
    assert_close(out["last"][:, 0], out["class_layers"][:, -1], 0)
    assert_close(out["last"][:, 1:], out["layers"][:, -1], 0)
    assert out["attention"].shape == (B, H, T + 3, T + 3)
    assert_close(out["attention"].sum(-1), np.ones((B, H, T + 3)))
    assert_close(out["pooled"][:, D:], out["tokens"].mean(1))
    x, norm = out["layers"][:, -1], params["params"]["norm"]
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
    got = run(scanned, restacked, images(), capture=net.captures)
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


def test_fused_attention_of_an_odd_length_has_a_gradient_on_a_gpu(monkeypatch):
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    # No GPU is here: its compiler is not asked, but all that JAX refuses before that is.
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda _: True)
    monkeypatch.setattr(cudnn, "is_cuda_compute_capability_equal", lambda _: False)
    net = vit(jnp.bfloat16, attention="fused", pool="cls")  # 16 patches and a class token
    net = net.clone(transformer=net.transformer.clone(heads=1))
    params = jax.eval_shape(lambda k: net.init(k, images(), train=False), jax.random.key(0))

    def loss(params):
        return net.apply(params, images(), train=True)["pooled"].astype(jnp.float32).sum()

    lowered = jax.jit(jax.grad(loss)).trace(params).lower(lowering_platforms=("cuda",))
    assert lowered.as_text().count("@__cudnn$fmha") == 2 * L  # forward and backward
    assert f"{B}x18x1x{D}xbf16" in lowered.as_text()


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
    assert_close(dropped[:, 0], dropped[:, 1], 0)
    mixed = run_keep(np.array([[1.0, 0], [1, 1], [0, 0]]))["layers"]
    assert_close(mixed[0, 1], mixed[0, 0], 0)  # sample 0 skips block 1
    assert_close(mixed[0, 0], out["layers"][0, 0])
    assert_close(mixed[1], out["layers"][1])
    assert_close(mixed[2], dropped[2])


@pytest.mark.parametrize("scan", [False, True])
def test_no_blocks_leave_the_patch_embedding(scan):
    net = vit(depth=0, pool="mean", scan=scan)
    params = init(net)
    assert set(params["params"]) == {"patch_embedding", "position_embedding", "norm"}
    out = run(net, params, images(), capture=("last", "layers"))
    linear = params["params"]["patch_embedding"]
    patches = images().reshape(B, 4, 4, 4, 4, 3).swapaxes(2, 3).reshape(B, T, 48)
    expected = patches @ linear["kernel"] + linear["bias"]
    assert_close(out["last"], expected + params["params"]["position_embedding"], 1e-4)
    assert out["layers"].shape == (B, 0, T, D) and net.drop_depth == 0
    with pytest.raises(ConfigError, match=r"encoder\.depth: found 0, .* for attention"):
        run(net, params, images(), capture=("attention",))


@pytest.mark.parametrize("scan", [False, True])
def test_groups_of_views_pass_together_and_see_only_themselves(scan):
    net = vit(pool="cls_mean", registers=2, mask_token=True, layer_scale=0.5, scan=scan)
    params = init(net)
    rng = np.random.default_rng(5)
    large = {
        "x": np.float32(rng.normal(size=(B, 2, 16, 16, 3))),
        "keep": np.float32(rng.uniform(0.5, 2, (B, 2, L))),
        "mask": rng.random((B, 2, T)) < 0.5,
        "tokens": None,
    }
    small = {
        "x": np.float32(rng.normal(size=(B, 3, 8, 8, 3))),
        "keep": np.float32(rng.uniform(0.5, 2, (B, 3, L))),
        "mask": None,
        "tokens": np.argsort(rng.random((B, 3, 4)))[..., :3],
    }
    both = {name: (large[name], small[name]) for name in large}
    together = run(net, params, both.pop("x"), **both, capture=net.captures)
    for group, got in zip((large, small), together):
        flat = {k: a.reshape(-1, *a.shape[2:]) for k, a in group.items() if a is not None}
        alone = run(net, params, flat.pop("x"), **flat, capture=net.captures)
        assert set(got) == set(alone) == {"pooled", "tokens", *net.captures}
        for name, expected in alone.items():
            assert got[name].shape == (B, len(expected) // B, *expected.shape[1:])
            assert_close(got[name].reshape(expected.shape), expected)


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


VIDEO = {"frames": 4, "tubelet": 2, "mask_token": True}
TT = 2 * T  # two steps of time


def clips(frames=4, seed=2):
    return np.float32(np.random.default_rng(seed).normal(size=(B, frames, 16, 16, 3)))


@pytest.fixture(scope="module")
def video():
    """A ViT over boxes of 2 frames, its parameters and its output."""
    net = vit(pool="cls_mean", registers=1, **VIDEO)
    params = init(net, clips())
    return net, params, run(net, params, clips(), capture=net.captures)


def test_video_outputs(video):
    _, params, out = video
    assert out["pooled"].shape == (B, 2 * D) and out["tokens"].shape == (B, TT, D)
    assert out["layers"].shape == (B, L, TT, D) and out["last"].shape == (B, 1 + TT, D)
    assert out["attention"].shape == (B, H, TT + 2, TT + 2)
    own = params["params"]
    assert own["position_embedding"].shape == (1 + T, D)  # as of images: they can start it
    assert own["temporal_embedding"].shape == (2, D)
    assert own["patch_embedding"]["kernel"].shape == (2 * 4 * 4 * 3, D)


def test_boxes_are_ordered_by_time_then_row_then_column():
    net = vit(depth=0, pool="mean", frames=4, tubelet=2)
    params = init(net, clips())
    out = run(net, params, clips(), capture=("last",))["last"].reshape(B, 2, 4, 4, D)
    own = params["params"]
    box = clips()[:, 2:4, 4:8, 12:16].reshape(B, -1)  # time 1, row 1, column 3
    place = own["temporal_embedding"][1] + own["position_embedding"][1 * 4 + 3]
    kernel, bias = own["patch_embedding"]["kernel"], own["patch_embedding"]["bias"]
    assert_close(out[:, 1, 1, 3], box @ kernel + bias + place, 1e-4)


@pytest.mark.parametrize("posemb", ["learned", "sincos2d"])
def test_a_clip_of_one_frame_is_its_image(posemb):
    net = vit(posemb=posemb)
    params = init(net)
    still = run(net, params, images())
    moving = run(vit(posemb=posemb, frames=1, tubelet=1), params, images()[:, None])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), moving, still)


def test_all_boxes_kept_equals_none_and_dropped_ones_are_not_seen(video):
    net, params, out = video
    every = np.tile(np.arange(TT), (B, 1))
    got = run(net, params, clips(), tokens=every)
    assert_close(got["tokens"], out["tokens"], 1e-4)
    assert_close(got["pooled"], out["pooled"], 1e-4)
    second = np.tile(np.arange(T, TT), (B, 1))  # the second step of time
    kept = run(net, params, clips(), tokens=second)
    changed = clips()
    changed[:, :2] += 9
    assert kept["tokens"].shape == (B, T, D)
    assert_close(run(net, params, changed, tokens=second)["pooled"], kept["pooled"])
    mask = np.tile(np.arange(TT) < T, (B, 1))
    hidden = run(net, params, clips(), mask=mask)
    assert_close(run(net, params, changed, mask=mask)["tokens"], hidden["tokens"])
    assert np.abs(hidden["tokens"] - out["tokens"]).max() > 0.1


def test_time_and_its_positions_reversed_change_the_order_alone(video):
    _, params, _ = video
    net = vit(pool="cls_mean", registers=1, mask_token=True, frames=2)
    own = params["params"]
    half = own["patch_embedding"] | {"kernel": own["patch_embedding"]["kernel"][:48]}
    params = {"params": own | {"patch_embedding": half}}
    back = own | {"patch_embedding": half, "temporal_embedding": own["temporal_embedding"][::-1]}
    forth = run(net, params, clips(2))
    got = run(net, {"params": back}, clips(2)[:, ::-1])
    assert_close(got["pooled"], forth["pooled"], 1e-4)
    swapped = forth["tokens"].reshape(B, 2, T, D)[:, ::-1].reshape(B, TT, D)
    assert_close(got["tokens"], swapped, 1e-4)


@pytest.mark.parametrize("posemb", ["learned", "sincos3d"])
def test_clips_of_another_height_and_width(posemb):
    net = vit(depth=1, posemb=posemb, frames=2)
    make = lambda key, x: net.init_with_output(key, x, train=False)
    assert jax.eval_shape(make, jax.random.key(0), np.ones((1, 2, 8, 24, 3)))[0][
        "tokens"
    ].shape == (1, 24, D)
    with pytest.raises(ConfigError, match=r"expected \[B, 2, H, W, C\]"):
        jax.eval_shape(make, jax.random.key(0), np.ones((1, 4, 16, 16, 3)))
    with pytest.raises(ConfigError, match=r"found images of shape \(1, 16, 16, 3\)"):
        jax.eval_shape(make, jax.random.key(0), np.ones((1, 16, 16, 3)))


def test_sincos3d_formula():
    table = positions.sincos3d(14, (2, 3, 4), (2, 3, 4)).reshape(2, 3, 4, 14)
    x, y, z, f = 3, 2, 1, np.array([1.0, 0.01])
    waves = [wave(place * f) for place in (x, y, z) for wave in (np.sin, np.cos)]
    assert_close(table[z, y, x], np.concatenate([*waves, [0, 0]]))
    half = positions.sincos3d(14, (2, 4, 4), (2, 2, 2)).reshape(2, 2, 2, 14)
    assert_close(half[1, 0, 1, :2], np.sin(2.5 * f))  # columns closer, time as it was
    assert_close(half[1, 0, 1, 8:10], np.sin(1.0 * f))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"frames": 3, "tubelet": 2}, "encoder.tubelet: found 2, expected a divisor of frames = 3"),
        ({"frames": 0}, "encoder.frames: .*positive integer"),
        ({"frames": 2, "posemb": "sincos2d"}, "encoder.posemb: .*'sincos3d' for frames = 2"),
        ({"posemb": "sincos3d"}, "encoder.posemb: .*'sincos2d' for frames = 1"),
        ({"depth": -1}, "encoder.depth: found -1, expected a whole number >= 0"),
    ],
)
def test_fields_that_do_not_fit(fields, message):
    with pytest.raises(ConfigError, match=message):
        vit(**fields)
