"""The audit log, what is installed, and what is left when it is not any more."""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import replace
from fnmatch import fnmatchcase

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from escalation.server import audit
from escalation.server.desk import AuditEntry
from tests.security import source
from tests.security.house import House
from tests.security.properties import security_property


def _chain(house: House) -> list[AuditEntry]:
    fields = ("number", "at_ns", "actor", "verb", "object_id", "detail", "previous", "digest")
    return [AuditEntry(**{name: link[name] for name in fields}) for link in house.audit()]


@pytest.fixture(scope="module")
def chain(house: House) -> list[AuditEntry]:
    """The links of a real log, with decisions in it."""
    house.decide(house.opened(), "approve")
    house.decide(house.opened(), "reject", by="grace")
    return _chain(house)


@security_property(
    "S34", "Each entry carries who, what and the digest of all before it: no change goes unseen."
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_of_the_audit_log_is_found(chain: list[AuditEntry], data: st.DataObject) -> None:
    """An entry changed in any field, removed, doubled, moved or written anew: the first break is named."""
    assert audit.verify(chain) is None
    assert {"ada", "grace"} <= {link.actor for link in chain}
    at = data.draw(st.integers(0, len(chain) - 2))
    link = chain[at]
    match data.draw(st.sampled_from(["field", "remove", "double", "swap", "forge"])):
        case "field":
            name = data.draw(st.sampled_from(["at_ns", "actor", "verb", "object_id", "detail", "digest"]))
            value = getattr(link, name)
            other = value + 1 if isinstance(value, int) else f"{value}x"
            changed = [*chain[:at], replace(link, **{name: other}), *chain[at + 1 :]]
        case "remove":
            changed = [*chain[:at], *chain[at + 1 :]]
        case "double":
            changed = [*chain[: at + 1], link, *chain[at + 1 :]]
        case "swap":
            changed = [*chain[:at], chain[at + 1], link, *chain[at + 2 :]]
        case _:
            before = chain[at - 1] if at else None
            forged = audit.follow(
                before, at_ns=link.at_ns, actor="mallory", verb=link.verb, object_id=link.object_id, detail=""
            )
            changed = [*chain[:at], forged, *chain[at + 1 :]]
    broken = audit.verify(changed)
    assert broken is not None
    assert at + 1 <= broken.number <= at + 2


@security_property(
    "S35", "Each dependency is pinned; the privileged program imports bcc and the standard library."
)
def test_what_is_installed_is_pinned_and_privilege_sees_nothing_else() -> None:
    """Each requirement has one version, test servers have hashes, and the loader runs isolated."""
    project = tomllib.loads((source.ROOT / "pyproject.toml").read_text())["project"]
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", (source.ROOT / "dev/constraints.txt").read_text(), re.M))
    names = {_normal(name) for name in pinned}
    for extra in ("agent", "orchestrator", "notify", "postgres", "systemd"):
        for requirement in project["optional-dependencies"][extra]:
            name = re.split(r"[\[<>=!~; ]", requirement)[0]
            assert _normal(name) in names, requirement
    for lock in (source.ROOT / "dev").glob("*.txt"):
        if lock.name != "constraints.txt":
            text = lock.read_text()
            assert text.count("==") <= text.count("--hash=sha256:"), lock.name
    loader = (source.ROOT / "systemd/nanobot-probes.service").read_text()
    assert "ExecStart=/usr/bin/python3 -I /opt/nanobot/loader/probes/kernel/__main__.py" in loader
    reached = {each.partition(".")[0] for each in source.closure("probes.kernel.__main__")}
    assert "probes" in reached
    assert reached - set(sys.stdlib_module_names) <= {"probes", "bcc"}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@security_property(
    "S36", "Everything that installing puts outside its own folder is removed by what the page says."
)
def test_uninstalling_leaves_nothing_behind() -> None:
    """Each destination of the installer is covered by a line of the page, and so are users and state."""
    lines = (source.ROOT / "systemd/install.sh").read_text().splitlines()
    installing = "\n".join(line for line in lines if not line.startswith("#"))
    page = (source.ROOT / "docs/how-to/uninstall.md").read_text()
    removed = re.findall(r"(?<=\s)(/(?:opt|usr|etc|var)/\S+)", page)
    placed = {
        re.sub(r"\$\{?\w+\}?", "nanobot-unit.service", path).rstrip("\"'")
        for path in re.findall(r"(/usr/local/[\w./$-]+|/etc/[\w./$-]+)", installing)
        if not path.endswith("}")
    }
    folders = {"/usr/local/lib/systemd/system", "/usr/local/lib/sysusers.d", "/usr/local/lib/tmpfiles.d",
               "/usr/local/lib/sysctl.d", "/usr/local/share/man/man1"}  # fmt: skip
    left = [
        path
        for path in placed - folders
        if not any(fnmatchcase(path, f"{each}*") or path.startswith(f"{each}/") for each in removed)
    ]
    assert placed > folders, "the installer was read"
    assert not left
    for user in re.findall(
        r"^u!? (\S+)", (source.ROOT / "systemd/sysusers.d/nanobot.conf").read_text(), re.M
    ):
        assert f"userdel {user}" in page
    for folder in ("/opt/nanobot", "/var/lib/nanobot", "/etc/nanobot"):
        assert folder in removed
