"""DIET: every sample is a class of its own, told apart by one linear layer with smoothed labels.

Ibrahim, Klindt, Balestriero (2024), Occam's razor for self supervised learning: what is sufficient
to learn good representations?, arXiv 2406.10743.

  python -m jaxssl.main --config=experiments/diet.py --workdir=runs/diet

scikit-learn's digits; held-out 5-shot accuracy above that of random init (72 %; raw pixels 85 %).

  python -m jaxssl.main --config=experiments/diet.py:cifar10 --workdir=runs/diet-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10. The control has plain labels, which are learnt by heart.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes

PRESETS = ("digits", "cifar10", "cifar10_resnet18")
CONTROLS = {"plain_labels": {"losses.index.smoothing": 0.0}}
PROOF = dict(preset="digits", on="fewshot/5_shot", seeds=3)


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base("cifar10" if preset == "cifar10_resnet18" else preset)
    config.views["global"].count = 1
    config.method = "composed"
    config.student.classifier = dict(
        name="classifier", width="num_samples", bias=False, reads="pooled", output="logits"
    )
    config.losses.index = dict(
        fn="label_smoothing_cross_entropy",
        student="logits",
        pairs="single",
        labels=dict(batch="index"),
        smoothing=0.8,
    )
    if preset == "cifar10_resnet18":
        _published(config)
    return config


def _published(config: ConfigDict) -> None:
    """1,000 epochs of a ResNet-18 on crops of 32 px."""
    epoch = 50_000 // 256
    config.preset = "cifar10_resnet18"
    config.encoder = dict(name="resnet", depth=18, stem="cifar")
    config.views["global"].size = 32
    config.train.update(steps=0, epochs=1000, global_batch=256, precision="bfloat16")
    config.optimizer.update(learning_rate=("warmup_cosine", 1e-3, 10 * epoch), weight_decay=0.05)
    config.checkpoint.every_steps = 10 * epoch
