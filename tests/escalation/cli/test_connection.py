"""Where nanobotctl finds its orchestrator, and which tokens and addresses it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from escalation.cli.connection import CtlSettings, connect, find, places, read_token
from escalation.cli.errors import CtlError, ExitCode


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("secret-token\n")
    path.chmod(0o600)
    return path


def test_looks_in_the_environment_the_installation_the_home_and_the_system() -> None:
    """The order of the places; a file named by the environment is the only one looked at."""
    prefix, home = Path("/venv"), Path("/home/kim")
    assert places({}, prefix=prefix, home=home) == (
        Path("/venv/etc/nanobot/ctl.toml"),
        Path("/home/kim/.config/nanobot/ctl.toml"),
        Path("/etc/nanobot/ctl.toml"),
    )
    assert places({"XDG_CONFIG_HOME": "/x"}, prefix=prefix, home=home)[1] == Path("/x/nanobot/ctl.toml")
    assert places({"NANOBOT_CTL_CONFIG": "/c"}, prefix=prefix, home=home) == (Path("/c"),)


def test_a_token_file_lies_beside_its_configuration(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative token file is looked for beside ctl.toml, and options win over the file."""
    config = token.parent / "ctl.toml"
    config.write_text('url = "https://queue.example/"\ntoken_file = "token"\n')
    monkeypatch.setenv("NANOBOT_CTL_CONFIG", str(config))
    found = find(url=None, token_file=None)
    assert (found.url, found.token) == ("https://queue.example", "secret-token")
    assert find(url="http://[::1]:1", token_file=None).url == "http://[::1]:1"
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('url = "http://localhost"\n', "token_file"),
        ('url = "http://localhost"\ntoken_file = "t"\ncolour = 1\n', ":3: colour: unknown key"),
        ("url = \n", "is not valid TOML"),
    ],
)
def test_a_broken_configuration_is_named_with_its_line(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors in ctl.toml name the file, the line and the key, and are usage errors."""
    config = tmp_path / "ctl.toml"
    config.write_text(text)
    monkeypatch.setenv("NANOBOT_CTL_CONFIG", str(config))
    with pytest.raises(CtlError, match=message) as caught:
        find(url=None, token_file=None)
    assert caught.value.code is ExitCode.USAGE


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_token_that_others_can_open_is_refused(token: Path, mode: int) -> None:
    """Any permission for group or others disqualifies the file, and the advice says what to do."""
    token.chmod(mode)
    with pytest.raises(CtlError, match="others can open it") as caught:
        read_token(token)
    assert caught.value.code is ExitCode.NOT_AUTHENTICATED
    assert f"chmod 600 {token}" in caught.value.advice


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"two\nlines", b"\xff", b"esc\x1b"])
def test_a_file_that_holds_no_token_is_refused(token: Path, content: bytes) -> None:
    """What cannot be one token is refused without being shown."""
    token.write_bytes(content)
    with pytest.raises(CtlError, match="does not hold one token"):
        read_token(token)


def test_a_token_is_a_regular_file(tmp_path: Path) -> None:
    """A missing file, a folder and a device are named as what they are."""
    for path, message in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "not a regular file"),
        (Path("/dev/null"), "not a regular file"),
    ):
        with pytest.raises(CtlError, match=message):
            read_token(path)


@pytest.mark.parametrize(
    "url",
    ["http://100.64.0.7:9737", "http://[fd7a:115c:a1e0::7]:9737", "http://spark.tail.ts.net", "http://[::1]"],
)
def test_plain_http_is_for_loopback_and_the_mesh(token: Path, url: str) -> None:
    """The mesh encrypts, and loopback does not leave the machine."""
    assert connect(CtlSettings(url=url, token_file=token.name), beside=token.parent).url == url


@pytest.mark.parametrize(
    "url", ["http://192.168.1.4:9737", "http://queue.example", "http://localhost.evil.example"]
)
def test_a_token_does_not_travel_in_the_clear(token: Path, url: str) -> None:
    """Plain http elsewhere is refused unless the configuration allows it."""
    with pytest.raises(CtlError, match="in the clear"):
        connect(CtlSettings(url=url, token_file=token.name), beside=token.parent)
    allowed = CtlSettings(url=url, token_file=token.name, plain_http=True)
    assert connect(allowed, beside=token.parent).url == url


@pytest.mark.parametrize(
    "url",
    ["", "queue", "ftp://x", "http://", "http://a:b@localhost", "http://localhost:x", "http://localhost?q=1"],
)
def test_an_address_that_is_none_is_refused(token: Path, url: str) -> None:
    """A malformed address is a usage error, with an example."""
    with pytest.raises(CtlError, match="no address") as caught:
        connect(CtlSettings(url=url, token_file=token.name), beside=token.parent)
    assert caught.value.code is ExitCode.USAGE
