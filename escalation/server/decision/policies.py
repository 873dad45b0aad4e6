"""What it takes to approve one action: the `[[approvals.policy]]` tables that fit it, taken together.

A table can only ask for more than the ones beside it: names are cut to those that all of them name, and what
one of them demands is demanded. So the order of the tables means nothing, and a table that is added never
lets anybody do what they could not do before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from escalation.model import Action, ActionKind, FaultClass
from escalation.server.attention.silences import fits_pattern

Glob = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]


class ApprovalPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[approvals.policy]]`: for actions of these kinds, on hosts, targets and faults that fit.

    Patterns hold `*` for any text and `?` for one character; a target is its kind and name.
    `kinds` empty means every kind. `approvers` empty means every operator. `no_self_approval` refuses who has
    asked a question about the entry. `require_signature` wants the approval signed by the person's own key.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?\Z")]
    kinds: tuple[ActionKind, ...] = ()
    host: Glob = "*"
    target: Glob = "*"
    fault_class: Glob = "*"
    approvers: tuple[str, ...] = ()
    two_person: bool = False
    no_self_approval: bool = False
    require_signature: bool = False

    def fits(self, case: PolicyCase) -> bool:
        """Return whether this table is about `case`."""
        return (
            (not self.kinds or case.kind in self.kinds)
            and fits_pattern(self.host, case.host)
            and fits_pattern(self.target, case.target)
            and fits_pattern(self.fault_class, case.fault_class)
        )


@dataclass(frozen=True, slots=True)
class PolicyCase:
    """What a policy looks at; `target` is the kind and name of what is acted on, as `unit:ollama.service`."""

    kind: ActionKind
    host: str
    target: str
    fault_class: str


@dataclass(frozen=True, slots=True)
class Demands:
    """What all tables that fit ask for together. `approvers` None: every operator; `because`: their names."""

    approvers: frozenset[str] | None = None
    two_person: bool = False
    no_self_approval: bool = False
    require_signature: bool = False
    because: tuple[str, ...] = ()


def case_of(action: Action, fault_class: FaultClass) -> PolicyCase:
    """Return what policies look at of an action for a fault."""
    target = f"{action.target.kind.value}:{action.target.name}"
    return PolicyCase(action.kind, action.host, target, fault_class.value)


def demands(policies: Sequence[ApprovalPolicy], case: PolicyCase) -> Demands:
    """Return what `policies` ask for together."""
    fitting = [each for each in policies if each.fits(case)]
    named = [frozenset(each.approvers) for each in fitting if each.approvers]
    return Demands(
        approvers=frozenset.intersection(*named) if named else None,
        two_person=any(each.two_person for each in fitting),
        no_self_approval=any(each.no_self_approval for each in fitting),
        require_signature=any(each.require_signature for each in fitting),
        because=tuple(sorted(each.name for each in fitting)),
    )


def together(one: Demands, other: Demands) -> Demands:
    """Return what both ask for."""
    sets = [each for each in (one.approvers, other.approvers) if each is not None]
    return Demands(
        approvers=frozenset.intersection(*sets) if sets else None,
        two_person=one.two_person or other.two_person,
        no_self_approval=one.no_self_approval or other.no_self_approval,
        require_signature=one.require_signature or other.require_signature,
        because=tuple(sorted({*one.because, *other.because})),
    )
