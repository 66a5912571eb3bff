"""Bad input on the command line: one line, exit code 2, nothing compiled, nothing written."""

import pathlib

import pytest
import tiny

from jaxssl import main
from jaxssl.program import Program


@pytest.fixture(autouse=True)
def nothing_compiles(monkeypatch):
    def step(self):
        raise AssertionError("the step was compiled")

    monkeypatch.setattr(Program, "step", property(step))
    monkeypatch.setattr(Program, "init", step)


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Runs the command line in an empty folder and returns its one line on stderr."""
    spec = tiny.write(tmp_path)
    monkeypatch.chdir(tmp_path)

    def run(*arguments, config=spec.name, workdir="work"):
        flags = [f"--config={config}"] if config else []
        flags += [f"--workdir={workdir}"] if workdir else []
        code = main.main([*flags, *arguments])
        out, err = capsys.readouterr()
        assert code == 2, err
        assert not out
        assert err.count("\n") == 1 and err.startswith("error: "), err
        assert not pathlib.Path("work").exists(), "a refused config left something behind"
        return err

    return run


BAD = {
    # unknown keys, with the near name
    "train.step=3": ["train.step", "did you mean 'train.steps'"],
    "trian.steps=3": ["trian", "did you mean 'train'"],
    "optimizer.learning_rat=0.1": ["did you mean 'optimizer.learning_rate'"],
    "evals.knnn.k=3": ["did you mean 'evals.knn'"],
    "evals.knn.kk=3": ["did you mean 'evals.knn.k'"],
    "encoder.width=(8,)": ["encoder.width", "did you mean 'widths'"],
    "losses.sigreg.slices=3": ["losses.sigreg.slices"],
    "losses.sigrek.weight=1.0": ["did you mean 'losses.sigreg'"],
    "views.global.nois=3": ["views.global.nois", "did you mean 'noise'"],
    "method_options.drop_pat=0.1": ["did you mean 'drop_path'"],
    # other types, with what was found and expected
    "train.steps=abc": ["train.steps", "'abc'", "expected int"],
    "train.steps=1.5": ["train.steps", "1.5", "expected int"],
    "train.steps=True": ["train.steps", "True", "expected int"],
    "train=3": ["train", "expected a section"],
    "encoder.widths=8": ["encoder.widths", "expected tuple"],
    "optimizer.learning_rate=fast": ["optimizer.learning_rate", "a number or a schedule"],
    "data.mean=('a',)": ["data.mean", "expected numbers"],
    "data.std=(0.0,)": ["data.std", "above zero"],
    # numbers out of range
    "train.steps=-3": ["steps", "-3"],
    "train.global_batch=0": ["train.global_batch", "at least 1"],
    "train.seed=-1": ["train.seed", "at least 0"],
    "train.seed=4294967296": ["train.seed", "2**32"],
    "checkpoint.keep=0": ["checkpoint.keep", "at least 1"],
    "evals.knn.k=0": ["evals.knn.k", "at least 1"],
    "evals.knn.k=65": ["evals.knn.k: found 65", "the bank's 64"],
    "views.global.count=0": ["views.global.count", ">= 1"],
    # durations
    "train.epochs=2": ["train.steps=20 and train.epochs=2", "exactly one of"],
    "train.steps=0": ["none given", "train.epochs"],
    # devices, batches and the mesh
    "train.global_batch=36": ["train.global_batch: 36", "8 devices", "32 or 40"],
    "train.global_batch=4096": ["4096", "1297 samples"],
    "train.microbatches=3": ["train.microbatches", "3"],
    "mesh.data=3": ["mesh", "8 devices", "-1"],
    "mesh.fsdp=16": ["mesh", "8 devices"],
    "mesh.rules=(('[', 'fsdp'),)": ["mesh.rules", "regex"],
    "mesh.rules=('fsdp',)": ["mesh.rules", "'fsdp'"],
    "mesh.rules=(('.*', 'fsd'),)": ["mesh.rules", "'fsd'", "'fsdp'"],
    # parts that do not exist
    "method=composd": ["method", "did you mean 'composed'"],
    "method=": ["method", "empty"],
    "encoder.name=covnet": ["encoder.name", "did you mean 'convnet'"],
    "student.projector.name=mpl": ["student.projector.name", "did you mean 'mlp'"],
    "losses.sigreg.fn=sigrek": ["losses.sigreg.fn", "did you mean 'sigreg'"],
    "losses.sigreg.student=projektion": ["did you mean 'projection'"],
    "losses.sigreg.pairs=sngle": ["did you mean 'single'"],
    "losses.prediction.teacher=ema/projection": ["no teacher 'ema'"],
    "optimizer.name=adamv": ["optimizer.name", "did you mean 'adamw'"],
    "evals.encoder=teacher": ["evals.encoder", "student"],
    "evals.output=poled": ["evals.output", "did you mean 'pooled'"],
    "train.precision=float16": ["train.precision", "bfloat16"],
    # schedules
    "optimizer.learning_rate=('warmup_cosin', 1.0, 2)": ["did you mean 'warmup_cosine'"],
    "optimizer.learning_rate=('warmup_cosine', 1.0)": ["optimizer.learning_rate", "peak, warmup"],
    "losses.sigreg.weight=('linear', 1.0)": ["losses.sigreg.weight", "start, end"],
    # data
    "data.source=digts": ["data.source", "did you mean 'digits'"],
    "data.source=npz": ["data.path"],
    "data.size=-1": ["data.size"],
}


@pytest.mark.parametrize("override", BAD)
def test_a_bad_field_is_one_line(refused, override):
    line = refused(f"--config.{override}")
    for part in BAD[override]:
        assert part in line


@pytest.mark.parametrize("source", ["npz", "packed_jpeg", "image_folder", "array_record"])
def test_missing_data_names_the_path(refused, source):
    line = refused(f"--config.data.source={source}", "--config.data.path=/no/such/folder")
    assert "data.path" in line and "/no/such/folder" in line


@pytest.mark.parametrize(
    "flag, hint",
    [
        ("--wokdir=x", "did you mean '--workdir'"),
        ("--confg=x", "did you mean '--config'"),
        ("--steps=3", "--steps=3: unknown argument"),
        ("extra", "extra: unknown argument"),
    ],
)
def test_an_unknown_flag(refused, flag, hint):
    assert hint in refused(flag)


def test_a_mistyped_flag_is_named_before_the_missing_one(refused):
    assert "did you mean '--workdir'" in refused("--wokdir=x", workdir="")


def test_missing_flags(refused):
    assert "--workdir: missing" in refused(workdir="")
    assert "--config: missing" in refused(config="")
    assert "expected one argument" in refused("--config", config="")


def test_config_files_and_presets(refused):
    assert "did you mean 'tiny.py'" in refused(config="tiyn.py")
    assert "expected a Python file" in refused(config="tiny")
    assert "no preset 'digit'; did you mean 'digits'" in refused(config="tiny.py:digit")


BASE = "from jaxssl.config import recipes\n\n\ndef get_config():\n"


@pytest.mark.parametrize(
    "text, hint",
    [
        ("x = 1", "no get_config"),
        ("def get_config():\n    return {}", "expected a ConfigDict"),
        (
            BASE + "    c = recipes.base('digits')\n    c.train.stepz = 3\n    return c",
            "stepz\" does not exist; did you mean 'steps'",
        ),
        (
            BASE + "    c = recipes.base('digits')\n    c.train.update(stepz=3)\n    return c",
            "stepz\" does not exist; did you mean 'steps'",
        ),
        (
            "from jaxssl.config import recipes\n\n\ndef get_config():\n    return "
            "recipes.base('digit')",
            "digits",
        ),
    ],
)
def test_a_faulty_config_file(refused, tmp_path, text, hint):
    (tmp_path / "mine.py").write_text(text)
    assert hint in refused(config="mine.py")


def test_the_config_files_own_faults_keep_their_traceback(tmp_path):
    (tmp_path / "mine.py").write_text("def get_config():\n    return None.foo")
    with pytest.raises(AttributeError, match="foo"):
        main.main([f"--config={tmp_path / 'mine.py'}", f"--workdir={tmp_path / 'work'}"])


def test_a_workdir_that_cannot_be_made(refused, tmp_path):
    (tmp_path / "file").write_text("")
    assert "--workdir" in refused(workdir="file")
    assert "--workdir" in refused(workdir="file/below")


def test_a_workdir_of_another_config_is_refused_with_the_fields(tmp_path, capsys, monkeypatch):
    spec = tiny.write(tmp_path)
    arguments = [f"--config={spec}", f"--workdir={tmp_path / 'work'}"]
    with pytest.raises(AssertionError, match="compiled"):
        main.main(arguments)  # it got as far as the first computation
    changed = ["--config.train.seed=7", "--config.encoder.widths=(4,)"]
    assert main.main([*arguments, *changed]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "another config" in line
    assert "train.seed: 0 -> 7" in line and "encoder.widths" in line
    # What moves no parameter may change.
    with pytest.raises(AssertionError, match="compiled"):
        main.main([*arguments, "--config.checkpoint.keep=1", "--config.evals.knn.k=5"])
