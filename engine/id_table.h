/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_ID_TABLE_H
#define TALLY_ENGINE_ID_TABLE_H

#include "engine/base/hash.h"
#include "engine/base/index.h"
#include "wal/wal_record.h"

/** The transfer ids that one partition remembers, burnt ones too.
 *  Ids carry time, so they stand in slices of ID_SLICE_MS of id time; when the horizon passes a slice's end, the whole slice goes
 *  at once. With id_time off there is one slice for ever. An id takes a 40-byte record, appended, and an index entry.
 *  Owner: the partition's lcore. Bounds: memory; ID_SLICES cover the hour back, the minute ahead and the current slice. Keeps: INV-4. */

#define ID_SLICE_MS 32768u
#define ID_SLICES 128u /**< power of two; more than (3,600,000 + 60,000) / ID_SLICE_MS + 2 */

/** 40 bytes (in memory only; 8-byte aligned). */
struct id_record {
    uint64_t id[2]; /**< low half first */
    uint64_t
        timestamp; /**< ns, the transfer's; of a burnt id: that of the newest transfer before it in this slice */
    uint64_t digest;   /**< of the requested fields */
    wal_place_t place; /**< WAL_PLACE_BURNT in it: the id failed there and must not be used again */
};
_Static_assert(sizeof(struct id_record) == 40, "a remembered id takes 40 bytes");

struct id_slice {
    uint64_t number; /**< id time / ID_SLICE_MS */
    struct index index;
    struct slab slab;
};

struct id_table {
    struct id_slice *slices[ID_SLICES]; /**< slice n is at n % ID_SLICES; NULL: empty */
    uint64_t oldest;                    /**< no slice below this number exists */
    uint64_t forgotten_end;             /**< every slice ever forgotten is below this number */
    uint64_t count;                     /**< ids remembered, all slices */
    bool id_time;
};

static inline uint64_t id_slice_number(const struct id_table *table, uint128_t id) {
    return table->id_time ? id_time_ms(id) / ID_SLICE_MS : 0;
}

static inline uint32_t id_tag(uint64_t hash) {
    return (uint32_t)(hash >> 32);
}

static inline struct id_record *id_at(const struct id_slice *slice, uint32_t slot) {
    return slab_at(&slice->slab, slot, sizeof(struct id_record));
}

static inline bool id_is_burnt(const struct id_record *record) {
    return record->place & WAL_PLACE_BURNT;
}

/** The slice of an id, or NULL when none of its neighbours in time is remembered. */
static inline struct id_slice *id_slice_of(const struct id_table *table, uint128_t id) {
    uint64_t number = id_slice_number(table, id);
    struct id_slice *slice = table->slices[number % ID_SLICES];
    return slice && slice->number == number ? slice : NULL;
}

/** @param hash hash_transfer_id() of the id. @return its record, or NULL */
static inline const struct id_record *id_find(const struct id_table *table, uint128_t id,
                                              uint64_t hash) {
    const struct id_slice *slice = id_slice_of(table, id);
    if (unlikely(!slice))
        return NULL;
    struct index_cursor cursor;
    for (uint32_t slot = index_first(&slice->index, &cursor, id_tag(hash)); slot != INDEX_NONE;
         slot = index_next(&slice->index, &cursor, id_tag(hash))) {
        const struct id_record *record = id_at(slice, slot);
        if (record->id[0] == (uint64_t)id && record->id[1] == (uint64_t)(id >> 64))
            return record;
    }
    return NULL;
}

/** Make room for `more` ids in the slice of `id`. An older slice in its place is forgotten: it lies ID_SLICES below.
 *  @return 0, or -ENOMEM (also when a newer slice stands in its place) */
int id_reserve(struct id_table *table, struct memory *memory, uint128_t id, uint32_t more);

/** Remember an id that is not there; room must have been reserved. */
void id_insert(struct id_table *table, uint128_t id, uint64_t hash, uint64_t timestamp,
               uint64_t digest, wal_place_t place);

/** Remember an id again just as it was; room must have been reserved. */
void id_restore(struct id_table *table, const struct id_record *record, uint64_t hash);
/** Put the ids of each slice in the order of their timestamps. Control path. @param secret of hash_transfer_id()
 *  @return 0 or -ENOMEM */
int id_sort(struct id_table *table, struct memory *memory, uint64_t secret);

/** Forget slices that lie below the horizon as a whole: at most `slices_max` of them, oldest first.
 *  @return how many were released */
unsigned id_forget(struct id_table *table, struct memory *memory, uint64_t horizon_ms,
                   unsigned slices_max);

/** Oldest slice that holds anything: its first id time in ms; UINT64_MAX when there is none. */
uint64_t id_oldest_ms(const struct id_table *table);

/** Whether some remembered transfer (its id not below the horizon) has exactly this timestamp. Binary search, slice by slice (records stand in the order of their
 *  timestamps, for imported ones must not regress). Only for imported accounts. */
bool id_timestamp_taken(const struct id_table *table, uint64_t timestamp, uint64_t horizon_ms);

void id_release(struct id_table *table, struct memory *memory);

#endif
