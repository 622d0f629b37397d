/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "engine/base/check.h"
#include "engine/base/planted.h"
#include "wal/wal_internal.h"
#include "wal/wal_lane.h"

/* From hand-overs to a write: collect every lane's segment of the group, pad and digest it where it lies, and submit
 * header and segments as one write. Groups are submitted in order; the disk may finish them in any. */

/** Whether the lane has handed over its part of the group, or, while draining, has stopped with nothing open.
 *  `part` is what it handed over, NULL in the second case. */
static bool lane_ready(struct wal *wal, unsigned lane, seq_t seq, uint64_t now_ns,
                       const struct wal_handover **part) {
    /* Read before the ring: acquire pairs with the lane's release, so a lane whose segment is empty because it has just handed
     * over shows the hand-over too. */
    uint32_t bytes =
        atomic_load_explicit(&wal->config.lanes[lane].segment_bytes, memory_order_acquire);
    *part = wal_lane_handover_peek(&wal->config.lanes[lane]);
    while (*part != NULL && (*part)->seq <= wal->skipped[lane]) {
        /* the lane was taken for stopped, and was not */
        if ((*part)->length != 0) {
            wal_fail(wal, -EPROTO, "lcore %u handed over group %llu after the log was drained",
                     lane, (unsigned long long)(*part)->seq);
            return false;
        }
        wal_lane_handover_taken(&wal->config.lanes[lane]);
        *part = wal_lane_handover_peek(&wal->config.lanes[lane]);
    }
    if (*part != NULL) {
        assert((*part)->seq == seq);
        return true;
    }
    return wal->draining && now_ns - wal->raised_ns >= WAL_DRAIN_PATIENCE_NS && bytes == 0;
}

static void add_segment(struct wal *wal, struct wal_slot *slot, const struct wal_handover *part) {
    struct wal_chained_header *chained = &slot->header->chained;
    struct wal_segment_entry *entry = &chained->segments[chained->segment_count++];
    entry->offset = (uint32_t)chained->body_bytes;
    if (part == NULL || part->length == 0) {
        wal_digest(NULL, 0, entry->digest);
        if (part != NULL && part->cell_time > wal->cell_time)
            wal->cell_time = part->cell_time;
        return;
    }
    assert(part->length <= WAL_SEGMENT_BYTES_MAX && (uintptr_t)part->bytes % WAL_PAGE_BYTES == 0);
    entry->length = part->length;
    entry->records = part->record_count;
    uint32_t padded = wal_segment_pad(part->bytes, part->length);
    wal_digest(part->bytes, padded, entry->digest);
    slot->io.iov[slot->io.iov_count++] = (struct iovec){part->bytes, padded};
    slot->records += part->record_count;
    chained->body_bytes += padded;
    uint64_t newest =
        part->cell_time > part->last_timestamp ? part->cell_time : part->last_timestamp;
    if (newest > wal->cell_time)
        wal->cell_time = newest;
}

unsigned wal_seal(struct wal *wal, uint64_t now_ns) {
    const seq_t seq = wal->sealed_seq + 1;
    const struct wal_handover *parts[LCORES_MAX];
    bool wanted = false;
    if (seq == wal->open_seq)
        return 0; /* still open */
    for (unsigned lane = 0; lane < wal->config.lane_count; lane++) {
        if (!lane_ready(wal, lane, seq, now_ns, &parts[lane]))
            return 0;
        /* ordered before the hand-over by its release */
        if (atomic_load_explicit(&wal->config.lanes[lane].wanted_group, memory_order_relaxed) ==
            seq)
            wanted = true;
    }

    struct wal_slot *slot = wal_slot_of(wal, seq);
    assert(slot->state == WAL_SLOT_FREE);
    struct wal_chained_header *chained = &slot->header->chained;
    memset(slot->header, 0, sizeof(*slot->header));
    slot->records = 0;
    slot->io.iov[0] = (struct iovec){slot->header, WAL_PAGE_BYTES};
    slot->io.iov_count = 1;
    for (unsigned lane = 0; lane < wal->config.lane_count; lane++) {
        add_segment(wal, slot, parts[lane]);
        if (parts[lane] == NULL)
            wal->skipped[lane] = seq;
        else
            wal_lane_handover_taken(&wal->config.lanes[lane]);
    }
    chained->magic = WAL_HEADER_MAGIC;
    chained->version = WAL_FORMAT_VERSION;
    chained->header_bytes = WAL_PAGE_BYTES;
    memcpy(chained->cell_id, wal->config.identity.cell_id, sizeof(chained->cell_id));
    chained->term = wal->config.term;
    chained->seq = seq;
    chained->horizon_ms = wal->horizon_ms[seq % WAL_HORIZONS];
    chained->cell_time = wal->cell_time;
    chained->groups_in_flight = wal->config.groups_in_flight;
    wal->records_sealed += slot->records;
    if (seq == wal->digests_seq)
        wal->digests_records = wal->records_sealed;
    slot->seq = seq;
    slot->closing = wal->closing_raised && slot->records == 0 && !wanted;
    slot->state = WAL_SLOT_SEALED;
    wal->sealed_seq = seq;
    return 1;
}

/** Find the group's place. @return false when it has to wait for its file, or can have none */
static bool place_group(struct wal *wal, uint64_t bytes) {
    if (bytes > wal->config.file_bytes) {
        wal_fail(wal, -EFBIG,
                 "group %llu takes %llu bytes, more than a log file of %llu bytes: format with "
                 "larger files",
                 (unsigned long long)wal->submitted_seq + 1, (unsigned long long)bytes,
                 (unsigned long long)wal->config.file_bytes);
        return false;
    }
    if (wal->file_offset + bytes > wal->config.file_bytes) {
        wal->file++;
        wal->file_offset = 0;
    }
    /* The file behind the one that is written always exists: so the loss of the newest file shows (wal_recover.c). */
    return wal->file + 1 <= wal->files_ready;
}

unsigned wal_submit(struct wal *wal, uint64_t now_ns) {
    unsigned done = 0;
    for (; wal->submitted_seq < wal->sealed_seq; done++) {
        struct wal_slot *slot = wal_slot_of(wal, wal->submitted_seq + 1);
        struct wal_header *header = slot->header;
        uint64_t bytes = WAL_PAGE_BYTES + header->chained.body_bytes;
        wal->stuck = !place_group(wal, bytes);
        if (wal->stuck)
            break;
        memcpy(header->chained.previous_digest, wal->last_digest, WAL_DIGEST_BYTES);
        header->chained.commit_seq = wal->commit_seq;
        header->local.magic = WAL_LOCAL_MAGIC;
        header->local.term = header->chained.term;
        header->local.seq = slot->seq;
        header->local.durable_seq = slot->durable_seq = wal->commit_seq;
        if (PLANTED(durable_claimed_early))
            header->local.durable_seq = wal->submitted_seq;
        header->local.file_bytes = wal->config.file_bytes;
        wal_header_seal(header);

        slot->io.operation = DISK_WRITE;
        slot->io.file = wal->file;
        slot->io.offset = wal->file_offset;
        slot->io.bytes = bytes;
        slot->io.owner = slot;
        int rc = wal->config.disk->submit(wal->config.disk, &slot->io);
        if (rc == -EAGAIN)
            break;
        if (rc == 0) {
            wal->in_flight++; /* whatever else fails: the disk has the slot's memory */
            rc = wal_index_note(wal->index, slot->seq, wal->file, wal->file_offset,
                                header->chained.cell_time);
        }
        if (rc != 0) {
            wal_fail(wal, rc, "%s: cannot submit group %llu: %s",
                     wal->config.disk->name(wal->config.disk, wal->file),
                     (unsigned long long)slot->seq, strerrordesc_np(-rc));
            break;
        }
        slot->state = WAL_SLOT_WRITING;
        slot->submitted_ns = now_ns;
        wal_checkpoint_group_submitted(wal, slot);
        wal->submitted_seq++;
        wal->file_offset += bytes;
        memcpy(wal->last_digest, header->chained.digest, WAL_DIGEST_BYTES);
        wal_count(&wal->counters.writes_in_flight, 1);
    }
    return done;
}

/** The log's next file comes first. But a log that fills files as fast as they can be made always wants one, and what lets files go
 *  must get through as well: so the helper's turns alternate then. */
static bool gives_way(const struct wal *wal) {
    const struct wal_checkpoint *checkpoint = &wal->checkpoint;
    return (checkpoint->helper_waits || checkpoint->helper_waited) && !checkpoint->helper_last;
}

bool wal_file_wanted(const struct wal *wal) {
    return wal->creating ||
           (wal->files_ready < wal->file + 2 && wal->create_error == 0 && !gives_way(wal));
}

/** Whether to try again to make the file. When the next group has no other place, it is tried each time that something made room, and
 *  when nothing can make any, the log ends. */
static bool try_again(struct wal *wal, uint64_t now_ns) {
    if (!wal->stuck) {
        wal->stuck_tried = false;
        return now_ns >= wal->create_retry_ns;
    }
    if (!wal->stuck_tried) {
        wal->stuck_tried = true;
        return true;
    }
    if (!wal_retention_makes_room(wal, now_ns))
        wal_fail(
            wal, wal->create_error,
            "%s: making the log file of %llu bytes: %s; there is no place for group %llu; the log "
            "is closed and nothing is acknowledged",
            wal->config.disk->name(wal->config.disk, wal->create_io.file),
            (unsigned long long)wal->config.file_bytes, strerrordesc_np(-wal->create_error),
            (unsigned long long)wal->submitted_seq + 1);
    return false;
}

unsigned wal_create_ahead(struct wal *wal, uint64_t now_ns) {
    if (wal->creating || wal->files_ready >= wal->file + 2 || gives_way(wal))
        return 0;
    if (wal->create_error != 0 && !try_again(wal, now_ns))
        return 0;
    wal->create_io.operation = DISK_CREATE;
    wal->create_io.file = wal->files_ready + 1;
    wal->create_io.offset = 0;
    wal->create_io.bytes = wal->config.file_bytes;
    wal->create_io.iov_count = 0;
    wal->create_io.owner = wal;
    int rc = wal->config.disk->submit(wal->config.disk, &wal->create_io);
    if (rc == -EAGAIN)
        return 0;
    wal->checkpoint.helper_last = false;
    wal->creating = true;
    if (rc == 0) {
        wal->in_flight++;
    } else {
        wal->create_io.result = rc;
        wal_create_done(wal, now_ns);
    }
    return 1;
}

void wal_create_done(struct wal *wal, uint64_t now_ns) {
    wal->creating = false;
    wal->create_error = (int)wal->create_io.result;
    if (wal->create_error == 0) {
        wal->files_ready = wal->create_io.file;
        wal->stuck_tried = false;
        wal_retention_count(wal);
    } else {
        wal->create_retry_ns = now_ns + WAL_CREATE_RETRY_NS;
    }
}
