"""The orchestrator's API as nanobotctl uses it: bytes come back as they were sent, errors as CtlError."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote

import httpx2

from escalation.cli.connection import Connection, trust
from escalation.cli.errors import CtlError, ExitCode, from_api
from escalation.cli.session import AT_ONCE, SHORTEST, TIMEOUT_S, listed

_BEGINNING: Final = re.compile(rf"[0-9A-Za-z-]{{{SHORTEST},64}}")
_STREAM_SILENCE_S: Final = 40.0
"""The orchestrator speaks at least each 15 seconds; a stream that is silent for longer is dead."""


class Client:
    """One connection; a context manager."""

    def __init__(self, connection: Connection, *, timeout_s: float = TIMEOUT_S) -> None:
        """Talk to `connection`; nothing is sent before the first call, and each waits `timeout_s` at most."""
        self._timeout_s = timeout_s
        self._url = connection.url
        self._http = httpx2.Client(
            base_url=connection.url,
            headers={"Authorization": f"Bearer {connection.token}", "Accept": "application/json"},
            verify=trust(connection),
            timeout=timeout_s,
            trust_env=False,  # a proxy of the environment would see the token
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, **params: str | int | list[str]) -> bytes:
        """Return the body of a GET."""
        return self._ask("GET", path, params=params)

    def post(self, path: str, body: Mapping[str, object]) -> bytes:
        """Return the body of a POST of `body` as JSON."""
        return self._ask("POST", path, json=body)

    def entry(self, entry_id: str) -> bytes:
        """Return the entry with this id or this incident's id; the beginning of one is enough."""
        return self._named("/api/v1/queue/", entry_id)

    def incident(self, incident_id: str) -> bytes:
        """Return the incident with this id or that of one of its entries; the beginning of one is enough."""
        return self._named("/api/v1/incidents/", incident_id)

    def all_of(self, path: str, name: str, *, after: str = "") -> Iterator[dict[str, Any]]:
        """Yield the whole list `name` of `path`, page by page, in the order of ids: what follows `after`."""
        while page := listed(self.get(path, after=after, limit=AT_ONCE), name).rows:
            if _id(page[0]) <= after or _id(page[-1]) < _id(page[0]):
                raise CtlError(
                    f"{self._url} does not tell its {name} page by page",
                    advice="is nanobot-orchestrator older than nanobotctl?",
                )
            yield from page
            after = _id(page[-1])

    def _named(self, path: str, name: str) -> bytes:
        try:
            return self.get(f"{path}{quote(name, safe='')}")
        except CtlError as error:
            if error.code is not ExitCode.NOT_FOUND or _BEGINNING.fullmatch(name) is None:
                raise
            fitting = self._beginning(name)
            if len(fitting) > 1:
                raise CtlError(
                    f"{name} is the beginning of more than one id",
                    code=ExitCode.NOT_FOUND,
                    advice="give more of it",
                ) from error
            if not fitting:
                raise
            return self.get(f"{path}{fitting[0]}")

    def _beginning(self, name: str) -> list[str]:
        """Return ids of entries and incidents that begin with `name`: none, one, or enough to be too many."""
        lists = (("/api/v1/queue", "entries"), ("/api/v1/incidents", "incidents"))
        found = (listed(self.get(path, after=name, limit=2), each).rows for path, each in lists)
        return [_id(each) for rows in found for each in rows if _id(each).startswith(name)]

    @contextmanager
    def changes(self) -> Iterator[Iterator[bytes]]:
        """Yield an iterator over entries as they change, each as its JSON."""
        with self._mapped():
            stream = self._http.stream(
                "GET", "/api/v1/watch", timeout=httpx2.Timeout(self._timeout_s, read=_STREAM_SILENCE_S)
            )
            with stream as response:
                if response.status_code != 200:
                    response.read()
                    raise self._error(response)
                if not response.headers.get("content-type", "").startswith("text/event-stream"):
                    raise self._stranger(response)
                yield (
                    line.removeprefix("data: ").encode()
                    for line in response.iter_lines()
                    if line.startswith("data: ")
                )

    def _ask(self, method: str, path: str, **request: Any) -> bytes:
        with self._mapped():
            response = self._http.request(method, path, **request)
        if response.status_code != 200:
            raise self._error(response)
        if response.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise self._stranger(response)
        return response.content

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except httpx2.ConnectError as error:
            raise CtlError(
                f"no orchestrator answers at {self._url}: {error}",
                advice="is nanobot-orchestrator running, and is this its address?",
            ) from error
        except httpx2.TimeoutException as error:
            raise CtlError(
                f"the orchestrator at {self._url} did not answer within {self._timeout_s:g} seconds",
                advice="--timeout waits longer; whether a decision was kept, `nanobotctl show` tells",
            ) from error
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            raise CtlError(
                f"talking to {self._url} failed: {type(error).__name__} {error}".rstrip()
            ) from error

    def _error(self, response: httpx2.Response) -> CtlError:
        try:
            error = response.json()["error"]
            return from_api(str(error["code"]), str(error["message"]), path=response.url.path)
        except (ValueError, KeyError, TypeError):
            return self._stranger(response)

    def _stranger(self, response: httpx2.Response) -> CtlError:
        return CtlError(
            f"{self._url} answered {response.status_code} in words that are not the orchestrator's",
            advice="is this the address of nanobot-orchestrator?",
        )


def _id(row: Mapping[str, Any]) -> str:
    return str(row.get("id", ""))
