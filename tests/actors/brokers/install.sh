#!/usr/bin/env bash
# Installs the brokers that the tests start, where that can be done without asking anybody:
# as root, on Debian or a descendant. Elsewhere the tests say by name what they miss.
set -euo pipefail
if [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]; then
  exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get > /dev/null; then
  echo 'RabbitMQ is not installed, and its tests are skipped; on Debian: apt-get install rabbitmq-server' >&2
  exit 0
fi
# The tests start brokers of their own; the package's must not start beside them.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
{ apt-get update && apt-get install -y --no-install-recommends rabbitmq-server; } > /dev/null 2>&1 ||
  echo 'RabbitMQ could not be installed; its tests are skipped' >&2
