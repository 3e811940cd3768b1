"""The token file, and whom its tokens let in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from serving import refused, service_of, serving

from sapatchcore.errors import SettingsError
from sapatchcore.server.tokens import make_token


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer x", "Basic eDp4", "bearer  ", "Bearer \xff\xfe", "Bearer " + "x" * 5000]
)
def test_wrong_tokens(guarded: Any, header: str) -> None:
    client, _, _ = guarded
    answer = client.get("/v1/me", headers={"Authorization": header.encode("latin-1")})
    refused(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"


def test_who_one_is(guarded: Any, client: TestClient) -> None:
    guarded_client, tokens, _ = guarded
    answer = guarded_client.get("/v1/me", headers={"Authorization": f"Bearer {tokens['feedback']}"})
    assert answer.json() == {"name": "the-feedback", "role": "feedback", "token_needed": True}
    assert client.get("/v1/me").json() == {"name": "local", "role": "admin", "token_needed": False}


def test_tokens_come_and_go_while_it_runs(guarded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client, tokens, file = guarded
    monkeypatch.setattr("sapatchcore.server.tokens._LOOK_EVERY", 0.0)
    service_of(client).tokens._next_look = 0.0  # type: ignore[union-attr]
    extra = make_token("visitor", "inspect", file)
    asking = {"headers": {"Authorization": f"Bearer {extra}"}}
    assert client.get("/v1/me", **asking).json()["name"] == "visitor"
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2] + "\n - {")
    assert client.get("/v1/me", **asking).status_code == 200  # what cannot be read changes nothing
    file.write_text(yaml.safe_dump([entry for entry in yaml.safe_load(whole) if entry["name"] != "visitor"]))
    assert client.get("/v1/me", **asking).status_code == 401
    assert client.get("/v1/me", headers={"Authorization": f"Bearer {tokens['admin']}"}).status_code == 200


def test_the_token_file_holds_no_token(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yaml"
    token = make_token("line1", "inspect", file)
    assert token not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    for name, role, words in (("line1", "admin", "already"), ("a b", "admin", "name"), ("x", "root", "role")):
        with pytest.raises(SettingsError, match=words):
            make_token(name, role, file)


@pytest.mark.parametrize("text", ["", "{}", "[1]", "- {name: a, role: root, sha256: x}", "- {name: a", "\x00"])
def test_a_file_that_holds_no_tokens(folder: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(SettingsError, match=r"t\.yaml"), serving(folder, tokens=tmp_path / "t.yaml"):
        pass
