"""The house itself: whose the import names are, and what runs with privilege."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", ["agent", "probes", "escalation"])
def test_import_name_belongs_to_this_distribution(name: str) -> None:
    """No other installed distribution provides a package of this name."""
    assert set(importlib.metadata.packages_distributions()[name]) == {"host-nanobot"}


@pytest.mark.parametrize("package", ["agent", "bench", "dev", "escalation", "probes"])
def test_a_long_module_says_why(package: str) -> None:
    """More than 500 lines need a reason in the docstring."""
    unexplained = []
    for module in (ROOT / package).rglob("*.py"):
        text = module.read_text()
        long = text.count("\n") > 500 and not module.stem.endswith(("_pb2", "_pb2_grpc"))
        if long and "Longer than other modules because" not in text.partition("from __future__")[0]:
            unexplained.append(str(module.relative_to(ROOT)))
    assert unexplained == []


@pytest.mark.parametrize("folder", ["proto", "systemd", "tests", "docs"])
def test_folder_is_no_package(folder: str) -> None:
    """What is not code of the product holds no __init__.py."""
    assert not list((ROOT / folder).rglob("__init__.py"))


def test_loader_runs_the_standard_library_and_bcc_only() -> None:
    """What the privileged program imports, apart from bcc, is its own or the standard library's."""
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); before = set(sys.modules)\n"
        "import probes.kernel.__main__, probes.kernel.loader, probes.registry\n"
        "roots = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(roots - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['probes']"
