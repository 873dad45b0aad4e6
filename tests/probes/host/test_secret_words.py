"""Secrets on a command line: found by their words, never kept, and placeholders are none."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from probes.host.secret_words import hide
from probes.observed.scope import SecretOption as S
from tests.security.properties import security_property

_CANARY = "nbcanary-7f3a91"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("vllm", "serve", "m", "--api-key", _CANARY), S.API_KEY),
        (("vllm", "serve", "m", f"--api-key={_CANARY}"), S.API_KEY),
        (("vllm", "serve", "m", "--api_key", _CANARY), S.API_KEY),
        (("vllm", "serve", "m", "--api-key", "dummy", _CANARY), S.API_KEY),
        (("x", "--openai-api-key", _CANARY), S.API_KEY),
        (("x", "--hf-token", _CANARY), S.HF_TOKEN),
        (
            (
                "x",
                "--hf_token=" + _CANARY,
            ),
            S.HF_TOKEN,
        ),
        (("x", "--token", _CANARY), S.TOKEN),
        (("x", "--password", _CANARY), S.PASSWORD),
        (("x", "--redis-password", _CANARY), S.PASSWORD),
        (("x", "--master-key", _CANARY), S.MASTER_KEY),
        (("env", f"HF_TOKEN={_CANARY}", "vllm"), S.HF_TOKEN_VARIABLE),
        (("docker", "run", "-e", f"OPENAI_API_KEY={_CANARY}"), S.KEY_VARIABLE),
        (("x", f"PGPASSWORD={_CANARY}"), S.PASSWORD_VARIABLE),
        (("x", f"GITHUB_TOKEN={_CANARY}"), S.TOKEN_VARIABLE),
        (("litellm", "--database", f"postgresql://litellm:{_CANARY}@db:5432/l"), S.ADDRESS_WITH_PASSWORD),
        (("x", f"redis://:{_CANARY}@127.0.0.1"), S.ADDRESS_WITH_PASSWORD),
        (("curl", "-H", f"Authorization: Bearer {_CANARY}"), S.AUTHORIZATION),
        (("curl", "-H", f"authorization:{_CANARY}"), S.AUTHORIZATION),
        (("sh", "-c", f"exec vllm serve m --api-key {_CANARY} --port 1"), S.API_KEY),
        (("sh", "-c", f"HF_TOKEN={_CANARY} exec vllm serve m"), S.HF_TOKEN_VARIABLE),
        (("vllm", "--speculative-config", f'{{"model": "m", "api_key": "{_CANARY}"}}'), S.API_KEY),
    ],
)
def test_a_secret_is_told_by_its_word_alone(arguments: tuple[str, ...], word: S) -> None:
    """One word of the closed list, and the value is gone."""
    hidden, words = hide(arguments)
    assert words == (word,)
    assert _CANARY not in " ".join(hidden)
    assert len(hidden) == len(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("vllm", "serve", "m", "--api-key", "dummy"),
        ("vllm", "serve", "m", "--api-key", "EMPTY"),
        ("vllm", "serve", "m", "--api-key=none"),
        ("vllm", "serve", "m", "--api-key", "token-abc123"),
        ("litellm", "--api-key", "os.environ/KEY"),
        ("x", "--token", "$HF_TOKEN"),
        ("x", "--password", "/run/secrets/password"),
        ("x", "--api-key", "****"),
        ("x", "--api-key"),
        ("x", "--api-key", "--port", "80"),
        ("x", "--api-key-file", _CANARY),
        ("x", "--tokenizer", "Qwen/Qwen3"),
        ("x", "--max-tokens", "100"),
        ("x", "--stop-token", "</s>"),
        ("x", "postgresql://litellm@db/l"),
        ("x", "postgresql://litellm:$PASSWORD@db/l"),
        ("x", "http://127.0.0.1:8000/v1"),
        ("x", "HF_TOKEN="),
        ("x", "KEYS=3"),
        ("x", "--override", '{"max_model_len": "4096"}'),
    ],
)
def test_what_stands_for_no_secret_is_quiet(arguments: tuple[str, ...]) -> None:
    """Documented dummies, variables, paths, and options that only sound like it."""
    assert hide(arguments)[1] == ()


@given(st.lists(st.text(max_size=40), max_size=12))
def test_any_command_line_can_be_looked_at(arguments: list[str]) -> None:
    """As many arguments come out as went in, and looking again finds nothing more."""
    hidden, _ = hide(arguments)
    assert len(hidden) == len(arguments)
    assert hide(hidden)[1] == ()


@given(
    st.sampled_from(["--api-key", "--token", "--password", "--hf-token", "--master-key", "--client-secret"]),
    st.from_regex(r"[A-Za-z0-9]{12,40}", fullmatch=True),
    st.booleans(),
)
@security_property(
    "H32", "A secret of a command line leaves its option as a word, and no character of its value."
)
def test_no_value_survives(option: str, value: str, joined: bool) -> None:
    """Whatever its characters, in either notation, alone or inside a script."""
    arguments = [f"{option}={value}"] if joined else [option, value]
    for line in ([*arguments, "--port", "80"], ["-c", " ".join(["exec", "x", *arguments])]):
        hidden, words = hide(line)
        assert words
        assert value not in " ".join(hidden).replace(option, "")
