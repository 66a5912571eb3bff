"""Landmark embedding: which halves belong together; features are the ratios to fixed other halves.

Tosh, Krishnamurthy, Hsu (2021), Contrastive learning, multi-view redundancy, and linear models,
arXiv 2008.10150.

  python -m jaxssl.main --config=experiments/landmark.py --workdir=runs/landmark

scikit-learn's digits, left halves beside right ones; a few seconds. The random init has random
encoders and the same landmarks; raw input sees both halves, except in `landmark_probe`, which finds
70.0, 82.9 and 85.5 % with 16, 64 and 256 landmarks (random init 52.2, 73.3 and 82.9; the left
half's pixels 84.2; 3 seeds).

  python -m jaxssl.main --config=experiments/landmark.py:cifar10 --workdir=runs/landmark-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10; 2 minutes on 2 CPU cores, and no better than random init: with
256 landmarks 20.1 % against 20.4, one seed. Where the halves meet, lines and colours that go on
give the pairs away.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes

PRESETS = ("digits", "cifar10")
# The landmark embedding of a discriminator that has not learned which halves belong together.
CONTROLS = {"untrained": {"optimizer.learning_rate": 0.0}}
PROOF = dict(preset="digits", on="landmark_probe/accuracy_256", seeds=3)
STEPS = {"digits": 60, "cifar10": 235}


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    config.method = "pair_discriminator"
    config.method_options = dict(half="left", landmarks=256, limit=4.0)
    # Pictures as they are: a colour, a turn or a scale that both halves of a view share would give
    # true pairs away. And not for long: what tells each picture's own halves apart says nothing of
    # its class.
    config.views = {"global": dict(count=1, size=config.views["global"].size)}
    config.train.steps = STEPS[preset]
    config.evals.every_steps = 0
    config.student.discriminator = dict(name="mlp", widths=(256, 1), norm="batch")
    with config.evals.unlocked():
        config.evals.landmark_probe = dict(landmarks=(16, 64, 256), raw_half="left")
    return config
