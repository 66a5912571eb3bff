"""A run of seconds on the digits, wide enough that a checkpoint is the largest of its files.

A config file: `python -m jaxssl.main --config=<this file> --workdir=DIR`.
"""

from ml_collections import ConfigDict

from jaxssl.config import recipes

PRESETS = ("digits",)
STEPS = 240
SAVED_EVERY = 20


def get_config(preset: str = "digits") -> ConfigDict:
    """Two noisy views, a small network and LeJEPA's two terms."""
    config = recipes.base(preset)
    config.method = "composed"
    config.encoder = dict(name="convnet", widths=(8,), strides=(2,), norm="batch")
    config.views = {"global": dict(count=2, size=8, noise=dict(sigma=0.1))}
    config.student.projector = dict(name="mlp", widths=(256, 256), norm="batch")
    config.losses.prediction = dict(
        fn="lejepa_prediction", student="projection", pairs="all", weight=0.98
    )
    config.losses.sigreg = dict(
        fn="sigreg", student="projection", pairs="single", num_slices=8, weight=0.02
    )
    config.data.size = 8
    config.train.update(steps=STEPS, global_batch=32)
    config.optimizer.learning_rate = 1e-2
    config.evals.update(every_steps=0, bank=64, test=64, batch_size=64, calibration_batches=1)
    config.evals.linear = config.evals.fewshot = None
    config.checkpoint.every_steps = SAVED_EVERY
    config.mesh.min_shard_elements = 1
    config.report.update(every_steps=1, samples=0)
    return config
