"""Memory of Ray's processes while a command runs, by what they do."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import psutil

EVERY = 0.2  # seconds
COMMAND, STEWARD, WORKERS, REST = "command, growth", "steward", "workers", "rest of Ray"


class Watch:
    """A context in which the resident memory of this process and of all below it is sampled. Pages that processes share
    count in each."""

    def __init__(self) -> None:
        self._me = psutil.Process()
        self._peak: dict[int, int] = {}
        self._roles: dict[int, str] = {}
        self._sums: list[dict[int, int]] = []
        self._end = threading.Event()

    def __enter__(self) -> Watch:
        self._before = self._me.memory_info().rss
        self._peak[self._me.pid] = self._before
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._roles = roles()

    def peaks(self) -> dict[str, Any]:
        """MB: of the command how much it grew; of the steward or ledger its peak; of workers the largest one's peak; of the
        rest of Ray the largest sum at one time."""
        of: dict[str, int] = {STEWARD: 0, WORKERS: 0}
        for pid, size in self._peak.items():
            role = self._roles.get(pid, REST)
            if role in of:
                of[role] = max(of[role], size)
        rest = [sum(size for pid, size in at.items() if self._roles.get(pid, REST) == REST) for at in self._sums]
        grown = self._peak[self._me.pid] - self._before
        return {name: size / 1e6 for name, size in {COMMAND: grown, **of, REST: max(rest, default=0)}.items()}

    def _run(self) -> None:
        while True:
            at: dict[int, int] = {}
            with contextlib.suppress(psutil.Error):
                for process in self._me.children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        at[process.pid] = process.memory_info().rss
            self._sums.append(at)
            own = {self._me.pid: self._me.memory_info().rss}
            for pid, size in (at | own).items():
                self._peak[pid] = max(self._peak.get(pid, 0), size)
            if self._end.wait(EVERY):
                return


def roles() -> dict[int, str]:
    """The role of each process that holds an actor of this package, also of those that ended."""
    import ray._private.state as state

    out = {}
    for one in state.actors().values():
        role = role_of(one["Name"], one["ActorClassName"])
        if role is not None:
            out[int(one["Pid"])] = role
    return out


def role_of(name: str, kind: str) -> str | None:
    """name, kind: an actor's name and class. Ray Data's workers have no name."""
    if name.startswith(("steward-", "ledger-")):
        return STEWARD
    if name.startswith("share-") or "MapWorker" in kind:
        return WORKERS
    return None
