/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <xxhash.h>

#include "tests/sim/oracle_internal.h"

#define LATE_GROUPS 16   /**< a due pending transfer may outlive its time by so many groups */
#define LATE_EXPIRIES 64 /**< unless so many are due at once that the node may need more turns */

/* --- as of ------------------------------------------------------------------------------------------------------------------------ */

struct ledger_account *ledger_account_get(const struct oracle *oracle, uint128_t id) {
    return oracle_map_get(&oracle->ledger.account_map, id);
}

struct ledger_transfer *ledger_transfer_get(const struct oracle *oracle, uint128_t id) {
    return oracle_map_get(&oracle->ledger.transfer_map, id);
}

const struct ledger_version *ledger_version_as_of(const struct ledger_account *account,
                                                  position_t before) {
    size_t low = 0, high = account->version_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (account->versions[middle].at < before)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? &account->versions[low - 1] : NULL;
}

bool ledger_account_as_of(const struct ledger_account *account, position_t before,
                          struct account *shown) {
    const struct ledger_version *version = ledger_version_as_of(account, before);
    if (!version)
        return false;
    *shown = account->record;
    shown->debits_pending = version->balances.debits_pending;
    shown->debits_posted = version->balances.debits_posted;
    shown->credits_pending = version->balances.credits_pending;
    shown->credits_posted = version->balances.credits_posted;
    shown->flags = (uint16_t)(version->closed ? shown->flags | ACCOUNT_CLOSED
                                              : shown->flags & ~ACCOUNT_CLOSED);
    return true;
}

enum pending_end ledger_pending_as_of(const struct ledger_transfer *transfer, position_t before) {
    return transfer->end != PENDING_IS_LIVE && transfer->ended < before ? transfer->end
                                                                        : PENDING_IS_LIVE;
}

uint64_t ledger_cursor_as_of(const struct ledger_cursor *cursors, size_t count, position_t before) {
    while (count && cursors[count - 1].at >= before)
        count--;
    return count ? cursors[count - 1].newest : 0;
}

/* --- digests ------------------------------------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x) {
    x ^= x >> 32;
    x *= 0xe9846af9b1a615d1u;
    x ^= x >> 32;
    x *= 0xe9846af9b1a615d1u;
    return x ^ x >> 28;
}

static uint64_t account_hash(const struct oracle *oracle, uint128_t id) {
    return mix((uint64_t)id ^ mix((uint64_t)(id >> 64) ^ oracle->config.hash_seed));
}

unsigned ledger_partition(const struct oracle *oracle, uint128_t account_id) {
    return (unsigned)((account_hash(oracle, account_id) & 0xffffffff) % oracle->config.partitions);
}

static unsigned transfer_partition(const struct oracle *oracle, uint128_t id) {
    return (unsigned)((uint64_t)id & 0xffff) % oracle->config.partitions;
}

static uint128_t record_digest(const struct oracle *oracle, const void *record) {
    XXH128_hash_t hash = XXH3_128bits_withSeed(record, 128, oracle->config.digest_seed);
    return uint128_make(hash.high64, hash.low64);
}

static uint128_t account_digest(const struct oracle *oracle, const struct ledger_account *account) {
    static const uint64_t multipliers[5][2] = {
        {0x8f2c5a1bd3e94f67, 0x4d1f6b82c97a3e05}, {0xc3a7e90f51b846d3, 0x97e5310c6fb2d849},
        {0x5be14c79a8d0326f, 0xe20b97f4318c5da7}, {0xa96d30f28c57eb1d, 0x3b84c6e05f19a7d1},
        {0x71f8d24be609c35b, 0xc85a1e97d4036fb3},
    };
    const struct ledger_version *now = &account->versions[account->version_count - 1];
    const amount_t terms[5] = {now->balances.debits_pending, now->balances.debits_posted,
                               now->balances.credits_pending, now->balances.credits_posted,
                               now->closed};
    uint128_t sum = 0;
    for (unsigned i = 0; i < 5; i++)
        sum += terms[i] * uint128_make(multipliers[i][0], multipliers[i][1]);
    return account->digest + (account_hash(oracle, account->record.id) | 1) * sum;
}

bool ledger_check_digest(struct oracle *oracle, const struct log_group *group,
                         const struct log_record *record) {
    uint32_t partition = u32_at(record->bytes, 4);
    const struct ledger *ledger = &oracle->ledger;
    uint128_t digest = 0;
    uint64_t accounts = 0, pendings = 0;
    for (size_t i = 0; i < ledger->account_count; i++) {
        if (ledger_partition(oracle, ledger->accounts[i]->record.id) == partition) {
            digest += account_digest(oracle, ledger->accounts[i]);
            accounts++;
        }
    }
    for (size_t i = 0; i < ledger->live_count; i++) {
        if (transfer_partition(oracle, ledger->live[i]->record.id) == partition) {
            digest += ledger->live[i]->digest;
            pendings++;
        }
    }
    oracle->counts.digests++;
    if (partition >= oracle->config.partitions || digest != u128_at(record->bytes, 16) ||
        accounts != u64_at(record->bytes, 32) || pendings != u64_at(record->bytes, 40))
        return oracle_fail(
            oracle, "state digest",
            "group %" PRIu64 ", partition %" PRIu32 ": the log says %s of %" PRIu64
            " accounts and %" PRIu64 " live pendings, the ledger %s of %" PRIu64 " and %" PRIu64,
            group->seq, partition, oracle_id(u128_at(record->bytes, 16)), u64_at(record->bytes, 32),
            u64_at(record->bytes, 40), oracle_id(digest), accounts, pendings);
    return true;
}

static void sums_of(const struct oracle *oracle, uint32_t number, struct balances *sums) {
    *sums = (struct balances){0};
    for (size_t i = 0; i < oracle->ledger.account_count; i++) {
        const struct ledger_account *account = oracle->ledger.accounts[i];
        const struct balances *now = &account->versions[account->version_count - 1].balances;
        if (account->record.ledger != number)
            continue;
        sums->debits_pending += now->debits_pending;
        sums->debits_posted += now->debits_posted;
        sums->credits_pending += now->credits_pending;
        sums->credits_posted += now->credits_posted;
    }
}

bool ledger_check_total(struct oracle *oracle, const struct log_group *group, uint32_t number,
                        const struct balances *said) {
    struct balances sums;
    sums_of(oracle, number, &sums);
    oracle->counts.totals++;
    if (memcmp(&sums, said, sizeof(sums)) != 0)
        return oracle_fail(oracle, "ledger total",
                           "group %" PRIu64 ", ledger %" PRIu32
                           ": the log's totals are not the ledger's (debits posted %s, %s)",
                           group->seq, number, oracle_id(said->debits_posted),
                           oracle_id(sums.debits_posted));
    return true;
}

/* --- records ------------------------------------------------------------------------------------------------------------------------- */

static void cursor_push(struct oracle *oracle, bool account, position_t at, uint64_t timestamp) {
    struct ledger *ledger = &oracle->ledger;
    size_t count = account ? ledger->account_cursor_count : ledger->transfer_cursor_count;
    struct ledger_cursor *cursors = account ? ledger->account_cursors : ledger->transfer_cursors;
    uint64_t newest = count ? cursors[count - 1].newest : 0;
    struct ledger_cursor *cursor =
        account ? ORACLE_PUSH(oracle, ledger->account_cursors, ledger->account_cursor_count,
                              ledger->account_cursor_capacity)
                : ORACLE_PUSH(oracle, ledger->transfer_cursors, ledger->transfer_cursor_count,
                              ledger->transfer_cursor_capacity);
    *cursor = (struct ledger_cursor){at, timestamp > newest ? timestamp : newest};
}

static bool apply_account(struct oracle *oracle, const struct log_group *group,
                          const struct log_record *record) {
    struct ledger *ledger = &oracle->ledger;
    const uint8_t *bytes = record->bytes;
    struct account made = {
        .id = u128_at(bytes, 16),
        .user_data_128 = u128_at(bytes, 32),
        .user_data_64 = u64_at(bytes, 48),
        .user_data_32 = u32_at(bytes, 56),
        .ledger = u32_at(bytes, 60),
        .code = u16_at(bytes, 64),
        .flags = u16_at(bytes, 66),
        .timestamp = record->decided,
    };
    if (made.flags & ACCOUNT_IMPORTED)
        made.timestamp = u64_at(bytes, 72);
    if (ledger_account_get(oracle, made.id))
        return oracle_fail(oracle, "INV-4", "account %s is created again in group %" PRIu64,
                           oracle_id(made.id), group->seq);
    if (!explain_account(oracle, group, &made, record->decided))
        return false;
    struct ledger_account *account = oracle_take(oracle, sizeof(*account));
    const position_t at = position_make(group->seq, record->decided);
    account->record = made;
    account->at = at;
    struct account plain = made;
    plain.flags &= (uint16_t)~ACCOUNT_CLOSED;
    account->digest = record_digest(oracle, &plain);
    struct ledger_version *version =
        ORACLE_PUSH(oracle, account->versions, account->version_count, account->version_capacity);
    *version = (struct ledger_version){.at = at, .closed = made.flags & ACCOUNT_CLOSED};
    oracle_map_put(oracle, &ledger->account_map, made.id, account);
    *ORACLE_PUSH(oracle, ledger->accounts, ledger->account_count, ledger->account_capacity) =
        account;
    cursor_push(oracle, true, at, made.timestamp);
    return true;
}

struct parsed {
    struct transfer transfer;
    amount_t pending_amount;
    uint16_t pending_flags;
};

/** Take a transfer or expiry record apart. @return false: malformed */
static bool parse(const struct log_record *record, struct parsed *parsed) {
    const uint8_t *bytes = record->bytes;
    uint16_t presence = u16_at(bytes, 2);
    static const size_t sizes[10] = {8, 16, 8, 8, 8, 16, 16, 8, 8, 8};
    uint128_t fields[10] = {0};
    size_t at = 80;
    if (presence >> 10 || u32_at(bytes, 4) != 0)
        return false;
    for (unsigned bit = 0; bit < 10; bit++) {
        if (!(presence >> bit & 1))
            continue;
        if (at + sizes[bit] > record->length)
            return false;
        fields[bit] = sizes[bit] == 8 ? u64_at(bytes, at) : u128_at(bytes, at);
        at += sizes[bit];
    }
    if (((at + 15) & ~(size_t)15) != record->length || (uint64_t)fields[3] >> 32 ||
        (uint64_t)fields[4] >> 32 || (uint64_t)fields[9] >> 16)
        return false;
    for (; at < record->length; at++) {
        if (bytes[at])
            return false;
    }
    parsed->transfer = (struct transfer){
        .id = u128_at(bytes, 16),
        .debit_account_id = u128_at(bytes, 32),
        .credit_account_id = u128_at(bytes, 48),
        .amount = fields[0] << 64 | u64_at(bytes, 64),
        .pending_id = fields[5],
        .user_data_128 = fields[1],
        .user_data_64 = (uint64_t)fields[2],
        .user_data_32 = (uint32_t)fields[3],
        .timeout = (uint32_t)fields[4],
        .ledger = u32_at(bytes, 72),
        .code = u16_at(bytes, 76),
        .flags = u16_at(bytes, 78),
        .timestamp = presence >> 8 & 1 ? (uint64_t)fields[8] : record->decided,
    };
    parsed->pending_amount = fields[6];
    parsed->pending_flags = (uint16_t)fields[9];
    return true;
}

/** What a record does to one account, on the side where it is. */
struct change {
    amount_t reserve, release, post;
    int closed; /**< 1: closes, -1: reopens */
};

static bool below_floor(const struct ledger_account *account, const struct balances *now) {
    if (account->record.flags & ACCOUNT_DEBITS_MUST_NOT_EXCEED_CREDITS)
        return now->debits_pending + now->debits_posted > now->credits_posted ||
               now->debits_pending + now->debits_posted < now->debits_posted;
    if (account->record.flags & ACCOUNT_CREDITS_MUST_NOT_EXCEED_DEBITS)
        return now->credits_pending + now->credits_posted > now->debits_posted ||
               now->credits_pending + now->credits_posted < now->credits_posted;
    return false;
}

static bool move(struct oracle *oracle, const struct log_group *group, position_t at,
                 struct ledger_account *account, bool debit, const struct change *change) {
    struct ledger_version now = account->versions[account->version_count - 1];
    amount_t *pending = debit ? &now.balances.debits_pending : &now.balances.credits_pending;
    amount_t *posted = debit ? &now.balances.debits_posted : &now.balances.credits_posted;
    now.at = at;
    if (change->release > *pending)
        return oracle_fail(oracle, "INV-1",
                           "group %" PRIu64 ": more is released than account %s had reserved",
                           group->seq, oracle_id(account->record.id));
    *pending += change->reserve - change->release;
    *posted += change->post;
    if (change->closed)
        now.closed = change->closed > 0;
    *ORACLE_PUSH(oracle, account->versions, account->version_count, account->version_capacity) =
        now;
    if (below_floor(account, &now.balances))
        return oracle_fail(
            oracle, "INV-2",
            "group %" PRIu64 ": account %s is below its floor: debits %s pending, "
            "%s posted, credits %s pending, %s posted",
            group->seq, oracle_id(account->record.id), oracle_id(now.balances.debits_pending),
            oracle_id(now.balances.debits_posted), oracle_id(now.balances.credits_pending),
            oracle_id(now.balances.credits_posted));
    return true;
}

static void pending_ends(struct oracle *oracle, struct ledger_transfer *pending,
                         enum pending_end end, uint128_t resolver, position_t at) {
    struct ledger *ledger = &oracle->ledger;
    pending->end = end;
    pending->ended = at;
    pending->resolver = resolver;
    for (size_t i = 0; i < ledger->live_count; i++) {
        if (ledger->live[i] == pending)
            ledger->live[i] = ledger->live[--ledger->live_count];
    }
}

static bool apply_transfer(struct oracle *oracle, const struct log_group *group,
                           const struct log_record *record) {
    struct parsed parsed;
    struct ledger *ledger = &oracle->ledger;
    if (!parse(record, &parsed))
        return oracle_fail(oracle, "format", "group %" PRIu64 " holds a malformed transfer",
                           group->seq);
    const struct transfer *made = &parsed.transfer;
    if (ledger_transfer_get(oracle, made->id))
        return oracle_fail(oracle, "INV-4", "transfer %s takes effect again in group %" PRIu64,
                           oracle_id(made->id), group->seq);
    if (oracle_map_get(&ledger->burnt_map, made->id))
        return oracle_fail(oracle, "INV-4",
                           "transfer %s takes effect in group %" PRIu64 ", its id was burnt",
                           oracle_id(made->id), group->seq);
    if (!explain_transfer(oracle, group, made, record->decided))
        return false;
    struct ledger_account *debit = ledger_account_get(oracle, made->debit_account_id);
    struct ledger_account *credit = ledger_account_get(oracle, made->credit_account_id);
    struct ledger_transfer *stored = oracle_take(oracle, sizeof(*stored));
    const position_t at = position_make(group->seq, record->decided);
    stored->record = *made;
    stored->at = at;
    struct change changes[2] = {{0}};
    bool posts = made->flags & TRANSFER_POST_PENDING, voids = made->flags & TRANSFER_VOID_PENDING;
    if (made->flags & TRANSFER_PENDING) {
        changes[0].reserve = changes[1].reserve = made->amount;
        changes[0].closed = !!(made->flags & TRANSFER_CLOSING_DEBIT);
        changes[1].closed = !!(made->flags & TRANSFER_CLOSING_CREDIT);
        stored->digest = record_digest(oracle, made);
        if (made->timeout)
            stored->expires_at = made->timestamp + made->timeout * NS_PER_SECOND;
        *ORACLE_PUSH(oracle, ledger->live, ledger->live_count, ledger->live_capacity) = stored;
    } else if (posts || voids) {
        struct ledger_transfer *pending = ledger_transfer_get(oracle, made->pending_id);
        if (parsed.pending_amount != pending->record.amount ||
            (voids && parsed.pending_flags != pending->record.flags))
            return oracle_fail(oracle, "INV-1",
                               "group %" PRIu64 ": %s releases %s of pending transfer %s over %s",
                               group->seq, oracle_id(made->id), oracle_id(parsed.pending_amount),
                               oracle_id(made->pending_id), oracle_id(pending->record.amount));
        changes[0].release = changes[1].release = parsed.pending_amount;
        changes[0].post = changes[1].post = posts ? made->amount : 0;
        changes[0].closed = -(voids && pending->record.flags & TRANSFER_CLOSING_DEBIT);
        changes[1].closed = -(voids && pending->record.flags & TRANSFER_CLOSING_CREDIT);
        pending_ends(oracle, pending, posts ? PENDING_IS_POSTED : PENDING_IS_VOIDED, made->id, at);
    } else {
        changes[0].post = changes[1].post = made->amount;
    }
    oracle_map_put(oracle, &ledger->transfer_map, made->id, stored);
    *ORACLE_PUSH(oracle, ledger->transfers, ledger->transfer_count, ledger->transfer_capacity) =
        stored;
    cursor_push(oracle, false, at, made->timestamp);
    return move(oracle, group, at, debit, true, &changes[0]) &&
           move(oracle, group, at, credit, false, &changes[1]);
}

static bool apply_expiry(struct oracle *oracle, const struct log_group *group,
                         const struct log_record *record) {
    struct parsed parsed;
    if (!parse(record, &parsed))
        return oracle_fail(oracle, "format", "group %" PRIu64 " holds a malformed expiry",
                           group->seq);
    struct ledger_transfer *pending = ledger_transfer_get(oracle, parsed.transfer.id);
    if (!pending || !(pending->record.flags & TRANSFER_PENDING))
        return oracle_fail(oracle, "expiry", "group %" PRIu64 ": %s expires and is not pending",
                           group->seq, oracle_id(parsed.transfer.id));
    if (pending->end != PENDING_IS_LIVE)
        return oracle_fail(oracle, "expiry", "group %" PRIu64 ": %s expires and is resolved",
                           group->seq, oracle_id(parsed.transfer.id));
    if (!pending->expires_at || pending->expires_at > record->decided)
        return oracle_fail(
            oracle, "expiry", "group %" PRIu64 ": %s expires at %" PRIu64 ", due at %" PRIu64,
            group->seq, oracle_id(parsed.transfer.id), record->decided, pending->expires_at);
    for (size_t i = 0; i < oracle->ledger.live_count; i++) {
        const struct ledger_transfer *other = oracle->ledger.live[i];
        /* Of several lcores each has an order of its own, and what is out with a traveller cannot expire just then. */
        if (group->lcores == 1 && other->expires_at && other->expires_at < pending->expires_at)
            return oracle_fail(oracle, "expiry", "group %" PRIu64 ": %s expires before %s",
                               group->seq, oracle_id(parsed.transfer.id),
                               oracle_id(other->record.id));
    }
    const struct transfer *said = &parsed.transfer, *known = &pending->record;
    if (said->amount != known->amount || said->debit_account_id != known->debit_account_id ||
        said->credit_account_id != known->credit_account_id || said->ledger != known->ledger ||
        said->code != known->code || said->flags != known->flags)
        return oracle_fail(oracle, "expiry",
                           "group %" PRIu64 ": the expiry of %s is not of what was pending",
                           group->seq, oracle_id(said->id));
    const position_t at = position_make(group->seq, record->decided);
    pending_ends(oracle, pending, PENDING_IS_EXPIRED, 0, at);
    oracle->ledger.expired_count++;
    struct change debit = {.release = known->amount,
                           .closed = -!!(known->flags & TRANSFER_CLOSING_DEBIT)};
    struct change credit = {.release = known->amount,
                            .closed = -!!(known->flags & TRANSFER_CLOSING_CREDIT)};
    return move(oracle, group, at, ledger_account_get(oracle, known->debit_account_id), true,
                &debit) &&
           move(oracle, group, at, ledger_account_get(oracle, known->credit_account_id), false,
                &credit);
}

static bool apply_burnt(struct oracle *oracle, const struct log_group *group,
                        const struct log_record *record) {
    uint128_t id = u128_at(record->bytes, 16);
    uint32_t status = u32_at(record->bytes, 4);
    if (oracle_map_get(&oracle->ledger.burnt_map, id))
        return oracle_fail(oracle, "INV-4", "id %s is burnt again in group %" PRIu64, oracle_id(id),
                           group->seq);
    if (ledger_transfer_get(oracle, id))
        return oracle_fail(oracle, "INV-4", "id %s of a transfer is burnt in group %" PRIu64,
                           oracle_id(id), group->seq);
    if (!explain_burnt(oracle, group, id, status, record->decided))
        return false;
    struct ledger_burnt *burnt = oracle_take(oracle, sizeof(*burnt));
    *burnt = (struct ledger_burnt){id, position_make(group->seq, record->decided), status};
    oracle_map_put(oracle, &oracle->ledger.burnt_map, id, burnt);
    oracle->ledger.burnt_count++;
    return true;
}

bool ledger_apply(struct oracle *oracle, const struct log_group *group,
                  const struct log_record *record) {
    oracle->counts.records++;
    switch (record->bytes[0]) {
    case 1:
        return apply_transfer(oracle, group, record);
    case 2:
        return apply_account(oracle, group, record);
    case 3:
        return apply_expiry(oracle, group, record);
    default:
        return apply_burnt(oracle, group, record);
    }
}

/* --- the end of a group ---------------------------------------------------------------------------------------------------------------- */

static bool check_overdue(struct oracle *oracle, const struct log_group *group) {
    const struct ledger *ledger = &oracle->ledger;
    if (group->seq <= LATE_GROUPS || ledger->live_count > LATE_EXPIRIES)
        return true;
    const struct log_group *earlier = &oracle->groups[group->seq - LATE_GROUPS - 1];
    for (size_t i = 0; i < ledger->live_count; i++) {
        const struct ledger_transfer *pending = ledger->live[i];
        if (pending->expires_at && pending->expires_at <= earlier->cell_time &&
            position_seq(pending->at) <= earlier->seq && earlier->term == group->term)
            return oracle_fail(oracle, "expiry",
                               "%s was due at %" PRIu64 ", before the end of group %" PRIu64
                               ", and is still alive at the end of group %" PRIu64,
                               oracle_id(pending->record.id), pending->expires_at, earlier->seq,
                               group->seq);
    }
    return true;
}

bool ledger_group_end(struct oracle *oracle, const struct log_group *group) {
    uint32_t seen[64];
    size_t seen_count = 0;
    for (size_t i = 0; i < oracle->ledger.account_count; i++) {
        uint32_t number = oracle->ledger.accounts[i]->record.ledger;
        bool known = false;
        for (size_t j = 0; j < seen_count && !known; j++)
            known = seen[j] == number;
        if (known || seen_count == 64)
            continue;
        seen[seen_count++] = number;
        struct balances sums;
        sums_of(oracle, number, &sums);
        if (sums.debits_posted != sums.credits_posted ||
            sums.debits_pending != sums.credits_pending)
            return oracle_fail(oracle, "INV-1",
                               "ledger %" PRIu32 " at the end of group %" PRIu64
                               ": debits %s posted, %s pending, credits %s posted, %s pending",
                               number, group->seq, oracle_id(sums.debits_posted),
                               oracle_id(sums.debits_pending), oracle_id(sums.credits_posted),
                               oracle_id(sums.credits_pending));
    }
    return check_overdue(oracle, group);
}
