"""Contrastive losses: published values, their ends, invariances, where no gradient goes."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import losses
from jaxssl.config.errors import ConfigError
from jaxssl.losses import contrastive
from jaxssl.memories.queue import random_corners

NAMES = (
    "nt_xent",
    "info_nce_queue",
    "moco_v3",
    "decoupled_contrastive",
    "nnclr",
    "relational_consistency",
)
INDEX = jnp.arange(16) * 2


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def pair(fn, queue=None, **hyper):
    """The loss as a function of two arrays, with what else it takes."""
    rest = () if queue is None else (queue,)
    return jax.jit(lambda a, b: fn(a, b, *rest, **({"temperature": 0.2} | hyper)))


def relational(q, k, queue, **hyper):
    return losses.relational_consistency(
        q, k, queue, student_temperature=0.1, teacher_temperature=0.04
    )


def nce(z, bank, **hyper):
    fields = {"temperature": 0.2, "num_negatives": 8, "key": jax.random.key(0)} | hyper
    return losses.instance_nce(z, bank, INDEX[: len(z)], **fields)


def exact(z, bank):
    return losses.instance_discrimination(z, bank, INDEX[: len(z)], temperature=0.2)


PAIRS = {
    "nt_xent": pair(losses.nt_xent),
    "decoupled_contrastive": pair(losses.decoupled_contrastive),
    "moco_v3": pair(losses.moco_v3),
    "nnclr": pair(losses.nnclr),
    "info_nce_queue": pair(losses.info_nce_queue, normal(2, 4, 24)),
    "relational_consistency": pair(relational, normal(2, 24, 4)),
}


@pytest.mark.parametrize("case", golden.CASES)
@pytest.mark.parametrize("name", NAMES)
def test_golden(shared, name, case):
    golden.check(shared, name, case, getattr(losses, name))


@pytest.mark.parametrize("name", PAIRS)
def test_eight_devices_give_the_numbers_of_one(name):
    golden.check_devices(PAIRS[name], (normal(0, 16, 4), normal(1, 16, 4)), (0, 0))


@pytest.mark.parametrize("fn", [exact, nce])
def test_a_split_bank_gives_the_numbers_of_one_device(fn):
    golden.check_devices(fn, (normal(0, 16, 4), normal(1, 32, 4)), (0, 0))


@pytest.mark.parametrize("name", PAIRS)
def test_lengths_and_rotations_do_not_count_and_zeros_have_finite_gradients(name):
    a, b = normal(0, 8, 4), normal(1, 8, 4)
    value = PAIRS[name](a, b)
    np.testing.assert_allclose(PAIRS[name](3 * a, b / 5), value, rtol=1e-4)
    if name in ("nt_xent", "decoupled_contrastive", "moco_v3", "nnclr"):
        turn, _ = jnp.linalg.qr(normal(3, 4, 4))
        np.testing.assert_allclose(PAIRS[name](a @ turn, b @ turn), value, rtol=1e-4)
    at_zero, grads = golden.value_and_grads(PAIRS[name], (a * 0, b * 0))
    assert np.isfinite(at_zero) and all(np.isfinite(g).all() for g in grads.values())


@pytest.mark.parametrize("name", ["nt_xent", "decoupled_contrastive"])
def test_views_may_be_swapped(name):
    a, b = normal(0, 8, 4), normal(1, 8, 4)
    np.testing.assert_allclose(PAIRS[name](a, b), PAIRS[name](b, a), rtol=1e-6)


def test_collapsed_embeddings_are_told_apart_by_chance():
    z = jnp.ones((8, 4))
    chance = {
        "nt_xent": np.log(15),
        "decoupled_contrastive": np.log(14),
        "moco_v3": 0.4 * np.log(8),
        "nnclr": np.log(8),
    }
    for name, value in chance.items():
        np.testing.assert_allclose(PAIRS[name](z, z), value, rtol=1e-5, err_msg=name)
    queued = pair(losses.info_nce_queue, jnp.ones((4, 24)))(z, z)
    related = pair(relational, jnp.ones((24, 4)))(z, z)
    single = jax.jit(exact)(z, jnp.ones((24, 4)))
    np.testing.assert_allclose([queued, related, single], np.log([25, 24, 24]), rtol=1e-5)


@pytest.mark.parametrize(
    "name, temperature, expected",
    [("nt_xent", 1.0, 0.551445), ("nt_xent", 0.5, 0.239545), ("moco_v3", 0.2, 0.002686)],
)
def test_two_orthogonal_samples(name, temperature, expected):
    fn = pair(getattr(losses, name), temperature=temperature)
    np.testing.assert_allclose(fn(jnp.eye(2), jnp.eye(2)), expected, rtol=2e-4)


def test_a_key_equal_to_its_query_among_orthogonal_ones():
    query, others = jnp.eye(4)[:1], jnp.eye(4)[:, 1:]
    fn = pair(losses.info_nce_queue, others, temperature=0.5)
    np.testing.assert_allclose(fn(query, query), np.log(1 + 3 * np.exp(-2)), rtol=1e-5)


def test_positive_left_out_of_the_denominator():
    """DCL is the logarithm of what is left of NT-Xent's denominator without the positive."""
    a, b = normal(0, 8, 4), normal(1, 8, 4)
    h = np.concatenate([a, b])
    h /= np.linalg.norm(h, axis=1, keepdims=True)
    similar = np.exp(h @ h.T / 0.2)
    positive = np.r_[np.diag(similar, 8), np.diag(similar, 8)]
    negatives = similar.sum(1) - np.diag(similar) - positive
    np.testing.assert_allclose(
        PAIRS["nt_xent"](a, b), -np.log(positive / (positive + negatives)).mean(), rtol=1e-4
    )
    np.testing.assert_allclose(
        PAIRS["decoupled_contrastive"](a, b), -np.log(positive / negatives).mean(), rtol=1e-4
    )


def test_similarities_like_the_teachers_at_one_temperature_cost_their_entropy():
    q, queue = normal(0, 8, 4), normal(2, 24, 4)
    fn = lambda q: losses.relational_consistency(
        q, normal(0, 8, 4), queue, student_temperature=0.1, teacher_temperature=0.1
    )
    value, gradient = jax.jit(jax.value_and_grad(fn))(q)
    assert float(value) > 0
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize(
    "fn, stopped",
    [
        (PAIRS["moco_v3"], 1),
        (PAIRS["nnclr"], 0),
        (PAIRS["info_nce_queue"], 1),
        (PAIRS["relational_consistency"], 1),
        (exact, 1),
        (nce, 1),
        (lambda q, queue: relational(q, normal(1, 8, 4), queue), 1),
        (lambda q, queue: losses.info_nce_queue(q, q[::-1], queue.T, temperature=0.2), 1),
    ],
)
def test_targets_and_memories_get_no_gradient(fn, stopped):
    arrays = normal(0, 8, 4), normal(1, 24 if fn in (exact, nce) else 8, 4)
    _, grads = golden.value_and_grads(fn, arrays)
    assert not np.any(grads[stopped]) and np.abs(grads[1 - stopped]).max() > 1e-4


def test_sampled_negatives_estimate_what_all_of_them_give():
    """The mean over many draws of NCE, against its sum over the whole bank."""
    z, bank = normal(0, 4, 8), normal(1, 32, 8)
    keys = jax.random.split(jax.random.key(5), 256)
    sampled = jax.jit(jax.vmap(lambda k: nce(z, bank, key=k, num_negatives=16)))(keys)
    z, bank = np.asarray(z), np.asarray(bank)
    u, m = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (z, bank))
    p = np.exp(u @ m.T / 0.2) / float(contrastive.random_partition(32, 8, 0.2))
    h = p / (p + 16 / 32)
    all_rows = -np.log(h[np.arange(4), INDEX[:4]]) - 16 * np.log(1 - h).mean(1)
    np.testing.assert_allclose(sampled.mean(), all_rows.mean(), rtol=0.02)


def test_the_partition_is_that_of_random_directions_and_of_a_bank_as_it_starts():
    m = np.random.default_rng(0).normal(size=(20_000, 32))
    m /= np.linalg.norm(m, axis=1, keepdims=True)
    bank = np.asarray(random_corners(jax.random.key(0), m.shape))
    for rows in (m, bank):
        found = np.exp(rows @ m[:64].T / 0.2)[64:].sum(0).mean()
        np.testing.assert_allclose(contrastive.random_partition(20_000, 32, 0.2), found, rtol=0.02)


@pytest.mark.parametrize("name", PAIRS)
def test_float32_under_bfloat16(name):
    a, b = (normal(i, 8, 4).astype(jnp.bfloat16) for i in (0, 1))
    value, gradient = jax.jit(jax.value_and_grad(PAIRS[name]))(a, b)
    assert value.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
    wide = PAIRS[name](a.astype(jnp.float32), b.astype(jnp.float32))
    np.testing.assert_allclose(value, wide, rtol=1e-5)


def test_errors_name_what_was_found():
    with pytest.raises(ConfigError, match="z1: found 1 sample, expected at least 2"):
        losses.decoupled_contrastive(jnp.ones((1, 2)), jnp.ones((1, 2)), temperature=1.0)
    with pytest.raises(ConfigError, match="num_negatives: found 0, expected at least 1"):
        nce(normal(0, 4, 8), normal(1, 32, 8), num_negatives=0)
