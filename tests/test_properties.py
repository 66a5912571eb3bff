"""Properties that hold for any size, seed or split, not just for the sizes that tests use."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxssl.config import durations, schedules
from jaxssl.data.order import permute
from jaxssl.devices.chunking import chunked

sizes = st.integers(1, 20_000)
seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=40, deadline=None)
@given(size=sizes, seed=seeds, epoch=st.integers(0, 1000))
def test_every_epoch_is_a_permutation(size, seed, epoch):
    order = permute(np.arange(size), size, seed, epoch)
    np.testing.assert_array_equal(np.sort(order), np.arange(size))


@settings(max_examples=20, deadline=None)
@given(parts=st.integers(1, 6), rows=st.integers(1, 4))
def test_chunks_keep_every_row_in_its_place(parts, rows):
    x = jnp.arange(parts * rows * 3, dtype=jnp.float32).reshape(parts * rows, 3)
    found = chunked(lambda x: {"sum": x.sum(-1), "same": x}, parts)(x)
    np.testing.assert_array_equal(found["same"], x)
    np.testing.assert_array_equal(found["sum"], x.sum(-1))


@given(samples=st.integers(1, 10**7), batch=st.integers(1, 4096), epochs=st.integers(1, 500))
def test_epochs_are_whole_batches(samples, batch, epochs):
    steps = durations.resolve({"epochs": epochs}, samples, batch)
    assert steps == epochs * max(1, samples // batch)


@settings(max_examples=30, deadline=None)
@given(
    warmup=st.integers(1, 50),
    peak=st.floats(1e-4, 1.0),
    step=st.integers(0, 200),
)
def test_a_warmed_schedule_stays_between_zero_and_its_peak(warmup, peak, step):
    value = float(schedules.make(("warmup_cosine", peak, warmup, 0.0), 200)(step))
    assert -1e-6 <= value <= peak * (1 + 1e-5)
    if step == warmup - 1:
        assert value == pytest.approx(peak, rel=1e-5)
