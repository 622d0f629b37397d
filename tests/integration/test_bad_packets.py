#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Frames that no client sends, from a raw socket: each kind is counted by its own reason, and nothing else happens. No
event is executed, no balance moves, and the client whose packets were copied goes on."""

import pathlib
import random
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import netns  # noqa: E402
import server  # noqa: E402
from check import QUICK, equal, main, seed, test  # noqa: E402
from packets import (ETHERTYPE_ARP, ETHERTYPE_IPV6, PROTOCOL_ICMP, PROTOCOL_UDP, Wire, datagram4, datagram6, ethernet,  # noqa: E402
                     internet_checksum, ipv4, ipv6, mac, udp)
from world import World  # noqa: E402

PORT = server.UDP_PORT
HEADER_BYTES = 40
IP, UDP, PAYLOAD = 14, 34, 42  # offsets in an IPv4 frame without options


def sent_by_client(world, wire):
    """The frames of a few requests of a live session, as they went over the wire."""
    wire.frames(0.05)
    world.work(20)
    frames = [frame for outgoing, frame in wire.frames() if outgoing and frame[23] == PROTOCOL_UDP
              and frame[UDP + 2:UDP + 4] == struct.pack("!H", PORT)]
    assert len(frames) >= 3, "the client's packets were not seen"
    return frames


def growth(before, after):
    """Counters that changed, and by how much."""
    return {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}


def expect(world, wire, frames, *counters):
    """Send the frames; the counters together must grow by exactly their number, and the ledger must stay as it is.
    (drop_ethernet may grow by more: the kernel has multicasts of its own.)"""
    state = world.state()
    before = world.tallyd.counters()
    for frame in frames:
        wire.send(frame)

    def grown():
        now = world.tallyd.counters()
        return sum(server.counter(now, name) - server.counter(before, name) for name in counters)

    end = time.monotonic() + 3
    while grown() < len(frames) and time.monotonic() < end:
        time.sleep(0.05)
    after = world.tallyd.counters()
    changed = growth(before, after)
    total = sum(server.counter(after, name) - server.counter(before, name) for name in counters)
    assert total == len(frames) or ("drop_ethernet" in counters and total > len(frames)), \
        f"{counters} should grow by {len(frames)}; these changed: {changed}"
    for name in ("events", "requests"):
        assert not any(key.endswith(name) for key in changed), f"bad packets were executed: {changed}"
    equal(world.state(), state, "the ledger after bad packets")


def rewrapped(payload):
    """A payload in a fresh, correct frame from the client's address."""
    return datagram4(payload, PORT)


def good_payload(world, wire):
    return sent_by_client(world, wire)[-1][PAYLOAD:]


@test
def replayed():
    with World() as world:
        wire = Wire()
        frames = sent_by_client(world, wire)
        expect(world, wire, frames, "drop_replay")
        expect(world, wire, frames * 3, "drop_replay")


@test
def from_elsewhere():
    """A right session from another port or address is an unknown one."""
    with World() as world:
        wire = Wire()
        payload = good_payload(world, wire)
        expect(world, wire, [rewrapped(payload)] * 3, "drop_session")
        other = ethernet(ipv4(udp(payload, PORT, source="10.77.0.9"), source="10.77.0.9"))
        expect(world, wire, [other], "drop_session")


@test
def truncated():
    """A datagram cut at every length, with UDP and IP lengths that fit."""
    with World() as world:
        wire = Wire()
        frame = sent_by_client(world, wire)[-1]
        payload, source_port = frame[PAYLOAD:], struct.unpack("!H", frame[UDP:UDP + 2])[0]
        def cut(length):
            return ethernet(ipv4(udp(payload[:length], PORT, source_port)))
        expect(world, wire, [cut(length) for length in range(HEADER_BYTES)], "drop_header")
        lengths = range(HEADER_BYTES, len(payload), 7 if QUICK else 1)
        expect(world, wire, [cut(length) for length in lengths], "drop_tag", "drop_replay")


@test
def cut_frames():
    """A frame that ends before its headers say so, at every length."""
    with World() as world:
        wire = Wire()
        frame = sent_by_client(world, wire)[-1]
        # The kernel refuses to send less than an Ethernet header.
        short = [frame[:length] for length in range(IP, len(frame), 11 if QUICK else 1)]
        expect(world, wire, short, "drop_ethernet", "drop_ip", "drop_protocol", "drop_udp", "drop_header")
        six = datagram6(b"x" * 100, PORT)
        expect(world, wire, [six[:length] for length in range(IP, len(six), 3)],
               "drop_ethernet", "drop_ip", "drop_protocol", "drop_udp", "drop_header")


@test
def bad_ethernet():
    with World() as world:
        wire = Wire()
        packet = ipv4(udp(b"x" * 60, PORT))
        expect(world, wire, [ethernet(packet, to="02:00:00:00:00:99"), ethernet(packet, 0x88b5),
                             ethernet(struct.pack("!HH", 5, 0x0800) + packet, 0x8100), ethernet(b"", 0x0800 - 1)],
               "drop_ethernet")


@test
def bad_ipv4():
    with World() as world:
        wire = Wire()
        body = udp(b"x" * 60, PORT)
        bad = [ipv4(body, version=5), ipv4(body, version=0), ipv4(body, header_words=4), ipv4(body, header_words=15),
               ipv4(body, checksum=1), ipv4(body, length=19), ipv4(body, length=20 + len(body) + 1), ipv4(body, length=65535),
               ipv4(body, options=b"\x01\x01\x01\x01"), ipv4(body, to="10.77.0.77"), ipv4(body, protocol=6)]
        expect(world, wire, [ethernet(packet) for packet in bad], "drop_ip", "drop_protocol", "drop_ethernet")


@test
def fragments():
    """Over tap, for on af_packet the kernel puts them together before the driver sees them."""
    with World(port="tap") as world:
        wire = Wire()
        body = udp(b"x" * 600, PORT)
        bad = [ethernet(ipv4(part, fragment=field))
               for part, field in ((body[:304], 0x2000), (body[304:], 304 // 8), (body[:304], 0x2000 | 1), (body, 0x1fff))]
        expect(world, wire, bad, "drop_fragment")
        whole = struct.pack("!BBHI", PROTOCOL_UDP, 0, 1, 7) + body[:304]
        expect(world, wire, [ethernet(ipv6(whole, next_header=44), ETHERTYPE_IPV6)], "drop_fragment", "drop_ip", "drop_protocol")


@test
def bad_ipv6():
    with World() as world:
        wire = Wire()
        body = udp(b"x" * 60, PORT, to=netns.SERVER6, source=netns.CLIENT6)
        bad = [ipv6(body, version=4), ipv6(body, length=len(body) + 1), ipv6(body, length=65535), ipv6(body, to="fd77::99"),
               ipv6(body, next_header=0), ipv6(body, next_header=43), ipv6(body, next_header=60), ipv6(body, next_header=6)]
        expect(world, wire, [ethernet(packet, ETHERTYPE_IPV6) for packet in bad], "drop_ip", "drop_protocol", "drop_ethernet")


@test
def bad_udp():
    with World() as world:
        wire = Wire()
        bad = [udp(b"x" * 60, PORT, checksum=0), udp(b"x" * 60, PORT, checksum=0x1234), udp(b"x" * 60, PORT, length=7),
               udp(b"x" * 60, PORT, length=69), udp(b"x" * 60, PORT, length=65535), udp(b"x" * 60, PORT + 1), udp(b"x" * 60, 0)]
        expect(world, wire, [ethernet(ipv4(packet)) for packet in bad], "drop_udp")
        six = [udp(b"x" * 60, PORT, to=netns.SERVER6, source=netns.CLIENT6, checksum=value) for value in (0, 0x4321)]
        expect(world, wire, [ethernet(ipv6(packet), ETHERTYPE_IPV6) for packet in six], "drop_udp")


@test
def bad_headers():
    """Versions, types and key phases that do not exist, and a session that does not."""
    with World() as world:
        wire = Wire()
        payload = good_payload(world, wire)
        bad = [bytes([0]) + payload[1:], bytes([2]) + payload[1:], payload[:1] + b"\0" + payload[2:],
               payload[:1] + b"\x08" + payload[2:], payload[:1] + b"\xff" + payload[2:], payload[:2] + b"\x01" + payload[3:]]
        expect(world, wire, [rewrapped(text) for text in bad], "drop_header")
        expect(world, wire, [rewrapped(payload[:8] + b"\x55" * 8 + payload[16:])], "drop_session")


@test
def oversized():
    """Larger than the port's frames, and than any payload: over a cable that lets them pass. The driver may keep them to
    itself."""
    with World(mtu=9000) as world:
        netns.run("ip", "link", "set", netns.FIRST.port_end, "mtu", 9000)  # the driver made it 1500
        wire = Wire()
        payload = good_payload(world, wire)
        state, before = world.state(), world.tallyd.counters()
        for size in (1473, 1514, 1600, 2000, 2048, 2049, 4000, 8000, 8900):
            wire.send(rewrapped(payload[:HEADER_BYTES] + b"x" * (size - HEADER_BYTES)))
        time.sleep(0.2)
        changed = growth(before, world.tallyd.counters())
        assert not any(name.endswith(("events", "requests")) for name in changed), f"executed: {changed}"
        equal(world.state(), state, "the ledger after oversized packets")
        world.work(5)


@test
def handshake_nonsense():
    """HELLOs that are too short, too long, or wrongly sealed; and the types that only a server sends."""
    with World() as world:
        wire = Wire()
        hello = world.hello()
        expect(world, wire, [rewrapped(hello[:-1]), rewrapped(hello + b"\0")], "drop_tag", "drop_malformed")
        expect(world, wire, [rewrapped(world.seal(hello[:-8])), rewrapped(world.seal(hello + b"\0" * 8))], "drop_malformed")
        expect(world, wire, [rewrapped(world.seal(hello[:1] + bytes([kind]) + hello[2:])) for kind in (2, 3, 5)],
               "drop_header", "drop_session", "drop_malformed")


@test
def malformed_requests():
    """Sealed and numbered as a client would, with lengths and fields that do not fit: refused as a whole, before any effect."""
    with World() as world:
        state, before = world.state(), world.tallyd.counters()
        codes = [world.raw_request(*request) for request in (
            (0, 0, 1, b"\0" * 128), (5, 0, 1, b"\0" * 128), (255, 0, 1, b"\0" * 128),          # operations
            (1, 1, 1, b"\0" * 64), (3, 1, 1, b"\0" * 64), (2, 2, 1, b"\0" * 128),              # formats
            (2, 0, 0, b""), (2, 0, 2, b"\0" * 128), (2, 0, 1, b"\0" * 127), (2, 0, 1, b"\0" * 136), (2, 1, 2, b"\0" * 64),
            (3, 0, 65535, b"\0" * 16), (3, 0, 80, b"\0" * 1280))]                              # counts
        assert all(code in (2, 3) for code in codes), f"codes of malformed requests: {codes}"
        equal(world.raw_request(2, 0, 1, b"\0" * 128, options=b"\x04\x09" + b"\0" * 6), 2, "code of an option that runs out")
        equal(world.raw_request(2, 0, 1, b"\0" * 128, options=b"\x01\x03" + b"\0" * 6), 2, "code of an option of a wrong length")
        after = world.tallyd.counters()
        equal(server.counter(after, "events"), server.counter(before, "events"), "events after malformed requests")
        equal(world.state(), state, "the ledger after malformed requests")
        world.work(5)


@test
def arp_and_icmp_nonsense():
    """Cut and wrong ARP, ICMP and neighbour discovery; then tallyd still answers the right ones."""
    with World() as world:
        wire = Wire()
        state = world.state()
        request = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, mac(netns.CLIENT_MAC), bytes([10, 77, 0, 1]), b"\0" * 6,
                              bytes([10, 77, 0, 2]))
        for length in range(len(request)):
            wire.send(ethernet(request[:length], ETHERTYPE_ARP))
        for position in range(8):
            wire.send(ethernet(request[:position] + bytes([request[position] ^ 0xff]) + request[position + 1:], ETHERTYPE_ARP))
        echo = b"\x08\0\0\0\x12\x34\0\x01" + b"p" * 32
        echo = echo[:2] + struct.pack("!H", internet_checksum(echo)) + echo[4:]
        for length in range(8):
            wire.send(ethernet(ipv4(echo[:length], PROTOCOL_ICMP)))
        wire.send(ethernet(ipv4(echo[:-1] + b"q", PROTOCOL_ICMP)))
        for kind in (135, 136, 128, 133, 255):
            for length in range(0, 40, 3):
                wire.send(ethernet(ipv6(bytes([kind]) + b"\0" * length, next_header=58, hops=255), ETHERTYPE_IPV6))
        wire.send(ethernet(ipv4(echo, PROTOCOL_ICMP)))
        answer = wire.wait_for(lambda frame: frame[12:14] == b"\x08\0" and frame[23] == PROTOCOL_ICMP and frame[34] == 0)
        assert answer is not None and answer[38:] == echo[4:], "no answer to a good echo request"
        equal(world.state(), state, "the ledger after nonsense")


@test
def anything():
    """Random bytes, and good frames with random damage: whatever it is, nothing is executed and tallyd stays."""
    dice = random.Random(seed())
    with World() as world:
        wire = Wire()
        frames = sent_by_client(world, wire)
        state, before = world.state(), world.tallyd.counters()
        for _ in range(2000 if QUICK else 20000):
            frame = bytearray(dice.choice(frames))
            for _ in range(dice.randint(1, 4)):
                frame[dice.randrange(len(frame))] = dice.randrange(256)
            if dice.random() < 0.3:
                frame = frame[:dice.randint(IP, len(frame))]
            if dice.random() < 0.1:
                frame = bytearray(frame[:PAYLOAD] + dice.randbytes(dice.randint(0, 1400)))
            if dice.random() < 0.5:  # so that the damage gets behind the checksums
                frame = bytearray(datagram4(bytes(frame[PAYLOAD:1500]), PORT, **{}))
            wire.send(bytes(frame[:1514]))
        time.sleep(0.3)
        after = world.tallyd.counters()
        equal(server.counter(after, "events"), server.counter(before, "events"), "events after random packets")
        equal(world.state(), state, "the ledger after random packets")
        world.work(20)
        assert world.tallyd.running()


if __name__ == "__main__":
    netns.enter()
    main(server.cleanup)
