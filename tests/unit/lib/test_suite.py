#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The judgement of tests/run: no program that failed, crashed, hung or tested nothing passes."""

import contextlib
import io
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "lib"))
import suite  # noqa: E402
from check import equal, main, test  # noqa: E402

PASSED = "ok   something\n3 passed, 0 failed\n"
# exit status, output, timed out -> passed, failed, skipped
CASES = [
    (0, PASSED, False, (3, 0, 0)),
    (0, "2 passed, 0 failed, 1 skipped\n", False, (2, 0, 1)),
    (1, "2 passed, 1 failed\n", False, (2, 1, 0)),
    (0, "0 passed, 0 failed, 4 skipped\n", False, (0, 0, 4)),
    (0, "1 passed, 0 failed\n5 passed, 0 failed\n", False, (5, 0, 0)),   # the last one counts
    (0, "Done 5000 runs in 3 second(s)\n", False, (1, 0, 0)),            # a fuzz target
    (1, PASSED, False, (3, 1, 0)),                                       # it died after its closing line
    (-11, PASSED, False, (3, 1, 0)),
    (0, "2 passed, 1 failed\n", False, (2, 1, 0)),                       # it forgot its exit status
    (0, "ok   something\n", False, (0, 1, 0)),                           # no closing line
    (0, "", False, (0, 1, 0)),
    (-11, "ok   something\n", False, (0, 1, 0)),
    (77, "Done 5000 runs in 3 second(s)\n", False, (1, 1, 0)),
    (0, "0 passed, 0 failed\n", False, (0, 1, 0)),                       # it tested nothing
    (-15, PASSED, True, (3, 1, 0)),                                      # it hung after its closing line
    (-15, "", True, (0, 1, 0)),
    (0, "note: 3 passed, 0 failed\n", False, (0, 1, 0)),                 # not a line of its own
]


@test
def every_outcome_is_counted():
    for status, output, timed_out, wanted in CASES:
        equal(suite.count(status, output, timed_out)[:3], wanted, f"count of status {status}, {output!r}")


@test
def programs_are_run_to_their_end():
    equal(suite.execute([sys.executable, "-c", "print(1)"]), (0, "1\n", False), "a program")
    equal(suite.execute([sys.executable, "-c", "import sys; sys.exit(3)"])[0], 3, "status of a program that fails")
    equal(suite.execute([sys.executable, "-c", "import os; os.kill(os.getpid(), 11)"])[0], -11, "status of one that dies")
    status, _, timed_out = suite.execute([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.5)
    equal((status, timed_out), (-15, True), "a program that hangs")
    equal(suite.execute([sys.executable, "-c", "import sys; print(repr(sys.stdin.read()))"])[1], "''\n", "its input")


@test
def a_report_fails_when_anything_did():
    def report(*steps):
        with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(io.StringIO()) as out:
            suite.ROOT, suite.LOGS, kept = pathlib.Path(directory), pathlib.Path(directory, "logs"), (suite.ROOT, suite.LOGS)
            made = suite.Report()
            for number, outcome in enumerate(steps):
                made.run(suite.Step(f"step/{number}", lambda outcome=outcome: outcome))
            status = made.close()
            suite.ROOT, suite.LOGS = kept
        return status, out.getvalue().splitlines()[-1]

    good, skipping, bad = (0, PASSED, False), (0, "1 passed, 0 failed, 2 skipped\n", False), (1, "1 passed, 2 failed\n", False)
    equal(report(good, good), (0, "6 passed, 0 failed"), "two good ones")
    equal(report(good, skipping), (0, "4 passed, 0 failed, 2 skipped"), "one that skips")
    equal(report(good, bad), (1, "4 passed, 2 failed"), "one that fails")
    equal(report()[0], 1, "status of nothing at all")


if __name__ == "__main__":
    main()
