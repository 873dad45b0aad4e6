"""Which capabilities the loader keeps, by what is enabled."""

from __future__ import annotations

import pytest

from probes.kernel.__main__ import _needed
from probes.kernel.config import CaptureWay, HttpConfig, LoaderConfig
from probes.kernel.programs import LOADING, Capability
from probes.kernel.scope_config import ScopeConfig
from probes.scopes import ScopeRule

_RULE = ScopeRule(name="ray", unit="ray.service", listeners=())
_ROUTES = frozenset({"http.routes"})


@pytest.mark.parametrize(
    ("config", "more"),
    [
        (LoaderConfig(), {Capability.NET_ADMIN}),
        (LoaderConfig(disabled=_ROUTES), set()),
        (LoaderConfig(disabled=_ROUTES, scopes=ScopeConfig(rules=(_RULE,))), {Capability.NET_ADMIN}),
        (
            LoaderConfig(disabled=_ROUTES | {"kernel.scope"}, scopes=ScopeConfig(rules=(_RULE,))),
            set(),
        ),
        (
            LoaderConfig(http=HttpConfig(capture=CaptureWay.PACKET)),
            {Capability.NET_ADMIN, Capability.NET_RAW},
        ),
        (LoaderConfig(disabled=_ROUTES, http=HttpConfig(capture=CaptureWay.PACKET)), set()),
        (
            LoaderConfig(http=HttpConfig(tls_libraries=("/usr/lib/libssl.so.3",))),
            {Capability.NET_ADMIN, Capability.SYS_ADMIN},
        ),
        (LoaderConfig(disabled=_ROUTES, http=HttpConfig(tls_libraries=("/usr/lib/libssl.so.3",))), set()),
        (
            LoaderConfig(http=HttpConfig((1,), CaptureWay.PACKET, ("/usr/lib/libssl.so.3",))),
            {Capability.NET_ADMIN, Capability.NET_RAW},
        ),
        (LoaderConfig(http=HttpConfig(ports=())), set()),
        (LoaderConfig(http=HttpConfig((), CaptureWay.PACKET, ("/usr/lib/libssl.so.3",))), set()),
        (
            LoaderConfig(http=HttpConfig(ports=(), tls_libraries=("/usr/lib/libssl.so.3",))),
            {Capability.NET_ADMIN, Capability.SYS_ADMIN},
        ),
    ],
    ids=[
        "shipped",
        "no routes",
        "a scope, no routes",
        "a scope that is switched off",
        "packets",
        "packets, no routes",
        "TLS",
        "TLS, no routes",
        "packets and TLS",
        "no ports",
        "packets of no ports",
        "TLS alone",
    ],
)
def test_only_what_is_enabled_is_kept(config: LoaderConfig, more: set[Capability]) -> None:
    """A sensor that is switched off takes its capability with it, whatever else is configured for it."""
    assert _needed(config) == LOADING | more
