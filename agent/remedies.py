"""What a person can do about a blind sensor, in words."""

from __future__ import annotations

from typing import assert_never

from probes.observation import BlindReason


def remedy(reason: BlindReason) -> str:  # noqa: C901, PLR0912 -- one case per reason, checked complete
    """Return the next step for `reason`."""
    match reason:
        case BlindReason.DISABLED:
            return (
                "remove it from sensors.disabled in agent.toml (http.routes also wants a port in http.ports) "
                "and start nanobot-probes again"
            )
        case BlindReason.NOT_HANDED_OVER:
            return "run the loader: systemctl restart nanobot-probes (or, as root, nanobot-probes load)"
        case BlindReason.NO_PRIVILEGE:
            return "the loader needs CAP_BPF, CAP_PERFMON and what the sensor names; see nanobot-probes check"
        case BlindReason.NO_KERNEL_SUPPORT:
            return "this kernel lacks the tracepoint or eBPF; nothing to install"
        case BlindReason.NO_HEADERS:
            return "install the kernel headers: apt install linux-headers-$(uname -r)"
        case BlindReason.NO_LIBRARY:
            return "install the library: apt install python3-bpfcc libbpf1"
        case BlindReason.ATTACH_FAILED:
            return "see journalctl -u nanobot-probes for the program and the errno"
        case BlindReason.READ_FAILED:
            return "see journalctl -u nanobot-agent; restart nanobot-probes to hand the sensor over anew"
        case BlindReason.UNSUPPORTED_PLATFORM:
            return "this system has no such interface; nothing to install"
        case BlindReason.NO_NVML:
            return "install libnvidia-ml.so.1 (it comes with the driver) and nvidia-ml-py in the agent's venv"
        case BlindReason.NO_DRIVER:
            return "load the driver: modprobe nvidia; see dmesg for why it is not loaded"
        case BlindReason.NO_DEVICE_ACCESS:
            return "let the agent open /dev/nvidiactl and /dev/nvidia*: their modes, DeviceAllow of its unit"
        case BlindReason.VERSION_MISMATCH:
            return "reboot the host (the driver was upgraded, the old module is still loaded)"
        case BlindReason.NOT_ANSWERING:
            return "look at dmesg for Xid lines; a GPU that does not answer needs a reset or a reboot"
        case _:
            assert_never(reason)
