"""A participant that is killed right after its provider has acted; run with a folder."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
from pathlib import Path


async def main(folder: Path) -> None:
    # The package of tests has no name of its own outside pytest, so it gets one here.
    sys.path.insert(0, str(Path(__file__).parents[2]))
    desk_module = importlib.import_module("tests.actors.participant_desk")
    bank_module = importlib.import_module("tests.actors.provider_bank")
    bank = bank_module.Bank(folder / "bank.db", lambda: desk_module.NOW_MS)
    bank.on_done = lambda: os.kill(os.getpid(), signal.SIGKILL)
    async with desk_module.Desk(folder / "shop", bank_module.shop_at(bank)) as desk:
        await desk.ask(desk_module.make_call())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
