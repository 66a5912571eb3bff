"""Landmark embedding: which halves belong together; features are the ratios to fixed other halves.

Tosh, Krishnamurthy, Hsu (2021), Contrastive learning, multi-view redundancy, and linear models,
arXiv 2008.10150.

  python -m jaxssl.main --config=experiments/landmark.py --workdir=runs/landmark

scikit-learn's digits, left halves beside right ones; not measured yet. The random init has random
encoders and the same landmarks; raw input sees both halves, except in `landmark_probe`, which also
says how the accuracy grows with the number of landmarks.

  python -m jaxssl.main --config=experiments/landmark.py:cifar10 --workdir=runs/landmark-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10; not measured yet.
"""

from ml_collections import ConfigDict

from jaxssl import base

PRESETS = ("digits", "cifar10")


def get_config(preset: str = "digits") -> ConfigDict:
    config = base.vision(preset)
    config.method = "pair_discriminator"
    config.method_options = dict(half="left", landmarks=256, limit=4.0)
    # A colour or a blur that both halves of a view share would give true pairs away, and a picture
    # turned round has its left half on the right.
    view = config.views["global"].to_dict()
    kept = {name: view[name] for name in ("count", "size", "crop", "affine") if name in view}
    config.views = {"global": kept}
    config.student.discriminator = dict(name="mlp", widths=(256, 1), norm="batch")
    with config.evals.unlocked():
        config.evals.landmark_probe = dict(landmarks=(16, 64, 256), raw_half="left")
    return config
