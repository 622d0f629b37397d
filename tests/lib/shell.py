# SPDX-License-Identifier: Apache-2.0
"""Talks to `tally shell`: one JSON request a line, one JSON answer a line. The program is TALLY_SHELL (a command line), or
`tally shell` of the build in TALLY_BUILD (build/release if unset).

Records are dictionaries with integers, flags a set of names; "bit9" is a flag without a name. The methods are those of
tests/lib/oracle.py, so that a test can ask either."""

import json
import os
import pathlib
import shlex
import subprocess

ROOT = pathlib.Path(os.environ.get("TALLY_ROOT") or pathlib.Path(__file__).resolve().parent.parent.parent)
BUILD = pathlib.Path(os.environ.get("TALLY_BUILD") or ROOT / "build" / "release")

ACCOUNT_BITS = ["linked", "debits_must_not_exceed_credits", "credits_must_not_exceed_debits", "history", "imported",
                "closed", "striped"]
TRANSFER_BITS = ["linked", "pending", "post_pending_transfer", "void_pending_transfer", "balancing_debit",
                 "balancing_credit", "closing_debit", "closing_credit", "imported"]
BALANCES = ["debits_pending", "debits_posted", "credits_pending", "credits_posted"]


LCORES = int(os.environ.get("TALLY_LCORES", "1"))  # engine lcores; each of several gives timestamps of its own


def command():
    text = os.environ.get("TALLY_SHELL")
    return (shlex.split(text) if text else [str(BUILD / "tools" / "tally"), "shell"]) + (
        ["--lcores", str(LCORES)] if LCORES > 1 else [])


class ShellError(Exception):
    """The shell answered {"error": ...}."""


class Shell:
    def __init__(self, *arguments):
        self.process = subprocess.Popen([*command(), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.kill()

    def close(self):
        """End of input; the shell's exit status."""
        self.process.stdin.close()
        return self.process.wait(timeout=60)

    def kill(self):
        """SIGKILL, as after a power cut (but the disk's cache stays)."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=60)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            try:
                pipe.close()
            except OSError:  # what stdin still held
                pass

    def line(self, text):
        """Send a line as it is, return the answer as it is."""
        self.send(text)
        return self.receive()

    def send(self, text):
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def receive(self):
        answer = self.process.stdout.readline()
        if not answer.endswith(b"\n"):
            said = self.process.stderr.read().decode(errors="replace").strip()
            raise AssertionError(f"the shell ended with {self.process.wait(timeout=60)}: {said}")
        return answer.decode()

    def ask(self, request):
        answer = json.loads(self.line(json.dumps(request)))
        if "error" in answer:
            raise ShellError(answer["error"])
        return answer

    # --- the oracle's methods ------------------------------------------------------------------------

    def create_accounts(self, events, now=None):
        return self.create("create_accounts", events, ACCOUNT_BITS, now)

    def create_transfers(self, events, now=None):
        return self.create("create_transfers", events, TRANSFER_BITS, now)

    def create(self, operation, events, bits, now):
        return results(self.ask({"op": operation, "events": [encode(event, bits) for event in events], **clock(now)}))

    def create_transfers_with_balances(self, events):
        """The results, and the four balances of each."""
        answer = self.ask({"op": "create_transfers", "events": [encode(event, TRANSFER_BITS) for event in events],
                           "balances": True})
        return results(answer), [[int(result["balances"][name]) for name in BALANCES] for result in answer["results"]]

    def lookup_accounts(self, ids, now=None):
        answer = self.ask({"op": "lookup_accounts", "ids": [str(i) for i in ids], **clock(now)})
        return [decode(record) for record in answer["accounts"]]

    def lookup_transfers(self, ids, now=None):
        answer = self.ask({"op": "lookup_transfers", "ids": [str(i) for i in ids], **clock(now)})
        return [decode(record) for record in answer["transfers"]], [int(i) for i in answer.get("expired", [])]

    def advance(self, nanoseconds):
        return int(self.ask({"op": "advance", "ns": str(nanoseconds)})["now"])

    def put_balances(self, account_id, balances):
        self.ask({"op": "put_balances", "id": str(account_id), **{k: str(v) for k, v in balances.items()}})


def clock(now):
    return {} if now is None else {"now": str(now)}


def results(answer):
    return [(result["status"], int(result["timestamp"])) for result in answer["results"]]


def encode(event, bits):
    record = {name: str(value) for name, value in event.items() if name != "flags"}
    flags = event.get("flags", ())
    if any(name not in bits for name in flags):
        record["flags"] = sum(1 << (bits.index(name) if name in bits else int(name.removeprefix("bit")))
                              for name in flags)
    elif flags:
        record["flags"] = sorted(flags)
    return record


def decode(record):
    return {name: frozenset(value) if name == "flags" else int(value) for name, value in record.items()}
