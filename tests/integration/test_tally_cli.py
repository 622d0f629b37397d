#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command line against a real tallyd: what it prints, its exit statuses, loads that survive a SIGKILL of the server,
and the log commands on good, torn and damaged logs."""

import json
import os
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import netns  # noqa: E402
import server  # noqa: E402
from check import equal, main, test  # noqa: E402

TALLY = server.program("tally")
ENVIRONMENT = {**os.environ, "TALLY_SERVER": netns.SERVER4}
MAKE = ["--ledger", "1", "--code", "1"]


def tally(*arguments, status=0, **keywords):
    got, output, error = server.call(TALLY, *arguments, env=ENVIRONMENT, **keywords)
    assert got == status, f"tally {arguments}: exit status {got}, should be {status}: {output}{error}"
    return output


def answers(*arguments, status=0):
    return [json.loads(line) for line in tally("--json", *arguments, status=status).splitlines()]


def served(accounts=2):
    """A tallyd with accounts 1, 2 ...; account 2 may not be overdrawn."""
    tallyd = server.Tallyd().format().start()
    for number in range(1, accounts + 1):
        flags = ["--flag", "debits_must_not_exceed_credits"] if number == 2 else []
        equal(answers("account", "create", "--id", number, *MAKE, *flags)[0]["status"], "created")
    return tallyd


def csv(rows, header="id,debit_account_id,credit_account_id,amount,ledger,code"):
    path = os.path.join(server.scratch(), "transfers.csv")
    with open(path, "w") as file:
        file.write(header + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    return path


def id_now(number):
    return (int(time.time() * 1000) << 80) | (number << 16)


@test
def accounts_and_transfers():
    served()
    account = answers("account", "show", 2)[0]
    equal((account["id"], account["ledger"], account["flags"]), ("2", 1, ["debits_must_not_exceed_credits"]))
    equal(answers("account", "create", "--id", 2, *MAKE, status=1)[0]["status"], "exists_with_different_flags")
    equal(answers("account", "create", "--id", 1, *MAKE)[0]["status"], "exists")
    move = ["--debit", 1, "--credit", 2, "--amount", 1000, *MAKE]
    done = answers("transfer", *move)[0]
    equal((done["status"], done["debit_account"]["debits_posted"]), ("created", "1000"))
    equal(answers("transfer", *move, "--id", done["id"])[0]["status"], "exists")
    equal(answers("transfer", "--debit", 2, "--credit", 1, "--amount", 1001, *MAKE, status=1)[0]["status"],
          "exceeds_credits")
    held = answers("hold", "--debit", 2, "--credit", 1, "--amount", 300, "--timeout-s", 100, *MAKE)[0]
    equal(held["debit_account"]["debits_pending"], "300")
    posted = answers("post", held["id"], "--amount", 200)[0]
    equal(posted["status"], "created")
    equal(int(posted["id"]) & 0xffff, int(held["id"]) & 0xffff, "place of the posting")
    equal(answers("void", held["id"], status=1)[0]["status"], "pending_transfer_already_posted")
    shown = answers("transfer", "show", held["id"], 12345, status=1)
    equal((shown[0]["amount"], shown[0]["timeout"], shown[0]["flags"]), ("300", 100, ["pending"]))
    assert shown[1]["status"] in ("absent", "expired"), shown[1]
    equal([(row["debits_posted"], row["credits_posted"]) for row in answers("balance", 1, 2)],
          [("1000", "200"), ("200", "1000")])
    equal(answers("balance", 1, 99, status=1)[1], {"id": "99", "status": "absent"})


@test
def human_output_fits():
    served()
    tally("transfer", "--debit", 1, "--credit", 2, "--amount", 2 ** 128 - 1, *MAKE)
    for arguments, status in [(["account", "show", 1, 2], 0), (["balance", 1, 2], 0), (["balance", 2, 3], 1),
                              (["ping", "-c", 2, "-i", 1], 0)]:
        for line in tally(*arguments, status=status).splitlines():
            assert len(line) <= 80, line
    assert str(2 ** 128 - 1) in tally("balance", 1)


@test
def ping_says_how_many():
    served(0)
    lines = answers("ping", "-c", 3, "-i", 1)
    equal([line["status"] for line in lines[:3]], ["ok"] * 3)
    equal((lines[3]["sent"], lines[3]["answered"]), (3, 3))


@test
def load_counts_lines():
    served(3)
    rows = [(id_now(i), 1, 2, 10, 1, 1) for i in range(1, 3001)]
    rows[100] = (id_now(101), 3, 99, 10, 1, 1)
    path = csv(rows)
    *failures, summary = answers("load", path, status=1)
    equal(failures, [{"line": 102, "id": str(rows[100][0]), "status": "credit_account_not_found"}])
    equal((summary["created"], summary["exists"], summary["failed"]), (2999, 0, 1))
    again = answers("load", "--unordered", path, status=1)
    equal((again[-1]["created"], again[-1]["exists"], again[-1]["failed"]), (0, 2999, 1))
    equal(again[0]["status"], "id_already_failed")
    equal(answers("balance", 2)[0]["credits_posted"], "29990")
    text = "debit_account_id,credit_account_id,amount,ledger,code,flags\n2,1,5,1,1,linked\n2,1,29986,1,1,\n"
    failed = answers_of_input(text)
    equal([row.get("status") for row in failed[:-1]], ["linked_event_failed", "exceeds_credits"])


def answers_of_input(text):
    done = subprocess.run([TALLY, "--json", "load", "-"], input=text, capture_output=True, text=True, timeout=60,
                          env=ENVIRONMENT)
    equal(done.returncode, 1, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


@test
def a_bad_line_sends_nothing():
    served()
    path = csv([(id_now(i), 1, 2, 10, 1, 1) for i in range(1, 101)] + [("x", 1, 2, 10, 1, 1)])
    tally("load", path, status=2)
    equal(answers("balance", 2)[0]["credits_posted"], "0")


@test
def lines_are_executed_in_order():
    """Each transfer moves on what the one before brought; the accounts may not be overdrawn."""
    tallyd = served(0)
    for number in range(1, 12):
        flags = ["--flag", "debits_must_not_exceed_credits"] if number > 1 else []
        tally("account", "create", "--id", number, *MAKE, *flags)
    rows = []
    for turn in range(200):
        rows += [(id_now(len(rows) + i), i, i + 1, 7, 1, 1) for i in range(1, 11)]
    summary = answers("load", csv(rows))[-1]
    equal((summary["created"], summary["failed"]), (2000, 0))
    equal(answers("balance", 11)[0]["credits_posted"], str(200 * 7))
    equal(tallyd.stop(), 0)


def wait_until_money_moved():
    """A load is under way when account 2 has received something."""
    for _ in range(1000):
        if answers("balance", 2)[0]["credits_posted"] != "0":
            return
    raise AssertionError("the load moved nothing in a thousand looks")


@test
def a_load_survives_the_death_of_the_server():
    """tallyd is killed and started again while lines are on their way: every line is there, once."""
    tallyd = served()
    count = 400000
    path = csv([(id_now(i), 1, 2, 1 + i % 7, 1, 1) for i in range(1, count + 1)])
    load = server.spawn([TALLY, "--json", "--timeout", 30000, "load", path, "--unordered"], stdout=-1, stderr=-1,
                        text=True, env=ENVIRONMENT)
    wait_until_money_moved()
    assert load.poll() is None, "the load was over before the first kill"
    for _ in range(3):
        tallyd.kill()
        tallyd.start()
        time.sleep(0.15)
    output, error = load.communicate(timeout=120)
    equal(load.returncode, 0, f"exit status: {output[-500:]}{error[-500:]}")
    summary = json.loads(output.splitlines()[-1])
    equal((summary["created"] + summary["exists"], summary["failed"], summary["unknown"]), (count, 0, 0))
    equal(answers("balance", 2)[0]["credits_posted"], str(sum(1 + i % 7 for i in range(1, count + 1))))
    equal(tallyd.stop(), 0)
    equal(answers("wal", "verify", tallyd.data)[-1]["verdict"][:4], "good")


@test
def a_load_without_a_server_says_what_is_known():
    """What was answered stays answered, and only what was never sent is called not_sent."""
    tallyd = served()
    count = 100000
    path = csv([(1, 2, 1, 1, 1) for _ in range(count)], header="debit_account_id,credit_account_id,amount,ledger,code")
    load = subprocess.Popen([TALLY, "--json", "--timeout", "1000", "load", path], env=ENVIRONMENT, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)
    wait_until_money_moved()
    tallyd.kill()
    output, error = load.communicate(timeout=60)
    equal(load.returncode, 3, f"exit status of the load ({error})")
    assert "nothing was done" not in error, error
    *failures, summary = [json.loads(line) for line in output.splitlines()]
    unknown = sum(line["status"] == "unknown" for line in failures)
    tallyd.start()
    posted = int(answers("balance", 1)[0]["debits_posted"])
    assert 0 < posted < count, f"{posted} of {count}: the server died too early or too late"
    assert summary["created"] <= posted <= summary["created"] + unknown, f"{posted} in the ledger, but {summary}, {unknown} unknown"


@test
def no_answer_is_three():
    tallyd = served()
    tallyd.kill()
    tally("--timeout", 300, "balance", 1, status=3)
    tally("--timeout", 300, "ping", status=3)


@test
def the_log_is_shown_and_verified():
    tallyd = served()
    tally("transfer", "--debit", 1, "--credit", 2, "--amount", 77, *MAKE)
    tally("transfer", "--debit", 2, "--credit", 1, "--amount", 78, *MAKE, status=1)
    equal(tallyd.stop(), 0)
    rows = answers("wal", "dump", tallyd.data)
    kinds = [row["type"] for row in rows]
    equal([kinds.count(kind) for kind in ("account", "transfer", "start")], [2, 1, 1])
    equal([row["amount"] for row in rows if row["type"] == "transfer"], ["77"])
    equal([row["status"] for row in rows if row.get("status")], ["exceeds_credits"])
    files = sorted(os.listdir(os.path.join(tallyd.data, "wal")))
    path = os.path.join(tallyd.data, "wal", files[0])
    equal(answers("wal", "dump", path), rows)
    equal(answers("wal", "dump", os.path.dirname(path)), rows)
    groups = answers("wal", "dump", "--groups", tallyd.data)
    equal({row["type"] for row in groups}, {"group"})
    equal([int(row["seq"]) for row in groups], list(range(1, len(groups) + 1)))
    for line in tally("wal", "dump", tallyd.data).splitlines() + tally("wal", "verify", tallyd.data).splitlines():
        assert len(line) <= 80, line
    summary = answers("wal", "verify", tallyd.data)[-1]
    equal((summary["verdict"], int(summary["groups"])), ("good", len(groups)))

    victim = next(row for row in groups if int(row["records"]) > 0 and int(row["seq"]) > 1)
    with open(path, "r+b") as file:
        file.seek(int(victim["offset"]) + 4096 + 40)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0xff]))
    lines = answers("wal", "verify", tallyd.data, status=4)
    equal(lines[-1]["verdict"], "damaged")
    equal((lines[0]["type"], lines[0]["offset"], lines[0]["seq"]), ("damage", victim["offset"], victim["seq"]))
    tally("wal", "dump", tallyd.data, status=4)


if __name__ == "__main__":
    netns.enter()
    main(server.cleanup)
