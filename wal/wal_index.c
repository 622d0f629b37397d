/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "engine/base/check.h"
#include "wal/wal_index.h"

#define CHUNK_ENTRIES                                                                              \
    1024 /**< entries are never moved: a chunk is one small allocation for 64 MiB of log */

struct wal_index {
    struct wal_index_entry **chunks;
    size_t chunk_room; /**< pointers that fit `chunks` */
    size_t count;      /**< entries */
};

struct wal_index *wal_index_new(void) {
    return calloc(1, sizeof(struct wal_index));
}

void wal_index_free(struct wal_index *index) {
    if (index == NULL)
        return;
    for (size_t i = 0; i * CHUNK_ENTRIES < index->count; i++)
        free(index->chunks[i]);
    free(index->chunks);
    free(index);
}

static const struct wal_index_entry *entry_at(const struct wal_index *index, size_t i) {
    return &index->chunks[i / CHUNK_ENTRIES][i % CHUNK_ENTRIES];
}

int wal_index_note(struct wal_index *index, seq_t seq, uint64_t file, uint64_t offset) {
    if (index->count != 0) {
        const struct wal_index_entry *last = entry_at(index, index->count - 1);
        assert(seq > last->seq);
        if (file == last->file && offset - last->offset < WAL_INDEX_BYTES)
            return 0;
    }
    size_t chunk = index->count / CHUNK_ENTRIES;
    if (index->count % CHUNK_ENTRIES == 0) {
        if (chunk == index->chunk_room) {
            size_t room = index->chunk_room ? index->chunk_room * 2 : 64;
            struct wal_index_entry **chunks = realloc(index->chunks, room * sizeof(*chunks));
            if (chunks == NULL)
                return -ENOMEM;
            index->chunks = chunks;
            index->chunk_room = room;
        }
        index->chunks[chunk] = malloc(CHUNK_ENTRIES * sizeof(struct wal_index_entry));
        if (index->chunks[chunk] == NULL)
            return -ENOMEM;
    }
    index->chunks[chunk][index->count % CHUNK_ENTRIES] =
        (struct wal_index_entry){seq, file, offset};
    index->count++;
    return 0;
}

const struct wal_index_entry *wal_index_find(const struct wal_index *index, seq_t seq) {
    size_t
        low = 0,
        high =
            index
                ->count; /* entries before low are at or before seq, those from high on are after it */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (entry_at(index, middle)->seq <= seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low == 0 ? NULL : entry_at(index, low - 1);
}
