"""Parts by name: the named module alone is imported, from this package or from any other."""

import subprocess
import sys
import textwrap

import jax.numpy as jnp
import pytest

from experiments import FOLDER
from jaxssl import data, encoders, evals, heads, masks, memories, methods, modalities, targets
from jaxssl.config import finder
from jaxssl.config.errors import ConfigError

KINDS = {
    encoders: "build",
    heads: "build",
    masks: "build",
    memories: "build",
    targets: "build",
    methods: "build",
    modalities: "views",
    data: "open",
    evals: "PROTOCOL",
}


def find(name, package=encoders, defines="build"):
    return finder.find(package, name, defines=defines, field="encoder.name", what="an encoder")


@pytest.mark.parametrize("package", KINDS, ids=lambda package: package.__name__)
def test_the_names_told_from_the_text_are_the_modules_that_define_the_part(package):
    names = finder.names(package, KINDS[package])
    assert names
    for name in names:
        found = find(name, package, KINDS[package])
        assert found.__name__ == finder.place_of(package, name, KINDS[package])
        assert found.__name__.startswith(package.__name__) and hasattr(found, KINDS[package])


def test_building_byol_imports_no_module_that_it_does_not_name():
    """With an error planted in every other part of the package, BYOL still builds."""
    code = f"""
        import importlib.abc, sys
        from jaxssl import data, encoders, evals, heads, masks, memories, methods
        from jaxssl.config import load as config, finder
        from jaxssl import modalities, targets

        kinds = {{
            encoders: "build", heads: "build", masks: "build", memories: "build",
            targets: "build", methods: "build", modalities: "views", data: "open",
            evals: "PROTOCOL",
        }}
        named = {{
            "jaxssl.methods.composed", "jaxssl.encoders.convnet", "jaxssl.heads.mlp",
            "jaxssl.modalities.image", "jaxssl.data.sets.digits", "jaxssl.evals.probes.knn",
            "jaxssl.evals.probes.linear", "jaxssl.evals.probes.fewshot",
            "jaxssl.evals.tasks.pretext",
        }}
        others = {{
            finder.place_of(package, name, defines)
            for package, defines in kinds.items() for name in finder.names(package, defines)
        }} - named

        class Planted(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name in others:
                    raise ImportError(f"planted in {{name}}")

        already = others & set(sys.modules)
        assert not already, already
        sys.meta_path.insert(0, Planted())
        from jaxssl.program import Program
        Program(config.load({str(FOLDER / "byol.py")!r}))
        print(len(others), "planted")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[0]) > 40


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A package outside of this one, to write modules into."""
    folder = tmp_path / "elsewhere_parts"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.startswith("elsewhere_parts")]:
        del sys.modules[name]


def test_a_dotted_name_is_a_module_of_any_package(elsewhere):
    (elsewhere / "shrunk.py").write_text(
        "from jaxssl.encoders import convnet\n"
        "def build(*, width: int = 4, dtype):\n"
        "    return convnet.build(widths=(width,), strides=(1,), dtype=dtype)\n"
    )
    config = {"name": "elsewhere_parts.shrunk", "width": 6}
    assert encoders.build(config, dtype=jnp.float32).widths == (6,)
    with pytest.raises(ConfigError, match=r"^encoder\.widht: no such field .* 'width'\?$"):
        encoders.build({"name": "elsewhere_parts.shrunk", "widht": 6}, dtype=jnp.float32)


def test_a_part_that_needs_an_absent_package_says_which(elsewhere):
    (elsewhere / "heavy.py").write_text("import a_package_that_is_not_there\n")
    with pytest.raises(ConfigError) as error:
        find("elsewhere_parts.heavy")
    assert str(error.value) == (
        "encoder.name: 'elsewhere_parts.heavy' needs the package 'a_package_that_is_not_there', "
        "which is not installed"
    )


@pytest.mark.parametrize(
    "name, message",
    [
        ("vot", "encoder.name: found 'vot', expected an encoder; did you mean 'vit'?"),
        ("winograd", "encoder.name: found 'winograd', expected an encoder; known: convnet"),
        ("__init__", "encoder.name: found '__init__', expected an encoder"),
        ("", "encoder.name: found '', expected an encoder"),
        (3, "encoder.name: found 3, expected an encoder"),
        ("../vit", "encoder.name: found '../vit', expected an encoder; did you mean 'vit'?"),
        ("no_package.part", "found 'no_package.part', expected an encoder: a module that can be"),
        (
            "jaxssl.config.errors",
            "found 'jaxssl.config.errors', expected an encoder: a module that can be",
        ),
    ],
)
def test_a_name_of_no_part_is_one_clear_line(name, message):
    with pytest.raises(ConfigError) as error:
        find(name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
