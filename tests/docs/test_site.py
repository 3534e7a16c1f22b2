"""The documentation site is built strictly, and loads nothing from another host."""

from __future__ import annotations

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from blocks import ROOT
from browser import OPTIONS, NoBrowserError, chromium
from playwright.sync_api import sync_playwright

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


class Silent(http.server.SimpleHTTPRequestHandler):
    """Serves files, and logs nothing."""

    def log_message(self, *args: object) -> None:
        """See the base class."""


@contextmanager
def served(site: Path) -> Iterator[str]:
    serving = functools.partial(Silent, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serving) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def path_of_chromium() -> str:
    try:
        return chromium()
    except NoBrowserError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


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


def test_a_browser_that_reads_and_searches_asks_nobody_else(site: Path) -> None:
    """What the theme's script could load by itself, such as fonts or Mermaid, is not asked for."""
    with served(site) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path_of_chromium(), args=OPTIONS)
        page = browser.new_page()
        asked: set[str] = set()
        page.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
        for name in ("", "tutorial/", "diagrams/", "reference/client/"):
            page.goto(f"{address}/{name}", wait_until="networkidle")
        page.keyboard.press("/")
        page.keyboard.type("tombstone")
        page.get_by_role("link", name="Tombstones").first.wait_for()
        assert asked == {urlsplit(address).netloc}
        browser.close()


def test_what_would_be_loaded_is_found() -> None:
    assert LOADED.findall('<script defer src="https://example.org/x.js"></script>')
    assert LOADED.findall('<link rel="stylesheet" href="//example.org/x.css">')
    assert IMPORTED.search('@import url("https://example.org/font.css")')
    assert not LOADED.findall('<a href="https://example.org">x</a><script src="x.js"></script>')
