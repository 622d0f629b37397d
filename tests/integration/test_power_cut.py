#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Power cuts. A guest's kernel records every write to a disk while `tally shell` works on it; then the disk is made as it was
at many moments of the record, with and without part of what was under way, and each time the ledger must recover and hold
everything that had been acknowledged. And disks that err, lie and damage while the shell works.

TALLY_CUTS says how many moments (all: every one), TALLY_FILE_SYSTEM on which file system; tests/integration/crash sets them."""

import contextlib
import os
import pathlib
import random
import shutil
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
sys.path.insert(0, str(HERE / "powercut"))
import filesystems  # noqa: E402
import guest  # noqa: E402
import ledger  # noqa: E402
import netns  # noqa: E402
import server  # noqa: E402
from check import QUICK, equal, main, seed, skip, test  # noqa: E402
from log_writes import Disk, Record  # noqa: E402
from shell import Shell  # noqa: E402

KIND = os.environ.get("TALLY_FILE_SYSTEM") or "ext4"
CUTS = os.environ.get("TALLY_CUTS") or ("10" if QUICK else "24")
MEGABYTES = {"ext4": 160, "xfs": 320, "btrfs": 400}[KIND]
LOG_FILE_BYTES = 16 << 20
DICE = random.Random(seed())


class Setting:
    """A file system with a directory `old`, whose first log file is nearly full, and requests for it and for a new one."""

    def __init__(self, old=True):
        try:
            guest.kernel()
        except guest.Unavailable as reason:
            skip(str(reason))
        if filesystems.lacking(KIND):
            skip(filesystems.lacking(KIND))
        self.disk = filesystems.FileSystem(KIND, MEGABYTES)
        filler = ledger.Requests(DICE, [8000] * (LOG_FILE_BYTES // 8000 // 82 if old else 0))
        with Shell("--wal", f"{self.disk.path}/old", *ledger.SHELL) as shell:
            for line in filler.lines:
                assert ledger.acknowledged(shell.line(line)), "the old directory cannot be filled"
            equal(shell.close(), 0, "exit status of the shell")
        self.disk.unmount()
        self.before = {"new": ledger.moved([]), "old": ledger.moved(event for batch in filler.transfers for event in batch)}
        sizes = [DICE.choice((1, 1, 2, 5, 20)) for _ in range(30 if QUICK else 60)]
        self.requests = {"new": ledger.Requests(DICE, sizes),
                         "old": ledger.Requests(DICE, [1500, 1, 2000, 3, 2000, 2000, 5, 1000, 1], filler.next_id, False)}
        self.files = {f"requests-{name}": requests.text() for name, requests in self.requests.items()}

    def mounted(self, image):
        """Put another image in the place of the disk."""
        self.disk.image = image
        self.disk.mount()
        return self.disk.path


def moments(record):
    """Numbers of entries behind which the power may go: where something became durable, was acknowledged, and in between."""
    edges = [at + 1 for at, entry in enumerate(record.entries) if entry.durable() or entry.mark]
    between = [at for at in range(1, len(record.entries) + 1) if at not in set(edges)]
    if CUTS == "all":
        return sorted(edges + between)
    count = min(int(CUTS), len(edges))
    zeros = [at for at in edges if record.entries[at - 1].mark is None]
    return sorted(set(DICE.sample(edges, count * 2 // 3) + DICE.sample(zeros, min(count // 6, len(zeros))) +
                      DICE.sample(between, min(count // 6, len(between)))))


def progress(record, count):
    """Of each directory: how many requests were acknowledged in the first entries; None where it was not begun."""
    reached, current = {"new": None, "old": None}, None
    for entry in record.entries[:count]:
        word, _, value = (entry.mark or "").partition(" ")
        if word == "begin":
            current, reached[value] = value, 0
        elif word == "answer":
            reached[current] = int(value)
    return reached


def judge(setting, image, reached):
    """Recover both directories of the image, and compare."""
    path = setting.mounted(image)
    try:
        for name, count in reached.items():
            directory = f"{path}/{name}"
            if count is None:
                continue
            if name == "new" and count == 0 and (not os.path.exists(directory) or ledger.refusal(directory)):
                continue  # nothing was acknowledged, and it says itself that it is not whole
            ledger.holds(directory, setting.before[name], setting.requests[name], count, DICE.random() < 0.1)
    finally:
        setting.disk.unmount()


def cut_again_and_again(setting, base, written, judge):
    """Make the disk as it was at some moments, and judge it(setting, image, progress). @param base as the record begins"""
    copy = os.path.join(server.scratch(), "copy")
    record = Record(written)
    disk = Disk(record, base)
    cuts = torn = 0
    for moment in moments(record):
        disk.advance(moment)
        reached = progress(record, moment)
        for tear in (False, True):
            if tear and (not disk.batch() or DICE.random() < 0.5):
                continue
            shutil.copyfile(base, copy)
            if tear:
                disk.tear(copy, DICE)
            try:
                judge(setting, copy, reached)
            except BaseException:
                print(f"after {moment} of {len(record.entries)} entries, torn: {tear}, acknowledged: {reached}")
                raise
            cuts, torn = cuts + 1, torn + tear
    print(f"{cuts} power cuts on {KIND}, {torn} of them in the middle of a write; {len(record.entries)} writes and marks")
    assert cuts > 0


@test
def power_cuts():
    setting = Setting()
    base, written = (os.path.join(server.scratch(), name) for name in ("base", "written"))
    shutil.copyfile(setting.disk.image, base)
    with open(written, "wb") as file:
        file.truncate(2 << 30)
    begin = time.monotonic()
    lines = guest.run("record", KIND, (setting.disk.image, written), setting.files, 300)
    ends = [line for line in lines if line.startswith("end ")]
    equal(len([line for line in ends if line.startswith("end 0")]), 2, f"shells of the guest that ended well ({lines[-5:]})")
    answers = [line.removeprefix("answer ") for line in lines if line.startswith("answer ")]
    equal(len(answers), sum(len(requests.lines) for requests in setting.requests.values()), "answers")
    assert all(ledger.acknowledged(answer) for answer in answers)

    print(f"the guest took {time.monotonic() - begin:.1f} s", flush=True)
    cut_again_and_again(setting, base, written, judge)


@test
def power_cuts_during_checkpoints():
    """tallyd takes one after the other of an old ledger: what they hold, or the log, is there whatever became of them."""
    setting = Setting()
    base, written = (os.path.join(server.scratch(), name) for name in ("base", "written"))
    shutil.copyfile(setting.disk.image, base)
    with open(written, "wb") as file:
        file.truncate(2 << 30)
    lines = guest.run("checkpoints", KIND, (setting.disk.image, written), {}, 300)
    equal([line[:5] for line in lines], ["end 0"] * 2, f"how tallyd ended: {lines}")

    def judge_checkpoints(setting, image, reached):
        data = f"{setting.mounted(image)}/old"
        try:
            status, output, error = server.call(server.program("tally"), "checkpoint", "verify", "--data", data, timeout_s=120)
            equal(status, 0, f"status of tally checkpoint verify ({output}{error})")
            found = len(list(pathlib.Path(data).glob("checkpoint/*.manifest")))
            assert found >= min(reached["old"] or 0, 2), f"{found} checkpoints, after {reached['old']} were acknowledged"
            ledger.holds(data, setting.before["old"], ledger.Requests(DICE, [], accounts=False), 0)
        finally:
            setting.disk.unmount()

    cut_again_and_again(setting, base, written, judge_checkpoints)


def break_for_a_while(plan, *files):
    """A guest whose disk is broken between two requests. @return setting, requests acknowledged before and in the break,
    in all, and how the shell ended"""
    setting = Setting(old=False)
    spare = os.path.join(server.scratch(), "spare")
    with open(spare, "wb") as file:
        file.truncate(1 << 20)
    break_at = DICE.randint(5, 20)
    setting.files |= {"break-at": str(break_at).encode(), "heal-at": str(break_at + 4).encode()}
    lines = guest.run(plan, KIND, (setting.disk.image, spare), setting.files, 300)
    assert "broken" in lines, f"the disk was never broken: {lines}"
    answers = [line for line in lines if line.startswith("answer ")]
    assert all(ledger.acknowledged(answer.removeprefix("answer ")) for answer in answers)
    return setting, break_at, len(answers), next(line for line in lines if line.startswith("end "))


@test
def disk_that_errs():
    setting, before, answers, end = break_for_a_while("errors")
    equal(answers, before, f"requests that were acknowledged although no write succeeded ({end})")
    assert end.startswith("end 1 tally shell: ") and "Input/output error" in end, f"the shell said: {end}"
    judge(setting, setting.disk.image, {"new": answers, "old": None})


@test
def disk_that_lies():
    """Writes that vanish: nobody can know, but what was true before must still be, or be refused."""
    setting, before, _, end = break_for_a_while("lies")
    path = setting.mounted(setting.disk.image)
    refused = ledger.refusal(f"{path}/new")
    if not refused:
        ledger.holds(f"{path}/new", setting.before["new"], setting.requests["new"], before)
    print(f"acknowledged before: {before}; {end}; {refused or 'recovered'}")
    setting.disk.unmount()


@test
def disk_that_damages():
    """A byte of every write is wrong for a while: refused with the file's name, or served with all that was true before."""
    setting, before, answers, end = break_for_a_while("damage")
    path = setting.mounted(setting.disk.image)
    refused = ledger.refusal(f"{path}/new")
    assert refused or answers <= before + 1, f"{answers} answers, {before} before the damage, and nothing was noticed"
    if not refused:
        ledger.holds(f"{path}/new", setting.before["new"], setting.requests["new"], before)
    assert not refused or ".log" in refused, f"the refusal does not name the file: {refused}"
    print(f"{end}; {refused or 'recovered'}")
    setting.disk.unmount()


if __name__ == "__main__":
    with contextlib.suppress(guest.Unavailable):  # said by each test
        guest.kernel()
    netns.enter()
    main(filesystems.cleanup)
