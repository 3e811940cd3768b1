"""The API's own description, fuzzed: whatever fits it, or just does not, is answered as it says."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.python import asgi
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from sapatchcore import SAPatchCore
from sapatchcore.server.app import create_app
from sapatchcore.server.options import ServerOptions
from sapatchcore.server.tokens import make_token

NAME = "m"
EXAMPLES = 6  # of each route: from values that fit, and from values that do not; with the model's name, and with others
CHECKS = [
    schemathesis.checks.not_a_server_error,
    *(status_code_conformance, content_type_conformance, response_schema_conformance),
]


class Fuzzed:
    """A server with one model, its description, and headers with an admin's token."""

    def __init__(self, folder: Path, model: SAPatchCore) -> None:
        (folder / "models").mkdir()
        model.save(folder / "models" / f"{NAME}.safetensors")
        tokens = folder / "tokens.yaml"
        self.headers = {"Authorization": f"Bearer {make_token('fuzz', 'admin', tokens)}"}
        self.app = create_app(ServerOptions(models=folder / "models", records=folder / "records.sqlite", tokens=tokens))
        self.schema = schemathesis.openapi.from_asgi("/openapi.json", self.app)
        self.statuses: Counter[int] = Counter()
        ready = self.schema["/readyz"]["GET"].Case()
        for _ in range(1200):
            if ready.call().status_code == 200:
                return
            time.sleep(0.1)
        raise TimeoutError("The model was not loaded within two minutes.")

    def fuzz(self, operation: Any, mode: GenerationMode, **fixed: Any) -> None:
        """Raises what schemathesis found."""

        @given(case=operation.as_strategy(generation_mode=mode, **fixed))
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        )
        def run(case: Any) -> None:
            answer = case.call(headers=self.headers)
            self.statuses[answer.status_code] += 1
            case.validate_response(answer, checks=CHECKS, headers=self.headers)

        run()

    def judged(self, image: bytes) -> Any:
        """What the server says of a good image."""
        case = self.schema["/v1/models/{name}/inspect"]["POST"].Case(
            path_parameters={"name": NAME}, body=image, media_type="image/png", headers=self.headers
        )
        answer = case.call()
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def fuzzed(fitted: SAPatchCore, tmp_path: Path) -> Iterator[Fuzzed]:
    """One a test: schemathesis stops an application at the end of a test, and ours starts once."""
    yield Fuzzed(tmp_path, fitted)
    asgi.shutdown_lifespans()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_answers_are_as_described(mode: GenerationMode, fuzzed: Fuzzed, image_folder: Path) -> None:
    found, tried = [], []
    for one in fuzzed.schema.get_all_operations():
        operation = one.ok()
        given_names = [{"path_parameters": {"name": NAME}}] if "{name}" in operation.path else []
        for fixed in ({}, *given_names):
            tried.append(operation.label)
            try:
                fuzzed.fuzz(operation, mode, **fixed)
            except Exception as error:  # of all routes, not of the first alone
                if "Unsatisfiable" not in type(error).__name__:  # nothing that does not fit: a route without values
                    found.append(f"{operation.label} {fixed}: {type(error).__name__}: {str(error)[:1500]}")
    assert not found, "\n\n".join(found)
    assert len(set(tried)) >= 10
    assert fuzzed.statuses.keys() & ({200} if mode is GenerationMode.POSITIVE else {422})
    assert fuzzed.judged((image_folder / "00.png").read_bytes())["results"][0]["record"] >= 1
