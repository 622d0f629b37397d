/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/check.h"
#include "wal/wal_format.h"
#include "wal/wal_window.h"

int wal_window_open(struct wal_window *window, struct disk *disk, uint64_t file_bytes) {
    *window = (struct wal_window){.disk = disk, .file_bytes = file_bytes};
    window->room = file_bytes < WAL_WINDOW_BYTES ? file_bytes : WAL_WINDOW_BYTES;
    window->bytes = aligned_alloc(WAL_PAGE_BYTES, window->room);
    return window->bytes == NULL && window->room != 0 ? -ENOMEM : 0;
}

void wal_window_close(struct wal_window *window) {
    free(window->bytes);
    window->bytes = NULL;
}

int wal_window_get(struct wal_window *window, uint64_t file, uint64_t offset, uint64_t length,
                   const uint8_t **bytes) {
    assert(offset + length <= window->file_bytes && offset % WAL_PAGE_BYTES == 0 &&
           length % WAL_PAGE_BYTES == 0);
    const bool inside = window->file == file && offset >= window->start && offset <= window->end;
    if (!inside || offset + length > window->end) {
        uint64_t kept = inside ? window->end - offset : 0;
        const uint8_t *keep = window->bytes + (inside ? offset - window->start : 0);
        if (length > window->room) {
            size_t room = length + WAL_WINDOW_BYTES;
            uint8_t *grown = aligned_alloc(WAL_PAGE_BYTES, room);
            if (grown == NULL)
                return -ENOMEM;
            memcpy(grown, keep, kept);
            free(window->bytes);
            window->bytes = grown;
            window->room = room;
        } else {
            memmove(window->bytes, keep, kept);
        }
        uint64_t more = window->room - kept, left = window->file_bytes - offset - kept;
        if (more > left)
            more = left;
        window->file = 0;
        int rc = window->disk->read(window->disk, file, offset + kept, window->bytes + kept, more);
        if (rc != 0)
            return rc;
        window->file = file;
        window->start = offset;
        window->end = offset + kept + more;
    }
    *bytes = window->bytes + (offset - window->start);
    return 0;
}
