#!/usr/bin/env bash
# Builds once, then runs each suite and prints how long it took.
set -euo pipefail
cd "$(dirname "$0")/.."

# One build of everything: a narrower one would compile shared crates again with other features.
started=$SECONDS
cargo test --workspace --locked --no-run --quiet
printf 'suite %-28s %4d s\n' build $((SECONDS - started))

# What nohup and background jobs of scripts ignore from birth is what tests of Ctrl-C are about.
listening=()
env --default-signal=HUP,INT true 2>/dev/null && listening=(env --default-signal=HUP,INT)

status=0
suite() {
  local name=$1
  shift
  local began=$SECONDS
  "${listening[@]}" "$@" || status=$?
  printf 'suite %-28s %4d s%s\n' "$name" $((SECONDS - began)) "$([ "$status" -eq 0 ] || echo '  FAILED')"
  [ "$status" -eq 0 ] || exit "$status"
}

suite "unit and in-process" cargo test --workspace --locked --quiet --exclude motefarm-tests
# The whole proof: links cut for two minutes, a gigabyte of output. Much of it is waiting, so more
# tests run at once than there are processors.
export MOTE_TEST_LONG=1 MOTE_TEST_BIG=1
RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) + 2))}
export RUST_TEST_THREADS
suite "end to end" cargo test --workspace --locked --quiet --test e2e
