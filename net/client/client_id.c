/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/hash.h"
#include "net/client/client_internal.h"

/** Transfer ids: 48 bits of cell time in milliseconds, 64 bits that only grow within one, 16
 *  bits of place. */

uint32_t tally_account_partition(const struct tally_client *client, tally_uint128_t account_id) {
    const struct session *session = &client->session;
    return hash_partition(hash_id(account_id, session->hash_seed), session->partitions);
}

/** Cell time as WELCOME told it, and what has passed since: the server refuses ids that are off
 *  from its own clock, not from ours. */
static uint64_t id_now_ms(struct tally_client *client) {
    const struct session *session = &client->session;
    uint64_t passed_ns = client->clock->monotonic_ns(client->clock) - session->opened_ns;
    return (session->cell_time_ns + passed_ns) / NS_PER_MS;
}

static tally_uint128_t id_next(struct tally_client *client, uint16_t place) {
    uint64_t now_ms = id_now_ms(client);
    uint64_t step = 0;
    if (now_ms > client->id_ms) {
        client->id_ms = now_ms;
        client->random->fill(client->random, &client->id_low, sizeof(client->id_low));
        client->id_low >>= 1; /* room to grow within the millisecond */
    } else {
        step = 1 + client_jitter(client);
        if (client->id_low > UINT64_MAX - step)
            client->id_ms++; /* ids may run ahead of time, never back */
        client->id_low += step;
    }
    return ((tally_uint128_t)(client->id_ms & 0xffffffffffffu) << 80) |
           ((tally_uint128_t)client->id_low << 16) | place;
}

tally_uint128_t tally_id(struct tally_client *client, tally_uint128_t home_account_id) {
    return id_next(client, home_account_id
                               ? (uint16_t)tally_account_partition(client, home_account_id)
                               : (uint16_t)(client_jitter(client) % client->session.partitions));
}

tally_uint128_t tally_id_beside(struct tally_client *client, tally_uint128_t transfer_id) {
    return id_next(client, (uint16_t)transfer_id);
}
