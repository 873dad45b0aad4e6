"""What a request asks for: model, stream, tools, the bound on tokens; and how large it is.

Clients order the members as they like, and the official ones put `messages` before `model` and `stream`; of a
long request only its beginning and its end are captured. So both are read, by the depth of a member and not
by a search for its name: neither a prompt nor the schema of a tool can pass for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from probes.http.document import Document
from probes.http.facts import MODEL_BYTES, Route
from probes.http.head import RequestHead
from probes.http.json_walk import Watch, members_at_the_end

_LEAF: Final = Watch()
_BOUNDS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens", "num_predict")
_WATCH: Final = Watch(
    members={
        "model": _LEAF,
        "stream": _LEAF,
        "tools": Watch(elements=_LEAF),
        "options": Watch(members={"num_predict": _LEAF}),
        **dict.fromkeys(_BOUNDS, _LEAF),
    }
)
_TAIL_BYTES: Final = 2048
_FORM_BYTES: Final = 2048
_FORM_MODEL: Final = re.compile(
    rb'content-disposition:[^\r\n]*\bname="?model"?[ \t]*(?:;[^\r\n]*)?\r?\n'
    rb"(?:[^\r\n]+\r?\n)*\r?\n([^\r\n]{1,200})\r?\n",
    re.IGNORECASE,
)
_STREAMS_BY_DEFAULT: Final = frozenset({Route.OLLAMA_CHAT, Route.OLLAMA_GENERATE})


class Request:
    """One request's content. Nothing of it is kept but the members that are watched."""

    __slots__ = ("_document", "_form", "_holed", "_members", "_tail", "body_bytes", "route")

    def __init__(self, head: RequestHead) -> None:
        self.route = head.route
        self.body_bytes = 0
        self._members: Mapping[str, Any] = {}
        self._holed = False
        self._tail: bytes | None = None
        looked_into = head.route is not Route.OTHER and not head.headers.encoding
        self._form: bytes | None = b"" if looked_into and head.headers.boundary else None
        self._document = Document(_WATCH) if looked_into and self._form is None else None

    @property
    def held_bytes(self) -> int:
        """Bytes that wait for more."""
        held = len(self._tail or b"") + len(self._form or b"")
        return held + (self._document.held_bytes if self._document is not None else 0)

    def body(self, data: bytes) -> None:
        """Take the next bytes."""
        self.body_bytes += len(data)
        if self._form is not None:
            self._of_form(data)
        elif self._tail is not None:
            self._tail = (self._tail + data)[-_TAIL_BYTES:]
        elif self._document is not None:
            self._document.feed(data)

    def hole(self, size: int) -> None:
        """Go on behind a hole: what comes now is only good for its end."""
        self._holed = True
        self.body_bytes += max(0, size)
        if self._form is not None:
            self._form = b""
        elif self._document is not None:
            self._document.walk()
            self._tail = b"" if size >= 0 else None
            if size < 0:
                self._settle(self._document.so_far(), whole=False)
                self._document = None

    def end(self) -> None:
        """The request is whole."""
        document, tail = self._document, self._tail
        self._document = self._tail = self._form = None
        if document is None:
            return
        if tail is None:
            self._settle(document.finish(), whole=True)
        else:
            head = document.so_far()
            members = members_at_the_end(tail)
            self._settle({**head, **members} if isinstance(head, dict) else members, whole=False)

    def drop(self) -> None:
        """Keep what is known and take no more: its answer is over."""
        if self._document is not None:
            self._settle(self._document.so_far(), whole=False)
        self._document = self._tail = self._form = None

    @property
    def model(self) -> str | None:
        """The model that is asked for."""
        members = self._members
        if self._document is not None:
            so_far = self._document.so_far()
            members = so_far if isinstance(so_far, dict) else members
        return model_name(members.get("model"))

    @property
    def stream(self) -> bool | None:
        """Whether a stream is asked for; None is unknown."""
        value = self._members.get("stream")
        return value if isinstance(value, bool) else None

    @property
    def tools(self) -> bool | None:
        """Whether any tool is offered."""
        value = self._members.get("tools")
        return bool(value) if isinstance(value, list | bool) else None

    @property
    def max_tokens(self) -> int | None:
        """The bound on what may be generated; None is unknown or none."""
        options = self._members.get("options")
        inner = options.get("num_predict") if isinstance(options, dict) else None
        for value in (*(self._members.get(name) for name in _BOUNDS), inner):
            if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 53:
                return value
        return None

    def _of_form(self, data: bytes) -> None:
        assert self._form is not None
        self._form += data
        while self._form is not None:
            found = _FORM_MODEL.search(self._form, 0, 2 * _FORM_BYTES)
            if found is not None:
                self._members = {"model": found[1].decode("utf-8", "replace")}
                self._form = None
            elif len(self._form) > 2 * _FORM_BYTES:
                self._form = self._form[_FORM_BYTES:]
            else:
                return

    def _settle(self, value: Any, *, whole: bool) -> None:
        """Keep the watched members alone; what a whole request does not say, it does not ask for."""
        if not isinstance(value, dict):
            return
        kept = {name: value[name] for name in ("model", "stream", *_BOUNDS) if name in value}
        options = value.get("options")
        if isinstance(options, dict):
            kept["options"] = {"num_predict": options.get("num_predict")}
        tools = value.get("tools")
        if whole or isinstance(tools, list):
            kept["tools"] = bool(tools)
        if whole and not isinstance(kept.get("stream"), bool):
            kept["stream"] = self.route in _STREAMS_BY_DEFAULT
        kept["model"] = model_name(kept.get("model"))
        self._members = kept


def model_name(value: object) -> str | None:
    """Return a model's name cut to `MODEL_BYTES`, None for what is none."""
    if not isinstance(value, str) or not value:
        return None
    return value.encode("utf-8", "replace")[:MODEL_BYTES].decode("utf-8", "ignore")
