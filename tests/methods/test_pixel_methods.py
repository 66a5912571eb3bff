"""Methods that predict pixels and voxels: what hides, what leaks not, who gets which gradient."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from jaxssl import encoders, heads, masks
from jaxssl.config import schedules
from jaxssl.config.errors import ConfigError
from jaxssl.config.load import merged
from jaxssl.data.images import image_fields
from jaxssl.losses import fooling_error, inpainting_error, telling_error
from jaxssl.masks import MaskInput, Setting
from jaxssl.method import Context, Info
from jaxssl.program import find_family
from jaxssl.state import example_batch
from jaxssl.targets import colour_bins

B = 8
KEY = jax.random.key(3)


def info_of(config):
    side = config.data.size
    frames = (config.data.frames,) if config.data.frames else ()
    fields = image_fields((*frames, side, side, len(config.data.mean)))
    return Info(fields, 256, 10, 10, 32, B)


def config_of(name, **changes):
    config = experiments.small(name, **{"train.global_batch": B} | changes)
    with config.unlocked():
        for group, view in config.views.items():  # views that compile fast
            config.views[group] = dict(count=view.count, size=view.size)
    return config


def batch_of(info, seed=0):
    pixels = np.random.default_rng(seed).integers(
        0, 256, (B, *info.fields["image"].shape), np.uint8
    )
    index = jnp.arange(B, dtype=jnp.int32)
    return {"index": index, "image": jnp.asarray(pixels), "label": index}


def shapes_of(config):
    """The method, and the shapes of its params and teachers and of its loss."""
    info = info_of(config)
    method = find_family(config.method).build(config, info)
    batch = jax.eval_shape(lambda: example_batch(info, B))
    params, extra = jax.eval_shape(method.init, KEY, batch)
    seen = {n: jax.eval_shape(t.init, KEY, params, extra, {}) for n, t in method.teachers.items()}
    step = jax.ShapeDtypeStruct((), jnp.int32)
    return jax.eval_shape(method.losses["main"], Context(params, seen, extra, batch, KEY, step))


def hidden_of(config, grid, views=1):
    """What the one mask of a config hides of views of a grid, [B, V, T]."""
    (entry,) = config.masks.values()
    mask = masks.build(entry.to_dict(), setting=Setting(grid, 10), field="masks.m")
    keys = jax.random.split(KEY, (B, views))
    given = MaskInput(jnp.zeros((B, views, 1, 1, 1)), keys, KEY, jnp.int32(0))
    return {name: np.asarray(x) for name, x in mask.hide(given).items()}


@pytest.mark.parametrize(
    "preset, side, cells", [("digits", 4, 1), ("cifar10", 8, 4), ("imagenet1k_vit_b16", 12, 4)]
)
def test_simmim_hides_three_fifths_of_the_units_rounded_up(preset, side, cells):
    config = experiments.load("simmim", preset)
    patch = config.encoder.patch
    assert config.views["global"].size == side * patch == config.encoder.image_size
    mask = hidden_of(config, (side, side))["mask"]
    assert (mask.sum(-1) == cells * math.ceil(0.6 * side**2 / cells)).all()


def test_simmim_does_not_see_what_is_hidden():
    config = config_of("simmim")
    encoder = encoders.build(config.encoder.to_dict(), dtype=jnp.float32)
    mask = jnp.asarray(hidden_of(config, (4, 4))["mask"][:, 0])
    x = jax.random.normal(KEY, (B, 16, 16, 1))
    pixels = jnp.repeat(jnp.repeat(mask.reshape(B, 4, 4), 4, 1), 4, 2)[..., None]
    apply = jax.jit(lambda v, x, mask: encoder.apply(v, x, train=False, mask=mask)["tokens"])
    variables = encoder.init(KEY, x, train=False)
    tokens = apply(variables, x, mask)
    np.testing.assert_array_equal(apply(variables, jnp.where(pixels, 9.0, x), mask), tokens)
    assert (apply(variables, jnp.where(pixels, x, 9.0), mask) != tokens).any()


@pytest.mark.parametrize(
    "preset, tokens, kept", [("digits", 256, 25), ("clips_vit_h14", 2048, 204)]
)
def test_video_mae_keeps_a_tenth_of_all_boxes(preset, tokens, kept):
    config = experiments.load("video_mae", preset)
    grid = tuple(config.student.decoder.grid)
    assert math.prod(grid) == tokens
    assert hidden_of(config, grid)["tokens"].shape == (B, 1, kept)


def test_s3d_hides_one_ratio_of_the_batch_between_its_bounds():
    config = experiments.load("s3d_mae", "volumes160")
    assert config.data.size // config.encoder.unit == 10
    counts = hidden_of(config, (10, 10, 10))["mask"].sum(-1)
    assert len(np.unique(counts)) == 1 and 600 <= counts[0, 0] <= 899
    assert len(np.unique(hidden_of(config, (10, 10, 10))["mask"][:, 0], axis=0)) == B


def test_the_rate_of_segmentation_networks():
    rate = schedules.make(("polynomial", 1.0, 0.9), 100)
    np.testing.assert_allclose([rate(0), rate(50), rate(100)], [1, 0.535887, 0], atol=1e-6)
    with pytest.raises(ConfigError, match=r"polynomial.*power"):
        schedules.make(("polynomial", 1.0, 0.0), 100)


@pytest.mark.parametrize("sparse", [True, False])
def test_s3d_does_not_see_what_is_hidden(sparse):
    """Neither where it computes on the visible alone, nor where zeros stand for the hidden."""
    changes = {"encoder.sparse": sparse, "student.decoder.densify": sparse}
    config = config_of("s3d_mae", **changes)
    encoder = encoders.build(config.encoder.to_dict(), dtype=jnp.float32)
    fields = config.student.decoder.to_dict()
    fields = {k: v for k, v in fields.items() if k not in ("reads", "output")}
    decoder = heads.build(fields, dtype=jnp.float32)
    mask = jnp.asarray(hidden_of(config, (2, 2, 2))["mask"][:, 0])
    x = jax.random.normal(KEY, (B, 8, 8, 8, 1))
    cells = mask.reshape(B, 2, 2, 2)
    for axis in (1, 2, 3):
        cells = jnp.repeat(cells, 4, axis)

    @jax.jit
    def apply(x):
        stages, _ = encoder.init_with_output(KEY, x, train=False, mask=mask, capture=("stages",))
        out, _ = decoder.init_with_output(KEY, stages["stages"], train=False, mask=mask)
        return out

    out = apply(x)
    assert out.shape == (B, 8, 64)
    np.testing.assert_array_equal(apply(jnp.where(cells[..., None], 9.0, x)), out)
    assert (apply(jnp.where(cells[..., None], x, 9.0)) != out).any()


def size(tree):
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


def test_sit_moves_no_teacher_and_its_keys_have_no_affine_norm():
    config = config_of("sit", **{"encoder.depth": 1})
    info = info_of(config)
    method = find_family(config.method).build(config, info)
    params, extra = jax.jit(method.init)(KEY, example_batch(info))
    seen = {n: t.init(KEY, params, extra, {}) for n, t in method.teachers.items()}
    last = f"norm{len(config.student.projector.widths) - 1}"
    assert last in extra["batch_stats"]["ema"]["projector"] and last not in params["projector"]

    def loss(params, seen):
        return method.losses["main"](
            Context(params, seen, extra, batch_of(info), KEY, jnp.int32(0))
        )

    grads, aux = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, seen)
    assert size(grads[1]) == 0
    assert all(size(grads[0][name]) > 0 for name in ("encoder", "projector", "decoder"))
    assert set(aux.metrics) >= {"contrast", "pixels"}


@functools.cache
def game():
    """(method, params, compiled metrics and their derivatives) of a small context encoder."""
    config = config_of("context_encoder")
    config = merged(experiments.without_batch_norm(config), {})
    info = info_of(config)
    method = find_family(config.method).build(config, info)
    params, extra = jax.jit(method.init)(KEY, example_batch(info))

    def metrics(params, batch):
        value, aux = method.losses["main"](Context(params, {}, extra, batch, KEY, jnp.int32(0)))
        return {"loss": value, **aux.metrics}

    return info, method, params, jax.jit(metrics), jax.jit(jax.jacrev(metrics))


def test_each_side_of_the_game_moves_itself_alone():
    info, method, params, _, slopes = game()
    found = slopes(params, batch_of(info))
    generator, discriminator = ("encoder", "decoder"), ("discriminator", "score")
    for name in discriminator:
        assert size(found["fooling"][name]) == size(found["reconstruction"][name]) == 0
        assert size(found["telling"][name]) > 0
    for name in generator:
        assert size(found["telling"][name]) == 0
        assert size(found["fooling"][name]) > 0 and size(found["reconstruction"][name]) > 0
    assert set(method.optimizers) == {"main", "discriminator"}
    assert method.optimizers["main"].on == generator
    assert method.optimizers["discriminator"].on == discriminator


def test_the_loss_weighs_its_parts():
    info, _, params, metrics, _ = game()
    found = metrics(params, batch_of(info))
    expected = 0.999 * found["reconstruction"] + 0.001 * found["fooling"] + found["telling"]
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-6)


def test_the_discriminator_sees_the_hole_alone_and_the_generator_the_rest():
    info, _, params, metrics, _ = game()
    # An image of one colour, whatever the encoder finds.
    blank = jax.tree.map(jnp.zeros_like, params["decoder"]["image"])
    flat = {**params, "decoder": {**params["decoder"], "image": blank}}
    batch, other = batch_of(info), batch_of(info, seed=1)
    hole = np.zeros((16, 16, 1), bool)
    hole[4:12, 4:12] = True
    within = {**batch, "image": jnp.where(hole, other["image"], batch["image"])}
    around = {**batch, "image": jnp.where(hole, batch["image"], other["image"])}
    one, inside, outside = (metrics(flat, b) for b in (batch, within, around))
    assert one["telling"] == outside["telling"] != inside["telling"]
    # What is drawn does not depend on what was in the hole, so neither does its score.
    one, inside, outside = (metrics(params, b) for b in (batch, within, around))
    assert one["fooling"] == inside["fooling"] != outside["fooling"]


def test_no_gradient_outside_of_the_hole_and_its_border():
    y, x = jax.random.normal(KEY, (2, 3, 12, 12, 2))
    hole = np.zeros((3, 12, 12), bool)
    hole[:, 4:8, 4:8] = True
    border = np.zeros_like(hole)
    border[:, 2:10, 2:10] = True
    border &= ~hole
    slope = jax.grad(inpainting_error)
    np.testing.assert_array_equal((slope(y, x, hole) != 0).all(-1), hole)
    plain, more = slope(y, x, hole), slope(y, x, hole, overlap=2, overlap_weight=10.0)
    np.testing.assert_array_equal((more != 0).all(-1), hole | border)
    expected = 2 * (y - x) / (2 * 3 * 64) * (hole + 10.0 * border)[..., None]
    np.testing.assert_allclose(more, expected, rtol=1e-5)
    np.testing.assert_allclose(plain, (2 * (y - x) / (2 * 3 * 16)) * hole[..., None], rtol=1e-5)
    assert size(jax.grad(inpainting_error, 1)(y, x, hole)) == 0
    assert inpainting_error(y, x, jnp.zeros_like(hole)) == 0


def test_the_game_at_large_scores_is_finite():
    scores = jnp.array([-1e4, 1e4])
    for fn in (fooling_error, lambda s: telling_error(s, s)):
        assert jnp.isfinite(fn(scores)) and jnp.isfinite(jax.grad(fn)(scores)).all()
    np.testing.assert_allclose(fooling_error(jnp.array([2.0])), math.log1p(math.exp(-2)), rtol=1e-6)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method_options.overlap": -1}, "method_options.overlap: found -1"),
        ({"method_options.overlapp": 1}, "method_options.overlapp: unknown.*'overlap'"),
        ({"method_options.discriminator": {}}, "method_options.discriminator: missing"),
        ({"student.decoder": None}, "student.decoder: missing"),
        ({"masks.hole": None}, "masks: found .*expected one that cuts a hole"),
        ({"student.decoder.widths": (8,)}, "student.decoder: found images"),
    ],
)
def test_refused(changes, message):
    config = experiments.with_changes(config_of("context_encoder"), changes)
    with pytest.raises(ConfigError, match=message):
        shapes_of(config)


def test_the_hole_is_judged_beside_one_colour_and_shown():
    info, method, params, _, _ = game()
    _, extra = jax.jit(method.init)(KEY, example_batch(info))
    blank = jax.tree.map(jnp.zeros_like, params["decoder"]["image"])
    flat = {**params, "decoder": {**params["decoder"], "image": blank}}
    batch = batch_of(info)
    error, constant = jax.jit(method.readouts["pretext"])(
        Context(flat, {}, extra, batch, KEY, jnp.int32(0))
    )["hole"]
    # An image of one colour is no better than the best such image, and worse by its distance.
    assert 0 < constant < error
    same = {**batch, "image": jnp.full_like(batch["image"], 77)}
    read = jax.jit(method.readouts["pretext"])
    assert read(Context(flat, {}, extra, same, KEY, jnp.int32(0)))["hole"][1] < 1e-6
    make = jax.jit(method.pictures["hole"])
    shown = make(Context(flat, {}, extra, batch, KEY, 0))
    clean, seen, filled = map(np.asarray, shown.values())
    hole = np.zeros((16, 16, 1), bool)
    hole[4:12, 4:12] = True
    np.testing.assert_array_equal(np.where(hole, 0, seen), np.where(hole, 0, clean))
    np.testing.assert_array_equal(np.where(hole, 0, filled), np.where(hole, 0, clean))
    assert np.ptp(filled[:, 4:12, 4:12]) == 0 < np.ptp(clean[:, 4:12, 4:12])


def test_predicted_colours_are_laid_over_the_luminance_of_the_view():
    config = config_of("colorization")
    info = info_of(config)
    method = find_family(config.method).build(config, info)
    params, extra = jax.jit(method.init)(KEY, example_batch(info))
    # A classifier that is sure of one bin: the gray one, then the first of all.
    bins = colour_bins.gamut(colour_bins.SPACING)
    head = jax.tree.map(jnp.zeros_like, params["classifier"])
    make = jax.jit(method.pictures["prediction of colours"])

    def shown(bin):
        certain = lambda x: x.at[bin].set(50.0) if x.shape == (len(bins),) else x
        sure = {**params, "classifier": jax.tree.map(certain, head)}
        images = make(Context(sure, {}, extra, batch_of(info), KEY, 0))
        return np.stack(list(images.values()))

    clean, seen, coloured = shown(int(np.flatnonzero((bins == 0).all(1))[0]))
    assert np.ptp(seen, axis=-1).max() < 1e-5 < np.ptp(clean, axis=-1).max()
    np.testing.assert_allclose(np.ptp(coloured, axis=-1), 0, atol=1e-3)
    lightness = lambda image: np.asarray(colour_bins.lab(jnp.asarray(image)))[..., 0]
    np.testing.assert_allclose(lightness(coloured), lightness(clean), atol=0.1)
    assert np.ptp(shown(0)[2], axis=-1).max() > 0.1
