"""The house itself: whose the import names are, and that the links of the documents hold."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s#]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("name", ["agent", "probes", "escalation"])
def test_import_name_belongs_to_this_distribution(name: str) -> None:
    """No other installed distribution provides a package of this name."""
    assert set(importlib.metadata.packages_distributions()[name]) == {"host-nanobot"}


@pytest.mark.parametrize("folder", ["proto", "systemd", "tests", "docs"])
def test_folder_is_no_package(folder: str) -> None:
    """What is not code of the product holds no __init__.py."""
    assert not list((ROOT / folder).rglob("__init__.py"))


def test_links_of_the_documents_hold() -> None:
    """Every relative link in a document leads to a file."""
    broken = []
    for document in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "proto").rglob("*.md")]:
        for found in LINK.finditer(document.read_text()):
            target = found["target"]
            if "://" not in target and not (document.parent / target).exists():
                broken.append(f"{document.relative_to(ROOT)}: {target}")
    assert broken == []


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
