"""F45: what leaves its declared scope, what carries a secret, and everything else, which stays quiet."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.detector import Surroundings
from agent.detectors.scope import Config, ScopeViolation
from agent.finding import Finding, Verdict
from agent.testing import (
    CONTAINER,
    HOST,
    KERNEL_BOOT,
    at,
    blind,
    inventory,
    listener,
    open_case,
    origin,
    present,
    seeing,
    tick,
)
from escalation.model import (
    FaultClass,
    ReasonCode,
    ScopeBreach,
    ScopeEvidence,
    Severity,
    Subject,
    SubjectKind,
)
from probes import recording
from probes.observation import (
    BlindReason,
    CgroupId,
    CommandLine,
    CommandLines,
    ListenerOpened,
    Origin,
    ScopeBreached,
    SensorName,
    ServerKind,
)
from probes.observed.scope import BreachKind, SecretOption
from probes.scopes import ScopeRule

FAULT = FaultClass.SCOPE_VIOLATION
SCOPE = Subject(SubjectKind.SCOPE, "agents")
UNIT = "openclaw.service"
INSIDE = Origin(
    cgroup_id=CgroupId(77),
    cgroup_path=f"/system.slice/{UNIT}",
    unit=UNIT,
    pid=902,
    start_ticks=5,
    process_name="node",
)
KERNEL, LINES, TABLE = "kernel.scope", "host.command_lines", "host.listeners"
RULE = ScopeRule(name="agents", unit=UNIT, listeners=(18789,), destinations=())


def detector(*rules: ScopeRule) -> ScopeViolation:
    """Return one that knows these scopes, or the one of the agents."""
    around = Surroundings(host=HOST, kernel_boot_id=KERNEL_BOOT, scopes=rules or (RULE,))
    return ScopeViolation.build(Config(), around)


def breach(
    seconds: float, kind: BreachKind = BreachKind.DESTINATION, *, count: int = 1, denied: bool = False
) -> ScopeBreached:
    """Return one breach of each sort."""
    return ScopeBreached(
        sensor=SensorName(KERNEL),
        at=at(seconds),
        origin=INSIDE,
        scope="agents",
        kind=kind,
        executable="curl" if kind is BreachKind.EXECUTABLE else "",
        address="" if kind is BreachKind.EXECUTABLE else "203.0.113.9",
        port=0 if kind is BreachKind.EXECUTABLE else 443,
        count=count,
        denied=denied,
    )


def began(seconds: float, port: int, where: Origin, *, confirmed: bool | None = True) -> ListenerOpened:
    """Return a socket that began to listen."""
    socket = listener("127.0.0.1", port, where=where)
    return ListenerOpened(SensorName("kernel.listener"), at(seconds), socket, confirmed)


def line(*secrets: SecretOption, where: Origin | None = None, scope: str = "") -> CommandLine:
    """Return one process's command line."""
    return CommandLine(
        origin=where or origin(), started=at(-100), port=8000, print="ab", scope=scope, secrets=secrets
    )


def lines(seconds: float, *found: CommandLine, complete: bool = True) -> CommandLines:
    """Return one look at all of them."""
    return CommandLines(sensor=SensorName(LINES), at=at(seconds), key="k", lines=found, complete=complete)


def ended(judge: ScopeViolation, seconds: float, subject: Subject, *, last_seen: float = 0) -> Finding | None:
    """Return what a tick says of one open case."""
    found = judge.tick(tick(seconds, open_case(FAULT, subject, last_seen=at(last_seen))))
    return found[0] if found else None


@pytest.mark.parametrize(
    ("kind", "word", "code"),
    [
        (BreachKind.EXECUTABLE, ScopeBreach.EXECUTABLE, ReasonCode.EXECUTABLE_NOT_ALLOWED),
        (BreachKind.DESTINATION, ScopeBreach.DESTINATION, ReasonCode.DESTINATION_NOT_ALLOWED),
        (BreachKind.LISTENER, ScopeBreach.LISTENER, ReasonCode.LISTENER_NOT_ALLOWED),
    ],
)
@pytest.mark.parametrize("denied", [False, True])
def test_a_breach_is_a_case_of_its_scope(
    kind: BreachKind, word: ScopeBreach, code: ReasonCode, denied: bool
) -> None:
    """Medium, about the scope, with the unit as what could be acted on; a refusal is a reason."""
    (found,) = present(detector(), breach(0, kind, count=3, denied=denied))
    assert (found.subject, found.severity, found.count) == (SCOPE, Severity.MEDIUM, 3)
    assert found.target == Subject(SubjectKind.UNIT, UNIT)
    codes = [reason.code for reason in found.reasons]
    assert codes == ([code, ReasonCode.CONNECTION_DENIED] if denied else [code])
    (evidence,) = found.evidence
    assert isinstance(evidence, ScopeEvidence)
    assert (evidence.scope, evidence.breach, evidence.denied) == ("agents", word, denied)
    assert (evidence.process_name, evidence.pid, evidence.option) == ("node", 902, "")


def test_the_recorded_breaches_are_cases() -> None:
    """What a real kernel told of two scopes."""
    told = Path(__file__).parents[2] / "recorded" / "scope.jsonl"
    found = present(detector(), *recording.read(told.read_text().splitlines()))
    assert {(f.subject and f.subject.name, f.target and f.target.name) for f in found} == {
        ("gateway", "gateway.service"),
        ("runner", "runner.service"),
    }


def test_a_breach_of_which_only_the_number_is_known_is_a_case() -> None:
    """The kernel counted it, and its process is gone."""
    nameless = ScopeBreached(
        sensor=SensorName(KERNEL),
        at=at(0),
        origin=Origin(),
        scope="agents",
        kind=BreachKind.DESTINATION,
        count=9,
    )
    (found,) = present(detector(), nameless)
    assert (found.subject, found.target, found.count) == (SCOPE, None, 9)


@pytest.mark.parametrize(
    "rule",
    [RULE, ScopeRule(name="agents", cgroup="/system.slice", listeners=())],
    ids=["by its unit", "by a cgroup above it"],
)
def test_a_port_that_the_scope_does_not_allow_is_a_case_by_the_table_alone(rule: ScopeRule) -> None:
    """It began to listen before the scope was loaded, or where the kernel does not watch."""
    judge = detector(rule)
    (found,) = present(judge, inventory(0, listener("127.0.0.1", 9000, where=INSIDE)))
    assert found.subject == SCOPE
    assert ReasonCode.SOCKET_TABLE_AGREES in {reason.code for reason in found.reasons}
    (again,) = present(judge, inventory(60, listener("127.0.0.1", 9000, where=INSIDE)))
    assert (found.count, again.count) == (1, 0)
    (event,) = present(judge, began(61, 9000, INSIDE, confirmed=None))
    assert ReasonCode.SECOND_LAYER_UNKNOWN in {reason.code for reason in event.reasons}


@pytest.mark.parametrize(
    ("rule", "port", "where"),
    [
        (RULE, 18789, INSIDE),
        (ScopeRule(name="agents", unit=UNIT, destinations=()), 9000, INSIDE),
        (RULE, 9000, origin()),
        (ScopeRule(name="agents", cgroup="/system.slice/open", listeners=()), 9000, INSIDE),
        (RULE, 9000, Origin()),
    ],
    ids=["allowed", "not limited", "another container", "a sibling by prefix", "nobody"],
)
def test_other_listeners_are_quiet(rule: ScopeRule, port: int, where: Origin) -> None:
    """What the scope allows, what it does not limit, and everything outside of it."""
    judge = detector(rule)
    assert not present(judge, inventory(0, listener("0.0.0.0", port, where=where)))
    assert not present(judge, began(1, port, where))


def test_the_nearest_scope_decides() -> None:
    """A scope inside another allows what it allows."""
    judge = detector(ScopeRule(name="all", cgroup="/system.slice", listeners=()), RULE)
    assert not present(judge, inventory(0, listener("127.0.0.1", 18789, where=INSIDE)))
    (found,) = present(judge, inventory(1, listener("127.0.0.1", 22, where=INSIDE)))
    assert found.subject == SCOPE


def test_a_listener_that_the_table_contradicts_is_quiet() -> None:
    """It is another network namespace's."""
    assert not present(detector(), began(0, 9000, INSIDE, confirmed=False))


def test_a_secret_is_a_case_of_its_carrier() -> None:
    """By words of the closed list; a second look at the same is no new sighting."""
    judge = detector()
    found, again = present(
        judge,
        lines(0, line(SecretOption.API_KEY, SecretOption.HF_TOKEN)),
        lines(30, line(SecretOption.API_KEY, SecretOption.HF_TOKEN)),
    )
    assert found.subject == Subject(SubjectKind.CONTAINER, CONTAINER)
    assert (found.severity, found.count, again.count) == (Severity.MEDIUM, 1, 0)
    assert [e.option for e in found.evidence if isinstance(e, ScopeEvidence)] == ["--api-key", "--hf-token"]
    assert {e.breach for e in found.evidence if isinstance(e, ScopeEvidence)} == {ScopeBreach.SECRET}
    assert [reason.code for reason in found.reasons] == [ReasonCode.SECRET_ON_COMMAND_LINE]


def test_a_command_line_without_secrets_is_quiet() -> None:
    """However many there are."""
    assert not present(detector(), lines(0, line(), line(where=INSIDE, scope="agents")))


def test_clears_when_the_scope_is_kept() -> None:
    """For as long as is configured, while the kernel watched and no such port is open."""
    judge = detector()
    judge.observe(seeing(0, KERNEL))
    judge.observe(inventory(0))
    present(judge, breach(1))
    assert ended(judge, 600, SCOPE, last_seen=1) is None
    over = ended(judge, 602, SCOPE, last_seen=1)
    assert over is not None
    assert (over.verdict, over.reasons[0].code) == (Verdict.ABSENT, ReasonCode.NO_VIOLATION_SINCE)


def test_keeps_open_while_the_port_is_open() -> None:
    """It was told once, and is there still."""
    judge = detector()
    judge.observe(seeing(0, KERNEL))
    present(judge, inventory(0, listener("127.0.0.1", 9000, where=INSIDE)))
    assert ended(judge, 5000, SCOPE) is None
    judge.observe(inventory(5001))
    over = ended(judge, 5002, SCOPE)
    assert over is not None
    assert over.verdict is Verdict.ABSENT


@pytest.mark.parametrize("sensor", [KERNEL, TABLE])
def test_keeps_open_when_source_goes_blind(sensor: str) -> None:
    """Absence never clears: what cannot be seen is unknown, and quiet time begins anew."""
    judge = detector()
    judge.observe(seeing(0, KERNEL))
    judge.observe(inventory(0))
    judge.observe(blind(1, sensor))
    over = ended(judge, 5000, SCOPE)
    assert over is not None
    assert over.verdict is Verdict.UNKNOWN
    judge.observe(seeing(5001, sensor))
    judge.observe(inventory(5001))
    assert (ended(judge, 5300, SCOPE) is None) is (sensor == KERNEL)


def test_losses_begin_the_quiet_time_anew() -> None:
    """What was lost may have been a breach."""
    judge = detector()
    judge.observe(seeing(0, KERNEL))
    judge.observe(inventory(0))
    judge.observe(seeing(500, KERNEL, lost=3))
    assert ended(judge, 700, SCOPE) is None


def test_a_scope_that_is_declared_no_more_is_over() -> None:
    """Its sensor is switched off with it, and the operator has said that nothing is held."""
    judge = ScopeViolation.build(Config(), Surroundings(host=HOST, kernel_boot_id=KERNEL_BOOT))
    judge.observe(blind(0, KERNEL, BlindReason.DISABLED))
    over = ended(judge, 1, SCOPE)
    assert over is not None
    assert over.verdict is Verdict.ABSENT


def test_a_secret_is_gone_when_a_later_look_does_not_find_it() -> None:
    """The process came back without it, or is there no more: nobody can read it now."""
    judge = detector()
    carrier = Subject(SubjectKind.CONTAINER, CONTAINER)
    judge.observe(lines(0, line(SecretOption.TOKEN)))
    assert ended(judge, 1, carrier) is None
    judge.observe(lines(30, line()))
    over = ended(judge, 31, carrier)
    assert over is not None
    assert (over.verdict, over.reasons[0].code) == (Verdict.ABSENT, ReasonCode.SECRET_GONE)


@pytest.mark.parametrize("what", ["never looked", "blind", "not all"])
def test_a_secret_stays_while_not_everything_is_seen(what: str) -> None:
    """No look, a blind sensor, and a look at some of the processes say nothing."""
    judge = detector()
    if what == "blind":
        judge.observe(lines(30))
        judge.observe(blind(31, LINES))
    if what == "not all":
        judge.observe(lines(30, complete=False))
    over = ended(judge, 40, Subject(SubjectKind.CONTAINER, CONTAINER))
    assert over is not None
    assert over.verdict is Verdict.UNKNOWN


def test_hostile_names_are_cut() -> None:
    """Names come from outside and reach the wire encodable and short."""
    hostile = ScopeBreached(
        sensor=SensorName(KERNEL),
        at=at(0),
        origin=origin(name="\udcff" * 99, server=ServerKind.OTHER),
        scope="s" * 500,
        kind=BreachKind.EXECUTABLE,
        executable="\x00\x1b[31m" * 99,
    )
    (found,) = present(detector(), hostile)
    (evidence,) = found.evidence
    assert isinstance(evidence, ScopeEvidence)
    assert max(len(text.encode()) for text in (evidence.scope, evidence.executable)) <= 64
