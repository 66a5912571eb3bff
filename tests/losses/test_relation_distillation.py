"""Distillation of relations: published values, invariances, cards by hand, devices, shapes."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import losses
from jaxssl.config.errors import ConfigError

NAMES = (
    "similarity_preserving",
    "rkd_distance",
    "rkd_angle",
    "correlation_congruence",
    "pkt",
    "crd",
)


def normal(seed, *shape):
    return np.float32(np.random.default_rng(seed).normal(size=shape))


S, T = normal(0, 8, 4), normal(1, 8, 6)
MEMORIES = normal(2, 32, 4), normal(3, 32, 4)
INDEX = np.concatenate([4 * np.arange(8)[:, None], np.arange(24).reshape(8, 3)], 1)


def contrast(student, teacher, *memories, index=INDEX, **changes):
    fields = dict(temperature=0.5, num_data=32, normalizer_student=20.0, normalizer_teacher=30.0)
    return losses.crd(student, teacher, *(memories or MEMORIES), index, **{**fields, **changes})


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_the_published_ones(shared, name):
    golden.check_outputs(shared, name, getattr(losses, name))


@pytest.mark.parametrize("name", NAMES)
def test_one_device_equals_eight(name):
    if name == "crd":
        fn = lambda s, t: contrast(s, t).loss
        golden.check_devices(fn, (S, T[:, :4]), (0, 0))
        golden.check_devices(lambda s: contrast(s, T[:, :4]).memory_student, (S,), (0,))
    else:
        golden.check_devices(getattr(losses, name), (S, T), (0, 0))


@pytest.mark.parametrize("name", NAMES[:-1])
def test_the_teacher_has_no_gradient_and_agreement_is_zero(name):
    fn = getattr(losses, name)
    to_student, to_teacher = jax.grad(fn, (0, 1))(S, T)
    assert np.any(to_student) and not np.any(to_teacher)
    value, grad = jax.value_and_grad(fn)(S, S)
    assert abs(value) < 1e-6 and np.abs(grad).max() < 1e-5


@pytest.mark.parametrize("name", ["rkd_distance", "rkd_angle"])
def test_distances_and_angles_know_no_rotation_shift_and_scale(name):
    fn = getattr(losses, name)
    turn = np.linalg.qr(normal(4, 4, 4))[0]
    np.testing.assert_allclose(fn(3 * S @ turn + 1, T), fn(S, T), rtol=1e-4)
    assert fn(S, T) > 1e-3


@pytest.mark.parametrize("name", ["similarity_preserving", "pkt"])
def test_similarities_know_no_scale_and_rotation(name):
    fn = getattr(losses, name)
    turn = np.linalg.qr(normal(4, 4, 4))[0]
    np.testing.assert_allclose(fn(3 * S @ turn, T), fn(S, T), rtol=1e-3)


@pytest.mark.parametrize("name", NAMES[:-1])
def test_equal_samples_and_samples_of_zeros_have_a_finite_gradient_of_usual_size(name):
    fn = getattr(losses, name)
    same = S.copy()
    same[1] = same[0]
    same[2] = 0
    grad = np.array(jax.grad(fn)(same, T))
    if name == "pkt":  # its epsilon gives the sample of zeros a slope of 1e7
        assert np.all(np.isfinite(grad))
        grad[2] = 0
    assert np.abs(grad).max() < 100
    assert np.all(np.isfinite(jax.grad(fn)(0 * S, T)))


def test_distances_by_hand():
    # Distances 1, 1, 2 over their mean 4/3 against three of 1: 1/4, 1/4, 1/2 apart.
    student = np.float32([[0], [1], [2]])
    teacher = np.eye(3, dtype=np.float32)
    expected = 2 * (0.25**2 + 0.25**2 + 0.5**2) / 2 / 9
    assert float(losses.rkd_distance(student, teacher)) == pytest.approx(expected, rel=1e-5)
    # Angles: of the line 0, 180, 0; of the triangle 60 each.
    # Smooth L1 of 1/2 is 1/8, of 3/2 is 1.
    expected = (2 * 0.125 + 2 * 1.0 + 2 * 0.125) / 27
    assert float(losses.rkd_angle(student, teacher)) == pytest.approx(expected, rel=1e-5)


def test_kernels_by_hand():
    one, two = np.eye(2, dtype=np.float32), np.ones((2, 1), np.float32)
    assert float(losses.correlation_congruence(one, two, kernel="bilinear")) == 0.5
    series = lambda g: np.exp(-2.0) * (1 + 2 * g + 2 * g**2)
    expected = 0.5 * (series(1) - series(0)) ** 2
    found = losses.correlation_congruence(one, two, gamma=1.0, order=2)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_contrast_of_chance_is_as_published():
    # Every P is 1 / N: with N = 50,000 and K = 16,384 it is 10.709091 a direction.
    n, k = 50_000, 16_384
    one, index = np.ones((1, 1), np.float32), np.arange(k + 1)[None] % 3
    z = float(np.exp(2.0) * n)
    loss = losses.crd(
        one, one, np.ones((3, 1)), np.ones((3, 1)), index,
        temperature=0.5, num_data=n, normalizer_student=z, normalizer_teacher=z,
    ).loss  # fmt: skip
    assert float(loss) == pytest.approx(2 * 10.709091, rel=1e-4)


def test_memories_move_in_the_rows_of_the_batch_alone_and_have_no_gradient():
    t = T[:, :4]
    loss, new_student, new_teacher = contrast(S, t)
    own, unit = INDEX[:, 0], lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    for new, old, x in ((new_student, MEMORIES[0], S), (new_teacher, MEMORIES[1], t)):
        np.testing.assert_allclose(new[own], unit(0.5 * old[own] + 0.5 * unit(x)), atol=1e-6)
        rest = np.delete(np.arange(32), own)
        np.testing.assert_array_equal(new[rest], old[rest])
    grads = jax.grad(lambda *a: contrast(*a).loss, (0, 1, 2, 3))(S, t, *MEMORIES)
    assert [bool(np.any(g)) for g in grads] == [True, True, False, False] and loss > 0
    no_gradient = jax.grad(lambda s: contrast(s, t).memory_student.sum())(S)
    assert not np.any(no_gradient)
    np.testing.assert_allclose(contrast(3 * S, t).loss, loss, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: losses.similarity_preserving(S, T[:4]), AssertionError),
        (lambda: losses.rkd_distance(S, T[:4]), AssertionError),
        (lambda: losses.rkd_angle(S, T[:4]), AssertionError),
        (lambda: losses.correlation_congruence(S, T[:4]), AssertionError),
        (lambda: losses.correlation_congruence(S, T, kernel="cubic"), ConfigError),
        (lambda: losses.pkt(S[0], T[0]), AssertionError),
        (lambda: contrast(S, T), AssertionError),
        (lambda: contrast(S, T[:, :4], index=INDEX[:4]), AssertionError),
    ],
)
def test_what_does_not_fit_is_refused(call, error):
    with pytest.raises(error):
        call()


def test_jax_and_numpy_inputs_are_alike():
    for name in NAMES[:-1]:
        fn = getattr(losses, name)
        np.testing.assert_allclose(fn(jnp.asarray(S), jnp.asarray(T)), fn(S, T), rtol=1e-6)
