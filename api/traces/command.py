"""The command `raysaga traces`: sends the traces of sagas to a collector, or prints them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from threading import Event
from typing import Annotated

import typer

from raysaga.actors.archive import Archive
from raysaga.actors.trace_ids import trace_id_of
from raysaga.api.cli_terminal import DataOption, JsonOption, Terminal
from raysaga.api.cli_values import age_ms
from raysaga.api.defaults import DATA_FOLDER
from raysaga.api.traces.errors import TracesNotSentError
from raysaga.api.traces.follower import Follower
from raysaga.api.traces.otel import TraceSink, otlp_sink
from raysaga.api.traces.spans import Span

LOOK_EVERY_S = 1.0

SAGAS_MAX = 100
"""Sagas sent at once: some five hundred spans."""

traces_app = typer.Typer()


@traces_app.command()
def traces(
    name: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="One saga; else all that have ended.")
    ] = None,
    data: DataOption = DATA_FOLDER,
    since: Annotated[
        str, typer.Option(help="Sagas accepted within this time, such as 10m or 2d.")
    ] = "1h",
    share: Annotated[
        float, typer.Option(min=0, max=1, help="Of those that complete; others are all told.")
    ] = 1.0,
    follow: Annotated[bool, typer.Option("--follow", help="Go on; Ctrl-C ends it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Send the traces of sagas by OTLP to where OTEL_EXPORTER_OTLP_ENDPOINT says.

    A trace is made from a saga's history: one for each saga, a span for each attempt. It can
    be sent at any time, also again, and no engine need run. With --json it is printed instead.

    Example:  raysaga traces --follow --share 0.05

    Example:  raysaga traces o-1 --json
    """
    terminal = Terminal(as_json=as_json)
    with Archive.open(data) as archive, suppress(KeyboardInterrupt):
        since_ms = time.time_ns() // 1_000_000 - age_ms(since)
        follower = Follower(archive, since_ms=since_ms, share=share)
        sagas: Iterable[str] = follower.look() if name is None else [archive.find(name)]
        if as_json:
            _print(terminal, archive, follower, sagas, follow)
            return
        sink = otlp_sink(archive.folder.uuid)
        if follow:
            terminal.note(f"following {data} (Ctrl-C ends it)")
        try:
            span_count = _send(terminal, sink, follower, sagas, follow)
        finally:
            sink.close()
        terminal.note(f"sent {span_count:,} spans")


def _send(
    terminal: Terminal, sink: TraceSink, follower: Follower, sagas: Iterable[str], follow: bool
) -> int:
    """Send the traces of `sagas`, and then of those that end later; return how many spans.

    Raises:
        TracesNotSentError: If some were not taken, and nothing is followed.
    """
    span_count = 0
    never = Event()
    while True:
        for batch in _batches(sagas):
            made = [(saga_id, follower.trace(saga_id)) for saga_id in batch]
            while True:
                try:
                    span_count += sink.send(made)
                    break
                except TracesNotSentError as error:
                    if not follow:
                        raise
                    terminal.note(f"{error}; trying again")
                    never.wait(LOOK_EVERY_S)
        if not follow:
            return span_count
        never.wait(LOOK_EVERY_S)
        sagas = follower.look()


def _batches(sagas: Iterable[str]) -> Iterator[Sequence[str]]:
    waiting = iter(sagas)
    while batch := list(islice(waiting, SAGAS_MAX)):
        yield batch


def _print(
    terminal: Terminal, archive: Archive, follower: Follower, sagas: Iterable[str], follow: bool
) -> None:
    uuid = archive.folder.uuid
    while True:
        for saga_id in sagas:
            trace_id = trace_id_of(uuid, saga_id)
            for span in follower.trace(saga_id):
                terminal.emit({"trace_id": trace_id, **_told(span)})
        if not follow:
            return
        Event().wait(LOOK_EVERY_S)
        sagas = follower.look()


def _told(span: Span) -> dict[str, object]:
    return {
        **span._asdict(),
        "moments": [moment._asdict() for moment in span.moments],
        "links": [link._asdict() for link in span.links],
    }
