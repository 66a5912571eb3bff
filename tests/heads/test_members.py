"""Ensembles: `members=E` of any head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from jaxssl import heads
from jaxssl.config.errors import ConfigError
from jaxssl.heads import ensemble
from jaxssl.program import Program

X = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
CONFIG = {"name": "mlp", "widths": (7, 3), "norm": "batch"}


@pytest.fixture(scope="module")
def started():
    head = ensemble.of(heads.build(CONFIG, dtype=jnp.float32), 4, (), "student.projector")
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
        Program(of("byol", "projector", members))


def of(name, head, members):
    """The small config of an experiment with members of a head."""
    return experiments.with_changes(experiments.small(name), {f"student.{head}.members": members})


def test_a_config_asks_for_members_and_one_is_the_head_itself():
    shapes = lambda members: Program(of("byol", "projector", members)).shapes.params["projector"]
    one, three = shapes(1), shapes(3)["head"]
    assert jax.tree.map(lambda x: (3, *x.shape), one) == jax.tree.map(lambda x: x.shape, three)


@pytest.mark.parametrize(
    ("name", "head", "line"),
    [
        ("mae", "decoder", r"student\.decoder\.members: found 2, but the head takes"),
        ("landmark", "discriminator", r"student\.discriminator\.members: "),
        ("relational_reasoning", "relation", r"student\.relation\.members: "),
        ("obow", "generator", r"student\.generator\.members: "),
        ("mokd", "projector_b", r"student\.projector_b\.members: "),
        ("split_prediction", "predictor", r"student\.predictor\.members: "),
        ("context_encoder", "decoder", r"student\.decoder\.members: "),
        ("myow", "projector", r"student\.projector\.members: no such field"),
    ],
)
def test_a_head_that_can_have_no_members_refuses_them(name, head, line):
    with pytest.raises(ConfigError, match=line):
        Program(of(name, head, 2))
