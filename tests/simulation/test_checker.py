"""The checker finds what is wrong in a history made by hand, and nothing in a good one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raysaga.simulation.checker import check
from raysaga.simulation.dossier import story_of
from raysaga.simulation.history import Observation, Trouble
from raysaga.statemachines.calls import COMPENSATION
from raysaga.statemachines.definition import Durability

from .histories import SAGA, Tale, trip


def found(seen: Observation) -> set[str]:
    """Return the invariants that are broken."""
    return {violation.invariant for violation in check(seen)}


def refused_at_b() -> Tale:
    """A saga whose second step is refused, up to its undoing."""
    tale = Tale().accepted().done("a").send("b").effect("refused", "b")
    return tale.send("b", COMPENSATION)


GOOD: dict[str, Callable[[], Observation]] = {
    "completed": lambda: Tale().accepted().done("a", "b", "c").ends("completed"),
    "compensated": lambda: refused_at_b().undone("a").ends("compensated", "NO"),
    "completed without what need not succeed": lambda: (
        Tale().accepted().done("a", "b").send("c").ends("completed", "", "c")
    ),
    "parked with what stands": lambda: (
        Tale().accepted().done("a").ends("parked_backward", "COMPENSATION_STUCK", "a")
    ),
    "an operator lets an effect stand": lambda: (
        Tale().accepted().done("a").ask("skip").tell("skip", "ok").ends("compensated", "NO", "a")
    ),
    "never accepted": lambda: Tale().ask().tell("submit", "error", code="STORAGE_FULL").ends(None),
    "relaxed, and lost in a crash": lambda: (
        Tale(trip(Durability.RELAXED)).accepted().done("a").ends(None)
    ),
    "a takeover": lambda: (
        Tale()
        .accepted()
        .commit(0, "running")
        .done("a")
        .grant(2)
        .commit(1, "running", 2)
        .done("b", "c")
        .ends("completed")
    ),
    "a late undo after the row was forgotten": lambda: (
        refused_at_b().undone("a").grant(2).effect("tombstone", "b", 2).effect("tombstone", "b", 1)
    ).ends("compensated", "NO"),
    "a takeover of which some grants were not seen": lambda: with_(
        Tale()
        .accepted()
        .grant(4)
        .commit(0, "running", 3)
        .commit(1, "completed", 4)
        .done("a", "b", "c")
        .ends("completed"),
        is_read_later=True,
    ),
    "participants that tell no amounts": lambda: with_(
        Tale().accepted().done("a", "b", "c").ends("completed"), stock={}
    ),
    "a cancel that was granted": lambda: (
        (Tale().accepted().done("a").ask("cancel").tell("cancel", "ok", answer="accepted"))
        .undone("a")
        .ends("compensated", "CANCELLED")
    ),
}


@pytest.mark.parametrize("story", GOOD)
def test_nothing_is_found_in_a_good_history(story: str) -> None:
    assert check(GOOD[story]()) == []


def with_(seen: Observation, **changes: object) -> Observation:
    """Return a history with other facts at its end."""
    for name, value in changes.items():
        setattr(seen, name, value)
    return seen


BAD: dict[str, tuple[str, Callable[[], Observation]]] = {
    "completed, and a step is not done": (
        "I1",
        lambda: Tale().accepted().done("a", "c").ends("completed"),
    ),
    "completed, and a step was undone": (
        "I1",
        lambda: Tale().accepted().done("a", "b", "c").undone("b").ends("completed"),
    ),
    "compensated, and a step stands": (
        "I1",
        lambda: Tale().accepted().done("a").ends("compensated", "NO"),
    ),
    "parked, and a step stands untold": (
        "I1",
        lambda: Tale().accepted().done("a", "b").ends("parked_backward", "STUCK", "a"),
    ),
    "parked without a reason": ("I1", lambda: Tale().accepted().ends("parked_running")),
    "still running": ("I1", lambda: Tale().accepted().ends("running")),
    "money is missing": (
        "I2",
        lambda: with_(GOOD["completed"](), stock={"p": (10, 7), "q": (10, 9)}),
    ),
    "more was sold than there was": (
        "I2",
        lambda: with_(GOOD["completed"](), stock={"p": (1, -1), "q": (10, 9)}),
    ),
    "undone in the order in which it was done": (
        "I3",
        lambda: Tale().accepted().done("a", "b").undone("a", "b").ends("compensated", "NO"),
    ),
    "done after an earlier step was undone": (
        "I3",
        lambda: (
            Tale().accepted().done("a").undone("a").done("b").undone("b").ends("compensated", "N")
        ),
    ),
    "done twice": (
        "I4",
        lambda: Tale().accepted().done("a", "a", "b", "c").ends("completed"),
    ),
    "undone twice": (
        "I4",
        lambda: Tale().accepted().done("a").undone("a", "a").ends("compensated", "NO"),
    ),
    "done under another key": (
        "I4",
        lambda: Tale().accepted().done("a", "b", "c").effect("action", "b.2").ends("completed"),
    ),
    "accepted and lost": ("I5", lambda: Tale().accepted().ends(None)),
    "never asked for": ("I5", lambda: Tale().effect("action", "a", 1, "trip:o9").ends(None)),
    "effects of a saga that was refused": (
        "I5",
        lambda: Tale().ask().tell("submit", "error", code="STORAGE_FULL").done("a").ends(None),
    ),
    "two requests under one key": (
        "I5",
        lambda: Tale().accepted().accepted("other").done("a", "b", "c").ends("completed"),
    ),
    "an effect of an earlier owner": (
        "I6",
        lambda: (
            Tale()
            .accepted()
            .grant(2)
            .effect("action", "a", 2)
            .effect("action", "b", 1)
            .done()
            .ends("parked_running", "X", "a", "b")
        ),
    ),
    "a commit of an earlier owner": (
        "I6",
        lambda: Tale().accepted().grant(2).commit(0, "running", 1).ends("parked_running", "X"),
    ),
    "an epoch that is granted twice": (
        "I6",
        lambda: Tale().accepted().grant(1).ends("parked_running", "X"),
    ),
    "an epoch that is granted twice, read from the logs": (
        "I6",
        lambda: with_(Tale().accepted().grant(1).ends("parked_running", "X"), is_read_later=True),
    ),
    "a record of an earlier owner, read from the disk": (
        "I6",
        lambda: with_(
            Tale()
            .accepted()
            .grant(2)
            .commit(0, "running", 2)
            .commit(1, "running", 1)
            .ends("parked_running", "X"),
            is_read_later=True,
        ),
    ),
    "books that do not balance": (
        "I2",
        lambda: with_(GOOD["completed"](), books=["money_balanced: USD is 5 off"]),
    ),
    "a token in a log": ("I14", lambda: with_(GOOD["completed"](), secrets=["line 3 of a log"])),
    "a record is missing": (
        "I7",
        lambda: (
            Tale().accepted().commit(0, "running").commit(2, "running").ends("parked_running", "X")
        ),
    ),
    "a journal that cannot be read": (
        "I7",
        lambda: with_(GOOD["completed"](), flaws=["record 3 is corrupt"]),
    ),
    "something after the end": (
        "I8",
        lambda: (
            Tale()
            .accepted()
            .done("a", "b", "c")
            .commit(0, "completed")
            .commit(1, "running")
            .ends("completed")
        ),
    ),
    "another end than was told": (
        "I8",
        lambda: (
            refused_at_b()
            .undone("a")
            .tell("submit", "ended", phase="completed", code="", remaining=[])
            .ends("compensated", "NO")
        ),
    ),
    "cancelled, and completed": (
        "I9",
        lambda: (
            Tale()
            .accepted()
            .ask("cancel")
            .tell("cancel", "ok", answer="accepted")
            .done("a", "b", "c")
            .ends("completed")
        ),
    ),
    "not cancelled, and undone for that": (
        "I9",
        lambda: (
            Tale()
            .accepted()
            .done("a")
            .ask("cancel")
            .tell("cancel", "error", code="CANCEL_TOO_LATE")
            .undone("a")
            .ends("compensated", "CANCELLED")
        ),
    ),
    "not at rest in time": (
        "I10",
        lambda: with_(GOOD["completed"](), late=["trip:o1 is running"]),
    ),
    "nobody is served after the mending": (
        "I10",
        lambda: with_(GOOD["completed"](), unserved=["OVERLOADED"]),
    ),
    "something is left in memory": (
        "I11",
        lambda: with_(GOOD["completed"](), left_over=["shard-0#1 keeps trip:o1"]),
    ),
    "done after its tombstone": (
        "I12",
        lambda: (
            Tale()
            .accepted()
            .send("a")
            .effect("tombstone", "a")
            .effect("action", "a")
            .ends("parked_backward", "X", "a")
        ),
    ),
    "undone, and never done": (
        "I12",
        lambda: Tale().accepted().effect("compensation", "a").ends("compensated", "NO"),
    ),
    "compensated, and what was sent could still happen": (
        "I12",
        lambda: Tale().accepted().done("a").send("b").undone("a").ends("compensated", "NO"),
    ),
    "counted otherwise than listed": (
        "I13",
        lambda: with_(GOOD["completed"](), counted={"completed": 2}),
    ),
    "listed otherwise than read": (
        "I13",
        lambda: with_(
            GOOD["completed"](), listed={SAGA: "compensated"}, counted={"compensated": 1}
        ),
    ),
    "a saga that kills its hosts is never parked": (
        "I15",
        lambda: with_(Tale().accepted().ends("running"), poison=frozenset({SAGA})),
    ),
    "an assertion has failed": (
        "defect",
        lambda: with_(GOOD["completed"](), defects=["AssertionError()"]),
    ),
}


@pytest.mark.parametrize("story", BAD)
def test_what_is_bad_is_found(story: str) -> None:
    invariant, tale = BAD[story]
    assert invariant in found(tale())


def test_a_violation_is_told_as_the_story_of_its_saga() -> None:
    """What others did is left out; what was broken meanwhile is not."""
    tale = Tale().accepted()
    tale.effect("action", "a", 1, "trip:other")
    tale.lines.append(Trouble(7, "crash", "shard-0#1"))
    seen = tale.done("a").ends("compensated", "NO")
    text = "\n".join(story_of(seen, SAGA))
    assert "caller-0 hears: submit ok" in text
    assert "crash shard-0#1" in text
    assert text.count("disk of p: action of a") == 1
    assert text.splitlines()[-1].startswith("   at last  Reading(phase='compensated'")
