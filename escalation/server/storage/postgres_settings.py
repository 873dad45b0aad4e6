"""The settings of the shared store, and what may not stand in them.

A password never stands in the configuration: libpq finds it in a file (`passfile`, ~/.pgpass).
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

_SECRETS: Final = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")

Seconds = Annotated[float, msgspec.Meta(ge=0.1, le=3600)]


class PostgresSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[store.postgresql]` table: how many connections read, and how long anything may take.

    `idle_s` is how long a process that stands still may keep a transaction or the lead from the others.
    """

    read_connections: Annotated[int, msgspec.Meta(ge=1, le=16)] = 2
    connect_timeout_s: Annotated[float, msgspec.Meta(ge=2, le=60)] = 3.0
    statement_timeout_s: Seconds = 30.0
    lock_timeout_s: Seconds = 20.0
    idle_s: Annotated[float, msgspec.Meta(ge=5, le=3600)] = 15.0
    application_name: Annotated[str, msgspec.Meta(pattern=r"^[ -~]{1,63}\Z")] = "nanobot-orchestrator"


def check(info: str) -> None:
    """Raise ValueError for a conninfo that cannot be read or that holds a secret; repeat nothing of it."""
    try:
        import psycopg  # noqa: PLC0415 - an extra that only this store needs
    except ImportError as error:
        raise ValueError("needs psycopg: systemd/install.sh orchestrator postgres") from error
    try:
        parts = psycopg.conninfo.conninfo_to_dict(info)
    except psycopg.Error:
        # The library's message quotes what it could not read, and that may be a password.
        raise ValueError("is no connection string or URI that libpq can read") from None
    for each in _SECRETS:
        if parts.get(each) is not None:
            raise ValueError(f"holds a {each}: put it into a file and name that with passfile=, mode 0600")
