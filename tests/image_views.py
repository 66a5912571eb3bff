"""Random views of images alone, for tests of transforms and of methods."""

from jaxssl import modalities
from jaxssl.data.images import image_fields


def build(views, *, mean, std):
    """(key, batch) -> {group: [B, V, h, w, c]}, for images of any size."""
    return modalities.build(views, image_fields(()), {"mean": mean, "std": std})
