"""BYOL, SimSiam and low-bias uniformity: published values, gradients, invariances."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import losses
from jaxssl.config.errors import ConfigError


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("case", golden.CASES)
@pytest.mark.parametrize("name", ["byol", "simsiam"])
def test_golden(shared, name, case):
    golden.check(shared, name, case, getattr(losses, name))


@pytest.mark.parametrize(
    "fn, arrays, axes",
    [
        (losses.byol, (normal(0, 16, 4), normal(1, 16, 4)), (0, 0)),
        (losses.low_bias_uniformity, (normal(0, 2, 16, 4),), (1,)),
    ],
)
def test_eight_devices_give_the_numbers_of_one(fn, arrays, axes):
    golden.check_devices(fn, arrays, axes)


def test_byol_of_equal_orthogonal_and_opposite_vectors():
    p, orthogonal = jnp.array([[3.0, 0.0]]), jnp.array([[0.0, 2.0]])
    assert [float(losses.byol(p, t)) for t in (p, orthogonal, -p)] == [0, 2, 4]
    assert [float(losses.simsiam(p, t)) for t in (p, orthogonal, -p)] == [-1, 0, 1]


def test_lengths_do_not_count_and_zero_has_a_finite_gradient():
    p, t = normal(0, 8, 4), normal(1, 8, 4)
    np.testing.assert_allclose(losses.byol(5 * p, t / 3), losses.byol(p, t), rtol=1e-6)
    for fn, arrays in ((losses.byol, (p * 0, t)), (losses.low_bias_uniformity, (p[None] * 0,))):
        value, grads = golden.value_and_grads(fn, arrays)
        assert np.isfinite(value) and all(np.isfinite(g).all() for g in grads.values())


def test_uniformity_of_collapsed_orthogonal_and_opposite_samples():
    same = jnp.ones((2, 4, 3))
    assert float(losses.low_bias_uniformity(same)) == pytest.approx(0.5)
    opposite = jnp.array([[[1.0], [-1.0]]] * 2)
    assert float(losses.low_bias_uniformity(opposite)) == pytest.approx(-0.5)
    assert float(losses.low_bias_uniformity(jnp.eye(4)[None])) == pytest.approx(0, abs=1e-6)


def test_uniformity_counts_neither_an_embedding_itself_nor_its_other_view():
    """Its form over sums with the own sample's entries set to 0, whose exp(0) is then taken off."""
    first, second = normal(0, 6, 4), normal(1, 6, 4)
    z = jnp.concatenate([first, second])
    z /= jnp.linalg.norm(z, axis=-1, keepdims=True)
    others = 1 - jnp.tile(jnp.eye(6), (2, 2))
    sums = jnp.exp((z @ z.T) * others / 2.0).sum(1) - 2
    expected = jnp.log((sums / 10).mean())
    value = losses.low_bias_uniformity(jnp.stack([first, second]))
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    # The mean before the logarithm is never below the mean of logarithms.
    assert float(value) > float(jnp.log(sums / 10).mean())


def test_uniformity_at_high_temperature_is_the_mean_cosine():
    z = normal(0, 1, 8, 4)
    unit = z[0] / jnp.linalg.norm(z[0], axis=-1, keepdims=True)
    mean = ((unit @ unit.T).sum() - 8) / 56
    value = 1e3 * losses.low_bias_uniformity(z, temperature=1e3)
    np.testing.assert_allclose(value, mean, atol=1e-3)


def test_uniformity_pushes_every_view():
    _, grads = golden.value_and_grads(losses.low_bias_uniformity, (normal(0, 3, 8, 4),))
    assert (np.abs(grads[0]).max((1, 2)) > 1e-4).all()


def test_one_sample_is_refused():
    with pytest.raises(ConfigError, match="projections: found a batch of 1, expected at least 2"):
        losses.low_bias_uniformity(jnp.ones((2, 1, 3)))
