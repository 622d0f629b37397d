/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/wal/checkpoint_fixture.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/hash.h"
#include "wal/checkpoint_check.h"

#define RECORDS 9
#define TURNS_MAX 20000

struct walkers *walkers_new(struct fixture *fixture, unsigned chunks) {
    struct walkers *walkers = calloc(1, sizeof(*walkers));
    walkers->fixture = fixture;
    walkers->chunks = chunks;
    for (unsigned lane = 0; lane < fixture->lane_count; lane++)
        for (unsigned i = 0; i < WALKER_CHUNKS; i++)
            walkers->lanes[lane].chunks[i] = aligned_alloc(WAL_PAGE_BYTES, CHECKPOINT_CHUNK_BYTES);
    return walkers;
}

void walkers_free(struct walkers *walkers) {
    fixture_stop(walkers->fixture); /* the disk may still write from the chunks */
    for (unsigned lane = 0; lane < walkers->fixture->lane_count; lane++)
        for (unsigned i = 0; i < WALKER_CHUNKS; i++)
            free(walkers->lanes[lane].chunks[i]);
    fixture_free(walkers->fixture);
    free(walkers);
}

unsigned checkpoints_listed(struct disk *disk, seq_t seqs[16]) {
    int count = disk->list(disk, DISK_CHECKPOINT_MANIFEST, seqs, 16);
    if (count < 0)
        abort();
    for (int i = 0; i < count; i++)
        seqs[i] = disk_file_number(seqs[i]);
    return (unsigned)count;
}

unsigned log_files(struct disk *disk, uint64_t *first) {
    uint64_t files[1024];
    int count = disk->list(disk, DISK_LOG, files, 1024);
    if (count <= 0)
        abort();
    *first = files[0];
    return (unsigned)count;
}

int walkers_start(struct walkers *walkers) {
    struct fixture *fixture = walkers->fixture;
    seq_t seqs[16];
    unsigned kept = 0, count = checkpoints_listed(fixture->disk, seqs);
    memset(fixture->checkpoints, 0, sizeof(fixture->checkpoints));
    for (unsigned i = count > 2 ? count - 2 : 0; i < count; i++) {
        static _Alignas(WAL_PAGE_BYTES) struct checkpoint_manifest manifest;
        fixture->disk->read(fixture->disk, disk_file(DISK_CHECKPOINT_MANIFEST, seqs[i]), 0,
                            &manifest, sizeof(manifest));
        fixture->checkpoints[kept].seq = seqs[i];
        fixture->checkpoints[kept++].log_file = manifest.log_file;
    }
    for (unsigned lane = 0; lane < fixture->lane_count; lane++) {
        struct walker *walker = &walkers->lanes[lane];
        memcpy(walker->free, walker->chunks, sizeof(walker->free));
        walker->free_count = WALKER_CHUNKS;
        walker->walks = false;
        walker->seq = 0;
    }
    return fixture_start(fixture);
}

/* --- walking ------------------------------------------------------------------------------------------------------- */

static void make_accounts(struct checkpoint_chunk *chunk, seq_t seq, unsigned lane, unsigned n) {
    uint64_t random = seq << 20 | lane << 16 | n;
    uint64_t *words = (uint64_t *)chunk->payload;
    for (size_t i = 0; i < RECORDS * sizeof(struct account) / sizeof(*words); i++)
        words[i] = hash_mix64(random += 0x9e3779b97f4a7c15u);
    chunk->header.kind = CHECKPOINT_ACCOUNTS;
    chunk->header.records = RECORDS;
    chunk->header.record_bytes = sizeof(struct account);
    chunk->header.partition_first = chunk->header.partition_last = (uint16_t)lane;
}

/** An lcore owns one partition, with its own number. */
static void make_lcore(struct checkpoint_chunk *chunk, seq_t seq, unsigned lane, unsigned chunks,
                       seq_t complete_group) {
    struct checkpoint_lcore *lcore = (void *)chunk->payload;
    struct checkpoint_partition *partition = (void *)(lcore + 1);
    *lcore = (struct checkpoint_lcore){.accounts = (uint64_t)chunks * RECORDS,
                                       .ids_from_ms = seq * 10 + lane,
                                       .complete_group = complete_group,
                                       .partition_count = 1};
    *partition = (struct checkpoint_partition){.digest = (uint128_t)hash_mix64(seq + lane) << 63,
                                               .accounts = (uint64_t)chunks * RECORDS,
                                               .partition = lane};
    chunk->header.kind = CHECKPOINT_LCORE;
    chunk->header.records = 1;
    chunk->header.record_bytes = sizeof(*lcore) + sizeof(*partition);
    chunk->header.partition_last = UINT16_MAX;
}

void walkers_walk(struct walkers *walkers, unsigned number) {
    struct fixture *fixture = walkers->fixture;
    struct walker *walker = &walkers->lanes[number];
    struct wal_lane *lane = &fixture->lanes[number];
    struct checkpoint_chunk *chunk;
    seq_t seq = atomic_load(&fixture->board->checkpoint_seq);
    while ((chunk = wal_lane_chunk_spent(lane)) != NULL)
        walker->free[walker->free_count++] = chunk;
    if (atomic_load(&fixture->board->checkpoint_abandoned) >= walker->seq)
        walker->walks = false;
    if (seq > walker->seq && fixture->open[number] > seq) {
        walker->seq = seq;
        walker->walks = true;
        walker->done = 0;
    }
    if (!walker->walks || walker->free_count == 0)
        return;
    chunk = walker->free[--walker->free_count];
    chunk->header = (struct checkpoint_chunk_header){.magic = CHECKPOINT_CHUNK_MAGIC,
                                                     .version = CHECKPOINT_FORMAT_VERSION,
                                                     .lcore = (uint16_t)number,
                                                     .seq = walker->seq};
    if (walker->done < walkers->chunks) {
        make_accounts(chunk, walker->seq, number, walker->done++);
    } else {
        make_lcore(chunk, walker->seq, number, walkers->chunks,
                   fixture->open[number] + walkers->complete_groups);
        walker->walks = false;
    }
    wal_lane_chunk(lane, chunk);
}

void walkers_turn(struct walkers *walkers, uint64_t ns) {
    fixture_turn(walkers->fixture, ns);
    for (unsigned lane = 0; lane < walkers->fixture->lane_count; lane++)
        walkers_walk(walkers, lane);
}

int walkers_checkpoint(struct walkers *walkers) {
    const struct wal_checkpoints *checkpoints = wal_checkpoints(walkers->fixture->wal);
    walkers->ticket = wal_checkpoint_want(walkers->fixture->wal);
    for (unsigned turn = 0; turn < TURNS_MAX; turn++) {
        walkers_turn(walkers, 1000);
        if (atomic_load(&walkers->fixture->board->failed) != 0)
            return atomic_load(&walkers->fixture->board->failed);
        if (atomic_load(&checkpoints->served) >= walkers->ticket)
            return atomic_load(&checkpoints->error);
    }
    return -ETIMEDOUT;
}

bool walkers_settle(struct walkers *walkers) {
    struct fixture *fixture = walkers->fixture;
    unsigned quiet = 0;
    for (unsigned turn = 0; turn < TURNS_MAX && quiet < 20; turn++) {
        walkers_turn(walkers, 1000000);
        quiet = disk_memory_pending(fixture->disk) == 0 &&
                        atomic_load(&wal_checkpoints(fixture->wal)->running_seq) == 0
                    ? quiet + 1
                    : 0;
    }
    return quiet == 20;
}

/* --- checking ------------------------------------------------------------------------------------------------------ */

static bool wrong(seq_t seq, const char *what) {
    printf("checkpoint %" PRIu64 ": %s\n", seq, what);
    return false;
}

/** @param seen chunks of accounts that came before, by lane */
static bool chunk_right(const struct walkers *walkers, const struct checkpoint_chunk *chunk,
                        unsigned seen[FIXTURE_LANES_MAX]) {
    static struct checkpoint_chunk made;
    unsigned lane = chunk->header.lcore;
    size_t bytes = (size_t)chunk->header.records * chunk->header.record_bytes;
    switch (chunk->header.kind) {
    case CHECKPOINT_ACCOUNTS:
        make_accounts(&made, chunk->header.seq, lane, seen[lane]++);
        return memcmp(made.payload, chunk->payload, bytes) == 0;
    case CHECKPOINT_LCORE:
        return seen[lane] == walkers->chunks;
    default:
        return chunk->header.kind == CHECKPOINT_LOG_FILES ||
               chunk->header.kind == CHECKPOINT_LOG_INDEX;
    }
}

bool checkpoint_whole(const struct walkers *walkers, struct disk *disk, seq_t seq) {
    static _Alignas(WAL_PAGE_BYTES) struct checkpoint_chunk chunk;
    static _Alignas(WAL_PAGE_BYTES) struct checkpoint_manifest manifest;
    uint64_t data = disk_file(DISK_CHECKPOINT_DATA, seq), accounts = 0;
    const char *why;
    unsigned seen[FIXTURE_LANES_MAX] = {0}, lcores = 0;
    uint128_t state = 0;
    uint8_t digest[WAL_DIGEST_BYTES];
    if (disk->read(disk, disk_file(DISK_CHECKPOINT_MANIFEST, seq), 0, &manifest,
                   sizeof(manifest)) != 0)
        return wrong(seq, "no manifest");
    if (checkpoint_manifest_check(&manifest, walkers->fixture->config.identity.cell_id, seq,
                                  &why) != WAL_PAGE_GOOD)
        return wrong(seq, why);
    if (disk->size(disk, data) != (int64_t)(manifest.chunk_count * CHECKPOINT_CHUNK_BYTES))
        return wrong(seq, "its data has another size");
    struct wal_digest_stream *digests = wal_digest_stream_new();
    for (uint64_t n = 0; n < manifest.chunk_count; n++) {
        if (disk->read(disk, data, n * CHECKPOINT_CHUNK_BYTES, &chunk, sizeof(chunk)) != 0 ||
            checkpoint_chunk_check(&chunk, &manifest, n, &why) != WAL_PAGE_GOOD ||
            !chunk_right(walkers, &chunk, seen))
            return wrong(seq, "a chunk is not right");
        wal_digest_stream_add(digests, chunk.digest, WAL_DIGEST_BYTES);
        if (chunk.header.kind == CHECKPOINT_ACCOUNTS)
            accounts += chunk.header.records;
        if (chunk.header.kind != CHECKPOINT_LCORE)
            continue;
        state += checkpoint_partitions(&chunk)->digest;
        lcores++;
    }
    wal_digest_stream_end(digests, digest);
    wal_digest_stream_free(digests);
    if (memcmp(digest, manifest.data_digest, sizeof(digest)) != 0)
        return wrong(seq, "the digest of digests is not right");
    return (lcores == manifest.lcores && accounts == manifest.accounts &&
            memcmp(&state, manifest.state_digest, sizeof(state)) == 0 &&
            manifest.ids_from_ms == seq * 10 + lcores - 1) ||
           wrong(seq, "its sums are not right");
}
