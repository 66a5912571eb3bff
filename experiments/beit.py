"""BEiT: predict the codes of hidden blocks of patches, from a codebook that was made before.

Bao, Dong, Piao, Wei (2022), BEiT: BERT pre-training of image transformers, arXiv 2106.08254. The
published tokenizer is a discrete variational autoencoder; here it is k-means of patches.

  python -m jaxssl.main --config=experiments/beit.py --workdir=runs/beit

scikit-learn's digits; minutes on 2 CPU cores. kNN 79.6 %, of the control 66.2 %, of random init
45.0 % (1 seed). The control hides nearly everything, so that there is nothing to predict from.

  python -m jaxssl.main --config=experiments/beit.py:cifar10 --workdir=runs/beit-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10.
"""

import math

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_vit_b16")
CONTROLS = {"nearly_all_hidden": {"masks.hidden.ratio": 0.99}}
PROOF = dict(preset="digits", on="knn/accuracy", seeds=3)
# preset -> (codes K, steps of the tokenizer, its batch).
SCALES = {"digits": (128, 300, 128), "cifar10": (512, 500, 256)}
HEADLINE = (8192, 5000, 256)


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    vision.patches(config, pool="mean", mask_token=True)
    if preset == "digits":
        vision.longer(config, 4)  # what is hidden is learned slowly
    config.method = "composed"
    count, steps, batch = SCALES.get(preset, HEADLINE)
    # Of 14 x 14 patches, 75 are hidden, by rectangles of at least 16.
    config.masks.hidden = dict(
        name="block", ratio=75 / 196, least=math.prod(vision.grid(config)) // 12
    )
    config.teachers.tokenizer = dict(
        rule="frozen", source="artifact", artifact="tokenizer", follows=("codebook",)
    )
    config.targets.codes = dict(name="codes", patch=config.encoder.patch, teacher="tokenizer")
    config.student.codes = dict(name="linear", width=count, reads="tokens", output="codes")
    config.losses.codes = dict(
        fn="masked_cross_entropy",
        student="codes",
        teacher="input/codes",
        pairs="same",
        mask=dict(mask="hidden"),
    )
    tokenizer = {
        "method": "patch_codebook",
        "method_options": dict(count=count),
        **{section: {} for section in ("student", "teachers", "losses", "masks")},
        "train.steps": steps,
        "train.epochs": 0.0,
        "train.global_batch": batch,
        "optimizer.learning_rate": ("warmup_cosine", 0.05, 10, 0.0),
        "optimizer.weight_decay": 0.0,
        "optimizer.clip_norm": 0.0,
        "evals.every_steps": 0,
    }
    config.stages = (dict(name="tokenizer", changes=tokenizer), dict(name="beit"))
    if preset not in SCALES:
        config.encoder.update(class_token=True, layer_scale=0.1)
        config.method_options = dict(drop_path=0.1)
        vision.imagenet_recipe(
            config,
            name="adamw",
            learning_rate=1.5e-3,
            end=1e-5,
            weight_decay=0.05,
            batch=2048,
            epochs=800,
            clip_norm=3.0,
        )
    return config
