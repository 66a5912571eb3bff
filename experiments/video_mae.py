"""Video MAE: rebuild a clip from a tenth of its boxes of space and time, hidden without regard.

Feichtenhofer, Fan, Li, He (2022), Masked autoencoders as spatiotemporal learners, arXiv 2205.09113,
with the pixels as they are and a constant rate of learning as in Orhan, Wang, Wang, Ren, Lake
(2024), Self-supervised learning of video representations from a child's perspective, arXiv
2402.00300.

  python -m jaxssl.main --config=experiments/video_mae.py --workdir=runs/video_mae

Clips of a moving digit, made from scikit-learn's; the label is the digit, and with
--config.data.source=moving_digits:direction where it goes. The control hides so little that the
boxes around it give it away.

  python -m jaxssl.main --config=experiments/video_mae.py:clips_vit_h14 --workdir=runs/video_mae-h14

Clips of 16 frames as uint8 arrays in the one npz file under $JAXSSL_DATA/clips.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "clips_vit_h14")
CONTROLS = {"little_hidden": {"masks.hidden.ratio": 0.1}}
PROOF = dict(preset="digits", on="knn/accuracy", seeds=3)
# preset -> the decoder's width, depth and heads.
DECODERS = {"digits": (64, 2, 2), "clips_vit_h14": (512, 4, 16)}


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base("digits" if preset == "digits" else "imagenet1k_vit_h14")
    config.preset = preset
    frames, tubelet = (8, 2) if preset == "digits" else (16, 2)
    clip = dict(frames=frames, tubelet=tubelet, pool="mean", posemb="sincos3d")
    vision.patches(config, ("crop", "flip"), **clip)
    if preset == "digits":
        config.data.update(
            source="moving_digits", size=32, frames=frames, mean=(0.08,), std=(0.21,)
        )
        config.encoder.image_size = config.views["global"].size = 32
        config.train.global_batch = 64
    else:
        config.data.update(
            source="npz",
            path=vision.data_path("clips"),
            frames=frames,
            mean=(0.45,) * 3,
            std=(0.225,) * 3,
        )
        config.views["global"].crop.update(scale=(0.5, 1.0), ratio=(0.75, 4 / 3))
        config.method_options = dict(drop_path=0.0)
        config.encoder.class_token = True
        config.train.global_batch = 512
        config.optimizer.update(name="adamw", learning_rate=1e-4, weight_decay=0.05, clip_norm=0.1)
    config.method = "composed"
    patch, channels = config.encoder.patch, len(config.data.mean)
    # One permutation of all boxes, whichever frame they are of.
    config.masks.hidden = dict(name="random", ratio=0.9, how="drop")
    width, depth, heads = DECODERS[preset]
    config.student.decoder = dict(
        name="decoder",
        width=width,
        depth=depth,
        heads=heads,
        grid=(frames // tubelet, *vision.grid(config)),
        patch_values=tubelet * patch**2 * channels,
        reads="tokens",
        output="reconstruction",
    )
    config.targets.pixels = dict(name="pixels", patch=(tubelet, patch, patch))
    config.losses.pixels = dict(
        fn="mae",
        student="reconstruction",
        teacher="input/pixels",
        pairs="same",
        mask=dict(mask="hidden"),
        normalize_target=False,
    )
    config.optimizer.beta2 = 0.95
    return config
