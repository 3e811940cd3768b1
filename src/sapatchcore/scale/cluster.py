"""A Ray cluster: joining it for one command, its resources, its errors as sentences, and the actors that both runs use.

``local`` starts Ray on this machine for one command; an address joins a cluster that is running. The command itself must run
on one of the cluster's machines: it reads the data and writes its output there.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from sapatchcore.data.remote import is_address
from sapatchcore.data.sources import Progress
from sapatchcore.errors import MissingPackageError, SAPatchCoreError, ScaleError, SettingsError, install

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

LOCAL, AUTO = "local", "auto"
RESTARTS = 8  # of one actor, whose work starts over each time: a machine that kills every process is soon given up
_CLIENT = "ray://"
_REMEDY = "Start one with `ray start --head`, or use `address` local."
_TOKEN = (
    "Set RAY_AUTH_MODE=token, and give the token of the cluster's head (its ~/.ray/auth_token) in the same file here or in "
    "RAY_AUTH_TOKEN."
)


@dataclass(frozen=True)
class Cluster:
    """cpus, gpus: of all nodes together. node: the id of the node that this process runs on."""

    cpus: int
    gpus: int
    node: str

    def workers(self, wanted: int | None) -> int:
        """How many workers to start: ``wanted``, else one for each GPU, else one for every 4 processors (2 on a small cluster).

        Raises SettingsError where ``wanted`` is below 1.
        """
        if wanted is not None:
            if wanted < 1:
                raise SettingsError(f"The number of workers must be 1 or more. Got {wanted}.")
            return wanted
        return self.gpus or max(self.cpus // 4, min(self.cpus, 2), 1)

    def threads(self, workers: int) -> int:
        """CPU threads for each of ``workers`` workers."""
        return max(1, self.cpus // workers)

    def worker_resources(self) -> dict[str, float]:
        """What a worker reserves: a GPU where there are any, else almost nothing.

        A CPU worker sets its own number of threads. Were it to reserve CPUs, workers of a lost node would find no room on
        nodes that count as full.
        """
        return {"num_gpus": 1} if self.gpus else {"num_cpus": 0.001}

    def worker_options(self) -> dict[str, Any]:
        """Options of a worker that is an actor or a task: its resources, spread over the nodes."""
        return {**self.worker_resources(), "scheduling_strategy": "SPREAD"}

    def here(self) -> dict[str, Any]:
        """Options of an actor that stays on this process's node, where the images are listed and the output is written."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(self.node, soft=False)}


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """Ray for the length of the block. A connection that exists already is used, and left open.

    address: "local", "auto" (the cluster that runs on this machine), or "host:port".

    Raises MissingPackageError without Ray; SettingsError for a Ray Client address; ScaleError where no cluster answers, or
    where it is lost in the block. This package's own errors come out of a worker unchanged.
    """
    os.environ.setdefault(
        "RAY_USAGE_STATS_ENABLED", "0"
    )  # Ray would report the use of a plant's machines to its makers
    os.environ.setdefault(
        "RAY_BACKEND_LOG_LEVEL", "fatal"
    )  # errors come out as one sentence, not as pages of Ray's log
    logging.getLogger("ray.data._internal").setLevel(logging.ERROR)  # Ray sets the level of "ray.data" itself
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
    with tempfile.TemporaryFile() as stderr:
        try:
            if address == LOCAL:
                ray.init(address=LOCAL, include_dashboard=False, **quiet)
            else:
                with _stderr_to(stderr):
                    ray.init(address=address, **quiet)
        except (RayError, ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
            stderr.seek(0)
            if isinstance(error, AuthenticationError) or b"InvalidAuthToken" in stderr.read():
                raise ScaleError(f"The Ray cluster at {address} asks for a token. {_TOKEN}") from None
            reason = " ".join(str(error).split())[:200]
            raise ScaleError(f"No Ray cluster answers at {address}: {reason} {_REMEDY}") from None


@contextmanager
def _stderr_to(file: IO[bytes]) -> Iterator[None]:
    """Send stderr to ``file``, that of Ray's C++ too: only there, and many times over, does Ray say why it cannot connect."""
    kept = os.dup(2)
    try:
        os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _require_answer(address: str) -> None:
    """Raises SettingsError unless ``address`` is HOST:PORT, ScaleError where nothing listens: Ray would retry for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise SettingsError(f"`address` must be local, auto or HOST:PORT. Got {address!r}. For example 10.0.0.5:6379.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise ScaleError(f"No Ray cluster answers at {address}: {error}. {_REMEDY}") from None


@contextmanager
def sentences() -> Iterator[None]:
    """A block that waits for Ray: a worker's error comes out as it was raised there, Ray's own as a ScaleError."""
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


def as_completed(references: Sequence[ObjectRef], tick: Callable[[], None]) -> Iterator[ObjectRef]:
    """Each reference once its result is ready; ``tick`` is called several times a second."""
    import ray

    left = list(references)
    while left:
        done, left = ray.wait(left, num_returns=1, timeout=0.2, fetch_local=False)
        tick()
        yield from done


def wait_for(
    references: Sequence[ObjectRef], stage: str, total: int, assignments: ActorHandle, progress: Progress | None
) -> None:
    """Wait for all ``references`` and report progress; the results stay where they are."""
    import ray

    def tick() -> None:
        if progress is not None:
            progress(stage, min(ray.get(assignments.done.remote(stage)), total), total)

    for _ in as_completed(references, tick):
        pass
    if progress is not None:
        progress(stage, total, total)


class LazyActor:
    """An actor around an object of this package whose module is first imported in the actor's own process.

    So the command's process imports no PyTorch. The object is made by the first call, not with the actor: Ray passes on an
    error of a call as it is, but reports one of a constructor as the actor's death.
    """

    def __init__(self, folder: str, module: str, name: str, *arguments: object) -> None:
        """folder: where relative paths start; they fail by name on a machine that has no such folder. module: below this
        package. name: of a class in it. arguments: of the class."""
        self._folder, self._class, self._arguments = folder, (module, name), arguments
        self._instance: Any = None

    def call(self, method: str, *arguments: object) -> Any:
        """The result of one method of the object."""
        if self._instance is None:
            with contextlib.suppress(OSError):
                os.chdir(self._folder)
            module, name = self._class
            self._instance = getattr(importlib.import_module(f"sapatchcore.{module}"), name)(*self._arguments)
        return getattr(self._instance, method)(*arguments)


class Assignments:
    """An actor that knows what each worker has to do and how far it is.

    It never waits for another process, so a worker that was restarted gets its assignment at once.
    """

    def __init__(self) -> None:
        self._assignments: list[Any] = []
        self._done: dict[str, dict[int, int]] = {}

    def assign(self, assignments: list[Any]) -> None:
        """assignments: one for each worker, with references to what is large."""
        self._assignments = assignments

    def of(self, worker: int) -> Any:
        return self._assignments[worker]

    def report(self, stage: str, worker: int, done: int) -> None:
        self._done.setdefault(stage, {})[worker] = done

    def done(self, stage: str) -> int:
        """Of all workers. Only a worker's last report counts, so work that is done again is not counted twice."""
        return sum(self._done.get(stage, {}).values())


def absolute(path: str | os.PathLike[str]) -> str:
    """A path from the root, so that it means the same in every process; an address as it is."""
    text = os.fspath(path)
    return text if is_address(text) else str(Path(text).absolute())
