"""Both doors: who gets through, as whom, and what a browser on a foreign page can make of it."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import re
import socket
import ssl
import warnings
from dataclasses import dataclass

import grpc
import pytest

from escalation.server.testing import heartbeat
from escalation.server.web.access import Person, Presented, Role, authenticate
from escalation.server.web.handlers import EVENTS
from escalation.wire import codec
from tests.escalation.server.site import METHOD, Authority, wired
from tests.security.house import PEOPLE, House, token
from tests.security.properties import security_property


@dataclass(frozen=True, slots=True)
class _Route:
    method: str
    path: str
    role: Role | None
    streams: bool = False


def _routes(house: House) -> list[_Route]:
    """Return every route that the orchestrator answers, whichever module adds it."""
    found = [_Route(each.method, each.path, each.role, each.media == EVENTS) for each in house.rules]
    assert len(found) > 20, "the table was noted"
    return found


@security_property(
    "T23", "Agents get through with a certificate of ours that names them, over TLS 1.3, or not at all."
)
def test_agents_need_mutual_tls(house: House) -> None:
    """No TLS, none of our certificates, an expired one, one without a name: each ends before a report."""
    batch = codec.join([wired(heartbeat(), 1, host="intruder")])
    foreign = Authority(house.folder / "foreign", "foreign ca")
    name = "spiffe://nanobot.local/nanobot/agent/intruder"
    refusals = {
        "no certificate": (None, grpc.StatusCode.UNAVAILABLE),
        "another authority": (foreign.agent("intruder"), grpc.StatusCode.UNAVAILABLE),
        "expired": (
            house.authority.leaf(name, valid_for=dt.timedelta(minutes=-1)),
            grpc.StatusCode.UNAVAILABLE,
        ),
        "no name": (house.authority.leaf(), grpc.StatusCode.UNAUTHENTICATED),
        "another kind of name": (
            house.authority.leaf("spiffe://nanobot.local/nanobot/orchestrator"),
            grpc.StatusCode.UNAUTHENTICATED,
        ),
    }
    for what, (credentials, expected) in refusals.items():
        with house.channel(credentials) as channel, pytest.raises(grpc.RpcError) as refused:
            list(channel.stream_stream(METHOD)(iter([batch]), timeout=20))
        assert refused.value.code() is expected, what
    with grpc.insecure_channel(f"127.0.0.1:{house.grpc_port}") as channel, pytest.raises(grpc.RpcError):
        list(channel.stream_stream(METHOD)(iter([batch]), timeout=20))
    assert not house.rows("SELECT 1 FROM hosts WHERE agent_id = 'intruder'")
    assert _handshake(house) == "TLSv1.3"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        _handshake(house, ssl.TLSVersion.TLSv1_1)


def _handshake(house: House, at_most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> str | None:
    """Return the version of TLS that both ends agree on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    context.load_verify_locations(house.authority.ca)
    key, certificate = house.authority.agent("shaker")
    pair = house.folder / "shaker.pem"
    pair.write_bytes(key + certificate)
    context.load_cert_chain(pair)
    if at_most is not ssl.TLSVersion.TLSv1_3:
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # to offer what is deprecated is the test
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.maximum_version = at_most
    with (
        socket.create_connection(("127.0.0.1", house.grpc_port), timeout=20) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as shaken,
    ):
        return shaken.version()


@security_property(
    "T24", "Each route answers who has its role, and refuses everybody else: 401 without, 403 below."
)
def test_every_route_refuses_whoever_is_less(house: House) -> None:
    """Every route of the source, with no credential, a wrong one, and each person below its role."""
    routes = _routes(house)
    entry = house.opened()
    with house.client("vera") as client:
        described = client.get("/api/v1/openapi.json").json()["paths"]
    table = {(each.method, each.path, each.role) for each in routes}
    for path, operations in described.items():
        for method, operation in operations.items():
            role = operation.get("x-role")
            assert (method.upper(), path, Role(role) if role else None) in table
    for route in routes:
        path = re.sub(r"\{[^}]*\}", entry["id"], route.path)
        body = {"json": {}} if route.method == "POST" else {}
        if route.role is None:
            continue
        for credential in (None, "nobody"):
            with house.client(credential) as client:
                refused = client.request(route.method, path, **body)
                assert refused.status_code in {401, 429, 302, 303}, (route, credential)
                assert refused.status_code < 400 or "error" in refused.json() or not refused.content
                if refused.status_code in {302, 303}:
                    assert refused.headers["location"].startswith("/login"), route
        for person, role in PEOPLE.items():
            if Role(role).may(route.role):
                continue
            with house.client(person) as client:
                assert client.request(route.method, path, **body).status_code == 403, (route, person)
    assert house.state(entry) == "proposed"


@security_property("T25", "The audit log names the credential's owner, whatever a body or a header says.")
def test_who_asks_is_never_read_from_what_is_sent(house: House) -> None:
    """Proxies' and the mesh's headers, and names in the body, leave the approver who she is."""
    entry = house.opened()
    headers = {
        "X-Forwarded-User": "grace",
        "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Email": "grace@example.net",
        "X-WebAuth-User": "grace",
        "Tailscale-User-Login": "grace",
        "Tailscale-User-Name": "grace",
        "Remote-User": "grace",
        "Forwarded": 'for="[::1]";by=grace',
    }
    with house.client("ada") as client:
        answer = client.post(
            f"/api/v1/queue/{entry['id']}/reject", json={"reason": "I am grace"}, headers=headers
        )
    assert answer.json()["decided_by"] == "ada"
    assert {link["actor"] for link in house.audit(entry["id"])} == {f"agent:{entry['host']}", "ada"}
    with house.client(None) as client:
        assert client.get("/api/v1/queue", headers=headers).status_code == 401


def _newest_deed(house: House) -> str:
    """Return the newest link that is somebody's: other hosts may fall silent meanwhile, which nobody did."""
    return next(each["digest"] for each in reversed(house.audit()) if each["actor"] != "orchestrator")


@security_property(
    "T26", "A foreign page decides nothing, reading changes nothing, and nothing of ours is framed."
)
def test_browsers_cannot_be_made_to_decide(house: House) -> None:
    """Every route that changes checks Origin and Sec-Fetch-Site; every GET leaves the ledger alone."""
    entry = house.opened()
    foreign = (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": f"http://127.0.0.1:{house.http_port}.evil.example"},
    )
    routes = _routes(house)
    with house.client("root") as client:
        for route in routes:
            path = re.sub(r"\{[^}]*\}", entry["id"], route.path)
            if route.method == "POST" and route.role is not None:
                for headers in foreign:
                    assert client.post(path, json={}, headers=headers).status_code == 403, route
    before = _newest_deed(house), house.state(entry)
    with house.client("ada") as client:
        for route in routes:
            path = re.sub(r"\{[^}]*\}", entry["id"], route.path)
            if route.method == "GET" and not route.streams:
                for method in ("GET", "HEAD"):
                    answer = client.request(method, path, params={"approve": "1", "_method": "POST"})
                    policy = answer.headers["content-security-policy"]
                    assert "frame-ancestors 'none'" in policy
                    assert "unsafe-" not in policy
                    assert answer.headers["x-frame-options"] == "DENY"
                    assert answer.headers["referrer-policy"] in {"no-referrer", "same-origin"}
    assert (_newest_deed(house), house.state(entry)) == before
    with house.client("ada") as client:
        form = client.post(f"/api/v1/queue/{entry['id']}/reject", data={"reason": "from a form"})
        assert form.status_code == 415, "the API takes JSON, which no foreign form can send"
        assert client.get("/api/v1/queue", headers={"Host": "evil.example"}).status_code == 400


@security_property("T27", "A token is compared by its hash, evenly; guesses from one address are slowed.")
def test_guessing_is_slowed_and_tokens_compare_evenly(house: House) -> None:
    """After ten failures an address hears 429; each person's hash is compared whole, found or not."""
    with house.client("wrong") as client:
        answers = [client.get("/api/v1/queue").status_code for _ in range(30)]
    assert answers[-1] == 429
    with house.client("vera") as client:
        assert client.get("/api/v1/queue").status_code == 200, "a right token is never locked out"
    compared: list[tuple[str, str]] = []
    genuine = hmac.compare_digest

    def counting(one: str, other: str) -> bool:
        compared.append((one, other))
        return genuine(one, other)

    persons = [
        Person(name=name, role=Role(role), token_sha256=hashlib.sha256(token(name).encode()).hexdigest())
        for name, role in PEOPLE.items()
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hmac, "compare_digest", counting)
        for presented in (token("root"), token("prometheus"), "x"):
            authenticate(Presented(None, presented), persons)
    assert len(compared) == 3 * len(persons)
    assert {len(one) for one, _ in compared} == {64}
