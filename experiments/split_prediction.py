"""Split prediction: from the top half of a picture, the expected pixels of the bottom half.

Lee, Lei, Saunshi, Zhuo (2021), Predicting what you already know helps: provable self-supervised
learning, arXiv 2008.01064.

  python -m jaxssl.main --config=experiments/split_prediction.py --workdir=runs/split-prediction

scikit-learn's digits; about a minute on 2 CPU cores. The usual evaluations read the layer before
the prediction; `conditional_independence` reads both, the prediction being what the theory is
about, beside the raw top half, with few labels: with 50 of them the prediction gives 74.4 %, the
layer before it 78.3 % (random init 49.7 and 54.3, the raw half 53.2; 3 seeds). The prediction's
error on held-out pictures, `pretext/hidden`, is 0.43 of the best constant's.

  python -m jaxssl.main --config=experiments/split_prediction.py:cifar10 \
    --workdir=runs/split-prediction-cifar10

CIFAR-10 under $JAXSSL_DATA/cifar10; not measured yet.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes

PRESETS = ("digits", "cifar10")
# The same readout of a prediction that was never learned.
CONTROLS = {"untrained": {"optimizer.learning_rate": 0.0}}
PROOF = dict(preset="digits", on="conditional_independence/prediction_50", seeds=3)
HIDDEN = {"digits": 256, "cifar10": 1024}


def get_config(preset: str = "digits") -> ConfigDict:
    config = recipes.base(preset)
    config.method = "split_prediction"
    config.method_options = dict(context="top")
    # Colours and noise of a view are no part of what is to be predicted.
    view = config.views["global"].to_dict()
    kept = {name: view[name] for name in ("size", "crop", "flip", "affine") if name in view}
    config.views = {"global": dict(kept, count=1)}
    config.student.predictor = dict(name="mlp", widths=(HIDDEN[preset],), norm="batch")
    with config.evals.unlocked():
        config.evals.conditional_independence = dict(labels=(50, 500), raw_half="top")
    return config
