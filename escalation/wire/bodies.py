"""What a report is about, between model and message: cases with their evidence, heartbeats, losses."""

from __future__ import annotations

from typing import Any, Final, assert_never

from escalation.model import (
    BlindEvidence,
    BlindReason,
    CaseId,
    CasePhase,
    CaseReport,
    Device,
    DeviceOpenEvidence,
    Evidence,
    FaultClass,
    Heartbeat,
    Incarnation,
    ListenerEvidence,
    Loss,
    LossKind,
    OomEvidence,
    OomScope,
    Reach,
    Reason,
    ReasonCode,
    SensorCoverage,
    Severity,
    SignalEvidence,
    Subject,
    SubjectKind,
    UnknownEvidence,
)
from escalation.wire import escalation_pb2 as pb
from escalation.wire.fields import (
    Names,
    bounded,
    entries,
    finite,
    fit,
    fit_float,
    fit_list,
    fit_s32,
    fit_u32,
    fit_u64,
    text,
)
from escalation.wire.limits import PORT_MAX

_FAULT: Final = Names(FaultClass, pb.FaultClass)
_SEVERITY: Final = Names(Severity, pb.Severity)
_SUBJECT: Final = Names(SubjectKind, pb.SubjectKind)
_REASON: Final = Names(ReasonCode, pb.ReasonCode)
_DEVICE: Final = Names(Device, pb.Device)
_SCOPE: Final = Names(OomScope, pb.OomScope)
_REACH: Final = Names(Reach, pb.Reach)
_BLIND: Final = Names(BlindReason, pb.BlindReason)
_PHASE: Final = Names(CasePhase, pb.CasePhase)
_LOSS: Final = Names(LossKind, pb.LossKind)


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
        evidence=[_evidence_message(each) for each in fit_list("CaseReport.evidence", case.evidence)],
    )


def case(message: pb.CaseReport) -> CaseReport:
    """Return the case that `message` tells of; raise WireError."""
    number = message.fault_class
    fault_class = _FAULT.member(number)
    reasons = message.reasons
    evidence = message.evidence
    entries("CaseReport.reasons", len(reasons))
    entries("CaseReport.evidence", len(evidence))
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
        evidence=tuple([_evidence(each) for each in evidence]),
        fault_number=number if number != 0 and fault_class is FaultClass.UNKNOWN else None,
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


def unknown_bytes(message: Any) -> int:
    """Return how many bytes of `message` are fields that this version does not know."""
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    return int(message.ByteSize() - known.ByteSize())


def _subject_message(subject: Subject) -> pb.Subject:
    return pb.Subject(kind=_SUBJECT.number(subject.kind), name=fit("Subject.name", subject.name))


def _subject(message: pb.Subject) -> Subject:
    return Subject(_SUBJECT.member(message.kind), text("Subject.name", message.name))


def _incarnation_message(incarnation: Incarnation) -> pb.Incarnation:
    container_id = incarnation.container_id
    return pb.Incarnation(
        kernel_boot_id=fit("Incarnation.kernel_boot_id", incarnation.kernel_boot_id),
        container_id=None if container_id is None else fit("Incarnation.container_id", container_id),
        pid=_fit_optional(incarnation.pid),
        start_ticks=_fit_optional(incarnation.start_ticks),
    )


def _incarnation(message: pb.Incarnation) -> Incarnation:
    return Incarnation(
        text("Incarnation.kernel_boot_id", message.kernel_boot_id),
        text("Incarnation.container_id", message.container_id) if message.HasField("container_id") else None,
        _pid(message, "Incarnation.pid"),
        bounded("Incarnation.start_ticks", message.start_ticks) if message.HasField("start_ticks") else None,
    )


def _reason(message: pb.Reason) -> Reason:
    return Reason(
        _REASON.member(message.code),
        bounded("Reason.count", message.count),
        finite("Reason.threshold", message.threshold),
        finite("Reason.window_s", message.window_s),
    )


def _evidence_message(evidence: Evidence) -> pb.Evidence:
    match evidence:
        case DeviceOpenEvidence():
            return pb.Evidence(
                device_open=pb.DeviceOpenEvidence(
                    device=_DEVICE.number(evidence.device),
                    minor=None if evidence.minor is None else fit_u32(evidence.minor),
                    errno=fit_u32(evidence.errno),
                    failures=fit_u64(evidence.failures),
                    prior_successes=fit_u64(evidence.prior_successes),
                    process_name=fit("DeviceOpenEvidence.process_name", evidence.process_name),
                    pid=_fit_optional(evidence.pid),
                )
            )
        case OomEvidence():
            return pb.Evidence(
                oom=pb.OomEvidence(
                    scope=_SCOPE.number(evidence.scope),
                    process_name=fit("OomEvidence.process_name", evidence.process_name),
                    pid=_fit_optional(evidence.pid),
                    anon_rss_bytes=_fit_optional(evidence.anon_rss_bytes),
                    limit_bytes=_fit_optional(evidence.limit_bytes),
                    kills_in_cgroup=_fit_optional(evidence.kills_in_cgroup),
                )
            )
        case SignalEvidence():
            return pb.Evidence(
                signal=pb.SignalEvidence(
                    signal=fit_u32(evidence.signal),
                    code=fit_s32(evidence.code),
                    process_name=fit("SignalEvidence.process_name", evidence.process_name),
                    pid=_fit_optional(evidence.pid),
                )
            )
        case ListenerEvidence():
            return pb.Evidence(
                listener=pb.ListenerEvidence(
                    address=fit("ListenerEvidence.address", evidence.address),
                    port=min(fit_u32(evidence.port), PORT_MAX),
                    reach=_REACH.number(evidence.reach),
                    process_name=fit("ListenerEvidence.process_name", evidence.process_name),
                    confirmed=evidence.confirmed,
                )
            )
        case BlindEvidence():
            return pb.Evidence(
                blind=pb.BlindEvidence(
                    sensor=fit("BlindEvidence.sensor", evidence.sensor),
                    reason=_BLIND.number(evidence.reason),
                    silent_s=fit_float(evidence.silent_s),
                )
            )
        case UnknownEvidence():
            return pb.Evidence()
        case _:
            assert_never(evidence)


def _evidence(message: pb.Evidence) -> Evidence:
    match message.WhichOneof("kind"):
        case "device_open":
            return _device_open(message.device_open)
        case "oom":
            return _oom(message.oom)
        case "signal":
            signal = message.signal
            return SignalEvidence(
                signal.signal,
                signal.code,
                text("SignalEvidence.process_name", signal.process_name),
                _pid(signal, "SignalEvidence.pid"),
            )
        case "listener":
            return _listener(message.listener)
        case "blind":
            blind = message.blind
            return BlindEvidence(
                text("BlindEvidence.sensor", blind.sensor),
                _BLIND.member(blind.reason),
                finite("BlindEvidence.silent_s", blind.silent_s),
            )
        case _:
            return UnknownEvidence(unknown_bytes(message))


def _device_open(message: pb.DeviceOpenEvidence) -> DeviceOpenEvidence:
    return DeviceOpenEvidence(
        _DEVICE.member(message.device),
        message.minor if message.HasField("minor") else None,
        message.errno,
        bounded("DeviceOpenEvidence.failures", message.failures),
        bounded("DeviceOpenEvidence.prior_successes", message.prior_successes),
        text("DeviceOpenEvidence.process_name", message.process_name),
        _pid(message, "DeviceOpenEvidence.pid"),
    )


def _oom(message: pb.OomEvidence) -> OomEvidence:
    has = message.HasField
    return OomEvidence(
        _SCOPE.member(message.scope),
        text("OomEvidence.process_name", message.process_name),
        _pid(message, "OomEvidence.pid"),
        bounded("OomEvidence.anon_rss_bytes", message.anon_rss_bytes) if has("anon_rss_bytes") else None,
        bounded("OomEvidence.limit_bytes", message.limit_bytes) if has("limit_bytes") else None,
        bounded("OomEvidence.kills_in_cgroup", message.kills_in_cgroup) if has("kills_in_cgroup") else None,
    )


def _listener(message: pb.ListenerEvidence) -> ListenerEvidence:
    return ListenerEvidence(
        text("ListenerEvidence.address", message.address),
        bounded("ListenerEvidence.port", message.port, PORT_MAX),
        _REACH.member(message.reach),
        text("ListenerEvidence.process_name", message.process_name),
        message.confirmed if message.HasField("confirmed") else None,
    )


def _pid(message: Any, field: str) -> int | None:
    return bounded(field, message.pid) if message.HasField("pid") else None


def _fit_optional(value: int | None) -> int | None:
    return None if value is None else fit_u64(value)
