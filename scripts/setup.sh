#!/usr/bin/env bash
# Installs what the build, the tests and the demo need and is not there yet: Debian packages only.
set -euo pipefail

declare -A package_of=([cc]=gcc [g++]=g++ [make]=make [git]=git [bwrap]=bubblewrap [ip]=iproute2 [pkill]=procps
  [ssh]=openssh-client [rsync]=rsync)
missing=()
for command in "${!package_of[@]}"; do
  command -v "$command" >/dev/null 2>&1 || [ -x "/usr/sbin/$command" ] || missing+=("${package_of[$command]}")
done
if ! command -v cargo >/dev/null 2>&1; then
  echo "setup: there is no cargo; install a Rust toolchain (https://rustup.rs), 1.95 or later" >&2
  exit 1
fi
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
  echo "setup: please install: ${missing[*]}" >&2
  exit 1
fi
sudo=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null 2>&1 || { echo "setup: please install as root: ${missing[*]}" >&2; exit 1; }
  sudo=(sudo)
fi
echo "setup: installing ${missing[*]}"
"${sudo[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
