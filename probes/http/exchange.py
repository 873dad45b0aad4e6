"""One request with its answer, and what may be said about it."""

from __future__ import annotations

from probes.http.answer import JUDGED, Answer
from probes.http.errors import kind_of
from probes.http.facts import (
    Ending,
    ExchangeFacts,
    RouteName,
    UnobservedReason,
)
from probes.http.head import RequestHead, ResponseHead
from probes.http.request import Request


class Exchange:
    """One exchange under way."""

    __slots__ = (
        "answer",
        "begun_ns",
        "cgroup_id",
        "doubted",
        "heard_ns",
        "method",
        "port",
        "request",
        "sure",
    )

    def __init__(self, *, head: RequestHead, port: int, cgroup_id: int, begun_ns: int) -> None:
        self.port = port
        self.cgroup_id = cgroup_id
        self.method = head.method
        self.request = Request(head)
        self.begun_ns = begun_ns
        self.heard_ns: int | None = None  # when the last byte of the answer came
        self.answer: Answer | None = None
        self.sure = True  # that the answer is to this request, whatever was lost
        self.doubted = False

    @property
    def held_bytes(self) -> int:
        """Bytes that wait for more."""
        return self.request.held_bytes + (self.answer.held_bytes if self.answer is not None else 0)

    @property
    def name(self) -> RouteName:
        """What it is judged with; the answer names the model where the request's name was not in sight."""
        model = self.request.model
        if model is None and self.answer is not None:
            model = self.answer.content.model
        return RouteName(self.port, self.request.route, model)

    def answered(self, head: ResponseHead, at_ns: int) -> None:
        """Begin its answer."""
        self.answer = Answer(head, self.request.route, at_ns)

    def finish(
        self, ending: Ending | None, at_ns: int, *, client_left: bool
    ) -> ExchangeFacts | UnobservedReason:
        """Say what is known, now that it is over. None as ending: it is whole, as HTTP sees it.

        This is the one place that decides whether an exchange was observed. Nothing is said about an answer
        that misses bytes, as every fact could be another with them (except where nobody looks into the answer
        anyway); nor about one in a coding that cannot be looked into, unless its status says that it is an
        error.

        Clients close at a stream's [DONE] without waiting for the end of the message: they have heard it all.
        Servers end in good order a message that nobody waits for any more: such an answer is not broken.
        """
        self.request.drop()
        answer = self.answer
        if self.doubted:
            return UnobservedReason.LOST
        if answer is None:
            return self._unanswered(ending or Ending.CUT, at_ns)
        unread = answer.status < 400 and answer.route not in JUDGED and ending is None and not answer.vague
        if answer.holed and not unread:
            return UnobservedReason.LOST
        answer.end(at_ns, whole=ending is None)
        if answer.opaque and answer.status < 400:
            return UnobservedReason.ENCODING
        if ending is Ending.CANCELLED and answer.said_all:
            ending = None
        if ending is None:
            ending = Ending.COMPLETE if answer.terminated else Ending.UNTERMINATED
            if client_left and not answer.said_all and (not answer.terminated or answer.said_nothing):
                ending = Ending.CANCELLED
        return self._facts(answer, ending, at_ns)

    def _unanswered(self, ending: Ending, at_ns: int) -> ExchangeFacts:
        request = self.request
        return ExchangeFacts(
            name=self.name,
            at_ns=at_ns,
            cgroup_id=self.cgroup_id,
            status=0,
            ending=ending,
            stream_asked=request.stream,
            tools_asked=request.tools,
            max_tokens=request.max_tokens,
            request_bytes=request.body_bytes,
            duration_s=_seconds(at_ns - self.begun_ns),
        )

    def _facts(self, answer: Answer, ending: Ending, at_ns: int) -> ExchangeFacts:
        request, content = self.request, answer.content
        error = content.error
        if error is None and answer.status >= 400:
            error = kind_of(answer.status, None)
        first_token = answer.first_token_ns
        said, thought = content.content.measure(), content.reasoning.measure()
        return ExchangeFacts(
            name=self.name,
            at_ns=at_ns,
            cgroup_id=self.cgroup_id,
            status=answer.status,
            ending=ending,
            finish=content.finish,
            error=error,
            error_in_answer=answer.status < 400 and error is not None,
            streamed=answer.streamed,
            stream_asked=request.stream,
            tools_asked=request.tools,
            max_tokens=request.max_tokens,
            request_bytes=request.body_bytes,
            response_bytes=answer.body_bytes,
            duration_s=_seconds(at_ns - self.begun_ns),
            first_byte_s=_seconds(answer.first_byte_ns - self.begun_ns),
            first_token_s=None if first_token is None else _seconds(first_token - self.begun_ns),
            longest_gap_s=_seconds(answer.longest_gap_ns),
            gaps=answer.gaps,
            chunks=answer.chunks,
            choices_seen=content.answers > 0,
            content_characters=content.content.characters,
            reasoning_characters=content.reasoning.characters,
            tool_calls=content.tool_calls,
            tool_calls_valid=content.calls_valid,
            reasoning_marks_in_content=content.content.marks,
            prompt_tokens=content.prompt_tokens,
            completion_tokens=content.completion_tokens,
            reasoning_tokens=content.reasoning_tokens,
            content=said,
            reasoning=thought,
        )


def _seconds(nanoseconds: int) -> float:
    return max(0, nanoseconds) / 1e9
