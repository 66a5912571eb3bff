"""What every experiment must hold: the one test that a new method passes."""

import functools
import itertools

import cover
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from jaxssl import data, optim
from jaxssl.bench.small import followed, in_microbatches, on_host, smooth, trajectory
from jaxssl.config.errors import ConfigError
from jaxssl.config.naming import named_leaves
from jaxssl.data import streams
from jaxssl.data.images import image_fields
from jaxssl.data.joined import with_tables
from jaxssl.data.sets import em_volume, moving_digits, stacked_digits
from jaxssl.evals.features import device_batches
from jaxssl.method import Context, Info, Optimizer, StreamInfo
from jaxssl.program import Program, find_family
from jaxssl.report.writers import read_metrics
from jaxssl.run import stages, table_stages, train
from jaxssl.run.checkpoint import Checkpoints
from jaxssl.state import make_init
from jaxssl.tables import Table
from jaxssl.watch import nonfinite

STEPS = 3
# One experiment is followed for longer, on more meshes, and through the whole command.
FOLLOWED = "lejepa"
# What must compile is run at every change for a cover of the parts, and for a few more.
# All: pytest -m "slow or not slow" tests/test_common.py
EVERY = [
    pytest.param(name, marks=() if name in cover.executed() else pytest.mark.slow)
    for name in experiments.NAMES
]


def metrics_of(config, devices, steps=STEPS):
    """(initial state, metrics of each step, last state), on the host."""
    program = Program(config, devices=jax.devices()[:devices])
    state = program.init()
    return on_host(state), *trajectory(program, state, program.batches(0), steps)


# Of one experiment at a time: compiled programs are large.
@functools.lru_cache(maxsize=1)
def one_device(name):
    """The program on one device, shared by the tests below."""
    return followed(smooth(name))


@functools.lru_cache(maxsize=1)
def on_one_device(name):
    run = one_device(name)
    state = run.init()
    return on_host(state), *trajectory(run.program, state, run.program.batches(0), STEPS)


@pytest.mark.parametrize("name", EVERY)
def test_eight_devices_are_one_device(name):
    """All ways of splitting at once: the batch over eight devices, all large arrays over four, and
    each device's part into microbatches."""
    run = followed(in_microbatches(smooth(name, **{"mesh.fsdp": 4})), 8)
    one = on_one_device(name)
    # Other tests compare the initial states; this one spares the compiler a second one.
    state = jax.device_put(one_device(name).init(), run.program.shardings)
    many = trajectory(run.program, state, run.program.batches(0), STEPS)
    compare_metrics(one[1], many[0])
    for leaf, value in one[2].items():
        if value.dtype.kind == "f":
            # A moment is a sum of gradients whose large parts cancel, all of them before a norm; a
            # bias starts at zero, and is added to features of a scale of one.
            close = 1e-4 if leaf.startswith("optimizer/") else 1e-5
            scale = max(0.1, np.abs(value).max())
            if leaf.startswith("extra/batch_stats") and leaf.endswith("/mean"):
                # What a layer makes of a normalised input has mean zero, but for rounding.
                scale = max(scale, np.sqrt(one[2][f"{leaf.removesuffix('mean')}var"].max()))
            atol = close * scale
            np.testing.assert_allclose(many[1][leaf], value, rtol=close, atol=atol, err_msg=leaf)
        else:
            np.testing.assert_array_equal(many[1][leaf], value, err_msg=leaf)


@pytest.mark.parametrize("devices, fsdp", [(2, 1), (8, 4)])
def test_twenty_steps_do_not_depend_on_the_devices(devices, fsdp):
    config = experiments.small(FOLLOWED, **{"mesh.fsdp": fsdp})
    compare(twenty_steps()[:2], metrics_of(config, devices, steps=20)[:2])


@functools.cache
def twenty_steps():
    return metrics_of(experiments.small(FOLLOWED), 1, steps=20)


def compare(one, other):
    """Initial states bit for bit; the metrics of every step to 1e-5, relative."""
    (first, log), (other_first, other_log) = one, other
    for leaf, value in first.items():
        np.testing.assert_array_equal(value, other_first[leaf], err_msg=leaf)
    compare_metrics(log, other_log)


def compare_metrics(log, other):
    """To 1e-5, relative; the norm of a gradient, a sum whose large parts cancel, to 1e-4."""
    for step, (a, b) in enumerate(zip(log, other, strict=True)):
        for metric in a:
            close = 1e-4 if metric.startswith("gradient_norm") else 1e-5
            np.testing.assert_allclose(
                b[metric], a[metric], rtol=close, atol=1e-7, err_msg=f"step {step + 1}: {metric}"
            )


@pytest.mark.slow
@pytest.mark.parametrize("name", [FOLLOWED])
@pytest.mark.parametrize("devices, fsdp", [(2, 1), (2, 2), (8, 1), (8, 8)])
def test_every_step_of_the_full_config_is_that_of_one_device(name, devices, fsdp):
    """The `digits` preset as it is run: pytest -m slow -k full_config tests/test_common.py.

    Each step starts from the state of the one device: of millions of activations some lie so near
    a kink that rounding turns them, and optimisation lets such a difference grow from step to step.
    For the same reason the gradient's norm agrees less closely than the losses.
    """
    config = experiments.load(name)
    split = experiments.merged(config, {"mesh.fsdp": fsdp, "mesh.min_shard_elements": 1})
    one, many = (Program(c, devices=jax.devices()[:n]) for c, n in ((config, 1), (split, devices)))
    state, logs = one.init(), ([], [])
    for batch, same_batch in itertools.islice(zip(one.batches(0), many.batches(0)), 20):
        copy = jax.device_put(jax.tree.map(jnp.copy, state), many.shardings)
        _, there = many.step(copy, same_batch)
        state, here = one.step(state, batch)
        here, there = ({k: float(v) for k, v in m.items()} for m in (here, there))
        for norm in [name for name in here if name.startswith("gradient_norm")]:
            assert there.pop(norm) == pytest.approx(here.pop(norm), rel=1e-3), norm
        for log, metrics in zip(logs, (here, there)):
            log.append(metrics)
    compare(({}, logs[0]), ({}, logs[1]))


@pytest.mark.parametrize("name", EVERY)
def test_every_network_moves_without_nan(name):
    first, log, last = on_one_device(name)
    assert np.isfinite([list(entry.values()) for entry in log]).all()
    assert all(np.isfinite(v).all() for v in last.values() if v.dtype.kind == "f")
    networks = {leaf.split("/")[1] for leaf in last if leaf.startswith("params/")}
    for network in networks:
        leaves = [leaf for leaf in last if leaf.startswith(f"params/{network}/")]
        assert any((first[leaf] != last[leaf]).any() for leaf in leaves), network


def test_the_loss_falls():
    _, log, _ = twenty_steps()
    assert log[-1]["loss"] < log[0]["loss"]


@pytest.mark.parametrize("name", EVERY)
def test_restored_from_a_checkpoint_is_never_stopped(name, tmp_path):
    """Bit for bit, and so for every array that a method keeps: queues, centers, tables, ..."""
    run = one_device(name)
    _, log, last = on_one_device(name)
    program, state, batches = run.program, run.init(), run.program.batches(0)
    for _ in range(2):
        state, _ = program.step(state, next(batches))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, wait=True)
    restored = checkpoints.restore(program.shapes, program.shardings)
    checkpoints.close()
    again, end = trajectory(program, restored, program.batches(2), STEPS - 2)
    assert again == log[2:]
    for leaf, value in last.items():
        np.testing.assert_array_equal(end[leaf], value, err_msg=leaf)


class Killed(Exception):
    """Stands for a kill between two steps."""


def run(config, workdir, kill_at=None, monkeypatch=None):
    """Runs a config to its end, or to a kill after the metrics of step `kill_at` are read."""
    if kill_at is None:
        return train.run(config, workdir)
    check, read = nonfinite.found, []

    def killing(values):
        read.append(values)
        if len(read) == kill_at:
            raise Killed
        return check(values)

    with monkeypatch.context() as patch:
        patch.setattr(nonfinite, "found", killing)
        with pytest.raises(Killed):
            train.run(config, workdir)


def rows(workdir):
    """step -> metrics, without those that measure time."""
    found = {}
    for row in read_metrics(workdir / "metrics.jsonl"):
        kept = {k: v for k, v in row.items() if not k.startswith("perf/")}
        found.setdefault(row["step"], {}).update(kept)
    return found


@pytest.mark.smoke
def test_killed_and_resumed_is_never_killed(tmp_path, monkeypatch, capsys):
    config = experiments.small(FOLLOWED, **{"train.steps": 8, "checkpoint.every_steps": 3})
    whole = run(config, tmp_path / "whole")
    run(config, tmp_path / "cut", kill_at=5, monkeypatch=monkeypatch)
    resumed = run(config, tmp_path / "cut")
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert resumed["artifact"] == whole["artifact"]  # the params, bit for bit
    assert resumed["evals"] == whole["evals"]
    assert "resumed" in capsys.readouterr().out


@pytest.mark.parametrize("name", EVERY)
def test_microbatches_keep_the_loss_and_its_gradient(name):
    config = smooth(name)
    without = experiments.without_batch_norm(config)
    if without == config:
        pytest.skip("no batch norm: the test of eight devices has microbatches")
    one, parts = followed(without), followed(in_microbatches(without))
    state = one.init()
    batch = next(one.program.batches(0))

    def value_and_grad(method, state, batch):
        def loss(params):
            key, step = jax.random.key(1), jnp.int32(0)
            seen = {
                n: t.read(state.teachers[n], params, state.extra, step)
                for n, t in method.teachers.items()
            }
            return method.losses["main"](Context(params, seen, state.extra, batch, key, step))[0]

        return jax.value_and_grad(loss)(state.params)

    methods = one.program.method, parts.program.method
    both = lambda state, batch: [value_and_grad(method, state, batch) for method in methods]
    with jax.set_mesh(one.program.mesh):
        (a, da), (b, db) = jax.jit(both)(state, batch)
    np.testing.assert_allclose(b, a, rtol=1e-5)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(da))
    for leaf, x in named_leaves(da).items():
        np.testing.assert_allclose(named_leaves(db)[leaf], x, atol=1e-5 * scale, err_msg=leaf)


@pytest.mark.parametrize("name", experiments.NAMES)
def test_microbatches_refuse_batch_norm(name):
    config = experiments.small(name, **{"train.microbatches": 2})
    if experiments.without_batch_norm(config) == config:
        pytest.skip("no batch norm in this method")
    with pytest.raises(ConfigError, match=r"train\.microbatches.*batch normalisation"):
        followed(config)


@pytest.mark.parametrize("name", experiments.NAMES)
def test_an_unknown_key_is_refused_with_the_near_name(name):
    with pytest.raises(ConfigError, match=r"train\.step.*did you mean 'train\.steps'"):
        experiments.load(name, "digits", "--config.train.step=3")


@pytest.mark.parametrize("name", EVERY)
def test_every_encoder_encodes(name):
    run = one_device(name)
    program, state = run.program, run.init()
    with jax.set_mesh(program.mesh):
        size = program.info.global_batch
        batch, _ = next(device_batches(program.source, batch_size=size, mesh=program.mesh))
        seen = {
            n: t.read(state.teachers[n], state.params, state.extra, state.step)
            for n, t in program.method.teachers.items()
        }
        for encode in program.method.encoders.values():
            out = jax.jit(encode)(
                Context(state.params, seen, state.extra, batch, state.key, state.step)
            )
            assert out["pooled"].shape[0] == program.info.global_batch
            assert np.isfinite(out["pooled"]).all() and float(out["pooled"].std()) > 0


def presets():
    """(name, preset) of all experiments.

    At every change the large ones of the experiments that are run; the test of the same program
    builds the small one of every experiment.
    """
    return [
        pytest.param(
            name,
            preset,
            marks=()
            if preset not in ("digits", "cifar10") and name in cover.executed()
            else pytest.mark.slow,
        )
        for name in experiments.NAMES
        for preset in experiments.presets(name)
    ]


@pytest.mark.parametrize("name, preset", presets())
def test_every_preset_builds_at_its_full_size(name, preset):
    """All stages, each on the shapes that earlier ones would leave; no data are needed."""
    left, plan = {}, experiments.plan(experiments.load(name, preset))
    for stage in plan:
        if stage.make:
            left[stage.name] = table_stages.table(stage, plan, left)
            continue
        state = shapes_at_full_size(stage, left)
        stages.check_start(state, stage, left)
        left[stage.name] = stages.artifact(state)


def shapes_at_full_size(stage, left):
    """The state's shapes, once every loss is traced."""
    config = stage.config
    tables = {name: tree for name, tree in left.items() if isinstance(tree, Table)}
    artifacts = {name: tree["params"] for name, tree in left.items() if name not in tables}
    fields = fields_at_full_size(config.data, tables)
    sizes = streams.batches(config)
    parts = {name: StreamInfo(10_000, sizes[f"streams.{name}.batch"]) for name in config.streams}
    if parts:
        fields = {f"{name}/{field}": kind for name in parts for field, kind in fields.items()}
    info = Info(fields, 10_000, 10, 1_000, 10, config.train.global_batch, parts)
    method = find_family(config.method).build(config, info)
    # Large networks take seconds to trace: here once, and the optimizer's moments on the shapes.
    key = jax.random.key(0)
    alone = jax.eval_shape(make_init(method, {}, info), key, artifacts)
    own = {"main": Optimizer(optim.make(config.optimizer, alone.params, info.steps))}
    moments = {
        name: jax.eval_shape(tx.init, {n: alone.params[n] for n in on or alone.params})
        for name, (tx, on) in (method.optimizers or own).items()
    }
    state = alone.replace(optimizer=moments)
    batch = {
        name: jax.ShapeDtypeStruct((info.batch_of(name), *field.shape), field.dtype)
        for name, field in fields.items()
    }
    seen = {
        n: jax.eval_shape(t.read, state.teachers[n], state.params, state.extra, state.step)
        for n, t in method.teachers.items()
    }
    for loss in method.losses.values():
        value, _ = jax.eval_shape(
            loss, Context(state.params, seen, state.extra, batch, jax.random.key(0), state.step)
        )
        assert value.shape == () and value.dtype == jnp.float32
    return state


def fields_at_full_size(config, tables):
    """Of images by their config alone; of other kinds, which must be at hand, from the source."""
    if config.source.startswith(("ucr", "uci", "fsdd", "esc", "modelnet")) or config.join:
        try:
            source = data.load(config, "train")
        except ConfigError as error:
            pytest.skip(str(error))
        return with_tables(source, config, tables).fields if config.join else source.fields
    return image_fields(shape_of_a_sample(config))


def shape_of_a_sample(data):
    """Of an image; of a clip or a volume where the source is one of such."""
    own = {
        "moving_digits": (moving_digits.FRAMES, moving_digits.SIZE),
        "stacked_digits": (stacked_digits.SLICES, stacked_digits.SIZE),
        "em_volume": (em_volume.SLICES, em_volume.SIZE),
    }
    frames, size = own.get(data.source.partition(":")[0], (0, 0))
    frames, size = data.frames or frames, data.size or size
    return (*((frames,) if frames else ()), size, size, data.channels or len(data.mean))
