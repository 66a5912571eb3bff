"""Several sources in one batch: each in its own order, a pure function of the step."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import experiments
from jaxssl import data, modalities
from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError
from jaxssl.data import pipeline, streams
from jaxssl.method import INDEX, Field, Info, StreamInfo
from jaxssl.methods.composed.networks import Head, Networks
from jaxssl.program import Program
from jaxssl.report.writers import read_json
from jaxssl.run import train
from jaxssl.run.evaluator import Evaluator
from jaxssl.watch import nonfinite

FEW = {"labels": {"per_class": 4}}
VIEWS = {
    "labelled": dict(of="labelled/image", count=1, size=8, noise=dict(sigma=0.1)),
    "strong": dict(of="unlabelled/image", count=1, size=8, noise=dict(sigma=0.5)),
    "weak": dict(of="unlabelled/image", count=1, size=8, noise=dict(sigma=0.1)),
}
LOSSES = {
    "labelled": dict(
        fn="label_smoothing_cross_entropy",
        student="logits:labelled",
        pairs="single",
        labels=dict(batch="labelled/label"),
    ),
    "unlabelled": dict(
        fn="fixmatch", student="logits:strong", teacher="logits:weak", threshold=0.0
    ),
}
HEADS = {
    "classifier": dict(name="classifier", width="num_classes", reads="pooled", output="logits")
}


def load(folder, **changes):
    """A run of a second with two streams; 32 labelled and 64 unlabelled samples a step."""
    config = tiny.load(folder)
    with config.unlocked():
        config.streams = dict(labelled=FEW, unlabelled=dict(batch=64))
        config.views, config.losses, config.student = VIEWS, LOSSES, HEADS
    return configs.merged(config, changes)


def opened(config):
    return streams.open_streams(config, data.load(config.data, "train"))


def take(config, steps, **how):
    stream = pipeline.stream_batches(opened(config), **{"threads": 0, **how})
    return list(itertools.islice(stream, steps))


def assert_equal(left, right):
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


@pytest.mark.smoke
def test_a_batch_has_the_fields_of_every_stream(tmp_path):
    (batch,) = take(load(tmp_path), 1)
    sizes = {name: len(values) for name, values in batch.items()}
    fields = ("index", "image", "label")
    assert sizes == {f"labelled/{f}": 32 for f in fields} | {f"unlabelled/{f}": 64 for f in fields}
    parts = opened(load(tmp_path))
    assert {name: len(stream.source) for name, stream in parts.items()} == {
        "labelled": 40,
        "unlabelled": 1297,
    }
    for name, (source, *_) in parts.items():
        rows = source.rows(batch[f"{name}/index"])
        np.testing.assert_array_equal(rows["image"], batch[f"{name}/image"])


@pytest.mark.parametrize("start, threads", [(0, 2), (3, 0), (40, 2)])
def test_any_start_and_any_threads_give_the_same_batches(tmp_path, start, threads):
    config = load(tmp_path)
    whole = take(config, start + 2)[start:]
    for one, other in zip(whole, take(config, 2, start=start, threads=threads), strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_have_consecutive_parts_of_every_stream(tmp_path, processes):
    config = load(tmp_path)
    whole = take(config, 1, start=7)[0]
    parts = [
        take(config, 1, start=7, process_index=p, process_count=processes)[0]
        for p in range(processes)
    ]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in whole}
    assert_equal(whole, joined)


def test_streams_of_one_source_have_orders_of_their_own(tmp_path):
    same = load(tmp_path, streams={"a": dict(batch=64), "b": dict(batch=64)}, views=None)
    batches = take(same, 3)
    assert not any(np.array_equal(batch["a/index"], batch["b/index"]) for batch in batches)
    # Another stream beside it changes nothing, nor does the order in which they are named.
    alone = take(load(tmp_path, streams={"c": dict(batch=32), "b": dict(batch=64)}), 3)
    for one, other in zip(batches, alone, strict=True):
        np.testing.assert_array_equal(one["b/index"], other["b/index"])


def test_a_config_without_streams_has_the_batches_of_ever(tmp_path):
    config = tiny.load(tmp_path)
    source = data.load(config.data, "train")
    for step, batch in enumerate(take(config, 3)):
        assert_equal(batch, pipeline.batch_at(source, step, seed=0, global_batch=32))
    program = Program(config)
    assert_equal(jax.device_get(next(program.batches(2))), take(config, 1, start=2)[0])


def test_views_of_two_streams_have_other_keys():
    fields = {}
    for name in ("a", "b"):
        fields |= {f"{name}/index": INDEX, f"{name}/image": Field("image", (8, 8, 1), "uint8")}
    group = dict(count=1, size=8, noise=dict(sigma=1.0))
    views = {"first": dict(group, of="a/image"), "second": dict(group, of="b/image")}
    make = modalities.build(views, fields, {"mean": 0.5, "std": 0.5})
    image, index = jnp.zeros((4, 8, 8, 1), jnp.uint8), jnp.arange(4)
    batch = {"a/image": image, "b/image": image, "a/index": index, "b/index": index[::-1]}
    made = make(jax.random.key(0), batch)
    keys = lambda stream: jax.random.key_data(
        modalities.sample_keys(jax.random.key(0), batch, stream)
    )
    assert not (keys("a") == keys("b")[::-1]).all(axis=-1).any()
    # A view is that of its own stream's index, whatever the other streams hold.
    other = make(jax.random.key(0), {**batch, "a/index": index[::-1]})
    np.testing.assert_array_equal(other["first"][::-1], made["first"])
    np.testing.assert_array_equal(other["second"], made["second"])
    assert not np.allclose(made["first"], made["second"][::-1])


def test_the_loss_reads_the_labels_of_its_stream(tmp_path):
    program = Program(load(tmp_path))
    state, batch = program.init(), next(program.batches(0))
    method = program.method
    with jax.set_mesh(program.mesh):
        value = jax.jit(
            lambda batch: (
                method.losses["main"](program.context(state, batch, jax.random.key(1)))[1].metrics
            )
        )
        base = value(batch)
        relabelled = {**batch, "labelled/label": (batch["labelled/label"] + 1) % 10}
        hidden = {**batch, "unlabelled/label": (batch["unlabelled/label"] + 1) % 10}
        assert float(value(relabelled)["labelled"]) != float(base["labelled"])
        assert {k: float(v) for k, v in value(hidden).items()} == {
            k: float(v) for k, v in base.items()
        }


@pytest.mark.parametrize("sizes", [(4, 8), (8, 4), (4, 4), (4, 6)])
@pytest.mark.parametrize("statistics", ["all", "group", "view"])
def test_networks_take_groups_of_other_batches(sizes, statistics):
    class Normed(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.Dense(5)(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=0.0, epsilon=0.0)(x)
            return {"pooled": x}

    class Line(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return nn.Dense(3)(x)

    rng = np.random.default_rng(0)
    x = [rng.normal(size=(b, v, 6)).astype(np.float32) for b, v in zip(sizes, (1, 2))]
    networks = Networks(Normed(), {"h": Head(Line(), "pooled", "out")}, statistics)
    params, stats = networks.init(jax.random.key(0), x[0][:, 0])
    views = {name: {"x": jnp.asarray(a)} for name, a in zip("ab", x)}
    out, new = networks.outputs(params, stats, views, ("pooled", "out"), True)
    for name, a in zip("ab", x):
        assert out["out"][name].shape == (*a.shape[:2], 3)
    dense = lambda a: a @ params["encoder"]["Dense_0"]["kernel"]
    together = statistics == "all" and max(sizes) % min(sizes) == 0
    if together:  # rows of all blocks share one mean and one variance
        rows = np.concatenate([dense(a).reshape(-1, 5) for a in x])
        for name, a in zip("ab", x):
            expected = (dense(a) - rows.mean(0)) / rows.std(0)
            np.testing.assert_allclose(out["pooled"][name], expected, atol=1e-4)
    elif statistics == "all" or statistics == "group":
        for name, a in zip("ab", x):
            expected = (dense(a) - dense(a).mean((0, 1))) / dense(a).std((0, 1))
            np.testing.assert_allclose(out["pooled"][name], expected, atol=1e-4)
    else:
        for name, a in zip("ab", x):
            expected = (dense(a) - dense(a).mean(0)) / dense(a).std(0)
            np.testing.assert_allclose(out["pooled"][name], expected, atol=1e-4)
    assert not np.allclose(new["encoder"]["BatchNorm_0"]["mean"], 0)


def test_evaluation_and_what_is_counted_are_of_the_data_itself(tmp_path):
    config = load(tmp_path, **{"streams.unlabelled.noise": dict(rate=0.9), "evals.bank": 0})
    program = Program(config)
    info = program.info
    assert (info.num_samples, info.global_batch, info.steps_per_epoch) == (1297, 32, 40)
    assert info.streams == {"labelled": StreamInfo(40, 32), "unlabelled": StreamInfo(1297, 64)}
    train_bank = Evaluator(program).subject("trained", program.init()).train
    clean = data.load(config.data, "train").rows(np.arange(1297))["label"]
    np.testing.assert_array_equal(train_bank.y, clean)


def test_a_memory_has_the_samples_of_its_stream():
    fields = {"a/index": INDEX, "b/index": INDEX}
    info = Info(fields, 50, 2, 9, 3, 16, {"a": StreamInfo(10, 4), "b": StreamInfo(20, 8)})
    of_b = info.of_stream("b")
    assert (of_b.num_samples, of_b.global_batch, dict(of_b.fields)) == (20, 8, {"index": INDEX})
    assert info.batch_of("a/index") == 4 and info.of_stream("") is info


def test_killed_and_resumed_is_never_killed(tmp_path):
    changes = {"train.steps": 6, "checkpoint.every_steps": 2, "evals.knn": None}
    config = load(tmp_path, **changes)
    train.run(config, tmp_path / "whole")
    cut = configs.merged(config, {"train.steps": 6})
    check, seen = nonfinite.found, []

    class Killed(Exception):
        pass

    def killing(values):
        seen.append(values)
        if len(seen) == 5:
            raise Killed
        return check(values)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(nonfinite, "found", killing)
        train.run(cut, tmp_path / "cut")
    train.run(cut, tmp_path / "cut")
    assert tiny.rows(tmp_path / "cut") == tiny.rows(tmp_path / "whole")
    summaries = [read_json(tmp_path / name / "summary.json") for name in ("cut", "whole")]
    assert summaries[0]["artifact"] == summaries[1]["artifact"]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"streams.unlabelled.bacth": 3}, "streams.unlabelled.bacth: unknown field; did you mean"),
        ({"streams.unlabelled.batch": -1}, "streams.unlabelled.batch: found -1"),
        (
            {"streams.unlabelled.batch": 2048},
            "streams.unlabelled.batch: 2048 is more than the 1297",
        ),
        ({"streams.unlabelled.batch": 60}, "streams.unlabelled.batch: 60 does not divide over 8"),
        ({"streams.unlabelled.size": "a"}, "streams.unlabelled.size: found 'a', expected a whole"),
        ({"streams.unlabelled.source": "digit"}, "streams.unlabelled: data.source"),
        (
            {"streams.unlabelled.labels": dict(per_clas=1)},
            "streams.unlabelled: data.labels.per_clas",
        ),
        ({"views.weak.of": "unlabeled/image"}, "did you mean 'unlabelled/image'"),
        ({"views.weak.of": ""}, "expected `of` to name one field"),
        ({"losses.labelled.labels": dict(batch="label")}, "labelled/label"),
        (
            {"losses.labelled.student": "logits"},
            "expected groups of one, such as 'logits:labelled'",
        ),
        ({"train.microbatches": 3}, "train.microbatches: 3 does not divide"),
        ({"method": "obow"}, "streams: found some, but the method 'obow' reads none"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, changes, words):
    with pytest.raises(ConfigError) as error:
        Program(load(tmp_path, **changes))
    assert words in str(error.value) and "\n" not in str(error.value), str(error.value)


def test_fixmatch_without_a_threshold_that_is_reached_is_supervised():
    small = experiments.small("fixmatch", **{"losses.unlabelled.threshold": 2.0})
    program = Program(small, devices=jax.devices()[:1])
    _, metrics = program.step(program.init(), next(program.batches(0)))
    assert float(metrics["unlabelled"]) == 0
    assert float(metrics["loss"]) == float(metrics["labelled"])
