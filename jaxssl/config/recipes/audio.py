"""Recipes of sound: spoken digits and sounds of the environment."""

from typing import Any

from jaxssl.config.recipes import Presets, data_path, short_run


def _fsdd(config: Any) -> None:
    """2,250 spoken digits of one second or less: minutes on a laptop."""
    config.data.update(source="fsdd", path=data_path("fsdd"))
    _sound(config, seconds=0.5, speed=0.15, rate=8000, window=256, hop=128, fft=512)
    short_run(config, steps=200, batch=128, every=100)


def _esc10(config: Any) -> None:
    """320 clips of five seconds, of ten classes: minutes on a laptop."""
    config.data.update(source="esc10", path=data_path("esc10"))
    _sound(config, seconds=1.024, speed=0.1, rate=16000, window=1024, hop=512, fft=1024)
    short_run(config, steps=150, batch=64, every=75)
    config.evals.update(batch_size=64)


def _sound(config: Any, *, seconds: float, speed: float, **transform: int) -> None:
    """A spectrogram's network, of a Fourier `transform`, and views of so many seconds."""
    config.encoder = dict(
        name="spectrogram",
        **transform,
        mels=40,
        widths=(64, 64, 128, 128),
        strides=(1, 1, 2, 1),
        space_to_depth=4,
    )
    changes = dict(
        crop=dict(seconds=seconds),
        speed=dict(factor=speed),
        frequency_mask=dict(bands=1, width=0.3),
        noise=dict(snr=(10.0, 40.0), probability=0.5),
        time_mask=dict(stretches=1, width=0.2),
    )
    config.views = {"global": dict(count=4, **changes)}


PRESETS: Presets = {"fsdd": _fsdd, "esc10": _esc10}
