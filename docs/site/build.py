"""Builds the documentation site: stages pages, writes those that are generated, builds strictly.

    python docs/site/build.py build     # build/site, from build/docs

A link that leads nowhere, or a name that is not in the code, fails the build. The site loads
nothing from another host.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from pages import command_line_page, http_page

ROOT = Path(__file__).parents[2]


def stage(build: Path) -> None:
    """Put together what the site is built from."""
    docs = build / "docs"
    shutil.rmtree(docs, ignore_errors=True)
    shutil.copytree(ROOT / "docs", docs, ignore=shutil.ignore_patterns("*.py", "*.toml", "__*"))
    shutil.copy(ROOT / "docs" / "site" / "zensical.toml", build)
    face = build / "raysaga"
    face.unlink(missing_ok=True)
    face.symlink_to(ROOT / "raysaga")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (docs / "CHANGELOG.md").write_text(changes.replace("](docs/", "]("), encoding="utf-8")
    (docs / "decisions" / "index.md").write_text(decisions_page(docs), encoding="utf-8")
    (docs / "reference" / "command-line.md").write_text(command_line_page(), encoding="utf-8")
    (docs / "reference" / "http.md").write_text(http_page(), encoding="utf-8")


def decisions_page(docs: Path) -> str:
    """Return a page that lists the decision records."""
    rows = []
    for record in sorted((docs / "decisions").glob("0*.md")):
        number, _, title = record.read_text(encoding="utf-8").partition("\n")[0].partition(": ")
        rows.append(f"| {number.removeprefix('# ')} | [{title}]({record.name}) |")
    return "# Decisions\n\n| | |\n|---|---|\n" + "\n".join(rows) + "\n"


def main(build: Path) -> int:
    """Build into the folder `site` of `build`; return the exit code."""
    build.mkdir(parents=True, exist_ok=True)
    stage(build.resolve())
    zensical = Path(sys.executable).with_name("zensical")
    done = subprocess.run(  # noqa: S603 - ours
        [zensical, "build", "--strict", "--clean", "-f", build.resolve() / "zensical.toml"],
        check=False,
        capture_output=True,
        text=True,
    )
    sys.stdout.write(re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
