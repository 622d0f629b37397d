/* SPDX-License-Identifier: Apache-2.0 */
#include "wal/disk_wait.h"

#include <errno.h>
#include <sched.h>

int disk_wait(struct disk *disk, struct disk_io *io) {
    struct disk_io *done = NULL;
    int rc = disk->submit(disk, io);
    while (rc == 0 && done == NULL) {
        int count = disk->poll(disk, &done, 1);
        if (count < 0)
            return count;
        if (count == 0)
            sched_yield();
    }
    if (rc != 0 || io->result < 0)
        return rc != 0 ? rc : (int)io->result;
    bool moves_bytes = io->operation == DISK_WRITE || io->operation == DISK_READ;
    return moves_bytes && io->result != (int64_t)io->bytes ? -EIO : 0;
}
