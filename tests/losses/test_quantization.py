"""Codebooks: published values, cards by hand, gradients, devices, shapes."""

import golden
import jax
import numpy as np
import pytest

from jaxssl import losses

NAMES = ("codebook_diversity", "gumbel_quantize", "vector_quantize", "codebook_ema")


def normal(seed, *shape):
    return np.float32(np.random.default_rng(seed).normal(size=shape))


LOGITS, BOOK, NOISE = normal(0, 8, 3, 2, 5), normal(1, 2, 5, 4), normal(2, 8, 3, 2, 5)
MASK = np.arange(24).reshape(8, 3) % 4 > 0
X, CODES, COUNTS = normal(3, 16, 4), normal(4, 5, 4), np.float32([1, 2, 3, 4, 5])


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_the_published_ones(shared, name):
    golden.check_outputs(shared, name, getattr(losses, name))


@pytest.mark.parametrize(
    ("fn", "arrays", "axes"),
    [
        (losses.codebook_diversity, (LOGITS, MASK), (0, 0)),
        (
            lambda *a: losses.gumbel_quantize(*a, temperature=2.0).vectors,
            (LOGITS, BOOK, NOISE),
            (0, None, 0),
        ),
        (lambda *a: losses.vector_quantize(*a).loss, (X, CODES), (0, None)),
        (lambda x: losses.codebook_ema(x, CODES, COUNTS).codebook, (X,), (0,)),
    ],
)
def test_one_device_equals_eight(fn, arrays, axes):
    golden.check_devices(fn, arrays, axes)


def test_diversity_from_one_code_to_all():
    every = np.ones((1, 4), bool)
    one = np.broadcast_to(200 * np.eye(320, dtype=np.float32)[:2], (1, 4, 2, 320))
    assert float(losses.codebook_diversity(one, every)) == pytest.approx(0.996875, abs=1e-5)
    assert float(losses.codebook_diversity(0 * one, every)) == pytest.approx(0, abs=1e-4)
    spread = 200 * np.eye(4, dtype=np.float32)[None, :, None]  # each frame sure, all codes used
    assert float(losses.codebook_diversity(spread, every)) == pytest.approx(0, abs=1e-5)
    beyond = np.where(MASK[..., None, None], LOGITS, 1e3)
    value = losses.codebook_diversity(LOGITS, MASK)
    np.testing.assert_allclose(losses.codebook_diversity(beyond, MASK), value, rtol=1e-6)


def test_a_hard_sample_is_an_entry_with_the_slope_of_the_soft_one():
    vectors, codes = losses.gumbel_quantize(LOGITS, BOOK, NOISE, temperature=0.5)
    np.testing.assert_array_equal(codes, (LOGITS + NOISE).argmax(-1))
    for g in range(2):
        entries = BOOK[g][codes[..., g]]
        np.testing.assert_allclose(vectors[..., 4 * g : 4 * g + 4], entries, atol=1e-6)
    of = lambda l, hard: losses.gumbel_quantize(l, BOOK, NOISE, temperature=0.5, hard=hard).vectors
    slopes = [
        jax.grad(lambda l, h=hard: (of(l, h) * NOISE[:, :, 0, :1]).sum())(LOGITS)
        for hard in (True, False)
    ]
    np.testing.assert_allclose(*slopes, atol=1e-4 * np.abs(slopes[0]).max())
    cold = losses.gumbel_quantize(LOGITS, BOOK, NOISE, temperature=1e-3, hard=False).vectors
    np.testing.assert_allclose(cold, vectors, atol=1e-2)


def test_straight_through_vectors_have_the_gradient_of_the_features():
    loss, vectors, codes = losses.vector_quantize(X, CODES)
    nearest = np.square(X[:, None] - CODES).sum(-1).argmin(1)
    np.testing.assert_array_equal(codes, nearest)
    np.testing.assert_allclose(vectors, CODES[nearest], atol=1e-6)
    np.testing.assert_allclose(loss, 1.25 * np.square(X - CODES[nearest]).mean(), rtol=1e-5)
    through = jax.grad(lambda x, c: losses.vector_quantize(x, c).quantized.sum(), (0, 1))(X, CODES)
    np.testing.assert_array_equal(through[0], 1)
    assert not np.any(through[1])
    of = lambda w: jax.grad(
        lambda x, c: losses.vector_quantize(x, c, commitment_weight=w).loss, (0, 1)
    )(X, CODES)
    assert not np.any(of(0.0)[0]) and np.any(of(0.0)[1])
    np.testing.assert_array_equal(of(0.0)[1], of(9.0)[1])


def test_a_codebook_moves_to_the_mean_of_its_members_and_all_codes_decay():
    x, sums = np.float32([[1.0], [9.0], [9.5]]), np.float32([[0.0], [16.0], [300.0]])
    counts = np.float32([1, 2, 3])
    book, codes, s, n = losses.codebook_ema(x, sums, counts, decay=0.5, epsilon=0.0)
    np.testing.assert_array_equal(codes, [0, 1, 1])
    np.testing.assert_allclose(n, [1, 2, 1.5])
    np.testing.assert_allclose(s.ravel(), [0.5, 17.25, 150])
    np.testing.assert_allclose(book.ravel(), [0.5, 8.625, 100])
    once = losses.codebook_ema(x, sums, counts, decay=0.0, epsilon=0.0).codebook
    assert np.all(np.isfinite(once)) and float(once[1, 0]) == pytest.approx(9.25)
    assert not np.any(jax.grad(lambda x: losses.codebook_ema(x, sums, counts).codebook.sum())(x))


@pytest.mark.parametrize(
    "call",
    [
        lambda: losses.codebook_diversity(LOGITS, MASK[:3]),
        lambda: losses.gumbel_quantize(LOGITS, BOOK[:1], NOISE, temperature=1.0),
        lambda: losses.vector_quantize(X, CODES[:, :3]),
        lambda: losses.codebook_ema(X, CODES, COUNTS[:3]),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call):
    with pytest.raises(AssertionError):
        call()
