"""The reference page of security properties: which must hold, what holds here, and the test that shows it.

The lists here say what there is to prove; the sentences and the proofs stand at the tests, in their marker
`security_property`. A property with neither a test nor a reason, and a test of a property that is not listed,
end `make check`.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARKER = "security_property"


@dataclass(frozen=True, slots=True)
class Property:
    """One thing that must hold: its number, and the claim in general words."""

    number: str
    claim: str


@dataclass(frozen=True, slots=True)
class Proof:
    """A test that shows a property, and what it says holds here."""

    number: str
    sentence: str
    test: str


BYPASSES = (
    Property("X01", "CVE-2026-28466: a client injected the fields that mark a call as approved"),
    Property("X02", "CVE-2026-32065: the text that was shown was trimmed, the raw arguments ran"),
    Property("X03", "GHSA-xww8-gqvh-92x9: the display was cut, and hid the end of the command"),
    Property("X04", "CVE-2026-32921: the script behind the command was changed after the approval"),
    Property("X05", "CVE-2026-32978: what the approved words meant was replaced before they ran"),
    Property("X06", "CVE-2026-32979: the approval was not bound to what stood there when it was given"),
    Property("X07", "CVE-2026-29608: a wrapper rewrote the arguments on their way to the shell"),
    Property("X08", "CVE-2026-53822: other arguments ran than those that were approved"),
    Property("X09", "CVE-2026-32058: an approval was used again with another environment"),
    Property("X10", "CVE-2026-27545: a link in the working folder was pointed elsewhere"),
    Property("X11", "CVE-2026-29607: `allow always` covered more than was allowed"),
    Property("X12", "CVE-2026-62217: a sender of less trust could approve in a chat"),
    Property("X13", "GHSA-rqpp-rjj8-7wv8: a client declared its own rights"),
    Property("X14", "GHSA-4jpw-hj22-2xmc: a token for pairing made an administrator's"),
    Property("X15", "CVE-2026-25253: a token was sent to an address from the query string"),
)

PROPERTIES: Mapping[str, tuple[Property, ...]] = {
    "Authority": (
        Property("A1", "The orchestrator has no call, credential or code that runs a command on a host"),
        Property("A2", "The agent listens nowhere but for metrics, on loopback or the mesh"),
        Property("A3", "What acts is absent by default"),
        Property("A4", "A host carries out only what its own catalogue lists"),
        Property("A5", "An approval can carry a person's signature, which the orchestrator cannot forge"),
        Property("A6", "A compromised orchestrator causes no execution on a host"),
        Property("A7", "A stolen agent certificate acts for no other agent and reads no queue"),
        Property("A8", "Two persons are two distinct persons"),
        Property("A9", "Nobody approves what they asked for"),
    ),
    "Binding": (
        Property("B10", "Any change of what was approved voids the approval"),
        Property("B11", "An approval is used once, after a restart and a restored database too"),
        Property("B12", "What has expired stays expired, whatever the clock says"),
        Property("B13", "An approval for one host is none for another"),
        Property("B14", "Preconditions are looked at again when it counts"),
        Property("B15", "What was rejected or withdrawn cannot be approved later"),
        Property("B16", "What is shown is made from what is digested, and is shown inert"),
    ),
    "Input": (
        Property("I17", "There is no shell anywhere"),
        Property("I18", "Hostile text reaches the database, pages, terminals, labels and notices inert"),
        Property("I19", "Size, rate, number and depth of what is sent are limited per sender"),
        Property("I20", "No bytes on the wire crash a reader"),
        Property("I21", "Text that speaks to a model changes no typed field, severity, action or state"),
        Property("I22", "A model that cannot be reached, or lies, changes nothing"),
    ),
    "Transport and identity": (
        Property("T23", "Mutual TLS, no plain port, and no certificate but one of ours that names a host"),
        Property("T24", "Every route answers each role, and nobody, as its table says"),
        Property("T25", "Who asks is never read from a body or a header"),
        Property("T26", "No other site's page can decide, reading changes nothing, pages cannot be framed"),
        Property(
            "T27", "Sessions end, deciding wants a fresh login, guessing is slowed, secrets compare evenly"
        ),
        Property("T28", "A reader's token, an assistant's included, decides nothing"),
    ),
    "Host": (
        Property("H29", "Units are sandboxed below the published score, programs hold the documented rights"),
        Property("H30", "Who runs the service cannot change its program, units or configuration"),
        Property("H31", "Secrets stand in no log, page, metric, argument, environment or database"),
        Property("H32", "Prompts, tokens and secret arguments are gone before the spool"),
        Property("H33", "A storm costs no more than its limits"),
    ),
    "Audit and supply": (
        Property("S34", "Any change to the audit log is found offline"),
        Property("S35", "What is installed is pinned, and privileged code sees nothing else"),
        Property("S36", "Uninstalling leaves no right, unit or socket behind"),
    ),
}

NOT_HERE: Mapping[str, str] = {
    "A4": "Nothing here carries out anything on a host: there is no catalogue of what it may do. What is "
    "recommended is held by X04, X09 and X10.",
}
"""What does not apply, and why."""


def page() -> str:
    """Return the page in Markdown."""
    proofs = _checked(tuple(_proofs()))
    lines = [
        "# Security properties",
        "",
        "<!-- Written by `make generate` from dev/security_properties.py and the tests; do not edit. -->",
        "",
        "What must hold, what holds here, and the test that shows it. What that leaves open is in the",
        "[threat model](../explanation/threat-model.md).",
        "",
        "## Ways around an approval",
        "",
        "Fifteen ways around approvals and rights that were published for other products in 2026.",
        "",
        "| | what failed elsewhere | what holds here | test |",
        "|---|---|---|---|",
        *_rows(BYPASSES, proofs),
    ]
    for title, properties in PROPERTIES.items():
        lines += [
            "",
            f"## {title}",
            "",
            "| | must hold | what holds here | test |",
            "|---|---|---|---|",
            *_rows(properties, proofs),
        ]
    return "\n".join(lines) + "\n"


def _rows(properties: tuple[Property, ...], proofs: Mapping[str, list[Proof]]) -> Iterator[str]:
    for each in properties:
        if each.number in NOT_HERE:
            yield f"| {each.number} | {each.claim} | Does not apply. {NOT_HERE[each.number]} | |"
        for proof in proofs.get(each.number, ()):
            path, _, name = proof.test.partition("::")
            link = f"[{name}](../../{path})"
            yield f"| {each.number} | {each.claim} | {proof.sentence} | {link} |"


def _checked(proofs: tuple[Proof, ...]) -> Mapping[str, list[Proof]]:
    """Return the proofs by number; end with a sentence when they and the lists do not agree."""
    wanted = [each.number for each in (*BYPASSES, *(one for group in PROPERTIES.values() for one in group))]
    found: dict[str, list[Proof]] = defaultdict(list)
    for proof in proofs:
        found[proof.number].append(proof)
    problems = [f"{number} is listed twice" for number in wanted if wanted.count(number) > 1]
    problems += [f"{number} has neither a test nor a reason" for number in wanted if not (
        number in found or number in NOT_HERE
    )]  # fmt: skip
    problems += [f"{number} is proved and said not to apply" for number in NOT_HERE if number in found]
    problems += [
        f"{each.test} proves {each.number}, which nobody listed"
        for each in proofs
        if each.number not in wanted
    ]
    if problems:
        raise SystemExit("security properties: " + "; ".join(problems))
    return found


def _proofs() -> Iterator[Proof]:
    """Yield every marked test; end with a sentence at a test of tests/security that has no marker."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        source = path.read_text()
        if MARKER not in source and path.parent.name != "security":
            continue
        name = path.relative_to(ROOT).as_posix()
        for node in ast.parse(source).body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith(
                "test_"
            ):
                continue
            marks = [each for each in map(_mark, node.decorator_list) if each is not None]
            if not marks and path.parent.name == "security":
                raise SystemExit(f"security properties: {name}::{node.name} names no property")
            for number, sentence in marks:
                yield Proof(number, sentence, f"{name}::{node.name}")


def _mark(decorator: ast.expr) -> tuple[str, str] | None:
    if not isinstance(decorator, ast.Call):
        return None
    if ast.unparse(decorator.func).rpartition(".")[2] != MARKER:
        return None
    number, sentence = (ast.literal_eval(each) for each in decorator.args)
    return str(number), str(sentence)
