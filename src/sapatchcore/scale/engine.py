"""Ray, as the entry points need it: connected for a while, its errors as sentences, what the cluster has.

``local`` starts Ray on this machine for one command; an address joins a cluster that runs. The command itself must run on one
of the cluster's machines: it reads the data and writes its output there.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sapatchcore.errors import MissingPackageError, SAPatchCoreError, ScaleError, SettingsError, install

LOCAL, AUTO = "local", "auto"
RESTARTS = (
    8  # of one actor; its work is done again from the start each time, so a machine that kills all is given up soon
)
_CLIENT = "ray://"
_REMEDY = "Start one with `ray start --head`, or use `address` local."
_TOKEN = (
    "Set RAY_AUTH_MODE=token, and give the token of the cluster's head (its ~/.ray/auth_token) in the same file here or in "
    "RAY_AUTH_TOKEN."
)


@dataclass(frozen=True)
class Cluster:
    """cpus, gpus: of all nodes together. node: the identity of the node that this process is on."""

    cpus: int
    gpus: int
    node: str

    def workers(self, wanted: int | None) -> int:
        """How many workers to start: ``wanted``, or one a GPU, or one for every 4 processors, but 2 where there are 2.

        Raises SettingsError where ``wanted`` is below 1.
        """
        if wanted is not None:
            if wanted < 1:
                raise SettingsError(f"The number of workers must be 1 or more. Got {wanted}.")
            return wanted
        return self.gpus or max(self.cpus // 4, min(self.cpus, 2), 1)

    def threads(self, workers: int) -> int:
        """Processors for each of ``workers`` workers that compute on CPUs."""
        return max(1, self.cpus // workers)

    def worker_resources(self) -> dict[str, float]:
        """What a worker asks for: a GPU where there are any, else next to none of what Ray counts.

        On CPUs it takes threads by itself: workers of a node that is lost must find room on others that count as full.
        """
        return {"num_gpus": 1} if self.gpus else {"num_cpus": 0.001}

    def worker_options(self) -> dict[str, Any]:
        """Of a worker that is one actor or task: its resources, and that they are spread over the nodes."""
        return {**self.worker_resources(), "scheduling_strategy": "SPREAD"}

    def here(self) -> dict[str, Any]:
        """Options of a task or actor that stays on this process's node, where the data are listed and the output is written."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(self.node, soft=False)}


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """Ray while the block runs. A connection that is there already is used and left as it is.

    address: "local", "auto" (the cluster that runs on this machine), or "host:port".

    Raises MissingPackageError without Ray; SettingsError for an address of Ray's client; ScaleError where no cluster answers,
    or where one is lost in the block. Errors of this package that workers raise come out as they are.
    """
    os.environ.setdefault(
        "RAY_USAGE_STATS_ENABLED", "0"
    )  # Ray would report the use of a plant's machines to its makers
    os.environ.setdefault(
        "RAY_BACKEND_LOG_LEVEL", "fatal"
    )  # what is wrong is said in a sentence; Ray's own pages are for it
    logging.getLogger("ray.data._internal").setLevel(logging.ERROR)  # of "ray.data" Ray sets the level itself
    if address.startswith(_CLIENT):
        raise SettingsError(
            f"`address` must be local, auto or HOST:PORT. Got {address}. Run the command on one of the cluster's machines, for "
            "example with `ray job submit`: it reads the data and writes its output there."
        )
    try:
        import ray
    except ImportError as error:
        raise MissingPackageError(f"Work on many machines needs Ray: {install('scale')}", name=error.name) from None
    started = not ray.is_initialized()
    if started:
        _start(address)
    try:
        with sentences():
            total = ray.cluster_resources()
            yield Cluster(int(total.get("CPU", 1)), int(total.get("GPU", 0)), ray.get_runtime_context().get_node_id())
    finally:
        if started:
            ray.shutdown()


def _start(address: str) -> None:
    import ray
    from ray.exceptions import AuthenticationError, RayError

    if address not in (LOCAL, AUTO):
        _require_answer(address)
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    with tempfile.TemporaryFile() as said:
        try:
            if address == LOCAL:
                ray.init(address=LOCAL, include_dashboard=False, **quiet)
            else:
                with _stderr_to(said):
                    ray.init(address=address, **quiet)
        except (RayError, ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
            said.seek(0)
            if isinstance(error, AuthenticationError) or b"InvalidAuthToken" in said.read():
                raise ScaleError(f"The Ray cluster at {address} asks for a token. {_TOKEN}") from None
            reason = " ".join(str(error).split())[:200]
            raise ScaleError(f"No Ray cluster answers at {address}: {reason} {_REMEDY}") from None


@contextmanager
def _stderr_to(file: Any) -> Iterator[None]:
    """What the process says on its second channel in the block, Ray's C++ too, goes to ``file``: why it does not connect Ray
    says there alone, again and again."""
    kept = os.dup(2)
    try:
        os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _require_answer(address: str) -> None:
    """Raises SettingsError for what is no HOST:PORT; ScaleError where nothing listens there: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise SettingsError(f"`address` must be local, auto or HOST:PORT. Got {address!r}. For example 10.0.0.5:6379.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise ScaleError(f"No Ray cluster answers at {address}: {error}. {_REMEDY}") from None


@contextmanager
def sentences() -> Iterator[None]:
    """A block that waits for Ray: an error of a worker comes out as it was raised there, Ray's own as a ScaleError."""
    from ray.exceptions import RayError, RayTaskError

    try:
        yield
    except RayError as error:
        cause: BaseException = error
        while isinstance(cause, RayTaskError):  # a worker may have waited for another one
            cause = cause.cause
        if isinstance(cause, RayError):
            raise ScaleError(_lost(cause)) from None
        if isinstance(cause, SAPatchCoreError | OSError | MemoryError):
            raise cause from None
        raise


def _lost(error: BaseException) -> str:
    reason = " ".join(str(error).split())[:300]
    return (
        f"The cluster could not go on ({type(error).__name__}): {reason} Check its machines with `ray status`, then give the "
        "same command again."
    )


def as_they_come(waiting: Sequence[Any], tell: Callable[[], None]) -> Iterator[Any]:
    """Each of the references ``waiting`` when its result is there; ``tell`` is called several times a second."""
    import ray

    left = list(waiting)
    while left:
        done, left = ray.wait(left, num_returns=1, timeout=0.2, fetch_local=False)
        tell()
        yield from done
