"""Mounts that only the calling process sees, for children of tests: a small disk, media that cannot be written."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUSER = 0x0002_0000, 0x1000_0000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        raise PermissionError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def own_mounts() -> None:
    """From now on mounts concern this process only; raises PermissionError where the system does not allow it."""
    user, group = os.getuid(), os.getgid()
    _check(_libc.unshare(CLONE_NEWNS if user == 0 else CLONE_NEWNS | CLONE_NEWUSER))
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _check(_libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))


def mount_memory(path: Path, n_bytes: int, *, again: bool = False) -> None:
    """Put a file system of so many bytes at ``path``, or give the one that is there another size."""
    options = f"size={n_bytes}".encode()
    _check(_libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", MS_REMOUNT if again else 0, options))


def make_read_only(path: Path) -> None:
    """Nothing below ``path`` can be written any more."""
    _check(_libc.mount(os.fsencode(path), os.fsencode(path), None, MS_BIND, None))
    _check(_libc.mount(None, os.fsencode(path), None, MS_BIND | MS_REMOUNT | MS_RDONLY, None))
