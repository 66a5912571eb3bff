"""What a file or a config says is never run: no pickles, no unpacking of archives, no shell."""

import ast
import pathlib

import pytest

import jaxssl

FILES = sorted(pathlib.Path(jaxssl.__file__).parent.rglob("*.py"))
UNPACKS = {"extractall", "unpack_archive"}  # could write outside their folder
SHELLS = {"system", "popen", "getoutput", "getstatusoutput"}
EVALUATES = {"eval", "exec"}
UNPICKLES = {"load", "loads", "Unpickler"}


def calls(tree):
    """(owner, name, keywords) of every call: `np.load(x, a=1)` is ("np", "load", {"a": 1})."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
            name = getattr(function, "attr", getattr(function, "id", ""))
            yield owner, name, {k.arg: ast.unparse(k.value) for k in node.keywords}


def faults(text):
    """The calls in a program that would run or unpack what they are given."""
    for owner, name, keywords in calls(ast.parse(text)):
        dangerous = (
            name in UNPACKS
            or (name in SHELLS and owner in ("os", "subprocess"))
            or (name in EVALUATES and not owner)
            or (name in UNPICKLES and owner in ("pickle", "dill", "marshal"))
            or keywords.get("shell", "False") != "False"
            or keywords.get("allow_pickle", "False") != "False"
            or (f"{owner}.{name}" == "torch.load" and keywords.get("weights_only") != "True")
        )
        if dangerous:
            yield f"{owner}.{name}"


@pytest.mark.parametrize(
    "text",
    [
        "tarfile.open(x).extractall(y)",
        "shutil.unpack_archive(x)",
        "os.system(x)",
        "subprocess.run(x, shell=True)",
        "np.load(x, allow_pickle=True)",
        "torch.load(x)",
        "pickle.loads(x)",
        "eval(x)",
    ],
)
def test_a_dangerous_call_is_seen(text):
    assert list(faults(text))


def test_the_package_runs_and_unpacks_nothing_that_it_reads():
    assert len(FILES) > 100
    found = {str(file): list(faults(file.read_text())) for file in FILES}
    assert {file: names for file, names in found.items() if names} == {}
