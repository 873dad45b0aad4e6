"""orchestrator.toml: strict, and wrong in words that name the line and the key."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from escalation.model import ActionKind
from escalation.server import config
from escalation.server.__main__ import main
from escalation.settings import SettingsError, parse
from tests.escalation.server.site import Site

_GRPC = """
[grpc]
certificate = "/etc/nanobot/server.crt"
key = "/etc/nanobot/server.key"
clients_ca = "/etc/nanobot/ca.crt"
"""
_DOCS = Path(__file__).parents[3] / "docs"
_PERSON = '[[person]]\nname = "{}"\nrole = "{}"\n'
_TOKEN = f'{_PERSON}token_sha256 = "{"a" * 64}"\n'
_TAILNET = f'{_PERSON}tailscale = ["ada@example.com"]\n'


def _parse(text: str) -> config.Config:
    return parse(text, config.Config, name="orchestrator.toml")


def test_the_defaults_are_loopback_and_four_hours() -> None:
    """Certificates are all that has to be said."""
    loaded = _parse(_GRPC)
    assert (loaded.grpc.listen, loaded.http.listen) == ("127.0.0.1:9736", "127.0.0.1:9737")
    policy = loaded.approvals.policy()
    assert (policy.approve_within_s, policy.execute_within_s) == (4 * 3600, 3600)
    assert loaded.store.path == Path("/var/lib/nanobot/orchestrator/orchestrator.db")


def test_policies_are_read() -> None:
    """Names per kind of action, and the kinds that need two."""
    loaded = _parse(
        _GRPC
        + '[approvals]\ntwo_person = ["restart_unit"]\n[approvals.approvers]\nrestart_container = ["ada"]\n'
        + _PERSON.format("ada", "operator")
        + _PERSON.format("grace", "operator")
    )
    policy = loaded.approvals.policy()
    assert policy.approvers == {ActionKind.RESTART_CONTAINER: frozenset({"ada"})}
    assert policy.two_person == frozenset({ActionKind.RESTART_UNIT})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[grpc]\nlisten = '127.0.0.1:1'\n", "orchestrator.toml:1: grpc: Object missing required field"),
        (_GRPC + "listen = 'everywhere:9736'\n", "'everywhere' is not an IP address"),
        (_GRPC + "listen = '127.0.0.1'\n", "is not an address and a port"),
        (_GRPC + "listen = '127.0.0.1:99999'\n", "is not an address and a port"),
        (_GRPC + "listne = 'x'\n", "orchestrator.toml:6: grpc.listne: unknown key"),
        (_GRPC + "[http]\nlisten = 'x:y:z'\n", "is not an address and a port"),
        (_GRPC + "[[topology.route]]\nname = 'a'\nvia = 'b'\n", "goes via b, which is no [[topology.route]]"),
        (
            _GRPC + "[[topology.host]]\nname = 'a'\naddress = ['10.0.0.1']\n",
            "orchestrator.toml:8: topology.host.0.address",
        ),
        (_GRPC + "[store]\nkeep_reports_days = 0\n", "orchestrator.toml:7: store.keep_reports_days"),
        (_GRPC + "[approvals]\napprove_within_s = -1\n", "orchestrator.toml:7: approvals.approve_within_s"),
        (_GRPC + '[approvals]\ntwo_person = ["reboot"]\n', "orchestrator.toml:7: approvals.two_person"),
        (_GRPC + '[approvals]\nrequire_signature = ["restart_unit"]\n', "nobody could sign"),
        (
            _GRPC + '[approvals.approvers]\nrestart_unit = ["eve"]\n',
            "approvals.approvers.restart_unit: eve is no person with role operator",
        ),
        (
            _GRPC + '[approvals]\ntwo_person = ["restart_unit"]\n' + _PERSON.format("ada", "operator"),
            "fewer than two persons may approve restart_unit",
        ),
        (
            _GRPC
            + '[approvals]\ntwo_person = ["restart_unit"]\n'
            + '[[approvals.policy]]\nname = "night"\nkinds = ["restart_unit"]\napprovers = ["ada"]\n'
            + _PERSON.format("ada", "operator")
            + _PERSON.format("grace", "operator"),
            "fewer than two persons may approve restart_unit",
        ),
        (
            _GRPC
            + '[approvals.approvers]\nrestart_unit = ["grace"]\n'
            + '[[approvals.policy]]\nname = "night"\napprovers = ["ada"]\n'
            + _PERSON.format("ada", "operator")
            + _PERSON.format("grace", "operator"),
            "let nobody approve restart_unit",
        ),
        (_GRPC + _PERSON.format("ada", "viewer") * 2, "person ada is there twice"),
        (
            _GRPC + _TOKEN.format("ada", "viewer") + _TOKEN.format("grace", "operator"),
            "two persons have the same token",
        ),
        (
            _GRPC + _TAILNET.format("ada", "viewer") + _TAILNET.format("grace", "operator"),
            "two persons have the same login of the tailnet",
        ),
        (_GRPC + _PERSON.format("ada", "root"), "orchestrator.toml:8: person.0.role"),
        (_GRPC + _PERSON.format("a\\u202eda", "viewer"), "orchestrator.toml:7: person.0.name"),
        (_GRPC.replace('"/etc/nanobot/server.key"', '""'), "orchestrator.toml:4: grpc.key"),
        ("[hosts]\nsilence_factor = 1\n" + _GRPC, "orchestrator.toml:2: hosts.silence_factor"),
    ],
)
def test_says_what_is_wrong_and_where(text: str, said: str) -> None:
    """The file, the line and the key, and what was expected."""
    with pytest.raises(SettingsError) as error:
        _parse(text)
    assert said in str(error.value)


def test_check_config_reads_the_certificates_too(site: Site) -> None:
    """It exits 0 for what `serve` would accept, and 1 naming the file for what it would not."""
    runner = CliRunner()
    good = runner.invoke(main, ["check-config", str(site.config_file)])
    assert (good.exit_code, "can be used" in good.output) == (0, True)
    (site.folder / "server.crt").write_text("no certificate")
    bad = runner.invoke(main, ["check-config", str(site.config_file)])
    assert bad.exit_code == 1
    assert "server.crt: is not PEM" in bad.output
    missing = runner.invoke(main, ["serve", "--config", str(site.folder / "none.toml")])
    assert missing.exit_code == 1
    assert "none.toml" in missing.output
    assert runner.invoke(main, ["serve"]).exit_code == 2


def test_the_reference_shows_the_defaults() -> None:
    """The page in the documentation is a file that can be used, and its values are the defaults."""
    page = (_DOCS / "reference/orchestrator-toml.md").read_text(encoding="utf-8")
    example = page.partition("```toml")[2].partition("```")[0]
    shown = _parse(example.replace("<64 hexadecimal digits>", "a" * 64))
    plain = _parse(_GRPC)
    assert (shown.http, shown.store, shown.approvals, shown.hosts) == (
        plain.http,
        plain.store,
        plain.approvals,
        plain.hosts,
    )
    assert (shown.grpc.listen, shown.grpc.trust_domain) == (plain.grpc.listen, plain.grpc.trust_domain)
    assert shown.grpc.limits() == plain.grpc.limits()
