"""Rotation: by how many right angles is an image turned; all four turns of it are in one batch.

Gidaris, Singh, Komodakis (2018), Unsupervised representation learning by predicting image
rotations, arXiv 1803.07728.

  python -m jaxssl.main --config=experiments/rotation.py --workdir=runs/rotation

scikit-learn's digits. The control turns nothing, so that there is nothing to tell and the loss is
log 4.

  python -m jaxssl.main --config=experiments/rotation.py:cifar10 --workdir=runs/rotation-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_resnet50")
CONTROLS = {"no_turns": {"views.global.turns": False}}
PROOF = dict(preset="digits", on="linear/accuracy", seeds=3)
TURNS = 4


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    config.method = "composed"
    view = config.views["global"].to_dict()
    kept = {name: view[name] for name in ("size", "crop", "flip", "affine") if name in view}
    config.views = {"global": dict(kept, count=TURNS, turns=True)}
    config.student.classifier = dict(
        name="classifier", width=TURNS, reads="pooled", output="logits"
    )
    config.losses.rotation = dict(fn="view_index", student="logits", pairs="all")
    config.evals.pretext.terms = ("rotation",)
    if preset == "imagenet1k_resnet50":
        config.views = {
            "global": dict(count=TURNS, turns=True, size=224, pad_crop=dict(padding=0), flip=0.5)
        }
        vision.pretext_recipe(config)
    return config
