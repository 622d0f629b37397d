/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "engine/base/check.h"
#include "wal/wal_internal.h"
#include "wal/wal_lane.h"

/* Records read back from the log, beside the writes. A fetch looks at two windows of the log: one from the sparse
 * index's entry, which holds the headers of all groups that belong to the entry and often the record too, and one
 * around the record. Records that are asked for together mostly stand together, so the windows read last are kept and
 * answer every fetch that wants the same: one read, and one check of each header and each segment in it.
 *
 * A record is given out only from groups that were committed when the window's read was submitted, so nothing that is
 * given was still being written. A window may well hold more than that, the growing end of the log: a fetch of a later
 * group reads it again (covers_seq). A window in which damage shows is not used again either, so that the next fetch
 * asks the disk and not the memory. */

/* --- windows ------------------------------------------------------------------------------------------------------- */

/** Hand the window's read to the disk; when its queue is full, a later turn tries again. */
static void submit_read(struct wal *wal, struct wal_fetch_window *window) {
    int rc = wal->config.disk->submit(wal->config.disk, &window->io);
    window->submitted = rc == 0;
    if (rc == 0) {
        wal->in_flight++;
    } else if (rc != -EAGAIN) {
        window->io.result = rc;
        wal_fetch_done(window);
    }
}

/** No later fetch gets this window; those that hold on to it still do. */
static void forget(struct wal_fetch_window *window) {
    window->covers_seq = 0;
    window->used = 0;
}

void wal_fetch_done(struct wal_fetch_window *window) {
    window->state = WAL_WINDOW_READY;
    if (window->io.result != (int64_t)window->io.bytes) {
        window->state = WAL_WINDOW_EMPTY;
        forget(window);
    }
}

static uint64_t window_end(const struct wal_fetch_window *window) {
    return window->io.offset + window->io.bytes;
}

static const uint8_t *window_at(const struct wal_fetch_window *window, uint64_t offset) {
    return window->buffer + (offset - window->io.offset);
}

static void read_window(struct wal *wal, struct wal_fetch_window *window, uint64_t file,
                        uint64_t offset, uint64_t bytes) {
    window->state = WAL_WINDOW_READING;
    window->covers_seq = wal->commit_seq;
    window->headers = 0;
    memset(window->segments, 0, sizeof(window->segments));
    window->io.operation = DISK_READ;
    window->io.file = file;
    window->io.offset = offset;
    window->io.bytes = bytes;
    window->io.iov[0] = (struct iovec){window->buffer, bytes};
    window->io.iov_count = 1;
    window->io.owner = window;
    submit_read(wal, window);
}

/** Hold on to the window that the fetch wants next: one that is there or on its way, else a read into the one that
 *  nobody has asked for the longest. NULL when all of them are being read. */
static struct wal_fetch_window *hold_window(struct wal *wal, const struct wal_fetch_slot *fetch) {
    const bool walking = fetch->state == WAL_FETCH_WALKING;
    const seq_t first_seq = walking ? fetch->walk_seq : 0;
    /* a page more than the records that start in it, for the last of them */
    const uint64_t offset =
        walking ? fetch->file_offset : fetch->record_offset & ~(uint64_t)(WAL_INDEX_BYTES - 1);
    const uint64_t left = wal->config.file_bytes - offset;
    uint64_t bytes = walking ? WAL_INDEX_BYTES : WAL_FETCH_BUFFER_BYTES;
    bytes = bytes < left ? bytes : left;

    struct wal_fetch_window *found = NULL, *oldest = NULL;
    for (unsigned i = 0; i < WAL_FETCH_SLOTS && found == NULL; i++) {
        struct wal_fetch_window *window = &wal->windows[i];
        if (window->io.file == fetch->file && window->io.offset == offset &&
            window->io.bytes == bytes && window->first_seq == first_seq) {
            if (window->covers_seq >= fetch->seq)
                found = window;
            else
                window->used = 0; /* the same will be read anew */
        }
        if (window->state != WAL_WINDOW_READING && window->waiters == 0 &&
            (oldest == NULL || window->used < oldest->used))
            oldest = window;
    }
    if (found == NULL) {
        found = oldest;
        if (found == NULL)
            return NULL;
        found->first_seq = first_seq;
        read_window(wal, found, fetch->file, offset, bytes);
    }
    if (found->covers_seq != 0)
        found->used = ++wal->windows_used;
    found->waiters++;
    return found;
}

/* --- one fetch ----------------------------------------------------------------------------------------------------- */

/** @return true: the fetch is over */
static bool answer(struct wal *wal, const struct wal_fetch_slot *fetch, int status,
                   const void *record, size_t length) {
    struct wal_lane *lane = &wal->config.lanes[fetch->lane];
    struct wal_fetch *slot = wal_lane_answer_slot(lane);
    slot->place = fetch->place;
    slot->cookie = fetch->cookie;
    slot->status = status;
    slot->length = (uint32_t)length;
    if (length != 0)
        memcpy(slot->record, record, length);
    wal_lane_answer_put(lane);
    wal_count(&wal->counters.fetches, 1);
    return true;
}

static bool answer_damaged(struct wal *wal, const struct wal_fetch_slot *fetch,
                           struct wal_fetch_window *window) {
    forget(window);
    return answer(wal, fetch, -EBADMSG, NULL, 0);
}

/** The record's bytes are in the window, from `record_offset` of the file on. */
static bool give_record(struct wal *wal, const struct wal_fetch_slot *fetch,
                        struct wal_fetch_window *window) {
    const uint8_t *record = window_at(window, fetch->record_offset);
    uint64_t in_window = window_end(window) - fetch->record_offset;
    uint64_t room = fetch->record_room < in_window ? fetch->record_room : in_window;
    size_t length = wal_record_length(record, room);
    if (length == 0 || record[0] == WAL_RECORD_PADDING)
        return answer_damaged(wal, fetch, window);
    return answer(wal, fetch, 0, record, length);
}

/** Whether the segment's digest speaks for it, computed once a window.
 *  @param segments the group's bits of what was checked */
static bool segment_good(const uint8_t *bytes, const struct wal_segment_entry *entry,
                         unsigned lcore, uint64_t *segments) {
    uint8_t digest[WAL_DIGEST_BYTES];
    if (*segments >> lcore & 1)
        return true;
    wal_digest(bytes, wal_page_align(entry->length), digest);
    if (memcmp(digest, entry->digest, WAL_DIGEST_BYTES) != 0)
        return false;
    *segments |= 1ULL << lcore;
    return true;
}

/** The wanted group's header stands in the window at file_offset: find the record in its directory.
 *  @return whether the fetch is over; else it wants the window around the record */
static bool find_record(struct wal *wal, struct wal_fetch_slot *fetch,
                        struct wal_fetch_window *window, uint64_t *segments) {
    const struct wal_header *header = (const void *)window_at(window, fetch->file_offset);
    const unsigned lcore = wal_place_lcore(fetch->place);
    const uint64_t offset = wal_place_offset_bytes(fetch->place);
    if (lcore >= header->chained.segment_count || offset >= header->chained.segments[lcore].length)
        return answer(wal, fetch, -ENOENT, NULL, 0);
    const struct wal_segment_entry *entry = &header->chained.segments[lcore];
    const uint64_t segment = fetch->file_offset + WAL_PAGE_BYTES + entry->offset;
    fetch->record_offset = segment + offset;
    fetch->record_room = entry->length - offset;
    if (segment + wal_page_align(entry->length) <= window_end(window)) {
        /* the whole segment is here, so its digest can speak for the record */
        if (!segment_good(window_at(window, segment), entry, lcore, segments))
            return answer_damaged(wal, fetch, window);
        return give_record(wal, fetch, window);
    }
    /* a segment that no window holds whole has no digest to ask; its records speak for themselves, wherever they are */
    const uint64_t longest =
        fetch->record_room < WAL_RECORD_BYTES_MAX ? fetch->record_room : WAL_RECORD_BYTES_MAX;
    if (fetch->record_offset + longest <= window_end(window))
        return give_record(wal, fetch, window);
    fetch->state = WAL_FETCH_RECORD;
    return false;
}

/** Walk from header to header through the window. Each was checked when the first fetch came by.
 *  @return whether the fetch is over; else it wants another window */
static bool walk(struct wal *wal, struct wal_fetch_slot *fetch, struct wal_fetch_window *window) {
    while (fetch->file_offset < window_end(window)) {
        const struct wal_header *header = (const void *)window_at(window, fetch->file_offset);
        const unsigned group = (unsigned)(fetch->walk_seq - window->first_seq);
        if (group >= window->headers) {
            enum wal_page_state state = wal_header_check(header, wal->config.identity.cell_id);
            if (state == WAL_PAGE_ZERO) {
                /* the rest of a file that could not hold the next group */
                fetch->file_offset = wal->config.file_bytes;
                break;
            }
            if (state != WAL_PAGE_GOOD || header->chained.seq != fetch->walk_seq)
                return answer_damaged(wal, fetch, window);
            assert(group < WAL_FETCH_HEADERS); /* each takes a page at least */
            window->headers = group + 1;
        }
        if (fetch->walk_seq == fetch->seq)
            return find_record(wal, fetch, window, &window->segments[group]);
        fetch->walk_seq++;
        fetch->file_offset += WAL_PAGE_BYTES + header->chained.body_bytes;
    }
    if (fetch->file_offset >= wal->config.file_bytes) {
        fetch->file++;
        fetch->file_offset = 0;
    }
    /* the group is committed, so it stands before the log's end: what is not there was lost */
    return fetch->file > wal->file && answer_damaged(wal, fetch, window);
}

/** As far as it goes without waiting; every window that it wants lies behind the one before.
 *  @return whether the fetch is over */
static bool advance(struct wal *wal, struct wal_fetch_slot *fetch) {
    for (bool over = false; !over;) {
        if (fetch->window == NULL)
            fetch->window = hold_window(wal, fetch);
        struct wal_fetch_window *window = fetch->window;
        if (window == NULL || window->state == WAL_WINDOW_READING)
            return false;
        if (window->state == WAL_WINDOW_EMPTY)
            over = answer(wal, fetch, wal_retention_removed(wal, fetch->file) ? -ENOENT : -EIO,
                          NULL, 0);
        else if (fetch->state == WAL_FETCH_WALKING)
            over = walk(wal, fetch, window);
        else
            over = give_record(wal, fetch, window);
        fetch->window = NULL;
        window->waiters--;
    }
    return true;
}

/* --- the turn ------------------------------------------------------------------------------------------------------ */

/** The fetches on their way, oldest first, so that none is starved of a window. @return how many are over */
static unsigned advance_all(struct wal *wal) {
    unsigned kept = 0, over;
    for (unsigned i = 0; i < wal->fetches_busy; i++)
        if (!advance(wal, &wal->fetches[i]))
            wal->fetches[kept++] = wal->fetches[i];
    over = wal->fetches_busy - kept;
    wal->fetches_busy = kept;
    return over;
}

/** Begin with a fetch where the index says. */
static void start(struct wal *wal, struct wal_fetch_slot *fetch) {
    const struct wal_index_entry *entry = wal_index_find(wal->index, fetch->seq);
    if (entry == NULL || fetch->seq > wal->open_seq) {
        answer(wal, fetch, -ENOENT, NULL, 0);
        return;
    }
    fetch->walk_seq = entry->seq;
    fetch->file = entry->file;
    fetch->file_offset = entry->offset;
    if (!advance(wal, fetch))
        wal->fetches[wal->fetches_busy++] = *fetch;
}

unsigned wal_fetch(struct wal *wal) {
    for (unsigned i = 0; i < WAL_FETCH_SLOTS && wal->fetches_busy != 0; i++)
        if (wal->windows[i].state == WAL_WINDOW_READING && !wal->windows[i].submitted)
            submit_read(wal, &wal->windows[i]);
    unsigned done = advance_all(wal);
    /* one fetch a lane and round, so that no lane starves another; a fetch of a group that is not committed waits in
     * its lane's ring, for at most as long as the group takes */
    for (unsigned empty = 0; empty < wal->config.lane_count && done < WAL_FETCHES_A_TURN &&
                             wal->fetches_busy < WAL_FETCHES_A_TURN;) {
        const unsigned lane = wal->fetch_lane;
        struct wal_lane *ring = &wal->config.lanes[lane];
        struct wal_fetch_slot fetch = {.state = WAL_FETCH_WALKING, .lane = lane};
        wal->fetch_lane = (lane + 1) % wal->config.lane_count;
        if (!wal_lane_fetch_peek(ring, &fetch.place, &fetch.cookie)) {
            empty++;
            continue;
        }
        fetch.seq = wal_place_seq(fetch.place, wal->open_seq);
        if (fetch.seq > wal->commit_seq && fetch.seq <= wal->open_seq) {
            empty++;
            continue;
        }
        wal_lane_fetch_taken(ring);
        start(wal, &fetch);
        empty = 0;
        done++;
    }
    return done;
}
