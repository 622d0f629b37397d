/* SPDX-License-Identifier: Apache-2.0 */
#include "net/cookie.h"

#include <string.h>

#include "net/protocol.h"

static uint64_t rotate(uint64_t x, unsigned bits) {
    return x << bits | x >> (64 - bits);
}

static void sip_rounds(uint64_t v[4], unsigned rounds) {
    while (rounds-- > 0) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] = rotate(v[0], 32);
        v[2] += v[1];
        v[0] += v[3];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] = rotate(v[2], 32);
    }
}

uint64_t siphash(const struct cookie_key *key, const void *bytes, size_t length) {
    uint64_t v[4] = {
        key->words[0] ^ 0x736f6d6570736575u,
        key->words[1] ^ 0x646f72616e646f6du,
        key->words[0] ^ 0x6c7967656e657261u,
        key->words[1] ^ 0x7465646279746573u,
    };
    const uint8_t *at = bytes;
    size_t left = length;
    uint64_t word;
    for (; left >= 8; at += 8, left -= 8) {
        memcpy(&word, at, 8);
        v[3] ^= word;
        sip_rounds(v, 2);
        v[0] ^= word;
    }
    word = (uint64_t)length << 56;
    for (size_t i = 0; i < left; i++)
        word |= (uint64_t)at[i] << (8 * i);
    v[3] ^= word;
    sip_rounds(v, 2);
    v[0] ^= word;
    v[2] ^= 0xff;
    sip_rounds(v, 4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static uint64_t cookie_hash(const struct cookie_key *key, uint64_t issued_ns,
                            const struct packet_peer *peer, const uint8_t instance[16]) {
    struct {
        uint64_t issued_ns;
        uint8_t instance[16];
        uint8_t ip[16];
        uint16_t port;
        uint16_t family;
        uint32_t zero;
    } bound = {.issued_ns = issued_ns, .port = peer->port, .family = peer->family};
    memcpy(bound.instance, instance, 16);
    memcpy(bound.ip, peer->ip, 16);
    return siphash(key, &bound, sizeof(bound));
}

void cookie_make(const struct cookie_key *key, uint64_t now_ns, const struct packet_peer *peer,
                 const uint8_t instance[16], uint8_t cookie[16]) {
    uint64_t hash = cookie_hash(key, now_ns, peer, instance);
    memcpy(cookie, &now_ns, 8);
    memcpy(cookie + 8, &hash, 8);
}

bool cookie_check(const struct cookie_key *key, uint64_t now_ns, const struct packet_peer *peer,
                  const uint8_t instance[16], const uint8_t cookie[16], uint64_t *issued_ns) {
    uint64_t issued, hash;
    memcpy(&issued, cookie, 8);
    memcpy(&hash, cookie + 8, 8);
    if (issued > now_ns || now_ns - issued > NET_COOKIE_LIFE_NS ||
        hash != cookie_hash(key, issued, peer, instance))
        return false;
    *issued_ns = issued;
    return true;
}
