#!/usr/bin/env bash
# Install what the project needs and is missing: system packages (as root, on Debian and Ubuntu) and a virtual
# environment in .venv. Idempotent: a second run with nothing changed takes a moment. Says what it could not do.
# With the word "tests" also what only tests need: the servers that the route observer is held against.
set -euo pipefail
cd "$(dirname "$0")/.."
for_tests=$([ "${1:-}" = tests ] && echo yes || true)

# The loader's bindings come from the distribution, for the system's own Python (the PyPI name is another project).
packages=(python3-bpfcc linux-headers-amd64 libbpf1 python3-venv python3-dev gcc libsystemd-dev pkg-config
          systemd systemd-container dbus openssl openssh-client iproute2)
case "$(dpkg --print-architecture 2>/dev/null || true)" in
  arm64) packages=("${packages[@]/linux-headers-amd64/linux-headers-arm64}") ;;
esac
if grep -qs '^ID=ubuntu' /etc/os-release; then packages=("${packages[@]/linux-headers-a*64/linux-headers-generic}"); fi

if [ -n "$for_tests" ]; then packages+=(nodejs golang-go systemd-journal-remote groff-base); fi
# Ubuntu's chromium is a snap, which no test can drive.
if [ -n "$for_tests" ] && ! grep -qs '^ID=ubuntu' /etc/os-release; then packages+=(chromium fonts-dejavu-core); fi

missing=()
if command -v dpkg-query >/dev/null; then
  for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ]; then
      echo "setup: installing ${missing[*]}"
      export DEBIAN_FRONTEND=noninteractive
      apt-get update -qq
      apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    else
      echo "setup: not root, going on without: ${missing[*]} (apt-get install them for the whole of it)" >&2
    fi
  fi
else
  echo "setup: not Debian or Ubuntu; kernel sensors need bcc's Python bindings and kernel headers" >&2
fi

# The system's own interpreter where it will do: an unprivileged user can execute it, which an interpreter
# under a private home folder does not allow.
python=""
for candidate in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
  if command -v "$candidate" >/dev/null &&
     "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
[ -n "$python" ] || { echo "setup: Python 3.11 or later with venv is needed (Debian: python3-venv)" >&2; exit 1; }

extras="agent,orchestrator,mcp,notify,postgres,dev"
if pkg-config --exists libsystemd 2>/dev/null; then extras="$extras,systemd"; fi
stamp=$(cat pyproject.toml dev/constraints.txt dev/setup.sh 2>/dev/null | sha256sum | cut -d' ' -f1)-$extras
if [ "$(cat .venv/.stamp 2>/dev/null)" != "$stamp" ]; then
  echo "setup: virtual environment with $("$python" --version)"
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  .venv/bin/python -m pip install -q --disable-pip-version-check -c dev/constraints.txt setuptools wheel
  .venv/bin/python -m pip install -q --disable-pip-version-check -c dev/constraints.txt -e ".[$extras]"
  echo "$stamp" > .venv/.stamp
fi

[ -n "$for_tests" ] || exit 0

stamp=$(cat pyproject.toml dev/constraints.txt | sha256sum | cut -d' ' -f1)
if [ "$(cat .venv/.stamp-routes 2>/dev/null)" != "$stamp" ]; then
  echo "setup: clients for the tests"
  .venv/bin/python -m pip install -q --disable-pip-version-check -c dev/constraints.txt -e ".[routes,pages]"
  echo "$stamp" > .venv/.stamp-routes
fi

# nginx is unpacked and not installed: the package would start a web server on port 80 of this machine.
if [ ! -x .venv/nginx/usr/sbin/nginx ] && command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
  folder=$(mktemp -d)
  fetch() { (cd "$folder" && apt-get download -qq nginx >/dev/null 2>&1); }
  if fetch || { [ "$(id -u)" = 0 ] && apt-get update -qq && fetch; }; then
    dpkg-deb -x "$folder"/nginx_*.deb .venv/nginx
  else
    echo "setup: the package nginx cannot be downloaded ; its tests will be skipped" >&2
  fi
  rm -rf "$folder"
fi

# Prometheus and Alertmanager too, with their own tools (promtool, amtool).
for name in prometheus alertmanager; do
  package=prometheus; [ $name = prometheus ] || package=prometheus-$name
  if [ ! -x ".venv/$name/usr/bin/$package" ] && command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
    folder=$(mktemp -d)
    fetch() { (cd "$folder" && apt-get download -qq "$package" >/dev/null 2>&1); }
    if fetch || { [ "$(id -u)" = 0 ] && apt-get update -qq && fetch; }; then
      dpkg-deb -x "$folder"/"${package}"_*.deb .venv/$name
    else
      echo "setup: the package $package cannot be downloaded; its tests will be skipped" >&2
    fi
    rm -rf "$folder"
  fi
done

# PostgreSQL is unpacked with what it needs and is not here, for the same reason. One that is installed is taken.
if ! compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null && ! compgen -G ".venv/postgresql/usr/lib/postgresql/*/bin/initdb" >/dev/null &&
   command -v dpkg-deb >/dev/null; then
  folder=$(mktemp -d)
  mkdir "$folder/partial"
  if [ "$(id -u)" = 0 ] && apt-get install -y -qq --no-install-recommends --download-only \
       -o Dir::Cache::archives="$folder" postgresql >/dev/null 2>&1; then
    for package in "$folder"/*.deb; do dpkg-deb -x "$package" .venv/postgresql; done
  else
    echo "setup: the package postgresql cannot be downloaded; its tests will be skipped" >&2
  fi
  rm -rf "$folder"
fi

# Each in an environment of its own, so that what they need is nothing to the product's.
for name in servers litellm llamacpp ray schemathesis; do
  stamp=$(sha256sum dev/$name.txt | cut -d' ' -f1)
  [ "$(cat .venv/$name/.stamp 2>/dev/null)" != "$stamp" ] || continue
  echo "setup: $name for the tests, in .venv/$name"
  rm -rf .venv/$name
  "$python" -m venv .venv/$name
  if .venv/$name/bin/python -m pip install -q --disable-pip-version-check --no-deps --only-binary :all: \
       --require-hashes -r dev/$name.txt; then
    echo "$stamp" > .venv/$name/.stamp
  else
    echo "setup: $name cannot be installed here; its tests will be skipped" >&2
    rm -rf .venv/$name
  fi
done
