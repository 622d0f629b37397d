#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""When the last sync of `tallyd format` failed, the directory kept its superblock and lost its log: neither format nor run would
take it afterwards. What format does not finish is nobody's, and can be formatted."""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import server  # noqa: E402
from check import equal, main, test  # noqa: E402
from faults import calls, judge, run  # noqa: E402


def command(data):
    return [server.program("tallyd"), "format", "--data", data, "--file-mb", "16"]


@test
def format_again_after_a_sync_that_failed():
    data = os.path.join(server.scratch(), "data")
    for number in calls(command(data))["fsync"]:
        data = os.path.join(server.scratch(), "data")
        status, _, error, _ = run(command(data), at=number)
        judge(f"sync {number}", status, error)
        assert status, f"sync {number} failed, and format did not"
        status, _, error, _ = run(command(data))
        equal(status, 0, f"status of another format after call {number} failed ({error})")


if __name__ == "__main__":
    main(server.cleanup)
