# SPDX-License-Identifier: Apache-2.0
"""File systems of a test's own, each in a file on a loop device, and the ways in which they break under a running program.
Only after netns.enter(): the mounts belong to the test's mount namespace, and a loop device is given back with its mount, so
nothing is left, however the test ends. Hand cleanup() to check.main().

    disk = FileSystem("xfs")
    disk.fill(leave_mb=10); disk.free()
    disk.fail(); disk.repair()
"""

import errno
import fcntl
import os
import shutil
import struct

import netns
import server

KINDS = ("ext4", "xfs", "btrfs")
MEGABYTES = 320  # mkfs.xfs makes none below 300
_MAKE = {"ext4": ["-q", "-F", "-m", "0"], "xfs": ["-q", "-f"], "btrfs": ["-q", "-f"]}
_OPTIONS = {"ext4": "loop,errors=remount-ro", "xfs": "loop", "btrfs": "loop"}
_LOOP_SET_STATUS64, _LOOP_GET_STATUS64, _LOOP_INFO_BYTES = 0x4C04, 0x4C05, 232
_LOOP_SIZE_LIMIT_AT = 32
_SHUT_DOWN = 0x8004587D  # the same number for ext4 and xfs
SHUT_DOWN_FLUSHED, SHUT_DOWN_UNFLUSHED = 1, 2  # whether what the file system's journal holds in memory is written first

_mounted = []


class FileSystem:
    def __init__(self, kind, megabytes=MEGABYTES):
        self.kind = kind
        base = server.scratch()
        self.image, self.path, self.ballast = f"{base}/image", f"{base}/disk", f"{base}/disk/ballast"
        with open(self.image, "wb") as file:
            file.truncate(megabytes << 20)
        netns.run(f"mkfs.{kind}", *_MAKE[kind], self.image)
        os.mkdir(self.path)
        self.mount()

    def mount(self):
        netns.run("mount", "-t", self.kind, "-o", _OPTIONS[self.kind], self.image, self.path)
        _mounted.append(self)
        self.device = netns.run("findmnt", "-n", "-o", "SOURCE", self.path).strip()

    def unmount(self):
        netns.run("umount", self.path)
        _mounted.remove(self)

    def again(self):
        """As after a start of the machine: nothing is in a cache, and the journal was replayed."""
        self.unmount()
        self.mount()

    def free_bytes(self):
        state = os.statvfs(self.path)
        return state.f_bavail * state.f_frsize

    def fill(self, leave_mb):
        """Take all space but about so much; btrfs does not know exactly what it has."""
        ballast, piece, taken = os.open(self.ballast, os.O_CREAT | os.O_WRONLY), 64 << 20, 0
        try:
            while piece >= 1 << 20 and self.free_bytes() > leave_mb << 20:
                try:
                    os.posix_fallocate(ballast, taken, min(piece, max(self.free_bytes() - (leave_mb << 20), 1 << 20)))
                    taken = os.fstat(ballast).st_size
                except OSError as problem:
                    if problem.errno != errno.ENOSPC:
                        raise
                    piece //= 4
        finally:
            os.close(ballast)

    def free(self):
        os.unlink(self.ballast)

    # How it breaks. After each of these, again() mends it.

    def fail(self):
        """The disk is gone: from now on every read and write of the device fails."""
        device = os.open(self.device, os.O_RDWR)
        try:
            information = bytearray(fcntl.ioctl(device, _LOOP_GET_STATUS64, bytes(_LOOP_INFO_BYTES)))
            struct.pack_into("<Q", information, _LOOP_SIZE_LIMIT_AT, 4096)
            fcntl.ioctl(device, _LOOP_SET_STATUS64, bytes(information))
        finally:
            os.close(device)

    def shut_down(self, how):
        """The file system stops as it does on an error of its own (not btrfs, which has no such call)."""
        directory = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, _SHUT_DOWN, struct.pack("I", how))
        finally:
            os.close(directory)

    def become_read_only(self):
        """An error was found, and the file system is read-only from now on (ext4)."""
        with open(f"/sys/fs/ext4/{os.path.basename(self.device)}/trigger_fs_error", "w", encoding="ascii") as trigger:
            trigger.write("a test")


def lacking(kind):
    """Why this machine cannot run it, or ""."""
    if not shutil.which(f"mkfs.{kind}"):
        return f"no mkfs.{kind}"
    with open("/proc/filesystems", encoding="ascii") as known:
        if kind not in known.read().split():
            netns.run("modprobe", kind, check=False) if shutil.which("modprobe") else None
    with open("/proc/filesystems", encoding="ascii") as known:
        return "" if kind in known.read().split() else f"this kernel has no {kind}"


def cleanup():
    """End what is left, and take every file system away."""
    for disk in list(_mounted):
        netns.run("umount", "-l", disk.path, check=False)
    _mounted.clear()
    server.cleanup()
