"""OPERA: contrast of samples on one embedding, and labels on another that stands on top of it.

Wang, Zheng, Zhu, Zhou, Lu (2022), OPERA: omni-supervised representation learning with hierarchical
supervisions, arXiv 2210.05557. It trains on labels: its accuracy on these classes is not that of a
self-supervised method.

  python -m jaxssl.main --config=experiments/opera.py --workdir=runs/opera

scikit-learn's digits; held-out 5-shot accuracy above that of random init (72 %; raw pixels 85 %).

  python -m jaxssl.main --config=experiments/opera.py:cifar10 --workdir=runs/opera-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10. The control is the contrast alone.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_resnet50")
CONTROLS = {"no_labels": {"losses.classes.weight": 0.0}}
PROOF = dict(preset="digits", on="fewshot/5_shot", seeds=3)
# preset -> (widths of projector and predictor, hidden width of the classifier, temperature)
SCALES = {
    "digits": ((256, 64), 64, 0.2),
    "cifar10": ((512, 128), 128, 0.2),
    "imagenet1k_resnet50": ((4096, 256), 256, 1.0),
}


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    widths, hidden, temperature = SCALES[preset]
    vision.two_views(config, "asymmetric")
    config.method = "composed"
    config.method_options.batch_statistics = "view"
    config.student.projector = dict(
        name="mlp", widths=widths, norm="batch", last_norm=True, last_affine=False
    )
    config.student.predictor = dict(name="mlp", widths=widths, norm="batch", last_bias=False)
    config.student.classifier = dict(
        name="classifier",
        width="num_classes",
        hidden=(hidden,),
        norm="batch",
        bias=False,
        reads="prediction",
        output="logits",
    )
    # It moves before it gives the keys of a step.
    config.teachers.ema = dict(
        rule="ema",
        follows=("encoder", "projector"),
        decay=("cosine", 0.99, 1.0),
        when="before",
    )
    # Both sum halves over the two directions or views, which is what the averages here are.
    config.losses.contrast = dict(
        fn="moco_v3",
        student="prediction",
        teacher="ema/projection",
        pairs="cross",
        temperature=temperature,
    )
    config.losses.classes = recipes.cross_entropy()
    if preset == "imagenet1k_resnet50":
        vision.imagenet_recipe(
            config, name="lars", learning_rate=1.2, weight_decay=1e-6, batch=1024, epochs=300
        )
    return config
