#!/usr/bin/env bash
# Runs every fuzz target for so many seconds (60), on one processor, and says how often each ran.
# Where cargo-fuzz is missing, or a compiler that it can use, it says so and does nothing.
#
#   scripts/fuzz.sh [SECONDS_PER_TARGET] [TARGET...]
#
# fuzz/corpus is read only: what a run adds goes to fuzz/findings/corpus, what it finds to
# fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(tar_in tree ls exec_request reapi_calls reapi_write reapi_action
  goma_request goma_result goma_hash_map)

if ! cargo fuzz --version >/dev/null 2>&1; then
  echo 'fuzz: SKIPPED: cargo-fuzz is not installed (cargo install cargo-fuzz)'
  exit 0
fi
if ! command -v c++ >/dev/null 2>&1; then
  echo 'fuzz: SKIPPED: there is no C++ compiler, which libFuzzer is built with (Debian: g++)'
  exit 0
fi
# Coverage needs flags that only a nightly compiler takes, or a stable one told that it may.
export RUSTC_BOOTSTRAP=1
# Sanitizers find nothing more in code without `unsafe`, and cost half the speed.
options=(--sanitizer none)
if ! cargo fuzz build "${options[@]}"; then
  if echo 'fn main() {}' | rustc -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -o /dev/null - 2>/dev/null; then
    echo 'fuzz: the targets do not build' >&2
    exit 1
  fi
  echo 'fuzz: SKIPPED: this compiler can not instrument for coverage'
  exit 0
fi

# In memory where that can be: the targets make and remove files thousands of times a second.
memory=/dev/shm
[ -w "$memory" ] || memory=${TMPDIR:-/tmp}
MOTE_FUZZ_GROUND=$(mktemp -d "$memory/mote-fuzz.XXXXXX")
export MOTE_FUZZ_GROUND
trap 'rm -rf "$MOTE_FUZZ_GROUND"' EXIT
status=0
for target in "${targets[@]}"; do
  mkdir -p "findings/corpus/$target"
  log=findings/$target.log
  cargo fuzz run "${options[@]}" "$target" "findings/corpus/$target" "corpus/$target" -- \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=16384 -print_final_stats=1 >"$log" 2>&1 || status=1
  count=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
  printf 'fuzz: %-13s %12s executions, %s a second\n' "$target" "${count:-?}" "${rate:-?}"
  if [ "$status" -ne 0 ]; then
    tail -n 40 "$log" >&2
    echo "fuzz: $target FAILED; the input is in fuzz/artifacts/$target" >&2
    exit 1
  fi
done
