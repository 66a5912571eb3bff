"""Redundancy reduction and whitening as configs, and their terms in other configs."""

import image_views
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from jaxssl import encoders, heads, losses
from jaxssl.config.errors import ConfigError
from jaxssl.config.naming import fold_name
from jaxssl.data.images import image_fields
from jaxssl.method import Context, Info
from jaxssl.methods.composed import wiring
from jaxssl.state import example_batch

B = 32
INFO = Info(
    fields=image_fields((16, 16, 1)),
    num_samples=256,
    num_classes=10,
    steps=10,
    steps_per_epoch=8,
    global_batch=B,
)
KEY = jax.random.key(3)


def config_of(name, **sections):
    """The small config with views that compile fast, and whole sections put in place of its own."""
    config = experiments.small(name, **{"train.global_batch": B})
    with config.unlocked():
        for group in config.views:
            config.views[group] = dict(count=config.views[group].count, size=16, flip=0.5)
        for section, entries in sections.items():
            config[section] = entries
    return config


def batch():
    pixels = np.random.default_rng(0).integers(0, 256, (B, 16, 16, 1), np.uint8)
    return {"index": jnp.arange(B, dtype=jnp.int32), "image": jnp.asarray(pixels)}


def start(config):
    method = wiring.build(config, INFO)
    params, extra = jax.jit(method.init)(KEY, example_batch(INFO))
    seen = {n: t.init(KEY, params, extra, {}) for n, t in method.teachers.items()}
    return method, params, seen, extra


def value_of(method, params, seen, extra):
    loss = jax.jit(method.losses["main"])
    return loss(Context(params, seen, extra, batch(), KEY, jnp.int32(0)))


def test_vicreg_on_multi_crop_meets_every_view_with_the_global_ones():
    config = config_of("vicreg")
    config.views = {"global": dict(count=2, size=16), "local": dict(count=2, size=8)}
    config.losses.vicreg.teacher = "projection:global"
    config = experiments.without_batch_norm(config)
    method, params, seen, extra = start(config)
    value, _ = value_of(method, params, seen, extra)

    make = image_views.build(config.views, mean=config.data.mean, std=config.data.std)
    images = make(fold_name(KEY, "views"), batch())
    encoder = encoders.build(config.encoder.to_dict(), dtype=jnp.float32)
    head = heads.build(config.student.projector.to_dict(), dtype=jnp.float32)

    @jax.jit
    def project(x):
        y = encoder.apply({"params": params["encoder"]}, x, train=True)["pooled"]
        return head.apply({"params": params["projector"]}, y, train=True)

    z = [project(images[group][:, v]) for group in ("global", "local") for v in range(2)]
    vicreg = jax.jit(losses.vicreg)
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3)]
    expected = np.mean([vicreg(z[u], z[v]) for u, v in pairs])
    np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_mixed_samples_are_a_term_for_any_loss():
    mixed = config_of("mixed_barlow_twins")
    entry = mixed.losses.mixed.to_dict()
    config = config_of("simclr", views=mixed.views)
    with config.unlocked():
        config.method_options = dict(mixed=("first", "second"))
        config.losses.mixed = entry
    alone = value_of(*start(config))
    names = set(alone[1].metrics)
    assert names == {*experiments.small("simclr").losses, "mixed"}
    assert float(alone[1].metrics["mixed"]) > 0
    others = sum(float(alone[1].metrics[n]) for n in names - {"mixed"})
    expected = others + entry["weight"] * float(alone[1].metrics["mixed"])
    np.testing.assert_allclose(float(alone[0]), expected, rtol=1e-5)


def test_without_the_mixed_term_it_is_barlow_twins():
    config = config_of("mixed_barlow_twins")
    with config.unlocked():
        del config.losses["mixed"]
    value, aux = value_of(*start(config))
    assert set(aux.metrics) == {"redundancy"} and value == aux.metrics["redundancy"]


def test_tico_remembers_the_second_moment_of_the_first_view():
    config = config_of("tico")
    method, params, seen, extra = start(config)
    loss = jax.jit(method.losses["main"])
    moments, values = [], []
    for step in range(2):
        value, aux = loss(Context(params, seen, extra, batch(), KEY, jnp.int32(step)))
        extra = aux.extra
        moments.append(np.asarray(extra["memory"]["tico"]["covariance"]))
        values.append(float(value))
    # Unit vectors: the trace is the sum of the weights; the same batch again only adds weight.
    np.testing.assert_allclose([np.trace(m) for m in moments], [0.1, 0.19], rtol=1e-5)
    np.testing.assert_allclose(moments[1], 1.9 * moments[0], atol=1e-6)
    batch_moment = moments[0] / 0.1
    contrast = np.sum(batch_moment**2)
    np.testing.assert_allclose(values[1] - values[0], 8 * 0.09 * contrast, rtol=1e-3)


def test_t_regs_sums_its_three_terms_over_both_views():
    value, aux = value_of(*start(config_of("t_regs")))
    m = {name: float(x) for name, x in aux.metrics.items()}
    expected = m["invariance"] + 4 * m["length"] + m["sphere"]
    assert m["length"] < 0 < m["sphere"]
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_mmcr_without_a_slow_copy_is_a_config_edit():
    config = config_of("mmcr", teachers={})
    config.losses.capacity.teacher = "projection"
    value, _ = value_of(*start(config))
    assert -B <= float(value) < -(B**0.5)  # sqrt(B), and no more, where all is one point


def test_whitened_groups_must_divide_the_batch():
    entry = config_of("w_mse").losses.w_mse.to_dict() | dict(group_size=20)
    config = config_of("w_mse", losses=dict(w_mse=entry))
    method = wiring.build(config, INFO)
    params, extra = jax.eval_shape(method.init, KEY, example_batch(INFO))
    with pytest.raises(ConfigError, match="group_size: found 20, expected a divisor of the batch"):
        jax.eval_shape(
            method.losses["main"], Context(params, {}, extra, batch(), KEY, jnp.int32(0))
        )
