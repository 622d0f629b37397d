# SPDX-License-Identifier: Apache-2.0
"""Random requests for a ledger: small sets of ids, so that they meet; mostly right, so that something happens; every field
wrong at times. The generator looks at an oracle to know what would be right; the same seed gives the same requests."""

import oracle

U64_MAX = 2**64 - 1
AMOUNTS = [0, 1, 1, 2, 3, 5, 10, 10, 50, 100, 1000, 2**32, U64_MAX, U64_MAX + 1, 2**127, 2**128 - 2, 2**128 - 1]
ACCOUNT_IDS = [1, 2, 3, 4, 5, 6, 2**64 + 1, 2**127 + 5, 2**128 - 2]
NS_PER_MS = 10**6
HOUR_MS = 3_600_000


class Generator:
    def __init__(self, rng, ledger, large_amounts=False, imports=True):
        self.rng, self.ledger = rng, ledger
        self.amounts = AMOUNTS if large_amounts else AMOUNTS[:11]
        self.imports = imports
        self.low = 0            # newest low part of a transfer id
        self.used = []          # transfer events that were sent, for retries
        self.used_accounts = []
        self.import_style = imports and rng.random() < 0.3

    def chance(self, probability):
        return self.rng.random() < probability

    # --- requests -----------------------------------------------------------------------------------

    def request(self):
        """(operation, argument): a step of a random history."""
        roll = self.rng.random()
        if roll < 0.12 or not self.ledger.state.accounts:
            return "create_accounts", self.batch(self.account, self.rng.choice([1, 1, 2, 3, 6]))
        if roll < 0.80:
            return "create_transfers", self.batch(self.transfer, self.rng.choice([1, 1, 2, 3, 5, 8, 20]))
        if roll < 0.88:
            return "lookup_transfers", [self.known_transfer() for _ in range(self.rng.randint(1, 5))]
        return "advance", self.duration()

    def duration(self):
        unit = self.rng.choice([1, 1000, NS_PER_MS, 10**9, 10**9, 10**9, 60 * 10**9, 3600 * 10**9])
        if unit == 3600 * 10**9 and self.chance(0.7):
            unit = 10**9
        return unit * self.rng.randint(0, 3) + self.rng.choice([0, 0, 1])

    def batch(self, one, count):
        events = []
        linked_left = 0
        imported = self.import_style and self.chance(0.4)
        for index in range(count):
            event = one(imported)
            flags = set(event.get("flags", ()))
            if linked_left == 0 and self.chance(0.15):
                linked_left = self.rng.randint(1, 4)
            if linked_left > 0:
                linked_left -= 1
                if linked_left > 0 and (index + 1 < count or self.chance(0.2)):
                    flags.add("linked")
            if self.chance(0.01):
                flags ^= {"imported"}
            event["flags"] = frozenset(flags)
            events.append(event)
        return events

    # --- accounts -----------------------------------------------------------------------------------

    def account(self, imported):
        rng = self.rng
        if self.used_accounts and self.chance(0.2):
            return self.altered(rng.choice(self.used_accounts), oracle.ACCOUNT_FIELDS, oracle.ACCOUNT_FLAGS)
        event = {"id": rng.choice(ACCOUNT_IDS), "ledger": rng.choice([1, 1, 1, 2]), "code": rng.choice([1, 7])}
        flags = set()
        if self.chance(0.3):
            flags.add(rng.choice(["debits_must_not_exceed_credits", "credits_must_not_exceed_debits", "history"]))
        if self.chance(0.03):
            flags.add("closed")
        for name, top in [("user_data_128", 2**128 - 1), ("user_data_64", U64_MAX), ("user_data_32", 2**32 - 1)]:
            if self.chance(0.2):
                event[name] = rng.choice([1, top])
        if imported:
            flags.add("imported")
            event["timestamp"] = self.import_timestamp(self.ledger.state.account_cursor)
        event["flags"] = frozenset(flags)
        if self.chance(0.1):
            event = self.altered(event, oracle.ACCOUNT_FIELDS, oracle.ACCOUNT_FLAGS)
        self.used_accounts.append(event)
        return event

    def import_timestamp(self, cursor):
        rng = self.rng
        other = max(self.ledger.state.transfer_cursor, self.ledger.state.account_cursor)
        past = max(1, self.ledger.cell_time() - 1)
        return rng.choice([max(cursor, 1), cursor + 1, cursor + 1, cursor + 5, other + 1, other, min(past, cursor + 1000),
                           past, 1])

    # --- transfers ----------------------------------------------------------------------------------

    def transfer(self, imported):
        rng = self.rng
        if self.used and self.chance(0.12):
            event = rng.choice(self.used[-40:])
            return event if self.chance(0.5) else self.altered(event, oracle.TRANSFER_FIELDS, oracle.TRANSFER_FLAGS)
        event = self.resolution() if self.chance(0.3) else self.plain()
        if imported:
            event["flags"] = set(event["flags"]) | {"imported"}
            event["timestamp"] = self.import_timestamp(self.ledger.state.transfer_cursor)
            if self.chance(0.9):
                event.pop("timeout", None)
        if self.chance(0.08):
            event = self.altered(event, oracle.TRANSFER_FIELDS, oracle.TRANSFER_FLAGS)
        event["flags"] = frozenset(event["flags"])
        self.used.append(event)
        return event

    def account_id(self):
        known = list(self.ledger.state.accounts)
        if known and self.chance(0.97):
            return self.rng.choice(known)
        return self.rng.choice(ACCOUNT_IDS)

    def plain(self):
        rng = self.rng
        debit = self.account_id()
        credit = self.account_id()
        for _ in range(3):
            if credit == debit:
                credit = self.account_id()
        account = self.ledger.state.accounts.get(debit)
        ledger = account["ledger"] if account else 1
        event = {"id": self.new_id(), "debit_account_id": debit, "credit_account_id": credit,
                 "amount": rng.choice(self.amounts), "ledger": ledger, "code": rng.choice([1, 1, 9])}
        flags = set()
        if self.chance(0.4):
            flags.add("pending")
            if self.chance(0.5):
                event["timeout"] = rng.choice([1, 1, 2, 3, 60, 2**32 - 1])
            if self.chance(0.06):
                flags.add(rng.choice(["closing_debit", "closing_credit"]))
        if self.chance(0.15):
            flags.add(rng.choice(["balancing_debit", "balancing_credit"]))
        for name, top in [("user_data_128", 2**128 - 1), ("user_data_64", U64_MAX), ("user_data_32", 2**32 - 1)]:
            if self.chance(0.1):
                event[name] = rng.choice([1, top])
        event["flags"] = flags
        return event

    def resolution(self):
        rng = self.rng
        pendings = self.ledger.state.pendings
        live = [i for i, pending in pendings.items() if pending["state"] == "live"]
        if live and self.chance(0.75):
            pending_id = rng.choice(live)
        elif pendings and self.chance(0.7):
            pending_id = rng.choice(list(pendings))
        else:
            pending_id = self.known_transfer()
        pending = self.ledger.state.transfers.get(pending_id)
        post = self.chance(0.5)
        event = {"id": self.new_id(), "pending_id": pending_id, "amount": 2**128 - 1 if post else 0,
                 "flags": {"post_pending_transfer" if post else "void_pending_transfer"}}
        if self.chance(0.4):
            amount = pending["amount"] if pending else 5
            event["amount"] = rng.choice([0, max(amount - 1, 0), amount, amount, amount + 1 & 2**128 - 1, amount // 2])
        if pending and self.chance(0.2):
            for name in ["debit_account_id", "credit_account_id", "ledger", "code"]:
                if self.chance(0.7):
                    event[name] = pending[name]
        if self.chance(0.1):
            event["user_data_64"] = rng.choice([1, 2])
        return event

    # --- ids ----------------------------------------------------------------------------------------

    def id_time_ms(self):
        if not self.ledger.id_time:
            return self.rng.choice([0, 0, 2**48 - 1])
        now = self.ledger.cell_time() // NS_PER_MS
        if self.chance(0.8):
            return max(0, now - self.rng.choice([0, 0, 1, 1000]))
        return max(0, self.rng.choice([self.ledger.horizon_ms, self.ledger.horizon_ms - 1, now - HOUR_MS + 1, now + 60_000,
                                       now + 59_000, now + 60_001, 0]))

    def new_id(self):
        if self.chance(0.1):
            return self.known_transfer()
        self.low += 1
        low = self.low
        if self.chance(0.2):
            low += self.rng.choice([1 << 16, 0xffff << 16, 1 << 79])
        return (self.id_time_ms() << 80) + low

    def known_transfer(self):
        if self.used and self.chance(0.95):
            return self.rng.choice(self.used[-60:])["id"]
        return (self.id_time_ms() << 80) + self.rng.randint(0, 30)

    # --- mistakes -----------------------------------------------------------------------------------

    def altered(self, event, fields, flags):
        """The event with one or two things changed, maybe to nonsense."""
        rng = self.rng
        event = dict(event)
        for _ in range(rng.choice([1, 1, 2])):
            if self.chance(0.35):
                event["flags"] = frozenset(set(event.get("flags", ())) ^ {rng.choice(flags + ["bit12"])})
                continue
            name = rng.choice(fields)
            top = (2**32 - 1 if name in ("ledger", "timeout", "user_data_32", "reserved") else 2**16 - 1 if name == "code"
                   else U64_MAX if name in ("timestamp", "user_data_64") else 2**128 - 1)
            old = event.get(name, 0)
            event[name] = rng.choice([0, 1, 2, old, min(old + 1, top), max(old - 1, 0), top, top - 1])
        return event
