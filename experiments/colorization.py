"""Colorization: from the luminance of an image, which of 260 colours is each cell of it.

Zhang, Isola, Efros (2016), Colorful image colorization, arXiv 1603.08511; with a ResNet-50 and the
recipe of Goyal, Mahajan, Gupta, Misra (2019), Scaling and benchmarking self-supervised visual
representation learning, arXiv 1905.01235, but cells of 32 px, as its last map has them, where they
keep 8.

  python -m jaxssl.main --config=experiments/colorization.py --workdir=runs/colorization

scikit-learn's digits, whose ink has the hue of its stroke's direction. The control does not
rebalance the colours, so that the most frequent one wins everywhere.

  python -m jaxssl.main --config=experiments/colorization.py:cifar10 \
    --workdir=runs/colorization-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_resnet50")
CONTROLS = {"no_rebalancing": {"losses.colours.mix": 1.0}}
PROOF = dict(preset="digits", on="linear/accuracy", seeds=3)
# Squares of 10 x 10 of the plane ab of Lab that hold a colour.
BINS = 260
# preset -> pixels of a cell, and how many bins share it.
CELLS = {"digits": (4, 5), "cifar10": (4, 5), "imagenet1k_resnet50": (32, 10)}


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    config.method = "composed"
    view = config.views["global"].to_dict()
    kept = {name: view[name] for name in ("size", "crop", "flip", "affine") if name in view}
    cell, neighbors = CELLS[preset]
    config.views = {"global": dict(kept, count=1)}
    config.masks.gray = dict(name="gray")
    config.targets.colours = dict(name="colour_bins", patch=cell, neighbors=neighbors)
    config.student.classifier = dict(name="classifier", width=BINS, reads="tokens", output="logits")
    config.losses.colours = dict(
        fn="colorization", student="logits", teacher="input/colours", pairs="same", mix=0.5
    )
    if preset == "digits":
        config.data.update(source="coloured_digits", mean=(0.23, 0.14, 0.1), std=(0.29, 0.21, 0.19))
    elif preset == "cifar10":
        # A map of 8 x 8 of a view of 32 px.
        config.views["global"].size = 32
        config.encoder.strides = (1, 2, 1, 1, 1)
    else:
        config.views = {"global": dict(count=1, size=224, pad_crop=dict(padding=0), flip=0.5)}
        vision.pretext_recipe(config)
    return config
