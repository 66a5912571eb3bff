"""Joining the other processes of a run, as flags, the environment or a cluster tell of them."""

import argparse
import contextlib
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import NamedTuple

import jax

from jaxssl.config.errors import ConfigError, near
from jaxssl.devices.heartbeat import Peers, bound, runtime_failures

# flag -> (the environment variable that stands for it, help)
FLAGS = {
    "coordinator": ("JAX_COORDINATOR_ADDRESS", "HOST:PORT of process 0, free for it to listen on"),
    "processes": ("JAX_NUM_PROCESSES", "how many processes are this run"),
    "process": ("JAX_PROCESS_ID", "which of them this is, from 0"),
    "cluster": ("JAXSSL_CLUSTER", "what says all that: tpu, slurm, ompi, mpi4py or k8s; or none"),
    "heartbeat": ("JAXSSL_HEARTBEAT", "seconds of silence after which a process counts as dead"),
    "join_timeout": ("JAXSSL_JOIN_TIMEOUT", "seconds in which all processes must have joined"),
}
PLACE = ("coordinator", "processes", "process")
CLUSTERS = ("tpu", "slurm", "ompi", "mpi4py", "k8s")
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")


class Settings(NamedTuple):
    """How to join: None is for the cluster to say.

    Args:
      coordinator: "host:port" of process 0.
      processes: how many.
      process: which one this is.
      cluster: one of CLUSTERS, or None where the three above say it all.
      heartbeat: seconds.
      timeout: seconds to join in.
      named: the flag or variable that an error of joining is to name, with its value.
    """

    coordinator: str | None
    processes: int | None
    process: int | None
    cluster: str | None
    heartbeat: int
    timeout: int
    named: str


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds FLAGS to a parser."""
    for name, (variable, text) in FLAGS.items():
        parser.add_argument(f"--{name}", help=f"{text} (or {variable})")


def settings(flags: Mapping[str, str | None], environment: Mapping[str, str]) -> Settings | None:
    """How to join the other processes; None where there are none.

    Args:
      flags: FLAGS -> value, where given; a flag goes before its variable.
      environment: of this process.

    Raises:
      ConfigError: a flag or variable is malformed, or the place of this process is half told.

    >>> settings({}, {}) is None
    True
    >>> settings({"processes": "2", "process": "1"}, {"JAX_COORDINATOR_ADDRESS": "host:1234"})[:3]
    ('host:1234', 2, 1)
    """
    given = _Settings(flags, environment)
    cluster = given.text("cluster")
    if cluster not in (None, "none", *CLUSTERS):
        raise ConfigError(f"{given.shown('cluster')}: {near(cluster, ('none', *CLUSTERS))[2:]}")
    heartbeat = given.number("heartbeat", 1, default=100)
    timeout = given.number("join_timeout", 1, default=300)
    coordinator = given.text("coordinator")
    if coordinator is not None:
        host, _, port = coordinator.rpartition(":")
        if not host or not re.fullmatch(r"\d{1,5}", port) or not 0 < int(port) < 2**16:
            raise ConfigError(f"{given.shown('coordinator')}: expected HOST:PORT")
    count = given.number("processes", 1)
    index = given.number("process", 0)
    if count is not None and index is not None and index >= count:
        raise ConfigError(
            f"{given.shown('process')}: expected 0 to {count - 1}, for {given.shown('processes')}"
        )
    if cluster == "none" or count == 1:
        return None
    told = [name for name in PLACE if given.text(name) is not None]
    cluster = cluster or (None if len(told) == len(PLACE) else detected(environment))
    if cluster is None:
        if not told:
            return None
        missing = next((name for name in PLACE if name not in told), None)
        if missing is not None:
            raise ConfigError(
                f"--{missing} (or {FLAGS[missing][0]}): missing; {given.shown(told[0])} needs it"
            )
    named = given.shown("coordinator" if told else "cluster") or f"--cluster={cluster}"
    assert heartbeat is not None and timeout is not None
    return Settings(coordinator, count, index, cluster, heartbeat, timeout, named)


def detected(environment: Mapping[str, str]) -> str | None:
    """The cluster that has started several processes, by its variables alone: nothing is asked.

    A Cloud TPU VM sets none (`--cluster=tpu` has JAX ask its metadata server), nor does Kubernetes
    say how many pods there are, except to TPUs.

    Raises:
      ConfigError: Open MPI without the variable that JAX needs.
    """
    if all(name in environment for name in SLURM) and environment["SLURM_NTASKS"] != "1":
        return "slurm"
    if environment.get("OMPI_COMM_WORLD_SIZE", "1") != "1":
        if "OMPI_MCA_orte_hnp_uri" not in environment:
            raise ConfigError(
                f"OMPI_COMM_WORLD_SIZE={environment['OMPI_COMM_WORLD_SIZE']}: this Open MPI does "
                "not say where process 0 is; add --cluster=mpi4py (with mpi4py installed), or none"
            )
        return "ompi"
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES", "")
    if "," in hosts or environment.get("MEGASCALE_NUM_SLICES", "1") != "1":
        return "tpu"
    return None


def on_this_machine(count: int) -> list[dict[str, str]]:
    """The variables by which each of `count` processes here finds the others, on a free port.

    >>> [place["JAX_PROCESS_ID"] for place in on_this_machine(2)]
    ['0', '1']
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count)}
    return [{**shared, "JAX_PROCESS_ID": str(i)} for i in range(count)]


@contextlib.contextmanager
def joined(how: Settings | None) -> Iterator[None]:
    """Joins the run, and watches its other processes, inside the context and after it.

    Where one of them dies or fails, this process ends with one line and exit code `peers.CODE`.

    Raises:
      ConfigError: not all processes have joined in time, or the cluster does not say who they are.
    """
    if how is None or jax.distributed.is_initialized():
        yield
        return
    peers = _join(how)
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if peers is not None:
            peers.failed(error)
        raise


def leave(code: int) -> int:
    """The exit code, for one process; one of several that has failed leaves at once.

    Python's ordinary end would wait for the others, which may be waiting for this one.
    """
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _join(how: Settings) -> Peers | None:
    peers: Peers | None = None

    def failed() -> None:
        if peers is None:
            print(f"error: {_not_joined(how)}", file=sys.stderr)
            leave(2)
        else:
            peers.runtime_failed()

    try:
        with runtime_failures(failed):
            jax.distributed.initialize(
                how.coordinator,
                how.processes,
                how.process,
                # JAX finds out by itself which kind of TPU cluster this is.
                cluster_detection_method={None: "deactivate", "tpu": None}.get(
                    how.cluster, how.cluster
                ),
                initialization_timeout=how.timeout,
                heartbeat_timeout_seconds=bound(how.heartbeat),
            )
    except Exception as error:  # of the cluster's library, of its metadata, or of connecting
        if jax.distributed.is_initialized():  # has a client: it was connecting
            raise ConfigError(_not_joined(how)) from error
        text = (str(error).splitlines() or [""])[0]
        found = f"{type(error).__name__}: {text}"
        if how.cluster is None:
            raise ConfigError(f"{how.named}: process 0 cannot listen there: {found}") from error
        raise ConfigError(
            f"{how.named}: no {how.cluster} cluster tells its processes here ({found}); "
            "--coordinator=HOST:PORT --processes=N --process=I say the same"
        ) from error
    client, index, count = _place()
    if count == 1:
        return None
    peers = Peers(client, index, count, how.heartbeat)
    peers.start()
    sys.excepthook = _traceback_and_leave
    return peers


def _place() -> tuple[object, int, int]:
    """(client of the coordination service, this process, how many), without making a backend."""
    from jax._src.distributed import global_state

    return global_state.client, global_state.process_id, global_state.num_processes


def _not_joined(how: Settings) -> str:
    _, index, count = _place()
    return (
        f"{how.named}: the {count} processes have not all joined within {how.timeout} s; this is "
        f"process {index}: was each started with the same address, and can it reach process 0?"
    )


def _traceback_and_leave(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    sys.__excepthook__(kind, error, trace)
    leave(1)


class _Settings:
    """The values of FLAGS, and what to call them in an error."""

    def __init__(self, flags: Mapping[str, str | None], environment: Mapping[str, str]) -> None:
        self._flags, self._environment = flags, environment

    def text(self, name: str) -> str | None:
        return self._flags.get(name) or self._environment.get(FLAGS[name][0]) or None

    def shown(self, name: str) -> str:
        """`--flag=value` or `VARIABLE=value`; nothing where it is not given."""
        value = self.text(name)
        if value is None:
            return ""
        return f"--{name}={value}" if self._flags.get(name) else f"{FLAGS[name][0]}={value}"

    def number(self, name: str, least: int, default: int | None = None) -> int | None:
        value = self.text(name)
        if value is None:
            return default
        if not re.fullmatch(r"\d{1,9}", value) or int(value) < least:
            raise ConfigError(f"{self.shown(name)}: expected a whole number from {least}")
        return int(value)
