"""The documentation site is built strictly, and loads nothing from another host."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from blocks import ROOT

import raysaga

LOADED = re.compile(
    r"""<(?:script|img|iframe|source|embed)\b[^>]*?\bsrc=["']?(?:https?:)?//[^"'>\s]+"""
    r"""|<link\b[^>]*?\bhref=["']?(?:https?:)?//[^"'>\s]+""",
    re.IGNORECASE,
)
CANONICAL = re.compile(r'<link\b[^>]*rel="?(?:canonical|next|prev)')
IMPORTED = re.compile(r"""(?:@import|url\()\s*["']?(?:https?:)?//""")


def build(into: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "docs" / "site" / "build.py"), str(into)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("build")
    done = build(into)
    assert done.returncode == 0, done.stdout + done.stderr
    return into / "site"


def test_every_page_is_there(site: Path) -> None:
    pages = {path.parent.relative_to(site).as_posix() for path in site.rglob("index.html")}
    assert {".", "tutorial", "GUIDE", "reference/client", "reference/command-line"} <= pages
    assert len(pages) > 40


def test_the_reference_has_every_public_name(site: Path) -> None:
    text = "".join(path.read_text() for path in (site / "reference").rglob("index.html"))
    anchors = set(re.findall(r'id="raysaga\.(\w+)"', text))
    assert set(raysaga.__all__) - anchors == {"__version__"}


def test_the_reference_has_commands_and_requests(site: Path) -> None:
    commands = (site / "reference" / "command-line" / "index.html").read_text()
    assert "raysaga restore" in commands
    requests = (site / "reference" / "http" / "index.html").read_text()
    assert "POST /sagas/{definition}" in requests


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    """Scripts and fonts are the site's own; Mermaid's fence, which would load one, is off."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        found = [tag for tag in LOADED.findall(text) if not CANONICAL.match(tag)]
        assert not found, f"{page}: {found}"
        assert 'class="mermaid"' not in text, page
    for sheet in site.rglob("*.css"):
        assert not IMPORTED.search(sheet.read_text(encoding="utf-8")), sheet


def test_what_would_be_loaded_is_found() -> None:
    assert LOADED.findall('<script defer src="https://example.org/x.js"></script>')
    assert LOADED.findall('<link rel="stylesheet" href="//example.org/x.css">')
    assert IMPORTED.search('@import url("https://example.org/font.css")')
    assert not LOADED.findall('<a href="https://example.org">x</a><script src="x.js"></script>')
