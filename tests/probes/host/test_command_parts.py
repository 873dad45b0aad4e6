"""A server's command line taken apart: what differs, and what only looks so."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from probes.host.command_parts import CommandParts, take_apart
from probes.observed.scope import CommandPart as P
from probes.origin import ServerKind

_VLLM = "/opt/venv/bin/python3 /opt/venv/bin/vllm serve Qwen/Qwen3-32B --max-model-len 32768 --port 8000"


def vllm(line: str = _VLLM) -> CommandParts:
    """Take a line of vLLM apart."""
    return take_apart(ServerKind.VLLM, line.split())


def changed(before: CommandParts, now: CommandParts) -> set[P]:
    """Return the parts that differ."""
    return {part for part in P if before.words.get(part) != now.words.get(part)}


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        (_VLLM.replace("Qwen3-32B", "Qwen3-8B"), {P.MODEL}),
        (_VLLM.replace("32768", "8192"), {P.CONTEXT}),
        (f"{_VLLM} --quantization awq", {P.QUANTIZATION}),
        (f"{_VLLM} --reasoning-parser qwen3", {P.PARSER}),
        (f"{_VLLM} --gpu-memory-utilization 0.6", {P.MEMORY}),
        (f"{_VLLM} --tensor-parallel-size 2", {P.PARALLELISM}),
        (_VLLM.replace("8000", "8001"), {P.ADDRESS}),
        (_VLLM.replace("/opt/venv", "/opt/other"), {P.EXECUTABLE}),
        (f"{_VLLM} --seed 1", {P.OTHER}),
    ],
)
def test_each_part_is_told_apart(line: str, parts: set[P]) -> None:
    """What differs is found in its own part and in no other."""
    assert changed(vllm(), vllm(line)) == parts
    assert vllm().whole != vllm(line).whole


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (_VLLM, _VLLM.replace("--max-model-len 32768", "--max-model-len=32768")),
        (_VLLM, _VLLM.replace("--max-model-len", "--max_model_len")),
        (f"{_VLLM} --api-key one", f"{_VLLM} --api-key another"),
        (f"{_VLLM} --download-dir /tmp/a1b2", f"{_VLLM} --download-dir /tmp/c3d4/e"),
        (
            f"{_VLLM} --instance 123e4567-e89b-12d3-a456-426614174000",
            f"{_VLLM} --instance 00000000-0000-4000-8000-000000000000",
        ),
        (f"{_VLLM} --data-parallel-rpc-port 33001", f"{_VLLM} --data-parallel-rpc-port 45112"),
        (f"{_VLLM} --master-addr 10.0.0.1:40000", f"{_VLLM} --master-addr 10.0.0.1:50000"),
    ],
)
def test_what_means_the_same_is_the_same(one: str, other: str) -> None:
    """Another notation, another secret, and what is new at every start."""
    assert vllm(one).whole == vllm(other).whole


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (f"{_VLLM} --port 40000", f"{_VLLM} --port 40001"),
        (f"{_VLLM} --data-parallel-rpc-port 13345", f"{_VLLM} --data-parallel-rpc-port 13346"),
        (f"{_VLLM} --revision 0123456789abcdef", f"{_VLLM} --revision 0123456789abcdee"),
        (f"{_VLLM} --seed 1 --seed 2", f"{_VLLM} --seed 2 --seed 1"),
    ],
)
def test_what_was_chosen_on_purpose_is_not_made_equal(one: str, other: str) -> None:
    """A port to serve on, a revision of the model, the order of two options."""
    assert vllm(one).whole != vllm(other).whole


@pytest.mark.parametrize(
    ("kind", "line", "tokens"),
    [
        (ServerKind.VLLM, _VLLM, 32768),
        (ServerKind.VLLM, "vllm serve m --max-model-len 32k", 32_000),
        (ServerKind.VLLM, "vllm serve m --max-model-len=32K", 32_768),
        (ServerKind.VLLM, "vllm serve m --max-model-len auto", None),
        (ServerKind.VLLM, "vllm serve m --max-model-len -1", None),
        (ServerKind.VLLM, "vllm serve m", None),
        (ServerKind.LLAMA_CPP, "llama-server -m /models/x.gguf -c 4096", 4096),
        (ServerKind.LLAMA_CPP, "llama-server --ctx-size 0", None),
        (ServerKind.TENSORRT_LLM, "trtllm-serve serve m --max_seq_len 8192", 8192),
    ],
)
def test_the_context_is_told_in_tokens(kind: ServerKind, line: str, tokens: int | None) -> None:
    """As each server writes it; what is no number of tokens is unknown."""
    assert take_apart(kind, line.split()).context_tokens == tokens


def test_a_module_is_what_is_executed() -> None:
    """`python -m` names the server, and -m of llama.cpp a model."""
    module = vllm("python3 -m vllm.entrypoints.openai.api_server --model m")
    assert module.words[P.EXECUTABLE] == ("python3", "-m", "vllm.entrypoints.openai.api_server")
    assert module.words[P.MODEL] == ("--model", "m")
    llama = take_apart(ServerKind.LLAMA_CPP, ["llama-server", "-m", "/models/x.gguf"])
    assert llama.words[P.MODEL] == ("--m", "/models/x.gguf")


def test_of_rays_own_processes_the_options_alone_count() -> None:
    """Their values are addresses, sizes and names of one session."""
    one = take_apart(ServerKind.RAY, ["/x/raylet", "--session_dir=/a", "--node_ip_address=10.0.0.1", "--x=1"])
    other = take_apart(
        ServerKind.RAY, ["/x/raylet", "--session_dir=/b", "--node_ip_address=10.0.0.2", "--x=2"]
    )
    assert one.whole == other.whole
    assert one.whole != take_apart(ServerKind.RAY, ["/x/raylet", "--session_dir=/b"]).whole


@given(st.sampled_from(list(ServerKind)), st.lists(st.text(max_size=30), max_size=14))
def test_any_command_line_can_be_taken_apart(kind: ServerKind, arguments: list[str]) -> None:
    """Nothing raises, and the same line is the same again."""
    assert take_apart(kind, arguments) == take_apart(kind, arguments)
