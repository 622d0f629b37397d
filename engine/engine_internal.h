/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_ENGINE_INTERNAL_H
#define TALLY_ENGINE_ENGINE_INTERNAL_H

#include "engine/account_decide.h"
#include "engine/checkpoint.h"
#include "engine/engine.h"
#include "engine/exchange.h"
#include "engine/ledger_table.h"
#include "engine/partition.h"
#include "engine/transfer_decide.h"

/** What the files of engine/ share. Reading order: engine.c (queues), execute.c (the turn), transfers.c and accounts.c (gather,
 *  decide, install), chain.c, lookups.c, segment.c (log), checkpoint.c, replay.c. */

#define PREPARE_EVENTS_MAX 48 /**< events whose records are prefetched together */
#define TRANSFER_RECORD_BYTES_MAX                                                                  \
    208 /**< longest record of one transfer: 80 and every optional field, 16-byte aligned */
#define SEGMENT_RESERVE_BYTES (64u << 10) /**< kept free for expiries, digests and totals */
#define ID_AHEAD_MAX_MS 60000u            /**< how far ahead of cell time an id may be */
#define FETCHES_FOR_CREATES                                                                        \
    (WAL_FETCHES_MAX / 4) /**< slots that lookups leave to retries with other fields */
#define EXPIRIES_PER_TURN 64
#define FORGETS_PER_TURN 64
#define CHECKPOINT_CHUNKS_MIN                                                                      \
    32           /**< of an lcore: what the longest chain changes, and some that are being filled */
#define HOLDS 16 /**< groups that can be open or in flight, a power of two */
_Static_assert(HOLDS > WAL_BUFFERS, "a hold list for every group that is not committed");

/** FIFO of requests through their own links. */
struct request_queue {
    struct engine_request *head, *tail;
};

static inline void queue_push(struct request_queue *queue, struct engine_request *request) {
    request->next = NULL;
    if (queue->head)
        queue->tail->next = request;
    else
        queue->head = request;
    queue->tail = request;
}

/** Put all of `first` before what is in the queue. */
static inline void queue_prepend(struct request_queue *queue, struct request_queue *first) {
    if (!first->head)
        return;
    first->tail->next = queue->head;
    if (!queue->head)
        queue->tail = first->tail;
    queue->head = first->head;
    first->head = NULL;
}

static inline struct engine_request *queue_pop(struct request_queue *queue) {
    struct engine_request *request = queue->head;
    if (request)
        queue->head = request->next;
    return request;
}

/** A result that waits for a record from the log. */
struct fetch_slot {
    struct engine_request *request;
    uint32_t event;
    uint32_t free_next;         /**< 1 + next free slot */
    uint64_t digest, timestamp; /**< what was remembered of the id */
};

/** What the first passes over a burst found out about an event. Hints: what does not fit is looked up again. */
struct prepared {
    uint64_t hash[2]; /**< of debit and credit account, or of the account asked for or created */
    struct partition *partition[2]; /**< of the accounts */
    const struct index_line
        *line[2]; /**< where the accounts' index entries stand; NULL: no account there yet */
    struct account *account[2]; /**< NULL: not found yet */
    struct partition *home;     /**< of the transfer's id */
    struct id_hint id;          /**< its hash, and where it will stand */
};

struct chain;
struct checkpoint;
struct travel;

struct engine_lcore {
    /* read-mostly */
    struct engine *engine;
    unsigned index;
    unsigned timestamp_bits; /**< low bits of a timestamp that name the lcore */
    unsigned partition_count;
    uint64_t partition_magic;     /**< hash_partition_magic() */
    struct partition *partitions; /**< the engine's; this lcore touches only those that it owns */
    struct wal_board *board;
    struct wal_lane *lane;
    uint64_t hash_seed, digest_seed;
    struct transfer_digest_keys digest_keys;
    bool id_time;

    /* time */
    uint64_t cell_time;      /**< ns; at or above every timestamp given out */
    uint64_t last_timestamp; /**< ns */
    uint64_t horizon_ms;     /**< of the open group */
    uint64_t digests_logged; /**< ns, cell time */
    uint32_t ledgers_left;   /**< whose totals have not been looked at in this round */
    bool closing;            /**< nothing expires any more */

    /* the open segment */
    seq_t open_group;
    seq_t commit_seq; /**< as last read from the board */
    uint8_t *segment; /**< buffer of the open group */
    uint32_t segment_bytes;
    uint32_t segment_records;
    uint32_t buffer_bytes;
    bool checkpointing; /**< a walk is under way: what changes may have to be saved first */
    uint8_t *buffers[WAL_BUFFERS];

    /* requests */
    struct request_queue queue;   /**< accepted, in order */
    struct request_queue stalled; /**< waiting for a fetch slot */
    struct request_queue held[HOLDS];
    struct request_queue done;
    uint32_t outstanding;
    struct fetch_slot fetches[WAL_FETCHES_MAX];
    uint32_t fetch_free; /**< 1 + first free slot */
    uint32_t fetch_free_count;

    struct prepared prepared[PREPARE_EVENTS_MAX];
    struct chain *chain;
    struct checkpoint *checkpoint; /**< NULL: there are none */
    struct travel *travel;         /**< NULL: the only engine lcore, to which everything belongs */

    /* state beside the partitions */
    struct memory memory;
    struct ledger_table ledgers;
    uint64_t due_ns;                  /**< no expiry is due before */
    uint32_t forget_next;             /**< partition whose turn it is to forget */
    uint64_t forgetting_ms;           /**< horizon for which the round over the partitions began */
    uint64_t forgotten_ms;            /**< every partition has forgotten what is below */
    bool pendings_forgotten;          /**< nothing was left to release in this round */
    uint64_t import_cursor_accounts;  /**< newest timestamp of an account */
    uint64_t import_cursor_transfers; /**< newest timestamp of a transfer */
    struct index
        account_timestamps; /**< every account's timestamp: a bijective hash of it is (tag, slot) */
};

struct engine {
    struct engine_config config;
    struct partition *partitions;
    struct engine_lcore *lcores;
    struct exchange exchange; /**< between the lcores */
};

static inline struct partition *partition_of_hash(const struct engine_lcore *lcore, uint64_t hash) {
    return &lcore->partitions[hash_partition_by(hash, lcore->partition_count,
                                                lcore->partition_magic)];
}

/** Whose memory, ledgers and heaps a partition's are: another lcore's only while this one has all tables to itself. */
static inline struct engine_lcore *partition_lcore(struct engine_lcore *lcore,
                                                   const struct partition *partition) {
    return likely(partition->owner == lcore->index) ? lcore
                                                    : &lcore->engine->lcores[partition->owner];
}

static inline struct partition *partition_of_transfer(const struct engine_lcore *lcore,
                                                      uint128_t id) {
    return &lcore->partitions[hash_partition_by((uint64_t)id & 0xffff, lcore->partition_count,
                                                lcore->partition_magic)];
}

/** The next new timestamp: above all before, at or above cell time, unique in the cell by its low bits. */
static inline uint64_t timestamp_next(const struct engine_lcore *lcore) {
    uint64_t floor =
        lcore->last_timestamp + 1 > lcore->cell_time ? lcore->last_timestamp + 1 : lcore->cell_time;
    uint64_t mask = ((uint64_t)1 << lcore->timestamp_bits) - 1;
    uint64_t timestamp = (floor & ~mask) | lcore->index;
    return timestamp < floor ? timestamp + mask + 1 : timestamp;
}

/** `timestamp` came from timestamp_next(), and maybe others before it. */
static inline void timestamp_given(struct engine_lcore *lcore, uint64_t timestamp) {
    lcore->last_timestamp = timestamp;
    if (timestamp > lcore->cell_time)
        lcore->cell_time = timestamp;
}

static inline uint64_t timestamp_take(struct engine_lcore *lcore) {
    uint64_t timestamp = timestamp_next(lcore);
    timestamp_given(lcore, timestamp);
    return timestamp;
}

/** The group in which a record was changed last, from its low half; 0 when that is committed (or long ago). */
static inline seq_t group_pending(const struct engine_lcore *lcore, uint32_t low) {
    uint32_t behind = low - (uint32_t)lcore->commit_seq;
    return behind - 1 < (uint32_t)(lcore->open_group - lcore->commit_seq)
               ? lcore->commit_seq + behind
               : 0;
}

/** A bound for the group of anything that stands in the tables, or in a traveller's luggage. */
static inline seq_t group_bound(const struct engine_lcore *lcore) {
    if (likely(!lcore->travel))
        return lcore->segment_bytes ? lcore->open_group : lcore->open_group - 1;
    /* another lcore may have logged it in this very group, which is then sealed even if this lcore has nothing for it */
    atomic_store_explicit(&lcore->lane->wanted_group, lcore->open_group, memory_order_relaxed);
    return lcore->open_group;
}

static inline void request_wait_for(struct engine_request *request, seq_t group) {
    if (group > request->wait_group)
        request->wait_group = group;
}

/** The lcore's clock goes past a timestamp that it learnt of: whoever saw the reply to an event asks for the next one later, wherever
 *  that is decided, and so it gets a later timestamp. */
static inline void clock_pass(struct engine_lcore *lcore, uint64_t timestamp) {
    if (timestamp <= lcore->last_timestamp)
        return;
    lcore->last_timestamp = timestamp;
    engine_clock(lcore, timestamp);
}

/* engine.c */
/** A request is executed to its end and nothing is unresolved: hold it until its group is committed. */
void request_hold(struct engine_lcore *lcore, struct engine_request *request);
/** Ask for a record of the log; the answer completes result `event`. A slot must be free. */
void request_fetch(struct engine_lcore *lcore, struct engine_request *request, uint32_t event,
                   const struct id_record *remembered);

/* segment.c: the log buffer of the open group */
/** Whether the open segment has room for `bytes` and its buffer may be written. */
bool segment_has_room(const struct engine_lcore *lcore, size_t bytes);
/** @return where to write `bytes` (a multiple of WAL_RECORD_ALIGN); room must be there */
static inline void *segment_append(struct engine_lcore *lcore, uint32_t bytes, wal_place_t *place) {
    assert(lcore->segment_bytes + bytes <= lcore->buffer_bytes);
    void *record = lcore->segment + lcore->segment_bytes;
    *place = wal_place_make(lcore->open_group, lcore->index, lcore->segment_bytes);
    lcore->segment_bytes += bytes;
    lcore->segment_records++;
    return record;
}
void segment_start(struct engine_lcore *lcore, seq_t group);

/* checkpoint.c */
/** @param chunk_count CHECKPOINT_CHUNKS_MIN .. WAL_CHUNKS_MAX. @return 0 or -ENOMEM */
int checkpoint_open(struct engine_lcore *lcore, unsigned chunk_count);
void checkpoint_close(struct checkpoint *checkpoint);
/** The state as it is now, at the end of the open group, is wanted. */
void checkpoint_begin(struct engine_lcore *lcore);
/** engine_checkpoint() with slices of any length: about so many records. */
unsigned checkpoint_walk(struct engine_lcore *lcore, unsigned records_max);
/** While checkpointing: whether what `events` events may change can be saved, beside what travellers hold. */
bool checkpoint_saves_fit(const struct engine_lcore *lcore, uint32_t events);
/** While checkpointing: whether so many records may be out, each of which may come home changed. They take no chunk of the walk's half,
 *  so that it comes to its end whoever waits. */
bool checkpoint_out_fits(const struct engine_lcore *lcore, uint32_t accounts, uint32_t pendings);
void checkpoint_save_account(struct engine_lcore *lcore, const struct partition *partition,
                             const struct account *account, uint64_t hash);
void checkpoint_save_pending(struct engine_lcore *lcore, const struct partition *partition,
                             uint32_t slot);
static inline bool checkpoint_has_room(const struct engine_lcore *lcore, uint32_t events) {
    return likely(!lcore->checkpointing) || checkpoint_saves_fit(lcore, events);
}
/** Said before an account's balances or flags change, and before a pending transfer's state does or its slot is freed. */
static inline void account_changes(struct engine_lcore *lcore, const struct partition *partition,
                                   const struct account *account, uint64_t hash) {
    if (unlikely(lcore->checkpointing))
        checkpoint_save_account(lcore, partition, account, hash);
}
static inline void pending_changes(struct engine_lcore *lcore, const struct partition *partition,
                                   uint32_t slot) {
    if (unlikely(lcore->checkpointing))
        checkpoint_save_pending(lcore, partition, slot);
}

/* transfers.c */
struct transfer_effect {
    const struct transfer_outcome *outcome;
    uint64_t decided;
    uint64_t id_hash;
    uint64_t request_digest;
    struct account *debit, *credit;
    uint64_t debit_hash, credit_hash;
    struct partition *debit_partition, *credit_partition;
};
/** Both sides of a transfer that moves money at once. */
struct posting {
    struct account *debit, *credit;
    struct partition *debit_partition, *credit_partition;
    uint64_t debit_hash, credit_hash;
};
/** The one case that matters for speed: money moves, and nothing else happens. The ledger's total is the caller's to change. */
static inline void posting_move(struct engine_lcore *lcore, const struct posting *posting,
                                amount_t amount, uint32_t group) {
    account_changes(lcore, posting->debit_partition, posting->debit, posting->debit_hash);
    account_changes(lcore, posting->credit_partition, posting->credit, posting->credit_hash);
    posting->debit->debits_posted += amount;
    posting->credit->credits_posted += amount;
    posting->debit->reserved = posting->credit->reserved = group;
    partition_digest_posted(posting->debit_partition, posting->debit_hash, DIGEST_DEBITS_POSTED,
                            amount);
    partition_digest_posted(posting->credit_partition, posting->credit_hash, DIGEST_CREDITS_POSTED,
                            amount);
}
static inline void ledger_move(struct engine_lcore *lcore, uint32_t ledger, amount_t amount) {
    struct ledger_total *total = ledger_need(&lcore->ledgers, ledger);
    total->dirty = true;
    total->sums.debits_posted += amount;
    total->sums.credits_posted += amount;
}
/** Log a created transfer, an expiry, an id that failed for good. @return where it stands */
wal_place_t transfer_log(struct engine_lcore *lcore, const struct transfer_effect *effect);
wal_place_t transfer_log_expiry(struct engine_lcore *lcore, const struct transfer *pending);
wal_place_t transfer_log_burnt(struct engine_lcore *lcore, uint128_t id, uint64_t decided,
                               uint32_t status);
/** The ledger's totals, as this lcore's decisions change them. */
void total_apply(struct engine_lcore *lcore, uint32_t ledger, const struct account_delta *debit,
                 const struct account_delta *credit);
/** In its own partition a pending transfer begins to live, or ends. */
void pending_started(struct engine_lcore *lcore, const struct transfer *record, uint64_t id_hash,
                     uint32_t group);
void pending_ended(struct engine_lcore *lcore, struct partition *partition, uint32_t slot,
                   enum pending_state state, uint128_t resolver_id, uint32_t group);
/** The part of transfer_gather() that needs no table. @return whether the id's time allows it to be remembered */
bool transfer_gather_times(const struct engine_lcore *lcore, const struct transfer *event,
                           struct transfer_view *view);
enum id_knowledge id_knowledge(const struct id_record *record, uint64_t digest);
/** Log a created transfer, remember its id, and apply it. */
void transfer_install(struct engine_lcore *lcore, const struct transfer_effect *effect);
/** Log and remember that an id failed for good. */
void transfer_burn(struct engine_lcore *lcore, uint128_t id, uint64_t id_hash, uint64_t decided,
                   uint32_t status);
/** Apply a created transfer to the state, logged already. Shared by install and replay. */
void transfer_apply(struct engine_lcore *lcore, const struct transfer_effect *effect,
                    wal_place_t place, uint32_t group);
/** A live pending transfer timed out: apply to the state. */
void transfer_expire(struct engine_lcore *lcore, struct partition *partition, uint32_t slot,
                     uint32_t group);
/** Whether a plain transfer between two existing accounts is created as far as the accounts are asked; `false` decides nothing. */
bool transfer_is_plainly_created(const struct compact_transfer *asked, const struct account *debit,
                                 const struct account *credit);
/** Execute plain transfers the straight way: events request->next_event and following, up to the first one that has to go the general
 *  way. @return how many were executed */
unsigned transfers_execute_plain(struct engine_lcore *lcore, struct engine_request *request,
                                 const struct compact_transfer *asked, struct prepared *prepared,
                                 unsigned count);
/** Execute one transfer that is in no chain. */
void transfer_execute(struct engine_lcore *lcore, struct engine_request *request, uint32_t event,
                      struct prepared *prepared);
/** Gather what one event needs, but for the accounts and the overlay of a chain. */
void transfer_gather(struct engine_lcore *lcore, const struct transfer *event, uint64_t id_hash,
                     uint64_t digest, uint32_t count, struct transfer_view *view);
/** An unlogged outcome's group: what it depended on. */
void transfer_wait(struct engine_lcore *lcore, struct engine_request *request,
                   const struct transfer_view *view, uint32_t status);
struct account *lcore_account_find(struct engine_lcore *lcore, uint128_t id, uint64_t hash);
/** One event as a full record: itself, or expanded into `buffer`. */
const struct transfer *request_transfer(const struct engine_request *request, uint32_t event,
                                        struct transfer *buffer);
/** Expire what is due, in due order. @return how many */
unsigned expire_due(struct engine_lcore *lcore);

/* accounts.c */
void account_install(struct engine_lcore *lcore, const struct account *record, uint64_t hash,
                     uint64_t decided);
/** Create an account in the tables, logged already. Room must be there unless replaying. @return it, or NULL for lack of memory */
struct account *account_apply_create(struct engine_lcore *lcore, const struct account *record,
                                     uint64_t hash, uint32_t group);
void account_execute(struct engine_lcore *lcore, struct engine_request *request, uint32_t event,
                     struct prepared *prepared);
/** @param count how many accounts need room in this one's partition, @param total in all */
void account_gather(struct engine_lcore *lcore, const struct account *event, uint64_t hash,
                    uint32_t count, uint32_t total, struct account_view *view);
/** Remember that accounts have these timestamps. @return 0 or -ENOMEM */
int account_timestamps_add(struct engine_lcore *lcore, const uint64_t *timestamps, uint32_t count);
bool account_timestamp_taken(const struct engine_lcore *lcore, uint64_t timestamp);
/** Room for accounts: `count` in this partition, `total` in all of the lcore. @return 0 or -ENOMEM */
int account_room_reserve(struct engine_lcore *lcore, struct partition *partition, uint32_t count,
                         uint32_t total);
/** @return where it stands */
wal_place_t account_log(struct engine_lcore *lcore, const struct account *record, uint64_t decided);

/* chain.c */
int chain_open(struct chain **chain);
void chain_close(struct chain *chain);
/** Execute a linked chain of `count` events, whole or not at all. */
void chain_execute(struct engine_lcore *lcore, struct engine_request *request, uint32_t first,
                   uint32_t count);

/* prepare.c */
/** Look up the next events of the queue. @return how many, in lcore->prepared */
unsigned prepare_burst(struct engine_lcore *lcore);

/* execute.c */
/** Whether this group's horizon is so far behind that the ids in use would not fit the window. Then it has to be sealed first. */
bool horizon_stale(struct engine_lcore *lcore);
/** Whether the first event is imported. */
bool request_is_imported(const struct engine_request *request);
/** What is wrong with an event before it is looked at on its own: its place in the request, imported or not, its timestamp.
 *  @return the status, or `created` */
uint32_t request_check_event(const struct engine_request *request, uint32_t event,
                             uint64_t decided);

/* lookups.c */
void lookup_account(struct engine_lcore *lcore, struct engine_request *request, uint32_t event,
                    struct prepared *prepared);
void lookup_transfer(struct engine_lcore *lcore, struct engine_request *request, uint32_t event);
/** Complete a result with the record that came back from the log. */
void lookup_fetched(struct engine_lcore *lcore, const struct fetch_slot *slot,
                    const struct wal_fetch *answer);
/** A retry with other fields: now that the recorded ones, and the pending transfer that they resolve (NULL: none), are known. */
void retry_resolve(struct engine_lcore *lcore, struct engine_request *request, uint32_t event,
                   const struct transfer *recorded, const struct transfer *pending);
/** What a lookup found, or NULL. */
void lookup_account_found(struct engine_lcore *lcore, struct engine_request *request,
                          uint32_t event, const struct account *account);
void lookup_transfer_found(struct engine_lcore *lcore, struct engine_request *request,
                           uint32_t event, const struct id_record *record);

#endif
