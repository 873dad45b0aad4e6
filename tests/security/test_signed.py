"""What a signature is worth where the orchestrator and its database are in somebody else's hands."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from escalation.model import ActionKind, Signed, State
from escalation.server import audit
from escalation.server.decision.approval_desk import StoredApprovals
from escalation.server.decision.approvals import Policy
from escalation.server.decision.signatures import Signatures
from escalation.server.testing import FakeDesk
from escalation.signing import approvers, log as signing_log, proof
from escalation.signing.keys import key_of
from tests.escalation.signers import KEYGEN, SshKey
from tests.security.properties import security_property


@security_property(
    "A5",
    "A signed approval is checked offline by a list of root's: a compromised orchestrator can drop it, "
    "and cannot make, change, move or repeat one.",
)
async def test_a_compromised_orchestrator_cannot_forge_an_approval(tmp_path: Path) -> None:
    """Whoever owns the database and its chain still has no key; each thing that they can write is found."""
    key, thief = SshKey.made(tmp_path / "ada"), SshKey.made(tmp_path / "thief")
    file = tmp_path / "approvers"
    file.write_text(key.line("ada"))
    file.chmod(0o644)
    known = approvers.read(file, owners={0, os.geteuid()})
    policy = Policy(require_signature=frozenset(ActionKind))
    desk = FakeDesk(policy=policy, signatures=Signatures(read=lambda: known, keygen=KEYGEN))
    entry = await desk.opened()
    ident, digest = entry.recommendation.id, entry.recommendation.digest
    paper = await StoredApprovals(store=desk.store, policy=policy).document(ident, person="ada", reason="why")
    given = Signed(paper.document, key.sign(paper.document))
    approved = await desk.approve(ident, person="ada", reason="why", digest=digest, signed=given)
    assert approved.recommendation.state is State.APPROVED

    log = list(await desk.audit(after=0, limit=100))
    judge = partial(key_of, approvers=known, keygen=KEYGEN)
    (decision,) = proof.decisions(log, key_of=judge, signed_from=1)
    assert (decision.problems, decision.person) == ((), "ada")

    def written(*entries: tuple[str, str, str]) -> list[str]:
        """Return what is wrong with a log of these (verb, object, detail), in a chain that is whole."""
        chain = log[:-2]
        for verb, object_id, detail in entries:
            at_ns = log[-1].at_ns
            chain.append(
                audit.follow(
                    chain[-1], at_ns=at_ns, actor="ada", verb=verb, object_id=object_id, detail=detail
                )
            )
        assert audit.verify(chain) is None
        found = proof.decisions(chain, key_of=judge, signed_from=1)
        return [each for decision in found for each in decision.problems]

    decided, detail = log[-1].verb, log[-2].detail

    def pair(signed: Signed, object_id: str = ident) -> list[tuple[str, str, str]]:
        kept = signing_log.detail_of(signed)
        reference = signing_log.reference_to(kept)
        return [
            (signing_log.VERB, object_id, kept),
            (decided, object_id, f"digest={digest} {reference} reason=why"),
        ]

    assert written(*pair(given)) == []
    made = Signed(paper.document, thief.sign(paper.document))
    changed = Signed(paper.document.replace('"spark-1"', '"spark-2"'), given.signature)
    for attempt in (
        pair(made),
        pair(changed),
        pair(given, object_id="another"),
        [*pair(given), *pair(given)],
        [(decided, ident, f"digest={digest} reason=why")],
        [(decided, ident, f"digest={digest} {signing_log.reference_to(detail)} reason=why")],
        [(decided, ident, log[-1].detail.replace("reason=why", "reason=because"))],
    ):
        assert written(*attempt), attempt
    late = [log[-2], replace(log[-1], at_ns=entry.recommendation.approve_by_ns + 10**9)]
    assert proof.decisions([*log[:-2], *late], key_of=judge)[0].problems
