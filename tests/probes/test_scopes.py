"""The rules of a scope: what can be declared, and how what cannot is refused."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, strategies as st

from probes.scopes import Destination, ScopeInvalid, ScopeRule, check, destination

_RULE = {"name": "ray", "unit": "ray.service", "destinations": ("10.0.0.0/8",)}


def _rule(**changed: object) -> ScopeRule:
    return ScopeRule(**(_RULE | changed))  # type: ignore[arg-type]


def _mapped(address: str) -> bytes:
    return b"\0" * 10 + b"\xff\xff" + ipaddress.ip_address(address).packed


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10.0.0.0/8", Destination(_mapped("10.0.0.0"), 104, 0)),
        ("10.1.2.3", Destination(_mapped("10.1.2.3"), 128, 0)),
        ("10.1.2.3:443", Destination(_mapped("10.1.2.3"), 128, 443)),
        ("0.0.0.0/0:53", Destination(_mapped("0.0.0.0"), 96, 53)),
        ("fd7a:115c:a1e0::/48", Destination(ipaddress.ip_address("fd7a:115c:a1e0::").packed, 48, 0)),
        ("[fd00::1]:65535", Destination(ipaddress.ip_address("fd00::1").packed, 128, 65535)),
        ("[fd00::/8]:443", Destination(ipaddress.ip_address("fd00::").packed, 8, 443)),
        ("[fd00::/8]", Destination(ipaddress.ip_address("fd00::").packed, 8, 0)),
        ("::/0", Destination(b"\0" * 16, 0, 0)),
    ],
)
def test_a_destination_is_a_network_and_a_port(text: str, found: Destination) -> None:
    """Both families in one space of addresses, as the kernel program looks them up."""
    assert destination(text) == found


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "does not appear to be an IPv4 or IPv6 network"),
        ("example.org", "does not appear to be"),
        ("10.0.0.1/8", "has host bits set"),
        ("10.0.0.0/33", "does not appear to be"),
        ("10.0.0.0/8:0", "its port is none"),
        ("10.0.0.0/8:", "its port is none"),
        ("10.0.0.0/8:65536", "its port is none"),
        ("10.0.0.0/8:+80", "its port is none"),
        ("10.0.0.0/8:٣", "its port is none"),
        ("[fd00::1", "expected [address/prefix]:port"),
        ("[fd00::1]443", "expected [address/prefix]:port"),
        ("[fd00::1]:", "its port is none"),
        ("fe80::1%eth0", "an interface cannot be part of it"),
    ],
)
def test_what_is_no_destination_is_refused_by_its_own_words(text: str, complaint: str) -> None:
    """Names are refused too: what they mean changes without anybody declaring it."""
    with pytest.raises(ScopeInvalid) as caught:
        destination(text)
    assert complaint in str(caught.value)
    assert repr(text) in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_a_destination_or_refused(text: str) -> None:
    """Nothing but ScopeInvalid comes out, and what is read fits the kernel's table."""
    try:
        found = destination(text)
    except ScopeInvalid:
        return
    assert len(found.address) == 16
    assert 0 <= found.bits <= 128
    assert 0 <= found.port <= 65535


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"name": "Ray"}, "scope 'Ray': a name has a-z"),
        ({"name": "x" * 33}, "a name has a-z"),
        ({"unit": ""}, "scope ray: name exactly one of unit and cgroup"),
        ({"cgroup": "/x"}, "name exactly one of unit and cgroup"),
        ({"unit": "ray"}, "'ray' is no name of a service, scope or slice"),
        ({"unit": "../x.service"}, "is no name of a service"),
        ({"unit": "", "cgroup": "/"}, "is no path below the root"),
        ({"unit": "", "cgroup": "system.slice/x"}, "is no path below the root"),
        ({"unit": "", "cgroup": "/a/../b"}, "is no path below the root"),
        ({"unit": "", "cgroup": "/a/"}, "is no path below the root"),
        ({"unit": "", "cgroup": "/a\0b"}, "is no path"),
        ({"destinations": None}, "limits nothing"),
        ({"executables": ("true",)}, "executable 'true' is no absolute path"),
        ({"executables": ("/" + "x" * 251,)}, "of at most 251 bytes"),
        ({"destinations": ("x",)}, "scope ray: destination 'x'"),
        ({"listeners": (0,)}, "listener 0 is no port"),
        ({"listeners": tuple(range(1, 66))}, "65 listeners, at most 64"),
    ],
)
def test_a_rule_that_cannot_be_kept_is_refused(changed: dict[str, object], complaint: str) -> None:
    """By the scope's name and what is wrong with it."""
    with pytest.raises(ScopeInvalid) as caught:
        check([_rule(**changed)])
    assert complaint in str(caught.value)


def test_rules_that_contradict_each_other_are_refused() -> None:
    """One name and one place a scope, and not more of them than the kernel has room for."""
    with pytest.raises(ScopeInvalid, match="scope ray: declared twice"):
        check([_rule(), _rule(unit="other.service")])
    with pytest.raises(ScopeInvalid, match=r"scope b: ray\.service has a scope already"):
        check([_rule(), _rule(name="b")])
    many = [_rule(name=f"s{number}", unit=f"s{number}.service") for number in range(17)]
    check(many[:16])
    with pytest.raises(ScopeInvalid, match="16 scopes are the most"):
        check(many)


def test_an_empty_list_allows_nothing_and_is_a_limit() -> None:
    """It is something else than a list that is left out."""
    check([_rule(destinations=(), executables=None)])


@pytest.mark.parametrize(
    ("text", "is_ipv4"), [("10.0.0.0/8", True), ("::ffff:0:0/96", True), ("::/0", False), ("fd00::1", False)]
)
def test_a_network_of_ipv6_is_none_of_ipv4(text: str, is_ipv4: bool) -> None:
    """But for the one that stands for it."""
    assert destination(text).is_ipv4 is is_ipv4
