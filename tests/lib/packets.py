# SPDX-License-Identifier: Apache-2.0
"""Ethernet frames by hand, good ones and bad ones, and a raw socket to send and see them (inside tests/lib/netns.py's
network only)."""

import ipaddress
import select
import socket
import struct
import time

import netns

ETHERTYPE_IPV4, ETHERTYPE_ARP, ETHERTYPE_IPV6 = 0x0800, 0x0806, 0x86dd
PROTOCOL_ICMP, PROTOCOL_UDP, PROTOCOL_ICMP6 = 1, 17, 58
ETH_P_ALL = 3


def mac(text):
    return bytes(int(part, 16) for part in text.split(":"))


def internet_checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def ethernet(payload, ethertype=ETHERTYPE_IPV4, to=netns.SERVER_MAC, source=netns.CLIENT_MAC):
    return mac(to) + mac(source) + struct.pack("!H", ethertype) + payload


def ipv4(payload, protocol=PROTOCOL_UDP, to=netns.SERVER4, source=netns.CLIENT4, fragment=0, version=4, header_words=5,
         length=None, checksum=None, options=b"", ttl=64):
    """`fragment` is the whole field: flags and offset. `length` and `checksum` override the true ones."""
    words = header_words + len(options) // 4
    total = 20 + len(options) + len(payload) if length is None else length
    head = struct.pack("!BBHHHBBH4s4s", version << 4 | words, 0, total, 1, fragment, ttl, protocol, 0,
                       socket.inet_aton(source), socket.inet_aton(to)) + options
    value = internet_checksum(head) if checksum is None else checksum
    return head[:10] + struct.pack("!H", value) + head[12:] + payload


def ipv6(payload, next_header=PROTOCOL_UDP, to=netns.SERVER6, source=netns.CLIENT6, length=None, version=6, hops=64):
    return struct.pack("!IHBB16s16s", version << 28, len(payload) if length is None else length, next_header, hops,
                       ipaddress.ip_address(source).packed, ipaddress.ip_address(to).packed) + payload


def pseudo_header(length, protocol, to, source):
    to, source = ipaddress.ip_address(to), ipaddress.ip_address(source)
    if to.version == 4:
        return source.packed + to.packed + struct.pack("!BBH", 0, protocol, length)
    return source.packed + to.packed + struct.pack("!II", length, protocol)


def udp(payload, to_port, from_port=40000, to=netns.SERVER4, source=netns.CLIENT4, length=None, checksum=None):
    total = 8 + len(payload) if length is None else length
    head = struct.pack("!HHHH", from_port, to_port, total, 0)
    if checksum is None:
        checksum = internet_checksum(pseudo_header(8 + len(payload), PROTOCOL_UDP, to, source) + head + payload) or 0xffff
    return head[:6] + struct.pack("!H", checksum) + payload


def datagram4(payload, to_port, **ip_fields):
    """A whole frame with a correct UDP datagram in it."""
    return ethernet(ipv4(udp(payload, to_port), **ip_fields))


def datagram6(payload, to_port, **ip_fields):
    return ethernet(ipv6(udp(payload, to_port, to=netns.SERVER6, source=netns.CLIENT6), **ip_fields), ETHERTYPE_IPV6)


class Wire:
    """A raw socket on the kernel's end of the cable: send frames, and look at those that pass in either direction."""

    def __init__(self, interface=netns.KERNEL_END):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.socket.bind((interface, 0))

    def send(self, frame):
        self.socket.send(frame)

    def frames(self, quiet_s=0.3, count_max=100000):
        """(outgoing, frame) of what has passed, until nothing has for a while."""
        seen = []
        while len(seen) < count_max and select.select([self.socket], [], [], quiet_s)[0]:
            frame, address = self.socket.recvfrom(65536)
            seen.append((address[2] == socket.PACKET_OUTGOING, frame))
        return seen

    def wait_for(self, matches, timeout_s=5.0):
        """The first frame that arrives and matches, or None."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if select.select([self.socket], [], [], max(0.0, end - time.monotonic()))[0]:
                frame, address = self.socket.recvfrom(65536)
                if address[2] != socket.PACKET_OUTGOING and matches(frame):
                    return frame
        return None

    def close(self):
        self.socket.close()
