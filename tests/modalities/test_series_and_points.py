"""Series and clouds of points: views by key and sample, transforms by what they promise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from keyed_views import check_draws, check_eight_devices

from jaxssl import encoders, modalities
from jaxssl.config.errors import ConfigError
from jaxssl.method import Field
from jaxssl.modalities import points, points_transforms, series, series_transforms

RNG = np.random.default_rng(0)
SERIES = Field("series", (40, 3), "float32")
POINTS = Field("points", (30, 3), "float32")
X = RNG.normal(size=(8, 40, 3)).astype(np.float32)
CLOUDS = RNG.normal(size=(8, 30, 3)).astype(np.float32)
DATA = {"mean": (0.5,) * 3, "std": (2.0,) * 3}
KEYS = jax.random.split(jax.random.key(1), (8, 2))
EVERYTHING = {
    "series": {
        "count": 2,
        "length": 24,
        "crop": {"scale": (0.5, 0.9)},
        "time_warp": {},
        "permutation": {},
        "flip": 0.5,
        "scaling": {},
        "magnitude_warp": {},
        "jitter": {},
        "channel_dropout": 0.3,
        "time_mask": {},
    },
    "points": {
        "count": 2,
        "crop": {"scale": (0.5, 0.9)},
        "points": {"number": 16},
        "rotation": {"tilt": 5.0},
        "scale": {},
        "mirror": 0.5,
        "jitter": {},
    },
}
OF = {"series": (series, SERIES, X), "points": (points, POINTS, CLOUDS)}


def views_of(kind, x=None, keys=KEYS, data=DATA, **group):
    module, field, own = OF[kind]
    make = module.views({"count": keys.shape[1], **group}, field=field, data=data, where="views.a")
    return np.asarray(jax.jit(make)(keys, jnp.asarray(own if x is None else x)))


@functools.cache
def everything(kind):
    _, field, own = OF[kind]
    fields = {"index": Field("index"), kind: field}
    make = jax.jit(modalities.build({"a": EVERYTHING[kind]}, fields, DATA))
    batch = {kind: jnp.asarray(own), "index": jnp.arange(8) + 50}
    return make, batch, np.asarray(make(jax.random.key(3), batch)["a"])


def test_every_transform_is_exercised_here():
    for kind, module in (("series", series_transforms), ("points", points_transforms)):
        assert set(EVERYTHING[kind]) - {"count", "length"} == set(module.TRANSFORMS)


@pytest.mark.parametrize("kind", OF)
def test_a_view_follows_its_sample_through_any_order(kind):
    make, batch, whole = everything(kind)
    order = np.array([4, 1, 5, 0, 2, 3, 7, 6])
    again = make(jax.random.key(3), {name: x[order] for name, x in batch.items()})["a"]
    np.testing.assert_allclose(again, whole[order], atol=1e-6)
    assert whole.shape == {"series": (8, 2, 24, 3), "points": (8, 2, 16, 3)}[kind]


@pytest.mark.parametrize("kind", OF)
def test_views_differ_by_key_index_and_number(kind):
    make, batch, _ = everything(kind)
    check_draws(make, jax.random.key(3), batch, kind)


@pytest.mark.parametrize("kind", OF)
def test_eight_devices_make_the_views_of_one_without_communication(kind):
    make, batch, _ = everything(kind)
    check_eight_devices(make, jax.random.key(3), batch, atol=1e-5)


def test_without_transforms_a_view_is_the_plain_one():
    plain = np.asarray(series.plain(jnp.asarray(X), data=DATA))
    np.testing.assert_allclose(plain, (X - 0.5) / 2, rtol=1e-6)
    np.testing.assert_allclose(views_of("series")[:, 1], plain, atol=1e-5)
    np.testing.assert_allclose(views_of("points")[:, 1], points.plain(CLOUDS, data={}), atol=1e-6)


@pytest.mark.parametrize(
    "kind, nothing",
    [
        ("series", {"crop": {"scale": (1.0, 1.0)}}),
        ("series", {"jitter": {"sigma": 0.0}}),
        ("series", {"flip": 0.0, "channel_dropout": 0.0}),
        ("points", {"rotation": {"up": 0.0, "tilt": 0.0}}),
        ("points", {"scale": {"range": (1.0, 1.0)}, "mirror": 0.0}),
        ("points", {"jitter": {"sigma": 0.0}}),
    ],
)
def test_at_no_strength_nothing_changes(kind, nothing):
    np.testing.assert_allclose(views_of(kind, **nothing), views_of(kind), atol=1e-5)


def test_series_are_changed_as_each_transform_says():
    plain = views_of("series")
    flipped = views_of("series", flip=1.0)
    np.testing.assert_allclose(flipped, -plain, atol=1e-6)
    dropped = views_of("series", channel_dropout=0.5)
    gone, kept = (dropped == 0).all(2), np.isclose(dropped, plain, atol=1e-5).all(2)
    assert np.all(gone | kept) and gone.any() and kept.any()
    ramp = np.broadcast_to(np.linspace(0, 1, 40, dtype=np.float32)[:, None], (8, 40, 3))
    part = views_of("series", x=ramp, data={"mean": 0.0, "std": 1.0}, crop={"scale": (0.5, 0.5)})
    np.testing.assert_allclose(part[:, :, -1] - part[:, :, 0], 0.5, atol=1e-5)
    pieces = views_of("series", x=ramp, data={"mean": 0.0, "std": 1.0}, permutation={})
    whole = np.broadcast_to(ramp[:, None], pieces.shape)
    np.testing.assert_allclose(np.sort(pieces, 2), whole, atol=1e-5)
    assert np.abs(pieces - whole).max() > 0.1


def test_points_are_moved_as_each_transform_says():
    plain = views_of("points")
    size = lambda x: np.linalg.norm(x, axis=-1)
    turned = views_of("points", rotation={"up": 180.0})
    np.testing.assert_allclose(size(turned), size(plain), atol=1e-5)
    np.testing.assert_allclose(turned[..., 2], plain[..., 2], atol=1e-5)  # up stays up
    assert np.abs(turned - plain).max() > 0.1
    mirrored = views_of("points", mirror=1.0)
    np.testing.assert_allclose(mirrored, plain * np.float32([-1, -1, 1]), atol=1e-6)
    shaken = views_of("points", jitter={"sigma": 0.5, "clip": 0.02})
    assert 0.019 < np.abs(shaken - plain).max() <= 0.02001
    few = views_of("points", points={"number": 8})
    assert np.isclose(size(few).max(-1), 1).all()  # normalised by what is left
    near = views_of("points", crop={"scale": (0.2, 0.2)}, points={"number": 6})
    assert all(len(np.unique(cloud.round(5), axis=0)) == 6 for view in near for cloud in view)


def test_the_raw_controls_see_what_they_say():
    ramp = np.arange(200, dtype=np.float32)[None, :, None]
    seen = np.asarray(series.raw(jnp.asarray(ramp)))
    np.testing.assert_allclose(seen, np.linspace(0, 199, 128)[None], atol=1e-3)
    corner = np.full((1, 4, 3), -0.99, np.float32)
    corner[0, 0] = 0.99
    cells = np.asarray(points.raw(jnp.asarray(corner)))[0]
    assert cells[0] == 0.75 and cells[-1] == 0.25 and cells.sum() == 1


@pytest.mark.parametrize("kind", OF)
def test_pictures_have_ink_on_white(kind):
    module, _, own = OF[kind]
    pictures = module.show(own)
    assert pictures.dtype == np.uint8 and len(pictures) == 8
    ink = (pictures < 128).mean((1, 2, 3))
    assert (ink > 0).all() and (ink < 0.5).all()


def test_a_channel_of_small_numbers_is_seen_beside_one_of_large_ones():
    x = np.stack([np.sin(np.arange(64.0)), 1e4 + 0.1 * np.cos(np.arange(64.0))], -1)[None]
    lanes = series.show(x)[0, :, :, 0].reshape(2, -1, 128)
    for lane in lanes:
        assert (lane[:3] == 0).any() and (lane[-3:] == 0).any()  # from its least to its most


def test_an_encoder_of_points_does_not_mind_their_order():
    config = dict(name="pointnet", groups=30, neighbors=4, local_widths=(8,), widths=(8,))
    net = encoders.build(config, dtype=jnp.float32)
    variables = net.init(jax.random.key(0), CLOUDS, train=False)
    pooled = lambda x: net.apply(variables, x, train=False)["pooled"]
    order = np.r_[0, 1 + RNG.permutation(29)]  # the first of the centres is point 0
    np.testing.assert_allclose(pooled(CLOUDS[:, order]), pooled(CLOUDS), atol=1e-5)


@pytest.mark.parametrize(
    "kind, group, line",
    [
        ("series", {"jiter": {}}, r"views\.a\.jiter: no such transform; did you mean 'jitter'"),
        ("series", {"crop": {"scale": (0.9, 0.5)}}, r"views\.a\.crop\.scale: .*lower end first"),
        ("points", {"points": {"number": 31}}, r"number: found 31, expected at most the 30 stored"),
        ("points", {"rotation": {"up": 200.0}}, r"rotation\.up: found 200\.0, expected a number"),
    ],
)
def test_what_does_not_fit_is_one_line(kind, group, line):
    with pytest.raises(ConfigError, match=line):
        views_of(kind, **group)


@pytest.mark.parametrize("kind, module", [("series", series), ("points", points)])
def test_whole_numbers_are_refused(kind, module):
    with pytest.raises(ConfigError, match=f"{kind}: found int32"):
        module.plain(jnp.ones((2, 4, 3), jnp.int32), data=DATA)
