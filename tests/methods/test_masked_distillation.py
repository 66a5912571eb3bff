"""Self-distillation with masks, and teachers that earlier stages leave: what their configs do."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pytest import approx

import experiments
from jaxssl import encoders, masks, optim
from jaxssl.config.naming import named_leaves
from jaxssl.data.images import image_fields
from jaxssl.method import Context, Info
from jaxssl.methods import composed
from jaxssl.methods.composed.inputs import Blocks
from jaxssl.optim import param_groups
from jaxssl.run import stages
from jaxssl.state import example_batch

B = 8
INFO = Info(
    fields=image_fields((16, 16, 1)),
    num_samples=64,
    num_classes=10,
    steps=10,
    steps_per_epoch=4,
    global_batch=B,
)
KEY = jax.random.key(3)
BATCH = {
    "index": 3 * jnp.arange(B, dtype=jnp.int32),
    "image": jnp.asarray(np.random.default_rng(0).integers(0, 256, (B, 16, 16, 1), np.uint8)),
    "label": jnp.arange(B, dtype=jnp.int32) % 10,
}
TOKEN_METHODS = ("ibot", "dinov2", "attmask")


def config_of(name, **changes):
    """The small config, whose views are the images themselves."""
    config = experiments.small(name, **{"train.global_batch": B} | changes)
    with config.unlocked():
        for group in config.views:
            config.views[group] = dict(count=config.views[group].count, size=16)
    return config


def start(config, artifacts=None):
    """(params, what losses see of the teachers, extra), and the loss with its gradients by both."""
    method = composed.build(config, INFO)

    def init(key):
        params, extra = method.init(key, example_batch(INFO))
        own = jax.random.fold_in(key, 1)
        seen = {n: t.init(own, params, extra, artifacts or {}) for n, t in method.teachers.items()}
        return params, seen, extra

    def loss(params, seen, extra, batch):
        return method.losses["main"](Context(params, seen, extra, batch, KEY, jnp.int32(0)))

    return jax.jit(init)(KEY), jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))


@functools.cache
def started(name):
    """`start` of a config that always masks, shared by the tests below."""
    always = {"masks.hidden.probability": 1.0} if name in TOKEN_METHODS else {}
    return start(config_of(name, **always))


def largest(tree):
    return max([float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree)], default=0.0)


def changed(tree, path, fn):
    """The tree with `fn` of the part at `path`."""
    if not path:
        return jax.tree.map(fn, tree)
    return {**tree, path[0]: changed(tree[path[0]], path[1:], fn)}


def hidden_of(config, group):
    """[B, V, T], what the step at `KEY` hides; the views are the images themselves."""
    encoder = encoders.build(config.encoder.to_dict(), dtype=jnp.float32)
    made = Blocks(config, {"drop_path": 0.0, "mixed": ()}, encoder, INFO)
    plain, _ = made.plain(KEY, BATCH)
    return np.asarray(made.for_student(KEY, BATCH, plain)[group]["mask"])


def repainted(patches):
    """The batch with other pixels in the patches [B, 16] of 4 x 4 pixels."""
    inside = patches.reshape(B, 4, 1, 4, 1).repeat(4, 2).repeat(4, 4).reshape(B, 16, 16, 1)
    return BATCH | {"image": jnp.where(inside, 255 - BATCH["image"], BATCH["image"])}


@pytest.mark.parametrize("name", TOKEN_METHODS)
def test_every_network_learns_and_no_gradient_reaches_the_teacher(name):
    (params, seen, extra), fn = started(name)
    (value, aux), (by_params, by_seen) = fn(params, seen, extra, BATCH)
    assert np.isfinite(value) and largest(by_seen) == 0
    assert all(largest(by_params[network]) > 0 for network in params)
    assert largest(by_params["encoder"]["mask_token"]) > 0
    heads = {"projector", "prototypes"}
    own = {"patch_projector", "patch_prototypes"} if name == "dinov2" else set()
    assert set(params) == {"encoder"} | heads | own == set(seen["ema"])
    assert aux.metrics["ibot"] > 0 and aux.metrics["dino"] > 0
    assert "memory" not in aux.extra  # balanced codes have no center
    if name == "dinov2":
        assert aux.metrics["koleo"] != 0


@pytest.mark.parametrize("name", ["ibot", "attmask"])
def test_as_published_the_class_token_and_the_patches_have_centers_of_their_own(name):
    config = config_of(name, **{"masks.hidden.probability": 1.0})
    config.losses = experiments.load(name, "imagenet1k_vit_s16").losses
    (params, seen, extra), fn = start(config)
    _, aux = fn(params, seen, extra, BATCH)[0]
    moved = aux.extra["memory"]
    centers = [np.asarray(moved[term]["center"]) for term in ("dino", "ibot")]
    assert np.any(centers[0]) and np.any(centers[1]) and np.any(centers[0] != centers[1])


def test_hidden_pixels_reach_the_student_in_no_view_of_ibot():
    config = config_of(
        "ibot", **{"masks.hidden.probability": 1.0, "masks.hidden.ratio": (0.75, 0.75)}
    )
    (params, seen, extra), fn = start(config)
    # A teacher whose scores are all 0 tells the student the same, whatever it sees.
    seen = changed(seen, ("ema", "prototypes"), jnp.zeros_like)
    mask = hidden_of(config, "global")
    assert mask.sum(-1).tolist() == [[12, 12]] * B and np.any(mask[:, 0] != mask[:, 1])
    everywhere = mask.all(1)
    assert everywhere.any(1).all()
    value = lambda patches: float(fn(params, seen, extra, repainted(patches))[0][0])
    same = value(np.zeros((B, 16), bool))
    assert value(everywhere) == same
    assert abs(value(~mask.any(1)) - same) > 1e-6


@pytest.mark.parametrize("name", TOKEN_METHODS)
def test_half_of_the_views_hide_a_tenth_to_half_of_their_patches(name):
    entry = experiments.load(name).masks.hidden
    assert (entry.probability, entry.ratio, entry.views) == (0.5, (0.1, 0.5), "global")
    assert entry.get("per", "view") == ("batch" if name == "attmask" else "view")


def test_a_view_that_hides_nothing_leaves_dino():
    control = {"masks.hidden.probability": 0.0, "losses.koleo.weight": 0.0}
    (params, seen, extra), fn = start(config_of("dinov2", **control))
    (value, aux), (grads, _) = fn(params, seen, extra, BATCH)
    assert float(aux.metrics["ibot"]) == 0 and float(value) == float(aux.metrics["dino"]) > 0
    assert largest(grads["patch_prototypes"]) == largest(grads["encoder"]["mask_token"]) == 0


def test_koleo_is_a_tenth_of_the_sum_over_both_views():
    (params, seen, extra), fn = started("dinov2")
    _, aux = fn(params, seen, extra, BATCH)[0]
    config = experiments.load("dinov2")
    assert config.views["global"].count == 2
    total = aux.metrics["dino"] + aux.metrics["ibot"] + 0.1 * 2 * aux.metrics["koleo"]
    np.testing.assert_allclose(fn(params, seen, extra, BATCH)[0][0], total, rtol=1e-6)


def test_the_patch_embedding_of_dinov2_learns_at_a_fifth_and_prototypes_wait_an_epoch():
    config = experiments.load("dinov2", "imagenet1k_vit_l14")
    info = INFO._replace(
        fields=image_fields((256, 256, 3), labelled=False), steps=100, steps_per_epoch=1251
    )
    method = composed.build(config, info)
    params, _ = jax.eval_shape(method.init, KEY, example_batch(info))
    assert params["prototypes"]["vectors"].shape == (131072, 384)
    assert params["patch_prototypes"]["vectors"].shape == (131072, 256)
    groups = param_groups.plan(
        param_groups.check_fields(config.optimizer, optim.DEFAULTS, "optimizer"),
        params,
        info.steps,
        "optimizer",
    )
    found = {name: leaf.group for name, leaf in named_leaves(groups).items()}
    for part in ("kernel", "bias"):
        assert float(found[f"encoder/patch_embedding/{part}"].learning_rate(0)) == approx(0.2)
    for head in ("prototypes", "patch_prototypes"):
        assert found[f"{head}/vectors"].freeze_until == 1251
    assert sum(group.name == "default" for group in found.values()) == len(found) - 4


@pytest.mark.parametrize("kind, share", [("high", 2.0), ("hints", 1.2), ("low", 0.5)])
def test_attmask_hides_what_the_teacher_attends_to(kind, share):
    config = experiments.load("attmask", "digits", f"--config.masks.hidden.kind={kind}")
    entry = config.masks.hidden.to_dict() | dict(probability=1.0, ratio=0.25)
    del entry["views"]
    mask = masks.build(entry, setting=masks.Setting((4, 4), 10), field="masks.hidden")
    assert mask.reads == "ema/attention"
    # Class rows whose scores have a spread of 1.5: sharper than at the start, as in training.
    scores = 1.5 * np.random.default_rng(1).normal(size=(B, 2, 3, 17, 17))
    seen = jax.nn.softmax(jnp.asarray(scores), axis=-1)
    keys = jax.random.split(KEY, (B, 2))
    given = masks.MaskInput(jnp.zeros((B, 2, 16, 16, 1)), keys, KEY, jnp.int32(0), seen)
    hidden = np.asarray(mask.hide(given)["mask"])
    assert hidden.sum(-1).tolist() == [[3 if kind == "hints" else 4] * 2] * B
    weights = np.asarray(seen.mean(2)[:, :, 0, 1:])
    of_mask = lambda m: (weights * m).sum() / weights.sum()
    random = hidden.mean()  # the share of a random mask of as many patches
    assert (of_mask(hidden) > share * random) == (kind != "low")


def test_attmask_asks_the_teacher_and_not_the_student():
    (params, seen, extra), fn = started("attmask")

    def patch_term(seen):
        return fn(params, seen, extra, BATCH)[0][1].metrics["ibot"]

    # Queries of the last block move the attention; its output is kept out of the way by a
    # projection that is 0, so that the mask alone differs.
    names = [n for n in named_leaves(seen["ema"]["encoder"]) if "attention" in n or "attn" in n]
    last = max(n for n in names if n.endswith("kernel") and "block" in n)
    block = last.split("/")[:-2]
    names = sorted(named_leaves(functools.reduce(lambda t, k: t[k], block, seen["ema"]["encoder"])))
    assert len(names) >= 2, names
    muted = changed(seen, ("ema", "prototypes"), jnp.zeros_like)
    sharper = changed(muted, ("ema", "encoder", *block), lambda x: 8 * x)
    assert abs(patch_term(sharper) - patch_term(muted)) > 1e-6


def test_dbot_hides_pixels_from_the_student_and_targets_the_whole_image():
    (params, seen, extra), fn = started("dbot")
    (value, _), (grads, by_seen) = fn(params, seen, extra, BATCH)
    assert set(seen["previous"]) == {"encoder"} and largest(by_seen) == 0
    assert largest(grads["decoder"]) > 0 and largest(grads["decoder"]["class_query"]) > 0
    mask = hidden_of(config_of("dbot"), "global")[:, 0]
    assert (mask.sum(-1) == 12).all()
    by = lambda seen, patches: float(fn(params, seen, extra, repainted(patches))[0][0])
    assert abs(by(seen, mask) - float(value)) > 1e-6  # the teacher sees them
    blind = changed(seen, ("previous", "encoder", "patch_embedding"), jnp.zeros_like)
    same = by(blind, np.zeros((B, 16), bool))
    assert by(blind, mask) == same
    assert abs(by(blind, ~mask) - same) > 1e-6


def test_the_second_teacher_of_dbot_is_the_first_encoder_and_its_student_is_new():
    first, second = stages.resolve(config_of("dbot"), pathlib.Path("nowhere"))
    (params, seen, _), _ = start(first.config)
    assert not equal(params["encoder"], seen["previous"]["encoder"])
    trained = jax.tree.map(lambda x: x + 1, params)
    (fresh, then, _), _ = start(second.config, {"first": {**trained}})
    assert equal(then["previous"]["encoder"], trained["encoder"])
    assert "decoder" not in then["previous"]
    assert not equal(fresh["encoder"], trained["encoder"])
    assert not second.init_from and second.config.train.seed != first.config.train.seed


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.mark.parametrize("preset", ["digits", "cifar10", "imagenet1k_vit_b16"])
def test_dbot_has_one_schedule_over_both_stages(preset):
    first, second = stages.resolve(experiments.load("dbot", preset), pathlib.Path("nowhere"))
    parts = [stage.config.optimizer.learning_rate for stage in (first, second)]
    steps = first.config.train.steps or 800 * (1_281_167 // 4096)
    assert [part[:3] for part in parts] == [("part", 0, 2 * steps), ("part", steps, 2 * steps)]
    assert parts[0][3] == parts[1][3]
    alone = experiments.load("dbot", preset, "--config.stages=()")
    assert len(stages.resolve(alone, pathlib.Path("nowhere"))) == 1


def test_the_class_token_of_the_whole_image_is_held_near_the_teacher():
    config = config_of("self_distilled_pretraining")
    with config.unlocked():
        config.losses.pixels.weight = 0.0
    (params, seen, extra), fn = start(config)
    (value, _), (grads, _) = fn(params, seen, extra, BATCH)
    assert float(value) == 0 and largest(grads) == 0  # the teacher is the student itself
    # Every number of the final norm's output off by 1: the sum over D, whatever the batch.
    off = changed(seen, ("further", "encoder", "norm", "bias"), lambda x: x + 1)
    (value, aux), (grads, by_seen) = fn(params, off, extra, BATCH)
    np.testing.assert_allclose(value, 16, rtol=1e-5)
    assert aux.metrics["pixels"] > 0 and largest(by_seen) == 0
    assert largest(grads["decoder"]) == 0 and largest(grads["encoder"]) > 0
    # The student's class token sees the patches that the other view hides.
    mask = hidden_of(config, "masked")[:, 0]
    blind = changed(seen, ("further", "encoder", "patch_embedding"), jnp.zeros_like)
    by = lambda patches: float(fn(params, blind, extra, repainted(patches))[0][0])
    assert mask.any() and abs(by(mask) - by(mask & False)) > 1e-6


@pytest.mark.parametrize("preset", ["digits", "cifar10", "imagenet1k_vit_b16"])
def test_both_later_stages_start_from_the_first(preset):
    config = experiments.load("self_distilled_pretraining", preset)
    first, further, distil = stages.resolve(config, pathlib.Path("nowhere"))
    assert (further.init_from, distil.init_from) == ("first", "first")
    assert further.take == distil.take == ("params",)
    for alone in (first.config, further.config):
        assert set(alone.losses) == {"pixels"} and not alone.teachers
    teacher = distil.config.teachers.further
    assert (teacher.source, teacher.artifact) == ("artifact", "further")
    assert distil.config.losses.distil.weight == 1.0
    # They differ in the teacher alone, and both see their images as they are.
    for field in ("data", "views", "masks", "optimizer", "encoder"):
        assert further.config[field] == distil.config[field]
    assert set(distil.config.views.masked) == {"count", "size"}
    assert len(first.config.views.masked) > 2
    assert (first.config.data == distil.config.data) == (preset == "digits")


def test_without_the_teacher_the_last_stage_is_the_second():
    config = config_of("self_distilled_pretraining")
    with config.unlocked():
        config.losses.distil.weight = 0.0
    _, further, distil = stages.resolve(config, pathlib.Path("nowhere"))
    (params, seen, extra), fn = start(further.config)
    alone = fn(params, seen, extra, BATCH)
    artifacts = {"further": jax.tree.map(lambda x: x + 1, params)}
    (params, seen, extra), fn = start(distil.config, artifacts)
    (value, aux), (grads, _) = fn(params, seen, extra, BATCH)
    assert aux.metrics["distil"] > 0
    np.testing.assert_allclose(value, alone[0][0], rtol=1e-6)
    for name, leaf in named_leaves(grads).items():
        np.testing.assert_allclose(leaf, named_leaves(alone[1][0])[name], atol=1e-7, err_msg=name)
