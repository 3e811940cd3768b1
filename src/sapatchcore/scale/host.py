"""What Ray holds in processes of their own: objects of modules that the process which asks for them never imports.

So the process that gave the command has neither PyTorch nor anything that grows with the images.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any

from sapatchcore.scale.cluster import as_they_come

Progress = Callable[[str, int, int | None], None]


class Host:
    """An object of this package, made in the process that Ray chose when it is first asked for something.

    Not before: Ray tells an error of what is called as it is, and one of what is made as the loss of the process.
    """

    def __init__(self, folder: str, module: str, name: str, *arguments: Any) -> None:
        """folder: where relative paths start; on a machine without it they fail by their names. module: below this package.
        name: of a class in it, or of a function that makes an object. arguments: for it."""
        self._folder, self._made_from, self._it = folder, (module, name, arguments), None

    def call(self, method: str, *arguments: Any) -> Any:
        if self._it is None:
            with contextlib.suppress(OSError):
                os.chdir(self._folder)
            module, name, own = self._made_from
            self._it = getattr(importlib.import_module(f"sapatchcore.{module}"), name)(*own)
        return getattr(self._it, method)(*arguments)


class Desk:
    """What workers have to do and how far they are. It waits for nobody, so a worker that is made again is never kept waiting."""

    def __init__(self) -> None:
        self._orders: list[Any] = []
        self._done: dict[str, dict[int, int]] = {}

    def order(self, orders: list[Any]) -> None:
        """orders: what each worker has to do, with references to whatever is large."""
        self._orders = orders

    def orders(self, worker: int) -> Any:
        return self._orders[worker]

    def tell(self, stage: str, worker: int, done: int) -> None:
        self._done.setdefault(stage, {})[worker] = done

    def done(self, stage: str) -> int:
        """Of all workers together. A worker's last word counts, so that work which is done again is not counted twice."""
        return sum(self._done.get(stage, {}).values())


def wait(stage: str, total: int, references: Sequence[Any], desk: Any, progress: Progress | None) -> None:
    """Wait for all ``references``, saying how far the workers are; what they stand for stays where it is."""
    import ray

    def tell() -> None:
        if progress is not None:
            progress(stage, min(ray.get(desk.done.remote(stage)), total), total)

    for _ in as_they_come(references, tell):
        pass
    if progress is not None:
        progress(stage, total, total)
