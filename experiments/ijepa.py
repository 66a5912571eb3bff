"""I-JEPA: predict a moving average's features of four blocks from the rest of the image.

Assran, Duval, Misra, Bojanowski, Vincent, Rabbat, LeCun, Ballas (2023), Self-supervised learning
from images with a joint-embedding predictive architecture, arXiv 2301.08243.

  python -m jaxssl.main --config=experiments/ijepa.py --workdir=runs/ijepa

scikit-learn's digits; minutes on 2 CPU cores. kNN 69.2 %, linear 91.0 %, no better than the
control's 71.0 % and 90.6 %; random init 48.6 % and 70.6 % (1 seed). The control predicts a teacher
that stays as random as it began.

  python -m jaxssl.main --config=experiments/ijepa.py:cifar10 --workdir=runs/ijepa-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_vit_h14")
CONTROLS = {"random_teacher": {"teachers.ema.decay": 1.0}}
PROOF = dict(preset="digits", on="knn/accuracy", seeds=3)
# preset -> (side of a patch; the predictor's width, depth and heads; first decay of the teacher).
SCALES = {"digits": (2, 48, 2, 3, 0.998), "cifar10": (4, 64, 3, 4, 0.998)}
HEADLINE = (14, 384, 12, 12, 0.996)


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    patch, width, depth, heads, decay = SCALES.get(preset, HEADLINE)
    vision.patches(
        config, ("crop", "affine"), patch=patch, pool="mean", class_token=False, posemb="sincos2d"
    )
    if "crop" in config.views["global"]:
        config.views["global"].crop.scale = (0.3, 1.0)
    config.method = "composed"
    config.masks.blocks = dict(
        name="multi_block", count=4, scale=(0.15, 0.2), aspect=(0.75, 1.5), context=(0.85, 1.0)
    )
    config.student.predictor = dict(
        name="predictor",
        width=width,
        depth=depth,
        heads=heads,
        grid=vision.grid(config),
        reads="tokens",
        output="prediction",
    )
    config.teachers.ema = dict(rule="ema", follows=("encoder",), decay=("linear", decay, 1.0))
    config.losses.ijepa = dict(
        fn="ijepa",
        student="prediction",
        teacher="ema/tokens",
        pairs="same",
        targets=dict(mask="blocks", field="targets"),
    )
    if preset in SCALES:
        config.optimizer.beta2 = 0.95
    if preset == "digits":
        # At four times this, and after a teacher that is faster, all features become alike.
        config.optimizer.learning_rate = ("warmup_cosine", 5e-4, 100, 1e-6)
    if preset not in SCALES:
        config.method_options = dict(drop_path=0.0)
        vision.imagenet_recipe(
            config,
            name="adamw",
            learning_rate=1e-3,
            end=1e-6,
            weight_decay=("cosine", 0.04, 0.4),
            batch=2048,
            epochs=300,
            warmup_epochs=40,
        )
    return config
