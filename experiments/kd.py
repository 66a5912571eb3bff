"""KD: a small network learns from the labels and from the softened outputs of a large one.

Hinton, Vinyals, Dean (2015), Distilling the knowledge in a neural network, arXiv 1503.02531; the
weights and the temperature of Tian, Krishnan, Isola (2020), Contrastive representation
distillation, arXiv 1910.10699. The first stage trains the teacher with all labels; the second
trains the student, of another architecture, with the teacher frozen and in evaluation mode. The
student has few labels, and learns from the teacher on a transfer set without labels:

  L = 0.1 CE(s, y) + 0.9 T^2 KL(softmax(t / T), softmax(s / T)),  T = 4

Tian et al. distil on the labelled samples, with all labels: streams.labelled.labels.per_class=0.

  python -m jaxssl.main --config=experiments/kd.py --workdir=runs/kd

scikit-learn's digits; about two minutes on 2 CPU cores.

  python -m jaxssl.main --config=experiments/kd.py:cifar10 --workdir=runs/kd-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10; about a quarter of an hour on 2 CPU cores.
"""

from typing import Any

from ml_collections import ConfigDict

from jaxssl.config import recipes

PRESETS = ("digits", "cifar10")
CONTROLS = {
    "labels_alone": {"losses.kd.weight": 0.0, "losses.classes.weight": 1.0},
    "random_teacher": {"teachers.large.source": "random", "teachers.large.artifact": ""},
}
PROOF = dict(preset="digits", on="accuracy/top1", seeds=3)
# preset -> channels of the student's five convolutions, and of the teacher's; labels of each class
# that the student has; steps of both.
STUDENT = {"digits": (4, 4, 8, 8, 16), "cifar10": (16, 16, 32, 32, 64)}
TEACHER = {"digits": (32, 32, 64, 64, 128), "cifar10": (64, 128, 128, 256, 256)}
PER_CLASS = {"digits": 4, "cifar10": 40}
STEPS = {"digits": 300, "cifar10": 1500}
LABELLED = 32  # samples of a step
TEMPERATURE = 4.0


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    config.method = "composed"
    views = config.views["global"].to_dict() | dict(count=1)
    student, classifier = config.encoder.to_dict(), recipes.classifier()
    teacher = student | dict(widths=TEACHER[preset])
    config.streams.labelled = dict(labels=dict(per_class=PER_CLASS[preset]), batch=LABELLED)
    config.streams.transfer = dict()
    config.views = dict(
        labelled=views | dict(of="labelled/image"), transfer=views | dict(of="transfer/image")
    )
    config.encoder = student | dict(widths=STUDENT[preset])
    config.student.classifier = classifier
    config.losses.classes = dict(
        recipes.cross_entropy("logits:labelled", "labelled/label"), weight=0.1
    )
    config.losses.kd = dict(
        fn="kd",
        student="logits:transfer",
        teacher="large/logits:transfer",
        pairs="same",
        temperature=TEMPERATURE,
        weight=0.9,
    )
    config.teachers.large = dict(
        rule="frozen",
        source="artifact",
        artifact="teacher",
        networks=dict(encoder=teacher, classifier=classifier),
    )
    config.train.steps = STEPS[preset]
    config.optimizer.learning_rate = ("warmup_cosine", 2e-3, 30, 2e-6)
    labels_alone: dict[str, Any] = {
        "streams": {},
        "views": {"global": views},
        "encoder": teacher,
        "losses": dict(classes=dict(recipes.cross_entropy(), weight=1.0)),
        "teachers": {},
    }
    with config.evals.unlocked():
        config.evals.accuracy = dict(output="logits")
    config.stages = (dict(name="teacher", changes=labels_alone), dict(name="student"))
    return config
