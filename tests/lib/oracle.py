# SPDX-License-Identifier: Apache-2.0
"""A naive ledger: dictionaries and big integers, one event after the other, nothing shared with the engine.

It says what every answer must be (design section 2). State is never forgotten here; what the engine may forget is told
by comparing ids with the horizon. A chain is tried on a copy of everything and thrown away when it fails.

Events are dictionaries with the fields of the data model, flags as a set of names; absent means 0.
"""
import copy

U128_MAX = 2**128 - 1
TIMESTAMP_MAX = 2**63 - 1
NS_PER_SECOND = 10**9
HORIZON_BACK_MS = 3_600_000
ID_AHEAD_MS = 60_000

ACCOUNT_FLAGS = ["linked", "debits_must_not_exceed_credits", "credits_must_not_exceed_debits", "history", "imported",
                 "closed"]
TRANSFER_FLAGS = ["linked", "pending", "post_pending_transfer", "void_pending_transfer", "balancing_debit",
                  "balancing_credit", "closing_debit", "closing_credit", "imported"]
ACCOUNT_FIELDS = ["id", "debits_pending", "debits_posted", "credits_pending", "credits_posted", "user_data_128",
                  "user_data_64", "user_data_32", "reserved", "ledger", "code", "timestamp"]
TRANSFER_FIELDS = ["id", "debit_account_id", "credit_account_id", "amount", "pending_id", "user_data_128",
                   "user_data_64", "user_data_32", "timeout", "ledger", "code", "timestamp"]
BALANCES = ["debits_pending", "debits_posted", "credits_pending", "credits_posted"]

# A retry of an id that failed so is refused for ever.
BURNING = {"debit_account_not_found", "credit_account_not_found", "pending_transfer_not_found", "exceeds_credits",
           "exceeds_debits", "debit_account_already_closed", "credit_account_already_closed"}


def full(event, fields, known_flags):
    """The event with every field, and its flags as (set of names, whether there are unknown ones)."""
    record = {name: event.get(name, 0) for name in fields}
    record["flags"] = frozenset(event.get("flags", ()))
    record["unknown_flags"] = bool(record["flags"] - set(known_flags))
    return record


class State:
    """What a failed chain takes back."""

    def __init__(self):
        self.accounts = {}   # id -> record
        self.transfers = {}  # id -> record as a lookup shows it
        self.pendings = {}   # id -> {"state": live | posted | voided | expired, "expires_at", "resolver"}
        self.account_cursor = 0   # largest timestamp of a stored account
        self.transfer_cursor = 0

    def copy(self):
        twin = copy.copy(self)
        for name in ["accounts", "transfers", "pendings"]:
            setattr(twin, name, {key: dict(record) for key, record in getattr(self, name).items()})
        return twin


class Oracle:
    def __init__(self, id_time=True):
        self.id_time = id_time
        self.state = State()
        self.burnt = set()
        self.clock = 1
        self.last_timestamp = 0
        self.given = []  # timestamps of the events of the next request; None: not known
        self.given_step = 1  # ... then so much later than the one before
        self.horizon_ms = 0
        self.balances = []  # of the last create_transfers: each event's debit account after it, or after its chain

    # --- time ---------------------------------------------------------------------------------------

    def cell_time(self):
        return max(self.clock, self.last_timestamp)

    def decided(self, index):
        """When the event was decided: as the ledger under test said, where its lcores have clocks of their own; else the next
        timestamp."""
        if index < len(self.given) and self.given[index] is not None:
            self.last_timestamp = max(self.last_timestamp, self.given[index])
            return self.given[index]
        if self.given:
            self.last_timestamp = max(self.last_timestamp + self.given_step, self.clock)
            return self.last_timestamp
        return self.next_timestamp()

    def next_timestamp(self):
        self.last_timestamp = max(self.last_timestamp + 1, self.clock)
        return self.last_timestamp

    def set_clock(self, now):
        self.clock = max(self.clock, now)

    def settle(self):
        """Expire what is due, in due order; then the horizon follows cell time."""
        while True:
            due = [(pending["expires_at"], self.state.transfers[pending_id]["timestamp"], pending_id)
                   for pending_id, pending in self.state.pendings.items()
                   if pending["state"] == "live" and pending["expires_at"]
                   and pending["expires_at"] <= self.cell_time()]
            if not due:
                break
            self.next_timestamp()
            self.resolve(min(due)[2], "expired", None)
        if self.id_time:
            self.horizon_ms = max(self.horizon_ms, self.cell_time() // 10**6 - HORIZON_BACK_MS)

    def advance(self, nanoseconds):
        self.clock = self.cell_time() + nanoseconds
        self.settle()

    def forgotten(self, transfer_id):
        return self.id_time and (transfer_id >> 80) < self.horizon_ms

    # --- requests -----------------------------------------------------------------------------------

    def create_accounts(self, events, now=None):
        events = [full(event, ACCOUNT_FIELDS, ACCOUNT_FLAGS) for event in events]
        return self.create(events, now, self.create_account, burns=())

    def create_transfers(self, events, now=None):
        events = [full(event, TRANSFER_FIELDS, TRANSFER_FLAGS) for event in events]
        return self.create(events, now, self.create_transfer, burns=BURNING)

    def lookup_accounts(self, ids, now=None):
        self.start(now)
        return [self.show(self.state.accounts[i]) for i in ids if i in self.state.accounts]

    def lookup_transfers(self, ids, now=None):
        """The transfers found, and the ids that are too old to say."""
        self.start(now)
        expired = [i for i in ids if self.forgotten(i)]
        found = [self.show(self.state.transfers[i]) for i in ids
                 if i in self.state.transfers and not self.forgotten(i)]
        return found, expired

    def put_balances(self, account_id, balances):
        self.state.accounts[account_id].update({name: balances.get(name, 0) for name in BALANCES})

    def start(self, now):
        if now is not None:
            self.set_clock(now)
        self.settle()

    @staticmethod
    def show(record):
        return {name: value for name, value in record.items() if name != "unknown_flags"}

    # --- chains -------------------------------------------------------------------------------------

    def create(self, events, now, create_one, burns):
        self.start(now)
        results, self.balances = [], []
        first = 0
        while first < len(events):
            last = first
            while "linked" in events[last]["flags"] and last + 1 < len(events):
                last += 1
            chain_is_open = "linked" in events[last]["flags"]
            results += self.create_chain(events, first, last, chain_is_open, create_one, burns)
            self.balances += [self.home_balances(event) for event in events[first:last + 1]]
            first = last + 1
        self.settle()
        return results

    def home_balances(self, event):
        """The four balances of the account that a transfer debits; None when it is not known."""
        home = event.get("debit_account_id") or self.state.transfers.get(event.get("pending_id"), {}).get("debit_account_id")
        account = self.state.accounts.get(home)
        return account and [account[name] for name in BALANCES]

    def create_chain(self, events, first, last, chain_is_open, create_one, burns):
        before = self.state.copy() if last > first or chain_is_open else None
        results = []
        failed_at = None
        for index in range(first, last + 1):
            timestamp = self.decided(index)
            if index == last and chain_is_open:
                status, shown = "linked_event_chain_open", timestamp
            elif failed_at is not None:
                status, shown = "linked_event_failed", timestamp
            else:
                status, shown = self.check_import(events, index, timestamp), timestamp
                if status is None:
                    status, shown = create_one(dict(events[index]), timestamp)
            if status != "created" and failed_at is None:
                failed_at = index
                if before is not None:
                    self.state = before
                    for earlier in range(len(results)):
                        results[earlier] = ("linked_event_failed", events[first + earlier]["_timestamp"])
                if status in burns:
                    self.burnt.add(events[index]["id"])
            events[index]["_timestamp"] = timestamp
            results.append((status, shown))
        return results

    @staticmethod
    def check_import(events, index, timestamp):
        """The checks that stand before those of the record itself; None when all is well."""
        event = events[index]
        imported = "imported" in event["flags"]
        if imported != ("imported" in events[0]["flags"]):
            return "imported_event_not_expected" if imported else "imported_event_expected"
        if not imported:
            return "timestamp_must_be_zero" if event["timestamp"] != 0 else None
        if not 1 <= event["timestamp"] <= TIMESTAMP_MAX:
            return "imported_event_timestamp_out_of_range"
        if event["timestamp"] >= timestamp:
            return "imported_event_timestamp_must_not_advance"
        return None

    # --- accounts -----------------------------------------------------------------------------------

    def create_account(self, account, timestamp):
        flags = account["flags"]
        if account["reserved"] != 0:
            return "reserved_field", timestamp
        if account["unknown_flags"]:
            return "reserved_flag", timestamp
        if account["id"] == 0:
            return "id_must_not_be_zero", timestamp
        if account["id"] == U128_MAX:
            return "id_must_not_be_int_max", timestamp
        existing = self.state.accounts.get(account["id"])
        if existing:
            for name in ["flags", "user_data_128", "user_data_64", "user_data_32", "ledger", "code"]:
                if account[name] != existing[name]:
                    return "exists_with_different_" + name, timestamp
            return "exists", existing["timestamp"]
        if "debits_must_not_exceed_credits" in flags and "credits_must_not_exceed_debits" in flags:
            return "flags_are_mutually_exclusive", timestamp
        for name in BALANCES:
            if account[name] != 0:
                return name + "_must_be_zero", timestamp
        for name in ["ledger", "code"]:
            if account[name] == 0:
                return name + "_must_not_be_zero", timestamp
        if "imported" in flags:
            others = {t["timestamp"] for i, t in self.state.transfers.items() if not self.forgotten(i)}
            if account["timestamp"] <= self.state.account_cursor or account["timestamp"] in others:
                return "imported_event_timestamp_must_not_regress", timestamp
        else:
            account["timestamp"] = timestamp
        self.state.account_cursor = max(self.state.account_cursor, account["timestamp"])
        self.state.accounts[account["id"]] = account
        return "created", account["timestamp"]

    # --- transfers ----------------------------------------------------------------------------------

    def create_transfer(self, transfer, timestamp):
        status = self.check_transfer_id(transfer, timestamp)
        if status is None:
            resolving = transfer["flags"] & {"post_pending_transfer", "void_pending_transfer"}
            status = (self.check_resolving(transfer, timestamp) if resolving
                      else self.check_plain(transfer, timestamp))
        if status == "exists":
            return status, self.state.transfers[transfer["id"]]["timestamp"]
        if status is not None:
            return status, timestamp
        return "created", transfer["timestamp"]

    def check_transfer_id(self, transfer, timestamp):
        if transfer["unknown_flags"]:
            return "reserved_flag"
        if transfer["id"] == 0:
            return "id_must_not_be_zero"
        if transfer["id"] == U128_MAX:
            return "id_must_not_be_int_max"
        if self.id_time:
            if self.forgotten(transfer["id"]):
                return "id_expired"
            if (transfer["id"] >> 80) > timestamp // 10**6 + ID_AHEAD_MS:
                return "id_in_future"
        if transfer["id"] in self.state.transfers:
            return self.compare(transfer, self.state.transfers[transfer["id"]])
        if transfer["id"] in self.burnt:
            return "id_already_failed"
        return None

    def compare(self, transfer, existing):
        """A retry: in which field does it differ?"""
        for name in ["flags", "pending_id", "timeout"]:
            if transfer[name] != existing[name]:
                return "exists_with_different_" + name
        flags = transfer["flags"]
        pending = self.state.transfers[transfer["pending_id"]] if transfer["pending_id"] else None
        for name in ["debit_account_id", "credit_account_id", "amount", "user_data_128", "user_data_64",
                     "user_data_32", "ledger", "code"]:
            wanted, stored = transfer[name], existing[name]
            if pending is None:
                if name == "amount" and flags & {"balancing_debit", "balancing_credit"}:
                    same = wanted >= stored
                else:
                    same = wanted == stored
            elif name == "amount":
                inherits = 0 if "void_pending_transfer" in flags else U128_MAX
                same = stored == (pending["amount"] if wanted == inherits else wanted)
            elif wanted == 0:
                same = stored == pending[name]
            else:
                same = wanted == stored
            if not same:
                return "exists_with_different_" + name
        return "exists"

    def check_plain(self, t, timestamp):
        flags = t["flags"]
        for name in ["debit_account_id", "credit_account_id"]:
            if t[name] == 0:
                return name + "_must_not_be_zero"
            if t[name] == U128_MAX:
                return name + "_must_not_be_int_max"
        if t["debit_account_id"] == t["credit_account_id"]:
            return "accounts_must_be_different"
        if t["pending_id"] != 0:
            return "pending_id_must_be_zero"
        if "pending" not in flags:
            if t["timeout"] != 0:
                return "timeout_reserved_for_pending_transfer"
            if flags & {"closing_debit", "closing_credit"}:
                return "closing_transfer_must_be_pending"
        for name in ["ledger", "code"]:
            if t[name] == 0:
                return name + "_must_not_be_zero"
        debit = self.state.accounts.get(t["debit_account_id"])
        credit = self.state.accounts.get(t["credit_account_id"])
        if debit is None:
            return "debit_account_not_found"
        if credit is None:
            return "credit_account_not_found"
        if debit["ledger"] != credit["ledger"]:
            return "accounts_must_have_the_same_ledger"
        if t["ledger"] != debit["ledger"]:
            return "transfer_must_have_the_same_ledger_as_accounts"
        if "imported" in flags:
            if self.import_regresses(t["timestamp"]):
                return "imported_event_timestamp_must_not_regress"
            if t["timestamp"] <= debit["timestamp"]:
                return "imported_event_timestamp_must_postdate_debit_account"
            if t["timestamp"] <= credit["timestamp"]:
                return "imported_event_timestamp_must_postdate_credit_account"
            if t["timeout"] != 0:
                return "imported_event_timeout_must_be_zero"
        if "closed" in debit["flags"]:
            return "debit_account_already_closed"
        if "closed" in credit["flags"]:
            return "credit_account_already_closed"
        amount = self.balanced_amount(t, debit, credit)
        status = self.check_amount(t, amount, debit, credit, timestamp)
        if status:
            return status
        self.store_transfer(t, timestamp, amount)
        self.install_plain(t, debit, credit, timestamp)
        return None

    def import_regresses(self, timestamp):
        accounts = {a["timestamp"] for a in self.state.accounts.values()}
        return timestamp <= self.state.transfer_cursor or timestamp in accounts

    @staticmethod
    def balanced_amount(t, debit, credit):
        amount = t["amount"]
        if "balancing_debit" in t["flags"]:
            room = debit["credits_posted"] - debit["debits_posted"] - debit["debits_pending"]
            amount = min(amount, max(room, 0))
        if "balancing_credit" in t["flags"]:
            room = credit["debits_posted"] - credit["credits_posted"] - credit["credits_pending"]
            amount = min(amount, max(room, 0))
        return amount

    @staticmethod
    def check_amount(t, amount, debit, credit, timestamp):
        if "pending" in t["flags"]:
            if amount + debit["debits_pending"] > U128_MAX:
                return "overflows_debits_pending"
            if amount + credit["credits_pending"] > U128_MAX:
                return "overflows_credits_pending"
        if amount + debit["debits_posted"] > U128_MAX:
            return "overflows_debits_posted"
        if amount + credit["credits_posted"] > U128_MAX:
            return "overflows_credits_posted"
        if amount + debit["debits_pending"] + debit["debits_posted"] > U128_MAX:
            return "overflows_debits"
        if amount + credit["credits_pending"] + credit["credits_posted"] > U128_MAX:
            return "overflows_credits"
        if timestamp + t["timeout"] * NS_PER_SECOND > TIMESTAMP_MAX:
            return "overflows_timeout"
        if ("debits_must_not_exceed_credits" in debit["flags"] and
                debit["debits_pending"] + debit["debits_posted"] + amount > debit["credits_posted"]):
            return "exceeds_credits"
        if ("credits_must_not_exceed_debits" in credit["flags"] and
                credit["credits_pending"] + credit["credits_posted"] + amount > credit["debits_posted"]):
            return "exceeds_debits"
        return None

    def store_transfer(self, t, timestamp, amount):
        if "imported" not in t["flags"]:
            t["timestamp"] = timestamp
        t["amount"] = amount
        self.state.transfers[t["id"]] = t
        self.state.transfer_cursor = max(self.state.transfer_cursor, t["timestamp"])

    def install_plain(self, t, debit, credit, timestamp):
        kind = "pending" if "pending" in t["flags"] else "posted"
        debit["debits_" + kind] += t["amount"]
        credit["credits_" + kind] += t["amount"]
        if kind == "pending":
            expires_at = timestamp + t["timeout"] * NS_PER_SECOND if t["timeout"] else 0
            self.state.pendings[t["id"]] = {"state": "live", "expires_at": expires_at, "resolver": None}
        for side, account in [("closing_debit", debit), ("closing_credit", credit)]:
            if side in t["flags"]:
                account["flags"] |= {"closed"}

    # --- post, void, expiry -------------------------------------------------------------------------

    def check_resolving(self, t, timestamp):
        flags = t["flags"]
        if ({"post_pending_transfer", "void_pending_transfer"} <= flags or
                flags & {"pending", "balancing_debit", "balancing_credit", "closing_debit", "closing_credit"}):
            return "flags_are_mutually_exclusive"
        if t["pending_id"] == 0:
            return "pending_id_must_not_be_zero"
        if t["pending_id"] == U128_MAX:
            return "pending_id_must_not_be_int_max"
        if t["pending_id"] == t["id"]:
            return "pending_id_must_be_different"
        if t["timeout"] != 0:
            return "timeout_reserved_for_pending_transfer"
        if self.pending_forgotten(t["pending_id"]):
            return "pending_id_expired"
        p = self.state.transfers.get(t["pending_id"])
        if p is None:
            return "pending_transfer_not_found"
        if "pending" not in p["flags"]:
            return "pending_transfer_not_pending"
        for name in ["debit_account_id", "credit_account_id", "ledger", "code"]:
            if t[name] != 0 and t[name] != p[name]:
                return "pending_transfer_has_different_" + name
        void = "void_pending_transfer" in flags
        inherits = 0 if void else U128_MAX
        amount = p["amount"] if t["amount"] == inherits else t["amount"]
        if amount > p["amount"]:
            return "exceeds_pending_transfer_amount"
        if void and amount < p["amount"]:
            return "pending_transfer_has_different_amount"
        return self.check_resolving_state(t, p, amount, timestamp)

    def pending_forgotten(self, pending_id):
        if not self.forgotten(pending_id):
            return False
        pending = self.state.pendings.get(pending_id)
        if pending is None or pending["state"] == "expired":
            return True
        return pending["state"] != "live" and self.forgotten(pending["resolver"])

    def check_resolving_state(self, t, p, amount, timestamp):
        pending = self.state.pendings[p["id"]]
        if pending["state"] in ("posted", "voided"):
            return "pending_transfer_already_" + pending["state"]
        if pending["state"] == "expired" or (pending["expires_at"] and pending["expires_at"] <= timestamp):
            return "pending_transfer_expired"
        if "imported" in t["flags"] and self.import_regresses(t["timestamp"]):
            return "imported_event_timestamp_must_not_regress"
        if "post_pending_transfer" in t["flags"]:
            if "closed" in self.state.accounts[p["debit_account_id"]]["flags"]:
                return "debit_account_already_closed"
            if "closed" in self.state.accounts[p["credit_account_id"]]["flags"]:
                return "credit_account_already_closed"
        for name in ["debit_account_id", "credit_account_id", "ledger", "code", "user_data_128", "user_data_64",
                     "user_data_32"]:
            if t[name] == 0:
                t[name] = p[name]
        self.store_transfer(t, timestamp, amount)
        if "post_pending_transfer" in t["flags"]:
            self.state.accounts[p["debit_account_id"]]["debits_posted"] += amount
            self.state.accounts[p["credit_account_id"]]["credits_posted"] += amount
            self.resolve(p["id"], "posted", t["id"])
        else:
            self.resolve(p["id"], "voided", t["id"])
        return None

    def resolve(self, pending_id, state, resolver):
        p = self.state.transfers[pending_id]
        debit = self.state.accounts[p["debit_account_id"]]
        credit = self.state.accounts[p["credit_account_id"]]
        self.state.pendings[pending_id].update(state=state, resolver=resolver)
        debit["debits_pending"] -= p["amount"]
        credit["credits_pending"] -= p["amount"]
        if state == "posted":
            return
        for side, account in [("closing_debit", debit), ("closing_credit", credit)]:
            if side in p["flags"]:
                account["flags"] -= {"closed"}
