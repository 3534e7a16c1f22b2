"""Engines that come and go on one folder: what a later one knows of the earlier ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cluster_engine import SERVICES, TROUBLED, Engine, start_engine, swift, until

import raysaga
from raysaga.api.blocking import connect_blocking
from raysaga.storage.participants_note import NOTE_FILE

pytestmark = pytest.mark.cluster

own = swift("own", schedule_shipping={"participant": "depot"}, deadline_ms=None)


def failure_codes(engine: Engine, saga_id: str) -> set[str]:
    rows = engine.sagas.history(saga_id)
    return {row["code"] for row in rows if row["event"] == "attempt_failed"}


@pytest.mark.usefixtures("engine")
def test_an_engine_that_names_no_participants_serves_those_that_its_folder_notes(
    tmp_path: Path,
) -> None:
    """And one whose folder does not note them lets the saga wait, which is never turned back."""
    folder = tmp_path / "data"
    participants = dict.fromkeys(SERVICES, TROUBLED)
    participants["depot"] = "troubled_services:serve_depot"
    connection, engine = start_engine(folder, "own", participants=participants)
    order = engine.order()
    saga_id = f"own:{order['order_id']}"
    note = engine.trouble(saga_id, "schedule_shipping", "action", "before", "always hang")
    engine.sagas.submit(own, order, key=order["order_id"])
    until(lambda: ("process_payment", "action") in engine.effects(saga_id), "it is half way")
    engine.sagas.stop_engine()
    connection.__exit__(None, None, None)
    note.unlink()

    noted = (folder / NOTE_FILE).read_text()
    (folder / NOTE_FILE).unlink()
    with connect_blocking(folder) as sagas:
        engine.sagas = sagas
        until(lambda: "NO_SUCH_PARTICIPANT" in failure_codes(engine, saga_id), "it is not found")
        assert sagas.status(saga_id)["phase"] == "running"
        sagas.stop_engine()

    (folder / NOTE_FILE).write_text(noted)
    with connect_blocking(folder) as sagas:
        assert sagas.handle(saga_id).result(timeout_s=60).status == "completed"
        sagas.stop_engine()


def test_a_participant_that_cannot_be_made_is_told_to_who_would_start_the_engine(
    tmp_path: Path,
) -> None:
    """And nothing of it is left in the way of the next one."""
    participants = {"depot": "no_such_services:serve"}
    with pytest.raises(raysaga.ParticipantNotFoundError) as caught:
        connect_blocking(tmp_path / "data", participants=participants).__enter__()
    assert (caught.value.participant, caught.value.target) == ("depot", participants["depot"])
    assert "No module named 'no_such_services'" in str(caught.value)
    assert not (tmp_path / "data" / NOTE_FILE).exists()
    with connect_blocking(tmp_path / "data") as sagas:
        assert len(sagas.stats()) == 1


def test_a_client_that_names_a_participant_which_the_engine_lacks_is_told_so(
    tmp_path: Path,
) -> None:
    """Participants count when an engine starts; else a saga of his would wait for ever."""
    folder = tmp_path / "data"
    with connect_blocking(folder) as sagas:
        late = connect_blocking(folder, participants={"depot": "troubled_services:serve_depot"})
        with pytest.raises(raysaga.ParticipantNotServedError) as caught:
            late.__enter__()
        assert caught.value.participants == ["depot"]
        assert {"inventory", "payment", "shipping", "notification"} <= set(caught.value.served)
        # Who names those that are served joins them, and the first goes on.
        with connect_blocking(folder, participants=dict.fromkeys(SERVICES, TROUBLED)) as other:
            assert len(other.stats()) == 1
        assert len(sagas.stats()) == 1


NO_INIT = """
import ctypes, os, signal, subprocess, sys
import psutil

PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
folder, killed, later = sys.argv[1:]
try:
    assert subprocess.run([sys.executable, "-c", killed, folder]).returncode == -signal.SIGKILL
    assert subprocess.run([sys.executable, "-c", later, folder], timeout=60).returncode == 0
    gone = [p for p in psutil.Process().children() if p.status() == psutil.STATUS_ZOMBIE]
    assert "raylet" in {p.name() for p in gone}, "the dead are not reaped here"
finally:
    for child in psutil.Process().children(recursive=True):
        child.kill()
"""


def test_an_engine_follows_one_whose_ray_was_killed_where_nobody_reaps_the_dead(
    tmp_path: Path,
) -> None:
    """As in a container whose first process is the program itself: Ray's workers live on there."""
    opening = (
        "import os, signal, sys; from raysaga.api.blocking import connect_blocking\n"
        "with connect_blocking(sys.argv[1]) as sagas: "
    )
    run = subprocess.run(
        [
            *(sys.executable, "-c", NO_INIT, str(tmp_path / "data")),
            f"{opening}os.kill(os.getpid(), signal.SIGKILL)",
            f"{opening}print(len(sagas.stats()))",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (run.returncode, run.stdout.split()) == (0, ["1"]), run.stderr[-2_000:]


def test_another_process_finds_the_local_ray_of_a_folder_without_being_told_more(
    engine: Engine,
) -> None:
    """A local Ray asks for a token, and only its own processes inherit that it does."""
    environment = {name: text for name, text in os.environ.items() if name != "RAY_AUTH_MODE"}
    program = (
        "import sys; from raysaga.api.blocking import connect_blocking\n"
        "with connect_blocking(sys.argv[1]) as sagas: print(len(sagas.stats()))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(engine.folder)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.stdout.split()[-1:] == ["1"], run.stderr[-2_000:]
