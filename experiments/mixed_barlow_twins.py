"""Mixed Barlow Twins: Barlow Twins, and embeddings of mixed samples that mix as the samples did.

Bandara, De Melo, Patel (2023), Guarding Barlow Twins against overfitting with mixed samples,
arXiv 2312.02151.

  python -m jaxssl.main --config=experiments/mixed_barlow_twins.py --workdir=runs/mixed

scikit-learn's digits.

  python -m jaxssl.main --config=experiments/mixed_barlow_twins.py:cifar10 --workdir=runs/mixed-c10

CIFAR-10 under $JAXSSL_DATA/cifar10. A step encodes three images a sample instead of two: compare at
equal time too. The paper's code for small images makes unit vectors of the embeddings before it
standardises them; here, as in its code for ImageNet, they stay as they are. The control is Barlow
Twins.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_resnet50")
CONTROLS = {"no_mixing": {"losses.mixed.weight": 0.0}}
PROOF = dict(preset="digits", on="fewshot/5_shot", seeds=3)
# preset -> (widths of the projector, off-diagonal weight, weight of the mixed samples)
SCALES = {
    "digits": ((256, 256, 128), 1 / 128, 4.0),
    "cifar10": ((512, 512, 256), 1 / 128, 4.0),
    # The published 1.0 stands before half the sum of both distances.
    "imagenet1k_resnet50": ((8192, 8192, 8192), 5.1e-3, 0.5),
}


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    widths, off_diagonal, mixed = SCALES[preset]
    vision.two_views(config, "asymmetric", names=("first", "second"))
    config.method = "composed"
    config.method_options.update(batch_statistics="view", mixed=("first", "second"))
    config.student.projector = dict(name="mlp", widths=widths, norm="batch", last_bias=False)
    views = dict(student="projection:first", teacher="projection:second", pairs="cross")
    config.losses.redundancy = dict(fn="barlow_twins", off_diagonal_weight=off_diagonal, **views)
    config.losses.mixed = dict(
        fn="mixed_cross_correlation",
        mixed=dict(output="projection:mixed"),
        weight=mixed * off_diagonal,
        **views,
    )
    if preset == "imagenet1k_resnet50":
        vision.imagenet_recipe(
            config,
            name="lars",
            learning_rate=1.0,
            end=1e-3,
            weight_decay=1e-6,
            batch=1024,
            epochs=300,
        )
        warmup = 10 * vision.imagenet_epoch(1024)
        config.optimizer.groups = dict(
            vectors=dict(
                match=r"(^|/)(bias|scale)$",
                own_learning_rate=("warmup_cosine", 0.0192, warmup, 1.92e-5),
            )
        )
    return config
