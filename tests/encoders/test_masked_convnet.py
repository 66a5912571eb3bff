"""The masked residual U-Net: what hidden blocks may touch, its norm, its decoder, its errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import encoders, heads
from jaxssl.config.errors import ConfigError
from jaxssl.encoders.residual_unet import InstanceNorm, visibility, visible_mean

# Strides 1, 2, 4, 8 on cells of 4 pixels: the last map is coarser than the mask.
NET = dict(name="residual_unet", widths=(4, 6, 6, 8), blocks=(1, 2, 1, 1), dims=2, unit=4)
HEAD = dict(name="unet_decoder", channels=1, unit=4)
RNG = np.random.default_rng(0)
X = np.float32(RNG.normal(size=(2, 16, 16, 1)))
MASK = np.stack([RNG.permutation(16) < 10 for _ in range(2)])
VOLUME = np.float32(RNG.normal(size=(2, 8, 8, 8, 1)))


def draw(shapes):
    """Values of which none is zero or idle."""
    rng = np.random.default_rng(1)

    def value(path, leaf):
        scale = np.prod(leaf.shape[:-1]) ** -0.5 if leaf.ndim > 1 else 0.3
        return np.float32(rng.normal(0, scale, leaf.shape) + (path[-1].key == "scale"))

    return jax.tree_util.tree_map_with_path(value, shapes)


@functools.cache
def make(sparse=True, dims=2):
    fields = dict(sparse=sparse, dims=dims)
    if dims == 3:
        fields |= dict(widths=(4, 6), blocks=(1, 1))
    net = encoders.build(NET | fields, dtype=jnp.float32)
    x = X if dims == 2 else VOLUME
    return net, draw(jax.eval_shape(lambda k: net.init(k, x, train=False), jax.random.key(0)))


@functools.partial(jax.jit, static_argnums=0)
def encode(net, variables, x, mask=None):
    return net.apply(variables, x, train=False, mask=mask, capture=("stages",))


@functools.cache
def decoder(**fields):
    head = heads.build(HEAD | fields, dtype=jnp.float32)
    stages = encode(*make(), X)["stages"]
    return head, draw(
        jax.eval_shape(lambda k: head.init(k, stages, train=False), jax.random.key(0))
    )


@functools.partial(jax.jit, static_argnums=0)
def decode(head, variables, x, mask=None):
    return head.apply(variables, x, train=False, mask=mask)


def hidden(size):
    """[2, size, size]: where a map of this size is hidden, by MASK repeated."""
    if size < 4:
        return np.zeros((2, size, size), bool)
    return MASK.reshape(2, 4, 4).repeat(size // 4, 1).repeat(size // 4, 2)


def test_the_mask_is_repeated_over_finer_maps_and_absent_on_coarser_ones():
    for size in (4, 8, 16):
        np.testing.assert_array_equal(visibility(MASK, (4, 4), (size, size))[..., 0], ~hidden(size))
    assert visibility(MASK, (4, 4), (2, 2)) is None
    cells = RNG.random((1, 1000)) < 0.5
    seen = np.asarray(visibility(cells, (10, 10, 10), (40, 40, 40)))
    blocks = seen.reshape(10, 4, 10, 4, 10, 4)
    np.testing.assert_array_equal(
        blocks, np.broadcast_to(blocks[:, :1, :, :1, :, :1], blocks.shape)
    )
    np.testing.assert_array_equal(~blocks[:, 0, :, 0, :, 0].ravel(), cells[0])
    assert visibility(cells, (10, 10, 10), (5, 5, 5)) is None


def test_instance_norm_is_over_the_visible_places():
    x = np.float32(RNG.normal(3, 2, (2, 8, 8, 5)))
    norm = InstanceNorm()
    variables = {"params": {"scale": np.ones(5, np.float32), "bias": np.full(5, 0.5, np.float32)}}
    seen = ~hidden(8)
    y = np.asarray(norm.apply(variables, x, seen[..., None]))
    assert not y[~seen].any()
    for sample, places in zip(y, seen):
        np.testing.assert_allclose(sample[places].mean(0), 0.5, atol=1e-5)
        np.testing.assert_allclose(sample[places].var(0), 1, atol=1e-4)
    # What is hidden has no say.
    other = np.where(seen[..., None], x, 100.0)
    np.testing.assert_allclose(norm.apply(variables, other, seen[..., None]), y, atol=1e-5)
    plain = (x - x.mean((1, 2), keepdims=True)) / x.std((1, 2), keepdims=True) + 0.5
    everywhere = np.ones_like(seen)[..., None]
    np.testing.assert_allclose(norm.apply(variables, x, everywhere), plain, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(norm.apply(variables, x), plain, rtol=1e-3, atol=1e-4)


def test_nothing_visible_gives_zeros_and_finite_gradients():
    x, nowhere = X[:, :4, :4], np.zeros((2, 4, 4, 1), bool)
    norm = InstanceNorm()
    variables = {"params": {"scale": np.ones(1, np.float32), "bias": np.ones(1, np.float32)}}
    assert not np.asarray(norm.apply(variables, x, nowhere)).any()
    assert not np.asarray(visible_mean(x, nowhere)).any()
    grad = jax.grad(lambda x: norm.apply(variables, x, nowhere).sum())(x)
    assert np.isfinite(grad).all()


@pytest.mark.smoke
def test_sparse_maps_are_zero_at_hidden_places_and_dense_ones_are_not():
    sparse = encode(*make(), X, MASK)["stages"]
    dense = encode(*make(sparse=False), X, MASK)["stages"]
    assert [y.shape for y in sparse] == [(2, 16, 16, 4), (2, 8, 8, 6), (2, 4, 4, 6), (2, 2, 2, 8)]
    for level, (a, b) in enumerate(zip(sparse, dense)):
        places = hidden(a.shape[1])
        assert not np.asarray(a)[places].any()
        assert np.asarray(a)[~places].any(-1).all()
        assert level == 3 or np.abs(np.asarray(b)[places]).max() > 1e-2


@pytest.mark.parametrize("sparse", [True, False])
def test_hidden_pixels_reach_nothing(sparse):
    net, variables = make(sparse)
    out = encode(net, variables, X, MASK)
    other = np.where(hidden(16)[..., None], np.float32(50.0), X)
    jax.tree.map(np.testing.assert_array_equal, encode(net, variables, other, MASK), out)

    def total(x):
        found = net.apply(variables, x, train=True, mask=MASK)
        return jnp.sin(found["tokens"]).sum() + jnp.sin(found["pooled"]).sum()

    grad = np.asarray(jax.jit(jax.grad(total))(X))[..., 0]
    assert not grad[hidden(16)].any()
    assert np.abs(grad[~hidden(16)]).max() > 1e-4


def test_hiding_nothing_is_no_mask_bit_for_bit():
    for sparse in (True, False):
        net, variables = make(sparse)
        none = encode(net, variables, X)
        nothing = encode(net, variables, X, np.zeros_like(MASK))
        jax.tree.map(np.testing.assert_array_equal, nothing, none)
    jax.tree.map(np.testing.assert_array_equal, none, encode(*make(), X))


def test_tokens_and_pooled_are_of_the_last_map():
    net = encoders.build(NET | dict(widths=(4, 8), blocks=(1, 1)), dtype=jnp.float32)
    shapes = jax.eval_shape(lambda key: net.init(key, X, train=False), jax.random.key(0))
    out = encode(net, draw(shapes), X, MASK)
    last = np.asarray(out["stages"][-1])
    np.testing.assert_array_equal(out["tokens"], last.reshape(2, 64, 8))
    means = [y[~places].mean(0) for y, places in zip(last, hidden(8))]
    np.testing.assert_allclose(out["pooled"], means, rtol=1e-4, atol=1e-5)


def test_any_share_of_hidden_cells_runs_in_one_program():
    net, variables = make()
    traces = []

    @jax.jit
    def run(mask):
        traces.append(1)
        return net.apply(variables, X, train=False, mask=mask)["pooled"]

    outs = [run(np.arange(32).reshape(2, 16) % 16 < n) for n in (0, 9, 14)]
    assert len(traces) == 1
    assert np.abs(outs[0] - outs[1]).max() > 1e-3


def test_volumes_and_bfloat16():
    net, variables = make(dims=3)
    mask = np.arange(16).reshape(2, 8) % 2 == 0
    out = encode(net.clone(dtype=jnp.bfloat16), variables, VOLUME, mask)
    assert out["pooled"].shape == (2, 6)
    assert out["tokens"].shape == (2, 64, 6)
    assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {jnp.dtype("bfloat16")}
    places = mask.reshape(2, 2, 2, 2).repeat(4, 1).repeat(4, 2).repeat(4, 3)
    assert not np.asarray(out["stages"][0])[places].any()
    head = heads.build(HEAD, dtype=jnp.float32)
    init = lambda key: head.init_with_output(key, out["stages"], train=False, mask=mask)
    image, made = jax.eval_shape(init, jax.random.key(0))
    assert image.shape == (2, 8, 64)
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype("float32")}


def test_the_decoder_gives_the_cells_of_the_image_row_by_row():
    head = heads.build(HEAD | dict(densify=False), dtype=jnp.float32)
    identity = {"params": {"image": {"kernel": np.ones((1, 1)), "bias": np.zeros(1)}}}
    got = np.asarray(head.apply(identity, (X,), train=False))
    assert got.shape == (2, 16, 16)
    np.testing.assert_array_equal(got[:, 0], X[:, :4, :4, 0].reshape(2, 16))
    np.testing.assert_array_equal(got[:, 1], X[:, :4, 4:8, 0].reshape(2, 16))
    np.testing.assert_array_equal(got[:, 4], X[:, 4:8, :4, 0].reshape(2, 16))
    got = np.asarray(head.apply(identity, (VOLUME,), train=False))
    np.testing.assert_array_equal(got[:, 1], VOLUME[:, :4, :4, 4:8, 0].reshape(2, 64))
    np.testing.assert_array_equal(got[:, 4], VOLUME[:, 4:8, :4, :4, 0].reshape(2, 64))


def test_hidden_places_of_each_skip_are_filled_by_its_token():
    head, variables = decoder()
    params = variables["params"]
    # One token per level at which places can hide; the finest skip has no convolution.
    assert {n for n in params if n.startswith("mask_token")} == {f"mask_token{i}" for i in range(3)}
    assert "skip_conv0" not in params and "skip_conv1" in params
    stages = encode(*make(), X, MASK)["stages"]
    got = decode(head, variables, stages, MASK)
    assert got.shape == (2, 16, 16)
    noisy = [
        np.where(hidden(y.shape[1])[..., None], np.float32(7.0), np.asarray(y)) for y in stages
    ]
    again = decode(head, variables, tuple(noisy), MASK)
    np.testing.assert_allclose(again, got, rtol=1e-3, atol=1e-3)
    for level in range(3):
        name = f"mask_token{level}"
        other = {"params": params | {name: params[name] + 1}}
        assert np.abs(decode(head, other, stages, MASK) - got).max() > 1e-3


def test_without_hidden_places_the_tokens_are_unused():
    head, variables = decoder()
    stages = encode(*make(), X)["stages"]
    got = decode(head, variables, stages)
    nothing = decode(head, variables, stages, np.zeros_like(MASK))
    np.testing.assert_allclose(nothing, got, rtol=1e-4, atol=1e-4)
    zero = {n: 0 * v if n.startswith("mask_token") else v for n, v in variables["params"].items()}
    np.testing.assert_array_equal(decode(head, {"params": zero}, stages), got)


def test_plain_skips_on_request():
    head, variables = decoder(densify=False)
    names = set(variables["params"])
    assert not {n for n in names if n.startswith(("mask_token", "skip_"))}
    stages = encode(*make(sparse=False), X, MASK)["stages"]
    got = decode(head, variables, stages, MASK)
    np.testing.assert_array_equal(got, decode(head, variables, stages))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(unit=6), "encoder.unit: found 6, expected a multiple of the stride 4"),
        (dict(dims=4), "encoder.dims: found 4, expected 2 or 3"),
        (dict(blocks=(1, 1)), "encoder.blocks: found 2 values, expected 4"),
        (dict(widths=()), "encoder.widths: found"),
        (dict(units=4), "encoder.units: .*did you mean 'unit'"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        encoders.build(NET | fields, dtype=jnp.float32)


@pytest.mark.parametrize(
    ("x", "call", "message"),
    [
        (X[:, :12], {}, r"found input of shape \(2, 12, 16, 1\).* divisible by 8"),
        (VOLUME, {}, r"found input of shape .*expected \[B, H, W, C\]"),
        (X, dict(mask=MASK[:, :9]), r"found a mask of shape \(2, 9\), expected \(2, 16\)"),
        (X, dict(keep=np.ones((2, 3))), "found drop-path scales"),
        (X, dict(capture=("stage",)), "did you mean 'stages'"),
    ],
)
def test_what_the_encoder_cannot_take_is_refused(x, call, message):
    net, variables = make()
    with pytest.raises(ConfigError, match=f"encoder: .*{message}"):
        net.apply(variables, x, train=False, **call)


@pytest.mark.parametrize(
    ("fields", "maps", "mask", "message"),
    [
        ({}, X, None, r"found maps \[\], expected the tuple 'stages'"),
        ({}, (X, X[:, :6, :6]), None, "a multiple of the next map's"),
        (dict(unit=3), (X,), None, "unet_decoder.unit: found 3, expected a divisor"),
        ({}, (X,), MASK[:, :3], r"found a mask of shape \(2, 3\), expected \(2, 16\)"),
    ],
)
def test_what_the_decoder_cannot_take_is_refused(fields, maps, mask, message):
    head = heads.build(HEAD | fields, dtype=jnp.float32)
    with pytest.raises(ConfigError, match=message):
        head.apply({"params": {}}, maps, train=False, mask=mask)
