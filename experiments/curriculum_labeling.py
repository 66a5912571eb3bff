"""Curriculum labelling: pseudo-labels in rounds, the surest first, each round from a new network.

Cascante-Bonilla, Tan, Qi, Ordonez (2021), Curriculum labeling: revisiting pseudo-labeling for
semi-supervised learning, arXiv 2001.06001.

  python -m jaxssl.main --config=experiments/curriculum_labeling.py --workdir=runs/curriculum

scikit-learn's digits with two labels a class, 400 steps a round; minutes on 2 CPU cores. The
published recipe also mixes images and averages weights; here are the rounds alone. CIFAR-10 with
400 labels a class is the published setting, 94.9 % there.

  python -m jaxssl.main --config=experiments/curriculum_labeling.py:cifar10 --workdir=runs/cl

CIFAR-10 under $JAXSSL_DATA/cifar10.
"""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxssl.config import recipes

PRESETS = ("digits", "cifar10")
# preset -> labels of each class, steps of a round, global batch.
SCALES = {"digits": (2, 400, 16), "cifar10": (400, 2000, 128)}
# Per cent of the unlabelled samples that each round learns from, the surest.
ROUNDS = (20.0, 40.0, 60.0, 80.0, 100.0)


def stages(tops: Sequence[float], per_class: int = SCALES["digits"][0]) -> tuple[dict, ...]:
    """A first network of the labels alone, then a round for each of `tops`."""
    chosen: list[dict[str, Any]] = [
        dict(name="labelled", make=dict(name="labelled", per_class=per_class)),
        dict(name="round0", changes={"data.part": "labelled"}),
    ]
    for r, top in enumerate(tops, start=1):
        labels, easy = f"pseudo{r}", f"easy{r}"
        chosen += [
            dict(
                name=labels,
                make=dict(name="pseudo_labels", of=f"round{r - 1}", known="labelled"),
            ),
            dict(
                name=easy,
                make=dict(name="select", table=labels, top=top, known="labelled", balance=True),
            ),
            dict(
                name=f"round{r}",
                changes={
                    "data.part": easy,
                    "data.join": (labels,),
                    "losses.classes.labels": dict(batch=f"{labels}.label"),
                },
            ),
        ]
    return tuple(chosen)


# Each lacks what makes the method: the order of the curriculum, or the unlabelled samples.
CONTROLS = {
    "all_at_once": {"stages": stages((100.0,) * len(ROUNDS))},
    "labels_alone": {"stages": stages(())},
}
PROOF = dict(preset="digits", on="accuracy/top1", seeds=3)


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    per_class, steps, batch = SCALES[preset]
    config.method = "composed"
    config.views = {"global": config.views["global"].to_dict() | dict(count=1)}
    config.student.classifier = recipes.classifier()
    config.losses.classes = recipes.cross_entropy()
    config.train.update(steps=steps, global_batch=batch)
    peak = config.optimizer.learning_rate[1]
    config.optimizer.learning_rate = ("warmup_cosine", peak, steps // 20, peak / 1000)
    config.evals.every_steps = 0
    for other in ("knn", "linear", "fewshot"):
        config.evals[other] = None
    with config.evals.unlocked():
        config.evals.accuracy = dict(output="logits")
    config.checkpoint.every_steps = steps
    config.stages = stages(ROUNDS, per_class)
    return config
