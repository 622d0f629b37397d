#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The disk fills up under load: tallyd stops acknowledging and exits with a message that says so. Nothing that it had
acknowledged is lost: on a larger disk the ledger goes on, and the client's book agrees with it."""

import os
import pathlib
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import netns  # noqa: E402
import server  # noqa: E402
from check import equal, main, test  # noqa: E402
from matchday import Matchday  # noqa: E402


@test
def full_disk():
    small = os.path.join(server.scratch(), "small")
    netns.small_disk(small, 48)
    data = f"{small}/data"
    tallyd = server.Tallyd(data=data, memory_mb=512)
    tallyd.log = os.path.join(server.scratch(), "tallyd.log")  # not on the disk that gets full
    tallyd.format(file_mb=16).start()
    day = Matchday(tallyd.cable, "--wallets", 20000, "--rate", 0, "--stall-s", 120)
    equal(tallyd.wait(120), 1, "exit status on a full disk")
    last = tallyd.said().strip().splitlines()[-1]
    messages = [line for line in tallyd.said().splitlines() if line.startswith("tallyd: ") and "space" in line.lower()]
    assert messages, f"no message says that the disk is full; the last is: {last}"
    assert day.running(), f"the client was answered though the log could not be written:\n{day.said()}"

    # It is as full after a restart; it must refuse again, or serve only what it can log.
    tallyd.start(ready=False)
    equal(tallyd.wait(60), 1, "exit status of another start on the full disk")

    larger = os.path.join(server.scratch(), "data")
    shutil.copytree(data, larger)
    netns.run("umount", small)
    tallyd.data = larger
    tallyd.start()
    print(day.finish())
    equal(tallyd.stop(), 0, "exit status on the larger disk")


if __name__ == "__main__":
    netns.enter()
    main(server.cleanup)
