/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/check.h"
#include "wal/disk_uring.h"
#include "wal/wal_format.h"

#define RING_ENTRIES 64u
#define OPEN_FILES 64u
#define FILL_BYTES                                                                                 \
    (256u << 10) /**< small enough that the log's own writes get through in between */
#define NAME_BYTES 32
#define LOCK_TRIES 10000u /**< a millisecond each */

struct open_file {
    uint64_t file; /**< 0: free */
    int fd;
    unsigned in_flight;
};

struct disk_uring {
    struct disk disk; /**< first */
    enum disk_uring_mode mode;
    int directory_fd;
    char *directory;
    char *name; /**< for messages */
    size_t name_bytes;

    struct io_uring ring;
    pid_t ring_thread; /**< the thread that the ring belongs to; 0: no ring */
    unsigned in_flight;
    int lost; /**< -errno of a ring that does not answer any more */
    struct open_file files[OPEN_FILES];
    unsigned next_victim;

    /* DISK_CREATE: one at a time, through the helper */
    pthread_t helper;
    bool helper_runs;
    bool creating;
    sem_t wake;
    _Atomic(struct disk_io *) wanted;
    _Atomic(struct disk_io *) created;
    atomic_bool stop;
};

static struct disk_uring *uring_of(struct disk *disk) {
    return (struct disk_uring *)disk;
}

static void file_name(uint64_t file, const char *suffix, char name[NAME_BYTES]) {
    snprintf(name, NAME_BYTES, "%020llu.log%s", (unsigned long long)file, suffix);
}

/** @return the number in a log file's name, 0 where it is another file */
static uint64_t file_number(const char *name) {
    char again[NAME_BYTES];
    uint64_t number = strtoull(name, NULL, 10);
    file_name(number, "", again);
    return strcmp(name, again) == 0 ? number : 0;
}

/* --- making files -------------------------------------------------------------------------------------------------- */

/** Zeros all through, so that the extents are written ones: the log's writes then change no metadata. */
static int fill(int fd, uint64_t bytes) {
    uint8_t *zeros = aligned_alloc(WAL_PAGE_BYTES, FILL_BYTES);
    int rc = zeros == NULL ? -ENOMEM : 0;
    if (zeros != NULL)
        memset(zeros, 0, FILL_BYTES);
    for (uint64_t done = 0; rc == 0 && done < bytes;) {
        size_t piece = bytes - done < FILL_BYTES ? (size_t)(bytes - done) : FILL_BYTES;
        ssize_t written = pwrite(fd, zeros, piece, (off_t)done);
        if (written < 0)
            rc = -errno;
        else if ((size_t)written != piece)
            rc = -ENOSPC;
        else
            done += piece;
    }
    free(zeros);
    return rc;
}

/** Under another name until it is whole and durable. */
static int make_file(int directory_fd, uint64_t file, uint64_t bytes) {
    char name[NAME_BYTES], unfinished[NAME_BYTES];
    file_name(file, "", name);
    file_name(file, ".new", unfinished);
    int fd =
        openat(directory_fd, unfinished, O_CREAT | O_TRUNC | O_WRONLY | O_DIRECT | O_CLOEXEC, 0640);
    if (fd < 0)
        return -errno;
    int rc = fill(fd, bytes);
    if (rc == 0 && fsync(fd) != 0)
        rc = -errno;
    close(fd);
    if (rc == 0 && renameat2(directory_fd, unfinished, directory_fd, name, RENAME_NOREPLACE) != 0)
        rc = -errno;
    if (rc != 0)
        unlinkat(directory_fd, unfinished, 0);
    else if (fsync(directory_fd) != 0)
        rc = -errno;
    return rc;
}

int disk_uring_create(struct disk *disk, uint64_t file, uint64_t bytes) {
    return make_file(uring_of(disk)->directory_fd, file, bytes);
}

static void *helper_main(void *context) {
    struct disk_uring *uring = context;
    cpu_set_t all;
    /* the thread that made us may be pinned to an lcore's core */
    memset(&all, 0xff, sizeof(all));
    sched_setaffinity(0, sizeof(all), &all);
    for (;;) {
        while (sem_wait(&uring->wake) != 0)
            ;
        if (atomic_load_explicit(&uring->stop, memory_order_acquire))
            return NULL;
        /* acquire: pairs with the release in submit_create */
        struct disk_io *io = atomic_load_explicit(&uring->wanted, memory_order_acquire);
        io->result = make_file(uring->directory_fd, io->file, io->bytes);
        /* release: pairs with the acquire in take_created */
        atomic_store_explicit(&uring->created, io, memory_order_release);
    }
}

static int start_helper(struct disk_uring *uring) {
    pthread_attr_t attributes;
    sigset_t all, before;
    struct sched_param normal = {0};
    if (sem_init(&uring->wake, 0, 0) != 0)
        return -errno;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attributes);
    pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
    pthread_attr_setschedpolicy(&attributes, SCHED_OTHER);
    pthread_attr_setschedparam(&attributes, &normal);
    int rc = pthread_create(&uring->helper, &attributes, helper_main, uring);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    uring->helper_runs = rc == 0;
    return -rc;
}

static int submit_create(struct disk_uring *uring, struct disk_io *io) {
    if (uring->creating)
        return -EAGAIN;
    int rc = uring->helper_runs ? 0 : start_helper(uring);
    if (rc != 0)
        return rc;
    uring->creating = true;
    /* release: pairs with the acquire in helper_main */
    atomic_store_explicit(&uring->wanted, io, memory_order_release);
    sem_post(&uring->wake);
    return 0;
}

static struct disk_io *take_created(struct disk_uring *uring) {
    /* acquire: pairs with the release in helper_main */
    struct disk_io *io = atomic_load_explicit(&uring->created, memory_order_acquire);
    if (io != NULL) {
        atomic_store_explicit(&uring->created, NULL, memory_order_relaxed);
        uring->creating = false;
    }
    return io;
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

/** @return 0, -EAGAIN when every descriptor has operations in flight, -EBUSY, -errno */
static int open_log_file(struct disk_uring *uring, uint64_t file, struct open_file **out) {
    char name[NAME_BYTES];
    struct open_file *entry = find_open(uring, file);
    if (entry == NULL && (entry = find_open(uring, 0)) == NULL) {
        for (unsigned tries = 0; tries < OPEN_FILES && entry == NULL; tries++) {
            struct open_file *victim = &uring->files[uring->next_victim++ % OPEN_FILES];
            if (victim->in_flight == 0)
                entry = victim;
        }
        if (entry == NULL)
            return -EAGAIN;
        close(entry->fd);
        entry->file = 0;
    }
    if (entry->file == 0) {
        file_name(file, "", name);
        int access = uring->mode == DISK_URING_WRITE ? O_RDWR | O_DSYNC : O_RDONLY;
        entry->fd = openat(uring->directory_fd, name, access | O_DIRECT | O_CLOEXEC);
        if (entry->fd < 0)
            return -errno;
        int rc = uring->mode == DISK_URING_WRITE ? lock_log_file(entry->fd) : 0;
        if (rc != 0) {
            close(entry->fd);
            return rc;
        }
        entry->file = file;
    }
    *out = entry;
    return 0;
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
    if (io->operation == DISK_CREATE)
        return submit_create(uring, io);
    if (uring->lost != 0)
        return uring->lost;
    if (uring->in_flight == RING_ENTRIES)
        return -EAGAIN;
    int rc = own_ring(uring);
    if (rc == 0)
        rc = open_log_file(uring, io->file, &file);
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
    if (count != 0 && uring->creating) {
        struct disk_io *io = take_created(uring);
        if (io != NULL)
            done[finished++] = io;
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

static int compare_numbers(const void *a, const void *b) {
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static int uring_list(struct disk *disk, enum disk_file_kind kind, uint64_t *files,
                      unsigned count) {
    if (kind != DISK_LOG)
        return 0;
    struct disk_uring *uring = uring_of(disk);
    int fd = openat(uring->directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (directory == NULL) {
        int rc = -errno;
        if (fd >= 0)
            close(fd);
        return rc;
    }
    unsigned found = 0;
    int rc = 0;
    struct dirent *entry;
    while (rc == 0 && (entry = readdir(directory)) != NULL) {
        uint64_t file = file_number(entry->d_name);
        if (file == 0)
            continue;
        if (found == count)
            rc = -ENOSPC;
        else
            files[found++] = file;
    }
    closedir(directory);
    if (rc == 0)
        qsort(files, found, sizeof(*files), compare_numbers);
    return rc == 0 ? (int)found : rc;
}

static int64_t uring_size(struct disk *disk, uint64_t file) {
    char name[NAME_BYTES];
    struct stat status;
    file_name(file, "", name);
    if (fstatat(uring_of(disk)->directory_fd, name, &status, 0) != 0)
        return -errno;
    return status.st_size;
}

static int uring_read(struct disk *disk, uint64_t file, uint64_t offset, void *bytes,
                      size_t length) {
    struct open_file *entry;
    int rc = open_log_file(uring_of(disk), file, &entry);
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
    int rc = open_log_file(uring_of(disk), file, &entry);
    if (rc != 0)
        return rc;
    ssize_t written = pwrite(entry->fd, bytes, length, (off_t)offset);
    return written < 0 ? -errno : (size_t)written == length ? 0 : -EIO;
}

static int uring_sync(struct disk *disk, uint64_t file) {
    struct open_file *entry;
    int rc = open_log_file(uring_of(disk), file, &entry);
    if (rc != 0)
        return rc;
    return fsync(entry->fd) == 0 ? 0 : -errno;
}

static const char *uring_name(struct disk *disk, uint64_t file) {
    struct disk_uring *uring = uring_of(disk);
    char name[NAME_BYTES];
    file_name(file, "", name);
    snprintf(uring->name, uring->name_bytes, "%s/%s", uring->directory, name);
    return uring->name;
}

/* --- open and close ------------------------------------------------------------------------------------------------ */

/** Files that were never finished; their making died with the process. */
static int remove_unfinished(struct disk_uring *uring) {
    char probe[NAME_BYTES], again[NAME_BYTES];
    int fd = openat(uring->directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (directory == NULL) {
        int rc = -errno;
        if (fd >= 0)
            close(fd);
        return rc;
    }
    struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        file_name(strtoull(entry->d_name, NULL, 10), ".new", again);
        if (strcmp(entry->d_name, again) == 0)
            unlinkat(uring->directory_fd, again, 0);
    }
    closedir(directory);
    /* and see whether O_DIRECT works here, before anything depends on it */
    file_name(0, ".new", probe);
    fd = openat(uring->directory_fd, probe, O_CREAT | O_TRUNC | O_WRONLY | O_DIRECT | O_CLOEXEC,
                0640);
    int rc = fd < 0 ? -errno : 0;
    if (fd >= 0)
        close(fd);
    unlinkat(uring->directory_fd, probe, 0);
    return rc == -EINVAL ? -EOPNOTSUPP : rc;
}

int disk_uring_open(const char *directory, enum disk_uring_mode mode, struct disk **disk,
                    char *error, size_t error_bytes) {
    struct disk_uring *uring = calloc(1, sizeof(*uring));
    int rc = -ENOMEM;
    if (uring != NULL) {
        uring->disk = (struct disk){uring_submit, uring_poll,  uring_list, uring_size,
                                    uring_read,   uring_write, uring_sync, uring_name};
        uring->mode = mode;
        uring->directory = strdup(directory);
        uring->name_bytes = strlen(directory) + NAME_BYTES + 1;
        uring->name = malloc(uring->name_bytes);
        uring->directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        rc = uring->directory_fd < 0                           ? -errno
             : uring->directory == NULL || uring->name == NULL ? -ENOMEM
                                                               : 0;
    }
    if (rc == 0 && mode == DISK_URING_WRITE)
        rc = remove_unfinished(uring);
    if (rc == -EOPNOTSUPP)
        snprintf(error, error_bytes,
                 "%s: its file system has no O_DIRECT; put the log on ext4, xfs or another with it",
                 directory);
    else if (rc != 0)
        snprintf(error, error_bytes, "%s: %s", directory, strerrordesc_np(-rc));
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
    if (uring->helper_runs) {
        /* the helper finishes the file it is at */
        atomic_store_explicit(&uring->stop, true, memory_order_release);
        sem_post(&uring->wake);
        pthread_join(uring->helper, NULL);
        sem_destroy(&uring->wake);
    }
    while (uring->in_flight != 0 && uring_poll(disk, done, RING_ENTRIES) >= 0)
        sched_yield();
    if (uring->ring_thread != 0)
        io_uring_queue_exit(&uring->ring);
    for (unsigned i = 0; i < OPEN_FILES; i++)
        if (uring->files[i].file != 0)
            close(uring->files[i].fd);
    if (uring->directory_fd >= 0)
        close(uring->directory_fd);
    free(uring->directory);
    free(uring->name);
    free(uring);
}
