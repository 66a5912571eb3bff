"""MOKD: a convolutional network and a ViT learn by DINO, and from each other's teachers.

Song, Xie, Zhang, Luo (2023), Multi-mode online knowledge distillation for self-supervised visual
representation learning, arXiv 2304.06461.

  python -m jaxssl.main --config=experiments/mokd.py --workdir=runs/mokd

scikit-learn's digits; on 2 CPU cores about 8 minutes; held-out 5-shot accuracy of at least 82 %
(raw pixels 85 %, random init 72 %) and kNN accuracy of at least 93 % (raw pixels 98 %, random init
91 %) of the convolutional network's teacher.

  python -m jaxssl.main --config=experiments/mokd.py:cifar10 --workdir=runs/mokd-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10. `--config.evals.encoder=teacher_b` takes the ViT's teacher. The
control lets the two networks learn alone.
"""

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_resnet50")
CONTROLS = {
    "no_cross_distillation": {
        "method_options.a.cross_weight": 0.0,
        "method_options.b.cross_weight": 0.0,
    }
}
PROOF = dict(preset="digits", on="fewshot/5_shot", seeds=3)


class Scale(NamedTuple):
    """What differs between presets; grids are the maps of tokens of the global views."""

    vit: dict[str, Any]
    norm: str
    hidden: tuple[int, ...]
    bottleneck: int
    prototypes: int
    search: dict[str, Any]
    grids: dict[str, int]
    decay: float


SCALES = {
    "digits": Scale(
        dict(width=64, depth=2, heads=2, patch=4, image_size=16, pool="mean"),
        "batch",
        (256, 256),
        64,
        256,
        dict(width=64, depth=1, heads=2),
        dict(a=4, b=4),
        0.99,
    ),
    "cifar10": Scale(
        dict(width=96, depth=4, heads=3, patch=4, image_size=24, pool="mean"),
        "batch",
        (512, 512),
        128,
        1024,
        dict(width=96, depth=1, heads=3),
        dict(a=3, b=6),
        0.99,
    ),
}
HEADLINE = Scale(
    dict(size="S", patch=16, image_size=224, pool="cls"),
    "none",
    (2048, 2048),
    256,
    65536,
    dict(width=384, depth=3, heads=6),
    dict(a=7, b=14),
    0.996,
)


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    scale = SCALES.get(preset, HEADLINE)
    config.method = "mokd"
    for name, norm in (("a", True), ("b", False)):
        config.student[f"projector_{name}"] = dict(
            name="mlp",
            widths=(*scale.hidden, scale.bottleneck),
            norm=scale.norm,
            activation="gelu",
        )
        config.student[f"search_{name}"] = dict(
            name="transformer_head", grid=scale.grids[name], **scale.search
        )
        # As published, the lengths of the prototypes are learned for the ViT alone.
        for head, unit_input in (("prototypes", True), ("search_prototypes", False)):
            config.student[f"{head}_{name}"] = dict(
                name="prototypes",
                count=scale.prototypes,
                normalize_input=unit_input,
                weight_norm=norm,
            )
        config.teachers[name] = dict(rule="ema", decay=("cosine", scale.decay, 1.0))
    config.method_options = dict(
        a=dict(cross_weight=1.0, teacher_temperature=0.04),
        b=dict(
            cross_weight=0.1,
            teacher_temperature=0.04,
            encoder=dict(name="vit", **scale.vit),
            optimizer=dict(learning_rate=("warmup_cosine", 1e-3, 30, 1e-6)),
        ),
        student_temperature=0.1,
        cross_temperature=0.04,
    )
    config.evals.encoder = "teacher_a"
    if preset == "digits":
        glyphs = config.views["global"].to_dict() | dict(count=2)
        part = dict(count=2, size=8, crop=dict(scale=(0.3, 0.6)), noise=dict(sigma=0.1))
        config.views = {"global": glyphs, "local": part}
    elif preset == "cifar10":
        config.views.local = config.views["global"].to_dict() | dict(
            size=16, crop=dict(scale=(0.1, 0.3))
        )
    else:
        recipe(config)
    return config


def recipe(config: ConfigDict) -> None:
    """ImageNet-1k as published: 100 epochs, a ResNet-50 by SGD, a ViT-S/16 by AdamW."""
    batch = 256
    epoch = vision.imagenet_epoch(batch)
    first, second = vision.imagenet_pair("asymmetric")
    globals_ = dict(count=1, size=224, crop=dict(scale=(0.25, 1.0)))
    config.views = {
        "first": first | globals_,
        "second": second | globals_,
        "local": first
        | dict(
            count=8,
            size=96,
            crop=dict(scale=(0.05, 0.25)),
            blur=first["blur"] | dict(probability=0.5),
        ),
    }
    # The head's transformer follows the ViT's schedules, by SGD as the rest of the network.
    vit_rate = ("warmup_cosine", 3e-4, 10 * epoch, 1e-5)
    vision.imagenet_recipe(
        config,
        name="sgd",
        learning_rate=0.1,
        end=4.8e-3,
        weight_decay=1e-4,
        batch=batch,
        epochs=100,
        clip_per_tensor=3.0,
    )
    config.optimizer.groups = dict(
        search=dict(
            match="^search_a/", own_learning_rate=vit_rate, weight_decay=("cosine", 400.0, 4000.0)
        ),
        prototypes=dict(match="^prototypes_", freeze_until=epoch),
        search_prototypes=dict(
            match="^search_prototypes_",
            freeze_until=epoch,
            own_learning_rate=vit_rate,
            weight_decay=("cosine", 400.0, 4000.0),
        ),
    )
    # A teacher's temperature rises epoch by epoch: over 50 of them in a's own terms, else over 30.
    slow, fast = (vision.rising(0.04, 0.07, epochs, epoch) for epochs in (50, 30))
    config.method_options.a.teacher_temperature = slow
    config.method_options.b.update(
        teacher_temperature=fast,
        drop_path=0.1,
        optimizer=dict(
            name="adamw",
            learning_rate=vit_rate,
            weight_decay=("cosine", 0.04, 0.4),
            groups=dict(last=dict(match="prototypes_b/", freeze_until=epoch)),
        ),
    )
    config.method_options.cross_temperature = fast
