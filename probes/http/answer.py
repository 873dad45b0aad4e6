"""One answer as it comes: its events and their times, its text measured, what it says of itself."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from probes.http.coding import Inflater, Opaque
from probes.http.content import Content
from probes.http.document import SMALL_BYTES, Document, loads
from probes.http.errors import kind_of
from probes.http.events import EventSplitter
from probes.http.facts import GAP_BOUNDS_S, Route
from probes.http.head import TO_THE_END, ResponseHead
from probes.http.json_walk import JsonWalk
from probes.http.shapes import read
from probes.http.template import Template, learn
from probes.http.watched import ANSWER

JUDGED: Final = frozenset(
    {
        Route.CHAT_COMPLETIONS,
        Route.COMPLETIONS,
        Route.RESPONSES,
        Route.MESSAGES,
        Route.OLLAMA_CHAT,
        Route.OLLAMA_GENERATE,
    }
)
_BY_DONE_ALONE: Final = frozenset({Route.OLLAMA_CHAT, Route.OLLAMA_GENERATE})
_GAP_BOUNDS_NS: Final = tuple(round(bound * 1e9) for bound in GAP_BOUNDS_S)
_WORDS_BYTES: Final = 512
_LINES: Final = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})


class Answer:
    """One response. `body` takes what the framing gives; an `EventTaker`."""

    __slots__ = (
        "_document",
        "_gaps",
        "_inflater",
        "_last_event_ns",
        "_pieces_wanted",
        "_splitter",
        "_template",
        "_to_the_end",
        "_words",
        "body_bytes",
        "chunks",
        "content",
        "first_byte_ns",
        "first_token_ns",
        "holed",
        "longest_gap_ns",
        "opaque",
        "route",
        "status",
        "streamed",
        "unreadable",
        "vague",
    )

    def __init__(self, head: ResponseHead, route: Route, at_ns: int) -> None:
        self.status = head.status
        self.route = route
        self.first_byte_ns = at_ns
        self.body_bytes = 0
        self.holed = False  # bytes of the body are missing
        self.vague = False  # so that its size or its end is not certain
        self.opaque = False  # a coding that cannot be looked into
        self.unreadable = False  # a body that ends with the connection and is not the JSON that it began as
        self.chunks = 0
        self.first_token_ns: int | None = None
        self.longest_gap_ns = 0
        self.content = Content(head.status)
        self._gaps: list[int] | None = None
        self._last_event_ns: int | None = None
        self._template: Template | None = None
        self._to_the_end = head.body == TO_THE_END
        media = head.headers.content_type
        self._inflater: Inflater | None = None
        self._splitter: EventSplitter | None = None
        self._document: Document | None = None
        self._words: bytes | None = None
        self._pieces_wanted = True  # what it is shows in its first bytes
        self.streamed = media == "text/event-stream" or media in _LINES
        if head.headers.encoding not in ("", "identity"):
            try:
                self._inflater = Inflater(head.headers.encoding)
            except Opaque:
                self.opaque = True
        if media and media != "text/plain":
            self._choose(media)

    @property
    def held_bytes(self) -> int:
        """Bytes that wait for more."""
        held = self.content.held_bytes + len(self._words or b"")
        for part in (self._splitter, self._document):
            held += part.held_bytes if part is not None else 0
        return held

    @property
    def gaps(self) -> tuple[int, ...]:
        """How many gaps between events fell into each bucket."""
        return tuple(self._gaps) if self._gaps is not None else ()

    @property
    def terminated(self) -> bool:
        """Whether a stream that is whole as HTTP also said that it is done."""
        if self.status >= 400 or self.route not in JUDGED:
            return True
        if not self.streamed:
            return not self.unreadable
        content = self.content
        return content.done and (self.route in _BY_DONE_ALONE or content.finish.value != "none")

    @property
    def said_all(self) -> bool:
        """Whether a stream said that it is done, whatever came after."""
        return self.streamed and self.status < 400 and self.content.done

    @property
    def said_nothing(self) -> bool:
        """Whether there was neither an answer nor an error, where there should be one."""
        content = self.content
        return self.route in JUDGED and self.status < 400 and not content.answers and content.error is None

    def body(self, data: bytes, at_ns: int) -> None:
        """Take the next bytes of the body."""
        self.body_bytes += len(data)
        if self._inflater is None:
            splitter = self._splitter
            if splitter is not None:
                splitter.feed(data, at_ns)
            else:
                self._take(data, at_ns)
            return
        try:
            for piece in self._inflater.feed(data):
                self._take(piece, at_ns)
        except Opaque:
            self.opaque = True
            self._forget()

    def hole(self, size: int) -> None:
        """Hear of missing bytes: what follows them is not looked into."""
        self.holed = True
        self.vague = self.vague or size < 0
        self.body_bytes += max(0, size)
        self._forget()

    def end(self, at_ns: int, *, whole: bool) -> None:
        """The answer is over, whole or not."""
        if self._splitter is not None:
            self._splitter.finish(at_ns)
        elif self._document is not None:
            self.content.begin_object()
            value = self._document.finish()
            self.unreadable = self._to_the_end and value is None
            read(self.content, value, status=self.status)
        if whole and self.status >= 400 and self.content.error is None:
            text = (self._words or b"").decode("utf-8", "replace")
            self.content.error = kind_of(self.status, None, text)
        self._forget()

    def event(self, payload: bytes, at_ns: int) -> None:
        """See EventTaker."""
        template = self._template
        if template is not None:
            text = template.text_of(payload)
            if text is not None:
                self._count_event(at_ns)
                self.content.text(template.passage, text)
                return
        self._parse(payload, at_ns)

    def begin_large(self) -> JsonWalk:
        """See EventTaker."""
        self.content.begin_object()
        return JsonWalk(ANSWER, self.content)

    def finish_large(self, walk: JsonWalk, at_ns: int) -> None:
        """See EventTaker."""
        self._count_event(at_ns)
        read(self.content, walk.value if walk.whole else None, status=self.status)
        self._see(at_ns)

    def _parse(self, payload: bytes, at_ns: int) -> None:
        content = self.content
        content.begin_object()
        if payload.strip() == b"[DONE]":
            content.done = True
            return
        self._count_event(at_ns)
        read(content, loads(payload), status=self.status)
        self._see(at_ns)
        if content.texts == 1 and not content.extras:
            self._template = learn(payload, content.last_passage)

    def _see(self, at_ns: int) -> None:
        if self.first_token_ns is None and self.content.texts:
            self.first_token_ns = at_ns

    def _count_event(self, at_ns: int) -> None:
        self.chunks += 1
        last, self._last_event_ns = self._last_event_ns, at_ns
        if last is None:
            return
        gaps = self._gaps
        if gaps is None:
            gaps = self._gaps = [0] * (len(_GAP_BOUNDS_NS) + 1)
        gap = at_ns - last
        self.longest_gap_ns = max(self.longest_gap_ns, gap)
        gaps[bisect_left(_GAP_BOUNDS_NS, gap)] += 1

    def _take(self, data: bytes, at_ns: int) -> None:
        if self._pieces_wanted:
            self._choose(_guess(data))
        if self._splitter is not None:
            self._splitter.feed(data, at_ns)
        elif self._document is not None:
            self._document.feed(data)
            if self.route not in JUDGED and self.body_bytes > SMALL_BYTES:
                self._document = None  # embeddings are long and nobody judges them
        elif self._words is not None:
            self._words = (self._words + data)[:_WORDS_BYTES]

    def _choose(self, media: str) -> None:
        """Decide how the body is read."""
        self._pieces_wanted = False
        if self.opaque:
            return
        if self.route in JUDGED and (media == "text/event-stream" or media in _LINES):
            self.streamed = True
            self._splitter = EventSplitter(self, lines=media in _LINES)
        elif (self.route is not Route.OTHER or self.status >= 400) and media.endswith("json"):
            self._document = Document(ANSWER, self.content)
        elif self.status >= 400:
            self._words = b""

    def _forget(self) -> None:
        self._splitter = self._document = self._inflater = self._words = self._template = None
        self._pieces_wanted = False
        if self.holed:
            self.content = Content(self.status)


def _guess(data: bytes) -> str:
    """Guess what a body without a content type is by how it begins."""
    begun = data.lstrip()[:6]
    if begun and any(
        begun.startswith(name) or name.startswith(begun) for name in (b"data:", b"event:", b":")
    ):
        return "text/event-stream"
    return "application/json" if begun[:1] in (b"{", b"[") else "text/plain"
