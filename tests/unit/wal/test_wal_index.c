/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "tests/lib/test.h"
#include "wal/checkpoint_format.h"
#include "wal/wal_index.h"

/* What is known of the log without reading it: found, forgotten, and carried through a checkpoint. */

#define GROUPS 40000u

static struct checkpoint_chunk chunks[64];
static unsigned chunk_count;

/** Groups of 64 KiB and one page, each an entry of its own; group n in file 1 + n / 15. */
static struct wal_index *filled(unsigned groups) {
    struct wal_index *index = wal_index_new();
    for (unsigned n = 0; n < groups; n++)
        if (wal_index_note(index, 1 + n, 1 + n / 15, n % 15 * 69632, n * 1000) != 0)
            abort();
    return index;
}

static bool export_all(const struct wal_index *index, seq_t seq) {
    struct wal_index_export export = {0};
    for (chunk_count = 0; chunk_count < 64; chunk_count++)
        if (!wal_index_export(index, seq, &export, &chunks[chunk_count]))
            return true;
    return false;
}

static int import_all(struct wal_index *index) {
    int rc = 0;
    for (unsigned i = 0; i < chunk_count && rc == 0; i++)
        rc = wal_index_import(index, &chunks[i]);
    return rc;
}

static void finds_groups(void) {
    struct wal_index *index = wal_index_new();
    CHECK(wal_index_find(index, 1) == NULL && wal_index_oldest(index) == NULL);
    for (unsigned n = 1; n <= 64; n++) /* of one page: an entry for 16 of them */
        CHECK_EQ(wal_index_note(index, n, 1, n * 4096, n), 0);
    CHECK_EQ(wal_index_find(index, 16)->seq, 1);
    CHECK_EQ(wal_index_find(index, 17)->seq, 17);
    CHECK_EQ(wal_index_find(index, 1000)->seq, 49);
    CHECK(wal_index_find(index, 0) == NULL);
    CHECK_EQ(wal_index_note(index, 65, 2, 0, 70), 0); /* a file begins with an entry */
    CHECK_EQ(wal_index_find(index, 65)->file, 2);
    CHECK_EQ(wal_index_oldest(index)->file, 1);
    CHECK_EQ(wal_index_oldest(index)->first_seq, 1);
    CHECK_EQ(wal_index_oldest(index)->last_cell_time, 64);
    wal_index_trim(index, 2);
    CHECK(wal_index_find(index, 64) == NULL);
    CHECK_EQ(wal_index_find(index, 65)->seq, 65);
    CHECK_EQ(wal_index_oldest(index)->first_seq, 65);
    wal_index_trim(index, 9);
    CHECK(wal_index_oldest(index) == NULL && wal_index_find(index, 65) == NULL);
    wal_index_free(index);
}

/** Files come and go for ever: the rings go round. */
static void goes_round(void) {
    struct wal_index *index = wal_index_new();
    for (uint64_t n = 1; n <= 3 * (uint64_t)WAL_INDEX_FILES_MAX; n++) {
        CHECK_EQ(wal_index_note(index, n, n, 0, n), 0);
        if (n > 4)
            wal_index_trim(index, n - 3);
    }
    CHECK_EQ(wal_index_oldest(index)->file, 3 * (uint64_t)WAL_INDEX_FILES_MAX - 3);
    wal_index_free(index);
    index = wal_index_new();
    for (uint64_t n = 1; n <= WAL_INDEX_FILES_MAX; n++)
        CHECK_EQ(wal_index_note(index, n, n, 0, n), 0);
    CHECK_EQ(wal_index_note(index, WAL_INDEX_FILES_MAX + 1, WAL_INDEX_FILES_MAX + 1, 0, 0),
             -ENOSPC);
    wal_index_free(index);
}

static void goes_through_a_checkpoint(void) {
    static const seq_t ends[] = {1, 15, 16, 5461, 20000, GROUPS, GROUPS + 5};
    struct wal_index *index = filled(GROUPS);
    wal_index_trim(index, 3);
    for (unsigned i = 0; i < sizeof(ends) / sizeof(*ends); i++) {
        struct wal_index *again = wal_index_new();
        CHECK(export_all(index, ends[i]));
        CHECK_EQ(import_all(again), 0);
        CHECK_EQ(chunk_count == 0, ends[i] < 31);
        for (seq_t seq = 1; seq <= ends[i] && seq <= GROUPS; seq += 7) {
            const struct wal_index_entry *one = wal_index_find(index, seq),
                                         *other = wal_index_find(again, seq);
            CHECK((one == NULL) == (other == NULL));
            CHECK(one == NULL || memcmp(one, other, sizeof(*one)) == 0);
        }
        if (chunk_count != 0) {
            const struct wal_index_entry *last = wal_index_find(again, UINT64_MAX);
            CHECK(last->seq == ends[i] || last->seq == GROUPS);
            CHECK(memcmp(wal_index_oldest(index), wal_index_oldest(again),
                         sizeof(struct wal_index_file)) == 0);
            /* recovery goes on where it ends */
            CHECK_EQ(wal_index_note(again, last->seq + 1, last->file, last->offset + 69632, 1), 0);
        }
        wal_index_free(again);
    }
    wal_index_free(index);
}

/** The digest says who wrote it, not that it makes sense. */
static void nonsense_is_refused(void) {
    struct wal_index *index = filled(8000), *again;
    CHECK(export_all(index, 8000));
    CHECK_EQ(chunk_count, 3);
    for (unsigned i = 0; i < 9; i++) {
        struct checkpoint_log_file *files = (void *)chunks[0].payload;
        struct checkpoint_log_entry *entries = (void *)chunks[1].payload;
        switch (i) {
        case 0:
            files[3].file = files[2].file;
            break;
        case 1:
            files[3].first_seq = files[2].first_seq;
            break;
        case 2:
            files[7].last_cell_time = 0;
            break;
        case 3:
            files[0].file = 0;
            break;
        case 4:
            entries[9].seq = entries[8].seq;
            break;
        case 5:
            entries[9].file = 70000;
            break;
        case 6:
            entries[16].offset = entries[15].offset;
            break;
        case 7:
            chunks[0].header.records = UINT32_MAX;
            break;
        case 8:
            chunks[1].header.record_bytes = 23;
            break;
        }
        again = wal_index_new();
        CHECK_EQ(import_all(again), -EBADMSG);
        wal_index_free(again);
        CHECK(export_all(index, 8000));
    }
    again = wal_index_new();
    CHECK_EQ(wal_index_import(again, &chunks[1]), -EBADMSG); /* of files that nobody named */
    CHECK_EQ(import_all(again), 0);
    CHECK_EQ(wal_index_import(again, &chunks[0]), -EBADMSG); /* once more */
    wal_index_free(again);
    wal_index_free(index);
}

int main(void) {
    TEST_RUN(finds_groups);
    TEST_RUN(goes_round);
    TEST_RUN(goes_through_a_checkpoint);
    TEST_RUN(nonsense_is_refused);
    return TEST_DONE();
}
