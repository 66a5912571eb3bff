"""Next tokens: published values, cards by hand, limits, devices, shapes."""

import golden
import jax
import numpy as np
import pytest

from jaxssl import losses

NAMES = (
    "forward_kl",
    "reverse_kl",
    "generalized_jsd",
    "token_nll",
    "skd_accept",
    "self_evolution_kd",
)


def normal(seed, *shape):
    return np.float32(2 * np.random.default_rng(seed).normal(size=shape))


S, T = normal(0, 8, 4, 5), normal(1, 8, 4, 5)
MASK = np.arange(4) < (np.arange(8) % 5)[:, None]
TOKENS = np.arange(32).reshape(8, 4) % 5
DIVERGENCES = ("forward_kl", "reverse_kl", "generalized_jsd")


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_the_published_ones(shared, name):
    golden.check_outputs(shared, name, getattr(losses, name))


@pytest.mark.parametrize(
    ("fn", "arrays"),
    [(getattr(losses, name), (S, T, MASK)) for name in DIVERGENCES]
    + [
        (losses.token_nll, (S, TOKENS, MASK)),
        (lambda *a: losses.self_evolution_kd(*a).loss, (S, T, MASK, TOKENS)),
    ],
)
def test_one_device_equals_eight(fn, arrays):
    golden.check_devices(fn, arrays, (0,) * len(arrays))


@pytest.mark.parametrize("name", DIVERGENCES)
def test_only_kept_tokens_count_the_teacher_has_no_gradient_and_agreement_is_zero(name):
    fn = getattr(losses, name)
    value, (to_student, to_teacher) = jax.value_and_grad(fn, (0, 1))(S, T, MASK)
    assert value > 0.1 and not np.any(to_teacher)
    np.testing.assert_array_equal(np.abs(to_student).sum(-1) > 0, MASK)
    assert abs(fn(S + 1, S, MASK)) < 1e-6 and fn(S, T, MASK & False) == 0
    flat = [x[MASK][:, None] for x in (S, T)]  # one token an utterance: the same mean
    np.testing.assert_allclose(fn(*flat, np.ones((len(flat[0]), 1))), value, rtol=1e-5)


def test_divergences_by_hand_and_at_both_ends():
    teacher, student = np.log(np.float32([[[0.9, 0.1]]])), np.log(np.float32([[[0.6, 0.4]]]))
    one = np.ones((1, 1))
    assert float(losses.forward_kl(student, teacher, one)) == pytest.approx(0.22629, abs=1e-5)
    assert float(losses.reverse_kl(student, teacher, one)) == pytest.approx(
        float(losses.forward_kl(teacher, student, one)), rel=1e-5
    )
    jsd = lambda beta: losses.generalized_jsd(S, T, MASK, beta=beta)
    assert abs(jsd(0.0)) < 1e-6 and abs(jsd(1.0)) < 1e-6
    np.testing.assert_allclose(jsd(1e-4) / 1e-4, losses.forward_kl(S, T, MASK), rtol=2e-2)
    np.testing.assert_allclose(jsd(1 - 1e-3) / 1e-3, losses.reverse_kl(S, T, MASK), rtol=1e-1)
    for beta in (0.0, 0.5, 1.0):
        grad = jax.grad(lambda s, b=beta: losses.generalized_jsd(s, 99 * T, MASK, beta=b))(99 * S)
        assert np.all(np.isfinite(grad))


def test_a_token_is_said_by_the_place_before_it():
    logits = np.float32([[[0, 9, 0], [0, 0, 9], [9, 0, 0]]])
    every = np.ones((1, 3))
    assert float(losses.token_nll(logits, np.array([[0, 1, 2]]), every)) < 1e-3
    assert float(losses.token_nll(logits, np.array([[1, 2, 0]]), every)) > 8
    first = losses.token_nll(logits, np.array([[0, 1, 2]]), np.array([[1, 0, 0]]))
    assert float(first) == 0  # it has no prediction
    grad = jax.grad(losses.token_nll)(S, TOKENS, MASK)
    moved = np.abs(grad).sum(-1) > 0
    np.testing.assert_array_equal(moved, np.pad(MASK[:, 1:], ((0, 0), (0, 1))))


def test_drafts_within_the_best_k_stay_and_others_are_the_teachers():
    teacher = np.tile(np.float32([4, 3, 2, 1]), (1, 5, 1))
    draft, draws = np.array([[1, 0, 3, 0, 0]]), np.full((1, 5), 0.5)
    tokens, accepted = losses.skd_accept(draft, teacher, draws, k=2)
    np.testing.assert_array_equal(accepted, [[1, 1, 0, 1, 1]])
    np.testing.assert_array_equal(tokens, [[1, 0, 0, 0, 0]])
    kept = [losses.skd_accept(TOKENS, T, 0 * MASK, k=k).accepted.sum() for k in range(1, 6)]
    assert kept == sorted(kept) and kept[-1] == TOKENS.size and kept[0] < TOKENS.size
    # Equal scores: the first k in the order of the vocabulary.
    equal = losses.skd_accept(np.array([[0, 1, 2]]), np.zeros((1, 3, 4)), np.zeros((1, 3)), k=2)
    np.testing.assert_array_equal(equal.accepted, [[1, 1, 0]])


def test_replacements_follow_the_cut_and_tempered_teacher():
    p, places = np.float32([0.1, 0.2, 0.3, 0.4]), 1000
    teacher = np.tile(np.log(p), (1, places, 1))
    draws = (np.arange(places)[None] + 0.5) / places
    shares = lambda **fields: np.bincount(
        np.asarray(
            losses.skd_accept(
                np.zeros((1, places), int), teacher, draws, k=1, temperature=1.0, **fields
            ).tokens[0]
        ),
        minlength=4,
    ) / places  # fmt: skip
    np.testing.assert_allclose(shares(top_p=1.0), p, atol=1e-3)
    # Of mass 0.5 the fewest are 0.4 and 0.3; of 0.3 it is the first alone.
    np.testing.assert_allclose(shares(top_p=0.5), [0, 0, 3 / 7, 4 / 7], atol=2e-3)
    np.testing.assert_allclose(shares(top_p=0.3), [0, 0, 0, 1])
    last = losses.skd_accept(np.array([[0]]), teacher[:, :1], np.ones((1, 1)), k=1, top_p=1.0)
    assert last.tokens[0, 0] == 3


def test_self_evolution_by_hand():
    teacher = np.log(np.float32([[[0.7, 0.2, 0.1]]]))
    student, one, y = np.log(np.float32([[[0.1, 0.1, 0.8]]])), np.ones((1, 1)), np.array([[1]])
    of = lambda s, **fields: losses.self_evolution_kd(s, teacher, one, y, **fields)
    assert float(of(student).difficulty[0, 0]) == pytest.approx(1.37489, abs=1e-5)
    assert float(of(student).loss) == pytest.approx(0.37104, abs=1e-5)
    slope = lambda **fields: jax.grad(lambda s: of(s, **fields).loss)(student)[0, 0]
    np.testing.assert_allclose(slope(), [-0.056723, -0.064659, 0.121382], atol=1e-5)
    np.testing.assert_allclose(slope(hard_fraction=0.0), [-0.25, -0.5, 0.75], atol=1e-5)
    full = slope(prior_ratio=1.0)
    assert abs(of(student, prior_ratio=1.0).loss) < 1e-6 and np.abs(full).max() < 1e-6


def test_self_evolution_is_plain_where_nothing_is_hard():
    of = lambda **fields: losses.self_evolution_kd(S, T, MASK, TOKENS, **fields)
    easy = dict(hard_fraction=0.0)
    np.testing.assert_allclose(
        of(label_weight=0.0, **easy).loss, losses.forward_kl(S, T, MASK), rtol=1e-4
    )
    nll = losses.masked_cross_entropy(S, TOKENS, MASK)
    np.testing.assert_allclose(of(label_weight=1.0, **easy).loss, nll, rtol=1e-4)
    np.testing.assert_allclose(of(prior_ratio=0.0).loss, of(**easy).loss, rtol=1e-5)
    # Padding changes neither the threshold nor the mean.
    padded = np.where(MASK[..., None], S, 50 * normal(5, 8, 4, 5))
    found = losses.self_evolution_kd(padded, T, MASK, TOKENS).loss
    np.testing.assert_allclose(found, of().loss, rtol=1e-5)
    # Only the harder half is met halfway.
    p = lambda h: np.asarray(
        jax.grad(lambda s: losses.self_evolution_kd(s, T, MASK, TOKENS, hard_fraction=h).loss)(S)
    )
    changed = np.abs(p(0.5) - p(0.0)).sum(-1) > 1e-7
    assert changed.sum() == -(-MASK.sum() // 2) and not np.any(changed & ~MASK)


@pytest.mark.parametrize(
    "call",
    [lambda name=name: getattr(losses, name)(S, T[:, :2], MASK) for name in DIVERGENCES]
    + [
        lambda: losses.token_nll(S, TOKENS[:, :2], MASK),
        lambda: losses.skd_accept(TOKENS, T, MASK[:, :2]),
        lambda: losses.self_evolution_kd(S, T, MASK, TOKENS[:, :2]),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call):
    with pytest.raises(AssertionError):
        call()
