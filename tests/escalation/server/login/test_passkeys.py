"""Passkeys over the API that the script uses, with a security key in software."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from hypothesis import given, settings as bounds, strategies as st

from escalation.server.web.login.handshakes import HANDSHAKES, OPEN_AT_MOST
from escalation.server.web.login.passkey_desk import PASSKEYS, PER_PERSON
from escalation.server.web.login.passkeys import (
    Assertion,
    Attestation,
    Passkey,
    RelyingParty,
    WrongPasskey,
    bytes_of,
    has_passkeys,
    text_of,
)
from escalation.server.web.login.settings import LoginSettings
from tests.escalation.server.login.authenticator import PRESENT, VERIFIED, Authenticator
from tests.escalation.server.login.conftest import PUBLIC, House, built, csrf, sends, token

OTHER = "https://other.example"


async def says(
    client: httpx2.AsyncClient, path: str, body: dict[str, Any], *, session: bool = True
) -> httpx2.Response:
    """Ask as the script does."""
    headers = {"accept": "application/json"} | ({"x-csrf-token": await csrf(client)} if session else {})
    return await client.post(path, json=body, headers=headers)


async def adds(client: httpx2.AsyncClient, key: Authenticator, **wrong: Any) -> httpx2.Response:
    """Let `key` be added to the account that is logged in."""
    begun = (await says(client, "/account/passkeys/begin", {})).json()
    body = {
        "handshake": begun["handshake"],
        "answer": key.makes(begun["options"], **wrong),
        "label": "key <1>",
    }
    return await says(client, "/account/passkeys", body)


async def enters(house: House, key: Authenticator, **more: Any) -> tuple[httpx2.AsyncClient, httpx2.Response]:
    """Let somebody log in with `key` alone."""
    client = house.browser(PUBLIC)
    begun = (await says(client, "/login/passkey/begin", {}, session=False)).json()
    body = {"handshake": begun["handshake"], "answer": key.uses(begun["options"])} | more
    return client, await says(client, "/login/passkey", body, session=False)


async def added(house: House, key: Authenticator, name: str = "ada") -> httpx2.AsyncClient:
    """Return a browser in which `name` is logged in and has added `key`."""
    client = await house.enters(name, base_url=PUBLIC)
    assert (await adds(client, key)).status_code == 200
    return client


async def test_a_passkey_lets_its_person_in_without_a_password(house: House) -> None:
    """Added by who is logged in, it opens a new session by itself, that counts as shown just now."""
    key = Authenticator(count=1)
    await added(house, key)
    key.count += 1
    client, answer = await enters(house, key, next="/hosts")
    assert answer.json() == {"next": "/hosts"}
    page = (await client.get("/account")).text
    assert "By passkey, " in page
    assert "key &lt;1&gt;" in page
    assert ("ada", "passkey.added", "ada") in await house.audited()
    (kept,) = house.desk.store.ledger.records.of(PASSKEYS).values()
    assert (kept.person, kept.sign_count) == ("ada", 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"origin": OTHER},
        {"origin": "http://desk.example"},
        {"origin": "https://desk.example.evil.example"},
        {"flags": PRESENT},
        {"flags": VERIFIED},
        {"cross_origin": True},
    ],
)
async def test_what_is_not_of_our_origin_or_without_the_person_is_refused(
    house: House, wrong: dict[str, Any]
) -> None:
    """Another origin, a page inside another, and a key that verified nobody, neither add nor let in."""
    key = Authenticator()
    client = await house.enters("ada", base_url=PUBLIC)
    bad = Authenticator(**wrong, key=key.key)
    assert (await adds(client, bad)).status_code == 422
    assert (await adds(client, key)).status_code == 200
    assert (await enters(house, bad))[1].status_code == 422
    assert (await enters(house, key))[1].status_code == 200


async def test_another_key_under_the_same_id_is_refused(house: House) -> None:
    """The signature is checked with the key that was added."""
    await added(house, Authenticator())
    assert (await enters(house, Authenticator()))[1].status_code == 422
    refused = [each for each in await house.audited() if each[1] == "passkey.refused"]
    assert refused == [("orchestrator", "passkey.refused", "ada")]


@pytest.mark.parametrize(
    ("first", "second", "status"), [(5, 5, 422), (5, 4, 422), (5, 0, 422), (5, 6, 200), (0, 0, 200)]
)
async def test_a_count_that_goes_back_is_a_copy(house: House, first: int, second: int, status: int) -> None:
    """A key that counts must count upwards; one that never counts need not."""
    key = Authenticator(count=first)
    await added(house, key)
    key.count = second
    assert (await enters(house, key))[1].status_code == status


async def test_an_answer_is_good_once_and_for_its_own_challenge(house: House) -> None:
    """A recorded login cannot be replayed, nor used for another challenge or purpose."""
    key = Authenticator()
    client = await added(house, key)
    stranger = house.browser(PUBLIC)
    begun = (await says(stranger, "/login/passkey/begin", {}, session=False)).json()
    later = (await says(stranger, "/login/passkey/begin", {}, session=False)).json()
    recorded = key.uses(begun["options"])
    body = {"handshake": begun["handshake"], "answer": recorded}
    mixed = {"handshake": later["handshake"], "answer": recorded}
    assert (await says(stranger, "/login/passkey", mixed, session=False)).status_code == 422
    assert (await says(client, "/login/again/passkey", body)).status_code == 422
    assert (await says(stranger, "/login/passkey", body, session=False)).status_code == 200
    assert (await says(stranger, "/login/passkey", body, session=False)).status_code == 422


async def test_a_challenge_is_good_for_minutes(house: House) -> None:
    """An answer that comes too late is refused."""
    key = Authenticator()
    await added(house, key)
    client = house.browser(PUBLIC)
    begun = (await says(client, "/login/passkey/begin", {}, session=False)).json()
    house.desk.clock.advance(301)
    body = {"handshake": begun["handshake"], "answer": key.uses(begun["options"])}
    assert (await says(client, "/login/passkey", body, session=False)).status_code == 422


async def test_one_shows_who_one_is_with_ones_own_passkey_only() -> None:
    """Showing it once more makes the session fresh; another person's passkey does not."""
    async with built(settings=LoginSettings(fresh_s=60)) as house:
        hers, his = Authenticator(), Authenticator(id=b"\x08" * 32)
        client = await added(house, hers)
        await added(house, his, "bob")
        house.desk.clock.advance(61)
        assert (await says(client, "/account/passkeys/begin", {})).json()["error"]["code"] == "not_fresh"
        for key, status in ((his, 422), (hers, 200)):
            begun = (await says(client, "/login/again/passkey/begin", {})).json()
            assert [each["id"] for each in begun["options"]["allowCredentials"]] == [text_of(hers.id)]
            body = {"handshake": begun["handshake"], "answer": key.uses(begun["options"])}
            assert (await says(client, "/login/again/passkey", body)).status_code == status
        assert (await says(client, "/account/passkeys/begin", {})).status_code == 200


async def test_a_passkey_is_removed_by_its_person_or_an_administrator(house: House) -> None:
    """Another person removes nothing; once removed it lets nobody in."""
    key = Authenticator()
    client = await added(house, key)
    bob = await house.enters("bob")
    await sends(bob, f"/account/passkeys/{text_of(key.id)}/remove")
    assert (await enters(house, key))[1].status_code == 200
    await sends(client, f"/account/passkeys/{text_of(key.id)}/remove")
    assert (await enters(house, key))[1].status_code == 422
    await added(house, key)
    path, root = "/api/v1/persons/ada/passkeys/remove", {"authorization": f"Bearer {token('root')}"}
    assert (await house.browser().post(path, json={}, headers=root)).json() == {"count": 1}
    assert (await enters(house, key))[1].status_code == 422
    removed = [each for each in await house.audited() if each[1] == "passkey.removed"]
    assert removed == [("ada", "passkey.removed", "ada"), ("root", "passkey.removed", "ada")]


async def test_a_person_has_several_passkeys_and_not_endlessly_many(house: House) -> None:
    """The browser is told which ones there are, so that it makes none twice; their number has an end."""
    client = await house.enters("ada", base_url=PUBLIC)
    for number in range(PER_PERSON):
        assert (await adds(client, Authenticator(id=bytes([number]) * 16))).status_code == 200
    assert (await says(client, "/account/passkeys/begin", {})).status_code == 422
    await sends(client, f"/account/passkeys/{text_of(bytes(16))}/remove")
    begun = (await says(client, "/account/passkeys/begin", {})).json()
    assert len(begun["options"]["excludeCredentials"]) == PER_PERSON - 1
    again = {
        "handshake": begun["handshake"],
        "answer": Authenticator(id=b"\x01" * 16).makes(begun["options"]),
    }
    assert (await says(client, "/account/passkeys", again)).status_code == 422


async def test_a_passkey_of_who_left_the_settings_lets_nobody_in(house: House) -> None:
    """The account is gone with the person."""
    key = Authenticator()
    await added(house, key)
    kept = house.desk.store.ledger.records.get(PASSKEYS, text_of(key.id))
    assert isinstance(kept, Passkey)
    house.desk.store.ledger.records.put(
        PASSKEYS,
        text_of(key.id),
        Passkey(**{name: getattr(kept, name) for name in Passkey.__slots__} | {"person": "gone"}),
    )
    assert (await enters(house, key))[1].status_code == 422


async def test_many_who_begin_and_never_finish_cost_little(house: House) -> None:
    """What is begun is bounded in number, and an address may begin only so often."""
    statuses = []
    for _ in range(80):
        answer = await says(house.browser(PUBLIC), "/login/passkey/begin", {}, session=False)
        statuses.append(answer.status_code)
    assert (statuses[0], statuses[-1]) == (200, 429)
    for _ in range(OPEN_AT_MOST):
        house.desk.clock.advance(1)
        await says(house.browser(PUBLIC), "/login/passkey/begin", {}, session=False)
    assert len(house.desk.store.ledger.records.of(HANDSHAKES)) <= OPEN_AT_MOST


@pytest.mark.parametrize(
    ("origin", "yes"),
    [
        ("https://desk.example", True),
        ("http://localhost:9737", True),
        ("http://127.0.0.1:9737", False),
        ("", False),
    ],
)
def test_passkeys_are_of_a_name(origin: str, yes: bool) -> None:
    """Browsers bind a passkey to a name, never to an address."""
    assert has_passkeys(origin) is yes


@bounds(max_examples=300)
@given(
    st.binary(min_size=1, max_size=200),
    st.binary(min_size=1, max_size=300),
    st.binary(min_size=1, max_size=80),
)
def test_bytes_that_are_no_passkey_are_refused_by_name(client: bytes, data: bytes, signature: bytes) -> None:
    """Whatever a browser sends instead of each part is refused, and is never a failure."""
    party, key = RelyingParty(origin="https://desk.example"), Authenticator()
    options = party.to_add("ada", challenge="A" * 43, known=())
    good = key.makes(options)
    key_id, public, _ = party.added(Attestation(**good), challenge="A" * 43)
    passkey = Passkey(person="ada", label="", public=public, sign_count=0, added_ns=0, used_ns=0)
    used = key.uses(party.to_use(challenge="A" * 43))
    for field, junk in (("client_data", client), ("attestation", data)):
        with pytest.raises(WrongPasskey):
            party.added(Attestation(**good | {field: text_of(junk)}), challenge="A" * 43)
    for field, junk in (("client_data", client), ("authenticator_data", data), ("signature", signature)):
        with pytest.raises(WrongPasskey):
            party.used(Assertion(**used | {field: text_of(junk)}), passkey, challenge="A" * 43)
    assert key_id == text_of(key.id)


@bounds(max_examples=200)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_one_changed_byte_of_an_answer_is_refused(place: int, change: int) -> None:
    """Each byte of what was signed counts."""
    party, key = RelyingParty(origin="https://desk.example"), Authenticator()
    _, public, _ = party.added(
        Attestation(**key.makes(party.to_add("ada", challenge="A" * 43, known=()))), challenge="A" * 43
    )
    passkey = Passkey(person="ada", label="", public=public, sign_count=0, added_ns=0, used_ns=0)
    used = key.uses(party.to_use(challenge="A" * 43))
    for field in ("client_data", "authenticator_data"):
        raw = bytearray(bytes_of(used[field]))
        raw[place % len(raw)] ^= change
        with pytest.raises(WrongPasskey):
            party.used(Assertion(**used | {field: text_of(bytes(raw))}), passkey, challenge="A" * 43)
