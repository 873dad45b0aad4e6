"""What is usual for one series of numbers, learnt as they come (level, spread, season), and what is not.

A baseline looks at a number in five ways, each against what it has learnt so far:

- *step*: how far it lies from the level of the last numbers;
- *season*: how far it lies from the level of this hour of the day (working days and weekends apart), and
  the same for the mean of the last few;
- *drift*: how far a two-sided cumulated sum (CUSUM) of small deviations has got;
- *roughness*: how much more or less than usual the series moves from one number to the next.

Each is turned into how rare it is among its own past (`baseline_rarity`), so that they can be compared; the
rarest counts. What passes is held against a decaying envelope of what was reported before: an anomaly is told
once and again only if it gets worse, or long after.

One configuration serves every series; it was chosen on the Numenta Anomaly Benchmark (`bench/nab.py`). What
is kept does not grow. Only the hour of the season depends on the time: a gap teaches nothing, and a clock
that jumps, either way, breaks nothing.

Rejected: keeping a window of values (a day of minutes is 12 KB a series), and the mean or sum of the measures
instead of the rarest, because four quiet ones talk the fifth down.
"""

from __future__ import annotations

import struct
from array import array
from math import log2
from typing import Final

from agent.baselines.rarity import SAVED_BYTES as RARITY_BYTES, Rarity

HOURS: Final = 48
"""Buckets of the season: the hours of a working day, then of a weekend day; UTC, a zone only shifts them."""

LARGEST: Final = 1e100
"""Numbers beyond this are refused: their squares and sums would no longer be finite."""

_LATEST_S: Final = 1e11

_STEP_LEVEL: Final = 2.0 / 61.0
_STEP_SPREAD: Final = 2.0 / 101.0
_STEP_CLIP: Final = 8.0
_SEASON_LEVEL: Final = 0.02
_SEASON_SPREAD: Final = 0.0005
_SEASON_CLIP: Final = 10.0
_SMOOTH: Final = 0.3
_DRIFT_LEVEL: Final = 2.0 / 401.0
_DRIFT_SLACK: Final = 2.0
_DRIFT_CLIP: Final = 4.0
_DRIFT_MOST: Final = 1000.0
_DRIFT_SPREADS: Final = 1.25
_ROUGH_FAST: Final = 2.0 / 81.0
_ROUGH_SLOW: Final = 2.0 / 501.0
_ROUGH_FROM: Final = 80
_TRUSTED_FROM: Final = 20
_CLIPPED_FROM: Final = 50
_KNOWN_FROM: Final = 60
_STEP_WEIGHT: Final = 0.8
_SEASON_WEIGHT: Final = 0.9
_SMOOTH_WEIGHT: Final = 1.1
_DRIFT_WEIGHT: Final = 1.0
_ROUGH_WEIGHT: Final = 1.2
_ENVELOPE_DECAY: Final = 2.0 ** (-1.0 / 400.0)

_NEVER: Final = 1e3
"""How many spreads a deviation counts where there never was one before."""

_NOTHING: Final = 1e-12

_LEAST: Final = 1e-3
"""Less rare than this is not rare at all: the weights of a past have 32 bits and do not quite add up."""

_VERSION: Final = 1
_SCALARS: Final = (
    "_step_level",
    "_drift_level",
    "_last",
    "_smooth",
    "_step_spread",
    "_season_spread",
    "_drift_spread",
    "_fast",
    "_slow",
    "_up",
    "_down",
    "_envelope",
    "_surprise",
)
"""What is kept as it is; all but the first four are never below zero."""

_SIGNED: Final = 4
_PASTS: Final = ("_rare_step", "_rare_season", "_rare_smooth", "_rare_drift", "_rare_rough")
_LAYOUT: Final = struct.Struct(f"<B2I{len(_SCALARS)}d{HOURS}d{HOURS}d{HOURS}H")
_MOST_COUNTED: Final = 0xFFFF
_MOST_TOLD: Final = 0xFFFFFFFF

SAVED_BYTES: Final = _LAYOUT.size + len(_PASTS) * RARITY_BYTES
"""How long what `Baseline.to_bytes` returns always is."""


class BaselineError(ValueError):
    """Something that a baseline cannot take: NotANumber, UnreadableBaseline."""


class NotANumber(BaselineError):
    """A value or a time that is no finite number, or too large to reckon with."""


class UnreadableBaseline(BaselineError):
    """Bytes that no baseline of this version wrote."""


class Baseline:
    """The past of one series, and the judge of its next number."""

    __slots__ = (
        "_count",
        "_down",
        "_drift_level",
        "_drift_spread",
        "_envelope",
        "_fast",
        "_hour_counts",
        "_hour_levels",
        "_hour_spreads",
        "_last",
        "_rare_drift",
        "_rare_rough",
        "_rare_season",
        "_rare_smooth",
        "_rare_step",
        "_season_count",
        "_season_spread",
        "_slow",
        "_smooth",
        "_step_level",
        "_step_spread",
        "_surprise",
        "_up",
    )

    def __init__(self) -> None:
        self._count = self._season_count = 0
        self._step_level = self._step_spread = 0.0
        self._season_spread = self._smooth = 0.0
        self._drift_level = self._drift_spread = self._up = self._down = 0.0
        self._last = self._fast = self._slow = 0.0
        self._envelope = self._surprise = 0.0
        self._hour_levels = array("d", bytes(8 * HOURS))
        self._hour_spreads = array("d", bytes(8 * HOURS))
        self._hour_counts = array("H", bytes(2 * HOURS))
        self._rare_step = Rarity()
        self._rare_season = Rarity()
        self._rare_smooth = Rarity()
        self._rare_drift = Rarity()
        self._rare_rough = Rarity()

    def __repr__(self) -> str:
        return (
            f"Baseline(count={self._count}, level={self._drift_level:.6g}, spread={self._drift_spread:.6g})"
        )

    @property
    def count(self) -> int:
        """How many numbers were learnt."""
        return self._count

    @property
    def level(self) -> float:
        """The mean of the last few hundred numbers, the newest weighing most."""
        return self._drift_level

    @property
    def spread(self) -> float:
        """The mean distance from the level."""
        return self._drift_spread

    @property
    def surprise(self) -> float:
        """How unusual the last number was, whether or not it passed the envelope."""
        return self._surprise

    def season(self, at_s: float) -> float | None:
        """Return the level of the hour that `at_s` lies in; None where that hour was hardly seen.

        An hour of a weekend that was not yet seen for long is taken for that of a working day, and the
        reverse.
        """
        hour = _hour(at_s)
        other = (hour + 24) % HOURS
        for place, least in ((hour, _KNOWN_FROM), (other, _TRUSTED_FROM), (hour, _TRUSTED_FROM)):
            if self._hour_counts[place] >= least:
                return self._hour_levels[place]
        return None

    def observe(self, at_s: float, value: float) -> float:
        """Learn `value`, and return how unusual it is: about -log10 of its rarity, 0 where nothing is new.

        `at_s` is Unix time. Raise NotANumber, and learn nothing, where one of them is no finite number.
        """
        if not -LARGEST <= value <= LARGEST:
            raise NotANumber(f"observe value {value!r}")
        if not -_LATEST_S <= at_s <= _LATEST_S:
            raise NotANumber(f"observe time {at_s!r}")
        if self._count:
            surprise = self._judge(_hour(at_s), value)
            if surprise < _LEAST:
                surprise = 0.0
        else:
            self._begin(_hour(at_s), value)
            surprise = 0.0
        self._count += 1
        self._surprise = surprise
        self._envelope *= _ENVELOPE_DECAY
        if surprise <= self._envelope:
            return 0.0
        self._envelope = surprise
        return surprise

    def nudge(self, at_s: float, value: float, share: float) -> None:
        """Move the level of the hour of `at_s` by `share` of the way to `value`, and nothing else.

        For what is not to be learnt as usual at once, but should not be news for ever either.
        """
        hour, season = _hour(at_s), self.season(at_s)
        level = self._drift_level if season is None else season
        self._hour_levels[hour] = level + share * (value - level)
        self._hour_counts[hour] = max(self._hour_counts[hour], _KNOWN_FROM)

    def copy(self) -> Baseline:
        """Return an independent one with the same past: it may be asked without teaching this one."""
        other = Baseline()
        for name in _SCALARS:
            setattr(other, name, getattr(self, name))
        for name in _PASTS:
            setattr(other, name, getattr(self, name).copy())
        other._count, other._season_count = self._count, self._season_count
        other._hour_levels = self._hour_levels[:]
        other._hour_spreads = self._hour_spreads[:]
        other._hour_counts = self._hour_counts[:]
        return other

    def to_bytes(self) -> bytes:
        """Return `SAVED_BYTES` bytes that `from_bytes` makes the same of."""
        own = _LAYOUT.pack(
            _VERSION,
            min(self._count, _MOST_TOLD),
            min(self._season_count, _MOST_TOLD),
            *(getattr(self, name) for name in _SCALARS),
            *self._hour_levels,
            *self._hour_spreads,
            *self._hour_counts,
        )
        return own + b"".join(getattr(self, name).to_bytes() for name in _PASTS)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Baseline:
        """Return what `to_bytes` wrote; raise UnreadableBaseline where this version cannot have."""
        if len(raw) != SAVED_BYTES:
            raise UnreadableBaseline(f"a baseline has {SAVED_BYTES} bytes, not {len(raw)}")
        version, count, season_count, *rest = _LAYOUT.unpack_from(raw)
        if version != _VERSION:
            raise UnreadableBaseline(f"a baseline of version {version}, not {_VERSION}")
        numbers = rest[:-HOURS]
        never_below = numbers[_SIGNED : len(_SCALARS)] + numbers[-HOURS:]
        if not all(-2 * LARGEST <= number <= 2 * LARGEST for number in numbers) or min(never_below) < 0.0:
            raise UnreadableBaseline("a level or a spread is out of range")
        made = cls()
        made._count, made._season_count = count, season_count
        for name, number in zip(_SCALARS, numbers, strict=False):
            setattr(made, name, number)
        made._hour_levels = array("d", numbers[len(_SCALARS) : -HOURS])
        made._hour_spreads = array("d", numbers[-HOURS:])
        made._hour_counts = array("H", rest[-HOURS:])
        try:
            for place, name in enumerate(_PASTS):
                begin = _LAYOUT.size + place * RARITY_BYTES
                setattr(made, name, Rarity.from_bytes(raw[begin : begin + RARITY_BYTES]))
        except ValueError as error:
            raise UnreadableBaseline(f"a past is unreadable: {error}") from error
        return made

    def _begin(self, hour: int, value: float) -> None:
        self._step_level = self._drift_level = self._last = value
        self._hour_levels[hour] = value
        self._hour_counts[hour] = 1

    def _judge(self, hour: int, value: float) -> float:
        season, smooth = self._against_season(hour, value)
        return max(
            _STEP_WEIGHT * self._rare_step.of(self._against_step(value)),
            _SEASON_WEIGHT * self._rare_season.of(season),
            _SMOOTH_WEIGHT * self._rare_smooth.of(smooth),
            _DRIFT_WEIGHT * self._rare_drift.of(self._against_drift(value)),
            _ROUGH_WEIGHT * self._rare_rough.of(self._against_roughness(value)),
        )

    def _against_step(self, value: float) -> float:
        off, spread, count = value - self._step_level, self._step_spread, self._count
        distance = abs(off)
        if spread > _NOTHING:
            found = distance / spread
            if count > _TRUSTED_FROM and found > _STEP_CLIP:
                distance = _STEP_CLIP * spread
                off = distance if off > 0.0 else -distance
        else:
            found = _NEVER if distance else 0.0
        weight = 1.0 / (count + 1)
        self._step_level += (weight if weight > _STEP_LEVEL else _STEP_LEVEL) * off
        weight = 1.0 / count
        self._step_spread += (weight if weight > _STEP_SPREAD else _STEP_SPREAD) * (distance - spread)
        return found

    def _against_season(self, hour: int, value: float) -> tuple[float, float]:
        seen = self._hour_counts[hour]
        everywhere = self._season_spread
        if not seen:
            self._hour_levels[hour] = value
            self._hour_spreads[hour] = everywhere
            self._hour_counts[hour] = 1
            return 0.0, 0.0
        off = value - self._hour_levels[hour]
        distance = abs(off)
        spread = 0.5 * (everywhere + self._hour_spreads[hour])
        self._smooth += _SMOOTH * (off - self._smooth)
        found = smooth = 0.0
        count = self._season_count
        if count > _TRUSTED_FROM and spread > _NOTHING:
            found, smooth = distance / spread, abs(self._smooth) / spread
            if count > _CLIPPED_FROM and found > _SEASON_CLIP:
                distance = _SEASON_CLIP * spread
                off = distance if off > 0.0 else -distance
        weight = 1.0 / (seen + 1)
        self._hour_levels[hour] += (weight if weight > _SEASON_LEVEL else _SEASON_LEVEL) * off
        weight = 1.0 / seen
        self._hour_spreads[hour] += (weight if weight > _SEASON_LEVEL else _SEASON_LEVEL) * (
            distance - self._hour_spreads[hour]
        )
        if seen < _MOST_COUNTED:
            self._hour_counts[hour] = seen + 1
        self._season_count = count = count + 1
        weight = 1.0 / count
        self._season_spread += (weight if weight > _SEASON_SPREAD else _SEASON_SPREAD) * (
            distance - everywhere
        )
        return found, smooth

    def _against_drift(self, value: float) -> float:
        off, spread, count = value - self._drift_level, self._drift_spread, self._count
        deviation = off / (_DRIFT_SPREADS * spread) if spread > _NOTHING else 0.0
        if deviation > _DRIFT_CLIP:
            deviation = _DRIFT_CLIP
        elif deviation < -_DRIFT_CLIP:
            deviation = -_DRIFT_CLIP
        self._up = up = min(_DRIFT_MOST, max(0.0, self._up + deviation - _DRIFT_SLACK))
        self._down = down = min(_DRIFT_MOST, max(0.0, self._down - deviation - _DRIFT_SLACK))
        weight = 1.0 / (count + 1)
        self._drift_level += (weight if weight > _DRIFT_LEVEL else _DRIFT_LEVEL) * off
        weight = 1.0 / count
        self._drift_spread += (weight if weight > _DRIFT_LEVEL else _DRIFT_LEVEL) * (abs(off) - spread)
        return up if up > down else down

    def _against_roughness(self, value: float) -> float:
        step, self._last = abs(value - self._last), value
        weight = 1.0 / self._count
        fast = self._fast = self._fast + (weight if weight > _ROUGH_FAST else _ROUGH_FAST) * (
            step - self._fast
        )
        slow = self._slow = self._slow + (weight if weight > _ROUGH_SLOW else _ROUGH_SLOW) * (
            step - self._slow
        )
        if self._count <= _ROUGH_FROM or slow <= _NOTHING:
            return 0.0
        return abs(log2((fast + 0.01 * slow) / (1.01 * slow)))


def _hour(at_s: float) -> int:
    """Return which bucket of the season `at_s` lies in; the first day of Unix time was a Thursday."""
    hour = int(at_s // 3600.0)
    return hour % 24 + (24 if (hour // 24 + 3) % 7 >= 5 else 0)
