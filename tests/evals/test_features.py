import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from jaxssl.config.errors import ConfigError
from jaxssl.data.images import ArraySource
from jaxssl.evals import features
from jaxssl.evals.features import Features
from jaxssl.modalities.image import raw


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((2, 4, 1), ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3)


@pytest.fixture(scope="module")
def source():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (37, 4, 4, 1)).astype(np.uint8)
    return ArraySource("random", images, np.arange(37) % 3)


def raw_input(batch):
    return raw(batch["image"])


def test_every_sample_comes_once_with_its_label_whatever_the_batch_size(mesh, source):
    for batch_size in (8, 13, 64):
        bank = features.extract(raw_input, source, batch_size=batch_size, mesh=mesh)
        np.testing.assert_array_equal(bank.index, np.arange(37))
        np.testing.assert_array_equal(bank.y, np.arange(37) % 3)
        np.testing.assert_allclose(bank.x, source.images.reshape(37, -1) / 255, rtol=1e-6)
        assert (bank.x.dtype, bank.y.dtype) == (np.float32, np.int32)


def test_batches_are_sharded_over_both_batch_axes(mesh, source):
    seen = []

    def encode(batch):
        seen.append({shard.data.shape[0] for shard in batch["image"].addressable_shards})
        return raw_input(batch)

    features.extract(encode, source, batch_size=16, mesh=mesh)
    assert seen == [{2}] * 3


def test_a_limit_is_one_fixed_random_subset(mesh, source):
    take = lambda seed: features.extract(
        raw_input, source, batch_size=8, mesh=mesh, limit=11, seed=seed
    )
    first, again, other = take(0), take(0), take(1)
    np.testing.assert_array_equal(first.index, again.index)
    assert len(set(first.index)) == 11 and set(first.index) != set(other.index)
    np.testing.assert_array_equal(first.y, first.index % 3)
    np.testing.assert_allclose(first.x, source.images[first.index].reshape(11, -1) / 255, rtol=1e-6)


def test_no_labels_and_bad_arguments(mesh, source):
    unlabelled = ArraySource("bare", source.images, None)
    bank = features.extract(raw_input, unlabelled, batch_size=16, mesh=mesh)
    assert set(bank.y) == {-1}
    with pytest.raises(ConfigError, match=r"evals\.batch_size: found 0"):
        features.extract(raw_input, source, batch_size=0, mesh=mesh)
    with pytest.raises(ConfigError, match=r"expected \[B, D\]"):
        features.extract(lambda batch: batch["image"], source, batch_size=16, mesh=mesh)


def test_raw_input_averages_large_images_and_keeps_small_ones():
    halves = np.zeros((1, 64, 64, 1), np.uint8)
    halves[:, :, 32:] = 255
    small = raw(jnp.asarray(halves)).reshape(32, 32)
    assert small.mean() == pytest.approx(0.5, abs=1e-5)
    np.testing.assert_allclose(small[:, :15], 0, atol=1e-6)
    np.testing.assert_allclose(small[:, 17:], 1, atol=1e-6)
    assert raw(jnp.zeros((2, 8, 6, 3), jnp.uint8)).shape == (2, 144)


def test_standardise_uses_one_scale_from_the_train_bank():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(50, 6)) * [1, 2, 3, 4, 0, 1e-3] + 5).astype(np.float32)
    train = Features(x, np.zeros(50, np.int32), np.arange(50))
    test = Features(x[:3] + 1, np.zeros(3, np.int32), np.arange(3))
    left, right = features.standardise(train, test)
    np.testing.assert_allclose(left.x.mean(axis=0), 0, atol=1e-6)
    assert left.x.var(axis=0).mean() == pytest.approx(1, rel=1e-5)
    ratio = left.x[:, :4].std(axis=0) / x[:, :4].std(axis=0)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)  # relative sizes are kept
    assert np.all(left.x[:, 4] == 0) and left.x[:, 5].std() < 1e-3  # small ones stay small
    np.testing.assert_allclose(right.x - left.x[:3], ratio[0], rtol=1e-4)
    scaled = Features(100 * x, train.y, train.index)
    np.testing.assert_allclose(features.standardise(scaled, test)[0].x, left.x, atol=1e-4)
    constant = Features(np.ones((5, 2), np.float32), train.y[:5], train.index[:5])
    assert np.all(features.standardise(constant, constant)[0].x == 0)


def test_placing_pads_with_weightless_rows(mesh):
    bank = Features(np.ones((13, 2), np.float32), np.ones(13, np.int32), np.arange(13))
    alone = features.place(bank)
    assert alone.x.shape == (13, 2) and float(alone.weight.sum()) == 13
    with jax.set_mesh(mesh):
        placed = features.place(bank)
    assert placed.x.shape == (16, 2)
    assert {shard.data.shape for shard in placed.x.addressable_shards} == {(2, 2)}
    np.testing.assert_array_equal(features.to_host(placed.weight), [1] * 13 + [0] * 3)
