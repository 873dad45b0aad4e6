"""A server's command line taken apart: what it serves, with how much, in which way, and where.

Pure. What differs from start to start without meaning anything (temporary folders, UUIDs, ports that the
kernel chose) is made equal, and secrets are gone before anything else is looked at. The order is kept: the
later of two options counts with most servers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from probes.host.secret_words import HIDDEN, hide
from probes.observed.scope import CommandPart, SecretOption
from probes.origin import ServerKind

_NAMES: Mapping[CommandPart, str] = {
    CommandPart.MODEL: """a alias config draft-model hf hf-file hf-repo hff hfr lora lora-modules m md mmproj
        model model-path revision served-model-name speculative-config tokenizer""",
    CommandPart.CONTEXT: "c ctx-size max-input-len max-model-len max-seq-len",
    CommandPart.QUANTIZATION: """cache-type-k cache-type-v compute-type ctk ctv dtype kv-cache-dtype
        load-format q quantization""",
    CommandPart.PARSER: """chat-template chat-template-file chat-template-kwargs enable-auto-tool-choice
        enable-reasoning jinja reasoning-budget reasoning-format reasoning-parser tool-call-parser
        tool-parser""",
    CommandPart.MEMORY: """cpu-offload-gb fa flash-attn gpu-layers gpu-memory-utilization
        kv-cache-free-gpu-memory-fraction kv-cache-memory-bytes max-batch-size max-num-batched-tokens
        max-num-seqs max-num-tokens mlock n-cpu-moe n-gpu-layers ncmoe ngl no-mmap swap-space""",
    CommandPart.PARALLELISM: """data-parallel-size distributed-executor-backend dp enable-expert-parallel
        ep-size nnodes np num-workers parallel pipeline-parallel-size pp pp-size sm split-mode
        tensor-parallel-size tensor-split tp tp-size ts workers""",
    CommandPart.ADDRESS: "b bind host port root-path uds",
}
_PART_OF = {name: part for part, names in _NAMES.items() for name in names.split()}
_RUNNERS = re.compile(r"(?:python[0-9.]*|uvicorn|gunicorn|hypercorn|mpirun|sh|bash|env)")
_SUBCOMMANDS = frozenset({"serve", "start", "server"})
_TEMPORARY = re.compile(r"(?:/var/tmp|/tmp|/dev/shm|/run/user/[0-9]+)(?:/[^\s,:;\"']*)?")
_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)
_CHOSEN_PORT = re.compile(
    r"(?<![0-9])(?:3[3-9][0-9]{3}|32[89][0-9]{2}|327[7-9][0-9]|3276[89]|[4-6][0-9]{4})(?![0-9])"
)
_NEGATIVE = re.compile(r"-[0-9.]+")
_COUNT = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,6})?)(?P<unit>[kKmMgG]?)")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}  # as vLLM reads them
_TOKENS_MAX = 1 << 40


@dataclass(frozen=True, slots=True)
class CommandParts:
    """A command line without its secrets: the words of each part, in order, and what can be told of it."""

    words: Mapping[CommandPart, tuple[str, ...]]
    context_tokens: int | None
    secrets: tuple[SecretOption, ...]

    @property
    def whole(self) -> tuple[str, ...]:
        """Every word, part by part."""
        return tuple(word for part in CommandPart for word in (f"[{part}]", *self.words.get(part, ())))


def take_apart(kind: ServerKind, arguments: Sequence[str]) -> CommandParts:
    """Return the parts of a server's command line."""
    plain, secrets = hide(arguments)
    head, rest = _head(plain)
    words: dict[CommandPart, list[str]] = {CommandPart.EXECUTABLE: [_steady(word) for word in head]}
    context: int | None = None
    at = 0
    while at < len(rest):
        name, equals, value = rest[at].partition("=")
        at += 1
        if not name.startswith("-") or _NEGATIVE.fullmatch(name):
            served = at == 1 and head[-1:] and head[-1] in _SUBCOMMANDS
            part = CommandPart.MODEL if served else CommandPart.OTHER
            words.setdefault(part, []).append(_steady(rest[at - 1]))
            continue
        plain_name = name.lstrip("-").replace("_", "-")
        values = [value] if equals else []
        while not equals and at < len(rest) and _is_value(rest[at], values):
            values.append(rest[at])
            at += 1
        part = _PART_OF.get(plain_name, CommandPart.OTHER)
        if kind is ServerKind.RAY:  # of Ray's own processes every value is of one session
            values = []
        if part is CommandPart.CONTEXT and values:
            context = _tokens(values[0])
        chosen = "port" in plain_name or "addr" in plain_name
        steady = (_steady(word, ports=chosen and part is not CommandPart.ADDRESS) for word in values)
        words.setdefault(part, []).extend((f"--{plain_name}", *steady))
    return CommandParts({part: tuple(found) for part, found in words.items()}, context, secrets)


def _head(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split off what is executed: a program, or an interpreter with its script or module; a subcommand."""
    head = list(arguments[:1])
    at = 1
    if head and _RUNNERS.fullmatch(head[0].rpartition("/")[2]):
        while at < len(arguments) and arguments[at].startswith("-"):
            head.append(arguments[at])
            at += 1
            if head[-1] == "-m":
                break
        head += arguments[at : at + 1]
        at += 1
    if at < len(arguments) and arguments[at] in _SUBCOMMANDS:
        head.append(arguments[at])
        at += 1
    return head, list(arguments[at:])


def _is_value(word: str, before: list[str]) -> bool:
    """Whether a word belongs to the option before it; several do with some options."""
    if word.startswith("-") and not _NEGATIVE.fullmatch(word):
        return False
    return not before or word == HIDDEN or before[0] != HIDDEN


def _steady(word: str, *, ports: bool = False) -> str:
    word = _UUID.sub(HIDDEN, _TEMPORARY.sub("/tmp/*", word))  # noqa: S108 - what stands for all of them
    return _CHOSEN_PORT.sub(HIDDEN, word) if ports else word


def _tokens(text: str) -> int | None:
    match = _COUNT.fullmatch(text)
    if match is None:
        return None
    tokens = int(float(match["number"]) * _UNITS[match["unit"]])
    return tokens if 0 < tokens <= _TOKENS_MAX else None
