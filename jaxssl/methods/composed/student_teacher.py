"""The networks of a student and those of its teachers: who has which, and what each teacher sees.

A teacher follows networks of the student, or has its own:

    teachers.large = dict(
        rule="frozen", source="artifact", artifact="teacher", mode="eval",
        networks=dict(
            encoder=dict(name="convnet", widths=(64, 128), strides=(1, 2)),
            classifier=dict(name="classifier", width="num_classes", reads="pooled",
                            output="logits"),
        ),
    )

`networks` holds an encoder, and heads as `config.student` does. Such a teacher is frozen: it starts
from an earlier stage that trained these networks (`artifact`), or at random.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from jaxssl import encoders, heads, teachers
from jaxssl.config.errors import ConfigError, near
from jaxssl.config.naming import fold_name
from jaxssl.heads import ensemble
from jaxssl.method import Info, PyTree, Teacher
from jaxssl.methods.composed.arguments import INPUT
from jaxssl.methods.composed.networks import (
    DTYPES,
    Head,
    Networks,
    accepts,
    head_place,
    order_heads,
)

# Widths of heads that the data decides.
COUNTED = ("num_classes", "num_samples")


class TeacherPart(NamedTuple):
    """A teacher in the wiring of a family.

    Attributes:
      teacher: how its state starts, follows and is read.
      networks: what it applies: the student's, or its own.
      groups: the groups of views that it sees.
      trains: whether its batch norm takes the statistics of the batch.
      owns: whether the networks are its own.
    """

    teacher: Teacher
    networks: Networks
    groups: tuple[str, ...]
    trains: bool
    owns: bool


def student_networks(config: Any, statistics: str, info: Info) -> Networks:
    """The networks of `config.encoder` and `config.student`.

    Raises:
      ConfigError: naming the first field that does not fit.
    """
    if "encoder" in config.student:
        raise ConfigError("student.encoder: the encoder is configured by `encoder`")
    encoder = encoders.build(config.encoder.to_dict(), dtype=DTYPES[config.train.precision])
    entries = {name: config.student[name].to_dict() for name in config.student}
    return _networks(config, encoder, entries, "student", statistics, info)


def teacher_parts(
    config: Any,
    student: Networks,
    ids: tuple[str, ...],
    info: Info,
    fresh: Callable[[jax.Array], PyTree],
    example: Callable[[], tuple[jax.Array, int]],
) -> dict[str, TeacherPart]:
    """The teachers of `config.teachers` by name.

    Args:
      config: of the run.
      student: its networks.
      ids: the groups of views.
      info: of the run.
      fresh: key -> new params of the student's networks.
      example: () -> a view [B, ...] of the right shape, and V.

    Raises:
      ConfigError: naming the first field that does not fit.
    """
    parts = {}
    for name in config.teachers:
        field = f"teachers.{name}"
        if name in ("student", INPUT):
            raise ConfigError(f"{field}: the name is taken by the {name} itself")
        entry = config.teachers[name].to_dict()
        groups = _groups(entry, ids, field)
        owns = "networks" in entry
        mode = entry.pop("mode", "eval" if owns else "train")
        if mode not in ("train", "eval"):
            raise ConfigError(f"{field}.mode: {mode!r}; expected 'train' or 'eval'")
        networks, start = student, fresh
        if owns:
            networks = _own_networks(config, entry, field, student.statistics, info)
            start = _fresh(networks, example)
        made = teachers.make(entry, info.steps, field, info=info, fresh=start)
        parts[name] = TeacherPart(made, networks, groups, mode == "train", owns)
    return parts


def init_statistics(part: TeacherPart, key: jax.Array, x: jax.Array, views: int) -> PyTree:
    """The batch statistics that the own networks of a teacher start with.

    Args:
      part: of the teacher.
      key: of its networks.
      x: a view [B, ...].
      views: V.
    """
    return part.networks.init(fold_name(key, "own"), x, views)[1]


def _fresh(
    networks: Networks, example: Callable[[], tuple[jax.Array, int]]
) -> Callable[[jax.Array], PyTree]:
    return lambda key: networks.init(key, *example())[0]


def _own_networks(
    config: Any, entry: dict[str, Any], field: str, statistics: str, info: Info
) -> Networks:
    given = dict(entry.pop("networks"))
    if entry.get("follows"):
        raise ConfigError(f"{field}.follows: found {entry['follows']!r} beside networks of its own")
    if entry.get("rule") != "frozen" or entry.get("source", "copy") == "copy":
        raise ConfigError(
            f"{field}.rule: found {entry.get('rule', 'ema')!r} with source "
            f"{entry.get('source', 'copy')!r}; expected 'frozen' with source 'artifact' or "
            "'random' of a teacher with networks of its own"
        )
    if "encoder" not in given:
        raise ConfigError(f"{field}.networks.encoder: missing; known: {', '.join(given) or 'none'}")
    dtype, place = DTYPES[config.train.precision], f"{field}.networks"
    encoder = encoders.build(dict(given.pop("encoder")), dtype=dtype, field=f"{place}.encoder")
    entries = {name: dict(head) for name, head in given.items()}
    networks = _networks(config, encoder, entries, place, statistics, info)
    entry["follows"] = ("encoder", *(n for n, head in networks.heads.items() if not head.shares))
    return networks


def _groups(entry: dict[str, Any], ids: tuple[str, ...], field: str) -> tuple[str, ...]:
    named = entry.pop("views", ("global",) if "global" in ids else ids)
    if not isinstance(named, list | tuple) or not named:
        raise ConfigError(f"{field}.views: found {named!r}, expected a tuple of groups")
    for group in named:
        if group not in ids:
            raise ConfigError(f"{field}.views: no group {group!r}{near(str(group), ids)}")
    return tuple(named)


def _networks(
    config: Any,
    encoder: Any,
    entries: Mapping[str, dict[str, Any]],
    place: str,
    statistics: str,
    info: Info,
) -> Networks:
    made: dict[str, Head] = {}
    # Heads that share the network of another come after it.
    for name in sorted(entries, key=lambda name: "shares" in entries[name]):
        entry, field = entries[name], f"{place}.{name}"
        ends = head_place(name, entry, field)
        fields = {k: v for k, v in entry.items() if k not in ("reads", "output")}
        if "shares" in fields:
            made[name] = Head(*_shared(fields, made, field, ends))
            continue
        for count in ("width", "count"):
            if fields.get(count) in COUNTED:
                fields[count] = _counted(fields[count], info, field)
        members = fields.pop("members", 1)
        module = heads.build(fields, dtype=DTYPES[config.train.precision], field=field)
        made[name] = Head(ensemble.of(module, members, accepts(module), field), *ends)
    return Networks(encoder, order_heads(made), statistics, config.train.microbatches)


def _shared(
    fields: dict[str, Any], made: Mapping[str, Head], field: str, place: tuple[str, str]
) -> tuple[Any, str, str, str]:
    """A head that applies the network of another head to another output."""
    owner = fields.pop("shares")
    owners = [name for name, head in made.items() if not head.shares]
    if owner not in owners:
        raise ConfigError(f"{field}.shares: no head {owner!r}{near(str(owner), owners)}")
    for name in fields:
        raise ConfigError(f"{field}.{name}: a head with `shares` takes reads and output alone")
    return (made[owner].module, *place, owner)


def _counted(width: str, info: Info, field: str) -> int:
    found = int(getattr(info, width))
    if not found:
        raise ConfigError(f"{field}.width: {width!r}, but the data has no labels")
    return found
