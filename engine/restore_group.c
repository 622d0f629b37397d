/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/planted.h"
#include "engine/restore_internal.h"

/** One group's records: what each does to the partitions of one worker. Records are outcomes: nothing is decided here, and neither clock nor
 *  configuration is read. An account that a record names before its own record was seen (it may stand in another lcore's segment of the
 *  same group) becomes a stub, which has no ledger; none may be left at the group's end. */

static int full(struct restore_worker *worker) {
    return restore_fail(worker, -ENOMEM, "%s", restore_full);
}

/** What the log says contradicts the state. */
static int contradiction(struct restore_worker *worker, const char *what) {
    return restore_fail(worker, -EBADMSG, "group %llu %s", (unsigned long long)worker->group.seq,
                        what);
}

/* --- accounts ------------------------------------------------------------------------------------------------------------ */

static struct account *account_lookup(struct partition *partition, uint128_t id, uint64_t hash) {
    uint32_t slot = account_find(&partition->accounts, id, hash);
    return slot == INDEX_NONE ? NULL : account_at(&partition->accounts, slot);
}

struct account *restore_account_known(struct restore_worker *worker, unsigned number, uint128_t id,
                                      uint64_t hash) {
    struct partition *partition = &worker->restore->engine->partitions[number];
    struct account *account = account_lookup(partition, id, hash);
    if (likely(account))
        return account;
    if (account_reserve(&partition->accounts, restore_memory(worker, number), 1) != 0) {
        full(worker);
        return NULL;
    }
    worker->stubs++;
    return account_insert(&partition->accounts, id, hash);
}

static int restore_account(struct restore_worker *worker, const struct wal_record_account *record) {
    const struct engine_config *config = &worker->restore->engine->config;
    uint64_t hash = hash_id(record->id, config->hash_seed);
    unsigned number = hash_partition(hash, config->partitions);
    if (!restore_owns(worker, number))
        return 0;
    struct account made = {
        .id = record->id,
        .user_data_128 = record->user_data_128,
        .user_data_64 = record->user_data_64,
        .user_data_32 = record->user_data_32,
        .ledger = record->ledger,
        .code = record->code,
        .flags = record->flags,
        .timestamp =
            record->flags & ACCOUNT_IMPORTED ? record->imported_timestamp : record->timestamp,
    };
    if (made.ledger == 0 || made.code == 0)
        return contradiction(worker, "creates an account without ledger or code");
    struct partition *partition = &worker->restore->engine->partitions[number];
    struct account *account = account_lookup(partition, record->id, hash);
    if (account && account->ledger)
        return contradiction(worker, "creates an account that exists");
    if (restore_account_note(worker, number, &made) != 0)
        return full(worker);
    struct account_delta delta = {.closed = !!(made.flags & ACCOUNT_CLOSED)};
    partition->digest += partition_account_hash(&made, config->digest_seed);
    partition_digest_delta(partition, hash, &delta);
    made.reserved = (uint32_t)worker->group.seq;
    if (!account) {
        if (account_reserve(&partition->accounts, restore_memory(worker, number), 1) != 0)
            return full(worker);
        account = account_insert(&partition->accounts, record->id, hash);
    } else {
        worker->stubs--;
        made.debits_pending = account->debits_pending;
        made.debits_posted = account->debits_posted;
        made.credits_pending = account->credits_pending;
        made.credits_posted = account->credits_posted;
        made.flags |= account->flags & ACCOUNT_CLOSED;
    }
    *account = made;
    return 0;
}

/** What a transfer does to one of its accounts. (The group in which an account changed last is not kept up here: all that is restored is
 *  committed.) */
static int restore_side(struct restore_worker *worker, uint128_t id, uint32_t ledger,
                        const struct account_delta *delta) {
    const struct engine_config *config = &worker->restore->engine->config;
    uint64_t hash = hash_id(id, config->hash_seed);
    unsigned number = hash_partition(hash, config->partitions);
    if (!restore_owns(worker, number))
        return 0;
    struct account *account = restore_account_known(worker, number, id, hash);
    struct balances *sums = account ? restore_ledger(worker, number, ledger) : NULL;
    if (!sums)
        return full(worker);
    account_apply(account, delta);
    partition_digest_delta(&worker->restore->engine->partitions[number], hash, delta);
    sums->debits_pending += delta->debits_pending;
    sums->debits_posted += delta->debits_posted;
    sums->credits_pending += delta->credits_pending;
    sums->credits_posted += delta->credits_posted;
    return 0;
}

/* --- transfers ----------------------------------------------------------------------------------------------------------- */

/** The id itself, and the pending transfer that it begins. */
static int restore_id(struct restore_worker *worker, const struct wal_transfer_fields *fields,
                      wal_place_t place) {
    const struct engine_config *config = &worker->restore->engine->config;
    const struct transfer *transfer = &fields->transfer;
    unsigned home = transfer_partition(transfer->id, config->partitions);
    if (!restore_owns(worker, home))
        return 0;
    struct partition *partition = &worker->restore->engine->partitions[home];
    struct memory *memory = restore_memory(worker, home);
    uint64_t hash = hash_transfer_id(transfer->id, config->digest_seed);
    bool pending = transfer->flags & TRANSFER_PENDING;
    if (id_find(&partition->ids, transfer->id, hash))
        return contradiction(worker, "creates a transfer whose id was used before");
    if (id_reserve(&partition->ids, memory, transfer->id, 1) ||
        (pending && pending_reserve(&partition->pendings, memory, 1)))
        return full(worker);
    uint64_t digest = fields->request_digest;
    if (!digest)
        digest = transfer_digest(transfer, hash_id(transfer->debit_account_id, config->hash_seed),
                                 hash_id(transfer->credit_account_id, config->hash_seed),
                                 &worker->restore->engine->lcores[0].digest_keys);
    id_insert(&partition->ids, transfer->id, hash, transfer->timestamp, digest, place);
    if (pending) {
        uint32_t slot = pending_insert(&partition->pendings, transfer, hash);
        pending_at(&partition->pendings, slot)->group = (uint32_t)worker->group.seq;
        partition->digest += partition_pending_hash(transfer, config->digest_seed);
        partition->digest_dirty = true;
    }
    return 0;
}

static int told_add(struct restore_worker *worker, struct restore_told *told, const void *record) {
    if (told->count == told->capacity) {
        uint32_t capacity = told->capacity ? told->capacity * 2 : 256;
        const void **records = realloc(told->records, capacity * sizeof(*records));
        if (!records)
            return full(worker);
        told->records = records;
        told->capacity = capacity;
    }
    told->records[told->count++] = record;
    return 0;
}

/** The end of a live pending transfer. `record` names its accounts and ledger, whatever ended it. */
static int restore_resolve(struct restore_worker *worker, uint128_t id, enum pending_state state,
                           const struct wal_transfer_fields *record) {
    const struct engine_config *config = &worker->restore->engine->config;
    unsigned home = transfer_partition(id, config->partitions);
    if (!restore_owns(worker, home))
        return 0;
    struct partition *partition = &worker->restore->engine->partitions[home];
    uint32_t slot =
        pending_find(&partition->pendings, id, hash_transfer_id(id, config->digest_seed), 0);
    if (slot == INDEX_NONE || pending_at(&partition->pendings, slot)->state != PENDING_LIVE)
        return contradiction(worker, "ends a pending transfer that is not there");
    struct pending *pending = pending_at(&partition->pendings, slot);
    const struct transfer *begun = &pending->transfer, *ended = &record->transfer;
    if (begun->debit_account_id != ended->debit_account_id ||
        begun->credit_account_id != ended->credit_account_id || begun->ledger != ended->ledger ||
        begun->amount != record->pending_amount || begun->flags != record->pending_flags)
        return contradiction(worker, "ends a pending transfer as if it were another");
    pending_resolve(&partition->pendings, slot, state, state == PENDING_EXPIRED ? 0 : ended->id);
    pending->group = (uint32_t)worker->group.seq;
    partition->digest -= partition_pending_hash(begun, config->digest_seed);
    partition->digest_dirty = true;
    return 0;
}

/** @param type of the record that says it */
static int restore_ended(struct restore_worker *worker, const struct wal_transfer_fields *fields,
                         uint8_t type) {
    const struct transfer *transfer = &fields->transfer;
    if (type == WAL_RECORD_EXPIRY)
        return restore_resolve(worker, transfer->id, PENDING_EXPIRED, fields);
    return restore_resolve(
        worker, transfer->pending_id,
        transfer->flags & TRANSFER_POST_PENDING ? PENDING_POSTED : PENDING_VOIDED, fields);
}

/** The group's segments have all been seen. */
static int restore_ends(struct restore_worker *worker) {
    int rc = 0;
    for (uint32_t i = 0; i < worker->ends_told.count && !rc; i++) {
        const void *record = worker->ends_told.records[i];
        struct wal_transfer_fields fields;
        uint8_t type = *(const uint8_t *)record;
        if (wal_record_transfer_decode(record, WAL_RECORD_BYTES_MAX, &fields))
            return contradiction(worker, "holds a transfer that is none");
        if (type == WAL_RECORD_EXPIRY) {
            fields.pending_amount = fields.transfer.amount;
            fields.pending_flags = fields.transfer.flags;
        }
        rc = restore_ended(worker, &fields, type);
    }
    worker->ends_told.count = 0;
    return rc;
}

static int restore_sides(struct restore_worker *worker, const struct wal_transfer_fields *fields) {
    const struct transfer *transfer = &fields->transfer;
    struct account_delta debit, credit;
    transfer_deltas(transfer, fields->pending_amount, fields->pending_flags, &debit, &credit);
    int rc = restore_side(worker, transfer->debit_account_id, transfer->ledger, &debit);
    return rc ? rc : restore_side(worker, transfer->credit_account_id, transfer->ledger, &credit);
}

static int restore_transfer(struct restore_worker *worker, const void *record, size_t length,
                            wal_place_t place) {
    const uint16_t resolves = TRANSFER_POST_PENDING | TRANSFER_VOID_PENDING;
    struct wal_transfer_fields fields;
    if (wal_record_transfer_decode(record, length, &fields) || !fields.transfer.ledger)
        return contradiction(worker, "holds a transfer that is none");
    const struct transfer *transfer = &fields.transfer;
    int rc = restore_id(worker, &fields, place);
    if (!rc && (transfer->flags & resolves))
        rc = worker->several ? told_add(worker, &worker->ends_told, record)
                             : restore_ended(worker, &fields, WAL_RECORD_TRANSFER);
    restore_transfer_note(worker, transfer->timestamp);
    if (PLANTED(replay_applies_twice) && !rc)
        rc = restore_sides(worker, &fields);
    return rc ? rc : restore_sides(worker, &fields);
}

/** An expiry undoes what a void would. */
static int restore_expiry(struct restore_worker *worker, const void *record, size_t length) {
    struct wal_transfer_fields fields;
    if (wal_record_transfer_decode(record, length, &fields) || !fields.transfer.ledger)
        return contradiction(worker, "holds an expiry that is none");
    if (PLANTED(replay_drops_expiry))
        return 0;
    fields.pending_amount = fields.transfer.amount;
    fields.pending_flags = fields.transfer.flags;
    int rc = worker->several ? told_add(worker, &worker->ends_told, record)
                             : restore_ended(worker, &fields, WAL_RECORD_EXPIRY);
    fields.transfer.flags = TRANSFER_VOID_PENDING;
    return rc ? rc : restore_sides(worker, &fields);
}

static int restore_burnt_id(struct restore_worker *worker, const struct wal_record_burnt_id *record,
                            wal_place_t place) {
    const struct engine_config *config = &worker->restore->engine->config;
    unsigned home = transfer_partition(record->id, config->partitions);
    if (!restore_owns(worker, home) || PLANTED(replay_drops_burnt_id))
        return 0;
    struct id_table *ids = &worker->restore->engine->partitions[home].ids;
    uint64_t hash = hash_transfer_id(record->id, config->digest_seed);
    if (id_find(ids, record->id, hash))
        return contradiction(worker, "burns an id that was used before");
    if (id_reserve(ids, restore_memory(worker, home), record->id, 1))
        return full(worker);
    id_insert(ids, record->id, hash, record->timestamp, 0, place | WAL_PLACE_BURNT);
    return 0;
}

/* --- what a group says of the state at its end ------------------------------------------------------------------------------ */

/** The log was written under as many partitions as there are now: each is compared by its own worker. */
static int digests_check(struct restore_worker *worker) {
    struct engine *engine = worker->restore->engine;
    for (uint32_t i = 0; i < worker->digests_told.count; i++) {
        const struct wal_record_partition_digest *told = worker->digests_told.records[i];
        if (told->head.extra >= engine->config.partitions)
            return contradiction(worker, "names a partition that there is not");
        struct partition *partition = &engine->partitions[told->head.extra];
        if (!restore_owns(worker, told->head.extra))
            continue;
        if (partition->digest != told->digest ||
            partition->accounts.slab.count != told->account_count ||
            partition->pendings.live_count != told->pending_count)
            return contradiction(worker, "says another state digest than what was restored");
        partition->digest_dirty = false;
    }
    return 0;
}

/** The log was written under another number of partitions. Digests are linear, so where all of those are told of, their sum is the sum of
 *  all that there are now. (A group in which some are missing says nothing that could be compared.) */
static int digests_check_sum(struct restore_worker *worker) {
    struct engine *engine = worker->restore->engine;
    struct restore_total part = {.group = worker->group};
    bool seen[PARTITIONS_MAX] = {false};
    unsigned count = 0;
    for (uint32_t i = 0; i < worker->digests_told.count; i++) {
        const struct wal_record_partition_digest *told = worker->digests_told.records[i];
        if (told->head.extra >= worker->restore->partitions_written || seen[told->head.extra])
            return contradiction(worker, "names a partition that there is not, or names one twice");
        seen[told->head.extra] = true;
        count++;
        part.expected.debits_pending += told->digest;
        part.expected.debits_posted += told->account_count;
        part.expected.credits_pending += told->pending_count;
    }
    if (count < worker->restore->partitions_written)
        return 0;
    for (unsigned p = 0; p < engine->config.partitions; p++) {
        if (!restore_owns(worker, p))
            continue;
        part.sums.debits_pending += engine->partitions[p].digest;
        part.sums.debits_posted += engine->partitions[p].accounts.slab.count;
        part.sums.credits_pending += engine->partitions[p].pendings.live_count;
    }
    return restore_totals_add(worker, &part);
}

static int ledger_order(const void *left, const void *right) {
    const struct wal_record_ledger_total *const *a = left, *const *b = right;
    return (*a)->head.extra < (*b)->head.extra ? -1 : (*a)->head.extra > (*b)->head.extra;
}

/** An lcore logs what it changed itself, and which lcore that was is forgotten with the next start. So a ledger's totals are compared where
 *  every lcore tells its own in the same group: then their sum is what all accounts of the ledger hold. */
static int totals_check(struct restore_worker *worker, uint32_t segments) {
    struct restore_told *told = &worker->totals_told;
    qsort(told->records, told->count, sizeof(*told->records), ledger_order);
    for (uint32_t first = 0, end; first < told->count; first = end) {
        const struct wal_record_ledger_total *record = told->records[first];
        struct restore_total part = {.group = worker->group, .ledger = record->head.extra};
        if (!part.ledger)
            return contradiction(worker, "tells totals of ledger 0");
        for (end = first; end < told->count; end++) {
            record = told->records[end];
            if (record->head.extra != part.ledger)
                break;
            part.expected.debits_pending += record->sums.debits_pending;
            part.expected.debits_posted += record->sums.debits_posted;
            part.expected.credits_pending += record->sums.credits_pending;
            part.expected.credits_posted += record->sums.credits_posted;
        }
        if (end - first != segments)
            continue;
        for (unsigned lcore = 0; lcore < worker->restore->engine->config.lcores; lcore++) {
            const struct balances *sums = restore_ledger_find(worker, lcore, part.ledger);
            if (!sums)
                continue;
            part.sums.debits_pending += sums->debits_pending;
            part.sums.debits_posted += sums->debits_posted;
            part.sums.credits_pending += sums->credits_pending;
            part.sums.credits_posted += sums->credits_posted;
        }
        int rc = restore_totals_add(worker, &part);
        if (rc)
            return rc;
    }
    return 0;
}

/** Let go of what is below the horizon, as far as whole seconds go: looking at every partition takes its time. */
static void forget(struct restore_worker *worker, uint64_t horizon_ms) {
    struct engine *engine = worker->restore->engine;
    worker->horizon_ms = horizon_ms;
    if (!engine->config.id_time || horizon_ms < worker->forgotten_ms + NS_PER_SECOND / NS_PER_MS)
        return;
    worker->forgotten_ms = horizon_ms;
    for (unsigned p = 0; p < engine->config.partitions; p++) {
        if (!restore_owns(worker, p))
            continue;
        id_forget(&engine->partitions[p].ids, restore_memory(worker, p), horizon_ms, ID_SLICES);
        pending_forget(&engine->partitions[p].pendings, horizon_ms, engine->config.digest_seed,
                       UINT32_MAX);
    }
}

static int group_end(struct restore_worker *worker, const struct wal_chained_header *chained) {
    int rc = 0;
    worker->group.record = UINT64_MAX - 1;
    if (worker->stubs)
        return contradiction(worker, "names an account that it never creates");
    worker->group.record = UINT64_MAX;
    if (chained->cell_time > worker->cell_time)
        worker->cell_time = chained->cell_time;
    if (chained->horizon_ms > worker->horizon_ms)
        forget(worker, chained->horizon_ms);
    if (worker->digests_told.count) {
        restore_plain_settle(worker);
        rc = worker->restore->partitions_written == worker->restore->engine->config.partitions
                 ? digests_check(worker)
                 : digests_check_sum(worker);
        worker->digests_told.count = 0;
    }
    if (!rc && worker->totals_told.count)
        rc = totals_check(worker, chained->segment_count);
    worker->totals_told.count = 0;
    return rc;
}

/* --- records ------------------------------------------------------------------------------------------------------------- */

static int restore_record(struct restore_worker *worker, const void *record, size_t length,
                          wal_place_t place) {
    switch (*(const uint8_t *)record) {
    case WAL_RECORD_TRANSFER:
        return restore_transfer(worker, record, length, place);
    case WAL_RECORD_ACCOUNT:
        return restore_account(worker, record);
    case WAL_RECORD_EXPIRY:
        return restore_expiry(worker, record, length);
    case WAL_RECORD_BURNT_ID:
        return restore_burnt_id(worker, record, place);
    case WAL_RECORD_PARTITION_DIGEST:
        return told_add(worker, &worker->digests_told, record);
    case WAL_RECORD_LEDGER_TOTAL:
        return told_add(worker, &worker->totals_told, record);
    case WAL_RECORD_START:
        return 0;
    default:
        return contradiction(worker, "holds a record that is none");
    }
}

static int restore_segment(struct restore_worker *worker, const struct wal_group_view *group,
                           uint32_t lcore) {
    const struct wal_segment_entry *entry = &group->header->chained.segments[lcore];
    const uint8_t *segment = group->body + entry->offset;
    uint32_t records = 0;
    int rc = 0;
    for (uint32_t at = 0; at < entry->length && !rc; records++) {
        const uint8_t *record = segment + at;
        wal_place_t place = wal_place_make(group->header->chained.seq, lcore, at);
        if (likely(restore_is_plain(record, entry->length - at))) {
            rc = restore_plain_add(worker, (const void *)record, place);
            at += (uint32_t)sizeof(struct wal_record_transfer);
            continue;
        }
        rc = restore_plain_flush(worker);
        if (rc)
            break;
        worker->group.record = place;
        size_t length = wal_record_length(record, entry->length - at);
        if (length == 0)
            return contradiction(worker, "holds a record that is none");
        rc = restore_record(worker, record, length, place);
        at += (uint32_t)length;
    }
    worker->group.record = UINT64_MAX;
    if (!rc && records != entry->records)
        rc = contradiction(worker, "does not hold as many records as its header says");
    return rc;
}

int restore_group(struct restore *restore, unsigned index, const struct wal_group_view *group) {
    struct restore_worker *worker = restore_worker(restore, index);
    const struct wal_chained_header *chained = &group->header->chained;
    if (worker->rc)
        return worker->rc;
    worker->group =
        (struct restore_place){chained->seq, group->file, group->file_offset, group->bytes, 0};
    int rc = 0;
    worker->several = chained->segment_count > 1;
    for (uint32_t lcore = 0; lcore < chained->segment_count && !rc; lcore++)
        rc = restore_segment(worker, group, lcore);
    if (!rc)
        rc = restore_plain_flush(worker);
    if (!rc && worker->ends_told.count)
        rc = restore_ends(worker);
    return rc ? rc : group_end(worker, chained);
}
