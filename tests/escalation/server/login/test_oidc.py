"""A provider of identities: whom its tokens let in, and every token that lets nobody in."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from hypothesis import HealthCheck, example, given, settings as bounds, strategies as st

from escalation.server.clock import Timekeeper
from escalation.server.config import Config, GrpcSettings
from escalation.server.testing import FakeDesk, ManualClock
from escalation.server.web.access import Role
from escalation.server.web.http import HttpSettings
from escalation.server.web.login.accounts import PASSWORDS
from escalation.server.web.login.oidc import OidcSettings, Provider
from escalation.server.web.login.refusals import LoginRefused
from escalation.server.web.login.settings import LoginSettings
from tests.escalation.server.login.conftest import PUBLIC, House, built, person, sends
from tests.escalation.server.login.provider import CLIENT, SECRET, TestProvider, new_key, serving

ADA = person("ada", oidc="248289761001")
OTHER_KEY = new_key()


@asynccontextmanager
async def together(folder: Path, *persons: Any, **fields: Any) -> AsyncIterator[tuple[House, TestProvider]]:
    """An orchestrator and its provider of identities."""
    desk = FakeDesk()
    secret = folder / "client-secret"
    secret.write_text(f"{SECRET}\n")
    async with serving(TestProvider(now_s=lambda: desk.clock.wall_ns() / 1e9)) as provider:
        oidc = OidcSettings(
            issuer=provider.issuer, client_id=CLIENT, client_secret_file=secret, label="The <Works>", **fields
        )
        async with built(
            *(persons or (ADA, person("root"))), desk=desk, settings=LoginSettings(oidc=oidc)
        ) as house:
            yield house, provider


async def begins(client: httpx2.AsyncClient, **form: str) -> str:
    """Return where the browser is sent to."""
    answer = await client.post("/login/oidc", data={"next": "/"} | form)
    assert answer.status_code == 200, answer.text
    found = re.search(r'content="0; url=([^"]+)"', answer.text)
    assert found is not None
    assert "The &lt;Works&gt;" in answer.text
    return html.unescape(found[1])


async def ends(client: httpx2.AsyncClient, code: str, state: str) -> httpx2.Response:
    """Come back as a browser does: from another site, without cookies, to a form that it sends."""
    back = {"sec-fetch-site": "cross-site"}
    page = await client.get("/login/oidc/callback", params={"code": code, "state": state}, headers=back)
    assert page.status_code == 200
    fields = {
        name: html.unescape(value)
        for name, value in re.findall(r'name="(code|state)" value="([^"]*)"', page.text)
    }
    return await client.post("/login/oidc/finish", data=fields)


async def logs_in(
    house: House, provider: TestProvider, **form: str
) -> tuple[httpx2.AsyncClient, httpx2.Response]:
    """Go there and back."""
    client = house.browser(PUBLIC)
    return client, await ends(client, *provider.logs_in(await begins(client, **form)))


async def test_a_person_whom_the_provider_knows_is_let_in(tmp_path: Path) -> None:
    """There and back: PKCE, state and nonce are used, the claim names our person, `next` is kept."""
    async with together(tmp_path) as (house, provider):
        client, answer = await logs_in(house, provider, next="/hosts")
        assert (answer.status_code, answer.headers["location"]) == (303, "/hosts")
        page = (await client.get("/account")).text
        assert "<bdi>ada</bdi>" in page
        assert "By another service, " in page
        assert provider.asked["redirect_uri"] == ["https://desk.example/login/oidc/callback"]
        assert "max_age" not in provider.asked
        assert ("ada", "session.opened", "ada") in await house.audited()


def _signed(**changes: Any) -> Callable[[TestProvider, dict[str, Any]], str]:
    def forge(provider: TestProvider, claims: dict[str, Any]) -> str:
        wrong = claims | changes
        return provider.token({name: value for name, value in wrong.items() if value is not None})

    return forge


def _unsigned(provider: TestProvider, claims: dict[str, Any]) -> str:
    return jwt.encode(claims, None, algorithm="none", headers={"kid": provider.kid})


def _by_public_key(provider: TestProvider, claims: dict[str, Any]) -> str:
    """Sign with the public key as if it were a shared secret, which a careless reader would accept."""
    import base64  # noqa: PLC0415
    import hmac  # noqa: PLC0415
    import json  # noqa: PLC0415

    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    public = provider.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    parts = [json.dumps({"alg": "HS256", "kid": provider.kid}).encode(), json.dumps(claims).encode()]
    body = b".".join(base64.urlsafe_b64encode(each).rstrip(b"=") for each in parts)
    signature = base64.urlsafe_b64encode(hmac.digest(public, body, "sha256")).rstrip(b"=")
    return f"{body.decode()}.{signature.decode()}"


def _other_key(provider: TestProvider, claims: dict[str, Any]) -> str:
    return jwt.encode(claims, OTHER_KEY, algorithm="RS256", headers={"kid": provider.kid})


def _own_key_inside(provider: TestProvider, claims: dict[str, Any]) -> str:
    import json  # noqa: PLC0415

    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(OTHER_KEY.public_key()))
    headers = {"kid": "mine", "jwk": public, "jku": "http://127.0.0.1:1/keys"}
    return jwt.encode(claims, OTHER_KEY, algorithm="RS256", headers=headers)


def _changed(provider: TestProvider, claims: dict[str, Any]) -> str:
    head, body, signature = provider.token(claims).split(".")
    return f"{head}.{body[:-2]}AA.{signature}"


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(_unsigned, id="alg none"),
        pytest.param(_by_public_key, id="public key as secret"),
        pytest.param(_other_key, id="another key"),
        pytest.param(_own_key_inside, id="brings its own key"),
        pytest.param(_changed, id="changed"),
        pytest.param(lambda _provider, _claims: "not.a.token", id="no token"),
        pytest.param(_signed(aud="somebody-else"), id="another audience"),
        pytest.param(_signed(aud=[CLIENT, "other"]), id="several audiences without azp"),
        pytest.param(_signed(azp="other"), id="issued to another"),
        pytest.param(_signed(iss="https://evil.example"), id="another issuer"),
        pytest.param(_signed(nonce="another"), id="another nonce"),
        pytest.param(_signed(nonce=None), id="no nonce"),
        pytest.param(_signed(nonce=7), id="odd nonce"),
        pytest.param(_signed(nonce="\ud800"), id="nonce that is no text"),
        pytest.param(_signed(exp=1), id="expired"),
        pytest.param(_signed(exp=None), id="never expires"),
        pytest.param(_signed(exp="soon"), id="odd expiry"),
        pytest.param(_signed(iat=None), id="issued at no time"),
        pytest.param(_signed(iat=1), id="issued long ago"),
        pytest.param(_signed(iat=9_999_999_999), id="issued later"),
        pytest.param(_signed(nbf=9_999_999_999), id="not yet"),
        pytest.param(_signed(sub=None), id="of nobody"),
        pytest.param(_signed(sub="a stranger"), id="of a stranger"),
        pytest.param(_signed(sub=["248289761001"]), id="odd subject"),
    ],
)
async def test_a_token_that_is_not_right_lets_nobody_in(
    tmp_path: Path, forge: Callable[[TestProvider, dict[str, Any]], str]
) -> None:
    """Signature, issuer, audience, times, nonce and subject are all checked, and the refusal is counted."""
    async with together(tmp_path) as (house, provider):
        provider.forge = lambda claims: forge(provider, claims)
        client, answer = await logs_in(house, provider)
        assert answer.status_code == 422
        assert not any("session" in each[1] for each in await house.audited())
        assert (await client.get("/account")).status_code == 303
        assert b"logins_refused_total 1.0" in house.metrics.text()


async def test_a_way_back_is_good_once_and_for_the_browser_that_began(tmp_path: Path) -> None:
    """A replayed state, another browser's, an invented one, and one that comes too late are refused."""
    async with together(tmp_path) as (house, provider):
        client = house.browser(PUBLIC)
        code, state = provider.logs_in(await begins(client))
        thief = house.browser(PUBLIC)
        await begins(thief)
        assert (await ends(thief, code, state)).status_code == 422
        assert (await ends(client, code, "invented")).status_code == 422
        assert (await ends(client, code, state)).status_code == 303
        other, _ = provider.logs_in(await begins(house.browser(PUBLIC)))
        assert (await ends(client, other, state)).status_code == 422
        late = house.browser(PUBLIC)
        code, state = provider.logs_in(await begins(late))
        house.desk.clock.advance(301)
        assert (await ends(late, code, state)).status_code == 422


async def test_a_code_of_another_login_is_refused(tmp_path: Path) -> None:
    """A code that somebody slips in fits neither our verifier nor our nonce."""
    async with together(tmp_path) as (house, provider):
        client = house.browser(PUBLIC)
        _, state = provider.logs_in(await begins(client))
        slipped, _ = provider.logs_in(await begins(house.browser(PUBLIC)))
        assert (await ends(client, slipped, state)).status_code == 422


async def test_a_group_that_is_mapped_gives_a_role_and_no_other_does(tmp_path: Path) -> None:
    """Strangers have the greatest role of their mapped groups; without one they are nobody."""
    fields = {"claim": "email", "roles": {"ops": Role.OPERATOR, "all": Role.VIEWER}}
    async with together(tmp_path, **fields) as (house, provider):
        kim = {"sub": "1", "email": "kim@works.example", "email_verified": True}
        for claims, status in (
            (kim | {"groups": ["all", "ops", "other", 7]}, 303),
            (kim | {"groups": ["other"]}, 422),
            (kim | {"groups": "ops"}, 422),
            (kim, 422),
            (kim | {"groups": ["ops"], "email_verified": False}, 422),
            (kim | {"groups": ["ops"], "email": "root"}, 422),
            (kim | {"groups": ["ops"], "email": "a b"}, 422),
        ):
            provider.claims = claims
            client, answer = await logs_in(house, provider)
            assert answer.status_code == status, claims
            if status == 303:
                page = (await client.get("/account")).text
                assert "kim@works.example" in page
                assert "operator" in page


async def test_a_stranger_never_becomes_the_person_of_that_name(tmp_path: Path) -> None:
    """Whom a group let in keeps nothing here, and is out when the settings give the name to somebody."""
    async with together(tmp_path, claim="email", roles={"ops": Role.OPERATOR}) as (house, provider):
        now_s = house.desk.clock.wall_ns() // 10**9
        provider.claims = {
            "sub": "1",
            "email": "bob",
            "email_verified": True,
            "groups": ["ops"],
            "auth_time": now_s,
        }
        client, answer = await logs_in(house, provider)
        assert answer.status_code == 303
        page = (await client.get("/account")).text
        guard = {"x-csrf-token": re.findall(r'name="csrf" value="([^"]+)"', page)[0]}
        assert (await client.post("/account/passkeys/begin", json={}, headers=guard)).status_code == 422
        form = {"password": "a good password", "csrf": guard["x-csrf-token"]}
        assert (await client.post("/account/password", data=form)).status_code == 422
        assert not house.desk.store.ledger.records.of(PASSWORDS)
        cookies = dict(client.cookies)
        async with built(person("bob", role=Role.ADMIN), desk=house.desk) as later:
            other = later.browser(PUBLIC)
            other.cookies.update(cookies)
            assert (await other.get("/account")).status_code == 303


def test_two_persons_of_one_claim_are_refused() -> None:
    """Who of them it is would be a guess."""
    nowhere = Path("/nonexistent")
    with pytest.raises(ValueError, match="same oidc"):
        Config(
            grpc=GrpcSettings(certificate=nowhere, key=nowhere, clients_ca=nowhere),
            person=(person("ada", oidc="1"), person("bob", oidc="1")),
        )


async def test_who_went_there_long_ago_shows_it_again_before_approving(tmp_path: Path) -> None:
    """A login counts as shown from the provider's auth_time, and asking again asks for a new one."""
    async with together(tmp_path) as (house, provider):
        entry = await house.desk.opened()
        path = f"/api/v1/queue/{entry.recommendation.id}/approve"
        for fields, status in (({}, 403), ({"auth_time": 1}, 403), ({"auth_time": "now"}, 403)):
            provider.claims = {"sub": "248289761001"} | fields
            client, _ = await logs_in(house, provider)
            page = (await client.get("/account")).text
            guard = {"x-csrf-token": re.findall(r'name="csrf" value="([^"]+)"', page)[0]}
            body = {"reason": "quiet", "digest": entry.recommendation.digest}
            answer = await client.post(path, json=body, headers=guard)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, "not_fresh")
        provider.claims["auth_time"] = house.desk.clock.wall_ns() // 10**9
        client, _ = await logs_in(house, provider, again="yes")
        assert (provider.asked["prompt"], provider.asked["max_age"]) == (["login"], ["0"])
        assert (await sends(client, "/account/password", password="a good password")).status_code in {
            303,
            422,
        }
        page = (await client.get("/account")).text
        guard = {"x-csrf-token": re.findall(r'name="csrf" value="([^"]+)"', page)[0]}
        assert (await client.post(path, json=body, headers=guard)).status_code == 200


async def test_new_keys_of_the_provider_are_learnt(tmp_path: Path) -> None:
    """A token by a key of a new name makes us ask for the keys again, at most once a minute."""
    async with together(tmp_path) as (house, provider):
        assert (await logs_in(house, provider))[1].status_code == 303
        provider.key, provider.kid = OTHER_KEY, "two"
        assert (await logs_in(house, provider))[1].status_code == 422
        house.desk.clock.advance(61)
        assert (await logs_in(house, provider))[1].status_code == 303
        assert provider.requests.count("keys") == 2


@pytest.mark.parametrize(
    "described",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": "http://evil.example/token"},
        {"jwks_uri": "file:///etc/passwd"},
        {"authorization_endpoint": 7},
    ],
)
async def test_a_provider_that_describes_itself_otherwise_is_not_used(
    tmp_path: Path, described: dict[str, Any]
) -> None:
    """Another issuer, or an address whose answer could be changed on the way, ends the journey."""
    async with together(tmp_path) as (house, provider):
        provider.described = described
        answer = await house.browser(PUBLIC).post("/login/oidc", data={"next": "/"})
        assert answer.status_code == 503


@pytest.mark.parametrize("tokens", [b"", b"[]", b"{}", b'{"id_token": 7}', b"x" * 300_000, b"[" * 100_000])
async def test_an_answer_that_is_none_is_named(tmp_path: Path, tokens: bytes) -> None:
    """Whatever the provider sends instead of tokens is a refusal on the page, never a failure."""
    async with together(tmp_path) as (house, provider):
        provider.tokens = tokens
        assert (await logs_in(house, provider))[1].status_code == 503


async def test_an_unreachable_provider_leaves_the_other_ways_in(tmp_path: Path) -> None:
    """Its button says that it does not answer; the login page and passwords work."""
    oidc = OidcSettings(issuer="http://127.0.0.1:1", client_id=CLIENT)
    async with built(settings=LoginSettings(oidc=oidc)) as house:
        client = house.browser(PUBLIC)
        assert "Log in with your organisation" in (await client.get("/login")).text
        answer = await client.post("/login/oidc", data={"next": "/"})
        assert answer.status_code == 503
        assert "does not answer" in answer.text
        assert await house.enters("ada")


async def test_a_way_back_with_an_error_says_so(tmp_path: Path) -> None:
    """What the provider writes into the address is not shown."""
    async with together(tmp_path) as (house, _):
        answer = await house.browser(PUBLIC).get("/login/oidc/callback?error=<script>&state=x")
        assert answer.status_code == 422
        assert "script>" not in answer.text.replace("</script>", "").replace("defer></script>", "")


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": "http://evil.example"},
        {"issuer": "x"},
        {"scopes": ["email"]},
        {"claim": ""},
        {"secret": "x"},
    ],
)
def test_settings_that_would_not_be_safe_are_refused(wrong: dict[str, Any]) -> None:
    """check-config says it."""
    import msgspec  # noqa: PLC0415

    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"issuer": "https://id.example", "client_id": "x"} | wrong, OidcSettings)


def test_a_provider_needs_a_place_to_come_back_to() -> None:
    """Without a public address there is none."""
    nowhere = Path("/nonexistent")
    with pytest.raises(ValueError, match="public_url"):
        Config(
            grpc=GrpcSettings(certificate=nowhere, key=nowhere, clients_ca=nowhere),
            http=HttpSettings(),
            login=LoginSettings(oidc=OidcSettings(issuer="https://id.example", client_id="x")),
        )


@bounds(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(["sub", "groups", "auth_time", "email", "email_verified", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.floats(allow_nan=True) | st.text() | st.integers(), st.lists
        ),
    )
)
@example({"sub": "248289761001", "auth_time": float("inf")})
@example({"sub": "248289761001", "auth_time": 10**400})
def test_no_claims_make_the_login_fail(claims: dict[str, Any]) -> None:
    """Whatever a rightly signed token says, it is somebody or nobody."""
    provider = Provider(
        settings=OidcSettings(issuer="https://id.example", client_id="x", roles={"ops": Role.OPERATOR}),
        keeper=Timekeeper(clock=ManualClock()),
        redirect_uri="",
        persons={"ada": ADA},
    )
    try:
        who = provider._who(claims)
    except LoginRefused:
        return
    assert who.person == "ada" or who.role is Role.OPERATOR
