"""Numbers as the text that Prometheus reads: its exposition format, version 0.0.4.

The library that writes it brings a web server, parsers of mail headers and of HTML, and a thread: 3 MB
beside a model server. Tests hold this against that library's own reader and against promtool.
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPED: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Kind(enum.StrEnum):
    """What Prometheus may do with a family's numbers."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Sample:
    """One number of a family, told from the others by its labels; `suffix` names a part of a histogram."""

    labels: tuple[tuple[str, str], ...]
    value: float
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """All numbers of one name. The name ends in `_total` where they count."""

    name: str
    kind: Kind
    about: str
    samples: tuple[Sample, ...]


def text(families: Iterable[Family]) -> bytes:
    """Return the page."""
    return "".join(line + "\n" for family in families for line in _lines(family)).encode()


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.about}"
    yield f"# TYPE {family.name} {family.kind.value}"
    for sample in family.samples:
        labels = ",".join(f'{name}="{value.translate(_ESCAPED)}"' for name, value in sorted(sample.labels))
        yield f"{family.name}{sample.suffix}{f'{{{labels}}}' if labels else ''} {_number(sample.value)}"


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else repr(float(value))
