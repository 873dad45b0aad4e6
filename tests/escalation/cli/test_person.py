"""nanobotctl person and password: who may log in how, an invitation, the hash of a password."""

from __future__ import annotations

import io
import subprocess
import sys
import tomllib

import pytest
from argon2 import PasswordHasher

from escalation.cli.app import run
from escalation.server.web.login.passwords import check_hash
from tests.escalation.cli.conftest import Ctl


def test_an_administrator_invites_and_lists(ctl: Ctl) -> None:
    """The link is alone on standard output; the list says that somebody is invited."""
    made = ctl("person", "invite", "viewer", as_="admin")
    assert made.code == 0
    assert made.out.startswith("https://desk.example/invite#")
    assert "good once, until 2026-01-02T00:00:00" in made.err
    listed = ctl("person", "list", as_="admin")
    assert listed.out.splitlines() == [
        "PERSON    ROLE      TOKEN  PASSWORD  PASSKEYS  SESSIONS  INVITED",
        "admin     admin     yes    no        0         0         no",
        "operator  operator  yes    no        0         0         no",
        "scraper   scraper   yes    no        0         0         no",
        "viewer    viewer    yes    no        0         0         yes",
    ]
    assert ctl("person", "list", "--json", as_="admin").json[3]["invited"] is True


def test_nobody_else_does(ctl: Ctl) -> None:
    """An operator's token invites nobody, and a name that the settings lack is not found."""
    assert ctl("person", "invite", "viewer").code == 5
    assert ctl("person", "list").code == 5
    assert ctl("person", "logout", "viewer").code == 5
    assert ctl("person", "invite", "../queue", as_="admin").code == 3


def test_what_was_ended_is_counted(ctl: Ctl) -> None:
    """Ending nothing is no error."""
    assert ctl("person", "logout", "viewer", as_="admin").out == "0 sessions ended\n"
    assert ctl("person", "forget-passkeys", "viewer", as_="admin").out == "0 passkeys removed\n"


def test_a_password_is_read_from_standard_input_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line that is printed is TOML for a person, holds the hash alone, and the hash fits."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("correct horse battery\n"))
    assert run(["password", "hash"]) == 0
    out, err = capsys.readouterr()
    hashed = tomllib.loads(out)["password_hash"]
    check_hash(hashed)
    assert PasswordHasher().verify(hashed, "correct horse battery")
    assert "correct" not in out + err


@pytest.mark.parametrize("given", ["short", "", "x" * 513, "a control\x07character in it"])
def test_a_password_that_will_not_do_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: str
) -> None:
    """Too short, too long, or with a control character: exit code 2, and it is not repeated."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{given}\n"))
    assert run(["password", "hash"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert not given or given not in err


def test_the_command_line_loads_no_hashing_for_anything_else() -> None:
    """argon2 is imported when a password is hashed, and not before."""
    script = "import sys; import escalation.cli.app; print('argon2' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout == "False\n"
