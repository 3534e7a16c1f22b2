"""What all routes share: the engine's client, its archive, who may ask, and the bounds.

Guarantees: the archive is read by one thread at a time, beside the event loop. Reading
needs the folder and not the engine: what is on disk can be seen while no engine runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from raysaga.actors.archive import Archive
from raysaga.api.client import Sagas
from raysaga.api.http.access import Access, Caller, Right
from raysaga.api.http.pulse import Pulse
from raysaga.api.http.settings import HttpSettings
from raysaga.statemachines.definition import SagaDefinition

T = TypeVar("T")

CallerOf = Callable[[Mapping[str, str]], AbstractContextManager[object]]


def untraced(_headers: Mapping[str, str]) -> AbstractContextManager[object]:
    """Go on in no trace."""
    return nullcontext()


class Front:
    """What a running application holds.

    Attributes:
        sagas: The engine.
        access: Who may do what.
        settings: The bounds.
        definitions: By name, what can be submitted.
        caller_of: Goes on in the trace that a request's headers name.
        pulse: Looks at the engine, for all who watch it.
        stream_count: Event streams that are open.
    """

    def __init__(
        self,
        *,
        sagas: Sagas,
        archive: Archive,
        access: Access,
        settings: HttpSettings,
        definitions: Mapping[str, SagaDefinition],
        caller_of: CallerOf = untraced,
    ) -> None:
        self.sagas = sagas
        self.access = access
        self.settings = settings
        self.definitions = definitions
        self.caller_of = caller_of
        self.stream_count = 0
        self._archive = archive
        self._reading = ThreadPoolExecutor(max_workers=1, thread_name_prefix="archive")
        self.pulse = Pulse(sagas, self.read, settings)

    async def read(self, question: Callable[[Archive], T]) -> T:
        """Return what `question` finds in the archive."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reading, question, self._archive)

    def close(self) -> None:
        """Let go of the thread; what it reads is finished first."""
        self._reading.shutdown()


def front_of(request: Request) -> Front:
    """Return the front of the application that serves `request`."""
    front = request.app.state.front
    assert isinstance(front, Front)
    return front


_bearer = HTTPBearer(auto_error=False, description="A token that `raysaga token` has made.")


def needs(right: Right) -> Any:
    """Return what admits only callers with `right`, for a route's parameters."""

    async def admitted(
        request: Request,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> Caller:
        token = None if credentials is None else credentials.credentials
        address = "" if request.client is None else request.client.host
        return front_of(request).access.admit(right, token, address)

    return Depends(admitted)


Submits = Annotated[Caller, needs(Right.SUBMIT)]
Reads = Annotated[Caller, needs(Right.READ)]
Operates = Annotated[Caller, needs(Right.OPERATE)]
"""Parameters of routes: the caller, who has this right."""
