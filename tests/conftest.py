"""Shared fixtures: eight CPU devices, and the folder of small real data sets."""

import gc
import os
import pathlib
import tempfile

# Tests run many tiny programs once: they spend their time in the compiler, most of it in
# optimisations that such programs never earn back.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}"

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
# And they build the same programs again and again; each is compiled once, for all workers.
if "JAXSSL_TEST_CACHE" not in os.environ:
    cache = tempfile.TemporaryDirectory(prefix="jaxssl-tests-", ignore_cleanup_errors=True)
    os.environ["JAXSSL_TEST_CACHE"] = cache.name
jax.config.update("jax_compilation_cache_dir", os.environ["JAXSSL_TEST_CACHE"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

ROOT = pathlib.Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker runs the tests of a file, or those of one experiment: they share programs."""
    for item in items:
        experiment = getattr(item, "callspec", None) and item.callspec.params.get("name")
        shared = experiment if item.path.name == "test_common.py" and experiment else item.path.name
        item.add_marker(pytest.mark.xdist_group(shared))


# Every program holds mappings of memory, of which a process may have only so many (65,530 on
# Linux), and XLA crashes without them.
MAPPINGS = 25_000


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Between groups of tests, forgets what was compiled where it has become too much."""
    if (nextitem is None or _group(nextitem) != _group(item)) and _mappings() > MAPPINGS:
        jax.clear_caches()
        gc.collect()


def _group(item: pytest.Item) -> str:
    marker = item.get_closest_marker("xdist_group")
    assert marker is not None
    name: str = marker.args[0]
    return name


def _mappings() -> int:
    """How many mappings of memory this process has, where the system says."""
    maps = pathlib.Path("/proc/self/maps")
    return len(maps.read_bytes().splitlines()) if maps.exists() else 0


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of golden values and data sets; tests that need it skip where it is absent."""
    folder = pathlib.Path(os.environ.get("JAXSSL_SHARED", ROOT.parent / "shared")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder} (set JAXSSL_SHARED)")
    return folder
