"""How well the streaming baseline finds anomalies: the Numenta Anomaly Benchmark, by its own scoring rules.

The corpus (https://github.com/numenta/NAB, 58 labelled series) is not part of this project; `--corpus` names
a copy of it. The rules are NAB's (Lavin and Ahmad, 2015): the first detection in a labelled window earns up
to 1 by how early it is, a window without one costs, and a detection outside costs the more the farther it
lies behind the last window. One threshold serves all series and is the best one in hindsight; *held-out*
takes it from a random half of the series instead and scores the other half.

The scorer is checked by scoring the detections that NAB publishes against the results that it publishes.
"""

from __future__ import annotations

import csv
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agent.baselines.baseline import Baseline
from bench.rig import Unavailable

_PROBATION: Final = 0.15
_PROBATION_ROWS: Final = 5000
_SPLITS: Final = 20
_WARM_UP_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Profile:
    """What a window found, a window missed and a false alarm are worth."""

    name: str
    found: float
    missed: float
    false_alarm: float


PROFILES: Final = (
    Profile("standard", 1.0, 1.0, 0.11),
    Profile("reward_low_FP_rate", 1.0, 1.0, 0.22),
    Profile("reward_low_FN_rate", 1.0, 2.0, 0.11),
)


@dataclass(frozen=True, slots=True)
class Series:
    """One file: its points, and what a detection at each of them earns.

    `worth` is the sigmoid of each row before the profile's weights; `window` the number of the labelled
    window that a row lies in, -1 outside. Rows before `judged_from` are probation.
    """

    name: str
    at_s: tuple[float, ...]
    values: tuple[float, ...]
    worth: tuple[float, ...]
    window: tuple[int, ...]
    windows: int
    judged_from: int


@dataclass(frozen=True, slots=True)
class Scored:
    """What a detector reached: NAB's three profiles, and the standard one with a threshold from elsewhere."""

    profiles: tuple[float, ...]
    held_out: float


@dataclass(frozen=True, slots=True)
class Measured:
    """The baseline's score and its price."""

    score: Scored
    point_us: float
    series_bytes: int
    saved_bytes: int
    points: int
    checks: tuple[tuple[str, Scored, tuple[float, ...]], ...]


Scores = Sequence[Sequence[float]]
"""One detector's anomaly scores: a row for each point of each series, in the order of the corpus."""


def read(corpus: Path) -> list[Series]:
    """Read every series of `corpus` with its labels; raise `Unavailable` where it is none."""
    labels = corpus / "labels" / "combined_windows.json"
    try:
        windows: dict[str, list[list[str]]] = json.loads(labels.read_text())
        return [_series(corpus / "data" / name, name, limits) for name, limits in sorted(windows.items())]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise Unavailable(f"{corpus} is no copy of the NAB repository: {error}") from error


def score(corpus: Sequence[Series], scores: Scores) -> Scored:
    """Score one detector's `scores` by NAB's rules."""
    rows = _rows(corpus, scores)
    everything = range(len(corpus))
    profiles = tuple(_best(rows, corpus, everything, profile)[0] for profile in PROFILES)
    held_out = []
    for seed in range(_SPLITS):
        order = list(everything)
        random.Random(seed).shuffle(order)
        chosen, judged = order[: len(order) // 2], order[len(order) // 2 :]
        threshold = _best(rows, corpus, chosen, PROFILES[0])[1]
        held_out.append(_at(rows, corpus, judged, PROFILES[0], threshold))
    return Scored(profiles, statistics.mean(held_out))


def run(corpus: Sequence[Series], make: Callable[[], Callable[[float, float], float]]) -> list[list[float]]:
    """Give each series to a fresh detector, point by point."""
    found = []
    for series in corpus:
        observe = make()
        found.append([observe(at_s, value) for at_s, value in zip(series.at_s, series.values, strict=True)])
    return found


def measure(*, corpus: Path | None) -> Measured:
    """Score the baseline on the corpus at `corpus`, and check the scorer with NAB's published detectors."""
    if corpus is None:
        raise Unavailable("name a copy of https://github.com/numenta/NAB with --corpus")
    series = read(corpus)
    started = time.process_time()
    while time.process_time() - started < _WARM_UP_S:
        run(series[:1], lambda: Baseline().observe)
    started = time.process_time()
    scores = run(series, lambda: Baseline().observe)
    spent_s = time.process_time() - started
    points = sum(len(one.values) for one in series)
    grown = Baseline()
    for at_s, value in zip(series[-1].at_s, series[-1].values, strict=True):
        grown.observe(at_s, value)
    return Measured(
        score=score(series, scores),
        point_us=spent_s / points * 1e6,
        series_bytes=_held_bytes(grown),
        saved_bytes=len(grown.to_bytes()),
        points=points,
        checks=tuple(_checks(corpus, series)),
    )


def table(measured: Measured) -> str:
    """Render it as Markdown."""
    sizes = f"{measured.series_bytes} | {measured.saved_bytes}"
    lines = [
        "| detector | standard | low FP | low FN | held-out | us a point | bytes a series, live | kept |",
        "|---|---|---|---|---|---|---|---|",
        f"| baseline | {_cells(measured.score)} | {measured.point_us:.1f} | {sizes} |",
    ]
    lines += [
        f"| {name}, published detections | {_cells(ours)} | published: "
        + " / ".join(f"{figure:.2f}" for figure in theirs)
        + " | | |"
        for name, ours, theirs in measured.checks
    ]
    return "\n".join([*lines, "", f"{measured.points} points."])


def _held_bytes(thing: object) -> int:
    """Return what an object of slots occupies with all that it alone holds."""
    own = sys.getsizeof(thing)
    for name in getattr(type(thing), "__slots__", ()):
        own += _held_bytes(getattr(thing, name))
    return own


def _cells(scored: Scored) -> str:
    return " | ".join(f"{figure:.2f}" for figure in (*scored.profiles, scored.held_out))


def _checks(corpus: Path, series: Sequence[Series]) -> Iterable[tuple[str, Scored, tuple[float, ...]]]:
    """Score the detections that the corpus brings with it, as many as are there."""
    published = corpus / "results" / "final_results.json"
    if not published.is_file():
        return
    for name, figures in sorted(json.loads(published.read_text()).items()):
        folder = corpus / "results" / name
        scores = [_published(folder, name, one) for one in series]
        if all(scores):
            yield name, score(series, scores), tuple(figures[profile.name] for profile in PROFILES)


def _published(folder: Path, detector: str, series: Series) -> list[float]:
    group, _, file = series.name.partition("/")
    try:
        with (folder / group / f"{detector}_{file}").open(newline="") as lines:
            return [float(row["anomaly_score"]) for row in csv.DictReader(lines)]
    except OSError:
        return []


def _series(path: Path, name: str, limits: Sequence[Sequence[str]]) -> Series:
    with path.open(newline="") as lines:
        points = [(row["timestamp"], float(row["value"])) for row in csv.DictReader(lines)]
    at_s = [_seconds(stamp) for stamp, _ in points]
    ends = [(at_s.index(_seconds(first)), at_s.index(_seconds(last))) for first, last in limits]
    worth, window = _worth(len(points), ends)
    return Series(
        name=name,
        at_s=tuple(at_s),
        values=tuple(value for _, value in points),
        worth=tuple(worth),
        window=tuple(window),
        windows=len(ends),
        judged_from=math.ceil(min(math.floor(_PROBATION * len(points)), _PROBATION * _PROBATION_ROWS)),
    )


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp.split(".", maxsplit=1)[0]).replace(tzinfo=UTC).timestamp()


def _worth(rows: int, ends: Sequence[tuple[int, int]]) -> tuple[list[float], list[int]]:
    """Return the sigmoid of each row, and the window it lies in.

    Inside, a row's place runs from -1 at the window's left edge to 0 behind its right one; outside it is the
    distance behind the last window in widths of that window, and far from any the worth is -1.
    """
    worth, window = [-1.0] * rows, [-1] * rows
    full = _sigmoid(-1.0)
    for number, (first, last) in enumerate(ends):
        width = last - first + 1
        for row in range(first, last + 1):
            worth[row] = _sigmoid(-(last - row + 1) / width) / full
            window[row] = number
        end = ends[number + 1][0] if number + 1 < len(ends) else rows
        for row in range(last + 1, end):
            worth[row] = _sigmoid((row - last) / max(1, width - 1))
    return worth, window


def _sigmoid(place: float) -> float:
    return -1.0 if place > 3.0 else 2.0 / (1.0 + math.exp(5.0 * place)) - 1.0


_Row = tuple[float, int, int, float]
"""Score, number of the series, window, worth."""


def _rows(corpus: Sequence[Series], scores: Scores) -> list[_Row]:
    """Return every judged row, the highest score first."""
    rows = [
        (found, number, one.window[row], one.worth[row])
        for number, (one, column) in enumerate(zip(corpus, scores, strict=True))
        for row, found in enumerate(column)
        if row >= one.judged_from
    ]
    rows.sort(key=lambda row: -row[0])
    return rows


def _best(
    rows: Sequence[_Row], corpus: Sequence[Series], files: Iterable[int], profile: Profile
) -> tuple[float, float]:
    """Return the best normalised score that one threshold for all `files` gives, and that threshold."""
    chosen = frozenset(files)
    windows = sum(corpus[number].windows for number in chosen)
    total = best = -profile.missed * windows
    threshold, best_at = math.inf, math.inf
    earned: dict[tuple[int, int], float] = {}
    for found, number, window, worth in rows:
        if number not in chosen:
            continue
        if found != threshold:
            if total > best:
                best, best_at = total, threshold
            threshold = found
        if window < 0:
            total += profile.false_alarm * worth
            continue
        before = earned.get((number, window), -profile.missed)
        if profile.found * worth > before:
            total += profile.found * worth - before
            earned[number, window] = profile.found * worth
    if total > best:
        best, best_at = total, threshold
    return _normal(best, windows, profile), best_at


def _at(
    rows: Sequence[_Row], corpus: Sequence[Series], files: Iterable[int], profile: Profile, threshold: float
) -> float:
    """Return the normalised score of `files` with `threshold`."""
    chosen = frozenset(files)
    windows = sum(corpus[number].windows for number in chosen)
    total = -profile.missed * windows
    earned: dict[tuple[int, int], float] = {}
    for found, number, window, worth in rows:
        if found < threshold:
            break
        if number not in chosen:
            continue
        if window < 0:
            total += profile.false_alarm * worth
        else:
            before = earned.get((number, window), -profile.missed)
            earned[number, window] = max(before, profile.found * worth)
            total += earned[number, window] - before
    return _normal(total, windows, profile)


def _normal(total: float, windows: int, profile: Profile) -> float:
    """Return `total` on NAB's scale: silence is 0, every window found at its first row is 100."""
    silence = -profile.missed * windows
    return 100.0 * (total - silence) / (profile.found * windows - silence)
