"""What the orchestrator makes of reports: incidents, advice, recommendations and where they stand."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from escalation.model.evidence import Evidence
from escalation.model.names import (
    AgentId,
    CaseId,
    FaultClass,
    Incarnation,
    IncidentId,
    RecommendationId,
    Severity,
    Subject,
)
from escalation.model.reasons import Reason, ReasonCode
from escalation.model.sightings import NOT_COUNTED, Sightings
from escalation.model.signature import Signed
from escalation.model.weighing import Alternative


class ActionKind(enum.StrEnum):
    """What is recommended. INSPECT reads only; HUMAN is described and can never be approved here."""

    RESTART_UNIT = "restart_unit"
    RESTART_CONTAINER = "restart_container"
    REMOVE_ROUTE = "remove_route"
    RECREATE_CONTAINER = "recreate_container"
    RESUME_PROCESS = "resume_process"
    FREE_SPACE = "free_space"
    CHANGE_SETTING = "change_setting"
    INSPECT = "inspect"
    HUMAN = "human"


@dataclass(frozen=True, slots=True)
class Action:
    """A typed action: `command` is the exact argument list that a person would run on `host`."""

    kind: ActionKind
    host: AgentId
    target: Subject
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verification:
    """Proof of recovery: the same detector clears within `within_s` and does not reopen for `quiet_s`."""

    text: str
    within_s: float
    quiet_s: float


@dataclass(frozen=True, slots=True)
class Advice:
    """What a remedy says about an incident: the action, its price, its limits, its proof, and other ways."""

    action: Action
    summary: str
    risk: str
    will_not_fix: str
    verification: Verification
    alternatives: tuple[Alternative, ...] = ()


class State(enum.StrEnum):
    """Where a recommendation stands; the table of moves is in `server/decision/approvals.py`."""

    PROPOSED = "proposed"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    DONE = "done"
    LAPSED = "lapsed"
    VERIFIED = "verified"
    NOT_CURED = "not_cured"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One cause on one host, folded from the reports that share it.

    `explained_by` names the open incident of which this one is a consequence: that one is to be decided. A
    `drill` was made on purpose. `opened_for` is the reason for which it was opened, which with the fault
    class names the rule; one whose rule is in `shadow` is kept, and neither proposed nor told. `returns`
    counts how often it came back soon after it had cleared. `sightings` say when it was seen how often.
    """

    id: IncidentId
    agent_id: AgentId
    fault_class: FaultClass
    fault_number: int | None
    subject: Subject
    target: Subject | None
    severity: Severity
    incarnation: Incarnation
    case_id: CaseId
    open: bool
    first_seen_ns: int
    last_seen_ns: int
    cleared_ns: int | None
    count: int
    reasons: tuple[Reason, ...] = field(default=())
    evidence: tuple[Evidence, ...] = field(default=())
    explained_by: IncidentId | None = None
    drill: bool = False
    opened_for: ReasonCode | None = None
    shadow: bool = False
    returns: int = 0
    sightings: Sightings = NOT_COUNTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One person's approval; `signed` is the document and the signature, when the person signed it.

    `key` names the key that made the signature, as `SHA256:...` or a passkey's credential id. `policy` is the
    digest of the rules under which it was given, empty where that was not kept. Since `void_ns` other rules
    stand, and it counts no more.
    """

    person: str
    at_ns: int
    reason: str
    key: str | None = None
    signed: Signed | None = None
    policy: str = ""
    void_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """An advice bound to an incident, its evidence and its target's incarnation by `digest`.

    `approvers` may name one person while the state is still PROPOSED: then policy wants a second. `approvals`
    says of each how, and of those before them that are void; one from before they were kept has none.
    """

    id: RecommendationId
    incident_id: IncidentId
    advice: Advice
    digest: str
    state: State
    created_ns: int
    approve_by_ns: int
    execute_by_ns: int | None = None
    decided_by: str | None = None
    decided_ns: int | None = None
    decision_reason: str | None = None
    approvers: tuple[str, ...] = ()
    approvals: tuple[Approval, ...] = ()
    done_by: str | None = None
    done_ns: int | None = None
    finished_ns: int | None = None
