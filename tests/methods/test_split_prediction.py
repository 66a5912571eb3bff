"""Split prediction: what is seen and predicted, the held-out error, what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from jaxssl import losses
from jaxssl.config.errors import ConfigError
from jaxssl.data.images import image_fields
from jaxssl.evals.theory import conditional_independence
from jaxssl.method import Context, Info
from jaxssl.methods import split_prediction
from jaxssl.program import Program
from jaxssl.run.evaluator import Evaluator
from jaxssl.state import example_batch

B = 8
INFO = Info(
    fields=image_fields((16, 16, 1)),
    num_samples=64,
    num_classes=10,
    steps=10,
    steps_per_epoch=8,
    global_batch=B,
)
KEY = jax.random.key(3)


def config_of(**changes):
    config = experiments.small("split_prediction", **{"train.global_batch": B} | changes)
    with config.unlocked():
        config.views = {"global": dict(count=1, size=16)}  # the picture as it is
    return experiments.without_batch_norm(config)


def batch_of(seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (B, 16, 16, 1), np.uint8)
    return {"index": jnp.arange(B, dtype=jnp.int32), "image": jnp.asarray(pixels)}


@functools.lru_cache(maxsize=1)
def started():
    config = config_of()
    method = split_prediction.build(config, INFO)
    params, extra = jax.jit(method.init)(KEY, example_batch(INFO))
    return config, method, params, extra, jax.jit(method.encoders["student"])


def test_the_loss_is_the_error_of_the_output_on_the_hidden_half():
    config, method, params, extra, encode = started()
    out = encode(Context(params, {}, extra, batch_of(), KEY, 0))
    assert out["prediction"].shape == (B, 8 * 16)
    hidden = (batch_of()["image"][:, 8:] / 255 - config.data.mean[0]) / config.data.std[0]
    hidden = np.asarray(hidden).reshape(B, -1)
    expected = ((np.asarray(out["prediction"]) - hidden) ** 2).mean()
    value, _ = jax.jit(method.losses["main"])(
        Context(params, {}, extra, batch_of(), KEY, jnp.int32(0))
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    error, constant = jax.jit(method.readouts["pretext"])(
        Context(params, {}, extra, batch_of(), KEY, 0)
    )["hidden"]
    np.testing.assert_allclose(error, expected, rtol=1e-5)
    np.testing.assert_allclose(constant, hidden.var(axis=0).mean(), rtol=1e-4)


def test_nothing_of_the_hidden_half_is_seen():
    _, _, params, extra, encode = started()
    image = batch_of()["image"]
    out, blank = (
        encode(Context(params, {}, extra, {"image": x}, KEY, 0))
        for x in (image, image.at[:, 8:].set(0))
    )
    other = encode(Context(params, {}, extra, {"image": image.at[:, :8].set(0)}, KEY, 0))
    for name in ("pooled", "prediction", "tokens"):
        np.testing.assert_array_equal(out[name], blank[name])
        assert np.abs(out[name] - other[name]).max() > 1e-3


def test_the_prediction_is_the_conditional_mean_where_it_can_be_any_function():
    """Two contexts, each with two continuations: the best output is between these."""
    output, seen = jnp.zeros((2, 1)), np.array([0, 0, 0, 1, 1])
    hidden = jnp.array([1.0, 1.0, -1.0, 4.0, 2.0])[:, None]
    slope = jax.grad(lambda o: losses.split_error(o[seen], hidden))
    for _ in range(200):
        output = output - slope(output)
    np.testing.assert_allclose(output[:, 0], [1 / 3, 3.0], atol=1e-4)


def test_the_evaluator_reads_both_outputs_and_the_raw_half():
    changes = {"evals.bank": 64, "evals.test": 64, "evals.batch_size": 64, "evals.knn": None}
    with pytest.raises(ConfigError, match=r"labels: found 500, expected at most the bank's 64"):
        Evaluator(Program(config_of(**changes)))
    changes["evals.conditional_independence.labels"] = (20, 60)
    program = Program(config_of(**changes))
    evaluator = Evaluator(program)
    for kind, state in (("trained", program.init()), ("raw_input", None)):
        with jax.set_mesh(program.mesh):
            subject = evaluator.subject(kind, state)
            found = conditional_independence.examine(subject, labels=(20, 60))
        names = {f"{output}_{n}" for output in ("prediction", "pooled") for n in (20, 60)}
        assert set(found) == names and all(0 <= x <= 1 for x in found.values())
    assert found["prediction_60"] == found["pooled_60"] > 0.4  # raw: of one picture for both
    raw = conditional_independence.seen_banks(subject, "pooled", "top")[0].x
    whole = conditional_independence.seen_banks(subject, "pooled", "whole")[0].x
    np.testing.assert_array_equal(raw, whole[:, : 8 * 16])


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"method_options.context": "up"}, r"method_options\.context: found 'up'"),
        ({"method_options.contxt": "top"}, "did you mean 'context'"),
        ({"student.predictor": None}, r"student\.predictor: missing"),
        ({"student.predictor.name": "linear"}, r"predictor\.name: found 'linear', expected 'mlp'"),
        ({"student.decoder": dict(name="mlp")}, r"student\.decoder: no such head"),
        ({"teachers.ema": dict(rule="ema")}, r"teachers\.ema: 'split_prediction' reads no"),
        ({"views.local": dict(count=1, size=8)}, r"views: found the groups"),
        ({"views.global.size": 15}, "side of 15 pixels, expected an even number"),
    ],
)
def test_bad_parts_are_refused_in_one_line(changes, text):
    config = experiments.with_changes(config_of(), changes)
    with pytest.raises(ConfigError, match=text) as error:
        split_prediction.build(config, INFO)
    assert "\n" not in str(error.value)
