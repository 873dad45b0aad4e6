"""Write what is generated from a single source, or with --check say what is stale.

Each generator returns {path: content}; adding one is a function and a line in GENERATORS.
"""

from __future__ import annotations

import argparse
import importlib.resources
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from grpc_tools import protoc

from dev import dashboard, xid_words

ROOT = Path(__file__).resolve().parent.parent


def wire() -> dict[Path, bytes]:
    """Return the protobuf and gRPC modules of proto/nanobot/v1, as the compiler writes them.

    The proto folder is mapped onto the package's path, so the generated imports are right as they come.
    """
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    with tempfile.TemporaryDirectory() as out:
        arguments = [
            "protoc",
            f"--proto_path=escalation/wire={ROOT / 'proto/nanobot/v1'}",
            f"--proto_path={well_known}",
            f"--python_out={out}",
            f"--pyi_out={out}",
            f"--grpc_python_out={out}",
            "escalation/wire/escalation.proto",
        ]
        if protoc.main(arguments) != 0:
            raise SystemExit("protoc refused proto/nanobot/v1/escalation.proto")
        return {
            ROOT / path.relative_to(out): path.read_bytes() for path in Path(out).rglob("*") if path.is_file()
        }


def words() -> dict[Path, bytes]:
    """Return what the server says in the words of the sensors' table of Xids."""
    return {ROOT / "escalation/wording/xid_words.py": xid_words.module().encode()}


def pages() -> dict[Path, bytes]:
    """Return the reference pages: the API, commands, faults, logs, routes, security, settings, the wire."""
    # Imported when the wire's modules are written: the product does not import beside a model that is newer.
    from dev import (  # noqa: PLC0415
        api_description,
        commands,
        fault_classes,
        log_patterns,
        route_confusion,
        security_properties,
        wire_page,
    )

    return {
        ROOT / "docs/reference/agent-settings.md": fault_classes.agent_settings().encode(),
        ROOT / "docs/reference/fault-classes.md": fault_classes.fault_classes().encode(),
        ROOT / "escalation/assistant/fault_classes.json": fault_classes.for_assistants().encode(),
        ROOT / "docs/reference/log-patterns.md": log_patterns.page().encode(),
        ROOT / "docs/reference/nanobotctl.md": commands.page().encode(),
        ROOT / "docs/reference/openapi.json": api_description.page().encode(),
        ROOT / "docs/reference/route-confusion.md": route_confusion.page().encode(),
        ROOT / "docs/reference/security-properties.md": security_properties.page().encode(),
        ROOT / "docs/reference/wire.md": wire_page.page().encode(),
    }


def dashboards() -> dict[Path, bytes]:
    """Return the Grafana dashboard."""
    return {ROOT / "monitoring/grafana/host-nanobot.json": dashboard.page().encode()}


GENERATORS: tuple[Callable[[], dict[Path, bytes]], ...] = (wire, words, pages, dashboards)


def main() -> int:
    """Write everything, or report what differs and return 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when something is stale")
    check = parser.parse_args().check
    stale = []
    for generate in GENERATORS:
        for path, content in generate().items():
            if path.exists() and path.read_bytes() == content:
                continue
            stale.append(str(path.relative_to(ROOT)))
            if not check:
                path.write_bytes(content)
    if not check:
        print("\n".join(f"wrote {name}" for name in stale) or "everything was up to date")
        return 0
    for name in stale:
        print(f"stale: {name} (make generate)", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
