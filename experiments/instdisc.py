"""Instance discrimination: every sample is a class, its weights a memory of its own embedding.

Wu, Xiong, Yu, Lin (2018), Unsupervised feature learning via non-parametric instance discrimination,
arXiv 1805.01978.

  python -m jaxssl.main --config=experiments/instdisc.py --workdir=runs/instdisc

scikit-learn's digits; held-out 5-shot accuracy above that of random init (72 %; raw pixels 85 %).

  python -m jaxssl.main --config=experiments/instdisc.py:cifar10 --workdir=runs/instdisc-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10. The control leaves its memory as random as it began.

One view of each sample, and an exact softmax over all of them; at the scale of ImageNet-1k it is
estimated from 4,096 sampled negatives.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_resnet50")
CONTROLS = {"random_memory": {"losses.instances.bank.momentum": 1.0}}
PROOF = dict(preset="digits", on="fewshot/5_shot", seeds=3)
# preset -> (projection width, temperature)
SCALES = {"digits": (64, 0.1), "cifar10": (128, 0.1), "imagenet1k_resnet50": (128, 0.07)}


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    width, temperature = SCALES[preset]
    config.views["global"].count = 1
    config.method = "composed"
    config.student.projector = dict(name="linear", width=width)
    config.losses.instances = dict(
        fn="instance_discrimination",
        student="projection",
        pairs="single",
        bank=dict(memory="bank", momentum=0.5),
        index=dict(batch="index"),
        temperature=temperature,
    )
    if preset == "imagenet1k_resnet50":
        _published(config)
    return config


def _published(config: ConfigDict) -> None:
    """200 epochs, learning rate by steps; crops, colour and gray, without blur."""
    config.losses.instances.update(fn="instance_nce", num_negatives=4096)
    config.views["global"] = dict(
        count=1,
        size=224,
        crop=dict(scale=(0.2, 1.0)),
        flip=0.5,
        grayscale=0.2,
        jitter=dict(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.4),
    )
    vision.imagenet_recipe(
        config,
        name="sgd",
        learning_rate=0.03,
        weight_decay=1e-4,
        batch=256,
        epochs=200,
        no_decay=(),
    )
    epoch = vision.imagenet_epoch(256)
    drops = ((120 * epoch, 0.003), (160 * epoch, 0.0003))
    config.optimizer.learning_rate = ("piecewise", 0.03, *drops)
