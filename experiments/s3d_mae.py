"""S3D: rebuild hidden blocks of a volume with a U-Net whose encoder computes on what is visible.

Wald, Ulrich, Lukyanenko et al. (2024), Revisiting MAE pre-training for 3D medical image
segmentation, arXiv 2410.23132.

  python -m jaxssl.main --config=experiments/s3d_mae.py --workdir=runs/s3d_mae

Volumes made from scikit-learn's digits. The control is dense: it sees hidden blocks as zeros, and
computes on them.

  python -m jaxssl.main --config=experiments/s3d_mae.py:em --workdir=runs/s3d_mae-em

Cubes of electron microscopy under $JAXSSL_DATA/em_membrane.

  python -m jaxssl.main --config=experiments/s3d_mae.py:volumes160 --workdir=runs/s3d_mae-160

Volumes of 160 voxels a side as uint8 arrays in the one npz file under $JAXSSL_DATA/volumes160.
"""

from typing import Any

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "em", "volumes160")
CONTROLS = {"dense": {"encoder.sparse": False, "student.decoder.densify": False}}
PROOF = dict(preset="digits", on="knn/accuracy", seeds=3)
DATA: dict[str, dict[str, Any]] = {
    "digits": dict(source="stacked_digits", size=16, frames=8, mean=(0.31,), std=(0.18,)),
    "em": dict(source="em_volume", size=32, frames=8, mean=(0.48,), std=(0.16,)),
    "volumes160": dict(source="npz", size=160, frames=160, mean=(0.2,), std=(0.2,), cache="none"),
}
PATHS = {"em": "em_membrane", "volumes160": "volumes160"}
SMALL = dict(widths=(8, 16, 32), blocks=(1, 1, 1), unit=4)
RESENC_L = dict(widths=(32, 64, 128, 256, 320, 320), blocks=(1, 3, 4, 6, 6, 6), unit=16)


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base("digits")
    config.preset = preset
    config.data.update(DATA[preset])
    if preset in PATHS:
        config.data.path = vision.data_path(PATHS[preset])
    large = preset == "volumes160"
    network = RESENC_L if large else SMALL
    config.encoder = dict(name="residual_unet", dims=3, sparse=True, **network)
    # Mirrored and turned within the slices; digits are not mirrored.
    turned = dict(affine=dict(rotation=15.0, log_scale=0.2, shift=0.05))
    mirrored = dict(flip=0.5, vertical_flip=0.5) if preset in PATHS else {}
    config.views = {"global": dict(count=1, size=config.data.size, **turned, **mirrored)}
    config.method = "composed"
    # Of a ratio for the whole batch, as published, so that as much of each sample is visible.
    config.masks.hidden = dict(name="random", ratio=(0.6, 0.9), per="batch", how="replace")
    config.student.decoder = dict(
        name="unet_decoder",
        channels=1,
        unit=network["unit"],
        densify=True,
        reads="stages",
        output="reconstruction",
    )
    config.targets.pixels = dict(name="pixels", patch=network["unit"])
    config.losses.pixels = dict(
        fn="mae",
        student="reconstruction",
        teacher="input/pixels",
        pairs="same",
        mask=dict(mask="hidden"),
        normalize_target=False,
    )
    config.train.global_batch = 32
    if large:
        config.train.update(steps=4000 * 250, global_batch=48, precision="bfloat16")
        config.optimizer.update(
            name="sgd",
            learning_rate=("polynomial", 3e-2, 0.9),
            momentum=0.99,
            nesterov=True,
            weight_decay=3e-5,
            clip_norm=12.0,
        )
        config.evals.every_steps = config.checkpoint.every_steps = 250 * 100
    return config
