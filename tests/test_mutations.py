"""Configs with one or two faults: each still runs, or is refused in one line that names the fault.

The small form of an experiment is changed in places drawn at random: values of a wrong type or out
of range, names with a letter less, fields that nobody knows, sections that are none.
"""

import collections
import functools
import random
import re
import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

import experiments
from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError
from jaxssl.program import Program
from jaxssl.run import rehearsal, stages

# Of every kind of part, and quick to trace: views, heads, teachers, masks, memories, targets.
READ = ("encoder", "student", "teachers", "losses", "views", "masks", "optimizer", "evals")
QUICK = ("barlow_twins", "byol", "lejepa", "mae", "moco_v2", "swav")
SECONDS = 120  # one case that takes longer hangs
ABSENT = object()
ODD: tuple[Any, ...] = (
    *(None, "three", "", True, (), (1,), [2, "x"], {"unknown": 1}, {}),
    *(float("nan"), float("inf"), -1, -0.5, 0, 0.0, 3, 7.5, 1e30),
)
UNIT = (-0.1, 1.5, (1.0, 0.2), (0.5,), ("cosine", 0.5), ("cosinus", 0.5, 1.0), ("linear", "a", 1))


class Change(NamedTuple):
    """A field by its full name, and the value that it gets; ABSENT takes it away."""

    field: str
    value: Any


class Mutation(NamedTuple):
    """Of which experiment, what is changed, and whether it is as the command line would do it."""

    name: str
    changes: list[Change]
    as_overrides: bool


def fields(tree: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field and section by its full name, with its value."""
    for name in tree:
        yield f"{prefix}{name}", tree[name]
        if isinstance(tree[name], ConfigDict):
            yield from fields(tree[name], f"{prefix}{name}.")


@functools.cache
def known(name: str) -> tuple[ConfigDict, tuple[tuple[str, Any], ...]]:
    """The small form of an experiment and what it holds."""
    config = experiments.small(name)
    # What is only written down, and what another module's tests mutate.
    kept = [(f, x) for f, x in fields(config) if f not in ("name", "preset", "stages")]
    return config, tuple(kept)


def values(old: Any) -> tuple[Any, ...]:
    """What to put in the place of a value, most of it wrong."""
    if isinstance(old, ConfigDict):
        return (None, 3, "three", (), {}, {"unknown": 1}, ABSENT)
    if isinstance(old, str):
        return (old[:-1], f"{old}s", old.upper(), f"{old}/{old}", *ODD, ABSENT)
    if isinstance(old, tuple):
        turned = (old[::-1], old[:-1], (*old, *old), tuple(f"{x}" for x in old))
        return (*turned, tuple(-1 for _ in old), (0.5,), *UNIT, *ODD, ABSENT)
    if isinstance(old, int | float) and not isinstance(old, bool):  # half of these may be right
        right = (old * 2, old + 1, old / 2) if isinstance(old, float) else (old * 2, old + 1)
        return (*(right * 8), *UNIT, *ODD, ABSENT)
    return (*UNIT, *ODD, not old, ABSENT)


def drawn(seed: int, names: tuple[str, ...]) -> Mutation:
    """One mutation of one of the experiments."""
    draw = random.Random(seed)
    name = draw.choice(names)
    sections = collections.defaultdict(list)
    for field, old in known(name)[1]:
        sections[field.partition(".")[0]].append((field, old))
    # Each section alike, but what readers check oftener than what the skeleton does.
    weights = [4 if section in READ else 1 for section in sections]
    changes: dict[str, Change] = {}
    for _ in range(draw.choice((1, 1, 2))):
        (section,) = draw.choices(list(sections), weights)
        field, old = draw.choice(sections[section])
        if draw.randrange(10) == 0:  # a field that nobody knows, or a letter too many
            field = f"{field}.unknown" if isinstance(old, ConfigDict) else f"{field}s"
            changes[field] = Change(field, draw.choice(ODD))
        else:
            changes[field] = Change(field, draw.choice(values(old)))
    by_hand = any(change.value is ABSENT for change in changes.values())
    return Mutation(name, list(changes.values()), not by_hand and draw.random() < 0.5)


def mutated(name: str, changes: list[Change], as_overrides: bool) -> ConfigDict:
    """The config with the changes, as an experiment's file or the command line would make them."""
    config = known(name)[0]
    if as_overrides:
        config = configs.merged(config, dict(changes))
    else:
        tree = config.to_dict()
        for field, value in changes:
            *parents, last = field.split(".")
            node: Any = tree
            for parent in parents:
                node = node.get(parent) if isinstance(node, dict) else None
            if isinstance(node, dict):  # else an earlier change took it away
                node[last] = value
                if value is ABSENT:
                    del node[last]
        config = ConfigDict(tree, type_safe=False)
    configs.validate(config)
    return config.lock()


def outcome(name: str, changes: list[Change], as_overrides: bool) -> str:
    """Empty where every stage is built and its step traced, else the line that refuses it."""

    def hangs(*_: Any) -> None:
        raise AssertionError(f"{name} {changes}: not done within {SECONDS} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(SECONDS)
    try:
        config = mutated(name, changes, as_overrides)
        plan = stages.resolve(config, experiments.FOLDER / "nowhere")
        rehearsal.rehearsed(plan, stages.imported(config))
        held = dict(fields(config))
        for field, value in changes:
            below = any(field.startswith(f"{other}.") for other, _ in changes)
            if value is ABSENT or isinstance(value, dict) or below:
                continue
            assert repr(held.get(field)) == repr(value) or held.get(field) == value, (name, field)
    except ConfigError as error:
        line = str(error)
        assert "\n" not in line, f"{name} {changes}: {line}"
        words = {part for change in changes for part in change.field.split(".")}
        assert any(re.search(rf"\b{re.escape(w)}\b", line) for w in words), (
            f"{name} {changes}: the line does not say where: {line}"
        )
        return line
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return ""


def count_of(seeds: set[int], names: tuple[str, ...]) -> collections.Counter[str]:
    """How many of the mutations run and how many are refused."""
    lines = [outcome(*drawn(seed, names)) for seed in sorted(seeds)]
    return collections.Counter("refused" if line else "run" for line in lines)


def gathered(cases: int) -> set[int]:
    """The seeds of that many mutations, the same every time."""
    seeds: set[int] = set()

    @settings(max_examples=cases, derandomize=True, database=None, phases=(Phase.generate,))
    @given(st.integers(0, 2**32 - 1))
    def gather(seed: int) -> None:
        seeds.add(seed)

    gather()
    return seeds


def test_a_mutated_config_runs_or_is_refused_in_one_line():
    count = count_of(gathered(40), QUICK)
    assert count["run"] and count["refused"] > count["run"], count


@pytest.mark.slow
def test_mutated_configs_of_all_experiments_run_or_are_refused():
    """A minute: pytest -m slow -s tests/test_mutations.py."""
    count = count_of(gathered(300), tuple(experiments.NAMES))
    print(f"mutated configs: {count['run']} run, {count['refused']} refused")
    assert count["run"] and count["refused"], count


@pytest.mark.parametrize(
    "name, field, value, words",
    [
        ("byol", "encoder.name", "convnett", "encoder.name: .*did you mean 'convnet'"),
        ("byol", "losses.prediction.fn", "bioyl", "losses.prediction.fn: .*did you mean 'byol'"),
        ("byol", "losses.prediction.pairs", "cros", "losses.prediction.pairs: .*'cross'"),
        ("byol", "losses.prediction.weight", float("nan"), "losses.prediction.weight"),
        ("byol", "losses.prediction.weight", ("cosin", 0.5, 1.0), "weight .*'cosine'"),
        ("byol", "losses.prediction.num_slices", 3, "losses.prediction.num_slices: no such"),
        ("byol", "losses.prediction.student", 3, "losses.prediction.student: found 3"),
        ("byol", "optimizer.name", "adamW", "optimizer.name .*did you mean 'adamw'"),
        ("byol", "optimizer.learning_rate", -1e-3, "optimizer.learning_rate is -0.001"),
        ("byol", "optimizer.beta2", 1.5, "optimizer.beta2 is 1.5"),
        ("byol", "optimizer.beta2", {"a": 1}, "optimizer.beta2 is {'a': 1}"),
        ("byol", "optimizer.nesterov", "yes", "optimizer.nesterov is 'yes'"),
        ("byol", "optimizer.groups", 3, "optimizer.groups is 3"),
        ("byol", "teachers.ema.rule", "emma", "teachers.ema.rule .*did you mean 'ema'"),
        ("byol", "teachers.ema.rule", {"a": 1}, "teachers.ema.rule is {'a': 1}"),
        ("byol", "teachers.ema.views", 3, "teachers.ema.views: found 3"),
        ("byol", "teachers.ema", 3, "teachers.ema: found 3"),
        ("byol", "evals.kn", {}, "evals.kn: .*did you mean 'knn'"),
        ("byol", "evals.pretext", 3, "evals.pretext: found 3"),
        ("byol", "evals.output", 3, "evals.output: found 3"),
        ("byol", "evals.calibration_batches", "x", "evals.calibration_batches: found 'x'"),
        ("byol", "views.global.flip", 1.5, "views.global.flip.probability: found 1.5"),
        ("byol", "student.predictor.reads", "projections", "reads: .*did you mean 'projection'"),
        ("byol", "train.global_batch", 4096, "train.global_batch: 4096 is more than"),
        ("byol", "train.steps", {"a": 1}, "train.steps: found {'a': 1}"),
        ("byol", "teachers", ABSENT, "teachers: missing"),
        ("byol", "mesh.fsdp", ABSENT, "mesh.fsdp: missing; expected like 1"),
        ("lejepa", "losses.sigreg.num_slices", 0, "losses.sigreg.num_slices: found 0"),
        ("lejepa", "losses.sigreg.num_knots", "x", "losses.sigreg.num_knots: found 'x'"),
        ("mae", "encoder.heads", 3, "encoder.heads: found 3, expected a divisor"),
        ("mae", "encoder.patch", 3, "encoder.image_size: found .* multiples of patch = 3"),
        ("simmim", "student.decoder.width", 17, "losses.*student: .* does not fit the loss"),
        ("mae", "losses.pixels.teacher", 3, "losses.pixels.teacher: found 3"),
        ("moco_v2", "losses.contrast.temperature", 0, "temperature: found 0, expected a number"),
        ("moco_v2", "losses.contrast.temperature", "x", "temperature: found 'x', expected a num"),
        ("moco_v2", "losses.contrast.queue.size", 33, "losses.contrast.queue.size"),
        ("moco_v2", "losses.contrast.queue", 3.0, "queue: found 3.0, expected a source"),
        ("mmcr", "teachers", {}, "losses.capacity.teacher: no teacher 'ema' in teachers"),
        ("landmark", "student.discriminator.widths", 0.5, "student.discriminator"),
        ("relational_reasoning", "student.relation.widths", 0.5, "student.relation.widths"),
    ],
)
def test_a_fault_is_named(name, field, value, words):
    line = outcome(name, [Change(field, value)], False)
    assert re.search(words, line), line


@pytest.mark.parametrize(
    "field, value",
    [("optimizer.weight_decay", 0), ("views.global.noise", None), ("losses.sigreg.weight", 0.5)],
)
def test_what_is_not_refused_is_used(field, value):
    config = mutated("lejepa", [Change(field, value)], False)
    (stage,) = stages.resolve(config, experiments.FOLDER)
    program = Program(stage.config)
    section: Any = configs.to_dict(program.config)
    for part in field.split("."):
        section = section[part]
    assert section == value
    _, metrics = program.step(program.init(), next(program.batches(0)))
    assert all(jax.numpy.isfinite(value) for value in metrics.values())
