"""Which participants an engine serves: the named, the noted, the usual, in this order."""

from __future__ import annotations

from typing import Any

from raysaga.actors.settings import EngineSettings
from raysaga.actors.shells.plan import EnginePlan
from raysaga.storage.participants_note import ParticipantsNote

NOTE = ParticipantsNote({"shop": "noted:serve", "bank": "gone:serve"}, {"shop": {"noted": 1}})


def plan_of(**fields: Any) -> EnginePlan:
    usual = {"bank": "usual:serve", "post": "usual:serve"}
    given = {"participants": {}, "services": {}, "usual_participants": usual, **fields}
    return EnginePlan(
        engine="e", namespace="n", folder="f", shard_count=1, settings=EngineSettings(), **given
    )


def test_what_is_noted_is_served_beside_the_usual_unless_it_is_not_found() -> None:
    """Nor is the usual one of that name, which would be another service on its ledger."""
    settled = plan_of(usual_services={"post": {"usual": 1}}).settled(
        NOTE, lambda function: function != "gone:serve"
    )
    assert settled.participants == {"shop": "noted:serve", "post": "usual:serve"}
    assert settled.services == {"shop": {"noted": 1}, "post": {"usual": 1}}


def test_who_is_named_comes_before_who_is_noted_whether_found_or_not() -> None:
    named = {"shop": "newer:serve", "bank": "newer:serve"}
    settled = plan_of(participants=named, services={"shop": {"newer": 1}}).settled(
        NOTE, lambda _function: False
    )
    assert settled.participants == {**named, "post": "usual:serve"}
    assert settled.services == {"shop": {"newer": 1}}
