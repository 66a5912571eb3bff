"""Barlow Twins: drive the cross-correlation matrix of two views to the identity.

Zbontar, Jing, Misra, LeCun, Deny (2021), Barlow Twins: self-supervised learning via redundancy
reduction, arXiv 2103.03230.

  python -m jaxssl.main --config=experiments/barlow_twins.py --workdir=runs/barlow_twins

scikit-learn's digits.

  python -m jaxssl.main --config=experiments/barlow_twins.py:cifar10 --workdir=runs/barlow_twins-c10

CIFAR-10 under $JAXSSL_DATA/cifar10. The control aligns the views feature by feature and lets the
features repeat each other.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_resnet50")
CONTROLS = {"no_redundancy_reduction": {"losses.redundancy.off_diagonal_weight": 0.0}}
PROOF = dict(preset="digits", on="fewshot/5_shot", seeds=3)
# preset -> (widths of the projector, off-diagonal weight)
SCALES = {
    "digits": ((256, 256, 128), 5e-3),
    "cifar10": ((512, 512, 256), 5e-3),
    "imagenet1k_resnet50": ((8192, 8192, 8192), 5.1e-3),
}


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    widths, weight = SCALES[preset]
    vision.two_views(config, "asymmetric")
    config.method = "composed"
    config.method_options.batch_statistics = "view"
    config.student.projector = dict(name="mlp", widths=widths, norm="batch", last_bias=False)
    config.losses.redundancy = dict(
        fn="barlow_twins",
        student="projection",
        teacher="projection",
        pairs="unordered",
        off_diagonal_weight=weight,
    )
    if preset == "imagenet1k_resnet50":
        vision.imagenet_recipe(
            config,
            name="lars",
            learning_rate=1.6,
            end=1.6e-3,
            weight_decay=1e-6,
            batch=2048,
            epochs=1000,
        )
        # Biases and norms have a rate of their own: no trust ratio scales their step.
        warmup = 10 * vision.imagenet_epoch(2048)
        config.optimizer.groups = dict(
            vectors=dict(
                match=r"(^|/)(bias|scale)$",
                own_learning_rate=("warmup_cosine", 0.0384, warmup, 3.84e-5),
            )
        )
    return config
