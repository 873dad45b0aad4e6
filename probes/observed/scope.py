"""What is seen of declared scopes and of command lines: breaches, and servers by the prints of theirs."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from probes.origin import Instant, Origin, SensorName


class BreachKind(enum.StrEnum):
    """Which sort of thing a scope does not allow."""

    EXECUTABLE = "executable"
    DESTINATION = "destination"
    LISTENER = "listener"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeBreached:
    """`count` breaches of one sort by a declared scope; who and where is of the last of them.

    `executable` is the last component of a path, `address` and `port` are of a destination or a listener.
    """

    sensor: SensorName
    at: Instant
    origin: Origin
    scope: str
    kind: BreachKind
    executable: str = ""
    address: str = ""
    port: int = 0
    count: int = 1
    denied: bool = False


class SecretOption(enum.StrEnum):
    """Where on a command line a secret stands. A closed list: what stands there is never told."""

    API_KEY = "--api-key"
    AUTH_TOKEN = "--auth-token"  # noqa: S105 -- names of options
    HF_TOKEN = "--hf-token"  # noqa: S105
    TOKEN = "--token"  # noqa: S105
    PASSWORD = "--password"  # noqa: S105
    SECRET = "--secret"  # noqa: S105
    MASTER_KEY = "--master-key"
    ACCESS_KEY = "--access-key"
    PRIVATE_KEY = "--private-key"
    HF_TOKEN_VARIABLE = "HF_TOKEN="  # noqa: S105
    KEY_VARIABLE = "..._KEY="
    TOKEN_VARIABLE = "..._TOKEN="  # noqa: S105
    SECRET_VARIABLE = "..._SECRET="  # noqa: S105
    PASSWORD_VARIABLE = "..._PASSWORD="  # noqa: S105
    ADDRESS_WITH_PASSWORD = "://user:...@"  # noqa: S105
    AUTHORIZATION = "Authorization:"


class CommandPart(enum.StrEnum):
    """The parts of a server's command line that are told apart."""

    MODEL = "model"
    CONTEXT = "context"
    QUANTIZATION = "quantization"
    PARSER = "parser"
    MEMORY = "memory"
    PARALLELISM = "parallelism"
    ADDRESS = "address"
    EXECUTABLE = "executable"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class PartPrint:
    """The keyed print of one part, empty where the command line says nothing of it."""

    part: CommandPart
    print: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """One server's process, known by prints of its command line with a key that never leaves the host.

    `print` is of all of it, secrets left out; `parts` are of what is told apart, in the order of CommandPart.
    `context_tokens` is None where the command line does not say. A process that is no server and was only
    looked at for secrets has no print.
    """

    origin: Origin
    started: Instant
    port: int
    print: str
    parts: tuple[PartPrint, ...] = ()
    context_tokens: int | None = None
    scope: str = ""
    secrets: tuple[SecretOption, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLines:
    """Every server, and every process of a declared scope, that runs now.

    `key` names the key of the prints: prints of different keys cannot be compared. `complete` is False where
    there were more than are looked at. `accepted` are the servers whose change a person has accepted since
    the last time: a unit's name, or kind and port.
    """

    sensor: SensorName
    at: Instant
    key: str
    lines: tuple[CommandLine, ...]
    complete: bool
    accepted: tuple[str, ...] = ()
