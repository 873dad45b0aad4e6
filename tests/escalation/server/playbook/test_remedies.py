"""What the playbook advises: the exact command where the target's name is safe, a look where it is not."""

from __future__ import annotations

import dataclasses
import re
import shlex

import pytest
from hypothesis import given, strategies as st

from escalation.model import (
    ActionKind,
    AgentId,
    BlindEvidence,
    BlindReason,
    BootId,
    Evidence,
    FaultClass,
    GpuEvidence,
    Incident,
    ListenerEvidence,
    OomEvidence,
    OomScope,
    Reach,
    Reason,
    ReasonCode,
    Report,
    Severity,
    Subject,
    SubjectKind,
    XidEvidence,
)
from escalation.server.incident import incidents
from escalation.server.playbook import names
from escalation.server.playbook.registry import REMEDIES, advise
from escalation.server.testing import CONTAINER, START_NS, case_report

_UNIT = Subject(SubjectKind.UNIT, "ollama.service")
_BOX = Subject(SubjectKind.CONTAINER, CONTAINER)
_CGROUP = Subject(SubjectKind.CGROUP, "/machine.slice/scratch")
_GPU = Subject(SubjectKind.GPU, "0000000F:01:00.0")
_GIB = 1 << 30


def _incident(
    fault_class: FaultClass, subject: Subject, *evidence: Evidence, target: Subject | None = None
) -> Incident:
    body = case_report(fault_class=fault_class, subject=subject, target=target, evidence=evidence)
    report = Report(
        agent_id=AgentId("spark-1"), boot_id=BootId("boot"), sequence=1, created_ns=START_NS, body=body
    )
    folding = incidents.fold(report, body, case=None, incident=None, standing=None, now_ns=START_NS)
    assert folding is not None
    return folding.incident


def _oom(
    *, limit: int | None = _GIB, kills: int | None = 1, scope: OomScope = OomScope.CGROUP
) -> OomEvidence:
    return OomEvidence(scope, "python3", 7, _GIB, limit, kills)


def _listener(port: int = 11434, name: str = "ollama") -> ListenerEvidence:
    return ListenerEvidence("0.0.0.0", port, Reach.ALL_INTERFACES, name, confirmed=True)


def _unsure(incident: Incident) -> Incident:
    return dataclasses.replace(incident, reasons=(Reason(ReasonCode.SECOND_LAYER_UNKNOWN),))


def _gpu(*, nvml_code: int = 15, recovery: int | None = None) -> GpuEvidence:
    return GpuEvidence(
        gpu=_GPU.name,
        name="NVIDIA GB10",
        sm_mhz=None,
        usual_mhz=None,
        busy_percent=None,
        watts=None,
        event_reasons=None,
        nvml_code=nvml_code,
        recovery_action=recovery,
    )


def _because(incident: Incident, *codes: ReasonCode) -> Incident:
    return dataclasses.replace(incident, reasons=tuple(Reason(code) for code in codes))


_HERE = Subject(SubjectKind.HOST, "spark-1")
_OF_GPU_AND_MEMORY: list[tuple[Incident, ActionKind, tuple[str, ...]]] = [
    (
        _incident(FaultClass.GPU_CPU_FALLBACK, _BOX),
        ActionKind.RESTART_CONTAINER,
        ("docker", "restart", CONTAINER),
    ),
    (
        _unsure(_incident(FaultClass.GPU_CPU_FALLBACK, _UNIT)),
        ActionKind.INSPECT,
        ("journalctl", "--no-pager", "--lines=200", "--unit=ollama.service"),
    ),
    (
        _incident(FaultClass.TRANSCRIPTION_CPU_FALLBACK, _BOX),
        ActionKind.CHANGE_SETTING,
        ("docker", "inspect", "--format", "{{json .Path}} {{json .Args}}", CONTAINER),
    ),
    (
        _unsure(_incident(FaultClass.TRANSCRIPTION_CPU_FALLBACK, _BOX)),
        ActionKind.INSPECT,
        ("docker", "logs", "--tail", "200", CONTAINER),
    ),
    (
        _because(_incident(FaultClass.GPU_CLOCKS_CAPPED, _GPU), ReasonCode.NO_THROTTLE_REASON),
        ActionKind.HUMAN,
        ("systemctl", "poweroff"),
    ),
    (
        _incident(FaultClass.GPU_CLOCKS_CAPPED, _GPU),
        ActionKind.INSPECT,
        ("nvidia-smi", "-q", "-d", "CLOCK,POWER,TEMPERATURE,PERFORMANCE"),
    ),
    (
        _incident(FaultClass.GPU_APPLICATION_XID, _GPU, target=_BOX),
        ActionKind.RESTART_CONTAINER,
        ("docker", "restart", CONTAINER),
    ),
    (
        _because(
            _incident(FaultClass.GPU_APPLICATION_XID, _GPU, target=_BOX),
            ReasonCode.XID_FROM_SEVERAL_PROCESSES,
        ),
        ActionKind.INSPECT,
        ("nvidia-smi", "-q", "-d", "ECC,ROW_REMAPPER,PAGE_RETIREMENT"),
    ),
    (
        _incident(FaultClass.GPU_DEVICE_FAULT, _GPU, _gpu(recovery=1)),
        ActionKind.HUMAN,
        ("nvidia-smi", "--gpu-reset", "-i", "0000000F:01:00.0"),
    ),
    (
        _incident(FaultClass.GPU_DEVICE_FAULT, _GPU, _gpu(recovery=2)),
        ActionKind.HUMAN,
        ("systemctl", "reboot"),
    ),
    *(
        (
            _incident(FaultClass.GPU_DEVICE_FAULT, _GPU, _gpu(recovery=step)),
            ActionKind.HUMAN,
            ("systemctl", "reboot"),
        )
        for step in (6, 7)
    ),
    (
        _incident(FaultClass.GPU_DEVICE_FAULT, Subject(SubjectKind.GPU, "0;reboot"), _gpu(recovery=1)),
        ActionKind.HUMAN,
        ("systemctl", "reboot"),
    ),
    (
        _because(_incident(FaultClass.GPU_DEVICE_FAULT, _GPU), ReasonCode.GPU_IS_LOST),
        ActionKind.HUMAN,
        ("systemctl", "reboot"),
    ),
    (_incident(FaultClass.GPU_DEVICE_FAULT, _GPU), ActionKind.HUMAN, ("nvidia-bug-report.sh",)),
    (
        dataclasses.replace(_incident(FaultClass.GPU_DEVICE_FAULT, _GPU), severity=Severity.NOTE),
        ActionKind.INSPECT,
        ("nvidia-smi", "-q", "-d", "ECC,ROW_REMAPPER,PAGE_RETIREMENT"),
    ),
    (_incident(FaultClass.GPU_DRIVER_MISMATCH, _HERE), ActionKind.HUMAN, ("systemctl", "reboot")),
    (
        _incident(FaultClass.MEMORY_UNIFIED_EXHAUSTION, _HERE, target=_UNIT),
        ActionKind.RESTART_UNIT,
        ("systemctl", "restart", "ollama.service"),
    ),
    (
        _unsure(_incident(FaultClass.MEMORY_UNIFIED_EXHAUSTION, _HERE, target=_UNIT)),
        ActionKind.INSPECT,
        ("ps", "-eo", "pid,rss,comm", "--sort=-rss"),
    ),
    (
        _incident(FaultClass.MEMORY_UNIFIED_EXHAUSTION, _HERE),
        ActionKind.INSPECT,
        ("ps", "-eo", "pid,rss,comm", "--sort=-rss"),
    ),
    (
        _incident(FaultClass.MEMORY_PAGE_CACHE_REFUSAL, _BOX),
        ActionKind.HUMAN,
        ("sysctl", "vm.drop_caches=3"),
    ),
]


@pytest.mark.parametrize(
    ("incident", "kind", "command"),
    [
        (
            _incident(FaultClass.GPU_ACCESS_REVOKED, _BOX),
            ActionKind.RESTART_CONTAINER,
            ("docker", "restart", CONTAINER),
        ),
        (
            _incident(FaultClass.GPU_ACCESS_REVOKED, _UNIT),
            ActionKind.RESTART_UNIT,
            ("systemctl", "restart", "ollama.service"),
        ),
        (
            _incident(FaultClass.GPU_ACCESS_REVOKED, _CGROUP, target=_UNIT),
            ActionKind.RESTART_UNIT,
            ("systemctl", "restart", "ollama.service"),
        ),
        (
            _incident(FaultClass.GPU_ACCESS_REVOKED, _CGROUP),
            ActionKind.INSPECT,
            ("systemd-cgls", "--no-pager", "/machine.slice/scratch"),
        ),
        (
            _incident(FaultClass.GPU_NEVER_GRANTED, _BOX),
            ActionKind.INSPECT,
            ("docker", "inspect", "--format", "{{json .HostConfig.DeviceRequests}}", CONTAINER),
        ),
        (
            _incident(FaultClass.GPU_UVM_LOST, Subject(SubjectKind.HOST, "spark-1")),
            ActionKind.HUMAN,
            ("modprobe", "nvidia_uvm"),
        ),
        (
            _incident(FaultClass.MEMORY_CGROUP_OOM_KILL, _UNIT, _oom()),
            ActionKind.CHANGE_SETTING,
            ("systemctl", "set-property", "--runtime", "ollama.service", f"MemoryMax={_GIB * 5 // 4}"),
        ),
        (
            _incident(FaultClass.MEMORY_CGROUP_OOM_KILL, _BOX, _oom(limit=100_000_000)),
            ActionKind.CHANGE_SETTING,
            ("docker", "update", "--memory=134217728", "--memory-swap=268435456", CONTAINER),
        ),
        (
            _incident(FaultClass.MEMORY_CGROUP_OOM_KILL, _UNIT, _oom(kills=None)),
            ActionKind.INSPECT,
            (
                "systemctl",
                "show",
                "ollama.service",
                "--property=MemoryCurrent,MemoryPeak,MemoryMax,NRestarts",
            ),
        ),
        (
            _incident(FaultClass.MEMORY_CGROUP_OOM_KILL, _UNIT, _oom(limit=2**63 - 4096)),
            ActionKind.INSPECT,
            (
                "systemctl",
                "show",
                "ollama.service",
                "--property=MemoryCurrent,MemoryPeak,MemoryMax,NRestarts",
            ),
        ),
        (
            _incident(FaultClass.MEMORY_CGROUP_OOM_KILL, _CGROUP, _oom(scope=OomScope.HOST)),
            ActionKind.INSPECT,
            ("ps", "-eo", "pid,rss,comm", "--sort=-rss"),
        ),
        (
            _incident(FaultClass.PROCESS_KILLED_BY_SIGNAL, _UNIT),
            ActionKind.INSPECT,
            ("journalctl", "--no-pager", "--lines=200", "--unit=ollama.service"),
        ),
        (
            _incident(FaultClass.PROCESS_KILLED_BY_SIGNAL, _BOX),
            ActionKind.INSPECT,
            ("docker", "logs", "--tail", "200", CONTAINER),
        ),
        (
            _incident(FaultClass.EXPOSURE_OFF_MESH_LISTENER, Subject(SubjectKind.LISTENER, "x"), _listener()),
            ActionKind.CHANGE_SETTING,
            ("ss", "-H", "-l", "-t", "-n", "-p", "sport = :11434"),
        ),
        (
            _incident(
                FaultClass.EXPOSURE_OFF_MESH_LISTENER, Subject(SubjectKind.UNIT, "x.service"), _listener()
            ),
            ActionKind.CHANGE_SETTING,
            ("ss", "-H", "-l", "-t", "-n", "-p"),
        ),
        (
            _incident(FaultClass.MONITOR_BLIND, Subject(SubjectKind.HOST, "spark-1")),
            ActionKind.INSPECT,
            ("systemctl", "status", "--no-pager", "nanobot-agent.service"),
        ),
        (
            _incident(
                FaultClass.MONITOR_BLIND,
                Subject(SubjectKind.SENSOR, "kernel.listener"),
                BlindEvidence("kernel.listener", BlindReason.NO_HEADERS, 0.0),
            ),
            ActionKind.INSPECT,
            ("nanobot-agent", "doctor"),
        ),
        *_OF_GPU_AND_MEMORY,
        (_incident(FaultClass.UNKNOWN, _BOX), ActionKind.INSPECT, ("nanobot-agent", "doctor")),
    ],
    ids=lambda value: value.fault_class if isinstance(value, Incident) else "",
)
def test_advises(incident: Incident, kind: ActionKind, command: tuple[str, ...]) -> None:
    """The kind of action and its exact argument list."""
    action = advise(incident).action
    assert (action.kind, action.command, action.host) == (kind, command, incident.agent_id)


def test_each_fault_class_has_its_remedy() -> None:
    """One line each, sorted, none missing."""
    assert [remedy.fault_class for remedy in REMEDIES] == sorted(FaultClass)


def test_a_reset_names_the_agent_among_those_to_stop() -> None:
    """The agent has the GPU open itself, and a reset is refused while anybody has."""
    advice = advise(_incident(FaultClass.GPU_DEVICE_FAULT, _GPU, _gpu(recovery=1)))
    assert "nanobot-agent" in advice.summary


def test_names_the_setting_of_a_server_that_it_recognises() -> None:
    """By the process's name first, by its port otherwise, and by neither when it knows neither."""
    subject = Subject(SubjectKind.LISTENER, "x")

    def summary(evidence: ListenerEvidence) -> str:
        return advise(_incident(FaultClass.EXPOSURE_OFF_MESH_LISTENER, subject, evidence)).summary

    assert "OLLAMA_HOST" in summary(_listener(9999, "ollama"))
    assert "listen_addresses" in summary(_listener(5432, "docker-proxy"))
    assert "It looks like" not in summary(_listener(9999, "thing"))


@pytest.mark.parametrize(
    "name",
    [
        "ollama.service; reboot",
        "$(reboot).service",
        "-rf.service",
        "../../etc/passwd",
        "a b.service",
        "ollama.service\n",
        "ollama.socket",
        ".service",
        "x" * 256 + ".service",
        "über.service",
        "ollama\u202e.service",
        "ollama\\.service",
        "",
    ],
)
def test_a_unit_name_that_is_not_one_reaches_no_command(name: str) -> None:
    """Hostile or malformed, it is not even quoted: the advice does without it."""
    subject = Subject(SubjectKind.UNIT, name)
    assert names.service_unit(subject) is None
    advice = advise(_incident(FaultClass.GPU_ACCESS_REVOKED, subject))
    assert advice.action.kind is ActionKind.INSPECT
    assert advice.action.command == ("systemd-cgls", "--no-pager")


@pytest.mark.parametrize(
    "name", ["vllm-worker@0.service", "app-dev\\x2ddisk.service", "a.service", "user@1000.service"]
)
def test_a_unit_name_that_is_one_is_used(name: str) -> None:
    """What systemd accepts as a service's name, its own escapes included."""
    assert names.service_unit(Subject(SubjectKind.UNIT, name)) == name


@pytest.mark.parametrize("name", ["4f" * 31, "4F" * 32, "4f" * 32 + "\n", "--all", "vllm", ""])
def test_a_container_is_named_by_its_whole_id_only(name: str) -> None:
    """A name or a short id could be another container's by now."""
    assert names.container_id(Subject(SubjectKind.CONTAINER, name)) is None


@given(
    fault_class=st.sampled_from(FaultClass),
    subject=st.builds(Subject, st.sampled_from(SubjectKind), st.text(max_size=40)),
    target=st.none() | st.builds(Subject, st.sampled_from(SubjectKind), st.text(max_size=40)),
    port=st.integers(0, 65535),
    process=st.text(max_size=20),
)
def test_no_text_from_a_host_reaches_a_command_or_the_advice_unchecked(
    fault_class: FaultClass, subject: Subject, target: Subject | None, port: int, process: str
) -> None:
    """Commands are plain words, whatever a host calls its things; every part of the advice is there."""
    incident = _incident(fault_class, subject, _listener(port, process), _oom(), target=target)
    advice = advise(incident)
    for word in advice.action.command:
        assert re.fullmatch(r"[A-Za-z0-9_.,:;@=/%\[\]\\{} -]+", word), word
    assert shlex.split(shlex.join(advice.action.command)) == list(advice.action.command)
    texts = (advice.summary, advice.risk, advice.will_not_fix, advice.verification.text)
    assert all(re.fullmatch(r"[ -~]+", text) for text in texts)
    assert advice.verification.within_s > 0
    assert advice.verification.quiet_s >= 600


def test_every_remedy_says_what_it_costs_and_what_it_does_not_fix() -> None:
    """No part of an advice is empty, for any fault class and kind of subject."""
    for fault_class in FaultClass:
        for kind in SubjectKind:
            advice = advise(_incident(fault_class, Subject(kind, "x")))
            for field in dataclasses.fields(advice):
                assert getattr(advice, field.name), field.name


@pytest.mark.parametrize(("number", "worn"), [(64, True), (140, True), (79, False)])
def test_memory_beyond_repair_is_a_case_for_its_maker(number: int, worn: bool) -> None:
    """A reset does not mend it, and the advice says what to ask for."""
    xid = XidEvidence(gpu=_GPU.name, number=number, count=1, sources=1, process_name="", pid=None)
    advice = advise(_incident(FaultClass.GPU_DEVICE_FAULT, _GPU, _gpu(recovery=1), xid))
    assert ("ask its maker to replace it" in advice.will_not_fix) is worn


@pytest.mark.parametrize("fault", [FaultClass.GPU_DEVICE_FAULT, FaultClass.GPU_DRIVER_MISMATCH])
@pytest.mark.parametrize("severity", Severity)
@pytest.mark.parametrize("recovery", range(9))
def test_no_reset_reboot_or_reload_can_ever_be_approved(
    fault: FaultClass, severity: Severity, recovery: int
) -> None:
    """Whatever the driver advises: a person does it, or nobody; what is approvable only reads."""
    found = dataclasses.replace(_incident(fault, _GPU, _gpu(recovery=recovery)), severity=severity)
    assert advise(found).action.kind in {ActionKind.HUMAN, ActionKind.INSPECT}
    if advise(found).action.kind is ActionKind.INSPECT:
        assert advise(found).action.command[:2] == ("nvidia-smi", "-q")
