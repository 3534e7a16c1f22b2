"""The command `raysaga participant`: one service behind a broker, outside Ray."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated, Protocol

import typer

from raysaga.actors.brokers.address import BrokerAddress, parse_address
from raysaga.actors.brokers.errors import BrokerRefusedError
from raysaga.actors.brokers.station import open_station
from raysaga.actors.log import configure_log
from raysaga.actors.participant import Participant
from raysaga.actors.participant_maker import make_participant
from raysaga.api.cli_engine import run_async
from raysaga.api.cli_terminal import (
    DataOption,
    JsonOption,
    ServicesOption,
    StockOption,
    Terminal,
)
from raysaga.api.cli_values import look_in_working_folder
from raysaga.api.defaults import DATA_FOLDER, ORDER_PARTICIPANTS
from raysaga.api.order_setup import services_of
from raysaga.api.traces.otel import CallMarks, provide
from raysaga.statemachines.errors import SagaError, ValidationError

TransportOption = Annotated[
    str,
    typer.Option(
        "--transport",
        metavar="URL",
        envvar="RAYSAGA_TRANSPORT",
        help="The broker, as amqp://user:password@host:port/vhost?queue=name&format=json.",
    ),
]


def participant(
    name: Annotated[str, typer.Argument(help="The participant, such as inventory.")],
    transport: TransportOption,
    data: DataOption = DATA_FOLDER,
    services: ServicesOption = "calm",
    stock: StockOption = None,
    make: Annotated[
        str | None,
        typer.Option(
            "--make",
            metavar="MODULE:FUNCTION",
            help="What makes the participant, if it is none of the order saga's four.",
        ),
    ] = None,
    prefetch: Annotated[
        int, typer.Option(min=1, max=768, help="Calls taken and not answered at one time.")
    ] = 256,
    traces: Annotated[
        bool,
        typer.Option("--traces", help="Mark calls in traces, for OTEL_EXPORTER_OTLP_ENDPOINT."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Serve one participant from a broker's queue, until it is told to stop.

    Its ledger is in the data folder. A second one on the same folder stands by, and takes
    over when the first is gone. An engine reaches it by the same URL instead of a function.

    Example:  raysaga participant --transport amqp://localhost inventory --stock stock.json
    """
    terminal = Terminal(as_json=as_json)
    address = parse_address(transport)
    maker = make or ORDER_PARTICIPANTS.get(name)
    if maker is None:
        raise ValidationError(f"nobody knows {name!r}; say what makes it", "--make")
    settings = {}
    if make is None:
        settings = services_of(services, stock, data, needs_stock=name == "inventory")
    look_in_working_folder()
    made = make_participant(maker, name, data, settings)
    configure_log(None, "info", participant=name)
    end = provide() if traces else None
    system = "kafka" if address.scheme.startswith("kafka") else "rabbitmq"
    mark = CallMarks(made.name, system) if traces else None
    try:
        run_async(_serve(terminal, made, data, address, prefetch, mark))
    finally:
        if end is not None:
            end()


async def _serve(
    terminal: Terminal,
    made: Participant,
    data: Path,
    address: BrokerAddress,
    prefetch: int,
    mark: CallMarks | None,
) -> None:
    """Serve until a signal asks to stop.

    Raises:
        BrokerRefusedError: If the broker says no at the first try.
    """
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        async with open_station(
            made, data=data, address=address, prefetch=prefetch, mark=mark
        ) as runner:
            await first_link(runner)
            terminal.note(f"serving {made.name} from {address}")
            terminal.emit({"participant": made.name, "serving_from": str(address)})
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        terminal.note(f"stopped serving {made.name}")


class Linked(Protocol):
    """What keeps a link to a broker."""

    @property
    def error(self) -> SagaError | None:
        """Why there is none; None if there is one, or none was tried."""

    async def up(self) -> None:
        """Return once there is one."""


async def first_link(linked: Linked) -> None:
    """Return when the broker is connected; a broker that says no now would say so for ever.

    Raises:
        BrokerRefusedError: As the broker has put it.
    """
    up = asyncio.ensure_future(linked.up())
    while not up.done():
        if isinstance(linked.error, BrokerRefusedError):
            up.cancel()
            raise linked.error
        await asyncio.wait({up}, timeout=0.1)


def add_to(app: typer.Typer) -> None:
    """Give `app` this command."""
    app.command("participant")(participant)
