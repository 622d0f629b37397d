/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>

#include "tests/sim/oracle_internal.h"

/* What a lookup shows: a state of the durable log, as old as real time allows. */

static bool check_account_shown(struct walk *walk, uint128_t id, const uint8_t *shown) {
    const struct ledger_account *known = ledger_account_get(walk->oracle, id);
    for (size_t i = 0; known && i < known->version_count; i++) {
        struct account account;
        /* Each version until the next one. */
        bool last = i + 1 == known->version_count;
        if (!last && known->versions[i + 1].at <= walk->after_at)
            continue;
        ledger_account_as_of(known, known->versions[i].at + 1, &account);
        if (memcmp(&account, shown, sizeof(account)) != 0)
            continue;
        decided_at(walk, known->versions[i].at, true);
        return true;
    }
    return oracle_fail(walk->oracle, "lookup",
                       "account %s is shown as it is not in the durable log after %" PRIu64
                       " (debits posted %s, credits posted %s)",
                       oracle_id(id), walk->after, oracle_id(u128_at(shown, 32)),
                       oracle_id(u128_at(shown, 64)));
}

static bool check_transfer_shown(struct walk *walk, uint128_t id, const uint8_t *shown) {
    const struct ledger_transfer *known = ledger_transfer_get(walk->oracle, id);
    if (!known || memcmp(&known->record, shown, sizeof(known->record)) != 0)
        return oracle_fail(walk->oracle, "lookup",
                           "transfer %s is shown as it is not in the durable log", oracle_id(id));
    decided_at(walk, known->at, true);
    return true;
}

/** The oldest horizon that can be in force from now on. */
static uint64_t horizon_now(const struct walk *walk) {
    const struct oracle *oracle = walk->oracle;
    struct moment moments[MOMENTS_MAX];
    seq_t seq = position_seq(walk->after_at);
    log_moments(oracle, walk->after + 1, moments);
    uint64_t known = seq && seq <= oracle->group_count ? oracle->groups[seq - 1].horizon_ms : 0;
    return moments[0].horizon_ms > known || walk->alone ? moments[0].horizon_ms : known;
}

static bool check_absent(struct walk *walk, uint128_t id) {
    struct oracle *oracle = walk->oracle;
    bool accounts = walk->request->operation == OPERATION_LOOKUP_ACCOUNTS;
    position_t at = ~(position_t)0;
    if (accounts && ledger_account_get(oracle, id))
        at = ledger_account_get(oracle, id)->at;
    if (!accounts && ledger_transfer_get(oracle, id))
        at = ledger_transfer_get(oracle, id)->at;
    if (at <= walk->after_at)
        return oracle_fail(oracle, "lookup",
                           "%s is answered `absent`, it was there before %" PRIu64, oracle_id(id),
                           walk->after);
    if (!accounts && oracle->config.id_time && id_time_ms(id) < horizon_now(walk))
        return oracle_fail(oracle, "lookup",
                           "transfer %s is answered `absent`, its id is below the horizon",
                           oracle_id(id));
    return true;
}

static bool check_expired(struct walk *walk, uint128_t id) {
    const struct oracle *oracle = walk->oracle;
    seq_t seq = walk->request->token_seq;
    if (walk->request->operation == OPERATION_LOOKUP_TRANSFERS && oracle->config.id_time && seq &&
        id_time_ms(id) < oracle->groups[seq - 1].horizon_ms)
        return true;
    return oracle_fail(walk->oracle, "lookup",
                       "transfer %s is answered `expired`, it is not below the horizon of group "
                       "%" PRIu64,
                       oracle_id(id), seq);
}

bool lookups_check(struct walk *walk) {
    struct net_request *request = walk->request;
    bool accounts = request->operation == OPERATION_LOOKUP_ACCOUNTS;
    for (uint32_t i = 0; i < request->event_count; i++) {
        uint128_t id = request->ids[i];
        const uint8_t *shown = request->entries[i] + 16;
        uint32_t status = u32_at(request->entries[i], 8);
        bool found = status == LOOKUP_STATUS_found;
        walk->oracle->counts.lookups++;
        if (request->entry_bytes[i] != (found ? 144u : 16u) ||
            u64_at(request->entries[i], 0) != (found ? u64_at(shown, 120) : 0) ||
            u32_at(request->entries[i], 12) != 0)
            return oracle_fail(walk->oracle, "reply",
                               "request %" PRIu64 ": entry %" PRIu32 " of a lookup is malformed",
                               request->number, i);
        bool right = found ? (accounts ? check_account_shown(walk, id, shown)
                                       : check_transfer_shown(walk, id, shown))
                     : status == LOOKUP_STATUS_absent ? check_absent(walk, id)
                     : status == LOOKUP_STATUS_expired
                         ? check_expired(walk, id)
                         : oracle_fail(walk->oracle, "reply", "lookup status %" PRIu32, status);
        if (!right)
            return false;
    }
    return true;
}

/* --- what applications are told ---------------------------------------------------------------------------------------------------- */

bool oracle_told_created(struct oracle *oracle, bool account, uint128_t id, uint32_t status,
                         uint64_t timestamp) {
    const uint32_t exists =
        account ? (uint32_t)ACCOUNT_STATUS_exists : (uint32_t)TRANSFER_STATUS_exists;
    uint64_t known = 0;
    if (oracle->violation[0])
        return false;
    if (oracle->lost)
        return true;
    if (status == TRANSFER_STATUS_created || status == exists) {
        const struct ledger_account *made = account ? ledger_account_get(oracle, id) : NULL;
        const struct ledger_transfer *moved = account ? NULL : ledger_transfer_get(oracle, id);
        known = made ? made->record.timestamp : moved ? moved->record.timestamp : 0;
    } else if (!account && status_burns(status)) {
        const struct ledger_burnt *burnt = oracle_map_get(&oracle->ledger.burnt_map, id);
        known = burnt && burnt->status == status ? position_decided(burnt->at) : 0;
    } else {
        return true;
    }
    return known == timestamp || oracle_fail(oracle, "told",
                                             "an application is told status %" PRIu32 " at %" PRIu64
                                             " of %s, the durable log says %" PRIu64,
                                             status, timestamp, oracle_id(id), known);
}

bool oracle_told_found(struct oracle *oracle, bool account, const void *record) {
    uint128_t id = u128_at(record, 0);
    const struct ledger_account *made = account ? ledger_account_get(oracle, id) : NULL;
    const struct ledger_transfer *moved = account ? NULL : ledger_transfer_get(oracle, id);
    bool known = moved && memcmp(&moved->record, record, sizeof(moved->record)) == 0;
    if (oracle->violation[0])
        return false;
    for (size_t i = 0; made && i < made->version_count && !known; i++) {
        struct account shown;
        ledger_account_as_of(made, made->versions[i].at + 1, &shown);
        known = memcmp(&shown, record, sizeof(shown)) == 0;
    }
    return known || oracle->lost ||
           oracle_fail(oracle, "told", "an application is shown %s as it never was", oracle_id(id));
}
