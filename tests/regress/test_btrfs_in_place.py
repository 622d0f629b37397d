#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""On btrfs tallyd stopped with "No space left on device" while the disk had room for several logs: every write went to a new
place, and the old ones stayed taken. Log files are written in place now."""

import fcntl
import os
import pathlib
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import filesystems  # noqa: E402
import netns  # noqa: E402
import server  # noqa: E402
from check import equal, main, skip, test  # noqa: E402

PAGE, FILE_MB, PASSES = 4096, 16, 3
GET_FLAGS, NO_COPY_ON_WRITE = 0x80086601, 0x00800000


@test
def writes_to_a_log_take_no_new_space():
    if filesystems.lacking("btrfs"):
        skip(filesystems.lacking("btrfs"))
    disk = filesystems.FileSystem("btrfs")
    status, _, error = server.call(server.program("tallyd"), "format", "--data", f"{disk.path}/data", "--file-mb", FILE_MB)
    equal(status, 0, f"status of format ({error})")
    log = f"{disk.path}/data/wal/{1:020}.log"
    descriptor = os.open(log, os.O_RDONLY)
    flags = struct.unpack("I", fcntl.ioctl(descriptor, GET_FLAGS, bytes(4)))[0]
    os.close(descriptor)
    assert flags & NO_COPY_ON_WRITE, f"flags of {log} are {flags:#x}"
    before = disk.free_bytes()
    with open(log, "r+b", buffering=0) as file:
        for _ in range(PASSES):
            for page in range(0, FILE_MB << 20, 4 * PAGE):
                os.pwrite(file.fileno(), b"x" * PAGE, page)
            os.fsync(file.fileno())
    disk.again()
    used = before - disk.free_bytes()
    assert used < 2 << 20, f"{used} more bytes are taken after writes into a file of zeros"


if __name__ == "__main__":
    netns.enter()
    main(filesystems.cleanup)
