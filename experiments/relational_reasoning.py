"""Relational reasoning: a small head tells pairs of views of one sample from pairs of two samples.

Patacchiola, Storkey (2020), Self-supervised relational reasoning for representation learning,
arXiv 2006.05849.

  python -m jaxssl.main --config=experiments/relational_reasoning.py --workdir=runs/relational

scikit-learn's digits; on 2 CPU cores about 2 minutes; held-out 5-shot accuracy of at least 94 %
(raw pixels 85 %, random init 72 %).

  python -m jaxssl.main --config=experiments/relational_reasoning.py:cifar10 \
    --workdir=runs/relational-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes

PRESETS = ("digits", "cifar10", "cifar10_resnet34")
# All weight on pairs of views of one sample: nothing tells it from other samples.
CONTROLS = {"no_negatives": {"method_options.alpha": 1.0}}
PROOF = dict(preset="digits", on="fewshot/5_shot", seeds=3)


def get_config(preset: str = "digits") -> ConfigDict:
    published = preset == "cifar10_resnet34"
    config = recipes.base("cifar10" if published else preset)
    config.method = "relational_reasoning"
    config.student.relation = dict(
        name="mlp", widths=(256, 1), norm="batch", activation="leaky_relu"
    )
    if preset == "cifar10":
        # More views of fewer samples: pairs grow with the square of the views.
        config.views["global"].count = 4
        config.train.update(global_batch=128)
    if published:
        _published(config)
    return config


def _published(config: ConfigDict) -> None:
    """32 views of 64 samples, for 200 epochs at a constant learning rate."""
    config.preset = "cifar10_resnet34"
    config.encoder = dict(name="resnet", depth=34, stem="cifar", zero_init_last=False)
    config.views = {
        "global": dict(
            count=32,
            size=32,
            crop=dict(scale=(0.08, 1.0)),
            flip=0.5,
            jitter=dict(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, probability=0.8),
            grayscale=0.2,
        )
    }
    config.train.update(steps=0, epochs=200, global_batch=64, precision="bfloat16")
    config.optimizer.update(name="adamw", learning_rate=1e-3, weight_decay=0.0)
