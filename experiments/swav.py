"""SwAV: views predict the balanced codes of the other views.

Caron, Misra, Mairal, Goyal, Bojanowski, Joulin (2020), Unsupervised learning of visual features by
contrasting cluster assignments, arXiv 2006.09882.

  python -m jaxssl.main --config=experiments/swav.py --workdir=runs/swav

scikit-learn's digits; after 200 steps (--config.train.steps=200) held-out 5-shot accuracy of about
94 % (raw pixels 85 %, random init 72 %). The control gives every sample the same code, which leaves
nothing to learn.

  python -m jaxssl.main --config=experiments/swav.py:cifar10 --workdir=runs/swav-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10, with a queue.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_resnet50")
CONTROLS = {"equal_codes": {"losses.swav.epsilon": 1000.0}}
PROOF = dict(preset="digits", on="fewshot/5_shot", seeds=3)
# preset -> (widths of the projector, prototypes K)
SCALES = {"digits": ((256, 64), 128), "cifar10": ((512, 128), 512)}
HEADLINE = ((2048, 128), 3000)


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    widths, count = SCALES.get(preset, HEADLINE)
    config.method = "composed"
    config.student.projector = dict(name="mlp", widths=widths, norm="batch")
    config.student.prototypes = dict(
        name="prototypes", count=count, reads="projection", output="scores"
    )
    config.losses.swav = dict(
        fn="swav", student="scores", pairs="all", temperature=0.1, epsilon=0.05, iterations=3
    )
    freeze_until = 10
    if preset == "cifar10":
        # A batch that is small beside K is balanced together with the last embeddings.
        queue = dict(memory="queue", of="projection:global", size=3840, per_view=True)
        config.losses.swav.update(
            past=queue | dict(head="prototypes"), use_past=("piecewise", 0.0, (400, 1.0))
        )
    if preset not in SCALES:
        batch = 4096
        vision.imagenet_recipe(
            config,
            name="lars",
            learning_rate=4.8,
            end=0.0048,
            weight_decay=1e-6,
            batch=batch,
            epochs=800,
        )
        config.views = vision.imagenet_multi_crop()
        freeze_until = vision.imagenet_epoch(batch)
    config.optimizer.groups = dict(
        prototypes=dict(match="^prototypes/vectors", unit_rows=True, freeze_until=freeze_until)
    )
    return config
