#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Random histories through the engine shell, beside the oracle: every status, timestamp, balance and lookup must be equal,
and the books must balance after every step.

    test_property.py [--seeds N] [--steps N]    more of them; TEST_SEED=N is the first seed, and repeats a failure"""

import argparse
import collections
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "lib"))

import check  # noqa: E402
import events  # noqa: E402
import oracle  # noqa: E402
import shell  # noqa: E402

BUDGET_S = 12 if check.QUICK else 30  # of the suite, for all tests here
CLOCKS = [1, 10**9, 1_700_000_000 * 10**9, 5_000_000_000 * 10**9]  # at the last one timeouts overflow
RESTART_GAP_NS = 1000  # so that it does not matter which timestamps unlogged failures took before
statuses = collections.Counter()


def options_of(rng):
    options = ["--partitions", str(rng.choice([1, 7, 256]))]
    id_time = rng.random() < 0.7
    if not id_time:
        options += ["--id-time", "off"]
    return options, id_time


class Pair:
    """A shell and an oracle that are asked the same."""

    def __init__(self, engine, ledger):
        self.engine, self.ledger = engine, ledger
        ledger.given_step = 1 << (shell.LCORES - 1).bit_length()
        self.asked = []  # account and transfer ids that ever were in an event
        self.account_ids, self.transfer_ids = set(), set()

    def step(self, operation, argument):
        if operation == "create_accounts":
            self.account_ids |= {event.get("id", 0) for event in argument}
        if operation == "create_transfers":
            self.transfer_ids |= {event.get("id", 0) for event in argument}
        if operation == "create_transfers" and len(argument) % 2:
            got, balances = self.engine.create_transfers_with_balances(argument)
        else:
            got, balances = getattr(self.engine, operation)(argument), None
        wanted = as_given(self.ledger, operation, argument, got)
        if balances:
            self.check_balances(argument, got, balances)
        if operation == "advance":
            if shell.LCORES > 1:  # they may have passed timestamps that nobody saw
                self.ledger.clock = got
            wanted = self.ledger.clock
        if operation.startswith("create"):
            statuses.update(status for status, _ in got)
        compare(got, wanted, operation, argument)

    def check_balances(self, argument, got, balances):
        for event, (status, _), shown, wanted in zip(argument, got, balances, self.ledger.balances):
            if status in ("created", "exceeds_credits", "exceeds_debits"):
                check.equal(shown, wanted, f"balances after {status} {event}")

    def check_accounts(self):
        ids = sorted(self.account_ids)
        wanted = self.ledger.lookup_accounts(ids)
        got = self.engine.lookup_accounts(ids)
        compare(got, wanted, "lookup_accounts", ids)
        conserved(got)

    def check_transfers(self):
        ids = sorted(self.transfer_ids)
        compare(self.engine.lookup_transfers(ids), self.ledger.lookup_transfers(ids), "lookup_transfers", ids)


def as_given(ledger, operation, argument, got):
    """What the oracle says. Several lcores have clocks of their own: then it takes over when events were decided."""
    if shell.LCORES > 1 and operation.startswith("create"):
        ledger.given = [None if status == "exists" or (status == "created" and "imported" in event["flags"]) else timestamp
                        for event, (status, timestamp) in zip(argument, got)]
    wanted = getattr(ledger, operation)(argument)
    ledger.given = []
    return wanted


def compare(got, wanted, operation, argument):
    if got == wanted:
        return
    text = f"{operation} {argument!r}\n  shell  {got!r}\n  oracle {wanted!r}"
    if operation.startswith("create") and len(got) == len(wanted):
        text = "\n".join(f"{operation} [{i}] {argument[i]!r}: shell {got[i]}, oracle {wanted[i]}"
                         for i in range(len(got)) if got[i] != wanted[i])
    elif operation.startswith("lookup"):
        (got, *got_expired), (wanted, *wanted_expired) = [a if isinstance(a, tuple) else (a,) for a in (got, wanted)]
        by_id = [{record["id"]: record for record in records} for records in (got, wanted)]
        text = f"{operation}: expired: shell {got_expired}, oracle {wanted_expired}; records that differ:\n" + "\n".join(
            f"shell  {by_id[0].get(i)}\noracle {by_id[1].get(i)}" for i in sorted({*by_id[0], *by_id[1]})
            if by_id[0].get(i) != by_id[1].get(i))
    raise AssertionError(text)


def conserved(accounts):
    """Debits and credits are equal in every ledger."""
    sums = collections.Counter()
    for account in accounts:
        for kind in ["pending", "posted"]:
            sums[account["ledger"], kind] += account["debits_" + kind] - account["credits_" + kind]
    assert not any(sums.values()), f"money came from nowhere: {dict(sums)}"


def history(seed, steps):
    """One random history; the lines sent and the answers."""
    rng = random.Random(seed)
    options, id_time = options_of(rng)
    ledger = oracle.Oracle(id_time)
    with shell.Shell("--test", *options) as engine:
        transcript = record(engine)
        pair = Pair(engine, ledger)
        pair.engine.lookup_accounts([], now := rng.choice(CLOCKS))
        ledger.start(now)
        generator = events.Generator(rng, ledger, large_amounts=rng.random() < 0.3)
        for step in range(steps):
            try:
                pair.step(*generator.request())
                pair.check_accounts()
                if step % 16 == 15 or step == steps - 1:
                    pair.check_transfers()
            except (AssertionError, shell.ShellError) as error:
                raise AssertionError(f"TEST_SEED={seed} (shell --test {' '.join(options)}), step {step}: {error}") from None
    return options, transcript


def record(engine):
    """Keep what goes in and comes out."""
    transcript = []
    line = engine.line

    def recorded(text):
        answer = line(text)
        transcript.append((text, answer))
        return answer
    engine.line = recorded
    return transcript


def run_seeds(first, budget_s, steps, count):
    end = time.monotonic() + budget_s
    done = 0
    while done < count and time.monotonic() < end:
        history(first + done, steps)
        done += 1
    print(f"     {done} histories of {steps} steps; {sum(statuses.values())} events, {len(statuses)} statuses")
    assert done, "no time for a single history"


@check.test
def random_histories_are_as_the_oracle_says():
    run_seeds(SEED, BUDGET_S * 0.6 if SEEDS is None else 10**9, STEPS, SEEDS or 10**9)


@check.test
def the_same_input_gives_the_same_output():
    options, transcript = history(SEED, 60)
    lines = "".join(text + "\n" for text, _ in transcript)
    again = subprocess.run([*shell.command(), "--test", *options], input=lines.encode(), capture_output=True, timeout=60,
                           check=True)
    check.equal(again.stdout.decode(), "".join(answer for _, answer in transcript), "the second answer")


# --- kill -9 ---------------------------------------------------------------------------------------------------------

def send_some(rng, generator, pair):
    """Send requests without waiting, kill the shell meanwhile; the requests, and the answers that came."""
    engine, ledger = pair.engine, pair.ledger
    requests = []
    shadow = oracle.Oracle(ledger.id_time)
    shadow.__dict__.update(ledger.__dict__)
    shadow.state, shadow.burnt = ledger.state.copy(), set(ledger.burnt)
    generator.ledger = shadow
    for _ in range(rng.randint(1, 6)):
        operation, argument = generator.request()
        if operation.startswith("lookup"):
            continue
        requests.append((operation, argument))
        if operation == "create_accounts":
            pair.account_ids |= {event.get("id", 0) for event in argument}
        if operation == "create_transfers":
            pair.transfer_ids |= {event.get("id", 0) for event in argument}
        getattr(shadow, operation)(argument)
    for operation, argument in requests:
        engine.send(json.dumps(line_of(operation, argument)))
    answers = []
    if shell.LCORES > 1:  # parts of a request may be durable without the others: events travel, and each counts for itself
        answers = [engine.process.stdout.readline() for _ in requests]
    else:
        time.sleep(rng.random() * 0.002 * len(requests))
    engine.process.kill()
    answers += engine.process.stdout.read().split(b"\n")[:-1]
    engine.kill()
    return requests, [json.loads(answer) for answer in answers]


def line_of(operation, argument):
    if operation == "advance":
        return {"op": "advance", "ns": str(argument)}
    bits = shell.ACCOUNT_BITS if operation == "create_accounts" else shell.TRANSFER_BITS
    return {"op": operation, "events": [shell.encode(event, bits) for event in argument]}


def timeless(record):
    return {name: value for name, value in record.items() if name != "timestamp" or "imported" in record["flags"]}


def state_of(engine, pair):
    """All that can be seen, burnt ids too: an event that is wrong in any case tells whether its id is burnt."""
    accounts = engine.lookup_accounts(sorted(pair.account_ids))
    transfers = engine.lookup_transfers(sorted(pair.transfer_ids))
    if shell.LCORES > 1:  # nobody heard when the last ones were decided
        accounts, (transfers, expired) = [timeless(a) for a in accounts], transfers
        transfers = [timeless(t) for t in transfers], expired
    wrong = {"post_pending_transfer", "void_pending_transfer"}
    probes = engine.create_transfers([{"id": i, "flags": wrong} for i in sorted(pair.transfer_ids)])
    return accounts, transfers, [status for status, _ in probes]


def kill_and_recover(seed, directory):
    rng = random.Random(seed)
    options, id_time = options_of(rng)
    pair = Pair(shell.Shell("--wal", directory, *options), oracle.Oracle(id_time))
    try:
        generator = events.Generator(rng, pair.ledger)
        for _ in range(4):
            generator.ledger = pair.ledger
            pair.step("advance", 0)  # it is up
            for _ in range(rng.randint(0, 10)):
                pair.step(*generator.request())
            requests, answers = send_some(rng, generator, pair)
            pair.engine = shell.Shell("--wal", directory, *(options if rng.random() < 0.5 else []))
            pair.ledger = recovered(pair, requests, answers)
        conserved(pair.engine.lookup_accounts(sorted(pair.account_ids)))
        check.equal(pair.engine.close(), 0, "exit status")
    finally:
        pair.engine.kill()


def recovered(pair, requests, answers):
    """The oracle of the acknowledged prefix, or of a longer one, that the recovered shell agrees with."""
    engine, ledger = pair.engine, pair.ledger
    for (operation, argument), answer in zip(requests, answers):
        got = shell.results(answer) if operation != "advance" else None
        wanted = as_given(ledger, operation, argument, got)
        if operation != "advance":
            compare(got, wanted, operation, argument)
    cell_time = engine.advance(0)
    assert cell_time <= ledger.cell_time() or len(answers) < len(requests) or shell.LCORES > 1, "time that never was"
    engine.lookup_accounts([], cell_time + RESTART_GAP_NS)
    seen = state_of(engine, pair)
    for extra in range(len(requests) - len(answers) + 1):
        if extra:
            operation, argument = requests[len(answers) + extra - 1]
            getattr(ledger, operation)(argument)
        candidate = restarted(ledger, cell_time)
        if state_of(candidate, pair) == seen:
            return candidate
    raise AssertionError(f"after {len(answers)} answers to {len(requests)} requests the shell came back in a state that no "
                         f"prefix of them gives")


def restarted(ledger, cell_time):
    """The oracle after a restart at this cell time, which already counts the timestamps of what expired then."""
    twin = oracle.Oracle(ledger.id_time)
    twin.state, twin.burnt, twin.horizon_ms = ledger.state.copy(), set(ledger.burnt), ledger.horizon_ms
    for pending_id, pending in twin.state.pendings.items():
        if pending["state"] == "live" and 0 < pending["expires_at"] <= cell_time:
            twin.resolve(pending_id, "expired", None)
    twin.start(cell_time + RESTART_GAP_NS)
    return twin


@check.test
def what_was_acknowledged_survives_kill_9():
    end = time.monotonic() + (BUDGET_S * 0.3 if SEEDS is None else 10**9)
    done = 0
    while done < (SEEDS or 10**9) and time.monotonic() < end:
        with tempfile.TemporaryDirectory(prefix="tally-property-") as directory:
            try:
                kill_and_recover(SEED + done, directory)
            except (AssertionError, shell.ShellError) as error:
                raise AssertionError(f"TEST_SEED={SEED + done}: {error}") from None
        done += 1
    print(f"     {done} histories, killed 4 times each")
    assert done, "no time for a single history"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, help="how many histories, instead of as many as fit the time")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("only", nargs="*")
    arguments = parser.parse_args()
    SEEDS, STEPS = arguments.seeds, arguments.steps
    SEED = check.seed(1)
    sys.argv[1:] = arguments.only
    check.main()
