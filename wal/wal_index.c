/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/base/check.h"
#include "wal/checkpoint_format.h"
#include "wal/wal_index.h"

#define ENTRIES_BYTES (WAL_INDEX_ENTRIES_MAX * sizeof(struct wal_index_entry))
#define FILES_BYTES (WAL_INDEX_FILES_MAX * sizeof(struct wal_index_file))

_Static_assert((WAL_INDEX_ENTRIES_MAX & (WAL_INDEX_ENTRIES_MAX - 1)) == 0 &&
                   (WAL_INDEX_FILES_MAX & (WAL_INDEX_FILES_MAX - 1)) == 0,
               "ring indices run freely");
_Static_assert(sizeof(struct wal_index_entry) == sizeof(struct checkpoint_log_entry) &&
                   offsetof(struct wal_index_entry, offset) ==
                       offsetof(struct checkpoint_log_entry, offset),
               "exported as they are");
_Static_assert(sizeof(struct wal_index_file) == sizeof(struct checkpoint_log_file) &&
                   offsetof(struct wal_index_file, last_cell_time) ==
                       offsetof(struct checkpoint_log_file, last_cell_time),
               "exported as they are");

struct wal_index {
    struct wal_index_entry *entries; /**< rings of the sizes above */
    struct wal_index_file *files;
    uint32_t entries_first, entry_count;
    uint32_t files_first, file_count;
};

/** Address space; memory comes page by page when it is touched. */
static void *reserve(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    /* clearing a huge page would hold a turn up */
    madvise(memory, bytes, MADV_NOHUGEPAGE);
    return memory;
}

struct wal_index *wal_index_new(void) {
    struct wal_index *index = calloc(1, sizeof(*index));
    if (index == NULL)
        return NULL;
    index->entries = reserve(ENTRIES_BYTES);
    index->files = reserve(FILES_BYTES);
    if (index->entries != NULL && index->files != NULL)
        return index;
    wal_index_free(index);
    return NULL;
}

void wal_index_free(struct wal_index *index) {
    if (index == NULL)
        return;
    if (index->entries != NULL)
        munmap(index->entries, ENTRIES_BYTES);
    if (index->files != NULL)
        munmap(index->files, FILES_BYTES);
    free(index);
}

static struct wal_index_entry *entry_at(const struct wal_index *index, uint32_t i) {
    return &index->entries[(index->entries_first + i) % WAL_INDEX_ENTRIES_MAX];
}

static struct wal_index_file *file_at(const struct wal_index *index, uint32_t i) {
    return &index->files[(index->files_first + i) % WAL_INDEX_FILES_MAX];
}

static int note_file(struct wal_index *index, seq_t seq, uint64_t file, uint64_t cell_time) {
    struct wal_index_file *last =
        index->file_count == 0 ? NULL : file_at(index, index->file_count - 1);
    assert(last == NULL || file >= last->file);
    if (last != NULL && file == last->file) {
        if (cell_time > last->last_cell_time)
            last->last_cell_time = cell_time;
        return 0;
    }
    if (index->file_count == WAL_INDEX_FILES_MAX)
        return -ENOSPC;
    *file_at(index, index->file_count++) = (struct wal_index_file){file, seq, cell_time};
    return 0;
}

int wal_index_note(struct wal_index *index, seq_t seq, uint64_t file, uint64_t offset,
                   uint64_t cell_time) {
    int rc = note_file(index, seq, file, cell_time);
    if (rc != 0)
        return rc;
    if (index->entry_count != 0) {
        const struct wal_index_entry *last = entry_at(index, index->entry_count - 1);
        assert(seq > last->seq);
        if (file == last->file && offset - last->offset < WAL_INDEX_BYTES)
            return 0;
    }
    if (index->entry_count < WAL_INDEX_ENTRIES_MAX)
        *entry_at(index, index->entry_count++) = (struct wal_index_entry){seq, file, offset};
    return 0;
}

/** Entries at or before a group. */
static uint32_t entries_up_to(const struct wal_index *index, seq_t seq) {
    uint32_t low = 0, high = index->entry_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (entry_at(index, middle)->seq <= seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct wal_index_entry *wal_index_find(const struct wal_index *index, seq_t seq) {
    uint32_t count = entries_up_to(index, seq);
    return count == 0 ? NULL : entry_at(index, count - 1);
}

const struct wal_index_file *wal_index_oldest(const struct wal_index *index) {
    return index->file_count == 0 ? NULL : file_at(index, 0);
}

void wal_index_trim(struct wal_index *index, uint64_t file) {
    uint32_t low = 0, high = index->entry_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (entry_at(index, middle)->file < file)
            low = middle + 1;
        else
            high = middle;
    }
    index->entries_first += low;
    index->entry_count -= low;
    for (; index->file_count != 0 && file_at(index, 0)->file < file; index->file_count--)
        index->files_first++;
}

/* --- into checkpoints and out of them ------------------------------------------------------------------------------ */

#define FILES_A_CHUNK ((uint32_t)(CHECKPOINT_PAYLOAD_BYTES / sizeof(struct checkpoint_log_file)))
#define ENTRIES_A_CHUNK ((uint32_t)(CHECKPOINT_PAYLOAD_BYTES / sizeof(struct checkpoint_log_entry)))

int wal_index_export(const struct wal_index *index, seq_t seq, struct wal_index_export *export,
                     struct checkpoint_chunk *chunk) {
    struct checkpoint_chunk_header *header = &chunk->header;
    uint32_t count = 0;
    if (export->files < index->file_count && file_at(index, export->files)->first_seq <= seq) {
        header->kind = CHECKPOINT_LOG_FILES;
        header->record_bytes = sizeof(struct checkpoint_log_file);
        for (; count < FILES_A_CHUNK && export->files < index->file_count &&
               file_at(index, export->files)->first_seq <= seq;
             count++)
            memcpy(chunk->payload + count * sizeof(struct checkpoint_log_file),
                   file_at(index, export->files++), sizeof(struct checkpoint_log_file));
    } else {
        uint32_t left = entries_up_to(index, seq) - export->entries;
        header->kind = CHECKPOINT_LOG_INDEX;
        header->record_bytes = sizeof(struct checkpoint_log_entry);
        for (; count < ENTRIES_A_CHUNK && count < left; count++)
            memcpy(chunk->payload + count * sizeof(struct checkpoint_log_entry),
                   entry_at(index, export->entries++), sizeof(struct checkpoint_log_entry));
    }
    header->records = count;
    return count != 0;
}

static int import_files(struct wal_index *index, const struct checkpoint_chunk *chunk) {
    for (uint32_t i = 0; i < chunk->header.records; i++) {
        struct wal_index_file record;
        memcpy(&record, chunk->payload + i * sizeof(record), sizeof(record));
        const struct wal_index_file *last =
            index->file_count == 0 ? NULL : file_at(index, index->file_count - 1);
        if (record.file == 0 || record.first_seq == 0 || index->entry_count != 0)
            return -EBADMSG;
        if (last != NULL && (record.file <= last->file || record.first_seq <= last->first_seq ||
                             record.last_cell_time < last->last_cell_time))
            return -EBADMSG;
        int rc = note_file(index, record.first_seq, record.file, record.last_cell_time);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int import_entries(struct wal_index *index, const struct checkpoint_chunk *chunk) {
    for (uint32_t i = 0; i < chunk->header.records; i++) {
        struct wal_index_entry record;
        memcpy(&record, chunk->payload + i * sizeof(record), sizeof(record));
        const struct wal_index_entry *last =
            index->entry_count == 0 ? NULL : entry_at(index, index->entry_count - 1);
        if (index->file_count == 0 || record.seq < file_at(index, 0)->first_seq ||
            record.file < file_at(index, 0)->file ||
            record.file > file_at(index, index->file_count - 1)->file)
            return -EBADMSG;
        if (last != NULL && (record.seq <= last->seq || record.file < last->file ||
                             (record.file == last->file && record.offset <= last->offset)))
            return -EBADMSG;
        if (index->entry_count == WAL_INDEX_ENTRIES_MAX)
            return -ENOSPC;
        *entry_at(index, index->entry_count++) = record;
    }
    return 0;
}

int wal_index_import(struct wal_index *index, const struct checkpoint_chunk *chunk) {
    const struct checkpoint_chunk_header *header = &chunk->header;
    if (header->kind == CHECKPOINT_LOG_FILES &&
        header->record_bytes == sizeof(struct checkpoint_log_file) &&
        header->records <= FILES_A_CHUNK)
        return import_files(index, chunk);
    if (header->kind == CHECKPOINT_LOG_INDEX &&
        header->record_bytes == sizeof(struct checkpoint_log_entry) &&
        header->records <= ENTRIES_A_CHUNK)
        return import_entries(index, chunk);
    return -EBADMSG;
}
