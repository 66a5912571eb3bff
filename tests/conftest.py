"""Shared fixtures: eight CPU devices, and the folder of small real data sets."""

import os
import pathlib
import tempfile

# Tests run many tiny programs once: they spend their time in the compiler, most of it in
# optimisations that such programs never earn back.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
# And they build the same programs again and again; each is compiled once.
jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp(prefix="jaxssl-tests-"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of golden values and data sets; tests that need it skip where it is absent."""
    folder = pathlib.Path(os.environ.get("JAXSSL_SHARED", ROOT.parent / "shared")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder} (set JAXSSL_SHARED)")
    return folder
