"""What is set around JAX, and why: memory of the host, compiled programs kept, XLA's flags.

One place for all of it. Nothing here changes a number.

- **Host memory.** A step on CPU allocates and frees its activations; glibc gives large blocks back
  to the system each time and gets them as new pages of 4 KiB. Large pages and kept memory
  (`TUNABLES`) take page faults from 62,000 to 600 a step (`lejepa.py:cifar10`), a tenth of its CPU
  time. They only work from a process's start, so commands that compute start themselves anew,
  once; the peers that `jaxssl.bench` starts get the same.
- **Device memory.** JAX takes three quarters of a GPU's memory at its start. A benchmark beside
  another process takes what it needs instead (`share_device`).
- **Compiled programs** are kept under the workdir (`compilation_cache`): a run that goes on starts
  in seconds.
- **XLA_FLAGS** are the user's: JAX's defaults are kept on every platform, as no flag that was tried
  made a step faster on CPU, and none could be tried elsewhere.
"""

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

TUNABLES = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {
        "hugetlb": 1,  # large pages, where the system gives them on request
        "mmap_threshold": 2**34,  # no block is mapped by itself, to be unmapped when it is freed
        "trim_threshold": 2**34,
        "top_pad": 2**28,
    }.items()
)


def with_large_pages() -> None:
    """Starts this process anew with TUNABLES, under its own number; at most once.

    Not where GLIBC_TUNABLES is set already (to nothing, to have none of this), nor without glibc
    2.35.
    """
    if "GLIBC_TUNABLES" in os.environ or sys.platform != "linux" or _glibc() < (2, 35):
        return
    environment = {**os.environ, "GLIBC_TUNABLES": TUNABLES}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def share_device() -> None:
    """Lets JAX take memory of a GPU as it needs it, unless the user has said otherwise."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def _glibc() -> tuple[int, ...]:
    try:
        _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        return tuple(int(part) for part in version.split("."))
    except (ValueError, OSError):  # another libc
        return (0,)


@contextlib.contextmanager
def compilation_cache(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps compiled programs in `<workdir>/compiled`, unless JAX_COMPILATION_CACHE_DIR is set.

    A program is found again by its text, its options, the devices and the version of JAX.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache as cache

    settings: Any = jax.config
    if settings.jax_compilation_cache_dir is not None:
        yield
        return
    before = settings.jax_persistent_cache_min_compile_time_secs
    settings.update("jax_compilation_cache_dir", str(workdir / "compiled"))
    settings.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    cache.reset_cache()  # what was compiled before decided that there is none
    try:
        yield
    finally:
        settings.update("jax_compilation_cache_dir", None)
        settings.update("jax_persistent_cache_min_compile_time_secs", before)
        cache.reset_cache()
