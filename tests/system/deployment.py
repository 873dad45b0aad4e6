"""The installed product in a booted host, configured as docs/how-to/install.md says, and its operator."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tests.system.booted_host import BootedHost, HostError

_TOKEN = "a-token-of-a-test-that-nobody-else-holds"
AGENT = "nanobot-agent.service"
LOADER = "nanobot-probes.service"
ORCHESTRATOR = "nanobot-orchestrator.service"
UNITS = (AGENT, LOADER, ORCHESTRATOR)

# Times are short so that a whole story fits into a test: how long access must have returned before a case
# clears, how often an agent says that it lives, and for how long a cure must have held.
_AGENT = """\
[agent]
id = "{name}"

[heartbeat]
interval_s = 2

[orchestrator]
address = "localhost:9736"

[detectors.gpu_access]
clear_hold_s = 1
"""

_ORCHESTRATOR = """\
[grpc]
certificate = "/etc/nanobot/pki/orchestrator/orchestrator.crt"
key = "/etc/nanobot/pki/orchestrator/orchestrator.key"
clients_ca = "/etc/nanobot/pki/orchestrator/ca.crt"

[hosts]
grace_s = 1

[approvals]
quiet_at_most_s = 2

[[person]]
name = "operator"
role = "operator"
token_sha256 = "{token_sha256}"
"""

_PKI = """\
cd /etc/nanobot/pki
nanobotctl pki init --dir /root/authority
nanobotctl pki issue orchestrator --dir /root/authority --name localhost --out orchestrator
nanobotctl pki issue agent "$1" --dir /root/authority --out agent
mv agent/"$1".crt agent/agent.crt
mv agent/"$1".key agent/agent.key
for role in agent orchestrator; do
  cp /root/authority/ca.crt "$role/"
  chown -R "nanobot-$role:nanobot-$role" "$role"
done
"""


class Deployment:
    """The product on `host`: start it, ask it, decide."""

    def __init__(self, *, host: BootedHost) -> None:
        self.host = host

    def __repr__(self) -> str:
        return f"Deployment({self.host.name!r})"

    def configure(self) -> None:
        """Make certificates, write both configurations, and a person's own."""
        host = self.host
        host.run("sh", "-euc", _PKI, "sh", host.name)
        host.write("/etc/nanobot/agent.toml", _AGENT.format(name=host.name))
        digest = hashlib.sha256(_TOKEN.encode()).hexdigest()
        host.write("/etc/nanobot/orchestrator.toml", _ORCHESTRATOR.format(token_sha256=digest))
        host.write("/etc/nanobot/operator.token", _TOKEN, mode=0o600)
        host.write(
            "/etc/nanobot/ctl.toml",
            'url = "http://127.0.0.1:9737"\ntoken_file = "/etc/nanobot/operator.token"\n',
        )

    def start(self) -> None:
        """Start the orchestrator, then the agent, which brings the loader."""
        self.host.run("systemctl", "start", ORCHESTRATOR)
        self.host.run("systemctl", "start", AGENT)
        self.settle()

    def settle(self) -> None:
        """Wait until both are up and every kernel sensor of the agent sees."""
        self.host.wait("every kernel sensor sees", lambda: not self.blind(), within_s=60)

    def blind(self) -> list[str]:
        """Return the kernel sensors that do not see, or a word when nothing is known yet.

        Without an NVIDIA driver there is no tracepoint of its, and without a declared scope nothing is held;
        that is no blindness that could be mended.
        """
        hosts = [h for h in self.ask("hosts") if h["host"] == self.host.name]
        if not hosts:
            return ["nothing heard"]
        kernel = [row for row in hosts[0]["coverage"] if row["sensor"].startswith("kernel.")]
        missed = [
            row["sensor"]
            for row in kernel
            if not row["seeing"] and row["sensor"] != "kernel.xid" and row["reason"] != "disabled"
        ]
        return missed if kernel else ["no coverage yet"]

    def ask(self, *words: str) -> list[dict[str, Any]]:
        """Return the list that `nanobotctl ... --json` prints, an empty one where it fails."""
        done = self.host.run("nanobotctl", *words, "--json", check=False)
        return list(json.loads(done.output)) if done.status == 0 else []

    def queue(self, **wanted: str) -> list[dict[str, Any]]:
        """Return the entries of the queue, of any state, whose fields are as `wanted`."""
        entries = self.ask("queue", "--state", "all")
        return [entry for entry in entries if all(entry[key] == value for key, value in wanted.items())]

    def until_entry(self, *, within_s: float = 20.0, **wanted: str) -> dict[str, Any]:
        """Wait for exactly one entry as `wanted`, and return it."""
        try:
            self.host.wait(f"an entry with {wanted}", lambda: bool(self.queue(**wanted)), within_s=within_s)
        except HostError as error:
            raise HostError(f"{error}\nthe queue holds:\n{_brief(self.queue())}") from error
        found = self.queue(**wanted)
        assert len(found) == 1, _brief(found)
        return found[0]

    def main_pid(self, unit: str) -> int:
        """Return the pid of a unit's main process, as this machine knows it."""
        return self.host.outer_pid(int(self.host.show(unit, "MainPID")))

    def environment(self, unit: str, variables: Mapping[str, str]) -> None:
        """Give `unit` these variables from its next start on; none takes the drop-in away."""
        folder = f"/etc/systemd/system/{unit}.d"
        if variables:
            lines = "".join(f'Environment="{name}={value}"\n' for name, value in variables.items())
            self.host.write(f"{folder}/test.conf", f"[Service]\n{lines}")
        else:
            self.host.shell(f"rm -f {folder}/test.conf")
        self.host.run("systemctl", "daemon-reload")


def _brief(entries: list[dict[str, Any]]) -> str:
    fields = ("fault_class", "subject", "state", "count", "first_seen", "reasons")
    return "\n".join(str({field: entry[field] for field in fields}) for entry in entries)
