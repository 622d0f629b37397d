# SPDX-License-Identifier: Apache-2.0
"""A tallyd on a cable of its own, a client of another make (tests/lib/tally_client.py), a few accounts, and a book of what
their balances must be.

    with World(port="af_xdp") as world:
        world.work(100)
"""

import random

import netns
import server
import tally_client
from check import equal, eventually

ACCOUNTS = 8
LEDGER, CODE = 700, 7
OPENING = 10**9
COMPACT_MAX = 2**64 - 1


class World:
    def __init__(self, port="af_packet", family=4, cable=netns.FIRST, dice=None, connect=True, **tallyd):
        """`connect`: open() at once; `port` and the rest as server.Tallyd takes them."""
        self.dice = dice or random.Random(1)
        self.tallyd = server.Tallyd(port, cable=cable, **tallyd)
        self.address = cable.server4 if family == 4 else cable.server6
        self.expected, self.at_once = {}, connect
        self.client = None

    def __enter__(self):
        self.tallyd.format().start()
        if self.at_once:
            self.open()
        return self

    def open(self):
        """A session, and the accounts with what they begin with."""
        self.client = tally_client.Client(self.address, server.UDP_PORT, timeout_s=20)
        self.client.connect()
        flags = ["debits_must_not_exceed_credits"]
        accounts = [{"id": number, "ledger": LEDGER, "code": CODE, "flags": flags if number > 1 else []}
                    for number in range(1, ACCOUNTS + 1)]
        self.ask(self.client.create_accounts, accounts, "created")
        self.expected = {number: dict.fromkeys(("debits_pending", "debits_posted", "credits_pending", "credits_posted"), 0)
                         for number in range(1, ACCOUNTS + 1)}
        for number in range(2, ACCOUNTS + 1):
            self.transfer(1, number, OPENING)

    def leave(self):
        """End the session and tallyd, as long as the network is there."""
        self.check()
        self.client.goodbye()
        self.client.socket.close()
        status, self.client = self.tallyd.stop(), None
        equal(status, 0, f"exit status of tallyd, which said: {self.tallyd.said()[-6000:]}")

    def __exit__(self, *failure):
        try:
            if failure[0] is None and self.client:
                self.leave()
        finally:
            if self.client:
                self.client.socket.close()
            server.cleanup()

    @staticmethod
    def statuses_of(results, *names):
        equal([result.status_name for result in results], list(names), "statuses")

    def ask(self, create, events, *names, **options):
        """Send events with a create call of the client, and compare what became of them. Where the client had to open a new
        session and sent them again, what the first transmission did is as good."""
        sessions = self.client.sessions
        results = create(events, **options).results
        got = [result.status_name for result in results]
        wanted = list(names) * (len(events) if len(names) == 1 else 1)
        again = {"created": ("exists", "linked_event_failed"), "exceeds_credits": ("id_already_failed",)}
        right = all(status == want or (self.client.sessions > sessions and status in again.get(want, ()))
                    for status, want in zip(got, wanted))
        assert right and len(got) == len(wanted), f"statuses are {got}, should be {wanted}"
        return results

    def note(self, event):
        """What an event that was created does to the book."""
        debit, credit, amount = (self.expected[event["debit_account_id"]], self.expected[event["credit_account_id"]],
                                 event["amount"])
        flags = event.get("flags", [])
        if "pending" in flags:
            debit["debits_pending"] += amount
            credit["credits_pending"] += amount
            return
        if "pending_id" in event:
            debit["debits_pending"] -= event["held"]
            credit["credits_pending"] -= event["held"]
        if "void_pending_transfer" not in flags:
            debit["debits_posted"] += amount
            credit["credits_posted"] += amount

    def transfer(self, debit, credit, amount, **fields):
        """One transfer that must be created; the event as it was sent."""
        event = {"id": self.client.transfer_id(debit), "debit_account_id": debit, "credit_account_id": credit,
                 "amount": amount, "ledger": LEDGER, "code": CODE, **fields}
        self.ask(self.client.create_transfers, [event], "created")
        self.note(event)
        return event

    def pair(self):
        return self.dice.sample(range(1, ACCOUNTS + 1), 2)

    def work(self, count):
        """`count` random requests of every kind, their answers and the balances in them."""
        for _ in range(count):
            self.dice.choice((self.plain, self.held, self.linked, self.batch, self.refused))()
        self.check()

    def plain(self):
        debit, credit = self.pair()
        event = {"id": self.client.transfer_id(debit), "debit_account_id": debit, "credit_account_id": credit,
                 "amount": self.dice.randint(0, 100), "ledger": LEDGER, "code": CODE}
        first = self.ask(self.client.create_transfers, [event], "created", balances=True)[0]
        self.note(event)
        equal(first.balances, self.expected[debit], "balances in the answer")
        again = self.ask(self.client.create_transfers, [event], "exists")[0]
        equal(again.timestamp, first.timestamp, "timestamp of the same event")

    def held(self):
        debit, credit = self.pair()
        amount = self.dice.randint(1, 100)
        pending = self.transfer(debit, credit, amount, flags=["pending"], user_data_128=2**127 + 5, timeout=3600)
        how = self.dice.choice(("post_pending_transfer", "void_pending_transfer"))
        part = self.dice.randint(0, amount) if how.startswith("post") else 0
        event = {"id": self.client.transfer_id(debit), "pending_id": pending["id"], "flags": [how], "amount": part}
        self.ask(self.client.create_transfers, [event], "created")
        self.note({**pending, **event, "held": amount})
        found = self.client.lookup_transfers([pending["id"], event["id"]]).results
        self.statuses_of(found, "found", "found")
        equal(found[0].record["user_data_128"], 2**127 + 5, "user data of the pending transfer")
        equal(found[1].record["amount"], part if "post" in how else amount, "amount of the second transfer")

    def linked(self):
        debit, credit = self.pair()
        events = [{"id": self.client.transfer_id(debit), "debit_account_id": debit, "credit_account_id": credit, "amount": 5,
                   "ledger": LEDGER, "code": CODE, "flags": ["linked"] if index < 2 else []} for index in range(3)]
        if self.dice.random() < 0.5:
            events[2]["credit_account_id"] = debit
            self.ask(self.client.create_transfers, events, "linked_event_failed", "linked_event_failed",
                     "accounts_must_be_different")
            return
        self.ask(self.client.create_transfers, events, "created")
        for event in events:
            self.note(event)

    def batch(self):
        """As many compact events as fit one datagram."""
        debit, credit = self.pair()
        events = [{"id": self.client.transfer_id(debit), "debit_account_id": debit, "credit_account_id": credit, "amount": 1,
                   "ledger": LEDGER, "code": CODE} for _ in range(self.client.events_max(64))]
        self.ask(self.client.create_transfers, events, "created", compact=True)
        for event in events:
            self.note(event)

    def refused(self):
        debit, credit = self.dice.sample(range(2, ACCOUNTS + 1), 2)
        event = {"id": self.client.transfer_id(debit), "debit_account_id": debit, "credit_account_id": credit,
                 "amount": 2**100, "ledger": LEDGER, "code": CODE}
        self.ask(self.client.create_transfers, [event], "exceeds_credits")
        self.ask(self.client.create_transfers, [event], "id_already_failed")
        self.statuses_of(self.client.lookup_transfers([event["id"]]).results, "absent")

    def state(self):
        """Every account as the ledger shows it."""
        return [result.record for result in self.client.lookup_accounts(list(range(1, ACCOUNTS + 1))).results]

    def check(self):
        for number, account in enumerate(self.state(), 1):
            for name, value in self.expected[number].items():
                equal(account[name], value, f"{name} of account {number}")

    def counter(self, name):
        return server.counter(self.tallyd.counters(), name)

    # For tests that do things wrong.

    @staticmethod
    def hello():
        """A HELLO as a client would send it first."""
        body = tally_client.HELLO_BODY.pack(b"i" * 16, 1, bytes(16), 0, 0)
        return tally_client.seal(tally_client.HELLO, 0, 0, body + bytes(tally_client.HELLO_BYTES - 40 - len(body)))

    @staticmethod
    def seal(datagram):
        """The datagram with a right tag."""
        return datagram[:24] + tally_client.tag(datagram) + datagram[40:]

    def raw_request(self, operation, event_format, event_count, body, options=b""):
        """Send a request of these very fields under the next number, sealed as it should be; the code of its reply."""
        client = self.client
        number, client.next_number = client.next_number, client.next_number + 1
        client.pending[number] = pending = tally_client.Pending(number, None, False)
        codes = []
        for _ in range(5):
            client.send(tally_client.REQUEST, tally_client.pack_request(
                number, client.acknowledged, operation, [body], event_format, options, event_count))
            pending.sent_at, pending.timeout_s = 1e18, 0.0  # poll() shall not send it again
            replies = []
            try:
                eventually(lambda: replies.extend(client.poll(0.02)) or replies, 1, "a reply")
            except AssertionError:
                continue
            codes = [reply.code for reply in replies if reply.number == number]
            break
        assert codes, f"no reply to a malformed request of operation {operation}"
        return codes[0]
