"""Scores by parts on a real Ray cluster: every image once, whatever stops, and what could not be read with its reason."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("ray", reason="Ray is not installed: install the extra scale")
pytest.importorskip("pyarrow", reason="pyarrow is not installed: install the extra scale")

from conftest import LIGHT
from pyarrow import parquet

from sapatchcore import SAPatchCore
from sapatchcore.data.images import all_images
from sapatchcore.errors import SettingsError
from sapatchcore.scale import scoring
from sapatchcore.scale.predict import predict
from sapatchcore.scale.scoring import PartScorer, PartScorers, ScoringRun
from sapatchcore.scale.storage import PartListing, Storage, finished


class Stopped(Exception):
    """What a run is cut off with."""


@pytest.fixture(scope="module")
def fitted_here(folder: Path) -> SAPatchCore:
    return SAPatchCore(**LIGHT, coreset_ratio=0.05, global_part="pooled").fit(folder / "good")


@pytest.fixture(scope="module")
def model(folder: Path, fitted_here: SAPatchCore) -> Path:
    path = folder / "model.safetensors"
    fitted_here.save(path)
    return path


def rows_of(output: Path, table: str = "scores") -> list[dict[str, Any]]:
    files = sorted((output / table).glob("part-*.parquet"))
    return [row for file in files for row in parquet.read_table(file).to_pylist()]


def gated(first: int, gate: Path) -> type:
    """PartScorers that wait with part ``first`` and those after it until the file ``gate`` is there."""

    class Gated(PartScorers):
        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            while int(batch["part"][0]) >= first and not gate.exists():
                time.sleep(0.05)
            return super().__call__(batch)

    return Gated


def test_a_run_that_is_stopped_and_loses_a_machine_goes_on(
    cluster: Any, folder: Path, fitted_here: SAPatchCore, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, gate = tmp_path / "scores", tmp_path / "gate"
    broken = folder / "good" / "later" / "cut.png"
    broken.write_bytes((folder / "good" / "000.png").read_bytes()[:200])

    def run(first_that_waits: int, progress: Any, workers: int) -> Any:
        monkeypatch.setattr(scoring, "PartScorers", gated(first_that_waits, gate))
        images = [folder / "good"]
        return predict(model, images, output, address=cluster.address, workers=workers, part=1, progress=progress)

    seen: list[int] = []

    def stop_after_some(stage: str, done: int, total: int | None) -> None:
        assert (stage, total) == ("predict", 14)
        seen.append(done)
        if done >= 2:
            raise Stopped

    later: list[int] = []

    def lose_a_machine(stage: str, done: int, total: int | None) -> None:
        assert (stage, total) == ("predict", 14)
        later.append(done)
        if len(later) == 2:  # a part of this run is finished, others wait in the workers
            cluster.lose()
            gate.touch()

    try:
        with pytest.raises(Stopped):
            run(4, stop_after_some, 1)
        before = {file: file.stat().st_mtime_ns for file in (output / "scores").glob("part-*.parquet")}
        found = run(10, lose_a_machine, 2)
    finally:
        broken.unlink()
    assert seen == [0, 1, 2]
    assert 2 <= later[0] <= 4
    assert later == list(range(later[0], 15))
    assert (found.images, found.errors, found.parts) == (13, 1, 14)
    # What was finished is as it was; every image is there once; and the scores are those of one machine.
    assert 2 <= len(before) <= 4
    assert {file: file.stat().st_mtime_ns for file in before} == before
    rows = rows_of(output)
    assert sorted(row["path"] for row in rows) == [str(path) for path in all_images(folder / "good")]
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    result = fitted_here.predict([row["path"] for row in rows])
    np.testing.assert_allclose([row["score"] for row in rows], result.scores, rtol=1e-4)
    np.testing.assert_allclose([row["context"] for row in rows], result.context_scores, rtol=1e-3)
    assert result.global_scores is not None
    np.testing.assert_allclose([row["global"] for row in rows], result.global_scores, rtol=1e-3)
    assert found.rate is not None
    verdicts = result.verdicts(found.rate)
    assert [row["rejected"] for row in rows] == [verdict.rejected for verdict in verdicts]
    assert found.rejected == sum(verdict.rejected for verdict in verdicts)
    assert [row["kind"] for row in rows] == [verdict.kind or None for verdict in verdicts]
    assert {(row["height"], row["width"]) for row in rows} == {(64, 64)}
    (error,) = rows_of(output, "errors")
    assert error["path"] == str(broken)
    assert "cut.png" in error["reason"]
    metadata = parquet.read_schema(next(iter(before))).metadata
    assert metadata[b"model"] == b"model.safetensors"
    assert len(metadata[b"model_sha256"]) == 64


OPTIONS: dict[str, Any] = dict.fromkeys(("precision", "batch_size", "workers", "weights", "search")) | {"device": "cpu"}


def scorer_of(run: ScoringRun, maps: str | None = None) -> PartScorer:
    """What a worker runs, in this process: it has its task from Ray otherwise."""
    return PartScorer(run.task(maps, "npy", 1))


def test_images_that_came_since_are_scored_then_and_maps_are_written(
    model: Path, tmp_path: Path, images: Callable[..., Any]
) -> None:
    drop, output, maps = tmp_path / "drop", tmp_path / "scores", tmp_path / "maps"
    drop.mkdir()
    for number, pixels in enumerate(images(3, seed=8)):
        Image.fromarray(pixels).save(drop / f"{number}.png")
    run = ScoringRun(str(model), OPTIONS, str(output), 0.1, str(tmp_path), 1000)
    assert PartListing(str(output)).list_images([str(drop)], 1000) == [3]
    assert scorer_of(run, str(maps)).score(0) == (3, 0)
    Image.fromarray(images(1, seed=9)[0]).save(drop / "0b.png")
    again = ScoringRun(str(model), OPTIONS, str(output), 0.1, str(tmp_path), 1000)
    assert PartListing(str(output)).list_images([str(drop)], 1000) == [3, 1]
    assert again.finished() == {0}
    scorer_of(again, str(maps)).score(1)
    found = again.totals()
    assert (found.images, found.errors, found.parts, found.rate) == (4, 0, 2, 0.1)
    rows = rows_of(output)
    assert [Path(row["path"]).name for row in rows] == ["0.png", "1.png", "2.png", "0b.png"]
    expected = SAPatchCore.load(model).predict([row["path"] for row in rows]).maps
    for row, values in zip(rows, expected, strict=True):
        assert row["map"] == f"{maps}{row['path']}.npy"
        np.testing.assert_allclose(np.load(row["map"]), values, rtol=1e-3, atol=1e-4)
    # Another rate would give other verdicts in one set of tables.
    with pytest.raises(SettingsError, match=r"false_reject 0\.1, now 0\.2"):
        ScoringRun(str(model), OPTIONS, str(output), 0.2, str(tmp_path), 1000)


def test_a_part_that_is_done_again_leaves_no_error_of_before(
    model: Path, tmp_path: Path, images: Callable[..., Any]
) -> None:
    drop, output = tmp_path / "drop", tmp_path / "scores"
    drop.mkdir()
    file = drop / "a.png"
    file.write_bytes(b"half a ")
    run = ScoringRun(str(model), OPTIONS, str(output), None, str(tmp_path), 1000)
    PartListing(str(output)).list_images([str(drop)], 1000)
    assert scorer_of(run).score(0) == (0, 1)
    Image.fromarray(images(1)[0]).save(file)
    assert scorer_of(run).score(0) == (1, 0)
    assert (run.totals().images, run.totals().errors) == (1, 0)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Storage with S3's interface, on this machine alone."""
    server = pytest.importorskip("moto.server", reason="moto is not installed: it stands for S3 here")
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed: install the extra s3")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "line",
        "AWS_SECRET_ACCESS_KEY": "line",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    files.mkdir("plant")
    yield files
    running.stop()


def test_images_and_tables_may_lie_in_a_bucket(
    bucket: Any, folder: Path, model: Path, images: Callable[..., Any]
) -> None:
    for number, pixels in enumerate(images(3, seed=4)):
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG")
        bucket.pipe_file(f"plant/camera 1/{number}.png", out.getvalue())
    bucket.pipe_file("plant/camera 1/9.png", b"no image")
    run = ScoringRun(str(model), OPTIONS, "s3://plant/scores", None, str(folder), 2)
    for _ in range(2):
        assert PartListing("s3://plant/scores").list_images(["s3://plant/camera 1"], 2) == [2, 2]

    scorer = scorer_of(run)
    assert [scorer.score(part) for part in (0, 1)] == [(2, 0), (1, 1)]
    assert finished(Storage("s3://plant/scores")) == {0, 1}
    total = run.totals()
    assert (total.images, total.errors) == (3, 1)
    assert "s3://plant/camera 1/9.png" in total.first_errors[0]
    table = parquet.read_table(io.BytesIO(bucket.cat_file("plant/scores/scores/part-000000.parquet")))
    assert table["path"].to_pylist() == ["s3://plant/camera 1/0.png", "s3://plant/camera 1/1.png"]
