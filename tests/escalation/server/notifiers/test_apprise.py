"""apprise, the real library, against a service that listens here."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from escalation.server.notify import notices
from escalation.server.notify.notifiers.apprise import Apprise, AppriseSettings
from escalation.server.notify.notifiers.receiver import Unreachable
from tests.escalation.server.notifiers.told import Listening, listening
from tests.escalation.server.test_notices import notice

MESSAGE = notices.message(notice(drill=True), url="https://desk.example.net")


@pytest.fixture
def service() -> Iterator[Listening]:
    """A service that listens."""
    with listening() as held:
        yield held


def apprise(tmp_path: Path, *urls: str) -> Apprise:
    path = tmp_path / "urls"
    path.touch(mode=0o600)
    path.write_text("\n".join(urls))
    return AppriseSettings(name="chat", urls_file=path).build()


def url_of(service: Listening) -> str:
    return service.url.replace("http://", "json://") + "/secret-token"


async def test_a_service_is_told_a_title_and_a_link(service: Listening, tmp_path: Path) -> None:
    """As plain text, and nothing else."""
    receiver = apprise(tmp_path, "# our chat", "", url_of(service))
    await receiver.send([MESSAGE], now_ns=1)
    (asked,) = service.asked
    body = json.loads(asked.body)
    assert (body["title"], body["message"]) == (MESSAGE.title, MESSAGE.url)
    assert body["title"].startswith("CRITICAL on spark-1: DRILL GPU access was taken away")
    assert not body.get("attachments")
    await receiver.close()


@pytest.mark.parametrize("status", [302, 403, 500])
async def test_a_service_that_refuses_is_tried_again_and_nothing_is_followed(
    service: Listening, tmp_path: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The library says no more than yes or no; its token is neither logged nor in the error."""
    caplog.set_level(logging.DEBUG)
    service.status, service.location = status, service.url + "/elsewhere"
    receiver = apprise(tmp_path, url_of(service))
    with pytest.raises(Unreachable) as caught:
        await receiver.send([MESSAGE], now_ns=1)
    assert [each.path for each in service.asked] == ["/hook/secret-token"]
    assert "secret-token" not in caplog.text + str(caught.value) + repr(receiver)
    await receiver.close()


@pytest.mark.parametrize(
    ("urls", "complaint"),
    [(("json://localhost/ok", "nonsense-token"), "line 2"), (("# nothing",), "holds no URL")],
)
def test_a_file_that_cannot_be_used_is_refused(
    tmp_path: Path, urls: tuple[str, ...], complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By the number of its line: what is in it may be a token."""
    with pytest.raises(ValueError, match=complaint) as caught:
        apprise(tmp_path, *urls)
    assert "token" not in str(caught.value) + caplog.text


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """A token in it would be everybody's."""
    path = tmp_path / "urls"
    path.write_text("json://localhost/x")
    path.chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        AppriseSettings(name="chat", urls_file=path).build()
