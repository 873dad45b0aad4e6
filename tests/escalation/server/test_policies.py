"""Policies by kind, host, target and class: they only ever ask for more, in whatever order they stand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from escalation.model import ActionKind
from escalation.server.decision.approvals import Policy
from escalation.server.decision.policies import ApprovalPolicy, Demands, PolicyCase, demands
from escalation.server.desk import Refused
from escalation.server.testing import FakeDesk

_CASE = PolicyCase(ActionKind.RESTART_UNIT, "spark-1", "unit:ollama.service", "route.engine_stalled")
_globs = st.sampled_from(["*", "spark-*", "spark-1", "laptop", "unit:*", "route.*", "?park-1"])
_policies = st.builds(
    ApprovalPolicy,
    name=st.sampled_from(["a", "b", "c"]),
    kinds=st.sampled_from([(), (ActionKind.RESTART_UNIT,), (ActionKind.INSPECT,)]),
    host=_globs,
    target=_globs,
    fault_class=_globs,
    approvers=st.sampled_from([(), ("ada",), ("ada", "grace"), ("grace",)]),
    two_person=st.booleans(),
    no_self_approval=st.booleans(),
    require_signature=st.booleans(),
)


def _allows(asked: Demands, person: str) -> bool:
    return asked.approvers is None or person in asked.approvers


@given(tables=st.lists(_policies, max_size=4), more=_policies)
def test_a_policy_more_never_lets_anybody_do_more(tables: list[ApprovalPolicy], more: ApprovalPolicy) -> None:
    """Whoever may approve with one table more could do so without it, and nothing asked is asked no more."""
    before, after = demands(tables, _CASE), demands([*tables, more], _CASE)
    assert all(_allows(before, each) for each in ("ada", "grace", "eve") if _allows(after, each))
    assert after.two_person >= before.two_person
    assert after.no_self_approval >= before.no_self_approval
    assert after.require_signature >= before.require_signature


@given(tables=st.lists(_policies, max_size=4))
def test_the_order_of_policies_means_nothing(tables: list[ApprovalPolicy]) -> None:
    """The same tables in reverse ask for the same."""
    assert demands(tables, _CASE) == demands(tables[::-1], _CASE)


@pytest.mark.parametrize(
    "other",
    [
        replace(_CASE, kind=ActionKind.INSPECT),
        replace(_CASE, host="laptop"),
        replace(_CASE, target="unit:vllm.service"),
        replace(_CASE, fault_class="gpu.access_revoked"),
    ],
    ids=["kind", "host", "target", "class"],
)
def test_a_policy_is_only_for_what_fits_it(other: PolicyCase) -> None:
    """Kind, host, target and class all have to fit."""
    table = ApprovalPolicy(
        name="night",
        kinds=(ActionKind.RESTART_UNIT,),
        host="spark-*",
        target="unit:ollama.*",
        fault_class="route.*",
        two_person=True,
    )
    assert demands([table], _CASE) == Demands(two_person=True, because=("night",))
    assert demands([table], other) == Demands()


async def test_who_may_approve_depends_on_host_and_target() -> None:
    """A person whom the table of this host does not name is refused, and told by which table."""
    table = ApprovalPolicy(name="sparks", host="spark-*", approvers=("grace",))
    desk = FakeDesk(policy=Policy(policies=(table,)))
    for host, allowed in (("spark-1", False), ("laptop", True)):
        entry = await desk.opened(host=host, case_id=f"case-{host}")
        rec = entry.recommendation
        if allowed:
            await desk.approve(rec.id, person="ada", reason="now", digest=rec.digest)
        else:
            with pytest.raises(Refused, match=r"ada may not approve .* \(sparks\)"):
                await desk.approve(rec.id, person="ada", reason="now", digest=rec.digest)
