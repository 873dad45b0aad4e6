"""A running orchestrator that takes signed approvals alone: its settings, its file, keys and passkeys."""

from __future__ import annotations

import os
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner
from fido2.cose import ES256
from fido2.webauthn import AttestedCredentialData

from escalation.server import app
from escalation.server.__main__ import main
from escalation.server.testing import MemoryStore, case_report, heartbeat
from escalation.server.web.login.passkey_desk import PASSKEYS
from escalation.server.web.login.passkeys import Passkey as Registered
from escalation.server.web.login.signing_keys import registered
from escalation.signing import approvers
from escalation.wire import codec
from tests.escalation.server.conftest import running
from tests.escalation.server.site import TOKEN, Site, escalate, wired
from tests.escalation.signers import Authenticator, SshKey, encoded
from tests.security.properties import security_property

pytestmark = pytest.mark.root  # the file of approvers has to belong to root


@pytest.fixture
def signed(site: Site) -> tuple[Site, SshKey, Authenticator]:
    """Settings by which every restart has to be signed, by Ada's SSH key or her passkey."""
    key, passkey = SshKey.made(site.folder / "ada"), Authenticator()
    file = site.folder / "approvers"
    file.write_text(key.line("ada") + passkey.line("ada"))
    file.chmod(0o644)
    settings = site.config_file.read_text()
    site.config_file.write_text(
        f'{settings}[approvals]\nrequire_signature = ["restart_container"]\n'
        f'[approvals.signing]\nallowed_signers = "{file}"\n'
    )
    return site, key, passkey


@pytest.mark.parametrize("by", ["ssh", "webauthn"])
@security_property(
    "A5",
    "Where a signature is wanted, a real orchestrator takes no approval without a right one.",
)
async def test_takes_a_restart_only_when_it_is_signed(
    signed: tuple[Site, SshKey, Authenticator], by: str
) -> None:
    """What an agent reported is approved by a signature over the document, and by nothing less."""
    site, key, passkey = signed
    people = httpx2.AsyncClient(base_url=site.url, headers={"Authorization": f"Bearer {TOKEN}"})
    async with running(site), site.channel(site.authority.agent("spark-1")) as channel, people:
        await escalate(channel, codec.join([wired(heartbeat(), 1), wired(case_report(), 2)]))
        (entry,) = (await people.get("/api/v1/queue")).json()["entries"]
        path = f"/api/v1/queue/{entry['id']}"
        terms = (await people.get(f"{path}/approval")).json()
        assert (terms["required"], terms["person"]) == (True, "ada")
        said: dict[str, Any] = {"reason": "why", "digest": entry["digest"]}
        unsigned = await people.post(f"{path}/approve", json=said)
        assert (unsigned.status_code, unsigned.json()["error"]["code"]) == (409, "refused")
        paper = (await people.post(f"{path}/document", json={"reason": "why"})).json()["document"]
        made = key.sign(paper) if by == "ssh" else passkey.sign(paper)
        fields = {name: getattr(made, name) for name in made.__struct_fields__}
        said["signed"] = {"document": paper, "signature": {"kind": by, **fields}}
        answer = await people.post(f"{path}/approve", json=said)
        assert (answer.status_code, answer.json()["state"]) == (200, "approved")
        assert answer.json()["approvals"][0]["kind"] == by


def test_a_file_that_others_can_change_stops_the_start(signed: tuple[Site, SshKey, Authenticator]) -> None:
    """check-config and serve say what is wrong with the file, before anybody relies on it."""
    site, _, _ = signed
    runner, file = CliRunner(), site.folder / "approvers"
    assert runner.invoke(main, ["check-config", str(site.config_file)]).exit_code == 0
    file.chmod(0o666)
    refused = runner.invoke(main, ["check-config", str(site.config_file)])
    assert (refused.exit_code, "others can change it" in refused.output) == (1, True)
    file.chmod(0o644)
    os.chown(file, 12345, -1)
    refused = runner.invoke(main, ["check-config", str(site.config_file)])
    assert "has to belong to root" in refused.output


async def test_does_not_start_without_its_file(signed: tuple[Site, SshKey, Authenticator]) -> None:
    """An approvers' file that is named and missing is an error, not an empty list."""
    site, _, _ = signed
    (site.folder / "approvers").unlink()
    with pytest.raises(app.StartError, match=r"approvals\.signing: .*approvers: cannot be read"):
        async with running(site):
            pass


async def test_what_was_registered_at_the_page_is_a_key_and_a_line() -> None:
    """A registered passkey signs for its person, and is the line that the approvers' file wants."""
    own, store = Authenticator(), MemoryStore()
    key = ES256.from_cryptography_key(own.key.public_key())
    kept = Registered(
        person="ada",
        label="phone",
        public=encoded(AttestedCredentialData.create(b"\0" * 16, own.credential, key)),
        sign_count=0,
        added_ns=1,
        used_ns=0,
    )
    await store.write(lambda ledger: ledger.records.put(PASSKEYS, own.passkey.credential_id, kept))
    of = registered(store, origin=own.origin)
    assert list(await of("ada")) == [own.passkey]
    assert list(await of("grace")) == []
    (line,) = [approvers.line_of("ada", each) for each in await of("ada")]
    assert approvers.parse(line, name="line").passkey("ada", own.passkey.credential_id) == own.passkey
