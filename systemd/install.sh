#!/usr/bin/env bash
# Install or upgrade Host Nanobot on this host, as root, from a source tree or a wheel:
#
#   systemd/install.sh [--wheel FILE] agent|orchestrator ... [notify] [postgres]
#
# /opt/nanobot/venv      a virtual environment of the system's own Python, with what the named roles need
# /opt/nanobot/loader    a copy of the package `probes` alone: the privileged loader sees no other package of ours
# /usr/local/bin         links to the programs of the roles
# /usr/local/lib/{systemd/system,sysusers.d,tmpfiles.d,sysctl.d}   units, users, folders, one kernel setting
#
# Running it again upgrades. It starts, enables and configures nothing: docs/how-to/install.md has those steps.
# pip takes its usual settings from the environment (PIP_INDEX_URL, PIP_NO_INDEX, PIP_FIND_LINKS).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
prefix=/opt/nanobot
wheel=""
roles=()
libraries=()
while [ $# -gt 0 ]; do
  case "$1" in
    --wheel) wheel=${2:?--wheel needs a file}; shift 2 ;;
    agent|orchestrator) roles+=("$1"); shift ;;
    notify|postgres) libraries+=("$1"); shift ;;
    *) echo "install: unknown argument: $1 (roles are agent and orchestrator; notify and postgres add libraries)" >&2; exit 2 ;;
  esac
done
[ ${#roles[@]} -gt 0 ] || { echo "install: name a role: agent, orchestrator, or both" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "install: must be root" >&2; exit 1; }
umask 022

extras=$(IFS=,; echo "${roles[*]},systemd${libraries[*]:+,${libraries[*]}}")
[ -x "$prefix/venv/bin/python" ] || /usr/bin/python3 -m venv "$prefix/venv"
source=${wheel:-$(dirname "$here")}
constraints=()
[ -f "$here/../dev/constraints.txt" ] && constraints=(-c "$here/../dev/constraints.txt")
"$prefix/venv/bin/python" -m pip install -q --disable-pip-version-check --upgrade --upgrade-strategy only-if-needed \
  "${constraints[@]}" "$(readlink -f "$source")[$extras]"

# Replaced whole and in one step: a half-written loader must never be what root runs.
packages=$("$prefix/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
new=$(mktemp -d "$prefix/loader.XXXXXX")
cp -r "$packages/probes" "$new/probes"
find "$new" -name __pycache__ -prune -exec rm -rf {} +
chmod -R u=rwX,go=rX "$new"
rm -rf "$prefix/loader"
mv "$new" "$prefix/loader"

install -d /usr/local/lib/systemd/system /usr/local/lib/sysusers.d /usr/local/lib/tmpfiles.d
install -m 0644 "$here/sysusers.d/nanobot.conf" /usr/local/lib/sysusers.d/nanobot.conf
install -m 0644 "$here/tmpfiles.d/nanobot.conf" /usr/local/lib/tmpfiles.d/nanobot.conf
for role in "${roles[@]}"; do
  case "$role" in
    agent)
      units=(nanobot-agent.service nanobot-probes.service)
      ln -sf "$prefix/venv/bin/nanobot-agent" /usr/local/bin/nanobot-agent
      ln -sf "$prefix/venv/bin/nanobot-probes" /usr/local/bin/nanobot-probes
      install -d /usr/local/lib/sysctl.d
      install -m 0644 "$here/sysctl.d/60-nanobot.conf" /usr/local/lib/sysctl.d/60-nanobot.conf
      # The agent sees the GPU's device nodes where there is a driver, and nothing of /dev elsewhere.
      drop_in=/usr/local/lib/systemd/system/nanobot-agent.service.d
      rm -rf "$drop_in"
      if [ -d /proc/driver/nvidia ] || [ -e /dev/nvidiactl ]; then
        install -D -m 0644 "$here/drop-ins/agent-gpu.conf" "$drop_in/50-gpu.conf"
      fi
      # It reads the journal by membership of the group that systemd keeps for that, and holds no capability for it.
      if getent group systemd-journal >/dev/null; then
        install -D -m 0644 "$here/drop-ins/agent-journal.conf" "$drop_in/50-journal.conf"
      fi
      ;;
    orchestrator)
      units=(nanobot-orchestrator.service)
      ln -sf "$prefix/venv/bin/nanobot-orchestrator" /usr/local/bin/nanobot-orchestrator
      ;;
  esac
  for unit in "${units[@]}"; do install -m 0644 "$here/$unit" "/usr/local/lib/systemd/system/$unit"; done
done
install -d "$prefix/share"
rm -rf "$prefix/share/doc"
[ -d "$here/../docs" ] && cp -r "$here/../docs" "$prefix/share/doc"
if [ -x "$prefix/venv/bin/nanobotctl" ]; then
  ln -sf "$prefix/venv/bin/nanobotctl" /usr/local/bin/nanobotctl
  # The agent's dependencies alone do not run it.
  install -d /usr/local/share/man/man1
  if ! "$prefix/venv/bin/nanobotctl" man >/usr/local/share/man/man1/nanobotctl.1 2>/dev/null; then
    rm -f /usr/local/share/man/man1/nanobotctl.1
  fi
fi

systemd-sysusers /usr/local/lib/sysusers.d/nanobot.conf
systemd-tmpfiles --create /usr/local/lib/tmpfiles.d/nanobot.conf
if [ -f /usr/local/lib/sysctl.d/60-nanobot.conf ] && [ "$(cat /proc/sys/kernel/perf_event_paranoid)" -gt 2 ]; then
  /lib/systemd/systemd-sysctl /usr/local/lib/sysctl.d/60-nanobot.conf ||
    echo "install: kernel.perf_event_paranoid stays above 2: the kernel sensors will be blind" >&2
fi
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
echo "install: ${roles[*]} installed in $prefix; next: configuration and certificates (docs/how-to/install.md)"
