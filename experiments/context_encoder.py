"""Context encoder: fill a hole in the middle of an image from what surrounds it.

Pathak, Krähenbühl, Donahue, Darrell, Efros (2016), Context encoders: feature learning by
inpainting, arXiv 1604.07379.

  python -m jaxssl.main --config=experiments/context_encoder.py --workdir=runs/context_encoder

scikit-learn's digits. The control has no adversary.

  python -m jaxssl.main --config=experiments/context_encoder.py:cifar10 --workdir=runs/context-c10

CIFAR-10 under $JAXSSL_DATA/cifar10.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes

PRESETS = ("digits", "cifar10", "imagenet1k_resnet50")
CONTROLS = {"no_adversary": {"method_options.adversarial_weight": 0.0}}
PROOF = dict(preset="digits", on="linear/accuracy", seeds=3)
# preset -> (side of the view, widths of the decoder, widths of the discriminator, overlap)
SCALES = {
    "digits": (16, (64, 32), (16, 32, 64), 1),
    "cifar10": (32, (128, 64, 32), (32, 64, 128), 2),
    "imagenet1k_resnet50": (128, (512, 256, 128, 64, 32), (64, 128, 256, 512), 7),
}


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    side, widths, judge, overlap = SCALES[preset]
    view = config.views["global"].to_dict()
    kept = {name: view[name] for name in ("crop", "flip", "affine") if name in view}
    config.views = {"global": dict(count=1, **kept, size=side)}
    config.method = "context_encoder"
    config.masks.hole = dict(name="region", side=0.5, place="center")
    channels = len(config.data.mean)
    config.student.decoder = dict(name="image_decoder", widths=widths, channels=channels)
    config.method_options = dict(
        adversarial_weight=0.001,
        overlap=overlap,
        overlap_weight=10.0,
        discriminator=dict(
            name="convnet",
            widths=judge,
            strides=(2,) * len(judge),
            space_to_depth=1,
            norm="group",
        ),
        # The generator's rate is ten times this one.
        discriminator_optimizer=dict(learning_rate=2e-4),
    )
    config.optimizer.beta1 = 0.5
    if preset == "imagenet1k_resnet50":
        config.views["global"].crop.scale = (0.2, 1.0)
        config.optimizer.update(name="adamw", learning_rate=2e-3, weight_decay=0.0)
    return config
