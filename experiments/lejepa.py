"""LeJEPA: multi-view prediction and SIGReg, without teacher, predictor or stop-gradient.

Balestriero, LeCun (2025), LeJEPA: provable and scalable self-supervised learning without the
heuristics, arXiv 2511.08544.

  python -m jaxssl.main --config=experiments/lejepa.py --workdir=runs/lejepa
"""

from ml_collections import ConfigDict

from jaxssl import base

PRESETS = tuple(base.VISION)
# lambda, projection width P, hidden width of the projector, slices S
SCALES = {
    "digits": (0.02, 16, 256, 256),
    "cifar10": (0.02, 32, 512, 256),
    "imagenette": (0.02, 16, 2048, 256),
}
HEADLINE = (0.05, 64, 2048, 1024)


def get_config(preset: str = "digits") -> ConfigDict:
    config = base.vision(preset)
    weight, width, hidden, slices = SCALES.get(preset, HEADLINE)
    depth = 1 if preset == "cifar10" else 2
    config.method = "joint_embedding"
    config.student.projector = dict(name="mlp", widths=(*(hidden,) * depth, width), norm="batch")
    config.losses.prediction = dict(
        fn="lejepa_prediction", student="projection", pairs="all", weight=1 - weight
    )
    config.losses.sigreg = dict(
        fn="sigreg", student="projection", pairs="single", num_slices=slices, weight=weight
    )
    return config
