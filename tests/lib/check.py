# SPDX-License-Identifier: Apache-2.0
"""The smallest frame for test programs in Python: functions marked with @test run in order, a failed assertion ends one of
them, and the last line says "N passed, M failed[, K skipped]". The counterpart of tests/lib/test.h.

    @test
    def wallet_has_no_debt(): equal(balance(1), 0)

    if __name__ == "__main__":
        main()
"""

import os
import signal
import sys
import time
import traceback

QUICK = bool(os.environ.get("TALLY_QUICK"))

_tests = []


class Skip(Exception):
    """Raised by skip(): the machine cannot run this test."""


def test(function):
    _tests.append(function)
    return function


def skip(reason):
    raise Skip(reason)


def equal(got, want, what="value"):
    assert got == want, f"{what} is {got!r}, should be {want!r}"


def eventually(condition, timeout_s=10.0, what="condition"):
    """Wait until condition() is true; what it returned then."""
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not within {timeout_s} s"
        time.sleep(0.02)


def seed(fallback=None):
    """Seed of a random test: TEST_SEED, or `fallback`, or the time; printed, so that a failure can be repeated."""
    text = os.environ.get("TEST_SEED")
    value = int(text, 0) if text else (fallback if fallback is not None else time.time_ns() & 0xffffffff)
    print(f"TEST_SEED={value}", flush=True)
    return value


def main(cleanup=None):
    """Run the tests whose names contain one of the arguments, or all; exits with 1 when one failed."""
    passed = failed = skipped = 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that cleanup runs
    for function in _tests:
        if len(sys.argv) > 1 and not any(word in function.__name__ for word in sys.argv[1:]):
            continue
        begin = time.monotonic()
        try:
            function()
            word, passed = "ok  ", passed + 1
        except Skip as reason:
            word, skipped = f"skip ({reason})", skipped + 1
        except BaseException as error:  # also what a signal handler raised: cleanup must run
            traceback.print_exc(file=sys.stdout)
            word, failed = "FAIL", failed + 1
            if not isinstance(error, Exception):
                break
        finally:
            if cleanup:
                cleanup()
        print(f"{word} {function.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""), flush=True)
    sys.exit(1 if failed else 0)
