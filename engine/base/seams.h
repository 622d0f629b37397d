/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_ENGINE_BASE_SEAMS_H
#define TALLY_ENGINE_BASE_SEAMS_H

#include <sys/uio.h>

#include "engine/base/types.h"

/** The five tables through which everything meets the world (design section 10).
 *  Production binds DPDK, io_uring and the kernel's clock; tests and the simulator bind their own.
 *  A caller holds a pointer to the table; implementations embed it as their first member. */

/* --- port: packet bursts ------------------------------------------------------------------------------------------ */

struct rte_mbuf;

/** Bursts in, bursts out. Packets are rte_mbufs, for every port of the system is a DPDK port (net_ring in tests). */
struct port {
    /** @return how many packets were received, at most `count` */
    unsigned (*rx)(struct port *port, struct rte_mbuf **packets, unsigned count);
    /** @return how many were taken; the rest stay the caller's */
    unsigned (*tx)(struct port *port, struct rte_mbuf **packets, unsigned count);
};

/* --- disk: log segment files, checkpoints --------------------------------------------------------------------------- */

/** What a file is: the high byte of its number. */
enum disk_file_kind {
    DISK_LOG = 0, /**< made whole and zero-filled; each write is durable when it completes */
    DISK_CHECKPOINT_DATA = 1,     /**< grows with its writes; durable after DISK_SYNC */
    DISK_CHECKPOINT_MANIFEST = 2, /**< published whole, never written to */
};
#define DISK_FILE_KINDS 3
#define DISK_KIND_SHIFT 56

static inline uint64_t disk_file(enum disk_file_kind kind, uint64_t number) {
    return ((uint64_t)kind << DISK_KIND_SHIFT) | number;
}
static inline enum disk_file_kind disk_file_kind(uint64_t file) {
    return (enum disk_file_kind)(file >> DISK_KIND_SHIFT);
}
static inline uint64_t disk_file_number(uint64_t file) {
    return file & (((uint64_t)1 << DISK_KIND_SHIFT) - 1);
}

enum disk_operation {
    DISK_WRITE =
        1, /**< of a log file: durable when it completes (O_DIRECT|O_DSYNC); else after DISK_SYNC */
    DISK_READ = 2,
    DISK_CREATE =
        3, /**< log: make the file of `bytes` zero bytes under another name, synced, then renamed;
                checkpoint data: make it empty, in place of what may have its name */
    DISK_SYNC = 4, /**< the file's bytes, its size and its name are durable when it completes */
    DISK_PUBLISH =
        5, /**< make the file with iov[0]'s bytes under another name, sync it, rename it, sync the directory */
    DISK_REMOVE = 6, /**< the file goes, durably; 0 also where there is none */
};

/** One operation on its way. The caller owns the memory and leaves it alone until poll gives it back. */
struct disk_io {
    uint8_t operation;
    uint64_t file;                    /**< disk_file() */
    uint64_t offset;                  /**< bytes, 4 KiB aligned */
    uint64_t bytes;                   /**< total; 4 KiB multiple */
    struct iovec iov[LCORES_MAX + 1]; /**< 4 KiB aligned pieces */
    unsigned iov_count;
    int64_t
        result; /**< bytes done (anything less than `bytes` is an error), 0 for all but reads and writes, or -errno */
    void *owner;
};

struct disk {
    /** @return 0, or -EAGAIN when the queue is full; of operations from DISK_CREATE on, one is taken at a time */
    int (*submit)(struct disk *disk, struct disk_io *io);
    /** Hand submitted operations to the kernel and collect finished ones. @return how many; -errno when the disk itself is lost */
    int (*poll)(struct disk *disk, struct disk_io **done, unsigned count);
    /* control path: blocking, before the lcores run */
    /** disk_file() of the files of a kind that are present, ascending. @return how many, -ENOSPC when more than `count`, -errno */
    int (*list)(struct disk *disk, enum disk_file_kind kind, uint64_t *files, unsigned count);
    /** Size in bytes, or -errno (-ENOENT). */
    int64_t (*size)(struct disk *disk, uint64_t file);
    /** Synchronous, whole. @return 0 or -errno (-EIO when short). */
    int (*read)(struct disk *disk, uint64_t file, uint64_t offset, void *bytes, size_t length);
    int (*write)(struct disk *disk, uint64_t file, uint64_t offset, const void *bytes,
                 size_t length);
    int (*sync)(struct disk *disk, uint64_t file);
    /** Human name of a file, for messages. */
    const char *(*name)(struct disk *disk, uint64_t file);
};

/* --- clock, random, coordinator ------------------------------------------------------------------------------------ */

struct clock {
    uint64_t (*monotonic_ns)(struct clock *clock);
    uint64_t (*realtime_ns)(struct clock *clock); /**< Unix time */
};

struct random {
    void (*fill)(struct random *random, void *bytes, size_t length);
};

/** Who may be primary, and in which term. The solo one: a directory lock and the log's last term plus one. */
struct coordinator {
    /** Become primary of the next term after `last_term`. @return 0, -EBUSY (somebody else is) or -errno */
    int (*lead)(struct coordinator *coordinator, term_t last_term, term_t *term);
    void (*resign)(struct coordinator *coordinator);
};

#endif
