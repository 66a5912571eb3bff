"""DINOv2: DINO and iBOT with heads of their own, balanced codes, and embeddings spread by KoLeo.

Oquab, Darcet, Moutakanni, Vo, Szafraniec, Khalidov, Fernandez, Haziza, Massa, El-Nouby et al.
(2024), DINOv2: learning robust visual features without supervision, arXiv 2304.07193.

  python -m jaxssl.main --config=experiments/dinov2.py --workdir=runs/dinov2

scikit-learn's digits with a small vision transformer. The control neither hides patches nor spreads
embeddings, which leaves DINO with balanced codes.

  python -m jaxssl.main --config=experiments/dinov2.py:cifar10 --workdir=runs/dinov2-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10.
"""

from typing import Any

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_vit_l14", "imagenet1k_vit_g14")
CONTROLS = {"no_masks_no_koleo": {"masks.hidden.probability": 0.0, "losses.koleo.weight": 0.0}}
PROOF = dict(preset="digits", on="knn/accuracy", seeds=3)
# preset -> (hidden widths of both heads, output of the image's head, output of the patches' head,
# prototypes K, first decay of the teacher, layer scale, drop path). Balanced codes need batches of
# more views than there are prototypes.
SCALES = {
    "digits": ((256, 256), 64, 64, 64, 0.99, 1.0, 0.0),
    "cifar10": ((512, 512), 128, 128, 64, 0.99, 1.0, 0.1),
}
HEADLINE = ((2048, 2048), 384, 256, 131072, 0.994, 1e-5, 0.4)


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    hidden, width, patch_width, count, decay, scale, drop_path = SCALES.get(preset, HEADLINE)
    config.method = "composed"
    if preset in SCALES:
        size = config.views["global"].size
        small = vision.SMALL_VITS[preset] | dict(image_size=size, posemb="sincos2d")
        # Class tokens are at first nearly the same for all samples, which KoLeo would magnify.
        config.encoder = dict(name="vit", pool="mean", **small)
        config.views["global"].count = 2
    config.encoder.update(mask_token=True, layer_scale=scale)
    config.method_options.drop_path = drop_path
    config.masks.hidden = dict(name="block", views="global", ratio=(0.1, 0.5), probability=0.5)
    for prefix, reads, output in (("", "pooled", width), ("patch_", "tokens", patch_width)):
        config.student[f"{prefix}projector"] = dict(
            name="mlp",
            widths=(*hidden, output),
            norm="none",
            activation="gelu",
            reads=reads,
            output=f"{prefix}projection",
        )
        config.student[f"{prefix}prototypes"] = dict(
            name="prototypes",
            count=count,
            weight_norm=True,
            reads=f"{prefix}projection",
            output=f"{prefix}scores",
        )
    config.teachers.ema = dict(rule="ema", decay=("cosine", decay, 1.0))
    temperature: Any = 0.04
    if preset not in SCALES:
        temperature = _published(config)
    shared = dict(student_temperature=0.1, teacher_temperature=temperature, iterations=3)
    config.losses.dino = dict(
        fn="sinkhorn_dino", student="scores", teacher="ema/scores", pairs="all", **shared
    )
    config.losses.ibot = dict(
        fn="sinkhorn_ibot",
        student="patch_scores:global",
        teacher="ema/patch_scores",
        pairs="all",
        mask=dict(mask="hidden"),
        **shared,
    )
    # A mean over the two global views; published is 0.1 times their sum.
    config.losses.koleo = dict(fn="koleo", student="pooled:global", pairs="single", weight=0.2)
    return config


def _published(config: ConfigDict) -> tuple[object, ...]:
    """A ViT-L/14 or ViT-g/14 for 625,000 steps on ImageNet-1k; gives the teacher's temperature.

    The published run is on 142 million images. Its layers share one learning rate, but for the
    patch embedding, and one rate of drop path; here that rises from layer to layer.
    """
    batch = 1024
    epoch = vision.imagenet_epoch(batch)
    vision.imagenet_recipe(
        config,
        name="adamw",
        learning_rate=2e-4,  # of this batch; of another with its square root
        end=1e-6,
        weight_decay=("cosine", 0.04, 0.2),
        batch=batch,
        epochs=500,
        warmup_epochs=80,
        clip_norm=3.0,
    )
    config.encoder.ffn = "swiglu"
    config.views["global"].crop.scale = (0.32, 1.0)
    config.views.local.update(count=8, crop=dict(scale=(0.05, 0.32)))
    config.optimizer.groups = dict(
        patch_embedding=dict(match="^encoder/patch_embedding/", learning_rate=0.2),
        prototypes=dict(match="prototypes/vectors$", freeze_until=epoch),
    )
    return vision.rising(0.04, 0.07, 30, epoch)
