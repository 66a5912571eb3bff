"""NNCLR: the positive of a sample is its nearest neighbour among earlier embeddings.

Dwibedi, Aytar, Tompson, Sermanet, Zisserman (2021), With a little help from my friends:
nearest-neighbor contrastive learning of visual representations, arXiv 2104.14548.

  python -m jaxssl.main --config=experiments/nnclr.py --workdir=runs/nnclr

scikit-learn's digits; held-out 5-shot accuracy above that of random init (72 %; raw pixels 85 %).

  python -m jaxssl.main --config=experiments/nnclr.py:cifar10 --workdir=runs/nnclr-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10. The control takes the sample's own other view in
place of its neighbour.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_resnet50")
CONTROLS = {"own_view": {"losses.contrast.target": None}}
PROOF = dict(preset="digits", on="fewshot/5_shot", seeds=3)
# preset -> (widths of the projector, of the predictor, embeddings in the queue, temperature)
SCALES = {
    "digits": ((256, 64), (256, 64), 1024, 0.2),
    "cifar10": ((512, 128), (512, 128), 8192, 0.2),
    "imagenet1k_resnet50": ((2048, 2048, 256), (4096, 256), 98_304, 0.1),
}


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    projector, predictor, size, temperature = SCALES[preset]
    vision.two_views(config, "asymmetric")
    config.method = "composed"
    config.method_options.batch_statistics = "view"
    config.student.projector = dict(name="mlp", widths=projector, norm="batch", last_norm=True)
    config.student.predictor = dict(name="mlp", widths=predictor, norm="batch")
    # The neighbour of one view, and the prediction from the other.
    config.losses.contrast = dict(
        fn="nnclr",
        student="prediction",
        teacher="projection",
        pairs="cross",
        target=dict(memory="neighbor", size=size),
        temperature=temperature,
    )
    if preset == "imagenet1k_resnet50":
        vision.imagenet_recipe(
            config, name="lars", learning_rate=4.8, weight_decay=1e-6, batch=4096, epochs=1000
        )
    return config
