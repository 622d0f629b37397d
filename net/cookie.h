/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_NET_COOKIE_H
#define TALLY_NET_COOKIE_H

#include <stdbool.h>
#include <stdint.h>

#include "net/packet.h"

/** The stateless cookie of the handshake: it proves that the client receives at the address that it
 *  sends from, and costs the server no memory. 8 bytes of time, then SipHash-2-4 of it, the
 *  address, the port and the client instance. */

struct cookie_key {
    uint64_t words[2]; /**< random */
};

void cookie_make(const struct cookie_key *key, uint64_t now_ns, const struct packet_peer *peer,
                 const uint8_t instance[16], uint8_t cookie[16]);

/** @param issued_ns  when it was made; set if the cookie is good
 *  @return whether it is ours, for this client, and not older than NET_COOKIE_LIFE_NS */
bool cookie_check(const struct cookie_key *key, uint64_t now_ns, const struct packet_peer *peer,
                  const uint8_t instance[16], const uint8_t cookie[16], uint64_t *issued_ns);

/** SipHash-2-4 (Aumasson, Bernstein 2012), 64-bit result. */
uint64_t siphash(const struct cookie_key *key, const void *bytes, size_t length);

#endif
