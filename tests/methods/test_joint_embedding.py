"""The joint-embedding family: terms, teachers, batch statistics, drop path, precision."""

import image_views
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from jaxssl import encoders, heads, losses
from jaxssl.config.errors import ConfigError
from jaxssl.config.load import merged
from jaxssl.config.naming import fold_name, named_leaves
from jaxssl.data.images import image_fields
from jaxssl.method import Context, Info
from jaxssl.methods.composed import wiring
from jaxssl.state import example_batch

INFO = Info(
    fields=image_fields((16, 16, 1)),
    num_samples=256,
    num_classes=10,
    steps=10,
    steps_per_epoch=16,
    global_batch=16,
)
KEY = jax.random.key(3)


def config_of(**changes):
    return experiments.small("lejepa", **{"train.global_batch": 16} | changes)


def with_parts(config, **sections):
    """The config with whole sections put in place of its own."""
    with config.unlocked():
        for name, section in sections.items():
            config[name] = section
    return config


def batch_of(order=None):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 1), np.uint8)
    batch = {"index": np.arange(16, dtype=np.int32), "image": pixels}
    return {k: jnp.asarray(v if order is None else v[order]) for k, v in batch.items()}


def start(config):
    method = wiring.build(config, INFO)
    params, extra = jax.jit(method.init)(KEY, example_batch(INFO))
    seen = {n: t.init(KEY, params, extra, {}) for n, t in method.teachers.items()}
    return method, params, seen, extra


def value_of(method, params, seen, extra, batch=None, step=0):
    loss = jax.jit(method.losses["main"])
    return loss(Context(params, seen, extra, batch or batch_of(), KEY, jnp.int32(step)))


def test_lejepa_is_the_weighted_sum_of_its_two_losses():
    config = experiments.without_batch_norm(config_of())
    method, params, seen, extra = start(config)
    value, aux = value_of(method, params, seen, extra)

    make = image_views.build(config.views, mean=config.data.mean, std=config.data.std)
    images = make(fold_name(KEY, "views"), batch_of())["global"]  # [B, V, h, w, c]
    encoder = encoders.build(config.encoder.to_dict(), dtype=jnp.float32)
    head = heads.build(config.student.projector.to_dict(), dtype=jnp.float32)
    each = []
    for v in range(images.shape[1]):
        y = encoder.apply({"params": params["encoder"]}, images[:, v], train=True)["pooled"]
        each.append(head.apply({"params": params["projector"]}, y, train=True))
    z = jnp.stack(each)
    key = fold_name(fold_name(KEY, "terms"), "sigreg")
    directions = losses.random_directions(key, z.shape[-1], config.losses.sigreg.num_slices)
    prediction = losses.lejepa_prediction(z, num_global=4)
    sigreg = np.mean([losses.sigreg(view, directions) for view in z])
    np.testing.assert_allclose(aux.metrics["prediction"], prediction, rtol=1e-4)
    np.testing.assert_allclose(aux.metrics["sigreg"], sigreg, rtol=1e-4)
    np.testing.assert_allclose(value, 0.98 * prediction + 0.02 * sigreg, rtol=1e-4)


def test_the_order_of_a_batch_moves_no_number():
    method, params, seen, extra = start(config_of())
    order = np.random.default_rng(1).permutation(16)
    a, _ = value_of(method, params, seen, extra)
    b, _ = value_of(method, params, seen, extra, batch_of(order))
    np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("name", [n for n in losses.__all__ if n.startswith("sliced_")])
def test_every_sliced_test_is_a_term_by_its_name(name):
    entry = dict(fn=name, student="projection", pairs="single", num_slices=8)
    method = wiring.build(with_parts(config_of(), losses={"gaussian": entry}), INFO)
    params, extra = jax.eval_shape(method.init, KEY, example_batch(INFO))
    loss = method.losses["main"]
    value, _ = jax.eval_shape(loss, Context(params, {}, extra, batch_of(), KEY, jnp.int32(0)))
    assert value.shape == ()


def test_a_schedule_in_a_weight_follows_the_step():
    changes = {"losses.sigreg.weight": ("linear", 0.0, 1.0), "losses.prediction.weight": 0.0}
    method, params, seen, extra = start(config_of(**changes))
    first, _ = value_of(method, params, seen, extra, step=0)
    last, aux = value_of(method, params, seen, extra, step=INFO.steps)
    assert float(first) == 0.0
    np.testing.assert_allclose(last, aux.metrics["sigreg"], rtol=1e-6)


def with_teacher(config, **fields):
    follows = ("encoder", "projector")
    teacher = dict(rule="ema", follows=follows, decay=0.5, **fields)
    prediction = dict(
        fn="view_mean_prediction", student="projection", teacher="ema/projection", pairs="all"
    )
    return with_parts(config, teachers={"ema": teacher}, losses={"prediction": prediction})


def test_a_teacher_has_its_own_statistics_and_no_gradient():
    method, params, seen, extra = start(with_teacher(config_of()))
    assert set(extra["batch_stats"]) == {"student", "ema"}
    assert list(method.encoders) == ["student", "ema"]
    other = jax.tree.map(lambda x: 1.5 * x, seen)

    def of_teacher(seen):
        return method.losses["main"](Context(params, seen, extra, batch_of(), KEY, jnp.int32(0)))[0]

    grads = jax.jit(jax.grad(of_teacher))(seen)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads))
    a, aux = value_of(method, params, seen, extra)
    b, moved = value_of(method, params, other, extra)
    assert abs(float(a) - float(b)) > 1e-4  # it is seen all the same
    same = jax.tree.map(np.array_equal, aux.extra["batch_stats"], moved.extra["batch_stats"])
    assert all(jax.tree.leaves(same["student"]))
    assert not all(jax.tree.leaves(same["ema"]))


def test_a_teacher_in_evaluation_mode_keeps_its_statistics():
    method, params, seen, extra = start(with_teacher(config_of(), mode="eval"))
    _, aux = value_of(method, params, seen, extra)
    for leaf, old in named_leaves(extra["batch_stats"]["ema"]).items():
        np.testing.assert_array_equal(named_leaves(aux.extra["batch_stats"]["ema"])[leaf], old)


def groups(size):
    shared = {"crop": {"scale": (0.5, 1.0)}}
    return {
        "global": dict(count=2, size=16, **shared),
        "local": dict(count=2, size=size, **shared),
    }


def test_batch_statistics_are_shared_as_the_config_says():
    found = {}
    for mode in ("all", "group", "view"):
        config = with_parts(
            config_of(), views=groups(16), method_options={"batch_statistics": mode}
        )
        method, params, seen, extra = start(config)
        value, aux = value_of(method, params, seen, extra)
        stats = aux.extra["batch_stats"]["student"]["encoder"]["norm0"]["mean"]
        found[mode] = float(value), np.asarray(stats)
    assert len({value for value, _ in found.values()}) == 3
    # One running update with all views, two with one group each, four with one view each: each
    # moves a tenth of the way from 0, so more updates end further from 0.
    norms = [np.linalg.norm(stats) for _, stats in found.values()]
    assert norms[0] < norms[1] < norms[2]
    np.testing.assert_allclose(norms[1] / norms[0], 1.9, rtol=0.05)


def test_local_views_of_another_size_count_as_local():
    config = with_parts(config_of(), views=groups(8))
    method, params, seen, extra = start(config)
    value, _ = value_of(method, params, seen, extra)
    assert np.isfinite(value)
    make = image_views.build(config.views, mean=config.data.mean, std=config.data.std)
    shapes = jax.tree.map(jnp.shape, make(KEY, batch_of()))
    assert shapes == {"global": (16, 2, 16, 16, 1), "local": (16, 2, 8, 8, 1)}


VIT = dict(name="vit", width=16, depth=2, heads=2, patch=8, image_size=16)


def test_drop_path_is_keyed_by_sample_and_off_in_evaluation():
    config = with_parts(config_of(), encoder=VIT, method_options={"drop_path": 0.5})
    method, params, seen, extra = start(config)
    plain, *_ = start(with_parts(config_of(), encoder=VIT))
    dropped, _ = value_of(method, params, seen, extra)
    order = np.random.default_rng(1).permutation(16)
    again, _ = value_of(method, params, seen, extra, batch_of(order))
    whole, _ = value_of(plain, params, seen, extra)
    np.testing.assert_allclose(dropped, again, rtol=1e-5)
    assert abs(float(dropped) - float(whole)) > 1e-4
    a, b = (
        m.encoders["student"](Context(params, seen, extra, batch_of(), KEY, 0))["pooled"]
        for m in (method, plain)
    )
    np.testing.assert_array_equal(a, b)


def test_bfloat16_computes_low_and_keeps_params_and_loss_in_float32():
    low, params, seen, extra = start(with_parts(config_of(**{"train.precision": "bfloat16"})))
    full, *_ = start(config_of())
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    a, aux = value_of(low, params, seen, extra)
    b, _ = value_of(full, params, seen, extra)
    assert a.dtype == jnp.float32 and {m.dtype for m in aux.metrics.values()} == {a.dtype}
    np.testing.assert_allclose(a, b, rtol=0.05)
    assert float(a) != float(b)
    text = (
        jax.jit(low.losses["main"])
        .lower(Context(params, seen, extra, batch_of(), KEY, 0))
        .as_text()
    )
    assert "bf16" in text


def test_rematerialised_blocks_give_the_same_gradient():
    grads = []
    for remat in ("none", "full"):
        config = with_parts(config_of(), encoder=VIT | {"remat": remat})
        method, params, seen, extra = start(config)

        def loss(params, method=method, seen=seen, extra=extra):
            return method.losses["main"](
                Context(params, seen, extra, batch_of(), KEY, jnp.int32(0))
            )[0]

        grads.append(jax.jit(jax.grad(loss))(params))
    for name, leaf in named_leaves(grads[0]).items():
        np.testing.assert_allclose(named_leaves(grads[1])[name], leaf, atol=1e-6, err_msg=name)


def test_microbatches_take_a_fraction_of_the_memory():
    sizes = []
    for k in (1, 4):
        encoder = VIT | {"width": 64, "patch": 2}
        config = merged(
            with_parts(config_of(**{"student.projector.norm": "layer"}), encoder=encoder),
            {"train.microbatches": k},
        )
        method, params, seen, extra = start(config)
        grad = jax.jit(
            jax.grad(
                lambda p, m=method, s=seen, e=extra: m.losses["main"](
                    Context(p, s, e, batch_of(), KEY, jnp.int32(0))
                )[0]
            )
        )
        sizes.append(grad.lower(params).compile().memory_analysis().temp_size_in_bytes)
    assert sizes[1] < 0.4 * sizes[0]


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"losses": {}}, "losses: empty"),
        ({"losses": {"a": {"fn": "sigrek", "student": "projection"}}}, "did you mean 'sigreg'"),
        ({"losses": {"a": {"fn": "sigreg"}}}, r"losses\.a\.student: missing"),
        (
            {"losses": {"a": {"fn": "sigreg", "student": "projection", "pairs": "single"}}},
            r"losses\.a\.num_slices: found 0",
        ),
        (
            {"losses": {"a": {"fn": "lejepa_prediction", "student": "projektion"}}},
            "did you mean 'projection'",
        ),
        (
            {
                "losses": {
                    "a": {"fn": "lejepa_prediction", "student": "projection", "pairs": "crss"}
                }
            },
            "did you mean 'cross'",
        ),
        (
            {"losses": {"a": {"fn": "lejepa_prediction", "student": "projection", "wait": 1}}},
            r"losses\.a\.wait: no such argument",
        ),
        (
            {
                "losses": {
                    "a": {
                        "fn": "view_mean_prediction",
                        "student": "projection",
                        "teacher": "emma/projection",
                    }
                }
            },
            "no teacher 'emma'",
        ),
        ({"teachers": {"ema": {"rule": "ema", "views": ("glob",)}}}, "did you mean 'global'"),
        ({"teachers": {"student": {"rule": "ema"}}}, r"teachers\.student"),
        ({"method_options": {"drop_paths": 0.1}}, "did you mean 'drop_path'"),
        ({"method_options": {"batch_statistics": "vew"}}, "did you mean 'view'"),
        ({"method_options": {"drop_path": 1.0}}, "0 <= p < 1"),
        ({"student": {"head": {"name": "mlp", "widths": (8,)}}}, "needs `reads` and `output`"),
        ({"encoder": {"name": "vitt"}}, "did you mean 'vit'"),
    ],
)
def test_bad_parts_are_refused_in_one_line(changes, text):
    with pytest.raises(ConfigError, match=text) as error:
        wiring.build(with_parts(config_of(), **changes), INFO)
    assert "\n" not in str(error.value)
