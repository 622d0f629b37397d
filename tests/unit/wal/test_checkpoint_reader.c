/* SPDX-License-Identifier: Apache-2.0 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <errno.h>

#include "tests/lib/test.h"
#include "wal/checkpoint_check.h"
#include "wal/checkpoint_reader.h"
#include "wal/disk_memory.h"

/** Chunks read in order while others are still held, and anything that can be wrong with the file. */

#define SEQ 99
#define CHUNKS_MAX 300 /**< more than the reader's memory holds */

static struct disk *disk;
static struct checkpoint_manifest manifest;
static struct checkpoint_chunk *chunks;
static char error[256];
static const uint64_t file = (uint64_t)DISK_CHECKPOINT_DATA << DISK_KIND_SHIFT | SEQ;

static void digest_all(void) {
    XXH3_state_t *state = XXH3_createState();
    XXH128_canonical_t canonical;
    XXH3_128bits_reset(state);
    for (uint64_t i = 0; i < manifest.chunk_count; i++)
        XXH3_128bits_update(state, chunks[i].digest, sizeof(chunks[i].digest));
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state));
    XXH3_freeState(state);
    memcpy(manifest.data_digest, canonical.digest, sizeof(manifest.data_digest));
}

static void make(uint64_t count) {
    uint64_t size;
    manifest = (struct checkpoint_manifest){.version = CHECKPOINT_FORMAT_VERSION,
                                            .seq = SEQ,
                                            .cell_id = {1, 2},
                                            .chunk_count = count,
                                            .partitions = 4,
                                            .lcores = 2};
    if (disk_memory_open(&disk) != 0 ||
        disk_memory_resize(disk, file, count * CHECKPOINT_CHUNK_BYTES) != 0)
        abort();
    chunks = (void *)disk_memory_bytes(disk, file, &size);
    for (uint64_t i = 0; i < count; i++) {
        chunks[i].header =
            (struct checkpoint_chunk_header){.magic = CHECKPOINT_CHUNK_MAGIC,
                                             .version = CHECKPOINT_FORMAT_VERSION,
                                             .kind = CHECKPOINT_IDS,
                                             .lcore = i % 2,
                                             .seq = SEQ,
                                             .number = i,
                                             .records = 1 + (uint32_t)(i % 1000),
                                             .record_bytes = sizeof(struct checkpoint_id),
                                             .partition_last = 3,
                                             .cell_id = {1, 2}};
        memset(chunks[i].payload, (int)(i * 7), 64);
        checkpoint_chunk_seal(&chunks[i]);
    }
    digest_all();
}

/** Read all, holding up to `hold` chunks. @return what reading ended with; `read` tells how many chunks came before */
static int read_all(uint64_t hold, uint64_t *read) {
    static const struct checkpoint_chunk *held[CHUNKS_MAX];
    struct checkpoint_reader *reader;
    uint64_t released = 0;
    *read = 0;
    error[0] = '\0';
    int rc = checkpoint_reader_open(disk, &manifest, CHECKPOINT_READER_BYTES, &reader, error,
                                    sizeof(error));
    if (rc)
        return rc;
    for (;;) {
        rc = checkpoint_reader_next(reader, &held[*read], error, sizeof(error));
        if (rc == 1 && held[*read]->header.number != *read)
            abort();
        if (rc == 1)
            ++*read;
        else if (rc != -EAGAIN)
            break;
        if (rc == -EAGAIN && *read == released)
            abort();
        while (*read - released > hold || (rc == -EAGAIN && released < *read)) {
            if (memcmp(held[released], &chunks[released], CHECKPOINT_CHUNK_BYTES) != 0)
                abort();
            checkpoint_reader_release(reader, ++released);
        }
    }
    checkpoint_reader_close(reader);
    return rc;
}

static void test_every_size_and_hold(void) {
    static const uint64_t sizes[] = {1, 7, 8, 9, 127, 128, 129, CHUNKS_MAX};
    static const uint64_t holds[] = {0, 1, 5, 60, 127, 128, CHUNKS_MAX};
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        make(sizes[i]);
        for (unsigned h = 0; h < sizeof(holds) / sizeof(holds[0]); h++) {
            uint64_t read;
            CHECK_EQ(read_all(holds[h], &read), 0);
            CHECK_EQ(read, sizes[i]);
        }
        disk_memory_close(disk);
    }
}

/** A bit anywhere in a chunk: all before it come, and its bytes are named. */
static void test_flipped_bits(void) {
    uint64_t random = test_seed(61), read;
    make(20);
    for (unsigned round = 0; round < 300; round++) {
        uint64_t number = test_random(&random) % 20;
        uint64_t at =
            test_random(&random) % (test_random(&random) % 2 ? 80 : CHECKPOINT_CHUNK_BYTES);
        uint8_t *byte = (uint8_t *)&chunks[number] + at, mask = (uint8_t)(1u << (round % 8));
        char place[64];
        *byte ^= mask;
        CHECK_EQ(read_all(3, &read), -EBADMSG);
        CHECK_EQ(read, number);
        snprintf(place, sizeof(place), "bytes %llu..%llu",
                 (unsigned long long)(number * CHECKPOINT_CHUNK_BYTES),
                 (unsigned long long)((number + 1) * CHECKPOINT_CHUNK_BYTES));
        CHECK(strstr(error, place) && strstr(error, disk->name(disk, file)));
        *byte ^= mask;
    }
    CHECK_EQ(read_all(3, &read), 0);
    disk_memory_close(disk);
}

static void swapped(void) {
    struct checkpoint_chunk first = chunks[3];
    chunks[3] = chunks[4];
    chunks[4] = first;
}
static void of_another_cell(void) {
    chunks[3].header.cell_id[5] = 1;
    checkpoint_chunk_seal(&chunks[3]);
}
static void of_a_newer_format(void) {
    chunks[3].header.version++;
    checkpoint_chunk_seal(&chunks[3]);
}
static void of_another_checkpoint(void) {
    chunks[3].header.seq++;
    checkpoint_chunk_seal(&chunks[3]);
}
static void of_no_kind(void) {
    chunks[3].header.kind = 77;
    checkpoint_chunk_seal(&chunks[3]);
}
static void too_many_records(void) {
    chunks[3].header.records = 1 << 20;
    wal_digest(&chunks[3], offsetof(struct checkpoint_chunk, digest), chunks[3].digest);
}
static void of_no_lcore(void) {
    chunks[3].header.lcore = 2;
    checkpoint_chunk_seal(&chunks[3]);
}
static void zero(void) {
    memset(&chunks[3], 0, sizeof(chunks[3]));
}
/** Whole by itself, but not the one that was published. */
static void exchanged(void) {
    chunks[3].payload[5] ^= 1;
    checkpoint_chunk_seal(&chunks[3]);
}

static void test_wrong_chunks(void) {
    static const struct {
        void (*make)(void);
        int rc;
        uint64_t read;
    } cases[] = {
        {swapped, -EBADMSG, 3},           {of_another_cell, -EPERM, 3},
        {of_a_newer_format, -ENOTSUP, 3}, {of_another_checkpoint, -EBADMSG, 3},
        {of_no_kind, -EBADMSG, 3},        {too_many_records, -EBADMSG, 3},
        {of_no_lcore, -EBADMSG, 3},       {zero, -EBADMSG, 3},
        {exchanged, -EBADMSG, 20},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t read;
        make(20);
        cases[i].make();
        CHECK_EQ(read_all(2, &read), cases[i].rc);
        CHECK_EQ(read, cases[i].read);
        CHECK(error[0] && strstr(error, disk->name(disk, file)));
        disk_memory_close(disk);
    }
}

static void test_wrong_sizes(void) {
    uint64_t read;
    make(20);
    disk_memory_resize(disk, file, 20 * CHECKPOINT_CHUNK_BYTES - 4096);
    CHECK_EQ(read_all(2, &read), -EBADMSG);
    disk_memory_resize(disk, file, 21 * CHECKPOINT_CHUNK_BYTES);
    CHECK_EQ(read_all(2, &read), -EBADMSG);
    CHECK(error[0]);
    disk_memory_remove(disk, file);
    CHECK_EQ(read_all(2, &read), -ENOENT);
    CHECK(error[0]);
    disk_memory_close(disk);
}

static void test_reads_that_fail(void) {
    uint64_t read;
    make(40);
    for (unsigned n = 1; n <= 5; n++) {
        disk_memory_faults(disk)->fail_read_at = n;
        CHECK_EQ(read_all(2, &read), -EIO);
        CHECK_EQ(read, (n - 1) * 8);
        CHECK(error[0]);
        disk_memory_faults(disk)->fail_read_at = 0;
    }
    CHECK_EQ(read_all(2, &read), 0);
    disk_memory_close(disk);
}

/** Closed while reads are on their way. */
static void test_closed_early(void) {
    struct checkpoint_reader *reader;
    const struct checkpoint_chunk *chunk;
    make(CHUNKS_MAX);
    CHECK_EQ(checkpoint_reader_open(disk, &manifest, CHECKPOINT_READER_BYTES, &reader, error,
                                    sizeof(error)),
             0);
    CHECK_EQ(checkpoint_reader_next(reader, &chunk, error, sizeof(error)), 1);
    checkpoint_reader_close(reader);
    CHECK_EQ(checkpoint_reader_open(disk, &manifest, CHECKPOINT_READER_BYTES, &reader, error,
                                    sizeof(error)),
             0);
    checkpoint_reader_close(reader);
    disk_memory_close(disk);
}

int main(void) {
    TEST_RUN(test_every_size_and_hold);
    TEST_RUN(test_flipped_bits);
    TEST_RUN(test_wrong_chunks);
    TEST_RUN(test_wrong_sizes);
    TEST_RUN(test_reads_that_fail);
    TEST_RUN(test_closed_early);
    return TEST_DONE();
}
