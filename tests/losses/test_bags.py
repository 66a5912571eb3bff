"""Bags of visual words: codes, bags, their divergence, and the vectors that become words."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import losses
from jaxssl.config.errors import ConfigError

KEY = jax.random.key(0)


def some_bags(images=4, words=8, seed=0):
    return jax.nn.softmax(jax.random.normal(jax.random.key(seed), (images, words)))


def test_distances_are_those_of_all_differences():
    x = jax.random.normal(KEY, (2, 5, 3))
    v = jax.random.normal(jax.random.key(1), (7, 3))
    found = losses.word_distances(x, v)
    expected = np.square(np.asarray(x)[:, :, None] - np.asarray(v)).sum(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert float(losses.word_distances(x, x[0]).min()) >= 0  # where rounding might go below


def test_known_codes():
    d = jnp.array([[[0.0, 1.0, 1.0]]])
    bag = losses.bag_of_words(d, sharpness=15.0)[0]
    np.testing.assert_allclose(bag, [0.9999994, 3.06e-7, 3.06e-7], rtol=1e-3)
    np.testing.assert_allclose(losses.bag_of_words(d, scale=2.0, sharpness=30.0)[0], bag, rtol=1e-5)
    np.testing.assert_allclose(losses.bag_of_words(d, sharpness=0.0)[0], 1 / 3, rtol=1e-6)


@pytest.mark.parametrize("pool", ["max", "mean"])
@pytest.mark.parametrize("sharpness", [None, 3.0])
def test_bags_are_shares(pool, sharpness):
    d = jax.random.uniform(KEY, (4, 9, 16))
    bags = np.asarray(losses.bag_of_words(d, sharpness=sharpness, pool=pool))
    assert (bags >= 0).all()
    np.testing.assert_allclose(bags.sum(-1), 1, rtol=1e-5)


def test_hard_bags_count_the_words_that_are_there():
    d = jax.random.uniform(KEY, (3, 5, 8))
    bags = losses.bag_of_words(d, sharpness=None)
    for distances, bag in zip(d, bags):
        used = np.unique(distances.argmin(-1))
        expected = np.isin(np.arange(8), used) / len(used)
        np.testing.assert_allclose(bag, expected, rtol=1e-6)


def test_the_divergence_is_zero_at_the_truth_alone():
    t = some_bags()
    logits = jnp.log(t)[:, None] + 3.0
    assert float(losses.bag_divergence(logits, t)) == pytest.approx(0, abs=1e-6)
    assert float(losses.bag_divergence(jnp.zeros_like(logits), t)) > 1e-2


def test_the_divergence_is_the_cross_entropy_without_the_entropy():
    t, x = some_bags(), jax.random.normal(KEY, (4, 3, 8))
    log_p = jax.nn.log_softmax(x)
    cross_entropy = -(t[:, None] * log_p).sum(-1).mean()
    entropy = -(t * jnp.log(t)).sum(-1).mean()
    np.testing.assert_allclose(losses.bag_divergence(x, t), cross_entropy - entropy, rtol=1e-5)


def test_words_that_are_absent_do_no_harm():
    t = jnp.eye(4)
    value, grad = jax.value_and_grad(losses.bag_divergence)(jnp.zeros((4, 1, 4)), t)
    np.testing.assert_allclose(value, np.log(4), rtol=1e-6)
    assert np.isfinite(grad).all()


def prediction(features, words, maps, vocabulary):
    bags = losses.bag_of_words(losses.word_distances(maps, vocabulary), sharpness=0.5)
    logits = jnp.einsum("bvd,kd->bvk", features, words, precision=jax.lax.Precision.HIGHEST)
    return losses.bag_divergence(logits, bags)


def some_prediction(batch=8, words=16):
    shapes = [(batch, 2, 4), (words, 4), (batch, 9, 3), (words, 3)]
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def test_the_order_of_the_vocabulary_moves_nothing():
    features, words, maps, vocabulary = some_prediction()
    order = np.random.default_rng(1).permutation(len(words))
    value = prediction(features, words, maps, vocabulary)
    np.testing.assert_allclose(
        prediction(features, words[order], maps, vocabulary[order]), value, rtol=1e-5
    )


def test_the_gradient_reaches_the_prediction_alone():
    grads = jax.grad(prediction, (0, 1, 2, 3))(*some_prediction())
    assert np.any(grads[0]) and np.any(grads[1])
    assert not np.any(grads[2]) and not np.any(grads[3])


def test_one_device_is_eight():
    golden.check_devices(prediction, some_prediction(16), [0, None, 0, None])


def test_perplexity_counts_words():
    assert float(losses.bag_perplexity(jnp.eye(4)[:2])) == pytest.approx(2)
    one = jnp.zeros((3, 5)).at[:, 2].set(1.0)
    assert float(losses.bag_perplexity(one)) == pytest.approx(1)


def test_sampled_words_are_means_of_windows_and_do_not_depend_on_the_batch():
    maps = jax.random.normal(KEY, (6, 5, 4, 2))
    keys = jax.random.split(jax.random.key(1), 6)
    words = np.asarray(losses.sampled_words(maps, keys))
    for x, word in zip(np.asarray(maps), words):
        means = [x[i : i + 3, j : j + 3].mean((0, 1)) for i in range(3) for j in range(2)]
        assert min(np.abs(mean - word).max() for mean in means) < 1e-6
    np.testing.assert_allclose(losses.sampled_words(maps[::-1], keys[::-1]), words[::-1], rtol=1e-6)
    whole = jnp.broadcast_to(maps[:1], (64, 5, 4, 2))
    drawn = losses.sampled_words(whole, jax.random.split(KEY, 64))
    assert len(np.unique(np.asarray(drawn)[:, 0])) == 6


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda d: losses.bag_of_words(d, pool="maks"), "pool: found 'maks'"),
        (lambda d: losses.bag_of_words(d, sharpness=-1.0), "sharpness: found -1"),
        (
            lambda d: losses.sampled_words(jnp.zeros((1, 2, 2, 1)), jax.random.split(KEY, 1)),
            "window: found 3, expected 1 to 2",
        ),
    ],
)
def test_bad_arguments_are_named(call, text):
    with pytest.raises(ConfigError, match=text):
        call(jnp.zeros((1, 2, 3)))
