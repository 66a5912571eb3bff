"""W-MSE: whiten the embeddings of random groups of samples, then only pull views together.

Ermolov, Siarohin, Sangineto, Sebe (2021), Whitening for self-supervised representation learning,
arXiv 2007.06346.

  python -m jaxssl.main --config=experiments/w_mse.py --workdir=runs/w_mse

scikit-learn's digits with four views, of which all six pairs are used.

  python -m jaxssl.main --config=experiments/w_mse.py:cifar10 --workdir=runs/w_mse-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10, two views. A group is twice as large as the projection is wide,
and must divide the batch. The preset on ImageNet-1k has the paper's numbers for ImageNet-100, with
a cosine in place of two drops of the learning rate. The control centres the groups and does not
whiten them.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_resnet50")
CONTROLS = {"no_whitening": {"losses.w_mse.epsilon": 1.0}}
PROOF = dict(preset="digits", on="fewshot/5_shot", seeds=3)
# preset -> (widths of the projector, shrinkage of the covariance). Small networks can leave a
# direction empty, which the published 0 turns into NaN; more than a trace (1e-3) lets embeddings
# become so small that nothing is whitened, and collapse.
SCALES = {
    "digits": ((256, 32), 1e-6),
    "cifar10": ((512, 64), 1e-6),
    "imagenet1k_resnet50": ((1024, 128), 0.0),
}


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    widths, epsilon = SCALES[preset]
    config.method = "composed"
    # Each view passes the encoder by itself. Whitening takes a last bias away again.
    config.method_options.batch_statistics = "view"
    config.student.projector = dict(name="mlp", widths=widths, norm="batch", last_bias=False)
    config.losses.w_mse = dict(
        fn="w_mse", student="projection", pairs="all", iterations=1, epsilon=epsilon
    )
    if preset == "imagenet1k_resnet50":
        vision.imagenet_recipe(
            config, name="adamw", learning_rate=2e-3, weight_decay=1e-6, batch=512, epochs=240
        )
        config.optimizer.learning_rate = ("warmup_cosine", 2e-3, 500, 0.0)
    return config
