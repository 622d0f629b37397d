/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/base/check.h"
#include "wal/wal_format.h"
#include "wal/wal_window.h"

/** Map `room` bytes of fresh memory twice, side by side. @return 0 or -errno */
static int map_ring(struct wal_window *window, size_t room) {
    int rc = 0, fd = memfd_create("tally-log-window", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    uint8_t *both = MAP_FAILED;
    if (ftruncate(fd, (off_t)room) == 0)
        both = mmap(NULL, 2 * room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (both == MAP_FAILED) {
        rc = -errno;
    } else if (mmap(both, room, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
                   MAP_FAILED ||
               mmap(both + room, room, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
                   MAP_FAILED) {
        rc = -errno;
        munmap(both, 2 * room);
    } else {
        window->bytes = both;
        window->room = room;
    }
    close(fd);
    return rc;
}

int wal_window_open(struct wal_window *window, struct disk *disk, uint64_t file_bytes,
                    uint64_t first_file, uint64_t last_file) {
    *window = (struct wal_window){
        .disk = disk,
        .first_file = first_file,
        .file_bytes = file_bytes,
        .total_bytes = last_file < first_file ? 0 : file_bytes * (last_file - first_file + 1),
        .held = UINT64_MAX};
    if (window->total_bytes == 0)
        return 0;
    return map_ring(window, window->total_bytes < WAL_WINDOW_BYTES ? window->total_bytes
                                                                   : WAL_WINDOW_BYTES);
}

/** Wait for the oldest read and take it. @return 0 or -errno (then it is taken, too, unless the disk is lost) */
static int collect(struct wal_window *window) {
    struct wal_window_read *oldest = &window->reads[window->first_read];
    while (!oldest->done) {
        struct disk_io *done[WAL_WINDOW_READS];
        int count = window->disk->poll(window->disk, done, WAL_WINDOW_READS);
        if (count < 0)
            return count;
        for (int i = 0; i < count; i++)
            ((struct wal_window_read *)done[i]->owner)->done = true;
        if (count == 0)
            sched_yield();
    }
    window->first_read = (window->first_read + 1) % WAL_WINDOW_READS;
    window->read_count--;
    if (oldest->io.result != (int64_t)oldest->io.bytes)
        return oldest->io.result < 0 ? (int)oldest->io.result : -EIO;
    window->end += oldest->io.bytes;
    return 0;
}

/** Wait for all that is on its way, whatever becomes of it. @return 0, or -errno when the disk is lost */
static int drop_reads(struct wal_window *window) {
    while (window->read_count != 0) {
        unsigned before = window->read_count;
        int rc = collect(window);
        if (rc != 0 && window->read_count == before)
            return rc;
    }
    return 0;
}

void wal_window_close(struct wal_window *window) {
    if (window->bytes != NULL && drop_reads(window) == 0)
        munmap(window->bytes, 2 * window->room);
    window->bytes = NULL;
}

/** Hand as many reads to the disk as there is room for. @return 0 or -errno */
static int read_ahead(struct wal_window *window) {
    while (window->read_count < WAL_WINDOW_READS && window->ahead < window->total_bytes) {
        struct wal_window_read *read =
            &window->reads[(window->first_read + window->read_count) % WAL_WINDOW_READS];
        uint64_t offset = window->ahead % window->file_bytes, left = window->file_bytes - offset;
        uint64_t free = window->start + window->room - window->ahead;
        uint64_t bytes = left < WAL_WINDOW_PIECE_BYTES ? left : WAL_WINDOW_PIECE_BYTES;
        if (bytes > free)
            bytes = free;
        if (bytes == 0 ||
            (bytes < WAL_WINDOW_PIECE_BYTES && bytes < left && window->read_count != 0))
            return 0; /* a small piece only when nothing better is on its way */
        read->done = false;
        read->io = (struct disk_io){.operation = DISK_READ,
                                    .file = window->first_file + window->ahead / window->file_bytes,
                                    .offset = offset,
                                    .bytes = bytes,
                                    .iov_count = 1,
                                    .owner = read};
        read->io.iov[0] = (struct iovec){window->bytes + window->ahead % window->room, bytes};
        int rc = window->disk->submit(window->disk, &read->io);
        if (rc == -EAGAIN && window->read_count != 0)
            return 0;
        if (rc != 0)
            return rc;
        window->read_count++;
        window->ahead += bytes;
    }
    return 0;
}

static uint64_t place_of(const struct wal_window *window, uint64_t file, uint64_t offset) {
    return (file - window->first_file) * window->file_bytes + offset;
}

void wal_window_hold(struct wal_window *window, uint64_t file, uint64_t offset) {
    window->held = file ? place_of(window, file, offset) : UINT64_MAX;
}

int wal_window_get(struct wal_window *window, uint64_t file, uint64_t offset, uint64_t length,
                   const uint8_t **bytes) {
    const uint64_t from = place_of(window, file, offset);
    const uint64_t keep = window->held < from ? window->held : from;
    int rc = 0;
    assert(file >= window->first_file && offset + length <= window->file_bytes &&
           from + length <= window->total_bytes);
    assert(offset % WAL_PAGE_BYTES == 0 && length % WAL_PAGE_BYTES == 0);
    if (from < window->start || from > window->ahead || from + length - keep > window->room) {
        if (window->held != UINT64_MAX)
            return -EAGAIN;
        rc = drop_reads(window);
        if (rc == 0 && length > window->room) {
            if (window->bytes != NULL)
                munmap(window->bytes, 2 * window->room);
            window->bytes = NULL;
            window->room = 0;
            rc = map_ring(window, length + WAL_WINDOW_BYTES);
        }
        window->end = window->ahead = from;
    }
    window->start = keep;
    while (rc == 0 && window->end < from + length) {
        rc = read_ahead(window);
        if (rc == 0)
            rc = collect(window);
    }
    if (rc == 0)
        rc = read_ahead(window);
    if (rc != 0) {
        /* nothing in the ring is to be trusted; a next call starts anew */
        if (drop_reads(window) == 0)
            window->start = window->end = window->ahead = 0;
        return rc;
    }
    *bytes = window->bytes + from % window->room;
    return 0;
}
