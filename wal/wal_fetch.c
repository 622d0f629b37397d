/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "engine/base/check.h"
#include "wal/wal_internal.h"
#include "wal/wal_lane.h"

/* Records read back from the log, beside the writes. Each fetch is two reads at most: one from the sparse index's entry,
 * which holds the headers of all groups that belong to the entry and often the record too, and one of the record's pages.
 * A record is given out only from groups that are committed, so nothing that is read is still being written. */

static void answer(struct wal *wal, unsigned lane, wal_place_t place, uint64_t cookie, int status,
                   const void *record, size_t length) {
    struct wal_fetch *slot = wal_lane_answer_slot(&wal->config.lanes[lane]);
    slot->place = place;
    slot->cookie = cookie;
    slot->status = status;
    slot->length = (uint32_t)length;
    if (length != 0)
        memcpy(slot->record, record, length);
    wal_lane_answer_put(&wal->config.lanes[lane]);
    wal_count(&wal->counters.fetches, 1);
}

static void finish(struct wal *wal, struct wal_fetch_slot *fetch, int status, const void *record,
                   size_t length) {
    answer(wal, fetch->lane, fetch->place, fetch->cookie, status, record, length);
    fetch->state = WAL_FETCH_FREE;
    wal->fetches_busy--;
}

/** Hand the slot's read to the disk; when its queue is full, a later turn tries again. */
static void submit_read(struct wal *wal, struct wal_fetch_slot *fetch) {
    int rc = wal->config.disk->submit(wal->config.disk, &fetch->io);
    fetch->submitted = rc == 0;
    if (rc == 0)
        wal->in_flight++;
    else if (rc != -EAGAIN)
        finish(wal, fetch, -EIO, NULL, 0);
}

static void read_at(struct wal *wal, struct wal_fetch_slot *fetch, uint64_t offset,
                    uint64_t bytes) {
    uint64_t left = wal->config.file_bytes - offset;
    fetch->io.operation = DISK_READ;
    fetch->io.file = fetch->file;
    fetch->io.offset = offset;
    fetch->io.bytes = bytes < left ? bytes : left;
    fetch->io.iov[0] = (struct iovec){fetch->buffer, fetch->io.bytes};
    fetch->io.iov_count = 1;
    fetch->io.owner = fetch;
    submit_read(wal, fetch);
}

/** Read on from where the walk stands; a file without room for another header ends there. */
static void walk_on(struct wal *wal, struct wal_fetch_slot *fetch) {
    if (fetch->file_offset >= wal->config.file_bytes) {
        fetch->file++;
        fetch->file_offset = 0;
    }
    if (fetch->file > wal->file) {
        finish(wal, fetch, -ENOENT, NULL, 0);
        return;
    }
    read_at(wal, fetch, fetch->file_offset, WAL_INDEX_BYTES);
}

/** The record's bytes are in the buffer, from `record_offset` of the file on. */
static void give_record(struct wal *wal, struct wal_fetch_slot *fetch) {
    const uint8_t *record = fetch->buffer + (fetch->record_offset - fetch->io.offset);
    uint64_t in_buffer = fetch->io.offset + fetch->io.bytes - fetch->record_offset;
    uint64_t room = fetch->record_room < in_buffer ? fetch->record_room : in_buffer;
    size_t length = wal_record_length(record, room);
    if (length == 0 || record[0] == WAL_RECORD_PADDING)
        finish(wal, fetch, -EBADMSG, NULL, 0);
    else
        finish(wal, fetch, 0, record, length);
}

/** The wanted group's header is at `page` in the buffer: find the record in its directory. */
static void find_record(struct wal *wal, struct wal_fetch_slot *fetch,
                        const struct wal_header *header) {
    const uint64_t body = fetch->file_offset + WAL_PAGE_BYTES;
    const unsigned lcore = wal_place_lcore(fetch->place);
    const uint64_t offset = wal_place_offset_bytes(fetch->place);
    if (lcore >= header->chained.segment_count ||
        offset >= header->chained.segments[lcore].length) {
        finish(wal, fetch, -ENOENT, NULL, 0);
        return;
    }
    const struct wal_segment_entry *entry = &header->chained.segments[lcore];
    const uint64_t segment = body + entry->offset, segment_bytes = wal_page_align(entry->length);
    const uint64_t buffer_end = fetch->io.offset + fetch->io.bytes;
    fetch->record_offset = segment + offset;
    fetch->record_room = entry->length - offset;
    if (segment + segment_bytes <= buffer_end) {
        /* the whole segment is here, so its digest can speak for the record */
        uint8_t digest[WAL_DIGEST_BYTES];
        wal_digest(fetch->buffer + (segment - fetch->io.offset), segment_bytes, digest);
        if (memcmp(digest, entry->digest, WAL_DIGEST_BYTES) != 0)
            finish(wal, fetch, -EBADMSG, NULL, 0);
        else
            give_record(wal, fetch);
        return;
    }
    fetch->state = WAL_FETCH_RECORD;
    read_at(wal, fetch, fetch->record_offset & ~(uint64_t)(WAL_PAGE_BYTES - 1), 2 * WAL_PAGE_BYTES);
}

/** Walk from header to header through the buffer. */
static void walk(struct wal *wal, struct wal_fetch_slot *fetch) {
    const uint64_t buffer_end = fetch->io.offset + fetch->io.bytes;
    while (fetch->file_offset < buffer_end) {
        const struct wal_header *header =
            (const void *)(fetch->buffer + (fetch->file_offset - fetch->io.offset));
        enum wal_page_state state = wal_header_check(header, wal->config.identity.cell_id);
        if (state == WAL_PAGE_ZERO) {
            /* the rest of a file that could not hold the next group */
            fetch->file_offset = wal->config.file_bytes;
            break;
        }
        if (state != WAL_PAGE_GOOD || header->chained.seq != fetch->walk_seq) {
            finish(wal, fetch, -EBADMSG, NULL, 0);
            return;
        }
        if (fetch->walk_seq == fetch->seq) {
            find_record(wal, fetch, header);
            return;
        }
        fetch->walk_seq++;
        fetch->file_offset += WAL_PAGE_BYTES + header->chained.body_bytes;
    }
    walk_on(wal, fetch);
}

void wal_fetch_done(struct wal *wal, struct wal_fetch_slot *fetch) {
    if (fetch->io.result != (int64_t)fetch->io.bytes)
        finish(wal, fetch, -EIO, NULL, 0);
    else if (fetch->state == WAL_FETCH_WALKING)
        walk(wal, fetch);
    else
        give_record(wal, fetch);
}

static void start(struct wal *wal, struct wal_fetch_slot *fetch, seq_t seq) {
    const struct wal_index_entry *entry = wal_index_find(wal->index, seq);
    wal->fetches_busy++;
    fetch->state = WAL_FETCH_WALKING;
    fetch->seq = seq;
    if (entry == NULL || seq > wal->open_seq) {
        finish(wal, fetch, -ENOENT, NULL, 0);
        return;
    }
    fetch->walk_seq = entry->seq;
    fetch->file = entry->file;
    fetch->file_offset = entry->offset;
    walk_on(wal, fetch);
}

unsigned wal_fetch_start(struct wal *wal) {
    unsigned done = 0;
    for (unsigned i = 0; i < WAL_FETCH_SLOTS && wal->fetches_busy != 0; i++)
        if (wal->fetches[i].state != WAL_FETCH_FREE && !wal->fetches[i].submitted)
            submit_read(wal, &wal->fetches[i]);
    /* one fetch a lane and round, so that no lane starves another; a fetch of a group that is not committed waits in
     * its lane's ring, for at most as long as the group takes */
    for (unsigned empty = 0;
         empty < wal->config.lane_count && wal->fetches_busy < WAL_FETCH_SLOTS;) {
        const unsigned lane = wal->fetch_lane;
        struct wal_lane *ring = &wal->config.lanes[lane];
        wal_place_t place;
        uint64_t cookie;
        wal->fetch_lane = (lane + 1) % wal->config.lane_count;
        if (!wal_lane_fetch_peek(ring, &place, &cookie)) {
            empty++;
            continue;
        }
        seq_t seq = wal_place_seq(place, wal->open_seq);
        if (seq > wal->commit_seq && seq <= wal->open_seq) {
            empty++;
            continue;
        }
        wal_lane_fetch_taken(ring);
        struct wal_fetch_slot *fetch = wal->fetches;
        while (fetch->state != WAL_FETCH_FREE)
            fetch++;
        fetch->lane = lane;
        fetch->place = place;
        fetch->cookie = cookie;
        start(wal, fetch, seq);
        empty = 0;
        done++;
    }
    return done;
}
