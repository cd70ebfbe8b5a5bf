#!/usr/bin/env bash
# A farm on this machine, in front of your eyes: lease, push a real C project (the zstd library, as
# its crate ships it), build it, kill the coordinator in the middle, collect, let the lease expire.
# Everything lives in one temporary folder that is removed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

bold=$(tput bold 2>/dev/null || true) dim=$(tput dim 2>/dev/null || true) plain=$(tput sgr0 2>/dev/null || true)
say() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
show() {
  printf '%s$ %s%s\n' "$dim" "$*" "$plain"
  "$@"
}
fail() {
  printf 'demo: %s\n' "$*" >&2
  exit 1
}

say "Building the programs"
cargo build --workspace --locked
PATH=$PWD/target/debug:$PATH

home=$(mktemp -d "${TMPDIR:-/tmp}/mote-demo.XXXXXX")
export XDG_DATA_HOME=$home/data XDG_CONFIG_HOME=$home/config XDG_CACHE_HOME=$home/cache
unset MOTE_CONFIG_DIR MOTE_SERVER MOTE_TOKEN MOTE_CA MOTE_FARM 2>/dev/null || true
coordinator=
data=$XDG_DATA_HOME/motefarm
cleanup() {
  status=$?
  trap - EXIT
  [ -n "$coordinator" ] && kill "$coordinator" 2>/dev/null && wait "$coordinator" 2>/dev/null
  # The buildlet and what it keeps are daemons of their own; end what belongs to this demo's folder.
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    pkill -TERM -f "$home" 2>/dev/null || break
    sleep 0.2
  done
  pkill -KILL -f "$home" 2>/dev/null || true
  [ "$status" -eq 0 ] || { echo "demo: failed; the coordinator's log ends:" >&2; tail -20 "$home/log" >&2 || true; }
  rm -rf "$home"
  exit "$status"
}
trap cleanup EXIT INT TERM

cat >"$home/farm.toml" <<'TOML'
# Everything but this has its default; the demo does not want to wait 30 minutes.
[leases]
idle_timeout = "8s"
TOML
start_farm() {
  mote-coordinator serve --config "$home/farm.toml" --listen "127.0.0.1:$1" 2>>"$home/log" &
  coordinator=$!
  for _ in $(seq 100); do
    mote list >/dev/null 2>&1 && return
    kill -0 "$coordinator" 2>/dev/null || fail "the coordinator did not start"
    sleep 0.1
  done
  fail "the farm does not answer"
}

say "Starting a farm on this machine, with nothing configured but a short lease"
show start_farm 0
port=$(sed -n 's/^server = ".*:\([0-9]*\)"$/\1/p' "$XDG_CONFIG_HOME/mote/farms/local.toml")
show mote create -list

say "Leasing an instance"
type=$(mote-coordinator check-config 2>/dev/null | grep -o 'linux-[a-z0-9]*' | head -1)
instance=$(mote create "$type")
show mote list

say "Pushing a real C project: the zstd library"
project=$home/zstd
host=$(rustc -vV | sed -n 's/^host: //p')
manifest=$(cargo metadata --format-version 1 --locked --offline --filter-platform "$host" | tr ',' '\n' | sed -n 's|.*"manifest_path":"\(.*/zstd-sys-[^"]*\)/Cargo.toml".*|\1|p' | head -1)
cp -r "$manifest/zstd" "$project"
cat >"$project/Makefile" <<'MAKE'
CFLAGS = -O1 -Wall -DZSTD_DISABLE_ASM -DZSTD_LEGACY_SUPPORT=5 -Ilib -Ilib/common
objects = $(patsubst %.c,%.o,$(wildcard lib/*/*.c))
zcheck: main.c libzstd.a
	$(CC) $(CFLAGS) -o $@ $^
	@echo "linked $@"
libzstd.a: $(objects)
	ar rcs $@ $^
%.o: %.c
	@echo "  CC $<"
	@$(CC) $(CFLAGS) -c -o $@ $<
MAKE
cat >"$project/main.c" <<'C'
#include <stdio.h>
#include <string.h>
#include "zstd.h"
int main(void) {
  static char text[1 << 20], packed[1 << 20], back[1 << 20];
  for (size_t i = 0; i < sizeof text; i++) text[i] = "motefarm "[i % 9];
  size_t n = ZSTD_compress(packed, sizeof packed, text, sizeof text, 3);
  if (ZSTD_isError(n) || ZSTD_decompress(back, sizeof back, packed, n) != sizeof text) return 1;
  printf("zstd %s packed 1 MiB into %zu bytes\n", ZSTD_versionString(), n);
  return memcmp(text, back, sizeof text) != 0;
}
C
printf '*.o\n*.a\nzcheck\n' >"$project/.gitignore"
show mote push -C "$project" "$instance"
say "Pushing again: nothing has changed"
show mote push -C "$project" "$instance"

say "Building it there. In the middle, the coordinator is killed with -9 and started again"
mote run -dir zstd "$instance" make -j2 zcheck >"$home/build.out" 2>"$home/build.err" &
build=$!
tail -f --pid=$build "$home/build.out" 2>/dev/null &
for _ in $(seq 200); do
  [ "$(grep -c '^  CC' "$home/build.out" || true)" -ge 8 ] && break
  sleep 0.05
done
printf '%s$ kill -9 %s   # the coordinator%s\n' "$dim" "$coordinator" "$plain"
kill -9 "$coordinator"
wait "$coordinator" 2>/dev/null || true
start_farm "$port"
wait "$build" || { cat "$home/build.err" >&2; fail "the build failed"; }
sleep 0.3
cat "$home/build.err" >&2
lines=$(grep -c '^  CC' "$home/build.out")
sources=$(ls "$project"/lib/*/*.c | wc -l)
[ "$lines" -eq "$sources" ] || fail "$lines lines of output for $sources sources"
[ "$lines" -eq "$(sort -u "$home/build.out" | grep -c '^  CC')" ] || fail "a line came twice"
say "Every one of the $sources compile lines arrived, once. The result runs:"
show mote run "$instance" zstd/zcheck

say "Collecting the work directory"
(cd "$home" && show mote gettar "$instance" && show ls -lh "$instance.tar.gz" && tar tzf "$instance.tar.gz" | grep -c '\.o$' | sed 's/$/ object files inside/')

say "Leaving it idle: the lease expires after 8 s, and the instance goes away"
for _ in $(seq 40); do
  [ -z "$(mote list)" ] && break
  sleep 0.5
done
show mote list
[ -z "$(mote list)" ] || fail "the instance is still there"
for _ in $(seq 50); do
  [ -z "$(ls -A "$data/buildlet/instances" 2>/dev/null)" ] && break
  sleep 0.1
done
[ -z "$(ls -A "$data/buildlet/instances" 2>/dev/null)" ] || fail "the instance's directory is still there"

say "Done: nothing was lost, nothing is left."
