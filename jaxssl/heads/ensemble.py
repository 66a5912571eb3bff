"""Several heads of one form side by side, each with parameters of its own."""

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


def of(head: nn.Module, members: Any, field: str) -> nn.Module:
    """The head, or that many of it.

    Args:
      head: of one member.
      members: E; 1 is the head alone, without a new axis.
      field: of the head in the config; error messages begin with it.

    Raises:
      ConfigError: no whole number above zero, or a head that takes more than its input.
    """
    if type(members) is not int or members < 1:
        raise ConfigError(f"{field}.members: found {members!r}, expected a whole number >= 1")
    if members == 1:
        return head
    if getattr(head, "joins_views", False):
        raise ConfigError(f"{field}.members: found {members}, but the head joins views")
    return Ensemble(head, members)
