/* SPDX-License-Identifier: Apache-2.0 */
#include "perf/recovery_data.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/partition.h"
#include "perf/bench.h"
#include "wal/checkpoint_check.h"
#include "wal/disk_memory.h"

#define CLOCK_NS (1700000000ull * NS_PER_SECOND)
#define FILE_BYTES ((uint64_t)64 << 20)
#define TRANSFERS_PER_GROUP 3200 /**< 256,000 bytes of records */
#define TRANSFERS_PER_MS 4000    /**< as fast as a cell on this machine takes them */
#define BALANCE 1000000          /**< of every account at the checkpoint, on both sides */

static uint128_t account_id(uint64_t number) {
    return uint128_make(hash_mix64(number + 1), number + 1);
}

/* --- the checkpoint ------------------------------------------------------------------------------------------------------ */

struct maker {
    struct recovery_data *data;
    struct checkpoint_manifest *manifest;
    struct partition *digests; /**< only their digests are used */
    uint64_t *first, *numbers; /**< accounts by partition: numbers[first[p] .. first[p + 1]) */
    uint8_t *bytes;            /**< of the checkpoint's data file */
    XXH3_state_t *state;
};

/** Sort the accounts' numbers by partition, for a walk goes partition by partition. */
static int partitions_sort(struct maker *maker) {
    const struct recovery_data *data = maker->data;
    const uint64_t seed = data->identity.hash_seed;
    maker->first = calloc(data->partitions + 2, sizeof(*maker->first));
    maker->numbers = malloc(data->accounts * sizeof(*maker->numbers));
    if (!maker->first || !maker->numbers)
        return -ENOMEM;
    uint64_t *next = maker->first + 1;
    for (uint64_t n = 0; n < data->accounts; n++)
        next[1 + hash_partition(hash_id(account_id(n), seed), data->partitions)]++;
    for (unsigned p = 1; p <= data->partitions; p++)
        next[p] += next[p - 1];
    for (uint64_t n = 0; n < data->accounts; n++)
        maker->numbers[next[hash_partition(hash_id(account_id(n), seed), data->partitions)]++] = n;
    return 0;
}

static struct checkpoint_chunk *chunk_begin(struct maker *maker, uint16_t kind, uint32_t bytes) {
    struct checkpoint_chunk *chunk = (struct checkpoint_chunk *)maker->bytes;
    chunk += maker->manifest->chunk_count;
    memset(&chunk->header, 0, sizeof(chunk->header));
    chunk->header.magic = CHECKPOINT_CHUNK_MAGIC;
    chunk->header.version = CHECKPOINT_FORMAT_VERSION;
    chunk->header.kind = kind;
    chunk->header.seq = RECOVERY_CHECKPOINT_SEQ;
    chunk->header.number = maker->manifest->chunk_count;
    chunk->header.record_bytes = bytes;
    memcpy(chunk->header.cell_id, maker->data->identity.cell_id, sizeof(chunk->header.cell_id));
    return chunk;
}

static void chunk_end(struct maker *maker, struct checkpoint_chunk *chunk) {
    checkpoint_chunk_seal(chunk);
    XXH3_128bits_update(maker->state, chunk->digest, sizeof(chunk->digest));
    maker->manifest->chunk_count++;
}

static void accounts_write(struct maker *maker, unsigned p) {
    const struct wal_identity *identity = &maker->data->identity;
    const uint32_t per_chunk = CHECKPOINT_PAYLOAD_BYTES / sizeof(struct account);
    struct checkpoint_chunk *chunk = NULL;
    for (uint64_t i = maker->first[p]; i < maker->first[p + 1]; i++) {
        if (!chunk)
            chunk = chunk_begin(maker, CHECKPOINT_ACCOUNTS, sizeof(struct account));
        chunk->header.partition_first = chunk->header.partition_last = (uint16_t)p;
        struct account *account = (struct account *)chunk->payload + chunk->header.records++;
        *account =
            (struct account){.id = account_id(maker->numbers[i]),
                             .debits_posted = BALANCE,
                             .credits_posted = BALANCE,
                             .ledger = 1,
                             .code = 1,
                             .timestamp = CLOCK_NS - maker->data->accounts + maker->numbers[i]};
        struct account_delta delta = {.debits_posted = BALANCE, .credits_posted = BALANCE};
        maker->digests[p].digest += partition_account_hash(account, identity->digest_seed);
        partition_digest_delta(&maker->digests[p], hash_id(account->id, identity->hash_seed),
                               &delta);
        if (chunk->header.records == per_chunk || i + 1 == maker->first[p + 1]) {
            chunk_end(maker, chunk);
            chunk = NULL;
        }
    }
}

static void lcore_write(struct maker *maker) {
    const struct recovery_data *data = maker->data;
    uint32_t bytes = (uint32_t)(sizeof(struct checkpoint_lcore) +
                                data->partitions * sizeof(struct checkpoint_partition));
    struct checkpoint_chunk *chunk = chunk_begin(maker, CHECKPOINT_LCORE, bytes);
    struct checkpoint_lcore *lcore = (void *)chunk->payload;
    struct checkpoint_partition *entries = (void *)(lcore + 1);
    chunk->header.records = 1;
    chunk->header.partition_last = UINT16_MAX;
    *lcore = (struct checkpoint_lcore){.last_timestamp = CLOCK_NS,
                                       .cell_time = CLOCK_NS,
                                       .import_cursor_accounts = CLOCK_NS - 1,
                                       .complete_group = RECOVERY_CHECKPOINT_SEQ,
                                       .accounts = data->accounts,
                                       .partition_count = data->partitions};
    uint128_t sum = 0;
    for (unsigned p = 0; p < data->partitions; p++) {
        entries[p] =
            (struct checkpoint_partition){.digest = maker->digests[p].digest,
                                          .accounts = maker->first[p + 1] - maker->first[p],
                                          .partition = p};
        sum += maker->digests[p].digest;
    }
    memcpy(maker->manifest->state_digest, &sum, sizeof(sum));
    chunk_end(maker, chunk);
}

static void manifest_write(struct maker *maker) {
    struct checkpoint_manifest *manifest = maker->manifest;
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(maker->state));
    memcpy(manifest->data_digest, canonical.digest, sizeof(manifest->data_digest));
    manifest->magic = CHECKPOINT_MANIFEST_MAGIC;
    manifest->version = CHECKPOINT_FORMAT_VERSION;
    manifest->bytes = sizeof(*manifest);
    memcpy(manifest->cell_id, maker->data->identity.cell_id, sizeof(manifest->cell_id));
    manifest->term = 1;
    manifest->seq = RECOVERY_CHECKPOINT_SEQ;
    manifest->log_file = 1;
    manifest->log_file_bytes = FILE_BYTES;
    manifest->cell_time = CLOCK_NS;
    manifest->horizon_ms = CLOCK_NS / NS_PER_MS - 3600000;
    manifest->accounts = maker->data->accounts;
    manifest->partitions = maker->data->partitions;
    manifest->lcores = 1;
    checkpoint_manifest_seal(manifest);
}

static int checkpoint_make(struct recovery_data *data) {
    const uint64_t file = disk_file(DISK_CHECKPOINT_DATA, RECOVERY_CHECKPOINT_SEQ),
                   manifest = disk_file(DISK_CHECKPOINT_MANIFEST, RECOVERY_CHECKPOINT_SEQ);
    const uint64_t per_chunk = CHECKPOINT_PAYLOAD_BYTES / sizeof(struct account);
    uint64_t chunks = data->accounts / per_chunk + data->partitions + 1, size;
    struct maker maker = {.data = data, .state = XXH3_createState()};
    maker.digests = aligned_alloc(CACHE_LINE_BYTES, data->partitions * sizeof(*maker.digests));
    if (!maker.digests || !maker.state || partitions_sort(&maker) != 0 ||
        disk_memory_resize(data->disk, file, chunks * CHECKPOINT_CHUNK_BYTES) != 0 ||
        disk_memory_resize(data->disk, manifest, sizeof(struct checkpoint_manifest)) != 0)
        return -ENOMEM;
    memset(maker.digests, 0, data->partitions * sizeof(*maker.digests));
    XXH3_128bits_reset(maker.state);
    maker.bytes = disk_memory_bytes(data->disk, file, &size);
    maker.manifest = (void *)disk_memory_bytes(data->disk, manifest, &size);
    for (unsigned p = 0; p < data->partitions; p++)
        accounts_write(&maker, p);
    lcore_write(&maker);
    manifest_write(&maker);
    data->checkpoint_bytes = maker.manifest->chunk_count * CHECKPOINT_CHUNK_BYTES;
    data->posted = (uint128_t)data->accounts * BALANCE;
    free(maker.digests);
    free(maker.first);
    free(maker.numbers);
    XXH3_freeState(maker.state);
    return disk_memory_resize(data->disk, file, data->checkpoint_bytes);
}

/* --- the log ------------------------------------------------------------------------------------------------------------- */

struct log_maker {
    struct recovery_data *data;
    uint64_t random, made, file, offset;
    uint64_t size; /**< of the file that is written */
    uint8_t *bytes;
    uint8_t digest[WAL_DIGEST_BYTES];
};

/** Transfers as clients make them: time-ordered ids whose low bits name the debit account's partition. */
static void transfer_make(struct log_maker *maker, struct wal_record_transfer *record) {
    struct recovery_data *data = maker->data;
    uint64_t debit = bench_below(&maker->random, data->accounts);
    uint64_t credit = bench_below(&maker->random, data->accounts - 1);
    credit += credit >= debit;
    uint64_t sequence = ++maker->made;
    uint64_t ns = CLOCK_NS + sequence * NS_PER_MS / TRANSFERS_PER_MS;
    uint128_t debit_id = account_id(debit);
    uint64_t place = hash_partition(hash_id(debit_id, data->identity.hash_seed), data->partitions);
    *record = (struct wal_record_transfer){
        .head = {WAL_RECORD_TRANSFER, sizeof(*record) / WAL_RECORD_ALIGN, 0, 0},
        .timestamp = ns,
        .id = (uint128_t)(ns / NS_PER_MS) << 80 | (uint128_t)sequence << 16 | place,
        .debit_account_id = debit_id,
        .credit_account_id = account_id(credit),
        .amount = 1 + (sequence & 1023),
        .ledger = 1,
        .code = 1,
    };
    data->posted += record->amount;
}

static int file_next(struct log_maker *maker) {
    maker->file++;
    maker->offset = 0;
    if (disk_memory_resize(maker->data->disk, maker->file, FILE_BYTES) != 0)
        return -ENOMEM;
    maker->bytes = disk_memory_bytes(maker->data->disk, maker->file, &maker->size);
    return 0;
}

/** One group, with the ledger's totals as its last record. */
static int group_make(struct log_maker *maker) {
    struct recovery_data *data = maker->data;
    uint64_t left = data->transfers - maker->made;
    uint32_t count = left < TRANSFERS_PER_GROUP ? (uint32_t)left : TRANSFERS_PER_GROUP;
    uint32_t length = count * (uint32_t)sizeof(struct wal_record_transfer) +
                      (uint32_t)sizeof(struct wal_record_ledger_total);
    uint64_t bytes = WAL_PAGE_BYTES + wal_page_align(length);
    if (maker->offset + bytes > FILE_BYTES && file_next(maker) != 0)
        return -ENOMEM;
    struct wal_header *header = (void *)(maker->bytes + maker->offset);
    uint8_t *segment = maker->bytes + maker->offset + WAL_PAGE_BYTES;
    for (uint32_t i = 0; i < count; i++)
        transfer_make(maker, (struct wal_record_transfer *)segment + i);
    struct wal_record_ledger_total *total =
        (void *)(segment + count * sizeof(struct wal_record_transfer));
    *total = (struct wal_record_ledger_total){
        .head = {WAL_RECORD_LEDGER_TOTAL, sizeof(*total) / WAL_RECORD_ALIGN, 0, 1},
        .sums = {.debits_posted = data->posted, .credits_posted = data->posted}};
    wal_segment_pad(segment, length);
    struct wal_chained_header *chained = &header->chained;
    uint64_t ns = CLOCK_NS + maker->made * NS_PER_MS / TRANSFERS_PER_MS;
    chained->magic = WAL_HEADER_MAGIC;
    chained->version = WAL_FORMAT_VERSION;
    chained->header_bytes = WAL_PAGE_BYTES;
    memcpy(chained->cell_id, data->identity.cell_id, sizeof(chained->cell_id));
    chained->term = 1;
    chained->seq = ++data->last_seq;
    memcpy(chained->previous_digest, maker->digest, sizeof(maker->digest));
    chained->body_bytes = bytes - WAL_PAGE_BYTES;
    chained->horizon_ms = ns / NS_PER_MS - 3600000;
    chained->cell_time = ns;
    chained->groups_in_flight = 1;
    chained->segment_count = 1;
    chained->segments[0].length = length;
    chained->segments[0].records = count + 1;
    wal_digest(segment, wal_page_align(length), chained->segments[0].digest);
    header->local = (struct wal_local_block){.magic = WAL_LOCAL_MAGIC,
                                             .term = 1,
                                             .seq = data->last_seq,
                                             .durable_seq = data->last_seq - 1,
                                             .file_bytes = FILE_BYTES};
    wal_header_seal(header);
    memcpy(maker->digest, chained->digest, sizeof(maker->digest));
    maker->offset += bytes;
    data->log_bytes += bytes;
    data->log_groups++;
    return 0;
}

static int log_make(struct recovery_data *data) {
    struct log_maker maker = {.data = data, .random = 0x9e3779b97f4a7c15u};
    int rc = file_next(&maker);
    data->last_seq = RECOVERY_CHECKPOINT_SEQ;
    while (!rc && maker.made < data->transfers)
        rc = group_make(&maker);
    return rc ? rc : file_next(&maker); /* the file behind the one that is written always exists */
}

int recovery_data_make(struct recovery_data *data) {
    data->identity = (struct wal_identity){.cell_id = "tally recovery",
                                           .partitions = data->partitions,
                                           .id_time = 1,
                                           .hash_seed = 1,
                                           .digest_seed = 0x123456789abcdef1u,
                                           .file_bytes = FILE_BYTES};
    int rc = disk_memory_open(&data->disk);
    if (!rc)
        rc = checkpoint_make(data);
    return rc ? rc : log_make(data);
}

void recovery_data_free(struct recovery_data *data) {
    disk_memory_close(data->disk);
}
