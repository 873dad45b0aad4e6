"""Certificates and tokens from the command line."""

from __future__ import annotations

import json
import stat
import tomllib
from pathlib import Path

import msgspec
import pytest

from escalation.cli.app import run
from escalation.cli.connection import read_token
from escalation.server.web.access import Person, Presented, authenticate


def test_an_authority_and_both_leaves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Init, issue both, and renew: files appear with their names in them, keys for the owner alone."""
    folder = tmp_path / "pki"
    at = ["--dir", str(folder)]
    assert run(["pki", "init", *at]) == 0
    assert run(["pki", "issue", "agent", "spark-a", *at]) == 0
    capsys.readouterr()
    assert (
        run(
            ["pki", "issue", "orchestrator", "--name", "queue.local", "--address", "127.0.0.1", *at, "--json"]
        )
        == 0
    )
    facts = json.loads(capsys.readouterr().out)
    assert (facts["names"], facts["addresses"]) == (["queue.local"], ["127.0.0.1"])
    assert facts["uris"] == ["spiffe://nanobot.local/nanobot/orchestrator"]
    for name in ("ca", "spark-a", "orchestrator"):
        assert stat.S_IMODE((folder / f"{name}.key").stat().st_mode) == 0o600
    before = (folder / "spark-a.crt").read_bytes()
    assert run(["pki", "renew", *at]) == 0
    assert "kept" in capsys.readouterr().out
    assert (folder / "spark-a.crt").read_bytes() == before
    assert run(["pki", "renew", str(folder / "spark-a.crt"), "--force", *at, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] is True
    assert (folder / "spark-a.crt").read_bytes() != before


def test_what_cannot_be_issued_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second authority, a missing one and a wrong host name fail with the name of the thing."""
    at = ["--dir", str(tmp_path / "pki")]
    assert run(["pki", "issue", "agent", "spark-a", *at]) == 1
    assert "ca.crt: cannot be read" in capsys.readouterr().err
    assert run(["pki", "renew", *at]) == 3
    assert run(["pki", "init", *at]) == 0
    assert run(["pki", "init", *at]) == 1
    assert "never overwritten" in capsys.readouterr().err
    assert run(["pki", "issue", "agent", "Spark\x1b[31m", *at]) == 1
    assert "\x1b" not in capsys.readouterr().err
    assert run(["pki", "issue", "orchestrator", *at]) == 1
    assert run(["pki", "issue", "agent"]) == 2


def test_a_token_makes_its_person_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The lines that are printed are a person's settings, and the token in the file is theirs."""
    path = tmp_path / "token"
    assert run(["token", str(path), "--name", "kim@example", "--role", "viewer"]) == 0
    settings = tomllib.loads(capsys.readouterr().out)
    person = msgspec.convert(settings["person"][0], Person)
    assert authenticate(Presented(None, read_token(path)), [person]) == person
    assert run(["token", str(path), "--name", "kim"]) == 1
    assert "File exists" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "-kim", 'kim"\nrole="operator', "k" * 65, "kim\n", "kim\u202e"])
def test_a_name_that_settings_would_refuse_is_refused_here(name: str, tmp_path: Path) -> None:
    """The command line and the settings agree on what a name is."""
    assert run(["token", str(tmp_path / "token"), "--name", name]) == 2
    assert not (tmp_path / "token").exists()
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": name, "role": "viewer", "token_sha256": "0" * 64}, Person)
