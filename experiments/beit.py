"""BEiT: predict the codes of hidden blocks of patches, from a codebook that was made before.

Bao, Dong, Piao, Wei (2022), BEiT: BERT pre-training of image transformers, arXiv 2106.08254. The
published tokenizer is a discrete variational autoencoder; here it is k-means of patches.

  python -m jaxssl.main --config=experiments/beit.py --workdir=runs/beit

scikit-learn's digits; minutes on 2 CPU cores. kNN 79.6 %, of the control 66.2 %, of random init
45.0 % (1 seed). The control hides nearly everything, so that there is nothing to predict from:

  ... --config.masks.hidden.ratio=0.99

  python -m jaxssl.main --config=experiments/beit.py:cifar10 --workdir=runs/beit-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10.

At equal compute, by `python -m jaxssl.compare --table=comparison_vit`: 24,000 GFLOP of `cifar10`, 8
min 17 s on 2 CPU cores, with other work beside it, 1 seed: kNN 33.4, linear 38.2; random init 27.5,
32.1; raw pixels 33.2, 37.1; the control 31.1, 37.6.
"""

import math

from ml_collections import ConfigDict

from jaxssl import base

PRESETS = ("digits", "cifar10", "imagenet1k_vit_b16")
# preset -> (codes K, steps of the tokenizer, its batch).
SCALES = {"digits": (128, 300, 128), "cifar10": (512, 500, 256)}
HEADLINE = (8192, 5000, 256)


def get_config(preset: str = "digits") -> ConfigDict:
    config = base.vision(preset)
    base.patches(config, pool="mean", mask_token=True)
    if preset == "digits":
        base.longer(config, 4)  # what is hidden is learned slowly
    config.method = "masked_prediction"
    count, steps, batch = SCALES.get(preset, HEADLINE)
    # Of 14 x 14 patches, 75 are hidden, by rectangles of at least 16.
    config.masks.hidden = dict(
        name="block", ratio=75 / 196, least=math.prod(base.grid(config)) // 12
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
        base.imagenet_recipe(
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
