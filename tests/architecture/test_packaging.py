"""What a user installs is what the repository shows: one package, whole, and nothing beside.

Method: build a wheel from the tree, a source archive from the tree, and a wheel from that
archive, with the environment's own setuptools, so that no network is needed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


def run(*command: str, cwd: Path) -> str:
    """Run Python with `command` in `cwd`; return what it printed."""
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build_wheel(tree: Path, target: Path) -> Path:
    """Build the wheel of `tree` into the folder `target`."""
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    run("-m", "pip", "wheel", *options, "--wheel-dir", str(target), str(tree), cwd=tree)
    return next(target.glob("*.whl"))


@pytest.fixture
def wheel(copied_tree: Path, tmp_path: Path) -> Path:
    """The wheel of the tree."""
    return build_wheel(copied_tree, tmp_path / "wheel")


def contents(wheel: Path) -> set[str]:
    """Return the names of the files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_a_wheel_holds_the_package_whole_and_nothing_beside(
    wheel: Path, root: Path, folders: list[str]
) -> None:
    names = contents(wheel)
    ours = {name for name in names if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in ours} == {"raysaga"}
    expected = {
        f"raysaga/{module.relative_to(root).as_posix()}"
        for folder in folders
        for module in (root / folder).rglob("*.py")
    }
    assert len(expected) >= 40
    assert expected <= ours
    assert "raysaga/py.typed" in ours
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_a_wheel_carries_the_sample_orders(wheel: Path, root: Path) -> None:
    samples = {path.name for path in (root / "api" / "sample").iterdir()}
    assert samples
    assert {f"raysaga/api/sample/{name}" for name in samples} <= contents(wheel)


def test_a_wheel_carries_the_operators_page(wheel: Path, root: Path) -> None:
    page = {path.name for path in (root / "console" / "static").iterdir()}
    assert {"index.html", "main.js", "style.css"} <= page
    assert {f"raysaga/console/static/{name}" for name in page} <= contents(wheel)


def test_a_wheel_from_the_source_archive_is_the_same(
    wheel: Path, copied_tree: Path, tmp_path: Path
) -> None:
    build = "import setuptools.build_meta as b, sys; b.build_sdist(sys.argv[1])"
    run("-c", build, str(tmp_path), cwd=copied_tree)
    archive = next(tmp_path.glob("*.tar.gz"))
    shutil.unpack_archive(archive, tmp_path / "unpacked")
    unpacked = next((tmp_path / "unpacked").iterdir())
    assert contents(build_wheel(unpacked, tmp_path / "again")) == contents(wheel)


def test_an_installed_wheel_is_what_python_imports(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    program = (
        "import raysaga.statemachines.order as order, raysaga.storage.journal as journal\n"
        "print(order.__file__, journal.__file__, order.order_saga.content_hash)"
    )
    told = run("-c", program, cwd=target).split()
    assert Path(told[0]) == target / "raysaga" / "statemachines" / "order.py"
    assert Path(told[1]) == target / "raysaga" / "storage" / "journal.py"
