"""FixMatch: a sure class of a weak view is the label of a strong one; four labels a class.

Sohn et al., 2020, FixMatch: simplifying semi-supervised learning with consistency and confidence,
arXiv 2001.07685. Two streams: few labelled samples, whose weak views learn their labels, and seven
times as many unlabelled ones, whose strong views learn the class of their weak view where its
probability is at least 0.95. All views of a step share batch statistics, as in the authors' code.
Here the optimizer is that of the preset, and what is judged is the network itself, not its average.

  python -m jaxssl.main --config=experiments/fixmatch.py --workdir=runs/fixmatch

scikit-learn's digits with 40 labels; held-out accuracy of the classifier above that of the control,
which has the same labels, network and steps, and no loss of unlabelled samples.

  python -m jaxssl.main --config=experiments/fixmatch.py:cifar10 --workdir=runs/fixmatch-cifar10

CIFAR-10 with 400 labels, under $JAXSSL_DATA/cifar10; the paper trains a WRN-28-2 for 2^20 steps.
"""

from typing import Any

from ml_collections import ConfigDict

from jaxssl.config import recipes

PRESETS = ("digits", "cifar10")
# Each lacks what makes the method.
CONTROLS = {"supervised": {"losses.unlabelled.weight": 0.0}}
PROOF = dict(preset="digits", on="accuracy/top1", seeds=3)

WEAK: dict[str, dict[str, Any]] = {
    "digits": dict(affine=dict(shift=0.06)),
    "cifar10": dict(crop=dict(scale=(0.7, 1.0)), flip=0.5),
}


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    config.method = "composed"
    labels = {"digits": 4, "cifar10": 40}[preset]
    config.train.global_batch = 32
    if preset == "digits":
        config.train.steps = 300
        config.checkpoint.every_steps = 300
        config.optimizer.learning_rate = ("warmup_cosine", 2e-3, 15, 2e-6)
    config.streams.labelled = dict(labels=dict(per_class=labels))
    config.streams.unlabelled = dict(batch=7 * 32)
    strong = config.views["global"].to_dict()
    weak = dict(size=strong["size"], **WEAK[preset])
    config.views = dict(
        labelled=dict(weak, of="labelled/image", count=1),
        weak=dict(weak, of="unlabelled/image", count=1),
        strong=dict(strong, of="unlabelled/image", count=1),
    )
    config.student.classifier = recipes.classifier()
    config.losses.labelled = recipes.cross_entropy("logits:labelled", "labelled/label")
    config.losses.unlabelled = dict(
        fn="fixmatch", student="logits:strong", teacher="logits:weak", threshold=0.95
    )
    with config.evals.unlocked():
        config.evals.accuracy = dict(output="logits")
    return config
