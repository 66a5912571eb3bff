"""Latent targets: the numbers of the published forms, what counts, gradients, devices, errors."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import losses
from jaxssl.config.errors import ConfigError


def normal(seed, *shape):
    return np.float32(np.random.default_rng(seed).normal(size=shape))


def unlike_masks(batch, tokens):
    """Samples with unlike numbers of masked tokens: a mean of means is then another number."""
    return np.arange(tokens) < (np.arange(batch) % tokens)[:, None]


MASK = unlike_masks(8, 5)


def masked_losses():
    """name -> (loss of (prediction, targets, mask), prediction, targets)."""
    codes = np.arange(40).reshape(8, 5) % 6
    return {
        "data2vec": (jax.jit(losses.data2vec), normal(0, 8, 5, 6), normal(1, 8, 7, 5, 6)),
        "dbot": (jax.jit(losses.dbot), normal(0, 8, 5, 6), normal(1, 8, 5, 6)),
        "codes": (jax.jit(losses.masked_cross_entropy), normal(0, 8, 5, 6), codes),
    }


@pytest.mark.parametrize(
    ("beta", "values"),
    [
        (1.0, {0.5: 0.125, 1.0: 0.5, 2.0: 1.5}),
        (2.0, {0.5: 0.0625, 1.0: 0.25, 2.0: 1.0, 4.0: 3.0, -4.0: 3.0}),
    ],
)
def test_smooth_l1_has_its_published_values_and_slopes(beta, values):
    d = np.float32([*values, 0.0])
    found, pull = jax.jit(lambda d: jax.vjp(lambda d: losses.smooth_l1(d, 0 * d, beta), d))(d)
    np.testing.assert_allclose(found, [*values.values(), 0.0])
    np.testing.assert_allclose(jax.jit(pull)(np.ones_like(d))[0], np.clip(d / beta, -1, 1))


@pytest.mark.parametrize("name", ["data2vec", "dbot", "codes"])
def test_only_masked_tokens_count_and_all_alike(name):
    loss, x, target = masked_losses()[name]
    value = loss(x, target, MASK)
    assert loss(np.where(MASK[..., None], x, np.nan), target, MASK) == value
    # The mean over all masked tokens, not the mean of the images' means.
    each = [float(loss(x[i : i + 1], target[i : i + 1], MASK[i : i + 1])) for i in range(8)]
    counts = MASK.sum(1)
    np.testing.assert_allclose(value, np.dot(each, counts) / counts.sum(), rtol=1e-5)


@pytest.mark.parametrize("name", ["data2vec", "dbot", "codes"])
def test_nothing_masked_is_zero_with_a_zero_gradient(name):
    loss, x, target = masked_losses()[name]
    value, grad = jax.value_and_grad(loss)(x, target, MASK & False)
    assert value == 0 and not np.any(grad)


@pytest.mark.parametrize("name", ["data2vec", "dbot"])
def test_targets_get_no_gradient(name):
    loss, x, target = masked_losses()[name]
    to_x, to_target = jax.grad(loss, argnums=(0, 1))(x, target, MASK)
    assert np.any(to_x) and not np.any(to_target)


def test_data2vec_with_one_block_is_the_normalised_last_one():
    layers = normal(0, 8, 4, 5, 64)
    last = layers[:, -1]
    target = (last - last.mean(-1, keepdims=True)) / last.std(-1, keepdims=True)
    np.testing.assert_allclose(target.var(-1), 1, rtol=1e-5)
    assert losses.data2vec(target, layers, MASK, top_k=1) < 1e-9
    np.testing.assert_allclose(losses.data2vec(target + 1, layers, MASK, top_k=1), 0.25, rtol=1e-4)
    np.testing.assert_allclose(losses.data2vec(target + 4, layers, MASK, top_k=1), 3.0, rtol=1e-4)


def test_data2vec_averages_the_last_blocks_before_the_layer_norm():
    layers = normal(0, 8, 4, 5, 64) * np.float32([9, 1, 2, 3])[:, None, None]
    mean = layers[:, -3:].mean(1)
    target = (mean - mean.mean(-1, keepdims=True)) / mean.std(-1, keepdims=True)
    assert losses.data2vec(target, layers, MASK, top_k=3) < 1e-9
    assert losses.data2vec(mean, layers, MASK, top_k=3, normalize="none") < 1e-9


def test_data2vec_of_instances_normalises_each_layer_over_tokens():
    layers = normal(0, 8, 4, 5, 6) * np.float32([9, 1, 2, 3])[:, None, None]
    each = (layers - layers.mean(2, keepdims=True)) / layers.std(2, keepdims=True)
    target = each[:, -2:].mean(1)
    assert losses.data2vec(target, layers, MASK, top_k=2, normalize="instance") < 1e-6


def test_dbot_target_is_standardised_with_the_unbiased_variance():
    target = np.float32([-1.161895, -0.387298, 0.387298, 1.161895])
    loss = lambda h: losses.dbot(target[None, None], h, np.ones((1, 1), bool))
    features = jnp.array([[[1.0, 2.0, 3.0, 4.0]]])
    assert loss(features) < 1e-11
    assert loss(5 * features - 7) < 1e-11  # affine changes of a token change nothing


def test_dbot_counts_the_class_token_as_masked():
    mask = np.zeros((2, 196), bool)
    mask[:, :147] = True
    x = normal(0, 2, 197, 4)
    features = normal(1, 2, 197, 4)
    dbot = jax.jit(losses.dbot)
    alone = dbot(x[:, :1], features[:, :1], np.ones((2, 1), bool))
    patches = dbot(x[:, 1:], features[:, 1:], mask)
    both = dbot(x, features, mask)
    np.testing.assert_allclose(both, (alone + 147 * patches) / 148, rtol=1e-5)


def blocks():
    targets = np.random.default_rng(2).integers(0, 9, (8, 4, 3))
    return normal(0, 8, 4, 3, 16), normal(1, 8, 9, 16), targets


def test_ijepa_predicts_the_normalised_tokens_at_its_places():
    x, tokens, targets = blocks()
    h = (tokens - tokens.mean(-1, keepdims=True)) / tokens.std(-1, keepdims=True)
    chosen = np.stack([h[n][targets[n]] for n in range(8)])
    assert losses.ijepa(chosen, tokens, targets) < 1e-9
    ijepa = jax.jit(losses.ijepa)
    for d, value in {0.5: 0.125, 1.0: 0.5, 2.0: 1.5}.items():
        found = ijepa(chosen + d, tokens, targets)
        np.testing.assert_allclose(found, value, rtol=1e-3)
    to_x, to_tokens = jax.jit(jax.grad(losses.ijepa, argnums=(0, 1)))(x, tokens, targets)
    assert np.any(to_x) and not np.any(to_tokens)


def test_ijepa_does_not_know_the_order_of_the_blocks():
    x, tokens, targets = blocks()
    ijepa = jax.jit(losses.ijepa)
    value = ijepa(x, tokens, targets)
    np.testing.assert_allclose(ijepa(x[:, ::-1], tokens, targets[:, ::-1]), value, rtol=1e-6)
    assert abs(ijepa(x[:, ::-1], tokens, targets) - value) > 1e-4


@pytest.mark.parametrize("batch", [2, 8])
def test_feature_matching_sums_over_features(batch):
    h = normal(0, batch, 192)
    np.testing.assert_allclose(losses.feature_matching(h + 1, h), 192, rtol=1e-5)
    value, grads = jax.value_and_grad(losses.feature_matching, argnums=(0, 1))(h, h)
    assert value == 0 and not np.any(grads[0])
    assert not np.any(jax.grad(losses.feature_matching, argnums=1)(h + 1, h))


def test_masked_cross_entropy_of_equal_logits_is_log_k():
    codes = np.zeros((8, 5), int)
    value = losses.masked_cross_entropy(jnp.ones((8, 5, 8192)), codes, MASK)
    np.testing.assert_allclose(value, np.log(8192), rtol=1e-6)
    logits = 100 * np.eye(6, dtype=np.float32)[np.arange(40).reshape(8, 5) % 6]
    assert losses.masked_cross_entropy(logits, np.arange(40).reshape(8, 5) % 6, MASK) < 1e-6
    assert losses.masked_cross_entropy(logits, (np.arange(40) + 1).reshape(8, 5) % 6, MASK) > 99


def test_devices():
    for loss, x, target in masked_losses().values():
        golden.check_devices(loss, [x, target, MASK], [0, 0, 0])
    golden.check_devices(losses.ijepa, blocks(), [0, 0, 0])
    golden.check_devices(losses.feature_matching, [normal(0, 8, 4), normal(1, 8, 4)], [0, 0])


X, LAYERS = jnp.ones((2, 3, 4)), jnp.ones((2, 5, 3, 4))
SOME = jnp.ones((2, 3), bool)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: losses.data2vec(X, LAYERS, SOME), "top_k: found 6, expected 1 to 5"),
        (lambda: losses.data2vec(X, LAYERS, SOME, top_k=0), "top_k: found 0"),
        (lambda: losses.data2vec(X, LAYERS, SOME, top_k=1, normalize="laier"), "mean 'layer'"),
        (lambda: losses.data2vec(X, LAYERS, SOME, top_k=1, beta=0.0), "beta: found 0.0"),
        (lambda: losses.dbot(X, X, SOME[:, :1]), "prediction: found 3 tokens, expected the 1 of"),
        (lambda: losses.dbot(X[..., :1], X[..., :1], SOME), "features: found tokens of 1 number"),
    ],
)
def test_errors_name_the_argument(call, text):
    with pytest.raises(ConfigError, match=text) as error:
        call()
    assert "expected" in str(error.value) and "\n" not in str(error.value)
