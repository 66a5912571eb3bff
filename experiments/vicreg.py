"""VICReg: views that agree, features that vary and do not correlate.

Bardes, Ponce, LeCun (2022), VICReg: variance-invariance-covariance regularization for
self-supervised learning, arXiv 2105.04906.

  python -m jaxssl.main --config=experiments/vicreg.py --workdir=runs/vicreg

scikit-learn's digits.

  python -m jaxssl.main --config=experiments/vicreg.py:cifar10 --workdir=runs/vicreg-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10. The control has the invariance alone.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_resnet50")
CONTROLS = {
    "invariance_alone": {
        "losses.vicreg.variance_weight": 0.0,
        "losses.vicreg.covariance_weight": 0.0,
    }
}
PROOF = dict(preset="digits", on="fewshot/5_shot", seeds=3)
# preset -> widths of the projector
SCALES = {
    "digits": (256, 256, 128),
    "cifar10": (512, 512, 256),
    "imagenet1k_resnet50": (8192, 8192, 8192),
}


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    vision.two_views(config, "asymmetric")
    config.method = "composed"
    config.method_options.batch_statistics = "view"
    config.student.projector = dict(
        name="mlp", widths=SCALES[preset], norm="batch", last_bias=False
    )
    config.losses.vicreg = dict(
        fn="vicreg",
        student="projection",
        teacher="projection",
        pairs="unordered",
        invariance_weight=25.0,
        variance_weight=25.0,
        covariance_weight=1.0,
    )
    if preset == "imagenet1k_resnet50":
        vision.imagenet_recipe(
            config, name="lars", learning_rate=1.6, weight_decay=1e-6, batch=2048, epochs=1000
        )
    return config
