"""What the playbook advises about model routes: exact commands, and never more than the evidence carries."""

from __future__ import annotations

import dataclasses
import re
import shlex

import pytest
from hypothesis import given, strategies as st

from escalation.model import (
    ActionKind,
    Advice,
    Evidence,
    FaultClass,
    FlightEvidence,
    Incident,
    PromptSizeEvidence,
    Reason,
    ReasonCode,
    RouteEvidence,
    RouteId,
    RouteKind,
    ServerKind,
    Subject,
    SubjectKind,
)
from escalation.server.playbook import names
from escalation.server.playbook.registry import advise
from escalation.server.testing import CONTAINER
from escalation.testing import an_entry

_UNIT = Subject(SubjectKind.UNIT, "litellm.service")
_BOX = Subject(SubjectKind.CONTAINER, CONTAINER)
_NAMELESS = Subject(SubjectKind.CGROUP, "/machine.slice/scratch")
_VLLM = RouteId(8000, RouteKind.CHAT_COMPLETIONS, "qwen3-32b", ServerKind.VLLM)
_LITELLM = RouteId(4000, RouteKind.CHAT_COMPLETIONS, "qwen3-32b", ServerKind.LITELLM)
_OLLAMA = RouteId(11434, RouteKind.OLLAMA_CHAT, "gemma3:12b", ServerKind.OLLAMA)
_ROUTES = [
    fault
    for fault in FaultClass
    if fault.value.startswith("route.") or fault is FaultClass.DISTRIBUTED_RANK_STALL
]
_RESTARTS = {ActionKind.RESTART_CONTAINER, ActionKind.RESTART_UNIT}
_LOG_OF_BOX = ("docker", "logs", "--tail", "200", CONTAINER)
_SETTINGS_OF_BOX = ("docker", "inspect", "--format", "{{json .Path}} {{json .Args}}", CONTAINER)


def _exchanges(route: RouteId, *, max_tokens: int | None = None) -> RouteEvidence:
    return RouteEvidence(
        id=route,
        window_s=600.0,
        exchanges=40,
        affected=20,
        affected_streamed=10,
        unobserved=0,
        max_tokens=max_tokens,
    )


def _flight(
    route: RouteId, *, silent_s: float = 300.0, patience_s: float = 180.0, requests: int = 2
) -> FlightEvidence:
    return FlightEvidence(
        id=route,
        requests=requests,
        waiting=1,
        oldest_s=400.0,
        silent_s=silent_s,
        patience_s=patience_s,
        largest_request_bytes=4096,
    )


def _sizes(route: RouteId) -> PromptSizeEvidence:
    return PromptSizeEvidence(
        id=route, window_s=900.0, split_bytes=131_072, small=20, small_failed=0, large=9, large_failed=9
    )


def _incident(fault: FaultClass, target: Subject, evidence: Evidence, *codes: ReasonCode) -> Incident:
    example = an_entry(fault).incident
    reasons = example.reasons if not codes else tuple(Reason(code) for code in codes)
    return dataclasses.replace(example, target=target, evidence=(evidence,), reasons=reasons)


@pytest.mark.parametrize(
    ("incident", "kind", "command"),
    [
        (
            _incident(FaultClass.ROUTE_EMPTY_COMPLETION, _UNIT, _exchanges(_LITELLM)),
            ActionKind.REMOVE_ROUTE,
            ("systemctl", "restart", "litellm.service"),
        ),
        (
            _incident(FaultClass.ROUTE_DEGENERATE_OUTPUT, _BOX, _exchanges(_LITELLM)),
            ActionKind.REMOVE_ROUTE,
            ("docker", "restart", CONTAINER),
        ),
        (
            _incident(FaultClass.ROUTE_EMPTY_COMPLETION, _NAMELESS, _exchanges(_LITELLM)),
            ActionKind.INSPECT,
            (
                "curl",
                "--silent",
                "--show-error",
                "--header",
                "@/etc/nanobot/litellm.header",
                "http://127.0.0.1:4000/v1/model/info",
            ),
        ),
        (
            _incident(FaultClass.ROUTE_EMPTY_COMPLETION, _BOX, _exchanges(_VLLM)),
            ActionKind.INSPECT,
            _LOG_OF_BOX,
        ),
        (
            _incident(FaultClass.ROUTE_REASONING_BUDGET_EXHAUSTED, _BOX, _exchanges(_VLLM)),
            ActionKind.CHANGE_SETTING,
            _SETTINGS_OF_BOX,
        ),
        (
            _incident(FaultClass.ROUTE_ANSWER_MISROUTED, _UNIT, _exchanges(_VLLM)),
            ActionKind.CHANGE_SETTING,
            ("systemctl", "cat", "--no-pager", "litellm.service"),
        ),
        (
            _incident(FaultClass.ROUTE_ANSWER_MISROUTED, _BOX, _exchanges(_OLLAMA)),
            ActionKind.CHANGE_SETTING,
            ("docker", "exec", CONTAINER, "ollama", "show", "--template", "gemma3:12b"),
        ),
        (
            _incident(FaultClass.ROUTE_BROKEN_STREAM, _NAMELESS, _exchanges(_VLLM)),
            ActionKind.INSPECT,
            ("ss", "-H", "-l", "-t", "-n", "-p", "sport = :8000"),
        ),
        (
            _incident(FaultClass.ROUTE_CONTEXT_OVERFLOW, _BOX, _exchanges(_OLLAMA)),
            ActionKind.CHANGE_SETTING,
            _SETTINGS_OF_BOX,
        ),
        (
            _incident(FaultClass.ROUTE_ENGINE_STALLED, _BOX, _flight(_VLLM)),
            ActionKind.RESTART_CONTAINER,
            ("docker", "restart", CONTAINER),
        ),
        (
            _incident(FaultClass.ROUTE_ENGINE_STALLED, _NAMELESS, _flight(_VLLM)),
            ActionKind.INSPECT,
            ("ss", "-H", "-l", "-t", "-n", "-p", "sport = :8000"),
        ),
        (
            _incident(FaultClass.ROUTE_ROUTER_COOLDOWN, _UNIT, _exchanges(_LITELLM)),
            ActionKind.INSPECT,
            ("journalctl", "--no-pager", "--lines=200", "--unit=litellm.service"),
        ),
        (_incident(FaultClass.ROUTE_SATURATED, _BOX, _exchanges(_VLLM)), ActionKind.INSPECT, _LOG_OF_BOX),
        (
            _incident(FaultClass.ROUTE_FAILS_REAL_TRAFFIC, _BOX, _sizes(_VLLM)),
            ActionKind.CHANGE_SETTING,
            _SETTINGS_OF_BOX,
        ),
        (_incident(FaultClass.ROUTE_ERRORS_RISING, _BOX, _exchanges(_VLLM)), ActionKind.INSPECT, _LOG_OF_BOX),
        (
            _incident(FaultClass.ROUTE_LATENCY_RISING, _BOX, _exchanges(_VLLM)),
            ActionKind.INSPECT,
            _LOG_OF_BOX,
        ),
        (
            _incident(FaultClass.DISTRIBUTED_RANK_STALL, _UNIT, _flight(_VLLM)),
            ActionKind.RESTART_UNIT,
            ("systemctl", "restart", "litellm.service"),
        ),
        (
            _incident(
                FaultClass.DISTRIBUTED_RANK_STALL, _BOX, _flight(_VLLM), ReasonCode.NO_BYTES_WHILE_IN_FLIGHT
            ),
            ActionKind.INSPECT,
            _LOG_OF_BOX,
        ),
    ],
    ids=lambda value: value.fault_class if isinstance(value, Incident) else "",
)
def test_advises(incident: Incident, kind: ActionKind, command: tuple[str, ...]) -> None:
    """The kind of action and its exact argument list."""
    action = advise(incident).action
    assert (action.kind, action.command, action.host) == (kind, command, incident.agent_id)
    assert action.target == incident.target


@pytest.mark.parametrize("fault", _ROUTES)
@pytest.mark.parametrize("route", [_VLLM, _LITELLM, _OLLAMA], ids=lambda route: route.server)
def test_one_sign_alone_is_looked_into_and_no_more(fault: FaultClass, route: RouteId) -> None:
    """Where a second sign is missing the advice reads only, whatever the fault and the server."""
    for evidence in (_exchanges(route), _flight(route), _sizes(route)):
        codes = (an_entry(fault).incident.reasons[0].code, ReasonCode.SECOND_LAYER_UNKNOWN)
        assert advise(_incident(fault, _BOX, evidence, *codes)).action.kind is ActionKind.INSPECT


@pytest.mark.parametrize(
    "evidence",
    [
        _flight(_VLLM, silent_s=60.0, patience_s=180.0),
        _flight(_VLLM, patience_s=0.0),
        _flight(_VLLM, requests=0),
        _flight(_VLLM, silent_s=float("nan")),
        _exchanges(_VLLM),
    ],
)
def test_a_busy_engine_is_never_restarted(evidence: Evidence) -> None:
    """Unless the silence is longer than what was allowed, the advice is to look."""
    advice = advise(_incident(FaultClass.ROUTE_ENGINE_STALLED, _BOX, evidence))
    assert advice.action.kind is ActionKind.INSPECT
    assert "busy" in advice.summary


@pytest.mark.parametrize("server", [ServerKind.UNKNOWN, ServerKind.OTHER, ServerKind.POSTGRESQL])
def test_a_server_that_is_not_known_as_an_engine_is_not_restarted(server: ServerKind) -> None:
    """It may be a proxy of any kind; the engine is behind it."""
    evidence = _flight(dataclasses.replace(_VLLM, server=server))
    action = advise(_incident(FaultClass.ROUTE_ENGINE_STALLED, _BOX, evidence)).action
    assert action.kind is ActionKind.INSPECT


def test_a_router_is_not_restarted_for_an_engine_behind_it() -> None:
    """A router that waits is a witness; the engine that it waits for is somewhere else."""
    for fault in (FaultClass.ROUTE_ENGINE_STALLED, FaultClass.ROUTE_BROKEN_STREAM):
        assert advise(_incident(fault, _UNIT, _flight(_LITELLM))).action.kind is ActionKind.INSPECT


@pytest.mark.parametrize("fault", [FaultClass.ROUTE_SATURATED, FaultClass.ROUTE_LATENCY_RISING])
def test_what_is_slow_or_full_is_not_restarted(fault: FaultClass) -> None:
    """For every server: a restart makes a queue longer."""
    for server in ServerKind:
        evidence = _exchanges(dataclasses.replace(_VLLM, server=server))
        assert advise(_incident(fault, _BOX, evidence)).action.kind not in _RESTARTS


def test_the_advice_names_the_setting_of_the_server() -> None:
    """Each server has its own word for the same limit."""

    def said(fault: FaultClass, route: RouteId, *codes: ReasonCode) -> str:
        evidence = _sizes(route) if fault is FaultClass.ROUTE_FAILS_REAL_TRAFFIC else _exchanges(route)
        return advise(_incident(fault, _UNIT, evidence, *codes)).summary

    overflow, budget = FaultClass.ROUTE_CONTEXT_OVERFLOW, FaultClass.ROUTE_REASONING_BUDGET_EXHAUSTED
    assert "OLLAMA_CONTEXT_LENGTH" in said(overflow, _OLLAMA)
    assert "--max-model-len" in said(overflow, _VLLM)
    assert "context_window_fallbacks" in said(overflow, _LITELLM)
    assert "enable_thinking" in said(budget, _VLLM)
    assert '"think": false' in said(budget, _OLLAMA)
    assert "--reasoning-parser" in said(FaultClass.ROUTE_ANSWER_MISROUTED, _VLLM)
    assert "merge_reasoning_content_in_choices" in said(FaultClass.ROUTE_ANSWER_MISROUTED, _LITELLM)
    assert "No parser" in said(
        FaultClass.ROUTE_ANSWER_MISROUTED, _VLLM, ReasonCode.REASONING_MARKS_IN_CONTENT
    )
    assert "without saying so" in said(overflow, _OLLAMA, ReasonCode.PROMPTS_CUT_SILENTLY)
    assert "128.0 KiB" in said(FaultClass.ROUTE_FAILS_REAL_TRAFFIC, _VLLM)


def test_a_budget_is_raised_from_what_callers_allow() -> None:
    """Four times as much for a start, where it is known."""
    fault = FaultClass.ROUTE_REASONING_BUDGET_EXHAUSTED
    known = advise(_incident(fault, _BOX, _exchanges(_VLLM, max_tokens=512))).summary
    unknown = advise(_incident(fault, _BOX, _exchanges(_VLLM))).summary
    assert "512" in known
    assert "2048" in known
    assert "Raise max_tokens" in unknown


@pytest.mark.parametrize("fault", _ROUTES)
def test_no_command_holds_a_key_or_asks_for_one(fault: FaultClass) -> None:
    """A key is read from a file that only root reads: it stands in no argument list and in no advice."""
    for server in ServerKind:
        route = dataclasses.replace(_LITELLM, server=server)
        for target in (_UNIT, _BOX, _NAMELESS):
            advice = advise(_incident(fault, target, _exchanges(route)))
            text = " ".join((*advice.action.command, advice.summary, advice.risk))
            assert not re.search(r"sk-|Bearer|MASTER_KEY|\$", text)


@pytest.mark.parametrize(
    "model",
    [
        "",
        "-rf",
        "--help",
        "a b",
        "a;reboot",
        "$(reboot)",
        "http://evil.example/x",
        "../../etc/passwd",
        "a//b",
        "qwen\n",
        "qwen\u202e",
        "modèle",
        "m" * 97,
        "{{.Config.Env}}",
    ],
)
def test_a_model_name_that_is_none_reaches_neither_command_nor_text(model: str) -> None:
    """Hostile or malformed, it is not even quoted: the advice does without it."""
    route = dataclasses.replace(_OLLAMA, model=model)
    assert names.model_name(route) is None
    for fault in _ROUTES:
        advice = advise(_incident(fault, _BOX, _exchanges(route)))
        assert "ollama" not in advice.action.command
        assert not model or not any(model in text for text in _texts(advice))


@pytest.mark.parametrize(
    "model", ["gemma3:12b", "Qwen/Qwen3-32B", "hf.co/org/m-GGUF:Q4_K_M", "m@v1", "a__b", "x"]
)
def test_a_model_name_that_is_one_is_used(model: str) -> None:
    """What registries and operators call models."""
    assert names.model_name(dataclasses.replace(_OLLAMA, model=model)) == model


@given(
    fault=st.sampled_from(_ROUTES),
    target=st.none() | st.builds(Subject, st.sampled_from(SubjectKind), st.text(max_size=40)),
    route=st.builds(
        RouteId,
        st.integers(-1, 70_000),
        st.sampled_from(RouteKind),
        st.text(max_size=40),
        st.sampled_from(ServerKind),
    ),
    data=st.data(),
)
def test_no_text_from_a_host_reaches_a_command_or_the_advice_unchecked(
    fault: FaultClass, target: Subject | None, route: RouteId, data: st.DataObject
) -> None:
    """Commands are plain words, whatever a host calls its models; every part of the advice is there."""
    kind = data.draw(st.sampled_from([RouteEvidence, FlightEvidence, PromptSizeEvidence]))
    evidence = dataclasses.replace(data.draw(st.from_type(kind)), id=route)
    codes = data.draw(st.lists(st.sampled_from(ReasonCode), min_size=1, max_size=4))
    incident = _incident(fault, _BOX, evidence, *codes)
    advice = advise(dataclasses.replace(incident, target=target))
    for word in advice.action.command:
        assert re.fullmatch(r"[A-Za-z0-9_.,:;@=/\\{} -]+", word), word
    assert shlex.split(shlex.join(advice.action.command)) == list(advice.action.command)
    assert all(re.fullmatch(r"[ -~]+", text) for text in _texts(advice))
    assert advice.verification.within_s > 0
    assert advice.verification.quiet_s >= 600


def _texts(advice: Advice) -> tuple[str, ...]:
    return advice.summary, advice.risk, advice.will_not_fix, advice.verification.text
