# SPDX-License-Identifier: Apache-2.0
"""A client of tally in one file, written from net/PROTOCOL.md alone: it shares no code with libtally or the server, so where
the page and the server differ, a test that uses it fails. Kernel UDP sockets; one thread; simple before fast.

    client = Client("10.77.0.2", 7711)
    client.connect()
    client.create_accounts([{"id": 1, "ledger": 1, "code": 1}])
    reply = client.create_transfers([{"id": client.transfer_id(1), "debit_account_id": 1, ...}])
    reply.results[0].status_name, reply.results[0].timestamp

Session, Datagram and pack_* below it are for tests that want to do things wrong."""

import ctypes
import pathlib
import random
import re
import secrets
import select
import socket
import struct
import time

VERSION = 1
PORT_DEFAULT = 7711
HELLO, COOKIE, WELCOME, REQUEST, REPLY, ACK, GOODBYE = range(1, 8)
CREATE_ACCOUNTS, CREATE_TRANSFERS, LOOKUP_ACCOUNTS, LOOKUP_TRANSFERS = range(1, 5)
FULL, COMPACT = 0, 1
PAD, MINIMUM_TOKEN, MAXIMUM_AGE, DEADLINE, BALANCES, RECEIPT, STALE_OK, TOKEN, RETRY_AFTER = (*range(7), 16, 17)
OK, OVERLOADED, MALFORMED, UNSUPPORTED_OPERATION, UNKNOWN_OUTCOME, REPLICA_BEHIND = range(6)
CREATED, FOUND, ABSENT, EXPIRED = 2**32 - 1, 1, 2, 3

HEADER = struct.Struct("<BBB5xQQ16s")
HELLO_BODY = struct.Struct("<16sQ16sH6xQ")
COOKIE_BODY = struct.Struct("<Q16sQQ")
WELCOME_BODY = struct.Struct("<Q16sQQQQIHHBB6xQ32x64H")
REQUEST_HEADER = struct.Struct("<QQBBHHH")
REPLY_HEADER = struct.Struct("<QiBBBBHHHH")
ACK_BODY = struct.Struct("<QQ")
RESULT = struct.Struct("<QII")
HELLO_BYTES = 1400
REPLAY_WINDOW = 1024
SILENCE_S = 1.0  # without any sound datagram, and three timeouts, before a session counts as lost
U64, U128 = 2**64 - 1, 2**128 - 1

ACCOUNT_FIELDS = [("id", 16), ("debits_pending", 16), ("debits_posted", 16), ("credits_pending", 16),
                  ("credits_posted", 16), ("user_data_128", 16), ("user_data_64", 8), ("user_data_32", 4),
                  ("reserved", 4), ("ledger", 4), ("code", 2), ("flags", 2), ("timestamp", 8)]
TRANSFER_FIELDS = [("id", 16), ("debit_account_id", 16), ("credit_account_id", 16), ("amount", 16), ("pending_id", 16),
                   ("user_data_128", 16), ("user_data_64", 8), ("user_data_32", 4), ("timeout", 4), ("ledger", 4),
                   ("code", 2), ("flags", 2), ("timestamp", 8)]
COMPACT_FIELDS = [("id", 16), ("debit_account_id", 16), ("credit_account_id", 16), ("amount", 8), ("ledger", 4),
                  ("code", 2), ("flags", 2)]
BALANCE_FIELDS = [("debits_pending", 16), ("debits_posted", 16), ("credits_pending", 16), ("credits_posted", 16)]
ACCOUNT_FLAGS = ["linked", "debits_must_not_exceed_credits", "credits_must_not_exceed_debits", "history", "imported",
                 "closed", "striped"]
TRANSFER_FLAGS = ["linked", "pending", "post_pending_transfer", "void_pending_transfer", "balancing_debit",
                  "balancing_credit", "closing_debit", "closing_credit", "imported"]


class Unknown(Exception):
    """The client gave up: the request may or may not have taken effect."""


class Refused(Exception):
    """The whole request was refused with a code, before any effect."""

    def __init__(self, code):
        super().__init__(f"request refused with code {code}")
        self.code = code


# --- tags, hashes, ids -----------------------------------------------------------------------------------------------

class _Hash128(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


_xxhash = ctypes.CDLL("libxxhash.so.0")
_xxhash.XXH3_128bits.restype = _Hash128
_xxhash.XXH3_128bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]


def tag(datagram):
    """XXH3-128 of the datagram with the tag's place zero; big-endian, high half first."""
    blank = datagram[:24] + bytes(16) + datagram[40:]
    value = _xxhash.XXH3_128bits(blank, len(blank))
    return value.high.to_bytes(8, "big") + value.low.to_bytes(8, "big")


def seal(kind, session, counter, body=b"", version=VERSION, key_phase=0):
    """A whole datagram with the right tag."""
    datagram = HEADER.pack(version, kind, key_phase, session, counter, bytes(16)) + body
    return datagram[:24] + tag(datagram) + datagram[40:]


def mix(x):
    x ^= x >> 32
    x = x * 0xe9846af9b1a615d1 & U64
    x ^= x >> 32
    x = x * 0xe9846af9b1a615d1 & U64
    return x ^ x >> 28


def account_hash(account_id, seed):
    return mix((account_id & U64) ^ mix((account_id >> 64) ^ seed))


def account_partition(account_id, seed, partitions):
    return (account_hash(account_id, seed) & 0xffffffff) % partitions


# --- records ---------------------------------------------------------------------------------------------------------

def flag_bits(flags, names):
    if isinstance(flags, int):
        return flags
    return sum(1 << names.index(name) for name in flags)


def pack_record(fields, values, flag_names=()):
    """Bytes of a record; absent fields are 0, `flags` may be a list of names."""
    unknown = set(values) - {name for name, _ in fields}
    assert not unknown, f"no such fields: {unknown}"
    out = b""
    for name, size in fields:
        value = values.get(name, 0)
        out += (flag_bits(value, flag_names) if name == "flags" else value).to_bytes(size, "little")
    return out


def unpack_record(fields, data):
    values, at = {}, 0
    for name, size in fields:
        values[name] = int.from_bytes(data[at:at + size], "little")
        at += size
    return values


def pack_account(values):
    return pack_record(ACCOUNT_FIELDS, values, ACCOUNT_FLAGS)


def pack_transfer(values):
    return pack_record(TRANSFER_FIELDS, values, TRANSFER_FLAGS)


def pack_compact(values):
    return pack_record(COMPACT_FIELDS, values, TRANSFER_FLAGS)


def is_compact(values):
    """Whether a transfer can travel in 64 bytes: everything else zero."""
    names = {name for name, _ in COMPACT_FIELDS}
    return values.get("amount", 0) <= U64 and not any(value for name, value in values.items() if name not in names)


def pack_option(kind, value=b""):
    return bytes([kind, len(value)]) + value


def pack_options(options):
    data = b"".join(options)
    return data + bytes(-len(data) % 8)


def pack_request(number, acknowledged, operation, events, event_format=FULL, options=b"", event_count=None):
    """Body of a REQUEST; `events` is a list of packed events."""
    count = len(events) if event_count is None else event_count
    return REQUEST_HEADER.pack(number, acknowledged, operation, event_format, count, len(options), 0) + options + \
        b"".join(events)


# --- statuses, from the tables of the page itself --------------------------------------------------------------------

def protocol_page():
    return (pathlib.Path(__file__).resolve().parent.parent.parent / "net" / "PROTOCOL.md").read_text()


def status_tables():
    """{"transfer": {number: name}, "account": ..., "lookup": ..., "burns": {numbers}} from §11."""
    section = protocol_page().split("## 11. Statuses")[1].split("\n## ")[0]
    tables, burns = [], set()
    for block in re.findall(r"(?:^\|.*\n)+", section, re.M):
        rows = re.findall(r"^\| (\d+) \| (\w+) \|(.*)$", block, re.M)
        tables.append({int(number): name for number, name, _ in rows})
        burns |= {int(number) for number, _, rest in rows if rest.strip(" |") == "yes"}
    return {"transfer": tables[0], "account": tables[1], "lookup": tables[2], "burns": burns}


STATUSES = status_tables()
STATUS_OF_OPERATION = {CREATE_ACCOUNTS: STATUSES["account"], CREATE_TRANSFERS: STATUSES["transfer"],
                       LOOKUP_ACCOUNTS: STATUSES["lookup"], LOOKUP_TRANSFERS: STATUSES["lookup"]}


class Result:
    """One entry of a reply."""

    def __init__(self, operation, timestamp, status, balances=None, record=None):
        self.timestamp, self.status, self.balances, self.record = timestamp, status, balances, record
        self.status_name = STATUS_OF_OPERATION[operation].get(status, str(status))

    def __repr__(self):
        return f"<{self.status_name} {self.timestamp}>"


class Reply:
    def __init__(self, number, code, operation, results, token, retry_after_us):
        self.number, self.code, self.operation, self.results = number, code, operation, results
        self.token, self.retry_after_us = token, retry_after_us


# --- a session -------------------------------------------------------------------------------------------------------

class Counters:
    """The receiver's side of a counter: which values were seen."""

    def __init__(self):
        self.highest, self.seen = 0, set()

    def accept(self, value):
        if value == 0 or value in self.seen or value <= self.highest - REPLAY_WINDOW:
            return False
        self.seen.add(value)
        if value > self.highest:
            self.highest = value
            self.seen = {v for v in self.seen if v > value - REPLAY_WINDOW}
        return True


def unpack_options(data):
    """{type: value}"""
    options, at = {}, 0
    while at < len(data):
        if data[at] == PAD:
            at += 1
            continue
        length = data[at + 1]
        assert at + 2 + length <= len(data), "an option runs out of the options"
        options[data[at]] = data[at + 2:at + 2 + length]
        at += 2 + length
    return options


class Pending:
    """A request on its way, and the datagrams of its reply so far."""

    def __init__(self, number, body, has_balances):
        self.number, self.body, self.has_balances = number, body, has_balances
        self.parts, self.count = {}, None
        self.sent_at = self.first_sent_at = 0.0
        self.sends = 0
        self.timeout_s = 0.0

    def complete(self):
        return self.count is not None and len(self.parts) == self.count

    def reply(self):
        results = []
        for index in range(self.count):
            head, options, data = self.parts[index]
            _, _, code, operation, _, _, first, entries, _, _ = head
            assert entries == 0 or first == len(results), "entries follow one another"
            at = 0
            for _ in range(entries):
                timestamp, status, reserved = RESULT.unpack_from(data, at)
                assert reserved == 0
                at += RESULT.size
                balances = record = None
                if operation in (CREATE_ACCOUNTS, CREATE_TRANSFERS) and self.has_balances:
                    balances = unpack_record(BALANCE_FIELDS, data[at:at + 64])
                    at += 64
                elif operation in (LOOKUP_ACCOUNTS, LOOKUP_TRANSFERS) and status == FOUND:
                    fields = ACCOUNT_FIELDS if operation == LOOKUP_ACCOUNTS else TRANSFER_FIELDS
                    record = unpack_record(fields, data[at:at + 128])
                    at += 128
                results.append(Result(operation, timestamp, status, balances, record))
            assert at == len(data), "the entries fill their datagram"
        retry = options.get(RETRY_AFTER)
        return Reply(self.number, code, operation, results, struct.unpack("<QQQ", options[TOKEN]),
                     retry and struct.unpack("<I", retry)[0])


class Session:
    """One session of one socket: numbers, counters, acknowledgements, retransmission. No policy beyond the page's."""

    def __init__(self, host, port=PORT_DEFAULT, instance=None, sock=None):
        self.address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        self.host = host
        self.socket = sock or socket.socket(self.address[0], socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.instance = instance or secrets.token_bytes(16)
        self.id = 0
        self.pending, self.replied = {}, set()
        self.rtt = self.rtt_variation = None

    # handshake

    def hello(self, nonce, cookie=bytes(16), payload_max=0):
        body = HELLO_BODY.pack(self.instance, nonce, cookie, payload_max, 0)
        self.transmit(seal(HELLO, 0, 0, body + bytes(HELLO_BYTES - HEADER.size - len(body))))

    def ping(self, timeout_s=1.0):
        """Seconds that a HELLO with zeros took, and cell time; None when nothing came."""
        nonce, start = secrets.randbits(64), time.monotonic()
        self.hello(nonce)
        while True:
            got = self.receive(start + timeout_s - time.monotonic())
            if got is None:
                return None
            kind, _, _, body = got
            if kind == COOKIE and COOKIE_BODY.unpack(body)[0] == nonce:
                return time.monotonic() - start, COOKIE_BODY.unpack(body)[2]

    def connect(self, timeout_s=10.0, payload_max=0):
        """A new session; whatever the old one had is forgotten here too. Raises Unknown when none comes."""
        nonce, cookie, wait = secrets.randbits(64), bytes(16), 0.1
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            self.hello(nonce, cookie, payload_max)
            until = time.monotonic() + wait * random.uniform(1, 1.25)
            wait = min(2 * wait, 1.0)
            while (got := self.receive(until - time.monotonic())) is not None:
                kind, session, counter, body = got
                if kind == COOKIE and COOKIE_BODY.unpack(body)[0] == nonce:
                    cookie = COOKIE_BODY.unpack(body)[1]
                    self.hello(nonce, cookie, payload_max)
                elif kind == WELCOME and struct.unpack_from("<Q", body)[0] == nonce:
                    self.welcome(session, counter, body)
                    return
        raise Unknown(f"no session from {self.host} within {timeout_s} s")

    def welcome(self, session, counter, body):
        (_, self.cell_id, self.term, self.hash_seed, self.cell_time_ns, self.credit, self.partitions, self.payload_max,
         self.window, self.id_time, self.lcores, self.id_window_ms, *ports) = WELCOME_BODY.unpack_from(body)
        self.ports = ports[:self.lcores]
        self.placement = body[WELCOME_BODY.size:]
        assert len(self.placement) == self.partitions and session != 0
        self.id, self.counter, self.received = session, 0, Counters()
        self.received.accept(counter)
        self.next_number, self.acknowledged, self.server_edge = 1, 0, 0
        self.pending, self.replied = {}, set()
        self.cell_offset_ns = self.cell_time_ns - time.time_ns()
        self.heard()
        self.acknowledge()

    # datagrams

    def heard(self):
        self.timeouts, self.heard_at = 0, time.monotonic()

    def is_silent(self):
        """Whether the session is to be given up (§8)."""
        return self.timeouts >= 3 and time.monotonic() - self.heard_at >= SILENCE_S

    def transmit(self, datagram):
        try:
            self.socket.sendto(datagram, self.address[4])
        except (BlockingIOError, ConnectionRefusedError):
            pass  # as good as lost

    def send(self, kind, body=b"", counter=None):
        if counter is None:
            self.counter += 1
            counter = self.counter
        self.transmit(seal(kind, self.id, counter, body))

    def receive(self, timeout_s):
        """(type, session, counter, body) of the next sound datagram, or None."""
        end = time.monotonic() + max(0.0, timeout_s)
        while True:
            if not select.select([self.socket], [], [], max(0.0, end - time.monotonic()))[0]:
                return None
            try:
                datagram, _ = self.socket.recvfrom(65536)
            except (BlockingIOError, ConnectionRefusedError):
                continue
            if len(datagram) < HEADER.size:
                continue
            version, kind, key_phase, session, counter, claimed = HEADER.unpack_from(datagram)
            if version == VERSION and key_phase == 0 and claimed == tag(datagram):
                return kind, session, counter, datagram[HEADER.size:]

    def acknowledge(self):
        self.send(ACK, ACK_BODY.pack(self.acknowledged, 0))

    def goodbye(self):
        self.send(GOODBYE)

    # requests

    def submit(self, operation, events, event_format=FULL, options=(), has_balances=False):
        """Send a request under the next number. @return it"""
        if not self.pending:
            self.heard()  # silence counts from the first request that waits
        assert self.next_number <= self.credit, "no credit"
        packed = pack_options(options)
        length = HEADER.size + REQUEST_HEADER.size + len(packed) + sum(len(event) for event in events)
        assert length <= self.payload_max, f"a request of {length} bytes, {self.payload_max} fit"
        pending = Pending(self.next_number, (operation, events, event_format, packed), has_balances)
        self.next_number += 1
        self.pending[pending.number] = pending
        self.transmit_request(pending)
        return pending

    def transmit_request(self, pending):
        operation, events, event_format, options = pending.body
        pending.sent_at = time.monotonic()
        pending.first_sent_at = pending.first_sent_at or pending.sent_at
        base = 0.05 if self.rtt is None else max(0.005, self.rtt + 4 * self.rtt_variation)
        pending.timeout_s = min(1.0, base * 2**pending.sends) * random.uniform(1, 1.25)
        pending.sends += 1
        self.send(REQUEST, pack_request(pending.number, self.acknowledged, operation, events, event_format, options))

    def measure(self, pending):
        if pending.sends > 1:
            return
        rtt = time.monotonic() - pending.first_sent_at
        if self.rtt is None:
            self.rtt, self.rtt_variation = rtt, rtt / 2
        else:
            self.rtt_variation += (abs(self.rtt - rtt) - self.rtt_variation) / 4
            self.rtt += (rtt - self.rtt) / 8

    def poll(self, timeout_s=0.0):
        """Take what has come, send again what is late. @return replies that are complete now"""
        done, wait = [], timeout_s
        while (got := self.receive(wait)) is not None:
            wait = 0.0
            kind, session, counter, body = got
            if session != self.id or not self.received.accept(counter):
                continue
            self.heard()
            if kind == ACK:
                edge, credit = ACK_BODY.unpack(body)
                self.server_edge, self.credit = max(self.server_edge, edge), max(self.credit, credit)
            elif kind == REPLY:
                done += self.take(body)
        now = time.monotonic()
        for pending in list(self.pending.values()):
            if now - pending.sent_at > pending.timeout_s:
                self.timeouts += 1
                self.transmit_request(pending)
        return done

    def take(self, body):
        head = REPLY_HEADER.unpack_from(body)
        number, ahead, _, _, index, count, _, _, options_bytes, _ = head
        self.credit = max(self.credit, number + ahead)
        pending = self.pending.get(number)
        if pending is None:
            return []
        at = REPLY_HEADER.size + options_bytes
        pending.parts[index] = (head, unpack_options(body[REPLY_HEADER.size:at]), body[at:])
        pending.count = count
        if not pending.complete():
            return []
        self.measure(pending)
        del self.pending[number]
        self.replied.add(number)
        while self.acknowledged + 1 in self.replied:
            self.acknowledged += 1
            self.replied.remove(self.acknowledged)
        return [pending.reply()]


class Client(Session):
    """Blocking calls. Retries on overload, opens a new session when the server has forgotten the old one."""

    def __init__(self, host, port=PORT_DEFAULT, timeout_s=10.0, instance=None):
        super().__init__(host, port, instance)
        self.timeout_s = timeout_s
        self.overloads = self.sessions = 0
        self.last_id = 0

    def __enter__(self):
        self.connect(self.timeout_s)
        return self

    def __exit__(self, *_):
        self.goodbye()
        self.socket.close()

    def request(self, operation, events, event_format=FULL, options=(), has_balances=False):
        """@return the Reply with code 0; raises Refused, or Unknown after timeout_s."""
        end = time.monotonic() + self.timeout_s
        while time.monotonic() < end:
            if self.next_number > self.credit:
                self.acknowledge()
                self.poll(0.02)
                continue
            number = self.submit(operation, events, event_format, options, has_balances).number
            reply = self.wait_for(number, end)
            if reply is None:
                continue
            if reply.code == OK:
                return reply
            if reply.code != OVERLOADED:
                raise Refused(reply.code)
            self.overloads += 1
            time.sleep(reply.retry_after_us / 1e6 * random.uniform(1, 1.25))
        raise Unknown(f"no reply within {self.timeout_s} s")

    def wait_for(self, number, end):
        """@return the reply, or None when the session was lost and the events have to be sent again"""
        while (now := time.monotonic()) < end:
            if self.is_silent():
                self.sessions += 1
                self.connect(end - now)
                return None
            until = min([end] + [p.sent_at + p.timeout_s for p in self.pending.values()])
            for reply in self.poll(until - now):
                if reply.number == number:
                    return reply
        raise Unknown("no reply in time")

    def many(self, operation, batches, event_format=FULL, outstanding=64):
        """Requests side by side. @return their replies, in the order of the batches; code is for the caller to see"""
        replies, at, numbers = [None] * len(batches), 0, {}
        end = time.monotonic() + self.timeout_s
        while None in replies:
            if time.monotonic() > end:
                raise Unknown("not all replies in time")
            while at < len(batches) and len(self.pending) < outstanding and self.next_number <= self.credit:
                numbers[self.submit(operation, batches[at], event_format).number] = at
                at += 1
            if at < len(batches) and not self.pending:
                self.acknowledge()
            for reply in self.poll(0.02):
                if reply.number in numbers:
                    replies[numbers[reply.number]] = reply
        return replies

    # operations

    def transfer_id(self, home_account_id):
        """Time-ordered, never falling, in the partition of its home account."""
        milliseconds = (time.time_ns() + self.cell_offset_ns) // 10**6
        place = account_partition(home_account_id, self.hash_seed, self.partitions)
        value = max(milliseconds << 64 | secrets.randbits(63), self.last_id + 1)
        self.last_id = value
        return value << 16 | place

    def create_accounts(self, accounts, balances=False):
        options = [pack_option(BALANCES)] if balances else []
        return self.request(CREATE_ACCOUNTS, [pack_account(a) for a in accounts], FULL, options, balances)

    def create_transfers(self, transfers, balances=False, compact=None):
        if compact is None:
            compact = all(is_compact(t) for t in transfers)
        options = [pack_option(BALANCES)] if balances else []
        events = [pack_compact(t) if compact else pack_transfer(t) for t in transfers]
        return self.request(CREATE_TRANSFERS, events, COMPACT if compact else FULL, options, balances)

    def lookup_accounts(self, ids, options=()):
        return self.request(LOOKUP_ACCOUNTS, [i.to_bytes(16, "little") for i in ids], FULL, options)

    def lookup_transfers(self, ids, options=()):
        return self.request(LOOKUP_TRANSFERS, [i.to_bytes(16, "little") for i in ids], FULL, options)

    def events_max(self, event_bytes):
        return (self.payload_max - 64) // event_bytes

    def lookups_max(self):
        return 8 * ((self.payload_max - 96) // 144)
