"""UniSiam: SimSiam's prediction and a low-bias term that keeps samples apart.

Lu, Wen, Liu, Liu, Tian (2022), Self-supervision can be a good few-shot learner, arXiv 2207.09176.
Its RandAugment and vertical flips are not part of these views, nor is its optional distillation.

  python -m jaxssl.main --config=experiments/unisiam.py --workdir=runs/unisiam

scikit-learn's digits; held-out 5-shot accuracy above that of random init (72 %; raw pixels 85 %).

  python -m jaxssl.main --config=experiments/unisiam.py:cifar10 --workdir=runs/unisiam-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10. The control is the prediction alone.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_resnet50")
CONTROLS = {"prediction_alone": {"losses.uniformity.weight": 0.0}}
PROOF = dict(preset="digits", on="fewshot/5_shot", seeds=3)
# preset -> P, the width of every layer of the projector; the predictor's hidden one has a quarter.
WIDTHS = {"digits": 128, "cifar10": 256, "imagenet1k_resnet50": 2048}


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    width = WIDTHS[preset]
    vision.two_views(config, "moco")
    config.method = "composed"
    config.student.projector = dict(
        name="mlp", widths=(width, width, width), norm="batch", last_norm=True
    )
    config.student.predictor = dict(name="mlp", widths=(width // 4, width), norm="batch")
    config.losses.prediction = dict(
        fn="simsiam", student="prediction", teacher="projection", pairs="cross"
    )
    config.losses.uniformity = dict(
        fn="low_bias_uniformity", student="projection", pairs="all", temperature=2.0, weight=0.1
    )
    if preset == "imagenet1k_resnet50":
        vision.imagenet_recipe(
            config,
            name="sgd",
            learning_rate=0.3,
            weight_decay=1e-4,
            batch=256,
            epochs=400,
            warmup_epochs=0,
            end=3e-4,
            no_decay=(),
        )
    return config
