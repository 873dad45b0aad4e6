"""Passwords, tokens on the page, the limits on guessing, and invitations."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import replace

import msgspec
import pytest
from argon2 import PasswordHasher
from argon2.low_level import Type
from hypothesis import given, strategies as st

from escalation.server.storage.store import StoreUnavailable
from escalation.server.web.access import Role
from escalation.server.web.login.accounts import INVITATIONS, PASSWORDS
from escalation.server.web.login.passwords import Passwords, check_hash
from escalation.server.web.login.refusals import LoginBusy
from escalation.server.web.login.settings import LoginSettings
from tests.escalation.server.login.conftest import CHEAP, PASSWORD, House, built, person, sends, token
from tests.security.properties import security_property

HASHED = CHEAP.hash(PASSWORD)


async def tries(house: House, name: str, secret: str) -> int:
    """Return what the login form answers."""
    return (await house.browser().post("/login", data={"name": name, "password": secret})).status_code


async def test_a_person_logs_in_with_the_password_of_the_settings() -> None:
    """The right one lets in, with the person's own token too; another person's does not."""
    async with built(person("ada", password_hash=HASHED), person("bob")) as house:
        assert await tries(house, "ada", PASSWORD) == 303
        assert await tries(house, "ada", token("ada")) == 303
        assert await tries(house, "bob", PASSWORD) == 422
        assert await tries(house, "bob", token("ada")) == 422
        assert ("ada", "session.opened", "ada") in await house.audited()


class _Counted(Passwords):
    """Passwords that count what is computed."""

    def __init__(self) -> None:
        super().__init__(hasher=CHEAP)
        self.computed: list[str] = []

    def _verify(self, hashed: str, password: str) -> bool:
        self.computed.append(hashed)
        return super()._verify(hashed, password)


@security_property(
    "T27",
    "An unknown name costs and answers the same as a wrong password.",
)
async def test_an_unknown_name_costs_and_answers_the_same_as_a_wrong_password() -> None:
    """One hash of the same cost is computed for each, and the two pages differ in nothing."""
    counted = _Counted()
    async with built(person("ada", password_hash=HASHED), person("bob"), passwords=counted) as house:
        pages = []
        for name in ("ada", "bob", "nobody", "", "é" * 200):
            form = {"name": name, "password": "wrong", "next": "/hosts"}
            answer = await house.browser().post("/login", data=form)
            pages.append((answer.status_code, answer.text))
        assert pages == [pages[0]] * 5
        assert len(counted.computed) == 5
        costs = {tuple(re.findall(r"[mtp]=(\d+)", each)) for each in counted.computed}
        assert costs == {("64", "1", "1")}


async def test_guessing_is_slowed_by_account_and_by_address() -> None:
    """Ten wrong ones, then one each five seconds; the right password waits too, and the audit log says it."""
    async with built(person("ada", password_hash=HASHED), person("bob")) as house:
        assert [await tries(house, "ada", f"wrong {number}") for number in range(12)] == [422] * 10 + [
            429
        ] * 2
        assert await tries(house, "ada", PASSWORD) == 429
        limited = [each for each in await house.audited() if each[1] == "login.limited"]
        assert limited == [("orchestrator", "login.limited", "ada")]
        house.desk.clock.advance(6)
        assert await tries(house, "ada", PASSWORD) == 303


async def test_a_limited_account_keeps_its_sessions(house: House) -> None:
    """Whoever guesses at an account locks nobody out of a session that is there."""
    client = await house.enters("ada")
    for number in range(20):
        await tries(house, "ada", f"wrong {number}")
    assert await tries(house, "ada", token("ada")) == 429
    assert (await client.get("/account")).status_code == 200
    entry = await house.desk.opened()
    path = f"/api/v1/queue/{entry.recommendation.id}"
    bearer = {"authorization": f"Bearer {token('ada')}"}
    assert (await house.browser().get(path, headers=bearer)).status_code == 200


async def test_an_account_is_limited_from_many_addresses(house: House) -> None:
    """Guesses that come from everywhere count together."""
    statuses = []
    for number in range(12):
        client = house.browser(client=(f"10.0.0.{number}", 1))
        answer = await client.post("/login", data={"name": "ada", "password": "wrong"})
        statuses.append(answer.status_code)
    assert statuses == [422] * 10 + [429] * 2


async def test_logging_in_rightly_uses_up_no_attempts(house: House) -> None:
    """Who logs in often is not limited."""
    assert [await tries(house, "ada", token("ada")) for _ in range(15)] == [303] * 15


async def test_no_flood_of_logins_takes_the_processor() -> None:
    """So many are computed and wait; whoever comes then is told to come back, and it is no failed attempt."""
    passwords = Passwords(hasher=CHEAP)
    results = await asyncio.gather(
        *(passwords.fits(HASHED, PASSWORD) for _ in range(40)), return_exceptions=True
    )
    busy = [each for each in results if isinstance(each, LoginBusy)]
    assert len(results) - len(busy) == 10
    assert all(each is True for each in results if not isinstance(each, LoginBusy))
    assert await passwords.fits(HASHED, PASSWORD)
    assert not await passwords.fits(None, PASSWORD)
    assert not await passwords.fits(HASHED, PASSWORD * 100)


async def test_a_full_disk_lets_nobody_in_and_says_so(house: House) -> None:
    """Without storage there is no session; the page says that it will work again."""
    house.desk.store.writable = False
    assert await tries(house, "ada", token("ada")) == 503


async def test_a_broken_store_is_unavailable_to_a_cookie(house: House) -> None:
    """Who cannot be looked up is neither let in nor called a stranger."""
    client = await house.enters("ada")

    async def broken(_work: object) -> None:
        raise StoreUnavailable("gone")

    house.desk.store.read = broken  # type: ignore[method-assign, assignment]
    answer = await client.get("/account")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert (await client.get("/login")).status_code == 200


@pytest.mark.parametrize(
    "hashed",
    [
        "",
        "plain",
        "$2b$12$abcdefghijklmnopqrstuuyrsq0Q0o5OyKmyrTvnBbUXTFt3YbtlC",
        PasswordHasher(time_cost=1, memory_cost=64, parallelism=1, type=Type.I).hash(PASSWORD),
        "$argon2id$v=19$m=99999999,t=1,p=1$YWFhYWFhYWE$YWFhYWFhYWFhYWFhYWFhYQ",
    ],
    ids=["empty", "plain", "bcrypt", "argon2i", "too much memory"],
)
def test_what_is_no_hash_of_ours_is_refused_in_the_settings(hashed: str) -> None:
    """check-config says it, instead of a login that never works."""
    with pytest.raises(ValueError, match="password_hash"):
        check_hash(hashed)


@given(st.text(max_size=80))
def test_no_text_makes_the_check_of_a_hash_fail(hashed: str) -> None:
    """Whatever stands there is a hash or a ValueError, which the settings say by name."""
    with contextlib.suppress(ValueError):
        check_hash(hashed)


async def invited(house: House, name: str = "ada") -> str:
    """Return the code of an invitation by root."""
    headers = {"authorization": f"Bearer {token('root')}"}
    answer = await house.browser().post(f"/api/v1/persons/{name}/invite", json={}, headers=headers)
    made = answer.json()
    assert made["url"] == f"https://desk.example/invite#{made['code']}"
    return str(made["code"])


async def test_an_invitation_lets_in_once_and_sets_a_password(house: House) -> None:
    """The code is kept as a hash, is good once, and both ends of it are in the audit log."""
    code = await invited(house)
    assert code not in repr(house.desk.store.ledger.records.of(INVITATIONS))
    client = house.browser()
    answer = await client.post("/invite", data={"code": code, "password": PASSWORD})
    assert (answer.status_code, answer.headers["location"]) == (303, "/account")
    assert (await client.get("/account")).status_code == 200
    assert await tries(house, "ada", PASSWORD) == 303
    again = await house.browser().post("/invite", data={"code": code, "password": PASSWORD})
    assert again.status_code == 422
    audited = await house.audited()
    for entry in (
        ("root", "person.invited", "ada"),
        ("ada", "invitation.used", "ada"),
        ("ada", "password.set", "ada"),
    ):
        assert entry in audited


async def test_a_password_set_by_an_invitation_ends_what_was_open(house: House) -> None:
    """Who lost their account and is invited anew is alone in it; an invitation without one ends nothing."""
    before = await house.enters("ada")
    await house.browser().post("/invite", data={"code": await invited(house)})
    assert (await before.get("/account")).status_code == 200
    client = house.browser()
    await client.post("/invite", data={"code": await invited(house), "password": PASSWORD})
    assert (await client.get("/account")).status_code == 200
    assert (await before.get("/account")).status_code == 303


async def test_an_invitation_is_good_for_a_while_and_a_new_one_voids_it(house: House) -> None:
    """Old and replaced codes let nobody in; neither does one of a person who left the settings."""
    first = await invited(house)
    second = await invited(house)
    assert (await house.browser().post("/invite", data={"code": first})).status_code == 422
    house.desk.clock.advance(86_401)
    assert (await house.browser().post("/invite", data={"code": second})).status_code == 422
    third = await invited(house)
    async with built(person("bob"), desk=house.desk) as later:
        assert (await later.browser().post("/invite", data={"code": third})).status_code == 422


@pytest.mark.parametrize("password", ["short", "a" * 513, "twelve\x00chars!"])
async def test_a_password_that_will_not_do_uses_up_no_code(house: House, password: str) -> None:
    """The reason is shown, and the code still works."""
    code = await invited(house)
    answer = await house.browser().post("/invite", data={"code": code, "password": password})
    assert answer.status_code == 422
    assert "a password " in answer.text
    assert (await house.browser().post("/invite", data={"code": code})).status_code == 303


async def test_a_new_password_ends_the_other_sessions() -> None:
    """Who changes it is alone afterwards; it needs a person who showed lately who they are."""
    async with built(settings=LoginSettings(fresh_s=60)) as house:
        client, other = await house.enters("ada"), await house.enters("ada")
        house.desk.clock.advance(61)
        stale = await sends(client, "/account/password", password=PASSWORD)
        assert stale.headers["location"].startswith("/login/again")
        await sends(client, "/login/again", password=token("ada"))
        assert (await sends(client, "/account/password", password="short")).status_code == 422
        assert (await sends(client, "/account/password", password=PASSWORD)).status_code == 303
        assert (await client.get("/account")).status_code == 200
        assert (await other.get("/account")).status_code == 303
        kept = house.desk.store.ledger.records.of(PASSWORDS)["ada"]
        assert kept.hashed.startswith("$argon2id$")
        assert PASSWORD not in repr(replace(kept))


async def test_a_password_of_the_settings_is_changed_there() -> None:
    """The page cannot set aside what the host's administrator wrote."""
    async with built(person("ada", password_hash=HASHED), person("root", role=Role.ADMIN)) as house:
        client = await house.enters("ada")
        answer = await sends(client, "/account/password", password="another password")
        assert answer.status_code == 422
        code = await invited(house)
        answer = await house.browser().post("/invite", data={"code": code, "password": "another password"})
        assert answer.status_code == 422


def test_a_person_of_the_settings_may_have_no_token() -> None:
    """A token is one way among others, and the absence of one fits no credentials."""
    kim = msgspec.convert({"name": "kim", "role": "viewer"}, type(person("ada")))
    assert kim.token_sha256 is None
