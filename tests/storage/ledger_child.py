"""A process that owns a ledger, for tests that kill it; run with a path and a mode."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

# Run as a script, its own folder is where modules are looked for first.
from ledger_desk import Desk, make_call  # type: ignore[import-not-found]

from raysaga.storage.errors import StaleEpochError
from raysaga.storage.ledger_batch import LedgerBatch


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def tell(text: object) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(path: Path, mode: str) -> None:
    desk = Desk(path)
    match mode:
        case "after commit":
            desk.ask(make_call())
            die()
            tell("reply")
        case "in the handler":
            desk.during = die
            desk.ask(make_call())
        case "before commit":
            flush = LedgerBatch.flush

            def flush_and_die(batch: LedgerBatch) -> None:
                flush(batch)
                die()

            LedgerBatch.flush = flush_and_die  # type: ignore[method-assign]
            desk.ask(make_call())
        case "work":
            for batch in range(10_000):
                sagas = [f"order:{batch:05}-{i}" for i in range(8)]
                desk.send(*(make_call(saga=saga) for saga in sagas))
                tell(" ".join(f"{saga};" for saga in sagas))
        case "wait":
            tell("open")
            sys.stdin.readline()
            try:
                tell(int(desk.ask(make_call()).outcome))
            except StaleEpochError as error:
                tell(type(error).__name__)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
