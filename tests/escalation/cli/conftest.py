"""nanobotctl as a person runs it: the real commands against the real server, with keys to sign with."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from escalation.cli.app import run
from escalation.server.testing import START_NS
from tests.escalation.cli.signing_site import Lie, Site
from tests.escalation.signers import SshKey

HOSTILE = "<b>\x1b[31m[red]\u202e\u200bname\n\\x"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one command line did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Ctl = Callable[..., Outcome]


@pytest.fixture
def ctl(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Ctl:
    for role, token in served.tokens.items():
        path = tmp_path / role
        path.write_text(f"{token}\n")
        path.chmod(0o600)
    config = tmp_path / "ctl.toml"
    config.write_text(f'url = "{served.url}"\ntoken_file = "operator"\n')
    monkeypatch.setenv("NANOBOT_CTL_CONFIG", str(config))

    def call(*arguments: str, as_: str | None = None) -> Outcome:
        chosen = ("--token-file", str(tmp_path / as_)) if as_ else ()
        capsys.readouterr()
        code = run([*chosen, *arguments])
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return call


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SshKey]:
    """Keys of persons, made by ssh-keygen, and one of a stranger."""
    folder = tmp_path_factory.mktemp("keys")
    return {
        "operator": SshKey.made(folder / "operator"),
        "second": SshKey.made(folder / "second", "ecdsa"),
        "admin": SshKey.made(folder / "admin"),
        "stranger": SshKey.made(folder / "stranger"),
    }


@pytest.fixture
def site(served: Any, keys: dict[str, SshKey], tmp_path: Path) -> Site:
    """An entry that waits, on a desk that knows the keys of three persons."""
    served.desk.clock.jump(time.time() - START_NS / 1e9)
    found = Site(served, served.call(served.desk.opened()), tmp_path / "approvers")
    found.trust(
        keys["operator"].line("operator") + keys["second"].line("operator") + keys["admin"].line("admin")
    )
    return found


@pytest.fixture
def signed(ctl: Ctl, site: Site, keys: dict[str, SshKey]) -> Site:
    """The same, once the operator has signed and approved."""
    assert ctl("approve", site.id, "--reason", "why", "--sign", str(keys["operator"].path)).code == 0
    return site


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> Callable[[Lie], None]:
    """Let the orchestrator change each entry that it answers with, as `lie` does."""
    from escalation.cli.client import Client  # noqa: PLC0415 - patched where it stands

    honest = Client._ask

    def begin(lie: Lie) -> None:
        def asked(self: Client, method: str, path: str, **request: Any) -> bytes:
            body = json.loads(honest(self, method, path, **request))
            if "action" in body:
                lie(body)
            return json.dumps(body).encode()

        monkeypatch.setattr(Client, "_ask", asked)

    return begin
