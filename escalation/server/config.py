"""orchestrator.toml: where to listen, what to keep, who may decide.

Everything that is checked across keys is checked here, so that `check-config` says all that `serve` would.
"""

from __future__ import annotations

import ipaddress
import math
from pathlib import Path
from typing import Annotated, Final

import msgspec

from escalation import settings
from escalation.model import ActionKind, Condition
from escalation.release import VERSION
from escalation.server.attention.maintenance import Window
from escalation.server.attention.values import AttentionSettings
from escalation.server.causality.topology import NOTHING, Declared
from escalation.server.decision.approvals import MAY_OVERRIDE, Policy
from escalation.server.decision.policies import ApprovalPolicy, PolicyCase
from escalation.server.decision.rules import RuleSettings
from escalation.server.decision.signatures import SigningSettings
from escalation.server.decision.track_record import RestartBudget
from escalation.server.ingest import Limits
from escalation.server.model_writer import TriageTextSettings
from escalation.server.notify.notifiers.registry import NotifySettings
from escalation.server.storage import postgres_settings
from escalation.server.storage.postgres_settings import PostgresSettings
from escalation.server.web.access import Person, Role
from escalation.server.web.http import HttpSettings
from escalation.server.web.login import passwords
from escalation.server.web.login.passkeys import has_passkeys
from escalation.server.web.login.settings import LoginSettings
from escalation.server.web.login.tailnet import is_tailnet
from escalation.wire.credentials import Files

Seconds = Annotated[float, msgspec.Meta(gt=0, le=366 * 86_400)]

_TWO: Final = 2


class GrpcSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[grpc]` table: where agents connect, and the certificates on both sides."""

    certificate: Path
    key: Path
    clients_ca: Path
    listen: str = "127.0.0.1:9736"
    trust_domain: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9.-]{0,253}[a-z0-9])?\Z")] = (
        "nanobot.local"
    )
    streams_per_agent: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    reports_per_s: Annotated[float, msgspec.Meta(ge=100)] = 100_000.0

    def __post_init__(self) -> None:
        """Refuse an address that is none."""
        address_of(self.listen)

    def files(self) -> Files:
        """Return where the certificates are."""
        return Files(authority=self.clients_ca, certificate=self.certificate, key=self.key)

    def limits(self) -> Limits:
        """Return what one agent may ask for."""
        return Limits(streams_per_agent=self.streams_per_agent, reports_per_s=self.reports_per_s)


class StoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[store]` table: the database, and how long reports are kept in full.

    `postgres` names a database that several orchestrators may share, as libpq does; without it the file at
    `path` is the database. Incidents, decisions and the audit log are kept for ever; they are small.
    """

    path: Path = Path("/var/lib/nanobot/orchestrator/orchestrator.db")
    postgres: str | None = None
    postgresql: PostgresSettings = PostgresSettings()
    keep_reports_days: Annotated[float, msgspec.Meta(ge=1, le=3650)] = 30.0

    def __post_init__(self) -> None:
        """Refuse a connection string that cannot be read or holds a secret."""
        if self.postgres is not None:
            try:
                postgres_settings.check(self.postgres)
            except ValueError as error:
                raise ValueError(f"store.postgres {error}") from error


class ApprovalSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[approvals]` table: the two clocks, and who may approve which kind of action.

    `approvers` names persons per kind; a kind that is not in it may be approved by every operator.
    `two_person` lists the kinds that two different persons must approve, `require_signature` those that count
    only when signed by a key that `[approvals.signing]` knows. `quiet_at_most_s` is for drills: it cuts
    the time that a fault must have stayed away before a cure counts as verified.
    `may_override` are the conditions that a person may set aside by name; one that is not known refuses the
    kinds in `refuse_unknown`. Each `[[approvals.policy]]` asks for more where it fits.
    """

    approve_within_s: Seconds = 4 * 3600.0
    execute_within_s: Seconds = 3600.0
    approvers: dict[ActionKind, tuple[str, ...]] = {}
    two_person: tuple[ActionKind, ...] = ()
    require_signature: tuple[ActionKind, ...] = ()
    signing: SigningSettings = SigningSettings()
    quiet_at_most_s: Seconds | None = None
    may_override: tuple[Condition, ...] = tuple(sorted(MAY_OVERRIDE))
    refuse_unknown: tuple[ActionKind, ...] = ()
    evidence_max_age_s: Seconds = 1800.0
    restart_budget: RestartBudget = RestartBudget()
    policies: Annotated[tuple[ApprovalPolicy, ...], msgspec.Meta(max_length=100)] = msgspec.field(
        name="policy", default=()
    )

    def policy(self) -> Policy:
        """Return the policy that the state machine applies."""
        return Policy(
            approve_within_s=self.approve_within_s,
            execute_within_s=self.execute_within_s,
            approvers={kind: frozenset(names) for kind, names in self.approvers.items()},
            two_person=frozenset(self.two_person),
            require_signature=frozenset(self.require_signature),
            catalogue=f"host-nanobot {VERSION}",
            quiet_at_most_s=math.inf if self.quiet_at_most_s is None else self.quiet_at_most_s,
            policies=self.policies,
            may_override=frozenset(self.may_override),
            refuse_unknown=frozenset(self.refuse_unknown),
            evidence_max_age_s=self.evidence_max_age_s,
            restart_budget=self.restart_budget,
        )


class HostSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[hosts]` table: after how many missed heartbeats a host is silent, and the grace after a start."""

    silence_factor: Annotated[float, msgspec.Meta(ge=1.5, le=100)] = 3.0
    grace_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 60.0


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of orchestrator.toml."""

    grpc: GrpcSettings
    http: HttpSettings = HttpSettings()
    store: StoreSettings = StoreSettings()
    approvals: ApprovalSettings = ApprovalSettings()
    hosts: HostSettings = HostSettings()
    notify: NotifySettings = NotifySettings()
    login: LoginSettings = LoginSettings()
    triage_text: TriageTextSettings | None = None
    attention: AttentionSettings = AttentionSettings()
    rules: RuleSettings = RuleSettings()
    maintenance: Annotated[tuple[Window, ...], msgspec.Meta(max_length=64)] = ()
    topology: Declared = NOTHING
    person: tuple[Person, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no single key shows: persons named twice, approvals that nobody could give."""
        address_of(self.http.listen)
        names = [person.name for person in self.person]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"person {twice[0]} is there twice")
        for person in self.person:
            if person.password_hash is not None:
                try:
                    passwords.check_hash(person.password_hash)
                except ValueError as error:
                    raise ValueError(f"person {person.name}: {error}") from error
        _check_apart(self.person)
        if self.login.tailscale is not None and not is_tailnet(address_of(self.http.listen)[0]):
            raise ValueError("login.tailscale needs http.listen on an address of the tailnet")
        if self.login.oidc is not None and not self.http.public_url:
            raise ValueError("login.oidc needs http.public_url, where people come back to")
        operators = {person.name for person in self.person if person.role.may(Role.OPERATOR)}
        for kind, approvers in self.approvals.approvers.items():
            strangers = sorted(set(approvers) - operators)
            if strangers:
                raise ValueError(
                    f"approvals.approvers.{kind}: {strangers[0]} is no person with role operator"
                )
        _check_policies(self.approvals.policies, operators)
        _check_signing(self.approvals, self.http.origin)
        _check_able(self.approvals, operators)


def _check_apart(persons: tuple[Person, ...]) -> None:
    """Refuse what would let one be taken for another: whoever has it could be two persons to an approval."""
    for what, having in (
        ("token", [each.token_sha256 for each in persons if each.token_sha256 is not None]),
        ("oidc", [each.oidc for each in persons if each.oidc is not None]),
        ("login of the tailnet", [login for each in persons for login in set(each.tailscale)]),
    ):
        if len(having) > len(set(having)):
            raise ValueError(f"two persons have the same {what}")


def _check_signing(approvals: ApprovalSettings, origin: str) -> None:
    wanted = approvals.require_signature or any(each.require_signature for each in approvals.policies)
    if wanted and approvals.signing.allowed_signers is None and not has_passkeys(origin):
        raise ValueError(
            "approvals.require_signature: nobody could sign; name approvals.signing.allowed_signers, "
            "or http.public_url for passkeys"
        )


def _check_policies(policies: tuple[ApprovalPolicy, ...], operators: set[str]) -> None:
    """Refuse two of one name, and one that nobody could satisfy."""
    names = [each.name for each in policies]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"approvals.policy {twice[0]} is there twice")
    for each in policies:
        strangers = sorted(set(each.approvers) - operators)
        if strangers:
            raise ValueError(f"approvals.policy {each.name}: {strangers[0]} is no person with role operator")
        able = set(each.approvers) or operators
        if each.two_person and operators and len(able) < _TWO:
            raise ValueError(f"approvals.policy {each.name}: fewer than two persons may approve")


def _check_able(approvals: ApprovalSettings, operators: set[str]) -> None:
    """Refuse lists and tables that together leave too few to approve a kind of action wherever it is."""
    everywhere = tuple(
        each for each in approvals.policies if {each.host, each.target, each.fault_class} == {"*"}
    )
    policy = msgspec.structs.replace(approvals, policies=everywhere).policy()
    for kind in ActionKind:
        asked = policy.demands(PolicyCase(kind, "", "", ""))
        able = operators if asked.approvers is None else asked.approvers
        if operators and not able:
            raise ValueError(f"approvals: lists and policies together let nobody approve {kind}")
        if operators and asked.two_person and len(able) < _TWO:
            raise ValueError(f"approvals.two_person: fewer than two persons may approve {kind}")


def address_of(listen: str) -> tuple[str, int]:
    """Split ``host:port`` or ``[v6]:port``; the host is an address or ``localhost``."""
    host, separator, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not separator or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{listen!r} is not an address and a port, such as 127.0.0.1:9736")
    if host != "localhost":
        try:
            ipaddress.ip_address(host)
        except ValueError as error:
            raise ValueError(f"{listen!r}: {host!r} is not an IP address") from error
    return host, int(port)


def load(path: Path) -> Config:
    """Read the file; raise SettingsError naming the file, the line and the key."""
    return settings.load(path, Config)
