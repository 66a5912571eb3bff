"""SwAV, DINO, MSN and DeepCluster-v2 as configs: what their fields do together."""

import jax
import jax.numpy as jnp
import numpy as np

import experiments
from jaxssl.config.naming import named_leaves
from jaxssl.data.images import image_fields
from jaxssl.method import Context, Info
from jaxssl.methods.composed import wiring
from jaxssl.program import Program
from jaxssl.state import example_batch

INFO = Info(
    fields=image_fields((16, 16, 1)),
    num_samples=64,
    num_classes=10,
    steps=10,
    steps_per_epoch=4,
    global_batch=16,
)
KEY = jax.random.key(3)


def small(name, **changes):
    """The small config, with views that compile fast and few prototypes."""
    config = experiments.small(name, **{"train.global_batch": 16} | changes)
    with config.unlocked():
        config.views = {
            group: dict(count=min(2, view.count), size=16, noise=dict(sigma=0.3))
            for group, view in config.views.items()
        }
        if "prototypes" in config.student:
            config.student.prototypes.count = 8
    return config


def batch_of():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 1), np.uint8)
    return {"index": jnp.arange(16, dtype=jnp.int32), "image": jnp.asarray(pixels)}


def first_step(config):
    """(step -> (value, aux, gradients) at the initial state, that state's extra)."""
    method = wiring.build(config, INFO)
    params, extra = jax.jit(method.init)(KEY, example_batch(INFO))
    seen = {n: t.init(KEY, params, extra, {}) for n, t in method.teachers.items()}

    @jax.jit
    def run(step):
        loss = lambda p: method.losses["main"](Context(p, seen, extra, batch_of(), KEY, step))
        (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return value, aux, grads

    return lambda step: run(jnp.int32(step)), extra


def states_of(config, steps):
    """[(state, metrics)] after each step, on one device."""
    program = Program(config, devices=jax.devices()[:1])
    state, batches, found = program.init(), program.batches(0), []
    with jax.set_mesh(program.mesh):
        found.append((jax.tree.map(np.asarray, (state.params, state.extra)), {}))
        for _ in range(steps):
            state, metrics = program.step(state, next(batches))
            found.append((jax.tree.map(np.asarray, (state.params, state.extra)), metrics))
    return found


def test_prototypes_of_swav_wait_and_keep_their_length():
    changes = {"optimizer.groups.prototypes.freeze_until": 2}
    states = states_of(small("swav", **changes), 3)
    vectors = [params["prototypes"]["vectors"] for (params, _), _ in states]
    start = vectors[0] / np.linalg.norm(vectors[0], axis=-1, keepdims=True)
    np.testing.assert_allclose(vectors[1], start, atol=1e-6)
    np.testing.assert_allclose(vectors[2], start, atol=1e-6)
    assert np.abs(vectors[3] - start).max() > 1e-4
    np.testing.assert_allclose(np.linalg.norm(vectors[3], axis=-1), 1, rtol=1e-5)


def test_past_embeddings_of_swav_join_when_their_schedule_says_so():
    config = small("swav")
    without, _, _ = first_step(config)[0](0)
    queue = dict(memory="queue", of="projection:global", size=64, per_view=True, head="prototypes")
    with config.unlocked():
        config.losses.swav.update(past=queue, use_past=("piecewise", 0.0, (5, 1.0)))
    run, extra = first_step(config)
    assert extra["memory"]["swav"]["past"]["rows"].shape[:2] == (2, 64)
    before, after = run(4)[0], run(5)[0]
    np.testing.assert_allclose(before, without, rtol=1e-5)
    assert abs(float(after - before)) > 1e-3


def test_dino_without_the_average_is_a_config_edit():
    config = small("dino")
    value, aux, grads = first_step(config)[0](0)
    with config.unlocked():
        del config.teachers.ema
        config.losses.dino.teacher = "scores"
    own, own_aux, own_grads = first_step(config)[0](0)
    # At the first step the average still is the student: the same loss, and the same gradient,
    # since the loss stops that of its targets.
    np.testing.assert_allclose(own, value, rtol=1e-6)
    for name, leaf in named_leaves(grads).items():
        np.testing.assert_allclose(named_leaves(own_grads)[name], leaf, atol=1e-6, err_msg=name)
    centers = [a.extra["memory"]["dino"]["center"] for a in (aux, own_aux)]
    np.testing.assert_allclose(*centers, atol=1e-6)
    assert np.abs(centers[0]).max() > 0


def test_koleo_joins_any_method_by_one_entry():
    config = small("swav")
    alone, _, _ = first_step(config)[0](0)
    with config.unlocked():
        config.losses.koleo = dict(fn="koleo", student="pooled", pairs="single", weight=0.1)
    value, aux, _ = first_step(config)[0](0)
    assert float(aux.metrics["koleo"]) != 0
    np.testing.assert_allclose(value, alone + 0.1 * aux.metrics["koleo"], rtol=1e-5)


def test_msn_learns_prototypes_and_encoder_from_anchors_alone():
    config = small("msn")
    run, extra = first_step(config)
    value, _, grads = run(0)
    assert set(extra["batch_stats"]) == {"student", "ema"}
    assert np.isfinite(value)
    for name in ("encoder", "projector", "prototypes"):
        size = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads[name]))
        assert size > 0, name
    with config.unlocked():
        config.masks.dropped.ratio = 0.5
    assert abs(float(first_step(config)[0](0)[0] - value)) > 1e-4


def test_deepcluster_embeds_before_it_learns_where_its_weight_says_so():
    config = small("deepcluster_v2", **{"train.steps": 3})
    with config.unlocked():
        config.losses.clusters.clusters.update(count=6, every=2 / 81)  # epochs of 81 steps
        config.losses.clusters.weight = ("piecewise", 0.0, (2, 1.0))
    states = states_of(config, 3)
    norms = [float(metrics["gradient_norm"]) for _, metrics in states[1:]]
    assert norms[:2] == [0, 0] and norms[2] > 0
    memory = [extra["memory"]["clusters"]["clusters"] for (_, extra), _ in states]
    assert [int(m["seen"].sum()) for m in memory] == [0, 16, 32, 48]
    clustered = [int((m["codes"][0] >= 0).sum()) for m in memory]
    assert clustered == [0, 0, 32, 32]
