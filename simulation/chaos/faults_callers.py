"""Faults of callers: too many, twice, gone half way, changing their minds; and upgrades."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import ClassVar

from raysaga.actors.gateway import fingerprint_of
from raysaga.actors.placement import shard_of
from raysaga.actors.wire import pack_message
from raysaga.simulation.chaos.callers import KNOWN
from raysaga.simulation.chaos.fault import Blow, Fault, now_ms
from raysaga.simulation.chaos.frames import frame
from raysaga.simulation.chaos.orders import HOTTEST_STOCK, ORDER, Order, hottest_item, wished
from raysaga.simulation.chaos.stage import Stage
from raysaga.simulation.chaos.trouble import troubled
from raysaga.statemachines.ids import SagaId


class Overload(Fault):
    """Three times as many orders as the engine can end, then as many as before."""

    name: ClassVar[str] = "overload"
    numbers: ClassVar[tuple[int, ...]] = (36,)
    what: ClassVar[str] = "submits three times as much as the engine can do"
    seconds: ClassVar[float] = 40.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Measure what it can do, ask for three times that; bitten when orders are refused."""
        before = await stage.order(stage.callers, "rate", per_s=2_000.0, in_flight_max=200)
        try:
            await asyncio.sleep(2.0)
            capacity = await self._ended_per_s(stage, 6.0)
            rate = 3.0 * capacity
            await stage.order(stage.callers, "rate", per_s=rate, in_flight_max=50_000)
            blow.inflicted(f"{rate:.0f} orders a second, where {capacity:.0f} are ended")
            await stage.until(lambda: _refused(stage), "an order is refused")
            during = await self._ended_per_s(stage, 10.0)
            refused = _refused(stage)
        finally:
            await stage.order(stage.callers, "rate", **before)
        began_ms = now_ms()
        share = during / capacity if capacity else 0.0
        blow.bit(f"{refused} orders were refused; goodput stayed at {share:.0%} of the capacity")
        calm = before["in_flight_max"]
        await stage.until(lambda: stage.pulse()["in_flight"] < calm / 4, "it recovers", 60.0)
        blow.healed(f"recovered in {(now_ms() - began_ms) / 1_000:.1f} s")

    async def _ended_per_s(self, stage: Stage, for_s: float) -> float:
        began_at, before = now_ms(), stage.pulse()["ended"]
        await asyncio.sleep(for_s)
        return (stage.pulse()["ended"] - before) * 1_000 / (now_ms() - began_at)


def _refused(stage: Stage) -> int:
    return stage.pulse()["refused OVERLOADED"]


class HotItem(Fault):
    """Many orders at once for one item of which there is less."""

    name: ClassVar[str] = "hot-item"
    numbers: ClassVar[tuple[int, ...]] = (37,)
    what: ClassVar[str] = "has everybody order one item"
    combines: ClassVar[bool] = True
    seconds: ClassVar[float] = 10.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Order it; bitten when some got it and some were refused, and exactly as many as fit."""
        item, stock, wanted = hottest_item(blow.number), HOTTEST_STOCK, 60
        facts = {"key": f"hot-{blow.number}-{now_ms()}", "count": wanted, "item": item}
        blow.inflicted(f"{wanted} orders for {stock} pieces of {item}")
        found = await stage.order(stage.callers, "burst", **facts)
        got, refused = found.get("completed", 0), found.get("compensated", 0)
        if got and refused:
            blow.bit(f"{got} orders were completed, {refused} were refused")
        if got > stock:
            blow.broke(f"{got} orders got {item}, of which there are {stock} pieces")
        blow.healed()


class CancelRace(Fault):
    """Many orders, each cancelled at another moment of its life."""

    name: ClassVar[str] = "cancel-race"
    numbers: ClassVar[tuple[int, ...]] = (41,)
    what: ClassVar[str] = "cancels orders at every moment of their lives"
    combines: ClassVar[bool] = True
    seconds: ClassVar[float] = 10.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Cancel; it has bitten when some cancels were granted and some came too late."""
        facts = {"key": f"race-{blow.number}-{now_ms()}", "count": 60, "cancel_within_s": 1.0}
        blow.inflicted("60 orders")
        before = stage.pulse()
        await stage.order(stage.callers, "burst", **facts)

        def both() -> bool:
            now = stage.pulse()
            names = ("cancel ok", "cancel CANCEL_TOO_LATE")
            return all(now[name] > before[name] for name in names)

        await stage.until(both, "cancels are granted, and come too late", 30.0)
        now = stage.pulse()
        granted = now["cancel ok"] - before["cancel ok"]
        late = now["cancel CANCEL_TOO_LATE"] - before["cancel CANCEL_TOO_LATE"]
        blow.bit(f"{granted} cancels were granted, {late} came too late")
        blow.healed()


class Storm(Fault):
    """One order, submitted a hundred times at once, and once with another body."""

    name: ClassVar[str] = "submit-storm"
    numbers: ClassVar[tuple[int, ...]] = (39,)
    what: ClassVar[str] = "submits one order a hundred times"
    combines: ClassVar[bool] = True
    seconds: ClassVar[float] = 6.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Submit; it has bitten when more than one were told that it is accepted."""
        key = f"storm-{blow.number}-{now_ms()}"
        blow.inflicted(f"order:{key}")
        found = await stage.order(stage.callers, "storm", key=key, count=100)
        if found["accepted"] > 1:
            blow.bit(f"{found['accepted']} submissions of one order were accepted")
        if found["conflicts"] != 1:
            blow.broke("another body under the same key was not refused")
        blow.healed()


class Upgrade(Fault):
    """The definition changes while its sagas are under way, and the engine restarts as well."""

    name: ClassVar[str] = "upgrade"
    numbers: ClassVar[tuple[int, ...]] = (38,)
    what: ClassVar[str] = "upgrades the definition with sagas in flight, and restarts the engine"
    seconds: ClassVar[float] = 40.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Hold sagas half way, upgrade, restart; bitten when old ones end by the old recipe."""
        hang = {"mode": "hang", "share": 0.5}
        async with troubled(stage.workplace, "shipping", hang) as trouble:

            def half_way() -> list[str]:
                return [line[2] for line in trouble.bites() if line[2].startswith("order:")]

            held = await stage.until(half_way, "a saga is half way")
            newer = await stage.order(stage.callers, "upgrade", upgraded=True)
            blow.inflicted(f"order becomes {newer[:12]}, {len(held)} sagas are half way")
            await stage.stop()
        await stage.start(stage.launch)
        await stage.order(stage.callers, "upgrade", upgraded=True)
        key = f"upgraded-{blow.number}-{now_ms()}"
        await stage.order(stage.callers, "submit", key=key)
        newest = await stage.order(stage.callers, "status", saga_id=f"order:{key}")
        old = await stage.order(stage.callers, "status", saga_id=held[0])
        await stage.order(stage.callers, "upgrade", upgraded=False)
        if old["definition_hash"] != newest["definition_hash"]:
            blow.bit(f"{held[0]} keeps {old['definition_hash'][:12]}, new ones have {newer[:12]}")
        blow.healed()


class Disconnect(Fault):
    """Callers whose connection breaks at some byte of a submission, or right after it."""

    name: ClassVar[str] = "disconnect"
    numbers: ClassVar[tuple[int, ...]] = (40,)
    what: ClassVar[str] = "cuts callers off at some byte of their submission"
    seconds: ClassVar[float] = 6.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Send parts of submissions; bitten when asking again finds some known and some not."""
        keys = [f"cut-off-{blow.number}-{now_ms()}-{i}" for i in range(20)]
        blow.inflicted(f"{len(keys)} submissions")
        for i, key in enumerate(keys):
            sent = submission(wished(key, "order"))
            # Every fourth is whole, and nobody is there for the answer.
            length = len(sent) if i % 4 == 0 else blow.chance.randrange(len(sent))
            await _send(stage, key, sent[:length])
        answers = [await stage.order(stage.callers, "submit", key=key) for key in keys]
        known = sum(answer == KNOWN for answer in answers)
        if 0 < known < len(keys):
            blow.bit(f"{known} of {len(keys)} had been accepted, the others had not")
        blow.healed()


async def _send(stage: Stage, key: str, part: bytes) -> None:
    shard = shard_of(SagaId(f"order:{key}"), stage.data().shard_count)
    _, writer = await asyncio.open_unix_connection(str(stage.socket(f"shard/{shard}")))
    writer.write(part)
    await writer.drain()
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def submission(one: Order) -> bytes:
    """Return the bytes with which a caller submits an order."""
    print_ = fingerprint_of(ORDER, one.request)
    body = [one.saga_id, ORDER.content_hash, one.key, print_, one.request, None, False, False]
    sender = pack_message((f"cut off {one.key}", 1))
    return frame(sender + pack_message((1, "submit", body)))


FAULTS: tuple[Fault, ...] = (Overload(), HotItem(), CancelRace(), Storm(), Upgrade(), Disconnect())
