"""Asks a language model about entries, beside everything else: one at a time, bounded, believed by nobody.

Off unless `[triage_text]` is there. An entry is asked about when it is proposed, and when somebody opens it
and nothing was written about its evidence yet. What comes back is kept in memory only, by the digest of what
was asked, so a text never stands beside facts that it was not written about. A model that is unreachable,
slow or answers anything else than what was asked for costs an entry its text, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Final, Protocol, TypeVar
from urllib.parse import urlsplit

import httpx2
import msgspec
import structlog

from escalation.addresses import is_loopback_or_mesh
from escalation.model import RecommendationId, State
from escalation.model_text import MAX_ANSWER_BYTES, ModelTextError, digest_of, read, request_of
from escalation.server.clock import Clock
from escalation.server.desk import DeskError, Entry
from escalation.server.metrics import ModelTextOutcome, ServerMetrics
from escalation.server.notify.notifiers.receiver import http_client, read_secret
from escalation.view.entry import NOT_FINISHED, EntryView, ModelTextView, entry_view

K = TypeVar("K")
V = TypeVar("V")

_WAITING: Final = 32
"""How many entries wait to be asked about; one more is not asked about until it is looked at again."""

_KEPT: Final = 256
_SEEN: Final = 1024
_AGAIN_AFTER_S: Final = 300.0
_UNFINISHED: Final = frozenset(state.value for state in NOT_FINISHED)

_log = structlog.get_logger("nanobot.orchestrator.model")


class TriageTextSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[triage_text]` table: an OpenAI-compatible server on this machine or the mesh, and its model.

    `url` is what `/chat/completions` is appended to. It holds an address, not a name: what a name leads to
    may change, and the facts of a fault stay on the mesh.
    """

    url: Annotated[str, msgspec.Meta(max_length=500)]
    model: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}\Z")]
    api_key_file: Path | None = None
    ca_file: Path | None = None
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 20.0

    def __post_init__(self) -> None:
        """Refuse an address that is not here or on the mesh."""
        try:
            parts = urlsplit(self.url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise ValueError("triage_text.url is http://address:port/v1") from error
        if parts.scheme not in {"http", "https"} or not host or port == 0:
            raise ValueError("triage_text.url is http://address:port/v1")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("triage_text.url holds no password, query or fragment")
        if host != "localhost" and not is_loopback_or_mesh(host):
            raise ValueError("triage_text.url leads to an address of this machine or of the mesh")


class Texts(Protocol):
    """What a model wrote about entries."""

    def of(self, entry: EntryView) -> ModelTextView | None:
        """Return what is written about this evidence; None when nothing is, or not yet. Never waits."""


class NoTexts:
    """No model is asked."""

    def of(self, entry: EntryView) -> ModelTextView | None:  # noqa: ARG002 - nobody is asked
        """Return None."""
        return None


class ModelWriter:
    """Asks the model; one task, one request at a time."""

    def __init__(self, *, settings: TriageTextSettings, clock: Clock, metrics: ServerMetrics) -> None:
        """Prepare to ask; raise ValueError when a file cannot be used."""
        self._url = f"{settings.url.rstrip('/')}/chat/completions"
        self._model = settings.model
        self._timeout_s = settings.timeout_s
        self._clock = clock
        self._metrics = metrics
        # Nothing is unpacked, so what arrives is no larger than what is counted.
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if settings.api_key_file is not None:
            self._headers["Authorization"] = f"Bearer {read_secret(settings.api_key_file)}"
        self._client = http_client(settings.ca_file)
        self._waiting: asyncio.Queue[tuple[str, EntryView]] = asyncio.Queue(_WAITING)
        self._asked: set[str] = set()
        self._written: OrderedDict[str, ModelTextView] = OrderedDict()
        self._failed: OrderedDict[str, float] = OrderedDict()
        self._seen: OrderedDict[RecommendationId, None] = OrderedDict()

    def __repr__(self) -> str:
        return (
            f"ModelWriter(written={len(self._written)}, asked={len(self._asked)}, failed={len(self._failed)})"
        )

    def of(self, entry: EntryView) -> ModelTextView | None:
        """Return what is written about this evidence; None when nothing is, and then it is asked for."""
        key = digest_of(entry)
        if (found := self._written.get(key)) is not None:
            self._written.move_to_end(key)
            return found
        if entry.state in _UNFINISHED and key not in self._asked and not self._just_failed(key):
            self._ask(key, entry)
        return None

    async def run(self, changes: Callable[[], AsyncIterator[Entry]]) -> None:
        """Ask about what waits, and about each entry of `changes` that is new, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write_forever())
            tasks.create_task(self._follow_forever(changes))

    async def settled(self) -> None:
        """Return once nothing waits and nothing is asked."""
        await self._waiting.join()

    async def aclose(self) -> None:
        """Close connections."""
        await self._client.aclose()

    def _just_failed(self, key: str) -> bool:
        failed_s = self._failed.get(key)
        return failed_s is not None and self._clock.steady_s() - failed_s < _AGAIN_AFTER_S

    def _ask(self, key: str, entry: EntryView) -> None:
        try:
            self._waiting.put_nowait((key, entry))
        except asyncio.QueueFull:
            self._metrics.model_text(ModelTextOutcome.NOT_ASKED)
        else:
            self._asked.add(key)

    async def _follow_forever(self, changes: Callable[[], AsyncIterator[Entry]]) -> None:
        while True:
            try:
                async for entry in changes():
                    self._follow(entry)
            except DeskError:
                # We fell behind, or too many watch: what was missed is asked about when somebody opens it.
                await asyncio.sleep(1.0)

    def _follow(self, entry: Entry) -> None:
        recommendation = entry.recommendation
        if recommendation.state is State.PROPOSED and recommendation.id not in self._seen:
            _remember(self._seen, recommendation.id, None, most=_SEEN)
            self.of(entry_view(entry))

    async def _write_forever(self) -> None:
        while True:
            key, entry = await self._waiting.get()
            try:
                outcome = await self._write(key, entry)
            except Exception as error:  # noqa: BLE001 - a text that fails in an unknown way is only not there
                outcome = ModelTextOutcome.FAILED
                _log.warning("model_text_failed", error=type(error).__name__)
            finally:
                self._asked.discard(key)
                self._waiting.task_done()
            self._metrics.model_text(outcome)
            if outcome is not ModelTextOutcome.WRITTEN:
                _remember(self._failed, key, self._clock.steady_s(), most=_KEPT)

    async def _write(self, key: str, entry: EntryView) -> ModelTextOutcome:
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await self._completion(request_of(entry, model=self._model))
            text = read(body, entry, model=self._model)
        except (TimeoutError, httpx2.TimeoutException):
            return ModelTextOutcome.SLOW
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError):
            return ModelTextOutcome.UNREACHABLE
        except ModelTextError as error:
            _log.info("model_text_not_believed", reason=str(error))
            return ModelTextOutcome.NOT_BELIEVED
        _remember(self._written, key, text, most=_KEPT)
        return ModelTextOutcome.WRITTEN

    async def _completion(self, request: bytes) -> bytes:
        body = bytearray()
        asking = self._client.stream(
            "POST", self._url, content=request, headers=self._headers, timeout=self._timeout_s
        )
        async with asking as answer:
            if answer.status_code != 200:
                raise ModelTextError(f"it answers {answer.status_code}")
            async for piece in answer.aiter_raw():
                body += piece
                if len(body) > MAX_ANSWER_BYTES:
                    raise ModelTextError("its answer is too long")
        return bytes(body)


def _remember(kept: OrderedDict[K, V], key: K, value: V, *, most: int) -> None:
    """Keep a value as the newest, and no more than `most` of them."""
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > most:
        kept.popitem(last=False)
