"""The command `raysaga egress`: how sagas end, told through a broker."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

from raysaga.actors.brokers.address import BrokerAddress, parse_address
from raysaga.actors.brokers.egress import (
    NAME,
    forget_outbox,
    open_egress,
    outboxes_behind,
)
from raysaga.actors.log import configure_log
from raysaga.api.cli_engine import run_async
from raysaga.api.cli_participant import first_link
from raysaga.api.cli_terminal import DataOption, JsonOption, Terminal
from raysaga.api.cli_values import told_instant
from raysaga.api.defaults import DATA_FOLDER
from raysaga.statemachines.errors import ValidationError
from raysaga.statemachines.ids import is_key


def egress(
    transport: Annotated[
        str | None,
        typer.Option(
            "--transport",
            metavar="URL",
            envvar="RAYSAGA_TRANSPORT",
            help="The broker, as for `raysaga participant`.",
        ),
    ] = None,
    data: DataOption = DATA_FOLDER,
    name: Annotated[
        str, typer.Option(help="Of the bookmark; each name tells everything once more.")
    ] = NAME,
    from_now: Annotated[
        bool, typer.Option("--from-now", help="Begin a new bookmark at what ends from now on.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Show how far each bookmark is behind, and end.")
    ] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Remove the bookmark, and end: nothing is kept for it.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Tell a broker how each saga ended, and which are parked, until it is told to stop.

    Outcomes go to the queue raysaga.outcomes, unless the URL names another; at least once, in
    order for each saga. It reads beside the engine, on the same machine. What it has not told
    yet is not pruned. A second one of the same name stands by.

    Example:  raysaga egress --transport amqp://localhost/
    """
    terminal = Terminal(as_json=as_json)
    if not is_key(name):
        raise ValidationError("must be of A-Z a-z 0-9 . _ : -", "--name")
    if show:
        for each, behind in sorted(outboxes_behind(data).items()):
            since = f", since {told_instant(behind.since_ms)}" if behind.records else ""
            terminal.show(f"{each}: {behind.records:,} records behind{since}")
            facts = {"records_behind": behind.records, "since_ms": behind.since_ms}
            terminal.emit({"bookmark": each, **facts})
        return
    if forget:
        if not forget_outbox(data, name):
            raise ValidationError(f"there is no bookmark {name!r}", "--name")
        terminal.note(f"forgot {name}")
        return
    if transport is None:
        raise ValidationError("say where to tell", "--transport")
    address = parse_address(transport)
    configure_log(None, "info")
    run_async(_tell(terminal, data, address, name, from_now))


async def _tell(
    terminal: Terminal, data: Path, address: BrokerAddress, name: str, from_now: bool
) -> None:
    """Tell until a signal asks to stop.

    Raises:
        BrokerRefusedError: If the broker says no at the first try.
        SagaError: If a journal cannot be read on.
    """
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        async with open_egress(data, address, name=name, from_now=from_now) as telling:
            await first_link(telling)
            terminal.note(f"telling outcomes to {address}")
            try:
                await telling.failed
            finally:
                terminal.note(f"{telling.told_count:,} told")
                terminal.emit({"told": telling.told_count})
    except asyncio.CancelledError:
        terminal.note("stopped telling outcomes")


def add_to(app: typer.Typer) -> None:
    """Give `app` this command."""
    app.command("egress")(egress)
