"""Balanced codes and cluster labels: published values, invariants, devices, errors."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import losses
from jaxssl.config.errors import ConfigError


def normal(seed, *shape):
    return np.float32(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("case", golden.CASES)
@pytest.mark.parametrize("name", ["sinkhorn", "swav"])
def test_golden(shared, name, case):
    golden.check(shared, name, case, getattr(losses, name))


def test_codes_use_every_prototype_equally_often():
    codes = losses.sinkhorn(normal(0, 32, 8), epsilon=1.0, iterations=50)
    np.testing.assert_allclose(codes.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(codes.sum(0), 4, rtol=1e-4)
    few = losses.sinkhorn(normal(0, 32, 8), epsilon=0.05, iterations=3)
    np.testing.assert_allclose(few.sum(1), 1, rtol=1e-5)


def test_codes_of_constant_scores_are_uniform_and_of_huge_ones_finite():
    constant = losses.sinkhorn(jnp.ones((6, 4)), epsilon=0.05, iterations=3)
    np.testing.assert_allclose(constant, 0.25, rtol=1e-6)
    huge = losses.sinkhorn(1e4 * normal(0, 6, 4), epsilon=0.05, iterations=3)
    np.testing.assert_allclose(huge.sum(1), 1, rtol=1e-5)


def test_a_code_pulls_every_other_view_and_gets_no_gradient():
    scores = normal(0, 3, 8, 4)
    loss = lambda s: losses.swav(s, num_global=1)
    grad = jax.grad(loss)(scores)
    # The one code is of view 0, which predicts nothing.
    assert not np.any(grad[0]) and np.all(np.abs(grad[1:]).sum((1, 2)) > 0)


def test_global_views_play_the_same_part():
    scores = normal(0, 4, 8, 4)
    order = np.array([1, 0, 3, 2])
    np.testing.assert_allclose(
        losses.swav(scores[order], num_global=2), losses.swav(scores, num_global=2), rtol=1e-6
    )


def test_past_scores_join_the_balancing_alone():
    scores, past = normal(0, 2, 8, 4), normal(1, 2, 24, 4)
    value = losses.swav(scores, num_global=2, past=past)
    codes = [
        losses.sinkhorn(np.concatenate([s, p]), epsilon=0.05, iterations=3)[:8]
        for s, p in zip(scores, past)
    ]
    log_q = jax.nn.log_softmax(scores / 0.1)
    expected = -((codes[0] * log_q[1]).sum(-1).mean() + (codes[1] * log_q[0]).sum(-1).mean()) / 2
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    without = losses.swav(scores, num_global=2)
    assert abs(float(value - without)) > 1e-2
    left_out = losses.swav(scores, num_global=2, past=past, use_past=jnp.float32(0))
    np.testing.assert_allclose(left_out, without, rtol=1e-6)
    to_past = jax.grad(lambda p: losses.swav(scores, num_global=2, past=p))(past)
    assert not np.any(to_past)


def test_clusters_are_classes_whose_classifier_is_fixed():
    z, centroids = normal(0, 3, 8, 5), np.array(losses.clustering.unit(normal(1, 2, 4, 5)))
    codes = np.random.default_rng(2).integers(0, 4, (2, 8))
    loss = lambda z, c: losses.cluster_cross_entropy(z, clusters=(c, codes), temperature=0.2)
    value, (to_z, to_centroids) = jax.value_and_grad(loss, (0, 1))(z, centroids)
    u = z / np.linalg.norm(z, axis=-1, keepdims=True)
    expected = []
    for head in range(2):
        logits = u @ centroids[head].T / 0.2
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        expected.append(-log_p[:, np.arange(8), codes[head]].mean())
    np.testing.assert_allclose(value, np.mean(expected), rtol=1e-5)
    assert np.any(to_z) and not np.any(to_centroids)


def test_no_nan_for_embeddings_of_zeros():
    clusters = (jnp.eye(4)[None], jnp.zeros((1, 3), jnp.int32))
    loss = lambda z: losses.cluster_cross_entropy(z, clusters=clusters)
    value, grad = jax.value_and_grad(loss)(jnp.zeros((2, 3, 4)))
    np.testing.assert_allclose(value, np.log(4), rtol=1e-6)
    assert np.isfinite(grad).all()


def test_devices():
    scores, past = normal(0, 3, 16, 8), normal(1, 2, 32, 8)
    swav = lambda s, p: losses.swav(s, num_global=2, past=p)
    golden.check_devices(swav, [scores, past], [1, 1])
    codes = np.random.default_rng(2).integers(0, 4, (2, 16))
    clusters = lambda z, c, y: losses.cluster_cross_entropy(z, clusters=(c, y))
    golden.check_devices(clusters, [normal(3, 2, 16, 8), normal(4, 2, 4, 8), codes], [1, None, 1])


def test_bfloat16_scores_give_a_float32_loss():
    scores = jnp.asarray(normal(0, 3, 8, 4), jnp.bfloat16)
    value = losses.swav(scores, num_global=2)
    assert value.dtype == jnp.float32
    full = losses.swav(scores.astype(jnp.float32), num_global=2)
    np.testing.assert_allclose(value, full, rtol=1e-6)


def test_errors_say_what_was_expected():
    with pytest.raises(ConfigError, match="iterations: found 0, expected at least 1"):
        losses.sinkhorn(jnp.ones((4, 2)), epsilon=0.05, iterations=0)
    with pytest.raises(ConfigError, match="num_global: found 3, expected 1 to 2"):
        losses.swav(jnp.ones((2, 4, 2)), num_global=3)
    with pytest.raises(ConfigError, match="scores: found 1 view"):
        losses.swav(jnp.ones((1, 4, 2)), num_global=1)
