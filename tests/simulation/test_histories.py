"""The same seed is the same history; thousands of seeds break no promise, and reach all trouble."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raysaga.api.compiling import CannotCompileError, compile_modules
from raysaga.compiled import COMPILED_FOLDER, MANIFEST, source_hash
from raysaga.simulation.checker import check
from raysaga.simulation.play import play
from raysaga.simulation.recipe import DEEDS, RATES, Recipe, recipe_of
from raysaga.simulation.swarm import Tally, run

SEEDS = int(os.environ.get("RAYSAGA_SIMULATED_SEEDS", "10000"))
"""For each form of the modules; as many as take two cores about three minutes."""

KEPT = Path(__file__).parent / "kept"

PRINT_WHETHER_COMPILED = """
from raysaga.compiled import is_compiled
from raysaga.actors.host import SagaHost
from raysaga.statemachines.decide import decide
print(is_compiled(), SagaHost.give, decide)
"""

PRINT_HISTORIES = """
import hashlib
from raysaga.simulation.play import play
from raysaga.simulation.recipe import recipe_of
for seed in (3, 11, 42, 346, 1757):
    print(seed, hashlib.sha256(play(recipe_of(seed)).text().encode()).hexdigest())
"""


def histories(hash_seed: str, program: str = PRINT_HISTORIES, **surroundings: str) -> str:
    """Return hashes of some histories, played in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, **surroundings},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_the_same_seed_is_the_same_history_in_every_process() -> None:
    """Byte for byte, however strings are hashed in it."""
    first = histories("1")
    assert first.count("\n") == 5
    assert first == histories("2") == histories("random")


def test_a_history_does_not_depend_on_those_played_before() -> None:
    alone = play(recipe_of(42)).text()
    play(recipe_of(41))
    assert play(recipe_of(42)).text() == alone
    assert play(recipe_of(43)).text() != alone


def test_a_recipe_that_was_written_down_is_the_same_history(tmp_path: Path) -> None:
    recipe = recipe_of(346)
    recipe.write(tmp_path / "kept.json")
    assert play(Recipe.read(tmp_path / "kept.json")).text() == play(recipe).text()


def test_every_fault_and_every_deed_is_drawn_by_some_seeds_and_left_out_by_others() -> None:
    recipes = [recipe_of(seed) for seed in range(300)]
    for fault in RATES:
        assert 0 < sum(fault in recipe.rates for recipe in recipes) < 300
    for what in (*DEEDS, "submit"):
        with_it = [any(deed.what == what for deed in recipe.deeds) for recipe in recipes]
        assert any(with_it)
        assert what == "submit" or not all(with_it)


@pytest.mark.parametrize("path", sorted(KEPT.glob("*.json")), ids=lambda path: path.stem)
def test_a_history_that_once_broke_a_promise_keeps_them_all(path: Path) -> None:
    assert check(play(Recipe.read(path))) == []


@pytest.fixture(scope="module")
def compiled() -> None:
    """Have the modules compiled, as they are now."""
    manifest = COMPILED_FOLDER / MANIFEST
    if manifest.exists() and json.loads(manifest.read_text())["source_hash"] == source_hash():
        return
    try:
        compile_modules()
    except CannotCompileError as error:
        if "no C compiler" in str(error):
            pytest.skip(f"compiled modules are not tested here: {error}")
        raise


@pytest.mark.compiled
@pytest.mark.timeout(900)
def test_compiled_modules_play_the_same_histories_byte_for_byte(compiled: None) -> None:
    whether = histories("1", PRINT_WHETHER_COMPILED, RAYSAGA_PURE="")
    assert whether.startswith("True <method 'give'"), whether
    assert "<built-in function decide>" in whether
    assert histories("1", RAYSAGA_PURE="") == histories("1")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "form",
    [pytest.param("1", id="pure"), pytest.param("", id="compiled", marks=pytest.mark.compiled)],
)
def test_thousands_of_seeds_break_no_promise_and_reach_every_trouble(
    form: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that never got into trouble would prove nothing, and does not pass."""
    if not form:
        request.getfixturevalue("compiled")
    # Each worker is a process of its own, and takes the form that the environment says.
    monkeypatch.setenv("RAYSAGA_PURE", form)
    total = Tally()
    for total in run(0 if form else SEEDS, seeds=SEEDS):  # noqa: B007 - the last one is the sum
        pass
    assert not total.failures, "\n".join(
        f"seed {seed}: {violation}" for seed, found in total.failures for violation in found
    )
    assert total.seeds == SEEDS
    assert not total.never
