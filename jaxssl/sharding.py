"""The mesh, and the sharding of every leaf of the state by an ordered list of rules.

One program for a laptop and a pod: `jax.jit` over a mesh with the axes `data`, `fsdp` and `model`.
Batches are split over `data` and `fsdp`; params, moments, teachers and queues follow the rules, so
that what belongs together is split alike.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxssl.errors import ConfigError
from jaxssl.naming import path_name

PyTree = Any
AXES = ("data", "fsdp", "model")
BATCH_AXES = ("data", "fsdp")


def make_mesh(mesh: Any, global_batch: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh that `config.mesh` asks for, over all devices of all processes.

    Args:
      mesh: fields data, fsdp, model; one of them may be -1: all devices that are left.
      global_batch: B, which the batch axes must divide.
      devices: default all.

    Raises:
      ConfigError: the axes do not fill the devices, or do not divide the batch.
    """
    devices = list(devices or jax.devices())
    sizes = [mesh[axis] for axis in AXES]
    fixed = math.prod(s for s in sizes if s != -1)
    if sizes.count(-1) > 1 or fixed < 1 or any(s < -1 for s in sizes):
        raise ConfigError(f"mesh: found {dict(zip(AXES, sizes))}; expected sizes >= 1 and one -1")
    if len(devices) % fixed or (-1 not in sizes and fixed != len(devices)):
        raise ConfigError(
            f"mesh: {dict(zip(AXES, sizes))} does not fill the {len(devices)} devices; "
            "set one axis to -1"
        )
    sizes = [len(devices) // fixed if s == -1 else s for s in sizes]
    shares = sizes[0] * sizes[1]
    if global_batch % shares:
        lower = global_batch // shares * shares or shares
        raise ConfigError(
            f"train.global_batch: {global_batch} does not divide over {shares} devices "
            f"(mesh data x fsdp); nearest that do: {lower} or {lower + shares}"
        )
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis over the batch axes of the mesh."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def batch_sharded(tree: PyTree) -> PyTree:
    """Keeps [B, ...] arrays inside a jitted program split over the mesh in use.

    Without it the partitioner may prefer to split features when params are split, which moves
    activations instead of the smaller params.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return tree
    spec = PartitionSpec(BATCH_AXES)
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, spec), tree)


def replicated(tree: PyTree) -> PyTree:
    """Gathers arrays inside a jitted program on every device, once.

    For a loop whose every step reads single rows of a batch: left split, each step would gather.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec()), tree)


def state_shardings(mesh: Mesh, shapes: PyTree, config: Any) -> PyTree:
    """A `NamedSharding` for every leaf of the state.

    Args:
      mesh: from `make_mesh`.
      shapes: the state as `jax.eval_shape` gives it.
      config: fields `rules`, an ordered list of (regex over the leaf's path, rule), first match
        wins, and `min_shard_elements`. A rule is "replicate"; "fsdp", the largest axis that the
        size of the mesh axis `fsdp` divides; or a tuple of mesh axis names or None, one an axis.

    Raises:
      ConfigError: an unknown rule, or one that does not fit its leaf.
    """
    rules = [_rule(entry) for entry in config.rules]

    def sharding(path: Any, leaf: Any) -> NamedSharding:
        name = path_name(path)
        rule = next((r for pattern, r in rules if pattern.search(name)), "replicate")
        return NamedSharding(mesh, _spec(mesh, name, leaf.shape, rule, config.min_shard_elements))

    return jax.tree_util.tree_map_with_path(sharding, shapes)


def _rule(entry: Any) -> tuple[re.Pattern[str], Any]:
    """A compiled (regex, rule), whose rule is a name or a tuple."""
    try:
        pattern, rule = entry
        if not isinstance(rule, str | tuple | list):
            raise TypeError(f"{rule!r} is no rule")
        return re.compile(pattern), rule
    except (TypeError, ValueError, re.error) as error:
        raise ConfigError(
            f"mesh.rules: {entry!r}; expected (regex, 'replicate', 'fsdp' or a tuple of axes): "
            f"{error}"
        ) from None


def _spec(mesh: Mesh, name: str, shape: tuple[int, ...], rule: Any, smallest: int) -> PartitionSpec:
    if rule == "replicate":
        return PartitionSpec()
    if rule == "fsdp":
        size = mesh.shape["fsdp"]
        fits = [i for i, n in enumerate(shape) if n % size == 0]
        if size == 1 or not fits or math.prod(shape) < smallest:
            return PartitionSpec()
        axis = max(fits, key=lambda i: shape[i])
        return PartitionSpec(*[None] * axis, "fsdp")
    if isinstance(rule, str):
        raise ConfigError(f"mesh.rules: {rule!r}; expected 'replicate', 'fsdp' or a tuple of axes")
    if len(rule) > len(shape):
        return PartitionSpec()  # a rule for matrices meets a moment's scalar
    for n, axis in zip(shape, rule):
        if axis is not None and (axis not in AXES or n % mesh.shape[axis]):
            raise ConfigError(f"mesh.rules: {tuple(rule)} does not fit {name} of shape {shape}")
    return PartitionSpec(*rule)
