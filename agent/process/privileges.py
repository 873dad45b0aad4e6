"""Gives up root for good when no service manager did: user, groups, every capability set, and new ones.

Called after everything that is needed has been imported, because the code may lie in a folder that the user
cannot read. Afterwards the process proves to itself that nothing is left, and refuses to go on otherwise.
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# linux/prctl.h
_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
# linux/capability.h
_VERSION_3: Final = 0x20080522
_LAST_CAP: Final = Path("/proc/sys/kernel/cap_last_cap")


class PrivilegeError(Exception):
    """Privilege could not be given up, or must not be kept; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What this process may do: its user and its capability sets, as /proc tells them."""

    uid: int
    effective: int
    permitted: int
    inheritable: int
    bounding: int
    ambient: int
    no_new_privileges: bool

    @property
    def powerless(self) -> bool:
        """Whether no capability can be used, or ever gained."""
        return self.uid != 0 and not (self.effective | self.permitted | self.inheritable | self.ambient)


def standing(status: str | None = None) -> Standing | None:
    """Return what /proc/self/status says, or None where there is none."""
    if status is None:
        try:
            status = Path("/proc/self/status").read_text()
        except OSError:
            return None
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return Standing(
        uid=int(fields["Uid"].split()[1]),
        effective=int(fields["CapEff"], 16),
        permitted=int(fields["CapPrm"], 16),
        inheritable=int(fields["CapInh"], 16),
        bounding=int(fields["CapBnd"], 16),
        ambient=int(fields.get("CapAmb", "0"), 16),
        no_new_privileges=fields.get("NoNewPrivs", "0").strip() == "1",
    )


def settle(user: str | None, *, folders: Mapping[Path, int]) -> None:
    """Make sure that this process judges without privilege: drop to `user` when it is root.

    `folders` with their modes are made first, and given to the user when they are new or empty. Raises
    PrivilegeError when root was not told a user, was told root, or anything of it remains.
    """
    if os.geteuid() != 0:
        if user is not None and pwd.getpwuid(os.geteuid()).pw_name != user:
            raise PrivilegeError(f"--user {user}: only root can change users, and this is uid {os.geteuid()}")
        return
    if user is None:
        raise PrivilegeError(
            "started as root: the agent judges without privilege; name an account with --user, "
            "or let systemd start it (nanobot-agent.service)"
        )
    try:
        account = pwd.getpwnam(user)
    except KeyError as error:
        raise PrivilegeError(f"--user {user}: there is no such account") from error
    if account.pw_uid == 0:
        raise PrivilegeError(f"--user {user}: this account is root; name one without privilege")
    if sys.platform != "linux":
        raise PrivilegeError("dropping privilege is for Linux; start the agent as its own user")
    for folder, mode in folders.items():
        _give(folder, mode, account)
    _drop(account)
    left = standing()
    if left is None or not left.powerless or not left.no_new_privileges or _can_return():
        raise PrivilegeError(f"privilege remains after dropping to {user}: {left}")


def _give(folder: Path, mode: int, account: pwd.struct_passwd) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir(mode=mode)
        except FileExistsError:
            if folder.stat().st_uid == account.pw_uid or any(folder.iterdir()):
                return  # in use: whose it is, is somebody's decision
        os.chown(folder, account.pw_uid, account.pw_gid)
    except OSError as error:
        raise PrivilegeError(f"make {folder} for the agent: {error.strerror}") from error


def _drop(account: pwd.struct_passwd) -> None:
    if sys.platform != "linux":
        raise PrivilegeError("dropping privilege is for Linux")
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(int(_LAST_CAP.read_text()) + 1):
        _prctl(libc, "drop the bounding set", _PR_CAPBSET_DROP, capability)
    _prctl(libc, "clear the ambient set", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _prctl(libc, "let capabilities go with the user", _PR_SET_KEEPCAPS, 0)
    try:
        os.setgroups([group.gr_gid for group in grp.getgrall() if account.pw_name in group.gr_mem])
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    except OSError as error:
        raise PrivilegeError(f"become {account.pw_name}: {error.strerror}") from error
    _clear_sets(libc)
    _prctl(libc, "rule out new privileges", _PR_SET_NO_NEW_PRIVS, 1)


def _prctl(libc: ctypes.CDLL, what: str, option: int, argument: int) -> None:
    unsigned = ctypes.c_ulong
    if libc.prctl(ctypes.c_int(option), unsigned(argument), unsigned(0), unsigned(0), unsigned(0)) != 0:
        raise PrivilegeError(f"{what}: {os.strerror(ctypes.get_errno())}")


def _clear_sets(libc: ctypes.CDLL) -> None:
    """Empty the effective, permitted and inheritable sets; the change of uid leaves the last."""
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()
    if libc.capset(header, data) != 0:
        raise PrivilegeError(f"empty the capability sets: {os.strerror(ctypes.get_errno())}")


def _can_return() -> bool:
    """Return whether root can be had back, which must fail."""
    if sys.platform != "linux":
        raise PrivilegeError("dropping privilege is for Linux")
    try:
        os.setresuid(0, 0, 0)
    except PermissionError:
        return False
    return True
