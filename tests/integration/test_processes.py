#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tallyd as a process: SIGTERM drains, SIGUSR1 reports, a restart goes on, two run side by side, with and without
hugepages."""

import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import netns  # noqa: E402
import server  # noqa: E402
from check import equal, eventually, main, skip, test  # noqa: E402
from matchday import Matchday  # noqa: E402

HUGE_PAGES = 600  # of 2 MiB: twice what a tallyd takes, for what a killed one left


@test
def terminate_drains():
    """SIGTERM under load: everything that was accepted is decided, logged and answered, and the exit is clean."""
    tallyd = server.Tallyd().format().start()
    day = Matchday(tallyd.cable, "--wallets", 4000, "--rate", 8000)
    for _ in range(4):
        time.sleep(0.4)
        begin = time.monotonic()
        equal(tallyd.stop(), 0, "exit status after SIGTERM")
        assert time.monotonic() - begin < 10, "draining took too long"
        tallyd.start()
    day.finish()
    equal(tallyd.stop(), 0, "exit status after SIGTERM")


@test
def interrupt_is_the_same():
    tallyd = server.Tallyd().format().start()
    os.kill(tallyd.pid, signal.SIGINT)
    equal(tallyd.wait(), 0, "exit status after SIGINT")


@test
def counters_on_request_and_at_exit():
    tallyd = server.Tallyd().format().start()
    before = tallyd.counters()
    Matchday(tallyd.cable, "--wallets", 200, "--rate", 0).finish()
    after = tallyd.counters()
    for name in ("rx_packets", "tx_packets", "requests", "events", "replies", "hellos", "sessions"):
        assert server.counter(after, name) > server.counter(before, name), f"{name} did not grow"
    equal(tallyd.stop(), 0, "exit status")
    assert server.counter(tallyd.closing_counters(), "events") >= server.counter(after, "events")


@test
def log_on_an_lcore_of_its_own():
    """With a second lcore the WAL runs there: the same promises over a kill and a SIGTERM."""
    tallyd = server.Tallyd(lcores="0,1").format().start()
    day = Matchday(tallyd.cable, "--wallets", 4000, "--rate", 16000)
    server.eventually_said(day, "deposits")
    tallyd.kill()
    tallyd.start()
    server.eventually_said(day, "1:0")
    equal(tallyd.stop(), 0, "exit status after SIGTERM")
    tallyd.start()
    day.finish()
    equal(tallyd.stop(), 0, "exit status after SIGTERM")


@test
def configuration_file():
    """What it says holds, and a flag wins over it."""
    file = pathlib.Path(server.scratch(), "tallyd.conf")
    file.write_text(f"[tallyd]\naddress = {netns.FIRST.server4}\nudp-port = 9999\nmemory-mb = 64\nsessions = 2\n")
    tallyd = server.Tallyd(memory_mb=None, address=False, flags=["--config", file]).format().start()
    equal(server.counter(tallyd.counters(), "engine_memory_bytes"), 64 << 20, "memory")
    Matchday(tallyd.cable, "--wallets", 100, "--rate", 0).finish()  # at the port that the flag names
    equal(tallyd.stop(), 0, "exit status")


@test
def two_side_by_side():
    """Each with its own file prefix, cable and directory; none hears the other's clients."""
    first = server.Tallyd().format().start()
    second = server.Tallyd(cable=netns.Cable(1)).format().start()
    days = [Matchday(tallyd.cable, "--wallets", 2000, "--rate", 10000) for tallyd in (first, second)]
    for day in days:
        day.finish()
    equal(first.kill(), -signal.SIGKILL, "status of the killed one")
    Matchday(second.cable, "--wallets", 200, "--rate", 0).finish()
    first.start()
    Matchday(first.cable, "--wallets", 200, "--rate", 0).finish()
    for tallyd in (first, second):
        equal(tallyd.stop(), 0, "exit status")


@test
def with_hugepages():
    """Reserves what it needs for the time of the test, if the machine has it, and gives it back."""
    pool = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
    if not pool.exists():
        skip("no 2 MiB hugepages")
    had = int(pool.read_text())
    mount = os.path.join(server.scratch(), "huge")
    os.mkdir(mount)
    try:
        pool.write_text(str(had + HUGE_PAGES))
        if int(pool.read_text()) < had + HUGE_PAGES:
            skip("not enough memory in one piece for hugepages")
        netns.run("mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "nodev", mount)
        tallyd = server.Tallyd(huge=True, eal=[f"--huge-dir={mount}"]).format().start()
        Matchday(tallyd.cable, "--wallets", 2000, "--rate", 0).finish()
        tallyd.kill()
        tallyd.start()  # beside the pages that the killed one left behind
        Matchday(tallyd.cable, "--wallets", 200, "--rate", 0).finish()
        equal(tallyd.stop(), 0, "exit status")
    finally:
        netns.run("umount", mount, check=False)
        pool.write_text(str(had))
    eventually(lambda: int(pool.read_text()) == had, 5, "hugepages given back")


if __name__ == "__main__":
    netns.enter()
    main(server.cleanup)
