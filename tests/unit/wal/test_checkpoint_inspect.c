/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "tests/lib/test.h"
#include "wal/checkpoint_check.h"
#include "wal/checkpoint_copy.h"
#include "wal/checkpoint_inspect.h"
#include "wal/disk_memory.h"
#include "wal/wal_index.h"

/** A checkpoint that is good, and the same one with anything wrong in it. */

#define SEQ 4711
#define CHUNKS 6

static const struct wal_identity identity = {.cell_id = {1, 2, 3}, .partitions = 4};
static struct disk *disk;
static struct checkpoint_chunk *chunks;
static struct checkpoint_manifest *manifest;
static uint64_t data_bytes;

static struct checkpoint_chunk *chunk_of(unsigned number, uint16_t kind, uint32_t records) {
    struct checkpoint_chunk *chunk = &chunks[number];
    memset(chunk, 0, sizeof(*chunk));
    chunk->header = (struct checkpoint_chunk_header){.magic = CHECKPOINT_CHUNK_MAGIC,
                                                     .version = CHECKPOINT_FORMAT_VERSION,
                                                     .kind = kind,
                                                     .seq = SEQ,
                                                     .number = number,
                                                     .records = records,
                                                     .record_bytes = checkpoint_record_bytes(kind),
                                                     .partition_last = 3};
    memcpy(chunk->header.cell_id, identity.cell_id, sizeof(identity.cell_id));
    return chunk;
}

static void seal_all(void) {
    uint8_t digests[CHUNKS][WAL_DIGEST_BYTES];
    for (unsigned i = 0; i < CHUNKS; i++) {
        wal_digest(&chunks[i], offsetof(struct checkpoint_chunk, digest), chunks[i].digest);
        memcpy(digests[i], chunks[i].digest, WAL_DIGEST_BYTES);
    }
    wal_digest(digests, sizeof(digests), manifest->data_digest);
    checkpoint_manifest_seal(manifest);
}

/** Four partitions, one lcore: accounts, pendings, ids in two kinds of fullness, and a log of two files. */
static void make(void) {
    const uint64_t data = disk_file(DISK_CHECKPOINT_DATA, SEQ);
    const uint64_t page = disk_file(DISK_CHECKPOINT_MANIFEST, SEQ);
    uint64_t bytes;
    if (disk_memory_open(&disk) != 0 ||
        disk_memory_resize(disk, data, CHUNKS * CHECKPOINT_CHUNK_BYTES) != 0 ||
        disk_memory_resize(disk, page, WAL_PAGE_BYTES) != 0)
        abort();
    chunks = (void *)disk_memory_bytes(disk, data, &data_bytes);
    manifest = (void *)disk_memory_bytes(disk, page, &bytes);
    chunk_of(0, CHECKPOINT_ACCOUNTS, 1000);
    chunk_of(1, CHECKPOINT_PENDINGS, 7);
    chunk_of(2, CHECKPOINT_IDS, CHECKPOINT_PAYLOAD_BYTES / sizeof(struct checkpoint_id));
    struct checkpoint_chunk *last = chunk_of(3, CHECKPOINT_LCORE, 1);
    struct checkpoint_lcore *lcore = (void *)last->payload;
    struct checkpoint_partition *partitions =
        (void *)(last->payload + sizeof(struct checkpoint_lcore));
    *lcore = (struct checkpoint_lcore){.accounts = 1000,
                                       .pendings = 7,
                                       .ids = chunks[2].header.records,
                                       .partition_count = 4,
                                       .ids_from_ms = 5};
    last->header.record_bytes = sizeof(*lcore) + 4 * sizeof(*partitions);
    uint128_t state = 0;
    for (unsigned p = 0; p < 4; p++) {
        partitions[p] = (struct checkpoint_partition){
            .digest = (uint128_t)(p + 1) << 120 | p, .accounts = 250, .partition = p};
        state += partitions[p].digest;
    }
    partitions[2].ids = lcore->ids;
    struct checkpoint_log_file *files = (void *)chunk_of(4, CHECKPOINT_LOG_FILES, 2)->payload;
    files[0] = (struct checkpoint_log_file){3, 100, 1000};
    files[1] = (struct checkpoint_log_file){4, 4000, 2000};
    struct checkpoint_log_entry *entries = (void *)chunk_of(5, CHECKPOINT_LOG_INDEX, 3)->payload;
    entries[0] = (struct checkpoint_log_entry){100, 3, 0};
    entries[1] = (struct checkpoint_log_entry){2000, 3, 65536};
    entries[2] = (struct checkpoint_log_entry){4000, 4, 0};
    *manifest = (struct checkpoint_manifest){.magic = CHECKPOINT_MANIFEST_MAGIC,
                                             .version = CHECKPOINT_FORMAT_VERSION,
                                             .bytes = WAL_PAGE_BYTES,
                                             .seq = SEQ,
                                             .term = 1,
                                             .log_file = 4,
                                             .log_offset = 8192,
                                             .log_file_bytes = 1 << 20,
                                             .ids_from_ms = 5,
                                             .chunk_count = CHUNKS,
                                             .accounts = 1000,
                                             .pendings = 7,
                                             .ids = lcore->ids,
                                             .partitions = 4,
                                             .lcores = 1};
    memcpy(manifest->cell_id, identity.cell_id, sizeof(identity.cell_id));
    memcpy(manifest->state_digest, &state, sizeof(state));
    for (unsigned i = 0; i < CHUNKS; i++)
        checkpoint_chunk_seal(&chunks[i]);
    seal_all();
}

static void end(void) {
    disk_memory_close(disk);
}

static struct checkpoint_summary summary;
static char error[512];
static uint64_t damage_at, damage_bytes;
static char damage_file[128], damage_message[256];

static int note_damage(void *context, const struct checkpoint_damage *damage) {
    (*(unsigned *)context)++;
    damage_at = damage->offset;
    damage_bytes = damage->bytes;
    snprintf(damage_file, sizeof(damage_file), "%s", damage->file_name);
    snprintf(damage_message, sizeof(damage_message), "%s", damage->message);
    return 0;
}

static int look(unsigned *damages) {
    static const struct checkpoint_visitor visitor = {.damage = note_damage};
    *damages = 0;
    return checkpoint_inspect(disk, &identity, SEQ, &visitor, damages, &summary, error,
                              sizeof(error));
}

static void test_good(void) {
    unsigned damages;
    seq_t seqs[CHECKPOINT_LIST_MAX];
    make();
    CHECK_EQ(look(&damages), 0);
    CHECK_EQ(damages, 0);
    CHECK(strcmp(error, "") == 0);
    CHECK_EQ(summary.chunks, CHUNKS);
    CHECK_EQ(summary.accounts, 1000);
    CHECK_EQ(summary.log_entries, 3);
    CHECK_EQ(checkpoint_list(disk, seqs, CHECKPOINT_LIST_MAX), 1);
    CHECK_EQ(seqs[0], SEQ);
    struct checkpoint_manifest copy;
    CHECK_EQ(checkpoint_manifest_read(disk, NULL, SEQ, &copy, error, sizeof(error)), 0);
    CHECK_EQ(copy.accounts, 1000);
    CHECK_EQ(checkpoint_manifest_read(disk, NULL, SEQ + 1, &copy, error, sizeof(error)), -ENOENT);
    end();
}

/** Whatever bit flips, the chunk or the manifest is named in which it lies. */
static void test_every_flip_is_found(void) {
    uint64_t random = test_seed(1);
    unsigned damages;
    make();
    for (unsigned round = 0; round < 300; round++) {
        uint64_t at = test_random(&random) % data_bytes;
        uint8_t *byte = (uint8_t *)chunks + at, bit = (uint8_t)(1u << test_random(&random) % 8);
        *byte ^= bit;
        CHECK_EQ(look(&damages), -EBADMSG);
        CHECK_EQ(damages, 1);
        CHECK_EQ(damage_at, at / CHECKPOINT_CHUNK_BYTES * CHECKPOINT_CHUNK_BYTES);
        CHECK_EQ(damage_bytes, CHECKPOINT_CHUNK_BYTES);
        CHECK(strstr(damage_file, "data") != NULL || strstr(error, "chunk") != NULL);
        CHECK_EQ(summary.chunks, CHUNKS - 1);
        *byte ^= bit;
    }
    for (unsigned at = 0; at < WAL_PAGE_BYTES; at += 13) {
        ((uint8_t *)manifest)[at] ^= 4;
        CHECK_EQ(look(&damages), -EBADMSG);
        CHECK_EQ(damages, 1);
        CHECK_EQ(damage_bytes, WAL_PAGE_BYTES);
        ((uint8_t *)manifest)[at] ^= 4;
    }
    CHECK_EQ(look(&damages), 0);
    end();
}

/** Several bad chunks are all named. */
static void test_several(void) {
    unsigned damages;
    make();
    chunks[0].payload[9] ^= 1;
    memset(&chunks[2], 0, sizeof(chunks[2]));
    chunks[5] = chunks[4];
    CHECK_EQ(look(&damages), -EBADMSG);
    CHECK_EQ(damages, 3);
    CHECK(strstr(error, "chunk 0: it does not match its digest") != NULL);
    CHECK(strstr(damage_message, "chunk 5: another chunk stands there") != NULL);
    end();
}

/** Bytes that carry a right digest and still are not what they should be. */
static void test_contradictions(void) {
    static const struct {
        const char *says;
        int rc;
    } cases[] = {
        {"another cell's", -EPERM},
        {"newer", -ENOTSUP},
        {"fit into it", -EBADMSG},
        {"kind is not known", -EBADMSG},
        {"no lcore", -EBADMSG},
        {"another checkpoint", -EBADMSG},
        {"do not add up", -EBADMSG},
        {"not in order", -EBADMSG},
        {"have no order", -EBADMSG},
        {"as many records as it says", -EBADMSG},
        {"ended before", -EBADMSG},
        {"count as many", -EBADMSG},
        {"digest of the state", -EBADMSG},
        {"older ids", -EBADMSG},
        {"of all chunks", -EBADMSG},
        {"another cell's", -EPERM},
        {"newer", -ENOTSUP},
        {"that of another", -EBADMSG},
        {"place in the log", -EBADMSG},
        {"they are missing", -EBADMSG},
        {"do not belong", -EBADMSG},
        {"size that its partitions", -EBADMSG},
        {"last chunk is not there", -EBADMSG},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const uint64_t data = disk_file(DISK_CHECKPOINT_DATA, SEQ);
        unsigned damages;
        make();
        struct checkpoint_lcore *lcore = (void *)chunks[3].payload;
        struct checkpoint_partition *partitions = (void *)(lcore + 1);
        switch (i) {
        case 0:
            chunks[1].header.cell_id[0] ^= 1;
            break;
        case 1:
            chunks[1].header.version++;
            break;
        case 2:
            chunks[0].header.records = 1 << 20;
            break;
        case 3:
            chunks[0].header.kind = 77;
            break;
        case 4:
            chunks[0].header.lcore = 1;
            break;
        case 5:
            chunks[0].header.seq++;
            break;
        case 6:
            partitions[0].accounts++;
            break;
        case 7:
            partitions[1].partition = 0;
            break;
        case 8:
            ((struct checkpoint_log_entry *)chunks[5].payload)[1].seq = 5;
            break;
        case 9:
            chunks[0].header.records--;
            break;
        case 10: {
            uint64_t number = chunks[1].header.number = 3;
            chunks[1] = chunks[3];
            chunks[1].header.number = number - 2;
            break;
        }
        case 11:
            manifest->pendings++;
            break;
        case 12:
            manifest->state_digest[3] ^= 1;
            break;
        case 13:
            manifest->ids_from_ms = 4;
            break;
        case 14:
            break;
        case 15:
            manifest->cell_id[0] ^= 1;
            break;
        case 16:
            manifest->version++;
            break;
        case 17:
            manifest->seq++;
            break;
        case 18:
            manifest->log_offset++;
            break;
        case 19:
            break;
        case 20:
            break;
        case 21:
            lcore->partition_count = 5;
            break;
        case 22:
            manifest->lcores = 2;
            break;
        default:
            break;
        }
        seal_all();
        if (i == 14) {
            manifest->data_digest[0] ^= 1;
            checkpoint_manifest_seal(manifest);
        }
        if (i == 19)
            CHECK_EQ(disk_memory_resize(disk, data, data_bytes - 5000), 0);
        if (i == 20)
            CHECK_EQ(disk_memory_resize(disk, data, data_bytes + 4096), 0);
        CHECK_EQ(look(&damages), cases[i].rc);
        if (strstr(error, cases[i].says) == NULL)
            printf("case %u: %s\n", i, error);
        CHECK(strstr(error, cases[i].says) != NULL);
        end();
    }
}

static void test_missing_files(void) {
    unsigned damages;
    make();
    CHECK_EQ(disk_memory_remove(disk, disk_file(DISK_CHECKPOINT_DATA, SEQ)), 0);
    CHECK_EQ(look(&damages), -EBADMSG);
    CHECK_EQ(damages, 1); /* who shows damages and no error names it as well */
    CHECK(strstr(damage_message, "missing") != NULL);
    CHECK(strstr(error, "missing") != NULL);
    CHECK_EQ(disk_memory_remove(disk, disk_file(DISK_CHECKPOINT_MANIFEST, SEQ)), 0);
    CHECK_EQ(look(&damages), -ENOENT);
    end();
}

/** The index of a log that stands elsewhere: two files, groups behind the checkpoint too. */
static struct wal_index *other_index(void) {
    struct wal_index *index = wal_index_new();
    for (seq_t seq = 4000; seq < 6000; seq += 100)
        if (wal_index_note(index, seq, seq < 4500 ? 7 : 8, (seq % 500) * 4096, seq * 10) != 0)
            abort();
    return index;
}

static void test_copy(void) {
    static const struct wal_identity other = {
        .cell_id = {9, 9}, .partitions = 4, .file_bytes = 8 << 20};
    static const uint8_t log_digest[WAL_DIGEST_BYTES] = {5, 6, 7};
    struct checkpoint_summary copied;
    struct disk *to;
    uint64_t bytes;
    make();
    CHECK_EQ(disk_memory_open(&to), 0);
    struct wal_index *index = other_index(), *read = wal_index_new();
    struct checkpoint_copy_config config = {.from = disk,
                                            .to = to,
                                            .to_identity = &other,
                                            .manifest = manifest,
                                            .index = index,
                                            .log_digest = log_digest,
                                            .log_file = 8,
                                            .log_offset = 40960};
    CHECK_EQ(checkpoint_copy(&config, error, sizeof(error)), 0);
    CHECK_EQ(checkpoint_inspect(to, &other, SEQ, NULL, NULL, &copied, error, sizeof(error)), 0);
    CHECK_EQ(copied.accounts, 1000);
    CHECK_EQ(copied.log_files, 2);
    CHECK_EQ(copied.log_entries, 8);
    CHECK_EQ(copied.manifest.log_file, 8);
    CHECK_EQ(copied.manifest.log_file_bytes, other.file_bytes);
    CHECK(memcmp(copied.manifest.log_digest, log_digest, sizeof(log_digest)) == 0);
    CHECK(memcmp(copied.manifest.state_digest, manifest->state_digest, WAL_DIGEST_BYTES) == 0);
    const struct checkpoint_chunk *there =
        (void *)disk_memory_bytes(to, disk_file(DISK_CHECKPOINT_DATA, SEQ), &bytes);
    CHECK(memcmp(there[2].payload, chunks[2].payload, sizeof(chunks[2].payload)) == 0);
    CHECK_EQ(checkpoint_inspect(to, &identity, SEQ, NULL, NULL, &copied, error, sizeof(error)),
             -EPERM);
    CHECK_EQ(checkpoint_index_read(
                 to,
                 (void *)disk_memory_bytes(to, disk_file(DISK_CHECKPOINT_MANIFEST, SEQ), &bytes),
                 read, error, sizeof(error)),
             0);
    CHECK_EQ(wal_index_oldest(read)->file, 7);
    CHECK_EQ(wal_index_find(read, 4711)->file, 8);
    chunks[1].payload[5] ^= 1;
    CHECK_EQ(checkpoint_copy(&config, error, sizeof(error)), -EBADMSG);
    CHECK(strstr(error, "chunk 1: it does not match its digest") != NULL);
    chunks[1].payload[5] ^= 1;
    disk_memory_faults(to)->capacity_bytes = 3 * CHECKPOINT_CHUNK_BYTES;
    CHECK_EQ(checkpoint_copy(&config, error, sizeof(error)), -ENOSPC);
    wal_index_free(read);
    wal_index_free(index);
    disk_memory_close(to);
    end();
}

int main(void) {
    TEST_RUN(test_good);
    TEST_RUN(test_every_flip_is_found);
    TEST_RUN(test_several);
    TEST_RUN(test_contradictions);
    TEST_RUN(test_missing_files);
    TEST_RUN(test_copy);
    return TEST_DONE();
}
