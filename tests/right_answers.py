"""What is right in an answer to a hostile request: its status, and an error as one sentence in JSON."""

from __future__ import annotations

import json

from hostile_requests import RawRequest


def wrong_answer(request: RawRequest, status: int | None, headers: dict[str, str], body: bytes) -> str | None:
    """What is wrong with an answer, None where it is right. status: None where the server closed without one."""
    if status is None:
        return None if request.protocol else "no answer"
    if "x-injected" in headers:
        return "a header of ours came back"
    if request.protocol and status < 500:
        return None
    if status not in request.allowed:
        return f"status {status}: {body[:200]!r}"
    if status in (200, 204):
        return None
    return wrong_refusal(headers, body)


def wrong_refusal(headers: dict[str, str], body: bytes) -> str | None:
    """What is wrong with an error's body: it must be {"error": one sentence} and nothing else."""
    if headers.get("content-type") != "application/json":
        return f"an error as {headers.get('content-type')}: {body[:200]!r}"
    try:
        content = json.loads(body)
    except ValueError:
        return f"no JSON: {body[:200]!r}"
    if not isinstance(content, dict) or set(content) != {"error"} or not isinstance(content["error"], str):
        return f"another error than {{'error': text}}: {body[:200]!r}"
    sentence = content["error"]
    if not sentence.endswith(".") or len(sentence) > 1000 or any(ord(letter) < 32 for letter in sentence):
        return f"no sentence: {sentence[:200]!r}"
    return None
