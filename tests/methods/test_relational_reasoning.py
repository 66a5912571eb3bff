"""Relational reasoning: its loss from its parts, where the gradient goes, what it refuses."""

import functools

import image_views
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from jaxssl import encoders, heads, losses
from jaxssl.config.errors import ConfigError
from jaxssl.config.naming import fold_name
from jaxssl.data.images import image_fields
from jaxssl.method import Context, Info
from jaxssl.methods import relational_reasoning
from jaxssl.state import example_batch

INFO = Info(
    fields=image_fields((16, 16, 1)),
    num_samples=64,
    num_classes=10,
    steps=10,
    steps_per_epoch=8,
    global_batch=8,
)
KEY = jax.random.key(3)
NOISE = {"global": dict(count=3, size=16, noise=dict(sigma=0.2))}


def config_of(**changes):
    config = experiments.small("relational_reasoning", **{"train.global_batch": 8} | changes)
    with config.unlocked():
        config.views = NOISE
    return config


def batch_of():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1), np.uint8)
    return {"index": jnp.arange(8, dtype=jnp.int32), "image": jnp.asarray(pixels)}


def start(config):
    method = relational_reasoning.build(config, INFO)
    params, extra = jax.jit(method.init)(KEY, example_batch(INFO))
    return method, params, extra


def reference(config, params, extra):
    """The loss, the share of pairs told right, and the statistics of the head."""
    make = image_views.build(config.views, mean=config.data.mean, std=config.data.std)
    images = make(fold_name(KEY, "views"), batch_of())["global"]  # [B, V, h, w, c]
    stats = extra["batch_stats"]["student"]

    def apply(name, module, x):
        variables = {"params": params[name], "batch_stats": stats[name]}
        return module.apply(variables, x, train=True, mutable=["batch_stats"])

    encoder = encoders.build(config.encoder.to_dict(), dtype=jnp.float32)
    relation = heads.build(config.student.relation.to_dict(), dtype=jnp.float32)
    y, _ = apply("encoder", encoder, images.reshape(24, 16, 16, 1))
    z = y["pooled"].reshape(8, 3, -1).swapaxes(0, 1)
    first = [z[a] for a, b in ((0, 1), (0, 2), (1, 2))] * 2
    second = [z[1], z[2], z[2], jnp.roll(z[1], 1, 0), jnp.roll(z[2], 2, 0), jnp.roll(z[2], 3, 0)]
    rows = jnp.concatenate([jnp.concatenate(pair, -1) for pair in zip(first, second)])
    logits, new = apply("relation", relation, rows)
    targets = jnp.repeat(jnp.array([1, 0]), 24)
    loss = losses.sigmoid_focal(logits[:, 0], targets, alpha=0.5)
    right = ((logits[:, 0] > 0) == (targets == 1)).mean()
    return loss, right, new["batch_stats"]


def test_the_loss_is_that_of_all_pairs_in_one_forward_pass():
    config = config_of()
    method, params, extra = start(config)
    loss = jax.jit(method.losses["main"])
    value, aux = loss(Context(params, {}, extra, batch_of(), KEY, jnp.int32(0)))

    expected, right, new = jax.jit(functools.partial(reference, config))(params, extra)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["pair_accuracy"], right, atol=1e-6)
    # Positives and negatives meet in one set of statistics.
    found = aux.extra["batch_stats"]["student"]["relation"]["norm0"]["mean"]
    np.testing.assert_allclose(found, new["norm0"]["mean"], rtol=1e-4, atol=1e-6)


def test_a_head_that_sees_nothing_teaches_the_encoder_nothing():
    config = experiments.without_batch_norm(config_of())
    method, params, extra = start(config)

    @jax.jit
    def grads(params):
        loss = method.losses["main"]
        return jax.grad(lambda p: loss(Context(p, {}, extra, batch_of(), KEY, jnp.int32(0)))[0])(
            params
        )

    assert any(np.any(leaf) for leaf in jax.tree.leaves(grads(params)["encoder"]))
    first = params["relation"]["linear0"]
    relation = {**params["relation"], "linear0": jax.tree.map(jnp.zeros_like, first)}
    blind = grads({**params, "relation": relation})
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(blind["encoder"]))


def test_options_reach_the_loss():
    changes = {"method_options.gamma": 0.0, "method_options.aggregation": "sum"}
    method, params, extra = start(config_of(**changes))
    width = params["encoder"]["conv1"]["kernel"].shape[-1]
    assert params["relation"]["linear0"]["kernel"].shape[0] == width
    shape = jax.eval_shape(
        method.losses["main"], Context(params, {}, extra, batch_of(), KEY, jnp.int32(0))
    )[0]
    assert shape.shape == ()


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"method_options.aggregation": "cut"}, r"method_options\.aggregation.*mean 'cat'"),
        ({"method_options.gama": 2.0}, "did you mean 'gamma'"),
        ({"method_options.alpha": 2.0}, r"method_options\.alpha: found 2\.0"),
        ({"student.relation": None}, r"student\.relation: missing"),
        ({"student.relation.widths": (16, 2)}, r"student\.relation: found 2 outputs, expected 1"),
        ({"student.relatoin": dict(name="linear", width=1)}, "did you mean 'relation'"),
        ({"teachers.ema": dict(rule="ema")}, r"teachers\.ema: 'relational_reasoning' reads no"),
        ({"losses.a": dict(fn="byol")}, r"losses\.a: 'relational_reasoning' reads no losses"),
        ({"views.global.count": 1}, r"views\.global\.count: found 1 view"),
    ],
)
def test_bad_parts_are_refused_in_one_line(changes, text):
    config = experiments.with_changes(config_of(), changes)
    with pytest.raises(ConfigError, match=text) as error:
        relational_reasoning.build(config, INFO)
    assert "\n" not in str(error.value)
