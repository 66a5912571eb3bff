"""Methods that predict features, codes or a teacher's tokens of what is hidden: their wiring."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from jaxssl import losses
from jaxssl.config.errors import ConfigError
from jaxssl.config.load import merged
from jaxssl.config.naming import fold_name
from jaxssl.data.images import image_fields
from jaxssl.method import Context, Info
from jaxssl.methods import patch_codebook
from jaxssl.methods.composed import wiring
from jaxssl.methods.composed.inputs import Blocks
from jaxssl.methods.composed.student_teacher import student_networks
from jaxssl.methods.composed.wiring import OPTIONS
from jaxssl.program import Program
from jaxssl.run import stages
from jaxssl.state import example_batch

# experiment -> (its loss, the head that predicts, what it predicts, the argument from the mask).
METHODS = {
    "maskfeat": ("masked_squared_error", "gradients", "input/gradients", "mask"),
    "beit": ("masked_cross_entropy", "codes", "input/codes", "mask"),
    "data2vec": ("data2vec", "prediction", "ema/layers", "mask"),
    "ijepa": ("ijepa", "prediction", "ema/tokens", "targets"),
    "flexpredict": ("ijepa", "prediction", "ema/tokens", "targets"),
}
INFO = Info(
    fields=image_fields((16, 16, 1)),
    num_samples=64,
    num_classes=10,
    steps=20,
    steps_per_epoch=8,
    global_batch=8,
)
KEY = jax.random.key(3)
# With no random views, the pixels that a network sees are those of the batch.
VIEWS = {"views": {"global": dict(count=1, size=16)}}


def config_of(name, **changes):
    return merged(experiments.small(name), VIEWS | {"train.global_batch": 8, **changes})


def batch_of():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1), np.uint8)
    return {"index": jnp.arange(8, dtype=jnp.int32), "image": jnp.asarray(pixels)}


@functools.cache
def start(name):
    """(config, method, params, teachers, extra); the teachers have moved away from the student."""
    config = config_of(name)
    method = wiring.build(config, INFO)
    params, extra = jax.jit(method.init)(KEY, example_batch(INFO))
    tokenizer = {"codebook": {"vectors": jax.random.normal(KEY, (128, 16))}}
    moved = jax.tree.map(lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), params)
    teachers = {"tokenizer": tokenizer, "ema": {"encoder": moved["encoder"]}}
    return config, method, params, {n: teachers[n] for n in config.teachers}, extra


@functools.cache
def parts(name):
    """The networks and the masked view of a step, as a function of the clean view."""
    config = start(name)[0]
    options = wiring._options(config)
    networks = student_networks(config, options["batch_statistics"], INFO)
    blocks = Blocks(config, OPTIONS | options, networks.encoder, INFO, keyed=True)
    plain, _ = blocks.plain(KEY, batch_of())
    return networks, blocks.for_student(KEY, batch_of(), plain), plain


@functools.cache
def predictor(name):
    networks, masked, _ = parts(name)
    output, params, stats = METHODS[name][1], start(name)[2], {}

    def predict(x):
        block = {"global": masked["global"] | {"x": x}}
        return networks.outputs(params, stats, block, (output,), train=True)[0][output]["global"]

    return jax.jit(predict)


def hidden_pixels(name):
    """[B, 1, 16, 16, 1], true within the patches that the student is not shown."""
    config, masked = start(name)[0], parts(name)[1]["global"]
    side = config.encoder.patch
    hidden = np.asarray(masked["mask"])
    if "tokens" in masked:
        hidden = np.ones_like(hidden)
        np.put_along_axis(hidden, np.asarray(masked["tokens"]), False, -1)
    grid = hidden.reshape(8, 1, 16 // side, 16 // side)
    return grid.repeat(side, 2).repeat(side, 3)[..., None]


@pytest.mark.parametrize("name", ["maskfeat", "ijepa"])
def test_hidden_pixels_change_no_prediction(name):
    x, hidden = parts(name)[2]["global"]["x"], hidden_pixels(name)
    assert hidden.any() and not hidden.all()
    before = predictor(name)(x)
    np.testing.assert_array_equal(predictor(name)(jnp.where(hidden, x + 3.0, x)), before)
    shown = predictor(name)(jnp.where(hidden, x, x + 3.0))
    assert float(jnp.abs(shown - before).max()) > 1e-5


@pytest.mark.parametrize("name", ["maskfeat", "beit", "data2vec", "ijepa"])
def test_the_loss_compares_the_masked_view_with_a_target_of_the_clean_one(name):
    config, method, params, seen, extra = start(name)
    fn, _, target, argument = METHODS[name]
    networks, masked, plain = parts(name)
    x = plain["global"]["x"]
    who, output = target.split("/")
    if who == "input":
        made = wiring._targets(config)[output](x, seen)
    else:
        given = {"global": {"x": x}}
        made = networks.outputs(seen[who], {}, given, (output,), train=True)[0][output]["global"]
    (term,) = config.losses.values()
    numbers = {k: term[k] for k in ("top_k", "beta") if k in term}
    own = masked["global"][argument][:, 0]
    expected = getattr(losses, fn)(predictor(name)(x)[:, 0], made[:, 0], own, **numbers)
    value, _ = jax.jit(method.losses["main"])(
        Context(params, seen, extra, batch_of(), KEY, jnp.int32(0))
    )
    np.testing.assert_allclose(value, expected, rtol=2e-5)


@pytest.mark.parametrize("name", ["beit", "data2vec", "ijepa"])
def test_no_gradient_reaches_a_teacher(name):
    _, method, params, seen, extra = start(name)
    params = jax.tree.map(lambda x: x + 0.01, params)

    def loss(params, vectors):
        return method.losses["main"](
            Context(params, vectors, extra, batch_of(), KEY, jnp.int32(0))
        )[0]

    own, theirs = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, seen)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(theirs))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(own["encoder"]["patch_embedding"]))


@pytest.mark.parametrize(("name", "hidden"), [("maskfeat", 78), ("beit", 75), ("data2vec", 120)])
def test_published_masks_hide_the_published_number(name, hidden):
    config = experiments.load(name, "imagenet1k_vit_b16")
    assert config.masks.hidden.least == 16
    assert int(196 * config.masks.hidden.ratio + 1e-4) == hidden


def test_gradients_have_108_numbers_at_16_pixels():
    assert experiments.load("maskfeat", "imagenet1k_vit_b16").student.gradients.width == 108


def test_flexpredict_without_noise_is_ijepa():
    """Bit for bit: nothing else differs."""
    _, method, params, seen, extra = start("ijepa")
    quiet = config_of("flexpredict", **{"student.predictor.noise": 0.0})
    losses_of = [m.losses["main"] for m in (method, wiring.build(quiet, INFO))]
    one, other = (
        jax.jit(loss)(Context(params, seen, extra, batch_of(), KEY, jnp.int32(0)))[0]
        for loss in losses_of
    )
    assert float(one) == float(other)


def test_other_keys_give_other_noise():
    params = start("flexpredict")[2]
    assert set(params["predictor"]) & {"mask_token", "noise_embedding"} == set()
    # The projection is small at the start; larger, it shows what it carries.
    louder = jax.tree.map(lambda x: 20 * x, params["predictor"]["embedding"])
    louder = params | {"predictor": params["predictor"] | {"embedding": louder}}
    networks, masked, _ = parts("flexpredict")

    def predict(key):
        block = {"global": masked["global"] | {"key": key}}
        return networks.outputs(louder, {}, block, ("prediction",), True)[0]["prediction"]["global"]

    keys = masked["global"]["key"]
    one, other = jax.jit(predict)(keys), jax.jit(predict)(keys + jnp.uint32(1))
    assert float(jnp.abs(one - other).max()) > 1e-3


# The tokenizer of BEiT.


def codebook_config(**changes):
    first, _ = stages.resolve(experiments.small("beit"), experiments.FOLDER)
    return experiments.with_changes(first.config, changes)


def test_a_vector_moves_to_the_mean_of_its_patches_or_to_the_nearest_patch():
    patches = jnp.array([[0.0, 0.0], [2.0, 0.0], [9.0, 9.0]])
    vectors = jnp.array([[1.0, 1.0], [8.0, 9.0], [20.0, 9.0]])
    pull = jax.grad(lambda c: sum(patch_codebook.quantization(patches, c)[:2]))(vectors)
    # 2 (C - x) over three patches; the third is nearest to none, and its nearest is (9, 9).
    np.testing.assert_allclose(pull, [[0, 4 / 3], [-2 / 3, 0], [22, 0]], atol=1e-6)
    at_means = jnp.array([[1.0, 0.0], [9.0, 9.0]])
    still = jax.grad(lambda c: sum(patch_codebook.quantization(patches, c)[:2]))(at_means)
    assert not np.any(still)
    assert not np.any(jax.grad(lambda x: patch_codebook.quantization(x, vectors)[0])(patches))


def test_the_tokenizer_learns_and_the_second_stage_reads_its_codes(tmp_path):
    first, second = stages.resolve(experiments.small("beit"), tmp_path)
    assert (first.config.method, second.config.method) == ("patch_codebook", "composed")
    changed = {"method_options": dict(count=128), "train.steps": 12}
    program = Program(merged(first.config, changed), devices=jax.devices()[:1])
    state, batches, log = program.init(), program.batches(0), []
    with jax.set_mesh(program.mesh):
        for _ in range(12):
            state, metrics = program.step(state, next(batches))
            log.append({k: float(v) for k, v in metrics.items()})
        encode = jax.jit(program.method.encoders["codes"])
        found = encode(Context(state.params, {}, state.extra, next(batches), KEY, 0))
    assert log[-1]["distance"] < 0.7 * log[0]["distance"]
    assert log[-1]["used"] > log[0]["used"]
    assert found["pooled"].shape == (32, 128)
    np.testing.assert_allclose(found["pooled"].sum(-1), 1, rtol=1e-5)

    vectors = np.asarray(state.params["codebook"]["vectors"])
    left = {"tokenizer": stages.artifact(state)}
    then = Program(second.config, left, devices=jax.devices()[:1]).init()
    assert "codebook" not in then.params
    np.testing.assert_array_equal(then.teachers["tokenizer"]["codebook"]["vectors"], vectors)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method_options": {}}, r"method_options\.count: found \(0,\)"),
        ({"method_options": dict(cuont=3)}, r"method_options\.cuont: unknown.*'count'"),
        ({"targets": {}}, r"targets: found 0 named 'codes', expected one"),
        ({"targets": {"codes": dict(name="codes")}}, r"targets\.codes\.patch: missing"),
        ({"masks.hidden": dict(name="block", ratio=0.5)}, r"masks\.hidden: 'patch_codebook' reads"),
    ],
)
def test_what_a_codebook_does_not_take_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        patch_codebook.build(codebook_config(**changes), INFO)


# Two methods at once: each is an edit of a config.


def one_step(config):
    program = Program(config, devices=jax.devices()[:1])
    state = program.init()
    before = jax.tree.map(np.asarray, state.params)
    state, metrics = program.step(state, next(program.batches(0)))
    return program, before, state, {k: float(v) for k, v in metrics.items()}


def test_ijepa_with_sigreg_in_place_of_the_moving_average():
    """A teacher of decay 0 is the student itself, on the whole view and without its gradient."""
    sigreg = dict(fn="sigreg", student="pooled", pairs="single", num_slices=16, weight=0.05)
    edits = {"teachers.ema.decay": 0.0, "losses.sigreg": sigreg}
    _, before, state, metrics = one_step(
        experiments.with_changes(experiments.small("ijepa"), edits)
    )
    assert np.isfinite(list(metrics.values())).all() and metrics["sigreg"] > 0
    assert metrics["loss"] == pytest.approx(metrics["ijepa"] + 0.05 * metrics["sigreg"], rel=1e-5)
    moved = state.params["encoder"]["patch_embedding"]["kernel"]
    assert np.any(moved != before["encoder"]["patch_embedding"]["kernel"])
    np.testing.assert_array_equal(
        state.teachers["ema"]["encoder"]["patch_embedding"]["kernel"], moved
    )


def test_lejepa_with_masked_local_views():
    vit = dict(name="vit", width=16, depth=1, heads=2, patch=4, image_size=16, pool="mean")
    plain = dict(size=16, noise=dict(sigma=0.1))
    edits = {
        "encoder": vit,
        "views": {"global": dict(count=2, **plain), "local": dict(count=2, **plain)},
        "masks.hidden": dict(name="random", views=("local",), ratio=0.75, how="drop"),
    }
    program, _, _, metrics = one_step(experiments.with_changes(experiments.small("lejepa"), edits))
    assert np.isfinite(list(metrics.values())).all() and metrics["prediction"] > 0
    options = wiring._options(program.config)
    networks = student_networks(program.config, options["batch_statistics"], program.info)
    blocks = Blocks(program.config, options, networks.encoder, program.info)
    batch = next(program.batches(0))
    key = fold_name(KEY, "step")
    masked = blocks.for_student(key, batch, blocks.plain(key, batch)[0])
    assert "tokens" not in masked["global"] and masked["local"]["tokens"].shape == (32, 2, 4)
