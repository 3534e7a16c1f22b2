"""What a saga pays for: the activities of a process add up to what was measured."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from raysaga.bench.activities import OTHER, activity_of, shares
from raysaga.bench.compiled_frames import as_sources
from raysaga.bench.flames import flame_graph
from raysaga.bench.profile_run import NATIVE, stacks_in, weighted

LOOP = "Runner.run (asyncio/runners.py:86)"
HOST = "SagaHost._take (raysaga/actors/host.py:10)"


@pytest.mark.parametrize(
    ("leaf", "activity"),
    [
        ("decide (raysaga/statemachines/decide.py:1)", "decide"),
        ("move_saga (raysaga/statemachines/machine.py:1)", "transitions"),
        ("encode_record (raysaga/storage/codec.py:1)", "encode"),
        ("Environment.write (raysaga/storage/lmdb_environment.py:1)", "commit"),
        ("Ledger.handle (raysaga/storage/ledger.py:1)", "ledger"),
        ("unpack_messages (raysaga/actors/wire.py:40)", "receive"),
        ("pack_message (raysaga/actors/wire.py:20)", "send"),
        ("packb (msgpack/__init__.py:30)", "send"),
        ("Inventory.reserve (raysaga/actors/services/inventory.py:1)", "service"),
        ("blake2b (nobody/knows.py:1)", "host"),
    ],
)
def test_the_nearest_frame_that_is_known_decides(leaf: str, activity: str) -> None:
    assert activity_of([LOOP, HOST, leaf]) == activity


def test_what_nobody_knows_is_other_and_everything_adds_up() -> None:
    stacks = {(LOOP, HOST): 3.0, ("x (y.py:1)",): 1.0}
    assert activity_of(["x (y.py:1)"]) == OTHER
    assert sum(shares(stacks).values()) == pytest.approx(1.0)


def test_samples_are_weighted_by_what_their_thread_has_used() -> None:
    """A thread that mostly sleeps is sampled as often as one that works."""
    text = f"thread (7): main;{LOOP} 50\nthread (8): io;{HOST} 30\nthread (8): io;{LOOP} 20\n"
    found = weighted(stacks_in(text), {7: 0.1, 8: 2.0, 9: 0.4})
    assert found[(HOST,)] == pytest.approx(1.2)
    assert found[(LOOP,)] == pytest.approx(0.1 + 0.8)
    assert found[NATIVE] == pytest.approx(0.4)


def test_a_flame_graph_is_a_picture_of_its_stacks() -> None:
    picture = ElementTree.fromstring(flame_graph("a < b", {(LOOP, HOST): 3.0, (LOOP,): 1.0}))
    told = [title.text for title in picture.iter("{http://www.w3.org/2000/svg}title")]
    assert told == [f"{LOOP}: 100.0%", f"{HOST}: 75.0%"]


def test_a_compiled_function_is_told_as_its_source() -> None:
    stack = [
        "thread (7): MainThread",
        "0x7fc7e484524a (libc.so.6)",
        LOOP,
        "CPyPy_codec___check_value (raysaga__mypyc.so)",
        "CPyDef_codec___check_value.localalias (raysaga__mypyc.so)",
        "CPyDict_GetItem (raysaga__mypyc.so)",
        "__Pyx_Call (loop.cpython-311-x86_64-linux-gnu.so)",
    ]
    found = as_sources(stack, {"codec": "raysaga/storage/codec.py"})
    assert found == (stack[0], LOOP, "check_value (raysaga/storage/codec.py)")
    assert activity_of(found) == "encode"
