# SPDX-License-Identifier: Apache-2.0
"""A machine whose disk can be looked into: QEMU in software emulation, Debian's cloud kernel out of its package (unpacked,
never installed), and an initial file system of busybox, dmsetup and the programs under test. `init` beside this file is its
first process. Killing QEMU would be no power cut, for the host's cache survives; so the guest's kernel records every write
(dm-log-writes), or breaks its disk (dm-flakey), and the host judges what is on the image afterwards."""

import fcntl
import gzip
import os
import pathlib
import re
import shutil
import stat
import subprocess
import tempfile

import server

HERE = pathlib.Path(__file__).resolve().parent
PACKAGE = "linux-image-cloud-amd64"
CACHE = server.BUILD.parent / "guest-kernel"
MODULES = ("virtio_pci", "virtio_blk", "dm_log_writes", "dm_flakey")
FILE_SYSTEM_MODULES = {"ext4": (), "xfs": ("xfs",), "btrfs": ("btrfs",)}
SERVED_PLANS = ("checkpoints",)
DRIVERS = next(iter(sorted(pathlib.Path("/usr/lib/x86_64-linux-gnu/dpdk").glob("pmds-*"))), HERE)
REPORT_BYTES = 4 << 20


_why_not = None


class Unavailable(Exception):
    """This machine cannot run a guest; the reason is for people."""


def _call(*command, cwd=None):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=cwd)
    if done.returncode != 0:
        raise Unavailable(f"{command[0]} {command[1]}: {done.stderr.strip().splitlines()[-1:] or done.returncode}")
    return done.stdout


# --- the kernel --------------------------------------------------------------------------------------------------------

def _download(folder):
    depends = re.search(r"Depends: (linux-image-\S+)", _call("apt-cache", "depends", PACKAGE))
    if not depends:
        raise Unavailable(f"apt knows no package {PACKAGE}")
    try:
        _call("apt-get", "download", "-qq", depends.group(1), cwd=folder)
    except Unavailable:
        _call("apt-get", "update", "-qq")
        _call("apt-get", "download", "-qq", depends.group(1), cwd=folder)
    return next(pathlib.Path(folder).glob("*.deb"))


def kernel():
    """The folder of an unpacked kernel package; fetched once, and kept in the build folder. To be called before
    netns.enter(), for a network of the test's own leads nowhere; remembers why it could not be had."""
    global _why_not
    if _why_not:
        raise _why_not
    try:
        return _fetch()
    except Unavailable as reason:
        _why_not = reason
        raise


def _fetch():
    for tool in ("qemu-system-x86_64", "busybox", "dmsetup", "dpkg-deb"):
        if not shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin"):
            raise Unavailable(f"{tool} is not installed")
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{CACHE}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not CACHE.exists():
            with tempfile.TemporaryDirectory(dir=CACHE.parent) as folder:
                package = _download(folder)
                _call("dpkg-deb", "-x", str(package), f"{folder}/unpacked")
                os.rename(f"{folder}/unpacked", CACHE)
    return CACHE


def _module_name(path):
    return path.name.split(".ko")[0].replace("-", "_")


def modules(wanted):
    """Paths of these modules and of those that they need, in the order in which they are to be loaded."""
    known = {_module_name(path): path for path in kernel().rglob("*.ko")}
    order = []

    def take(name):
        if name not in known or known[name] in order:
            return  # built into the kernel, or there already
        found = re.search(rb"\0depends=([^\0]*)\0", known[name].read_bytes())
        for needed in found.group(1).decode().split(",") if found and found.group(1) else ():
            take(needed.replace("-", "_"))
        order.append(known[name])

    for name in wanted:
        take(name)
    return order


# --- the initial file system ---------------------------------------------------------------------------------------------

class Archive:
    """A cpio archive as the kernel unpacks it (newc)."""

    def __init__(self):
        self.parts, self.names, self.number = [], set(), 0

    def _add(self, name, mode, data):
        self.number += 1
        fields = (self.number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        self.parts += [head, bytes(-len(head) % 4), data, bytes(-len(data) % 4)]

    def folder(self, name):
        if name and name not in self.names:
            self.folder(os.path.dirname(name))
            self.names.add(name)
            self._add(name, stat.S_IFDIR | 0o755, b"")

    def file(self, name, data, mode=0o644):
        name = name.lstrip("/")
        if name in self.names:
            return
        self.folder(os.path.dirname(name))
        self.names.add(name)
        self._add(name, stat.S_IFREG | mode, data)

    def link(self, name, target):
        self.folder(os.path.dirname(name))
        self.names.add(name)
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def program(self, path, name=None):
        """A program, and the libraries that it is linked with."""
        self.file(name or path, pathlib.Path(path).read_bytes(), 0o755)
        for library in re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", path], capture_output=True, text=True).stdout):
            self.file(library, pathlib.Path(library).read_bytes(), 0o755)

    def write(self, path):
        self._add("TRAILER!!!", 0, b"")
        with gzip.open(path, "wb", compresslevel=1) as out:
            out.write(b"".join(self.parts))


# --- a run ---------------------------------------------------------------------------------------------------------------

def run(plan, kind, disks, files, timeout_s=120):
    """Boot, do what `plan` of `init` says, and end. @param disks images: the first is the one under test, the second takes
    the record  @param files {name in the guest: bytes}  @return what the plan reported, by lines"""
    folder = server.scratch()
    archive = Archive()
    for name in ("dev", "proc", "sys", "tmp", "mnt", "bin"):
        archive.folder(name)
    archive.program("/bin/busybox", "bin/busybox")
    archive.program(shutil.which("dmsetup", path="/usr/sbin:/sbin"), "bin/dmsetup")
    archive.program(server.program("tally"), "bin/tally")
    if plan in SERVED_PLANS:
        for path in sorted(DRIVERS.glob("librte_*")):
            if re.fullmatch(r"librte_(net_ring|mempool_ring|bus_vdev)\.so\.\d+\.\d+", path.name):
                # linked where programs look for it: loaded under two names, a driver would be there twice
                archive.link(f"lib/x86_64-linux-gnu/{path.name.rpartition('.')[0]}", str(path))
                archive.program(str(path))
        archive.program(server.program("tallyd"), "bin/tallyd")
    archive.file("init", (HERE / "init").read_bytes(), 0o755)
    for index, path in enumerate(modules(MODULES + FILE_SYSTEM_MODULES[kind])):
        archive.file(f"modules/{index:02}-{path.name}", path.read_bytes())
    for name, data in files.items():
        archive.file(name, data)
    archive.write(f"{folder}/initrd")
    report = f"{folder}/report"
    with open(report, "wb") as file:
        file.truncate(REPORT_BYTES)
    drives = []
    for image in (*disks, report):
        drives += ["-drive", f"file={image},if=virtio,format=raw,cache=unsafe"]
    image = next((kernel() / "boot").glob("vmlinuz-*"))
    command = ["qemu-system-x86_64", "-machine", "pc,accel=tcg", "-cpu", "max", "-smp", "2", "-m", "512", "-nographic",
               "-no-reboot", "-nodefaults", "-serial", f"file:{folder}/console", "-kernel", str(image), "-initrd",
               f"{folder}/initrd", "-append", f"console=ttyS0 panic=-1 loglevel=4 plan={plan} kind={kind}", *drives]
    process = server.spawn(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, said = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        said = f"not done within {timeout_s} s".encode()
    console = pathlib.Path(f"{folder}/console").read_text(errors="replace")
    lines = pathlib.Path(report).read_bytes().rstrip(b"\0").decode(errors="replace").splitlines()
    assert lines and lines[-1] == "done", \
        f"the guest did not come to its end: {said.decode(errors='replace')}\n{console[-3000:]}\n{lines[-5:]}"
    return lines[:-1]
