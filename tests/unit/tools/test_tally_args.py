#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tally's command line without a server: what is wrong is said in one line, with what would be right; exit status 2."""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "lib"))
import server  # noqa: E402
from check import equal, main, test  # noqa: E402

TALLY = server.program("tally")
COMMANDS = ["account create", "account show", "balance", "transfer", "transfer show", "hold", "post", "void", "load",
            "ping", "wal dump", "wal verify", "checkpoint", "checkpoint list", "checkpoint verify", "backup", "replay"]
TRANSFER = ["--debit", "1", "--credit", "2", "--amount", "5", "--ledger", "1", "--code", "1"]
HUGE = str(2 ** 128)


def tally(*arguments, **keywords):
    return server.call(TALLY, *arguments, **keywords)


def complains(arguments, *words, status=2):
    got, output, error = tally(*arguments)
    equal(got, status, f"exit status of {arguments} ({error})")
    equal(output, "", f"stdout of {arguments}")
    lines = error.splitlines()
    assert len(lines) == 1 and lines[0].startswith("tally: "), f"{arguments}: not one line of tally's own: {error!r}"
    for word in words:
        assert word in lines[0], f"{arguments}: does not say {word!r}: {lines[0]}"


@test
def commands():
    complains([], "tally help")
    complains(["accont"], "account")
    complains(["blance", "1"], "'balance'")
    complains(["account"], "create", "show")
    complains(["account", "creat"], "'account create'")
    complains(["wal", "verfy", "x"], "'wal verify'")
    complains(["frobnicate"], "frobnicate", "tally help")
    complains(["help", "frobnicate"], "frobnicate")


@test
def options():
    complains(["--tmieout", "5", "ping"], "--tmieout", "--timeout")
    complains(["transfer", "--leger", "1"], "--leger", "--ledger")
    complains(["transfer", "--zzzzzz"], "--zzzzzz", "tally help transfer")
    complains(["ping", "-x"], "'-x'")
    complains(["ping", "--count"], "--count", "needs a value")
    complains(["--json=yes", "ping"], "--json", "no value")
    complains(["transfer", *TRANSFER[2:]], "--debit ID")
    complains(["account", "create", "--ledger", "1"], "--code N")
    complains(["post"], "PENDING_ID")
    complains(["post", "1", "2"], "'2'")
    complains(["ping", "now"], "'now'")


@test
def values():
    for text in ["x", "", "-1", "1.5", "0", HUGE, "0xg", "0x", "1 "]:
        complains(["account", "show", text], "account id", "1 to 2^128-2")
        complains(["transfer", "--debit", text, *TRANSFER[2:]], "--debit", "1 to 2^128-2")
    for text in ["x", "", "-1", HUGE]:
        complains(["transfer", *TRANSFER[:4], "--amount", text, *TRANSFER[6:]], "--amount", "0 to 2^128-1")
    for option, text in [("--ledger", "0"), ("--ledger", str(2 ** 32)), ("--code", "0"), ("--code", "65536"),
                         ("--user-data-32", str(2 ** 32)), ("--user-data-64", str(2 ** 64))]:
        complains(["transfer", *TRANSFER, option, text], option, text)
    complains(["--timeout", "0", "ping"], "--timeout", "1 to 3600000")
    complains(["ping", "-c", "0"], "--count")
    complains(["hold", *TRANSFER, "--flag", "pendin"], "pending")
    complains(["hold", *TRANSFER, "--flag", "whatever"], "whatever", "balancing_debit")
    complains(["account", "create", "--ledger", "1", "--code", "1", "--flag", "closing_debit"], "closing_debit", "closed")
    complains(["--server", "1.2.3.4:x", "ping"], "1.2.3.4:x", "ADDR:PORT")
    complains(["--server", "127.0.0.1:0", "ping"], "127.0.0.1:0")


@test
def files():
    complains(["load", "/nonexistent/file.csv"], "/nonexistent/file.csv", "No such file")
    complains(["wal", "verify", "/nonexistent"], "/nonexistent", "there is no such directory")
    complains(["wal", "verify", "--data", "/nonexistent"], "/nonexistent", "there is no such directory")
    complains(["wal", "verify", "/nonexistent", "--data", "/nonexistent"], "not both")
    complains(["wal", "verify", os.path.abspath(__file__)], "data directory")
    complains(["wal", "verify", server.scratch()], "tally: ")
    path = os.path.join(server.scratch(), "bad.csv")
    with open(path, "w") as file:
        file.write("debit_account_id,credit_account_id,amount,ledger,code\n1,2,3,1,1\n1,2,3x,1,1\n")
    complains(["load", path], path, "line 3", "amount", "'3x'")


@test
def help_is_complete_and_fits():
    for arguments in [["help"], ["--help"], ["-h"]] + [["help", *command.split()] for command in COMMANDS] + \
                     [[*command.split(), "--help"] for command in COMMANDS]:
        status, output, error = tally(*arguments)
        equal((status, error), (0, ""), f"help by {arguments}")
        for line in output.splitlines():
            assert len(line) <= 80 and line == line.rstrip(), f"{arguments}: {line!r}"
    overview = tally("help")[1]
    for command in COMMANDS + ["shell", "exit status", "TALLY_SERVER"]:
        assert command in overview, command
    for number in range(5):
        assert f"\n  {number}  " in overview


@test
def version():
    status, output, _ = tally("version")
    equal(status, 0)
    assert output.startswith("tally ") and output.count(".") == 2, output


@test
def nobody_there():
    complains(["-s", "127.0.0.1:1", "-t", "200", "ping"], "127.0.0.1:1", "200 ms", status=3)
    complains(["balance", "1", "--server", "127.0.0.1:1", "--timeout=200"], "127.0.0.1:1", status=3)
    got, _, error = tally("-t", "200", "balance", "1", env={"TALLY_SERVER": "127.0.0.1:2"})
    assert got == 3 and "127.0.0.1:2" in error, error


if __name__ == "__main__":
    main(server.cleanup)
