"""The order of a sample's views."""

import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError
from jaxssl.config.naming import fold_name
from jaxssl.masks import Fields, Mask, MaskInput, Setting


def build(*, setting: Setting, count: int) -> Mask:
    """Hides the order of a sample's views: the number of the permutation that a head is to find.

    Noroozi, Favaro, 2016, "Unsupervised learning of visual representations by solving jigsaw
    puzzles", arXiv 1603.09246. The views themselves stay where they are, since they pass the
    encoder one by one; the head that reads them all puts them in this order (`heads.jigsaw`).

    Args:
      setting: of the views.
      count: number of permutations.

    Raises:
      ConfigError: less than two.
    """
    del setting
    if count < 2:
        raise ConfigError(f"count: found {count}, expected at least 2 permutations")

    def hide(given: MaskInput) -> Fields:
        # One for all views of a sample: the key of the first.
        draw = lambda key: jax.random.randint(fold_name(key, "order"), (), 0, count)
        order = jax.vmap(draw)(given.keys[:, 0])
        return {"order": jnp.broadcast_to(order[:, None], given.keys.shape)}

    return Mask(hide, ("order",))
