"""Evidence of memory, placement and GPUs: what is unknown is said to be, and numbers read as words."""

from __future__ import annotations

import pytest

from escalation.model import GpuEvidence, MemoryEvidence, PlacementEvidence, ServerKind, XidEvidence
from escalation.wording.evidence import fact

GIB = 1 << 30


def placement(*, listed: bool | None) -> PlacementEvidence:
    """Evidence of a server that burns twelve cores."""
    return PlacementEvidence(
        server=ServerKind.OLLAMA,
        process_name="ollama",
        pid=7,
        cores=12.04,
        window_s=30.0,
        requests=1,
        listed=listed,
        failed_opens=2,
        measured=1.5,
        baseline=40.0,
    )


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        (True, "the driver lists it on a GPU"),
        (False, "the driver lists it on no GPU"),
        (None, "whether the driver lists it on a GPU is unknown"),
    ],
)
def test_a_server_that_could_not_be_looked_up_is_not_absent(listed: bool | None, words: str) -> None:
    """Three answers, three sentences; the rest of the fact stands beside each."""
    assert fact(placement(listed=listed)) == (
        f"ollama (pid 7) kept 12 cores busy over 30 s with 1 request, {words}, "
        "opening the GPU failed twice, 1.5 tokens a second where 40 are usual"
    ).replace("twice", "2 times")


def test_memory_says_when_it_will_be_gone() -> None:
    """Only where it falls, and stalls only where the kernel accounts for them."""
    at_rest = MemoryEvidence(
        total_bytes=128 * GIB,
        available_bytes=6 * GIB,
        free_bytes=GIB,
        floor_bytes=8 * GIB,
        falls_bytes_per_s=0.0,
        empty_in_s=None,
        stalled_percent=None,
        stalls=0,
    )
    assert fact(at_rest) == (
        "6.0 GiB of 128.0 GiB can be had (1.0 GiB free), floor 8.0 GiB, "
        "the kernel does not account for stalls"
    )


def test_a_gpu_that_answers_nothing_is_told_by_its_code() -> None:
    """Known codes have words, unknown ones their number, and nothing unknown reads as zero."""

    def gpu(code: int, action: int | None) -> str:
        return fact(
            GpuEvidence(
                gpu="",
                name="",
                sm_mhz=None,
                usual_mhz=None,
                busy_percent=None,
                watts=None,
                event_reasons=None,
                nvml_code=code,
                recovery_action=action,
            )
        )

    assert gpu(15, None) == "GPU at an unknown address, the driver's library answers code 15 (GPU is lost)"
    assert gpu(0, 7).endswith(", the driver advises a reboot of the whole system")
    assert gpu(4242, 77) == (
        "GPU at an unknown address, the driver's library answers code 4242, the driver advises step 77"
    )


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (0, "none"),
        (0x44, "power limit and heat, by the hardware"),
        (0x808, "the hardware slows it down and 0x800"),
    ],
)
def test_reasons_for_a_lower_clock_are_words(bits: int, words: str) -> None:
    """Each bit that has a word is said in it; the others stay visible as what they are."""
    gpu = GpuEvidence(
        gpu="0000:01:00.0",
        name="",
        sm_mhz=None,
        usual_mhz=None,
        busy_percent=None,
        watts=None,
        event_reasons=bits,
        nvml_code=0,
        recovery_action=None,
    )
    assert fact(gpu) == f"GPU at 0000:01:00.0, reasons for a lower clock: {words}"


def test_an_xid_says_what_it_means() -> None:
    """The number alone helps nobody who is woken by it."""
    xid = XidEvidence(gpu="0000:01:00.0", number=79, count=1, sources=2, process_name="", pid=None)
    assert fact(xid) == (
        "0000:01:00.0 reported Xid 79 (the GPU cannot be reached over PCIe), once, told by 2 sources"
    )


def test_an_unknown_xid_keeps_its_number() -> None:
    """A number that nobody has a word for is told as it is."""
    xid = XidEvidence(gpu="0000:01:00.0", number=9999, count=1, sources=1, process_name="a\x1b[2J", pid=None)
    assert fact(xid) == "0000:01:00.0 reported Xid 9999 for a\\x1b[2J, once, told by 1 source"
