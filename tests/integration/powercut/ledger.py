# SPDX-License-Identifier: Apache-2.0
"""What the guest's shell is asked for, and what a directory must hold afterwards: transfers between a few accounts, in
requests of which each is acknowledged as a whole."""

import json

import server
from check import equal
from shell import Shell

ACCOUNTS = 6
SHELL = ("--partitions", "16", "--id-time", "off", "--memory", "128M")


class Requests:
    """Lines for the shell: the first makes the accounts, every other one transfers."""

    def __init__(self, dice, sizes, first_id=1, accounts=True):
        """`sizes`: transfers of each request."""
        self.lines, self.transfers = [], []
        if accounts:
            events = [{"id": number, "ledger": 1, "code": 1} for number in range(1, ACCOUNTS + 1)]
            self.lines.append(json.dumps({"op": "create_accounts", "events": events}))
            self.transfers.append([])
        for size in sizes:
            batch = []
            for _ in range(size):
                debit, credit = dice.sample(range(1, ACCOUNTS + 1), 2)
                batch.append({"id": first_id, "debit_account_id": debit, "credit_account_id": credit,
                              "amount": dice.randint(1, 1000), "ledger": 1, "code": 1})
                first_id += 1
            self.lines.append(json.dumps({"op": "create_transfers", "events": batch}))
            self.transfers.append(batch)
        self.next_id = first_id

    def text(self):
        return "".join(line + "\n" for line in self.lines).encode()


def acknowledged(answer):
    """Whether an answer says that everything asked for took effect."""
    results = json.loads(answer).get("results", [{}])
    return all(result.get("status") in ("created", "exists") for result in results)


def refusal(path):
    """What `tally shell` and `tally wal verify` say of a directory, if they refuse it, in one line each; else None."""
    status, output, error = server.call(server.program("tally"), "wal", "verify", path)
    shell_status, _, shell_error = server.call(server.program("tally"), "shell", "--wal", path, *SHELL)
    assert status in (0, 1, 2, 3, 4) and shell_status in (0, 1, 2), f"{status} {shell_status}: {error} {shell_error}"
    equal(shell_status == 0, status == 0, f"verdict of the shell ({shell_error}), as that of verify ({output}{error})")
    if status == 0:
        return None
    lines = shell_error.strip().splitlines()
    equal(len(lines), 1, f"lines of the refusal: {lines}")
    return lines[0]


def moved(transfers):
    """What they do to the accounts: {account: [debits, credits]}"""
    balances = {number: [0, 0] for number in range(1, ACCOUNTS + 1)}
    for event in transfers:
        balances[event["debit_account_id"]][0] += event["amount"]
        balances[event["credit_account_id"]][1] += event["amount"]
    return balances


def holds(path, before, requests, acknowledged_count, finish=False):
    """The directory recovers, and holds what was acknowledged, each transfer once, and of the rest only what was asked for.
    @param before balances that were durable before the first request, as of moved(); @param finish ask for the rest as well
    @return how many requests are there"""
    wanted = {event["id"]: event for batch in requests.transfers for event in batch}
    with Shell("--wal", path, *SHELL) as shell:
        found = {}
        ids = list(wanted)
        for at in range(0, len(ids), 8000):
            for record in shell.lookup_transfers(ids[at:at + 8000])[0]:
                found[record["id"]] = record
        present = 0
        for number, batch in enumerate(requests.transfers, 1):
            there = [event["id"] in found for event in batch]
            assert number > acknowledged_count or all(there), \
                f"request {number} of {acknowledged_count} acknowledged ones is not there: {there.count(False)} transfers lack"
            present = number if any(there) else present
        for record in found.values():
            event = wanted[record["id"]]
            equal([record[name] for name in event], list(event.values()), "fields of a transfer")
        change = moved(wanted[transfer_id] for transfer_id in found)
        accounts = shell.lookup_accounts(list(change))
        assert accounts or not found, "transfers without accounts"
        assert accounts or acknowledged_count == 0, "the accounts were acknowledged, and are not there"
        for account in accounts:
            want = [old + new for old, new in zip(before[account["id"]], change[account["id"]])]
            equal([account["debits_posted"], account["credits_posted"]], want, "balances")
        if finish:
            for line in requests.lines:
                assert acknowledged(shell.line(line)), f"after recovery: {line[:200]}"
        equal(shell.close(), 0, "exit status of the shell")
    return present
