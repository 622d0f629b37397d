#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""quickstart with a small match day: what it promises, and that it leaves nothing behind."""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import netns  # noqa: E402
import server  # noqa: E402
from check import equal, main, test  # noqa: E402

QUICKSTART = server.ROOT / "quickstart"


def interfaces():
    return netns.run("ip", "-o", "link", "show").splitlines()


def run_it(*flags):
    base = server.scratch()
    before = interfaces()
    status, output, error = server.call(QUICKSTART, "--wallets", 1000, "--rate", 4000, *flags, timeout_s=240,
                                        env={**os.environ, "TMPDIR": base})
    equal(status, 0, f"status of quickstart ({output[-3000:]}{error[-1000:]})")
    for words in ("SIGKILL to tallyd", "killed in the middle: yes", "proven", "tallyd's exit   clean", "log on disk     good"):
        assert words in output, f"quickstart does not say {words!r}:\n{output}"
    equal([line for line in output.splitlines() if len(line) > 80], [], "lines of more than 80 columns")
    assert "FALSE" not in output and "WRONG" not in output, output
    equal(interfaces(), before, "interfaces after quickstart")
    return base, output


@test
def over_af_packet():
    base, _ = run_it()
    equal(os.listdir(base), [], "files after quickstart")


@test
def over_tap_and_the_directory_is_kept():
    base, output = run_it("--port", "tap", "--keep")
    kept = os.listdir(base)
    equal(len(kept), 1, f"files after quickstart --keep ({kept})")
    assert os.path.join(base, kept[0]) in output, "quickstart does not say where it left the directory"


@test
def flags_that_are_wrong():
    tests = server.ROOT / "tests" / "run"
    for command in ([QUICKSTART, "--port", "nic"], [QUICKSTART, "--speed"], [QUICKSTART, "--wallets"],
                    [QUICKSTART, "--wallets", "many"], [QUICKSTART, "--wallets", ""], [QUICKSTART, "--wallets", "0"],
                    [QUICKSTART, "--rate", "99999999999"], [QUICKSTART, "extra"], [tests, "--speed"], [tests, "--only"],
                    [tests, "extra"]):
        status, _, error = server.call(*command)
        equal(status, 2, f"status of {command}")
        equal(len(error.strip().splitlines()), 1, f"lines on stderr of {command}: {error!r}")


if __name__ == "__main__":
    netns.enter()
    main(server.cleanup)
