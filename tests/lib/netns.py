# SPDX-License-Identifier: Apache-2.0
"""A network of the test's own: enter() moves this process, and all that it starts afterwards, into a new network
namespace and a new mount namespace. Nothing outside is touched, and the kernel removes everything (interfaces, mounts,
loop devices) with the last process in it, however that ends.

One pair of addresses serves every kind of port: the kernel's end is CLIENT4 and CLIENT6, tallyd's is SERVER4 and SERVER6."""

import ctypes
import os
import pathlib
import subprocess

CLIENT4, SERVER4, PREFIX4 = "10.77.0.1", "10.77.0.2", 24
CLIENT6, SERVER6, PREFIX6 = "fd77::1", "fd77::2", 64
CLIENT_MAC, SERVER_MAC = "02:77:00:00:00:01", "02:77:00:00:00:02"
KERNEL_END, PORT_END = "tally0", "tally1"

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_entered = False


def run(*command, check=True):
    """Run a command without input; its output. The error names the command and what it said."""
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(str(part) for part in command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def enter():
    """Once in a process, before it starts anything. Needs root."""
    global _entered
    if _entered:
        return
    if _libc.unshare(CLONE_NEWNET | CLONE_NEWNS) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)} (network namespaces need root)")
    _entered = True
    run("mount", "--make-rprivate", "/")
    run("mount", "-t", "sysfs", "sysfs", "/sys")  # so that /sys/class/net shows this namespace
    run("ip", "link", "set", "lo", "up")


def _sysctl(interface, name, value):
    path = pathlib.Path(f"/proc/sys/net/ipv6/conf/{interface}/{name}")
    if path.exists():
        path.write_text(str(value))


def address(interface=KERNEL_END):
    """Give the kernel's end its addresses, without duplicate address detection, and bring it up."""
    _sysctl(interface, "accept_dad", 0)
    _sysctl(interface, "accept_ra", 0)
    run("ip", "address", "add", f"{CLIENT4}/{PREFIX4}", "dev", interface)
    run("ip", "link", "set", interface, "up")
    if has_ipv6():
        run("ip", "-6", "address", "add", f"{CLIENT6}/{PREFIX6}", "dev", interface, "nodad")


def has_ipv6():
    return os.path.exists("/proc/sys/net/ipv6")


def veth():
    """A cable: KERNEL_END with the client's addresses, PORT_END without any, for net_af_packet or net_af_xdp."""
    assert _entered
    run("ip", "link", "add", KERNEL_END, "address", CLIENT_MAC, "type", "veth",
        "peer", "name", PORT_END, "address", SERVER_MAC)
    run("ethtool", "-K", KERNEL_END, "tx", "off")  # else the kernel leaves checksums for hardware that is not there
    _sysctl(PORT_END, "disable_ipv6", 1)
    run("ip", "link", "set", PORT_END, "up")
    address()


def remove(interface=KERNEL_END):
    """Takes a veth's other end along."""
    run("ip", "link", "del", interface, check=False)


def small_disk(directory, megabytes):
    """An ext4 file system of that size, mounted at `directory` (made if need be), on a loop device."""
    assert _entered
    image = f"{directory}.img"
    with open(image, "wb") as file:
        file.truncate(megabytes << 20)
    run("mkfs.ext4", "-q", "-m", "0", image)
    os.makedirs(directory, exist_ok=True)
    run("mount", "-o", "loop", image, directory)
    os.unlink(image)  # the loop device holds it until the mount ends
