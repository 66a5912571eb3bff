"""SimSiam: predict the other view's embedding, held fixed; no teacher and no negatives.

Chen, He (2021), Exploring simple siamese representation learning, arXiv 2011.10566.

  python -m jaxssl.main --config=experiments/simsiam.py --workdir=runs/simsiam

scikit-learn's digits; held-out 5-shot accuracy above that of random init (72 %; raw pixels 85 %).

  python -m jaxssl.main --config=experiments/simsiam.py:cifar10 --workdir=runs/simsiam-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10. The control has no predictor, and collapses in the paper.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_resnet50")
CONTROLS = {"no_predictor": {"losses.prediction.student": "projection"}}
PROOF = dict(preset="digits", on="fewshot/5_shot", seeds=3)
# preset -> (widths of the projector, of the predictor)
SCALES = {
    "digits": ((256, 256, 128), (32, 128)),
    "cifar10": ((512, 512, 256), (64, 256)),
    "imagenet1k_resnet50": ((2048, 2048, 2048), (512, 2048)),
}


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    projector, predictor = SCALES[preset]
    vision.two_views(config, "moco")
    config.method = "composed"
    config.method_options.batch_statistics = "view"
    config.student.projector = dict(
        name="mlp", widths=projector, norm="batch", last_norm=True, last_affine=False
    )
    config.student.predictor = dict(name="mlp", widths=predictor, norm="batch")
    config.losses.prediction = dict(
        fn="simsiam", student="prediction", teacher="projection", pairs="cross"
    )
    if preset == "imagenet1k_resnet50":
        # Everything decays, norms and biases too; the predictor keeps its first learning rate.
        vision.imagenet_recipe(
            config,
            name="sgd",
            learning_rate=0.1,
            weight_decay=1e-4,
            batch=512,
            epochs=100,
            warmup_epochs=0,
            no_decay=(),
        )
        config.optimizer.groups = dict(predictor=dict(match="^predictor/", own_learning_rate=0.1))
    return config
