"""ReSSL: a strongly augmented view must be as similar to others as a weakly augmented one is.

Zheng, You, Wang, Qian, Zhang, Wang, Xu (2021), ReSSL: relational self-supervised learning with weak
augmentation, arXiv 2107.09282.

  python -m jaxssl.main --config=experiments/ressl.py --workdir=runs/ressl

scikit-learn's digits; held-out 5-shot accuracy above that of random init (72 %; raw pixels 85 %).

  python -m jaxssl.main --config=experiments/ressl.py:cifar10 --workdir=runs/ressl-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10. The control does not sharpen the teacher.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes
from jaxssl.config.recipes import vision

PRESETS = ("digits", "cifar10", "imagenet1k_resnet50")
CONTROLS = {"no_sharpening": {"losses.relations.teacher_temperature": 0.1}}
PROOF = dict(preset="digits", on="fewshot/5_shot", seeds=3)
# preset -> (widths of the projector, keys in the queue, decay of the teacher)
SCALES = {
    "digits": ((256, 64), 1024, 0.99),
    "cifar10": ((512, 128), 8192, 0.99),
    "imagenet1k_resnet50": ((4096, 512), 131_072, 0.999),
}
# What the teacher's view keeps of the recipe: where it looks, not how it is coloured.
WEAK = ("count", "size", "crop", "flip", "affine")


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    widths, size, decay = SCALES[preset]
    vision.two_views(config, "moco", names=("strong", "weak"))
    weak = config.views.weak.to_dict()
    config.views.weak = {name: fields for name, fields in weak.items() if name in WEAK}
    config.method = "composed"
    config.student.projector = dict(name="mlp", widths=widths, norm="batch")
    config.teachers.ema = dict(
        rule="ema", follows=("encoder", "projector"), decay=decay, when="before", views=("weak",)
    )
    config.losses.relations = dict(
        fn="relational_consistency",
        student="projection:strong",
        teacher="ema/projection",
        pairs="cross",
        queue=dict(memory="queue", size=size),
        student_temperature=0.1,
        teacher_temperature=0.04,
    )
    if preset == "imagenet1k_resnet50":
        vision.imagenet_recipe(
            config,
            name="sgd",
            learning_rate=0.05,
            weight_decay=1e-4,
            batch=256,
            epochs=200,
            warmup_epochs=5,
            no_decay=(),
        )
    return config
