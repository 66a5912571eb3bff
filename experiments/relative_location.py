"""Relative location: at which of the eight places around a tile was another one.

Doersch, Gupta, Efros (2015), Unsupervised visual representation learning by context prediction,
arXiv 1505.05192.

  python -m jaxssl.main --config=experiments/relative_location.py --workdir=runs/relative-location

scikit-learn's digits at 24 px, in 3 x 3 tiles of 6 px. The control leaves no room between the
tiles, so that lines which go on from one to the next are enough.

  python -m jaxssl.main --config=experiments/relative_location.py:cifar10 \
    --workdir=runs/relative-location-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10, in tiles of 8 px of one channel each.
"""

from typing import Any

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_resnet50")
CONTROLS = {"no_gaps": {"views.global.tiles.jitter": 0}}
PROOF = dict(preset="digits", on="linear/accuracy", seeds=3)
SIDE = 3
# preset -> pixels of a tile, and of the view that tiles are cut from; where they lie.
TILES: dict[str, tuple[int, int, dict[str, Any]]] = {
    "digits": (6, 24, dict(gap=0, jitter=2)),
    "cifar10": (8, 32, dict(gap=1, jitter=2, colour="dropped")),
    # 48 px between two tiles, each moved by up to 7.
    "imagenet1k_resnet50": (96, 400, dict(gap=34, jitter=14, colour="dropped")),
}
HIDDEN = {"digits": 128, "cifar10": 256, "imagenet1k_resnet50": 4096}


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    config.method = "composed"
    size, whole, tiles = TILES[preset]
    config.data.size = whole
    config.views = {"global": dict(count=SIDE**2, size=size, tiles=dict(side=SIDE, **tiles))}
    config.student.relative = dict(
        name="relative", hidden=(HIDDEN[preset],), norm="batch", reads="pooled", output="logits"
    )
    config.losses.location = dict(fn="relative_location", student="logits", pairs="single")
    config.evals.pretext.terms = ("location",)
    if preset == "imagenet1k_resnet50":
        config.views["global"].pad_crop = dict(padding=0)
        vision.pretext_recipe(config)
    return config
