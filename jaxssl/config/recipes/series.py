"""Recipes of time series: sets of the UCR archive, and activities from a phone."""

from typing import Any

from jaxssl.config.recipes import Presets, data_path, short_run


def _ucr(config: Any) -> None:
    """One set of the UCR archive, leaves by their outline; others by `data.source`."""
    config.data.update(source="ucr_uea:OSULeaf", path=data_path("ucr_uea"), mean=(0.0,), std=(1.0,))
    config.encoder = dict(name="series_convnet", widths=(32, 64, 64), strides=(2, 2, 2), kernel=9)
    outlines = dict(
        crop=dict(scale=(0.5, 1.0)),
        time_warp=dict(sigma=0.2),
        scaling=dict(sigma=0.2),
        jitter=dict(sigma=0.05),
    )
    config.views = {"global": dict(count=4, **outlines)}
    short_run(config, steps=300, batch=64, every=100)


def _uci_har(config: Any) -> None:
    """2,947 windows of 128 steps of nine sensors, each in its own units."""
    config.data.update(
        source="uci_har",
        path=data_path("uci_har_part"),
        mean=(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.8, 0.0, 0.1),
        std=(0.2, 0.12, 0.11, 0.4, 0.38, 0.26, 0.4, 0.35, 0.3),
    )
    config.encoder = dict(name="series_convnet", widths=(32, 64, 64), strides=(1, 2, 2), kernel=5)
    activities = dict(
        crop=dict(scale=(0.5, 1.0)),
        scaling=dict(sigma=0.1),
        jitter=dict(sigma=0.1),
        channel_dropout=0.1,
        time_mask=dict(width=0.2),
    )
    config.views = {"global": dict(count=4, **activities)}
    short_run(config, steps=250, batch=128, every=125)


PRESETS: Presets = {"ucr": _ucr, "uci_har": _uci_har}
