"""F48: a database that turns clients away, and what only looks like it."""

from __future__ import annotations

import pytest

from agent.detectors.database_sessions import Config, DatabaseSessions
from agent.finding import Verdict
from agent.testing import (
    HOST,
    SURROUNDINGS,
    at,
    blind,
    exchange,
    log_line,
    open_case,
    origin,
    present,
    seeing,
    sessions,
    tick,
)
from escalation.model import FaultClass, ReasonCode, SessionsEvidence, Severity, Subject, SubjectKind
from probes.http.facts import ErrorKind
from probes.observation import Exchange, Origin, ServerKind

FAULT = FaultClass.DATABASE_CONNECTIONS_EXHAUSTED
UNIT = Subject(SubjectKind.UNIT, "postgresql@15-main.service")
ROUTER = origin(container=None, unit="litellm.service", name="litellm", server=ServerKind.LITELLM)
TOO_MANY = "postgresql.too_many_clients"


@pytest.fixture
def detector() -> DatabaseSessions:
    """A detector whose sensors see."""
    made = DatabaseSessions.build(Config(), SURROUNDINGS)
    for sensor in ("host.logs", "host.sessions"):
        made.observe(seeing(0, sensor))
    return made


def _refused_key(seconds: float, where: Origin = ROUTER) -> Exchange:
    return exchange(seconds, port=4000, where=where, status=401, error=ErrorKind.UNAUTHORIZED)


def test_refused_clients_and_full_sessions_are_a_case(detector: DatabaseSessions) -> None:
    """The database's log and the host's table of sockets agree; the case names the database's unit."""
    (found,) = present(
        detector,
        *[sessions(second, 10 * second) for second in range(1, 11)],
        log_line(11, TOO_MANY, count=3),
    )
    assert (found.fault_class, found.subject, found.severity) == (FAULT, UNIT, Severity.HIGH)
    assert [reason.code for reason in found.reasons] == [
        ReasonCode.SESSIONS_REFUSED,
        ReasonCode.SESSIONS_NEAR_LIMIT,
    ]
    evidence = found.evidence[0]
    assert isinstance(evidence, SessionsEvidence)
    assert (evidence.sessions, evidence.refused, evidence.limit) == (100, 3, None)


def test_refused_clients_alone_are_a_note(detector: DatabaseSessions) -> None:
    """One layer, with the second unknown; without a unit it is the host's."""
    (found,) = present(detector, log_line(1, TOO_MANY))
    assert (found.severity, found.subject) == (Severity.NOTE, Subject(SubjectKind.HOST, HOST))
    assert found.reasons[-1].code is ReasonCode.SECOND_LAYER_UNKNOWN


def test_the_unit_that_wrote_the_line_is_named_where_nobody_listens(detector: DatabaseSessions) -> None:
    """A database that listens on no port of the host is known by its log."""
    where = origin(container=None, unit="pg.service", name="postgres", server=ServerKind.POSTGRESQL)
    (found,) = present(detector, log_line(1, TOO_MANY, where=where))
    assert found.subject == Subject(SubjectKind.UNIT, "pg.service")


def test_the_second_layer_may_come_later(detector: DatabaseSessions) -> None:
    """Sessions are counted every ten seconds; the count that follows makes a note a case."""
    note, case = present(detector, log_line(1, TOO_MANY), sessions(5, 100))
    assert (note.severity, case.severity) == (Severity.NOTE, Severity.HIGH)
    assert case.count == 0


def test_old_sessions_are_no_witness(detector: DatabaseSessions) -> None:
    """A count from before the sensor stopped counting says nothing of now."""
    found = present(detector, sessions(1, 100), log_line(100, TOO_MANY))
    assert [each.severity for each in found] == [Severity.NOTE]


def test_sessions_far_below_their_most_do_not_agree(detector: DatabaseSessions) -> None:
    """A hundred were held, now there are twenty: somebody else's limit was reached."""
    found = present(detector, sessions(1, 100), sessions(11, 20), log_line(12, TOO_MANY))
    assert [each.severity for each in found] == [Severity.NOTE]


def test_a_router_that_loses_its_keys_is_the_second_layer(detector: DatabaseSessions) -> None:
    """Keys that worked are refused, none works any more, and its log lost the models."""
    worked = [exchange(second, port=4000, where=ROUTER) for second in range(10)]
    refused = [_refused_key(20 + second) for second in range(5)]
    note, case = present(detector, *worked, log_line(19, "litellm.models_lost"), *refused)
    assert (note.severity, case.severity) == (Severity.NOTE, Severity.HIGH)
    assert ReasonCode.KEYS_REFUSED_AT_ROUTER in {reason.code for reason in case.reasons}


def test_one_bad_key_stays_quiet(detector: DatabaseSessions) -> None:
    """Refused keys without a word of the database are a fault of the keys."""
    worked = [exchange(second, port=4000, where=ROUTER) for second in range(10)]
    assert present(detector, *worked, *[_refused_key(10 + second) for second in range(50)]) == []


def test_a_bad_key_beside_good_ones_does_not_agree(detector: DatabaseSessions) -> None:
    """While others are served, the router can ask its database."""
    mixed = [
        each
        for second in range(30)
        for each in (_refused_key(second), exchange(second + 0.5, port=4000, where=ROUTER))
    ]
    found = present(detector, *mixed, log_line(31, "litellm.models_lost"))
    assert [each.severity for each in found] == [Severity.NOTE]


def test_keys_that_never_worked_do_not_agree(detector: DatabaseSessions) -> None:
    """A client with a wrong key from the start says nothing of the database."""
    found = present(detector, log_line(1, "litellm.pool_exhausted"), *[_refused_key(s) for s in range(2, 20)])
    assert {each.severity for each in found} == {Severity.NOTE}


def test_many_sessions_alone_stay_quiet(detector: DatabaseSessions) -> None:
    """A pool that holds all it may is no fault while nobody is turned away."""
    assert present(detector, *[sessions(second, 100) for second in range(60)]) == []


def test_one_roles_own_limit_stays_a_note(detector: DatabaseSessions) -> None:
    """Others still get in, however many sessions there are."""
    found = present(detector, sessions(1, 100), log_line(2, "postgresql.too_many_for_one", what="role"))
    assert [each.severity for each in found] == [Severity.NOTE]


def test_other_ports_and_other_servers_say_nothing(detector: DatabaseSessions) -> None:
    """The head of a cluster holds connections too, and other servers refuse keys."""
    vllm = [_refused_key(second, origin()) for second in range(20)]
    found = present(detector, sessions(1, 100, port=6379), *vllm, log_line(21, TOO_MANY))
    assert [each.severity for each in found] == [Severity.NOTE]


def test_clears_when_sessions_are_free_again(detector: DatabaseSessions) -> None:
    """Fewer sessions than when clients were turned away, and nobody turned away for a minute."""
    present(detector, sessions(1, 100), log_line(2, TOO_MANY), sessions(12, 100))
    case = open_case(FAULT, UNIT, last_seen=at(12))

    detector.observe(sessions(70, 20))
    assert detector.tick(tick(71, case)) == []
    detector.observe(sessions(80, 20))
    (over,) = detector.tick(tick(81, case))

    assert (over.verdict, over.reasons[0].code) == (Verdict.ABSENT, ReasonCode.SESSIONS_FREE_AGAIN)
    assert over.reasons[0].count == 20


@pytest.mark.parametrize(("now", "clears"), [(20, True), (95, False)])
def test_after_a_restart_the_case_says_how_many_sessions_there_were(now: int, clears: bool) -> None:
    """To a new detector a steady number is the most that it knows; fewer than at the refusal is fewer."""
    successor = DatabaseSessions.build(Config(), SURROUNDINGS)
    successor.observe(seeing(0, "host.logs"))
    successor.observe(seeing(0, "host.sessions"))
    then = SessionsEvidence(port=5432, sessions=100, limit=None, refused=3, window_s=60.0)
    case = open_case(FAULT, UNIT, last_seen=at(-10), evidence=(then,))
    successor.observe(sessions(70, now))
    assert [over.verdict for over in successor.tick(tick(71, case))] == [Verdict.ABSENT] * clears


def test_clears_a_database_that_nobody_hears_of_for_a_day(detector: DatabaseSessions) -> None:
    """Nobody is turned away, and nothing listens where it did: it was taken away."""
    detector.observe(seeing(0, "host.sessions"))
    present(detector, sessions(1, 100), log_line(2, TOO_MANY), sessions(10, 0))
    case = open_case(FAULT, UNIT, last_seen=at(10))
    assert detector.tick(tick(10 + 86399, case)) == []
    (over,) = detector.tick(tick(10 + 86400, case))
    assert (over.verdict, over.reasons[0].code) == (Verdict.ABSENT, ReasonCode.NOT_SEEN_SINCE)


def test_clears_when_the_database_starts_anew(detector: DatabaseSessions) -> None:
    """Its own word that it takes connections, after the case was last seen."""
    present(detector, log_line(2, TOO_MANY))
    case = open_case(FAULT, UNIT, last_seen=at(2))
    detector.observe(log_line(1, "postgresql.ready"))
    assert detector.tick(tick(3, case)) == []
    detector.observe(log_line(5, "postgresql.ready"))
    assert [each.verdict for each in detector.tick(tick(6, case))] == [Verdict.ABSENT]


def test_keeps_open_while_sessions_stay(detector: DatabaseSessions) -> None:
    """Silence of the log is no recovery: nobody may have asked."""
    present(detector, sessions(1, 100), log_line(2, TOO_MANY))
    detector.observe(sessions(5000, 99))
    assert detector.tick(tick(5001, open_case(FAULT, UNIT, last_seen=at(2)))) == []


def test_keeps_open_when_source_goes_blind(detector: DatabaseSessions) -> None:
    """Without the logs, and without the sessions, nothing is known to be over."""
    present(detector, sessions(1, 100), log_line(2, TOO_MANY))
    case = open_case(FAULT, UNIT, last_seen=at(2))
    (unknown,) = detector.observe(blind(3, "host.logs"))
    assert (unknown.verdict, unknown.subject) == (Verdict.UNKNOWN, None)
    detector.observe(sessions(500, 1))
    assert detector.tick(tick(501, case)) == []

    detector.observe(seeing(502, "host.logs"))
    detector.observe(blind(503, "host.sessions"))
    assert detector.tick(tick(600, case)) == []


def test_a_followed_file_is_sight_enough(detector: DatabaseSessions) -> None:
    """A host without a journal knows of its database by its log file."""
    detector.observe(seeing(0, "host.log_files"))
    assert detector.observe(blind(3, "host.logs")) == ()


def test_what_is_remembered_is_bounded(detector: DatabaseSessions) -> None:
    """Ports and lines come from outside."""
    for port in range(1, 500):
        detector.observe(exchange(1, port=port, where=ROUTER))
    for number in range(5000):
        detector.observe(log_line(2 + number / 1000, TOO_MANY))
    assert len(detector._routers) <= 16
    assert len(detector._lines) <= 256
