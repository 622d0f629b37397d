/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_DISK_HELPER_H
#define TALLY_WAL_DISK_HELPER_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "wal/disk_files.h"

/** A thread of normal priority, on any core, that does what would block an lcore: one operation at a time.
 *  Flow:  disk_uring submit -> [disk_helper] -> disk_files_perform -> disk_uring poll
 *  Owner: disk_uring; the thread starts with the first operation. */

struct disk_helper {
    const struct disk_files *files;
    pthread_t thread;
    bool runs;
    bool busy;
    sem_t wake;
    _Atomic(struct disk_io *) wanted;
    _Atomic(struct disk_io *) finished;
    atomic_bool stop;
};

/** @return 0, -EAGAIN while it is busy, -errno when there can be no thread */
int disk_helper_submit(struct disk_helper *helper, struct disk_io *io);
/** The operation, once it is done; else NULL. */
struct disk_io *disk_helper_take(struct disk_helper *helper);
/** Waits for the operation that it is at. */
void disk_helper_stop(struct disk_helper *helper);

#endif
