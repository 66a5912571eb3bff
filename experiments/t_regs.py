"""T-REGS: make the minimum spanning tree of the embeddings long, near the unit sphere.

Mordacq, Loiseaux, Kalogeiton, Oudot (2025), T-REGS: minimum spanning tree regularization for
self-supervised learning, arXiv 2510.23484.

  python -m jaxssl.main --config=experiments/t_regs.py --workdir=runs/t_regs

scikit-learn's digits.

  python -m jaxssl.main --config=experiments/t_regs.py:cifar10 --workdir=runs/t_regs-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10. The published weights, of the largest preset, rest on long
training of wide embeddings: on digits they let the tree shrink, and 5-shot accuracy stays below
that of random init, so the small presets weigh the tree and the sphere more. The control is without
the tree.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_resnet50")
CONTROLS = {"no_tree": {"losses.length.weight": 0.0}}
PROOF = dict(preset="digits", on="fewshot/5_shot", seeds=3)
# preset -> (widths of the projector, weights of invariance, length and sphere: β, γ, λ)
SCALES = {
    "digits": ((256, 256, 64), (1.0, 2.0, 0.5)),
    "cifar10": ((512, 512, 128), (1.0, 2.0, 0.5)),
    "imagenet1k_resnet50": ((4096, 4096, 1024), (10.0, 0.2, 8e-4)),
}


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    widths, (invariance, length, sphere) = SCALES[preset]
    vision.two_views(config, "moco")
    config.method = "composed"
    config.method_options.batch_statistics = "view"
    # A bias would move all embeddings to the sphere at once, which spreads none.
    config.student.projector = dict(name="mlp", widths=widths, norm="batch", last_bias=False)
    config.losses.invariance = dict(
        fn="squared_distance",
        student="projection",
        teacher="projection",
        pairs="unordered",
        weight=invariance,
    )
    # The paper sums both views; views are averaged.
    config.losses.length = dict(
        fn="tree_length_regularizer", student="projection", pairs="single", weight=2 * length
    )
    config.losses.sphere = dict(
        fn="soft_sphere", student="projection", pairs="single", weight=2 * sphere
    )
    if preset == "imagenet1k_resnet50":
        config.views["global"].solarize = 0.1
        vision.imagenet_recipe(
            config, name="lars", learning_rate=2.0, weight_decay=1e-5, batch=512, epochs=100
        )
    return config
