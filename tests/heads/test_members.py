"""Ensembles: `members=E` of any head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import heads
from jaxssl.config.errors import ConfigError

X = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
CONFIG = {"name": "mlp", "widths": (7, 3), "norm": "batch"}


@pytest.fixture(scope="module")
def started():
    head = heads.build(CONFIG | {"members": 4}, dtype=jnp.float32)
    return head, head.init(jax.random.key(0), X, train=False)


def test_members_are_the_head_alone_with_parameters_of_their_own(started):
    head, variables = started
    said = head.apply(variables, X, train=False)
    assert said.shape == (6, 4, 3)
    alone = heads.build(CONFIG, dtype=jnp.float32)
    for e in range(4):
        own = jax.tree.map(lambda a, e=e: a[e], {k: v["head"] for k, v in variables.items()})
        np.testing.assert_allclose(said[:, e], alone.apply(own, X, train=False), atol=1e-6)
    kernels = variables["params"]["head"]["linear0"]["kernel"]
    assert kernels.shape == (4, 5, 7) and np.abs(kernels[0] - kernels[1]).max() > 0.1


def test_each_member_has_statistics_and_a_gradient_of_its_own(started):
    head, variables = started

    def loss(params):
        said, new = head.apply(
            {**variables, "params": params}, X, train=True, mutable=["batch_stats"]
        )
        return jnp.square(said[:, 1] - 1).mean(), new

    slope, new = jax.grad(loss, has_aux=True)(variables["params"])
    moved = [np.abs(leaf).reshape(4, -1).max(1) for leaf in jax.tree.leaves(slope)]
    assert all((m[[0, 2, 3]] == 0).all() for m in moved) and any(m[1] > 0 for m in moved)
    means = [leaf for leaf in jax.tree.leaves(new) if leaf.shape[0] == 4]
    assert means and np.abs(means[0][0] - means[0][1]).max() > 1e-4


@pytest.mark.parametrize("members", [0, 2.0, True, "two"])
def test_what_is_no_number_of_members_is_refused(members):
    with pytest.raises(ConfigError, match=r"student\.projector\.members: found .*expected a whole"):
        heads.build(CONFIG | {"members": members}, dtype=jnp.float32)


def test_one_member_is_the_head_itself():
    assert heads.build(CONFIG | {"members": 1}, dtype=jnp.float32) == heads.build(
        CONFIG, dtype=jnp.float32
    )
