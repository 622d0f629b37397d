#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Packets over every kind of port that needs no hardware, with a client that was written from net/PROTOCOL.md alone: tap,
af_packet, af_xdp, and vhost with virtio-user behind a bridge. On each: ARP and neighbour discovery, ping, handshake, both event
formats, long replies, several clients, IPv4 and IPv6, loss and a restart."""

import os
import pathlib
import random
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import netns  # noqa: E402
import packets  # noqa: E402
import server  # noqa: E402
import tally_client  # noqa: E402
from check import QUICK, equal, main, seed, skip, test  # noqa: E402
from world import World  # noqa: E402

ROUNDS = 20 if QUICK else 100


def echo(wire, family):
    """An echo request by hand, as the neighbour tables of the kernel know tallyd; its answer."""
    data = bytes(range(56))
    if family == 4:
        body = b"\x08\0\0\0" + struct.pack("!HH", 7, 1) + data
        body = body[:2] + struct.pack("!H", packets.internet_checksum(body)) + body[4:]
        frame = packets.ethernet(packets.ipv4(body, packets.PROTOCOL_ICMP), to=mac_of(4))
        answer = wire_answer(wire, frame, lambda got: got[12:14] == b"\x08\0" and got[23] == 1 and got[34] == 0)
        equal(packets.internet_checksum(answer[34:34 + len(body)]), 0, "checksum of the echo reply")
        equal(answer[38:34 + len(body)], body[4:], "echo reply")
        return
    body = b"\x80\0\0\0" + struct.pack("!HH", 7, 1) + data
    pseudo = packets.pseudo_header(len(body), packets.PROTOCOL_ICMP6, netns.SERVER6, netns.CLIENT6)
    body = body[:2] + struct.pack("!H", packets.internet_checksum(pseudo + body)) + body[4:]
    frame = packets.ethernet(packets.ipv6(body, packets.PROTOCOL_ICMP6), packets.ETHERTYPE_IPV6, to=mac_of(6))
    answer = wire_answer(wire, frame, lambda got: got[12:14] == b"\x86\xdd" and got[20] == 58 and got[54] == 129)
    equal(answer[58:54 + len(body)], body[4:], "echo reply over IPv6")


def wire_answer(wire, frame, matches):
    wire.send(frame)
    answer = wire.wait_for(matches)
    assert answer is not None, "no answer"
    return answer


def mac_of(family):
    """tallyd's address as the kernel has learnt it by ARP or neighbour discovery."""
    address = netns.SERVER4 if family == 4 else netns.SERVER6
    words = netns.run("ip", f"-{family}", "neigh", "show", address, "dev", netns.KERNEL_END).split()
    assert "lladdr" in words, f"the kernel does not know {address}: {words}"
    return words[words.index("lladdr") + 1]


def exercise(world, family):
    """Everything a client does, on a world that is up."""
    client = world.client
    wire = packets.Wire()
    echo(wire, family)
    wire.close()
    assert client.ping() is not None, "no answer to a HELLO"
    world.work(ROUNDS)
    many_accounts(client)
    several_clients(world)


def many_accounts(client):
    """A lookup whose answer takes several datagrams, and one that is as long as it may be."""
    first = 10**6
    for start in range(0, 80, 10):
        client.create_accounts([{"id": first + start + i, "ledger": 9, "code": 1} for i in range(10)])
    ids = [first + i for i in range(client.lookups_max())]
    results = client.lookup_accounts(ids + []).results
    equal([result.status_name for result in results], ["found"] * min(80, len(ids)) + ["absent"] * max(0, len(ids) - 80),
          "statuses of a long lookup")
    equal([result.record["id"] for result in results if result.record], ids[:80], "accounts of a long lookup")


def several_clients(world):
    """Two more clients beside the first; none sees the other's replies."""
    others = [tally_client.Client(world.address, server.UDP_PORT, timeout_s=10) for _ in range(2)]
    for other in others:
        other.connect()
    for number in range(ROUNDS // 4):
        for other in others:
            event = {"id": other.transfer_id(1), "debit_account_id": 1, "credit_account_id": 2, "amount": number,
                     "ledger": 700, "code": 7}
            sessions = other.sessions
            status = other.create_transfers([event]).results[0].status_name
            assert status == "created" or (status == "exists" and other.sessions > sessions), status
            world.note(event)
    for other in others:
        other.goodbye()
        other.socket.close()
    world.check()


def port(name):
    for family in (4, 6):
        if family == 6 and not netns.has_ipv6():
            continue
        with World(port=name, family=family, dice=random.Random(seed())) as world:
            exercise(world, family)
            world.tallyd.kill()
            world.tallyd.start()
            world.work(ROUNDS // 4)  # opens a new session by itself


@test
def af_packet():
    port("af_packet")


@test
def tap():
    port("tap")


@test
def af_xdp():
    """Skipped where the kernel has no AF_XDP."""
    try:
        port("af_xdp")
    except AssertionError as error:
        if "no port net_af_xdp0" in str(error):
            skip("no AF_XDP in this kernel")
        raise


def bridge(path, loss=0, double=0, number=1):
    """A DPDK process with virtio-user on one side and the kernel's cable on the other."""
    with open(f"{path}-bridge.log", "ab") as log:
        return server.spawn(
            [server.BUILD / "tests" / "integration" / "port-bridge", "net_virtio_user0", "net_af_packet0", loss, double, number,
             "--no-huge", "-m", "128", "--no-pci", f"--file-prefix=bridge{os.getpid()}",
             f"--vdev=net_virtio_user0,path={path}", f"--vdev=net_af_packet0,iface={netns.FIRST.port_end}", "-l", "1"],
            stdout=log, stderr=log)


@test
def vhost_and_virtio_user():
    """tallyd behind vhost, virtio-user on the other side. That side dies and comes back; tallyd stays and the client goes on."""
    path = os.path.join(server.scratch(), "vhost")
    with World(port=f"net_vhost0,iface={path}", connect=False, dice=random.Random(seed())) as world:
        between = bridge(path)
        world.open()
        exercise(world, 4)
        between.kill()
        between.wait()
        assert world.tallyd.running(), "tallyd ended with the other side of its port"
        between = bridge(path)
        world.work(ROUNDS // 4)
        world.leave()
        between.terminate()
        equal(between.wait(10), 0, f"exit status of the bridge ({pathlib.Path(path + '-bridge.log').read_text()[-3000:]})")


@test
def lost_and_doubled_packets():
    """A bridge that drops a tenth of the frames and passes a tenth twice: every request still has exactly one effect."""
    number = seed()
    path = os.path.join(server.scratch(), "vhost")
    with World(port=f"net_vhost0,iface={path}", connect=False, dice=random.Random(number)) as world:
        between = bridge(path, loss=100, double=100, number=number)
        world.open()
        world.work(ROUNDS // 2)
        assert world.counter("duplicates") > 0, "no request was seen twice"
        world.leave()
        between.terminate()
        between.wait(10)


if __name__ == "__main__":
    netns.enter()
    main(server.cleanup)
