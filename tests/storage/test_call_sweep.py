"""Each system call of a journal fails once, as the disk may have it, and what was told is there.

A sweep over the number of the call: whichever fails, the writer ends or is refused, and who
opens the journal next finds all that was told, no half batch, and nothing to repair.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.tables import Phase
from raysaga.storage.journal import HeadFilter

from .children import running_child
from .conftest import expect_sound, open_lmdb

LINES_MAX = 12
"""Batches after which a writer that goes on has shown that it does."""

BATCH = 8
"""Sagas in each batch of the child."""

CALLS = [
    *(("fdatasync", "EIO", number) for number in (1, 2, 3)),
    *(("pwrite64", "EIO", number) for number in (1, 2, 3, 4, 6)),
    *(("writev", "EIO", number) for number in (1, 2)),
    *((call, "EROFS", 2) for call in ("fdatasync", "pwrite64", "writev")),
    *((call, "ENOSPC", 2) for call in ("fdatasync", "pwrite64", "writev")),
    *((call, "EINTR", 2) for call in ("fdatasync", "pwrite64", "writev")),
]


@pytest.fixture(scope="module", autouse=True)
def _strace() -> None:
    try:
        subprocess.run(["strace", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"system calls cannot be made to fail here: {error}")


@pytest.mark.parametrize(("call", "error", "number"), CALLS)
def test_whichever_call_fails_what_was_told_is_there_and_no_half_of_a_batch(
    tmp_path: Path, call: str, error: str, number: int
) -> None:
    open_lmdb(tmp_path / "j").close()
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "--seccomp-bpf", "-o", str(trace), "-P", f"{tmp_path}/j/data.mdb"]
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={number}"]
    told: list[str] = []
    with running_child(tmp_path / "j", "busy", under=[*strace, *inject]) as child:
        while len(told) < LINES_MAX and (line := child.hear()):
            told.append(line)
    assert "(INJECTED)" in trace.read_text()
    if error in ("EIO", "EROFS"):
        assert len(told) < LINES_MAX, "it ends, and does not try again what may have happened"
    journal = open_lmdb(tmp_path / "j")
    expect_sound(journal)
    for line in told[1:]:
        word, *ids = line.split()
        heads = [journal.head(SagaId(saga_id)) for saga_id in ids]
        assert all(head is not None for head in heads), line
        assert word == "began" or all(h and h.phase is Phase.COMPLETED for h in heads), line
    found = journal.heads(HeadFilter(), limit=1_000)
    completed = [head for head in found if head.phase is Phase.COMPLETED]
    assert (len(found) - len(completed)) % BATCH == 0, "a batch is whole, or not there"
    journal.close()
