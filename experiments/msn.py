"""MSN: views with missing patches predict the prototypes of a whole view.

Assran, Caron, Misra, Bojanowski, Bordes, Vincent, Joulin, Rabbat, Ballas (2022), Masked siamese
networks for label-efficient learning, arXiv 2204.07141.

  python -m jaxssl.main --config=experiments/msn.py --workdir=runs/msn

scikit-learn's digits with a small vision transformer, whose random init has little to build on: a
5-shot accuracy of 68 % (raw pixels 85 %), and 71 % after 200 steps (--config.train.steps=200). The
control without the entropy term lets all anchors share a prototype.

  python -m jaxssl.main --config=experiments/msn.py:cifar10 --workdir=runs/msn-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_vit_s16")
CONTROLS = {"no_entropy": {"losses.msn.entropy_weight": 0.0}}
PROOF = dict(preset="digits", on="fewshot/5_shot", seeds=3)
# preset -> (encoder, hidden widths of the projector, P, prototypes K, fraction of patches dropped).
# A small vision transformer starts out as a bag of patches: few, large ones keep more of a digit.
SCALES = {
    "digits": (dict(width=96, depth=3, heads=3, patch=8, image_size=16), (256, 256), 64, 128, 0.25),
    "cifar10": (
        dict(width=192, depth=4, heads=3, patch=4, image_size=24),
        (512, 512),
        128,
        512,
        0.25,
    ),
}
HEADLINE = (2048, 2048), 256, 1024, 0.15


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    config.method = "composed"
    view = config.views["global"].to_dict()
    if preset in SCALES:
        size, hidden, width, count, dropped = SCALES[preset]
        config.encoder = dict(name="vit", pool="mean", posemb="sincos2d", **size)
        counts = {"target": 1, "anchor": 2}
        config.views = {name: view | dict(count=n) for name, n in counts.items()}
        config.optimizer.learning_rate = ("warmup_cosine", 1e-3, 30, 1e-6)
        decay = ("cosine", 0.99, 1.0)
        # Batches of the size of K: balanced, their targets would be noise at first.
        iterations = 0
    else:
        hidden, width, count, dropped = HEADLINE
        focal = config.views.local.to_dict() | dict(count=10)
        config.views = {
            "target": view | dict(count=1),
            "anchor": view | dict(count=1),
            "focal": focal,
        }
        vision.imagenet_recipe(
            config,
            name="adamw",
            learning_rate=1e-3,
            end=1e-6,
            weight_decay=("cosine", 0.04, 0.4),
            batch=1024,
            epochs=800,
            warmup_epochs=15,
            clip_norm=3.0,
        )
        # A line to 1 over 1.25 times the run.
        decay = ("linear", 0.996, 0.9992)
        iterations = 3
    anchors = "+".join(name for name in config.views if name != "target")
    config.student.projector = dict(
        name="mlp", widths=(*hidden, width), norm="batch", activation="gelu"
    )
    config.student.prototypes = dict(
        name="prototypes", count=count, reads="projection", output="scores"
    )
    config.teachers.ema = dict(
        rule="ema", follows=("encoder", "projector"), decay=decay, views=("target",)
    )
    config.masks.dropped = dict(name="random", views="anchor", ratio=dropped, how="drop")
    config.losses.msn = dict(
        fn="msn",
        student=f"projection:{anchors}",
        teacher="ema/projection",
        pairs="all",
        prototypes=dict(param="prototypes/vectors"),
        temperature=0.1,
        sharpen_temperature=0.25,
        iterations=iterations,
        entropy_weight=1.0,
    )
    return config
