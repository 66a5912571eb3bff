"""One run at a time in a workdir, by a lock of the operating system."""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import pathlib
import socket
from collections.abc import Iterator

from jaxssl.config.errors import ConfigError
from jaxssl.devices.agreement import on_first

LOCK = ".lock"

# Locks that this process holds.
_held: set[int] = set()


def _let_go_of_copies() -> None:
    """A forked child holds the lock as well, and would outlive a run that is killed."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_of_copies)


@contextlib.contextmanager
def claimed(folder: str | os.PathLike[str], *, make: bool = False) -> Iterator[None]:
    """Holds `folder` for this run: another that claims it meanwhile is refused.

    Process 0 locks `<folder>/.lock` (flock) and tells the others. The system frees the lock when
    the process ends, however it ends, so a file that is left behind means nothing by itself. It
    holds {"pid", "host", "since"} of the run while there is one.

    A file system that knows no locks lets every run in. On NFS, Linux passes the lock to the
    server, so that other hosts see it; other shared file systems may keep it to one host.

    Args:
      folder: of the run.
      make: whether to make it where it is not there.

    Raises:
      ConfigError: another run holds it, or it is not there or cannot be written; on all processes.
    """
    path = pathlib.Path(folder).resolve() / LOCK
    locks: list[int] = []
    on_first(lambda: locks.extend(_lock(path, make)))
    try:
        yield
    finally:
        for descriptor in locks:
            os.ftruncate(descriptor, 0)
            _held.discard(descriptor)
            os.close(descriptor)


def _lock(path: pathlib.Path, make: bool) -> list[int]:
    """The descriptor that holds the lock; none where the file system knows no locks.

    Raises:
      ConfigError: as `claimed` does.
    """
    flag = f"--workdir={path.parent}"
    try:
        if make:
            path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(f"{flag}: {error.strerror}; expected a folder to write to") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        found = _holder(descriptor)
        os.close(descriptor)
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            return []
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise ConfigError(
                f"{flag}: in use by {found}; wait for it to end, stop it, or use another folder"
            ) from None
        raise ConfigError(f"{flag}: {error.strerror}; expected a lock on {path}") from error
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
    # In place: the lock is on this very file, so none can be renamed over it.
    with contextlib.suppress(OSError):  # on a full disk the lock holds just the same
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
    _held.add(descriptor)
    return [descriptor]


def _holder(descriptor: int) -> str:
    """Who holds the lock, in words."""
    try:
        one = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {one['pid']} on host {one['host']} since {one['since']}"
    except (ValueError, LookupError, TypeError, OSError):  # it has only just taken it
        return "another process"
