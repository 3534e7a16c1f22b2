#!/usr/bin/env bash
# Fetches promtool, which reads metrics and alert rules as Prometheus does, out of Debian's package
# and into the user's cache; nothing is installed. Elsewhere its tests say that they miss it.
set -euo pipefail
home=${XDG_CACHE_HOME:-$HOME/.cache}/raysaga/promtool
if command -v promtool > /dev/null || [ -x "$home/promtool" ]; then exit 0; fi
if ! command -v apt-get > /dev/null || ! command -v dpkg-deb > /dev/null; then
  echo "promtool is missing, so its tests are skipped; Prometheus comes with it" >&2
  exit 0
fi
fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT
chmod 755 "$fetched"
cd "$fetched"
{ [ "$(id -u)" -ne 0 ] || apt-get update; } > /dev/null 2>&1 || true
if apt-get download prometheus > /dev/null 2>&1 && dpkg-deb -x prometheus_*.deb . ; then
  mkdir -p "$home"
  mv usr/bin/promtool "$home/promtool"
else
  echo "promtool could not be fetched, so its tests are skipped" >&2
fi
