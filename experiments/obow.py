"""OBoW: predict from a crop which visual words a moving average finds in the whole image.

Gidaris, Bursuc, Puy, Komodakis, Cord, Pérez (2021), OBoW: online bag-of-visual-words generation
for self-supervised learning, arXiv 2012.11552.

  python -m jaxssl.main --config=experiments/obow.py --workdir=runs/obow

scikit-learn's digits; on 2 CPU cores about 2 minutes; held-out 5-shot accuracy of at least 96 %
(raw pixels 85 %, random init 72 %).

  python -m jaxssl.main --config=experiments/obow.py:cifar10 --workdir=runs/obow-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10. The control keeps the vocabulary at its first noise; on digits
it stays below raw pixels (83 %).
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_resnet50")
CONTROLS = {"frozen_vocabulary": {"method_options.vocabulary": "frozen"}}
PROOF = dict(preset="digits", on="fewshot/5_shot", seeds=3)


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    config.method = "obow"
    if preset == "imagenet1k_resnet50":
        _published(config)
    else:
        _small(config)
    config.teachers.ema = dict(
        rule="ema",
        follows=("encoder",),
        decay=("cosine", 0.99, 1.0),
        when="before",
        views=("original",),
    )
    return config


def _small(config: ConfigDict) -> None:
    """One level, and as many views of a sample as the base has, one of them the teacher's."""
    crop = config.views["global"].to_dict()
    crop["count"] = max(2, crop["count"] - 1)
    config.views = {"original": dict(count=1, size=config.data.size), "crop": crop}
    if config.preset == "cifar10":
        config.views.original.flip = 0.5
    width = config.encoder.widths[-1]
    config.student.generator = dict(name="mlp", widths=(2 * width, width), norm="batch")
    # The last maps are 4 x 4: nothing would be left within a border. With the published sharpness
    # of small runs, 10, an image would use most of so few words.
    config.method_options = dict(
        levels=(-1,), vocabulary_size=512, border=0, sharpness=40.0, kappa=5.0
    )


def _published(config: ConfigDict) -> None:
    """Two crops and five patches, words of the last two stages, 200 epochs of SGD.

    The teacher sees the whole image, the publication its centre; the patches are cut at random, the
    publication's out of one larger crop, along a grid.
    """
    jitter = dict(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, probability=0.8)
    changed = dict(flip=0.5, jitter=jitter, grayscale=0.2)
    config.views = {
        "original": dict(count=1, size=224, flip=0.5),
        "crop": dict(
            count=2,
            size=160,
            crop=dict(scale=(0.08, 0.6)),
            blur=dict(probability=0.5, sigma=(0.1, 2.0), taps=17),
            **changed,
        ),
        # 96 of the 256 pixels of a crop of 0.6 to 1 of the area
        "patch": dict(count=5, size=96, crop=dict(scale=(0.084, 0.14)), **changed),
    }
    config.student.generator = dict(name="mlp", widths=(4096, 2048), norm="batch", last_bias=False)
    config.method_options = dict(levels=(-2, -1), vocabulary_size=8192, sharpness=15.0, kappa=8.0)
    vision.imagenet_recipe(
        config,
        name="sgd",
        learning_rate=0.03,
        end=3e-5,
        weight_decay=1e-4,
        batch=256,
        epochs=200,
        momentum=0.9,
    )
