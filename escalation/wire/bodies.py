"""What a report is about, between model and message: cases, heartbeats, losses."""

from __future__ import annotations

from typing import Final

from escalation.model import (
    BlindReason,
    CaseId,
    CasePhase,
    CaseReport,
    FaultClass,
    Heartbeat,
    HostChange,
    HostChangeKind,
    Incarnation,
    Loss,
    LossKind,
    Reason,
    ReasonCode,
    SensorCoverage,
    Severity,
    Subject,
    SubjectKind,
)
from escalation.wire import escalation_pb2 as pb
from escalation.wire.evidence import evidence, evidence_message
from escalation.wire.fields import (
    Names,
    bounded,
    entries,
    finite,
    fit,
    fit_float,
    fit_list,
    fit_optional,
    fit_s32,
    fit_u32,
    fit_u64,
    optional_pid,
    text,
)

_FAULT: Final = Names(FaultClass, pb.FaultClass)
_SEVERITY: Final = Names(Severity, pb.Severity)
_SUBJECT: Final = Names(SubjectKind, pb.SubjectKind)
_REASON: Final = Names(ReasonCode, pb.ReasonCode)
_BLIND: Final = Names(BlindReason, pb.BlindReason)
_PHASE: Final = Names(CasePhase, pb.CasePhase)
_LOSS: Final = Names(LossKind, pb.LossKind)
_CHANGE: Final = Names(HostChangeKind, pb.HostChangeKind)


def case_message(case: CaseReport) -> pb.CaseReport:
    """Return `case` as a message."""
    number = _FAULT.number(case.fault_class)
    if case.fault_class is FaultClass.UNKNOWN and case.fault_number is not None:
        number = fit_s32(case.fault_number)
    return pb.CaseReport(
        phase=_PHASE.number(case.phase),
        case_id=fit("CaseReport.case_id", case.case_id),
        fault_class=number,
        severity=_SEVERITY.number(case.severity),
        subject=_subject_message(case.subject),
        target=None if case.target is None else _subject_message(case.target),
        incarnation=_incarnation_message(case.incarnation),
        first_seen_ns=fit_u64(case.first_seen_ns),
        last_seen_ns=fit_u64(case.last_seen_ns),
        count=fit_u64(case.count),
        reasons=[
            pb.Reason(
                code=_REASON.number(reason.code),
                count=fit_u64(reason.count),
                threshold=fit_float(reason.threshold),
                window_s=fit_float(reason.window_s),
            )
            for reason in fit_list("CaseReport.reasons", case.reasons)
        ],
        evidence=[evidence_message(each) for each in fit_list("CaseReport.evidence", case.evidence)],
        drill=case.drill,
    )


def case(message: pb.CaseReport) -> CaseReport:
    """Return the case that `message` tells of; raise WireError."""
    number = message.fault_class
    fault_class = _FAULT.member(number)
    reasons = message.reasons
    pieces = message.evidence
    entries("CaseReport.reasons", len(reasons))
    entries("CaseReport.evidence", len(pieces))
    return CaseReport(
        phase=_PHASE.member(message.phase),
        case_id=CaseId(text("CaseReport.case_id", message.case_id)),
        fault_class=fault_class,
        severity=_SEVERITY.member(message.severity),
        subject=_subject(message.subject),
        incarnation=_incarnation(message.incarnation),
        first_seen_ns=bounded("CaseReport.first_seen_ns", message.first_seen_ns),
        last_seen_ns=bounded("CaseReport.last_seen_ns", message.last_seen_ns),
        count=bounded("CaseReport.count", message.count),
        target=_subject(message.target) if message.HasField("target") else None,
        reasons=tuple([_reason(each) for each in reasons]),
        evidence=tuple([evidence(each) for each in pieces]),
        fault_number=number if number != 0 and fault_class is FaultClass.UNKNOWN else None,
        drill=message.drill,
    )


def heartbeat_message(heartbeat: Heartbeat) -> pb.Heartbeat:
    """Return `heartbeat` as a message."""
    return pb.Heartbeat(
        kernel_boot_id=fit("Heartbeat.kernel_boot_id", heartbeat.kernel_boot_id),
        agent_version=fit("Heartbeat.agent_version", heartbeat.agent_version),
        started_ns=fit_u64(heartbeat.started_ns),
        coverage=[
            pb.SensorCoverage(
                sensor=fit("SensorCoverage.sensor", each.sensor),
                blind=None if each.blind is None else _BLIND.number(each.blind),
                error=fit_u32(each.error),
            )
            for each in fit_list("Heartbeat.coverage", heartbeat.coverage)
        ],
        open_cases=fit_u32(heartbeat.open_cases),
        spool_reports=fit_u64(heartbeat.spool_reports),
        spool_bytes=fit_u64(heartbeat.spool_bytes),
        interval_s=fit_float(heartbeat.interval_s),
    )


def heartbeat(message: pb.Heartbeat) -> Heartbeat:
    """Return the heartbeat that `message` is; raise WireError."""
    coverage = message.coverage
    entries("Heartbeat.coverage", len(coverage))
    return Heartbeat(
        kernel_boot_id=text("Heartbeat.kernel_boot_id", message.kernel_boot_id),
        agent_version=text("Heartbeat.agent_version", message.agent_version),
        started_ns=bounded("Heartbeat.started_ns", message.started_ns),
        coverage=tuple(
            [
                SensorCoverage(
                    text("SensorCoverage.sensor", each.sensor),
                    _BLIND.member(each.blind) if each.HasField("blind") else None,
                    each.error,
                )
                for each in coverage
            ]
        ),
        open_cases=message.open_cases,
        spool_reports=bounded("Heartbeat.spool_reports", message.spool_reports),
        spool_bytes=bounded("Heartbeat.spool_bytes", message.spool_bytes),
        interval_s=finite("Heartbeat.interval_s", message.interval_s),
    )


def loss_message(loss: Loss) -> pb.Loss:
    """Return `loss` as a message."""
    return pb.Loss(
        kind=_LOSS.number(loss.kind),
        sensor=fit("Loss.sensor", loss.sensor),
        count=fit_u64(loss.count),
        exact=loss.exact,
    )


def loss(message: pb.Loss) -> Loss:
    """Return the loss that `message` accounts for; raise WireError."""
    return Loss(
        _LOSS.member(message.kind),
        text("Loss.sensor", message.sensor),
        bounded("Loss.count", message.count),
        message.exact,
    )


def host_change_message(change: HostChange) -> pb.HostChange:
    """Return `change` as a message."""
    return pb.HostChange(
        kind=_CHANGE.number(change.kind),
        subject=_subject_message(change.subject),
        at_ns=fit_u64(change.at_ns),
        count=fit_u64(change.count),
    )


def host_change(message: pb.HostChange) -> HostChange:
    """Return the change that `message` tells of; raise WireError."""
    return HostChange(
        _CHANGE.member(message.kind),
        _subject(message.subject),
        bounded("HostChange.at_ns", message.at_ns),
        bounded("HostChange.count", message.count),
    )


def _subject_message(subject: Subject) -> pb.Subject:
    return pb.Subject(kind=_SUBJECT.number(subject.kind), name=fit("Subject.name", subject.name))


def _subject(message: pb.Subject) -> Subject:
    return Subject(_SUBJECT.member(message.kind), text("Subject.name", message.name))


def _incarnation_message(incarnation: Incarnation) -> pb.Incarnation:
    container_id = incarnation.container_id
    return pb.Incarnation(
        kernel_boot_id=fit("Incarnation.kernel_boot_id", incarnation.kernel_boot_id),
        container_id=None if container_id is None else fit("Incarnation.container_id", container_id),
        pid=fit_optional(incarnation.pid),
        start_ticks=fit_optional(incarnation.start_ticks),
    )


def _incarnation(message: pb.Incarnation) -> Incarnation:
    return Incarnation(
        text("Incarnation.kernel_boot_id", message.kernel_boot_id),
        text("Incarnation.container_id", message.container_id) if message.HasField("container_id") else None,
        optional_pid("Incarnation.pid", message),
        bounded("Incarnation.start_ticks", message.start_ticks) if message.HasField("start_ticks") else None,
    )


def _reason(message: pb.Reason) -> Reason:
    return Reason(
        _REASON.member(message.code),
        bounded("Reason.count", message.count),
        finite("Reason.threshold", message.threshold),
        finite("Reason.window_s", message.window_s),
    )
