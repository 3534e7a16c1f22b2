#!/usr/bin/env bash
# Installs the brokers that the tests start, where that can be done without asking anybody:
# RabbitMQ as root, on Debian or a descendant; Kafka where there are Java and Maven, or the former
# can be. Elsewhere the tests say by name what they miss.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
jars=${XDG_CACHE_HOME:-$HOME/.cache}/raysaga/kafka
packages=()
[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || packages+=(rabbitmq-server)
command -v java > /dev/null || packages+=(default-jre-headless)
compgen -G "$jars/kafka_*.jar" > /dev/null || command -v mvn > /dev/null || packages+=(maven)

if [ ${#packages[@]} -gt 0 ]; then
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get > /dev/null; then
    echo "missing, so their tests are skipped; on Debian: apt-get install ${packages[*]}" >&2
  else
    # The tests start brokers of their own; the package's must not start beside them.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
      printf '#!/bin/sh\nexit 101\n' > "$policy"
      chmod +x "$policy"
      trap 'rm -f "$policy"' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update && apt-get install -y --no-install-recommends "${packages[@]}"; } > /dev/null 2>&1 ||
      echo "could not be installed, so their tests are skipped: ${packages[*]}" >&2
  fi
fi

if ! compgen -G "$jars/kafka_*.jar" > /dev/null && command -v mvn > /dev/null; then
  fetched=$(mktemp -d)
  if mvn -q -B -f "$here/kafka.pom.xml" -DincludeScope=runtime -DoutputDirectory="$fetched" \
    org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies > "$fetched/log" 2>&1
  then
    rm "$fetched/log"
    mkdir -p "$(dirname "$jars")"
    rm -rf "$jars"
    mv "$fetched" "$jars"
  else
    echo "Kafka could not be fetched, and its tests are skipped; see $fetched/log" >&2
  fi
fi
