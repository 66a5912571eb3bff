"""Distillation of features: published values, cards by hand, invariances, devices, shapes."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import losses
from jaxssl.config.errors import ConfigError

NAMES = (
    "hint",
    "chunk_mse",
    "attention_transfer",
    "nst",
    "vid",
    "explanation_cosine",
    "nd",
    "unic_distance",
    "running_standardisation",
)


def normal(seed, *shape):
    return np.float32(np.random.default_rng(seed).normal(size=shape))


S, T = normal(0, 8, 4, 4, 3), normal(1, 8, 2, 2, 5)
X, Y = normal(2, 8, 6), normal(3, 8, 6)
ROWS = (X, Y, normal(4, 3, 6), np.arange(8) % 3)


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_the_published_ones(shared, name):
    golden.check_outputs(shared, name, getattr(losses, name))


DEVICES = {
    "hint": (losses.hint, (X, Y), (0, 0)),
    "chunk_mse": (
        lambda s, t: losses.chunk_mse(s, t, chunk=1, num_chunks=2),
        (X[:, :3], Y),
        (0, 0),
    ),
    "attention_transfer": (losses.attention_transfer, (S, T), (0, 0)),
    "nst": (losses.nst, (S, T), (0, 0)),
    "vid": (losses.vid, (S, normal(5, 8, 4, 4, 3), normal(6, 3)), (0, 0, None)),
    "explanation_cosine": (losses.explanation_cosine, (S[..., 0], S[..., 1]), (0, 0)),
    "nd": (losses.nd, ROWS, (0, 0, None, 0)),
    "unic_distance": (losses.unic_distance, (X, Y), (0, 0)),
    "running_standardisation": (
        lambda x: jnp.stack(
            [a.sum() for a in losses.running_standardisation(x, X[0], X[1] ** 2, momentum=0.3)]
        ),
        (X,),
        (0,),
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_one_device_equals_eight(name):
    golden.check_devices(*DEVICES[name])


@pytest.mark.parametrize("name", NAMES[:-1])
def test_the_teacher_has_no_gradient(name):
    fn, arrays, _ = DEVICES[name]
    to_student, to_teacher = jax.grad(fn, (0, 1))(*arrays)
    assert np.any(to_student) and not np.any(to_teacher)


def test_chunks_side_by_side_are_the_whole_feature():
    parts = [losses.chunk_mse(X[:, 2 * c : 2 * c + 2], Y, chunk=c, num_chunks=3) for c in range(3)]
    np.testing.assert_allclose(np.mean(parts), losses.hint(X, Y), rtol=1e-6)


def test_attention_does_not_know_the_scale_and_a_map_of_zeros_gives_no_nan():
    value, grad = jax.value_and_grad(losses.attention_transfer)(S, T)
    np.testing.assert_allclose(losses.attention_transfer(5 * S, T), value, rtol=1e-5)
    assert value > 1e-3 and abs((grad * S).sum()) < 1e-5
    assert np.all(np.isfinite(jax.grad(losses.attention_transfer)(0 * S, T)))


def test_selectivity_does_not_know_the_order_of_the_channels():
    np.testing.assert_allclose(losses.nst(S[..., ::-1], T), losses.nst(S, T), rtol=1e-4)
    assert abs(losses.nst(2 * S, S)) < 1e-6


def test_vid_is_least_where_the_variance_is_the_error_and_finite_for_any_scale():
    error, scale = np.full((1, 1, 1, 1), 2.0, np.float32), lambda v: np.log(np.expm1(v))
    slope = jax.grad(losses.vid, 2)
    assert abs(slope(error, 0 * error, np.float32([scale(4.0)]), epsilon=0.0)[0]) < 1e-6
    for s in (-80.0, 200.0):
        value, grad = jax.value_and_grad(losses.vid, 2)(error, 0 * error, np.float32([s]))
        assert np.isfinite(value) and np.isfinite(grad[0])


def test_explanations_by_hand():
    a, b = np.float32([[[1, 0], [0, 0]]]), np.float32([[[1, 1], [1, 1]]])
    assert float(losses.explanation_cosine(a, b)) == pytest.approx(0.5)
    assert float(losses.explanation_cosine(-3 * a, a)) == pytest.approx(2)
    value, grad = jax.value_and_grad(losses.explanation_cosine)(0 * a, b)
    assert value == 1 and np.all(np.isfinite(grad))


@pytest.mark.parametrize(
    ("student", "length", "value"),
    [((3, 4), 2, 0.4), ((0.6, 0.8), 5, 0.88), ((5, 0), 5, 0.0), ((50, 0), 5, 0.0)],
)
def test_norm_and_direction_by_hand(student, length, value):
    teacher, zero = np.float32([[0, length]]), np.array([0])
    found, grad = jax.value_and_grad(losses.nd)(
        np.float32([student]), teacher, 7 * np.eye(2, dtype=np.float32), zero
    )
    assert float(found) == pytest.approx(value, abs=1e-6)
    if np.hypot(*student) < length:
        np.testing.assert_allclose(grad, [[-1 / length, 0]], atol=1e-6)
    elif np.hypot(*student) > length:
        assert abs((grad * np.float32([student])).sum()) < 1e-6
    nothing = jax.grad(losses.nd)(np.zeros((1, 2), np.float32), 0 * teacher, np.eye(2), zero)
    assert np.all(np.isfinite(nothing))


def test_unic_by_hand_and_zero_where_both_agree():
    a, b = np.float32([[1, 0]]), np.float32([[0, 1]])
    assert float(losses.unic_distance(a, b)) == pytest.approx(0.75)
    assert float(losses.unic_distance(X, X)) == pytest.approx(0, abs=1e-6)


def test_statistics_of_all_momentum_are_the_batchs_and_of_none_stay():
    first = losses.running_standardisation(X, np.zeros(6), np.ones(6), momentum=1.0)
    np.testing.assert_allclose(first.features, X, rtol=1e-5)
    np.testing.assert_allclose(first.mean, X.mean(0), atol=1e-6)
    np.testing.assert_allclose(first.std, X.std(0, ddof=1), rtol=1e-5)
    second = losses.running_standardisation(X, first.mean, first.std, momentum=0.0)
    np.testing.assert_allclose(second.features.std(0, ddof=1), 1, rtol=1e-4)
    np.testing.assert_array_equal(second.mean, first.mean)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: losses.hint(X, Y[:, :3]), AssertionError),
        (lambda: losses.chunk_mse(X, Y, chunk=0, num_chunks=4), ConfigError),
        (lambda: losses.chunk_mse(X[:, :3], Y, chunk=2, num_chunks=2), ConfigError),
        (lambda: losses.chunk_mse(X, Y, chunk=0, num_chunks=2), AssertionError),
        (lambda: losses.attention_transfer(S, normal(0, 8, 3, 3, 2)), ConfigError),
        (lambda: losses.nst(S, T[:4]), AssertionError),
        (lambda: losses.vid(S, S, normal(0, 4)), AssertionError),
        (lambda: losses.explanation_cosine(S, T), AssertionError),
        (lambda: losses.nd(X, Y, normal(0, 3, 5), ROWS[3]), AssertionError),
        (lambda: losses.unic_distance(X, Y[:4]), AssertionError),
        (lambda: losses.running_standardisation(X, X[0, :3], X[0], momentum=1), AssertionError),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call, error):
    with pytest.raises(error):
        call()
