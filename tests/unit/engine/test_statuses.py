#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the tables test_statuses_*.txt through the engine shell, and the same lines through the oracle.

A table is read line by line; `#` starts a comment. Numbers are decimal, with `max` (2^128-1), `2^N`, and `a-b`, `a+b`;
times may end in s, ms or h; MS:N is the transfer id N of the id time MS.

    shell [OPTION ...]         starts a new, empty shell with --test and these options
    case NAME                  what follows is one test
    account ID [CHANGE ...] = STATUS            creates one account, of ledger 1 and code 1
    transfer ID DEBIT CREDIT AMOUNT [CHANGE ...] = STATUS    of ledger 1 and code 1
    pending ...                                 the same with the flag `pending`
    post ID PENDING AMOUNT [CHANGE ...] = STATUS    names no accounts, ledger or code
    void ID PENDING AMOUNT [CHANGE ...] = STATUS
    again [CHANGE ...] = STATUS                 the event before, changed
    request ... end                             events between them go in one request
    put ID DEBITS_PENDING DEBITS_POSTED CREDITS_PENDING CREDITS_POSTED    sets balances
    balances ID DEBITS_PENDING DEBITS_POSTED CREDITS_PENDING CREDITS_POSTED    looks them up and compares
    found ID FIELD=VALUE ...   looks a transfer up; `flags` as a list with +
    flags ID FLAG+FLAG         looks an account up and compares its flags (0: none)
    lost ID expired|absent     looks a transfer up that must not be found
    advance TIME    now TIME
    fill accounts|transfers ID creates as many as there is memory for, ids from ID upwards; transfers from account 1 to 2
    unreachable A B REASON     no event can violate both; B stands for the statuses `B C D` between commas

A CHANGE is field=value, +flag or -flag. A status may have `@time` behind it: the timestamp of the result.
`= A over B` says that the event violates B too and A must win; the next request must then be answered B, which proves it.
In the end, every status must have been answered, and for every status and the next one in the order of
engine/base/status.h the table must hold an `over`, or say why there can be none (then the one after that counts)."""

import os
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "lib"))

import check  # noqa: E402
import oracle  # noqa: E402
import shell  # noqa: E402

UNITS = {"s": 10**9, "ms": 10**6, "h": 3600 * 10**9}
FILL_BATCH = 1000
FILL_MAX = 400_000
STATUS_H = HERE.parent.parent.parent / "engine" / "base" / "status.h"
NOT_BUILT = {"not_authorized"}  # needs rights


def number(text):
    if ":" in text:
        id_time, low = text.split(":")
        return (int(id_time) << 80) + int(low)
    total, sign = 0, 1
    for part in re.split(r"([+-])", text):
        if part in "+-":
            sign = 1 if part == "+" else -1
            continue
        match = re.fullmatch(r"(max|2\^(\d+)|[\d_]+)(s|ms|h)?", part)
        assert match, f"not a number: {text}"
        value = 2**128 - 1 if match[1] == "max" else 2**int(match[2]) if match[2] else int(match[1])
        total += sign * value * UNITS.get(match[3], 1)
    return total


def statuses(table):
    """Names in the order of precedence, without `created`."""
    text = STATUS_H.read_text()
    body = text[text.index(f"#define {table}_STATUS_TABLE(X)"):].split("\n\n")[0]
    return [name for name in re.findall(r"X\((\w+),", body) if name != "created" and name not in NOT_BUILT]


class Table:
    """One table file: which statuses it met, and which precedence it proved."""

    def __init__(self, path, kind):
        self.path, self.kind = path, kind
        self.seen, self.proven, self.unreachable = set(), set(), {}
        self.shell = self.oracle = None
        self.claims = []     # (winner, loser) of the request before
        self.request = None  # events of an open request
        self.last = None     # (kind, event) of the last event
        self.case = "start"
        self.failures = {}

    def run(self):
        for line_number, line in enumerate(self.path.read_text().splitlines(), 1):
            words = line.split("#")[0].split()
            if not words:
                continue
            if words[0] == "case":
                self.case = " ".join(words[1:])
                self.failures[self.case] = []
                continue
            try:
                self.step(words)
            except AssertionError as error:
                self.failures.setdefault(self.case, []).append(f"{self.path.name}:{line_number}: {line.strip()}: {error}")
        if self.shell:
            self.shell.kill()

    def step(self, words):
        verb, arguments = words[0], words[1:]
        if verb == "shell":
            self.restart(arguments)
        elif verb == "unreachable":
            assert len(arguments) > 2, "needs a reason"
            for later in arguments[1].split(","):
                self.unreachable[arguments[0], later] = " ".join(arguments[2:])
        elif verb == "request":
            self.request = []
        elif verb == "end":
            events, self.request = self.request, None
            self.send(events)
        elif "=" in words:
            entry = self.event(verb, arguments)
            if self.request is None:
                self.send([entry])
            else:
                self.request.append(entry)
        else:
            getattr(self, "do_" + verb)(*arguments)

    def restart(self, options):
        if self.shell:
            self.shell.kill()
        self.shell = shell.Shell("--test", *options)
        # The oracle has all the memory in the world.
        self.oracle = None if "--memory" in options else oracle.Oracle("off" not in options)

    # --- events -------------------------------------------------------------------------------------

    def event(self, verb, words):
        at = words.index("=")
        words, expected = words[:at], words[at + 1:]
        if verb == "again":
            kind, event = self.last
            event = dict(event)
        elif verb == "account":
            kind, event = "account", {"id": number(words.pop(0)), "ledger": 1, "code": 1, "flags": frozenset()}
        elif verb in ("transfer", "pending"):
            names = ["id", "debit_account_id", "credit_account_id", "amount"]
            kind, event = "transfer", {name: number(words.pop(0)) for name in names}
            event.update(ledger=1, code=1, flags=frozenset(["pending"] if verb == "pending" else []))
        else:
            assert verb in ("post", "void"), f"unknown verb {verb}"
            kind, event = "transfer", {name: number(words.pop(0)) for name in ["id", "pending_id", "amount"]}
            event["flags"] = frozenset([verb + "_pending_transfer"])
        for word in words:
            if word[0] in "+-":
                change = event["flags"].union if word[0] == "+" else event["flags"].difference
                event["flags"] = change([word[1:]])
            else:
                name, value = word.split("=")
                event[name] = number(value)
        self.last = kind, event
        return kind, event, expected

    def send(self, entries):
        kind = entries[0][0]
        events = [event for _, event, _ in entries]
        operation = "create_accounts" if kind == "account" else "create_transfers"
        got = getattr(self.shell, operation)(events)
        if self.oracle:
            check.equal(got, getattr(self.oracle, operation)(events), "the shell's answer, beside the oracle's,")
        claims, self.claims = self.claims, [(expected[0], expected[2]) for _, _, expected in entries
                                            if len(expected) == 3]
        if kind == self.kind:
            self.seen |= {status for status, _ in got}
            self.proven |= set(claims)
        for (status, timestamp), (_, _, expected) in zip(got, entries):
            name, _, at = expected[0].partition("@")
            check.equal(status, name, "status")
            if at:
                check.equal(timestamp, number(at), "timestamp")
        for winner, loser in claims:
            assert loser in {status for status, _ in got}, f"the request before claims to violate {loser} too"

    # --- looking ------------------------------------------------------------------------------------

    def both(self, method, *arguments):
        got = getattr(self.shell, method)(*arguments)
        if self.oracle:
            check.equal(got, getattr(self.oracle, method)(*arguments), "the shell's answer, beside the oracle's,")
        return got

    def do_balances(self, account_id, *wanted):
        account, = self.both("lookup_accounts", [number(account_id)])
        check.equal([account[name] for name in oracle.BALANCES], [number(text) for text in wanted], "balances")

    def do_flags(self, account_id, wanted):
        account, = self.both("lookup_accounts", [number(account_id)])
        check.equal(account["flags"], frozenset(wanted.split("+")) - {"0"}, "flags")

    def do_found(self, transfer_id, *wanted):
        found, expired = self.both("lookup_transfers", [number(transfer_id)])
        check.equal((len(found), expired), (1, []), "transfers found")
        for word in wanted:
            name, value = word.split("=")
            value = frozenset(value.split("+")) if name == "flags" else number(value)
            check.equal(found[0][name], value, name)

    def do_lost(self, transfer_id, how):
        wanted = [number(transfer_id)] if how == "expired" else []
        check.equal(self.both("lookup_transfers", [number(transfer_id)]), ([], wanted), "transfers found")

    # --- time and state -----------------------------------------------------------------------------

    def do_advance(self, time):
        self.shell.advance(number(time))
        if self.oracle:
            self.oracle.advance(number(time))

    def do_now(self, time):
        self.both("lookup_accounts", [], number(time))

    def do_put(self, account_id, *values):
        balances = dict(zip(oracle.BALANCES, (number(value) for value in values)))
        self.shell.put_balances(number(account_id), balances)
        if self.oracle:
            self.oracle.put_balances(number(account_id), balances)

    def do_fill(self, what, first):
        for start in range(number(first), number(first) + FILL_MAX, FILL_BATCH):
            ids = range(start, start + FILL_BATCH)
            if what == "accounts":
                answer = self.shell.create_accounts([{"id": i, "ledger": 1, "code": 1} for i in ids])
            else:
                answer = self.shell.create_transfers([{"id": i, "debit_account_id": 1, "credit_account_id": 2,
                                                       "amount": 1, "ledger": 1, "code": 1} for i in ids])
            met = {status for status, _ in answer}
            assert met <= {"created", "memory_full"}, met
            if "memory_full" in met:
                return
        raise AssertionError(f"{FILL_MAX} fit")

    # --- coverage -----------------------------------------------------------------------------------

    def uncovered(self, order):
        """Statuses never met, and neighbours in precedence that nothing was said about."""
        gaps = [f"{name} was never answered" for name in order if name not in self.seen]
        for index, winner in enumerate(order):
            for loser in order[index + 1:]:
                if (winner, loser) in self.proven:
                    break
                if (winner, loser) not in self.unreachable:
                    gaps.append(f"nothing shows that {winner} comes before {loser}")
                    break
        gaps += [f"{winner} over {loser} is proven and said to be unreachable"
                 for winner, loser in self.unreachable if (winner, loser) in self.proven]
        gaps += [f"{winner} over {loser} is the wrong way round"
                 for winner, loser in self.proven if order.index(winner) >= order.index(loser)]
        return gaps


def main():
    passed = failed = 0
    for kind in ["account", "transfer"]:
        table = Table(HERE / f"test_statuses_{kind}s.txt", kind)
        table.run()
        order = statuses(kind.upper())
        table.failures[f"every {kind} status, and each before the next"] = table.uncovered(order)
        for case, failures in table.failures.items():
            print("FAIL" if failures else "ok  ", f"{kind}s: {case}")
            for failure in failures:
                print("    ", failure)
            passed, failed = passed + (not failures), failed + bool(failures)
        print(f"     {kind}s: {len(table.seen & set(order))} of {len(order)} statuses, {len(table.proven)} precedences")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
