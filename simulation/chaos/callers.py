"""The process that submits orders all the time, through two connections, and keeps a diary.

An open loop: so many orders a second whatever the engine does, bounded by how many may be
waited for at once. It cancels some, submits some twice, and sends on what is parked, as people
do. When it comes back after a crash it asks again for all that it never heard the end of.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from raysaga.actors.gateway import fingerprint_of
from raysaga.api.client import SagaHandle, Sagas
from raysaga.simulation.chaos.diary import Diary, unfinished
from raysaga.simulation.chaos.keeper import connection
from raysaga.simulation.chaos.orders import (
    DEFINITIONS,
    ORDER_UPGRADED,
    Order,
    order,
    request_of,
    wished,
)
from raysaga.simulation.chaos.readings import last_readings
from raysaga.simulation.chaos.talk import Talk
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.errors import SagaError

PULSE_S = 0.5
"""Pause between two tellings of how things go."""

TICK_S = 0.02

ANSWER_S_MAX = 30.0
"""How long a caller waits for an answer before he asks again, under the same key."""

ASKED_AGAIN_MAX = 20

OPERATE_EVERY_S = 4.0

KNOWN: Final = "KNOWN"
"""Answer to a submission of what there is already."""

PARKED: Final = ("parked_running", "parked_forward", "parked_backward")


class Callers:
    """All callers of a run, in one process."""

    def __init__(self, told: Mapping[str, Any], gates: list[Sagas], talk: Talk) -> None:
        self._seed = int(told["seed"])
        self._folder = Path(told["workplace"])
        self._gates = gates
        self._talk = talk
        self._name = f"caller-{told['life']}"
        self._diary = Diary(self._folder / "callers", told["life"])
        self._rate = float(told["rate_per_s"])
        self._in_flight_max = int(told["in_flight_max"])
        self._definitions = dict(DEFINITIONS)
        self._held: set[str] = set()
        self._operates = True
        self._counts: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._in_flight = 0
        self._number = 0
        self._verbs: dict[str, Callable[..., Awaitable[Any]]] = {
            "rate": self._set_rate,
            "submit": self._submit_one,
            "burst": self._burst,
            "storm": self._storm,
            "status": self._status,
            "retry": self._retry,
            "hold": self._hold,
            "operate": self._operate,
            "upgrade": self._upgrade,
            "rest": self._rest,
            "last": self._last,
            "readings": self._readings,
            "stats": self._stats,
        }

    async def run(self) -> None:
        """Submit orders until told to stop."""
        left, self._number = unfinished(self._folder / "callers")
        for saga_id, facts in left.items():
            self._spawn(self._again(saga_id, facts))
        self._talk.say(ready=True, asked_again=len(left))
        listening = self._talk.listen(self._answer)
        loops = [self._submit_for_ever(), self._tell_for_ever(), self._operate_for_ever()]
        tasks = [asyncio.create_task(loop) for loop in (listening, *loops)]
        # Only the listener ends of itself; with any other of them this process fails.
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in (*tasks, *self._tasks):
            task.cancel()
        for task in done:
            task.result()

    async def _answer(self, verb: str, facts: Mapping[str, Any]) -> Any:
        return await self._verbs[verb](**facts)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- the open loop -----------------------------------------------------------

    async def _submit_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        due, before = 0.0, loop.time()
        while True:
            await asyncio.sleep(TICK_S)
            now = loop.time()
            # After a pause of this process there is no burst to make up for it.
            due += min(now - before, 1.0) * self._rate
            before = now
            while due >= 1.0:
                due -= 1.0
                if self._in_flight >= self._in_flight_max:
                    self._counts["not_sent"] += 1
                    continue
                self._number += 1
                self._place(order(self._seed, self._number), self._number)

    def _place(self, one: Order, number: int) -> None:
        definition = self._definitions[one.definition]
        self._spawn(self._follow(0, one, definition, number))
        if one.twice:
            again = one
            if one.conflicts:
                again = one._replace(request=request_of(one.key, amount=999_999))
            self._spawn(self._follow(1, again, definition, number))
        if one.cancel_after_s is not None:
            self._spawn(self._cancel(one.saga_id, one.cancel_after_s))

    async def _follow(self, gate: int, one: Order, definition: SagaDefinition, number: int) -> str:
        """Submit an order and wait for its end; return that, or the code of the refusal."""
        self._in_flight += 1
        try:
            handle, code = await self._ask(gate, one, definition, number)
            return code if handle is None else await self._wait(gate, handle)
        finally:
            self._in_flight -= 1

    async def _ask(
        self, gate: int, one: Order, definition: SagaDefinition, number: int
    ) -> tuple[SagaHandle | None, str]:
        caller, saga_id = f"{self._name}.{gate}", one.saga_id
        print_ = fingerprint_of(definition, one.request)
        for _ in range(ASKED_AGAIN_MAX):
            facts = {"number": number, "dedicated": one.dedicated, "wishes": dict(one.wishes)}
            self._diary.asked(caller, "submit", saga_id, **facts)
            self._counts["submitted"] += 1
            try:
                handle = await asyncio.wait_for(
                    self._gates[gate].submit(
                        definition, one.request, key=one.key, dedicated=one.dedicated
                    ),
                    ANSWER_S_MAX,
                )
            except TimeoutError:
                self._counts["unanswered"] += 1
                self._diary.told(caller, "submit", saga_id, "lost")
                continue
            except SagaError as error:
                self._counts[f"refused {error.code}"] += 1
                self._told_error(gate, "submit", saga_id, error)
                return None, error.code
            self._counts["accepted"] += 1
            self._diary.told(
                caller, "submit", saga_id, "ok", fingerprint=print_, is_new=handle.is_new
            )
            return handle, ""
        return None, "UNANSWERED"

    async def _wait(self, gate: int, handle: SagaHandle) -> str:
        try:
            outcome = await handle.result()
        except SagaError as error:
            self._counts[f"wait {error.code}"] += 1
            self._told_error(gate, "watch", handle.saga_id, error)
            return error.code
        self._counts[outcome.status] += 1
        self._counts["ended"] += 1
        facts = {"phase": outcome.status, "code": outcome.code}
        self._diary.told(f"{self._name}.{gate}", "submit", handle.saga_id, "ended", **facts)
        return outcome.status

    def _told_error(self, gate: int, operation: str, saga_id: str, error: SagaError) -> None:
        self._diary.told(
            f"{self._name}.{gate}", operation, saga_id, "error", code=error.code, text=str(error)
        )

    async def _cancel(self, saga_id: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await self._order(1, "cancel", saga_id)

    async def _order(self, gate: int, operation: str, saga_id: str) -> str:
        """Give an order about a saga; return the code that it was refused with."""
        caller = f"{self._name}.{gate}"
        sagas = self._gates[gate]
        self._diary.asked(caller, operation, saga_id)
        try:
            if operation == "cancel":
                await sagas.cancel(saga_id, by="customer")
            else:
                await sagas.retry(saga_id, by="operator")
        except SagaError as error:
            self._counts[f"{operation} {error.code}"] += 1
            self._told_error(gate, operation, saga_id, error)
            return error.code
        self._counts[f"{operation} ok"] += 1
        self._diary.told(caller, operation, saga_id, "ok")
        return ""

    async def _again(self, saga_id: str, facts: Mapping[str, Any]) -> None:
        """Ask again for what an earlier life has asked for, under the same key."""
        number = int(facts["number"])
        name, _, key = saga_id.partition(":")
        one = wished(key, name, dedicated=facts["dedicated"], **facts["wishes"])
        if number:
            one = order(self._seed, number)
        await self._follow(0, one, self._definitions[one.definition], number)

    async def _operate_for_ever(self) -> None:
        while True:
            await asyncio.sleep(OPERATE_EVERY_S)
            if not self._operates:
                continue
            with suppress(SagaError, TimeoutError):
                await asyncio.wait_for(self._send_on(), ANSWER_S_MAX)

    async def _send_on(self) -> None:
        rows = await self._gates[0].list(phases=PARKED, limit=200)
        self._counts["parked_now"] = len(rows)
        for row in rows:
            if row["saga_id"] not in self._held:
                self._counts[f"parked {row['reason']}"] += 1
                await self._order(0, "retry", row["saga_id"])

    async def _tell_for_ever(self) -> None:
        while True:
            self._talk.say(pulse={**self._counts, "in_flight": self._in_flight})
            await asyncio.sleep(PULSE_S)

    # -- orders of the conductor -------------------------------------------------

    async def _set_rate(self, per_s: float, in_flight_max: int | None = None) -> dict[str, Any]:
        before = {"per_s": self._rate, "in_flight_max": self._in_flight_max}
        self._rate = per_s
        self._in_flight_max = in_flight_max or self._in_flight_max
        return before

    async def _submit_one(
        self, key: str, definition: str = "order", dedicated: bool = False, **wishes: Any
    ) -> str:
        """Submit one order; return the code of its refusal, `KNOWN`, or nothing if it is new.

        Its end is awaited as any other's.
        """
        one = wished(key, definition, dedicated=dedicated, **wishes)
        handle, code = await self._ask(0, one, self._definitions[definition], 0)
        if handle is not None:
            self._spawn(self._wait(0, handle))
            return "" if handle.is_new else KNOWN
        return code

    async def _burst(
        self, key: str, count: int, item: str | None = None, cancel_within_s: float = 0.0
    ) -> dict[str, int]:
        """Submit orders at once, cancel each at another moment, and return how they ended."""
        wishes: dict[str, Any] = {} if item is None else {"item": item}
        orders = [wished(f"{key}-{i}", "order", **wishes) for i in range(count)]
        if cancel_within_s:
            for i, one in enumerate(orders):
                self._spawn(self._cancel(one.saga_id, cancel_within_s * i / count))
        definition = self._definitions["order"]
        return Counter(
            await asyncio.gather(*(self._follow(0, one, definition, 0) for one in orders))
        )

    async def _storm(self, key: str, count: int) -> dict[str, int]:
        """Submit one order `count` times at once, and once with another body."""
        one = wished(key, "order")
        other = one._replace(request=request_of(key, amount=999_999))
        definition = self._definitions["order"]
        gates = range(count)
        answers = await asyncio.gather(
            *(self._ask(i % len(self._gates), one, definition, 0) for i in gates)
        )
        _, conflict = await self._ask(1, other, definition, 0)
        handles = [handle for handle, _ in answers if handle is not None]
        for handle in handles[:1]:
            self._spawn(self._wait(0, handle))
        return {
            "accepted": len(handles),
            "conflicts": int(conflict == "IDEMPOTENCY_CONFLICT"),
        }

    async def _status(self, saga_id: str) -> dict[str, Any] | None:
        try:
            return await self._gates[0].status(saga_id)
        except SagaError:
            return None

    async def _retry(self, saga_id: str) -> str:
        return await self._order(0, "retry", saga_id)

    async def _hold(self, saga_id: str, holds: bool) -> None:
        """Have the operator leave a parked saga alone, or not any more."""
        (self._held.add if holds else self._held.discard)(saga_id)

    async def _operate(self, operates: bool) -> None:
        self._operates = operates

    async def _upgrade(self, upgraded: bool) -> str:
        """Submit orders under the newer definition from now on, or the older; return its hash."""
        self._definitions["order"] = ORDER_UPGRADED if upgraded else DEFINITIONS["order"]
        return self._definitions["order"].content_hash

    async def _rest(self, timeout_s: float) -> list[str]:
        """Submit no more, and wait until nothing is under way; return what still is."""
        self._rate = 0.0
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while True:
            rows = await self._gates[0].list(
                phases=("running", "forward_only", "compensating", *PARKED), limit=1_000
            )
            found = [f"{row['saga_id']} is {row['phase']} {row['reason']}" for row in rows]
            if self._in_flight:
                found.append(f"{self._in_flight} callers wait")
            if not found or loop.time() > end:
                return found
            await asyncio.sleep(PULSE_S)

    async def _last(self, count: int) -> list[str]:
        """Submit the last orders through every connection; return those that were not accepted."""
        unserved = []
        for gate in range(len(self._gates)):
            for i in range(count):
                key = f"last-{self._seed}-{gate}-{i}-{os.getpid()}"
                one = wished(key, "order")
                end = await self._follow(gate, one, self._definitions["order"], 0)
                if end != "completed":
                    unserved.append(f"{key}: {end}")
        return unserved

    async def _readings(self) -> int:
        """Read every saga that was ever asked for; return how many there are."""
        return await last_readings(self._gates[0], self._folder)

    async def _stats(self) -> list[dict[str, Any]]:
        return list(await self._gates[0].stats())


async def call() -> None:
    """Connect twice, and submit until told to stop."""
    talk = Talk()
    told = await talk.begin()
    async with connection(told) as first, connection(told) as second:
        await Callers(told, [first, second], talk).run()


if __name__ == "__main__":
    asyncio.run(call())
