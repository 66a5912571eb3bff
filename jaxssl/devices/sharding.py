"""The mesh, and the sharding of every leaf of the state by an ordered list of rules.

One program for a laptop and a pod: `jax.jit` over a mesh with the axes `data`, `fsdp` and `model`.
Batches are split over `data` and `fsdp`; params, moments, teachers and queues follow the rules, so
that what belongs together is split alike.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxssl.config.errors import ConfigError, near
from jaxssl.config.naming import path_name

PyTree = Any
AXES = ("data", "fsdp", "model")
BATCH_AXES = ("data", "fsdp")
ONE_DEVICE = {f"mesh.{axis}": 1 for axis in AXES}
"""Changes of a config that put it on one device."""

TENSOR_PARALLEL = (
    (r"(^|/)(attention/qkv|ffn/(up|gate_up))/(kernel|bias)$", "columns"),
    (r"(^|/)(attention/out|ffn/down)/kernel$", "rows"),
)
"""Rules for transformer blocks, wherever they are: heads and hidden units over the axis `model`.

Shoeybi et al. 2019, "Megatron-LM", arXiv:1909.08053: the matrix into a branch by columns and the
one out of it by rows, so that a branch needs one sum over `model`. In `mesh.rules` it is named:
`rules=("tensor_parallel", (".*", "fsdp"))`.
"""

RULE_SETS = {"tensor_parallel": TENSOR_PARALLEL}
NAMED_RULES = ("replicate", "fsdp", "columns", "rows")


def make_mesh(
    mesh: Any, global_batch: int | Mapping[str, int], devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """The mesh that `config.mesh` asks for, over all devices of all processes.

    Args:
      mesh: fields data, fsdp, model; one of them may be -1: all devices that are left.
      global_batch: B, which the batch axes must divide; of several streams, each by its field.
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
    batches = (
        {"train.global_batch": global_batch} if isinstance(global_batch, int) else global_batch
    )
    for field, batch in batches.items():
        if batch % shares:
            lower = batch // shares * shares or shares
            raise ConfigError(
                f"{field}: {batch} does not divide over {shares} devices "
                f"(mesh data x fsdp); nearest that do: {lower} or {lower + shares}"
            )
    kinds = (AxisType.Auto,) * 3
    try:
        return jax.make_mesh(sizes, AXES, axis_types=kinds, devices=devices)
    except NotImplementedError:  # no axis of the mesh is whole axes of the torus
        split = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
        return Mesh(split, AXES, axis_types=kinds)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis over the batch axes of the mesh."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def batch_sharded(tree: PyTree) -> PyTree:
    """Keeps [B, ...] arrays inside a jitted program split by sample over the mesh in use.

    Without it the partitioner may prefer to split features when params are split, which moves
    activations instead of the smaller params. Of the other axes it says nothing: they may be split
    over `model`. A batch that the mesh does not divide (an example's) stays as it is.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return tree

    def split(x: jax.Array) -> jax.Array:
        if len(x) % _shares():
            return x
        free = [PartitionSpec.UNCONSTRAINED] * (x.ndim - 1)
        return jax.lax.with_sharding_constraint(x, PartitionSpec(BATCH_AXES, *free))

    return jax.tree.map(split, tree)


def by_share(fn: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """`fn` of the samples of each device, [shares, ...]: nothing passes between the devices.

    Of [B, ...] arrays, `fn` gets [B / shares, ...]. There is one share without a mesh, and of a
    batch that the mesh does not divide.

    >>> by_share(lambda x: x.sum(), jax.numpy.arange(4))
    Array([6], dtype=int32)
    """
    shares = _shares()
    if shares == 1 or any(len(x) % shares for x in arrays):
        return fn(*arrays)[None]
    split = tuple(x.reshape(shares, -1, *x.shape[1:]) for x in arrays)
    return jax.vmap(fn)(*batch_sharded(split))


def _shares() -> int:
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def on_one_device() -> bool:
    """Whether the mesh in use has a single device; without a mesh there is no other.

    >>> on_one_device()
    True
    """
    return jax.sharding.get_abstract_mesh().size <= 1


def check_model_axis(count: int, of: str) -> None:
    """Refuses a mesh in use whose `model` axis would cut one of `count` things in two.

    Raises:
      ConfigError: naming `of`.

    >>> check_model_axis(3, "heads of attention")  # no mesh is in use
    """
    size = jax.sharding.get_abstract_mesh().shape.get("model", 1)
    if count % size:
        raise ConfigError(f"mesh.model: {size} does not divide the {count} {of}")


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
        size of the mesh axis `fsdp` divides; "columns" or "rows", the last axis or the last but
        one over `model`, and of the other axes one over `fsdp` as by that rule; or a tuple of mesh
        axis names or None, one an axis. The name of a rule set, "tensor_parallel", stands for its
        rules.

    Raises:
      ConfigError: an unknown rule, or one that does not fit its leaf.
    """
    rules = [_rule(entry) for given in config.rules for entry in _entries(given)]

    def sharding(path: Any, leaf: Any) -> NamedSharding:
        name = path_name(path)
        rule = next((r for pattern, r in rules if pattern.search(name)), "replicate")
        return NamedSharding(mesh, _spec(mesh, name, leaf.shape, rule, config.min_shard_elements))

    return jax.tree_util.tree_map_with_path(sharding, shapes)


def _entries(given: Any) -> Sequence[Any]:
    """The rules that an entry of `mesh.rules` stands for."""
    if not isinstance(given, str):
        return (given,)
    if given not in RULE_SETS:
        raise ConfigError(
            f"mesh.rules: {given!r}; expected (regex, rule) or a rule set{near(given, RULE_SETS)}"
        )
    return RULE_SETS[given]


def _rule(entry: Any) -> tuple[re.Pattern[str], Any]:
    """A compiled (regex, rule), whose rule is a name or a tuple."""
    try:
        pattern, rule = entry
        if not isinstance(rule, str | tuple | list):
            raise TypeError(f"{rule!r} is no rule")
        if isinstance(rule, str) and rule not in NAMED_RULES:
            raise TypeError(f"{rule!r} is no rule{near(rule, NAMED_RULES)}")
        return re.compile(pattern), rule
    except (TypeError, ValueError, re.error) as error:
        names = ", ".join(map(repr, NAMED_RULES))
        raise ConfigError(
            f"mesh.rules: {entry!r}; expected (regex, {names} or a tuple of axes): {error}"
        ) from None


def _spec(mesh: Mesh, name: str, shape: tuple[int, ...], rule: Any, smallest: int) -> PartitionSpec:
    if rule == "replicate":
        return PartitionSpec()
    if isinstance(rule, str):
        axes: list[str | None] = [None] * len(shape)
        if rule != "fsdp" and mesh.shape["model"] > 1:
            split = len(shape) - (1 if rule == "columns" else 2)
            if split >= 0:  # else a rule for matrices meets a moment's scalar
                _check_fit(mesh, name, shape, split, "model", rule)
                axes[split] = "model"
        _add_fsdp(mesh, shape, axes, smallest)
        return PartitionSpec(*axes[: max((i + 1 for i, a in enumerate(axes) if a), default=0)])
    if len(rule) > len(shape):
        return PartitionSpec()  # a rule for matrices meets a moment's scalar
    for i, axis in enumerate(rule):
        if axis is not None:
            _check_fit(mesh, name, shape, i, axis, tuple(rule))
    return PartitionSpec(*rule)


def _add_fsdp(mesh: Mesh, shape: tuple[int, ...], axes: list[str | None], smallest: int) -> None:
    """Gives the largest free axis that `fsdp` divides to it, in a leaf that is large enough."""
    size = mesh.shape["fsdp"]
    fits = [i for i, n in enumerate(shape) if axes[i] is None and n % size == 0]
    if size > 1 and fits and math.prod(shape) >= smallest:
        axes[max(fits, key=lambda i: shape[i])] = "fsdp"


def _check_fit(mesh: Mesh, name: str, shape: tuple[int, ...], i: int, axis: str, rule: Any) -> None:
    if axis not in AXES:
        raise ConfigError(
            f"mesh.rules: {rule!r} does not fit {name} of shape {shape}: no mesh axis "
            f"{axis!r}{near(str(axis), AXES)}"
        )
    if shape[i] % mesh.shape[axis]:
        raise ConfigError(
            f"mesh.rules: {rule!r} does not fit {name} of shape {shape}: "
            f"mesh.{axis}={mesh.shape[axis]} does not divide {shape[i]}"
        )
