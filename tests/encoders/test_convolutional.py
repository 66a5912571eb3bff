"""ConvNet, ResNet and ConvNeXt: statistics, drop-path, shapes, precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import encoders
from jaxssl.config.errors import ConfigError
from jaxssl.encoders.convnext import GlobalResponseNorm
from jaxssl.encoders.resnet import ResBlock

NETS = {
    "convnet": {"name": "convnet", "widths": (8, 16), "strides": (1, 2)},
    "resnet": {"name": "resnet", "depth": 18, "stem": "cifar"},
    "convnext": {"name": "convnext", "version": 1, "blocks": (1, 1), "width": 8, "patch": 2},
    "convnext2": {"name": "convnext", "version": 2, "blocks": (1, 1), "width": 8, "patch": 2},
}
X = np.float32(np.random.default_rng(1).normal(size=(4, 8, 8, 3)))


def make(name, dtype=jnp.float32, **fields):
    """A network narrow enough for a test, and variables of which none is zero or idle."""
    net = encoders.build(NETS[name] | fields, dtype=dtype)
    if name == "resnet":
        net = net.clone(width=8, blocks=(1, 1))
    shapes = jax.eval_shape(lambda key: net.init(key, X, train=True), jax.random.key(0))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key in ("mean", "var"):
            return np.full(leaf.shape, path[-1].key == "var", np.float32)
        scale = np.prod(leaf.shape[:-1]) ** -0.5 if leaf.ndim > 1 else 0.3
        return np.float32(rng.normal(0, scale, leaf.shape) + (path[-1].key == "scale"))

    return net, jax.tree_util.tree_map_with_path(draw, shapes)


@functools.partial(jax.jit, static_argnums=0, static_argnames="capture")
def evaluate(net, variables, x, keep=None, capture=()):
    return net.apply(variables, x, train=False, keep=keep, capture=capture)


@functools.partial(jax.jit, static_argnums=0)
def train(net, variables, x):
    return net.apply(variables, x, train=True, mutable=["batch_stats"])


@pytest.mark.parametrize("name", NETS)
def test_outputs_and_bfloat16(name):
    net, variables = make(name)
    out = evaluate(net, variables, X, capture=("stages",))
    last = out["stages"][-1]
    assert out["tokens"].shape == (4, last.shape[1] * last.shape[2], 16)
    np.testing.assert_array_equal(out["tokens"], last.reshape(4, -1, 16))
    if not name.startswith("convnext"):
        np.testing.assert_allclose(out["pooled"], last.mean((1, 2)), atol=1e-6)
    half = evaluate(net.clone(dtype=jnp.bfloat16), variables, X)["pooled"]
    assert half.dtype == jnp.bfloat16
    shapes = jax.eval_shape(
        lambda key: net.clone(dtype=jnp.bfloat16).init(key, X, train=True), jax.random.key(0)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    scale = np.abs(out["pooled"]).max()
    assert np.abs(np.float32(half) - out["pooled"]).max() < 0.05 * scale


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["convnet", "resnet"])
def test_batch_norm_statistics(name):
    net, variables = make(name)
    pooled = lambda v, x: np.asarray(evaluate(net, v, x)["pooled"])
    # Evaluation uses the running statistics: a sample's output does not depend on its batch.
    np.testing.assert_allclose(pooled(variables, X)[:2], pooled(variables, X[:2]), atol=1e-5)
    trained, updates = train(net, variables, X)
    alone, _ = train(net, variables, X[:2])
    assert np.abs(trained["pooled"][:2] - alone["pooled"]).max() > 1e-3
    # Training moves them by a tenth towards the batch's.
    first = {"convnet": "norm0", "resnet": "stem_norm"}[name]
    kernel = variables["params"][{"convnet": "conv0", "resnet": "stem_conv"}[name]]["kernel"]
    x = X
    if name == "convnet":
        x = X.reshape(4, 4, 2, 4, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(4, 4, 4, 12)
    patches = np.lib.stride_tricks.sliding_window_view(
        np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), axis=(1, 2)
    )
    y = np.einsum("bhwcij,ijcd->bhwd", patches, kernel)
    stats = updates["batch_stats"][first]
    np.testing.assert_allclose(stats["mean"], 0.1 * y.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * y.var((0, 1, 2)), atol=1e-5)
    moved = pooled({"params": variables["params"], **updates}, X)
    assert np.abs(moved - pooled(variables, X)).max() > 1e-3


@pytest.mark.parametrize("norm", ["group", "none"])
def test_convnet_without_batch_norm_treats_samples_alone(norm):
    net, variables = make("convnet", norm=norm)
    assert set(variables) == {"params"}
    assert ("bias" in variables["params"]["conv0"]) == (norm == "none")
    out = train(net, variables, X)[0]["pooled"]
    np.testing.assert_allclose(out[:1], train(net, variables, X[:1])[0]["pooled"], atol=1e-5)


def test_no_bias_before_batch_norm():
    _, variables = make("convnet")
    assert set(variables["params"]["conv1"]) == {"kernel"}


@pytest.mark.parametrize("zero", [True, False])
def test_residual_branches_start_at_zero_on_request(zero):
    block = ResBlock(8, 1, False, zero, jnp.float32)
    x = np.abs(X[..., :1]) * np.ones(8, np.float32)
    init = lambda key: block.init_with_output(key, x, False, None)
    out, variables = jax.jit(init)(jax.random.key(0))
    assert np.array_equal(out, x) == zero
    assert np.all(variables["params"]["norm0"]["scale"])


@pytest.mark.parametrize("name", ["resnet", "convnext", "convnext2"])
def test_drop_path_is_per_sample(name):
    net, variables = make(name)
    pooled = lambda keep: np.asarray(evaluate(net, variables, X, keep)["pooled"])
    keep = np.array([[1], [0], [1], [1]]) * np.ones(net.drop_depth)
    full, mixed = pooled(np.ones_like(keep)), pooled(keep)
    np.testing.assert_allclose(mixed[[0, 2, 3]], full[[0, 2, 3]], atol=1e-4)
    assert np.abs(mixed[1] - full[1]).max() > 1e-2
    np.testing.assert_allclose(mixed[1], pooled(np.zeros_like(keep))[1], atol=1e-4)


def test_global_response_norm():
    """A channel's response is its L2 norm over the places, relative to the mean channel's."""
    grn = GlobalResponseNorm(jnp.float32)
    x = np.float32(np.random.default_rng(0).normal(size=(2, 3, 3, 4)))
    np.testing.assert_allclose(
        grn.apply({"params": {"scale": np.zeros(4), "bias": np.zeros(4)}}, x), x
    )
    scale, bias = np.array([0.5, 1, 2, 0], np.float32), np.array([0, 1, 0, 0], np.float32)
    g = np.linalg.norm(x.reshape(2, 9, 4), axis=1)
    response = (g / g.mean(-1, keepdims=True))[:, None, None]
    apply = jax.jit(lambda x: grn.apply({"params": {"scale": scale, "bias": bias}}, x))
    got = apply(x)
    np.testing.assert_allclose(got, x * (1 + scale * response) + bias, rtol=1e-4, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda x: apply(x).sum()))
    assert np.isfinite(gradient(np.zeros_like(x))).all()


@pytest.mark.parametrize(
    ("name", "shape", "kwargs", "message"),
    [
        ("convnet", (4, 7, 8, 3), {}, "H and W divisible by 2"),
        ("convnext", (4, 9, 9, 3), {}, "H and W divisible by 2"),
        ("resnet", (4, 8, 8), {}, r"expected \[B, H, W, C\]"),
        ("convnet", (4, 8, 8, 3), {"keep": jnp.ones((4, 2))}, r"expected \(4, 0\)"),
        ("resnet", (4, 8, 8, 3), {"capture": ("attention",)}, "expected 'stages'"),
    ],
)
def test_calls_that_cannot_work(name, shape, kwargs, message):
    net = encoders.build(NETS[name], dtype=jnp.float32)
    x = jnp.zeros(shape)
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(lambda k: net.init(k, x, train=False, **kwargs), jax.random.key(0))
