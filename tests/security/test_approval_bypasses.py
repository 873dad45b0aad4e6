"""Ways around an approval that were published for other products in 2026, each tried on this one."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from pathlib import PurePosixPath

import httpx2
import msgspec
import pytest
from hypothesis import given, strategies as st

from escalation.cli.text import entry_text
from escalation.inert import harmless
from escalation.model import (
    Action,
    ActionKind,
    AgentId,
    CasePhase,
    FaultClass,
    Incarnation,
    Subject,
    SubjectKind,
)
from escalation.server.decision import approvals, binding
from escalation.server.desk import Refused
from escalation.server.playbook.registry import advise
from escalation.server.testing import case_report, heartbeat
from escalation.server.web.access import Role
from escalation.testing import A_MOMENT_NS, an_entry
from escalation.view.entry import EntryView, action_view
from escalation.wire import codec, escalation_pb2 as pb
from tests.escalation.server.site import wired
from tests.security.house import House, token
from tests.security.properties import security_property

_INTERPRETERS = {
    "sh", "bash", "dash", "zsh", "fish", "env", "xargs", "sudo", "su", "nohup", "eval", "exec", "ssh", "curl",
    "python", "python3", "perl", "ruby", "node", "npx", "make", "setsid", "timeout", "watch", "find", "awk",
}  # fmt: skip


def _actions() -> list[Action]:
    """Return the action of every remedy, for each fault class's example."""
    return [advise(an_entry(fault_class).incident).action for fault_class in FaultClass]


@security_property("X01", "A field that no caller may set is refused over HTTP and ignored on the wire.")
def test_no_request_can_carry_an_approval_in_a_field_of_its_own(house: House) -> None:
    """A state, approvers or a person in a body is refused; unknown fields of a report change nothing."""
    entry = house.opened()
    for extra in (
        "state",
        "approvers",
        "decided_by",
        "person",
        "role",
        "approved",
        "two_person",
        "execute_by_ns",
    ):
        assert house.decide(entry, "approve", **{extra: "ada"}).status_code == 400
        assert house.decide(entry, "done", **{extra: "ada"}).status_code == 400
    host = house.host()
    report = pb.Report.FromString(wired(case_report(), 2, host=host))
    smuggled = report.SerializeToString() + b"".join(
        bytes([(number << 3 | 2) & 0x7F | 0x80, number >> 4, 8]) + b"approved" for number in range(100, 130)
    )
    house.send_bytes(host, codec.join([wired(heartbeat(), 1, host=host), smuggled]))
    for each in (entry, house.entry(host)):
        assert house.state(each) == "proposed"
        assert [link["verb"] for link in house.audit(each["id"])] == ["recommendation.proposed"]


@security_property(
    "X02", "The digest covers the list of arguments, not a text that could be split otherwise."
)
@given(st.lists(st.text(max_size=6), min_size=1, max_size=5), st.data())
def test_the_digest_is_of_the_arguments_and_not_of_their_text(
    arguments: list[str], data: st.DataObject
) -> None:
    """Whatever is joined, split, trimmed or padded into another list of arguments has another digest."""
    incident = an_entry().incident
    action = dataclasses.replace(advise(incident).action, command=tuple(arguments))
    text = " ".join(arguments)
    other = data.draw(
        st.sampled_from(
            [
                (text,),
                tuple(text.split()),
                tuple(map(str.strip, arguments)),
                (*arguments, ""),
                tuple(arguments[:-1]),
            ]
        )
    )
    same = binding.digest_of(dataclasses.replace(action, command=other), incident) == binding.digest_of(
        action, incident
    )
    assert same == (other == tuple(arguments))


@security_property("X03", "A command is shown whole, however long, or it cannot be approved.")
def test_a_long_command_is_shown_to_its_last_character(house: House) -> None:
    """Page, API and terminal end where the command ends; nothing of it is cut or folded away."""
    unit = f"{'x' * 180}-tail.service"
    entry = house.opened(subject=Subject(SubjectKind.UNIT, unit), target=Subject(SubjectKind.UNIT, unit))
    with house.client("vera") as client:
        page = client.get(f"/q/{entry['id']}").text
        raw = client.get(f"/api/v1/queue/{entry['id']}").content
    view = msgspec.json.decode(raw, type=EntryView)
    assert unit in entry["action"]["command"]
    for text in (page, entry_text(view, width=60)):
        assert f"{'x' * 180}-tail.service" in text
    long = action_view(dataclasses.replace(_actions()[0], command=("docker", "restart", "y" * 9_000)))
    assert (long.whole, long.command_line) == (True, f"docker restart {'y' * 9_000}")


@pytest.mark.parametrize("hidden", ["\u202e", "\u200b", "\x1b[8m", "\r", "\x00", "\u00a0\u0301"])
@security_property("B16", "A command that holds what cannot be seen is shown escaped and refused.")
def test_a_command_with_a_hidden_character_cannot_be_approved(hidden: str) -> None:
    """Bidi, zero-width, escape, carriage return: it is written out, and no approval of it is taken."""
    entry = an_entry(FaultClass.GPU_ACCESS_REVOKED)
    advice = advise(entry.incident)
    action = dataclasses.replace(advice.action, command=("docker", "restart", f"web{hidden}1"))
    unreadable = dataclasses.replace(
        entry.recommendation,
        advice=dataclasses.replace(advice, action=action),
        digest=binding.digest_of(action, entry.incident),
    )
    event = approvals.Approve("ada", "why", unreadable.digest)
    with pytest.raises(Refused, match="cannot be shown"):
        approvals.step(unreadable, entry.incident, event, policy=approvals.Policy(), now_ns=A_MOMENT_NS)
    view = action_view(action)
    assert (view.whole, view.command_line) == (False, None)
    assert view.refusal == "its command holds characters that cannot be shown as they are"
    assert all(map(harmless, view.command))


@security_property(
    "X04", "No remedy runs a script or an interpreter, so there is no file to change afterwards."
)
def test_no_remedy_hands_a_program_to_an_interpreter() -> None:
    """Each command is one known program with plain operands: no shell, no script, no path."""
    for action in _actions():
        program, *operands = action.command
        assert re.fullmatch(r"[a-z][a-z-]+", program), action
        assert program not in _INTERPRETERS
        assert not {"-c", "-e", "--eval", "exec", "run", "&&", "|", ";"} & set(operands), action
        assert not [each for each in operands if re.search(r"\.(sh|py|pl|rb|js)$", each)], action


@security_property(
    "X05", "Who is approved is one life of the target; a replaced container needs a new approval."
)
def test_what_was_replaced_after_the_approval_is_not_what_was_approved(house: House) -> None:
    """The container is made anew under its name: the approval lapses, and marking it done is refused."""
    host = house.host()
    entry = house.opened(host)
    assert house.decide(entry, "approve").json()["state"] == "approved"
    reborn = Incarnation(kernel_boot_id="kernel-1", container_id="5a" * 32)
    house.send(host, case_report(CasePhase.UPDATED, incarnation=reborn, count=2))
    assert house.state(entry) == "lapsed"
    late = house.decide(entry, "done")
    assert (late.status_code, late.json()["error"]["code"]) == (410, "expired")


@security_property("X06", "A change of what the action would meet voids what was read before it.")
def test_evidence_that_changed_while_it_was_read_voids_the_reading(house: House) -> None:
    """Between reading and approving the target got another life: the approval of the old text is refused."""
    host = house.host()
    entry = house.opened(host)
    reborn = Incarnation(kernel_boot_id="kernel-2", container_id="4f" * 32)
    house.send(host, case_report(CasePhase.UPDATED, incarnation=reborn, count=2))
    refused = house.decide(entry, "approve")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "superseded")
    assert house.state(entry) == "proposed"
    assert house.entry(host)["digest"] != entry["digest"]


@security_property(
    "X07", "What is printed for the shell is read back by a shell as exactly the approved arguments."
)
@given(st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126)), min_size=1, max_size=6))
def test_the_printed_line_is_the_arguments_and_nothing_else(arguments: list[str]) -> None:
    """Quotes, dollars, semicolons and blanks in an argument stay inside it."""
    view = action_view(dataclasses.replace(_actions()[0], command=tuple(arguments)))
    assert view.command_line is not None
    assert shlex.split(view.command_line) == arguments
    assert list(view.command) == arguments


@security_property("X08", "From the digest to the screen nobody rewrites the arguments.")
def test_what_is_stored_shown_and_digested_are_the_same_arguments(house: House) -> None:
    """The row in the database, the API and the digest agree on each element of the command."""
    entry = house.opened()
    ((stored,),) = house.rows(f"SELECT value FROM recommendations WHERE id = '{entry['id']}'")
    command = json.loads(stored)["advice"]["action"]["command"]
    assert command == entry["action"]["command"]
    assert shlex.split(entry["action"]["command_line"]) == command
    house.decide(entry, "approve")
    with house.client("ada") as client:
        approved = client.get(f"/api/v1/queue/{entry['id']}").json()
    assert (approved["action"], approved["digest"]) == (entry["action"], entry["digest"])


@security_property("X09", "An action has no environment that could be another one later.")
def test_an_action_is_its_kind_host_target_and_arguments() -> None:
    """There is no field for an environment, and no command sets one; each field of it is in the digest."""
    assert [each.name for each in dataclasses.fields(Action)] == ["kind", "host", "target", "command"]
    assert not [each for action in _actions() for each in action.command[:1] if "=" in each or each == "env"]
    incident = an_entry().incident
    action = advise(incident).action
    changed = (
        dataclasses.replace(action, kind=ActionKind.INSPECT),
        dataclasses.replace(action, host=AgentId("another")),
        dataclasses.replace(action, target=Subject(SubjectKind.UNIT, action.target.name)),
        dataclasses.replace(action, command=(*action.command, "-v")),
    )
    digests = {binding.digest_of(each, incident) for each in (action, *changed)}
    assert len(digests) == 1 + len(changed)


@security_property("X10", "No operand is a path that depends on a working folder.")
def test_no_command_depends_on_where_it_is_run() -> None:
    """There is no field for a folder; an operand that is a path is absolute and has no `..`."""
    for action in _actions():
        for operand in action.command[1:]:
            path = PurePosixPath(operand)
            assert not operand.startswith(("./", "../", "~")), action
            assert ".." not in path.parts, action


@security_property("X11", "There is no standing approval: the same fault that comes back is decided anew.")
def test_an_approval_does_not_cover_the_next_time(house: House) -> None:
    """Approved, cured, and broken again: a new entry waits, and the old approval opens nothing."""
    host = house.host()
    entry = house.opened(host)
    house.decide(entry, "approve")
    house.send(host, case_report(CasePhase.CLEARED, count=2))
    house.send(host, case_report(case_id="case-2"))
    again = house.entry(host)
    assert again["id"] != entry["id"]
    assert (again["state"], again["approvers"]) == ("proposed", [])
    replayed = house.decide(again, "approve", digest=entry["digest"])
    assert (replayed.status_code, replayed.json()["error"]["code"]) == (409, "superseded")
    with house.client("root") as client:
        for word in ("always", "allow", "auto"):
            assert client.post(f"/api/v1/queue/{again['id']}/{word}", json={}).status_code in {404, 405}


@security_property(
    "X12", "A chat, a mail or a receiver's answer can approve nothing: there is a link and no more."
)
def test_a_notification_holds_a_link_and_its_answer_is_not_read(house: House) -> None:
    """The message names no digest and no action; the receiver answers `approved`, and nothing is."""
    host = house.host()
    entry = house.opened(host)
    message = house.told.about(host)
    assert message["url"].startswith(f"{house.url}/")
    assert not {"digest", "command", "action", "token", "approve"} & set(message)
    assert entry["digest"] not in json.dumps(message)
    with house.client("ada", follow_redirects=True) as client:
        assert client.get(message["url"]).status_code == 200
        assert client.head(message["url"]).status_code in {200, 405}
    assert house.state(entry) == "proposed"


@security_property("X13", "What a caller may do comes from its credential's record, not from what it says.")
def test_a_caller_cannot_declare_its_own_rights(house: House) -> None:
    """A viewer who claims a role in headers, in the query, in the name or in the body stays a viewer."""
    entry = house.opened()
    claims = {
        "X-Role": "admin",
        "X-Scopes": "operator.admin",
        "X-Forwarded-User": "root",
        "X-Remote-User": "root",
        "Tailscale-User-Login": "root",
        "X-Nanobot-Person": "root",
    }
    with house.client("vera") as client:
        client.headers.update(claims)
        path = f"/api/v1/queue/{entry['id']}/reject"
        for body in ({"reason": "x"}, {"reason": "x", "role": "admin"}, {"reason": "x", "scopes": ["admin"]}):
            assert client.post(path, params={"role": "admin"}, json=body).status_code == 403
    with house.client(None) as client:
        for name in ("root", "ada"):
            named = httpx2.BasicAuth(name, token("vera"))
            assert client.post(path, json={"reason": "x"}, auth=named).status_code == 401
    assert house.state(entry) == "proposed"


@security_property("X14", "No credential can make a stronger one, and no answer hands one out.")
def test_no_token_mints_a_stronger_one(house: House) -> None:
    """An operator is refused wherever accounts could be changed, and reads no credential anywhere."""
    house.opened()
    with house.client("ada") as client:
        administering = [rule for rule in house.rules if rule.role is Role.ADMIN]
        assert {rule.path for rule in administering} >= {"/api/v1/persons/{id}/invite"}
        for rule in administering:
            path = re.sub(r"\{[^}]*\}", "root", rule.path)
            answer = client.request(rule.method, path, json={} if rule.method == "POST" else None)
            assert answer.status_code == 403, rule
        for path in ("/api/v1/tokens", "/api/v1/persons", "/api/v1/pair"):
            answer = client.post(path, json={"name": "eve", "role": "admin"})
            assert answer.status_code in {403, 404, 405}, path
        read = "".join(
            client.get(path).text
            for path in (
                "/",
                "/hosts",
                "/api/v1/queue",
                "/api/v1/hosts",
                "/api/v1/notify",
                "/api/v1/audit",
                "/metrics",
            )
        )
    assert not [name for name in ("root", "ada", "vera") if token(name) in read]


@security_property("X15", "No address from a request is ever called, shown as a link or redirected to.")
def test_no_address_comes_from_a_query(house: House) -> None:
    """Parameters that name a gateway, a return address or an origin reach no page, header or connection."""
    entry = house.opened()
    evil = "https://evil.example/x"
    names = ("url", "next", "gatewayUrl", "return_to", "redirect", "origin", "callback", "endpoint")
    params = dict.fromkeys(names, evil)
    with house.client("ada") as client:
        for path in ("/", "/hosts", f"/q/{entry['id']}", "/login", "/api/v1/queue", "/api/v1/watch/none"):
            answer = client.get(path, params=params)
            assert "evil.example" not in answer.text, path
            assert "evil.example" not in str(answer.headers), path
            policy = answer.headers["content-security-policy"]
            sources = dict(each.strip().partition(" ")[::2] for each in policy.split(";"))
            assert sources.get("connect-src", sources["default-src"]) in {"'none'", "'self'"}
