"""Every bound and default of the engine, with its unit and its reason."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from raysaga.statemachines.definition import TIMEOUT_MS_MAX

SKEW_MS = 60_000
"""How far the clocks of two machines may be apart before a call's expiry means nothing."""


class EngineSettings(BaseModel):
    """How one engine behaves. Unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sagas_in_flight_max: int = Field(20_000, ge=1)
    """Sagas a shard admits before it answers OVERLOADED; 3 KiB each keeps this near 60 MiB."""

    inputs_queued_max: int = Field(50_000, ge=1)
    """Entries waiting for the disk before new sagas are refused."""

    overloaded_retry_after_ms: int = Field(250, ge=1)
    """What a refused caller is asked to wait; some hundred sagas finish in that time."""

    batch_items_max: int = Field(256, ge=1)
    """Messages in one exchange; larger batches gained nothing when measured."""

    exchanges_open_max: int = Field(2, ge=1, le=8)
    """Exchanges a lane keeps open; one carries while the other waits."""

    exchange_hold_ms: int = Field(2_000, ge=10)
    """How long a responder keeps an exchange open when it has nothing to say."""

    exchange_grace_ms: int = Field(3_000, ge=10)
    """Beyond the hold, after which an exchange counts as lost."""

    outbox_messages_max: int = Field(200_000, ge=1)
    """Replies kept for a sender that does not fetch them; the oldest are dropped beyond."""

    participant_in_flight_max: int = Field(2_048, ge=1)
    """Calls sent to one participant and not answered."""

    participant_queued_max: int = Field(100_000, ge=1)
    """Calls waiting to be sent to one participant; beyond, an attempt ends as OVERLOADED."""

    breaker_failures_min: int = Field(50, ge=1)
    """Unanswered calls in a row that open a participant's circuit."""

    breaker_open_ms_first: int = Field(200, ge=1)
    """How long a circuit that has just opened stays so before a probe."""

    breaker_open_ms_max: int = Field(5_000, ge=1)
    """Most of it; it doubles with each probe that fails."""

    breaker_probes: int = Field(4, ge=1)
    """Calls let through a half-open circuit."""

    retry_budget_ratio: float = Field(0.1, gt=0)
    """Retries that each first try pays for (the Google SRE book's 10 percent). A retry that comes
    to an end costs nothing, and pays for one more."""

    retry_budget_per_s: float = Field(50.0, gt=0)
    """Retries earned with time, so that a quiet system can always retry."""

    retry_budget_max: float = Field(500.0, ge=1)
    """Retries that can be saved up."""

    wire: Literal["auto", "ray"] = "auto"
    """What carries messages between actors: sockets where both ends share a node, or Ray alone."""

    lazy_flush_ms: int = Field(250, ge=1)
    """Events that no barrier waits for reach the disk within this time."""

    action_life_ms: int = Field(60_000, ge=1_000)
    """An action is dead this long after its host last proved that it owns the saga."""

    epoch_check_ms: int = Field(50, ge=1)
    """Age at which the proof of ownership is renewed before a call leaves."""

    recoveries_max: int = Field(5, ge=1)
    """Restarts of the host without progress after which a saga is parked as poison."""

    suspect_wait_ms: int = Field(1_000, ge=1)
    """How long a saga that was under way in two crashes is watched alone."""

    reconcile_ms: int = Field(2_000, ge=10)
    """Pause between sweeps for sagas that have no owner and no timer."""

    release_items_max: int = Field(1_024, ge=1)
    """Ended sagas whose participants are told to forget at one time; ten times as many can end
    a second before releases fall behind."""

    release_every_ms: int = Field(100, ge=10)
    """Pause between two such times while sagas end; longer ones stall calls (measured)."""

    retention_ms: int = Field(7 * 24 * 3_600_000, ge=0)
    """How long an ended saga's records are kept."""

    key_retention_ms: int = Field(90 * 24 * 3_600_000, ge=0)
    """How long its key is remembered, so that a repeat is still answered."""

    map_bytes_first: int = Field(64 << 20, ge=1 << 20)
    """Size of a journal's map to begin with."""

    map_bytes_max: int = Field(16 << 30, ge=1 << 20)
    """The cap that it grows to by doubling; beyond, new sagas are refused."""

    reserve_ratio: float = Field(0.05, gt=0, lt=0.5)
    """Share of the cap kept for finishing what was begun."""

    dedicated_actors_max: int = Field(8, ge=1)
    """Dedicated saga actors at one time; each is a process of some 45 MiB."""

    dedicated_idle_ms: int = Field(60_000, ge=0)
    """How long such a process is kept when its saga has left it; the next saves its start."""

    shutdown_wait_ms: int = Field(5_000, ge=0)
    """How long a host asked to stop waits for the disk."""

    clock_jump_ms: int = Field(5_000, ge=1)
    """Jump of the wall clock against the monotonic one that puts deadlines off once."""

    clock_jump_grace_ms: int = Field(10_000, ge=0)
    """For how long they are put off."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """From which level on the processes log; each transition is a line at `debug`."""

    log_bytes_max: int = Field(64 << 20, ge=1 << 10)
    """Size from which on a log file is set aside and a new one is begun."""

    log_files_max: int = Field(5, ge=2)
    """Files that are kept of each log, the newest included."""

    ray_metrics_ms: int = Field(0, ge=0)
    """Pause between two tellings of all counts to Ray's own metrics; 0 tells it nothing."""

    @property
    def rows_kept_ms(self) -> int:
        """How long a ledger keeps the row of an ended saga, at least.

        Longer than any copy of a call can live: a row that goes sooner, a tombstone above all,
        would let an action that is still on its way take effect after its undo.
        """
        life_ms = max(self.action_life_ms, TIMEOUT_MS_MAX) + SKEW_MS
        return max(self.retention_ms, life_ms)
