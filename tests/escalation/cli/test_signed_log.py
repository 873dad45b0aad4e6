"""Checking what was signed without trusting the orchestrator: exports, forged logs, keys that ended."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from escalation.cli.errors import ExitCode
from escalation.model import Signed
from escalation.server import audit
from escalation.server.desk import AuditEntry
from escalation.signing import approval, log as signing_log
from escalation.view.entry import audit_view
from tests.escalation.cli.conftest import Ctl
from tests.escalation.cli.signing_site import Site
from tests.escalation.signers import Authenticator, SshKey
from tests.security.properties import security_property


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
