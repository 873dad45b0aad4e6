"""The doctor and the commands: what is wrong is said with what to do about it, and nothing is changed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from agent.command import main
from agent.config import AgentSettings, Metrics, Sensors
from agent.gpus.placement import Placement, PlacementRule
from agent.process import doctor, statusfile
from agent.process.doctor import Check, Health, as_json, as_text, examine, healthy
from agent.remedies import _OF_SENSOR, remedy
from escalation.failpoints import POINTS, Failpoints
from escalation.settings import parse
from probes.host.model_servers import ModelServer
from probes.observation import BlindReason, Origin, ServerKind
from probes.registry import SENSORS
from probes.scopes import label

NOW = 1_790_000_000.0
GOOD = statusfile.Status(
    pid=7,
    version="1.2.3",
    agent_id="spark-1",
    written_unix_s=NOW,
    next_write_s=30,
    kernel_boot_id="x",
    sensors=(
        statusfile.SensorStatus(name="kernel.oom_kill"),
        statusfile.SensorStatus(name="kernel.listener", reason="no_headers", detail="evil\x1b[2J"),
        statusfile.SensorStatus(name="kernel.fatal_signal", reason="disabled"),
        statusfile.SensorStatus(name="evil\x1b[2J"),
    ),
    open_cases=0,
    spool_open=True,
    spool_reports=3,
    spool_bytes=100,
    uncommitted=0,
    connected=True,
    last_ack_unix_s=NOW,
    uplink_error=None,
    supervised=True,
    watchdog_s=30.0,
    capabilities=0,
)


def settings(folder: Path) -> AgentSettings:
    """Settings of a host on which nothing else exists."""
    return parse(
        f"[agent]\nstate_dir='{folder}'\n[sensors]\nsocket='{folder}/h.sock'\n"
        f"[orchestrator]\naddress='127.0.0.1:1'\nca='{folder}/ca'\ncert='{folder}/c'\nkey='{folder}/k'\n",
        AgentSettings,
        name="a.toml",
    )


def by_name(checks: tuple[Check, ...]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_running_agent_is_asked_by_its_status(tmp_path: Path) -> None:
    """Each sensor with its reason and remedy; capabilities, watchdog and spool as the agent told them."""
    statusfile.write(tmp_path / statusfile.NAME, GOOD)
    found = by_name(examine(settings(tmp_path), sensors=(), now_unix_s=NOW + 60))
    assert found["agent"].health is Health.GOOD
    assert found["agent capabilities"].says == "none"
    assert found["kernel.oom_kill"].health is Health.GOOD
    assert found["kernel.listener"].health is Health.BAD
    assert found["kernel.listener"].remedy == remedy(BlindReason.NO_HEADERS)
    assert found["kernel.fatal_signal"].health is Health.NOTE
    assert found["spool"].health is Health.GOOD
    assert found["orchestrator"].health is Health.BAD
    assert found["private key"].health is Health.BAD


def test_what_a_host_cannot_have_is_no_fault_of_it(tmp_path: Path) -> None:
    """Without an NVIDIA driver its tracepoint is not missed; what can be declared is said as that."""
    blind = (
        statusfile.SensorStatus(name="kernel.xid", reason="no_kernel_support", detail="no tracepoint"),
        statusfile.SensorStatus(name="kernel.listener", reason="no_kernel_support", detail="no tracepoint"),
        statusfile.SensorStatus(name="kernel.scope", reason="disabled", detail="no scope is declared"),
        statusfile.SensorStatus(name="host.log_files", reason="disabled"),
    )
    statusfile.write(tmp_path / statusfile.NAME, msgspec.structs.replace(GOOD, sensors=blind))
    found = by_name(examine(settings(tmp_path), sensors=(), now_unix_s=NOW))
    assert [found[each.name].health for each in blind] == [Health.NOTE, Health.BAD, Health.NOTE, Health.NOTE]
    assert "declare a [[scope]]" in found["kernel.scope"].remedy
    assert "[logs].files" in found["host.log_files"].remedy


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"capabilities": 0x2000}, "agent capabilities"),
        ({"uncommitted": 4}, "spool"),
        ({"spool_open": False}, "spool"),
        ({"spool_silent_s": 42.0}, "spool"),
        ({"connected": False, "uplink_error": "not_accepted: foreign"}, "uplink"),
    ],
)
def test_what_is_wrong_is_bad_and_has_a_remedy(tmp_path: Path, change: dict[str, object], name: str) -> None:
    """Every bad line says what to do."""
    statusfile.write(tmp_path / statusfile.NAME, msgspec.structs.replace(GOOD, **change))
    check = by_name(examine(settings(tmp_path), sensors=(), now_unix_s=NOW))[name]
    assert check.health is Health.BAD
    assert check.remedy


def test_says_whether_the_metrics_page_answers(tmp_path: Path) -> None:
    """A page whose port somebody else had is missing in silence otherwise; one that is off is not missed."""
    statusfile.write(tmp_path / statusfile.NAME, GOOD)
    with socket.create_server(("127.0.0.1", 0)) as page:
        port = page.getsockname()[1]
        served = msgspec.structs.replace(settings(tmp_path), metrics=Metrics(port=port))
        there = by_name(examine(served, sensors=(), now_unix_s=NOW))["metrics page"]
    gone = by_name(examine(served, sensors=(), now_unix_s=NOW))["metrics page"]
    assert (there.health, gone.health) == (Health.GOOD, Health.BAD)
    assert "correct [metrics]" in gone.remedy
    off = msgspec.structs.replace(served, metrics=Metrics(enabled=False))
    assert "metrics page" not in by_name(examine(off, sensors=(), now_unix_s=NOW))


def test_old_status_is_no_running_agent(tmp_path: Path) -> None:
    """A file that nobody has renewed for three periods speaks of the past; sensors are unknown then."""
    statusfile.write(tmp_path / statusfile.NAME, GOOD)
    found = by_name(examine(settings(tmp_path), sensors=("kernel.oom_kill",), now_unix_s=NOW + 1000))
    assert found["agent"].health is Health.BAD
    assert found["kernel.oom_kill"].health is Health.UNKNOWN


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"\xff"])
def test_broken_status_is_no_status(tmp_path: Path, raw: bytes) -> None:
    """Whatever lies there, the doctor goes on."""
    (tmp_path / statusfile.NAME).write_bytes(raw)
    assert statusfile.read(tmp_path / statusfile.NAME) is None


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "endless"])
def test_a_status_that_is_no_plain_file_is_no_status(tmp_path: Path, kind: str) -> None:
    """The doctor of root reads in a folder of the agent's: no link is followed, no pipe waited for."""
    path = tmp_path / statusfile.NAME
    statusfile.write(tmp_path / "elsewhere", GOOD)
    match kind:
        case "link":
            path.symlink_to(tmp_path / "elsewhere")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case _:
            path.symlink_to("/dev/zero")
    assert statusfile.read(path) is None


def test_text_is_inert_and_json_is_whole(tmp_path: Path) -> None:
    """Control characters are shown escaped; machines get every check."""
    statusfile.write(tmp_path / statusfile.NAME, GOOD)
    checks = examine(settings(tmp_path), sensors=(), now_unix_s=NOW)
    assert "\x1b" not in as_text(checks)
    assert "\\x1b" in as_text(checks)
    told = json.loads(json.dumps(as_json(checks)))
    assert told["healthy"] is False
    assert len(told["checks"]) == len(checks)
    assert healthy(tuple(check for check in checks if check.health is not Health.BAD))


@pytest.mark.parametrize("reason", BlindReason)
def test_every_reason_has_a_remedy(reason: BlindReason) -> None:
    """No sensor is blind without a next step."""
    assert len(remedy(reason)) > 10


@pytest.mark.parametrize(
    ("sensor", "reason", "words"),
    [
        ("host.logs", BlindReason.NO_PRIVILEGE, "systemd-journal"),
        ("host.links", BlindReason.NO_PRIVILEGE, "let the agent's user"),
        ("kernel.block", BlindReason.NO_PRIVILEGE, "CAP_BPF"),
        ("mesh.tailscale", BlindReason.NOT_ANSWERING, "tailscaled"),
        ("gpu.nvml", BlindReason.NOT_ANSWERING, "Xid"),
        ("gpu.nvml", BlindReason.READ_FAILED, "nvidia-smi"),
        ("host.units", BlindReason.NO_HEADERS, "linux-headers"),
    ],
)
def test_a_remedy_is_one_for_that_sensor(sensor: str, reason: BlindReason, words: str) -> None:
    """What helps the kernel's sensors does not help the journal's or the mesh's."""
    assert words in remedy(reason, sensor)


def test_every_sensor_with_a_remedy_of_its_own_is_one() -> None:
    """A sensor that was renamed does not lose its advice unseen."""
    assert {sensor for sensor, _ in _OF_SENSOR} <= {each.name for each in SENSORS}


def test_check_config_names_line_and_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A good file is said to be good; a bad one fails with its place."""
    path = tmp_path / "agent.toml"
    path.write_text("[agent]\nid = 'spark-1'\n")
    assert main(["check-config", str(path)]) == 0
    assert "good, agent id spark-1" in capsys.readouterr().out
    path.write_text("[agent]\nidd = 'spark-1'\n")
    assert main(["check-config", str(path)]) == 1
    assert re.search(r"agent\.toml:2: agent\.idd: unknown key", capsys.readouterr().err)


def test_doctor_answers_as_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It fails where something is bad, in words and as JSON."""
    path = tmp_path / "agent.toml"
    path.write_text(f"[sensors]\nsocket = '{tmp_path}/h.sock'\n[orchestrator]\naddress = '127.0.0.1:1'\n")
    assert main(["doctor", "--config", str(path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["healthy"] is False
    assert main(["doctor", "--config", str(path)]) == 1
    assert "kernel.oom_kill" in capsys.readouterr().out
    assert doctor.healthy(())


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
@pytest.mark.parametrize("user", [(), ("--user", "root")])
def test_never_judges_as_root(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], user: tuple[str, ...]
) -> None:
    """Started as root without an account to drop to, the agent refuses."""
    path = tmp_path / "agent.toml"
    path.write_text("[agent]\nid = 'spark-1'\n")
    assert main(["run", "--config", str(path), *user]) == 1
    assert "root" in capsys.readouterr().err


@pytest.mark.parametrize("point", POINTS)
def test_failpoint_kills_the_process_the_nth_time(point: str) -> None:
    """The process dies by SIGKILL at exactly the point and time that the environment names."""
    code = (
        "from escalation.failpoints import reach, POINTS\n"
        "for round in range(3):\n"
        "    for point in POINTS:\n"
        "        print(round, point, flush=True)\n"
        "        reach(point)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "NANOBOT_FAILPOINT": f"{point}:2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.splitlines()[-1] == f"1 {point}"


def test_unknown_failpoint_is_an_error() -> None:
    """A test that names a point which does not exist must not pass by never dying."""
    with pytest.raises(ValueError, match=r"unknown point 'agent\.nowhere'"):
        Failpoints(wanted="agent.nowhere")
    Failpoints(wanted="").reach("agent.before_commit")


def test_a_model_server_on_another_port_is_suggested(tmp_path: Path) -> None:
    """What serves where nobody looks is a note with the setting that would change it."""
    servers = (ModelServer(ServerKind.VLLM, 7, 8000), ModelServer(ServerKind.VLLM, 8, 8123))
    watched, unwatched = doctor._routes(None, settings(tmp_path), servers)
    assert watched.health is Health.GOOD
    assert unwatched.health is Health.NOTE
    assert "http.ports = [8000, 4000, 11434, 8080, 8123]" in unwatched.remedy


def test_nothing_is_suggested_when_routes_are_not_watched(tmp_path: Path) -> None:
    """Who switched the sensor off does not want to hear about it."""
    off = msgspec.structs.replace(settings(tmp_path), sensors=Sensors(disabled=("http.routes",)))
    assert list(doctor._routes(None, off, (ModelServer(ServerKind.VLLM, 8, 8123),))) == []


def test_a_model_server_without_a_declared_placement_is_suggested(tmp_path: Path) -> None:
    """A unit is named by itself, a container by its port; what is declared, and a gateway, need nothing."""
    told = msgspec.structs.replace(
        settings(tmp_path), placement=(PlacementRule(unit="ollama.service", on=Placement.GPU),)
    )
    servers = (
        ModelServer(ServerKind.OLLAMA, 1, 11434),
        ModelServer(ServerKind.VLLM, 2, 8123),
        ModelServer(ServerKind.WHISPER, 3, 8000),
        ModelServer(ServerKind.LITELLM, 4, 4000),
    )
    origins = {
        1: Origin(unit="ollama.service"),
        2: Origin(unit="vllm.service"),
        3: Origin(container_id="a" * 64),
    }
    declared, unit, container = doctor._placements(told, servers, lambda pid: origins[pid])
    assert (declared.health, unit.health, container.health) == (Health.GOOD, Health.NOTE, Health.NOTE)
    assert 'unit = "vllm.service"' in unit.remedy
    assert 'route = "8000"' in container.remedy


def test_a_sensor_that_sees_less_than_was_asked_says_what_is_left_out(tmp_path: Path) -> None:
    """A library that the loader could not watch is no silent gap behind a sensor that sees."""
    detail = "/lib/libssl.so.3: Permission denied: it takes CAP_SYS_ADMIN"
    partly = (statusfile.SensorStatus(name="http.routes", detail=detail),)
    statusfile.write(tmp_path / statusfile.NAME, msgspec.structs.replace(GOOD, sensors=partly))
    check = by_name(examine(settings(tmp_path), sensors=(), now_unix_s=NOW + 60))["http.routes"]
    assert (check.health, check.says) == (Health.NOTE, f"sees; {detail}")


def test_programs_with_other_ports_than_the_configuration_are_told(tmp_path: Path) -> None:
    """After a change of the ports the loader has to run again, and the doctor says so."""
    loaded = msgspec.structs.replace(GOOD, http_ports=(8000, 9000))
    (check,) = doctor._routes(loaded, settings(tmp_path), ())
    assert (check.health, check.remedy) == (Health.NOTE, "systemctl restart nanobot-probes")
    same = msgspec.structs.replace(GOOD, http_ports=(4000, 8000, 8080, 11434))
    assert list(doctor._routes(same, settings(tmp_path), ())) == []


def _scoped(folder: Path, *, mode: str = "deny") -> AgentSettings:
    declared = f"[[scope]]\nname = 'ray'\nunit = 'ray.service'\nmode = '{mode}'\nlisteners = [6379]\n"
    return parse(
        f"[agent]\nstate_dir='{folder}'\n[sensors]\nsocket='{folder}/h.sock'\n{declared}",
        AgentSettings,
        name="a.toml",
    )


@pytest.mark.parametrize(
    ("held", "health", "says"),
    [
        ("deny", Health.GOOD, "ray (ray.service) is to be kept to 1 listeners: deny"),
        ("audit", Health.NOTE, "but it is audited"),
        ("other", Health.NOTE, "loaded otherwise, or not at all"),
        ("", Health.UNKNOWN, "nothing tells whether it is held"),
    ],
)
def test_says_whether_a_scope_is_held_as_it_is_declared(
    tmp_path: Path, held: str, health: Health, says: str
) -> None:
    """The loader's own word for what it loaded is held against the file."""
    (declared,) = _scoped(tmp_path, mode="audit" if held == "audit" else "deny").scope
    notes = "scope ray: deny (00000000); x" if held == "other" else f"x; {label(declared.rule)}"
    status = msgspec.structs.replace(
        GOOD, sensors=(statusfile.SensorStatus(name="kernel.scope", detail=notes),) if held else ()
    )
    statusfile.write(tmp_path / statusfile.NAME, status)
    found = by_name(examine(_scoped(tmp_path), sensors=(), now_unix_s=NOW))["scope"]
    assert found.health is health
    assert says in found.says


def test_a_change_is_accepted_by_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It leaves word in the agent's folder, readable for the agent; without that folder it fails."""
    config = tmp_path / "agent.toml"
    config.write_text(f"[agent]\nid = 'a'\nstate_dir = '{tmp_path}'\n")
    before = os.umask(0o077)
    try:
        assert main(["accept-drift", "vllm.service", "--config", str(config)]) == 0
    finally:
        os.umask(before)
    (left,) = tmp_path.glob("accepted-*")
    assert left.read_text() == "vllm.service"
    assert left.stat().st_mode & 0o777 == 0o644
    config.write_text(f"[agent]\nid = 'a'\nstate_dir = '{tmp_path}/none'\n")
    assert main(["accept-drift", "vllm.service", "--config", str(config)]) == 1
    assert "No such file or directory" in capsys.readouterr().err


def test_why_the_spool_cannot_be_written_is_said(tmp_path: Path) -> None:
    """A full disk, somebody else who has it, a file that is not ours: each wants something else."""
    status = msgspec.structs.replace(
        GOOD, spool_open=False, spool_error="open spool /x: in use by another process"
    )
    statusfile.write(tmp_path / statusfile.NAME, status)
    check = by_name(examine(settings(tmp_path), sensors=(), now_unix_s=NOW))["spool"]
    assert check.health is Health.BAD
    assert "in use by another process" in check.says
