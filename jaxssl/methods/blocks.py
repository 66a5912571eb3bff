"""What enters the networks: views by group, views mixed of others, tokens left out, drop path.

Fields of `config.method_options`:
  drop_path: largest rate of stochastic depth, of the student alone.
  drop_tokens: {group: the fraction of patches that the student does not see}, for encoders that
    take `tokens`.
  mixed: two groups of one view; a group "mixed" then holds a x1[n] + (1 - a) x2[π(n)], with one
    a ~ U(0, 1) and one permutation π a step. Losses get them as `mix_weight` and `mix_order`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxssl import views
from jaxssl.encoders import stochastic_depth
from jaxssl.errors import ConfigError, near
from jaxssl.method import Batch
from jaxssl.naming import fold_name

OPTIONS: Mapping[str, Any] = {"drop_path": 0.0, "drop_tokens": {}, "mixed": ()}
Block = dict[str, jax.Array]  # "x" [B, V, h, w, c], and what else an encoder takes


class Blocks:
    """The blocks of a step, made on the device.

    Args:
      config: of the run.
      options: `OPTIONS`, as the config sets them.
      encoder: the student's.

    Attributes:
      groups: the groups of `config.views`.
      ids: group -> the numbers of its views; "mixed" is the last.
    """

    def __init__(self, config: Any, options: Mapping[str, Any], encoder: nn.Module):
        self._make = views.build(
            config.views, mean=config.data.mean, std=config.data.std, dtype=jnp.float32
        )
        self.ids = dict(views.group_ids(config.views))
        self.groups = tuple(self.ids)
        self._rate = options["drop_path"]
        self._depth = getattr(encoder, "drop_depth", 0)
        if not 0 <= self._rate < 1:
            raise ConfigError(f"method_options.drop_path: {self._rate}; expected 0 <= p < 1")
        self._kept = {
            group: _kept_tokens(group, rate, config, encoder)
            for group, rate in dict(options["drop_tokens"]).items()
        }
        self._mixed = tuple(options["mixed"])
        if self._mixed:
            self._check_mixed(config)
            self.ids["mixed"] = (sum(map(len, self.ids.values())),)

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
        if config.views[first].size != config.views[second].size:
            raise ConfigError(f"{field}: views of {first!r} and {second!r} differ in size")

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
        self, key: jax.Array, batch: Batch, plain: dict[str, Block]
    ) -> dict[str, Block]:
        """The same blocks with drop-path scales and kept tokens."""
        found = {group: dict(block) for group, block in plain.items()}
        if self._rate and self._depth:
            rates = stochastic_depth.linear_rates(self._rate, self._depth)

            def scales(key: jax.Array) -> jax.Array:
                return stochastic_depth.keep_scales(key[None], rates)[0]

            for group in found:
                found[group]["keep"] = self._each(fold_name(key, "drop_path"), batch, group, scales)
        for group, (kept, total) in self._kept.items():
            if group in found:
                pick = functools.partial(_random_subset, kept=kept, total=total)
                found[group]["tokens"] = self._each(fold_name(key, "tokens"), batch, group, pick)
        return found

    def _each(
        self, key: jax.Array, batch: Batch, group: str, draw: Callable[[jax.Array], jax.Array]
    ) -> jax.Array:
        """[B, V, ...] of draws keyed by (step, index, view)."""
        of_sample = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["index"])
        numbers = jnp.asarray(self.ids[group], jnp.uint32)
        of_view = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(of_sample, numbers)
        return jax.vmap(jax.vmap(draw))(of_view)


def _random_subset(key: jax.Array, kept: int, total: int) -> jax.Array:
    """`kept` of the numbers below `total`, in order."""
    return jnp.sort(jax.random.permutation(key, total)[:kept])


def _kept_tokens(group: str, rate: float, config: Any, encoder: nn.Module) -> tuple[int, int]:
    """(tokens kept, tokens there are) of a view."""
    field = f"method_options.drop_tokens.{group}"
    if group not in config.views:
        raise ConfigError(f"{field}: no group{near(group, config.views)}")
    if not hasattr(encoder, "patch"):
        raise ConfigError(f"{field}: encoder {config.encoder.name!r} has no tokens to drop")
    if not 0 <= rate < 1:
        raise ConfigError(f"{field}: found {rate}, expected 0 <= fraction < 1")
    total = (config.views[group].size // encoder.patch) ** 2
    return max(1, round(total * (1 - rate))), total
