"""LeJEPA: multi-view prediction and SIGReg, without teacher, predictor or stop-gradient.

Balestriero, LeCun (2025), LeJEPA: provable and scalable self-supervised learning without the
heuristics, arXiv 2511.08544.

  python -m jaxssl.main --config=experiments/lejepa.py --workdir=runs/lejepa

scikit-learn's digits; on 2 CPU cores about 2 minutes; held-out 5-shot accuracy of at least 95 %
(raw pixels 85 %, random init 72 %).

  python -m jaxssl.main --config=experiments/lejepa.py:cifar10 --workdir=runs/lejepa-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10; on 2 CPU cores about 20 minutes; kNN accuracy at least 14
points above random init. The control without the regulariser collapses below random init.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes

PRESETS = (
    "digits",
    "cifar10",
    "imagenette",
    "imagenet1k_vit_s16",
    "imagenet1k_vit_l14",
    "imagenet1k_vit_h14",
    "fsdd",
    "esc10",
    "ucr",
    "uci_har",
    "modelnet10",
)
# preset -> (lambda, hidden widths of the projector, projection width P, slices S)
SCALES = {
    "digits": (0.02, (256, 256), 16, 256),
    "cifar10": (0.02, (512, 512), 32, 256),
    "imagenette": (0.02, (2048, 2048), 16, 256),
    "fsdd": (0.02, (256, 256), 16, 256),
    "esc10": (0.02, (256, 256), 16, 256),
    "ucr": (0.02, (256, 256), 16, 256),
    "uci_har": (0.02, (256, 256), 16, 256),
    "modelnet10": (0.02, (256, 256), 16, 256),
}
HEADLINE = (0.05, (2048, 2048), 64, 1024)
CONTROLS = {"no_regulariser": {"losses.sigreg.weight": 0.0, "losses.prediction.weight": 1.0}}
PROOF = dict(preset="digits", on="fewshot/5_shot", seeds=3)


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    weight, hidden, width, slices = SCALES.get(preset, HEADLINE)
    config.method = "composed"
    projector = dict(name="mlp", widths=(*hidden, width), norm="batch")
    if config.encoder.name == "vit":
        config.student.embedding = dict(
            name="linear", width=512, reads="pooled", output="embedding"
        )
        projector |= dict(reads="embedding")
    config.student.projector = projector
    config.losses.prediction = dict(
        fn="lejepa_prediction", student="projection", pairs="all", weight=1 - weight
    )
    config.losses.sigreg = dict(
        fn="sigreg", student="projection", pairs="single", num_slices=slices, weight=weight
    )
    return config
