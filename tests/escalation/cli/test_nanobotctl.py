"""nanobotctl: every command, every exit code, and what a script can rely on."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from escalation.cli.decisions import STATES
from escalation.cli.words import LONGEST
from escalation.inert import harmless
from escalation.model import (
    ActionKind,
    BlindReason,
    FaultClass,
    Loss,
    LossKind,
    SensorCoverage,
    SignalEvidence,
    State,
    Subject,
    SubjectKind,
)
from escalation.server.attention.shelves import NAMES
from escalation.server.attention.silences import COMMENT_LIMIT
from escalation.server.attention.values import TEXT_LIMIT
from escalation.server.decision.approvals import REASON_LIMIT, Policy
from escalation.server.testing import heartbeat
from tests.escalation.cli.conftest import HOSTILE, Ctl


def test_knows_every_state() -> None:
    """The states offered on the command line are those of the model, the shelves of attention, and `all`."""
    assert set(STATES) == set(NAMES) - {""}


def test_a_decision_from_the_queue_to_done(ctl: Ctl, served: Any) -> None:
    """List, show, approve, print the command, mark done: each step exits 0 and says what is next."""
    entry = served.call(served.desk.opened())
    entry_id = entry.recommendation.id
    listed = ctl("queue", "--json").json
    assert [each["id"] for each in listed] == [entry_id]
    assert entry_id in ctl("queue").out
    shown = ctl("show", entry_id[:8])
    assert (shown.code, shown.err) == (0, "")
    assert entry.recommendation.digest in shown.out
    early = ctl("command", entry_id)
    assert (early.code, early.out) == (5, "")
    assert "is proposed, and only a command that is approved is printed alone" in early.err
    approved = ctl("approve", entry_id, "--reason", "quiet hour", "--digest", entry.recommendation.digest)
    assert approved.code == 0
    assert approved.out.endswith(" ".join(entry.recommendation.advice.action.command) + "\n")
    assert f"nanobotctl done {entry_id}" in approved.err
    assert ctl("command", entry_id).out == " ".join(entry.recommendation.advice.action.command) + "\n"
    assert ctl("done", entry_id, "--json").json["state"] == "done"
    assert ctl("command", entry_id).code == 5
    decided = served.call(served.desk.entry(entry_id)).recommendation
    assert (decided.decided_by, decided.decision_reason) == ("operator", "quiet hour")


def test_a_command_that_nobody_approved_is_never_printed_alone(ctl: Ctl, served: Any) -> None:
    """What a shell would run: too late is 6, a drill is refused, and what only reads needs no approval."""
    late = served.call(served.desk.opened(case_id="late"))
    served.call(served.desk.cleared(case_id="late"))
    over = ctl("command", late.recommendation.id)
    assert (over.code, over.out) == (6, "")
    drill = served.call(served.desk.opened(case_id="drill", drill=True))
    assert ctl("command", drill.recommendation.id).code == 5
    looking = served.call(served.desk.opened(case_id="full", fault_class=FaultClass.ROUTE_SATURATED))
    assert looking.recommendation.advice.action.kind is ActionKind.INSPECT
    assert ctl("command", looking.recommendation.id).code == 0


def test_a_rejection_keeps_its_reason(ctl: Ctl, served: Any) -> None:
    """A rejected entry leaves the queue with the reason in it."""
    entry = served.call(served.desk.opened())
    assert "is now rejected" in ctl("reject", entry.recommendation.id, "--reason", "planned work").out
    assert ctl("queue").out == "Nothing waits for a decision.\n"
    history = ctl("queue", "--state", "rejected", "--json").json
    assert history[0]["decision_reason"] == "planned work"


def test_each_failure_has_its_exit_code(ctl: Ctl, served: Any, tmp_path: Path) -> None:
    """The contract with scripts: 1 failed, 2 usage, 3 not found, 4 who are you, 5 refused, 6 too late."""
    entry = served.call(served.desk.opened())
    entry_id, digest = entry.recommendation.id, entry.recommendation.digest
    (tmp_path / "wrong").write_text("nonsense")
    (tmp_path / "wrong").chmod(0o600)
    assert ctl("show", "no-such-id").code == 3
    assert ctl("queue", as_="wrong").code == 4
    assert ctl("queue", as_="scraper").code == 5
    assert ctl("reject", entry_id, "--reason", "x", as_="viewer").code == 5
    assert ctl("done", entry_id).code == 5
    assert ctl("approve", entry_id).code == 2
    assert ctl("queue", "--state", "odd").code == 2
    assert ctl("no-such-command").code == 2
    assert ctl("approve", entry_id, "--reason", "x", "--digest", "0" * 64).code == 6
    served.desk.clock.advance(30 * 86_400)
    assert ctl("approve", entry_id, "--reason", "x", "--digest", digest).code == 6
    assert ctl("--url", "http://127.0.0.1:9", "queue").code == 1
    assert served.call(served.desk.entry(entry_id)).recommendation.decided_by is None


def test_without_a_terminal_id_and_reason_are_the_decision(ctl: Ctl, served: Any) -> None:
    """A script can approve with nothing but the contract's arguments, and what it approved is shown whole."""
    entry = served.call(served.desk.opened())
    done = ctl("approve", entry.recommendation.id, "--reason", "drained")
    assert done.code == 0
    assert entry.recommendation.digest in done.out
    assert served.call(served.desk.entry(entry.recommendation.id)).recommendation.decision_reason == "drained"


@pytest.mark.parametrize(
    "arguments",
    [
        ("reject", "ID", "--reason", " "),
        ("approve", "ID", "--reason", "", "--yes"),
        ("ask", "ID", "\t"),
        ("ask", "ID", "x" * (LONGEST + 1)),
        ("silence", "add", "host=a", "--for", "1h", "--comment", ""),
        ("rules", "unshadow", "a:b", "--reason", " "),
        ("ack", "ID", "--for", "59s"),
        ("show", ""),
        ("silence", "expire", ""),
        ("policy", "test", "--person", ""),
    ],
)
def test_a_text_that_says_nothing_is_a_usage_error(ctl: Ctl, served: Any, arguments: tuple[str, ...]) -> None:
    """It is said in words before anything is asked for, and nothing is decided."""
    assert LONGEST == REASON_LIMIT == TEXT_LIMIT == COMMENT_LIMIT
    entry = served.call(served.desk.opened()).recommendation
    refused = ctl(*(entry.id if each == "ID" else each for each in arguments))
    assert (refused.code, refused.out) == (2, "")
    assert "Invalid value" in refused.err
    assert served.call(served.desk.entry(entry.id)).recommendation.state is State.PROPOSED


def test_what_is_set_aside_is_named_as_the_entry_names_it(ctl: Ctl, served: Any) -> None:
    """A name that is no condition of it is refused with those that are; a right one is taken."""
    entry_id = served.call(served.desk.opened()).recommendation.id
    asked = ("approve", entry_id, "--reason", "x", "--yes", "--set-aside")
    odd = ctl(*asked, "not_bussy=nobody uses it")
    assert odd.code == 5
    assert "not_bussy is no condition of this action\n  they are same_life, other_replica" in odd.err
    assert ctl(*asked, "other_replica").code == 2
    assert ctl(*asked, "other_replica=the other one is a spare").code == 0
    assert "by operator: the other one is a spare" in ctl("show", entry_id).out


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (("show", "nothing"), "nanobotctl queue"),
        (("incident", "nothing"), "nanobotctl incidents"),
        (("rules", "shadow", "nothing", "--reason", "x"), "nanobotctl rules"),
        (("notify", "test", "nothing"), "nanobotctl notify status"),
        (("silence", "expire", "nothing"), "nanobotctl silence list"),
        (("maintenance", "end", "nothing"), "nanobotctl maintenance list"),
        (("person", "invite", "nothing"), "nanobotctl person list"),
    ],
)
def test_what_is_not_found_says_where_it_would_be_listed(
    ctl: Ctl, arguments: tuple[str, ...], advice: str
) -> None:
    """Each kind of name has its own list."""
    refused = ctl(*arguments, as_="admin")
    assert refused.code == 3
    assert f"`{advice}" in refused.err


def test_work_for_a_person_is_never_approved(ctl: Ctl, served: Any) -> None:
    """An action of the kind `human` is shown and its approval refused, by the client and by the server."""
    entry = served.call(served.desk.opened(fault_class=FaultClass.GPU_UVM_LOST))
    refused = ctl("approve", entry.recommendation.id, "--reason", "x", "--yes")
    assert refused.code == 5
    assert "work for a person" in refused.err


def test_an_approval_that_wants_a_second_person_is_pending(ctl: Ctl, served: Any) -> None:
    """Where policy wants two persons, the first approval exits 7 and runs nothing."""
    served.desk.service._policy = Policy(two_person=frozenset({ActionKind.RESTART_CONTAINER}))
    entry = served.call(served.desk.opened())
    first = ctl("approve", entry.recommendation.id, "--reason", "x", "--yes")
    assert first.code == 7
    assert "wants a second person's" in first.err
    shown = ctl("show", entry.recommendation.id).out
    assert "one person approved, a second has to" in shown
    assert "approved, as the first of two, by operator" in shown


def test_waiting_for_the_verification_can_end_pending(ctl: Ctl, served: Any) -> None:
    """`done --wait` exits 7 while nothing is proven."""
    entry = served.call(served.desk.opened())
    ctl("approve", entry.recommendation.id, "--reason", "x", "--yes")
    pending = ctl("done", entry.recommendation.id, "--wait", "0")
    assert (pending.code, "not verified after 0 seconds" in pending.err) == (7, True)


class _Stranger(http.server.BaseHTTPRequestHandler):
    """Another service at the address: answers everything with 200 and a page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<h1>\x1b[31mwelcome</h1>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("arguments", [["queue", "--json"], ["show", "x"], ["watch"], ["audit", "verify"]])
def test_another_service_at_the_address_is_told_apart(ctl: Ctl, arguments: list[str]) -> None:
    """What does not answer like an orchestrator is an error, and nothing of it is printed."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Stranger) as stranger:
        thread = threading.Thread(target=stranger.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        outcome = ctl("--url", f"http://127.0.0.1:{stranger.server_port}", *arguments)
        stranger.shutdown()
        thread.join()
    assert (outcome.code, outcome.out) == (1, "")
    assert "not the orchestrator's" in outcome.err


class _Babbler(http.server.BaseHTTPRequestHandler):
    """Something at the address that says that it speaks JSON, and speaks nonsense."""

    says = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(self.says)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_nonsense_in_json_is_an_error_and_never_a_traceback(ctl: Ctl) -> None:
    """Whatever a list, an entry or the log is answered with, the command ends with 1 and a sentence."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Babbler) as babbler:
        thread = threading.Thread(target=babbler.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        url = f"http://127.0.0.1:{babbler.server_port}"
        for _Babbler.says in (b"", b"{", b"[1]", b"{}", b'{"entries": 3}', b'{"entries": [7]}', b"[" * 9000):
            for arguments in (
                ("queue", "--json"),
                ("queue",),
                ("hosts", "-o", "jsonl"),
                ("show", "x", "--json"),
                ("silence", "expire", "x"),
                ("topology", "suggest", "--json"),
                ("audit", "list"),
                ("export",),
            ):
                outcome = ctl("--url", url, *arguments)
                assert outcome.code in {0, 1}, (arguments, _Babbler.says)
                assert outcome.code == 0 or "cannot be understood" in outcome.err, (arguments, outcome.err)
        babbler.shutdown()
        thread.join()


def test_hosts_say_what_they_cannot_see(ctl: Ctl, served: Any) -> None:
    """Blind sensors and losses stand under their host, with the reason."""
    coverage = (
        SensorCoverage("kernel.device_open", None),
        SensorCoverage("kernel.oom_kill", BlindReason.NO_HEADERS, 2),
    )
    served.call(served.desk.report(heartbeat(coverage=coverage)))
    served.call(served.desk.report(Loss(LossKind.RING_FULL, "kernel.listener", 17, exact=False)))
    out = ctl("hosts").out
    assert "1 of 2 sensors see" in out
    assert "no kernel headers are installed" in out
    assert "at least 17 events" in out
    assert ctl("hosts", "--json").json[0]["coverage"][1]["reason"] == "no_headers"


def test_incidents_are_listed(ctl: Ctl, served: Any) -> None:
    """Open incidents stand in a table and in JSON."""
    entry = served.call(served.desk.opened())
    assert entry.incident.id in ctl("incidents").out
    assert entry.recommendation.id in ctl("show", entry.incident.id[:8]).out
    assert ctl("incidents", "--json").json[0]["open"] is True


def test_the_audit_log_verifies_online_and_offline(ctl: Ctl, served: Any, tmp_path: Path) -> None:
    """A whole log passes; a changed, a shortened and a foreign one are told apart from it."""
    entry = served.call(served.desk.opened())
    ctl("reject", entry.recommendation.id, "--reason", HOSTILE)
    export = ctl("audit", "export")
    assert export.out == ctl("audit", "list", "--json").out
    assert harmless(export.out.replace("\n", ""))
    path = tmp_path / "audit.jsonl"
    path.write_text(export.out)
    online = ctl("audit", "verify", "--json").json
    offline = ctl("--url", "http://127.0.0.1:9", "audit", "verify", str(path), "--json")
    assert (offline.code, offline.json) == (0, online)
    assert online["whole"] is True
    lines = export.out.splitlines(keepends=True)

    path.write_text("".join(lines).replace('"actor":"operator"', '"actor":"somebody"'))
    changed = ctl("audit", "verify", str(path))
    assert (changed.code, "was changed after it was written" in changed.err) == (1, True)

    path.write_text("".join(lines[1:]))
    assert ctl("audit", "verify", str(path)).code == 1

    path.write_text("".join(lines[:-1]))
    assert ctl("audit", "verify", str(path)).code == 0
    cut = ctl("audit", "verify", str(path), "--head", online["head"], "--json")
    assert (cut.code, cut.json["whole"]) == (1, False)

    path.write_text("{}\n")
    assert ctl("audit", "verify", str(path)).code == 2
    assert "operator" in ctl("audit", "list").out
    assert harmless(ctl("audit", "list").out.replace("\n", ""))


def test_hostile_names_stay_inert_on_the_way_to_a_terminal(ctl: Ctl, served: Any) -> None:
    """What a host calls things reaches text, tables and JSON escaped."""
    entry = served.call(
        served.desk.opened(
            subject=Subject(SubjectKind.PROCESS, HOSTILE), evidence=(SignalEvidence(11, 1, HOSTILE, 7),)
        )
    )
    for arguments in (
        ("queue",),
        ("queue", "--json"),
        ("show", entry.recommendation.id),
        ("show", entry.recommendation.id, "--json"),
        ("incidents",),
        ("watch", "--timeout", "0.3"),
    ):
        out = ctl(*arguments).out
        assert harmless(out.replace("\n", ""))
        assert "\\x1b[31m[red]" in out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completes_in_each_shell(ctl: Ctl, shell: str) -> None:
    """The completion script names the program and its hook."""
    script = ctl("completion", shell)
    assert (script.code, "_NANOBOTCTL_COMPLETE" in script.out) == (0, True)


def test_usage_is_told_on_standard_error(ctl: Ctl) -> None:
    """Without a command, or with a wrong one, help and errors go to standard error and exit 2."""
    bare = ctl()
    assert (bare.code, bare.out, "Commands:" in bare.err) == (2, "", True)
    wrong = ctl("queue", "--limit", "0")
    assert wrong.code == 2
    assert "nanobotctl queue --help" in wrong.err
    assert ctl("--help").code == 0
    assert ctl("--version").out.startswith("nanobotctl ")


def test_a_reader_that_leaves_is_no_accident(ctl: Ctl, served: Any) -> None:
    """`nanobotctl ... | head` ends without a traceback."""
    for number in range(300):
        served.call(served.desk.report(heartbeat(), host=f"host-{number}"))
    line = f"{sys.executable} -m escalation.cli hosts --json | head -c 10"
    finished = subprocess.run(["bash", "-c", line], capture_output=True, check=False, timeout=30)
    assert finished.stdout == b'[{"host":"'
    assert finished.stderr == b""


def test_a_drill_is_marked_in_every_list_and_cannot_be_approved(ctl: Ctl, served: Any) -> None:
    """The queue, the incidents and the entry say so; approving is refused, rejecting is not."""
    entry_id = served.call(served.desk.opened(drill=True)).recommendation.id
    assert "DRILL gpu.access_revoked" in ctl("queue").out
    assert "DRILL gpu.access_revoked" in ctl("incidents").out
    assert ctl("queue", "--json").json[0]["drill"] is True
    shown = ctl("show", entry_id).out
    assert "  DRILL GPU access was taken away" in shown.splitlines()[0]
    assert "cannot be approved: this is a drill" in shown
    assert "A drill: it clears when the drill ends." in shown
    assert "nanobotctl approve" not in shown
    refused = ctl("approve", entry_id, "--reason", "x", "--yes")
    assert refused.code == 5
    assert "this is a drill" in refused.err
    assert ctl("reject", entry_id, "--reason", "seen").code == 0
