"""Bounds that depend on each other."""

from __future__ import annotations

import pytest

from raysaga.actors.settings import SKEW_MS, EngineSettings
from raysaga.statemachines.definition import TIMEOUT_MS_MAX


@pytest.mark.parametrize("retention_ms", [0, 1, 60_000])
@pytest.mark.parametrize("action_life_ms", [1_000, TIMEOUT_MS_MAX, 3 * TIMEOUT_MS_MAX])
def test_a_ledger_keeps_a_row_until_every_copy_of_its_action_is_dead(
    retention_ms: int, action_life_ms: int
) -> None:
    settings = EngineSettings(retention_ms=retention_ms, action_life_ms=action_life_ms)
    assert settings.rows_kept_ms >= max(action_life_ms, TIMEOUT_MS_MAX) + SKEW_MS


def test_a_ledger_keeps_a_row_for_as_long_as_it_is_asked_to() -> None:
    settings = EngineSettings()
    assert settings.rows_kept_ms == settings.retention_ms
