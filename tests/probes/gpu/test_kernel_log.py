"""The driver's lines in the kernel log: known forms are read, anything else is nothing and never an error."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from probes.gpu.facts import pci_address, pci_of
from probes.gpu.kernel_log import (
    DriverLine,
    FallenOffLine,
    InitFailedLine,
    MismatchLine,
    XidLine,
    parse,
)

_MISMATCH = (
    "NVRM: API mismatch: the client 'nvidia-smi' (pid 1005)\n"
    "               NVRM: has the version 595.84, but this kernel module has\n"
    "               NVRM: the version 595.80.  Please make sure that this\n"
)

_MISMATCH_IN_SYSLOG = (
    "kernel: NVRM: API mismatch: the client has the version 535.54.03, but#012NVRM: this kernel module has "
    "the version 530.30.02.  Please#012NVRM: make sure"
)
_OFF_THE_BUS = (
    "NVRM: The NVIDIA GPU 0000:65:00.0\nNVRM: (PCI ID: 10de:2d18) installed in this system has\n"
    "NVRM: fallen off the bus and is not responding to commands."
)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "NVRM: Xid (PCI:0000:05:00): 79, GPU has fallen off the bus.",
            XidLine("0000:05:00.0", 79, None, None, None),
        ),
        (
            "Nov 22 00:01:02 spark kernel: NVRM: Xid (PCI:000f:01:00): 31, pid=77, name=python3, Ch 0000000a",
            XidLine("000f:01:00.0", 31, 77, "python3", None),
        ),
        (
            "NVRM: Xid (PCI:0000:43:00 GPU-I:05 GPU-CI:00): 94, pid=7194, name=a(b)c, Contained: SM",
            XidLine("0000:43:00.0", 94, 7194, "a(b)c", 5),
        ),
        (
            "NVRM: Xid (PCI:0000:43:00): 62, pid='<unknown>', name=<unknown>, 2d3e",
            XidLine("0000:43:00.0", 62, None, None, None),
        ),
        ("NVRM: Xid (0000:43:00): 4242, something new", XidLine("0000:43:00.0", 4242, None, None, None)),
        ("NVRM: GPU 0000:65:00.0: GPU has fallen off the bus.", FallenOffLine("0000:65:00.0")),
        (
            _OFF_THE_BUS,
            FallenOffLine("0000:65:00.0"),
        ),
        ("NVRM: fallen off the bus and is not responding to commands.", FallenOffLine(None)),
        (
            "NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x23:0x65:1426)",
            InitFailedLine("0000:01:00.0"),
        ),
        (_MISMATCH, MismatchLine("595.84", "595.80", 1005)),
        (
            _MISMATCH_IN_SYSLOG,
            MismatchLine("535.54.03", "530.30.02", None),
        ),
    ],
)
def test_a_known_form_is_read(line: str, said: DriverLine) -> None:
    """Every form that the driver's sources and its users' logs show."""
    assert parse(line) == said


@pytest.mark.parametrize(
    "line",
    [
        "",
        "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  575.57.08",
        "Xid (PCI:0000:05:00): 79, without the driver's mark",
        "NVRM: Xid (PCI:0000:05:00): , no number",
        "NVRM: Xid (PCI:0000:05:00): 99999999999, too large a number",
        "NVRM: Xid (PCI:0000:05:00): 4294967296, one too many",
    ],
)
def test_anything_else_is_nothing(line: str) -> None:
    """No fault is made out of a line that does not tell one."""
    assert parse(line) is None


@given(
    domain=st.integers(0, 2**16 - 1),
    bus=st.integers(0, 255),
    device=st.integers(0, 31),
    number=st.integers(0, 2**32 - 1),
    pid=st.integers(1, 2**22),
    name=st.text(
        st.characters(blacklist_characters=",<\n\r", blacklist_categories=("Cs",)), min_size=1, max_size=15
    ),
)
def test_what_the_driver_prints_comes_back(
    *, domain: int, bus: int, device: int, number: int, pid: int, name: str
) -> None:
    """The address, the number and the process survive, whatever a process calls itself."""
    line = (
        f"NVRM: Xid (PCI:{domain:04x}:{bus:02x}:{device:02x}): {number}, pid={pid}, name={name}, Ch 00000008"
    )
    found = parse(line)
    assert isinstance(found, XidLine)
    assert (found.pci, found.number, found.pid) == (pci_of(domain, bus, device), number, pid)
    assert found.process_name == name


@given(
    st.text(max_size=300)
    | st.text("NVRM: Xid(PCI0123456789abcdef,=pidname<>'.GUfalenothbsM#\n", max_size=300)
)
def test_no_text_is_an_error(text: str) -> None:
    """Garbage is nothing, or a line with an address that reads as one."""
    found = parse(f"NVRM: {text}")
    if found is not None and not isinstance(found, MismatchLine) and found.pci is not None:
        assert pci_address(found.pci) == found.pci


@given(st.binary(max_size=200))
def test_bytes_that_are_no_text_are_no_error(raw: bytes) -> None:
    """A log with undecodable bytes is read all the same."""
    parse("NVRM: Xid (PCI:0000:05:00): 13, name=" + raw.decode(errors="replace"))


@pytest.mark.parametrize(
    "text", ["0000000F:01:00.0", "PCI:000f:01:00", "000f:01:00.0", "f:1:0", "0000000f:01:00.0"]
)
def test_every_form_of_an_address_is_one_address(text: str) -> None:
    """NVML, the kernel log and sysfs write the GB10's address in three ways."""
    assert pci_address(text) == "000f:01:00.0"


@given(st.text(max_size=30))
def test_an_address_reads_as_itself_or_not_at_all(text: str) -> None:
    """Whatever is accepted is canonical from then on."""
    found = pci_address(text)
    assert found is None or pci_address(found) == found
