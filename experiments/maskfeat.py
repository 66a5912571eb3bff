"""MaskFeat: predict the oriented gradients of hidden blocks of patches.

Wei, Fan, Xie, Wu, Yuille, Feichtenhofer (2022), Masked feature prediction for self-supervised
visual pre-training, arXiv 2112.09133.

  python -m jaxssl.main --config=experiments/maskfeat.py --workdir=runs/maskfeat

scikit-learn's digits; minutes on 2 CPU cores. kNN 92.0 %, of the control 73.2 %, of random init
43.0 % (1 seed). The control hides nearly everything, so that there is nothing to predict from.

  python -m jaxssl.main --config=experiments/maskfeat.py:cifar10 --workdir=runs/maskfeat-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10.
"""

import math

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_vit_b16")
CONTROLS = {"nearly_all_hidden": {"masks.hidden.ratio": 0.99}}
PROOF = dict(preset="digits", on="knn/accuracy", seeds=3)
BINS = 9
# Sides of the cells of gradients, in pixels: half of a patch.
CELLS = {"digits": 2, "cifar10": 2}
HEADLINE = 8


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    vision.patches(config, pool="mean", mask_token=True)
    if preset == "digits":
        vision.longer(config, 4)  # what is hidden is learned slowly
    config.method = "composed"
    patch, channels = config.encoder.patch, len(config.data.mean)
    cell = CELLS.get(preset, HEADLINE)
    # Of 14 x 14 patches, 78 are hidden, by rectangles of at least 16.
    config.masks.hidden = dict(name="block", ratio=0.4, least=math.prod(vision.grid(config)) // 12)
    config.targets.gradients = dict(name="hog", patch=patch, cell=cell, bins=BINS)
    config.student.gradients = dict(
        name="linear",
        width=(patch // cell) ** 2 * channels * BINS,
        reads="tokens",
        output="gradients",
    )
    config.losses.gradients = dict(
        fn="masked_squared_error",
        student="gradients",
        teacher="input/gradients",
        pairs="same",
        mask=dict(mask="hidden"),
    )
    # As published. The first gradients are hundreds of times the later ones, and Adam's second
    # moment would remember them for the whole of a short run.
    config.optimizer.clip_norm = 0.02
    if preset not in CELLS:
        batch = 2048
        config.views["global"].crop.scale = (0.5, 1.0)
        config.encoder.class_token = True
        config.method_options = dict(drop_path=0.0)
        vision.imagenet_recipe(
            config,
            name="adamw",
            learning_rate=2e-4 * batch / 256,
            end=1e-6,
            weight_decay=0.05,
            batch=batch,
            epochs=300,
            warmup_epochs=30,
        )
    return config
