import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxssl import teachers
from jaxssl.config import schedules
from jaxssl.config.errors import ConfigError
from jaxssl.method import Info

INFO = Info({}, 1000, 10, 100, 10, 100)


def student(value=1.0, dtype=jnp.float32):
    return {
        "encoder": {"w": jnp.full((2, 2), value, dtype)},
        "projector": {"w": jnp.full((2,), value, dtype)},
    }


def build(steps=100, **config):
    return teachers.make(ConfigDict(config), steps, "teachers.t", info=INFO)


def start(teacher, params=None, artifacts=None):
    return teacher.init(jax.random.key(0), params or student(), {}, artifacts or {})


def follow(teacher, t, values, first=0):
    """The teacher after one update per student value, at steps first, first + 1, ..."""
    for step, value in enumerate(values, first):
        t = teacher.update(t, student(value), {}, jnp.int32(step))
    return t


def number(tree):
    """The one value that all leaves of a tree hold."""
    values = {float(x) for leaf in jax.tree.leaves(tree) for x in np.ravel(leaf)}
    assert len(values) == 1
    return values.pop()


# ---------------------------------------------------------------------------- ema


@pytest.mark.smoke
def test_ema_halves_the_distance_in_its_half_life():
    teacher = build(rule="ema", decay=0.9)
    t = follow(teacher, start(teacher, student(1.0)), [0.0] * 7)
    assert number(t) == pytest.approx(0.9**7, rel=1e-5)
    assert schedules.half_life(0.9) == pytest.approx(6.58, abs=0.01)


def test_ema_decay_is_a_schedule_of_the_step():
    teacher = build(rule="ema", decay=("linear", 0.0, 1.0))
    t = start(teacher, student(1.0))
    assert number(follow(teacher, t, [0.0], first=25)) == pytest.approx(0.25)
    assert number(follow(teacher, t, [5.0], first=0)) == 5.0
    assert number(follow(teacher, t, [5.0], first=100)) == 1.0


def test_ema_warmup_is_the_mean_of_the_students():
    teacher = build(rule="ema", decay=("warmup_cap", 0.99))
    t = follow(teacher, start(teacher, student(100.0)), [3.0, 5.0, 10.0])
    assert number(t) == pytest.approx(6.0)


def test_teacher_of_a_bfloat16_student_is_float32_and_moves():
    teacher = build(rule="ema", decay=0.999)
    t = start(teacher, student(1.0, jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves(t)} == {jnp.dtype("float32")}
    t = teacher.update(t, student(2.0, jnp.bfloat16), {}, jnp.int32(0))
    assert number(t) == pytest.approx(1.001, abs=1e-6)
    assert {leaf.dtype for leaf in jax.tree.leaves(t)} == {jnp.dtype("float32")}


def test_follows_chooses_networks_and_merge_adds_the_students():
    params = student(1.0)
    alone = build(rule="ema", follows=("encoder",))
    merged = build(rule="ema", follows=("encoder",), merge=True)
    for teacher, names in ((alone, {"encoder"}), (merged, {"encoder", "projector"})):
        t = start(teacher, params)
        assert set(t) == {"encoder"}
        seen = teacher.read(t, student(7.0), {}, jnp.int32(0))
        assert set(seen) == names
        assert number(seen["encoder"]) == 1.0
    assert number(seen["projector"]) == 7.0
    assert set(start(build(rule="ema"), params)) == {"encoder", "projector"}


@pytest.mark.parametrize("rule", sorted(teachers.FIELDS))
def test_init_is_a_copy_that_survives_donation_of_the_student(rule):
    params = student(3.0)
    t = start(build(rule=rule), params)
    jax.jit(lambda p: jax.tree.map(lambda x: x * 0, p), donate_argnums=0)(params)
    assert jax.tree.leaves(params)[0].is_deleted()
    assert number(t) == 3.0


@pytest.mark.parametrize("rule", sorted(teachers.FIELDS))
def test_update_and_read_keep_shapes_and_types_inside_jit(rule):
    teacher = build(rule=rule, follows=("encoder",))
    params = student(2.0)
    t = start(teacher)
    after = jax.jit(teacher.update)(t, params, {}, jnp.int32(3))
    assert jax.tree.structure(after) == jax.tree.structure(t)
    assert [x.aval for x in jax.tree.leaves(after)] == [x.aval for x in jax.tree.leaves(t)]
    seen = jax.jit(teacher.read)(after, params, {}, jnp.int32(3))
    assert jax.tree.map(jnp.shape, seen) == {"encoder": {"w": (2, 2)}}


# ---------------------------------------------------------------------------- frozen


def test_frozen_copy_never_moves():
    teacher = build(rule="frozen")
    assert number(follow(teacher, start(teacher, student(4.0)), [0.0, 1.0])) == 4.0


def test_frozen_random_depends_on_the_key_alone():
    fresh = lambda key: {"encoder": {"w": jax.random.normal(key, (3,))}}
    config = ConfigDict({"rule": "frozen", "source": "random"})
    teacher = teachers.make(config, 10, fresh=fresh)
    first, again, other = (
        teacher.init(jax.random.key(seed), student(value), {}, {})["encoder"]["w"]
        for seed, value in ((0, 1.0), (0, 2.0), (1, 1.0))
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


def test_frozen_artifact():
    teacher = build(rule="frozen", source="artifact", artifact="first", follows=("encoder",))
    t = start(teacher, artifacts={"first": student(9.0)})
    assert set(t) == {"encoder"} and number(t) == 9.0


# ---------------------------------------------------------------------------- snapshot, alternating


@pytest.mark.parametrize(
    ("when", "expected"), [("after", [0, 0, 12, 12, 12, 15]), ("before", [10, 10, 10, 13, 13, 13])]
)
def test_snapshot_every_three_steps(when, expected):
    teacher = build(rule="snapshot", every=3, when=when)
    t, seen = start(teacher, student(0.0)), []
    for step in range(6):
        t = follow(teacher, t, [10.0 + step], first=step)
        seen.append(number(t))
    assert seen == expected


def test_period_in_epochs():
    teacher = build(rule="snapshot", every={"epochs": 1})  # 10 steps
    t = start(teacher, student(0.0))
    assert number(follow(teacher, t, [1.0], first=8)) == 0.0
    assert number(follow(teacher, t, [1.0], first=9)) == 1.0


@pytest.mark.smoke
def test_alternating_teachers_take_turns():
    teacher = build(rule="alternating", period=3)
    read = lambda t, step: number(teacher.read(t, student(), {}, jnp.int32(step)))
    t = start(teacher, student(50.0))
    means = []
    for step, value in enumerate([3.0, 5.0, 10.0, 1.0, 3.0, 5.0, 8.0]):
        assert step not in (0, 3) or read(t, step) == 50.0  # old weights label one batch
        t = follow(teacher, t, [value], first=step)
        means.append(read(t, step))
    np.testing.assert_allclose(means, [3, 4, 6, 1, 2, 3, 8], rtol=1e-6)
    assert read(t, 3) == pytest.approx(3.0)  # the second, as its turn left it


def test_the_resting_teacher_is_bit_identical_even_beside_nan():
    teacher = build(rule="alternating", period=2, count=3)
    before = follow(teacher, start(teacher), [0.1, 0.7])
    after = follow(teacher, before, [np.nan, np.nan], first=2)
    changed = {
        turn: not np.array_equal(after[turn]["encoder"]["w"], before[turn]["encoder"]["w"])
        for turn in before
    }
    assert changed == {"turn0": False, "turn1": True, "turn2": False}


def test_one_teacher_and_one_long_turn_is_the_plain_average():
    alone = build(rule="alternating", period=100, count=1, decay=0.9)
    plain = build(rule="ema", decay=0.9)
    values = [0.3, 0.9, -2.0]
    turn = follow(alone, start(alone), values)
    seen = alone.read(turn, student(), {}, jnp.int32(2))
    assert number(seen) == number(follow(plain, start(plain), values))


# ---------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"rule": "emma"}, ["teachers.t.rule", "'emma'", "'ema'"]),
        ({"rule": "ema", "dcay": 0.9}, ["teachers.t.dcay", "'decay'"]),
        ({"rule": "frozen", "decay": 0.9}, ["teachers.t.decay"]),
        ({"rule": "ema", "decay": ("cosin", 0.9, 1.0)}, ["teachers.t.decay", "'cosine'"]),
        ({"rule": "ema", "when": "befor"}, ["teachers.t.when", "'before'"]),
        ({"rule": "ema", "follows": "encoder"}, ["teachers.t.follows", "tuple"]),
        ({"rule": "snapshot", "every": 0}, ["teachers.t.every is 0"]),
        ({"rule": "snapshot", "every": {"epoch": 1}}, ["teachers.t.every", "'epochs'"]),
        ({"rule": "alternating", "count": 0}, ["teachers.t.count is 0"]),
        ({"rule": "frozen", "source": "rndom"}, ["teachers.t.source", "'random'"]),
        ({"rule": "frozen", "source": "random"}, ["teachers.t.source", "cannot initialise"]),
        ({"rule": "frozen", "source": "artifact"}, ["teachers.t.artifact is ''"]),
    ],
)
def test_config_errors_are_one_line_and_name_the_field(config, words):
    with pytest.raises(ConfigError) as caught:
        build(**config)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_missing_networks_and_artifacts_are_named_before_compilation():
    with pytest.raises(ConfigError, match=r"teachers\.t\.follows.*'encodr'.*'encoder'"):
        jax.eval_shape(lambda: start(build(rule="ema", follows=("encodr",))))
    teacher = build(rule="frozen", source="artifact", artifact="frist")
    with pytest.raises(ConfigError, match=r"teachers\.t\.artifact.*'frist'.*'first'"):
        start(teacher, artifacts={"first": student()})
