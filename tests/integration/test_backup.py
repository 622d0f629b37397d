#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tally backup: under load and of a stopped tallyd, started elsewhere as a cell of its own; refused where it makes no sense;
killed and out of room in the middle."""

import json
import os
import pathlib
import random
import shutil
import signal
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import netns  # noqa: E402
import server  # noqa: E402
from check import QUICK, equal, eventually, main, seed, test  # noqa: E402
from elsewhere import Elsewhere  # noqa: E402
from world import ACCOUNTS, CODE, LEDGER, World  # noqa: E402

TALLY = server.program("tally")
USAGE, REFUSED_DIRECTORY, DAMAGED = 2, 3, 4
EVERY = list(range(1, ACCOUNTS + 1))


def tally(*arguments, status=0, timeout_s=120):
    got, output, error = server.call(TALLY, *arguments, timeout_s=timeout_s)
    assert got == status, f"tally {arguments}: exit status {got}, should be {status}: {output}{error}"
    return output + error


def backup(data, status=0):
    """@return the new directory, and what was said of it"""
    into = os.path.join(server.scratch(), "copy")
    said = json.loads(tally("--json", "backup", into, "--data", data, status=status))
    equal(said["directory"], into)
    return into, said


def balanced(accounts):
    for kind in ("pending", "posted"):
        equal(sum(account[f"debits_{kind}"] for account in accounts),
              sum(account[f"credits_{kind}"] for account in accounts), f"{kind} debits and credits")


class Load:
    """A client in a thread of its own that notes every transfer once it is acknowledged."""

    def __init__(self, world):
        self.world, self.acknowledged, self.stop, self.failure = world, [], threading.Event(), None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        world = self.world
        try:
            while not self.stop.is_set():
                debit, credit = world.pair()
                events = [{"id": world.client.transfer_id(debit), "debit_account_id": debit, "credit_account_id": credit,
                           "amount": 1, "ledger": LEDGER, "code": CODE} for _ in range(20)]
                world.ask(world.client.create_transfers, events, "created", compact=True)
                for event in events:
                    world.note(event)
                    self.acknowledged.append(event["id"])
        except BaseException as failure:  # of this thread: raised again in finish()
            self.failure = failure

    def finish(self):
        self.stop.set()
        self.thread.join()
        if self.failure:
            raise self.failure


@test
def under_load():
    """Everything acknowledged before it began is there, the books balance, and both go on without each other."""
    with World(dice=random.Random(seed())) as world:
        world.work(20)
        load = Load(world)
        try:
            copies = []
            for _ in range(1 if QUICK else 3):
                eventually(lambda: load.failure or len(load.acknowledged) > 500 * (len(copies) + 1), 30, "some load")
                before = list(load.acknowledged)
                copies.append((before, *backup(world.tallyd.data)))
                assert len(load.acknowledged) > len(before), "nothing was acknowledged while the backup ran"
        finally:
            load.finish()
        world.check()
        for before, into, said in copies:
            tally("wal", "verify", into)
            tally("checkpoint", "verify", "--data", into)
            with Elsewhere(into) as other:
                found = other.transfers(before)
                missing = [number for number, record in zip(before, found) if record is None]
                assert not missing, f"{len(missing)} of {len(before)} acknowledged transfers are not in the backup"
                accounts = other.accounts(EVERY)
                balanced(accounts)
                assert bytes(other.client.cell_id).hex() == said["cell"] != bytes(world.client.cell_id).hex() == said["parent"]
                goes_on_alone(world, other, before)
        equal(len({said["cell"] for _, _, said in copies}), len(copies), "different cells")
        world.work(20)


def goes_on_alone(world, other, before):
    """What is done here is not there; a transfer of before exists in both."""
    there = other.accounts(EVERY)
    world.work(10)
    equal(other.accounts(EVERY), there, "accounts of the copy while the source goes on")
    again = {"id": before[-1], **{name: other.transfers([before[-1]])[0][name] for name in
                                  ("debit_account_id", "credit_account_id", "amount", "ledger", "code")}}
    World.statuses_of(other.client.create_transfers([again]).results, "exists")
    event = {"id": other.client.transfer_id(1), "debit_account_id": 1, "credit_account_id": 2, "amount": 7,
             "ledger": LEDGER, "code": CODE}
    World.statuses_of(other.client.create_transfers([event]).results, "created")
    equal(other.accounts([2])[0]["credits_posted"], there[1]["credits_posted"] + 7, "credits in the copy")
    world.check()
    World.statuses_of(world.client.lookup_transfers([event["id"]]).results, "absent")


@test
def of_a_stopped_tallyd():
    """After a clean end and after a kill; the source is as it was; a backup of a backup knows its parent."""
    with World(dice=random.Random(seed())) as world:
        world.work(20)
        tally("checkpoint", "--data", world.tallyd.data)
        world.work(20)
        expected = world.state()
        for end in (world.tallyd.stop, world.tallyd.kill):
            end()
            before = {path: path.read_bytes() for path in pathlib.Path(world.tallyd.data).rglob("*.*") if path.is_file()}
            into, said = backup(world.tallyd.data)
            after = {path: path.read_bytes() for path in pathlib.Path(world.tallyd.data).rglob("*.*") if path.is_file()}
            assert before == after, "the source changed"
            with Elsewhere(into) as other:
                equal(other.accounts(EVERY), expected, "accounts of the backup")
            second, again = backup(into)
            equal(again["parent"], said["cell"], "parent of a backup's backup")
            with Elsewhere(second, number=2) as other:
                equal(other.accounts(EVERY), expected, "accounts of a backup's backup")
            world.tallyd.start()
        world.work(5)


@test
def of_a_damaged_directory():
    """The newest checkpoint damaged: the one before and more of the log, with a warning. The log damaged: no backup."""
    with World(dice=random.Random(seed())) as world:
        data, into = world.tallyd.data, os.path.join(server.scratch(), "copy")
        for _ in range(2):
            world.work(10)
            tally("checkpoint", "--data", data)
        world.work(10)
        expected = world.state()
        equal(world.tallyd.stop(), 0, "exit status")
        newest = sorted(pathlib.Path(data, "checkpoint").glob("*.data"))[-1]
        good = newest.read_bytes()
        newest.write_bytes(good[:1000] + b"?" + good[1001:])
        said = tally("backup", into, "--data", data)
        assert "warning" in said and newest.name in said, f"a backup with a damaged checkpoint says: {said}"
        with Elsewhere(into) as other:
            equal(other.accounts(EVERY), expected, "accounts of the backup")
        newest.write_bytes(good)
        log = pathlib.Path(data, "wal", f"{1:020}.log")
        good = log.read_bytes()
        log.write_bytes(good[:5000] + bytes([good[5000] ^ 1]) + good[5001:])
        second = os.path.join(server.scratch(), "copy")
        said = tally("backup", second, "--data", data, status=DAMAGED)
        assert str(log) in said and "bytes " in said, f"a backup of a damaged log says: {said}"
        assert not os.path.exists(second), "it left a directory"
        log.write_bytes(good)
        world.tallyd.start()
        world.work(3)


@test
def refusals():
    tallyd = server.Tallyd().format().start()
    data, base, new = tallyd.data, server.scratch(), os.path.join(server.scratch(), "new")
    os.mkdir(os.path.join(base, "full"))
    pathlib.Path(base, "full", "letters.txt").write_text("not a ledger\n")
    pathlib.Path(base, "file").write_text("not a directory\n")
    other = server.Tallyd(port="net_ring0").format().data
    for into, word in ((data, "lies in"), (os.path.join(data, "copy"), "lies in"), (f"{data}/../data/wal/x", "lies in"),
                       (os.path.join(base, "full"), "not empty"), (os.path.join(base, "file"), "file"), (other, "already"),
                       (os.path.join(base, "no", "where"), "No such file")):
        said = tally("backup", into, "--data", data, status=USAGE)
        assert word in said and said.count("\n") == 1, f"backup into {into} says: {said}"
    for source, word in ((os.path.join(base, "none"), "no such directory"), (base, "not a data directory"),
                         (os.path.join(base, "file"), "Not a directory")):
        said = tally("backup", new, "--data", source, status=USAGE)
        assert word.lower() in said.lower(), f"backup of {source} says: {said}"
    assert not os.path.exists(new), "a refused backup made its directory"
    assert "did you mean --data" in tally("backup", new, "--dta", data, status=USAGE)
    assert "needs DIR" in tally("backup", "--data", data, status=USAGE)
    equal(sorted(os.listdir(os.path.join(base, "full"))), ["letters.txt"])
    link = os.path.join(base, "link")
    os.symlink(data, link)
    assert "lies in" in tally("backup", os.path.join(link, "x"), "--data", data, status=USAGE)
    assert tallyd.running()
    equal(tallyd.stop(), 0, "exit status")


@test
def killed_in_the_middle():
    """What it leaves is nobody's: tallyd refuses it, another backup does too, and the running tallyd lets its hold go."""
    with World(dice=random.Random(seed())) as world:
        world.work(10)
        dice, left = random.Random(seed()), 0
        for _ in range(3 if QUICK else 8):
            into = os.path.join(server.scratch(), "copy")
            process = server.spawn([TALLY, "backup", into, "--data", world.tallyd.data])
            time.sleep(dice.uniform(0, 0.15))
            process.send_signal(signal.SIGKILL)
            process.wait(30)
            if not os.path.exists(into) or os.path.exists(os.path.join(into, "superblock")):
                continue
            left += 1
            status, _, error = server.call(server.program("tallyd"), "run", "--data", into, "--address", netns.SERVER4, "--",
                                           "--no-huge", "-m", "64", "--no-pci", f"--file-prefix=b{os.getpid()}", "-l", "0")
            assert status == REFUSED_DIRECTORY and "not a data directory" in error, f"{status}: {error}"
            assert "not empty" in tally("backup", into, "--data", world.tallyd.data, status=USAGE)
            shutil.rmtree(into)
        print(f"{left} were killed in the middle")
        world.work(10)
        backup(world.tallyd.data)


@test
def out_of_room():
    """It says so, leaves nothing behind, and does not harm the tallyd that it was taken from."""
    with World(dice=random.Random(seed())) as world:
        world.work(10)
        small = os.path.join(server.scratch(), "small")
        netns.small_disk(small, 24)
        said = tally("backup", f"{small}/copy", "--data", world.tallyd.data, status=USAGE)
        assert "space" in said and f"{small}/copy" in said, f"a backup without room says: {said}"
        assert not os.path.exists(f"{small}/copy"), "it left a directory"
        netns.run("umount", small)
        world.work(5)


if __name__ == "__main__":
    netns.enter()
    main(server.cleanup)
