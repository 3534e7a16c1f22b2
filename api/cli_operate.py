"""The commands that change one saga: submit, cancel, retry, skip and force."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from raysaga.actors.archive import Archive
from raysaga.actors.errors import ResultTimeoutError
from raysaga.api.cli_engine import open_sagas, run_async
from raysaga.api.cli_read import saga_panel
from raysaga.api.cli_terminal import (
    DataOption,
    IdArgument,
    JsonOption,
    ServicesOption,
    StockOption,
    Terminal,
    YesOption,
    user_name,
)
from raysaga.api.defaults import DATA_FOLDER
from raysaga.api.order_schema import ORDER_BYTES_MAX, Order, OrderInvalid, parse_order_line
from raysaga.api.order_setup import services_of
from raysaga.statemachines.errors import SagaError, ValidationError
from raysaga.statemachines.ids import SagaId, saga_id_of
from raysaga.statemachines.order import order_saga

WAIT_S_USUAL = 10.0
"""How long an order's effect is waited for; a compensation is usually over in a second."""

ByOption = Annotated[
    str, typer.Option("--by", metavar="NAME", help="Who gives the order, for the record.")
]
WaitOption = Annotated[
    float,
    typer.Option("--wait", min=0, max=3_600, metavar="SECONDS", help="For the end, at most."),
]
_Note = Annotated[str, typer.Option("--note", metavar="WHY", help="Why, for the record.")]


def submit(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="One order as JSON; - for standard input.")
    ],
    data: DataOption = DATA_FOLDER,
    wait: Annotated[bool, typer.Option("--wait", help="Until the order has ended.")] = False,
    stock: StockOption = None,
    services: ServicesOption = "calm",
    as_json: JsonOption = False,
) -> None:
    """Submit one order; it is on disk when this returns.

    Doing it again with the same order gives the same saga; with another body under the
    same order id it is refused. A stock and the services' behaviour count only if no
    engine runs on the folder yet.

    Example:  raysaga submit order.json --wait

    Example:  head -1 orders.jsonl | raysaga submit - --json
    """
    terminal = Terminal(as_json=as_json)
    order = _order(file)
    settings = services_of(services, stock, data)
    was_running = _is_running(data)
    told = run_async(_submit(terminal, data, order, settings, wait=wait))
    with Archive.open(data) as archive:
        saga_id = saga_id_of(order_saga.name, order.order_id)
        _tell(terminal, archive, saga_id, told)
    if not wait and not was_running:
        terminal.note(
            "no engine runs: the order is on disk, and goes on when the next one starts "
            "(raysaga run, or --wait)"
        )


def _order(file: Path) -> Order:
    """Return the order in `file`.

    Raises:
        OrderInvalid: If it is none.
        OSError: If it cannot be read.
    """
    if str(file) == "-":
        raw = sys.stdin.buffer.read(ORDER_BYTES_MAX + 1)
    else:
        with file.open("rb") as opened:
            raw = opened.read(ORDER_BYTES_MAX + 1)
    if not raw.strip():
        raise OrderInvalid("there is no order; give one JSON object")
    return parse_order_line(raw)


def _is_running(data: Path) -> bool:
    try:
        with Archive.open(data) as archive:
            return bool(archive.engine()["running"])
    except SagaError:
        return False


async def _submit(
    terminal: Terminal, data: Path, order: Order, services: Mapping[str, Any], *, wait: bool
) -> dict[str, Any]:
    async with open_sagas(terminal, data, services=services) as sagas:
        handle = await sagas.submit(order_saga, order, key=order.order_id)
        told = {"saga_id": handle.saga_id, "answer": "accepted" if handle.is_new else "already"}
        if wait:
            await handle.result()
        return told


def cancel(
    id_: IdArgument,
    data: DataOption = DATA_FOLDER,
    by: ByOption = "",
    note: _Note = "",
    wait: WaitOption = WAIT_S_USUAL,
    as_json: JsonOption = False,
) -> None:
    """Have a saga undone, unless it is beyond the point from which it can be.

    Example:  raysaga cancel order:31198570044 --note "customer called"
    """
    _order_given(Terminal(as_json=as_json), "cancel", id_, data, by, note, wait)


def retry(
    id_: IdArgument,
    data: DataOption = DATA_FOLDER,
    by: ByOption = "",
    note: _Note = "",
    wait: WaitOption = WAIT_S_USUAL,
    as_json: JsonOption = False,
) -> None:
    """Send a parked saga on, the way it faces, with fresh attempts.

    Example:  raysaga retry order:31198570044 --note "the provider is back"
    """
    _order_given(Terminal(as_json=as_json), "retry", id_, data, by, note, wait)


def skip(
    id_: IdArgument,
    note: Annotated[str, typer.Option("--note", metavar="WHY", help="Why; it is kept for ever.")],
    data: DataOption = DATA_FOLDER,
    by: ByOption = "",
    wait: WaitOption = WAIT_S_USUAL,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let a parked saga go on without the step, or the undo, that holds it.

    What that step did, or may have done, stays as it is: mend it by hand, and say so.

    Example:  raysaga skip order:31198570044 --note "refunded by hand, ticket 812"
    """
    _order_given(Terminal(as_json=as_json), "skip", id_, data, by, note, wait, ask=not yes)


def force(
    id_: IdArgument,
    note: Annotated[str, typer.Option("--note", metavar="WHY", help="Why; it is kept for ever.")],
    data: DataOption = DATA_FOLDER,
    by: ByOption = "",
    wait: WaitOption = WAIT_S_USUAL,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Turn a saga back, parked or not, unless it has passed the point of no return.

    Example:  raysaga force order:31198570044 --note "fraud"
    """
    _order_given(Terminal(as_json=as_json), "force", id_, data, by, note, wait, ask=not yes)


_QUESTIONS = {
    "skip": "{saga_id} goes on without {step}; its effect stays as it is. Skip it?",
    "force": "{saga_id} is undone for good. Turn it back?",
}


def _order_given(
    terminal: Terminal,
    operation: str,
    name: str,
    data: Path,
    by: str,
    note: str,
    wait_s: float,
    *,
    ask: bool = False,
) -> None:
    if operation in _QUESTIONS and not note.strip():
        raise ValidationError("must say why", "--note")
    with Archive.open(data) as archive:
        saga_id = archive.find(name)
        archive.refuse_order(saga_id, operation)
        step = archive.status(saga_id)["step"] or "the step that holds it"
    if ask:
        question = _QUESTIONS[operation].format(saga_id=saga_id, step=step)
        terminal.confirm(question, yes=False)
    work = _give(terminal, operation, saga_id, data, by or user_name(), note, wait_s)
    told = run_async(work)
    with Archive.open(data) as archive:
        _tell(terminal, archive, saga_id, told)


async def _give(
    terminal: Terminal,
    operation: str,
    saga_id: SagaId,
    data: Path,
    by: str,
    note: str,
    wait_s: float,
) -> dict[str, Any]:
    async with open_sagas(terminal, data) as sagas:
        answer = await sagas.gateway.ask(saga_id, operation, by=by, note=note)
        if wait_s > 0:
            try:
                await sagas.handle(saga_id).result(wait_s)
            except ResultTimeoutError as error:
                terminal.note(str(error))
        return {"saga_id": saga_id, "answer": answer}


def _tell(terminal: Terminal, archive: Archive, saga_id: SagaId, told: Mapping[str, Any]) -> None:
    """Print the answer, and where the saga stands now."""
    status = archive.status(saga_id)
    terminal.emit({**told, "status": status})
    terminal.note(told["answer"])
    terminal.show(saga_panel(status, ()))


def add_to(app: typer.Typer) -> None:
    """Give `app` these commands."""
    app.command("submit", no_args_is_help=True)(submit)
    app.command("cancel", no_args_is_help=True)(cancel)
    app.command("retry", no_args_is_help=True)(retry)
    app.command("skip", no_args_is_help=True)(skip)
    app.command("force", no_args_is_help=True)(force)
