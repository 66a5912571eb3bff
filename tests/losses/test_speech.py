"""Prediction of frames of sound: published values, cards by hand, what counts, devices, shapes."""

import golden
import jax
import numpy as np
import pytest

from jaxssl import losses
from jaxssl.config.errors import ConfigError

NAMES = ("wav2vec2_contrastive", "cpc", "hubert", "apc", "dinosr")


def normal(seed, *shape):
    return np.float32(np.random.default_rng(seed).normal(size=shape))


X, Y = normal(0, 8, 6, 4), normal(1, 8, 6, 4)
MASK = np.arange(6) % 6 < (np.arange(8) % 6)[:, None]
NEGATIVES = (np.arange(6)[:, None] + np.random.default_rng(2).integers(1, 6, (8, 6, 3))) % 6
CODES = np.arange(48).reshape(8, 6) % 5
LENGTHS = np.array([6, 5, 4, 3, 2, 1, 6, 6])
BOOKS = normal(3, 2, 5, 4), np.float32(1 + np.arange(10).reshape(2, 5))
HEADS, LAYERS = normal(4, 2, 8, 6, 5), normal(5, 2, 8, 6, 4)
FAR = np.random.default_rng(3).integers(0, 48, (8, 4, 3))

CALLS = {
    "wav2vec2_contrastive": (losses.wav2vec2_contrastive, (X, Y, NEGATIVES, MASK), (0,) * 4),
    "cpc": (
        lambda *a: losses.cpc(*a).loss,
        (X, Y, normal(6, 2, 4, 4), FAR),
        (0, 0, None, 0),
    ),
    "hubert": (losses.hubert, (X, normal(7, 5, 4), CODES, MASK), (0, None, 0, 0)),
    "apc": (lambda *a: losses.apc(*a, shift=2), (X, Y, LENGTHS), (0, 0, 0)),
    "dinosr": (
        lambda *a: sum(x.sum() for x in losses.dinosr(*a)),
        (HEADS, LAYERS, *BOOKS, MASK),
        (1, 1, None, None, 0),
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_the_published_ones(shared, name):
    golden.check_outputs(shared, name, getattr(losses, name))


@pytest.mark.parametrize("name", NAMES)
def test_one_device_equals_eight(name):
    golden.check_devices(*CALLS[name])


def test_equal_scores_are_chance():
    one, places = np.ones((1, 5, 2), np.float32), np.arange(100).reshape(1, 1, 100) % 5
    # All vectors are alike: no negative is left, and there is nothing to tell.
    every = np.ones((1, 5), bool)
    found = losses.wav2vec2_contrastive(one, one, np.repeat(places, 5, 1), every)
    assert abs(float(found)) < 1e-6
    across = np.zeros((1, 101, 101), np.float32)
    others = (np.arange(101)[:, None] + 1 + np.arange(100)) % 101
    value = losses.wav2vec2_contrastive(
        across, np.eye(101, dtype=np.float32)[None], others[None], np.ones((1, 101), bool)
    )
    assert float(value) == pytest.approx(4.615121, abs=1e-5)  # log 101
    steps = losses.cpc(
        np.ones((1, 4, 2)), np.ones((1, 4, 2)), np.zeros((2, 2, 2)), np.zeros((1, 2, 128), int)
    )
    np.testing.assert_allclose(steps.steps, [4.859812] * 2, rtol=1e-6)  # log 129
    equal = losses.hubert(one, np.ones((100, 2)), np.zeros((1, 5), int), every)
    assert float(equal) == pytest.approx(4.605170, abs=1e-5)


def test_a_negative_that_is_drawn_twice_counts_twice():
    c = np.eye(3, dtype=np.float32)[None]
    first = np.array([[True, False, False]])
    value = lambda *drawn: float(
        losses.wav2vec2_contrastive(c, c, np.full((1, 3, 3), drawn), first, temperature=1.0)
    )
    assert value(1, 1, 2) == pytest.approx(np.log(1 + 3 / np.e), abs=1e-6)
    assert value(1, 1, 0) == pytest.approx(np.log(1 + 2 / np.e), abs=1e-6)  # 0 is the positive


@pytest.mark.parametrize("name", ["wav2vec2_contrastive", "hubert", "dinosr"])
def test_masked_frames_alone_count_and_none_is_zero(name):
    fn, arrays, _ = CALLS[name]
    fn = (lambda *a: losses.dinosr(*a).loss) if name == "dinosr" else fn
    grad = np.asarray(jax.grad(fn)(*arrays))
    moved = np.abs(grad).sum(-1) > 0
    moved = moved.all(0) if name == "dinosr" else moved
    np.testing.assert_array_equal(moved, MASK)
    value, grad = jax.value_and_grad(fn)(*arrays[:-1], MASK & False)
    assert value == 0 and not np.any(grad)


def test_scores_of_sums_are_those_of_means_times_the_width():
    context, encoded, predictors, negatives = CALLS["cpc"][1]
    found = losses.cpc(context, encoded, 4 * predictors, negatives)
    b, t, k = 3, 1, 1  # by hand: one place, two steps ahead
    guess = predictors[k] @ context[b, t]
    scores = [guess @ encoded[b, t + 2]] + [guess @ encoded.reshape(-1, 4)[n] for n in FAR[b, t]]
    each = losses.cpc(
        context[b : b + 1, t : t + 3],
        encoded[b : b + 1, t : t + 3],
        4 * predictors,
        np.zeros((1, 1, 1), int),
    )
    assert found.steps.shape == (2,) and np.isfinite(each.loss)
    np.testing.assert_allclose(found.loss, found.steps.mean(), rtol=1e-6)
    only = losses.cpc(
        np.stack([context[b, t]] + [context[b, t]] * 2)[None],
        np.stack([encoded[b, t], encoded[b, t + 1], encoded[b, t + 2]])[None],
        4 * predictors,
        np.array([[[0, 1]]]),
    )
    by_hand = [scores[0], guess @ encoded[b, t], guess @ encoded[b, t + 1]]
    expected = np.log(np.exp(by_hand).sum()) - by_hand[0]
    np.testing.assert_allclose(only.steps[1], expected, rtol=1e-4)


def test_copying_a_ramp_is_off_by_the_shift_and_padding_does_not_count():
    ramp = np.zeros((2, 7, 80), np.float32)
    ramp[..., 3] = np.arange(7)
    lengths = np.array([7, 4])
    for n in (1, 3):
        assert float(losses.apc(ramp, ramp, lengths, shift=n)) == pytest.approx(n / 80)
    garbage = ramp.copy()
    garbage[1, 4:] = 1e9
    assert float(losses.apc(garbage, garbage, lengths, shift=2)) == pytest.approx(2 / 80)
    value, grad = jax.value_and_grad(losses.apc)(ramp, ramp, np.array([2, 2]), shift=2)
    assert value == 0 and not np.any(grad)
    slopes = [jax.grad(losses.apc)(c * X, 0 * X, LENGTHS, shift=2) for c in (1.0, 10.0)]
    np.testing.assert_array_equal(*slopes)


def test_codes_move_to_their_members_and_unused_ones_stay():
    z, book = np.float32([[[[2.0]]]]), np.float32([[[1.0], [9.0]]])
    state = losses.dinosr(
        np.zeros((1, 1, 1, 2)), z, book, np.ones((1, 2)), np.ones((1, 1), bool), decay=0.9
    )
    np.testing.assert_allclose(state.sums / state.counts[..., None], [[[1.1], [9.0]]], rtol=1e-6)
    np.testing.assert_array_equal(state.counts, [[1, 1]])
    assert float(state.loss) == pytest.approx(np.log(2))
    nothing = losses.dinosr(HEADS, LAYERS, *BOOKS, MASK & False)
    np.testing.assert_array_equal(nothing.sums, BOOKS[0])
    np.testing.assert_array_equal(nothing.counts, BOOKS[1])
    grads = jax.grad(lambda *a: losses.dinosr(*a, MASK).loss, (1, 2, 3))(HEADS, LAYERS, *BOOKS)
    assert not any(np.any(g) for g in grads)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: losses.wav2vec2_contrastive(X, Y[:4], NEGATIVES, MASK), AssertionError),
        (lambda: losses.cpc(X, Y, normal(0, 6, 4, 4), FAR), ConfigError),
        (lambda: losses.cpc(X, Y, normal(0, 3, 4, 4), FAR), AssertionError),
        (lambda: losses.hubert(X, normal(0, 5, 3), CODES, MASK), AssertionError),
        (lambda: losses.apc(X, Y, LENGTHS, shift=0), ConfigError),
        (lambda: losses.apc(X, Y, LENGTHS[:3], shift=1), AssertionError),
        (lambda: losses.dinosr(HEADS, LAYERS, BOOKS[0][:, :4], BOOKS[1], MASK), AssertionError),
    ],
)
def test_what_does_not_fit_is_refused(call, error):
    with pytest.raises(error):
        call()
