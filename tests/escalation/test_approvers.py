"""The approvers' file: which lines it takes, and from whom."""

from __future__ import annotations

import base64
import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from escalation.model import SshSignature
from escalation.signing import approvers, sshsig
from escalation.signing.approvers import ApproversError
from escalation.signing.sshsig import Keygen, KeygenError, SshRefused
from tests.escalation.signers import KEYGEN, Authenticator, SshKey

OWN = frozenset({0, os.geteuid()})


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SshKey:
    return SshKey.made(tmp_path_factory.mktemp("keys") / "ada")


def test_reads_keys_and_passkeys(key: SshKey) -> None:
    """SSH lines stay as ssh-keygen reads them, passkeys are found by person and credential."""
    passkey = Authenticator()
    line = key.line("ada", 'namespaces="nanobot-approval"')
    found = approvers.parse(f"# who may approve\n\n{line}{passkey.line('grace')}", name="approvers")
    assert found.ssh == line
    assert found.passkey("grace", passkey.passkey.credential_id) == passkey.passkey
    assert found.passkey("ada", passkey.passkey.credential_id) is None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("ada", "is no line"),
        ("ada ssh-ed25519", "is no line"),
        ("ada ssh-ed25519 AAAA", "not of the type"),
        ("ada ssh-ed25519 A", "not base64"),
        ("ada cert-authority ssh-ed25519 AAAA", "certificates"),
        ("ada ssh-ed25519-cert-v01@openssh.com AAAA", "certificates"),
        ('"ada ssh-ed25519 AAAA', "is no line"),
        ("* ssh-ed25519 AAAA", "pattern"),
        ("ada,!grace ssh-ed25519 AAAA", "pattern"),
        ("ada valid-before=20270101 ssh-ed25519 AAAA", "the options are"),
        ('ada valid-until="20270101" ssh-ed25519 AAAA', "the options are"),
        ('ada valid-before="2027-01-01" ssh-ed25519 AAAA', "the options are"),
        ('ada namespaces="a",namespaces="b" ssh-ed25519 AAAA', "the options are"),
        ("ada webauthn", "a passkey's line is"),
        (Authenticator().line("ada,grace"), "one person's"),
        (Authenticator().line("*"), "one person's"),
        ("ada webauthn id AAAA https://queue.example", "public key"),
        (Authenticator(origin="http://queue.example").line("ada"), "no origin"),
        (Authenticator(origin="https://queue.example/page").line("ada"), "no origin"),
        (Authenticator(origin="queue.example").line("ada"), "no origin"),
        (Authenticator().line("ada").strip() + " a b", "a passkey's line is"),
    ],
)
def test_names_the_line_that_is_wrong(line: str, why: str) -> None:
    """A line that would quietly count for nothing, or for too much, is an error with its number."""
    with pytest.raises(ApproversError, match=f"approvers:2: .*{why}"):
        approvers.parse(f"# one\n{line}\n", name="approvers")


def test_a_passkey_stands_there_once() -> None:
    """A credential that is written down twice for a person is an error."""
    line = Authenticator().line("ada")
    with pytest.raises(ApproversError, match="there twice"):
        approvers.parse(line + line, name="approvers")


@given(
    st.text()
    | st.lists(st.sampled_from(["ada", "webauthn", "ssh-rsa", "AAAA", '"', "=", "\t"])).map(" ".join)
)
def test_no_text_does_more_than_be_refused(text: str) -> None:
    """Whatever stands in the file is read or refused by name, and never crashes."""
    found = None
    with contextlib.suppress(ApproversError):
        found = approvers.parse(text, name="approvers")
    assert found is None or found.passkeys == ()


@pytest.fixture
def file(tmp_path: Path, key: SshKey) -> Path:
    path = tmp_path / "approvers"
    path.write_text(key.line("ada"))
    path.chmod(0o644)
    return path


def test_takes_a_file_that_nobody_else_can_change(file: Path, key: SshKey) -> None:
    """A file of the right owner is read, with the keys that count no more beside it."""
    found = approvers.read(file, revoked=file, owners=OWN)
    assert (found.ssh, found.revoked) == (key.line("ada"), key.line("ada").encode())


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_refuses_a_file_that_others_can_change(file: Path, mode: int) -> None:
    """Who can write to it could name their own key."""
    file.chmod(mode)
    with pytest.raises(ApproversError, match="others can change it"):
        approvers.read(file, owners=OWN)


def test_refuses_a_folder_that_others_can_change(file: Path, tmp_path: Path) -> None:
    """Who can write to the folder could put another file there; a link does not hide that."""
    folder = tmp_path / "open"
    folder.mkdir()
    moved = folder / "approvers"
    file.rename(moved)
    link = tmp_path / "link"
    link.symlink_to(moved)
    folder.chmod(0o777)
    for path in (moved, link):
        with pytest.raises(ApproversError, match="open: others can change it"):
            approvers.read(path, owners=OWN)
    folder.chmod(0o1777)
    assert approvers.read(link, owners=OWN).ssh


def test_refuses_what_belongs_to_somebody_else(file: Path) -> None:
    """Only root's file counts at the orchestrator, only root's or one's own at a client."""
    with pytest.raises(ApproversError, match="has to belong to"):
        approvers.read(file, owners=frozenset({os.geteuid() + 1}))


@pytest.mark.root
def test_the_orchestrator_takes_roots_file_alone(file: Path) -> None:
    """A file of another user is refused, even when nobody else can write to it."""
    assert approvers.read(file).ssh
    os.chown(file, 12345, 12345)
    with pytest.raises(ApproversError, match="belongs to user 12345; it has to belong to root"):
        approvers.read(file)


def test_refuses_what_is_no_text_file(tmp_path: Path) -> None:
    """A folder, a pipe, a missing file and bytes that are no text are named."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for name, why in (
        ("", "regular file"),
        ("pipe", "regular file"),
        ("none", "No such file"),
        ("bytes", "UTF-8"),
    ):
        with pytest.raises(ApproversError, match=why):
            approvers.read(tmp_path / name, owners=OWN)


def test_a_keygen_that_is_missing_or_hangs_is_named(tmp_path: Path, key: SshKey) -> None:
    """Nothing passes because the program that would refuse it is not there."""
    signature = key.sign("text")
    known = approvers.parse(key.line("ada"), name="approvers")
    for path, why in ((tmp_path / "none", "cannot be run"), (tmp_path, "cannot be run")):
        with pytest.raises(KeygenError, match=why):
            Keygen(path).verify(signature, "text", person="ada", approvers=known)
        with pytest.raises(KeygenError, match=why):
            Keygen(path).sign("text", key=key.path, environment={})
    with pytest.raises(KeygenError, match="printed no signature"):
        Keygen(Path("/bin/true")).sign("text", key=key.path, environment={})
    assert KEYGEN.verify(signature, "text", person="ada", approvers=known).startswith("SHA256:")


def test_the_options_of_ssh_keygen_are_taken(key: SshKey) -> None:
    """Every option that a line may have, together, is one that ssh-keygen understands."""
    options = 'namespaces="nanobot-approval,git",valid-after="20200101",Valid-Before="20990101120000Z"'
    known = approvers.parse(key.line("ada,grace", options), name="approvers")
    for person in ("ada", "grace"):
        assert KEYGEN.verify(key.sign("text"), "text", person=person, approvers=known)


def test_a_key_has_one_name_in_whatever_form_a_signature_holds_it(tmp_path: Path) -> None:
    """An RSA key's numbers may be written with zeros before them: that makes no second key of it."""
    rsa = SshKey.made(tmp_path / "rsa", "rsa")
    known = approvers.parse(rsa.line("ada,grace"), name="approvers")
    signature = rsa.sign("text")
    name = KEYGEN.verify(signature, "text", person="ada", approvers=known)
    padded = _with_zeros(signature)
    assert sshsig.fingerprint(padded) != name
    with pytest.raises(SshRefused, match="another form"):
        KEYGEN.verify(padded, "text", person="grace", approvers=known)


def _with_zeros(signature: SshSignature) -> SshSignature:
    """Return the signature with a zero before the exponent of its RSA key, which changes nothing else."""
    lines = signature.armoured.strip().splitlines()
    blob = base64.b64decode("".join(lines[1:-1]))
    head, length = blob[:10], int.from_bytes(blob[10:14], "big")
    key, rest = blob[14 : 14 + length], blob[14 + length :]
    kind = int.from_bytes(key[:4], "big") + 4
    exponent = int.from_bytes(key[kind : kind + 4], "big")
    longer = key[:kind] + (exponent + 1).to_bytes(4, "big") + b"\0" + key[kind + 4 :]
    body = base64.encodebytes(head + len(longer).to_bytes(4, "big") + longer + rest).decode()
    return SshSignature(f"{lines[0]}\n{body}{lines[-1]}\n")


def test_a_keygen_that_says_nothing_verifies_nothing(key: SshKey) -> None:
    """A program that ends well and names no key is not ssh-keygen."""
    known = approvers.parse(key.line("ada"), name="approvers")
    with pytest.raises(SshRefused):
        Keygen(Path("/bin/true")).verify(key.sign("text"), "text", person="ada", approvers=known)


@pytest.mark.parametrize("person", ["a\0da", "a" * 200_000])
def test_a_name_that_no_program_takes_is_nobodys(key: SshKey, person: str) -> None:
    """A log may name anything; who cannot be asked about did not sign, and nothing else is in doubt."""
    known = approvers.parse(key.line("ada"), name="approvers")
    with pytest.raises(SshRefused, match="such a name"):
        KEYGEN.verify(key.sign("text"), "text", person=person, approvers=known)


@given(st.binary(max_size=120), st.booleans())
def test_no_bytes_pass_for_a_signature(content: bytes, whole: bool) -> None:
    """Whatever stands in the armour is refused by name, and never crashes."""
    inside = b"SSHSIG\0\0\0\1" + content if whole else content
    armoured = (
        "-----BEGIN SSH SIGNATURE-----\n"
        + base64.encodebytes(inside).decode()
        + "-----END SSH SIGNATURE-----\n"
    )
    with pytest.raises(SshRefused):
        sshsig.fingerprint(SshSignature(armoured))
    with pytest.raises(SshRefused):
        sshsig.fingerprint(SshSignature(content.decode("latin-1")))
