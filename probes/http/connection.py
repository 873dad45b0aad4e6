"""One connection: two directions in order and framed, and the exchanges that are under way on it.

Requests are answered in their order (RFC 9112, 9.3.2), so those that are under way wait in a queue. When
bytes are lost where messages begin and end, nobody can say any more which answer belongs to which request:
all that are under way are given up as lost, and the next request and what follows it are right again. A
connection on which requests were sent ahead of answers cannot be sorted out that way and stays lost.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from probes.http.directions import AnswerReader, RequestReader
from probes.http.exchange import Exchange
from probes.http.facts import Ending, ExchangeFacts, UnobservedReason
from probes.http.head import BadHead
from probes.http.message import Framer
from probes.http.segment import FIN, RST, SYN, Segment
from probes.http.stream import Sequencer

PIPELINED_MAX: Final = 64


class Ledger(Protocol):
    """Takes what is over."""

    def exchange(self, facts: ExchangeFacts, *, sure: bool) -> None:
        """One exchange that was observed; not sure, if a loss that is not known yet could explain it."""

    def unobserved(self, connection: Connection, reason: UnobservedReason, at_ns: int) -> None:
        """One that was not."""


class Connection:
    """One connection. `over` says that nothing more is expected of it."""

    __slots__ = (
        "_anchored",
        "_answers",
        "_blamed",
        "_client_closed_ns",
        "_down",
        "_gap_ns",
        "_ledger",
        "_piped",
        "_requests",
        "_seen",
        "_started",
        "_up",
        "blind",
        "cgroup_id",
        "last_ns",
        "over",
        "pending",
        "port",
    )

    def __init__(self, *, port: int, cgroup_id: int, ledger: Ledger, gap_ns: int) -> None:
        self.port = port
        self.cgroup_id = cgroup_id
        self.last_ns = 0
        self.over = False
        self.blind = False
        self.pending: deque[Exchange] = deque()
        self._ledger = ledger
        self._gap_ns = gap_ns
        self._up: Sequencer
        self._down: Sequencer
        self._begin(started=False)

    def __repr__(self) -> str:
        state = "blind" if self.blind else "over" if self.over else f"{len(self.pending)} under way"
        return f"Connection(port={self.port}, {state})"

    @property
    def held_bytes(self) -> int:
        """Bytes of the wire that wait for others."""
        held = sum(exchange.held_bytes for exchange in self.pending)
        for part in (self._up, self._down, self._requests, self._answers):
            held += part.held_bytes
        return held

    @property
    def certain(self) -> bool:
        """Whether everything that went over it so far has been seen."""
        up, down = self._up, self._down
        waits = up.suspect or down.suspect or up.waiting or down.waiting
        return not (waits or self._requests.is_lost or self._answers.is_lost)

    @property
    def parked_bytes(self) -> int:
        """Bytes that wait for others that have not come, most often none."""
        return self._up.held_bytes + self._down.held_bytes

    def feed(self, segment: Segment) -> None:
        """Take one piece of either direction."""
        self.last_ns = max(self.last_ns, segment.at_ns)
        direction = self._up if segment.to_server else self._down
        if segment.flags & SYN and (self.over or direction.is_new(segment.seq)):
            self.give_up(segment.at_ns)
            self._begin(started=True)
            direction = self._up if segment.to_server else self._down
        elif segment.flags & SYN and segment.to_server:
            self._started = True
        elif segment.flags & SYN:
            self._anchored = True
        if self.blind:
            self.over = self.over or bool(segment.flags & (FIN | RST))
        else:
            direction.feed(segment)

    def suspect(self) -> None:
        """Hear that records were lost, of this connection or of others."""
        for exchange in self.pending:
            exchange.doubted = exchange.doubted or not exchange.sure
        for direction in (self._up, self._down):
            direction.suspect = True
            direction.give_up()

    def advance(self, now_ns: int, *, patience_ns: int) -> None:
        """Let time pass."""
        self._up.overdue(now_ns)
        self._down.overdue(now_ns)
        closed = self._client_closed_ns
        if closed is not None and not self.over and now_ns - max(closed, self.last_ns) >= patience_ns:
            self._end_all(Ending.CANCELLED, now_ns)
            self.over = True

    def give_up(self, now_ns: int, reason: UnobservedReason = UnobservedReason.LOST) -> None:
        """Forget what is under way and say so."""
        while self.pending:
            self.pending.popleft()
            self._ledger.unobserved(self, reason, now_ns)

    def expire(self, now_ns: int) -> None:
        """End what is under way because nothing has moved for too long."""
        self._end_all(Ending.IDLE, now_ns)

    def _begin(self, *, started: bool) -> None:
        self._started = started  # its first byte was, or would be, seen
        self._anchored = False  # the same for the answers: none can have come unseen before this one
        self._seen = False  # a request was read
        self._blamed = False  # what is under way unseen has been counted
        self._piped = False  # requests were sent ahead of answers
        self._client_closed_ns: int | None = None
        self.over = self.blind = False
        self._requests = Framer(RequestReader(self))
        self._answers = Framer(AnswerReader(self))
        self._up = Sequencer(self._requests, gap_ns=self._gap_ns)
        self._down = Sequencer(self._answers, gap_ns=self._gap_ns)

    # what the readers of the two directions tell

    def request_begun(self, exchange: Exchange) -> None:
        """A request's head was read."""
        self._seen, self._blamed = True, False
        if not self.pending and self._answers.between_messages:
            self._down.suspect = (
                False  # nothing was awaited: what was lost before cannot be part of its answer
            )
        if len(self.pending) >= (1 if self._answers.is_lost else PIPELINED_MAX):
            self._answers.lose(exchange.begun_ns)
            self.unseen(exchange.begun_ns)
        self.pending.append(exchange)

    def answering(self, at_ns: int) -> Exchange:
        """Return whose answer begins here: the oldest request, if it was sent before; raises BadHead."""
        if not self.pending or at_ns < self.pending[0].begun_ns:
            raise BadHead("an answer to nothing that was seen")
        if not self._anchored and not self.answering_after_a_loss(None, at_ns):
            raise BadHead("an answer to one of several requests")
        self.pending[0].sure = self._anchored
        self._anchored = True
        return self.pending[0]

    def answering_after_a_loss(self, current: Exchange | None, at_ns: int) -> bool:
        """Say whether an answer that begins here must be to the one request that waits by now.

        Nothing before it vouches for it, so it is not sure while a loss may still be told.
        """
        if self._piped or self._up.suspect or self._up.waiting or self._requests.is_lost:
            return False
        self._anchored = False
        return sum(one is not current and one.begun_ns <= at_ns for one in self.pending) == 1

    def finished(self, ending: Ending | None, at_ns: int) -> None:
        """The oldest exchange is over."""
        exchange = self.pending.popleft()
        if ending is None and self.pending and self.pending[0].begun_ns < at_ns:
            self._piped = True
        if ending is not None and not self.certain:
            self._ledger.unobserved(self, UnobservedReason.LOST, at_ns)
            return
        closed = (
            self._client_closed_ns
        )  # it may be known earlier than it was, when answers had to wait for others
        said = exchange.finish(ending, at_ns, client_left=closed is not None and closed <= at_ns)
        if isinstance(said, ExchangeFacts):
            self._ledger.exchange(said, sure=exchange.sure and ending is None)
        else:
            self._ledger.unobserved(self, said, at_ns)

    def unseen(self, at_ns: int, reason: UnobservedReason | None = None) -> None:
        """Count what is under way, or the one exchange that must be, as unobserved."""
        if reason is None:
            reason = UnobservedReason.LOST if self._seen or self._started else UnobservedReason.MID_STREAM
        counted = False
        while self.pending and self.pending[0].begun_ns <= at_ns:
            self.pending.popleft()
            self._ledger.unobserved(self, reason, at_ns)
            counted = True
        if not (counted or self._blamed):
            self._ledger.unobserved(self, reason, at_ns)
        self._blamed = True

    def request_lost(self, exchange: Exchange | None, at_ns: int) -> None:
        """Requests are missing, and the end of this one; those before it are not concerned."""
        if self._answers.is_lost or not self.pending:
            self.unseen(at_ns)
        elif exchange is not None and exchange in self.pending:
            self.pending.remove(exchange)
            self._ledger.unobserved(self, UnobservedReason.LOST, at_ns)
            self._blamed = True

    def go_blind(self, reason: UnobservedReason, at_ns: int) -> None:
        """Read nothing more, for this reason."""
        if self.blind:
            return
        self.blind = True
        self.pending.clear()
        self._ledger.unobserved(self, reason, at_ns)
        self._requests.blind()
        self._answers.blind()

    def is_first(self) -> bool:
        """Whether nothing has been read, and nothing was missed."""
        return self._started and not self._seen

    def client_closed(self, at_ns: int, *, reset: bool) -> None:
        """The client will send no more; it may still listen, unless it has reset the connection."""
        if self._client_closed_ns is None:
            self._client_closed_ns = at_ns
        if reset:
            self._close(at_ns)

    def server_closed(self, at_ns: int) -> None:
        """The server's side has ended."""
        self._close(at_ns)

    def _close(self, at_ns: int) -> None:
        self.over = True
        cancelled = self._client_closed_ns is not None and self._client_closed_ns <= at_ns
        self._end_all(Ending.CANCELLED if cancelled else Ending.CUT, at_ns)

    def _end_all(self, ending: Ending, at_ns: int) -> None:
        while self.pending:
            self.finished(ending, at_ns)
