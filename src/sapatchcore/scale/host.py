"""What Ray holds in processes of their own: objects of modules that the process which asks for them never imports.

So the process that gave the command has neither PyTorch nor anything that grows with the images.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from sapatchcore.scale.engine import as_they_come

Progress = Callable[[str, int, int | None], None]


class Host:
    """An object of this package, made in the process that Ray chose when it is first asked for something.

    Not before: Ray tells an error of what is called as it is, and one of what is made as the loss of the process.
    """

    def __init__(self, module: str, name: str, *arguments: Any) -> None:
        """module: below this package. name: of a class in it, or of a function that makes an object. arguments: for it."""
        self._made_from, self._it = (module, name, arguments), None

    def call(self, method: str, *arguments: Any) -> Any:
        if self._it is None:
            module, name, own = self._made_from
            self._it = getattr(importlib.import_module(f"sapatchcore.{module}"), name)(*own)
        return getattr(self._it, method)(*arguments)


class Tally:
    """How far each worker is; its last word counts, so that work which is done again is not counted twice."""

    def __init__(self) -> None:
        self._done: dict[str, dict[int, int]] = {}

    def tell(self, stage: str, worker: int, done: int) -> None:
        self._done.setdefault(stage, {})[worker] = done

    def done(self, stage: str) -> int:
        """Of all workers together."""
        return sum(self._done.get(stage, {}).values())


def wait(stage: str, total: int, references: Sequence[Any], tally: Any, progress: Progress | None) -> None:
    """Wait for all ``references``, saying how far the workers are; what they stand for stays where it is."""
    import ray

    def tell() -> None:
        if progress is not None:
            progress(stage, min(ray.get(tally.done.remote(stage)), total), total)

    for _ in as_they_come(references, tell):
        pass
    if progress is not None:
        progress(stage, total, total)
