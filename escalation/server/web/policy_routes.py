"""What policy would say: who may approve what, where, what else it takes, and why not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from escalation.inert import shown
from escalation.model import ActionKind
from escalation.server.decision.approvals import Policy
from escalation.server.decision.policies import PolicyCase
from escalation.server.playbook.alternatives import RESTARTS
from escalation.server.web.access import Person, Role
from escalation.server.web.handlers import Query, Rule, json_answer
from escalation.view.policy import PolicyRow, PolicyTable, RefusedPerson
from escalation.wording.quantities import duration

_LONGEST: Final = 200

_QUERY: Final = (
    Query("person", str, "Somebody, who need not be known: only what is said of them is in the answer."),
    Query("kind", ActionKind, "A kind of action; without it each."),
    Query("host", str, "The host that it would be for."),
    Query("target", str, "The kind and name of what is acted on, as unit:ollama.service."),
    Query("fault_class", str, "The fault class."),
)


class PolicyRoutes:
    """Answers from the settings alone: nothing is looked up and nothing changes."""

    def __init__(self, *, policy: Policy, persons: Callable[[], Sequence[Person]]) -> None:
        """Answer by `policy` for the people whom `persons` returns."""
        self._policy = policy
        self._persons = persons
        self.rules: tuple[Rule, ...] = (
            Rule(
                "GET",
                "/api/v1/policy/test",
                Role.VIEWER,
                self._test,
                "Who may approve what, where, what else it takes, and why not.",
                answer=PolicyTable,
                query=_QUERY,
            ),
        )

    async def _test(self, request: Request) -> Response:
        asked = request.query_params
        kinds = tuple(ActionKind)
        if (kind := asked.get("kind")) is not None:
            if kind not in set(ActionKind):
                raise HTTPException(400, f"kind is one of {', '.join(ActionKind)}")
            kinds = (ActionKind(kind),)
        given = {each: asked.get(each, "") for each in ("person", "host", "target", "fault_class")}
        if any(len(each) > _LONGEST for each in given.values()):
            raise HTTPException(400, f"what is asked about has at most {_LONGEST} characters")
        rows = (
            row_of(
                self._policy,
                PolicyCase(each, given["host"], given["target"], given["fault_class"]),
                self._persons(),
                person=given["person"] or None,
            )
            for each in kinds
        )
        return json_answer(PolicyTable(tuple(rows)))


def row_of(policy: Policy, case: PolicyCase, persons: Sequence[Person], *, person: str | None) -> PolicyRow:
    """Return what policy says of `case`; of `person` alone where one is given.

    Who is not known by name is taken for an operator.
    """
    asked = policy.demands(case)
    roles = {each.name: each.role for each in persons}
    names = sorted(roles) if person is None else [person]
    may, may_not = [], []
    for name in names:
        why = _why_not(case, roles.get(name, Role.OPERATOR), name, asked.approvers)
        if why is None:
            may.append(name)
        else:
            may_not.append(RefusedPerson(person=shown(name), why=why))
    return PolicyRow(
        kind=case.kind.value,
        host=shown(case.host),
        target=shown(case.target),
        fault_class=shown(case.fault_class),
        may=tuple(map(shown, may)),
        may_not=tuple(may_not),
        needs=_needs(policy, case),
        policies=asked.because,
    )


def _why_not(case: PolicyCase, role: Role, name: str, approvers: frozenset[str] | None) -> str | None:
    if case.kind is ActionKind.HUMAN:
        return "work for a person is described, and never approved"
    if not role.may(Role.OPERATOR):
        return f"the role {role.value} may not decide"
    if approvers is not None and name not in approvers:
        return "policy names others" if approvers else "policies contradict each other: nobody may"
    return None


def _needs(policy: Policy, case: PolicyCase) -> tuple[str, ...]:
    if case.kind is ActionKind.HUMAN:
        return ()
    asked, found = policy.demands(case), []
    if asked.two_person:
        found.append("two different persons")
    if asked.no_self_approval:
        found.append("nobody who has asked about it")
    if asked.require_signature:
        found.append("a signature of the person's own key")
    if case.kind in RESTARTS:
        budget = policy.restart_budget
        found.append(f"fewer than {budget.approvals} approved restarts of it in {duration(budget.within_s)}")
    if case.kind in policy.refuse_unknown:
        found.append("every condition known, or set aside by name")
    return tuple(found)
