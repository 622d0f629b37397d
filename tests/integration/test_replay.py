#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tally replay: back to a group or a time of a known history, compared with what the ledger said then; under other numbers of
partitions; and refused, with the range, where the log does not reach."""

import json
import os
import pathlib
import random
import shutil
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import netns  # noqa: E402
import server  # noqa: E402
import tally_client  # noqa: E402
from check import QUICK, equal, main, seed, test  # noqa: E402
from elsewhere import Elsewhere  # noqa: E402
from matchday import Matchday  # noqa: E402
from world import ACCOUNTS, CODE, LEDGER, World  # noqa: E402

TALLY = server.program("tally")
USAGE, DAMAGED = 2, 4
EVERY = list(range(1, ACCOUNTS + 1))


def tally(*arguments, status=0, timeout_s=120):
    got, output, error = server.call(TALLY, *arguments, timeout_s=timeout_s)
    assert got == status, f"tally {arguments}: exit status {got}, should be {status}: {output}{error}"
    return output + error


def replay(data, *flags):
    return json.loads(tally("--json", "replay", "--data", data, *flags))


def into(data, *flags):
    """Replay into a new directory: (its path, what was said)."""
    path = os.path.join(server.scratch(), "then")
    return path, replay(data, "--into", path, *flags)


class Moment:
    """What the ledger said at some point: its accounts, the group of that answer, the time, and a transfer that was not there."""

    def __init__(self, world):
        reply = world.client.lookup_accounts(EVERY)
        self.accounts = [result.record for result in reply.results]
        self.seq = reply.token[1]
        time.sleep(0.02)
        self.time = time.time()
        time.sleep(0.02)
        self.later = world.transfer(1, 2, 1)["id"]

    def check(self, path, number=1):
        with Elsewhere(path, number=number) as then:
            equal(then.accounts(EVERY), self.accounts, "accounts of then")
            World.statuses_of(then.client.lookup_transfers([self.later]).results, "absent")
            event = {"id": then.client.transfer_id(1), "debit_account_id": 1, "credit_account_id": 3, "amount": 5,
                     "ledger": LEDGER, "code": CODE}
            World.statuses_of(then.client.create_transfers([event]).results, "created")
            World.statuses_of(then.client.lookup_transfers([event["id"]]).results, "found")


def history(world, moments, work):
    """Work with checkpoints in between, and moments to come back to."""
    seen = []
    for number in range(moments):
        world.work(work)
        seen.append(Moment(world))
        if number % 2 == 1:
            tally("checkpoint", "--data", world.tallyd.data)
    world.work(work)
    return seen


@test
def back_in_time():
    """Every moment comes back exactly, from beside a running tallyd and from a stopped one, by group and by time."""
    with World(dice=random.Random(seed())) as world:
        data = world.tallyd.data
        seen = history(world, 3 if QUICK else 4, 12)
        assert len({str(moment.accounts) for moment in seen}) == len(seen), "nothing changed between moments"
        for number, moment in enumerate(seen):
            if number % 2:
                untils = [f"@{moment.time:.6f}"]
            else:
                untils = [str(moment.seq)]
            if number == 0:
                untils.append(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment.time)) + f".{int(moment.time % 1 * 1e6):06}Z")
            for until in untils:
                path, said = into(data, "--until", until)
                assert int(said["last_seq"]) >= 1 and said["directory"] == path
                moment.check(path)
        now = world.state()
        world.tallyd.stop()
        path, _ = into(data, "--until", str(seen[1].seq))
        seen[1].check(path)
        path, _ = into(data)
        with Elsewhere(path) as other:
            equal(other.accounts(EVERY), now, "accounts at the log's end")
        world.tallyd.start()
        world.work(3)


@test
def verifies_without_a_directory():
    with World(dice=random.Random(seed())) as world:
        history(world, 2, 10)
        first = replay(world.tallyd.data)
        said = tally("replay", "--data", world.tallyd.data)
        assert "state digest" in said and "last group" in said, said
        world.tallyd.stop()
        again = replay(world.tallyd.data, "--until", first["last_seq"])
        equal(again["state_digest"], first["state_digest"], "digest of the same group")
        equal(replay(world.tallyd.data, "--workers", 5)["accounts"], str(ACCOUNTS), "accounts")
        world.tallyd.start()


@test
def other_partitions():
    """The sum of the digests stays the same; a directory under other partitions serves the same ledger, old transfers too."""
    with World(dice=random.Random(seed())) as world:
        data = world.tallyd.data
        history(world, 3, 20)
        known = [world.transfer(2, 3, 4, user_data_64=n + 1)["id"] for n in range(20)]
        digests = set()
        for partitions in (1, 7, 256, 1024):
            said = replay(data, "--partitions", partitions)
            equal(said["new_state_digest"], said["state_digest"], f"digest under {partitions} partitions")
            equal(said["new_partitions"], partitions)
            digests.add(said["state_digest"])
        equal(len(digests), 1, "different digests")
        assert "the same" in tally("replay", "--data", data, "--partitions", 7)
        expected = world.state()
        for partitions in (7,) if QUICK else (7, 1024):
            path, said = into(data, "--partitions", partitions)
            tally("checkpoint", "verify", "--data", path)
            assert "not held any more" in tally("replay", "--data", path, "--until", "3", status=USAGE)
            for _ in range(2):  # a restart of it, too
                with Elsewhere(path) as other:
                    equal(other.client.partitions, partitions, "partitions of the new cell")
                    equal(other.accounts(EVERY), expected, "accounts under other partitions")
                    equal([record["user_data_64"] for record in other.transfers(known)], list(range(1, 21)), "user data")
                    record = other.transfers(known[:1])[0]
                    again = {name: record[name] for name in ("id", "debit_account_id", "credit_account_id", "amount",
                                                             "user_data_64", "ledger", "code")}
                    World.statuses_of(other.client.create_transfers([again]).results, "exists")
        world.work(5)


@test
def refusals():
    with World(dice=random.Random(seed())) as world:
        data, new = world.tallyd.data, os.path.join(server.scratch(), "new")
        world.work(5)
        for flags, word in ((["--until", "yesterday"], "yesterday"), (["--until", "0"], "from 1"),
                            (["--until", "2999-01-01"], "2999"), (["--until", "@99999999999"], "future"),
                            (["--until", "99999999"], "ends with group"), (["--until", f"{int(time.time())}"], "@"),
                            (["--until", "2001-09-09T01:46:40Z"], "2001"), (["--until"], "--until"), (["--utnil", "3"], "--until"),
                            (["--partitions", "0"], "1 to 1024"), (["--partitions", "1025"], "1 to 1024"),
                            (["--into", data], "lies in"), (["--into", os.path.join(data, "x")], "lies in"),
                            (["--into", "/proc/nowhere"], "/proc/nowhere"), (["--memory-mb", "1"], "--memory-mb")):
            said = tally("replay", "--data", data, *([] if "--into" in flags else ["--into", new]), *flags, status=USAGE)
            assert word in said and said.count("\n") == 1, f"replay {flags} says: {said}"
            assert not os.path.exists(new), f"replay {flags} made its directory"
        assert "superblock" in tally("replay", "--data", os.path.dirname(new), status=USAGE)


@test
def a_log_whose_first_file_has_gone():
    """What reaches back to the oldest checkpoint is there; what lies before is refused by its range; a backup begins later, too."""
    tallyd = server.Tallyd(memory_mb=512).format(file_mb=16).start()
    day = Matchday(tallyd.cable, "--wallets", 20000, "--rate", 0)
    day.finish()
    held = [int(json.loads(tally("--json", "checkpoint", "--data", tallyd.data))["seq"]) for _ in range(2)]
    equal(tallyd.stop(), 0, "exit status")
    os.unlink(os.path.join(tallyd.data, "wal", f"{1:020}.log"))
    for until in ("5", f"@{time.time() - 3600:.0f}"):
        said = tally("replay", "--data", tallyd.data, "--until", until, status=USAGE)
        assert "not held any more" in said and f"group {held[0]}" in said, f"replay before what is held says: {said}"
    equal(int(replay(tallyd.data, "--until", str(held[0]))["last_seq"]), held[0], "last group at the oldest checkpoint")
    whole = replay(tallyd.data)
    copy = os.path.join(server.scratch(), "copy")
    tally("backup", copy, "--data", tallyd.data)
    assert not os.path.exists(os.path.join(copy, "wal", f"{1:020}.log")), "the backup holds a file that was not there"
    then, _ = into(tallyd.data, "--partitions", 5)
    for path in (tallyd.data, copy, then):
        verified = json.loads(tally("--json", "wal", "verify", path).splitlines()[-1])
        equal((verified["verdict"], verified["state_digest"]), ("good", whole["state_digest"]), f"verified {path}")
        assert int(verified["first_seq"]) > 1, "the log begins with group 1"
    with Elsewhere(copy, memory_mb=512):
        pass
    tallyd.start()
    equal(tallyd.stop(), 0, "exit status")


@test
def damaged_logs_and_holes():
    """Of a log with damage in it: the bytes; without its first file: what it needs; without one in the middle: which."""
    with World(dice=random.Random(seed())) as world:
        data = world.tallyd.data
        world.work(10)
        tally("checkpoint", "--data", data)
        world.work(10)
        first = world.client.lookup_accounts(EVERY).token[1]
        world.work(10)
        equal(world.tallyd.stop(), 0, "exit status")
        log = pathlib.Path(data, "wal", f"{1:020}.log")
        good = log.read_bytes()
        end = len(good.rstrip(b"\0"))
        broken = bytearray(good)
        broken[end - 9000] ^= 1
        log.write_bytes(broken)
        said = tally("replay", "--data", data, status=DAMAGED)
        assert str(log) in said and "bytes " in said, f"replay of a damaged log says: {said}"
        assert str(log) in tally("wal", "verify", data, status=DAMAGED)
        assert str(log) in tally("wal", "verify", "--log-only", data, status=DAMAGED)
        equal(int(replay(data, "--until", str(first))["last_seq"]), first, "last group before the damage")
        log.write_bytes(good)
        os.rename(log, log.with_suffix(".gone"))
        said = tally("replay", "--data", data, status=DAMAGED)
        assert log.name in said or str(log) in said, f"replay without the first file says: {said}"
        os.rename(log.with_suffix(".gone"), log)
        shutil.copytree(os.path.join(data, "checkpoint"), os.path.join(data, "kept"))
        for path in pathlib.Path(data, "checkpoint").glob("*.data"):
            path.write_bytes(path.read_bytes()[:-1] + b"x")
        for command in (["replay", "--data", data], ["wal", "verify", data]):
            said = tally(*command, status=DAMAGED)
            assert "no checkpoint is good" in said and ".data" in said, f"{command} with a damaged checkpoint says: {said}"
        tally("wal", "verify", "--log-only", data)
        shutil.rmtree(os.path.join(data, "checkpoint"))
        os.rename(os.path.join(data, "kept"), os.path.join(data, "checkpoint"))
        verified = json.loads(tally("--json", "wal", "verify", data).splitlines()[-1])
        equal((verified["verdict"], verified["state_digest"]), ("good", replay(data)["state_digest"]), "verified")
        world.tallyd.start()
        world.work(2)
        equal(json.loads(tally("--json", "wal", "verify", data).splitlines()[-1])["accounts"], str(ACCOUNTS), "beside tallyd")


@test
def acknowledged_and_not_on_the_disk():
    """A disk that lost the newest group without a trace behind it: only the tallyd that runs knows, so who asks it says so."""
    with World(dice=random.Random(seed())) as world:
        data = world.tallyd.data
        world.work(5)
        time.sleep(0.5)  # what is written for idle ledgers is written
        groups = [json.loads(line) for line in tally("--json", "wal", "dump", "--groups", data).splitlines()]
        last = [group for group in groups if group["type"] == "group"][-1]
        log = pathlib.Path(data, "wal", last["file"])
        with open(log, "r+b") as file:
            file.seek(int(last["offset"]))
            file.write(bytes(int(last["bytes"])))
        for command in (["wal", "verify", "--data", data], ["wal", "verify", "--log-only", data], ["replay", "--data", data],
                        ["replay", "--data", data, "--until", last["seq"]]):
            said = tally(*command, status=DAMAGED)
            assert last["seq"] in said and "tally checkpoint" in said, f"{command} without the last group says: {said}"
        replay(data, "--until", str(int(last["seq"]) - 1))
        # and what it says is what helps
        accounts = [result.record for result in world.client.lookup_accounts(EVERY).results]
        tally("checkpoint", "--data", data)
        world.tallyd.kill()
        world.tallyd.start()
        world.client.socket.close()
        world.client = tally_client.Client(world.address, server.UDP_PORT, timeout_s=20)
        world.client.connect()
        equal([result.record for result in world.client.lookup_accounts(EVERY).results], accounts, "accounts")


if __name__ == "__main__":
    netns.enter()
    main(server.cleanup)
