"""A benchmark's jobs in workers: the tables of one machine; on a real Ray cluster, some jobs at a time."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("ray", reason="Ray is not installed: install the extra scale")

from conftest import made_images

from sapatchcore.scale import benchmark as module
from sapatchcore.scale.benchmark import side_by_side
from sapatchcore.settings import settings_from
from sapatchcore.verify.benchmark import benchmark_to_folder


def in_reverse(jobs: Any, settings: Any, layout: str, _: Any) -> Iterator[Any]:
    """Each job as a worker runs it, sent there and back, the last one first."""
    for index, job in reversed(list(enumerate(jobs))):
        sent = pickle.loads(pickle.dumps((job, settings, layout, str(Path.cwd()), 1)))
        yield index, pickle.loads(pickle.dumps(module._run(*sent)))


def test_the_tables_are_those_of_one_machine(tmp_path: Path, small: dict[str, Any]) -> None:
    for category, seed in (("a", 1), ("b", 2)):
        for kind, count in (("train/good", 6), ("test/good", 3), ("test/bad", 3)):
            folder = tmp_path / "data" / category / kind
            folder.mkdir(parents=True)
            for number, pixels in enumerate(made_images(count, seed=seed + len(kind))):
                if kind == "test/bad":
                    pixels[20:40, 20:40] = 255
                Image.fromarray(pixels).save(folder / f"{number}.png")
        masks = tmp_path / "data" / category / "ground_truth" / "bad"
        masks.mkdir(parents=True)
        for number in range(3):
            mask = Image.new("L", (64, 64))
            mask.paste(255, (20, 20, 40, 40))
            mask.save(masks / f"{number}_mask.png")
    seen: list[tuple[str, int]] = []

    def tables(name: str, **more: Any) -> Any:
        text = benchmark_to_folder(
            *(tmp_path / "data", tmp_path / name, settings_from({**small, "coreset_ratio": 0.1})),
            wanted=[],
            seeds=[0],
            compare="none",
            layout="auto",
            table_format="csv",
            **more,
        )
        assert (tmp_path / name / "benchmark.csv").read_text() == text
        return [line for line in text.splitlines() if "econds" not in line]

    alone = tables("alone")
    many = tables(
        "many",
        run_all=in_reverse,
        scored=lambda run, _, evaluation: seen.append((run.category, len(evaluation.labels))),
    )
    assert many == alone
    assert sorted(seen) == [("a", 6), ("a", 6), ("b", 6), ("b", 6)]


def test_a_few_jobs_run_at_a_time(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first job waits for the second one, so they run together; the third begins when one of them is done."""

    def run(job: int, *_: object) -> int:
        (tmp_path / f"{job} begun").touch()
        while job == 0 and not (tmp_path / "1 begun").exists():
            time.sleep(0.05)
        assert job < 2 or list(tmp_path.glob("* done"))
        (tmp_path / f"{job} done").touch()
        return job * 10

    monkeypatch.setattr(module, "_run", run)
    told: list[tuple[str, int, int | None]] = []
    jobs: Any = [0, 1, 2]
    done = list(side_by_side(cluster.address, 2)(jobs, settings_from({}), "auto", lambda *one: told.append(one)))
    assert sorted(done) == [(0, 0), (1, 10), (2, 20)]
    assert told == [("benchmark", number, 3) for number in (1, 2, 3)]
