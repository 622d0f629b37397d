# SPDX-License-Identifier: Apache-2.0
"""Starts, watches and ends tallyd for tests. Programs are found in TALLY_BUILD (a Meson build directory; build/release if
unset). Every process is ended by its pid; one that is left over dies with the test program."""

import ctypes
import itertools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import netns  # noqa: E402

ROOT = pathlib.Path(os.environ.get("TALLY_ROOT") or pathlib.Path(__file__).resolve().parent.parent.parent)
BUILD = pathlib.Path(os.environ.get("TALLY_BUILD") or ROOT / "build" / "release")
SANITIZED = BUILD.name == "sanitize"
READY = "tallyd: ready"
UDP_PORT = 7711
START_S = 120 if SANITIZED else 60

PORTS = {
    "af_packet": "net_af_packet0,iface={cable.port_end}",
    "af_xdp": "net_af_xdp0,iface={cable.port_end}",
    "tap": "net_tap0,iface={cable.kernel_end},mac={cable.server_mac}",
}

_running, _directories, _cables = [], [], []
_numbers = itertools.count()
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def program(name):
    return str(BUILD / "tools" / name)


def disk_directory():
    """Where scratch directories go: a real disk, for the log is written with O_DIRECT."""
    base = tempfile.gettempdir()
    kind = subprocess.run(["stat", "-f", "-c", "%T", base], capture_output=True, text=True).stdout.strip()
    return str(BUILD) if kind == "tmpfs" else base


def scratch():
    """A directory that is gone when cleanup() runs."""
    path = tempfile.mkdtemp(prefix="tally-test-", dir=disk_directory())
    _directories.append(path)
    return path


def forget_scratch(keep=0):
    """Remove scratch directories before cleanup() would: all but the first `keep`."""
    while len(_directories) > keep:
        shutil.rmtree(_directories.pop(), ignore_errors=True)


def scratch_count():
    return len(_directories)


def cleanup():
    """End what is left and remove every scratch directory. Hand it to check.main()."""
    for process in list(_running):
        process.kill()
    for cable in _cables:
        cable.remove()
    _cables.clear()
    while _directories:
        shutil.rmtree(_directories.pop(), ignore_errors=True)


def call(*command, timeout_s=60, **keywords):
    """Run a program to its end: (exit status, stdout, stderr)."""
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout_s, **keywords)
    return done.returncode, done.stdout, done.stderr


def _die_with_parent():
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def spawn(command, **keywords):
    """Start a program that is killed when the thread that started it ends."""
    return subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent,
                            **keywords)


class Tallyd:
    """One data directory and at most one process on it at a time."""

    def __init__(self, port="af_packet", data=None, cable=netns.FIRST, memory_mb=256, flags=(), eal=(), lcores="0",
                 huge=False, mtu=1500, address=True):
        """`port`: a name of PORTS, for which the cable is laid here, or a device as --vdev takes it. Without `memory_mb` and
        `address` a configuration file among the flags has to say them."""
        self.data = data or os.path.join(scratch(), "data")
        self.log = self.data.rstrip("/") + ".log"
        self.port, self.cable = port, cable
        self.device = PORTS.get(port, port).format(cable=cable)
        self.prefix = f"tally{os.getpid()}-{next(_numbers)}"
        self.lcores, self.huge = lcores, huge
        self.flags, self.eal = list(flags), list(eal)
        if address:
            self.flags += ["--address", cable.server4, "--address6", cable.server6]
        if memory_mb:
            self.flags += ["--memory-mb", memory_mb]
        self.process, self.pid = None, 0
        if not any(laid is cable for laid in _cables):
            _cables.append(cable)
            cable.tap() if port == "tap" else cable.veth(mtu)

    def format(self, *flags, partitions=16, file_mb=16):
        status, _, error = call(program("tallyd"), "format", "--data", self.data, "--partitions", partitions,
                                "--file-mb", file_mb, *flags)
        assert status == 0, f"tallyd format: {status}: {error}"
        return self

    def command(self):
        memory = ["--socket-mem=512"] if self.huge else ["--no-huge", "-m", "512"]
        return [program("tallyd"), "run", "--data", self.data, "--udp-port", UDP_PORT, "--port", self.device.split(",")[0],
                *self.flags, "--", *memory, "--no-pci", f"--file-prefix={self.prefix}", f"--vdev={self.device}",
                "-l", self.lcores, *self.eal]

    def start(self, ready=True):
        with open(self.log, "ab") as log:
            self.mark = log.tell()
            self.process = spawn(self.command(), stdout=log, stderr=log)
        self.pid = self.process.pid
        _running.append(self)
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self):
        end = time.monotonic() + START_S
        while READY not in self.said():
            status = self.process.poll()
            assert status is None, f"tallyd ended with {status} before it was ready:\n{self.said()[-2000:]}"
            assert time.monotonic() < end, f"tallyd is not ready after {START_S} s:\n{self.said()[-2000:]}"
            time.sleep(0.01)
        if self.port == "tap":
            self.cable.address()  # a clean exit of the one before left it down

    def said(self):
        """What the newest process wrote."""
        with open(self.log, "rb") as log:
            log.seek(self.mark)
            return log.read().decode(errors="replace")

    def running(self):
        return self.process is not None and self.process.poll() is None

    def wait(self, timeout_s=30):
        status = self.process.wait(timeout_s)
        if self in _running:
            _running.remove(self)
        return status

    def kill(self):
        """SIGKILL, as if the machine took the process away."""
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def stop(self, timeout_s=30):
        """SIGTERM; its exit status."""
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
        return self.wait(timeout_s)

    def counters(self):
        """Its counters now, by name: asks with SIGUSR1 and reads the answer."""
        before = len(self.said())
        os.kill(self.pid, signal.SIGUSR1)
        end, text, previous = time.monotonic() + 10, "", None
        while time.monotonic() < end:
            text = self.said()[before:]
            if text.endswith("\n") and text == previous:
                return parse_counters(text)
            previous = text
            time.sleep(0.05)
        raise AssertionError("tallyd printed no counters on SIGUSR1")

    def closing_counters(self):
        """Those of its exit; after stop()."""
        return parse_counters(self.said())


def parse_counters(text):
    counters = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[1].lstrip("-").isdigit():
            counters[words[0]] = int(words[1])
    return counters


def counter(counters, name):
    """A counter by its own name, whatever stands before it (`net.requests`)."""
    found = [value for key, value in counters.items() if key == name or key.endswith(("." + name, "_" + name))]
    exact = [value for key, value in counters.items() if key in (name, "net." + name, "net_" + name)]
    assert exact or found, f"tallyd has no counter {name}: {sorted(counters)}"
    return exact[0] if exact else found[0]


def eventually_said(program, text, timeout_s=60):
    """Wait until a program that has said() printed this."""
    end = time.monotonic() + timeout_s
    while text not in program.said():
        assert program.running(), f"ended before it said {text!r}:\n{program.said()}"
        assert time.monotonic() < end, f"did not say {text!r} within {timeout_s} s:\n{program.said()}"
        time.sleep(0.02)
