"""What holds of the views of any kind of data: keyed by sample, and made where the sample lies."""

import re

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

COMMUNICATION = r"all-gather|all-to-all|all-reduce|reduce-scatter|collective-permute"


def check_draws(make, key, batch, field):
    """Views differ by key, index and number: of equal samples as of others."""
    batch = {**batch, field: batch[field].at[:].set(batch[field][0])}
    first, again = make(key, batch), make(jax.random.fold_in(key, 1), batch)
    for group, views in first.items():
        assert not np.array_equal(views[0], views[1])
        assert not np.array_equal(views, again[group])
        if views.shape[1] > 1:
            assert not np.array_equal(views[:, 0], views[:, 1])


def check_eight_devices(make, key, batch, atol):
    """Eight devices make the views of one, and tell each other nothing."""
    single = make(key, batch)
    axes = (AxisType.Auto,) * 3
    mesh = jax.make_mesh((4, 2, 1), ("data", "fsdp", "model"), axis_types=axes)
    with jax.set_mesh(mesh):
        rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
        sharded = jax.device_put(batch, rows)
        compiled = make.lower(key, sharded).compile()
        several = compiled(key, sharded)
    assert re.findall(COMMUNICATION, compiled.as_text()) == []
    for group, views in single.items():
        assert several[group].sharding.is_equivalent_to(rows, views.ndim)
        np.testing.assert_allclose(several[group], views, atol=atol)
