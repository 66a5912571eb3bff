"""SiT: repair a view with patches of pixels put out or overwritten, and find its other view's key.

Atito, Awais, Kittler (2021), SiT: self-supervised vision transformer, arXiv 2104.03602, in its
later form: contrast with the keys of a slowly moving copy, which sees the views undamaged.

  python -m jaxssl.main --config=experiments/sit.py --workdir=runs/sit

scikit-learn's digits. The control does not contrast; one that does not repair drops the other term.

  python -m jaxssl.main --config=experiments/sit.py:cifar10 --workdir=runs/sit-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_vit_s16")
CONTROLS = {"no_contrast": {"losses.contrast": None}, "no_reconstruction": {"losses.pixels": None}}
PROOF = dict(preset="digits", on="knn/accuracy", seeds=3)
# preset -> (widths of the projector, weight of the reconstruction)
SCALES = {
    "digits": ((256, 256, 64), 5.0),
    "cifar10": ((512, 512, 128), 5.0),
    "imagenet1k_vit_s16": ((4096, 4096, 256), 1.0),
}
WIDTH_S = 384


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    projector, weight = SCALES[preset]
    views = config.views["global"].to_dict()
    # Small networks pool their patches: their class token is at first nearly the same for every
    # sample, and a batch norm of such numbers enlarges their rounding.
    vision.patches(config, pool="cls" if preset == "imagenet1k_vit_s16" else "mean")
    # Unlike a method that only repairs, this one compares views.
    config.views["global"] = {**views, "size": config.views["global"].size}
    vision.two_views(config, "asymmetric")
    if preset == "imagenet1k_vit_s16":
        for view in config.views.values():
            view.crop.scale = (0.2, 1.0)
    config.method = "composed"
    patch, channels = config.encoder.patch, len(config.data.mean)
    width = config.encoder.get("width") or WIDTH_S
    config.masks.groups = dict(name="group", area=0.5, replaced_area=0.3, replaced=0.5)
    config.student.projector = dict(
        name="mlp", widths=projector, norm="batch", last_norm=True, last_affine=False
    )
    config.student.decoder = dict(
        name="mlp",
        widths=(width, width, width, patch**2 * channels),
        norm="none",
        activation="gelu",
        reads="tokens",
        output="reconstruction",
    )
    config.teachers.ema = dict(
        rule="ema", follows=("encoder", "projector"), decay=("cosine", 0.996, 1.0)
    )
    config.targets.pixels = dict(name="pixels", patch=patch)
    # The paper sums both directions; pairs are averaged.
    config.losses.contrast = dict(
        fn="moco_v3",
        student="projection",
        teacher="ema/projection",
        pairs="cross",
        temperature=0.2,
        weight=2.0,
    )
    # One mean over the hidden pixels of both views.
    config.losses.pixels = dict(
        fn="simmim",
        student="reconstruction",
        teacher="input/pixels",
        pairs="all",
        mask=dict(mask="groups", field="patches"),
        weight=weight,
    )
    if preset == "imagenet1k_vit_s16":
        batch = 256
        config.method_options = dict(drop_path=0.1)
        vision.imagenet_recipe(
            config,
            name="adamw",
            learning_rate=5e-4 * batch / 256,
            end=1e-6,
            weight_decay=("cosine", 0.04, 0.1),
            batch=batch,
            epochs=800,
            clip_norm=3.0,
        )
    return config
