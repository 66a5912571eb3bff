"""Several heads of one form side by side, each with parameters of its own."""

from collections.abc import Collection
from typing import Any

import flax.linen as nn
import jax

from jaxssl.config.errors import ConfigError


class Ensemble(nn.Module):
    """E members of a head: [B, ...] to [B, E, ...], parameters with a leading axis E.

    Every member sees the same input and begins elsewhere. Params and batch statistics are stacked
    under the name "head".
    """

    head: nn.Module
    members: int

    @nn.compact
    def __call__(self, x: Any, *, train: bool) -> jax.Array:
        """x as the head reads it -> what each member makes of it."""
        of_all = nn.vmap(
            lambda head, x: head(x, train=train),
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            in_axes=None,
            out_axes=1,
            axis_size=self.members,
        )
        made: jax.Array = of_all(self.head, x)
        return made


def of(head: nn.Module, members: Any, takes: Collection[str], field: str) -> nn.Module:
    """The head, or that many of it.

    Args:
      head: of one member.
      members: E; 1 is the head alone, without a new axis.
      takes: the fields of a block that the head takes beside its input.
      field: of the head in the config; error messages begin with it.

    Raises:
      ConfigError: no whole number above zero, or a head that takes more than its input.
    """
    if type(members) is not int or members < 1:
        raise ConfigError(f"{field}.members: found {members!r}, expected a whole number >= 1")
    if members == 1:
        return head
    more = ["all views of a sample"] if getattr(head, "joins_views", False) else sorted(takes)
    if more:
        raise ConfigError(f"{field}.members: found {members}, but the head takes {', '.join(more)}")
    return Ensemble(head, members)
