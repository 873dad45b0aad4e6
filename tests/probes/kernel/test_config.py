"""The loader's tables: strict, and an error leads to its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from probes.kernel.config import (
    DEFAULT_PORTS,
    CaptureWay,
    ConfigInvalid,
    HttpConfig,
    LoaderConfig,
    read_config,
)

_SENSORS = ("http.routes", "kernel.listener")


def read(folder: Path, text: str) -> LoaderConfig:
    """Write a configuration and read it."""
    path = folder / "agent.toml"
    path.write_text(text)
    return read_config(path, sensors=_SENSORS)


def test_nothing_said_is_the_defaults(tmp_path: Path) -> None:
    """The usual ports, by cgroup programs, no TLS library; other tables are the agent's."""
    config = read(tmp_path, "[agent]\ncolour = 1\n")
    assert config == LoaderConfig()
    assert config.http == HttpConfig(DEFAULT_PORTS, CaptureWay.CGROUP, ())


def test_everything_said_is_read(tmp_path: Path) -> None:
    """Both tables, all keys."""
    config = read(
        tmp_path,
        '[sensors]\ndisabled = ["kernel.listener"]\nsocket = "/run/x"\n'
        '[http]\nports = [1, 65535]\ncapture = "packet"\ntls_libraries = ["/usr/lib/libssl.so.3"]\n',
    )
    assert (config.disabled, config.socket) == (frozenset({"kernel.listener"}), Path("/run/x"))
    assert config.http == HttpConfig((1, 65535), CaptureWay.PACKET, ("/usr/lib/libssl.so.3",))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("http = 3\n", ":1: http: is no table"),
        ("[agent]\n[http]\nports = 8000\n", ":3: http.ports: expected a list of port numbers"),
        ("[http]\nports = [true]\n", ":2: http.ports: expected a list of port numbers"),
        ('[http]\nports = ["8000"]\n', ":2: http.ports: expected a list of port numbers"),
        ("[http]\n\nports = [0]\n", ":3: http.ports: 0 is no port (1 to 65535)"),
        ("[http]\nports = [65536]\n", ":2: http.ports: 65536 is no port (1 to 65535)"),
        ("[http]\nports = [80, 81, 80]\n", ":2: http.ports: 80 stands there twice"),
        (f"[http]\nports = {list(range(1, 66))}\n", ":2: http.ports: 65 ports, at most 64"),
        ('[http]\ncapture = "tap"\n', ':2: http.capture: expected "cgroup" or "packet"'),
        ("[http]\ncapture = []\n", ':2: http.capture: expected "cgroup" or "packet"'),
        ('[http]\ntls_libraries = ["libssl"]\n', ":2: http.tls_libraries: expected absolute paths"),
        ('[http]\ntls_libraries = "/x"\n', ":2: http.tls_libraries: expected a list of paths"),
        ("[sensors]\n# port = 1\n[http] # here\nport = [1]\n", ":4: http.port: unknown key"),
        (
            '[sensors]\ndisabled = ["x"]\n',
            ":2: sensors.disabled: no sensor 'x'; there are http.routes, kernel.",
        ),
    ],
)
def test_what_is_not_understood_is_refused_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    """File, line, key and what is wrong."""
    with pytest.raises(ConfigInvalid) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'agent.toml'}{complaint}")


def test_as_many_ports_as_there_is_room_for(tmp_path: Path) -> None:
    """64 are fine."""
    assert len(read(tmp_path, f"[http]\nports = {list(range(1, 65))}\n").http.ports) == 64


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Not a traceback."""
    with pytest.raises(ConfigInvalid, match=r"none\.toml: cannot be read"):
        read_config(tmp_path / "none.toml", sensors=_SENSORS)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Nothing but ConfigInvalid comes out."""
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_text("[http]\n" + text, encoding="utf-8")
    try:
        config = read_config(path, sensors=_SENSORS)
    except ConfigInvalid:
        return
    assert all(1 <= port <= 65535 for port in config.http.ports)
