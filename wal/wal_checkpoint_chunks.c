/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "engine/base/check.h"
#include "wal/checkpoint_check.h"
#include "wal/wal_internal.h"
#include "wal/wal_lane.h"

/* Chunks on their way to the data file: those of the lanes as they come, one from each in turn, then what is known of the log. A
 * chunk's number is its place; it is given out, and digested, when the chunk is taken. */

unsigned wal_checkpoint_writes_busy(const struct wal_checkpoint *checkpoint) {
    unsigned busy = 0;
    for (unsigned i = 0; i < CHECKPOINT_WRITES; i++)
        busy += checkpoint->writes[i].chunk != NULL;
    return busy;
}

static struct wal_checkpoint_write *free_write(struct wal_checkpoint *checkpoint) {
    for (unsigned i = 0; i < CHECKPOINT_WRITES; i++)
        if (checkpoint->writes[i].chunk == NULL)
            return &checkpoint->writes[i];
    return NULL;
}

static void release_chunk(struct wal *wal, struct wal_checkpoint_write *write) {
    if (write->chunk != write->own)
        wal_lane_chunk_return(&wal->config.lanes[write->lane], write->chunk);
    write->chunk = NULL;
}

void wal_checkpoint_chunk_done(struct wal *wal, struct wal_checkpoint_write *write,
                               uint64_t now_ns) {
    struct wal_checkpoint *checkpoint = &wal->checkpoint;
    int64_t result = write->io.result;
    release_chunk(wal, write);
    if (checkpoint->state == WAL_CHECKPOINT_ABANDONING)
        return;
    if (result != (int64_t)write->io.bytes) {
        wal_checkpoint_abandon(wal, WAL_USE_WRITE, result < 0 ? (int)result : -EIO, now_ns);
        return;
    }
    wal_count(&checkpoint->counters.chunks, 1);
    wal_count(&checkpoint->counters.bytes, CHECKPOINT_CHUNK_BYTES);
}

static void submit_write(struct wal *wal, struct wal_checkpoint_write *write, uint64_t now_ns) {
    int rc = wal->config.disk->submit(wal->config.disk, &write->io);
    write->submitted = rc != -EAGAIN;
    if (rc == 0) {
        wal->in_flight++;
    } else if (rc != -EAGAIN) {
        write->io.result = rc;
        wal_checkpoint_chunk_done(wal, write, now_ns);
    }
}

/** What an lcore says last. */
static void take_lcore(struct wal_checkpoint *checkpoint, const struct checkpoint_chunk *chunk,
                       unsigned lane) {
    struct checkpoint_manifest *manifest = checkpoint->manifest;
    const struct checkpoint_lcore *lcore = (const void *)chunk->payload;
    const struct checkpoint_partition *partitions = checkpoint_partitions(chunk);
    assert(!(checkpoint->lanes_done >> lane & 1) &&
           chunk->header.record_bytes ==
               sizeof(*lcore) + lcore->partition_count * sizeof(*partitions));
    checkpoint->lanes_done |= 1ull << lane;
    manifest->accounts += lcore->accounts;
    manifest->pendings += lcore->pendings;
    manifest->ids += lcore->ids;
    if (lcore->ids_from_ms > manifest->ids_from_ms)
        manifest->ids_from_ms = lcore->ids_from_ms;
    if (lcore->complete_group > checkpoint->publish_after)
        checkpoint->publish_after = lcore->complete_group;
    for (uint32_t i = 0; i < lcore->partition_count; i++)
        checkpoint->state_digest += partitions[i].digest;
}

/** Number and digest a chunk, and send it off. */
static void write_chunk(struct wal *wal, struct wal_checkpoint_write *write,
                        struct checkpoint_chunk *chunk, unsigned lane, uint64_t now_ns) {
    struct wal_checkpoint *checkpoint = &wal->checkpoint;
    write->chunk = chunk;
    write->lane = lane;
    chunk->header.number = checkpoint->manifest->chunk_count++;
    memcpy(chunk->header.cell_id, wal->config.identity.cell_id, sizeof(chunk->header.cell_id));
    checkpoint_chunk_seal(chunk);
    wal_digest_stream_add(checkpoint->digests, chunk->digest, WAL_DIGEST_BYTES);
    if (chunk->header.kind == CHECKPOINT_LCORE)
        take_lcore(checkpoint, chunk, lane);
    write->io = (struct disk_io){.operation = DISK_WRITE,
                                 .file = wal_checkpoint_data(checkpoint),
                                 .offset = chunk->header.number * CHECKPOINT_CHUNK_BYTES,
                                 .bytes = CHECKPOINT_CHUNK_BYTES,
                                 .iov = {{chunk, CHECKPOINT_CHUNK_BYTES}},
                                 .iov_count = 1,
                                 .owner = write};
    submit_write(wal, write, now_ns);
}

static bool takes_chunks(const struct wal_checkpoint *checkpoint,
                         const struct checkpoint_chunk *chunk) {
    return (checkpoint->state == WAL_CHECKPOINT_CREATING ||
            checkpoint->state == WAL_CHECKPOINT_WRITING) &&
           chunk->header.seq == checkpoint->seq;
}

/** No group waits for the disk's queue. (One may wait for its file, and chunks do not make that longer.) */
static bool log_is_served(const struct wal *wal) {
    return wal->submitted_seq == wal->sealed_seq || wal->stuck;
}

unsigned wal_checkpoint_take_chunks(struct wal *wal, uint64_t now_ns) {
    struct wal_checkpoint *checkpoint = &wal->checkpoint;
    struct wal_checkpoint_write *write =
        checkpoint->state == WAL_CHECKPOINT_WRITING && log_is_served(wal) ? free_write(checkpoint)
                                                                          : NULL;
    unsigned done = 0;
    for (unsigned i = 0; i < wal->config.lane_count; i++) {
        unsigned number = (checkpoint->next_lane + i) % wal->config.lane_count;
        struct wal_lane *lane = &wal->config.lanes[number];
        struct checkpoint_chunk *chunk;
        while ((chunk = wal_lane_chunk_peek(lane)) != NULL && !takes_chunks(checkpoint, chunk)) {
            wal_lane_chunk_taken(lane);
            wal_lane_chunk_return(lane, chunk);
            done++;
        }
        if (chunk == NULL || write == NULL)
            continue;
        wal_lane_chunk_taken(lane);
        write_chunk(wal, write, chunk, number, now_ns);
        checkpoint->next_lane = number + 1;
        return done + 1;
    }
    return done;
}

unsigned wal_checkpoint_write_own(struct wal *wal, uint64_t now_ns) {
    struct wal_checkpoint *checkpoint = &wal->checkpoint;
    struct wal_checkpoint_write *write = free_write(checkpoint);
    if (checkpoint->use == WAL_USE_LOG_FILE || write == NULL || !log_is_served(wal))
        return 0; /* a log file that goes leaves the index, too */
    struct checkpoint_chunk *chunk = write->own;
    chunk->header = (struct checkpoint_chunk_header){.magic = CHECKPOINT_CHUNK_MAGIC,
                                                     .version = CHECKPOINT_FORMAT_VERSION,
                                                     .seq = checkpoint->seq,
                                                     .partition_last = UINT16_MAX};
    checkpoint->listing_begun = true;
    if (wal_index_export(wal->index, checkpoint->seq, &checkpoint->listing, chunk))
        write_chunk(wal, write, chunk, wal->config.lane_count, now_ns);
    else
        checkpoint->listed = true;
    return 1;
}

void wal_checkpoint_submit_again(struct wal *wal, uint64_t now_ns) {
    struct wal_checkpoint *checkpoint = &wal->checkpoint;
    for (unsigned i = 0; i < CHECKPOINT_WRITES; i++) {
        struct wal_checkpoint_write *write = &checkpoint->writes[i];
        if (write->chunk == NULL || write->submitted)
            continue;
        if (checkpoint->state == WAL_CHECKPOINT_ABANDONING)
            release_chunk(wal, write);
        else
            submit_write(wal, write, now_ns);
    }
}
