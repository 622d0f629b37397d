#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tallyd on ext4, xfs and btrfs, with the two things that may happen to it there: it is killed, at any moment; or the file
system fills up, stops, becomes read-only, or loses its disk. A match day runs meanwhile, which keeps a book of all that was
acknowledged and compares: afterwards everything is there, once, and the books balance. tests/integration/crash repeats it,
with more kills (TALLY_KILLS)."""

import os
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import filesystems  # noqa: E402
import netns  # noqa: E402
import server  # noqa: E402
from check import QUICK, equal, main, seed, skip, test  # noqa: E402
from filesystems import FileSystem  # noqa: E402
from matchday import Matchday  # noqa: E402

KILLS = int(os.environ.get("TALLY_KILLS") or (2 if QUICK else 4))
FILE_MB = 16
CHECKPOINTS = ["--checkpoint-s", 1, "--checkpoint-mb", 4]  # so that one is nearly always under way
REFUSED_START = (1, 3)  # a failure, or a directory that is refused; never 4, for nothing is damaged
DICE = random.Random(seed())


class Ledger:
    """A file system, a tallyd on it, and a day."""

    def __init__(self, kind, *day, flags=CHECKPOINTS):
        reason = filesystems.lacking(kind)
        if reason:
            skip(reason)
        self.disk = FileSystem(kind)
        self.tallyd = server.Tallyd(data=f"{self.disk.path}/data", memory_mb=256, flags=flags)
        self.tallyd.log = os.path.join(server.scratch(), "tallyd.log")  # not on the disk that breaks
        self.tallyd.format(file_mb=FILE_MB).start()
        self.day = Matchday(self.tallyd.cable, "--stall-s", 120, "--seed", DICE.randrange(1, 1 << 30), *day)

    def stops(self, *words):
        """tallyd has to see by itself that it cannot go on: exit status 1, and a line that says why."""
        equal(self.tallyd.wait(120), 1, f"exit status ({self.tallyd.said()[-1000:]})")
        lines = [line for line in self.tallyd.said().splitlines() if line.startswith("tallyd: stopped, and ack")]
        equal(len(lines), 1, f"lines that say why it stopped, in: {self.tallyd.said()[-1000:]}")
        assert any(word in lines[0] for word in words), f"none of {words} in: {lines[0]}"
        assert self.day.running(), f"the day ended without tallyd:\n{self.day.said()}"

    def refuses(self):
        """Another start on the broken file system: a refusal in one line, and nothing is made worse."""
        self.tallyd.start(ready=False)
        status = self.tallyd.wait(60)
        last = self.tallyd.said().strip().splitlines()[-1]
        assert status in REFUSED_START and last.startswith("tallyd: "), f"status {status}: {self.tallyd.said()[-1000:]}"

    def proves(self):
        """Whole again, it has all that was acknowledged, and goes on from there."""
        self.tallyd.start()
        loaded = [line for line in self.tallyd.said().splitlines() if "loaded the checkpoint" in line]
        print(self.day.finish().strip().splitlines()[-1], "; ".join(loaded))
        equal(self.tallyd.stop(), 0, "exit status")
        self.disk.again()
        for what in (["wal", "verify", self.tallyd.data], ["checkpoint", "verify", "--data", self.tallyd.data]):
            status, output, error = server.call(server.program("tally"), *what, timeout_s=300)
            equal(status, 0, f"status of tally {' '.join(what[:2])} ({output}{error})")
        self.disk.unmount()
        return bool(loaded)


def kill_again_and_again(kind):
    ledger = Ledger(kind, "--wallets", 1000 * KILLS, "--rate", 6000)
    for _ in range(KILLS):
        time.sleep(DICE.uniform(0.05, 0.9))
        ledger.tallyd.kill()
        if DICE.random() < 0.3:
            ledger.disk.again()
        if DICE.random() < 0.3:  # once more, while it recovers or has only just begun to serve
            ledger.tallyd.start(ready=False)
            time.sleep(DICE.uniform(0, 0.5))
            ledger.tallyd.kill()
        assert ledger.day.running(), f"the day was over too early:\n{ledger.day.said()}"
        ledger.tallyd.start()
    status, _, error = server.call(server.program("tally"), "checkpoint", "--data", ledger.tallyd.data, timeout_s=120)
    equal(status, 0, f"status of tally checkpoint ({error})")
    time.sleep(DICE.uniform(0, 0.5))
    ledger.tallyd.kill()
    assert ledger.proves(), "it never recovered from a checkpoint"


def fill_up(kind):
    # without checkpoints, for an old one that goes makes room again
    ledger = Ledger(kind, "--wallets", 60000, "--rate", 0, flags=["--checkpoint-memory-mb", 0])
    ledger.disk.fill(leave_mb=DICE.randint(0, FILE_MB - 4))
    ledger.stops("No space left on device")
    ledger.refuses()
    ledger.disk.free()
    ledger.proves()


def break_it(kind, how, *words):
    ledger = Ledger(kind, "--wallets", 5000, "--rate", 12000)
    time.sleep(DICE.uniform(0.3, 1.2))
    how(ledger.disk)
    ledger.stops(*words)
    ledger.refuses()
    ledger.disk.again()
    ledger.proves()


@test
def ext4_killed():
    kill_again_and_again("ext4")


@test
def xfs_killed():
    kill_again_and_again("xfs")


@test
def btrfs_killed():
    kill_again_and_again("btrfs")


@test
def ext4_full():
    fill_up("ext4")


@test
def xfs_full():
    fill_up("xfs")


@test
def btrfs_full():
    fill_up("btrfs")


@test
def ext4_read_only():
    break_it("ext4", FileSystem.become_read_only, "Read-only file system")


@test
def ext4_shut_down():
    break_it("ext4", lambda disk: disk.shut_down(filesystems.SHUT_DOWN_UNFLUSHED), "Input/output error")


@test
def xfs_shut_down():
    how = DICE.choice((filesystems.SHUT_DOWN_UNFLUSHED, filesystems.SHUT_DOWN_FLUSHED))
    break_it("xfs", lambda disk: disk.shut_down(how), "Input/output error")


@test
def ext4_disk_gone():
    break_it("ext4", FileSystem.fail, "Input/output error", "Read-only file system")


@test
def xfs_disk_gone():
    break_it("xfs", FileSystem.fail, "Input/output error")


@test
def btrfs_disk_gone():
    break_it("btrfs", FileSystem.fail, "Input/output error", "Read-only file system")


if __name__ == "__main__":
    netns.enter()
    main(filesystems.cleanup)
