"""The four kinds of teacher: an average, a frozen network, snapshots, and averages that take turns.

A teacher holds float32 copies of some networks (top-level names of the params), whatever the dtype
of the student: in bfloat16 an average with decay 0.999 rounds every change away. Batch statistics
are not here but in `extra`, where the family keeps one set per teacher. "Self" as a teacher needs
nothing of this: it is a `stop_gradient` inside the loss.

With `when="after"` a teacher sees the params that the gradient step has just made, with
`when="before"` those that it starts from; `step` counts finished steps from 0 in both.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxssl.config import durations, schedules
from jaxssl.config.errors import ConfigError, near
from jaxssl.method import Info, PyTree, Teacher
from jaxssl.optim.param_groups import check_fields

Source = Callable[[jax.Array, PyTree, PyTree, Mapping[str, PyTree]], PyTree]

WHEN = ("after", "before")
SOURCES = ("copy", "random", "artifact")

COMMON: Mapping[str, Any] = {"rule": "ema", "follows": (), "merge": False}
"""Fields of every teacher; `make` describes them."""

FIELDS: Mapping[str, Mapping[str, Any]] = {
    "ema": {**COMMON, "decay": 0.996, "when": "after"},
    "frozen": {**COMMON, "source": "copy", "artifact": ""},
    "snapshot": {**COMMON, "every": 1, "when": "after"},
    "alternating": {
        **COMMON,
        "decay": ("warmup_cap", 0.99),
        "period": 1,
        "count": 2,
        "when": "after",
    },
}
"""rule -> its fields and their values where absent."""


def make(
    config: Any,
    steps: int,
    field: str = "teacher",
    *,
    info: Info | None = None,
    fresh: Callable[[jax.Array], PyTree] | None = None,
) -> Teacher:
    """The teacher that a config section describes.

    Args:
      config: mapping with fields of `FIELDS[rule]`.
        rule: "ema", "frozen", "snapshot" or "alternating".
        follows: top-level names of the params that it copies; () is all.
        merge: whether losses see the student's other networks beside the teacher's own.
        decay: number or schedule (ema; alternating: of the step within the turn).
        when: "after" or "before" the gradient step.
        source: of a frozen one: "copy" (the student at the start), "random" (a new
          initialisation) or "artifact" (the params stored under the name `artifact`).
        every, period: steps, or {"epochs": 1} and the like (`durations.to_steps`).
        count: how many averages take turns.
      steps: length of the run, for schedules.
      field: the config field, for error messages.
      info: needed for epochs and examples in `every` and `period`.
      fresh: key -> new params, needed for `source="random"`.

    Raises:
      ConfigError: an unknown rule, field or value here; a network or artifact that does not exist
        in `init`, which is traced before anything is compiled.
    """
    rule = config.get("rule", COMMON["rule"])
    if not isinstance(rule, str) or rule not in FIELDS:
        raise ConfigError(
            f"{field}.rule is {rule!r}, expected a known rule{near(str(rule), FIELDS)}"
        )
    c = check_fields(config, FIELDS[rule], field)
    follows = c["follows"]
    if not isinstance(follows, list | tuple) or not all(isinstance(name, str) for name in follows):
        raise ConfigError(f"{field}.follows is {follows!r}, expected a tuple of network names")
    if c.get("when", "after") not in WHEN:
        raise ConfigError(f"{field}.when is {c['when']!r}{near(str(c['when']), WHEN)}")
    if not isinstance(c["merge"], bool):
        raise ConfigError(f"{field}.merge is {c['merge']!r}, expected True or False")
    decay = c.get("decay", 0.0)
    if isinstance(decay, int | float) and not 0 <= decay <= 1:
        raise ConfigError(f"{field}.decay is {decay!r}, expected a number in [0, 1]")
    shared: dict[str, Any] = {"follows": tuple(follows), "merge": c["merge"], "field": field}
    if rule == "frozen":
        return frozen(_source(c, field, fresh), **shared)
    shared["when"] = c["when"]
    if rule == "snapshot":
        return snapshot(_period(c, "every", steps, field, info), **shared)
    if rule == "ema":
        return ema(schedules.make(c["decay"], steps, f"{field}.decay"), **shared)
    if not isinstance(c["count"], int) or c["count"] < 1:
        raise ConfigError(f"{field}.count is {c['count']!r}, expected a whole number from 1")
    period = _period(c, "period", steps, field, info)
    decay = schedules.make(c["decay"], period, f"{field}.decay")
    return alternating(period, decay, c["count"], **shared)


def ema(
    decay: float | schedules.Schedule,
    follows: Sequence[str] = (),
    *,
    when: str = "after",
    merge: bool = False,
    field: str = "teacher",
) -> Teacher:
    """Exponential moving average of the student, t <- decay(step) t + (1 - decay(step)) θ.

    Decay 0 copies the student, decay 1 never moves; half of the past is forgotten after
    `schedules.half_life(decay)` steps. Reference: Tarvainen & Valpola 2017, arXiv:1703.01780.

    Args:
      decay: number or function of the step.
      follows: networks that it copies; () is all.
      when: "after" or "before" the gradient step.
      merge: losses also see the student's other networks.
      field: the config field, for error messages.
    """
    rate = _as_function(decay)

    def update(t: PyTree, params: PyTree, extra: PyTree, step: jax.Array) -> PyTree:
        return _averaged(t, params, rate(step))

    return Teacher(copy_of_student(follows, field), update, _reader(merge), when)


def frozen(
    source: Source | None = None,
    follows: Sequence[str] = (),
    *,
    merge: bool = False,
    field: str = "teacher",
) -> Teacher:
    """A network that never changes, from any source.

    Args:
      source: (key, params, extra, artifacts) -> params; None copies the student at the start. See
        also `from_key` and `from_artifact`.
      follows: names kept of what the source gives; () is all.
      merge: losses also see the student's other networks.
      field: the config field, for error messages.
    """

    def init(key: jax.Array, params: PyTree, extra: PyTree, artifacts: Any) -> PyTree:
        found = params if source is None else source(key, params, extra, artifacts)
        return _copy(_part(found, follows, field))

    return Teacher(init, lambda t, params, extra, step: t, _reader(merge))


def from_key(fresh: Callable[[jax.Array], PyTree]) -> Source:
    """A source for `frozen`: new random params from the teacher's own key."""
    return lambda key, params, extra, artifacts: fresh(key)


def from_artifact(name: str, field: str = "teacher") -> Source:
    """A source for `frozen`: the params that an earlier stage or an import stored under `name`."""

    def source(key: jax.Array, params: PyTree, extra: PyTree, artifacts: Any) -> PyTree:
        if name not in artifacts:
            raise ConfigError(f"{field}.artifact: there is no {name!r}{near(name, artifacts)}")
        return artifacts[name]

    return source


def snapshot(
    every: int,
    follows: Sequence[str] = (),
    *,
    when: str = "after",
    merge: bool = False,
    field: str = "teacher",
) -> Teacher:
    """A copy of the student, taken again each time that `every` more steps are done.

    Args: as for `ema`; `every` counts steps.
    """

    def update(t: PyTree, params: PyTree, extra: PyTree, step: jax.Array) -> PyTree:
        done = step + (when == "after")
        return _chosen(done % every == 0, _averaged(t, params, jnp.float32(0)), t)

    return Teacher(copy_of_student(follows, field), update, _reader(merge), when)


def alternating(
    period: int,
    decay: float | schedules.Schedule,
    count: int = 2,
    follows: Sequence[str] = (),
    *,
    when: str = "after",
    merge: bool = False,
    field: str = "teacher",
) -> Teacher:
    """Temporary averages that take turns of `period` steps; losses see the active one.

    At step i = 0, 1, ... of its turn, t <- decay(i) t + (1 - decay(i)) θ; the others stand still.
    With decay(i) = min(1 - 1 / (i + 1), cap) the first update overwrites it with the student, and
    it then is the mean of the turn's students. Reference: Na et al. 2023, "Switching Temporary
    Teachers for Semi-Supervised Semantic Segmentation".

    Args: as for `ema`; `period` in steps, `count` averages, `decay` of the step in the turn.
    """
    rate = _as_function(decay)
    start = copy_of_student(follows, field)
    turns = tuple(f"turn{i}" for i in range(count))

    def init(key: jax.Array, params: PyTree, extra: PyTree, artifacts: Any) -> PyTree:
        return {turn: start(key, params, extra, artifacts) for turn in turns}

    def active(step: jax.Array) -> jax.Array:
        return (step // period) % count

    def update(t: PyTree, params: PyTree, extra: PyTree, step: jax.Array) -> PyTree:
        now = rate(step % period)
        return {
            turn: _chosen(active(step) == i, _averaged(t[turn], params, now), t[turn])
            for i, turn in enumerate(turns)
        }

    def read(t: PyTree, params: PyTree, extra: PyTree, step: jax.Array) -> PyTree:
        which = jnp.asarray(active(step), jnp.int32)
        chosen = jax.tree.map(
            lambda *leaves: jax.lax.select_n(which, *leaves), *(t[turn] for turn in turns)
        )
        return {**params, **chosen} if merge else chosen

    return Teacher(init, update, read, when)


def copy_of_student(follows: Sequence[str] = (), field: str = "teacher") -> Source:
    """The `init` of a teacher that starts as the student: a float32 copy of `follows`."""
    return lambda key, params, extra, artifacts: _copy(_part(params, follows, field))


def _source(
    c: Mapping[str, Any], field: str, fresh: Callable[[jax.Array], PyTree] | None
) -> Source | None:
    source, artifact = c["source"], c["artifact"]
    if source not in SOURCES:
        raise ConfigError(f"{field}.source is {source!r}{near(str(source), SOURCES)}")
    if bool(artifact) != (source == "artifact"):
        raise ConfigError(
            f"{field}.artifact is {artifact!r} with source {source!r}, expected both or neither"
        )
    if source == "random":
        if fresh is None:
            raise ConfigError(f"{field}.source is 'random', which this family cannot initialise")
        return from_key(fresh)
    return from_artifact(artifact, field) if source == "artifact" else None


def _period(c: Mapping[str, Any], name: str, steps: int, field: str, info: Info | None) -> int:
    if info is None and hasattr(c[name], "items"):
        raise ConfigError(f"{field}.{name} is {c[name]!r}, expected a number of steps")
    period = durations.to_steps(
        c[name],
        num_samples=info.num_samples if info else 0,
        global_batch=info.global_batch if info else 1,
        steps=steps,
        field=f"{field}.{name}",
    )
    if period == 0:
        raise ConfigError(f"{field}.{name} is 0, expected at least one step")
    return period


def _part(params: PyTree, follows: Sequence[str], field: str) -> dict[str, PyTree]:
    for name in follows:
        if name not in params:
            raise ConfigError(f"{field}.follows: there is no network {name!r}{near(name, params)}")
    return {name: params[name] for name in follows or params}


def _copy(tree: PyTree) -> PyTree:
    """New buffers, never an alias: the state is donated; floating-point leaves become float32."""

    def one(leaf: Any) -> jax.Array:
        leaf = jnp.asarray(leaf)
        return jnp.array(leaf, jnp.float32 if jnp.issubdtype(leaf.dtype, jnp.floating) else None)

    return jax.tree.map(one, tree)


def _averaged(t: PyTree, params: PyTree, decay: jax.Array) -> PyTree:
    """decay t + (1 - decay) θ, exact at decay 0 and 1."""
    own = {name: params[name] for name in t}
    return jax.tree.map(lambda a, b: decay * a + (1.0 - decay) * b.astype(a.dtype), t, own)


def _chosen(take: jax.Array, new: PyTree, old: PyTree) -> PyTree:
    """`new` or `old` bit by bit: a student full of NaNs must not reach a teacher at rest."""
    return jax.tree.map(lambda a, b: jnp.where(take, a, b), new, old)


def _as_function(decay: float | schedules.Schedule) -> schedules.Schedule:
    if callable(decay):
        return decay
    value = float(decay)
    return lambda step: jnp.float32(value)


def _reader(merge: bool) -> Callable[[PyTree, PyTree, PyTree, jax.Array], PyTree]:
    if merge:
        return lambda t, params, extra, step: {**params, **t}
    return lambda t, params, extra, step: t
