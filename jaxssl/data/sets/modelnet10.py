"""ModelNet10: 4,899 shapes of ten kinds of furniture, 1,024 points each, in the unit ball.

Wu et al. (2015), 3D ShapeNets: a deep representation for volumetric shapes, arXiv 1406.5670.
`data.path` is the folder of modelnet10_train.npz and modelnet10_test.npz. Points stay float16, as
stored, until views are made.
"""

from typing import Any

from jaxssl.data.formats.archive import opened
from jaxssl.data.source import Arrays, stored_at
from jaxssl.method import Field


def open(config: Any, split: str) -> Arrays:
    """Opens the shapes of a split."""
    file = stored_at(config) / f"modelnet10_{split}.npz"
    with opened(file) as arrays:
        points, labels = arrays["points"], arrays["y"]
        names = arrays.class_names() or ()
    field = Field("points", points.shape[1:], points.dtype.name)
    return Arrays(f"modelnet10 {split}", {"points": (field, points)}, labels, names, str(file))
