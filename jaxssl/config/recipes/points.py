"""Recipes of point clouds."""

from typing import Any

from jaxssl.config.recipes import Presets, data_path, short_run


def _modelnet10(config: Any) -> None:
    """3,991 shapes of furniture, which stand upright: minutes on a laptop."""
    config.data.update(source="modelnet10", path=data_path("modelnet10"))
    config.encoder = dict(
        name="pointnet", groups=32, neighbors=16, local_widths=(32, 64), widths=(128, 128)
    )
    shapes = dict(
        crop=dict(scale=(0.6, 1.0)),
        points=dict(number=192),
        rotation=dict(up=15.0),
        scale=dict(range=(0.8, 1.25)),
        mirror=0.5,
        jitter=dict(sigma=0.01),
    )
    config.views = {"global": dict(count=4, **shapes)}
    short_run(config, steps=300, batch=64, every=150)
    config.evals.update(size=512, batch_size=64)


PRESETS: Presets = {"modelnet10": _modelnet10}
