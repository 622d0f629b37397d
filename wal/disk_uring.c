/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "engine/base/check.h"
#include "wal/disk_helper.h"
#include "wal/disk_uring.h"

#define RING_ENTRIES 64u
#define OPEN_FILES 64u
#define LOCK_TRIES 10000u    /**< a millisecond each */
#define FILE_NONE UINT64_MAX /**< no file has this number */

struct open_file {
    uint64_t file; /**< FILE_NONE: free */
    int fd;
    unsigned in_flight;
};

struct disk_uring {
    struct disk disk; /**< first */
    enum disk_uring_mode mode;
    struct disk_files names;

    struct io_uring ring;
    pid_t ring_thread; /**< the thread that the ring belongs to; 0: no ring */
    unsigned in_flight;
    int lost; /**< -errno of a ring that does not answer any more */
    struct open_file files[OPEN_FILES];
    unsigned next_victim;

    struct disk_helper helper; /**< for what blocks: operations from DISK_CREATE on */
    uint64_t
        replacing; /**< the file that the helper removes or makes anew; not to be opened meanwhile */
};

static struct disk_uring *uring_of(struct disk *disk) {
    return (struct disk_uring *)disk;
}

/* --- open files ---------------------------------------------------------------------------------------------------- */

static struct open_file *find_open(struct disk_uring *uring, uint64_t file) {
    for (unsigned i = 0; i < OPEN_FILES; i++)
        if (uring->files[i].file == file)
            return &uring->files[i];
    return NULL;
}

/** A process that was killed has left the directory's lock, but the writes that it had in flight go on, and a sync does not
 * wait for them. They keep their file open, and so its lock. @return 0, -EBUSY, -errno */
static int lock_log_file(int fd) {
    for (unsigned tries = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; tries++) {
        if (errno != EWOULDBLOCK)
            return -errno;
        if (tries == LOCK_TRIES)
            return -EBUSY;
        usleep(1000);
    }
    return 0;
}

static void close_open(struct open_file *entry) {
    close(entry->fd);
    entry->file = FILE_NONE;
}

/** @return 0, -EAGAIN when every descriptor has operations in flight, -EBUSY, -errno */
static int open_file(struct disk_uring *uring, uint64_t file, struct open_file **out) {
    struct open_file *entry = find_open(uring, file);
    if (file == uring->replacing)
        return -ENOENT;
    if (entry == NULL && (entry = find_open(uring, FILE_NONE)) == NULL) {
        for (unsigned tries = 0; tries < OPEN_FILES && entry == NULL; tries++) {
            struct open_file *victim = &uring->files[uring->next_victim++ % OPEN_FILES];
            if (victim->in_flight == 0)
                entry = victim;
        }
        if (entry == NULL)
            return -EAGAIN;
        close_open(entry);
    }
    if (entry->file == FILE_NONE) {
        bool log = disk_file_kind(file) == DISK_LOG;
        int access = uring->mode != DISK_URING_WRITE ? O_RDONLY : log ? O_RDWR | O_DSYNC : O_RDWR;
        int fd = disk_files_descriptor(&uring->names, file, access);
        if (fd < 0)
            return fd;
        int rc = uring->mode == DISK_URING_WRITE && log ? lock_log_file(fd) : 0;
        if (rc != 0) {
            close(fd);
            return rc;
        }
        entry->fd = fd;
        entry->file = file;
    }
    *out = entry;
    return 0;
}

/** What the helper will remove or replace must not stay open: its space would stay taken, and writes would go to the old one. */
static int submit_helper(struct disk_uring *uring, struct disk_io *io) {
    bool replaces = io->operation != DISK_SYNC;
    struct open_file *entry = replaces ? find_open(uring, io->file) : NULL;
    if (uring->helper.busy || (entry != NULL && entry->in_flight != 0))
        return -EAGAIN;
    /* first: the last to close a removed file pays for giving its blocks back */
    if (entry != NULL)
        close_open(entry);
    int rc = disk_helper_submit(&uring->helper, io);
    if (rc == 0 && replaces)
        uring->replacing = io->file;
    return rc;
}

/* --- the ring ------------------------------------------------------------------------------------------------------ */

/** Kernel's number of this thread, asked for once. */
static pid_t this_thread(void) {
    static _Thread_local pid_t number;
    if (number == 0)
        number = gettid();
    return number;
}

static bool transient(int rc) {
    return rc == -EAGAIN || rc == -EBUSY || rc == -EINTR;
}

/** SINGLE_ISSUER binds a ring to the thread that made it: recovery reads on one thread, the WAL writes on another. */
static int own_ring(struct disk_uring *uring) {
    if (uring->ring_thread == this_thread())
        return 0;
    if (uring->in_flight != 0)
        return -EXDEV;
    if (uring->ring_thread != 0)
        io_uring_queue_exit(&uring->ring);
    uring->ring_thread = 0;
    /* with TASKRUN_FLAG an empty poll costs a load, not a system call */
    int rc = io_uring_queue_init(RING_ENTRIES, &uring->ring,
                                 IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                     IORING_SETUP_TASKRUN_FLAG);
    if (rc == 0)
        uring->ring_thread = this_thread();
    return rc == -EINVAL ? -ENOSYS : rc; /* a kernel before 6.1 */
}

static int uring_submit(struct disk *disk, struct disk_io *io) {
    struct disk_uring *uring = uring_of(disk);
    struct open_file *file;
    if (uring->mode != DISK_URING_WRITE && io->operation != DISK_READ)
        return -EROFS;
    if (io->operation >= DISK_CREATE)
        return submit_helper(uring, io);
    if (uring->lost != 0)
        return uring->lost;
    if (uring->in_flight == RING_ENTRIES)
        return -EAGAIN;
    int rc = own_ring(uring);
    if (rc == 0)
        rc = open_file(uring, io->file, &file);
    if (rc != 0)
        return rc;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    if (sqe == NULL)
        return -EAGAIN;
    if (io->operation == DISK_WRITE)
        io_uring_prep_writev(sqe, file->fd, io->iov, io->iov_count, io->offset);
    else
        io_uring_prep_readv(sqe, file->fd, io->iov, io->iov_count, io->offset);
    io_uring_sqe_set_data(sqe, io);
    file->in_flight++;
    uring->in_flight++;
    rc = io_uring_submit(&uring->ring);
    if (rc < 0 && !transient(rc)) /* a transient refusal leaves it queued for the next poll */
        uring->lost = rc;
    return 0;
}

static int uring_poll(struct disk *disk, struct disk_io **done, unsigned count) {
    struct disk_uring *uring = uring_of(disk);
    struct io_uring_cqe *cqes[RING_ENTRIES];
    unsigned finished = 0;
    struct disk_io *helped = count != 0 ? disk_helper_take(&uring->helper) : NULL;
    if (helped != NULL) {
        uring->replacing = FILE_NONE;
        done[finished++] = helped;
    }
    if (uring->in_flight == 0 || finished == count)
        return (int)finished;
    if (uring->lost != 0 || uring->ring_thread != this_thread())
        return uring->lost != 0 ? uring->lost : -EXDEV;
    if (io_uring_sq_ready(&uring->ring) != 0 || io_uring_cq_has_overflow(&uring->ring) ||
        (IO_URING_READ_ONCE(*uring->ring.sq.kflags) & IORING_SQ_TASKRUN)) {
        int rc = io_uring_submit_and_get_events(&uring->ring);
        if (rc < 0 && !transient(rc)) {
            uring->lost = rc;
            return rc;
        }
    }
    unsigned room = count - finished < RING_ENTRIES ? count - finished : RING_ENTRIES;
    unsigned ready = io_uring_peek_batch_cqe(&uring->ring, cqes, room);
    for (unsigned i = 0; i < ready; i++) {
        struct disk_io *io = io_uring_cqe_get_data(cqes[i]);
        io->result = cqes[i]->res;
        find_open(uring, io->file)->in_flight--;
        done[finished++] = io;
    }
    io_uring_cq_advance(&uring->ring, ready);
    uring->in_flight -= ready;
    return (int)finished;
}

/* --- control path -------------------------------------------------------------------------------------------------- */

static int uring_list(struct disk *disk, enum disk_file_kind kind, uint64_t *files,
                      unsigned count) {
    return disk_files_list(&uring_of(disk)->names, kind, files, count);
}

static int64_t uring_size(struct disk *disk, uint64_t file) {
    return disk_files_size(&uring_of(disk)->names, file);
}

static int uring_read(struct disk *disk, uint64_t file, uint64_t offset, void *bytes,
                      size_t length) {
    struct open_file *entry;
    int rc = open_file(uring_of(disk), file, &entry);
    for (size_t done = 0; rc == 0 && done < length;) {
        ssize_t got =
            pread(entry->fd, (uint8_t *)bytes + done, length - done, (off_t)(offset + done));
        if (got > 0)
            done += (size_t)got;
        else if (got == 0)
            rc = -EIO;
        else if (errno != EINTR)
            rc = -errno;
    }
    return rc;
}

static int uring_write(struct disk *disk, uint64_t file, uint64_t offset, const void *bytes,
                       size_t length) {
    struct open_file *entry;
    if (uring_of(disk)->mode != DISK_URING_WRITE)
        return -EROFS;
    int rc = open_file(uring_of(disk), file, &entry);
    if (rc != 0)
        return rc;
    ssize_t written = pwrite(entry->fd, bytes, length, (off_t)offset);
    return written < 0 ? -errno : (size_t)written == length ? 0 : -EIO;
}

static int uring_sync(struct disk *disk, uint64_t file) {
    struct disk_uring *uring = uring_of(disk);
    struct open_file *entry;
    /* opening it waits for what a killed process had in flight */
    int rc = open_file(uring, file, &entry);
    if (rc != 0)
        return rc;
    if (disk_file_kind(file) != DISK_LOG && uring->mode == DISK_URING_WRITE)
        return disk_files_perform(&uring->names,
                                  &(struct disk_io){.operation = DISK_SYNC, .file = file});
    return fsync(entry->fd) == 0 ? 0 : -errno;
}

static const char *uring_name(struct disk *disk, uint64_t file) {
    return disk_files_name(&uring_of(disk)->names, file);
}

int disk_uring_perform(struct disk *disk, const struct disk_io *io) {
    struct disk_uring *uring = uring_of(disk);
    struct open_file *entry = io->operation != DISK_SYNC ? find_open(uring, io->file) : NULL;
    if (uring->mode != DISK_URING_WRITE)
        return -EROFS;
    if (entry != NULL && entry->in_flight != 0)
        return -EBUSY;
    if (entry != NULL)
        close_open(entry);
    return disk_files_perform(&uring->names, io);
}

int disk_uring_create(struct disk *disk, uint64_t file, uint64_t bytes) {
    const struct disk_io io = {.operation = DISK_CREATE, .file = file, .bytes = bytes};
    return disk_uring_perform(disk, &io);
}

/* --- open and close ------------------------------------------------------------------------------------------------ */

int disk_uring_open(const char *log, const char *checkpoints, enum disk_uring_mode mode,
                    struct disk **disk, char *error, size_t error_bytes) {
    struct disk_uring *uring = calloc(1, sizeof(*uring));
    int rc = -ENOMEM;
    if (uring != NULL) {
        uring->disk = (struct disk){uring_submit, uring_poll,  uring_list, uring_size,
                                    uring_read,   uring_write, uring_sync, uring_name};
        uring->mode = mode;
        uring->helper.files = &uring->names;
        uring->replacing = FILE_NONE;
        for (unsigned i = 0; i < OPEN_FILES; i++)
            uring->files[i].file = FILE_NONE;
        rc = disk_files_open(&uring->names, log, checkpoints, mode == DISK_URING_WRITE);
    }
    if (rc == -EOPNOTSUPP)
        snprintf(error, error_bytes,
                 "%s: its file system has no O_DIRECT; put the log on ext4, xfs or another with it",
                 log);
    else if (rc != 0)
        snprintf(error, error_bytes, "%s: %s", log, strerrordesc_np(-rc));
    if (rc != 0) {
        if (uring != NULL)
            disk_uring_close(&uring->disk);
        return rc;
    }
    *disk = &uring->disk;
    return 0;
}

void disk_uring_close(struct disk *disk) {
    struct disk_uring *uring = uring_of(disk);
    struct disk_io *done[RING_ENTRIES];
    if (disk == NULL)
        return;
    disk_helper_stop(&uring->helper);
    while (uring->in_flight != 0 && uring_poll(disk, done, RING_ENTRIES) >= 0)
        sched_yield();
    if (uring->ring_thread != 0)
        io_uring_queue_exit(&uring->ring);
    for (unsigned i = 0; i < OPEN_FILES; i++)
        if (uring->files[i].file != FILE_NONE)
            close(uring->files[i].fd);
    disk_files_close(&uring->names);
    free(uring);
}
