"""Where the orchestrator is, and with which token: from options, or the first configuration file that exists.

A token must not be readable by others, and does not travel in the clear: plain http is for loopback and the
mesh (Tailscale encrypts), unless the configuration says `plain_http = true`.
"""

from __future__ import annotations

import os
import ssl
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from escalation.addresses import is_loopback_or_mesh
from escalation.cli.errors import CtlError, ExitCode
from escalation.settings import SettingsError, load

_MAX_TOKEN_BYTES: Final = 4096


class CtlSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """ctl.toml. A relative `token_file`, `ca_file` or `sign_with` lies beside it.

    `sign_with` is the SSH key that approvals are signed with, `ssh_keygen` the program that does it, and
    `approvers` a file of whose signatures `command` wants to see.
    """

    url: str
    token_file: str
    ca_file: str | None = None
    plain_http: bool = False
    sign_with: str | None = None
    ssh_keygen: str | None = None
    approvers: str | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """What a client needs; the token stays out of the representation."""

    url: str
    token: str = field(repr=False)
    ca_file: Path | None = None
    sign_with: Path | None = None
    ssh_keygen: Path | None = None
    approvers: Path | None = None


def places(environment: Mapping[str, str], *, prefix: Path, home: Path) -> tuple[Path, ...]:
    """Return where ctl.toml is looked for, first match first; NANOBOT_CTL_CONFIG stands alone."""
    if chosen := environment.get("NANOBOT_CTL_CONFIG"):
        return (Path(chosen),)
    own = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    return (
        prefix / "etc/nanobot/ctl.toml",
        own / "nanobot/ctl.toml",
        Path("/etc/nanobot/ctl.toml"),
    )


def find(*, url: str | None, token_file: Path | None) -> Connection:
    """Return the connection to use; options win over the configuration file."""
    if url and token_file:
        return connect(CtlSettings(url=url, token_file=str(token_file)), beside=Path.cwd())
    looked = places(os.environ, prefix=Path(sys.prefix), home=Path.home())
    config = next((path for path in looked if path.is_file()), None)
    if config is None:
        raise CtlError(
            f"no orchestrator is configured; looked for {', '.join(map(str, looked))}",
            code=ExitCode.USAGE,
            advice="give --url and --token-file, or write one of these files with url and token_file",
        )
    try:
        settings = load(config, CtlSettings)
    except SettingsError as error:
        raise CtlError(str(error), code=ExitCode.USAGE, advice="correct that file") from error
    if url:
        settings = msgspec.structs.replace(settings, url=url)
    if token_file:
        settings = msgspec.structs.replace(settings, token_file=str(token_file.absolute()))
    return connect(settings, beside=config.parent)


def connect(settings: CtlSettings, *, beside: Path) -> Connection:
    """Check the address, read the token, and return the connection."""
    _check_url(settings.url, plain_http=settings.plain_http)
    return Connection(
        url=settings.url.rstrip("/"),
        token=read_token(beside / settings.token_file),
        ca_file=beside / settings.ca_file if settings.ca_file else None,
        sign_with=beside / Path(settings.sign_with).expanduser() if settings.sign_with else None,
        ssh_keygen=Path(settings.ssh_keygen) if settings.ssh_keygen else None,
        approvers=beside / settings.approvers if settings.approvers else None,
    )


def read_token(path: Path) -> str:
    """Return the token in `path`; refuse a file that others can read."""
    unusable = ExitCode.NOT_AUTHENTICATED
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise CtlError(f"token file {path} cannot be read: {error.strerror}", code=unusable) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CtlError(f"token file {path} is not a regular file", code=unusable)
        mode = stat.S_IMODE(status.st_mode)
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise CtlError(
                f"token file {path} is not used: others can open it (mode {mode:04o})",
                code=unusable,
                advice=f"chmod 600 {path}; if others may have read it, make a new token",
            )
        content = os.read(descriptor, _MAX_TOKEN_BYTES)
    finally:
        os.close(descriptor)
    try:
        token = content.decode("ascii").strip()
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isprintable() or " " in token:
        raise CtlError(f"token file {path} does not hold one token on one line", code=unusable)
    return token


def trust(connection: Connection) -> ssl.SSLContext:
    """Return whom to trust over https; over http nothing is loaded, which saves a third of the start."""
    if connection.url.startswith("http:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        return ssl.create_default_context(cafile=str(connection.ca_file) if connection.ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise CtlError(f"CA file {connection.ca_file} cannot be used: {error}") from error


def _check_url(url: str, *, plain_http: bool) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, None
    if parts is None or not host or parts.scheme not in {"http", "https"} or parts.username or parts.query:
        raise CtlError(
            f"{url} is no address of an orchestrator",
            code=ExitCode.USAGE,
            advice="it looks like http://127.0.0.1:9737",
        )
    if parts.scheme == "http" and not plain_http and not _private(host):
        raise CtlError(
            f"{url} would send the token in the clear",
            code=ExitCode.USAGE,
            advice="use https, the mesh address, or plain_http = true in ctl.toml",
        )


def _private(host: str) -> bool:
    return host == "localhost" or host.endswith(".ts.net") or is_loopback_or_mesh(host)
