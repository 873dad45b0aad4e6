"""What a text looked like on the wire is what the client's own copy of it looks like."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable

import pytest

from probes.http.facts import TextMeasure
from probes.kernel.handover import Handover
from tests.routes.driver import Driver
from tests.routes.observing import Observing
from tests.routes.scenarios import BY_NAME, DEGENERATE
from tests.routes.serving import Server
from tests.routes.test_observed import by_model

pytestmark = [pytest.mark.root, pytest.mark.ebpf]

_MORE = (
    "whole-escaped",
    "whole-utf8",
    "stream-split",
    "stream-degenerate",
    "whole-spoofing",
    "ollama-stream",
)
_BROKEN = ("degenerate-loop", "degenerate-marks", "degenerate-fragments", "stream-degenerate")
_SOUND = ("sound-table", "sound-code", "sound-exclaims", "sound-indented", "whole-ok")


def plainly(text: str, *, repeated: float) -> TextMeasure:
    """Measure a whole text at leisure; what is repeated is an estimate and is compared apart."""
    counts, size = Counter(text), len(text)
    return TextMeasure(
        characters=size,
        repeated=repeated,
        longest_run=max(len(list(row)) for _, row in itertools.groupby(text)),
        whitespace=pytest.approx(sum(c.isspace() for c in text) / size),  # type: ignore[arg-type]
        distinct=pytest.approx(len(counts) / size),  # type: ignore[arg-type]
        entropy_bits=pytest.approx(  # type: ignore[arg-type]
            -sum(n / size * math.log2(n / size) for n in counts.values()), abs=1e-9
        ),
        undecodable=0.0,
    )


async def test_texts_are_measured_as_they_are(handed: Handover, serve: Callable[[str], Server]) -> None:
    """Loops, rows of one character and blanks stand out, and neither tables nor code do."""
    server = serve("uvicorn-uvloop")
    scenarios = [*DEGENERATE, *(BY_NAME[name] for name in (*_MORE, "whole-ok"))]
    async with Observing(handed, server.port) as observing, Driver(server.url) as driver:
        seen = await driver.all(scenarios)
        said = by_model(await observing.settled(server.port, len(seen)))
    measures = {name: facts.content for name, facts in said.items()}
    for one in seen:
        measure = measures[one.scenario.name]
        assert measure is not None
        assert measure == plainly(one.content, repeated=measure.repeated), one.scenario.name
    repeated = {name: measure.repeated for name, measure in measures.items() if measure is not None}
    assert min(repeated[name] for name in _BROKEN) > 0.9
    assert max(repeated[name] for name in _SOUND) < 0.6
