"""Proves what becomes of the lines of a file, on a whole engine in this process."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from engine_within import Within, engine_within

from raysaga.actors.archive_checks import audit_folder, under_way
from raysaga.api.order_run import Line, OrderRun, Reject, order_lines
from raysaga.api.order_schema import ORDER_BYTES_MAX

MakeOrder = Callable[..., dict[str, Any]]


@pytest_asyncio.fixture
async def within(tmp_path: Path) -> AsyncIterator[Within]:
    async with engine_within(tmp_path / "data") as engine:
        yield engine


class Driven:
    """What a run over some lines came to."""

    def __init__(self, run: OrderRun, rejects: list[Reject]) -> None:
        self.run = run
        self.tally = run.tally
        self.rejects = rejects
        self.codes = [(reject.line, reject.code) for reject in rejects]


async def drive(
    engine: Within,
    lines: Iterable[bytes | dict[str, Any]],
    *,
    in_flight: int = 8,
    watch: Callable[[OrderRun], None] | None = None,
) -> Driven:
    """Run the lines, each an order or the bytes of a line."""
    raw = b"\n".join(
        line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines
    )
    rejects: list[Reject] = []
    run = OrderRun(
        engine.sagas,
        engine.archive,
        in_flight_max=in_flight,
        dedicated=False,
        reject=rejects.append,
    )

    def watched() -> Iterator[Line]:
        for line in order_lines(io.BytesIO(raw)):
            if watch is not None:
                watch(run)
            yield line

    await run.drive(watched(), drain_s=10)
    return Driven(run, rejects)


async def test_each_line_is_completed_compensated_or_rejected_and_the_rest_goes_on(
    within: Within, make_order: MakeOrder
) -> None:
    unknown = [{"item_id": "nobody-has-it", "quantity": 1}]
    scarce = [{"item_id": "rare", "quantity": 4}]
    driven = await drive(
        within,
        [
            make_order("good-1"),
            b'{"order_id": "torn',
            make_order("unknown-sku", items=unknown),
            make_order("scarce", items=scarce),
            make_order("negative", items=[{"item_id": "milk", "quantity": -1}]),
            b"",
            make_order("good-2"),
        ],
    )
    assert driven.tally.completed == 2
    assert driven.tally.compensated == {
        ("UNKNOWN_SKU", "reserve_inventory"): 1,
        ("INSUFFICIENT_STOCK", "reserve_inventory"): 1,
    }
    assert driven.codes == [(2, "VALIDATION"), (5, "VALIDATION")]
    assert driven.rejects[1].reason.startswith("items[0].quantity: ")
    assert under_way(within.archive.counts()) == 0


async def test_a_file_run_again_gives_the_same_numbers_and_no_new_saga(
    within: Within, make_order: MakeOrder
) -> None:
    lines = [make_order(f"o-{i}") for i in range(30)]
    lines.append(make_order("o-3", customer_id="another"))
    lines.append(make_order("o-4"))
    first = await drive(within, lines)
    again = await drive(within, lines)
    assert first.tally.begun == 30
    assert again.tally.begun == 0
    assert again.tally.known == 30
    for driven in (first, again):
        assert (driven.tally.completed, driven.tally.repeated) == (30, 1)
        assert driven.codes == [(31, "IDEMPOTENCY_CONFLICT")]
    assert within.archive.counts()["completed"] == 30


async def test_a_run_that_was_stopped_is_continued_where_it_was(
    within: Within, make_order: MakeOrder
) -> None:
    lines = [make_order(f"o-{i}") for i in range(40)]

    def stop_in_the_middle(run: OrderRun) -> None:
        if run.tally.ended >= 5:
            run.stop()

    stopped = await drive(within, lines, in_flight=2, watch=stop_in_the_middle)
    assert 5 <= stopped.tally.ended < 40
    assert stopped.run.left_count == 0
    continued = await drive(within, lines)
    assert continued.tally.completed == 40
    assert continued.tally.begun == 40 - stopped.tally.ended


async def test_an_order_that_was_under_way_in_an_earlier_run_is_waited_for(
    within: Within, make_order: MakeOrder
) -> None:
    from raysaga.statemachines.order import order_saga

    order = make_order("o-1")
    await within.sagas.submit(order_saga, order, key="o-1")
    driven = await drive(within, [order])
    assert (driven.tally.completed, driven.tally.begun) == (1, 0)


async def test_an_engine_that_is_full_makes_a_run_slower_and_loses_nothing(
    tmp_path: Path, make_order: MakeOrder
) -> None:
    bounds = {"sagas_in_flight_max": 2, "overloaded_retry_after_ms": 1}
    async with engine_within(tmp_path / "data", **bounds) as engine:
        driven = await drive(engine, [make_order(f"o-{i}") for i in range(25)], in_flight=20)
        assert driven.tally.completed == 25
        assert engine.desk.overloaded_count > 0


async def test_a_run_that_the_engine_fails_stops_and_says_why(
    within: Within, make_order: MakeOrder
) -> None:
    lanes: list[asyncio.Task[None]] = []

    def cut_off(run: OrderRun) -> None:
        if run.tally.lines == 20:
            lanes.append(asyncio.ensure_future(within.gateway.close()))

    driven = await drive(within, [make_order(f"o-{i}") for i in range(60)], watch=cut_off)
    await asyncio.gather(*lanes)
    assert driven.run.failure is not None
    assert driven.run.failure.code == "SERVICE_UNAVAILABLE"
    assert driven.tally.lines < 60


async def test_the_books_balance_after_a_run(tmp_path: Path, make_order: MakeOrder) -> None:
    path = tmp_path / "data"
    async with engine_within(path) as engine:
        scarce = [{"item_id": "rare", "quantity": 2}]
        orders = [make_order(f"o-{i}", items=scarce) for i in range(3)]
        await drive(engine, [make_order("plain"), *orders])
        folder = engine.folder
    from raysaga.actors.archive import Archive

    with Archive(folder) as archive:
        report = audit_folder(archive)
    assert report.is_clean, str(report)
    assert report.counts["sagas_completed"] == 2


LONG = b'{"pad": "' + b"x" * (10 << 20) + b'"}'


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (LONG, f"an order must be at most {ORDER_BYTES_MAX} bytes long"),
        (b"[" * 5_000 + b"]" * 5_000, "an order must be nested at most"),
        (b"\xff\xfe", "an order must be valid UTF-8"),
        (b"[]", "an order must be a JSON object"),
    ],
    ids=["10 MB", "5,000 levels", "no UTF-8", "a list"],
)
async def test_a_monstrous_line_is_rejected_in_one_sentence_and_the_next_is_read(
    within: Within, make_order: MakeOrder, line: bytes, says: str
) -> None:
    driven = await drive(within, [make_order("before"), line, make_order("after")])
    assert driven.tally.completed == 2
    (reject,) = driven.rejects
    assert (reject.line, reject.order_id, reject.code) == (2, None, "VALIDATION")
    assert reject.reason.startswith(says)
    assert len(reject.reason) < 200


def test_lines_are_numbered_as_they_stand_in_the_file_and_limited() -> None:
    file = io.BytesIO(b"a\n\n  \nb\r\nc")
    assert list(order_lines(file)) == [Line(1, b"a\n"), Line(4, b"b\r\n"), Line(5, b"c")]
    file.seek(0)
    assert [line.number for line in order_lines(file, 2)] == [1, 4]
    assert list(order_lines(io.BytesIO(b""))) == []
