"""The alert rules, by Prometheus' own tool: they hold their tests, and each of them has one."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.monitoring.programs import ROOT, found

FOLDER = ROOT / "monitoring/prometheus"
PROMTOOL = found("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="needs promtool (package prometheus; dev/setup.sh tests unpacks it)"
)


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL is not None
    return subprocess.run(
        [PROMTOOL, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False, timeout=50
    )


@needs_promtool
def test_rules_are_accepted() -> None:
    """Expressions and templates of every rule parse."""
    done = promtool("check", "rules", "host-nanobot.rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_rules_fire_for_their_fault_alone() -> None:
    """Normal numbers raise nothing; each fault raises its alert, with the words that it should have."""
    done = promtool("test", "rules", "host-nanobot.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_example_of_a_scrape_configuration_is_accepted() -> None:
    """What the guide tells to copy is a configuration, the rules included."""
    done = promtool("check", "config", "--syntax-only", "scrape.example.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_rule_has_a_test_that_fires_it() -> None:
    """No alert is there that nobody has seen firing."""
    alerts = re.findall(r"- alert: (\w+)", (FOLDER / "host-nanobot.rules.yml").read_text())
    tested = (FOLDER / "host-nanobot.test.yml").read_text()
    fired = re.findall(r'alertname="(\w+)"\}\', value: [1-9]', tested)
    assert len(alerts) == len(set(alerts)) >= 19
    assert sorted(set(fired)) == sorted(alerts)
