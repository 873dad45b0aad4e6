"""What a request asks for, found at its depth and nowhere else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from probes.http.facts import MODEL_BYTES, ExchangeFacts, Route
from tests.probes.http.wire import Wire, chunk, observe, post, response

ANSWER = response(
    b'{"model":"from the answer","choices":[{"message":{"content":"x"},"finish_reason":"stop"}]}'
)
LONG = "word " * 4000


def asked(request: bytes, *, head: int | None = None, tail: int = 1024) -> ExchangeFacts:
    """The facts; with `head`, only so many bytes of the request and its tail are captured."""
    wire = Wire()
    if head is None:
        wire.client(request)
    else:
        wire.client(request[:head], skipped=len(request) - head - tail).client(request[-tail:])
    return observe(wire.server(ANSWER).segments).one


def chat_of(**members: Any) -> bytes:
    return post("/v1/chat/completions", json.dumps(members).encode())


@pytest.mark.parametrize("head", [None, 600, 4096])
@pytest.mark.parametrize("first", ["messages", "model"])
def test_members_are_found_in_front_of_and_behind_a_long_prompt(head: int | None, first: str) -> None:
    """Clients differ in their order; of a long request only both ends are captured."""
    prompt = {"messages": [{"role": "user", "content": LONG}]}
    rest = {"model": "qwen3-32b", "stream": False, "max_completion_tokens": 77, "tools": [{"type": "x"}]}
    members = prompt | rest if first == "messages" else rest | prompt
    request = chat_of(**members)
    facts = asked(request, head=head)
    assert (facts.name.model, facts.stream_asked) == ("qwen3-32b", False)
    assert (facts.max_tokens, facts.tools_asked) == (77, True)
    assert facts.request_bytes == len(request) - request.index(b"\r\n\r\n") - 4


SPOOFS = [
    '"model":"fake"',
    '","model":"fake","stream":true,"x":"',
    '"}],"model":"fake","stream":true}',
    "HTTP/1.1 200 OK\r\n\r\n",
    "POST /v1/completions HTTP/1.1\r\n\r\n",
    "data: [DONE]\n\n",
    '\\",\\"model\\":\\"fake\\"',
]


@pytest.mark.parametrize("spoof", SPOOFS)
@pytest.mark.parametrize("length", [1, 900, 5000])
@pytest.mark.parametrize("head", [None, 500])
def test_a_prompt_cannot_pass_for_members(spoof: str, length: int, head: int | None) -> None:
    """Whole, walked, or seen at its ends alone."""
    text = (spoof + " ") * length
    request = chat_of(model="qwen3-32b", messages=[{"role": "user", "content": text}])
    if head is not None and len(request) < 2000:
        head = None
    facts = asked(request, head=head)
    assert facts.name.route is Route.CHAT_COMPLETIONS
    assert facts.name.model == "qwen3-32b"
    assert facts.stream_asked in (False, None)


@pytest.mark.parametrize("copies", [1, 60])
@pytest.mark.parametrize("head", [None, 300])
def test_a_schema_cannot_pass_for_members(copies: int, head: int | None) -> None:
    """A tool may have parameters that are called model and stream."""
    schema = {"type": "object", "properties": {"model": {"type": "string"}, "stream": True, "max_tokens": 3}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}] * copies
    request = chat_of(tools=tools, metadata={"model": "fake", "stream": True}, messages=[])
    facts = asked(request, head=head if copies > 10 else None)
    assert facts.name.model == "from the answer"
    assert facts.stream_asked in (False, None)
    assert facts.max_tokens is None
    assert facts.tools_asked in (True, None)


@given(st.text(max_size=60).map(lambda text: text * 60), st.integers(0, 400), st.booleans())
def test_no_prompt_changes_what_the_tail_says(text: str, at: int, ascii_only: bool) -> None:
    """Wherever the capture begins again, the end says the truth or nothing."""
    body = json.dumps(
        {"messages": [{"role": "user", "content": text}], "model": "m", "stream": True},
        ensure_ascii=ascii_only,
    ).encode("utf-8", "surrogatepass")
    request = post("/v1/chat/completions", body)
    head = len(request) - len(body) + 20
    tail = min(len(request) - head - 1, 1 + at)
    wire = (
        Wire()
        .client(request[:head], skipped=len(request) - head - tail)
        .client(request[len(request) - tail :])
    )
    facts = observe(wire.server(ANSWER).segments).one
    assert facts.name.model in ("m", "from the answer")
    assert facts.stream_asked in (True, None)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/chat/completions", Route.CHAT_COMPLETIONS),
        ("/chat/completions?api-version=1", Route.CHAT_COMPLETIONS),
        ("/openai/deployments/x/chat/completions", Route.CHAT_COMPLETIONS),
        ("/api/v1/chat/completions/", Route.CHAT_COMPLETIONS),
        ("http://node:8000/v1/chat/completions", Route.CHAT_COMPLETIONS),
        ("/engines/m/completions", Route.COMPLETIONS),
        ("/openai/v1/completions", Route.COMPLETIONS),
        ("/v1/responses", Route.RESPONSES),
        ("/v1/messages", Route.MESSAGES),
        ("/v1/threads/t/messages", Route.OTHER),
        ("/v1/embeddings", Route.EMBEDDINGS),
        ("/v2/rerank", Route.RERANK),
        ("/v1/audio/transcriptions", Route.TRANSCRIPTIONS),
        ("/v1/audio/speech", Route.SPEECH),
        ("/api/chat", Route.OLLAMA_CHAT),
        ("/api/generate", Route.OLLAMA_GENERATE),
        ("/api/embed", Route.OLLAMA_EMBED),
        ("/api/embeddings", Route.OLLAMA_EMBED),
        ("/v1/users/alice@example.org", Route.OTHER),
        ("/", Route.OTHER),
        ("*", Route.OTHER),
    ],
)
def test_paths_become_routes_of_an_allow_list(path: str, route: Route) -> None:
    """With the prefixes that servers and gateways put before them."""
    assert asked(post(path, b"{}")).name.route is route


@pytest.mark.parametrize(
    ("body", "bound"),
    [
        (b'{"max_tokens":5}', 5),
        (b'{"max_tokens":5,"max_completion_tokens":6}', 6),
        (b'{"max_output_tokens":7}', 7),
        (b'{"num_predict":8}', 8),
        (b'{"options":{"num_predict":9}}', 9),
        (b'{"options":{"num_predict":-1}}', None),
        (b'{"max_tokens":"5"}', None),
        (b'{"max_tokens":true}', None),
        (b"[1,2]", None),
        (b"no json", None),
    ],
)
def test_the_bound_on_tokens_has_many_names(body: bytes, bound: int | None) -> None:
    """And -1 means none."""
    assert asked(post("/v1/chat/completions", body)).max_tokens == bound


def test_what_is_not_asked_for_is_known_only_of_a_whole_request() -> None:
    """Absence in what was captured is no absence."""
    whole = asked(chat_of(model="m", messages=[]))
    assert (whole.stream_asked, whole.tools_asked) == (False, False)
    part = asked(chat_of(messages=[{"content": LONG}], model="m"), head=400)
    assert (part.stream_asked, part.tools_asked, part.name.model) == (None, None, "m")


def test_ollama_streams_unless_it_is_told_not_to() -> None:
    """Its own routes have another default."""
    assert asked(post("/api/chat", b'{"model":"m"}')).stream_asked is True
    assert asked(post("/api/chat", b'{"model":"m","stream":false}')).stream_asked is False


@pytest.mark.parametrize("before", [0, 3000, 50_000])
def test_a_form_names_its_model_in_a_field(before: int) -> None:
    """Uploads of audio are multipart, with the file before or behind."""
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        b"Content-Type: audio/wav\r\n\r\n"
        + b"\x00\xff" * (before // 2)
        + b'\r\n--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-large\r\n--b--\r\n'
    )
    request = post("/v1/audio/transcriptions", body, content_type="multipart/form-data; boundary=b")
    for head in (None, 600) if before > 10_000 else (None,):
        assert asked(request, head=head).name.model == "whisper-large"


def test_a_chunked_request_is_read_too() -> None:
    """As Node sends it; across a hole its end is not trusted, and the answer is still judged."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b'{"model":"m","stream":true}'
    assert asked(head + chunk(body[:9]) + chunk(body[9:]) + b"0\r\n\r\n").name.model == "m"
    holed = Wire().client(head + b"2000\r\n" + body, skipped=9000).client(b'"model":"x"}\r\n0\r\n\r\n')
    assert observe(holed.server(ANSWER).segments).one.name.model == "m"


def test_a_models_name_is_cut() -> None:
    """It is the one string that is kept, and it comes from outside."""
    model = asked(chat_of(model="é" * 500)).name.model
    assert model == "é" * (MODEL_BYTES // 2)
    assert asked(chat_of(model=7)).name.model == "from the answer"
    assert asked(chat_of(model="")).name.model == "from the answer"
