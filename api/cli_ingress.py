"""The command `raysaga ingress`: orders from a broker's queue become sagas."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from raysaga.actors.archive import Archive
from raysaga.actors.brokers.address import BrokerAddress, parse_address
from raysaga.actors.brokers.broker import open_broker
from raysaga.actors.brokers.envelope import Order
from raysaga.actors.brokers.ingress import OrderIngress, Submit
from raysaga.actors.log import configure_log
from raysaga.api.cli_engine import open_sagas, run_async
from raysaga.api.cli_participant import TransportOption, first_link
from raysaga.api.cli_terminal import DataOption, JsonOption, Terminal
from raysaga.api.cli_values import load_definition
from raysaga.api.defaults import DATA_FOLDER
from raysaga.api.traces.otel import SubmissionMarks, caller_of, provide
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.order import order_saga


def ingress(
    transport: TransportOption,
    data: DataOption = DATA_FOLDER,
    definition: Annotated[
        list[str] | None,
        typer.Option(
            "--definition",
            metavar="MODULE:NAME",
            help="A definition that can be ordered, beside the order saga; may be repeated.",
        ),
    ] = None,
    traces: Annotated[
        bool,
        typer.Option("--traces", help="Mark orders in traces, for OTEL_EXPORTER_OTLP_ENDPOINT."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a saga of each order in a broker's queue, until it is told to stop.

    A message is acknowledged once its saga is on disk; the queue is raysaga.orders, unless
    the URL names another. Several may run side by side.

    Example:  raysaga ingress --transport amqp://localhost/
    """
    address = parse_address(transport)
    found = [order_saga, *map(load_definition, definition or ())]
    configure_log(None, "info")
    end = provide() if traces else None
    try:
        run_async(_take_orders(Terminal(as_json=as_json), data, address, found, traces))
    finally:
        if end is not None:
            end()


class Submits(Protocol):
    """What of a gateway is needed here."""

    async def submit(
        self,
        definition: SagaDefinition,
        request: Mapping[str, Any],
        *,
        key: str,
        deadline_ms: int | None = None,
        watch: bool = True,
    ) -> object:
        """Return once the saga is on disk."""


def submits(gateway: Submits, marks: SubmissionMarks | None) -> Submit:
    """Return what gives an order to the engine, marked in the trace that it came in."""

    async def submit(definition: SagaDefinition, order: Order) -> None:
        # Nobody waits for its end here.
        submitting = gateway.submit(
            definition, order.input, key=order.key, deadline_ms=order.deadline_ms, watch=False
        )
        if marks is None:
            await submitting
            return
        with caller_of({"traceparent": order.traceparent}):
            await marks.around(definition.name, order.key, submitting)

    return submit


async def _take_orders(
    terminal: Terminal,
    data: Path,
    address: BrokerAddress,
    definitions: list[SagaDefinition],
    is_traced: bool,
) -> None:
    broker = open_broker(address)
    async with open_sagas(terminal, data) as sagas:
        served = {definition.name: definition for definition in definitions}
        with Archive.open(data) as archive:
            marks = SubmissionMarks(archive.folder.uuid) if is_traced else None

        taking = OrderIngress(broker, served, submits(sagas.gateway, marks))
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        taking.start()
        await first_link(taking)
        terminal.note(f"taking orders from {address}")
        await stop.wait()
        await taking.stop()
        terminal.note(
            f"{taking.accepted_count:,} accepted, {taking.dead_letter_count:,} dead letters"
        )
    terminal.emit({"accepted": taking.accepted_count, "dead_letters": taking.dead_letter_count})


def add_to(app: typer.Typer) -> None:
    """Give `app` this command."""
    app.command("ingress")(ingress)
