"""Random teacher: a student learns the outputs of a frozen random network near which it starts.

Sarnthein, Bachmann, Anagnostidis, Hofmann (2023), Random teachers are good teachers, arXiv
2302.12091. No augmentation, no labels, no moving teacher, temperatures of 1.

  python -m jaxssl.main --config=experiments/random_teacher.py --workdir=runs/random_teacher

scikit-learn's digits; held-out 5-shot accuracy above that of random init (76 %; raw pixels 85 %).

  python -m jaxssl.main --config=experiments/random_teacher.py:cifar10 --workdir=runs/random-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10. On noise in place of images the paper finds no gain, and
a student that starts at the teacher (`--config.method_options.alpha=0`) learns nothing. The control
is the teacher itself.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes

PRESETS = ("digits", "cifar10", "cifar10_vgg11")
CONTROLS = {"teacher_itself": {"evals.encoder": "random"}}
PROOF = dict(preset="digits", on="fewshot/5_shot", seeds=3)
# preset -> (widths of the projector, the last the bottleneck, outputs K, alpha)
SCALES = {
    "digits": ((256, 256, 64), 1024, 0.5),
    "cifar10": ((256, 256, 64), 1024, 0.5),
    "cifar10_vgg11": ((2048, 2048, 256), 65536, 1e-3),
}


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base("cifar10" if preset == "cifar10_vgg11" else preset)
    widths, outputs, alpha = SCALES[preset]
    config.views = {"global": dict(count=1, size=config.data.size)}
    config.encoder.norm = "none"
    config.method = "random_teacher"
    config.method_options.alpha = alpha
    config.student.projector = dict(name="mlp", widths=widths, activation="gelu", norm="none")
    config.student.prototypes = dict(
        name="prototypes",
        count=outputs,
        normalize_input=True,
        weight_norm=True,
        reads="projection",
        output="scores",
    )
    config.teachers.random = dict(rule="frozen", source="random")
    config.losses.distillation = dict(
        fn="kl_divergence", student="scores", teacher="random/scores", pairs="same"
    )
    config.optimizer.update(learning_rate=1e-3, weight_decay=0.0)
    if preset == "cifar10_vgg11":
        _published(config)
    return config


def _published(config: ConfigDict) -> None:
    """100 epochs of a VGG-11 without norms, whose strides stand for the poolings."""
    config.preset = "cifar10_vgg11"
    config.encoder = dict(
        name="convnet",
        widths=(64, 128, 256, 256, 512, 512, 512, 512),
        strides=(2, 2, 1, 2, 1, 2, 1, 2),
        space_to_depth=1,
        norm="none",
    )
    config.train.update(steps=0, epochs=100, global_batch=256)
    config.checkpoint.every_steps = 10 * (50_000 // 256)
