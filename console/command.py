"""The commands `raysaga serve`, which serves the API and the page, and `raysaga token`."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import uvicorn

from raysaga.actors.archive import Archive
from raysaga.actors.log import configure_log
from raysaga.api.cli_engine import open_sagas, run_async
from raysaga.api.cli_terminal import (
    DataOption,
    JsonOption,
    ServicesOption,
    StockOption,
    Terminal,
)
from raysaga.api.cli_values import load_definition, load_participants
from raysaga.api.defaults import DATA_FOLDER
from raysaga.api.http.access import TOKENS_NAME, Right, Token, load_tokens, make_token
from raysaga.api.http.app import serving
from raysaga.api.http.edge import LOOPBACK_NAMES
from raysaga.api.order_setup import services_of
from raysaga.api.traces.tracing import otlp_tracing
from raysaga.console.pages import console_router
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.errors import ValidationError
from raysaga.statemachines.order import order_saga

PORT_USUAL = 8470

STOP_WAIT_S = 5
"""How long requests under way may take to end; streams are cut then, and come back later."""

CONNECTIONS_MAX = 1_000
"""Beyond it, requests are answered 503 at once."""

serve_app = typer.Typer()
token_app = typer.Typer()


@serve_app.command()
def serve(
    data: DataOption = DATA_FOLDER,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 for any free one.")] = PORT_USUAL,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A further host name to answer to, such as that of a proxy; repeat."),
    ] = None,
    auth: Annotated[
        bool, typer.Option("--auth", help="Ask for tokens even on this machine alone.")
    ] = False,
    definition: Annotated[
        list[str] | None,
        typer.Option(metavar="MODULE:NAME", help="A definition that can be submitted; repeat."),
    ] = None,
    participant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=MODULE:FUNCTION",
            help="A participant, and what makes it, or a broker's URL that reaches it; repeat.",
        ),
    ] = None,
    stock: StockOption = None,
    services: ServicesOption = "calm",
    traces: Annotated[
        bool,
        typer.Option("--traces", help="Send traces to where OTEL_EXPORTER_OTLP_ENDPOINT says."),
    ] = False,
    trace_share: Annotated[
        float, typer.Option(min=0, max=1, help="Of those that complete; others are all told.")
    ] = 1.0,
) -> None:
    """Serve the engine of a folder over HTTP, with the operator's page at /.

    Bound to another address than this machine's own, it asks every request for a token:
    make one with `raysaga token`. A proxy in front of it should add TLS.

    Participants count when an engine starts, and are noted; one that runs refuses others.

    Example:  raysaga serve

    Example:  raysaga serve --definition sale:sale_saga --participant hall=services:serve

    Example:  raysaga serve --host 0.0.0.0 --port 8470
    """
    terminal = Terminal(as_json=False)
    is_open = not _is_loopback(host)
    file = data / TOKENS_NAME
    tokens = load_tokens(file) if is_open or auth else None
    if tokens == []:
        raise no_token("--host" if is_open else "--auth")
    known = (order_saga, *map(load_definition, definition or ()))
    participants = load_participants(participant or ())
    # Who brings services of his own need not have a shop.
    settings = services_of(services, stock, data, needs_stock=not participants)
    names = None if is_open else {*LOOPBACK_NAMES, *(allow_host or ())}
    listener = _listen(host, port)
    share = trace_share if traces else None
    engine = {"services": settings, "participants": participants, "traces": share is not None}
    run_async(_serve(terminal, data, listener, tokens, names, known, engine, share))


async def _serve(
    terminal: Terminal,
    data: Path,
    listener: socket.socket,
    tokens: Sequence[Token] | None,
    names: set[str] | None,
    definitions: Sequence[SagaDefinition],
    engine: Mapping[str, Any],
    trace_share: float | None,
) -> None:
    async with open_sagas(terminal, data, **engine) as sagas:
        with Archive.open(data) as archive:
            folder = archive.folder
            configure_log(folder.log_path / "http.jsonl", "info", journal_uuid=folder.uuid)
            async with serving(
                sagas,
                archive,
                tokens=tokens,
                names=names,
                definitions=definitions,
                routers=[console_router()],
                tracing=None if trace_share is None else otlp_tracing(folder.uuid, trace_share),
            ) as app:
                address, port = listener.getsockname()[:2]
                shown = f"[{address}]" if ":" in address else address
                asked = "" if tokens is None else "; every request needs a token"
                terminal.note(f"serving {data} at http://{shown}:{port}/{asked} (Ctrl-C ends it)")
                await _server(app).serve(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends in good order when it is told to, so that the engine is closed after it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take signals as the wish to end; the second one does not wait for anybody.

        The library's own sends them again when it has ended, which would end the process
        before the engine has let go of its files.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


def _server(app: object) -> _Server:
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        # Whoever is in front of us cannot be told from whoever pretends to be.
        proxy_headers=False,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_graceful_shutdown=STOP_WAIT_S,
    )
    return _Server(config)


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that is listened at, before anything else is begun.

    Raises:
        OSError: If the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; choose another --port", host) from error


def _is_loopback(host: str) -> bool:
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def no_token(option: str) -> ValidationError:
    """Return the error of who would serve everybody; `option` is what asks for tokens."""
    sentence = "there is no token yet, and everybody could do everything; make one: raysaga "
    return ValidationError(f"{sentence}token NAME --right read --right operate", option)


@token_app.command()
def token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whom or what it is for.")],
    right: Annotated[
        list[Right], typer.Option("--right", help="What it is good for; repeat for several.")
    ],
    data: DataOption = DATA_FOLDER,
    as_json: JsonOption = False,
) -> None:
    """Make a token for the HTTP interface, and show it once; one of that name is replaced.

    Only its hash is kept, in the data folder. A server takes it when it is next started.

    Example:  raysaga token ann --right read --right operate
    """
    terminal = Terminal(as_json=as_json)
    with Archive.open(data, create=True) as archive:
        made = make_token(archive.folder.path / TOKENS_NAME, name, right)
    terminal.emit({"name": name, "rights": sorted(right), "token": made})
    terminal.show(made)
