"""Secrets on a command line: which words carry them, and which values are none.

Every user of a host can read /proc/PID/cmdline. What is found is told by a word of a closed list; the value,
its length and its hash are nobody's business. A value that stands for no secret is quiet: what servers and
their clients document as a dummy, the name of a variable, a path of a file that holds the secret.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from probes.observed.scope import SecretOption

HIDDEN = "*"

_OPTIONS = {
    "access-key": SecretOption.ACCESS_KEY,
    "access-token": SecretOption.AUTH_TOKEN,
    "api-key": SecretOption.API_KEY,
    "api-token": SecretOption.AUTH_TOKEN,
    "auth-token": SecretOption.AUTH_TOKEN,
    "bearer-token": SecretOption.AUTH_TOKEN,
    "client-secret": SecretOption.SECRET,
    "encryption-key": SecretOption.PRIVATE_KEY,
    "hf-token": SecretOption.HF_TOKEN,
    "huggingface-token": SecretOption.HF_TOKEN,
    "master-key": SecretOption.MASTER_KEY,
    "passwd": SecretOption.PASSWORD,
    "password": SecretOption.PASSWORD,
    "private-key": SecretOption.PRIVATE_KEY,
    "salt-key": SecretOption.PRIVATE_KEY,
    "secret": SecretOption.SECRET,
    "secret-key": SecretOption.SECRET,
    "token": SecretOption.TOKEN,
}
_ENDINGS = (("-api-key", SecretOption.API_KEY), ("-password", SecretOption.PASSWORD))
_VARIABLES = (
    ("KEY", SecretOption.KEY_VARIABLE),
    ("TOKEN", SecretOption.TOKEN_VARIABLE),
    ("SECRET", SecretOption.SECRET_VARIABLE),
    ("PASSWORD", SecretOption.PASSWORD_VARIABLE),
)
_PLACEHOLDERS = frozenset(
    {
        "",
        "-",
        "0",
        "anything",
        "dummy",
        "empty",
        "fake",
        "false",
        "lm-studio",
        "local",
        "n/a",
        "na",
        "no-key",
        "no-key-required",
        "none",
        "not-needed",
        "not-required",
        "not-used",
        "null",
        "ollama",
        "placeholder",
        "sk-dummy",
        "sk-no-key-required",
        "token-abc123",  # of vLLM's documentation
        "true",
        "unused",
    }
)
_ASSIGNMENT = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9_]*)=(?P<value>.*)", re.DOTALL)
_URL = re.compile(r"(?P<before>[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s/:@\"']*:)(?P<value>[^\s/@\"']+)@")
_HEADER = re.compile(
    r"(?P<before>authorization\s*:\s*(?:bearer|basic|token)?\s*)(?P<value>\S+)", re.IGNORECASE
)
_MEMBER = re.compile(r"\"(?P<name>[A-Za-z_-]{3,40})\"\s*:\s*\"(?P<value>[^\"]*)\"")


def is_placeholder(value: str) -> bool:
    """Whether a value stands for no secret: a documented dummy, a variable, a path, or stars."""
    text = value.strip("\"' ")
    return (
        text.lower() in _PLACEHOLDERS
        or text.startswith(("$", "%", "@", "/", "./", "~/", "file:", "env:", "os.environ/", "<", "{{"))
        or not text.strip("*x.")
    )


def option_word(name: str) -> SecretOption | None:
    """Return the word for an option that carries a secret, however its dashes are written."""
    plain = name.lstrip("-").replace("_", "-").lower()
    found = _OPTIONS.get(plain)
    if found is not None:
        return found
    return next((word for ending, word in _ENDINGS if plain.endswith(ending)), None)


def hide(arguments: Sequence[str]) -> tuple[tuple[str, ...], tuple[SecretOption, ...]]:
    """Return the arguments with `*` in the place of every value that could be secret, and the words found.

    A placeholder is hidden as well, since putting a secret in its place changes nothing of the server.
    """
    hidden: list[str] = []
    words: set[SecretOption] = set()
    waiting: SecretOption | None = None
    for argument in arguments:
        if waiting is not None and not argument.startswith("-"):
            words |= _found(waiting, argument)
            hidden.append(HIDDEN)
            waiting = waiting if waiting is SecretOption.API_KEY else None  # vLLM takes several of these
            continue
        name, equals, value = argument.partition("=")
        waiting = option_word(name) if name.startswith("-") else None
        if waiting is not None and equals:
            words |= _found(waiting, value)
            hidden.append(f"{name}={HIDDEN}")
            waiting = None
        elif waiting is not None:
            hidden.append(argument)
        else:
            hidden.append(_inside(argument, words))
    return tuple(hidden), tuple(sorted(words))


def _inside(argument: str, words: set[SecretOption]) -> str:
    """Hide what stands inside one argument: assignments, addresses, headers, members of JSON, a script."""
    if any(space in argument for space in " \t\n") and "{" not in argument[:1]:
        parts = re.split(r"(\s+)", argument)
        if _HEADER.search(argument) is None and len(parts) > 2:
            texts = parts[::2]
            inner, found = hide(texts)
            words |= set(found)
            spaces = [*parts[1::2], ""]
            return "".join(text + space for text, space in zip(inner, spaces, strict=True))
    match = _ASSIGNMENT.fullmatch(argument)
    if match is not None and (word := _variable_word(match["name"])) is not None:
        words |= _found(word, match["value"])
        return f"{match['name']}={HIDDEN}"
    for pattern, word in ((_URL, SecretOption.ADDRESS_WITH_PASSWORD), (_HEADER, SecretOption.AUTHORIZATION)):
        for match in pattern.finditer(argument):
            words |= _found(word, match["value"])
        argument = pattern.sub(
            lambda match: match["before"] + HIDDEN + match[0][match.end("value") - match.start() :], argument
        )
    for match in _MEMBER.finditer(argument):
        member = option_word(match["name"])
        if member is not None:
            words |= _found(member, match["value"])
    return _MEMBER.sub(_without_value, argument)


def _without_value(match: re.Match[str]) -> str:
    return match[0] if option_word(match["name"]) is None else f'"{match["name"]}":"{HIDDEN}"'


def _variable_word(name: str) -> SecretOption | None:
    if name == "HF_TOKEN":
        return SecretOption.HF_TOKEN_VARIABLE
    if name != name.upper():
        return option_word(name)
    return next((word for ending, word in _VARIABLES if _ends(name, ending)), None)


def _ends(name: str, ending: str) -> bool:
    return name in {ending, f"PG{ending}"} or name.endswith(f"_{ending}")


def _found(word: SecretOption, value: str) -> set[SecretOption]:
    return set() if is_placeholder(value) else {word}
