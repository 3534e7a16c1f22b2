#!/usr/bin/env bash
# Installs what the faults of chaos are made with, where that can be done without asking anybody:
# as root, on Debian or a descendant. Elsewhere each fault says by name what it misses.
set -euo pipefail
missing=()
command -v strace > /dev/null || missing+=(strace)
command -v ip > /dev/null || missing+=(iproute2)
command -v mount > /dev/null || missing+=(mount)
if [ "${#missing[@]}" -eq 0 ]; then
  exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get > /dev/null; then
  echo "Some faults need ${missing[*]}, and are not played; on Debian: apt-get install ${missing[*]}" >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
{ apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } > /dev/null 2>&1 ||
  echo "${missing[*]} could not be installed; some faults are not played" >&2
