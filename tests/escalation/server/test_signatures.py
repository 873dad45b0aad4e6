"""Signed approvals at the desk: whose signature it is, over what, and that none counts twice."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from escalation.model import (
    ActionKind,
    CasePhase,
    Incarnation,
    Override,
    PasskeySignature,
    RecommendationId,
    Signed,
    SshSignature,
    State,
)
from escalation.server.decision.approval_desk import StoredApprovals
from escalation.server.decision.approvals import Policy
from escalation.server.decision.signatures import Signatures
from escalation.server.desk import Entry, Refused, Superseded, Unavailable
from escalation.server.storage import rows
from escalation.server.storage.store import Ledger
from escalation.server.testing import CONTAINER, FakeDesk, MemoryStore, case_report
from escalation.signing import approval, approvers, proof
from escalation.signing.approvers import Approvers
from escalation.signing.keys import key_of
from escalation.signing.log import VERB, reference_to, signed_of
from escalation.signing.passkey import Passkey
from tests.escalation.server.databases import Database
from tests.escalation.signers import KEYGEN, Authenticator, SshKey

Sign = Callable[[str], SshSignature | PasskeySignature]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SshKey]:
    folder = tmp_path_factory.mktemp("keys")
    return {name: SshKey.made(folder / name) for name in ("ada", "grace", "second", "stranger")}


class Signing:
    """A desk that knows Ada's two SSH keys and passkey, and Grace's key."""

    def __init__(self, keys: dict[str, SshKey], policy: Policy, *, store: MemoryStore | None = None) -> None:
        self.passkey = Authenticator()
        self.known = approvers.parse(
            keys["ada"].line("ada")
            + keys["second"].line("ada")
            + keys["grace"].line("grace")
            + self.passkey.line("ada"),
            name="approvers",
        )
        signatures = Signatures(read=lambda: self.known, keygen=KEYGEN)
        self.desk = FakeDesk(policy=policy, signatures=signatures, store=store)
        self.papers = StoredApprovals(store=self.desk.store, policy=policy)

    async def document(self, entry: Entry, person: str = "ada", reason: str = "why") -> str:
        ident = entry.recommendation.id
        return (await self.papers.document(ident, person=person, reason=reason)).document

    async def approve(self, entry: Entry, sign: Sign, *, person: str = "ada", text: str = "") -> Entry:
        document = text or await self.document(entry, person)
        return await self.desk.approve(
            entry.recommendation.id,
            person=person,
            reason="why",
            digest=entry.recommendation.digest,
            signed=Signed(document, sign(document)),
        )


_TWO = Policy(two_person=frozenset({ActionKind.RESTART_CONTAINER}))
_ALL = Policy(require_signature=frozenset(ActionKind))


async def test_an_approval_keeps_its_document_and_signature(keys: dict[str, SshKey]) -> None:
    """Who signed, with which key and over what is with the recommendation, and whole in the audit log."""
    signing = Signing(keys, _ALL)
    approved = (await signing.approve(await signing.desk.opened(), keys["ada"].sign)).recommendation
    assert approved.state is State.APPROVED
    (given,) = approved.approvals
    assert given.signed is not None
    assert given.key == KEYGEN.verify(  # the bytes that are kept are enough to check it again
        SshSignature(given.signed.signature.armoured),  # type: ignore[union-attr]
        given.signed.document,
        person="ada",
        approvers=signing.known,
    )
    signed, decided = (await signing.desk.audit(after=0, limit=100))[-2:]
    assert (signed.verb, signed.object_id, signed.actor) == (VERB, approved.id, "ada")
    assert signed_of(signed.detail) == given.signed
    assert reference_to(signed.detail) in decided.detail


async def test_a_passkey_signs_as_well(keys: dict[str, SshKey]) -> None:
    """An assertion over the document counts where policy wants a signature."""
    signing = Signing(keys, _ALL)
    approved = await signing.approve(await signing.desk.opened(), signing.passkey.sign)
    assert approved.recommendation.approvals[0].key == signing.passkey.passkey.credential_id


async def test_a_passkey_that_was_registered_here_counts(keys: dict[str, SshKey]) -> None:
    """What a person registered at the orchestrator counts for that person, and for nobody else."""
    own = Authenticator()

    async def registered(person: str) -> tuple[Passkey, ...]:
        return (own.passkey,) if person == "grace" else ()

    signatures = Signatures(read=lambda: None, keygen=None, passkeys=registered)
    signing = Signing(keys, _ALL)
    document = await signing.document(await signing.desk.opened(), "grace")
    checked = await signatures.check(Signed(document, own.sign(document)), person="grace")
    assert checked.key == own.passkey.credential_id
    with pytest.raises(Refused, match="names another person"):
        await signatures.check(Signed(document, own.sign(document)), person="ada")


async def test_policy_may_want_a_signature(keys: dict[str, SshKey]) -> None:
    """An unsigned approval of a kind that has to be signed is refused, and the entry still waits."""
    signing = Signing(keys, _ALL)
    entry = await signing.desk.opened()
    ident, digest = entry.recommendation.id, entry.recommendation.digest
    with pytest.raises(Refused, match="has to be signed"):
        await signing.desk.approve(ident, person="ada", reason="why", digest=digest)
    assert (await signing.desk.entry(ident)).recommendation.state is State.PROPOSED


async def test_a_strangers_key_counts_for_nobody(keys: dict[str, SshKey]) -> None:
    """A key that the approvers' file does not give this person is refused: unknown, or another's."""
    signing = Signing(keys, _ALL)
    entry = await signing.desk.opened()
    for name in ("stranger", "grace"):
        with pytest.raises(Refused, match="may not sign this for ada"):
            await signing.approve(entry, keys[name].sign)


async def test_a_signature_over_anything_else_is_refused(keys: dict[str, SshKey]) -> None:
    """Another text, another namespace and bytes that are no signature do not pass."""
    signing = Signing(keys, _ALL)
    entry = await signing.desk.opened()
    document = await signing.document(entry)
    wrong: list[Sign] = [
        lambda text: keys["ada"].sign(text + " "),
        lambda text: keys["ada"].sign_for("file", text),
        lambda _: SshSignature("nothing"),
        lambda _: signing.passkey.sign(document.replace("why", "yes")),
        Authenticator().sign,
    ]
    for sign in wrong:
        with pytest.raises(Refused, match="was not taken"):
            await signing.approve(entry, sign, text=document)


async def test_what_was_signed_has_to_be_what_stands_there(keys: dict[str, SshKey]) -> None:
    """A right signature over a document in which anything is different is refused, and says what."""
    signing = Signing(keys, _ALL)
    entry = await signing.desk.opened()
    document = await signing.document(entry)
    parsed = approval.parse(document)
    for was, now, name in (
        ('"spark-1"', '"spark-2"', "host"),
        (f'"{CONTAINER}"],"kind"', '"other"],"kind"', "action"),
        (parsed.evidence, "0" * 64, "evidence"),
        (parsed.approve_by, "2027-01-01T00:00:00.000Z", "approve_by"),
        (parsed.policy, "0" * 64, "policy"),
        ('"why"', '"because"', "reason"),
    ):
        changed = document.replace(was, now)
        assert changed != document
        with pytest.raises(Superseded, match=name):
            await signing.approve(entry, keys["ada"].sign, text=changed)


async def test_a_document_is_used_once(keys: dict[str, SshKey]) -> None:
    """The same signed document is not taken again, not even after what it was for was restated and back."""
    signing = Signing(keys, _TWO)
    entry = await signing.desk.opened()
    document = await signing.document(entry)
    await signing.approve(entry, keys["ada"].sign, text=document)
    with pytest.raises(Refused, match="used already"):
        await signing.approve(entry, keys["ada"].sign, text=document)


async def test_what_is_set_aside_is_signed_too(keys: dict[str, SshKey]) -> None:
    """A condition that nobody signed for is not set aside in a person's name."""
    signing = Signing(keys, _ALL)
    entry = await signing.desk.opened()
    ident, digest = entry.recommendation.id, entry.recommendation.digest
    document = await signing.document(entry)
    condition = next(each.condition for each in entry.preconditions if each.may_be_set_aside)
    aside = Override(condition, "it answers nothing")
    with pytest.raises(Superseded, match=r"\(set_aside\)"):
        await signing.desk.approve(
            ident,
            person="ada",
            reason="why",
            digest=digest,
            signed=Signed(document, keys["ada"].sign(document)),
            overrides=[aside],
        )
    paper = await signing.papers.document(ident, person="ada", reason="why", overrides=[aside])
    approved = await signing.desk.approve(
        ident,
        person="ada",
        reason="why",
        digest=digest,
        signed=Signed(paper.document, keys["ada"].sign(paper.document)),
        overrides=[aside],
    )
    assert approved.recommendation.state is State.APPROVED


async def test_two_keys_of_one_person_count_once(keys: dict[str, SshKey]) -> None:
    """Two-person approval means two persons: Ada's second key and her passkey change nothing."""
    signing = Signing(keys, _TWO)
    entry = await signing.desk.opened()
    await signing.approve(entry, keys["ada"].sign)
    for sign in (keys["second"].sign, signing.passkey.sign):
        with pytest.raises(Refused, match="second person"):
            await signing.approve(entry, sign)
    approved = await signing.approve(entry, keys["grace"].sign, person="grace")
    assert approved.recommendation.state is State.APPROVED
    assert [each.person for each in approved.recommendation.approvals] == ["ada", "grace"]


async def test_one_key_of_two_persons_counts_once(keys: dict[str, SshKey]) -> None:
    """A key that stands on two persons' lines makes them one in two-person approval."""
    signing = Signing(keys, _TWO)
    signing.known = approvers.parse(keys["ada"].line("ada,grace"), name="approvers")
    entry = await signing.desk.opened()
    await signing.approve(entry, keys["ada"].sign)
    with pytest.raises(Refused, match="for somebody else"):
        await signing.approve(entry, keys["ada"].sign, person="grace")


async def test_a_changed_proposal_takes_the_first_signature_with_it(keys: dict[str, SshKey]) -> None:
    """What one person of two signed is void when the action or its evidence changes."""
    signing = Signing(keys, _TWO)
    entry = await signing.desk.opened()
    await signing.approve(entry, keys["ada"].sign)
    await signing.desk.report(
        case_report(case_id="case-1", incarnation=Incarnation(kernel_boot_id="kernel-2"))
    )
    now = await signing.desk.entry(entry.incident.id)
    assert now.recommendation.approvals == ()


async def test_what_is_signed_anew_after_it_was_void_is_in_order(keys: dict[str, SshKey]) -> None:
    """The target becomes another one and the same again: who signs once more did nothing twice."""
    signing = Signing(keys, _TWO)
    entry = await signing.desk.opened()
    await signing.approve(entry, keys["ada"].sign)
    for boot in ("kernel-2", "kernel-1"):
        life = Incarnation(kernel_boot_id=boot, container_id=CONTAINER)
        await signing.desk.report(case_report(CasePhase.UPDATED, incarnation=life))
    now = await signing.desk.entry(entry.recommendation.id)
    assert (now.recommendation.digest, now.recommendation.approvers) == (entry.recommendation.digest, ())
    await signing.approve(now, keys["ada"].sign)
    await signing.approve(now, keys["grace"].sign, person="grace")
    log = await signing.desk.audit(after=0, limit=100)
    judge = partial(key_of, approvers=signing.known, keygen=KEYGEN)
    found = proof.decisions(log, key_of=judge, signed_from=1)
    assert [(each.person, each.problems) for each in found] == [("ada", ()), ("ada", ()), ("grace", ())]


async def test_what_is_signed_anew_under_other_rules_is_in_order(keys: dict[str, SshKey]) -> None:
    """A first signature under other rules is void: the log shows it, and the same person may sign again."""
    signing = Signing(keys, _TWO)
    entry = await signing.desk.opened()
    await signing.approve(entry, keys["ada"].sign)
    stricter = Signing(keys, replace(_TWO, approve_within_s=3600), store=signing.desk.store)
    await stricter.desk.service.prepare()
    now = await stricter.desk.entry(entry.recommendation.id)
    assert now.recommendation.approvers == ()
    await stricter.approve(now, keys["ada"].sign)
    approved = await stricter.approve(now, keys["grace"].sign, person="grace")
    assert approved.recommendation.state is State.APPROVED
    log = await stricter.desk.audit(after=0, limit=100)
    judge = partial(key_of, approvers=stricter.known, keygen=KEYGEN)
    found = proof.decisions(log, key_of=judge, signed_from=1)
    assert [(each.person, each.problems) for each in found] == [("ada", ()), ("ada", ()), ("grace", ())]


async def test_every_database_keeps_it_and_reads_what_is_older(
    keys: dict[str, SshKey], database: Database
) -> None:
    """A signed approval comes back as it was from each database, and one from before they were kept too."""
    signing = Signing(keys, _ALL)
    entry = await signing.desk.opened()
    ssh = await signing.approve(entry, keys["ada"].sign)
    other = await signing.approve(
        await signing.desk.opened(host="spark-2", case_id="case-2"), signing.passkey.sign
    )
    older = rows.load_recommendation(
        json.dumps({k: v for k, v in json.loads(rows.dump(ssh.recommendation)).items() if k != "approvals"})
    )
    assert older.approvers == ("ada",)
    assert older.approvals == ()
    kept = [ssh.recommendation, other.recommendation, replace(older, id=RecommendationId("older"))]

    def keep(ledger: Ledger) -> None:
        for each, incident in zip(kept, (ssh.incident, other.incident, ssh.incident), strict=True):
            ledger.put_incident(incident)
            ledger.put_recommendation(each, incident)

    store = database.open()
    await store.write(keep)
    await store.close()
    store = database.open()
    assert [await store.read(lambda ledger, i=each.id: ledger.recommendation(i)) for each in kept] == kept
    await store.close()


async def test_a_file_that_cannot_be_trusted_takes_nothing(keys: dict[str, SshKey], tmp_path: Path) -> None:
    """When others could have changed the approvers' file, signatures cannot be checked, and none counts."""
    file = tmp_path / "approvers"
    file.write_text(keys["ada"].line("ada"))
    file.chmod(0o666)

    def read() -> Approvers:
        return approvers.read(file, owners={0, os.geteuid()})

    signing = Signing(keys, _ALL)
    signatures = Signatures(read=read, keygen=KEYGEN)
    document = await signing.document(await signing.desk.opened())
    with pytest.raises(Unavailable, match="others can change it"):
        await signatures.check(Signed(document, keys["ada"].sign(document)), person="ada")
    file.chmod(0o644)
    await signatures.check(Signed(document, keys["ada"].sign(document)), person="ada")
    file.write_text(keys["grace"].line("grace"))
    with pytest.raises(Refused):  # a key that was taken out counts no more
        await signatures.check(Signed(document, keys["ada"].sign(document)), person="ada")
