"""Writes the declared scopes into the tables of `scope.bpf.c` and freezes them, before anything is attached.

A frozen table cannot be written by any process any more, whatever descriptor of it is handed on
(BPF_MAP_FREEZE); only the table that says which cgroup is which scope stays open, for the agent.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
from typing import Any

from probes.kernel.scope_config import ScopeConfig
from probes.scopes import ScopeMode, ScopeRule, destination

FROZEN = ("scope_rules", "scope_paths", "scope_destinations", "scope_ports", "scope_agent")
EXECUTABLE, DESTINATION, LISTENER = range(3)  # enum scope_sort

MANAGER_PID = 1
"""The service manager, which executes a helper of its own in a unit's cgroup before the unit's program."""

_SYSCALL_BPF = {"x86_64": 321, "aarch64": 280}  # asm/unistd_64.h, asm-generic/unistd.h
_BPF_MAP_FREEZE = 22  # linux/bpf.h
_HEAD_BITS = 32  # scope and port of a struct scope_destination
_IPV4 = 0x8000  # SCOPE_IPV4


def write_rules(module: Any, config: ScopeConfig, *, agent_uid: int) -> None:
    """Fill and freeze every table of rules; raise OSError when the kernel refuses."""
    for slot, rule in enumerate(config.rules, start=1):
        _write(module, slot, rule)
    agent = module[b"scope_agent"]
    agent[agent.Key(0)] = agent.Leaf(agent_uid)
    agent[agent.Key(1)] = agent.Leaf(config.agent_port)
    agent[agent.Key(2)] = agent.Leaf(MANAGER_PID)
    for name in FROZEN:
        freeze(module[name.encode()].map_fd)


def freeze(map_fd: int) -> None:
    """Make a map unwritable for every process; raise OSError when the kernel refuses."""
    number = _SYSCALL_BPF.get(platform.machine())
    if number is None:
        raise OSError(38, f"freeze a map: no bpf number for {platform.machine()}")
    attributes = ctypes.create_string_buffer(struct.pack("=I", map_fd), 4)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    if libc.syscall(ctypes.c_long(number), ctypes.c_int(_BPF_MAP_FREEZE), attributes, ctypes.c_uint(4)):
        code = ctypes.get_errno()
        raise OSError(code, f"freeze a map: {os.strerror(code)}")


def _write(module: Any, slot: int, rule: ScopeRule) -> None:
    limited = (rule.executables, rule.destinations, rule.listeners)
    rules = module[b"scope_rules"]
    leaf = rules.Leaf()
    leaf.limits = sum(1 << sort for sort, allowed in enumerate(limited) if allowed is not None)
    leaf.deny = rule.mode is ScopeMode.DENY
    leaf.name = rule.name.encode()
    rules[rules.Key(slot)] = leaf
    paths = module[b"scope_paths"]
    for path in rule.executables or ():
        paths[paths.Key(slot, os.fsencode(path))] = paths.Leaf(1)
    networks = module[b"scope_destinations"]
    for text in rule.destinations or ():
        place = destination(text)
        words = struct.unpack("=4I", place.address)
        scope = slot | _IPV4 if place.is_ipv4 else slot
        key = networks.Key(_HEAD_BITS + place.bits, scope, place.port, type(networks.Key().address)(*words))
        networks[key] = networks.Leaf(1)
    ports = module[b"scope_ports"]
    for port in rule.listeners or ():
        ports[ports.Key(slot, port)] = ports.Leaf(1)


def address_text(family: int, address: bytes) -> str:
    """Return an address of a struct scope_event as people write it."""
    if address[:12] == b"\0" * 10 + b"\xff\xff":
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address) if family else ""
