"""nanobotctl as a person runs it: the real commands against the real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from escalation.cli.app import run

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
