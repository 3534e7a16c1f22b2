"""Counts what the checker has decided on, invariant by invariant: none found of nothing is nothing.

An invariant that a history gives no input for is left out.
"""

from __future__ import annotations

from collections import Counter

from raysaga.simulation.history import Asked, Committed, Effect, Granted, Observation, Sent, Told
from raysaga.statemachines.calls import COMPENSATION

QUESTIONS = {
    "I1": "done, undone, or parked with a reason: sagas",
    "I2": "nothing made or lost: effects, and rows of the books",
    "I3": "undone in reverse: compensations that arrived",
    "I4": "each effect at most once: effects",
    "I5": "nothing accepted is lost, nothing from nowhere: answers and sagas",
    "I6": "no zombie: effects, grants and records with an epoch",
    "I7": "one history: records verified",
    "I8": "an end is an end: ends that were told",
    "I9": "a cancel is granted or refused: cancels",
    "I10": "all comes to rest: sagas",
    "I11": "nothing is left over: readings of processes",
    "I12": "no action after its undo: steps",
    "I13": "counters tell the truth: sagas listed",
    "I14": "no secrets: lines of logs",
    "I15": "a poisoned saga harms nobody: poisoned sagas",
}


def coverage(seen: Observation, *, extra: dict[str, int] | None = None) -> dict[str, int]:
    """Return on how many things each invariant was decided.

    Args:
        seen: The history.
        extra: What was looked at outside of it, by invariant.
    """
    found: Counter[str] = Counter(extra or {})
    steps: set[tuple[str, str]] = set()
    for line in seen.lines:
        match line:
            case Effect():
                found.update(("I2", "I4", "I6"))
                steps.add((line.saga_id, line.step))
            case Granted() | Committed():
                found["I6"] += 1
            case Sent() if line.verb == COMPENSATION:
                found["I3"] += 1
            case Told() if line.operation == "submit":
                found["I5"] += 1
                found["I8"] += line.kind == "ended"
            case Asked() if line.operation == "cancel":
                found["I9"] += 1
            case _:
                continue
    sagas = sum(reading is not None for reading in seen.readings.values())
    found.update({"I1": sagas, "I5": sagas, "I10": sagas})
    found.update({"I12": len(steps), "I13": len(seen.listed), "I15": len(seen.poison)})
    return {name: found[name] for name in QUESTIONS if found[name]}
