"""Contrast with keys, queues, neighbours and a bank: what their configs do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from jaxssl import optim
from jaxssl.config.errors import ConfigError
from jaxssl.data.images import image_fields
from jaxssl.method import Context, Info
from jaxssl.methods.composed import wiring
from jaxssl.state import example_batch

B = 16
INFO = Info(
    fields=image_fields((16, 16, 1)),
    num_samples=64,
    num_classes=10,
    steps=10,
    steps_per_epoch=4,
    global_batch=B,
)
KEY = jax.random.key(3)
BATCH = {
    "index": 3 * jnp.arange(B, dtype=jnp.int32),
    "image": jnp.asarray(np.random.default_rng(0).integers(0, 256, (B, 16, 16, 1), np.uint8)),
    "label": jnp.arange(B, dtype=jnp.int32) % 10,
}


def config_of(name, views=None, **changes):
    """The small config, with views that compile fast; `views` are transforms by group."""
    config = experiments.small(name, **{"train.global_batch": B} | changes)
    with config.unlocked():
        for group in config.views:
            transforms = (views or {}).get(group, {"flip": 0.5})
            config.views[group] = dict(count=config.views[group].count, size=16, **transforms)
    return config


def start(config):
    """(params, what losses see of the teachers, extra), and the loss with its gradients by both."""
    method = wiring.build(config, INFO)

    def init(key):
        params, extra = method.init(key, example_batch(INFO))
        seen = {n: t.init(KEY, params, extra, {}) for n, t in method.teachers.items()}
        return params, seen, extra

    def loss(params, seen, extra):
        return method.losses["main"](Context(params, seen, extra, BATCH, KEY, jnp.int32(0)))

    return jax.jit(init)(KEY), jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))


def largest(tree):
    return max([float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree)], default=0.0)


@pytest.mark.parametrize(
    "name, term", [("moco_v2", "contrast"), ("ressl", "relations"), ("moco_v3", "contrast")]
)
def test_keys_move_the_queue_and_get_no_gradient(name, term):
    (params, seen, extra), fn = start(config_of(name))
    (value, aux), (by_params, by_seen) = fn(params, seen, extra)
    assert np.isfinite(value) and largest(by_seen) == 0
    assert all(largest(by_params[network]) > 0 for network in params)
    if name == "moco_v3":  # its keys are those of the batch
        assert "memory" not in aux.extra
        return
    before, after = extra["memory"][term]["queue"], aux.extra["memory"][term]["queue"]
    assert (int(before["at"]), int(after["at"])) == (0, B)
    changed = np.any(before["rows"][0] != after["rows"][0], axis=-1)
    assert changed[:B].all() and not changed[B:].any()


def test_the_teacher_of_ressl_sees_the_weak_view_alone():
    queues, values = [], []
    for strong in ({"flip": 0.5}, {"noise": {"sigma": 0.3}}):
        (params, seen, extra), fn = start(config_of("ressl", views={"strong": strong}))
        (value, aux), _ = fn(params, seen, extra)
        queues.append(np.asarray(aux.extra["memory"]["relations"]["queue"]["rows"]))
        values.append(float(value))
    np.testing.assert_allclose(queues[1], queues[0], atol=1e-6)
    assert abs(values[1] - values[0]) > 1e-3


@pytest.mark.parametrize("preset", ["digits", "cifar10", "imagenet1k_resnet50"])
def test_the_weak_view_is_not_recoloured(preset):
    strong, weak = (experiments.load("ressl", preset).views[g] for g in ("strong", "weak"))
    assert "jitter" in strong and not {"jitter", "grayscale", "blur", "noise"} & set(weak)
    assert {"crop", "affine"} & set(weak)


def test_targets_are_what_the_queue_holds():
    (params, seen, extra), fn = start(config_of("nnclr"))
    (first, aux), (by_params, _) = fn(params, seen, extra)
    assert all(largest(by_params[network]) > 0 for network in params)
    rows = [e["memory"]["contrast"]["target"]["rows"][0] for e in (extra, aux.extra)]
    assert np.any(rows[0] != rows[1], axis=-1).sum() == B  # the first view's alone
    (second, _), _ = fn(params, seen, aux.extra)
    assert abs(float(second) - float(first)) > 1e-3
    # One row for all samples: no prediction can be told from the others.
    alone = jax.tree.map(jnp.array, extra)
    alone["memory"]["contrast"]["target"]["rows"] = jnp.ones_like(rows[0])[None] / 4
    (chance, _), _ = fn(params, seen, alone)
    assert float(chance) >= np.log(B)


@pytest.mark.parametrize("changes", [{}, {"fn": "instance_nce", "num_negatives": 16}])
def test_the_bank_remembers_the_rows_of_the_batch(changes):
    config = config_of("instdisc")
    with config.unlocked():
        config.losses.instances.update(changes)
    (params, seen, extra), fn = start(config)
    (first, aux), (by_params, _) = fn(params, seen, extra)
    assert largest(by_params["encoder"]) > 0
    before, after = (e["memory"]["instances"]["bank"] for e in (extra, aux.extra))
    changed = np.any(np.asarray(before) != np.asarray(after), axis=-1)
    assert set(np.flatnonzero(changed)) == set(np.asarray(BATCH["index"]).tolist())
    (second, _), _ = fn(params, seen, aux.extra)
    assert float(second) < float(first)


def test_patches_of_a_vit_stay_as_they_are_drawn():
    config = experiments.load("moco_v3", "imagenet1k_vit_s16")
    info = INFO._replace(
        fields=image_fields((256, 256, 3), labelled=False), num_classes=0, steps=10**6
    )
    method = wiring.build(config, info)
    params, _ = jax.eval_shape(method.init, KEY, jax.eval_shape(lambda: example_batch(info)))
    frozen = [r for r in optim.describe(config.optimizer, params, info.steps) if r.freeze_until]
    assert sum(row.params for row in frozen) == 16 * 16 * 3 * 384 + 384
    assert {row.freeze_until for row in frozen} == {-1}


@pytest.mark.parametrize(
    "name, field",
    [("moco_v2", "contrast.queue"), ("ressl", "relations.queue"), ("nnclr", "contrast.target")],
)
def test_a_queue_that_the_batch_does_not_divide_is_one_clear_line(name, field):
    info = INFO._replace(global_batch=24)
    with pytest.raises(ConfigError, match=rf"^losses\.{field}\.size: found 1024.*24 emb") as raised:
        wiring.build(config_of(name, **{"train.global_batch": 24}), info)
    assert "\n" not in str(raised.value)
