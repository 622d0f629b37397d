# SPDX-License-Identifier: Apache-2.0
"""A network of the test's own: enter() moves this process, and all that it starts afterwards, into a new network
namespace and a new mount namespace. Nothing outside is touched, and the kernel removes everything (interfaces, mounts,
loop devices) with the last process in it, however that ends.

One pair of addresses serves every kind of port: the kernel's end is CLIENT4 and CLIENT6, tallyd's is SERVER4 and SERVER6.
More tallyds each get a Cable of their own."""

import ctypes
import os
import pathlib
import subprocess

PREFIX4, PREFIX6 = 24, 64
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


class Cable:
    """Names and addresses of one link between the kernel (the client's side) and a tallyd."""

    def __init__(self, index=0):
        self.kernel_end, self.port_end = f"tally{2 * index}", f"tally{2 * index + 1}"
        self.client4, self.server4 = f"10.77.{index}.1", f"10.77.{index}.2"
        self.client6, self.server6 = f"fd77:{index}::1", f"fd77:{index}::2"
        self.client_mac, self.server_mac = f"02:77:00:00:{index:02x}:01", f"02:77:00:00:{index:02x}:02"

    def address(self):
        """Give the kernel's end its addresses, without duplicate address detection, and bring it up."""
        _sysctl(self.kernel_end, "accept_dad", 0)
        _sysctl(self.kernel_end, "accept_ra", 0)
        run("ip", "address", "replace", f"{self.client4}/{PREFIX4}", "dev", self.kernel_end)
        run("ip", "link", "set", self.kernel_end, "up")
        if has_ipv6():
            run("ip", "-6", "address", "replace", f"{self.client6}/{PREFIX6}", "dev", self.kernel_end, "nodad")
        return self

    def veth(self, mtu=1500):
        """A pair: the kernel's end with the client's addresses, the port's end without any, for net_af_packet or net_af_xdp."""
        assert _entered
        run("ip", "link", "add", self.kernel_end, "address", self.client_mac, "mtu", mtu, "type", "veth",
            "peer", "name", self.port_end, "address", self.server_mac, "mtu", mtu)
        # Else the kernel leaves checksums for hardware that is not there.
        run("ethtool", "-K", self.kernel_end, "tx", "off")
        _sysctl(self.port_end, "disable_ipv6", 1)
        run("ip", "link", "set", self.port_end, "up")
        return self.address()

    def tap(self):
        """A tap device that outlives the tallyd that serves it."""
        assert _entered
        run("ip", "tuntap", "add", self.kernel_end, "mode", "tap", "multi_queue", "pi")
        return self.address()

    def remove(self):
        """Takes a veth's other end along."""
        run("ip", "link", "del", self.kernel_end, check=False)


def has_ipv6():
    return os.path.exists("/proc/sys/net/ipv6")


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


FIRST = Cable()
CLIENT4, SERVER4, CLIENT6, SERVER6 = FIRST.client4, FIRST.server4, FIRST.client6, FIRST.server6
CLIENT_MAC, SERVER_MAC, KERNEL_END = FIRST.client_mac, FIRST.server_mac, FIRST.kernel_end
