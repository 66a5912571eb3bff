"""The machine that a process runs on, in words."""

import os
import pathlib
import platform
import re

import jax


def machine() -> str:
    """This machine in words: cores or accelerators, and the versions that made the numbers."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    processor = found[1].strip() if found else platform.machine()
    devices = jax.devices()
    if devices[0].platform == "cpu":
        words = f"{len(os.sched_getaffinity(0))} cores ({processor})"
    else:
        words = f"{len(devices)} x {devices[0].device_kind}"
    return f"{words}, jax {jax.__version__}, Python {platform.python_version()}"
