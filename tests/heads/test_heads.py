"""Heads: what each field does, and what is wrong in a config."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import heads
from jaxssl.config.errors import ConfigError

X = np.float32(np.random.default_rng(1).normal(1, 3, size=(32, 6)))


def make(dtype=jnp.float32, **fields):
    head = heads.build({"name": "mlp", "widths": (8, 4)} | fields, dtype=dtype)
    shapes = jax.eval_shape(lambda key: head.init(key, X, train=False), jax.random.key(0))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: np.float32(rng.normal(size=leaf.shape)), shapes)
    for stats in variables.get("batch_stats", {}).values():
        stats |= {"mean": np.zeros_like(stats["mean"]), "var": np.ones_like(stats["var"])}
    return head, variables


@functools.partial(jax.jit, static_argnums=0)
def evaluate(head, variables, x):
    return head.apply(variables, x, train=False)


@functools.partial(jax.jit, static_argnums=0)
def train(head, variables, x):
    return head.apply(variables, x, train=True, mutable=["batch_stats"])


@pytest.mark.smoke
def test_mlp_without_norm_is_its_formula():
    head, variables = make(norm="none")
    first, last = variables["params"]["linear0"], variables["params"]["linear1"]
    first["bias"], last["bias"] = np.full(8, 0.5, np.float32), np.full(4, -0.25, np.float32)
    hidden = np.maximum(X @ first["kernel"] + 0.5, 0)
    got, _ = train(head, variables, X)
    np.testing.assert_allclose(got, hidden @ last["kernel"] - 0.25, rtol=1e-4, atol=1e-5)


def test_biases_stand_only_where_no_batch_norm_follows():

    def biases(**fields):
        head = heads.build({"name": "mlp", "widths": (8, 4)} | fields, dtype=jnp.float32)
        init = lambda key: head.init(key, X, train=False)["params"]
        params = jax.eval_shape(init, jax.random.key(0))
        return ["bias" in params[name] for name in ("linear0", "linear1")]

    assert biases() == [False, True]
    assert biases(last_bias=False) == [False, False]
    assert biases(last_norm=True) == [False, False]
    assert biases(norm="layer", last_norm=True) == [True, True]
    assert biases(norm="none") == [True, True]


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_last_norm_without_affine(norm):
    head, variables = make(norm=norm, last_norm=True, last_affine=False)
    assert "norm1" not in variables["params"]
    out, _ = train(head, variables, X)
    axis = 0 if norm == "batch" else 1
    np.testing.assert_allclose(out.mean(axis), 0, atol=1e-5)
    np.testing.assert_allclose(out.std(axis), 1, atol=1e-2)
    assert set(make(norm=norm, last_norm=True)[1]["params"]["norm1"]) == {"scale", "bias"}


def test_running_statistics_are_used_in_evaluation():
    head, variables = make()
    alone = evaluate(head, variables, X[:2])
    np.testing.assert_allclose(evaluate(head, variables, X)[:2], alone, atol=1e-5)
    _, updates = train(head, variables, X)
    expected = 0.1 * (X @ variables["params"]["linear0"]["kernel"]).mean(0)
    np.testing.assert_allclose(updates["batch_stats"]["norm0"]["mean"], expected, rtol=1e-4)


def test_leading_axes_share_the_statistics():
    head, variables = make()
    flat, _ = train(head, variables, X)
    views, _ = train(head, variables, X.reshape(4, 8, 6))
    np.testing.assert_allclose(views.reshape(32, 4), flat, rtol=1e-4, atol=1e-5)


def test_gelu_is_the_exact_one():
    head = heads.build(
        {"name": "mlp", "norm": "none", "activation": "gelu", "widths": (1, 1)}, dtype=jnp.float32
    )
    one = {"bias": np.zeros(1)}
    params = {
        "linear0": {"kernel": np.ones((6, 1)), **one},
        "linear1": {"kernel": np.ones((1, 1)), **one},
    }
    got = evaluate(head, {"params": params}, np.eye(1, 6))
    np.testing.assert_allclose(got, [[0.8413447]], rtol=1e-6)  # 1 * P(normal < 1)


def test_bfloat16_output_and_float32_parameters():
    head, variables = make(jnp.bfloat16)
    assert evaluate(head, variables, X).dtype == jnp.bfloat16
    shapes = jax.eval_shape(lambda key: head.init(key, X, train=False), jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}


def test_linear():
    head = heads.build({"name": "linear", "width": 3, "bias": False}, dtype=jnp.float32)
    out, variables = head.init_with_output(jax.random.key(0), X, train=False)
    np.testing.assert_allclose(
        out, X @ variables["params"]["linear"]["kernel"], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "mpl"}, "student.predictor.name: found 'mpl'.*did you mean 'mlp'"),
        ({"name": "mlp"}, "student.predictor.widths: missing; 'mlp' needs it"),
        ({"name": "mlp", "width": (8,)}, "student.predictor.width: .*did you mean 'widths'"),
        ({"name": "mlp", "widths": ()}, "student.predictor.widths: .*at least one positive"),
        ({"name": "mlp", "widths": (8,), "norm": "bach"}, "student.predictor.norm: .*'batch'"),
        ({"name": "mlp", "widths": (8,), "activation": "elu"}, "student.predictor.activation"),
        (
            {"name": "mlp", "widths": (8,), "norm": "none", "last_norm": True},
            "student.predictor.last_norm: found True",
        ),
        ({"name": "linear", "width": 0}, "student.predictor.width: found"),
    ],
)
def test_errors_name_the_field(config, message):
    with pytest.raises(ConfigError, match=message):
        heads.build(config, dtype=jnp.float32, field="student.predictor")
