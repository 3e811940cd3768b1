"""Progress bars with the time left, on standard error; nothing at all where that is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_NAMES = {
    "embed": "Reading good images",
    "coreset": "Choosing patches",
    "calibrate": "Scoring good images",
    "predict": "Scoring",
    "check": "Checking the file",
    "explain": "Explaining",
    "report": "Drawing",
    "metrics": "Metrics",
    "maps": "Maps",
    "images": "Making images",
    "benchmark": "Categories and seeds",
}


@contextmanager
def progress_bars(*, quiet: bool) -> Iterator[Callable[[str, int, int | None], None] | None]:
    """A callback ``(stage, done, total)`` that draws one bar a stage, or None where nothing should be drawn."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    bars: dict[str, TaskID] = {}
    columns = (
        TextColumn("{task.description:20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as drawn:

        def show(stage: str, done: int, total: int | None) -> None:
            if stage not in bars or drawn.tasks[bars[stage]].completed > done:  # the same stage again: a new bar
                bars[stage] = drawn.add_task(_NAMES.get(stage, stage), total=total)
            drawn.update(bars[stage], completed=done, total=total)

        yield show
