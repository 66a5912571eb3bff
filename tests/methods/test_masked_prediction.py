"""The wiring of masked prediction: what is hidden stays hidden, and what a constant would reach."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from jaxssl import losses
from jaxssl.config.errors import ConfigError
from jaxssl.method import Context
from jaxssl.methods.composed import terms
from jaxssl.methods.composed.arguments import MaskArgument, Ref, Scene
from jaxssl.program import Program


def term(fn, **arguments):
    ref = Ref("", "out", ("all",))
    return terms.Term(
        "t", fn, ref, Ref("input", "pixels", ("all",)), "same", None, arguments, 0, None
    )


def scene(student, target, **blocks):
    """Of one group of views: student and target [B, V, ...]."""
    outputs = {("", "out"): {"all": student}, ("input", "pixels"): {"all": target}}
    ids = {"all": tuple(range(student.shape[1]))}
    key = jax.random.key(0)
    return Scene(outputs, ids, {}, {}, jnp.int32(0), lambda n, x: x, {}, key, {"all": blocks})


def test_each_view_has_its_own_mask_and_the_best_constant_is_the_mean_of_what_is_hidden():
    target = jax.random.normal(jax.random.key(1), (3, 2, 5, 4))
    mask = jax.random.bernoulli(jax.random.key(2), 0.5, (3, 2, 5))
    found = scene(jnp.zeros_like(target), target, mask=mask)
    one = term(losses.mae, mask=MaskArgument("mask", ("all",)), normalize_target=False)
    expected = np.mean(
        [
            losses.mae(0 * target[:, v], target[:, v], mask[:, v], normalize_target=False)
            for v in (0, 1)
        ]
    )
    np.testing.assert_allclose(terms.value_of(one, found, {}), expected, rtol=1e-6)

    hidden = np.asarray(target)[np.asarray(mask)]
    weights = np.concatenate([np.full(mask[:, v].sum(), 1 / mask[:, v].sum()) for v in (0, 1)])
    rows = np.concatenate([np.asarray(target[:, v])[np.asarray(mask[:, v])] for v in (0, 1)])
    best = (weights[:, None] * rows).sum(0) / 2
    least = (weights[:, None] * (rows - best) ** 2).sum() / 2 / hidden.shape[1]
    np.testing.assert_allclose(terms.constant(one, found, {}), least, rtol=1e-3)


@pytest.fixture(scope="module")
def program():
    return Program(experiments.small("mae"), devices=jax.devices()[:1])


def test_the_encoder_computes_on_the_kept_patches_alone_and_the_decoder_on_all(program):
    seen = {}

    def watch(call, args, kwargs, context):
        name = type(context.module).__name__
        if context.method_name == "__call__" and name in ("Transformer", "Decoder"):
            seen.setdefault(name, []).append(args[0].shape[1])
        return call(*args, **kwargs)

    args = program.shapes.params, {}, program.shapes.extra, program.abstract_batch()
    with jax.set_mesh(program.mesh), nn.intercept_methods(watch):
        loss = program.method.losses["main"]
        jax.eval_shape(loss, Context(*args, jax.random.key(0), program.shapes.step))
    assert seen == {"Transformer": [4, 16], "Decoder": [4]}


def test_the_pretext_is_evaluated_beside_the_best_constant(program):
    state, batch = program.init(), next(program.batches(0))
    with jax.set_mesh(program.mesh):
        args = state.params, {}, state.extra, batch, jax.random.key(0), state.step
        error, constant = jax.jit(program.method.readouts["pretext"])(Context(*args))["pixels"]
    assert constant < 1.0 < error  # standardised patches have a variance of one, or less where flat


def test_pictures_show_the_clean_view_what_was_seen_and_the_prediction(program):
    state, batch = program.init(), next(program.batches(0))
    pictures = program.method.pictures["prediction of pixels"]
    with jax.set_mesh(program.mesh):
        args = state.params, {}, state.extra, batch, jax.random.key(0), state.step
        shown = jax.jit(pictures)(Context(*args))
    assert list(shown) == ["clean", "seen", "predicted"]
    images = np.stack(list(shown.values()), 1)
    assert images.shape == (32, 3, 16, 16, 1)
    assert images.min() >= 0 and images.max() <= 1
    clean, seen, filled = images.swapaxes(0, 1)
    visible = (seen == clean).reshape(32, 4, 4, 4, 4, 1).all((2, 4, 5))  # [B, h, w] of patches
    assert (visible.sum((1, 2)) >= 4).all()  # a quarter of 16, and those that are blank anyway
    np.testing.assert_array_equal(np.where(seen == clean, filled, clean), clean)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"masks.hidden.ratio": 1.5}, r"masks\.hidden\.ratio: found 1\.5, expected a fraction"),
        ({"masks.hidden.how": "hide"}, r"masks\.hidden\.how: found 'hide', expected 'drop'"),
        ({"masks.hidden.views": "globl"}, r"masks\.hidden\.views: no group 'globl'.*'global'"),
        ({"masks.hidden.name": "rndom"}, r"masks\.hidden\.name: found 'rndom'.*'random'"),
        ({"masks.hidden.how": "replace"}, r"encoder\.mask_token: found False, expected True"),
        ({"losses.pixels.mask": {"mask": "hiden"}}, r"losses\.pixels\.mask\.mask: no mask 'hiden'"),
        (
            {"losses.pixels.mask": {"mask": "hidden", "field": "token"}},
            r"losses\.pixels\.mask\.field: 'hidden' gives no 'token'.*'tokens'",
        ),
        ({"losses.pixels.teacher": "input/pixel"}, r"losses\.pixels\.teacher: no target 'pixel'"),
        ({"targets.pixels.name": "pixls"}, r"targets\.pixels\.name: found 'pixls'"),
        ({"student.decoder.grid": (3, 4)}, "decoder"),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_the_field(changes, message):
    config = experiments.with_changes(experiments.small("mae"), changes)
    with pytest.raises(ConfigError, match=message) as caught:
        assert Program(config, devices=jax.devices()[:1]).step
    assert "\n" not in str(caught.value)
