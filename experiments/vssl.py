"""VSSL: a Gaussian embedding against that of a slowly moving copy, its prior; cosine form.

Yavuz, Yanikoglu (2025), Variational self-supervised learning, arXiv 2504.04318. No
public implementation confirms the constants of the cosine form; heads and predictor follow BYOL.

  python -m jaxssl.main --config=experiments/vssl.py --workdir=runs/vssl

scikit-learn's digits; held-out 5-shot accuracy above that of random init (72 %; raw pixels 85 %).

  python -m jaxssl.main --config=experiments/vssl.py:cifar10 --workdir=runs/vssl-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10. The control is denoising alone, which lets the student's spread
shrink.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "cifar10_resnet18")
CONTROLS = {"denoising_alone": {"losses.divergence.weight": 0.0}}
PROOF = dict(preset="digits", on="fewshot/5_shot", seeds=3)
# preset -> widths of projector and predictor; the last is that of means and log-variances together
WIDTHS = {"digits": (256, 128), "cifar10": (512, 256), "cifar10_resnet18": (4096, 512)}


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base("cifar10" if preset == "cifar10_resnet18" else preset)
    widths = WIDTHS[preset]
    vision.two_views(config, "asymmetric")
    config.method = "composed"
    config.method_options.batch_statistics = "view"
    config.student.projector = dict(name="mlp", widths=widths, norm="batch")
    config.student.predictor = dict(name="mlp", widths=widths, norm="batch")
    config.teachers.ema = dict(
        rule="ema", follows=("encoder", "projector"), decay=("cosine", 0.99, 1.0)
    )
    for name in ("denoising", "divergence"):
        config.losses[name] = dict(
            fn=f"cosine_{name}", student="prediction", teacher="ema/projection", pairs="cross"
        )
    if preset == "cifar10_resnet18":
        _published(config)
    return config


def _published(config: ConfigDict) -> None:
    """1,000 epochs of a ResNet-18 on whole images of 32 px."""
    epoch = 50_000 // 256
    config.preset = "cifar10_resnet18"
    config.encoder = dict(name="resnet", depth=18, stem="cifar")
    config.views["global"].size = 32
    config.train.update(steps=0, epochs=1000, global_batch=256, precision="bfloat16")
    config.optimizer.update(
        name="lars",
        learning_rate=("warmup_cosine", 1.0, 10 * epoch),
        weight_decay=1e-5,
        trust_coefficient=0.02,
    )
    config.checkpoint.every_steps = 10 * epoch
