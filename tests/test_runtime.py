"""What is set around JAX before it starts."""

import os
import sys

import pytest

from jaxssl.devices import runtime


@pytest.fixture
def started(monkeypatch):
    """What processes were started in place of this one."""
    found = []
    monkeypatch.setattr(os, "execve", lambda *call: found.append(call))
    monkeypatch.setattr(runtime, "_glibc", lambda: (2, 36))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "orig_argv", ["python", "-W", "error", "-m", "jaxssl.main", "--a=b"])
    return found


def test_a_process_starts_anew_once_with_the_same_words(started, monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setenv("KEPT", "yes")
    runtime.with_large_pages()
    (program, words, environment) = started.pop()
    assert program == sys.executable
    assert words == [sys.executable, "-W", "error", "-m", "jaxssl.main", "--a=b"]
    assert environment["GLIBC_TUNABLES"] == runtime.TUNABLES and environment["KEPT"] == "yes"
    monkeypatch.setenv("GLIBC_TUNABLES", environment["GLIBC_TUNABLES"])  # as the new one finds it
    runtime.with_large_pages()
    assert not started


@pytest.mark.parametrize(
    "glibc, platform, tunables",
    [
        ((2, 34), "linux", None),
        ((0,), "linux", None),
        ((2, 36), "darwin", None),
        ((2, 36), "linux", ""),
    ],
)
def test_it_goes_on_as_it_is_where_that_does_not_help(
    started, monkeypatch, glibc, platform, tunables
):
    monkeypatch.setattr(runtime, "_glibc", lambda: glibc)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if tunables is not None:
        monkeypatch.setenv("GLIBC_TUNABLES", tunables)
    runtime.with_large_pages()
    assert not started
