"""agent.toml: defaults that run, and errors that name key and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import AgentSettings, detector_settings, read, sensor_settings
from agent.detectors import gpu_access
from agent.detectors.registry import DETECTORS
from escalation.settings import SettingsError, parse
from probes.scopes import ScopeMode, ScopeRule

SENSORS = ("host.listeners", "kernel.oom_kill")


def test_empty_file_is_the_production_default() -> None:
    """Nothing has to be said; every detector has its own defaults."""
    settings = parse("", AgentSettings, name="agent.toml")
    assert settings.orchestrator.address == "127.0.0.1:9736"
    assert settings.metrics.port == 9735
    assert detector_settings(settings, "gpu_access") == gpu_access.Config()


def test_each_detector_has_its_table() -> None:
    """A detector of the registry is configured under its own name."""
    text = "\n".join(f"[detectors.{kind.NAME}]\nenabled = false" for kind in DETECTORS)
    settings = parse(text, AgentSettings, name="agent.toml")
    assert not any(detector_settings(settings, kind.NAME).enabled for kind in DETECTORS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[agent]\nid = 'UPPER'\n", "a.toml:2: agent.id: Expected `str` matching"),
        ("[metrics]\nport = 70000\n", "a.toml:2: metrics.port: Expected `int` <= 65535"),
        ("[detectors.gpu_access]\nopen_after = 0\n", "a.toml:2: detectors.gpu_access.open_after"),
        ("[detectors.gpu_acces]\n", "a.toml:1: detectors.gpu_acces: unknown key"),
        (
            "[[allowed_listener]]\nport = 22\n[[allowed_listener]]\nport = 0\n",
            "a.toml:4: allowed_listener.1.port",
        ),
        ("[[allowed_listener]]\nport = 22\naddress = 'here'\n", "a.toml:1: allowed_listener.0: 'here'"),
        ("[mesh]\nnetworks = ['100.64.0.0/99']\n", "a.toml:1: mesh"),
        ("[orchestrator]\naddress = 'nowhere'\n", "a.toml:2: orchestrator.address"),
        ("[spool]\nmax_bytes = 10\n", "a.toml:2: spool.max_bytes"),
        ("[heartbeat]\ninterval_s = 0\n", "a.toml:2: heartbeat.interval_s"),
        ("[agent]\nstate_dir = 'here'\n", "a.toml:2: agent.state_dir: Expected `str` matching"),
        ("[sensors]\nsocket = ''\n", "a.toml:2: sensors.socket: Expected `str` matching"),
        ("[orchestrator]\nkey = 'agent.key'\n", "a.toml:2: orchestrator.key: Expected `str` matching"),
        ("[orchestrator]\naddress = 'o:70000'\n", "a.toml:1: orchestrator: address: 70000 is no port"),
        ("[orchestrator]\naddress = '[::1]:0'\n", "a.toml:1: orchestrator: address: 0 is no port"),
        ("[http]\nports = [8000, 8000]\n", "a.toml:1: http: ports: 8000 stands there twice"),
        ("[logs]\nunits = ['vllm']\n", "a.toml:2: logs.units"),
        (
            "[[metrics_endpoint]]\nserver = 'vllm'\nurl = 'http://localhost:99999/metrics'\n",
            "a.toml:1: metrics_endpoint.0: url: 99999 is no port",
        ),
    ],
)
def test_bad_value_is_named_with_its_line(text: str, expected: str) -> None:
    """Each mistake is told with its place, and nothing of it is used."""
    with pytest.raises(SettingsError) as caught:
        parse(text, AgentSettings, name="a.toml")
    assert str(caught.value).startswith(expected)


def test_sensor_that_does_not_exist_cannot_be_disabled(tmp_path: Path) -> None:
    """A typing mistake must not leave a sensor on that somebody wanted off."""
    path = tmp_path / "agent.toml"
    path.write_text("[sensors]\ndisabled = ['kernel.oomkill']\n")
    with pytest.raises(SettingsError, match=r"sensors\.disabled: unknown sensor 'kernel\.oomkill'"):
        read(path, sensors=SENSORS)
    path.write_text("[sensors]\ndisabled = ['kernel.oom_kill']\n")
    assert read(path, sensors=SENSORS).sensors.disabled == ("kernel.oom_kill",)


def test_a_scope_is_declared_as_sensors_and_loader_know_it() -> None:
    """Every key, and audit where no mode is named."""
    settings = parse(
        '[agent]\nstate_dir = "/x"\n[[scope]]\nname = "ray"\nunit = "ray.service"\n'
        'executables = ["/usr/bin/ray"]\n'
        'destinations = ["10.0.0.0/8:6379"]\n[[scope]]\nname = "b"\ncgroup = "/x/y"\nmode = "deny"\n'
        "listeners = []\n",
        AgentSettings,
        name="a.toml",
    )
    told = sensor_settings(settings)
    assert told.command_lines.state_dir == "/x"
    assert told.scopes == (
        ScopeRule(
            name="ray",
            unit="ray.service",
            executables=("/usr/bin/ray",),
            destinations=("10.0.0.0/8:6379",),
        ),
        ScopeRule(name="b", cgroup="/x/y", mode=ScopeMode.DENY, listeners=()),
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("listeners = [1]\n", "scope ray: name exactly one of unit and cgroup"),
        ('unit = "ray.service"\n', "scope ray: limits nothing"),
        ('unit = "ray.service"\ndestinations = ["x"]\n', "scope ray: destination 'x'"),
        ('unit = "ray.service"\nlisteners = [0]\n', "scope.0.listeners"),
        ('unit = "ray.service"\nmode = "kill"\n', "scope.0.mode"),
        ('unit = "ray.service"\ncolour = 1\n', "scope.0.colour: unknown key"),
    ],
)
def test_a_scope_that_cannot_be_kept_is_refused(text: str, complaint: str) -> None:
    """By the same rules as the loader's, with what is wrong."""
    with pytest.raises(SettingsError) as caught:
        parse(f'[[scope]]\nname = "ray"\n{text}', AgentSettings, name="a.toml")
    assert complaint in str(caught.value)
