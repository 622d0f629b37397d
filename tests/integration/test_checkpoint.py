#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a real tallyd: taken on command and by themselves, killed in the middle, damaged, on a full disk; and the
operator's socket."""

import json
import os
import pathlib
import random
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import netns  # noqa: E402
import server  # noqa: E402
from check import QUICK, equal, eventually, main, seed, test  # noqa: E402
from matchday import Matchday  # noqa: E402
from world import World  # noqa: E402

TALLY = server.program("tally")
REFUSED, USAGE, DAMAGED = 1, 2, 4
DAMAGED_DIRECTORY = 4  # tallyd's


def tally(*arguments, status=0, timeout_s=60):
    got, output, error = server.call(TALLY, *arguments, timeout_s=timeout_s)
    assert got == status, f"tally {arguments}: exit status {got}, should be {status}: {output}{error}"
    return output + error


def answers(*arguments, status=0):
    return [json.loads(line) for line in tally("--json", *arguments, status=status).splitlines() if line.startswith("{")]


def checkpoint(data):
    return int(answers("checkpoint", "--data", data)[0]["seq"])


def kept(data):
    return sorted(pathlib.Path(data, "checkpoint").glob("*.manifest"))


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


def fill(path, leave_bytes):
    """A file that takes all room but that."""
    with open(path, "wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            pass
        file.truncate(max(file.tell() - leave_bytes, 0))
        os.fsync(file.fileno())


@test
def taken_on_command():
    """Two are kept, both are good, and a restart from them agrees with the book of an independent client."""
    with World(dice=random.Random(seed())) as world:
        data, seqs = world.tallyd.data, []
        for _ in range(4):
            world.work(15)
            seqs.append(checkpoint(data))
        assert seqs == sorted(set(seqs)), f"checkpoints are at groups {seqs}"
        equal([int(found["seq"]) for found in answers("checkpoint", "list", "--data", data)], seqs[-2:], "kept checkpoints")
        verified = answers("checkpoint", "verify", "--data", data)
        equal([(int(found["seq"]), found["verdict"]) for found in verified], [(seq, "good") for seq in seqs[-2:]])
        counters = world.tallyd.counters()
        equal(counters["checkpoint_published"], 4, "checkpoints published")
        equal(counters["checkpoint_published_seq"], seqs[-1], "newest checkpoint")
        world.work(15)
        for end in (world.tallyd.kill, world.tallyd.stop):
            end()
            world.tallyd.start()
            world.work(15)
        equal(world.counter("checkpoint_published_seq"), seqs[-1], "newest checkpoint after a restart")
        checkpoint(data)
        world.work(5)


@test
def taken_by_themselves():
    with World(dice=random.Random(seed()), flags=["--checkpoint-s", 1]) as world:
        eventually(lambda: world.work(1) or world.counter("checkpoint_published") >= 2, 30, "two checkpoints in time")
    with World(dice=random.Random(seed()), flags=["--checkpoint-s", 0, "--checkpoint-mb", 1]) as world:
        eventually(lambda: world.work(60) or world.counter("checkpoint_published") >= 2, 60, "two checkpoints by size")


@test
def killed_during_checkpoints():
    """SIGKILL at any moment of one, under a load that keeps a book of what was acknowledged."""
    dice, kills = random.Random(seed()), 3 if QUICK else 7
    tallyd = server.Tallyd(memory_mb=512, flags=["--checkpoint-s", 1, "--checkpoint-mb", 2]).format(partitions=64)
    tallyd.start()
    day = Matchday(tallyd.cable, "--wallets", 4000 if QUICK else 10000, "--rate", 8000)
    running = 0
    for _ in range(kills):
        asked = server.spawn([TALLY, "checkpoint", "--data", tallyd.data], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(dice.uniform(0, 0.08) if dice.random() < 0.7 else dice.uniform(0.1, 0.6))
        running += asked.poll() is None
        tallyd.kill()
        asked.wait(30)
        tallyd.start()
    assert day.running(), f"the day was over after {kills} kills:\n{day.said()}"
    print(f"killed {kills} times, {running} of them in a checkpoint that was asked for")
    print(day.finish())
    checkpoint(tallyd.data)
    equal(tallyd.stop(), 0, "exit status")
    for found in answers("checkpoint", "verify", "--data", tallyd.data):
        equal(found["verdict"], "good", "a kept checkpoint")
    tally("wal", "verify", tallyd.data, timeout_s=300)
    tallyd.start()
    equal(tallyd.stop(), 0, "exit status of a last start")


@test
def damaged_checkpoints():
    """The newer one damaged: the other one, with a warning. Both: a refusal that names both. Verify names the bytes."""
    with World(dice=random.Random(seed())) as world:
        data = world.tallyd.data
        for _ in range(2):
            world.work(15)
            checkpoint(data)
        world.work(10)
        equal(world.tallyd.stop(), 0, "exit status")
        older, newer = (path.with_suffix(".data") for path in kept(data))
        for broken, at in ((newer, 300), (newer.with_suffix(".manifest"), 77)):
            good = broken.read_bytes()
            flip(broken, at)
            said = tally("checkpoint", "verify", "--data", data, status=DAMAGED)
            assert str(broken) in said and "bytes 0.." in said, f"verify says: {said}"
            world.tallyd.start()
            warning = [line for line in world.tallyd.said().splitlines() if "warning" in line]
            assert any(broken.stem in line for line in warning), f"no warning names {broken}: {world.tallyd.said()}"
            world.work(3)
            equal(world.tallyd.stop(), 0, "exit status")
            if broken.exists():
                broken.write_bytes(good)
        damaged = [path.with_suffix(".data") for path in kept(data)]
        for broken in damaged:
            flip(broken, 131072 - 1)
        found = [line for line in answers("checkpoint", "verify", "--data", data, status=DAMAGED) if line["type"] == "damage"]
        equal(len(found), len(damaged), "damages that verify found")
        equal({line["offset"] for line in found}, {"0"}, "where it says they are")
        world.tallyd.start(ready=False)
        equal(world.tallyd.wait(60), DAMAGED_DIRECTORY, f"status with two damaged checkpoints ({world.tallyd.said()[-800:]})")
        last = world.tallyd.said().strip().splitlines()[-1]
        for broken in damaged:
            assert broken.stem.lstrip("0") in last, f"the refusal does not name {broken}: {last}"
            flip(broken, 131072 - 1)
        world.tallyd.start()
        world.work(5)


@test
def checkpoints_that_are_not_ours():
    """Of another cell, or of a newer format: refused, and it says so; nothing is taken from them."""
    with World(dice=random.Random(seed())) as world:
        data, copy = world.tallyd.data, os.path.join(server.scratch(), "copy")
        world.work(10)
        checkpoint(data)
        world.work(10)
        tally("backup", copy, "--data", data)
        equal(world.tallyd.stop(), 0, "exit status")
        ours = os.path.join(server.scratch(), "ours")
        shutil.copytree(os.path.join(data, "checkpoint"), ours)
        newest = kept(data)[-1]

        def refused(word):
            world.tallyd.start(ready=False)
            equal(world.tallyd.wait(60), 3, f"exit status ({world.tallyd.said()[-800:]})")
            last = world.tallyd.said().strip().splitlines()[-1]
            assert word in last and newest.name in last, f"the refusal says: {last}"
            assert word in tally("checkpoint", "verify", "--data", data, status=DAMAGED)

        for suffix in (".manifest", ".data"):
            shutil.copy(pathlib.Path(copy, "checkpoint", newest.stem + suffix), newest.with_suffix(suffix))
        refused("another cell")
        shutil.rmtree(os.path.join(data, "checkpoint"))
        shutil.copytree(ours, os.path.join(data, "checkpoint"))
        world.tallyd.start()
        world.work(3)


@test
def no_room_for_a_checkpoint():
    """It is given up with a reason; the log goes on, and so does everybody."""
    small = os.path.join(server.scratch(), "small")
    netns.small_disk(small, 64)
    tallyd = server.Tallyd(data=f"{small}/data", memory_mb=512)
    tallyd.log = os.path.join(server.scratch(), "tallyd.log")
    tallyd.format(file_mb=16).start()
    try:
        eventually(lambda: len(list(pathlib.Path(tallyd.data, "wal").glob("*.log"))) == 3, 20, "the log's files ahead")
        fill(f"{small}/filler", 200 << 10)
        tally("--server", netns.SERVER4, "account", "create", "--id", 1, "--ledger", 1, "--code", 1)
        said = tally("checkpoint", "--data", tallyd.data, status=REFUSED)
        assert "space" in said, f"a checkpoint without room says: {said}"
        assert "warning" in tallyd.said() and tallyd.running(), tallyd.said()[-1000:]
        tally("--server", netns.SERVER4, "account", "create", "--id", 2, "--ledger", 1, "--code", 1)
        os.unlink(f"{small}/filler")
        eventually(lambda: server.call(TALLY, "checkpoint", "--data", tallyd.data)[0] == 0, 20, "a checkpoint with room again")
        equal(tallyd.stop(), 0, "exit status")
    finally:
        if tallyd.running():
            tallyd.kill()
        netns.run("umount", small)


@test
def nobody_to_ask():
    data = server.Tallyd().format().data
    for path, word in ((data, f"tallyd run --data {data}"), (os.path.join(data, "none"), "no such directory"),
                       (os.path.join(data, "wal"), "not a data directory")):
        assert word in tally("checkpoint", "--data", path, status=USAGE), f"checkpoint of {path}"
    assert "did you mean --data" in tally("checkpoint", "--dat", data, status=USAGE)
    assert "verify" in tally("checkpoint", "verfy", status=USAGE)
    assert "no checkpoint" in tally("checkpoint", "verify", "--data", data)
    tallyd = server.Tallyd(data=data, flags=["--checkpoint-memory-mb", 0]).start()
    assert "--checkpoint-memory-mb 0" in tally("checkpoint", "--data", data, status=REFUSED)
    nobody = os.path.join(server.scratch(), "tally")
    shutil.copy(TALLY, nobody)
    os.chmod(nobody, 0o755)
    for folder in (os.path.dirname(nobody), os.path.dirname(data), data):
        os.chmod(folder, 0o755)
    status, _, error = server.call("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", nobody, "checkpoint",
                                   "--data", data)
    assert status == USAGE and "no permission" in error, f"without permission: {status}: {error}"
    equal(tallyd.stop(), 0, "exit status")


@test
def socket_of_the_operator():
    """Only the owner may ask; garbage is answered and let go, silence does not stop anybody, and a kill leaves no trouble."""
    tallyd = server.Tallyd().format().start()
    path = os.path.join(tallyd.data, "control")
    equal(stat.S_IMODE(os.stat(path).st_mode), 0o600, "mode of the socket")

    def ask(data):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(path)
            client.sendall(data)
            answer = b""
            while not answer.endswith(b"\n"):
                answer += client.recv(4096)
            return json.loads(answer)

    silent = [socket.socket(socket.AF_UNIX) for _ in range(5)]
    for client in silent:
        client.connect(path)
    equal(ask(b"status\n")["ok"], True)
    for garbage in (b"nonsense\n", b"\x00\xff\"\\\n", b"checkpoint now\n", b"x" * 5000, b"\n", b"{}\n"):
        answer = ask(garbage)
        equal((answer["ok"], bool(answer["error"])), (False, True), f"answer to {garbage!r}")
    dice = random.Random(seed())
    for _ in range(100):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            try:
                client.sendall(dice.randbytes(dice.randint(0, 600)))
            except OSError:
                pass  # let go in the middle
    equal(ask(b"status\n")["partitions"], 16)
    for client in silent:
        client.close()
    threads = [threading.Thread(target=tally, args=("checkpoint", "--data", tallyd.data)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a checkpoint was never served"
    tallyd.kill()
    assert "tallyd run" in tally("checkpoint", "--data", tallyd.data, status=USAGE)
    tallyd.start()
    checkpoint(tallyd.data)
    equal(tallyd.stop(), 0, "exit status")
    assert not os.path.exists(path), "the socket is left behind"


if __name__ == "__main__":
    netns.enter()
    main(server.cleanup)
