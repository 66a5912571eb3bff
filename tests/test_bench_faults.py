"""Provoked faults: the command line, the table, the file of trials, and one fault end to end."""

import jax
import pytest

from jaxssl.bench.faults import command, faults, lab
from jaxssl.bench.faults.command import Settings, Trial
from jaxssl.bench.faults.lab import End, Lab, Lost, Missed
from jaxssl.report.writers import read_json, write_json


@pytest.fixture
def pretend(monkeypatch):
    """Faults that cost nothing, by name; what they were called with."""
    calls, moments = [], []

    def survived(lab, draw):
        """Nothing happens."""
        calls.append(draw.random())
        return 2.0

    def lost(lab, draw):
        """Something happens."""
        raise Lost("found 1, expected 2")

    def late(lab, draw):
        """Comes at the third draw."""
        moments.append(draw.random())
        if len(set(moments)) < 3:
            raise Missed
        return None

    def never(lab, draw):
        """Never comes."""
        raise Missed

    known = dict(survived=survived, lost=lost, late=late, never=never)
    monkeypatch.setattr(command, "FAULTS", known)
    return calls


def test_every_fault_says_in_a_line_what_survived_means():
    for name in (*faults.FAULTS, command.SOAK):
        line = command.meaning(name)
        assert 20 < len(line) < 100 and line.endswith("."), name
    asked = command.parse(["--times=50"])
    assert asked == Settings(list(faults.FAULTS), 50, 0, 20_000, "")
    assert asked.trials("sigkill") == 50 and asked.trials(command.SOAK) == 1


@pytest.mark.parametrize(
    "flags, line",
    [
        (["--faults=sigkil"], "--faults: no fault 'sigkil'; did you mean 'sigkill'?"),
        (["--times=0"], "--times: found '0', expected a whole number from 1 up"),
        (["--seed=x"], "--seed: found 'x', expected a whole number from 0 up"),
        (["--config.a=1"], "unknown argument"),
    ],
)
def test_flags_that_do_not_fit(flags, line, capsys):
    assert command.main(flags) == 2
    err = capsys.readouterr().err
    assert line in err and err.count("\n") == 1


def test_the_table_counts_and_the_exit_code_tells(pretend, capsys):
    assert command.main(["--faults=survived,late", "--times=2"]) == 0
    out = capsys.readouterr().out
    assert "| survived | Nothing happens. | 2 | 2 | 2.0 s, at most 2.0 s |" in out
    assert "| late | Comes at the third draw. | 2 | 2 | - |" in out
    assert command.main(["--faults=lost,never", "--times=1"]) == 1
    out = capsys.readouterr().out
    assert "| lost | Something happens. | 1 | 0 | - |" in out
    assert "| never | Never comes. | 0 | 0 | - |" in out
    assert "lost 1: found 1, expected 2" in out
    assert "never 1: the run was over before the fault, 5 times" in out


def test_trials_that_the_file_holds_are_not_repeated(pretend, tmp_path, capsys):
    file = tmp_path / "trials.json"
    flags = ["--faults=survived", f"--json={file}"]
    assert command.main([*flags, "--times=2"]) == 0
    first = list(pretend)
    assert command.main([*flags, "--times=3"]) == 0
    assert pretend[:2] == first and len(set(pretend)) == 3
    assert len(read_json(file)["faults"]["survived"]) == 3
    capsys.readouterr()
    assert command.main([*flags, "--times=2"]) == 0  # the first two of the three
    assert "| 2 | 2 |" in capsys.readouterr().out and len(pretend) == 3
    assert command.main([*flags, "--seed=1"]) == 2
    assert "has --seed=0, found 1; name another file" in capsys.readouterr().err
    write_json(file, {"seed": 0, "faults": 3})
    assert command.main(flags) == 2
    assert "expected trials that this command wrote" in capsys.readouterr().err


def test_trials_follow_from_the_seed_alone(pretend, tmp_path):
    for seed in (0, 0, 1):
        asked = Settings(["survived"], 1, seed, 1, "")
        assert command.trial(Lab(tmp_path), "survived", 4, asked) == Trial(True, True, 2.0)
    assert pretend[0] == pretend[1] != pretend[2]


def test_ends_that_differ_are_told_apart():
    whole = End({1: {"loss": 0.5}, 2: {"loss": 0.25}}, {"knn": {"trained": 0.5}}, "abc")
    lab.same(whole, whole)
    for other, line in (
        (whole._replace(rows={1: {"loss": 0.5}}), "step 2: found None"),
        (whole._replace(evals={}), "evals: found {}"),
        (whole._replace(artifact="abd"), "artifact: found abd, expected abc"),
    ):
        with pytest.raises(Lost, match=line):
            lab.same(other, whole)


def test_a_run_that_is_told_to_stop_survives(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(jax.config.jax_compilation_cache_dir))
    with Lab(tmp_path) as here:
        asked = Settings(["sigterm"], 1, 0, 1, "")
        found = command.trial(here, "sigterm", 0, asked)
    assert found.survived and found.seconds > 0, found
    assert not list(tmp_path.glob("tmp*"))


def test_what_is_on_record_is_shown_with_its_notes():
    trials = [dict(provoked=True, survived=s, seconds=2.0, note=n) for s, n in ((1, ""), (0, "no"))]
    shown = command.block(dict(seed=0, steps=9, faults={"sigterm": trials}))
    assert "| 2 | 1 | 2.0 s, at most 2.0 s |" in shown and "- sigterm: no" in shown
