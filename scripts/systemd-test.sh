#!/usr/bin/env bash
# The units of deploy/ under a real systemd: PID 1 of namespaces of its own, on a throw-away overlay
# of this machine's files. Touches nothing of the machine; needs root, a cgroup v2 hierarchy and
# systemd's program. Exits 77 and says why where that is not to be had.
#   scripts/systemd-test.sh [FOLDER WITH THE PROGRAMS, default target/release]
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
  echo "SKIPPED: $*"
  exit 77
}

# Outside: make the place, boot, say what came of it.
outside() {
  [ "$(id -u)" -eq 0 ] || skip "systemd as PID 1 of a namespace needs root"
  local systemd=/usr/lib/systemd/systemd
  for need in "$systemd" "$(command -v unshare || echo unshare)" "$(command -v bwrap || echo bwrap)" "$(command -v ip || echo ip)" \
    "$(command -v pivot_root || echo pivot_root)"; do
    [ -x "$need" ] || skip "there is no $need"
  done
  unshare --mount --pid --fork --uts --ipc --net --cgroup true 2>/dev/null || skip "no namespaces can be made"
  local cgroups
  cgroups=$(findmnt -nt cgroup2 -o TARGET | head -1)
  [ -n "$cgroups" ] || skip "no cgroup v2 hierarchy is mounted"
  place=$(mktemp -d "${TMPDIR:-/tmp}/mote-systemd.XXXXXX")
  group=$cgroups/$(basename "$place")
  trap 'rm -rf "$place"; find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true' EXIT
  mkdir "$group" 2>/dev/null || skip "no control group can be made in $cgroups"
  mkdir -p "$place/files/programs" "$place/layer" "$place/root"
  for program in mote mote-bridge mote-buildlet mote-coordinator; do
    cp "$1/$program" "$place/files/programs/"
  done
  cp -r Makefile LICENSE deploy docs scripts "$place/files/"
  : >"$place/files/result"
  local status=0
  (
    echo "$BASHPID" >"$group/cgroup.procs" || skip "the control group takes no process"
    exec timeout -k 10 "${MOTE_TEST_SYSTEMD_SECONDS:-300}" \
      unshare --mount --pid --fork --kill-child --uts --ipc --net --cgroup "$0" boot "$place" "$systemd"
  ) >"$place/boot.log" 2>&1 </dev/null || status=$?
  cat "$place/files/result"
  if grep -q '^SKIPPED' "$place/boot.log"; then
    grep '^SKIPPED' "$place/boot.log"
    exit 77
  fi
  if [ "$status" -ne 0 ] || ! grep -q '^all is well$' "$place/files/result"; then
    echo "failed ($status); what systemd said:"
    tail -40 "$place/boot.log"
    exit 1
  fi
  # Inside, "all is well" is followed by a shutdown with a command still running.
  local ended
  ended=$(($(date +%s) - $(stat -c %Y "$place/files/result")))
  [ "$ended" -lt 20 ] || { echo "failed: with instances running, shutdown took $ended s"; exit 1; }
  echo "ok: shutdown ended a running instance in about $ended s"
}

# In fresh namespaces, before systemd: a root file system that may be written.
boot() {
  local place=$1 systemd=$2 root=$1/root
  mount --make-rprivate /
  mount -t tmpfs -o mode=0755 layer "$place/layer"
  mkdir "$place/layer/up" "$place/layer/work"
  mount -t overlay -o "lowerdir=/,upperdir=$place/layer/up,workdir=$place/layer/work" overlay "$root" ||
    skip "no overlay can be mounted"
  mount -t proc proc "$root/proc" || skip "no proc can be mounted"
  mount --rbind /dev "$root/dev"
  mount -t sysfs -o ro sysfs "$root/sys" || skip "no sysfs can be mounted"
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup" || skip "no cgroup v2 can be mounted in a namespace"
  mount -t tmpfs -o mode=0755 run "$root/run"
  mount -t tmpfs -o mode=1777 tmp "$root/tmp"
  mkdir -p "$root/mnt/motefarm"
  mount --bind "$place/files" "$root/mnt/motefarm"
  ip link set lo up
  # Nothing of the machine's own services, least of all those that set up its kernel and devices
  # (/proc/sys can not be made read-only: sandboxes could not mount a /proc of their own).
  rm -rf "$root"/usr/lib/systemd/system/*.target.wants "$root"/lib/systemd/system/*.target.wants
  local units=$root/etc/systemd/system target
  rm -rf "${units:?}"/* "$root/etc/motefarm" "$root/var/lib/motefarm"*
  for target in sysinit basic; do
    printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' "$target" >"$units/$target.target"
  done
  cat >"$units/test.service" <<'UNIT'
[Unit]
Description=The test
SuccessAction=exit
FailureAction=exit
After=systemd-journald.socket
Requires=systemd-journald.socket
[Service]
Type=oneshot
ExecStart=/mnt/motefarm/scripts/systemd-test.sh inside
StandardOutput=append:/mnt/motefarm/result
StandardError=append:/mnt/motefarm/result
UNIT
  echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
  cd "$root"
  mkdir -p .old
  # Not chroot: who is in one may make no user namespace.
  pivot_root . .old
  # As a container's, systemd sets up no hardware and exits instead of switching off. That its mounts
  # (credentials) reach its services is then the container manager's business: ours.
  exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin /bin/sh -c \
    'umount -l /.old; mount --make-rshared /; exec "$0" --unit=test.service --log-target=console --show-status=0' "$systemd"
}

fail() {
  echo "failed: $*"
  exit 1
}

ok() { echo "ok: $*"; }

# Waits, at most thirty seconds, until a command succeeds.
wait_for() {
  local n
  for n in $(seq 300); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.1
  done
  fail "waited in vain for: $*"
}

mote_() { mote --quiet --profile /var/lib/motefarm/profile.toml "$@"; }

in_contact() { mote_ create | awk -v type="$1" '$1 == type && $2 > 0 { found = 1 } END { exit !found }'; }

# Of a unit. The file goes with the last one.
processes() { cat "/sys/fs/cgroup/system.slice/$1.service/cgroup.procs" 2>/dev/null || true; }

has_none() { [ -z "$(processes "$1")" ]; }

# A command on an instance of type $1 goes on while unit $2 is restarted and then killed: every
# line once, in order, exit code kept.
survives() {
  local type=$1 unit=$2 instance out pid before
  instance=$(mote_ create "$type")
  out=$(mktemp)
  mote_ run "$instance" bash -c 'for n in $(seq 50); do echo $n; sleep 0.1; done; exit 7' >"$out" &
  pid=$!
  wait_for grep -qx 3 "$out"
  before=$(systemctl show -P MainPID "$unit")
  systemctl restart "$unit"
  [ "$(systemctl show -P MainPID "$unit")" != "$before" ] || fail "$unit was not restarted"
  wait_for grep -qx 20 "$out"
  systemctl kill --kill-who=main --signal=SIGKILL "$unit"
  local code=0
  wait "$pid" || code=$?
  [ "$code" -eq 7 ] || fail "the command's code was 7, mote's $code"
  seq 50 | cmp -s - "$out" || fail "the output is not every line once: $(tr '\n' ' ' <"$out")"
  wait_for systemctl is-active "$unit"
  mote_ destroy "$instance"
  ok "a command survives restart and kill of $unit"
}

# In the booted system, as its only service.
inside() {
  trap '[ $? -eq 0 ] || journalctl --no-pager --unit "mote-*" -n 60 2>/dev/null' EXIT
  cd /mnt/motefarm
  export HOME=/root XDG_CONFIG_HOME=/tmp/config XDG_CACHE_HOME=/tmp/cache XDG_DATA_HOME=/tmp/data
  make --no-print-directory install PREFIX=/usr PROGRAMS=programs >/dev/null
  systemd-sysusers /usr/lib/sysusers.d/motefarm.conf
  systemd-tmpfiles --create /usr/lib/tmpfiles.d/motefarm.conf
  install -m 0644 /usr/share/doc/motefarm/examples/one-machine.toml /etc/motefarm/coordinator.toml
  mote-coordinator check-config --config /etc/motefarm/coordinator.toml >/dev/null
  systemctl daemon-reload
  systemctl enable --now mote-coordinator mote-buildlet 2>&1 | grep -v '^Created symlink' || true
  systemctl is-active mote-coordinator mote-buildlet >/dev/null || fail "the farm does not start"
  wait_for in_contact linux-amd64
  ok "one machine: installed, started, in contact"

  local pid
  pid=$(systemctl show -P MainPID mote-coordinator)
  [ "$(processes mote-coordinator | wc -l)" -eq 1 ] || fail "the coordinator has children"
  [ "$(stat -c %U "/proc/$pid")" = motefarm ] || fail "the coordinator is not motefarm's"
  pid=$(systemctl show -P MainPID mote-buildlet)
  local seen=/proc/$pid/root
  [ "$(ls "$seen/var/lib/motefarm")" = cas ] || fail "the buildlet sees more of the farm than its store"
  wait_for journalctl --quiet --unit mote-coordinator --grep 'buildlet in contact.*sandbox="bubblewrap"'
  ok "no children, one user, a sandbox, no sight of keys"

  local instance
  instance=$(mote_ create linux-amd64)
  mkdir -p /tmp/tree && echo pushed >/tmp/tree/file
  mote_ push -C /tmp/tree "$instance"
  [ "$(mote_ run "$instance" cat tree/file)" = pushed ] || fail "what was pushed is not there"
  if mote_ run "$instance" bash -c 'ls /etc/motefarm' 2>/dev/null; then fail "a command can list /etc/motefarm"; fi
  local answer='exec 3<>/dev/tcp/127.0.0.1/8119; printf "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" >&3; timeout 3 head -c1 <&3'
  [ -z "$(mote_ run "$instance" bash -c "$answer" 2>/dev/null)" ] || fail "a command is answered in the clear"
  [ -z "$(bash -c "$answer" 2>/dev/null)" ] || fail "cleartext is answered"
  ok "push and run; a command sees no tokens and gets no answer in the clear"
  mote_ destroy "$instance"

  survives linux-amd64 mote-buildlet
  survives linux-amd64 mote-coordinator

  # Stopping leaves instances, the unit beside it ends them.
  instance=$(mote_ create linux-amd64)
  mote_ run --detach "$instance" sleep 4321 >/dev/null
  wait_for pgrep -x sleep
  systemctl stop mote-buildlet
  if has_none mote-buildlet; then fail "stopping the buildlet ended its instances"; fi
  systemctl stop mote-instances@mote-buildlet
  wait_for has_none mote-buildlet
  systemctl start mote-buildlet
  wait_for in_contact linux-amd64
  systemctl stop mote-instances@mote-buildlet
  if systemctl is-active --quiet mote-buildlet; then fail "instances were to end, the buildlet runs on"; fi
  systemctl start mote-buildlet
  wait_for in_contact linux-amd64
  mote_ destroy "$instance"
  ok "stopping mote-instances@mote-buildlet stops it and ends what it left"

  # Other machines, on this one.
  install -m 0644 /usr/share/doc/motefarm/examples/join.env /etc/motefarm/join.env
  sed -i 's/farm.example:8119/127.0.0.1:8119/;s/linux-amd64/linux-joined/' /etc/motefarm/join.env
  mote_ admin join-token create --host-type linux-joined | install -m 0600 /dev/stdin /etc/motefarm/join.token
  systemctl start mote-buildlet-join
  wait_for in_contact linux-joined
  survives linux-joined mote-buildlet-join

  install -m 0644 /usr/share/doc/motefarm/examples/listen.env /etc/motefarm/listen.env
  systemctl start mote-buildlet-listen
  install -m 0640 -g motefarm /var/lib/motefarm-buildlet-listen/token /etc/motefarm/big.token
  install -m 0644 /var/lib/motefarm-buildlet-listen/tls/ca.pem /etc/motefarm/big.ca.pem
  install -m 0644 /usr/share/doc/motefarm/examples/farm.toml /etc/motefarm/coordinator.toml
  sed -i 's/10\.0\.0\.7:5936/127.0.0.1:5936/' /etc/motefarm/coordinator.toml
  systemctl restart mote-coordinator
  wait_for in_contact linux-amd64-big
  survives linux-amd64-big mote-buildlet-listen

  # A backup is a farm, by the commands of docs/install.md.
  if command -v sqlite3 >/dev/null; then
    instance=$(mote_ create linux-amd64)
    runuser -u motefarm -- sqlite3 /var/lib/motefarm/farm.db ".backup '/var/lib/motefarm/backup.db'"
    install -d -m 0700 /var/backups/motefarm
    mv /var/lib/motefarm/backup.db /var/backups/motefarm/farm.db
    cp -a /var/lib/motefarm/tls /var/lib/motefarm/profile.toml /etc/motefarm /var/backups/motefarm/
    systemctl stop mote-coordinator
    rm -r /var/lib/motefarm/{farm.db*,tls,profile.toml}
    cp -a /var/backups/motefarm/tls /var/backups/motefarm/profile.toml /var/lib/motefarm/
    install -m 0600 -o motefarm -g motefarm /var/backups/motefarm/farm.db /var/lib/motefarm/farm.db
    systemctl start mote-coordinator
    mote_ list | grep -q "$instance" || fail "the backup lost an instance"
    wait_for in_contact linux-joined
    ok "a farm restored from its backup knows its instances, and is known to who joined"
  else
    echo "SKIPPED backup: there is no sqlite3"
  fi

  # The bridge before this farm, by its example: what it is given lies in the farm's store afterwards.
  install -m 0644 /var/lib/motefarm/tls/ca.pem /etc/motefarm/backend.ca.pem
  mote_ admin token create --user motefarm --name bridge |
    install -m 0600 -o motefarm -g motefarm /dev/stdin /etc/motefarm/backend.token
  echo "alice 00112233445566778899aabbccddeeff" |
    install -m 0600 -o motefarm -g motefarm /dev/stdin /etc/motefarm/goma.tokens
  echo "Bearer 00112233445566778899aabbccddeeff" >/tmp/goma.header
  sed 's/farm\.example:8119/127.0.0.1:8119/' /usr/share/doc/motefarm/examples/bridge.toml >/etc/motefarm/bridge.toml
  systemctl start mote-bridge || fail "the bridge does not start"
  local before after
  before=$(mote_ cas stat --json)
  mkdir /tmp/seeds
  date >/tmp/seeds/one
  mote-bridge seed --token-file /tmp/goma.header /tmp/seeds || fail "nothing can be brought by the bridge"
  after=$(mote_ cas stat --json)
  [ "$before" != "$after" ] || fail "what the bridge was given is not in the farm's store"
  systemctl stop mote-bridge
  ok "a bridge brings content to the farm"

  # Removal, by the commands of docs/install.md, while something runs.
  instance=$(mote_ create linux-amd64)
  mote_ run --detach "$instance" sleep 4321 >/dev/null
  wait_for pgrep -x sleep
  systemctl disable --quiet --now mote-coordinator mote-buildlet
  systemctl stop mote-instances@mote-buildlet
  systemctl disable --quiet --now mote-buildlet-join mote-buildlet-listen
  systemctl stop mote-instances@mote-buildlet-join mote-instances@mote-buildlet-listen
  wait_for bash -c '! pgrep -u motefarm'
  make --no-print-directory uninstall PREFIX=/usr >/dev/null
  systemctl daemon-reload
  ok "removed, and nothing runs on"

  # Shutdown with something running is seen from outside.
  make --no-print-directory install PREFIX=/usr PROGRAMS=programs >/dev/null
  systemctl daemon-reload
  systemctl start mote-coordinator mote-buildlet
  wait_for in_contact linux-amd64
  instance=$(mote_ create linux-amd64)
  mote_ run --detach "$instance" sleep 4321 >/dev/null
  wait_for pgrep -x sleep
  echo "all is well"
}

case ${1:-} in
  boot) boot "$2" "$3" ;;
  inside) inside ;;
  *) outside "$(realpath "${1:-target/release}")" ;;
esac
