"""A participant is made by the function that was named, or it is said why not, and what to do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from raysaga.actors.errors import ParticipantNotFoundError
from raysaga.actors.participant_maker import make_participant, maker_of
from raysaga.actors.services.serve import serve

MODULES = {
    "box_office": "LIMIT = 7\ndef serve(name, settings): return (name, settings)\n",
    "lacks_another": "import box_office_extras\n",
    "has_a_defect": "1 / 0\n",
}


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, source in MODULES.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


def test_a_participant_is_made_with_its_name_settings_and_folder(tmp_path: Path) -> None:
    made: object = make_participant("box_office:serve", "hall", tmp_path, {"seats": 2})
    assert made == ("hall", {"seats": 2, "folder": str(tmp_path)})
    assert maker_of("payment", "raysaga.actors.services.serve:serve") is serve


@pytest.mark.parametrize(
    ("target", "detail"),
    [
        ("box_offic:serve", "No module named 'box_offic'"),
        ("box_office.deeper:serve", "'box_office' is not a package"),
        ("lacks_another:serve", "No module named 'box_office_extras'"),
        ("box_office:srve", "box_office has no function 'srve'"),
        ("box_office:LIMIT", "box_office has no function 'LIMIT'"),
        ("box_office", "not of the form MODULE:FUNCTION"),
        (":serve", "not of the form MODULE:FUNCTION"),
        (".box_office:serve", "not of the form MODULE:FUNCTION"),
        ("http://box-office", "not of the form MODULE:FUNCTION"),
        ("", "not of the form MODULE:FUNCTION"),
    ],
)
def test_a_name_that_leads_nowhere_is_told_with_its_participant(target: str, detail: str) -> None:
    with pytest.raises(ParticipantNotFoundError) as caught:
        maker_of("hall", target)
    assert caught.value.code == "PARTICIPANT_NOT_FOUND"
    assert (caught.value.participant, caught.value.target) == ("hall", target)
    assert detail in caught.value.detail
    assert "PYTHONPATH" in str(caught.value)


def test_what_a_module_raises_by_itself_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        maker_of("hall", "has_a_defect:serve")
