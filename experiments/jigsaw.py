"""Jigsaw: in which order are the tiles of an image, of a set of permutations far apart.

Noroozi, Favaro (2016), Unsupervised learning of visual representations by solving jigsaw puzzles,
arXiv 1603.09246; with a ResNet-50 and the recipe of Goyal, Mahajan, Gupta, Misra (2019), Scaling
and benchmarking self-supervised visual representation learning, arXiv 1905.01235.

  python -m jaxssl.main --config=experiments/jigsaw.py --workdir=runs/jigsaw

scikit-learn's digits in 2 x 2 tiles, of which all 24 orders are told. The control leaves no room
between the tiles, so that lines which go on from one to the next are enough.

  python -m jaxssl.main --config=experiments/jigsaw.py:cifar10 --workdir=runs/jigsaw-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10, in 2 x 2 tiles. ImageNet-1k: 3 x 3 tiles, 1000 permutations
with "imagenet1k_resnet50".
"""

from typing import Any

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_resnet50")
CONTROLS = {"no_gaps": {"views.global.tiles.jitter": 0}}
PROOF = dict(preset="digits", on="linear/accuracy", seeds=3)
# preset -> tiles along a side, their pixels, room to move, permutations, features of a tile.
PUZZLES = {
    "digits": (2, 6, 2, 24, 64),
    "cifar10": (2, 12, 4, 24, 128),
    "imagenet1k_resnet50": (3, 64, 21, 1000, 1000),
}
# Small images fill the tiles to the last pixel, in place of a window.
TRANSFORMS: dict[str, dict[str, Any]] = {
    "digits": {},
    "cifar10": dict(flip=0.5, grayscale=0.66),
    "imagenet1k_resnet50": dict(pad_crop=dict(padding=0), flip=0.5, grayscale=0.66),
}


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    config.method = "composed"
    side, size, jitter, permutations, width = PUZZLES[preset]
    transforms = TRANSFORMS[preset]
    config.views = {
        "global": dict(
            count=side**2,
            size=size,
            tiles=dict(side=side, jitter=jitter, colour="normalized"),
            **transforms,
        )
    }
    config.masks.order = dict(name="shuffle", count=permutations)
    config.student.jigsaw = dict(
        name="jigsaw",
        tiles=side**2,
        permutations=permutations,
        width=width,
        norm="batch",
        reads="pooled",
        output="logits",
    )
    config.losses.order = dict(
        fn="label_smoothing_cross_entropy",
        student="logits",
        pairs="single",
        labels=dict(mask="order"),
    )
    if preset == "imagenet1k_resnet50":
        vision.pretext_recipe(config)
    return config
