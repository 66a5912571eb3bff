"""EfficientTrain: low frequencies and weak augmentation first, the whole images later; on SimCLR.

Wang, Yue, Lu, Liu, Zhong, Song, Huang (2023), EfficientTrain: exploring generalized curriculum
learning for training visual backbones, arXiv 2211.09703. Its augmentation is RandAugment; here the
strength of SimCLR's own recipe rises.

  python -m jaxssl.main --config=experiments/efficienttrain.py --workdir=runs/efficienttrain

scikit-learn's digits, 150 steps a stage with 0.49 of the control's FLOPs; 2 minutes on 2 CPU cores,
most of them compilation and evaluation. kNN 98.3 %, of the control 98.5 %; linear accuracy 99.3 %,
of the control 99.5 % (3 seeds). The control sees whole and fully augmented views in all of its
steps, which are as many.

  python -m jaxssl.main --config=experiments/efficienttrain.py:cifar10 \\
      --workdir=runs/efficienttrain-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10.
"""

from typing import Any

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision
from jaxssl.run.stages import TAKEN

PRESETS = ("digits", "cifar10", "imagenet1k_resnet50")
CONTROLS = {"no_curriculum": {"stages": ()}}
PROOF = dict(preset="digits", on="linear/accuracy", seeds=3)
# preset -> side of the views in each stage, in pixels; the stages are equally long.
SIDES = {
    "digits": (8, 8, 12, 16),
    "cifar10": (16, 16, 24, 32),
    "imagenet1k_resnet50": (160, 160, 160, 192, 224),
}
# preset -> (widths of the projector, temperature)
SCALES = {
    "digits": ((256, 64), 0.2),
    "cifar10": ((512, 128), 0.2),
    "imagenet1k_resnet50": ((2048, 128), 0.1),
}
# transform -> the fields that say how strong it is.
STRENGTHS = {
    "jitter": ("brightness", "contrast", "saturation", "hue", "additive"),
    "affine": ("rotation", "log_scale", "log_aspect", "shear", "shift"),
    "elastic": ("sigma",),
}


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    widths, temperature = SCALES[preset]
    config.views["global"].size = SIDES[preset][-1]
    vision.two_views(config, "simclr")
    config.method = "composed"
    config.student.projector = dict(
        name="mlp", widths=widths, norm="batch", last_norm=True, last_affine=False
    )
    config.losses.contrast = dict(
        fn="nt_xent",
        student="projection",
        teacher="projection",
        pairs="unordered",
        temperature=temperature,
    )
    if preset == "imagenet1k_resnet50":
        batch, epochs = 4096, 1000
        vision.imagenet_recipe(
            config, name="lars", learning_rate=4.8, weight_decay=1e-6, batch=batch, epochs=epochs
        )
        config.train.update(epochs=0.0, steps=epochs * vision.imagenet_epoch(batch))
    config.stages = curriculum(config, SIDES[preset])
    return config


def curriculum(config: Any, sides: tuple[int, ...]) -> tuple[dict[str, Any], ...]:
    """Equal stages of the run, on one schedule, each with all that the one before has left.

    Of n stages the i-th, counted from 0, augments with (2i + 1) / (2n - 1) of the strength.
    """
    total, rate, view = config.train.steps, config.optimizer.learning_rate, config.views["global"]
    steps = total // len(sides)
    stages: list[dict[str, Any]] = []
    for i, side in enumerate(sides):
        changes: dict[str, Any] = {
            "train.steps": steps,
            "optimizer.learning_rate": ("part", i * steps, total, rate),
        }
        if side < view.size:
            changes["views.global.low_frequency"] = dict(size=side)
        strength = (2 * i + 1) / (2 * len(sides) - 1)
        for transform in sorted(STRENGTHS.keys() & view.keys()):
            for field in STRENGTHS[transform]:
                if field in view[transform]:
                    full = view[transform][field]
                    changes[f"views.global.{transform}.{field}"] = strength * full
        start = dict(init_from=stages[-1]["name"], take=TAKEN) if stages else {}
        stages.append(dict(name=f"part{i + 1}", changes=changes, **start))
    return tuple(stages)
