"""Waveforms: views by key and sample, transforms by hand-computed values, spectrograms by scipy."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from keyed_views import check_draws, check_eight_devices
from ml_collections import ConfigDict

from jaxssl import modalities
from jaxssl.config.errors import ConfigError
from jaxssl.method import Field
from jaxssl.modalities import audio, mel
from jaxssl.modalities.audio_transforms import TRANSFORMS, read

RATE, T = 8000, 1200
WAVE = Field("audio", (T,), "int16", {"rate": RATE})
FIELDS = {"index": Field("index"), "audio": WAVE, "audio_length": Field("target")}
KEY = jax.random.key(3)
EVERYTHING = {
    "global": {
        "count": 2,
        "crop": {"samples": 640},
        "shift": {"seconds": 0.01},
        "speed": {"factor": 0.1},
        "polarity": 0.5,
        "gain": {"db": 6.0},
        "low_pass": {"cutoff": (1000.0, 3000.0)},
        "high_pass": {"cutoff": (100.0, 300.0)},
        "frequency_mask": {"bands": 2, "width": 0.2},
        "noise": {"snr": (10.0, 30.0)},
        "time_mask": {"stretches": 2, "width": 0.1},
    },
    "local": {"count": 1, "crop": {"seconds": 0.03}},
}


def batch_of(n: int, ends: int = 200) -> dict[str, jax.Array]:
    """Noise of which the last samples are padding, more of it for later samples."""
    waves = np.random.default_rng(0).integers(-9000, 9000, (n, T)).astype(np.int16) | 1
    for i, wave in enumerate(waves):
        wave[T - ends * i // n :] = 0
    return {"audio": jnp.asarray(waves), "index": jnp.arange(n) + 100}


def build(config: dict, rate: int = RATE):
    fields = {**FIELDS, "audio": WAVE._replace(facts={"rate": rate})}
    return jax.jit(modalities.build(ConfigDict(config), fields, {}))


def one(x: np.ndarray, key: jax.Array = KEY, **transforms) -> np.ndarray:
    """A view of each of the waves x [B, T] with these transforms, [B, samples]."""
    keys = jax.random.split(key, (len(x), 1))
    make = audio.views({"count": 1, **transforms}, field=WAVE, data={}, where="views.a")
    return np.asarray(jax.jit(make)(keys, jnp.asarray(x, jnp.float32)))[:, 0]


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.mean(np.square(x), -1, keepdims=True))


def tone(hz: float, samples: int = T, rate: int = RATE) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(samples) / rate).astype(np.float32)


@pytest.fixture(scope="module")
def make_everything():
    return build(EVERYTHING)


def test_every_transform_is_exercised_here():
    assert set(EVERYTHING["global"]) == {"count", *TRANSFORMS}


def test_a_view_follows_its_sample_through_any_order_and_company(make_everything):
    batch = batch_of(8)
    first = make_everything(KEY, batch)
    order = np.array([5, 2, 7, 0, 1, 6, 4, 3])
    shuffled = make_everything(KEY, {n: v[order] for n, v in batch.items()})
    alone = make_everything(KEY, {n: v[2:3] for n, v in batch.items()})
    assert first["global"].shape == (8, 2, 640) and first["local"].shape == (8, 1, 240)
    for group, views in first.items():
        assert views.dtype == jnp.float32 and np.isfinite(views).all()
        np.testing.assert_array_equal(shuffled[group], views[order])
        np.testing.assert_allclose(alone[group], views[2:3], atol=2e-6)


def test_views_differ_by_key_index_and_number(make_everything):
    check_draws(make_everything, KEY, batch_of(8), "audio")


def test_eight_devices_make_the_views_of_one_without_communication(make_everything):
    check_eight_devices(make_everything, KEY, batch_of(8), atol=1e-5)


def test_adding_a_transform_leaves_the_draws_of_the_others():
    batch = batch_of(8)
    base = {"all": {"count": 2, "crop": {"samples": 640}, "noise": {"snr": (0.0, 9.0)}}}
    more = {"all": {**base["all"], "gain": {"points": 1}}}
    plain, louder = (build(config)(KEY, batch)["all"] for config in (base, more))
    np.testing.assert_allclose(louder, plain, atol=1e-5)


def test_without_transforms_a_view_is_the_plain_one():
    batch = batch_of(4)
    off = dict.fromkeys(TRANSFORMS)
    idle = dict(
        shift={},
        speed={},
        polarity=0.0,
        gain={"db": 0.0},
        low_pass={"probability": 0.0},
        high_pass={"probability": 0.0},
        frequency_mask={"width": 0.0},
        noise={"probability": 0.0},
        time_mask={"width": 0.0},
    )
    plain = audio.plain(batch["audio"], data={})
    assert plain.shape == (4, T) and plain.dtype == jnp.float32
    for group in ({}, off):
        views = build({"all": {"count": 2, **group}})(KEY, batch)["all"]
        np.testing.assert_allclose(views, np.stack([plain] * 2, 1), atol=1e-6)
    views = build({"all": {"count": 1, **idle}})(KEY, batch)["all"]
    np.testing.assert_allclose(views[:, 0], plain, atol=1e-5)


@pytest.mark.smoke
def test_plain_takes_the_middle_and_divides_by_the_rms():
    x = np.zeros((2, 10), np.int16)
    x[0, :6] = [1, 2, 3, -4, 5, 6]
    x[1, :3] = 7, 7, 7
    np.testing.assert_allclose(audio.plain(jnp.asarray(x), data={}), unit(np.float32(x)), 1e-5)
    middle = np.array([[2, 3, -4, 5], [7, 7, 7, 0]], np.float32)  # content 6 and 3 of 10 samples
    middle[1] = 0, 7, 7, 7
    np.testing.assert_allclose(audio.plain(jnp.asarray(x), data={}, size=4), unit(middle), 1e-5)
    around = audio.plain(jnp.asarray(x), data={}, size=14)
    assert np.flatnonzero(around[0]).tolist() == [4, 5, 6, 7, 8, 9]
    assert not np.asarray(audio.plain(jnp.zeros((1, 9), jnp.int16), data={})).any()


def test_loudness_and_the_stored_type_make_no_difference():
    x = np.random.default_rng(0).integers(-900, 900, (2, T)).astype(np.int16)
    whole, loud = jnp.asarray(x), jnp.asarray(x * 30)
    as_float = jnp.asarray(x / np.float32(32768))
    np.testing.assert_allclose(audio.plain(whole, data={}), audio.plain(loud, data={}), atol=1e-5)
    np.testing.assert_array_equal(audio.plain(whole, data={}), audio.plain(as_float, data={}))


def test_a_crop_reaches_every_place_of_the_recording_and_no_other():
    x = np.zeros((300, 12), np.float32)
    x[:, :9] = np.arange(1, 10)
    ratio = lambda views: np.round(9 * views / views.max(1, keepdims=True))
    cut = one(x, crop={"samples": 4})
    heads = {round(float(3 * v[0] / (v[3] - v[0]))) for v in cut}
    assert heads == {1, 2, 3, 4, 5, 6}, "windows of 4 in the 9 samples that are no padding"
    wide = ratio(one(x, crop={"samples": 11}))
    assert {int(np.argmax(v != 0)) for v in wide} == {0, 1, 2}
    for view in wide:
        np.testing.assert_array_equal(view[view != 0], np.arange(1, 10))
    assert (np.diff(one(x, crop={"samples": 40})).max(1) > 0).all()


def test_reading_interpolates_and_a_tape_that_runs_faster_is_higher():
    x = np.random.default_rng(0).normal(size=50).astype(np.float32)
    places = 4 + 1.3 * np.arange(30)
    want = np.interp(places, np.arange(50), x)
    np.testing.assert_allclose(read(jnp.asarray(x), 4, 1.3, 30), want, atol=1e-5)
    np.testing.assert_array_equal(read(jnp.asarray(x), -3, 1.0, 5), [0, 0, 0, x[0], x[1]])
    np.testing.assert_array_equal(read(jnp.asarray(x), 48, 1.0, 4), [x[48], x[49], 0, 0])
    view = one(tone(400)[None], crop={"samples": 800}, speed={"factor": (1.5, 1.5)})[0]
    assert np.argmax(np.abs(np.fft.rfft(view))) == 60  # 600 Hz in bins of 10
    slow = one(tone(400)[None], speed={"factor": (0.5, 0.5)})[0]
    assert np.argmax(np.abs(np.fft.rfft(slow))) == 30  # 200 Hz in bins of 20/3


def test_shift_moves_by_its_range_with_zeros_behind():
    x = np.zeros((200, 100), np.float32)
    x[:, 50] = 1
    views = one(x, shift={"seconds": 10 / RATE})
    places = views.argmax(1)
    assert (views.max(1) == 10).all() and places.min() == 40 and places.max() == 60
    assert one(x, shift={"seconds": (60 / RATE, 60 / RATE)}).max() == 0


def test_polarity_and_gain():
    x = np.ones((200, 101), np.float32)
    turned = one(x, polarity=0.3)[:, 0] < 0
    assert abs(turned.mean() - 0.3) < 0.1
    np.testing.assert_allclose(one(x, gain={"db": 12.0, "points": 1}), x, rtol=1e-5)
    for view in one(x[:20], gain={"db": (-12.0, 12.0), "points": 3}):
        db = 20 * np.log10(view)
        assert np.abs(np.diff(db[:51], 2)).max() < 1e-3 > np.abs(np.diff(db[50:], 2)).max()
        assert 0.5 < np.ptp(db) <= 24


def spectrum(view: np.ndarray) -> np.ndarray:
    return np.abs(np.fft.rfft(view))


@pytest.mark.parametrize(
    ("name", "factor"),
    [("low_pass", lambda f: (1 + f**8) ** -0.5), ("high_pass", lambda f: (1 + f**-8) ** -0.5)],
)
def test_filters_have_the_magnitude_of_butterworth(name, factor):
    x = np.zeros((1, T), np.float32)
    x[0, 100] = 1
    view = one(x, **{name: {"cutoff": (800.0, 800.0), "probability": 1.0}})[0]
    hz = np.fft.rfftfreq(T, 1 / RATE)
    with np.errstate(divide="ignore"):
        want = factor(hz / 800.0)
    got = spectrum(view)
    np.testing.assert_allclose(got / got.max(), want / want.max(), atol=1e-3)
    assert view.argmax() == 100, "no phase"
    sos = scipy.signal.butter(4, 800, name.replace("_", ""), output="sos", fs=RATE)
    _, analog = scipy.signal.sosfreqz(sos, hz[:180], fs=RATE)
    np.testing.assert_allclose(want[:180], np.abs(analog), atol=0.06)


def test_a_frequency_mask_takes_out_one_band_of_mels():
    x = np.zeros((50, 1024), np.float32)
    x[:, 0] = 1
    mels = mel.hz_to_mel(np.fft.rfftfreq(1024, 1 / RATE)) / mel.hz_to_mel(RATE / 2)
    widths = []
    for view in one(x, frequency_mask={"bands": 1, "width": 0.3}):
        got = spectrum(view)
        off = np.flatnonzero(got < 1e-3 * got.max())
        assert np.array_equal(off, np.arange(off[0], off[-1] + 1)) if len(off) else True
        widths.append(np.ptp(mels[off]) if len(off) else 0.0)
    assert max(widths) <= 0.3 and 0.1 < np.mean(widths) < 0.2


def test_a_time_mask_silences_one_stretch():
    views = one(np.ones((100, 500), np.float32), time_mask={"stretches": 1, "width": 0.4})
    off = views == 0
    assert (np.abs(np.diff(off.astype(int), axis=1)).sum(1) <= 2).all()
    assert off.sum(1).max() <= 201 and 60 < off.sum(1).mean() < 140


def test_noise_has_the_ratio_that_was_drawn():
    x = np.tile(3 * tone(500), (40, 1))
    views = one(x, noise={"snr": (10.0, 10.0)})
    signal = np.einsum("bt,t->b", views, tone(500)) / np.sum(tone(500) ** 2)
    rest = views - signal[:, None] * tone(500)
    ratios = 10 * np.log10(np.mean((signal[:, None] * tone(500)) ** 2, 1) / np.mean(rest**2, 1))
    np.testing.assert_allclose(ratios.mean(), 10, atol=0.2)
    some = one(x, noise={"snr": (10.0, 10.0), "probability": 0.5})
    same = np.abs(some - unit(x)).max(1) < 1e-5
    assert 8 < same.sum() < 32
    assert not one(np.zeros((1, T)), noise={}).any()


def test_each_transform_draws_from_a_key_of_its_own_name():
    """The draw of a crop, from its salt alone: what makes old runs repeatable."""
    x = np.arange(1, 13, dtype=np.float32)[None]
    keys = jax.random.split(KEY, (1, 1))
    own = jax.random.fold_in(keys[0, 0], np.uint32(zlib.crc32(b"crop")))
    first = int(np.floor(jax.random.uniform(own) * 9))
    view = one(x, crop={"samples": 4})[0]
    np.testing.assert_allclose(view, unit(x[0, first : first + 4]), rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xyz": {}}, "views.all.xyz: no such transform; known: count, crop"),
        ({"nose": {}}, "views.all.nose: no such transform; did you mean 'noise'?"),
        ({"noise": {"snrr": 1}}, "views.all.noise.snrr: .*did you mean 'snr'?"),
        ({"noise": {"snr": 10.0}}, "views.all.noise.snr: found 10.0, expected a pair"),
        ({"noise": {"snr": (9.0, 1.0)}}, "views.all.noise.snr: .*the lower end first"),
        ({"count": 0}, "views.all.count: found 0, expected a whole number >= 1"),
        ({"crop": {}}, "views.all.crop: found samples 0 and seconds 0.0, expected one of them"),
        ({"crop": {"samples": 9, "seconds": 1.0}}, "views.all.crop: .*expected one of them"),
        ({"crop": 0.5}, "views.all.crop: found 0.5, expected a dict"),
        ({"speed": {"factor": (0.0, 1.0)}}, "views.all.speed.factor: found 0.0"),
        ({"polarity": 1.5}, "views.all.polarity.probability: found 1.5"),
        ({"time_mask": {"width": 2}}, "views.all.time_mask.width: found 2"),
    ],
)
def test_a_bad_config_is_refused_by_name(change, message):
    with pytest.raises(ConfigError, match=message) as raised:
        build({"all": {"count": 2, **change}})
    assert "\n" not in str(raised.value)


def test_waves_of_another_form_and_a_field_without_rate_are_refused():
    make = build({"all": {"count": 1}})
    for bad in (jnp.zeros((2, T), jnp.uint8), jnp.zeros((2, T), jnp.int32), jnp.zeros((2, T, 1))):
        with pytest.raises(ConfigError, match=r"audio: found .*expected int16 or float32"):
            make(KEY, {"audio": bad, "index": jnp.arange(2)})
    with pytest.raises(ConfigError, match=r"views\.all\.of: found a field without `rate`"):
        build({"all": {"count": 1}}, rate=0)


def test_the_raw_control_leaves_padding_out_and_tells_tones_apart():
    x = np.random.default_rng(0).normal(0, 0.1, (3, 4000)).astype(np.float32)
    padded, more = (audio.raw(jnp.pad(x, ((0, 0), (0, n)))) for n in (700, 5000))
    np.testing.assert_allclose(padded, more, atol=1e-3)
    whole = np.asarray(audio.raw(jnp.asarray(x)))
    assert whole.shape == (3, 80) and whole.dtype == np.float32
    # The frames over the end of the sound are heard in one alone.
    np.testing.assert_allclose(more[:, :40], whole[:, :40], atol=2.0)
    centres = mel.mel_to_hz(np.linspace(0, mel.hz_to_mel(8000), 42)[1:-1])
    tones = np.stack([tone(centres[band], 4000, 16_000) for band in (8, 20, 35)])
    assert np.asarray(audio.raw(jnp.asarray(tones)))[:, :40].argmax(1).tolist() == [8, 20, 35]
    frames = 10 * np.log10(
        np.square(
            np.abs(
                scipy.signal.stft(
                    tones[1],
                    window="hann",
                    nperseg=256,
                    noverlap=128,
                    nfft=512,
                    boundary=None,
                    padded=False,
                    scaling="spectrum",
                )[2]
                * 128
            )
        ).T
        @ mel.filterbank(16_000, 512, 40)
    )
    got = np.asarray(audio.raw(jnp.asarray(tones[1:2])))[0]
    np.testing.assert_allclose(got[18:23], frames.mean(0)[18:23], atol=0.05)
    np.testing.assert_allclose(got[58:63], frames.std(0)[18:23], atol=0.05)
    assert np.isfinite(audio.raw(jnp.zeros((1, 900), jnp.int16))).all()


def test_pictures_are_grey_with_low_tones_below():
    x = np.stack([tone(300, 8000), tone(3500, 8000), 0 * tone(1, 8000)])
    shown = audio.show(x)
    assert shown.shape == (3, 40, 61, 1) and shown.dtype == np.uint8
    low, high = (shown[i, :, 30, 0].argmax() for i in range(2))
    assert low >= 30 and high < 5 and shown[:2].max() == 255
    assert audio.show(np.zeros((2, 80_000), np.int16)).shape[2] <= 96
