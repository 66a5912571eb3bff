"""A run's encoder taken away: as a function, as StableHLO, as a state dict, as features."""

import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import jaxssl
from jaxssl import data, encoders, pretrained, weights
from jaxssl.commands import export
from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError
from jaxssl.program import Program
from jaxssl.report.writers import write_json
from jaxssl.run import runs, train
from jaxssl.run.checkpoint import Checkpoints
from jaxssl.run.evaluator import Evaluator
from jaxssl.run.stages import Stage, started

VIT = {"name": "vit", "width": 16, "depth": 1, "heads": 2, "patch": 4, "image_size": 8}
ENCODER = {"encoder": VIT}
TEACHER = {"rule": "ema", "follows": ("encoder",), "decay": 0.9}


def load(folder, teachers, **changes):
    config = tiny.load(folder, **changes)
    with config.unlocked():
        config.teachers.update(teachers)
    return config


def left(workdir, config):
    """A workdir whose checkpoint of step 7 has batch statistics and a teacher of their own."""
    workdir.mkdir()
    write_json(workdir / "config.json", configs.to_dict(config))
    state = Program(config).init()
    moved = lambda tree: jax.tree.map(lambda a: a + 0.1, tree)
    state = state.replace(
        step=jnp.int32(7), extra=moved(state.extra), teachers=moved(state.teachers)
    )
    checkpoints = Checkpoints(workdir / "checkpoints")
    checkpoints.save(state, wait=True)
    checkpoints.close()
    return workdir


@pytest.fixture(scope="module")
def convnet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("convnet")
    return left(folder / "work", load(folder, {"ema": TEACHER}))


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vit")
    return left(folder / "work", load(folder, {}, **ENCODER))


@pytest.fixture(scope="module")
def run(convnet):
    return runs.load(convnet)


@pytest.fixture(scope="module")
def images(run):
    return run.program.source.rows(np.arange(5))["image"]


def test_the_encoder_is_the_one_that_evaluations_see(convnet, run, images):
    encode, params = jaxssl.load_encoder(convnet)
    features = encode(params, images)
    subject = Evaluator(run.program).subject("trained", run.state)
    assert features.shape == (5, 8) and features.dtype == jnp.float32
    rows = run.program.source.rows(subject.train.index)["image"]
    np.testing.assert_allclose(encode(params, rows), subject.train.x, atol=1e-5)


def test_encode_is_pure_and_its_params_are_all_that_it_reads(convnet, run, images):
    encode, params = jaxssl.load_encoder(convnet)
    again = jax.jit(lambda p, x: encode(p, x))(params, images)
    np.testing.assert_allclose(again, encode(params, images), atol=1e-6)
    # Float images lie in [0, 1]; any number of them goes.
    part = encode(params, images[:2].astype(np.float32) / 255)
    np.testing.assert_allclose(part, again[:2], atol=1e-5)
    # It depends on the statistics, and on nothing of the projector or the teacher.
    assert params["extra"]["batch_stats"]["student"]["encoder"]
    kept = len(jax.tree.leaves(params))
    stats = run.state.extra["batch_stats"]["student"]["encoder"]
    assert kept == len(jax.tree.leaves((run.state.params["encoder"], stats)))
    gradient = jax.grad(lambda p: encode(p, images).sum())(params)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient["extra"]))


def test_the_other_outputs_and_encoders(convnet, run, images):
    encode, params = jaxssl.load_encoder(convnet, 7, "tokens", encoder="ema")
    tokens = encode(params, images)
    assert tokens.shape == (5, 4, 8)
    student, own = jaxssl.load_encoder(convnet, output="tokens")
    assert np.abs(student(own, images) - tokens).max() > 1e-3
    with pytest.raises(ConfigError, match="encoder: no 'emma'; did you mean 'ema'"):
        jaxssl.load_encoder(convnet, encoder="emma")
    with pytest.raises(ConfigError, match="gives no 'poled'; did you mean 'pooled'"):
        jaxssl.load_encoder(convnet, output="poled")
    with pytest.raises(ConfigError, match="no checkpoint of step 3"):
        jaxssl.load_encoder(convnet, 3)


def test_importing_the_package_or_the_losses_imports_no_machinery():
    code = (
        "import sys, jaxssl; from jaxssl import losses; "
        "heavy = {'orbax', 'grain', 'safetensors', 'torch', 'sklearn', 'jaxssl.run.runs'}; "
        "print(sorted(heavy & set(sys.modules)), hasattr(jaxssl, 'load_encodr'))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tiny.ROOT
    )
    assert out.stdout.strip() == "[] False", out.stderr


@pytest.mark.parametrize("name", ["convnet", "vit"])
def test_stablehlo_gives_the_same_for_any_number_of_images(name, request, images, tmp_path):
    workdir, path = request.getfixturevalue(name), tmp_path / "encoder.bin"
    flags = [f"--workdir={workdir}", "--format=stablehlo", f"--output={path}"]
    assert export.main(flags) == 0
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    assert set(exported.platforms) == {"cpu", "cuda", "tpu"}
    encode, params = jaxssl.load_encoder(workdir)
    for batch in (images, images[:2]):
        np.testing.assert_allclose(exported.call(batch), encode(params, batch), atol=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == ["encoder.bin"]


def test_stablehlo_of_a_fixed_batch(convnet, images, tmp_path):
    path = tmp_path / "encoder.bin"
    export.stablehlo(runs.load(convnet), path, output="tokens", batch=5)
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    assert exported.out_avals[0].shape == (5, 4, 8)


def test_a_state_dict_with_what_its_user_must_know(vit, tmp_path):
    path = tmp_path / "encoder.safetensors"
    flags = [f"--workdir={vit}", "--format=safetensors", f"--output={path}"]
    assert export.main(flags) == 0
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        facts = file.metadata()
    assert facts["step"] == "7" and facts["size"] == "8" and '"vit"' in facts["encoder"]
    assert facts["mean"] and facts["std"]
    encoder = encoders.build(VIT, dtype=jnp.float32)
    found = weights.load(path, encoder, channels=1)
    params = runs.load(vit).state.params["encoder"]
    jax.tree.map(np.testing.assert_array_equal, found["params"], params)


def test_features_of_both_splits(convnet, run, tmp_path):
    path = tmp_path / "features.npz"
    flags = [f"--workdir={convnet}", "--format=npz", f"--output={path}", "--limit=50"]
    assert export.main(flags) == 0
    with np.load(path) as found:
        arrays = dict(found)
    assert {name: a.shape for name, a in arrays.items() if name.startswith("test")} == {
        "test_x": (50, 8),
        "test_y": (50,),
        "test_index": (50,),
    }
    encode, params = jaxssl.load_encoder(convnet)
    for split, source in {"train": run.program.source, "test": None}.items():
        source = source or data.load(run.program.config.data, "test")
        rows = source.rows(arrays[f"{split}_index"])
        np.testing.assert_array_equal(rows["label"], arrays[f"{split}_y"])
        expected = encode(params, rows["image"])
        np.testing.assert_allclose(arrays[f"{split}_x"], expected, atol=1e-5)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--format=safetensor", "--output=a.npz"], "unknown; did you mean 'safetensors'"),
        (["--format=npz", "--output=a.np"], "expected a name that ends .npz"),
        (["--format=npz", "--output=a.npz", "--batch=3"], "--format=npz takes no --batch"),
        (["--format=npz", "--output=a.npz", "--limit=-1"], "expected 0 or more"),
        (["--format=safetensors", "--output=a.safetensors"], "found a ConvNet, expected one of"),
        (["--format=npz"], "the following arguments are required: --output"),
    ],
)
def test_bad_input_is_one_line(convnet, capsys, flags, message):
    assert export.main([f"--workdir={convnet}", *flags]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and err.count("\n") == 1


def test_a_student_and_a_frozen_teacher_start_from_a_file(vit, tmp_path):
    path = tmp_path / "encoder.safetensors"
    export.safetensors(runs.load(vit), path)
    encoder = encoders.build(VIT, dtype=jnp.float32)
    artifacts = {"file": weights.artifact(path, encoder, channels=1)}
    teacher = {"rule": "frozen", "source": "artifact", "artifact": "file", "follows": ("encoder",)}
    config = load(tmp_path, {"old": teacher}, **{"train.seed": 3}, **ENCODER)
    program = Program(config, artifacts)
    state = program.init()
    expected = runs.load(vit).state.params["encoder"]
    jax.tree.map(np.testing.assert_array_equal, state.teachers["old"]["encoder"], expected)
    stage = Stage("", config, tmp_path, "file", ("params/encoder",))
    begun = started(state, stage, artifacts)
    jax.tree.map(np.testing.assert_array_equal, begun.params["encoder"], expected)
    _, params = pretrained.of_run(runs.Run(tmp_path, program, begun), encoder="old")
    assert jax.tree.leaves(params["teachers"]) and not jax.tree.leaves(params["params"])


def test_a_stage_starts_from_a_file_that_the_config_names(vit, tmp_path):
    path = tmp_path / "encoder.safetensors"
    export.safetensors(runs.load(vit), path)
    config = load(tmp_path, {}, **{"train.seed": 3}, **ENCODER)
    with config.unlocked():
        config.evals.knn = config.evals.pretext = None
        config.weights = {"file": str(path)}
        config.stages = ({"name": "as_it_is", "init_from": "file", "changes": {"train.steps": 0}},)
    train.run(config, tmp_path / "work")
    begun = runs.load(tmp_path / "work")
    expected = runs.load(vit).state.params["encoder"]
    jax.tree.map(np.testing.assert_array_equal, begun.state.params["encoder"], expected)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"weights": {"file": "no.safetensors"}}, "no.safetensors"),
        ({"stages": ({"name": "a", "init_from": "fil"},)}, "did you mean 'file'"),
        ({"stages": ({"name": "file"},)}, "stages[0].name: found 'file'"),
        ({"weights": {"file": 3}}, "weights.file: found 3, expected the name of a file"),
    ],
)
def test_a_file_that_cannot_be_started_from_is_one_line(vit, tmp_path, changes, message):
    path = tmp_path / "encoder.safetensors"
    export.safetensors(runs.load(vit), path)
    config = load(tmp_path, {}, **ENCODER)
    with config.unlocked():
        config.weights = {"file": str(path)}
        config.stages = ({"name": "first", "init_from": "file"},)
        config.update(changes)
    with pytest.raises(ConfigError) as error:
        train.run(config, tmp_path / "work")
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "work").exists()
