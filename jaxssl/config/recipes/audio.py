"""Recipes of sound: spoken digits and sounds of the environment."""

from typing import Any

from jaxssl.config.recipes import Presets, data_path


def _fsdd(config: Any) -> None:
    """2,250 spoken digits of one second or less: minutes on a laptop."""
    config.data.update(source="fsdd", path=data_path("fsdd"))
    config.encoder = dict(
        name="spectrogram",
        rate=8000,
        window=256,
        hop=128,
        fft=512,
        mels=40,
        widths=(64, 64, 128, 128),
        strides=(1, 1, 2, 1),
        space_to_depth=4,
    )
    spoken = dict(
        crop=dict(seconds=0.5),
        speed=dict(factor=0.15),
        frequency_mask=dict(bands=1, width=0.3),
        noise=dict(snr=(10.0, 40.0), probability=0.5),
        time_mask=dict(stretches=1, width=0.2),
    )
    config.views = {"global": dict(count=4, **spoken)}
    config.train.update(steps=200, global_batch=128)
    config.optimizer.update(learning_rate=("warmup_cosine", 2e-3, 30, 2e-6), weight_decay=0.05)
    config.evals.update(every_steps=100)
    config.checkpoint.update(every_steps=100)


def _esc10(config: Any) -> None:
    """320 clips of five seconds, of ten classes: minutes on a laptop."""
    config.data.update(source="esc10", path=data_path("esc10"))
    config.encoder = dict(
        name="spectrogram",
        rate=16000,
        window=1024,
        hop=512,
        fft=1024,
        mels=40,
        widths=(64, 64, 128, 128),
        strides=(1, 1, 2, 1),
        space_to_depth=4,
    )
    sounds = dict(
        crop=dict(seconds=1.024),
        speed=dict(factor=0.1),
        frequency_mask=dict(bands=1, width=0.3),
        noise=dict(snr=(10.0, 40.0), probability=0.5),
        time_mask=dict(stretches=1, width=0.2),
    )
    config.views = {"global": dict(count=4, **sounds)}
    config.train.update(steps=150, global_batch=64)
    config.optimizer.update(learning_rate=("warmup_cosine", 2e-3, 30, 2e-6), weight_decay=0.05)
    config.evals.update(every_steps=75, batch_size=64)
    config.checkpoint.update(every_steps=75)


PRESETS: Presets = {"fsdd": _fsdd, "esc10": _esc10}
