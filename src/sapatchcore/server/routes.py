"""What all routes share: the running service, and the role that a route asks for.

Both are coroutines, for which FastAPI needs no thread.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from sapatchcore.server.refusals import Refused
from sapatchcore.server.service import Service
from sapatchcore.server.tokens import Caller, Role

ModelName = Annotated[
    str, Path(pattern=r"^[A-Za-z0-9._-]{1,128}$", description="A model's name, as GET /v1/models lists it.")
]


async def service_of(request: Request) -> Service:
    """The running service."""
    found: Service = request.app.state.service
    return found


class Needs:
    """A dependency: the caller, who must hold ``role``. Raises Refused (403)."""

    def __init__(self, role: Role) -> None:
        self.role = role

    async def __call__(self, request: Request) -> Caller:
        """The caller that gate.py found."""
        caller: Caller = request.state.caller
        if not caller.may(self.role):
            raise Refused(403, f"This needs a token of the role {self.role}. {caller.name} has {caller.role}.")
        return caller


TheService = Annotated[Service, Depends(service_of)]
Inspector = Annotated[Caller, Depends(Needs("inspect"))]
Operator = Annotated[Caller, Depends(Needs("feedback"))]
Admin = Annotated[Caller, Depends(Needs("admin"))]
