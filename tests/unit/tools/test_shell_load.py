#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""More than fits: memory that ids outgrow, logs of several files, thousands of timeouts at once."""

import pathlib
import random
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "lib"))

import check  # noqa: E402
import shell  # noqa: E402

NS_PER_S = 10**9
REQUEST_EVENTS_MAX = 8190
SECONDS = 250
ID_PLACES_MS = 128 * 32768  # engine/id_table.h: ID_SLICES of ID_SLICE_MS
START_S = 1_700_000_000


def two_accounts(engine):
    check.equal([status for status, _ in engine.create_accounts([{"id": i, "ledger": 1, "code": 1} for i in (1, 2)])],
                ["created"] * 2)


def transfers(ids, **fields):
    return [{"id": i, "debit_account_id": 1, "credit_account_id": 2, "amount": 1, "ledger": 1, "code": 1, **fields} for i in ids]


def posted(engine):
    return engine.lookup_accounts([1])[0]["debits_posted"]


@check.test
def when_memory_is_short_ids_are_forgotten_but_never_run_twice():
    """Far more ids in an hour than fit: the horizon comes nearer, and what lies below it is refused, never executed."""
    rng = random.Random(7)
    sent, created, answers = [], 0, {}
    with shell.Shell("--memory", "16M", "--partitions", "7") as engine:
        two_accounts(engine)
        for second in range(SECONDS):
            now = (START_S + second) * NS_PER_S
            ids = [((START_S + second) * 1000 << 80) + rng.getrandbits(70) for _ in range(2000)]
            statuses = [status for status, _ in engine.create_transfers(transfers(ids), now)]
            check.equal(set(statuses), {"created"}, f"statuses in second {second}")
            created += len(ids)
            sent.append(ids[0])
            for (status, _), i in zip(engine.create_transfers(transfers(sent)), sent):
                # Once it was refused as too old, it stays so.
                assert status == "id_expired" or status == "exists" and answers.get(i) != "id_expired", (second, status)
                answers[i] = status
        check.equal(posted(engine), created, "transfers that took effect")
        ages = [SECONDS - index for index, i in enumerate(sent) if answers[i] == "exists"]
        print(f"     {created} ids; remembered at the end: {max(ages)} s")
        assert "id_expired" in answers.values(), "memory was never short"
        assert max(ages) >= 60, f"ids are to be remembered for a minute at least, not {max(ages)} s"
        assert all(answers[i] == "exists" for i in sent[-60:]), "ids of the last minute"
        check.equal(engine.close(), 0, "exit status")


@check.test
def a_jump_of_the_clock_leaves_room_for_new_ids_also_in_replay():
    """Ids of times that share a place in the table of ids, in every partition, with no turn in between to clear it."""
    with tempfile.TemporaryDirectory(prefix="tally-load-") as directory:
        with shell.Shell("--wal", directory) as engine:
            two_accounts(engine)
            for jump in range(3):
                now_ms = START_S * 1000 + jump * ID_PLACES_MS
                statuses = {status for status, _ in engine.create_transfers(
                    transfers([(now_ms << 80) + i for i in range(256)]), now_ms * 10**6)}
                check.equal(statuses, {"created"}, f"statuses after {jump} jumps")
            check.equal(engine.close(), 0, "exit status")
        with shell.Shell("--wal", directory) as engine:
            check.equal(posted(engine), 3 * 256, "transfers that took effect")
            last, expired = engine.lookup_transfers([(START_S * 1000 << 80) + 1, (now_ms << 80) + 1])
            check.equal((len(last), len(expired)), (1, 1), "transfers found and expired")


@check.test
def a_log_of_several_files_is_read_back():
    """Early transfers are looked up, and retried with other fields, from the first file, while the last one grows."""
    count = 23
    with tempfile.TemporaryDirectory(prefix="tally-load-") as directory:
        for options in [["--test"], ["--wal", directory]]:
            with shell.Shell("--id-time", "off", *options) as engine:
                two_accounts(engine)
                for batch in range(count):
                    ids = range(1 + batch * REQUEST_EVENTS_MAX, 1 + (batch + 1) * REQUEST_EVENTS_MAX)
                    check.equal({status for status, _ in engine.create_transfers(transfers(ids, user_data_128=2**100))}, {"created"})
                look_back(engine, count)
                if "--wal" in options:
                    check.equal(engine.close(), 0, "exit status")
        files = sorted(pathlib.Path(directory, "wal").glob("*.log"))
        assert len(files) > 1, f"only {files}"
        with shell.Shell("--wal", directory) as engine:
            look_back(engine, count)


def look_back(engine, count):
    last = count * REQUEST_EVENTS_MAX
    found, _ = engine.lookup_transfers([1, 2, last // 2, last, last + 1])
    check.equal([transfer["id"] for transfer in found], [1, 2, last // 2, last])
    check.equal({transfer["user_data_128"] for transfer in found}, {2**100})
    statuses = [status for status, _ in engine.create_transfers(transfers([1, last], user_data_128=1))]
    check.equal(statuses, ["exists_with_different_user_data_128"] * 2)
    check.equal(posted(engine), last, "transfers that took effect")


@check.test
def thousands_expire_at_once():
    for partitions in ["1", "256"]:
        with shell.Shell("--partitions", partitions) as engine:
            two_accounts(engine)
            for batch in range(3):
                ids = range(1 + batch * REQUEST_EVENTS_MAX, 1 + (batch + 1) * REQUEST_EVENTS_MAX)
                events = transfers(ids, flags=["pending"], timeout=1 + batch)
                check.equal({status for status, _ in engine.create_transfers(events)}, {"created"})
            for left in [2, 1, 0]:
                engine.advance(NS_PER_S + 10 * REQUEST_EVENTS_MAX)
                account, = engine.lookup_accounts([1])
                check.equal(account["debits_pending"], left * REQUEST_EVENTS_MAX, "pending after a second more")
            void = {"id": 10**6, "pending_id": 1, "flags": ["void_pending_transfer"]}
            check.equal(engine.create_transfers([void])[0][0], "pending_transfer_expired")


if __name__ == "__main__":
    check.main()
