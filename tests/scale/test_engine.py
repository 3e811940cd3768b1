"""What is said before any cluster is there, and how work is laid out on one."""

from __future__ import annotations

import os
import sys

import pytest

from sapatchcore.errors import MissingPackageError, ScaleError, SettingsError
from sapatchcore.scale.engine import Cluster, connected
from sapatchcore.scale.host import Desk


@pytest.mark.parametrize(
    ("cpus", "gpus", "workers", "threads"),
    [(1, 0, 1, 1), (2, 0, 2, 1), (16, 0, 4, 4), (3, 0, 2, 1), (16, 4, 4, 4)],
)
def test_workers_by_default(cpus: int, gpus: int, workers: int, threads: int) -> None:
    cluster = Cluster(cpus, gpus, "here")
    assert cluster.workers(None) == workers
    assert cluster.threads(workers) == threads
    assert ("num_gpus" in cluster.worker_resources()) == (gpus > 0)


def test_a_number_of_workers_that_cannot_be() -> None:
    with pytest.raises(SettingsError, match=r"must be 1 or more\. Got 0"):
        Cluster(2, 0, "here").workers(0)


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackageError, match=r'pip install "sapatchcore\[scale\]"'), connected("local"):
        pass


def test_an_address_of_the_client_is_refused() -> None:
    with (
        pytest.raises(SettingsError, match=r"Run the command on one of the cluster's machines"),
        connected("ray://a:1"),
    ):
        pass


@pytest.mark.parametrize(
    ("address", "kind", "sentence"),
    [
        ("127.0.0.1:1", ScaleError, r"No Ray cluster answers at 127\.0\.0\.1:1: .* `address` local"),
        ("127.0.0.1:99999", ScaleError, "No Ray cluster answers"),
        ("somewhere", SettingsError, r"must be local, auto or HOST:PORT\. Got 'somewhere'"),
    ],
)
def test_where_no_cluster_answers(
    address: str, kind: type[Exception], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed: install the extra scale")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(kind, match=sentence), connected(address):
        pass


@pytest.mark.parametrize("by", ["a line of C++", "an error"])
def test_a_cluster_that_asks_for_a_token(
    by: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """Ray says why on the second channel alone, many times, where the token is not given; by an error where there is none."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: install the extra scale")

    def init(**_: object) -> None:
        if by == "an error":
            raise ray.exceptions.AuthenticationError("no token")
        os.write(2, b"gcs_client.cc: Unauthenticated: RPC error: InvalidAuthToken: missing or incorrect\n")
        raise ConnectionError("Failed to connect")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ScaleError, match=r"at auto asks for a token\. Set RAY_AUTH_MODE=token"), connected("auto"):
        pass
    assert "InvalidAuthToken" not in capfd.readouterr().err
    os.write(2, b"there again")
    assert capfd.readouterr().err == "there again"


def test_work_that_is_done_again_is_not_counted_twice() -> None:
    desk = Desk()
    for worker, done in ((0, 10), (1, 4), (0, 2), (0, 8)):
        desk.tell("embed", worker, done)
    assert desk.done("embed") == 12
    assert desk.done("calibrate") == 0
