"""The scorer follows the rules of NAB: early finds earn, misses and false alarms cost, silence is 0."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.nab import PROFILES, measure, read, run, score, table
from bench.rig import Unavailable

ROWS = 400
WINDOW = (200, 239)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Four series of 400 rows with one labelled window each, in which the values jump."""
    windows = {}
    for number in range(4):
        stamps = [str(datetime.fromtimestamp(300 * row, UTC))[:19] for row in range(ROWS)]
        name = f"made/series_{number}.csv"
        (tmp_path / "data" / "made").mkdir(parents=True, exist_ok=True)
        with (tmp_path / "data" / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("timestamp", "value"))
            for row, stamp in enumerate(stamps):
                jump = 50.0 if WINDOW[0] <= row <= WINDOW[1] else 0.0
                writer.writerow((stamp, (row * 7 + number) % 10 + jump))
        windows[name] = [[stamps[WINDOW[0]], stamps[WINDOW[1]]]]
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "combined_windows.json").write_text(json.dumps(windows))
    return tmp_path


def detections(*rows: int) -> list[list[float]]:
    """Return scores of 1 at `rows` of every series and 0 elsewhere."""
    return [[float(row in rows) for row in range(ROWS)]] * 4


def test_silence_is_0_and_the_first_row_of_every_window_is_100(corpus: Path) -> None:
    """The two ends of NAB's scale, in each profile and held out."""
    series = read(corpus)
    for rows, expected in (((), 0.0), ((WINDOW[0],), 100.0)):
        scored = score(series, detections(*rows))
        assert scored.profiles == pytest.approx((expected,) * 3)
        assert scored.held_out == pytest.approx(expected)


def test_a_late_find_earns_less_and_a_second_one_nothing(corpus: Path) -> None:
    """Half way through the window 2 * sigmoid(2.5) - 1 is left of 0.987."""
    series = read(corpus)
    late = score(series, detections(220)).profiles[0]
    assert late == pytest.approx(50.0 + 50.0 * 0.84828 / 0.98661, abs=0.01)
    assert score(series, detections(220, 230)).profiles[0] == pytest.approx(late)


def test_a_false_alarm_costs_what_the_profile_says(corpus: Path) -> None:
    """Far before any window it costs its whole weight; in the probation it costs nothing."""
    series = read(corpus)
    one, dear, lenient = score(series, detections(100, WINDOW[0])).profiles
    assert one == pytest.approx(100.0 - 50.0 * PROFILES[0].false_alarm)
    assert dear == pytest.approx(100.0 - 50.0 * PROFILES[1].false_alarm)
    assert lenient == pytest.approx(100.0 - 100.0 / 3.0 * PROFILES[2].false_alarm)
    assert score(series, detections(10, WINDOW[0])).profiles[0] == pytest.approx(100.0)


def test_the_baseline_is_measured_and_the_table_says_so(corpus: Path) -> None:
    """The jumps are found, published detections of the corpus are scored beside it."""
    (corpus / "results" / "loud" / "made").mkdir(parents=True)
    published = {"loud": {profile.name: 12.5 for profile in PROFILES}}
    (corpus / "results" / "final_results.json").write_text(json.dumps(published))
    for number in range(4):
        path = corpus / "results" / "loud" / "made" / f"loud_series_{number}.csv"
        path.write_text("anomaly_score\n" + "1.0\n" * ROWS)
    measured = measure(corpus=corpus)
    assert measured.score.profiles[0] > 50.0
    assert measured.points == 4 * ROWS
    text = table(measured)
    assert "| baseline |" in text
    assert "12.50 / 12.50 / 12.50" in text


def test_each_series_meets_a_fresh_detector(corpus: Path) -> None:
    """Nothing that was learnt of one series helps with the next."""
    made: list[int] = []

    def make() -> object:
        made.append(1)
        return lambda at_s, value: at_s * 0.0 + value

    assert len(run(read(corpus), make)) == len(made) == 4  # type: ignore[arg-type]


@pytest.mark.parametrize("labels", [None, "[]", "{", '{"made/none.csv": []}'])
def test_what_is_no_corpus_is_said(tmp_path: Path, labels: str | None) -> None:
    """A folder without labels, or with labels of series that are not there, is named."""
    if labels is not None:
        (tmp_path / "labels").mkdir()
        (tmp_path / "labels" / "combined_windows.json").write_text(labels)
    with pytest.raises(Unavailable, match="no copy of the NAB repository"):
        read(tmp_path)
    with pytest.raises(Unavailable, match="--corpus"):
        measure(corpus=None)
