"""What enters the networks: views by group, views mixed of others, masks, drop path.

Fields of `config.method_options`:
  drop_path: largest rate of stochastic depth, of the student alone.
  mixed: two groups of one view; a group "mixed" then holds a x1[n] + (1 - a) x2[π(n)], with one
    a ~ U(0, 1) and one permutation π a step. Losses get them as `mix_weight` and `mix_order`.

`config.masks` says what the student does not see: `jaxssl.masks`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxssl import masks, modalities
from jaxssl.config.errors import ConfigError, near
from jaxssl.config.naming import fold_name
from jaxssl.encoders import stochastic_depth
from jaxssl.masks import Mask
from jaxssl.method import Batch, Info
from jaxssl.methods.composed.networks import accepts
from jaxssl.state import example_batch

OPTIONS: Mapping[str, Any] = {"drop_path": 0.0, "mixed": ()}
Block = dict[str, jax.Array]  # "x" [B, V, h, w, C], and what else a network takes


class GroupMasks(NamedTuple):
    """An entry of `config.masks`: the mask of each of its groups of views."""

    masks: Mapping[str, Mask]

    @property
    def fields(self) -> tuple[str, ...]:
        """What it gives each view; the first is what a loss gets."""
        return next(iter(self.masks.values())).fields

    @property
    def reads(self) -> str:
        """ "teacher/output", where it depends on one."""
        return next(iter(self.masks.values())).reads


class Blocks:
    """The blocks of a step, made on the device.

    Args:
      config: of the run.
      options: `OPTIONS`, as the config sets them.
      encoder: the student's.
      info: of the run.
      keyed: whether a head draws at random, from a "key" for each sample and view.

    Attributes:
      groups: the groups of `config.views`.
      ids: group -> the numbers of its views; "mixed" is the last.
      streams: group -> the stream that its views are made of.
      group_masks: the entries of `config.masks`.
    """

    def __init__(
        self,
        config: Any,
        options: Mapping[str, Any],
        encoder: nn.Module,
        info: Info,
        keyed: bool = False,
    ):
        self._make = modalities.build(config.views, info.fields, config.data)
        self.ids = dict(modalities.group_ids(config.views))
        self.groups = tuple(self.ids)
        self.streams = modalities.group_streams(config.views, info.fields)
        self._info = info
        self._rate = options["drop_path"]
        self._depth = getattr(encoder, "drop_depth", 0)
        if not 0 <= self._rate < 1:
            raise ConfigError(f"method_options.drop_path: {self._rate}; expected 0 <= p < 1")
        self._mixed = tuple(options["mixed"])
        if self._mixed:
            self._check_mixed(config)
            self.ids["mixed"] = (sum(map(len, self.ids.values())),)
            self.streams["mixed"] = self.streams[self._mixed[0]]
        self._keyed = keyed
        self.group_masks = {
            name: self._masks_of(name, config, encoder, info) for name in config.masks
        }
        self._check_group_masks()

    def _check_mixed(self, config: Any) -> None:
        field = "method_options.mixed"
        if len(self._mixed) != 2:
            raise ConfigError(f"{field}: found {self._mixed!r}, expected the names of two groups")
        for group in self._mixed:
            if group not in self.ids:
                raise ConfigError(f"{field}: no group {group!r}{near(str(group), self.ids)}")
            if len(self.ids[group]) != 1:
                raise ConfigError(f"views.{group}.count: found {len(self.ids[group])}, mixed is 1")
        first, second = self._mixed
        if self.streams[first] != self.streams[second]:
            raise ConfigError(f"{field}: views of {first!r} and {second!r} are of two streams")
        if self.shapes[first] != self.shapes[second]:
            raise ConfigError(f"{field}: views of {first!r} and {second!r} differ in size")

    def _masks_of(self, name: str, config: Any, encoder: nn.Module, info: Info) -> GroupMasks:
        entry, field = config.masks[name].to_dict(), f"masks.{name}"
        groups = entry.pop("views", self.groups)
        groups = (groups,) if isinstance(groups, str) else tuple(groups)
        built = {}
        for group in groups:
            if group not in self.groups:
                raise ConfigError(f"{field}.views: no group {group!r}{near(group, self.groups)}")
            grid = patch_grid(encoder, self.shapes[group][:-1])
            setting = masks.Setting(grid, info.steps, config.data.mean, config.data.std)
            built[group] = masks.build(entry, setting=setting, field=field)
        if not built:
            raise ConfigError(f"{field}.views: found no group, expected at least one")
        taken = accepts(encoder)
        for given in ("tokens", "mask"):
            if given in GroupMasks(built).fields and given not in taken:
                raise ConfigError(
                    f"{field}.name: {entry['name']!r} gives {given!r}, which encoder "
                    f"{config.encoder.name!r} does not take"
                )
            if given == "tokens" and given in GroupMasks(built).fields:
                break  # an encoder that is told what it sees needs no mask
        return GroupMasks(built)

    def _check_group_masks(self) -> None:
        for group in self.groups:
            found: dict[str, str] = {}
            for name, entry in self.group_masks.items():
                for field in entry.fields if group in entry.masks else ():
                    if field in found:
                        raise ConfigError(
                            f"masks.{name}.views: {group!r} has {field!r} from {found[field]!r} too"
                        )
                    found[field] = name

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Group -> the shape of one of its views."""
        return modalities.view_shapes(self._make, example_batch(self._info))

    def plain(self, key: jax.Array, batch: Batch) -> tuple[dict[str, Block], dict[str, jax.Array]]:
        """The views of every group as a teacher sees them, and what losses are told beside."""
        images = self._make(fold_name(key, "views"), batch)
        context: dict[str, jax.Array] = {}
        if self._mixed:
            first, second = (images[group] for group in self._mixed)
            weight = jax.random.uniform(fold_name(key, "mix_weight"))
            order = jax.random.permutation(fold_name(key, "mix_order"), len(first))
            images["mixed"] = weight * first + (1 - weight) * second[order]
            context = {"mix_weight": weight, "mix_order": order}
        return {group: {"x": x} for group, x in images.items()}, context

    def for_student(
        self,
        key: jax.Array,
        batch: Batch,
        plain: Mapping[str, Block],
        step: jax.Array | int = 0,
        seen: Callable[[str, str], jax.Array] | None = None,
    ) -> dict[str, Block]:
        """The same blocks, masked, with drop-path scales and a key for each sample and view.

        Args:
          key: of the step.
          batch: of the step.
          plain: the blocks of some groups, from `plain`.
          step: of the state, for schedules.
          seen: ("teacher/output", group) -> [B, V, ...], for masks that read one.
        """
        found = {group: dict(block) for group, block in plain.items()}
        if self._rate and self._depth:
            rates = stochastic_depth.linear_rates(self._rate, self._depth)

            def scales(key: jax.Array) -> jax.Array:
                return stochastic_depth.keep_scales(key[None], rates)[0]

            for group in found:
                keys = self._keys(fold_name(key, "drop_path"), batch, group)
                found[group]["keep"] = jax.vmap(jax.vmap(scales))(keys)
        for group in found if self._keyed else ():
            keys = self._keys(fold_name(key, "heads"), batch, group)
            found[group]["key"] = jax.random.key_data(keys)  # raw, as networks reshape it
        for name, entry in self.group_masks.items():
            own = fold_name(key, f"masks/{name}")
            for group, mask in entry.masks.items():
                if group not in found:
                    continue
                read = seen(mask.reads, group) if mask.reads and seen else None
                keys = self._keys(own, batch, group)
                given = masks.MaskInput(plain[group]["x"], keys, own, jnp.asarray(step), read)
                found[group] |= jax.lax.stop_gradient(mask.hide(given))
        return found

    def metrics(
        self, blocks: Mapping[str, Block], seen: Callable[[str, str], jax.Array]
    ) -> dict[str, jax.Array]:
        """What masks report of a step: "<mask>/<metric>", the mean over their groups.

        Args:
          blocks: from `for_student`.
          seen: as there.
        """
        found: dict[str, list[jax.Array]] = {}
        for name, entry in self.group_masks.items():
            for group, mask in entry.masks.items():
                if mask.metrics and group in blocks:
                    fields = {field: blocks[group][field] for field in mask.fields}
                    for metric, value in mask.metrics(seen(mask.reads, group), fields).items():
                        found.setdefault(f"{name}/{metric}", []).append(value)
        return {name: sum(values, jnp.zeros(())) / len(values) for name, values in found.items()}

    def _keys(self, key: jax.Array, batch: Batch, group: str) -> jax.Array:
        """[B, V] keys by (step, index, view)."""
        of_sample = modalities.sample_keys(key, batch, self.streams[group])
        numbers = jnp.asarray(self.ids[group], jnp.uint32)
        return jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(of_sample, numbers)


def patch_grid(encoder: nn.Module, sides: tuple[int, ...]) -> tuple[int, ...]:
    """Patches along each axis of a view of `sides` pixels; () where an encoder has none."""
    patch = getattr(encoder, "patch", getattr(encoder, "unit", 0))
    patch = patch if "mask" in accepts(encoder) else 0
    cell = (getattr(encoder, "tubelet", patch),) * (len(sides) - 2) + (patch, patch)
    return tuple(n // c for n, c in zip(sides, cell)) if patch else ()
