"""Contrasts of series: published values, cards by hand, symmetries, devices, shapes."""

import golden
import jax
import numpy as np
import pytest

from jaxssl import losses
from jaxssl.config.errors import ConfigError

NAMES = ("ts2vec", "ts_tcc_temporal", "ts_tcc_contextual", "isoalign")


def normal(seed, *shape):
    return np.float32(np.random.default_rng(seed).normal(size=shape))


Z1, Z2 = normal(0, 8, 5, 3), normal(1, 8, 5, 3)
CONTEXT, FUTURE, MAPS = normal(2, 8, 4), normal(3, 3, 8, 6), normal(4, 3, 6, 4)
FIVE = tuple(normal(5 + i, 8, 4) for i in range(5))


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_the_published_ones(shared, name):
    golden.check_outputs(shared, name, getattr(losses, name))


@pytest.mark.parametrize(
    ("fn", "arrays", "axes"),
    [
        (losses.ts2vec, (Z1, Z2), (0, 0)),
        (losses.ts_tcc_temporal, (CONTEXT, FUTURE, MAPS), (0, 1, None)),
        (losses.ts_tcc_contextual, FIVE[:2], (0, 0)),
        (losses.isoalign, FIVE, (0,) * 5),
    ],
)
def test_one_device_equals_eight(fn, arrays, axes):
    golden.check_devices(fn, arrays, axes)


def test_equal_series_are_chance_at_every_scale():
    one = np.ones((2, 4, 3), np.float32)
    assert float(losses.ts2vec(one, one)) == pytest.approx(1.056727, abs=1e-6)
    chance = losses.ts_tcc_temporal(np.ones((128, 2)), np.ones((2, 128, 3)), np.ones((2, 3, 2)))
    assert float(chance) == pytest.approx(4.852030, abs=1e-5)
    four = np.ones((4, 3), np.float32)
    unit = four / np.sqrt(3)
    assert float(losses.isoalign(four, four, four, unit, unit)) == pytest.approx(5.838, abs=1e-3)


def test_scales_by_hand():
    # Five times: scales of 5, 2 and 1; one series has nothing to tell apart at the last.
    a, b = Z1[:1], Z2[:1]
    level = lambda x, y: losses.ts2vec(x, y, alpha=0.0)
    pooled = [np.maximum(x[:, 0:4:2], x[:, 1:4:2]) for x in (a, b)]
    both = np.concatenate([a, b], 1)[0]
    logits = both @ both.T - 1e9 * np.eye(10)
    rows = np.log(np.exp(logits).sum(1)) - logits[np.arange(10), (np.arange(10) + 5) % 10]
    # The mean over three scales, of which the second and third are those of the pooled series.
    expected = (rows.mean() + 2 * level(*pooled)) / 3
    np.testing.assert_allclose(level(a, b), expected, rtol=1e-4)
    first = losses.ts2vec(a, b, alpha=0.0, temporal_unit=1)
    np.testing.assert_allclose(first, 2 * level(*pooled) / 3, rtol=1e-5)


def test_one_series_has_no_instance_term_and_views_and_order_do_not_matter():
    assert abs(losses.ts2vec(Z1[:1], Z2[:1], alpha=1.0)) < 1e-6
    value = losses.ts2vec(Z1, Z2)
    np.testing.assert_allclose(losses.ts2vec(Z2, Z1), value, rtol=1e-5)
    np.testing.assert_allclose(losses.ts2vec(Z1[::-1], Z2[::-1]), value, rtol=1e-5)


def test_the_temporal_contrast_is_over_predictions():
    value, grad = jax.value_and_grad(lambda c: losses.ts_tcc_temporal(c, FUTURE[:1], MAPS[:1]))(
        CONTEXT
    )
    scores = FUTURE[0] @ (MAPS[0] @ CONTEXT.T)
    expected = (np.log(np.exp(scores).sum(1)) - np.diag(scores)).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    over_futures = (np.log(np.exp(scores).sum(0)) - np.diag(scores)).mean()
    assert abs(expected - over_futures) > 1e-2 and np.any(grad)


def test_contexts_are_contrasted_as_any_two_views():
    a, b = FIVE[:2]
    np.testing.assert_array_equal(
        losses.ts_tcc_contextual(a, b, temperature=0.3), losses.nt_xent(a, b, temperature=0.3)
    )


def test_alignment_by_hand():
    eye = np.eye(2, dtype=np.float32)
    pair = np.log(1 + 2 * np.exp(-1 / 0.15))
    assert float(losses.isoalign(eye, eye, eye, eye, eye)) == pytest.approx(3 * pair, rel=1e-4)
    # A mapped vector off by 1 everywhere: 1 / B of a mean distance of 1, for either map.
    off = losses.isoalign(3 * eye, eye, eye, eye + 1, eye - 1)
    assert float(off) == pytest.approx(3 * pair + 1, rel=1e-5)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: losses.ts2vec(Z1, Z2[:, :4]), AssertionError),
        (lambda: losses.ts2vec(Z1, Z2, alpha=1.5), ConfigError),
        (lambda: losses.ts_tcc_temporal(CONTEXT, FUTURE, MAPS[:2]), AssertionError),
        (lambda: losses.ts_tcc_contextual(Z1, Z2), AssertionError),
        (lambda: losses.isoalign(*FIVE[:4], FIVE[4][:3]), AssertionError),
    ],
)
def test_what_does_not_fit_is_refused(call, error):
    with pytest.raises(error):
        call()
