"""MMCR: centroids of a sample's views that span as much as they can, as a nuclear norm.

Yerxa, Kuang, Simoncelli, Chung (2023), Learning efficient coding of natural images with maximum
manifold capacity representations, arXiv 2303.03307.

  python -m jaxssl.main --config=experiments/mmcr.py --workdir=runs/mmcr

scikit-learn's digits.

  python -m jaxssl.main --config=experiments/mmcr.py:cifar10 --workdir=runs/mmcr-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10. Both have two views; the loss takes any number. The
control has no slow copy of the network, as the paper trains on small images.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_resnet50")
CONTROLS = {"no_momentum": {"losses.capacity.teacher": "projection"}}
PROOF = dict(preset="digits", on="fewshot/5_shot", seeds=3)
# preset -> widths of the projector
SCALES = {
    "digits": (256, 256, 64),
    "cifar10": (512, 512, 128),
    "imagenet1k_resnet50": (8192, 8192, 512),
}


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    vision.two_views(config, "asymmetric")
    config.method = "composed"
    # All views of a batch pass the network as one.
    config.method_options.batch_statistics = "all"
    config.student.projector = dict(
        name="mlp", widths=SCALES[preset], norm="batch", last_bias=False
    )
    config.teachers.ema = dict(rule="ema", follows=("encoder", "projector"), decay=0.99)
    config.losses.capacity = dict(
        fn="mmcr",
        student="projection",
        teacher="ema/projection",
        pairs="samples",
        local_weight=0.0,
        normalize=True,
    )
    if preset == "imagenet1k_resnet50":
        vision.imagenet_recipe(
            config,
            name="lars",
            learning_rate=6.4,
            end=6.4e-3,
            weight_decay=1e-6,
            batch=2048,
            epochs=100,
        )
    return config
