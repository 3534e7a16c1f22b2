"""Faults of the disk under a running process: a flush, a write, the room for it.

What is expected is in one table, `_MAY_GO_ON`: a process may go on after an error only if it is
a definite one, that is, nothing of the batch can be on the disk. After any other it has to end
without having answered anybody, and its successor reads what is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

from raysaga.simulation.chaos.fault import Blow, Fault
from raysaga.simulation.chaos.faults_nodes import accepted
from raysaga.simulation.chaos.machine import lacks_tracing
from raysaga.simulation.chaos.processes import is_alive
from raysaga.simulation.chaos.stage import Stage
from raysaga.simulation.chaos.tracing import failing

_MAY_GO_ON: Final = frozenset({"ENOSPC", "EINTR"})
"""Errors after which a process may go on: the disk is full, or the call is made again."""

END_S_MAX = 20.0
"""How long a process may take to end after an error that it must not outlive."""

STRUCK_S_MAX = 30.0
"""How long to wait until a process makes the call that is to fail."""

ORDERS_MIN: Final = 3
"""Orders that must be accepted after a wound before it counts as survived."""

CALLS: Final = ("fdatasync", "pwrite64", "writev")
"""What LMDB flushes and writes pages with (mdb.c)."""


class Wound(NamedTuple):
    """One call of one process that is made to fail."""

    role: str
    syscall: str
    error: str
    when: int


class _Wounding(Fault):
    """Makes system calls fail, one after another."""

    def missing(self) -> str:
        """Return what is missing to trace a process."""
        return lacks_tracing()

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Wound each victim; it has bitten when strace has written down that the call failed."""
        for wound in self._wounds(stage, blow):
            await _inflict(stage, blow, wound)
        blow.healed("calls succeed again")

    def _wounds(self, stage: Stage, blow: Blow) -> Sequence[Wound]:
        raise NotImplementedError


class FlushFails(_Wounding):
    """EIO of a flush, once: the next one would succeed, and tell a lie."""

    name: ClassVar[str] = "flush-fails"
    numbers: ClassVar[tuple[int, ...]] = (29,)
    what: ClassVar[str] = "makes a flush of a journal or ledger fail, once"
    seconds: ClassVar[float] = 5.0

    def _wounds(self, stage: Stage, blow: Blow) -> Sequence[Wound]:
        chance = blow.chance
        return [Wound(_anybody(stage, blow), "fdatasync", "EIO", chance.randint(1, 3))]


class WriteFails(_Wounding):
    """EIO of a write of pages, or of the page that says which pages count."""

    name: ClassVar[str] = "write-fails"
    numbers: ClassVar[tuple[int, ...]] = (30,)
    what: ClassVar[str] = "makes a write of a journal's or ledger's pages fail, once"
    seconds: ClassVar[float] = 5.0

    def _wounds(self, stage: Stage, blow: Blow) -> Sequence[Wound]:
        chance = blow.chance
        return [Wound(_anybody(stage, blow), "pwrite64", "EIO", chance.randint(1, 4))]


class DiskTurnsReadOnly(_Wounding):
    """EROFS of a write, as after an error for which the kernel remounts a disk read-only."""

    name: ClassVar[str] = "disk-turns-read-only"
    numbers: ClassVar[tuple[int, ...]] = (32,)
    what: ClassVar[str] = "refuses a write as a disk does that has become read-only"
    seconds: ClassVar[float] = 5.0

    def _wounds(self, stage: Stage, blow: Blow) -> Sequence[Wound]:
        return [Wound(_anybody(stage, blow), "pwrite64", "EROFS", 1)]


class SweepCalls(_Wounding):
    """A few of all combinations of call, error and how many calls are let through before."""

    name: ClassVar[str] = "sweep-calls"
    numbers: ClassVar[tuple[int, ...]] = (31,)
    what: ClassVar[str] = "makes drawn system calls on journals and ledgers fail"
    seconds: ClassVar[float] = 20.0

    def _wounds(self, stage: Stage, blow: Blow) -> Sequence[Wound]:
        chance = blow.chance
        return [
            Wound(
                _anybody(stage, blow),
                chance.choice(CALLS),
                chance.choice(("EIO", "ENOSPC", "EROFS", "EINTR")),
                chance.randint(1, 9),
            )
            for _ in range(4)
        ]


FAULTS: Final[tuple[Fault, ...]] = (FlushFails(), WriteFails(), DiskTurnsReadOnly(), SweepCalls())


def _anybody(stage: Stage, blow: Blow) -> str:
    roles = sorted(r for r in stage.roles() if r.startswith(("shard/", "participant/")))
    return blow.chance.choice(roles)


def _data_file(stage: Stage, role: str) -> Path:
    kind, _, which = role.partition("/")
    data = stage.data()
    folder = data.journal_path(int(which)) if kind == "shard" else data.service_path(which)
    return folder / "data.mdb"


async def _inflict(stage: Stage, blow: Blow, wound: Wound) -> None:
    role = wound.role
    pid = await stage.pid(role)
    notes = stage.workplace / "log" / f"strace-{blow.number}.txt"
    file = _data_file(stage, role)
    async with failing(
        pid, wound.syscall, wound.error, when=wound.when, file=file, notes=notes
    ) as tracing:
        blow.inflicted(f"{role}, process {pid}: {tracing.rule}")
        await stage.until(tracing.struck, f"{role} calls {wound.syscall}", STRUCK_S_MAX)
        result = tracing.struck()[0].rpartition(" = ")[2]
        blow.bit(f"{wound.syscall} of {role} gave {result}")
        if wound.error not in _MAY_GO_ON:
            await _ends(blow, wound, pid)
    await accepted(stage, ORDERS_MIN)
    if is_alive(pid):
        blow.bit(f"{role} went on")
    else:
        await stage.replaced(role, pid)


async def _ends(blow: Blow, wound: Wound, pid: int) -> None:
    end = asyncio.get_running_loop().time() + END_S_MAX
    while is_alive(pid):
        if asyncio.get_running_loop().time() > end:
            blow.broke(f"{wound.role} goes on after {wound.error} of {wound.syscall}")
            return
        await asyncio.sleep(0.05)
    blow.bit(f"{wound.role} ended at once, process {pid}")
