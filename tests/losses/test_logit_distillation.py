"""Distillation of outputs: published values, cards by hand, limits, devices, shapes."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import losses

NAMES = ("kd", "dkd", "dist", "ps_kd", "sla", "lelp_targets", "teacher_dropping")
LABELS = np.arange(16) % 5


def normal(seed, *shape):
    return np.float32(2 * np.random.default_rng(seed).normal(size=shape))


S, T = normal(0, 16, 5), normal(1, 16, 5)
P = np.asarray(jax.nn.softmax(T))


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_the_published_ones(shared, name):
    golden.check_outputs(shared, name, getattr(losses, name))


DEVICES = {
    "kd": (losses.kd, (S, T), (0, 0)),
    "dkd": (losses.dkd, (S, T, LABELS), (0, 0, 0)),
    "dist": (losses.dist, (S, T), (0, 0)),
    "ps_kd": (lambda *a: losses.ps_kd(*a, alpha=0.3), (S, LABELS, P), (0, 0, 0)),
    "sla": (lambda *a: losses.sla(*a).loss, (normal(2, 16, 2, 10), S, LABELS), (0, 0, 0)),
    "lelp_targets": (
        losses.lelp_targets,
        (S, normal(3, 16, 6), normal(4, 5, 6), normal(5, 5, 6, 2)),
        (0, 0, None, None),
    ),
    "teacher_dropping": (losses.teacher_dropping, (normal(6, 3, 16), normal(7, 3, 16) > 0), (1, 1)),
}


@pytest.mark.parametrize("name", NAMES)
def test_one_device_equals_eight(name):
    golden.check_devices(*DEVICES[name])


@pytest.mark.parametrize("name", ["kd", "dkd", "dist"])
def test_the_teacher_has_no_gradient_and_agreement_none_either(name):
    fn, (_, _, *more), _ = DEVICES[name]
    value, (to_student, to_teacher) = jax.value_and_grad(fn, (0, 1))(jnp.asarray(T), T + 1, *more)
    assert abs(value) < 1e-5 and jnp.abs(to_student).max() < 1e-5 and not np.any(to_teacher)


def test_values_by_hand():
    p, q, zero = np.log([[0.7, 0.2, 0.1]]), np.log([[0.5, 0.3, 0.2]]), np.array([0])
    of = lambda alpha, beta: float(losses.dkd(q, p, zero, alpha=alpha, beta=beta, temperature=1.0))
    assert of(1, 0) == pytest.approx(0.082283, abs=2e-6)
    assert of(0, 1) == pytest.approx(0.009466, abs=2e-6)
    assert float(losses.kl_divergence(q, p)) == pytest.approx(of(1, 0) + 0.3 * of(0, 1), rel=1e-5)
    logits, past = np.float32([[1, 0, -1]]), np.float32([[0.5, 0.3, 0.2]])
    value, grad = jax.value_and_grad(losses.ps_kd)(logits, zero, past, alpha=0.4)
    assert float(value) == pytest.approx(0.68761, abs=1e-5)
    np.testing.assert_allclose(grad, [[-0.13476, 0.12473, 0.01003]], atol=1e-5)
    targets = losses.lelp_targets(
        np.log([[0.7, 0.3]]), np.ones((1, 1)), np.zeros((2, 1)), np.float32([[[1, -1]], [[0, 0]]])
    )
    np.testing.assert_allclose(targets[0], [[0.61656, 0.08344], [0.15, 0.15]], atol=1e-5)


def test_decoupled_distillation_is_finite_where_a_probability_underflows():
    student, teacher = np.float32([[300, 0, -300]]), np.float32([[-300, 300, 0]])
    value, grad = jax.value_and_grad(losses.dkd)(student, teacher, np.array([0]), temperature=1.0)
    assert np.isfinite(value) and np.all(np.isfinite(grad)) and value > 100


def test_dist_does_not_know_scale_and_shift_of_probabilities():
    fn = lambda q: float(losses.dist(np.log(q), np.log(P), gamma=0.0))
    mixed = 0.5 * P + 0.1  # a row's probabilities, scaled and shifted: again a distribution
    assert abs(fn(mixed)) < 1e-5 and fn(P[:, ::-1]) > 0.1
    value, grad = jax.value_and_grad(losses.dist)(jnp.zeros((1, 5)), T[:1])
    assert float(value) == pytest.approx(2) and np.all(np.isfinite(grad))  # a batch of one


def test_label_augmentation_of_one_copy_is_plain_classification():
    joint, single = normal(2, 4, 1, 5), normal(3, 4, 5)
    loss, aggregated = losses.sla(joint, single, LABELS[:4])
    np.testing.assert_allclose(aggregated, joint[:, 0], rtol=1e-6)
    ce = losses.label_smoothing_cross_entropy
    expected = ce(joint[:, 0], LABELS[:4]) + ce(single, LABELS[:4])
    np.testing.assert_allclose(
        loss, expected + losses.kd(single, joint[:, 0], temperature=1.0), rtol=1e-5
    )


def test_label_augmentation_counts_the_class_first_and_then_the_copy():
    # Of 5 classes and 4 copies, class 3 under copy 2 is 14.
    joint = np.zeros((1, 4, 20), np.float32)
    joint[0, np.arange(4), 3 * 4 + np.arange(4)] = 50
    sure = losses.sla(joint, 50 * np.eye(5, dtype=np.float32)[3:4], np.array([3]))
    assert float(sure.loss) < 0.1 and int(sure.aggregated.argmax()) == 3


def test_targets_of_subclasses_add_up_to_the_class():
    fn, arrays, _ = DEVICES["lelp_targets"]
    np.testing.assert_allclose(fn(*arrays).sum(-1), jax.nn.softmax(S), rtol=1e-5)
    moved = fn(arrays[0], arrays[1] + 3, arrays[2] + 3, arrays[3])
    np.testing.assert_allclose(moved, fn(*arrays), atol=1e-5)


def test_teacher_dropping_between_no_drop_and_all():
    values = np.float32([[1, 4, 0], [3, 2, 9]])
    assert float(losses.teacher_dropping(values, values > -1)) == pytest.approx(values.mean())
    assert float(losses.teacher_dropping(values, values > 99)) == pytest.approx(16 / 3)
    assert not np.any(jax.grad(losses.teacher_dropping)(values, values > 99)[0, [0, 2]])


@pytest.mark.parametrize(
    "call",
    [
        lambda: losses.kd(S, T[:, :4]),
        lambda: losses.dkd(S, T, LABELS[:3]),
        lambda: losses.dist(S[0], T[0]),
        lambda: losses.ps_kd(S, LABELS, P[:3], alpha=0.5),
        lambda: losses.sla(normal(0, 16, 2, 9), S, LABELS),
        lambda: losses.lelp_targets(S, normal(0, 16, 6), normal(0, 5, 7), normal(0, 5, 6, 2)),
        lambda: losses.teacher_dropping(S, LABELS > 0),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call):
    with pytest.raises(AssertionError):
        call()
