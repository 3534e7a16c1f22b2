"""The HTTP interface and the page as a Ray Serve deployment.

```sh
serve run raysaga.console.deployment:app data=raysaga-data
```

Guarantees: as `raysaga serve`; accepting is shielded from clients that go away, which
Ray Serve turns into a cancellation. Every request needs a token: who is in front of Ray's
proxy cannot be known here.
Refuses: to start without a token, or beside an engine that does not serve a participant that
is named. It runs on the node that has the data folder.
Costs: Ray Serve's proxy before each request. Rates are counted in each replica.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from pydantic import BaseModel, ConfigDict, Field
from starlette.middleware import Middleware
from starlette.types import ASGIApp

from raysaga.actors.archive import Archive
from raysaga.actors.log import configure_log
from raysaga.actors.shells.serving import deployment_of
from raysaga.api.cli_values import load_definition, load_participants
from raysaga.api.client import connect
from raysaga.api.defaults import DATA_FOLDER
from raysaga.api.http.access import TOKENS_NAME, load_tokens
from raysaga.api.http.app import serving
from raysaga.api.http.edge import WithoutOverrides
from raysaga.api.http.lifespan import Opened
from raysaga.api.served import served_otherwise
from raysaga.console.command import no_token
from raysaga.console.pages import console_router
from raysaga.statemachines.order import order_saga

_log = structlog.get_logger()


class DeploymentOptions(BaseModel):
    """What can be said after the name of the deployment, as `name=value`.

    Attributes:
        data: The data folder.
        definitions: Further definitions that can be submitted, as `MODULE:NAME`, with commas.
        participants: Participants of one's own, as `NAME=MODULE:FUNCTION` or `NAME=URL`, with
            commas; they count when an engine starts, and the folder notes them.
        replicas: Processes that serve.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str = str(DATA_FOLDER)
    definitions: str = ""
    participants: str = ""
    replicas: int = Field(1, ge=1)


def app(given: Mapping[str, str]) -> Any:
    """Return the deployment; `given` are the fields of `DeploymentOptions`, as text.

    Raises:
        ValidationError: If there is no token yet, or a definition or a participant is none.
        ParticipantNotFoundError: If there is nothing that makes a participant.
        BrokerAddressError: If a participant's address is none.
    """
    options = DeploymentOptions.model_validate(given)
    data = Path(options.data).resolve()
    names = _parts(options.definitions)
    participants = load_participants(_parts(options.participants))
    if not load_tokens(data / TOKENS_NAME):
        raise no_token("data")
    for name in names:
        load_definition(name)

    def build() -> ASGIApp:
        return Opened(lambda: _open(data, names, participants))

    return deployment_of(build, name="raysaga", replicas=options.replicas)


def _parts(given: str) -> list[str]:
    return [part for part in given.split(",") if part]


@asynccontextmanager
async def _open(
    data: Path, names: Sequence[str], participants: Mapping[str, str]
) -> AsyncIterator[ASGIApp]:
    async with connect(data, participants=participants) as sagas:
        with Archive.open(data) as archive:
            folder = archive.folder
            configure_log(folder.log_path / "http.jsonl", "info", journal_uuid=folder.uuid)
            for sentence in await served_otherwise(sagas.gateway.engine, participants):
                _log.warning("participant_otherwise", told=sentence)
            async with serving(
                sagas,
                archive,
                tokens=load_tokens(data / TOKENS_NAME),
                names=None,
                definitions=(order_saga, *map(load_definition, names)),
                routers=[console_router()],
            ) as application:
                yield application


def proxy_middlewares() -> list[Middleware]:
    """Return what takes headers off that would override Ray's proxy itself.

    Ray's proxies call it if `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` names it.
    """
    return [Middleware(WithoutOverrides)]
