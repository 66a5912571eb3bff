"""A run as a list of stages; each starts from what earlier ones left, by name.

    config.stages = (
        dict(name="teacher"),
        dict(name="student", init_from="teacher", take=("params/encoder",),
             changes={"train.seed": 1}),
    )

Each stage is the run's config with its `changes`, in a folder of its own. `init_from` names an
earlier stage and `take` the parts of its last state that the new one starts with ("params",
"params/encoder", "extra", ...); all else is initialised anew, the optimizer too. A frozen teacher
may start from any earlier stage, whose batch statistics come with it. `take` is ("params",) where
absent. A stage with `init_from` and `train.steps=0` trains nothing: it evaluates what it starts
from, on its own data, and takes all that this needs. A config without stages is one stage, in the
workdir itself.

Files of other libraries stand beside earlier stages, under the names that `weights` gives them: a
frozen teacher may start from one (`source="artifact", artifact="dino", follows=("encoder",)`), and
a stage (`init_from="dino"`), whose `take` then is the encoder, statistics included.

    config.weights = dict(dino="dino_vits16.safetensors")
    config.stages = (dict(name="tuned", init_from="dino"),)

A stage with `make` trains nothing: it makes a table, by sample or by class, that later stages read
(`jaxssl.tables`).

    config.stages = (
        dict(name="teacher"),
        dict(name="pseudo", make=dict(name="pseudo_labels", of="teacher")),
        dict(name="student", changes={"data.join": ("pseudo",)}),
    )

`stages.json` in the workdir says of each stage where it is, what it started from and, once it is
done, the hash of its params and its evaluations.

A later stage draws anew: its `train.seed` is the run's plus 1,000 for each stage before it, unless
its `changes` set one.
"""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jaxssl import data, encoders, modalities, weights
from jaxssl.config import durations
from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError, near
from jaxssl.config.naming import named_leaves
from jaxssl.evals.features import to_host
from jaxssl.program import Program
from jaxssl.report.writers import read_json, write_json
from jaxssl.state import State
from jaxssl.tables import making
from jaxssl.tables.making import Making

PyTree = Any
FIELDS = ("name", "init_from", "take", "changes", "make")
TAKEN = ("params", "teachers", "extra", "optimizer")
ENCODER = ("params/encoder",)  # what a file holds
INDEX = "stages.json"
LENGTHS = durations.UNITS[:3]
SEEDS = 1_000  # between the seeds of two stages: more than the runs that one compares


class Stage(NamedTuple):
    """One stage, resolved: its own config and folder, and what it starts from."""

    name: str
    config: Any
    folder: pathlib.Path
    init_from: str
    take: tuple[str, ...]
    make: Making | None = None

    @property
    def evaluates_only(self) -> bool:
        """Whether it takes no step: it starts from another stage and has no length."""
        return bool(self.init_from) and not has_length(self.config)

    @property
    def trains(self) -> bool:
        """Whether it takes steps: it neither evaluates only nor makes a table."""
        return not (self.evaluates_only or self.make)


class _Move(NamedTuple):
    """A part of the new state, `here`, that is the part `there` of what the stage `source` left."""

    here: str
    source: str
    there: str
    field: str


def resolve(config: Any, workdir: pathlib.Path) -> list[Stage]:
    """The stages of a config, checked.

    Raises:
      ConfigError: an unknown field, a name used twice, a start from no earlier stage, or a length
        of 0 beside another length.
    """
    if not config.stages:
        return [Stage("", config, workdir, "", ())]
    stages: list[Stage] = []
    for i, entry in enumerate(config.stages):
        field = f"stages[{i}]"
        if not hasattr(entry, "items"):
            raise ConfigError(f"{field}: found {entry!r}, expected fields {', '.join(FIELDS)}")
        entry = dict(entry)
        for key in entry:
            if key not in FIELDS:
                raise ConfigError(f"{field}.{key}: unknown field{near(key, FIELDS)}")
        names = [stage.name for stage in stages]
        name, source = str(entry.get("name", "")), entry.get("init_from", "")
        used = name in names or name in config.weights
        if not re.fullmatch(r"[\w-]+", name) or used:  # it is a folder's name, too
            raise ConfigError(
                f"{field}.name: found {name!r}; expected letters, digits, _ or -, not yet used"
            )
        made = [stage.name for stage in stages if stage.make]
        with_state = [name for name in names if name not in made]
        if "make" in entry:
            for key in ("init_from", "take"):
                if key in entry:
                    raise ConfigError(f"{field}.{key}: a stage with `make` starts from nothing")
            own = _changed(config, entry.get("changes", {}), i, field)
            make = making.parse(entry["make"], f"{field}.make", with_state, made)
            stages.append(Stage(name, own, workdir / f"{i}-{name}", "", (), make))
            continue
        known = [*with_state, *config.weights]
        if source and source not in known:
            raise ConfigError(
                f"{field}.init_from: no earlier stage {source!r}{near(source, known)}"
            )
        own = _changed(config, entry.get("changes", {}), i, field)
        stage = Stage(name, own, workdir / f"{i}-{name}", source, ())
        # Features need the batch statistics, too; what is trained anew settles its own.
        usual = TAKEN[:3] if stage.evaluates_only else TAKEN[:1]
        take = entry.get("take", ENCODER if source in config.weights else usual)
        if not isinstance(take, tuple | list):
            raise ConfigError(f"{field}.take: found {take!r}, expected a tuple of parts")
        for part in take:
            if part.split("/")[0] not in TAKEN:
                raise ConfigError(f"{field}.take: no part {part!r}{near(part, TAKEN)}")
        stages.append(stage._replace(take=tuple(take)))
    if all(stage.make for stage in stages):
        raise ConfigError("stages: all of them make tables, expected one that trains")
    return stages


def _changed(config: Any, changes: Any, place: int, field: str) -> Any:
    if not hasattr(changes, "items"):
        raise ConfigError(f"{field}.changes: found {changes!r}, expected keys and values")
    # The first steps of all stages would otherwise see the same batches in the same views.
    seed = (config.train.seed + SEEDS * place) % 2**32
    try:
        own = configs.merged(config, {"train.seed": seed, **changes, "stages": ()})
        configs.validate(own)
    except ConfigError as error:
        raise ConfigError(f"{field}.changes: {error}") from None
    if changes.get("train.steps") == 0:
        for unit in LENGTHS:
            if own.train[unit] and f"train.{unit}" not in changes:
                raise ConfigError(
                    f"{field}.changes: train.steps is 0, but train.{unit} is {own.train[unit]}; "
                    f"change train.{unit} too, to 0 for a stage that only evaluates"
                )
    return own


def imported(config: Any) -> dict[str, PyTree]:
    """The files of `config.weights` as what earlier stages would leave, by name.

    Raises:
      ConfigError: a file that cannot be read, or does not hold the config's encoder.
    """
    if not config.weights:
        return {}
    for name, path in config.weights.items():
        if not isinstance(path, str) or not path:
            raise ConfigError(f"weights.{name}: found {path!r}, expected the name of a file")
    encoder = encoders.build(config.encoder, dtype=jax.numpy.float32)
    fields = data.load(config.data, "train").fields
    channels = modalities.evaluated(config, fields)[1].shape[-1]
    return {
        name: weights.artifact(path, encoder, channels=channels)
        for name, path in config.weights.items()
    }


def built(stage: Stage, artifacts: Mapping[str, PyTree]) -> Program:
    """The stage's program; where no step is ever taken, it is `of_no_length`.

    Args:
      stage: from `resolve`.
      artifacts: what earlier stages left, by name; shapes are enough to build.
    """
    if stage.evaluates_only:
        return of_no_length(stage.config, artifacts)
    return Program(stage.config, artifacts)


def has_length(config: Any) -> bool:
    """Whether the config says how long to train."""
    return any(config.train[unit] for unit in LENGTHS)


def of_no_length(config: Any, artifacts: Mapping[str, PyTree]) -> Program:
    """The program of a config that takes no step: schedules and the like are made for one."""
    return Program(configs.merged(config, {"train.steps": 1}), artifacts)


def started(state: State, stage: Stage, artifacts: Mapping[str, PyTree]) -> State:
    """`state` with the parts that the stage takes from an earlier one, copied leaf by leaf.

    Raises:
      ConfigError: a part that is not there, or a leaf of another shape.
    """
    check_start(state, stage, artifacts)
    for move in _moves(state, stage):
        top, *path = move.here.split("/")
        new = _at(artifacts[move.source], move.there, move.field)
        state = state.replace(**{top: _replaced(getattr(state, top), new, path)})
    return state


def check_start(state: State, stage: Stage, artifacts: Mapping[str, PyTree]) -> None:
    """Compares the parts that the stage takes with what there is; shapes are enough.

    Raises:
      ConfigError: a part that is not there, or a leaf of another shape.
    """
    shapes = lambda tree: {n: (x.shape, str(x.dtype)) for n, x in named_leaves(tree).items()}
    everything = artifact(state)
    for move in _moves(state, stage):
        old = _at(everything, move.here, move.field)
        new = _at(artifacts[move.source], move.there, move.field)
        here, there = shapes(old), shapes(new)
        for name in sorted(here.keys() | there.keys()):
            if here.get(name) != there.get(name):
                raise ConfigError(
                    f"{move.field}: {name or move.here} is {there.get(name, 'absent')} there, "
                    f"{here.get(name, 'absent')} here"
                )


def write_index(plan: Sequence[Stage], workdir: pathlib.Path) -> None:
    """Writes `stages.json`, from the summaries in the folders of the stages."""
    rows: list[dict[str, Any]] = []
    for stage in plan:
        row: dict[str, Any] = {"name": stage.name, "folder": stage.folder.name}
        row |= {"init_from": stage.init_from, "take": stage.take if stage.init_from else ()}
        path = stage.folder / "summary.json"
        summary = read_json(path) if path.exists() else {"status": "waiting"}
        row["status"] = summary["status"]
        if stage.make:
            row["make"] = {"name": stage.make.name, "of": stage.make.of}
        if row["status"] == "finished":
            kept = ("artifact", "evals", "rows", "facts") if stage.make else ("artifact", "evals")
            row |= {key: summary[key] for key in kept}
        rows.append(row)
    write_json(workdir / INDEX, rows)


def refuse_other_start(plan: Sequence[Stage], workdir: pathlib.Path) -> None:
    """Refuses to go on with a stage that was begun from something else.

    Raises:
      ConfigError: naming the stage's folder and the field.
    """
    path = workdir / INDEX
    before = {row["name"]: row for row in read_json(path)} if path.exists() else {}
    for stage in plan:
        if stage.name not in before or not (stage.folder / "config.json").exists():
            continue
        now = {"init_from": stage.init_from, "take": list(stage.take if stage.init_from else ())}
        for field, value in now.items():
            if before[stage.name][field] != value:
                raise ConfigError(
                    f"--workdir={stage.folder}: holds a stage with {field} "
                    f"{before[stage.name][field]!r}, not {value!r}; use a new folder"
                )


def artifact(state: State) -> dict[str, PyTree]:
    """What a finished stage leaves to later ones."""
    return {name: getattr(state, name) for name in TAKEN}


def _moves(state: State, stage: Stage) -> list[_Move]:
    """All that the new state does not have from its own initialisation."""
    take = stage.take if stage.init_from else ()
    moves = [_Move(part, stage.init_from, part, f"stages: take {part!r}") for part in take]
    statistics = state.extra.get("batch_stats", {}) if isinstance(state.extra, Mapping) else {}
    from_file = stage.init_from in stage.config.weights and take == ENCODER
    if from_file and "encoder" in statistics.get("student", {}):
        own = "extra/batch_stats/student/encoder"
        moves.append(_Move(own, stage.init_from, own, f"weights.{stage.init_from}"))
    # A teacher's params come from its artifact (`Teacher.init`); its batch statistics belong to
    # them: those with which that stage's student ended.
    for teacher in state.teachers:
        source = stage.config.teachers.get(teacher, {}).get("artifact", "")
        if not source or {"teachers", f"teachers/{teacher}"} & set(take):
            continue
        for network in statistics.get(teacher, {}).keys() & state.teachers[teacher].keys():
            here = f"extra/batch_stats/{teacher}/{network}"
            there = f"extra/batch_stats/student/{network}"
            moves.append(_Move(here, source, there, f"teachers.{teacher}.artifact"))
    return moves


def _at(tree: PyTree, place: str, field: str) -> PyTree:
    for name in place.split("/"):
        if name not in tree:
            raise ConfigError(f"{field}: no {name!r}{near(name, tree)}")
        tree = tree[name]
    return tree


def _replaced(old: PyTree, new: PyTree, path: list[str]) -> PyTree:
    """`old` with `new` at `path`."""
    if path:
        head, *rest = path
        return {**old, head: _replaced(old[head], new, rest)}
    # A copy: the new state is donated to its first step, and the old one stays an artifact.
    return jax.tree.map(lambda x, y: jax.device_put(to_host(y), x.sharding), old, new)
