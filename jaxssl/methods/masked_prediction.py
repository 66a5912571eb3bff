"""Masked prediction: what is hidden of a view is predicted from what is left of it.

The wiring is that of `joint_embedding`, with entries in `config.masks`: the student sees the views
masked, its heads (a decoder, a predictor) read where patches were left out, and terms compare what
they give with a target read off the whole view: pixels and the like (`config.targets`, as
"input/pixels"), or a teacher's features ("ema/tokens"). So one config may hold both kinds of term.
"""

from typing import Any

from jaxssl.errors import ConfigError
from jaxssl.method import Info, Method
from jaxssl.methods import joint_embedding


def build(config: Any, info: Info) -> Method:
    """The `Method` of a config that hides something.

    Raises:
      ConfigError: nothing is hidden, or whatever `joint_embedding` refuses.
    """
    if not config.masks:
        raise ConfigError("masks: empty; masked_prediction needs at least one")
    return joint_embedding.build(config, info)
