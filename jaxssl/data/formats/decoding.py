"""The pixels of an image file, or why there are none."""

import io

from PIL import Image

from jaxssl.data.bad import Unreadable


def decoded(content: bytes) -> Image.Image:
    """The image in the bytes of an image file.

    Raises:
      Unreadable: it is none, is cut short or damaged, or would be far too large.
    """
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except MemoryError:
        raise  # of this machine, not of the file
    except Exception as error:  # decoders raise whatever they trip over
        words = " ".join(str(error).split()) or type(error).__name__
        words = words if content and "BytesIO" not in words else f"{len(content)} bytes of no image"
        raise Unreadable(f"it cannot be decoded: {words}") from error
    return image
