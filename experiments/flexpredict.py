"""FlexPredict: I-JEPA whose predictor is told only roughly where the hidden patches are.

Bar, Bordes, Shocher, Assran, Vincent, Ballas, Darrell, Globerson, LeCun (2024), Stochastic
positional embeddings improve masked image modeling, arXiv 2308.00566, at first named Predicting
masked tokens in stochastic locations improves masked image modeling.

  python -m jaxssl.main --config=experiments/flexpredict.py --workdir=runs/flexpredict

scikit-learn's digits. With `--config.student.predictor.tied=False` it can learn to do without
the noise, whose matrix is then its own. The control is told the exact places.

  python -m jaxssl.main --config=experiments/flexpredict.py:cifar10 --workdir=runs/flexpredict-32

CIFAR-10 under $JAXSSL_DATA/cifar10.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_vit_b16")
CONTROLS = {"exact_places": {"student.predictor.noise": 0.0}}
PROOF = dict(preset="digits", on="knn/accuracy", seeds=3)
# preset -> (side of a patch; the predictor's width, depth and heads; first decay of the teacher).
SCALES = {"digits": (2, 48, 2, 3, 0.998), "cifar10": (4, 64, 3, 4, 0.998)}
HEADLINE = (16, 384, 6, 12, 0.996)


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    patch, width, depth, heads, decay = SCALES.get(preset, HEADLINE)
    vision.patches(
        config,
        ("crop", "flip", "affine"),
        patch=patch,
        pool="mean",
        class_token=False,
        posemb="sincos2d",
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
        noise=0.25,
        tied=True,
        grid=vision.grid(config),
        reads="tokens",
        output="prediction",
    )
    config.teachers.ema = dict(rule="ema", follows=("encoder",), decay=("linear", decay, 1.0))
    config.losses.flexpredict = dict(
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
            learning_rate=8e-4,
            end=1e-4,
            weight_decay=("cosine", 0.04, 0.4),
            batch=2048,
            epochs=600,
            warmup_epochs=15,
        )
    return config
