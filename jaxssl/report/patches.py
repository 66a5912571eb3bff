"""What tokens hold, place by place: their first three principal components as colours."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TITLE = "principal components of tokens; a colour means the same in a whole row"
_SIDE = 96  # pixels of a picture's longer side
_TAILS = (2.0, 98.0)  # percentiles of a component that become 0 and 255


def pictures(
    images: NDArray, tokens: Mapping[str, NDArray]
) -> tuple[Sequence[str], NDArray] | None:
    """Images beside the maps of their tokens' components; None where tokens lie on no grid.

    Args:
      images: uint8 [n, H, W, C].
      tokens: caption -> [n, T, D], row by row over a grid of the image's proportions.

    Returns:
      (captions, uint8 [n, 1 + len(tokens), h, w, 3]); h and w are 96 at most.
    """
    if images.ndim != 4:
        return None
    shape = images.shape[1:3]
    grids = [grid(x.shape[1], shape) for x in tokens.values()]
    height, width = (max(1, round(_SIDE * side / max(shape))) for side in shape)

    def sized(picture: NDArray, how: Image.Resampling) -> NDArray:
        return np.asarray(Image.fromarray(picture).resize((width, height), how))

    colour = images[..., :3] if images.shape[-1] >= 3 else np.repeat(images[..., :1], 3, -1)
    smooth = Image.Resampling.LANCZOS if max(shape) > _SIDE else Image.Resampling.NEAREST
    columns = [[sized(image, smooth) for image in colour]]
    for x, cells in zip(tokens.values(), grids):
        if cells is None:
            return None
        maps = components(x).reshape(len(x), *cells, 3)
        columns.append([sized(picture, Image.Resampling.NEAREST) for picture in maps])
    return ("image", *tokens), np.stack([np.stack(column) for column in columns], 1)


def components(tokens: NDArray) -> NDArray:
    """The first three principal components of all tokens together, as red, green and blue.

        X = tokens - mean over all n T of them;  component i = X v_i,  v_i eigenvectors of X'X

    Each component is stretched from its 2nd to its 98th percentile, so that a few outlying tokens
    do not leave the rest grey. The sign of an eigenvector is arbitrary: its largest entry is made
    positive. Nothing is cut off as background. Oquab et al. (2023), DINOv2: learning robust visual
    features without supervision, arXiv 2304.07193.

    Args:
      tokens: [n, T, D] of n images; equal colours say the same in all of them. What is not finite
        counts as 0.

    Returns:
      uint8 [n, T, 3]; a component that is constant, or that D has not, is 128.

    >>> components(np.arange(4.0).reshape(1, 4, 1))[0].tolist()
    [[0, 128, 128], [83, 128, 128], [172, 128, 128], [255, 128, 128]]
    """
    n, count, width = tokens.shape
    x = np.nan_to_num(tokens.reshape(-1, width).astype(np.float64), posinf=0, neginf=0)
    x = x - x.mean(0)
    values, vectors = np.linalg.eigh(x.T @ x)
    axes = vectors[:, ::-1][:, :3]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(0)[None], axis=0)
    found = x @ (axes * np.where(largest < 0, -1.0, 1.0))
    low, high = np.percentile(found, _TAILS, axis=0)
    # Below the rounding error of the greatest eigenvalue a component is noise.
    real = values[::-1][:3] > values[-1] * width * np.finfo(np.float64).eps
    spread = np.where(real & (high > low), high - low, np.inf)
    shares = np.clip((found - low) / spread, 0, 1)
    colours = np.full((len(x), 3), 128, np.uint8)
    kept = np.isfinite(spread)
    colours[:, : len(kept)][:, kept] = np.round(255 * shares[:, kept])
    return colours.reshape(n, count, 3)


def grid(count: int, shape: Sequence[int]) -> tuple[int, int] | None:
    """(rows, columns) of `count` places with the proportions of an image [H, W]; None: there is
    no such grid, or it has less than two places a side.

    >>> grid(16, (224, 224)), grid(8, (32, 64)), grid(17, (224, 224))
    ((4, 4), (2, 4), None)
    """
    rows = round(math.sqrt(count * shape[0] / shape[1]))
    columns = round(math.sqrt(count * shape[1] / shape[0]))
    return (rows, columns) if rows * columns == count and min(rows, columns) > 1 else None
