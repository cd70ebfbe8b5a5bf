#!/usr/bin/env bash
# What CI checks besides the tests.
set -euo pipefail
cd "$(dirname "$0")/.."

step() {
  local began=$SECONDS name=$1
  shift
  "$@"
  printf 'check %-28s %4d s\n' "$name" $((SECONDS - began))
}

step fmt cargo fmt --all --check
step clippy cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
step docs env RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items --locked --quiet
if cargo deny --version >/dev/null 2>&1; then
  # Advisories need their database from the network; licences, bans and sources do not.
  step deny cargo deny check bans licenses sources
else
  echo "check deny: SKIPPED, cargo-deny is not installed"
fi
