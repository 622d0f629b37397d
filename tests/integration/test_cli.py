#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command line against a running tallyd, as scripts use it: answers in words and in JSON, and exit statuses."""

import json
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import netns  # noqa: E402
import server  # noqa: E402
from check import equal, main, test  # noqa: E402

DONE, REFUSED, USAGE, NO_ANSWER, DAMAGED = range(5)


def tally(*arguments, status=DONE, address=netns.SERVER4):
    """Run it, compare the exit status; its output."""
    got, output, error = server.call(server.program("tally"), "--server", address, *arguments)
    equal(got, status, f"exit status of tally {' '.join(str(word) for word in arguments)} ({output}{error})")
    if status in (USAGE, NO_ANSWER):
        equal(len(error.strip().splitlines()), 1, f"lines on stderr: {error!r}")
    return output


def objects(*arguments, **keywords):
    """The same with --json: a list of objects."""
    return [json.loads(line) for line in tally("--json", *arguments, **keywords).splitlines()]


def found(value, name):
    """Every value of a field, however deep it stands in what --json printed."""
    if isinstance(value, dict):
        return ([value[name]] if name in value else []) + [hit for inner in value.values() for hit in found(inner, name)]
    return [hit for inner in value for hit in found(inner, name)] if isinstance(value, list) else []


def one(value, name):
    hits = found(value, name)
    assert hits, f"no field {name} in {value}"
    return hits[0]


def serve():
    tallyd = server.Tallyd().format().start()
    for number, flags in ((1, []), (2, ["--flag", "debits_must_not_exceed_credits"]), (3, [])):
        tally("account", "create", "--ledger", 1, "--code", 10, "--id", number, *flags)
    return tallyd


MONEY = ("--ledger", 1, "--code", 20)


@test
def a_day_of_an_account():
    tallyd = serve()
    tally("transfer", "--debit", 1, "--credit", 2, "--amount", 1000, *MONEY)
    held = one(objects("hold", "--debit", 2, "--credit", 3, "--amount", 300, *MONEY), "id")
    equal(int(one(objects("balance", 2), "debits_pending")), 300, "pending debits")
    tally("post", held, "--amount", 200)
    voided = one(objects("hold", "--debit", 2, "--credit", 3, "--amount", 500, *MONEY), "id")
    tally("void", voided)
    balance = objects("balance", 2)
    equal([int(one(balance, name)) for name in ("debits_pending", "debits_posted", "credits_pending", "credits_posted")],
          [0, 200, 0, 1000], "balances")
    shown = objects("transfer", "show", held)
    equal((int(one(shown, "amount")), "pending" in str(one(shown, "flags"))), (300, True), "the held transfer")
    assert "1000" in tally("account", "show", 2), "account show in words does not show the credits"
    equal(tallyd.stop(), 0, "exit status of tallyd")


@test
def what_the_ledger_refuses():
    tallyd = serve()
    refused = objects("transfer", "--debit", 2, "--credit", 3, "--amount", 1, *MONEY, status=REFUSED)
    equal(one(refused, "status"), "exceeds_credits", "status")
    tally("transfer", "--debit", 1, "--credit", 99, "--amount", 1, *MONEY, status=REFUSED)
    tally("account", "show", 99, status=REFUSED)
    tally("account", "create", "--ledger", 2, "--code", 10, "--id", 1, status=REFUSED)
    tally("account", "create", "--ledger", 1, "--code", 10, "--id", 1)  # exists, and is the same
    tally("post", 12345, status=REFUSED)
    tallyd.stop()


@test
def wrong_flags_and_input():
    tally(status=USAGE)
    tally("frobnicate", status=USAGE)
    tally("account", status=USAGE)
    tally("account", "create", "--ledger", "x", "--code", 10, status=USAGE)
    tally("transfer", "--debit", 1, status=USAGE)
    tally("balance", "one", status=USAGE)
    tally("load", "/nowhere/at-all.csv", status=USAGE)
    tally("ping", "--speed", status=USAGE)


@test
def nobody_answers():
    tally("--timeout", 300, "balance", 1, status=NO_ANSWER, address="127.0.0.1:9")
    tally("--timeout", 300, "ping", "--count", 1, status=NO_ANSWER, address="127.0.0.1:9")


@test
def ping_over_both_protocols():
    tallyd = serve()
    tally("ping", "--count", 2, "--interval", 10)
    if netns.has_ipv6():
        tally("ping", "--count", 2, "--interval", 10, address=f"[{netns.SERVER6}]:{server.UDP_PORT}")
        tally("balance", 1, address=f"[{netns.SERVER6}]:{server.UDP_PORT}")
    tallyd.stop()


@test
def load_a_file():
    tallyd = serve()
    file = pathlib.Path(server.scratch(), "transfers.csv")
    rows = ["debit_account_id,credit_account_id,amount,ledger,code,flags"]
    rows += [f"1,3,{amount},1,20," for amount in range(1, 1001)]
    rows += ["1,3,7,1,20,linked", "1,3,8,1,20,"]
    file.write_text("\n".join(rows) + "\n")
    tally("load", file)
    equal(int(one(objects("balance", 3), "credits_posted")), 500500 + 15, "credits after loading")
    tally("load", file, "--unordered")
    equal(int(one(objects("balance", 3), "credits_posted")), 2 * (500500 + 15), "credits after loading twice")
    file.write_text("\n".join([*rows, "2,3,5,1,20,"]) + "\n")
    tally("load", file, status=REFUSED)
    file.write_text("debit,credit\n1,2\n")
    tally("load", file, status=USAGE)
    tallyd.stop()


@test
def the_log_from_outside():
    tallyd = serve()
    tally("transfer", "--debit", 1, "--credit", 3, "--amount", 1234567, *MONEY)
    equal(tallyd.stop(), 0, "exit status of tallyd")
    tally("wal", "verify", tallyd.data)
    assert "1234567" in tally("wal", "dump", tallyd.data), "the dump does not show the transfer"
    log = sorted(pathlib.Path(tallyd.data, "wal").glob("*.log"))[0]
    data = bytearray(log.read_bytes())
    data[data.index((1234567).to_bytes(8, "little"))] ^= 1
    log.write_bytes(data)
    tally("wal", "verify", tallyd.data, status=DAMAGED)
    tally("wal", "verify", os.path.join(tallyd.data, "nowhere"), status=USAGE)


if __name__ == "__main__":
    netns.enter()
    main(server.cleanup)
