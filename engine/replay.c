/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "engine/base/planted.h"
#include "engine/engine_internal.h"

/** From the log back to the state. Records are outcomes: nothing is decided here, and neither clock nor configuration is read.
 *  An account that a record names before its own record was seen (it may stand in another lcore's segment of the same group) becomes a
 *  stub, which has no ledger; none may be left at the group's end. */

/** Where the state of a replayed record lives: the lcore that owns it now. */
static struct engine_lcore *lcore_of_account(struct engine *engine, uint64_t hash) {
    return &engine->lcores[hash_partition(hash, engine->config.partitions) % engine->config.lcores];
}

static struct account *account_or_stub(struct engine *engine, uint128_t id, uint64_t hash) {
    struct engine_lcore *lcore = lcore_of_account(engine, hash);
    struct account *account = lcore_account_find(lcore, id, hash);
    if (account)
        return account;
    struct partition *partition = partition_of_hash(lcore, hash);
    if (account_reserve(&partition->accounts, &lcore->memory, 1))
        return NULL;
    engine->replay_stubs++;
    return account_insert(&partition->accounts, id, hash);
}

static int replay_account(struct engine *engine, seq_t seq,
                          const struct wal_record_account *record) {
    uint64_t hash = hash_id(record->id, engine->config.hash_seed);
    struct engine_lcore *lcore = lcore_of_account(engine, hash);
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
        return -EBADMSG;
    struct account *stub = lcore_account_find(lcore, record->id, hash);
    if (stub && stub->ledger)
        return -EBADMSG;
    if (!stub)
        return account_apply_create(lcore, &made, hash, (uint32_t)seq) ? 0 : -ENOMEM;
    engine->replay_stubs--;
    return account_fill_stub(lcore, stub, &made, hash, (uint32_t)seq);
}

static int replay_transfer(struct engine *engine, seq_t seq, unsigned writer, uint32_t offset,
                           const void *record, size_t length) {
    struct wal_transfer_fields fields;
    if (wal_record_transfer_decode(record, length, &fields))
        return -EBADMSG;
    const struct transfer *transfer = &fields.transfer;
    unsigned home = transfer_partition(transfer->id, engine->config.partitions);
    struct engine_lcore *lcore = &engine->lcores[home % engine->config.lcores];
    struct partition *partition = &engine->partitions[home];
    struct transfer_outcome outcome = {
        .status = TRANSFER_STATUS_created,
        .timestamp = transfer->timestamp,
        .record = transfer,
        .pending_amount = fields.pending_amount,
        .pending_flags = fields.pending_flags,
    };
    struct transfer_effect effect = {
        .outcome = &outcome,
        .decided = fields.decided,
        .id_hash = hash_transfer_id(transfer->id, engine->config.digest_seed),
        .request_digest = fields.request_digest,
        .debit_hash = hash_id(transfer->debit_account_id, engine->config.hash_seed),
        .credit_hash = hash_id(transfer->credit_account_id, engine->config.hash_seed),
    };
    effect.debit_partition = partition_of_hash(lcore, effect.debit_hash);
    effect.credit_partition = partition_of_hash(lcore, effect.credit_hash);
    if (id_find(&partition->ids, transfer->id, effect.id_hash))
        return -EBADMSG;
    if (!effect.request_digest)
        effect.request_digest =
            transfer_digest(transfer, effect.debit_hash, effect.credit_hash, &lcore->digest_keys);
    if (transfer->flags & (TRANSFER_POST_PENDING | TRANSFER_VOID_PENDING)) {
        struct partition *other =
            &engine
                 ->partitions[transfer_partition(transfer->pending_id, engine->config.partitions)];
        uint32_t slot =
            pending_find(&other->pendings, transfer->pending_id,
                         hash_transfer_id(transfer->pending_id, engine->config.digest_seed), 0);
        if (slot == INDEX_NONE || pending_at(&other->pendings, slot)->state != PENDING_LIVE)
            return -EBADMSG;
    }
    effect.debit = account_or_stub(engine, transfer->debit_account_id, effect.debit_hash);
    effect.credit = account_or_stub(engine, transfer->credit_account_id, effect.credit_hash);
    if (!effect.debit || !effect.credit || ledger_reserve(&lcore->ledgers, &lcore->memory, 1) ||
        id_reserve(&partition->ids, &lcore->memory, transfer->id, 1) ||
        ((transfer->flags & TRANSFER_PENDING) &&
         pending_reserve(&partition->pendings, &lcore->memory, 1)))
        return -ENOMEM;
    transfer_apply(lcore, &effect, wal_place_make(seq, writer, offset), (uint32_t)seq);
    return 0;
}

static int replay_expiry(struct engine *engine, seq_t seq, const void *record, size_t length) {
    struct wal_transfer_fields fields;
    if (wal_record_transfer_decode(record, length, &fields))
        return -EBADMSG;
    uint128_t id = fields.transfer.id;
    unsigned home = transfer_partition(id, engine->config.partitions);
    struct engine_lcore *lcore = &engine->lcores[home % engine->config.lcores];
    struct partition *partition = &engine->partitions[home];
    uint32_t slot =
        pending_find(&partition->pendings, id, hash_transfer_id(id, engine->config.digest_seed), 0);
    if (slot == INDEX_NONE || pending_at(&partition->pendings, slot)->state != PENDING_LIVE)
        return -EBADMSG;
    transfer_expire(lcore, partition, slot, (uint32_t)seq);
    return 0;
}

static int replay_burnt_id(struct engine *engine, wal_place_t place,
                           const struct wal_record_burnt_id *record) {
    unsigned home = transfer_partition(record->id, engine->config.partitions);
    struct engine_lcore *lcore = &engine->lcores[home % engine->config.lcores];
    struct id_table *ids = &engine->partitions[home].ids;
    uint64_t hash = hash_transfer_id(record->id, engine->config.digest_seed);
    if (id_find(ids, record->id, hash))
        return -EBADMSG;
    if (id_reserve(ids, &lcore->memory, record->id, 1))
        return -ENOMEM;
    id_insert(ids, record->id, hash, record->timestamp, 0, place | WAL_PLACE_BURNT);
    return 0;
}

static int replay_partition_digest(struct engine *engine,
                                   const struct wal_record_partition_digest *record) {
    if (record->head.extra >= engine->config.partitions)
        return -EBADMSG;
    struct partition *partition = &engine->partitions[record->head.extra];
    partition->digest_expected_set = true;
    partition->digest_expected = record->digest;
    partition->account_count_expected = record->account_count;
    partition->pending_count_expected = record->pending_count;
    engine->replay_expectations = true;
    return 0;
}

static int replay_ledger_total(struct engine *engine, unsigned writer,
                               const struct wal_record_ledger_total *record) {
    if (writer >= engine->config.lcores)
        return 0; /* Written by more lcores than there are now: only the sum over all could be compared. */
    struct engine_lcore *lcore = &engine->lcores[writer];
    struct ledger_total *total = ledger_find(&lcore->ledgers, record->head.extra);
    if (!total)
        return -EBADMSG;
    total->expected_set = true;
    total->expected = record->sums;
    engine->replay_expectations = true;
    return 0;
}

static size_t fixed_bytes(uint8_t type) {
    switch (type) {
    case WAL_RECORD_ACCOUNT:
        return sizeof(struct wal_record_account);
    case WAL_RECORD_BURNT_ID:
        return sizeof(struct wal_record_burnt_id);
    case WAL_RECORD_PARTITION_DIGEST:
        return sizeof(struct wal_record_partition_digest);
    case WAL_RECORD_LEDGER_TOTAL:
        return sizeof(struct wal_record_ledger_total);
    case WAL_RECORD_START:
        return sizeof(struct wal_record_start);
    default:
        return sizeof(struct wal_record_head);
    }
}

int engine_replay(void *context, seq_t seq, unsigned lcore, uint32_t offset, const void *record,
                  size_t length) {
    struct engine *engine = context;
    uint8_t type = *(const uint8_t *)record;
    if (length < fixed_bytes(type))
        return -EBADMSG;
    switch (type) {
    case WAL_RECORD_TRANSFER:
        return replay_transfer(engine, seq, lcore, offset, record, length);
    case WAL_RECORD_ACCOUNT:
        return replay_account(engine, seq, record);
    case WAL_RECORD_EXPIRY:
        return replay_expiry(engine, seq, record, length);
    case WAL_RECORD_BURNT_ID:
        return replay_burnt_id(engine, wal_place_make(seq, lcore, offset), record);
    case WAL_RECORD_PARTITION_DIGEST:
        return replay_partition_digest(engine, record);
    case WAL_RECORD_LEDGER_TOTAL:
        return replay_ledger_total(engine, lcore, record);
    case WAL_RECORD_START:
    case WAL_RECORD_PADDING:
        return 0;
    default:
        return -EBADMSG;
    }
}

/** What the log says about the state at the end of this group must be so. */
static int check_expectations(struct engine *engine) {
    for (unsigned p = 0; p < engine->config.partitions; p++) {
        struct partition *partition = &engine->partitions[p];
        if (!partition->digest_expected_set)
            continue;
        partition->digest_expected_set = false;
        if (partition->digest != partition->digest_expected ||
            partition->accounts.slab.count != partition->account_count_expected ||
            partition->pendings.live_count != partition->pending_count_expected)
            return -EBADMSG;
        partition->digest_dirty = false;
    }
    for (unsigned i = 0; i < engine->config.lcores; i++) {
        struct ledger_table *ledgers = &engine->lcores[i].ledgers;
        for (uint32_t slot = 0; slot < ledgers->slab.count; slot++) {
            struct ledger_total *total = ledger_at(ledgers, slot);
            if (total->expected_set &&
                memcmp(&total->expected, &total->sums, sizeof(total->sums)) != 0)
                return -EBADMSG;
            total->dirty = total->dirty && !total->expected_set;
            total->expected_set = false;
        }
    }
    engine->replay_expectations = false;
    return 0;
}

int engine_replay_group_end(void *context, seq_t seq, term_t term, uint64_t cell_time,
                            uint64_t horizon_ms) {
    (void)seq;
    (void)term;
    struct engine *engine = context;
    if (engine->replay_stubs)
        return -EBADMSG;
    for (unsigned i = 0; i < engine->config.lcores; i++) {
        struct engine_lcore *lcore = &engine->lcores[i];
        if (cell_time > lcore->cell_time)
            lcore->cell_time = cell_time;
        if (!lcore->id_time || horizon_ms <= lcore->horizon_ms)
            continue;
        lcore->horizon_ms = horizon_ms;
        lcore->forgotten_ms = horizon_ms;
        for (unsigned p = i; p < engine->config.partitions; p += engine->config.lcores) {
            id_forget(&engine->partitions[p].ids, &lcore->memory, horizon_ms, ID_SLICES);
            pending_forget(&engine->partitions[p].pendings, horizon_ms, engine->config.digest_seed,
                           UINT32_MAX);
        }
    }
    return engine->replay_expectations ? check_expectations(engine) : 0;
}

int engine_replay_finish(struct engine *engine, seq_t last_seq, term_t term, uint64_t cell_time,
                         uint64_t horizon_ms) {
    if (engine->replay_stubs)
        return -EBADMSG;
    for (unsigned i = 0; i < engine->config.lcores; i++) {
        struct engine_lcore *lcore = &engine->lcores[i];
        lcore->cell_time = cell_time > lcore->cell_time ? cell_time : lcore->cell_time;
        if (PLANTED(cell_time_falls_at_start))
            lcore->cell_time = 0;
        lcore->last_timestamp = lcore->cell_time;
        lcore->horizon_ms = horizon_ms;
        lcore->commit_seq = last_seq;
        lcore->digests_logged = lcore->cell_time;
        for (unsigned p = i; p < engine->config.partitions; p += engine->config.lcores) {
            uint64_t due = pending_due_ns(&engine->partitions[p].pendings);
            lcore->due_ns = due < lcore->due_ns ? due : lcore->due_ns;
        }
        segment_start(lcore, last_seq + 1);
        atomic_store_explicit(&lcore->lane->cell_time, lcore->cell_time, memory_order_relaxed);
    }
    wal_place_t place;
    struct engine_lcore *first = &engine->lcores[0];
    struct wal_record_start *record = segment_append(first, sizeof(*record), &place);
    *record = (struct wal_record_start){
        .head = {WAL_RECORD_START, sizeof(*record) / WAL_RECORD_ALIGN, 0, 0},
        .timestamp = first->cell_time,
        .term = term,
    };
    atomic_store_explicit(&first->lane->segment_bytes, first->segment_bytes, memory_order_relaxed);
    return 0;
}
