"""The webhook: signed, verified, never led elsewhere, and quiet about its secret."""

from __future__ import annotations

import datetime as dt
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from escalation import pki
from escalation.server.notify import notices
from escalation.server.notify.notifiers.receiver import Rejected, Unreachable, checked_url, read_secret
from escalation.server.notify.notifiers.webhook import Webhook, WebhookSettings
from tests.escalation.server.notifiers.told import Listening, listening
from tests.escalation.server.site import free_port
from tests.escalation.server.test_notices import notice

MESSAGE = notices.message(notice(), url="https://desk.example.net")
NOW_NS = 1_767_225_600_000_000_000


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file with a secret, for its owner alone."""
    path = tmp_path / "secret"
    path.write_text("hush-hush")
    path.chmod(0o600)
    return path


@pytest.fixture
def hook() -> Iterator[Listening]:
    """A webhook that listens."""
    with listening() as held:
        yield held


def webhook(url: str, secret: Path, ca_file: Path | None = None) -> Webhook:
    return WebhookSettings(name="hook", url=url, secret_file=secret, ca_file=ca_file).build()


@pytest.mark.parametrize("status", [500, 503, 408, 429])
async def test_an_answer_that_may_change_is_worth_another_attempt(
    hook: Listening, secret: Path, status: int
) -> None:
    """What the server says of itself, or that it is too much now."""
    hook.status = status
    receiver = webhook(hook.url, secret)
    with pytest.raises(Unreachable, match=str(status)):
        await receiver.send([MESSAGE], now_ns=NOW_NS)
    await receiver.close()


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404])
async def test_an_answer_that_will_not_change_is_final_and_nothing_is_followed(
    hook: Listening, secret: Path, status: int
) -> None:
    """A redirect would carry the signed message to whoever the answer names."""
    hook.status, hook.location = status, hook.url + "/elsewhere"
    receiver = webhook(hook.url, secret)
    with pytest.raises(Rejected, match=str(status)):
        await receiver.send([MESSAGE], now_ns=NOW_NS)
    assert [each.path for each in hook.asked] == ["/hook"]
    await receiver.close()


async def test_a_port_where_nobody_listens_is_unreachable(secret: Path) -> None:
    """And says nothing of the address, which may hold a token."""
    receiver = webhook(f"http://127.0.0.1:{free_port()}/token-in-a-path", secret)
    with pytest.raises(Unreachable) as caught:
        await receiver.send([MESSAGE], now_ns=NOW_NS)
    assert str(caught.value) == "ConnectError"
    assert "hush" not in repr(receiver)
    assert "token" not in repr(receiver)
    await receiver.close()


@pytest.fixture
def private_server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An HTTPS server with a certificate of an authority that nobody knows."""
    keys = tmp_path / "pki"
    now = dt.datetime.now(dt.UTC)
    pki.create_authority(keys, now=now)
    issued = pki.issue_orchestrator(keys, names=["localhost"], addresses=["127.0.0.1"], now=now)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the library
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"https://localhost:{server.server_port}/hook", keys / "ca.crt"
    server.shutdown()
    server.server_close()
    thread.join()


async def test_a_certificate_is_verified(private_server: tuple[str, Path], secret: Path) -> None:
    """An unknown authority is unreachable; a declared one is trusted."""
    url, authority = private_server
    for trusted, receiver in ((False, webhook(url, secret)), (True, webhook(url, secret, authority))):
        if trusted:
            await receiver.send([MESSAGE], now_ns=NOW_NS)
        else:
            with pytest.raises(Unreachable):
                await receiver.send([MESSAGE], now_ns=NOW_NS)
        await receiver.close()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a/",
        "http://example.org/",
        "https://",
        "https://u:p@a/",
        "https://a/#x",
        "//a/",
        "http://10.1.1.1",
    ],
)
def test_a_url_that_is_not_private_is_refused(url: str) -> None:
    """Plain http is for this machine alone, and a URL is no place for a password."""
    with pytest.raises(ValueError, match="URL"):
        checked_url(url)


def test_a_secret_that_others_may_read_is_refused(secret: Path) -> None:
    """So is one that is empty, or not there; the message names the file and not what is in it."""
    assert read_secret(secret) == "hush-hush"
    secret.chmod(0o640)
    with pytest.raises(ValueError, match="chmod 600") as caught:
        read_secret(secret)
    assert "hush" not in str(caught.value)
    secret.chmod(0o600)
    for content in (b"", b" \n", b"\xff", b"x" * 70_000):
        secret.write_bytes(content)
        with pytest.raises(ValueError, match="empty, too long, or no text"):
            read_secret(secret)
    secret.unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        read_secret(secret)
