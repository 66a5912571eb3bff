"""A config from a file, a preset and command-line overrides; refused early, in one line.

`jaxssl.config.skeleton` holds every field that the loop reads, with its default: it is the
documentation of the config. Families add the parts that they read (`encoder`, `student`,
`teachers`, `losses`, `views`), and check them when they build.
"""

import ast
import hashlib
import importlib.util
import inspect
import json
import pathlib
import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from jaxssl import evals
from jaxssl.config import schedules
from jaxssl.config.errors import ConfigError, near
from jaxssl.config.older import current
from jaxssl.config.skeleton import (
    CHECKED_BY_READER,
    FIELDS_FROM,
    FREE_ON_RESUME,
    LEAST,
    OPEN,
    skeleton,
)
from jaxssl.evals import protocol
from jaxssl.watch import alarms, nonfinite


def load(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """The config that `FILE[:PRESET]` and `--config.key=value` overrides name, locked.

    Raises:
      ConfigError: no such file, preset or key, or a value of another type.
    """
    path, _, preset = spec.partition(":")
    module = _import(path)
    make = getattr(module, "get_config", None)
    if make is None:
        raise ConfigError(f"--config={path}: the file defines no get_config(preset)")
    presets = tuple(getattr(module, "PRESETS", ()))
    if preset and presets and preset not in presets:
        raise ConfigError(f"--config={path}: no preset {preset!r}{near(preset, presets)}")
    if preset and not inspect.signature(make).parameters:
        raise ConfigError(f"--config={path}: no preset {preset!r}; get_config takes none")
    try:
        config = make(preset) if preset else make()
    except (AttributeError, KeyError) as error:
        # A locked ConfigDict names the key, all the others, and the near one, on several lines.
        text = str(error.args[0]).strip("'")
        key, locked, rest = text.partition(" does not exist and cannot be added")
        if not locked:
            raise  # a fault of the file's own code, not a field that is not there
        hint = re.search(r"Did you mean .(\w+)", rest)
        did_you_mean = f"; did you mean {hint[1]!r}?" if hint else ""
        line = f"--config={path}: get_config: {key} does not exist{did_you_mean}"
        raise ConfigError(line) from error
    if not isinstance(config, ConfigDict):
        found = type(config).__name__
        raise ConfigError(f"--config={path}: get_config gave a {found}, expected a ConfigDict")
    with config.unlocked():
        config.name = config.name or pathlib.Path(path).stem
    for override in overrides:
        _override(config, override)
    validate(config)
    return config.lock()


def validate(config: ConfigDict) -> None:
    """Refuses unknown fields of the loop's own sections, and values of another type.

    Raises:
      ConfigError: naming the first bad field.
    """
    _check(config, skeleton(), "")
    if not config.method:
        raise ConfigError("method: empty; expected the name of a family in jaxssl/methods")
    for section, field, least in LEAST:
        if config[section][field] < least:
            found = config[section][field]
            raise ConfigError(f"{section}.{field}: {found}; expected at least {least}")
    alarms.validate(config.alarms)
    nonfinite.validate(config.nonfinite)
    if config.checkpoint.on_failure not in ("stop", "warn"):
        raise ConfigError(
            f"checkpoint.on_failure: {config.checkpoint.on_failure!r}; expected 'stop' or 'warn'"
        )
    if config.train.seed >= 2**32:
        raise ConfigError(f"train.seed: {config.train.seed}; expected less than 2**32")
    for field in ("mean", "std"):
        if not all(_is_number(x) and (field == "mean" or x > 0) for x in config.data[field]):
            wanted = "numbers" if field == "mean" else "numbers above zero"
            raise ConfigError(f"data.{field}: {config.data[field]}; expected {wanted}")
    if config.train.precision not in ("float32", "bfloat16"):
        raise ConfigError(
            f"train.precision: {config.train.precision!r}; expected 'float32' or 'bfloat16'"
        )


def to_dict(config: ConfigDict) -> dict[str, Any]:
    """The config as plain JSON-ready containers; tuples become lists."""
    return json.loads(json.dumps(config.to_dict(), default=str))


def from_dict(tree: dict[str, Any], overrides: Sequence[str] = ()) -> ConfigDict:
    """The config that `to_dict` gave, with command-line overrides, validated and locked.

    Raises:
      ConfigError: as `load`.
    """
    config = skeleton()
    with config.unlocked():
        for name, value in _tuples(current(tree)).items():
            if isinstance(value, dict) and name not in OPEN:
                # A field that a newer version added has its default; an evaluator is off.
                known = dict(config.get(name, {}))
                if name == "evals":
                    known = {n: x if n in evals.LOOP else None for n, x in known.items()}
                value = {**known, **value}
            config[name] = ConfigDict(value, type_safe=False) if isinstance(value, dict) else value
    for override in overrides:
        _override(config, override)
    validate(config)
    return config.lock()


def _tuples(tree: Any) -> Any:
    """Lists, which JSON made of tuples, as tuples again."""
    if isinstance(tree, dict):
        return {name: _tuples(value) for name, value in tree.items()}
    return tuple(map(_tuples, tree)) if isinstance(tree, list) else tree


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The fields, as `a.b: old -> new`, that make `new` another run than `old`.

    A field that one of them does not hold has its default: a run of an older version, without a
    field that came later, is the same run.
    """
    a, b = _moving(old), _moving(new)
    default = {**dict.fromkeys(a.keys() | b.keys(), "(absent)"), **_defaults()}
    return [
        f"{k}: {a.get(k, default[k])!r} -> {b.get(k, default[k])!r}"
        for k in sorted(a.keys() | b.keys())
        if a.get(k, default[k]) != b.get(k, default[k])
    ]


def fingerprint(config: dict[str, Any]) -> str:
    """A short hash of the fields that `differences` compares: equal where there are none."""
    text = json.dumps(_moving(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def merged(config: ConfigDict, changes: dict[str, Any]) -> ConfigDict:
    """A copy of `config` with `{"a.b": value}` changes, as the command line makes them.

    A section whose entries the config names (`losses`, `views`, ...) takes fields and whole entries
    that it does not hold yet, which its reader checks, and loses an entry that becomes None.

    Raises:
      ConfigError: an unknown key, or a value of another type.
    """
    copy = config.copy_and_resolve_references()
    with copy.unlocked():
        for key, value in changes.items():
            _assign(copy, key, value)
    return copy.lock()


def _import(path: str) -> ModuleType:
    file = pathlib.Path(path)
    if file.suffix != ".py":
        raise ConfigError(f"--config={path}: expected a Python file, FILE.py[:PRESET]")
    if not file.is_file():
        siblings = (
            [str(p) for p in sorted(file.parent.glob("*.py"))] if file.parent.is_dir() else []
        )
        raise ConfigError(f"--config={path}: no such file{near(path, siblings)}")
    spec = importlib.util.spec_from_file_location(f"jaxssl_config_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _override(config: ConfigDict, text: str) -> None:
    key, equals, value = text.removeprefix("--config.").partition("=")
    if not text.startswith("--config.") or not equals:
        raise ConfigError(f"{text}: unknown argument; expected --config.key=value")
    try:
        parsed: Any = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        parsed = {"true": True, "false": False}.get(value, value)
    _assign(config, key, parsed)


def _assign(config: ConfigDict, key: str, value: Any) -> None:
    *parents, last = key.split(".")
    fields_from = FIELDS_FROM.get(parents[0] if parents else "", len(parents) + 1)
    _switch_on(config, [*parents, last], value)
    node: Any = config
    for depth, name in enumerate([*parents, last]):
        if isinstance(node, ConfigDict) and depth == len(parents) >= fields_from:
            break  # a field of an open section: its reader knows whether there is one
        if depth == len(parents) == 1 and parents[0] in OPEN and isinstance(value, dict):
            break  # a whole new entry
        if not isinstance(node, ConfigDict) or name not in node:
            where = ".".join(parents[:depth])
            known = (
                [f"{where}.{k}" if where else k for k in node]
                if isinstance(node, ConfigDict)
                else []
            )
            full = f"{where}.{name}" if where else name
            raise ConfigError(f"--config.{key}: unknown key {full!r}{near(full, known)}")
        if depth < len(parents):
            node = node[name]
    old = node.get(last)
    _expect(f"--config.{key}", value, old)
    if parents and parents[0] in OPEN and value is None and isinstance(old, ConfigDict):
        with node.unlocked():
            del node[last]
        return
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    with node.unlocked():
        node[last] = value


def _switch_on(config: ConfigDict, path: list[str], value: Any) -> None:
    """Gives `evals` the defaults of an evaluator that is off, if it or a field of it is named.

    One of another name is a whole entry, with the `name` of its module.
    """
    if len(path) < 2 or path[0] != "evals" or config.evals.get(path[1]) is not None:
        return
    known = [*evals.LOOP, *protocol.names()]
    named = {}
    if len(path) == 2 and isinstance(value, dict) and "name" in value:
        named = {"name": value["name"]}
    if path[1] not in known and not named:
        key, full = ".".join(path), [f"evals.{name}" for name in known]
        raise ConfigError(
            f"--config.{key}: unknown key 'evals.{path[1]}'{near(f'evals.{path[1]}', full)}"
        )
    with config.evals.unlocked():
        config.evals[path[1]] = ConfigDict(protocol.resolve(path[1], named), type_safe=False)


def _expect(key: str, value: Any, old: Any) -> None:
    """A value must have the type of the one it replaces; numbers and schedules go together."""
    if isinstance(old, ConfigDict):
        fits, expected = value is None or isinstance(value, dict | ConfigDict), "a section"
    elif _is_number(old) or schedules.is_spec(old):
        real = isinstance(old, float) or schedules.is_spec(old)
        fits = type(value) is type(old) or (
            real and (_is_number(value) or schedules.is_spec(value))
        )
        expected = f"a number or a schedule, like {old!r}" if real else f"int, like {old!r}"
    else:
        fits = old is None or type(value) is type(old)
        expected = f"{type(old).__name__}, like {old!r}"
    if not fits:
        plain = value.to_dict() if isinstance(value, ConfigDict) else value
        found = f"{plain!r} ({type(plain).__name__})"
        raise ConfigError(f"{key}: found {found}, expected {expected}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check(config: ConfigDict, known: ConfigDict, prefix: str) -> None:
    for name in config:
        key = f"{prefix}{name}"
        if name not in known:
            raise ConfigError(f"{key}: unknown key{near(key, [prefix + k for k in known])}")
    for name in known:
        key, old = f"{prefix}{name}", known[name]
        if name not in config:
            expected = "a section with fields" if isinstance(old, ConfigDict) else f"like {old!r}"
            raise ConfigError(f"{key}: missing; expected {expected}")
        value = config[name]
        if not isinstance(old, ConfigDict):
            if not (isinstance(old, tuple) and isinstance(value, list | tuple)):
                _expect(key, value, old)
            continue
        _section(key, value)
        if FIELDS_FROM.get(name) == 2:
            for entry in value:
                _section(f"{key}.{entry}", value[entry])
        elif name == "evals":
            fields = {field: value[field] for field in value if field in evals.LOOP}
            _check(ConfigDict(fields), ConfigDict({n: old[n] for n in evals.LOOP}), f"{key}.")
        elif name not in OPEN and key not in CHECKED_BY_READER:
            _check(value, old, f"{key}.")


def _section(key: str, value: Any) -> None:
    if not isinstance(value, ConfigDict):
        raise ConfigError(f"{key}: found {value!r}, expected a section with fields")


def _moving(tree: dict[str, Any]) -> dict[str, Any]:
    """The fields by their full names, without those that move no parameter, and defaults."""
    absent, default = object(), _defaults()
    return {
        name: value
        for name, value in _flat(current(tree)).items()
        if not name.startswith(FREE_ON_RESUME) and value != default.get(name, absent)
    }


def _defaults() -> dict[str, Any]:
    """Every field's default by its full name, as in a file."""
    return _flat(to_dict(skeleton()))


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix.rstrip("."): tree}
    return {k: v for name in tree for k, v in _flat(tree[name], f"{prefix}{name}.").items()}
