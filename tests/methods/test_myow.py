"""MYOW: its two losses and their weight, who gets which gradient, which neighbours are mined."""

import functools

import image_views
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from jaxssl import losses
from jaxssl.config import schedules
from jaxssl.config.errors import ConfigError
from jaxssl.config.naming import fold_name
from jaxssl.data.images import image_fields
from jaxssl.method import Context, Info
from jaxssl.methods import myow
from jaxssl.state import example_batch

B = 16
INFO = Info(
    fields=image_fields((16, 16, 1)),
    num_samples=256,
    num_classes=10,
    steps=100,
    steps_per_epoch=16,
    global_batch=B,
)
KEY = jax.random.key(3)


def config_of(**changes):
    config = experiments.small("myow", **{"train.global_batch": B})
    with config.unlocked():
        for group in config.views.values():  # views that compile fast
            for name in set(group) - {"count", "size"}:
                del group[name]
            group.noise = dict(sigma=0.1)
        config.views.pool.count = 2
        for name, value in changes.items():
            config.method_options[name] = value
    return config


@functools.cache
def pieces():
    """(method, params, seen, extra), with a teacher that has moved away from the student."""
    config = config_of(weight=("piecewise", 0.0, (1, 1.0)), warmup=0, ramp=0)
    method = myow.build(config, INFO)
    params, extra = jax.jit(method.init)(KEY, example_batch(INFO))
    teacher = method.teachers["ema"].init(KEY, params, extra, {})
    seen = {
        "ema": jax.tree.map(
            lambda x: x + 0.05 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), teacher
        )
    }
    return config, method, params, seen, extra


def batch_of():
    rng = np.random.default_rng(0)
    batch = {"index": np.arange(B, dtype=np.int32) + 7, "label": rng.integers(0, 3, B)}
    batch["image"] = rng.integers(0, 256, (B, 16, 16, 1), np.uint8)
    return {k: jnp.asarray(v) for k, v in batch.items()}


@functools.cache
def compiled():
    _, method, params, seen, extra = pieces()

    def loss(params, seen, step):
        return method.losses["main"](Context(params, seen, extra, batch_of(), KEY, step))

    return functools.partial(jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True)), params, seen)


def value_and_grads(weight):
    """At step 0 the weight is 0, at step 1 it is 1."""
    return compiled()(jnp.int32(weight))


def size(tree):
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


def test_the_two_losses_by_hand():
    config, _, params, seen, _ = pieces()
    networks = myow._networks(config)
    images = image_views.build(config.views, mean=config.data.mean, std=config.data.std)(
        fold_name(KEY, "views"), batch_of()
    )

    @functools.partial(jax.jit, static_argnums=1)
    def of(net, name, x):
        """One view, or what a head reads, through one network alone."""
        head = name in networks.heads
        module = networks.heads[name].module if head else networks.encoder
        start = {"params": net[name]}
        out = module.init(KEY, x, train=False)
        stats = {"batch_stats": out["batch_stats"]} if "batch_stats" in out else {}
        y, _ = module.apply({**start, **stats}, x, train=True, mutable=["batch_stats"])
        return y if head else y["pooled"]

    def through(net, x, *names):
        for name in names:
            x = of(net, name, x)
        return x

    ema, strong = seen["ema"], images["strong"]
    byol = np.mean(
        [
            losses.byol(
                through(params, strong[:, u], "encoder", "projector", "predictor"),
                through(ema, strong[:, 1 - u], "encoder", "projector"),
            )
            for u in (0, 1)
        ]
    )
    y = of(params, "encoder", images["weak"][:, 0])
    # Both views of the pool pass alone; candidate 2 i + v is view v of sample i.
    pool = np.stack([of(ema, "encoder", images["pool"][:, v]) for v in (0, 1)], 1)
    cosine = lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    mined = [
        max((cosine(y[i], pool[j, v]), j, v) for j in range(B) if j != i for v in (0, 1))[1:]
        for i in range(B)
    ]
    chosen = jnp.stack([pool[j, v] for j, v in mined])
    across = losses.byol(
        through(params, y, "projector", "projector2", "predictor2"),
        through(ema, chosen, "projector", "projector2"),
    )
    (value, aux), _ = value_and_grads(1)
    np.testing.assert_allclose(aux.metrics["byol"], byol, rtol=1e-4)
    np.testing.assert_allclose(aux.metrics["mined"], across, rtol=1e-4)
    np.testing.assert_allclose(value, (byol + across) / 2, rtol=1e-4)
    label = np.asarray(batch_of()["label"])
    same = np.mean([label[i] == label[j] for i, (j, _) in enumerate(mined)])
    np.testing.assert_allclose(aux.metrics["same_class"], same, rtol=1e-6)


def test_without_weight_it_is_byol():
    (value, aux), (grads, _) = value_and_grads(0)
    np.testing.assert_allclose(value, aux.metrics["byol"], rtol=1e-6)
    assert size(grads["predictor"]) > 1e-4 and size(grads["encoder"]) > 1e-4
    assert size(grads["projector2"]) == size(grads["predictor2"]) == 0


def test_each_predictor_learns_from_its_own_loss_and_no_teacher_from_any():
    _, (alone, _) = value_and_grads(0)
    _, (grads, to_teacher) = value_and_grads(1)
    assert size(to_teacher) == 0
    assert size(grads["predictor2"]) > 1e-4 and size(grads["projector2"]) > 1e-4
    for a, b in zip(jax.tree.leaves(grads["predictor"]), jax.tree.leaves(alone["predictor"])):
        np.testing.assert_allclose(2 * a, b, atol=1e-5 * size(alone["predictor"]))


def test_the_weight_waits_and_then_rises():
    options = dict(myow.OPTIONS, weight=0.5, warmup=10, ramp={"steps": 20})
    weight = myow._weight(options, INFO)
    found = [float(weight(jnp.int32(step))) for step in (0, 10, 20, 30, 99)]
    np.testing.assert_allclose(found, [0, 0, 0.25, 0.5, 0.5], rtol=1e-6)
    at_once = myow._weight(dict(options, ramp=0, weight=("linear", 0.0, 1.0)), INFO)
    line = schedules.make(("linear", 0.0, 1.0), INFO.steps)
    assert float(at_once(jnp.int32(9))) == 0
    assert float(at_once(jnp.int32(60))) == float(line(60))
    epochs = myow._weight(dict(options, warmup={"epochs": 1}, ramp={"epochs": 1}), INFO)
    np.testing.assert_allclose(float(epochs(jnp.int32(24))), 0.25)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(neighbours=1), "method_options.neighbours: .*did you mean 'neighbors'"),
        (dict(neighbors=31), "method_options.neighbors: found 31, expected 1 to 30"),
        (dict(warmup={"epoch": 1}), "method_options.warmup .*did you mean 'epochs'"),
    ],
)
def test_bad_options_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        myow.build(config_of(**change), INFO)


def spoil(section, name, value):
    config = config_of()
    with config.unlocked():
        if value is None:
            del config[section][name]
        else:
            config[section][name] = value
    return config


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        ("student", "projector2", None, "student.projector2: missing"),
        ("student", "projection2", dict(name="mlp", widths=(4,)), "did you mean 'projector2'"),
        ("teachers", "ema", None, r"teachers: found 0 \(\), expected one"),
        ("teachers", "ema", dict(follows=("encoder",)), "teachers.ema.follows: found"),
        ("views", "weak", None, "views.weak.count: found 0, expected 1 to 1"),
        ("views", "global", dict(count=2, size=16), "views.global: myow sees no such group"),
        ("losses", "koleo", dict(fn="koleo"), "losses.koleo: myow has its own two terms"),
    ],
)
def test_parts_that_do_not_fit_are_named(section, name, value, message):
    with pytest.raises(ConfigError, match=message):
        myow.build(spoil(section, name, value), INFO)
