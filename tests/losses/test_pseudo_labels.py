"""Losses of pseudo-labels: published values and states, cards by hand, devices, shapes."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import losses

NAMES = ("fixmatch", "flexmatch", "freematch", "freematch_fairness", "softmatch")


def logits(seed, scale=3.0):
    return scale * jax.random.normal(jax.random.key(seed), (16, 5))


S, T = logits(0), logits(1)
EVEN = np.full(5, 0.2, np.float32)
INDEX = 2 * np.arange(16)
TABLE = np.arange(40) % 6 - 1


def sure(*rows):
    """Logits of these probabilities."""
    return np.log(np.float32(rows))


CALLS = {
    "fixmatch": lambda s, t: losses.fixmatch(s, t, threshold=0.7),
    "flexmatch": lambda s, t: losses.flexmatch(s, t, INDEX, TABLE, threshold=0.7),
    "freematch": lambda s, t: losses.freematch(s, t, EVEN, EVEN, np.float32(0.6), momentum=0.9),
    "softmatch": lambda s, t: losses.softmatch(
        s, t, np.float32(0.6), np.float32(0.1), momentum=0.9
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_values_states_and_gradients_are_the_published_ones(shared, name):
    golden.check_outputs(shared, name, getattr(losses, name))


@pytest.mark.parametrize("name", CALLS)
def test_one_device_equals_eight(name):
    def everything(s, t):
        loss, *rest = CALLS[name](s, t)
        return loss + sum(0.01 * jnp.asarray(x, jnp.float32).sum() for x in rest)

    golden.check_devices(everything, (S, T), (0, 0))


def test_fairness_on_one_device_equals_that_on_eight():
    mask = np.arange(16) % 3 > 0
    golden.check_devices(
        lambda s, m: losses.freematch_fairness(s, EVEN, EVEN[::-1], m), (S, mask), (0, 0)
    )


@pytest.mark.parametrize("name", CALLS)
def test_the_weak_view_has_no_gradient(name):
    to_student, to_teacher = jax.grad(lambda s, t: CALLS[name](s, t).loss, (0, 1))(S, T)
    assert np.any(to_student) and not np.any(to_teacher)


def test_a_sample_that_is_not_sure_has_no_gradient_and_counts_in_the_mean():
    loss, mask = losses.fixmatch(S, T, threshold=0.7)
    assert 0 < mask.sum() < 16
    grads = jax.grad(lambda s: losses.fixmatch(s, T, threshold=0.7).loss)(S)
    np.testing.assert_array_equal(np.any(grads != 0, axis=-1), mask == 1)
    alone = losses.fixmatch(S[mask == 1], T[mask == 1], threshold=0.7).loss
    np.testing.assert_allclose(loss, alone * mask.mean(), rtol=1e-5)
    assert float(losses.fixmatch(S, T, threshold=1.01).loss) == 0


def test_a_class_that_few_were_sure_of_has_a_lower_threshold():
    # Ten samples: four of class 0, two of class 1, none of class 2, four never sure.
    table = np.array([0, 0, 0, 0, 1, 1, -1, -1, -1, -1])
    status = lambda **fields: losses.flexmatch(
        np.zeros((3, 3)), sure([0.32, 0.3, 0.38], [0.34, 0.36, 0.3], [0.94, 0.03, 0.03]),
        np.arange(3), table, threshold=0.95, **fields,
    )  # fmt: skip
    found = status()
    np.testing.assert_allclose(found.status, [1, 0.5, 0])
    # Thresholds 0, 0.3167 and 0.95 of the classes 2, 1 and 0: the first two count.
    np.testing.assert_array_equal(found.mask, [1, 1, 0])
    np.testing.assert_array_equal(found.selected, table)  # none reaches 0.95 itself
    most = np.array([0, 1, *[-1] * 8])
    common = dict(threshold=0.95, index=np.arange(1), selected=most)
    one = np.zeros((1, 3)), sure([0.9, 0.05, 0.05])
    assert losses.flexmatch(*one, **common).status[0] == 0.125
    assert losses.flexmatch(*one, **common, warmup=False).status[0] == 1


def test_the_table_changes_in_rows_of_the_batch_that_are_sure():
    new = losses.flexmatch(S, T, INDEX, TABLE, threshold=0.7).selected
    p = np.asarray(jax.nn.softmax(T))
    for n, row in enumerate(INDEX):
        assert new[row] == (p[n].argmax() if p[n].max() >= 0.7 else TABLE[row])
    rest = np.delete(np.arange(40), INDEX)
    np.testing.assert_array_equal(new[rest], TABLE[rest])


def test_thresholds_follow_the_confidence_class_by_class():
    # The state after the batch: 0.999 of what was, so thresholds are 0.8, 0.48 and 0.32.
    mean = np.float32([0.5, 0.3, 0.2])
    teacher = sure([0.79, 0.2, 0.01], [0.49, 0.5, 0.01], [0.33, 0.3, 0.37])
    state = losses.freematch(
        np.zeros((3, 3)), teacher, mean, mean, np.float32(0.8), momentum=0.9999
    )
    np.testing.assert_array_equal(state.mask, [0, 1, 1])
    one = sure([0.6, *[0.4 / 9] * 9])
    even = np.full(10, 0.1, np.float32)
    first = losses.freematch(np.zeros((1, 10)), one, even, even, np.float32(0.1), momentum=0.999)
    assert float(first.threshold) == pytest.approx(0.1005, abs=1e-6)
    np.testing.assert_allclose(first.histogram[:2], [0.1009, 0.0999], atol=1e-6)
    clipped = losses.freematch(
        np.zeros((1, 10)), one, even, even, np.float32(5), momentum=1.0, clip=True
    )
    assert float(clipped.threshold) == pytest.approx(0.95) and clipped.mask[0] == 0


def test_fairness_of_no_sample_is_zero_and_ratios_of_absent_classes_are_left_out():
    none = jax.value_and_grad(losses.freematch_fairness)(S, EVEN, EVEN, np.zeros(16, bool))
    assert none[0] == 0 and not np.any(none[1])
    # Each class said once and with the same confidence: b is uniform, L = -log K.
    value = losses.freematch_fairness(5 * np.eye(4), EVEN[:4], EVEN[:4], np.ones(4, bool))
    assert float(value) == pytest.approx(-np.log(4), abs=1e-5)
    absent = losses.freematch_fairness(
        5 * np.eye(4)[:1], EVEN[:4], np.float32([1, 0, 0, 0]), np.ones(1, bool)
    )
    assert float(absent) == pytest.approx(0, abs=1e-5)


def test_weights_fall_off_below_the_mean_alone():
    teacher = sure([0.8, 0.2], [0.9, 0.1], [0.99, 0.01])
    state = losses.softmatch(
        np.zeros((3, 2)), teacher, np.float32(0.9), np.float32(0.01), momentum=1.0
    )
    np.testing.assert_allclose(state.weights, [0.135335, 1, 1], atol=2e-5)
    np.testing.assert_allclose(state.loss, np.log(2) * np.mean(state.weights), rtol=1e-5)
    moved = losses.softmatch(np.zeros((3, 2)), teacher, np.float32(0), np.float32(0), momentum=0.0)
    p = np.array([0.8, 0.9, 0.99])
    np.testing.assert_allclose([moved.mean, moved.variance], [p.mean(), p.var(ddof=1)], rtol=1e-4)


@pytest.mark.parametrize(
    "call",
    [
        lambda: losses.fixmatch(S, T[:3], threshold=0.5),
        lambda: losses.flexmatch(S, T, INDEX[:3], TABLE, threshold=0.5),
        lambda: losses.freematch(S, T, EVEN[:3], EVEN, np.float32(0.5)),
        lambda: losses.freematch(S, T, EVEN, EVEN, EVEN),
        lambda: losses.freematch_fairness(S, EVEN, EVEN, np.ones(3, bool)),
        lambda: losses.softmatch(S, T, EVEN, np.float32(1)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call):
    with pytest.raises(AssertionError):
        call()
