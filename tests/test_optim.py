import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from jaxssl import optim
from jaxssl.config.errors import ConfigError
from jaxssl.optim import param_groups


def toy():
    """Values whose norms are easy: the kernel's is 5, the head's 10."""
    return {
        "encoder": {
            "class_token": jnp.ones((1, 2)),
            "dense": {"kernel": jnp.array([[3.0, 0.0], [0.0, 4.0]]), "bias": jnp.ones(2)},
            "norm": {"scale": jnp.ones(2)},
        },
        "head": {"kernel": jnp.array([[6.0, 8.0]])},
    }


def ones(tree):
    return jax.tree.map(jnp.ones_like, tree)


def zeros(tree):
    return jax.tree.map(jnp.zeros_like, tree)


def build(params, steps=100, **config):
    return optim.make(ConfigDict(config), params, steps)


def moved(tx, params, grads, at):
    """Params after an update at each of the steps `at`, and the optimizer's state."""
    state = tx.init(params)
    for step in at:
        updates, state = tx.update(grads, state, params, step=jnp.int32(step))
        params = optax.apply_updates(params, updates)
    return params, state


def change(tx, params, grads, step=0):
    return jax.tree.map(jnp.subtract, moved(tx, params, grads, [step])[0], params)


def close(tree, expected, rtol=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7), tree, expected
    )


def same_bits(tree, expected):
    jax.tree.map(np.testing.assert_array_equal, tree, expected)


# ---------------------------------------------------------------------------- rules


@pytest.mark.smoke
def test_adamw_is_the_published_update():
    params, rng = toy(), np.random.default_rng(0)
    tx = build(params, name="adamw", learning_rate=0.01, beta1=0.8, beta2=0.95, weight_decay=0.1)
    state, w = tx.init(params), np.asarray(params["head"]["kernel"])
    m = v = np.zeros_like(w)
    for t in range(1, 4):
        g = rng.normal(size=w.shape)
        grads = ones(params) | {"head": {"kernel": jnp.asarray(g, jnp.float32)}}
        updates, state = tx.update(grads, state, params, step=jnp.int32(t - 1))
        params = optax.apply_updates(params, updates)
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
        w = w - 0.01 * (m / (1 - 0.8**t) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8) + 0.1 * w)
    np.testing.assert_allclose(params["head"]["kernel"], w, rtol=1e-5)


def test_weight_decay_is_scheduled_and_only_on_matrices():
    params = toy()
    tx = build(params, learning_rate=0.5, weight_decay=("linear", 0.2, 0.0))
    got = change(tx, params, zeros(params), step=50)
    expected = zeros(params)
    expected["encoder"]["dense"]["kernel"] = -0.5 * 0.1 * params["encoder"]["dense"]["kernel"]
    expected["head"]["kernel"] = -0.5 * 0.1 * params["head"]["kernel"]
    close(got, expected)


def test_no_decay_can_be_chosen():
    params = toy()
    shrink = lambda tx: change(tx, params, zeros(params))
    everything = shrink(build(params, learning_rate=1.0, weight_decay=0.1, no_decay=()))
    close(everything, jax.tree.map(lambda p: -0.1 * p, params))
    but_head = shrink(build(params, learning_rate=1.0, weight_decay=0.1, no_decay=("^head/",)))
    close(but_head["head"], zeros(params["head"]))
    close(but_head["encoder"], everything["encoder"])


def test_sgd_passes_decay_through_the_momentum():
    params = toy()
    tx = build(params, name="sgd", learning_rate=0.1, momentum=0.9, weight_decay=0.5)
    got, _ = moved(tx, params, ones(params), [0, 1])
    w, m = np.asarray(params["head"]["kernel"]), 0.0
    for _ in range(2):
        m = 0.9 * m + 1.0 + 0.5 * w
        w = w - 0.1 * m
    np.testing.assert_allclose(got["head"]["kernel"], w, rtol=1e-5)


def test_lars_trust_ratio_and_its_exclusions():
    params, grads = toy(), ones(toy())
    tx = build(
        params,
        name="lars",
        learning_rate=2.0,
        weight_decay=0.1,
        trust_coefficient=0.01,
        momentum=0.9,
    )
    got = change(tx, params, grads)
    kernel = np.asarray(params["encoder"]["dense"]["kernel"])
    u = 1 + 0.1 * kernel
    np.testing.assert_allclose(
        got["encoder"]["dense"]["kernel"], -2.0 * 0.01 * 5 / np.linalg.norm(u) * u, rtol=1e-5
    )
    for plain in (got["encoder"]["dense"]["bias"], got["encoder"]["class_token"]):
        np.testing.assert_allclose(plain, -2.0)  # no ratio, no decay


def test_lars_moves_a_matrix_of_zeros():
    params = {"w": jnp.zeros((2, 2))}
    got = change(build(params, name="lars", learning_rate=0.5), params, ones(params))
    np.testing.assert_allclose(got["w"], -0.5)


def test_lion_moves_by_signs():
    params = {"w": jnp.ones((1, 3))}
    tx = build(params, name="lion", learning_rate=0.5, beta2=0.99)
    got = change(tx, params, {"w": jnp.array([[1e-3, -7.0, 0.0]])})
    np.testing.assert_allclose(got["w"], [[-0.5, 0.5, 0.0]])


@pytest.mark.parametrize("name", optim.RULES)
def test_jitted_update_compiles_once_and_lowers_a_bowl(name):
    params = {"w": 2 * jnp.ones((2, 2)), "bias": -2 * jnp.ones(2)}
    tx = build(params, name=name, learning_rate=0.1, trust_coefficient=0.1)
    traces = []

    @jax.jit
    def step(params, state, count):
        traces.append(1)
        updates, state = tx.update(params, state, params, step=count)
        return optax.apply_updates(params, updates), state

    state, start = tx.init(params), optax.tree.norm(params)
    for i in range(5):
        params, state = step(params, state, jnp.int32(i))
    assert optax.tree.norm(params) < 0.95 * start
    assert len(traces) == 1


# ---------------------------------------------------------------------------- step, dtype, clips


def test_schedules_read_the_step_and_not_the_number_of_updates():
    params = {"w": jnp.ones((1, 1))}
    tx = build(params, name="sgd", momentum=0.0, learning_rate=("linear", 1.0, 0.0))
    got, _ = moved(tx, params, ones(params), [80, 80])
    np.testing.assert_allclose(got["w"], 1 - 0.2 - 0.2, rtol=1e-5)


def test_adam_corrects_its_bias_by_updates_and_not_by_the_step():
    params = {"w": jnp.ones((1, 1))}
    got = change(build(params, learning_rate=0.1), params, ones(params), step=90)
    np.testing.assert_allclose(got["w"], -0.1, rtol=1e-4)


def test_moments_are_float32_for_bfloat16_params():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), toy())
    tx = build(params, learning_rate=0.5, clip_norm=1.0)
    after, state = moved(tx, params, ones(params), [0])
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert floats and all(x.dtype == jnp.float32 for x in floats)
    assert after["head"]["kernel"].dtype == jnp.bfloat16


def test_global_clip():
    params = {"a": jnp.ones((1, 1)), "b": jnp.ones((1, 1))}
    grads = {"a": jnp.array([[3.0]]), "b": jnp.array([[4.0]])}
    plain = {"name": "sgd", "momentum": 0.0, "learning_rate": 1.0}
    close(change(build(params, **plain, clip_norm=1.0), params, grads), {"a": -0.6, "b": -0.8})
    close(change(build(params, **plain, clip_norm=6.0), params, grads), {"a": -3.0, "b": -4.0})


def test_clip_per_tensor():
    params = {"a": jnp.ones((1, 2)), "b": jnp.ones((1, 1))}
    grads = {"a": jnp.array([[3.0, 4.0]]), "b": jnp.array([[0.5]])}
    tx = build(params, name="sgd", momentum=0.0, learning_rate=1.0, clip_per_tensor=1.0)
    close(change(tx, params, grads), {"a": np.array([[-0.6, -0.8]]), "b": np.array([[-0.5]])})
    still = change(tx, params, zeros(params))
    close(still, zeros(params))


# ---------------------------------------------------------------------------- groups and freezing


def test_groups_scale_learning_rate_and_decay():
    params = toy()
    groups = {
        "slow": {"match": "^head/", "learning_rate": ("linear", 0.0, 1.0), "weight_decay": 0.5}
    }
    tx = build(params, learning_rate=1.0, weight_decay=0.1, groups=groups)
    got = change(tx, params, zeros(params), step=25)
    close(got["head"]["kernel"], -0.25 * 0.1 * 0.5 * params["head"]["kernel"])
    kernel = params["encoder"]["dense"]["kernel"]
    close(got["encoder"]["dense"]["kernel"], -0.1 * kernel)


@pytest.mark.smoke
@pytest.mark.parametrize("name", optim.RULES)
def test_a_frozen_group_moves_from_its_step_on_as_if_it_began_there(name):
    params = toy()
    config = {"name": name, "learning_rate": 0.1, "weight_decay": 0.1}
    frozen = build(params, **config, groups={"late": {"match": "^head/", "freeze_until": 3}})
    before, state = moved(frozen, params, ones(params), [0, 1, 2])
    same_bits(before["head"], params["head"])
    assert not np.allclose(before["encoder"]["norm"]["scale"], 1.0)
    updates, _ = frozen.update(ones(params), state, before, step=jnp.int32(3))
    plain = build(params, **config)
    fresh, _ = plain.update(ones(params), plain.init(params), params, step=jnp.int32(3))
    close(updates["head"], fresh["head"])


def test_moments_of_a_frozen_group_stand_still():
    params = toy()
    groups = {"late": {"match": "^head/", "freeze_until": 3}}
    tx = build(params, learning_rate=0.1, groups=groups)
    _, state = moved(tx, params, ones(params), [5, 6])  # moments and counts are not zero
    _, after = tx.update(ones(params), state, params, step=jnp.int32(2))
    held = lambda s: [x for path, x in jax.tree.leaves_with_path(s) if "from_step_3" in str(path)]
    assert sum(float(jnp.abs(x).sum()) for x in held(state)) > 0
    same_bits(held(after), held(state))


def test_an_always_frozen_group_has_no_moments_and_survives_nan():
    params = toy()
    grads = ones(params) | {"head": {"kernel": jnp.full((1, 2), jnp.nan)}}
    groups = {"never": {"match": "^head/", "freeze_until": -1}}
    tx = build(params, weight_decay=0.1, clip_norm=1.0, groups=groups)
    after, state = moved(tx, params, grads, [0, 1])
    same_bits(after["head"], params["head"])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after))
    moments = [x for x in jax.tree.leaves(state) if x.ndim]
    assert sum(x.size for x in moments) == 2 * sum(
        x.size for x in jax.tree.leaves(params["encoder"])
    )


def test_frozen_gradients_do_not_count_in_the_global_norm():
    params = {"a": jnp.ones((1, 1)), "b": jnp.ones((1, 1))}
    grads = {"a": jnp.array([[0.5]]), "b": jnp.array([[1000.0]])}
    plain = {"name": "sgd", "momentum": 0.0, "learning_rate": 1.0, "clip_norm": 1.0}
    for until in (-1, 10):
        tx = build(params, **plain, groups={"f": {"match": "^b$", "freeze_until": until}})
        close(change(tx, params, grads), {"a": -0.5, "b": 0.0})


# ---------------------------------------------------------------------------- layers


def test_layer_decay_of_a_transformer():
    params = {
        "encoder": {
            "patch_embedding": {"kernel": jnp.ones((2, 2))},
            **{f"block{i}": {"ffn": {"kernel": jnp.ones((2, 2))}} for i in range(12)},
            "norm": {"scale": jnp.ones(2)},
        },
        "projector": {"block0": {"kernel": jnp.ones((2, 2))}},
    }
    tx = build(params, name="sgd", momentum=0.0, learning_rate=1.0, layer_decay=0.75)
    got = change(tx, params, ones(params))
    height = {"patch_embedding": 13, "block0": 12, "block2": 10, "block11": 1, "norm": 0}
    for name, h in height.items():
        for leaf in jax.tree.leaves(got["encoder"][name]):
            np.testing.assert_allclose(leaf, -(0.75**h), rtol=1e-5)
    np.testing.assert_allclose(got["projector"]["block0"]["kernel"], -1.0)


def test_layers_of_stages_are_in_the_order_of_the_computation():
    paths = [
        f"encoder/{part}/kernel"
        for part in ("stem", "stage0/block0", "downsample1", "stage1/block0", "stage1/block10")
    ]
    factors = param_groups.layer_factors([*reversed(paths), "encoder/norm/scale"], 0.5)
    assert [factors[path] for path in paths] == [0.5**5, 0.5**4, 0.5**3, 0.5**2, 0.5]
    assert factors["encoder/norm/scale"] == 1


# ---------------------------------------------------------------------------- start screen, errors


def test_describe_counts_every_parameter_once():
    params = jax.eval_shape(toy)
    groups = {"head": {"match": "^head/", "learning_rate": 0.1, "freeze_until": 5}}
    rows = optim.describe(ConfigDict({"groups": groups}), params, 100)
    assert [(r.group, r.decays, r.freeze_until, r.leaves, r.params) for r in rows] == [
        ("default", True, 0, 1, 4),
        ("default", False, 0, 3, 6),
        ("head", True, 5, 1, 2),
    ]
    np.testing.assert_allclose(rows[2].learning_rate, (0.1, 0.1), rtol=1e-6)


def test_learning_rate_at():
    config = ConfigDict({"learning_rate": ("linear", 1.0, 0.0)})
    assert float(optim.learning_rate_at(config, 10)(5)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"name": "adamv"}, ["optimizer.name", "'adamw'"]),
        ({"lerning_rate": 1.0}, ["optimizer.lerning_rate", "'learning_rate'"]),
        ({"learning_rate": ("cosin", 1, 0)}, ["optimizer.learning_rate", "'cosine'"]),
        ({"no_decay": ("haed",)}, ["optimizer.no_decay", "'haed'", "'head'"]),
        ({"no_decay": "head"}, ["optimizer.no_decay", "tuple"]),
        ({"no_decay": ("(",)}, ["optimizer.no_decay", "regex"]),
        ({"groups": {"g": {"match": "decoder"}}}, ["optimizer.groups.g.match", "'encoder'"]),
        ({"groups": {"g": {"learning_rate": 2.0}}}, ["optimizer.groups.g.match", "''"]),
        ({"groups": {"g": {"match": ".", "freze": 1}}}, ["optimizer.groups.g.freze"]),
        ({"groups": {"g": {"match": ".", "freeze_until": -2}}}, ["freeze_until is -2"]),
        (
            {"groups": {"a": {"match": "head"}, "b": {"match": "kernel"}}},
            ["optimizer.groups.b.match", "'head/kernel'", "'a'"],
        ),
        ({"layer_decay": 0.5}, ["optimizer.layer_decay", "numbered layers"]),
        ({"clip_norm": -1.0}, ["optimizer.clip_norm is -1.0"]),
        ({"beta1": 1.0}, ["optimizer.beta1 is 1.0"]),
        ({"eps": 0}, ["optimizer.eps is 0"]),
    ],
)
def test_errors_are_one_line_and_name_the_field(config, words):
    with pytest.raises(ConfigError) as caught:
        optim.make(ConfigDict(config), jax.eval_shape(toy), 100)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
