"""What one simulated history is made of: plain data, drawn from a seed, kept when it fails.

Each kind of fault is switched on or off by the seed, and so is how often it
strikes: a history with everything at once mostly shows that nothing works, one
with two faults shows what they do to each other (swarm testing: Groce, Zhang,
Eide, Chen, Regehr, ISSTA 2012).
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from raysaga.simulation.shapes import SHAPES, shape
from raysaga.statemachines.definition import Durability, SagaDefinition

RATES: Mapping[str, tuple[float, ...]] = {
    "request_lost": (0.02, 0.1),
    "answer_lost": (0.02, 0.1),
    "exchange_doubled": (0.05, 0.2),
    "exchange_slow": (0.05, 0.2),
    "call_lost": (0.05, 0.2),
    "call_doubled": (0.05, 0.3),
    "call_held": (0.05, 0.2),
    "reply_lost": (0.05, 0.2),
    "reply_held": (0.05, 0.2),
    "refusal": (0.05, 0.2),
    "undo_refusal": (0.1, 0.5),
    "later": (0.1, 0.4),
    "defect": (0.05, 0.2),
    "busy": (0.1, 0.5),
    "commit_kept": (0.01, 0.05),
    "commit_lost": (0.01, 0.05),
    "commit_slow": (0.05, 0.2),
    "mark_lost": (0.5,),
    "grant_kept": (0.2,),
    "grant_lost": (0.2,),
    "crash_at_send": (0.02, 0.1),
    "crash_before_commit": (0.02, 0.1),
    "crash_after_commit": (0.02, 0.1),
    "crash_at_reply": (0.02, 0.1),
    "ledger_kept": (0.01, 0.05),
    "ledger_lost": (0.01, 0.05),
}
"""Each fault that can strike at any moment, with how probable it is where it is switched on."""

DEEDS: Mapping[str, float] = {
    "crash_host": 0.35,
    "pause_host": 0.35,
    "replace_host": 0.25,
    "stop_host": 0.15,
    "crash_participant": 0.3,
    "pause_participant": 0.2,
    "cut": 0.3,
    "fill_journal": 0.2,
    "fill_ledger": 0.15,
    "move_clock": 0.2,
    "cancel": 0.6,
    "force": 0.15,
    "retry": 0.2,
    "skip": 0.2,
    "repeat": 0.3,
    "conflict": 0.15,
    "look": 0.4,
}
"""Each thing that is done to a history on purpose, with how probable it is that it is at all."""

TROUBLED_MS = 3_000
"""Within which everything is begun; what is held or retried takes longer."""


class Deed(NamedTuple):
    """Something that is done at an instant: what, and to whom."""

    at_ms: int
    what: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One history.

    Attributes:
        seed: What all chance in it comes from.
        shards: Number of shards.
        definitions: What its sagas are made from.
        settings: Settings of the engine that are not the usual.
        options: What else differs: the participants' stock, bounds, whether there is an operator.
        rates: Probability of each fault that is switched on.
        deeds: What is done, in the order of the instants.
    """

    seed: int
    shards: int
    definitions: tuple[SagaDefinition, ...]
    settings: Mapping[str, int]
    options: Mapping[str, int]
    rates: Mapping[str, float]
    deeds: tuple[Deed, ...]

    @property
    def saga_count(self) -> int:
        """How many sagas are submitted."""
        return sum(deed.what == "submit" for deed in self.deeds)

    def to_data(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "seed": self.seed,
            "shards": self.shards,
            "definitions": [definition.to_data() for definition in self.definitions],
            "settings": dict(self.settings),
            "options": dict(self.options),
            "rates": dict(self.rates),
            "deeds": [[deed.at_ms, deed.what, dict(deed.facts)] for deed in self.deeds],
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Recipe:
        """Return what `to_data` has made."""
        return cls(
            seed=data["seed"],
            shards=data["shards"],
            definitions=tuple(SagaDefinition.from_data(d) for d in data["definitions"]),
            settings=data["settings"],
            options=data["options"],
            rates=data["rates"],
            deeds=tuple(Deed(*deed) for deed in data["deeds"]),
        )

    def write(self, path: Path) -> None:
        """Keep it in a file."""
        path.write_text(json.dumps(self.to_data(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Return what is kept in a file."""
        return cls.from_data(json.loads(path.read_text(encoding="utf-8")))

    def without(self, deeds: set[int], rates: set[str]) -> Recipe:
        """Return it without some deeds, by index, and some faults."""
        return replace(
            self,
            deeds=tuple(deed for i, deed in enumerate(self.deeds) if i not in deeds),
            rates={name: rate for name, rate in self.rates.items() if name not in rates},
        )


def recipe_of(seed: int) -> Recipe:
    """Return the history that a seed stands for."""
    chance = random.Random(f"raysaga {seed}")
    shards = chance.choice((1, 1, 2))
    definitions = tuple(
        shape(number)
        for number in {chance.randrange(SHAPES): None for _ in range(chance.choice((1, 2, 3)))}
    )
    # Some histories are nearly quiet, so that one fault is seen by itself.
    share = chance.choice((0.1, 0.3, 0.5))
    rates = {
        name: chance.choice(choices) for name, choices in RATES.items() if chance.random() < share
    }
    deeds = _submissions(chance, definitions)
    sagas = len(deeds)
    for what, probability in DEEDS.items():
        if chance.random() < probability * share * 2:
            deeds += [
                _deed(chance, what, shards, sagas) for _ in range(chance.choice((1, 1, 2, 3)))
            ]
    settings = _settings(chance)
    if any(deed.what == "submit" and deed.facts["poison"] for deed in deeds):
        # Counted for as long as all are given to come to rest.
        settings["recoveries_max"] = 4
    return Recipe(
        seed=seed,
        shards=shards,
        definitions=definitions,
        settings=settings,
        options=_options(chance),
        rates=rates,
        deeds=tuple(sorted(deeds, key=lambda deed: deed.at_ms)),
    )


def _submissions(chance: random.Random, definitions: tuple[SagaDefinition, ...]) -> list[Deed]:
    dedicated = chance.choice((0.0, 0.0, 0.0, 0.4))
    # A relaxed one dies before anything is on disk that could be counted, and is submitted
    # again: it would kill its host for as long as its caller insists.
    can_count = definitions[0].durability is not Durability.RELAXED
    poison = can_count and chance.random() < 0.05
    found: list[Deed] = []
    for number in range(chance.choice((2, 4, 8, 16))):
        is_poison = poison and number == 0
        facts = {
            "saga": number,
            "definition": 0 if is_poison else chance.randrange(len(definitions)),
            "caller": chance.randrange(2),
            "dedicated": chance.random() < dedicated,
            "deadline_ms": chance.choice((None, None, None, 500, 2_000)),
            "poison": is_poison,
            "watch": chance.random() < 0.9,
        }
        found.append(Deed(chance.randrange(TROUBLED_MS * 2 // 3), "submit", facts))
    return found


def _deed(chance: random.Random, what: str, shards: int, sagas: int) -> Deed:
    facts: dict[str, Any] = {
        "shard": chance.randrange(shards),
        "saga": chance.randrange(sagas),
        "caller": chance.randrange(2),
        "participant": chance.randrange(8),
        "for_ms": chance.choice((50, 300, 1_000, 4_000)),
    }
    if what == "pause_host":
        # None: nobody notices that it stands still.
        facts["replaced_after_ms"] = chance.choice((None, 100, 500))
        facts["callers_stay"] = chance.random() < 0.5
    elif what == "cut":
        facts["way"] = chance.choice(("to_participant", "from_participant", "to_host", "from_host"))
    elif what == "fill_journal":
        facts["full"] = chance.choice((1, 1, 2))
    elif what == "move_clock":
        facts["by_ms"] = chance.choice((-4_000, 4_000, 20_000, -30_000))
        facts["whose"] = chance.choice(("host", "participant", "all"))
    return Deed(chance.randrange(TROUBLED_MS), what, facts)


def _settings(chance: random.Random) -> dict[str, int]:
    hold_ms = chance.choice((300, 2_000))
    return {
        "exchange_hold_ms": hold_ms,
        "exchange_grace_ms": chance.choice((300, 1_000)),
        "exchanges_open_max": chance.choice((1, 2, 4)),
        "reconcile_ms": chance.choice((100, 500, 2_000)),
        "lazy_flush_ms": chance.choice((5, 250)),
        "breaker_open_ms_max": 500,
        "breaker_failures_min": chance.choice((3, 50)),
        "recoveries_max": chance.choice((4, 100)),
        "suspect_wait_ms": 300,
        "action_life_ms": chance.choice((2_000, 60_000)),
        "epoch_check_ms": chance.choice((1, 50)),
        "retention_ms": chance.choice((0, 3_600_000)),
        "sagas_in_flight_max": chance.choice((2, 20_000, 20_000, 20_000)),
    }


def _options(chance: random.Random) -> dict[str, int]:
    return {
        "stock": chance.choice((5, 40, 1_000_000)),
        "is_operated": chance.choice((0, 1, 1, 1)),
        "participant_slots": chance.choice((1, 3, 1_024, 1_024)),
        "participant_queue": chance.choice((2, 1_000, 1_000)),
        "prune_ms": chance.choice((0, 300)),
        "held_ms": chance.choice((200, 2_000, 20_000, 20_000)),
    }
