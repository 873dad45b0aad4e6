"""What a person can do about a blind sensor, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, assert_never

from probes.observation import BlindReason

_OF_SENSOR: Final[Mapping[tuple[str, BlindReason], str]] = {
    (
        "gpu.nvml",
        BlindReason.READ_FAILED,
    ): "run nvidia-smi and look at dmesg for NVRM lines: the driver's library fails with the code above",
    ("host.log_files", BlindReason.DISABLED): "name them in [logs].files of agent.toml, if there are any",
    ("host.log_files", BlindReason.NO_PRIVILEGE): "let the agent's user read the files of [logs].files",
    ("host.logs", BlindReason.NO_LIBRARY): "install systemd-python in the agent's venv",
    (
        "host.logs",
        BlindReason.NO_PRIVILEGE,
    ): "let the agent read the journal: the drop-in agent-journal.conf (group systemd-journal)",
    ("host.portable", BlindReason.NO_LIBRARY): "install psutil in the agent's venv",
    ("host.units", BlindReason.NO_LIBRARY): "install jeepney in the agent's venv",
    ("host.units", BlindReason.NO_PRIVILEGE): "let the agent's user use the system bus",
    ("host.units", BlindReason.READ_FAILED): "see whether the system bus runs: systemctl status dbus.socket",
    (
        "kernel.scope",
        BlindReason.DISABLED,
    ): "declare a [[scope]] in agent.toml, if a service is to be kept to one, and restart nanobot-probes",
    ("mesh.tailscale", BlindReason.NO_PRIVILEGE): "let the agent's user connect to [tailscale].socket",
    ("mesh.tailscale", BlindReason.NOT_ANSWERING): "see systemctl status tailscaled: it does not answer",
    ("mesh.tailscale", BlindReason.READ_FAILED): "see systemctl status tailscaled, and [tailscale].socket",
}
"""What helps one sensor, where it is another thing than what helps those of the kernel and the GPU."""

_OF_HOST: Final[Mapping[BlindReason, str]] = {
    BlindReason.NO_LIBRARY: "install what the sensor names in the agent's venv",
    BlindReason.NO_PRIVILEGE: "let the agent's user see what the sensor names",
    BlindReason.NOT_ANSWERING: "look at what the sensor names: a call to it does not come back",
    BlindReason.READ_FAILED: "see journalctl -u nanobot-agent for what could not be read",
}


def remedy(reason: BlindReason, sensor: str = "") -> str:
    """Return the next step for `reason`, and for `sensor` where it has one of its own."""
    if (found := _OF_SENSOR.get((sensor, reason))) is not None:
        return found
    if sensor.startswith(("host.", "mesh.")) and reason in _OF_HOST:
        return _OF_HOST[reason]
    return _in_general(reason)


def _in_general(reason: BlindReason) -> str:  # noqa: C901, PLR0912 -- one case per reason, checked complete
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
