"""What a scenario says must be true, in the words that truth and facts share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tests.routes.scenarios import Scenario
from tests.routes.truth import ROUTES, Truth

Changes = Mapping[str, Mapping[str, object]]
NONE: Changes = {}


def expected(scenario: Scenario, seen: Truth, changes: Changes) -> Truth:
    """Return what `scenario` says must be true; what was asked is taken from the request itself."""
    says = scenario.expected
    through_an_honest_one = replace(
        seen,
        route=ROUTES[scenario.path],
        model=scenario.name,
        status=says.status,
        ending=says.ending,
        finish=says.finish,
        error_in_answer=says.error_in_answer,
        streamed=scenario.stream and says.status != 0,
        stream_asked=scenario.stream,
        tools_asked="tools" in scenario.asks,
        chunks=says.chunks,
        content_characters=says.content,
        reasoning_characters=says.reasoning,
        tool_calls=says.tool_calls,
        tool_calls_valid=says.tool_calls_valid,
        prompt_tokens=says.prompt,
        completion_tokens=says.completion,
        reasoning_tokens=says.reasoning_tokens,
    )
    return replace(through_an_honest_one, **changes.get(scenario.name, {}))
