"""Which optimizer settings apply to which leaf of the params: groups, weight decay, layers.

Everything here is decided once, from the paths and shapes, before anything is compiled.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from jaxssl.config import schedules
from jaxssl.config.errors import ConfigError, near
from jaxssl.config.naming import path_name

PyTree = Any

VECTORS = "ndim<=1"
"""In `no_decay`, not a pattern: every leaf with at most one axis."""

NO_DECAY = (VECTORS, r"(^|/)(bias|scale)$", r"(^|/)(\w*tokens?|registers?|pos(ition)?_embed\w*)$")
"""The default: biases, norm scales, learned tokens and position embeddings, all vectors."""

GROUP_DEFAULTS: Mapping[str, Any] = {
    "match": "",
    "learning_rate": 1.0,
    "weight_decay": 1.0,
    "own_learning_rate": None,
    "freeze_until": 0,
    "unit_rows": False,
}
"""Every field of a group and its value where absent; `match` must be given."""

ALWAYS = -1
"""`freeze_until` of a group that never moves."""


class Group(NamedTuple):
    """Leaves that share factors: a row of `describe`, and what a leaf needs at run time."""

    name: str
    learning_rate: schedules.Schedule
    weight_decay: schedules.Schedule
    own_learning_rate: schedules.Schedule | None
    freeze_until: int
    unit_rows: bool


@dataclass(frozen=True)
class Leaf:
    """What the optimizer knows about one array of params; a pytree leaf itself."""

    path: str
    size: int
    group: Group
    decays: bool
    layer_factor: float


# ---------------------------------------------------------------------------- layers


_NUMBERED = re.compile(r"(?:stage|block|downsample)_?(\d+)", re.IGNORECASE)
_INPUT = re.compile(r"(stem|patch|pos|embed|cls|class|mask|reg|token)", re.IGNORECASE)


def layer_of(path: str) -> tuple[int, ...] | None:
    """Where a leaf of an encoder sits: () at the input, its numbers inside, None after the last.

    The numbers are those of `stage{i}`, `block{j}` and `downsample{i}` in its path. At the input
    are names that start with stem, patch, pos, embed, cls, class, mask, reg or token. Tuples sort
    in the order of the computation.

    >>> layer_of("encoder/block11/mlp/kernel"), layer_of("encoder/stage2/block0/conv/kernel")
    ((11,), (2, 0))
    >>> layer_of("encoder/patch_embed/kernel"), layer_of("encoder/norm/scale")
    ((), None)
    """
    below = path.partition("/")[2]
    numbers = tuple(int(number) for number in _NUMBERED.findall(below))
    if numbers:
        return numbers
    return () if _INPUT.match(below) else None


def layer_factors(paths: list[str], decay: float) -> dict[str, float]:
    """Layer-wise learning rate factors, decay^(L - l), of the leaves of encoders.

    Layers l = 0 ... L of a network are its input, its distinct `layer_of` in order, and what comes
    after; a plain transformer of n blocks has L = n + 1. Networks whose name does not contain
    "encoder" have factor 1. Reference: Bao et al. 2022, arXiv:2106.08254.

    >>> layer_factors(["encoder/patch/kernel", "encoder/block0/w", "encoder/norm/scale"], 0.5)
    {'encoder/patch/kernel': 0.25, 'encoder/block0/w': 0.5, 'encoder/norm/scale': 1.0}
    """
    layers: dict[str, list[tuple[int, ...]]] = {}
    for path in paths:
        network, layer = path.partition("/")[0], layer_of(path)
        if "encoder" in network and layer:
            layers.setdefault(network, []).append(layer)
    orders = {network: [(), *sorted(set(found))] for network, found in layers.items()}
    factors = {}
    for path in paths:
        order, layer = orders.get(path.partition("/")[0]), layer_of(path)
        height = 0 if order is None or layer is None else len(order) - order.index(layer)
        factors[path] = decay**height
    return factors


# ---------------------------------------------------------------------------- the plan


def check_fields(config: Any, defaults: Mapping[str, Any], field: str) -> dict[str, Any]:
    """`config` over `defaults`; a name outside of them is an error."""
    if not hasattr(config, "items"):
        raise ConfigError(f"{field} is {config!r}, expected named fields: {', '.join(defaults)}")
    given = plain(config)
    for name in given:
        if name not in defaults:
            raise ConfigError(f"{field}.{name} is not a field{near(name, defaults)}")
    return {**defaults, **given}


def plain(section: Any) -> dict[str, Any]:
    """A section of a config as a dict: whatever it holds is shown on one line."""
    return section.to_dict() if hasattr(section, "to_dict") else dict(section.items())


def plan(c: Mapping[str, Any], params: PyTree, steps: int, field: str) -> PyTree:
    """A tree of `Leaf` with the structure of `params`, from the checked fields `c`."""
    paths = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    groups = _groups(c["groups"], paths, steps, f"{field}.groups")
    patterns = _patterns(c["no_decay"], paths, f"{field}.no_decay")
    factors = layer_factors(paths, c["layer_decay"] or 1.0)
    if c["layer_decay"] not in (0, 1) and set(factors.values()) == {1.0}:
        raise ConfigError(
            f"{field}.layer_decay is {c['layer_decay']}, expected 0: no encoder has numbered layers"
        )

    def leaf(path: Any, array: Any) -> Leaf:
        name = path_name(path)
        vector = VECTORS in c["no_decay"] and len(array.shape) <= 1
        decays = not (vector or any(pattern.search(name) for pattern in patterns))
        return Leaf(name, math.prod(array.shape), groups[name], decays, factors[name])

    return jax.tree_util.tree_map_with_path(leaf, params)


def _groups(config: Any, paths: list[str], steps: int, field: str) -> dict[str, Group]:
    """path -> its group."""
    one = schedules.make(1.0, steps)
    default = Group("default", one, one, None, 0, False)
    found = dict.fromkeys(paths, default)
    if not hasattr(config, "items"):
        raise ConfigError(f"{field} is {config!r}, expected named groups")
    for name, fields in config.items():
        here = f"{field}.{name}"
        c = check_fields(fields, GROUP_DEFAULTS, here)
        until = c["freeze_until"]
        if not isinstance(until, int) or isinstance(until, bool) or until < ALWAYS:
            raise ConfigError(
                f"{here}.freeze_until is {until!r}, expected a step, or -1 for always"
            )
        if not isinstance(c["unit_rows"], bool):
            raise ConfigError(f"{here}.unit_rows is {c['unit_rows']!r}, expected True or False")
        own = c["own_learning_rate"]
        group = Group(
            name,
            schedules.make(c["learning_rate"], steps, f"{here}.learning_rate"),
            schedules.make(c["weight_decay"], steps, f"{here}.weight_decay"),
            None if own is None else schedules.make(own, steps, f"{here}.own_learning_rate"),
            until,
            c["unit_rows"],
        )
        pattern = _pattern(c["match"], paths, f"{here}.match")
        for path in paths:
            if pattern.search(path):
                if found[path] is not default:
                    other = found[path].name
                    raise ConfigError(f"{here}.match: {path!r} is in {other!r} too, expected one")
                found[path] = group
    return found


def _patterns(given: Any, paths: list[str], field: str) -> list[re.Pattern[str]]:
    if not isinstance(given, list | tuple) or not all(isinstance(text, str) for text in given):
        raise ConfigError(f"{field} is {given!r}, expected a tuple of regexes")
    # The defaults are for any network; only what the user wrote has to match.
    return [
        re.compile(text) if text in NO_DECAY else _pattern(text, paths, field)
        for text in given
        if text != VECTORS
    ]


def _pattern(text: str, paths: list[str], field: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except (re.error, TypeError) as error:
        raise ConfigError(f"{field} is {text!r}, expected a regex: {error}") from None
    if not text or not any(pattern.search(path) for path in paths):
        words = {word for path in paths for word in path.split("/")}
        letters = re.sub(r"\W+", "", text)
        raise ConfigError(f"{field} is {text!r}, which matches no parameter{near(letters, words)}")
    return pattern
