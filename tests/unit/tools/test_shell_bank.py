#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A year of a real bank (data/bank_1993.csv of TALLY_DATA, or ../shared/data beside the tree) through the engine shell: every
running balance that the bank printed must come out.

Each row is a transfer between the customer and a house account for its kind; what the bank rounded is a second leg, linked to
the first. The clock follows the dates, and ids carry them, so that old ids are forgotten on the way."""

import collections
import csv
import datetime
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "lib"))

import check  # noqa: E402
import shell  # noqa: E402

DATA = pathlib.Path(os.environ.get("TALLY_DATA") or shell.ROOT.parent / "shared" / "data")
FILE = "bank_1993.csv"
KINDS = ["cash_in", "cash_out", "transfer_in", "transfer_out", "card_out", "fee", "interest", "penalty_interest", "rounding"]
CUSTOMERS = 1_000_000  # ids of customers start here; house accounts have 1, 2, 3 ...
LEDGER, CODE_HOUSE, CODE_CUSTOMER = 203, 1, 2
BATCH_ROWS_MAX = 4000


def rows():
    path = DATA / FILE
    if not path.exists():
        check.skip(f"there is no {FILE} in TALLY_DATA")
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield (int(row["seq"]), row["date"], int(row["account"]), row["kind"], int(row["amount"]), int(row["rounding"]),
                   int(row["balance"]))


def batches():
    """Rows of one day, in which no customer comes twice: then the balance after the batch is that after the row."""
    batch, customers = [], set()
    for row in rows():
        if batch and (row[1] != batch[0][1] or row[2] in customers or len(batch) == BATCH_ROWS_MAX):
            yield batch
            batch, customers = [], set()
        batch.append(row)
        customers.add(row[2])
    if batch:
        yield batch


def leg(transfer_id, customer, kind, amount, linked):
    """Positive amounts go to the customer."""
    house = KINDS.index(kind) + 1
    debit, credit = (house, CUSTOMERS + customer) if amount > 0 else (CUSTOMERS + customer, house)
    return {"id": transfer_id, "debit_account_id": debit, "credit_account_id": credit, "amount": abs(amount), "ledger": LEDGER,
            "code": KINDS.index(kind) + 1, "flags": ["linked"] if linked else []}


def legs(row):
    seq, date, customer, kind, amount, rounding, _ = row
    first_id = (midnight_ms(date) << 80) + (seq << 20)
    result = []
    if amount or not rounding:
        result.append(leg(first_id, customer, kind, amount, rounding != 0))
    if rounding:
        result.append(leg(first_id + 1, customer, "rounding", rounding, False))
    return result


def midnight_ms(date):
    return int(datetime.datetime.fromisoformat(date + "T00:00:00+00:00").timestamp()) * 1000


def balance(account):
    return account["credits_posted"] - account["debits_posted"]


@check.test
def every_running_balance_is_the_banks():
    known, count, totals = set(), 0, collections.Counter()
    with shell.Shell() as engine:
        engine.create_accounts([{"id": i + 1, "ledger": LEDGER, "code": CODE_HOUSE} for i in range(len(KINDS))])
        for batch in batches():
            now = midnight_ms(batch[0][1]) * 10**6
            new = [row[2] for row in batch if row[2] not in known]
            known.update(new)
            made = engine.create_accounts([{"id": CUSTOMERS + customer, "ledger": LEDGER, "code": CODE_CUSTOMER}
                                           for customer in new], now)
            made += engine.create_transfers([event for row in batch for event in legs(row)], now)
            check.equal({status for status, _ in made} - {"created"}, set(), "statuses")
            found = engine.lookup_accounts([CUSTOMERS + row[2] for row in batch])
            for row, account in zip(batch, found):
                check.equal((account["id"], balance(account)), (CUSTOMERS + row[2], row[6]), f"balance after row {row[0]}")
                totals[row[3]] += row[4]
                totals["rounding"] += row[5]
            count += len(batch)
        houses = engine.lookup_accounts(range(1, len(KINDS) + 1))
        check.equal([-balance(house) for house in houses], [totals[kind] for kind in KINDS], "what the house accounts gave")
        customers = engine.lookup_accounts([CUSTOMERS + customer for customer in sorted(known)])
        check.equal(sum(map(balance, houses)) + sum(map(balance, customers)), 0, "sum over all accounts")
        check.equal(engine.close(), 0, "exit status")
    print(f"     {count} rows of {len(known)} customers")


if __name__ == "__main__":
    check.main()
