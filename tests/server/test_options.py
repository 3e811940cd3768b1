"""Server options: their ranges, and the command line that is derived from them."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from command import run

from sapatchcore.errors import SettingsError
from sapatchcore.server import app
from sapatchcore.server.options import ServerOptions


@pytest.mark.parametrize(("host", "allowed"), [
    ("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.8.0.1", True),
    ("0.0.0.0", False), ("192.168.1.5", False), ("::", False), ("factory.local", False), ("", False),
])  # fmt: skip
def test_only_loopback_goes_without_tokens(host: str, allowed: bool) -> None:
    if allowed:
        ServerOptions(models=Path("models"), host=host)
        return
    with pytest.raises(SettingsError, match="tokens"):
        ServerOptions(models=Path("models"), host=host)


@pytest.mark.parametrize(("name", "value", "words"), [
    ("port", 65536, "port must be from 0 to 65535. Got 65536."),
    ("keep_images", "rejects", "keep_images must be one of none, rejected, all. Got 'rejects'. Did you mean 'rejected'?"),
    ("false_reject", 1, "false_reject must be in (0, 1). Got 1. Use 0.01 for 1 %."),
    ("max_bytes", "1KB", "max_bytes must be at least 1024. Got 1000."),
    ("max_bytes", "5GB!", "A size must be a number and KB, MB, GB or TB. Got '5GB!'."),
    ("max_pixels", 0, "max_pixels must be at least 1. Got 0."),
    ("queue", 15, "max_images must not exceed queue"),
    ("timeout", float("nan"), "timeout must be at least 0.1. Got nan."),
    ("timeout", float("inf"), "timeout must be at least 0.1. Got inf."),
    ("retention_age", "9y", "An age must be a number and m, h, d or w. Got '9y'."),
    ("retention_size", -1, "retention_size must be at least 0. Got -1."),
    ("models", None, "models must be a folder. Got None."),
    ("prot", 80, "'prot' is not an option of the server. Did you mean 'port'?"),
])  # fmt: skip
def test_a_value_outside_its_range(name: str, value: object, words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        ServerOptions(**{"models": Path("models"), name: value})
    assert str(refused.value).startswith(words)


def test_every_option_is_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[ServerOptions] = []
    monkeypatch.setattr(app, "serve", found.append)
    monkeypatch.delenv("SAPATCHCORE_RECORDS", raising=False)
    assert run("serve", "models") == 0
    assert found[0].model_dump() == ServerOptions(models=Path("models")).model_dump()
    assert (found[0].max_bytes, found[0].load) == (32_000_000, {"device": "auto"})
    given: dict[str, Any] = {
        "records": "r.sqlite",
        "tokens": Path("t.yaml"),
        "host": "0.0.0.0",
        "port": 80,
        "keep_images": "all",
        "false_reject": 0.2,
        "max_bytes": "64 MB",
        "max_pixels": 5,
        "max_images": 3,
        "queue": 4,
        "timeout": 2.5,
        "retention_age": "90d",
        "retention_size": "50GB",
        "device": "cpu",
        "precision": "bfloat16",
        "batch_size": 2,
    }
    assert {"models", *given} == set(ServerOptions.model_fields)
    flags = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", value)]
    assert run("serve", "models", *flags) == 0
    assert found[1] == ServerOptions(models=Path("models"), **given)
    expected = (64_000_000, timedelta(days=90), 50_000_000_000)
    assert (found[1].max_bytes, found[1].retention_age, found[1].retention_size) == expected
    assert found[1].load == {"device": "cpu", "precision": "bfloat16", "batch_size": 2}
    monkeypatch.setenv("SAPATCHCORE_RECORDS", "postgresql://inspection@host/records")
    assert run("serve", "models") == 0
    assert found[2].records == "postgresql://inspection@host/records"


def test_wrong_use_is_said_in_a_sentence(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = ["--records", tmp_path / "r.sqlite"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        cases = [
            ([folder, *records, "--host", "0.0.0.0"], 2, "tokens"),
            ([folder, *records, "--port", taken.getsockname()[1]], 2, "cannot listen"),
            ([tmp_path / "none", *records], 1, "does not exist"),
            ([folder, "--records", tmp_path / "none/r.sqlite"], 1, "does not exist"),
            ([folder, *records, "--tokens", tmp_path / "none.yaml"], 2, "cannot be read"),
            ([folder, *records, "--keep-images", "some"], 2, "none, rejected, all"),
            ([folder, *records, "--max-bytes", "much"], 2, "size"),
            ([folder, *records, "--queue", "2"], 2, "max_images"),
            ([folder, *records, "--false-reject", "2"], 2, "false_reject"),
        ]
        for arguments, code, words in cases:
            assert run("serve", *arguments) == code, arguments
            said = capsys.readouterr().err
            assert words in said
            assert said.count("sapatchcore: ") == 1
