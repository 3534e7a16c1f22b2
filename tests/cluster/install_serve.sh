#!/usr/bin/env bash
# Makes the environment in which the tests run Ray Serve: that of all tests, and Ray Serve's own
# packages beside it. Not in it: with them Ray starts agents and dashboards that it does without
# everywhere else. Where it cannot be made, the tests say by name what they miss.
set -euo pipefail
serve=.venv/serve
if [ -e "$serve/.installed" ]; then
  exit 0
fi
{
  .venv/bin/python -m venv --clear "$serve"
  # What is there already is found there.
  site=$(.venv/bin/python -c 'import site; print(site.getsitepackages()[0])')
  echo "$site" > "$("$serve/bin/python" -c 'import site; print(site.getsitepackages()[0])')/beside.pth"
  "$serve/bin/python" -m pip install --quiet --constraint constraints.txt --upgrade 'ray[serve]'
  touch "$serve/.installed"
} > /dev/null 2>&1 ||
  echo 'Ray Serve could not be installed; its tests are skipped' >&2
