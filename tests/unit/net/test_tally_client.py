#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""net/PROTOCOL.md against the C headers, and the Python client against the page's test vectors."""

import pathlib
import re
import struct
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "lib"))

import tally_client as tally  # noqa: E402
from check import equal, main, test  # noqa: E402

PAGE = tally.protocol_page()
VECTORS = PAGE.split("## 13. Test vectors")[1]
STATUS_H = (ROOT / "engine" / "base" / "status.h").read_text()
PROTOCOL_H = (ROOT / "net" / "protocol.h").read_text()


@test
def hash_vectors():
    rows = re.findall(r"^\| 0x(\w{32}) \| 0x(\w{16}) \| 0x(\w{16}) \| (\d+) \| (\d+) \|$", VECTORS, re.M)
    assert len(rows) == 6
    for account, seed, value, of_256, of_1000 in rows:
        account, seed = int(account, 16), int(seed, 16)
        equal(tally.account_hash(account, seed), int(value, 16), "hash")
        equal(tally.account_partition(account, seed, 256), int(of_256), "partition of 256")
        equal(tally.account_partition(account, seed, 1000), int(of_1000), "partition of 1000")


@test
def tag_vectors():
    wanted = dict(re.findall(r"^\| (GOODBYE|ACK|HELLO): .* \| (\w{32}) \|$", VECTORS, re.M))
    session = 0x1122334455667788
    hello = tally.HELLO_BODY.pack(bytes(range(1, 17)), 0x1020304050607080, bytes(16), 1472, 0)
    datagrams = {
        "GOODBYE": tally.seal(tally.GOODBYE, session, 5),
        "ACK": tally.seal(tally.ACK, session, 6, tally.ACK_BODY.pack(3, 0)),
        "HELLO": tally.seal(tally.HELLO, 0, 0, hello + bytes(1400 - 40 - len(hello))),
    }
    equal(set(wanted), set(datagrams), "vectors")
    for name, datagram in datagrams.items():
        equal(datagram[24:40].hex(), wanted[name], name)
        equal(tally.tag(datagram), datagram[24:40], name)
    dump = re.search(r"in full:\n\n((?: {4}.*\n)+)", VECTORS).group(1)
    equal(bytes.fromhex(dump.replace(" ", "").replace("\n", "")), datagrams["GOODBYE"], "GOODBYE in full")


@test
def statuses_are_those_of_the_header():
    def table(name):
        body = re.search(rf"#define {name}\(X\)(.*?)\n\n", STATUS_H, re.S).group(1)
        return [(int(number), status, burns == "true")
                for status, number, burns in re.findall(r"X\((\w+), (\d+)u?, (\w+)\)", body)]

    for page, header in (("transfer", "TRANSFER_STATUS_TABLE"), ("account", "ACCOUNT_STATUS_TABLE"),
                         ("lookup", "LOOKUP_STATUS_TABLE")):
        rows = table(header)
        assert len(rows) >= 3
        equal(list(tally.STATUSES[page].items()), [(number, name) for number, name, _ in rows], page)
    equal(tally.STATUSES["burns"], {number for number, _, burns in table("TRANSFER_STATUS_TABLE") if burns}, "burns")
    codes = re.search(r"\| code \| name \| \|\n\|---\|---\|---\|\n((?:\|.*\n)+)", PAGE).group(1)
    equal([(int(number), name) for number, name in re.findall(r"^\| (\d+) \| (\w+) \|", codes, re.M)],
          [(number, name) for number, name, _ in table("REQUEST_CODE_TABLE")], "codes")


@test
def sizes_are_those_of_the_header():
    asserted = {name: int(size) for name, size in
                re.findall(r"_Static_assert\(sizeof\(struct (\w+)\) == (\d+)", PROTOCOL_H)}
    for name, layout in (("net_header", tally.HEADER), ("net_hello", tally.HELLO_BODY), ("net_cookie", tally.COOKIE_BODY),
                         ("net_welcome", tally.WELCOME_BODY), ("net_request_header", tally.REQUEST_HEADER),
                         ("net_reply_header", tally.REPLY_HEADER), ("net_ack", tally.ACK_BODY)):
        equal(layout.size, asserted[name], name)
    for name, size in (("NET_HELLO_BYTES", tally.HELLO_BYTES), ("NET_REPLAY_WINDOW", tally.REPLAY_WINDOW),
                       ("NET_UDP_PORT_DEFAULT", tally.PORT_DEFAULT), ("NET_VERSION", tally.VERSION)):
        equal(int(re.search(rf"#define {name} (\d+)", PROTOCOL_H).group(1)), size, name)


@test
def numbers_are_those_of_the_header():
    enums = dict(re.findall(r"^ {4}NET_(\w+) = (\d+),", PROTOCOL_H, re.M))
    for name in ("HELLO", "COOKIE", "WELCOME", "REQUEST", "REPLY", "ACK", "GOODBYE"):
        equal(getattr(tally, name), int(enums[name]), name)
    options = {name: int(number) for name, number in enums.items() if name.startswith("OPTION_")}
    assert len(options) == 9
    for name, number in options.items():
        equal(getattr(tally, name.removeprefix("OPTION_")), number, name)


@test
def offsets_on_the_page_add_up():
    """Each table of a structure: every field starts where the one before it ends."""
    tables = re.findall(r"\| offset \| size \|.*\n\|[-|]+\n((?:\| \d+ \| \d+ \|.*\n)+)", PAGE)
    assert len(tables) >= 10
    for rows in tables:
        at = 0
        for offset, size in re.findall(r"^\| (\d+) \| (\d+) \|", rows, re.M):
            equal(int(offset), at, f"an offset in\n{rows}")
            at += int(size)


@test
def records():
    account = {"id": 2**128 - 5, "ledger": 7, "code": 3, "flags": ["linked", "history"], "user_data_32": 9}
    data = tally.pack_account(account)
    equal(len(data), 128, "bytes of an account")
    equal(struct.unpack_from("<IHH", data, 112), (7, 3, 9), "ledger, code, flags")
    equal(tally.unpack_record(tally.ACCOUNT_FIELDS, data)["id"], 2**128 - 5, "id")
    transfer = {"id": 1, "amount": 2**64 - 1, "ledger": 1, "flags": ["pending"]}
    assert tally.is_compact(transfer)
    assert not tally.is_compact({**transfer, "timeout": 1}) and not tally.is_compact({**transfer, "amount": 2**64})
    equal(len(tally.pack_compact(transfer)), 64, "bytes of a compact transfer")
    equal(len(tally.pack_transfer(transfer)), 128, "bytes of a transfer")


@test
def replay_window():
    counters = tally.Counters()
    assert not counters.accept(0)
    for value in (1, 3, 2, 2000):
        assert counters.accept(value) and not counters.accept(value)
    assert not counters.accept(976) and counters.accept(977)


if __name__ == "__main__":
    main()
