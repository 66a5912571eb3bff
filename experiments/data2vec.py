"""data2vec: predict, where patches are hidden, what a moving average's last blocks make of them.

Baevski, Hsu, Xu, Babu, Gu, Auli (2022), data2vec: a general framework for self-supervised learning
in speech, vision and language, arXiv 2202.03555.

  python -m jaxssl.main --config=experiments/data2vec.py --workdir=runs/data2vec

scikit-learn's digits. The control predicts a teacher that stays as random as it began.

  python -m jaxssl.main --config=experiments/data2vec.py:cifar10 --workdir=runs/data2vec-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10.
"""

import math
from typing import Any

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

# preset -> (how many of the last blocks are averaged, first and last decay of the teacher).
SCALES = {
    "digits": (2, 0.99, 0.999),
    "cifar10": (3, 0.99, 0.999),
    "imagenet1k_vit_b16": (6, 0.999, 0.9998),
    "imagenet1k_vit_l16": (6, 0.9998, 0.9998),
}
# The larger one is the first of its two phases of 800 epochs. As recalled, not looked up.
RECIPES: dict[str, dict[str, Any]] = {
    "imagenet1k_vit_b16": dict(learning_rate=2e-3, batch=2048, warmup_epochs=40),
    "imagenet1k_vit_l16": dict(learning_rate=1e-3, batch=8192, warmup_epochs=80),
}
PRESETS = tuple(SCALES)
CONTROLS = {"random_teacher": {"teachers.ema.decay": 1.0}}
PROOF = dict(preset="digits", on="knn/accuracy", seeds=3)


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    vision.patches(config, pool="mean", mask_token=True)
    config.method = "composed"
    top_k, first, last = SCALES[preset]
    # Of 14 x 14 patches, 120 are hidden, by rectangles of at least 16.
    config.masks.hidden = dict(
        name="block", ratio=120 / 196, least=math.prod(vision.grid(config)) // 12
    )
    config.student.predictor = dict(name="linear", reads="tokens", output="prediction")
    config.teachers.ema = dict(rule="ema", follows=("encoder",), decay=("linear", first, last))
    config.losses.data2vec = dict(
        fn="data2vec",
        student="prediction",
        teacher="ema/layers",
        pairs="same",
        mask=dict(mask="hidden"),
        top_k=top_k,
        beta=2.0,
    )
    if preset in RECIPES:
        config.encoder.class_token = True
        config.method_options = dict(drop_path=0.2)
        vision.imagenet_recipe(
            config,
            name="adamw",
            weight_decay=0.05,
            epochs=800,
            clip_norm=3.0,
            **RECIPES[preset],
        )
    return config
