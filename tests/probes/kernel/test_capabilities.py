"""The loader lets go for good of what it does not need; tried in a process of its own: nothing leads back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import probes
from probes.kernel.capabilities import holds
from probes.kernel.programs import Capability

_KEEP = """
import os, sys
sys.path.insert(0, sys.argv[1])
from probes.kernel.capabilities import holds, keep_only
from probes.kernel.programs import Capability
keep_only({Capability[name] for name in sys.argv[2:]})
print(sorted(c.name for c in Capability if holds(c)), flush=True)
os.execv("/bin/sh", ["sh", "-c", "grep -E '^(Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs)' /proc/self/status"])
"""


def keep(*names: str, prefix: tuple[str, ...] = ()) -> tuple[str, dict[str, int]]:
    """Run a process that keeps only these; return what it holds, and what a program has that it executes."""
    root = Path(probes.__file__).parents[1]
    done = subprocess.run(
        [*prefix, sys.executable, "-I", "-S", "-c", _KEEP, str(root), *names],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    first, *rest = done.stdout.splitlines()
    return first, {key: int(value, 16) for key, value in (line.split(":\t") for line in rest)}


@pytest.mark.root
def test_root_keeps_what_it_names_and_gains_nothing_by_executing() -> None:
    """Effective, permitted and bounding are exactly the named; no new privileges ever."""
    held, after = keep("BPF", "NET_ADMIN")
    mask = 1 << Capability.BPF | 1 << Capability.NET_ADMIN
    assert held == "['BPF', 'NET_ADMIN']"
    assert (after["CapEff"], after["CapPrm"], after["CapBnd"]) == (mask, mask, mask)
    assert (after["CapInh"], after["CapAmb"], after["NoNewPrivs"]) == (0, 0, 1)


@pytest.mark.root
def test_without_the_right_to_change_its_bounds_it_still_lets_go() -> None:
    """As in the unit, which has no CAP_SETPCAP: a program that is executed gains nothing back."""
    bounds = "-all,+bpf,+perfmon,+net_admin"
    held, after = keep("BPF", prefix=("setpriv", f"--bounding-set={bounds}", f"--inh-caps={bounds}"))
    assert held == "['BPF']"
    assert after["CapEff"] == after["CapPrm"] == 1 << Capability.BPF


def test_nobody_gains_by_keeping() -> None:
    """What was not held is not held afterwards."""
    mine = [c.name for c in Capability if holds(c)]
    held, _ = keep(*(c.name for c in Capability))
    assert held == str(sorted(mine))
