"""The Ray cluster that jobs run on: one that is there, or one that is started here for as long as they take."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from perikarya.errors import ConfigError, RunError
from perikarya.launch.jobs import thread_variables
from perikarya.parallel import n_cores

if TYPE_CHECKING:
    from perikarya.settings import RayConfig

log = logging.getLogger(__name__)

_CONNECT_WAIT_S = 10.0
_OBJECT_STORE_BYTES = 80 * 2**20  # near the least Ray accepts; only words pass through it

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # sends nothing to anybody
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # a worker's death is told by us, once
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else a warning; ``remote_options`` hides GPUs where none is asked for
}
# Ray on Linux listens on every interface, and runs what anyone sends there; with this it listens on 127.0.0.1
_THIS_MACHINE_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@contextmanager
def connected(settings: RayConfig) -> Iterator[Any]:
    """Yield the package ray, connected; what was started or connected here ends with the block."""
    address = settings.address or os.environ.get("RAY_ADDRESS") or "local"
    ray = _import_ray(alone=address == "local")
    if ray.is_initialized():  # by who calls us, such as a notebook: theirs to end
        yield ray
        return
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        if address == "local":
            _start(ray)
        else:
            _connect(ray, address)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray put its own there, which ends the process unasked
        yield ray
    finally:
        ray.shutdown()


def _import_ray(*, alone: bool) -> Any:
    for name, value in {**QUIET, **(_THIS_MACHINE_ONLY if alone else {})}.items():
        os.environ.setdefault(name, value)  # read when ray is imported, and by the processes it starts
    try:
        import ray
    except ImportError:
        raise ConfigError(
            'engine: ray needs the package ray, which is not installed.\nFix: pip install "perikarya[ray]".'
        ) from None
    return ray


def _start(ray: Any) -> None:
    try:
        ray.init(
            address="local",
            num_cpus=n_cores(),
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise RunError(
            f"Ray cannot be started on this machine: {first_line(error)}\n"
            "Fix: give it room in /tmp and /dev/shm and a home folder it may write; or run with --engine local."
        ) from error
    log.info("Ray was started on this machine with %d CPUs; it ends with this command", n_cores())


def _connect(ray: Any, address: str) -> None:
    if "://" in address:
        raise ConfigError(
            f"launch.ray.address is {address}, but jobs are told of through a direct connection, not Ray Client.\n"
            "Fix: run the command on a machine of the cluster with address 'auto', or send it there with "
            "'ray job submit'."
        )
    try:
        if address != "auto":
            host, _, port = address.rpartition(":")
            if not (host and port.isdigit()):
                raise ValueError("it is neither host:port nor 'auto'.")
            socket.create_connection((host, int(port)), timeout=_CONNECT_WAIT_S).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise RunError(
            f"The Ray cluster at '{address}' cannot be used: {first_line(error)}\n"
            "Fix: start it ('ray start --head' on one machine, 'ray start --address=...' on the others), correct "
            "launch.ray.address (host:port, or 'auto' on a machine of the cluster), or leave it out to start Ray here. "
            "A cluster that asks for a token needs RAY_AUTH_MODE=token and ~/.ray/auth_token on this machine, too."
        ) from error
    alive = [node for node in ray.nodes() if node["Alive"]]
    n_gpus = sum(node["Resources"].get("GPU", 0) for node in alive)
    n_cpus = sum(node["Resources"].get("CPU", 0) for node in alive)
    log.info("Ray cluster at %s: %d machines, %g CPUs, %g GPUs", address, len(alive), n_cpus, n_gpus)


def remote_options(ray: Any, settings: RayConfig, *, threads: int, processes: int = 1) -> dict[str, Any]:
    """Return what a remote function that does one job asks of the cluster.

    Raises
    ------
    ConfigError
        If no machine of the cluster is as large.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = settings.gpus
    if gpus is None:
        gpus = float(processes) if any(machine.get("GPU", 0) >= processes for machine in machines) else 0.0
    cpus = threads * processes
    if not any(machine.get("CPU", 0) >= cpus and machine.get("GPU", 0) >= gpus for machine in machines):
        found = sorted({f"{m.get('CPU', 0):g} CPUs and {m.get('GPU', 0):g} GPUs" for m in machines})
        raise ConfigError(
            f"No machine of the Ray cluster has the {cpus} CPUs and {gpus:g} GPUs each task asks for; "
            f"there are such with {', '.join(found)}.\nRay would wait for ever.\n"
            "Fix: launch.threads and launch.ray.gpus; a cluster that grows by itself must have one such machine first."
        )
    # the variables are there before numpy and torch load
    env = thread_variables(threads)
    if not gpus:
        env["CUDA_VISIBLE_DEVICES"] = ""
    # Retries are counted here, where they can be told. Ray's own max_calls stays: a process that had a GPU takes no
    # second job, for CUDA would keep the memory, and the GPU, of the first.
    return {
        "num_returns": "streaming",
        "max_retries": 0,
        "num_cpus": cpus,
        "num_gpus": gpus,
        "runtime_env": {"env_vars": env},
    }


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its name."""
    return next(iter(str(error).splitlines()), type(error).__name__)
