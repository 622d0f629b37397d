#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random moments under load, with two clients that share no code: each keeps a book of all that was acknowledged,
and compares: nothing acknowledged is lost, nothing took effect twice, and the books balance."""

import pathlib
import random
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import netns  # noqa: E402
import server  # noqa: E402
from check import QUICK, main, seed, test  # noqa: E402
from matchday import Matchday  # noqa: E402
from world import World  # noqa: E402

KILLS = 8 if QUICK else 36
WALLETS, RATE = (5000, 4000) if QUICK else (30000, 4000)


def end_somehow(tallyd, dice):
    """At a random moment of serving, or while it still recovers."""
    if dice.random() < 0.2:
        tallyd.start(ready=False)
        time.sleep(dice.uniform(0, 0.5))
    else:
        tallyd.start()
        time.sleep(dice.uniform(0, 0.9))
    tallyd.kill()


@test
def killed_under_load():
    dice = random.Random(seed())
    tallyd = server.Tallyd(memory_mb=512).format(partitions=64)
    tallyd.start()
    day = Matchday(tallyd.cable, "--wallets", WALLETS, "--rate", RATE)
    time.sleep(0.5)
    tallyd.kill()
    kills = 1
    while kills < KILLS and day.running():
        end_somehow(tallyd, dice)
        kills += 1
    assert day.running(), f"the day was over after {kills} kills:\n{day.said()}"
    tallyd.start()
    print(day.finish())
    print(f"killed {kills} times")
    assert kills >= KILLS
    assert tallyd.stop() == 0
    # What is on the disk is all there is: a last start from it agrees with itself.
    tallyd.start()
    assert tallyd.stop() == 0
    status, output, error = server.call(server.program("tally"), "wal", "verify", tallyd.data, timeout_s=300)
    assert status == 0, f"tally wal verify: {status}: {output}{error}"


@test
def killed_under_an_independent_client():
    """The client that was written from the protocol's page, one request at a time, while tallyd comes and goes."""
    dice = random.Random(seed())
    with World(dice=random.Random(dice.random())) as world:
        done, failures = threading.Event(), []

        def client():
            try:
                while not done.is_set():
                    world.work(10)
            except BaseException as failure:  # of this thread: raised again below
                failures.append(failure)

        thread = threading.Thread(target=client)
        thread.start()
        for _ in range(3 if QUICK else 8):  # here, for a tallyd dies with the thread that started it
            time.sleep(dice.uniform(0.05, 0.6))
            world.tallyd.kill()
            world.tallyd.start()
        done.set()
        thread.join()
        if failures:
            raise failures[0]
        world.work(50)
        assert world.client.sessions > 0, "the client never noticed"


if __name__ == "__main__":
    netns.enter()
    main(server.cleanup)
