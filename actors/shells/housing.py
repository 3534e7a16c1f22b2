"""Begins an actor's process, and opens what a host under Ray needs."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from raysaga.actors.actor_names import participant_actor
from raysaga.actors.brokers.address import is_broker_address, parse_address
from raysaga.actors.brokers.wire import BrokerWire
from raysaga.actors.clock import SystemClock
from raysaga.actors.host import SagaHost
from raysaga.actors.log import configure_log
from raysaga.actors.settings import EngineSettings
from raysaga.actors.shells.plan import EnginePlan
from raysaga.actors.shells.process import (
    CommitThread,
    end_with_ray,
    exit_fatally,
    owner_name,
    prepare_process,
)
from raysaga.actors.shells.wires import ActorWire
from raysaga.statemachines.ids import Scope
from raysaga.storage.data_folder import DataFolder
from raysaga.storage.journal import Journal
from raysaga.storage.lmdb_journal import LmdbJournal


def begin_process(plan: EnginePlan, log_name: str, **facts: Any) -> DataFolder:
    """Tune this process, tie it to its Ray node, begin its log, and return the data folder.

    Args:
        plan: The engine's.
        log_name: Of the file in the folder's log, without an ending.
        facts: Told in each line, beside the process id.
    """
    prepare_process()
    end_with_ray()
    folder = DataFolder.open(plan.folder, shard_count=plan.shard_count, create=False)
    path = folder.log_path / f"{log_name}.jsonl"
    configure_process_log(path, plan.settings, folder.uuid, **facts)
    return folder


def configure_process_log(
    path: Path, settings: EngineSettings, journal_uuid: str, **facts: Any
) -> None:
    """Send this process's log to `path`, as the settings say."""
    configure_log(
        path,
        settings.log_level,
        bytes_max=settings.log_bytes_max,
        files_max=settings.log_files_max,
        journal_uuid=journal_uuid,
        **facts,
        pid=os.getpid(),
    )


def open_shard_journal(plan: EnginePlan, folder: DataFolder, shard: int) -> LmdbJournal:
    """Return the journal of `shard`, open for writing within the bounds of the plan."""
    return folder.open_journal(
        shard,
        map_bytes_first=plan.settings.map_bytes_first,
        map_bytes_max=plan.settings.map_bytes_max,
        reserve_ratio=plan.settings.reserve_ratio,
    )


class Wires:
    """The ways from one process to participants, each made when first needed, for all its hosts."""

    def __init__(self, plan: EnginePlan) -> None:
        self._plan = plan
        self._made: dict[str, ActorWire | BrokerWire] = {}

    def to(self, participant: str) -> ActorWire | BrokerWire | None:
        """Return the way to a participant; None if this engine does not serve it."""
        target = self._plan.participants.get(participant)
        if target is not None and participant not in self._made:
            self._made[participant] = self._make(participant, target)
        return self._made.get(participant)

    def _make(self, participant: str, target: str) -> ActorWire | BrokerWire:
        plan = self._plan
        if is_broker_address(target):
            return BrokerWire(participant, parse_address(target), plan.settings)
        name = participant_actor(plan.engine, participant)
        return ActorWire(name, plan.namespace, plan.settings.wire)


def host_on(
    plan: EnginePlan, journal: Journal, scope: Scope, thread: CommitThread, wires: Wires
) -> SagaHost:
    """Return a host of the sagas of `scope`, not started yet."""
    return SagaHost(
        journal=journal,
        scope=scope,
        owner=owner_name(),
        connect=wires.to,
        clock=SystemClock(),
        settings=plan.settings,
        chance=random.Random(),
        run_blocking=thread.commit,
        fatal=exit_fatally,
    )
