"""Images, clips and volumes: uint8 [H, W, C] or [T, H, W, C].

`geometry` and `colour` are the formulas, `transforms` draws their parameters, `pipeline` puts them
in order.
"""

from jaxssl.modalities.image.pipeline import plain, views
from jaxssl.modalities.image.raw import raw
from jaxssl.modalities.image.show import show

__all__ = ["plain", "raw", "show", "views"]
