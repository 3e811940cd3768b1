"""What the server refuses: a status and one sentence."""

from __future__ import annotations

from starlette.exceptions import HTTPException


class Refused(HTTPException):
    """Ends a request with ``status`` and {"error": ``sentence``}. retry_after: seconds, for the header of that name."""

    def __init__(
        self, status: int, sentence: str, *, retry_after: int | None = None, headers: dict[str, str] | None = None
    ) -> None:
        more = {} if retry_after is None else {"Retry-After": str(retry_after)}
        super().__init__(status, sentence, {**(headers or {}), **more})
