"""How many images a second does ``sapatchcore synth`` make and write, on one thread?"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Record, interleaved, parser, shown, spread, table
from sapatchcore.synth.write import LAYOUTS, SCENES, find_scene, write_dataset

QUESTION = "Images a second of the made data sets, drawn alone, and drawn, encoded and written in both layouts"


def main(arguments: list[str] | None = None) -> None:
    options = parser("synth", QUESTION)
    options.add_argument("--count", type=int, default=50, help="images a round (default: %(default)s)")
    given = options.parse_args(arguments)
    if given.data is not None:
        options.error("--data means nothing here: the images are made")
    torch.set_num_threads(1)  # for the record: nothing here uses PyTorch
    repeats = 1 if given.quick else given.repeats or 5
    record = Record("synth", QUESTION, given)
    for name in SCENES:
        record[name] = one_scene(name, 5 if given.quick else given.count, repeats, quick=given.quick)
    record.write(given.output)


def one_scene(name: str, count: int, repeats: int, *, quick: bool) -> dict[str, object]:
    """``count`` images: half of them to learn from, the others a few of each kind."""
    scene = find_scene(name)
    side = 128 if quick else scene.SIDE
    test = dict.fromkeys(scene.KINDS, max(1, count // 2 // len(scene.KINDS)))
    train = max(1, count - sum(test.values()))
    count = train + sum(test.values())
    kinds = [scene.KINDS[0]] * train + [kind for kind, number in test.items() for _ in range(number)]

    def drawn() -> None:
        for number, kind in enumerate(kinds):
            scene.render(kind, side, np.random.default_rng(number))

    def written(layout: str) -> Callable[[], None]:
        def make() -> None:
            with tempfile.TemporaryDirectory() as folder:
                write_dataset(Path(folder) / name, name, side=side, train=train, test=test, layout=layout)

        return make

    processor: dict[str, list[float]] = {}

    def timed(one: str, work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            begin = time.process_time()
            work()
            processor.setdefault(one, []).append(time.process_time() - begin)

        return run

    variants = {"drawn": drawn, **{f"written, {layout}": written(layout) for layout in LAYOUTS}}
    clock = interleaved({one: timed(one, work) for one, work in variants.items()}, repeats=repeats)
    # Of the processor's own seconds too: other work on the machine does not count in them, nor does waiting for the disk.
    rates = {
        one: {
            "by_the_clock": spread([count / seconds for seconds in clock[one]]),
            "by_the_processor": spread([count / seconds for seconds in processor[one][-repeats:]]),
        }
        for one in variants
    }
    rows = [(one, shown(rate["by_the_clock"]), shown(rate["by_the_processor"])) for one, rate in rates.items()]
    table((f"{name}, {side}×{side}", "images a second", "images a processor second"), rows)
    print()
    return {"side": side, "images": count, "images_a_second": rates}


if __name__ == "__main__":
    sys.exit(main())
