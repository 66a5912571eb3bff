"""Colours: the student sees the luminance alone."""

import jax.numpy as jnp

from jaxssl.config.errors import ConfigError
from jaxssl.masks import Fields, Mask, MaskInput, Setting
from jaxssl.modalities.image.colour import LUMA


def build(*, setting: Setting) -> Mask:
    """Hides the colours of a view: every channel becomes its luminance.

    Zhang, Isola, Efros, 2016, "Colorful image colorization", arXiv 1603.08511.

    Args:
      setting: of the views.
    """
    mean, std = jnp.asarray(setting.mean), jnp.asarray(setting.std)

    def hide(given: MaskInput) -> Fields:
        if given.x.shape[-1] != 3:
            raise ConfigError(f"masks: gray needs 3 channels, found {given.x.shape[-1]}")
        luminance = ((given.x * std + mean) @ jnp.asarray(LUMA))[..., None]
        return {"x": (luminance - mean) / std}

    return Mask(hide, ("x",))
