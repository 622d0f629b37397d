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
    def __init__(self, port="af_packet", mtu=1500, family=4, cable=netns.FIRST, dice=None, lay=True, **tallyd):
        """`lay`: whether tallyd's own cable is laid here; `port` and the rest as server.Tallyd takes them."""
        self.dice = dice or random.Random(1)
        self.tallyd = server.Tallyd(port, cable=cable, mtu=mtu, lay=lay, **tallyd)
        self.address = cable.server4 if family == 4 else cable.server6
        self.expected = {}
        self.client = None

    def __enter__(self):
        self.tallyd.format().start()
        self.connect()
        flags = ["debits_must_not_exceed_credits"]
        accounts = [{"id": number, "ledger": LEDGER, "code": CODE, "flags": flags if number > 1 else []}
                    for number in range(1, ACCOUNTS + 1)]
        self.statuses(self.client.create_accounts(accounts), "created")
        self.expected = {number: dict.fromkeys(("debits_pending", "debits_posted", "credits_pending", "credits_posted"), 0)
                         for number in range(1, ACCOUNTS + 1)}
        for number in range(2, ACCOUNTS + 1):
            self.transfer(1, number, OPENING)
        return self

    def __exit__(self, *failure):
        if failure[0] is None:
            self.check()
            self.client.goodbye()
            equal(self.tallyd.stop(), 0, "exit status of tallyd")
        self.client.socket.close()
        server.cleanup()

    def connect(self):
        self.client = tally_client.Client(self.address, server.UDP_PORT, timeout_s=20)
        self.client.connect()

    @staticmethod
    def statuses(reply, *names):
        got = [result.status_name for result in reply.results]
        equal(got, list(names) * (len(got) if len(names) == 1 else 1), "statuses")
        return reply

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
        self.statuses(self.client.create_transfers([event]), "created")
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
        reply = self.statuses(self.client.create_transfers([event], balances=True), "created")
        self.note(event)
        equal(reply.results[0].balances, self.expected[debit], "balances in the answer")
        again = self.statuses(self.client.create_transfers([event]), "exists")
        equal(again.results[0].timestamp, reply.results[0].timestamp, "timestamp of the same event")

    def held(self):
        debit, credit = self.pair()
        amount = self.dice.randint(1, 100)
        pending = self.transfer(debit, credit, amount, flags=["pending"], user_data_128=2**127 + 5, timeout=3600)
        how = self.dice.choice(("post_pending_transfer", "void_pending_transfer"))
        part = self.dice.randint(0, amount) if how.startswith("post") else 0
        event = {"id": self.client.transfer_id(debit), "pending_id": pending["id"], "flags": [how], "amount": part}
        self.statuses(self.client.create_transfers([event]), "created")
        self.note({**pending, **event, "held": amount})
        found = self.client.lookup_transfers([pending["id"], event["id"]]).results
        self.statuses_of(found, "found", "found")
        equal(found[0].record["user_data_128"], 2**127 + 5, "user data of the pending transfer")
        equal(found[1].record["amount"], part if "post" in how else amount, "amount of the second transfer")

    @staticmethod
    def statuses_of(results, *names):
        equal([result.status_name for result in results], list(names), "statuses")

    def linked(self):
        debit, credit = self.pair()
        events = [{"id": self.client.transfer_id(debit), "debit_account_id": debit, "credit_account_id": credit, "amount": 5,
                   "ledger": LEDGER, "code": CODE, "flags": ["linked"] if index < 2 else []} for index in range(3)]
        if self.dice.random() < 0.5:
            events[2]["credit_account_id"] = debit
            self.statuses(self.client.create_transfers(events), "linked_event_failed", "linked_event_failed",
                          "accounts_must_be_different")
            return
        self.statuses(self.client.create_transfers(events), "created")
        for event in events:
            self.note(event)

    def batch(self):
        """As many compact events as fit one datagram."""
        debit, credit = self.pair()
        events = [{"id": self.client.transfer_id(debit), "debit_account_id": debit, "credit_account_id": credit, "amount": 1,
                   "ledger": LEDGER, "code": CODE} for _ in range(self.client.events_max(64))]
        self.statuses(self.client.create_transfers(events, compact=True), "created")
        for event in events:
            self.note(event)

    def refused(self):
        debit, credit = self.dice.sample(range(2, ACCOUNTS + 1), 2)
        event = {"id": self.client.transfer_id(debit), "debit_account_id": debit, "credit_account_id": credit,
                 "amount": 2**100, "ledger": LEDGER, "code": CODE}
        self.statuses(self.client.create_transfers([event]), "exceeds_credits")
        self.statuses(self.client.create_transfers([event]), "id_already_failed")
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
