"""Hosts whose routes stall, fail and cool down, and the ledger that they report to."""

from __future__ import annotations

from dataclasses import replace

from escalation.model import (
    CasePhase,
    CaseReport,
    FaultClass,
    FlightEvidence,
    Incident,
    PromptSizeEvidence,
    Reason,
    ReasonCode,
    Recommendation,
    RouteEvidence,
    RouteId,
    RouteKind,
    ServerKind,
    State,
    Subject,
    SubjectKind,
)
from escalation.server.testing import case_report
from tests.escalation.server.deliveries import Hosts

MINUTE_NS = 60 * 10**9
VLLM = RouteId(8000, RouteKind.CHAT_COMPLETIONS, "qwen3-32b", ServerKind.VLLM)
ROUTER = replace(VLLM, port=4000, server=ServerKind.LITELLM)
STALLED = FaultClass.ROUTE_ENGINE_STALLED
FAILS = FaultClass.ROUTE_FAILS_REAL_TRAFFIC
COOLING = FaultClass.ROUTE_ROUTER_COOLDOWN
EMPTY = FaultClass.ROUTE_EMPTY_COMPLETION
RANKS = FaultClass.DISTRIBUTED_RANK_STALL


def route_evidence(fault: FaultClass, route: RouteId) -> RouteEvidence | FlightEvidence | PromptSizeEvidence:
    match fault:
        case FaultClass.ROUTE_ENGINE_STALLED:
            return FlightEvidence(
                id=route,
                requests=2,
                waiting=1,
                oldest_s=300.0,
                silent_s=200.0,
                patience_s=120.0,
                largest_request_bytes=9000,
            )
        case FaultClass.ROUTE_FAILS_REAL_TRAFFIC:
            return PromptSizeEvidence(
                id=route, window_s=900.0, split_bytes=65_536, small=9, small_failed=0, large=9, large_failed=9
            )
        case _:
            return RouteEvidence(
                id=route, window_s=600.0, exchanges=20, affected=9, affected_streamed=4, unobserved=0
            )


def _reason(*, clears: bool, certain: bool) -> ReasonCode:
    if clears:
        return ReasonCode.ENGINE_ANSWERS_AGAIN
    return ReasonCode.NO_BYTES_WHILE_IN_FLIGHT if certain else ReasonCode.SECOND_LAYER_UNKNOWN


class Fleet(Hosts):
    """Hosts whose routes fail, stall and recover."""

    def report(
        self,
        host: str,
        fault: FaultClass,
        route: RouteId = VLLM,
        *,
        phase: CasePhase = CasePhase.OPENED,
        case_id: str | None = None,
        seen_ns: int | None = None,
        certain: bool = True,
    ) -> None:
        """Let `host` say that it sees `fault` on `route`, or that it is over."""
        clears = phase is CasePhase.CLEARED
        body: CaseReport = case_report(
            phase,
            case_id=case_id or f"{host} {fault} {route.port}",
            seen_ns=self.now_ns if seen_ns is None else seen_ns,
            fault_class=fault,
            subject=Subject(SubjectKind.ROUTE, f"{route.port}/{route.route} {route.model}"),
            target=Subject(SubjectKind.UNIT, "serving.service"),
            reasons=(Reason(_reason(clears=clears, certain=certain)),),
            evidence=() if clears else (route_evidence(fault, route),),
        )
        self.report_body(host, body)

    def clear(self, host: str, fault: FaultClass, route: RouteId = VLLM) -> None:
        """Let `host` say that `fault` is over."""
        self.report(host, fault, route, phase=CasePhase.CLEARED)

    def open(self) -> dict[tuple[str, FaultClass], Incident]:
        """Return the open incidents by host and fault class."""
        found = (each for each in self.ledger.incidents(limit=1000) if each.open)
        return {(each.agent_id, each.fault_class): each for each in found}

    def incidents(self) -> list[Incident]:
        """Return the open incidents."""
        return [each for each in self.ledger.incidents(limit=1000) if each.open]

    def waiting(self) -> dict[tuple[str, FaultClass], Recommendation]:
        """Return what waits for a decision, by host and fault class."""
        by_incident = {each.incident_id: each for each in self.proposals()}
        return {key: by_incident[each.id] for key, each in self.open().items() if each.id in by_incident}

    def proposals(self) -> list[Recommendation]:
        """Return every recommendation that is proposed."""
        return list(self.ledger.in_states(frozenset({State.PROPOSED}), limit=None))
