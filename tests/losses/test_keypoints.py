"""Keypoints: published values, cards by hand, limits, devices, shapes."""

import golden
import jax
import numpy as np
import pytest

from jaxssl import losses

NAMES = ("heatmap_cross_entropy", "keypoint_mse", "introspection")


def normal(seed, *shape):
    return np.float32(np.random.default_rng(seed).normal(size=shape))


A, B, W = normal(0, 8, 3, 4), normal(1, 8, 3, 4), np.float32(np.arange(8)[:, None] % [2, 3, 4, 5])
SIGMA = np.abs(normal(2, 8, 3)) + 0.2, np.abs(normal(3, 8, 5)) + 0.2
LABELS = np.arange(120).reshape(8, 3, 5) % 3 - 1
PAIRS = (A, normal(4, 8, 5, 4), *SIGMA, LABELS)


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_the_published_ones(shared, name):
    golden.check_outputs(shared, name, getattr(losses, name))


@pytest.mark.parametrize(
    ("fn", "arrays"),
    [
        (losses.heatmap_cross_entropy, (A, B)),
        (losses.keypoint_mse, (A[:, :, None], B[:, :, None], W)),
        (losses.introspection, PAIRS),
    ],
)
def test_one_device_equals_eight(fn, arrays):
    golden.check_devices(fn, arrays, (0,) * len(arrays))


def test_a_map_is_least_at_the_teachers_own():
    s = np.log(np.float32([[[3, 1]]]))
    one = dict(student_temperature=1.0, teacher_temperature=1.0)
    assert float(losses.heatmap_cross_entropy(s, s, **one)) == pytest.approx(0.5623, abs=1e-4)
    grads = jax.grad(lambda *a: losses.heatmap_cross_entropy(*a, **one), (0, 1))(B, B)
    assert max(np.abs(g).max() for g in grads) < 1e-7
    turned = losses.heatmap_cross_entropy(A[:, ::-1], B[:, ::-1])
    np.testing.assert_allclose(turned, losses.heatmap_cross_entropy(A, B), rtol=1e-5)


def test_hidden_maps_have_no_gradient_and_count_in_the_mean():
    prediction, target = A[:, :, None], B[:, :, None]
    weight = np.float32([[1, 0, 1, 0]] * 8)
    value, grad = jax.value_and_grad(losses.keypoint_mse)(prediction, target, weight)
    assert not np.any(grad[..., [1, 3]]) and np.all(grad[..., [0, 2]] != 0)
    np.testing.assert_allclose(value, np.square(A - B)[..., [0, 2]].sum() / A.size, rtol=1e-5)


@pytest.mark.parametrize(
    ("sigma", "match", "value"),
    [(1.0, 1, -0.458675), (1.0, -1, 0.541325), (1e3, 1, 0), (1e3, -1, 0)],
)
def test_introspection_by_hand(sigma, match, value):
    f, s = np.ones((1, 1, 2), np.float32), np.float32([[sigma]])
    found = losses.introspection(f, f, s, s, np.array([[[match]]]))
    assert float(found) == pytest.approx(value, abs=1e-3 if sigma > 1 else 1e-5)


@pytest.mark.parametrize(("error", "best"), [(0.1, 0.100046), (0.3, 0.374237), (0.45, 1.656632)])
def test_the_best_scale_for_an_error(error, best):
    turn = np.float32([[[1 - error, np.sqrt(1 - (1 - error) ** 2)]]])
    slope = jax.grad(losses.introspection, 2)
    f, match = np.float32([[[1, 0]]]), np.array([[[1]]])
    at = lambda s: float(slope(f, turn, np.float32([[s]]), np.float32([[s]]), match)[0, 0])
    assert at(0.97 * best) < 0 < at(1.03 * best)


def test_small_scales_are_finite_and_length_does_not_matter():
    small = tuple(np.float32(1e-3 + 0 * s) for s in SIGMA)
    value, grads = jax.value_and_grad(losses.introspection, (0, 2))(*PAIRS[:2], *small, LABELS)
    assert np.isfinite(value) and all(np.all(np.isfinite(g)) for g in grads)
    value = losses.introspection(*PAIRS)
    np.testing.assert_allclose(losses.introspection(3 * A, *PAIRS[1:]), value, rtol=1e-5)
    swapped = losses.introspection(PAIRS[1], A, *SIGMA[::-1], LABELS.swapaxes(1, 2))
    np.testing.assert_allclose(swapped, value, rtol=1e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: losses.heatmap_cross_entropy(A, B[:, :2]),
        lambda: losses.keypoint_mse(A[:, :, None], B[:, :, None], W[:, :3]),
        lambda: losses.introspection(*PAIRS[:4], LABELS[:, :2]),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call):
    with pytest.raises(AssertionError):
        call()
