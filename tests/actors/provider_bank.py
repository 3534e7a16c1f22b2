"""An outside provider with a memory of its own (SQLite) and a line that can be cut anywhere."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raysaga.actors.participant import Participant
from raysaga.actors.provider import ProviderAnswer, ProviderOperation, ProviderStatus
from raysaga.statemachines.calls import StepCall

from .participant_desk import TABLE, Shop


class LineCutError(Exception):
    """The connection broke; whether the request got through is not known here."""


class Bank:
    """Remembers each key's fate in a database that no crash of ours can touch.

    `line` says what becomes of the next requests: `up`, `lost request`, `lost
    reply`, `slow` (arrives when `arrive` is called), `hangs`, or `busy`, `gateway`
    and `declined`, which are answers.
    """

    horizon_ms = 10_000

    def __init__(
        self,
        path: Path,
        now_ms: Callable[[], int],
        *,
        is_askable: bool = True,
        is_idempotent: bool = False,
    ) -> None:
        self.is_askable = is_askable
        self.is_idempotent = is_idempotent
        self.now_ms = now_ms
        self.line = "up"
        self.asked = 0
        self.hung = 0
        self.on_done: Callable[[], None] = lambda: None
        self._on_the_way: list[tuple[str, Mapping[str, Any], int]] = []
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("create table if not exists fates (key primary key, fate, result)")
        self._database.execute("create table if not exists moves (key, at_ms)")

    async def submit(
        self, key: str, request: Mapping[str, Any], not_after_ms: int
    ) -> ProviderAnswer:
        match self.line:
            case "lost request":
                raise LineCutError
            case "slow":
                self._on_the_way.append((key, request, not_after_ms))
                raise LineCutError
            case "hangs":
                self.hung += 1
                await asyncio.Event().wait()
            case "busy" | "gateway" | "declined":
                code = self.line.upper()
                return ProviderAnswer(ProviderStatus.REFUSED, None, code, "so it is")
        answer = self._act(key, request, not_after_ms)
        self.on_done()
        if self.line == "lost reply":
            raise LineCutError
        return answer

    async def ask(self, key: str) -> ProviderAnswer:
        self.asked += 1
        return self._fate(key)

    async def cancel(self, key: str) -> ProviderAnswer:
        self.asked += 1
        if self.line == "cannot cancel":
            return self._fate(key)
        insert = "insert or ignore into fates values (?, 'cancelled', null)"
        self._database.execute(insert, (key,))
        return self._fate(key)

    def arrive(self) -> None:
        """Let what was on its way arrive, late or not."""
        for key, request, not_after_ms in self._on_the_way:
            self._act(key, request, not_after_ms)
        self._on_the_way.clear()

    def moves(self, suffix: str = "reserve") -> int:
        """Return how often money moved under the keys that end so."""
        count = self._database.execute(
            "select count(*) from moves where key like ?", (f"%{suffix}",)
        ).fetchone()
        return int(count[0])

    def _act(self, key: str, request: Mapping[str, Any], not_after_ms: int) -> ProviderAnswer:
        known = self._fate(key)
        if known.status is not ProviderStatus.NOT_FOUND and (
            self.is_idempotent or known.status is ProviderStatus.CANCELLED
        ):
            return known
        if self.now_ms() > not_after_ms:
            return ProviderAnswer(ProviderStatus.REFUSED, None, "GATEWAY", "it came too late")
        self._database.execute("begin")
        self._database.execute("insert into moves values (?, ?)", (key, self.now_ms()))
        self._database.execute(
            "insert or replace into fates values (?, 'done', ?)", (key, json.dumps(dict(request)))
        )
        self._database.execute("commit")
        return self._fate(key)

    def _fate(self, key: str) -> ProviderAnswer:
        select = "select fate, result from fates where key = ?"
        found = self._database.execute(select, (key,)).fetchone()
        if found is None:
            return ProviderAnswer(ProviderStatus.NOT_FOUND)
        if found[0] == "cancelled":
            return ProviderAnswer(ProviderStatus.CANCELLED)
        return ProviderAnswer(ProviderStatus.SUCCEEDED, json.loads(found[1]))


def shop_at(bank: Bank) -> Participant:
    """Return a shop whose take and put_back are the bank's to do."""
    shop = Shop()

    def submission(call: StepCall) -> Mapping[str, Any]:
        return {"charge": call.request["sku"]}

    def reversal(call: StepCall, applied: Mapping[str, Any] | None) -> Mapping[str, Any]:
        return {"refund": call.request["sku"], "knows": applied is not None}

    shop.operations = {
        "take": ProviderOperation(
            apply=shop.apply,
            undo_name="put_back",
            undo=shop.undo,
            provider=bank,
            submission=submission,
            reversal=reversal,
        )
    }
    assert TABLE in shop.tables
    return shop
