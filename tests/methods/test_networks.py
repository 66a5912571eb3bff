"""Networks on groups of views: what passes together gives what each group gives alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import encoders
from jaxssl.heads import mlp
from jaxssl.methods.composed.networks import Head, Networks

B, D, DEPTH = 4, 16, 2
rng = np.random.default_rng(0)
VIEWS = {
    "global": {"x": np.float32(rng.normal(size=(B, 2, 16, 16, 3)))},
    "local": {"x": np.float32(rng.normal(size=(B, 3, 8, 8, 3)))},
    "masked": {
        "x": np.float32(rng.normal(size=(B, 1, 16, 16, 3))),
        "tokens": np.argsort(rng.random((B, 1, 16)))[..., :5],
    },
}
NAMES = ("pooled", "projection")


def networks(microbatches=1):
    tiny = {"name": "vit", "width": D, "depth": DEPTH, "heads": 2, "patch": 4, "image_size": 16}
    head = Head(mlp.build(widths=(8,)), "pooled", "projection")
    encoder = encoders.build(tiny, dtype=jnp.float32)
    return Networks(encoder, {"projector": head}, microbatches=microbatches)


@pytest.fixture(scope="module")
def params():
    found, stats = networks().init(jax.random.key(0), VIEWS["global"]["x"][:, 0])
    assert not stats
    return jax.tree.map(lambda p: p + 0.1 * jnp.cos(jnp.arange(p.size).reshape(p.shape)), found)


def outputs(params, groups, microbatches=1):
    seen = {group: VIEWS[group] for group in groups}
    return networks(microbatches).outputs(params, {}, seen, NAMES, train=True)[0]


@pytest.mark.parametrize("microbatches", [1, 2])
def test_groups_of_several_sizes_give_what_each_gives_alone(params, microbatches):
    together = jax.jit(lambda p: outputs(p, VIEWS, microbatches))(params)
    for group in VIEWS:
        alone = outputs(params, (group,))
        for name in NAMES:
            np.testing.assert_allclose(
                together[name][group], alone[name][group], rtol=1e-5, atol=1e-6
            )


def test_all_groups_pass_a_block_in_one_matrix_product(params):
    def products(jaxpr):
        inner = [p for eqn in jaxpr.eqns for p in eqn.params.values()]
        deeper = [
            getattr(p, "jaxpr", p) for p in inner if hasattr(p, "eqns") or hasattr(p, "jaxpr")
        ]
        own = [e.invars[1].aval.shape for e in jaxpr.eqns if e.primitive.name == "dot_general"]
        return own + [shape for sub in deeper for shape in products(sub)]

    found = products(jax.make_jaxpr(lambda p: outputs(p, VIEWS))(params).jaxpr)
    assert found.count((D, 3 * D)) == DEPTH  # queries, keys and values
    assert found.count((D, 4 * D)) == DEPTH
