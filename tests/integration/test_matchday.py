#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A match day and a bank's year through the packet path."""

import csv
import os
import pathlib
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import netns  # noqa: E402
import server  # noqa: E402
from check import QUICK, equal, main, skip, test  # noqa: E402
from matchday import Matchday  # noqa: E402

BANK = pathlib.Path(os.environ.get("TALLY_DATA") or server.ROOT.parent / "shared" / "data") / "bank_1993.csv"


def fits(text):
    for line in text.splitlines():
        assert len(line) <= 80, f"wider than 80 columns: {line}"


@test
def match_day_with_a_kill():
    tallyd = server.Tallyd(memory_mb=512).format(partitions=256).start()
    day = Matchday(tallyd.cable, "--wallets", 2000 if QUICK else 20000, "--rate", 20000)
    server.eventually_said(day, "1:0")
    tallyd.kill()
    tallyd.start()
    text = day.finish()
    print(text)
    fits(text)
    assert "all as it should be" in text
    equal(tallyd.stop(), 0, "exit status")


@test
def match_day_that_finds_a_fault():
    """The same cell, set back to what it was before the first account: the match day must notice, and fail."""
    tallyd = server.Tallyd().format()
    older = tallyd.data + "-older"
    shutil.copytree(tallyd.data, older)
    tallyd.start()
    day = Matchday(tallyd.cable, "--wallets", 2000, "--rate", 4000, "--stall-s", 20)
    server.eventually_said(day, "deposits")
    tallyd.kill()
    tallyd.data = older
    tallyd.start()
    status = day.process.wait(120)
    equal(status, 1, f"status of a match day on a ledger that forgot everything ({day.said()})")
    assert "WRONG" in day.said() and "NOT as it should be" in day.said(), day.said()
    tallyd.stop()


@test
def match_day_on_another_cell():
    """The client does not take another cell for its own."""
    tallyd = server.Tallyd().format().start()
    day = Matchday(tallyd.cable, "--wallets", 2000, "--rate", 4000, "--stall-s", 5)
    server.eventually_said(day, "deposits")
    tallyd.kill()
    tallyd.data += "-other"
    tallyd.format().start()
    equal(day.process.wait(60), 1, f"status of a match day on another cell ({day.said()})")
    assert "cell" in day.said(), day.said()
    tallyd.stop()


@test
def bank_year():
    if not BANK.exists():
        skip(f"no {BANK.name}; TALLY_DATA says where it is")
    with BANK.open(encoding="utf-8") as file:
        rows = sum(1 for _ in csv.DictReader(file))
    tallyd = server.Tallyd().format(partitions=256).start()
    text = Matchday(tallyd.cable, "--bank", str(BANK)).finish()
    print(text)
    fits(text)
    assert f"{rows} running balances equal" in text, text
    equal(tallyd.stop(), 0, "exit status")


@test
def bank_year_with_a_wrong_balance():
    """One balance in the file is off by one: the replay must say so and fail."""
    if not BANK.exists():
        skip(f"no {BANK.name}; TALLY_DATA says where it is")
    lines = BANK.read_text().splitlines()[:500]
    words = lines[400].split(",")
    lines[400] = ",".join(words[:-1] + [str(int(words[-1]) + 1)])
    file = pathlib.Path(server.scratch(), "wrong.csv")
    file.write_text("\n".join(lines) + "\n")
    tallyd = server.Tallyd().format().start()
    status, output, error = server.call(server.program("tally-matchday"), "--server", tallyd.cable.server4, "--bank", file)
    equal(status, 1, f"status ({output}{error})")
    assert "bank row 400" in error, error
    equal(tallyd.stop(), 0, "exit status")


@test
def options_that_are_wrong():
    program = server.program("tally-matchday")
    for arguments in (["--speed", "9"], ["--wallets", "0"], ["--wallets", "x"], ["--rate", "-1"], ["extra"], ["--server"]):
        status, _, error = server.call(program, *arguments)
        equal(status, 2, f"status of {arguments}")
        equal(len(error.strip().splitlines()), 1, f"lines on stderr of {arguments}: {error!r}")


if __name__ == "__main__":
    netns.enter()
    main(server.cleanup)
