"""What Ray's processes take while a command runs, memory and processors, by what they do."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import Any

import psutil

EVERY = 0.2  # seconds
COMMAND, STEWARD, LISTING, WORKERS, REST = "command", "steward", "listing", "workers", "rest of Ray"
ENDED = "ended"
ONCE = (COMMAND, STEWARD, LISTING)  # processes that there is one of, whatever the number of workers


@dataclass
class Seen:
    """Of one process. peak: bytes that it had for itself at most. seconds: of processors, when it was last seen."""

    peak: int
    seconds: float


class Watch:
    """A context in which this process and all below it are sampled, in a thread whose own time is not counted.

    Memory is resident and a process's own: pages of files and of Ray's object store, which processes share, are not in it.
    """

    def __init__(self) -> None:
        self._me = psutil.Process()
        self._before: dict[int, Seen] = {}
        self._old: set[int] = set()  # processes of commands before, which may still be there for a moment
        self._seen: dict[int, Seen] = {}
        self._roles: dict[int, str] = {}
        self._sums: list[dict[int, int]] = []
        self._end = threading.Event()
        self._watching = 0.0  # seconds of the sampling itself

    def __enter__(self) -> Watch:
        self._before, self._old = self._all(), set(roles())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._roles = {**roles(), **dict.fromkeys(self._old, ENDED)}

    def peaks(self) -> dict[str, Any]:
        """MB: of the command how much it grew; of the steward or ledger and of the listing the peak; of workers the largest
        one's peak; of the rest of Ray the largest sum at one time."""
        of = dict.fromkeys((STEWARD, LISTING, WORKERS), 0)
        for pid, one in self._seen.items():
            role = self._roles.get(pid, REST)
            if role in of:
                of[role] = max(of[role], one.peak)
        rest = [sum(size for pid, size in at.items() if self._roles.get(pid, REST) == REST) for at in self._sums]
        grown = self._seen[self._me.pid].peak - self._before[self._me.pid].peak
        return {name: size / 1e6 for name, size in {COMMAND: grown, **of, REST: max(rest, default=0)}.items()}

    def seconds(self) -> dict[str, float]:
        """Of processors, that the processes took which there is one of."""
        of = dict.fromkeys(ONCE, 0.0)
        for pid, one in self._seen.items():
            if (role := self._roles.get(pid)) in of:
                of[role] += one.seconds
        mine = self._seen[self._me.pid].seconds - self._before[self._me.pid].seconds
        return {**of, COMMAND: max(mine - self._watching, 0.0)}

    def _run(self) -> None:
        while True:
            found = self._all()
            self._sums.append({pid: one.peak for pid, one in found.items() if pid != self._me.pid})
            for pid, one in found.items():
                before = self._seen.get(pid, one)
                self._seen[pid] = Seen(max(before.peak, one.peak), one.seconds)
            self._watching = time.thread_time()
            if self._end.wait(EVERY):
                return

    def _all(self) -> dict[int, Seen]:
        """This process and all below it, by their numbers."""
        found = {self._me.pid: seen(self._me)}
        with contextlib.suppress(psutil.Error):
            for process in self._me.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    found[process.pid] = seen(process)
        return found


def seen(process: psutil.Process) -> Seen:
    memory, times = process.memory_info(), process.cpu_times()
    return Seen(memory.rss - memory.shared, times.user + times.system)


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
    if name.startswith("listing-"):
        return LISTING
    if name.startswith("share-") or "MapWorker" in kind:
        return WORKERS
    return None
