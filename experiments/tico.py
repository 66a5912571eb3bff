"""TiCo: views that agree, and a running second moment of embeddings that fills all directions.

Zhu, Moraes, Karakulak, Sobol, Canziani, LeCun (2022), TiCo: transformation invariance and
covariance contrast for self-supervised visual representation learning, arXiv 2206.10698.

  python -m jaxssl.main --config=experiments/tico.py --workdir=runs/tico

scikit-learn's digits.

  python -m jaxssl.main --config=experiments/tico.py:cifar10 --workdir=runs/tico-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10. The control without the contrast.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_resnet50")
CONTROLS = {"no_contrast": {"losses.tico.rho": 0.0}}
PROOF = dict(preset="digits", on="fewshot/5_shot", seeds=3)
# preset -> widths of the projector
SCALES = {"digits": (256, 64), "cifar10": (512, 128), "imagenet1k_resnet50": (4096, 256)}
# The share of the past in the second moment.
BETA = 0.9


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    vision.two_views(config, "asymmetric", names=("first", "second"))
    config.method = "composed"
    config.method_options.batch_statistics = "view"
    config.student.projector = dict(name="mlp", widths=SCALES[preset], norm="batch")
    config.teachers.ema = dict(
        rule="ema",
        follows=("encoder", "projector"),
        decay=("cosine", 0.99, 1.0),
        views=("second",),
    )
    config.losses.tico = dict(
        fn="tico",
        student="projection:first",
        teacher="ema/projection:second",
        pairs="cross",
        covariance=dict(memory="second_moment", of="projection:first", momentum=BETA),
        beta=BETA,
        rho=8.0,
    )
    if preset == "imagenet1k_resnet50":
        vision.imagenet_recipe(
            config, name="lars", learning_rate=3.2, weight_decay=1.5e-6, batch=4096, epochs=1000
        )
    return config
