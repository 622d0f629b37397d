/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/check.h"
#include "wal/disk_memory.h"
#include "wal/wal_format.h"

#define QUEUE_MAX 128

struct memory_file {
    uint64_t number;
    uint64_t size;
    uint64_t room; /**< bytes that `bytes` has; those from `size` on are zero */
    uint8_t *bytes;
    /* checkpoint data: what a power cut leaves */
    bool synced;          /**< its name is durable, and synced_size of synced_bytes */
    uint64_t synced_size; /**< 0 where synced_bytes is NULL */
    uint8_t *synced_bytes;
};

struct memory_operation {
    struct disk_io *io;
    int64_t fault; /**< 0, or what the operation will answer instead of doing its work */
    bool released;
};

struct disk_memory {
    struct disk disk; /**< first */
    struct disk_memory_faults faults;
    struct memory_file *files; /**< ascending by number */
    size_t file_count;
    uint64_t total_bytes;
    struct memory_operation queue[QUEUE_MAX]; /**< oldest first */
    unsigned queued;
    bool crashed;
    char name[64];
};

static struct disk_memory *memory_of(const struct disk *disk) {
    return (struct disk_memory *)disk;
}

static struct memory_file *find(struct disk_memory *memory, uint64_t number) {
    for (size_t i = 0; i < memory->file_count; i++)
        if (memory->files[i].number == number)
            return &memory->files[i];
    return NULL;
}

int disk_memory_resize(struct disk *disk, uint64_t number, uint64_t bytes) {
    struct disk_memory *memory = memory_of(disk);
    struct memory_file *file = find(memory, number);
    if (file == NULL) {
        struct memory_file *files =
            realloc(memory->files, (memory->file_count + 1) * sizeof(*files));
        if (files == NULL)
            return -ENOMEM;
        memory->files = files;
        size_t at = memory->file_count++;
        for (; at > 0 && files[at - 1].number > number; at--)
            files[at] = files[at - 1];
        file = &files[at];
        *file = (struct memory_file){.number = number};
    }
    if (file->bytes == NULL || bytes > file->room) {
        /* calloc keeps what was never touched out of memory; what grows, grows by doubling */
        uint64_t room = file->size == 0 || bytes > 2 * file->room ? bytes : 2 * file->room;
        uint8_t *grown = calloc(1, room + 1);
        if (grown == NULL)
            return -ENOMEM;
        if (file->bytes != NULL)
            memcpy(grown, file->bytes, file->size);
        free(file->bytes);
        file->bytes = grown;
        file->room = room;
    }
    if (bytes < file->size)
        memset(file->bytes + bytes, 0, file->size - bytes);
    memory->total_bytes += bytes - file->size;
    file->size = bytes;
    return 0;
}

int disk_memory_remove(struct disk *disk, uint64_t number) {
    struct disk_memory *memory = memory_of(disk);
    struct memory_file *file = find(memory, number);
    if (file == NULL)
        return -ENOENT;
    memory->total_bytes -= file->size;
    free(file->bytes);
    free(file->synced_bytes);
    size_t at = (size_t)(file - memory->files);
    memmove(file, file + 1, (--memory->file_count - at) * sizeof(*file));
    return 0;
}

uint8_t *disk_memory_bytes(struct disk *disk, uint64_t number, uint64_t *bytes) {
    struct memory_file *file = find(memory_of(disk), number);
    if (file == NULL)
        return NULL;
    *bytes = file->size;
    return file->bytes;
}

/* --- asynchronous ------------------------------------------------------------------------------------------------- */

/** Count one operation against a countdown. @return whether it is the one */
static bool countdown(uint64_t *counter) {
    return *counter != 0 && --*counter == 0;
}

static uint64_t *countdown_of(struct disk_memory_faults *faults, const struct disk_io *io) {
    bool log = disk_file_kind(io->file) == DISK_LOG;
    switch (io->operation) {
    case DISK_WRITE:
        return log ? &faults->fail_write_at : &faults->fail_checkpoint_write_at;
    case DISK_READ:
        return &faults->fail_read_at;
    case DISK_CREATE:
        return log ? &faults->fail_create_at : &faults->fail_checkpoint_create_at;
    case DISK_SYNC:
        return &faults->fail_sync_at;
    case DISK_PUBLISH:
        return &faults->fail_publish_at;
    default:
        return &faults->fail_remove_at;
    }
}

static int64_t fault_of(const struct disk_memory_faults *faults, const struct disk_io *io) {
    if (io->operation == DISK_READ)
        return -EIO;
    if (io->operation == DISK_WRITE && disk_file_kind(io->file) == DISK_LOG)
        return faults->fail_write_errno ? -faults->fail_write_errno
                                        : (int64_t)(io->bytes - WAL_PAGE_BYTES);
    return faults->fail_errno ? -faults->fail_errno : -EIO;
}

static int memory_submit(struct disk *disk, struct disk_io *io) {
    struct disk_memory *memory = memory_of(disk);
    if (memory->crashed)
        return -EIO;
    if (memory->queued == QUEUE_MAX)
        return -EAGAIN;
    for (unsigned i = 0; i < memory->queued && io->operation >= DISK_CREATE; i++)
        if (memory->queue[i].io->operation >= DISK_CREATE)
            return -EAGAIN;
    int64_t fault =
        countdown(countdown_of(&memory->faults, io)) ? fault_of(&memory->faults, io) : 0;
    memory->queue[memory->queued++] = (struct memory_operation){.io = io, .fault = fault};
    return 0;
}

static bool fits(const struct disk_memory *memory, uint64_t more) {
    uint64_t capacity = memory->faults.capacity_bytes;
    return capacity == 0 || memory->total_bytes + more <= capacity;
}

/** Checkpoint data grows with its writes; no other file does. @return 0, -EFBIG, -ENOSPC, -ENOMEM */
static int reach(struct disk_memory *memory, uint64_t number, uint64_t end) {
    const struct memory_file *file = find(memory, number);
    if (end <= file->size)
        return 0;
    if (disk_file_kind(number) != DISK_CHECKPOINT_DATA)
        return -EFBIG;
    return fits(memory, end - file->size) ? disk_memory_resize(&memory->disk, number, end)
                                          : -ENOSPC;
}

/** Copy between the file and the operation's pieces. @return bytes, or -errno */
static int64_t transfer_bytes(struct disk_memory *memory, const struct disk_io *io) {
    struct memory_file *file = find(memory, io->file);
    if (file == NULL)
        return -ENOENT;
    int rc = io->operation == DISK_WRITE ? reach(memory, io->file, io->offset + io->bytes) : 0;
    if (rc != 0)
        return rc;
    if (io->offset > file->size || io->bytes > file->size - io->offset)
        return -EFBIG;
    uint8_t *at = file->bytes + io->offset;
    uint64_t done = 0;
    for (unsigned i = 0; i < io->iov_count; i++) {
        size_t length = io->iov[i].iov_len;
        assert((uintptr_t)io->iov[i].iov_base % WAL_PAGE_BYTES == 0 &&
               length % WAL_PAGE_BYTES == 0);
        if (io->operation == DISK_WRITE)
            memcpy(at + done, io->iov[i].iov_base, length);
        else
            memcpy(io->iov[i].iov_base, at + done, length);
        done += length;
    }
    assert(done == io->bytes);
    return (int64_t)done;
}

static int create(struct disk_memory *memory, const struct disk_io *io) {
    bool log = disk_file_kind(io->file) == DISK_LOG;
    if (log && find(memory, io->file) != NULL)
        return -EEXIST;
    if (log && !fits(memory, io->bytes))
        return -ENOSPC;
    disk_memory_remove(&memory->disk, io->file);
    return disk_memory_resize(&memory->disk, io->file, log ? io->bytes : 0);
}

static int publish(struct disk_memory *memory, const struct disk_io *io) {
    if (!fits(memory, io->bytes))
        return -ENOSPC;
    disk_memory_remove(&memory->disk, io->file);
    int rc = disk_memory_resize(&memory->disk, io->file, io->bytes);
    if (rc == 0)
        memcpy(find(memory, io->file)->bytes, io->iov[0].iov_base, io->bytes);
    return rc;
}

static int memory_sync(struct disk *disk, uint64_t number) {
    struct memory_file *file = find(memory_of(disk), number);
    if (file == NULL)
        return -ENOENT;
    if (disk_file_kind(number) != DISK_CHECKPOINT_DATA)
        return 0; /* durable from the start */
    uint8_t *bytes = malloc(file->size + 1);
    if (bytes == NULL)
        return -ENOMEM;
    memcpy(bytes, file->bytes, file->size);
    free(file->synced_bytes);
    file->synced_bytes = bytes;
    file->synced_size = file->size;
    file->synced = true;
    return 0;
}

static int64_t perform(struct disk_memory *memory, const struct disk_io *io) {
    switch (io->operation) {
    case DISK_CREATE:
        return create(memory, io);
    case DISK_SYNC:
        return memory_sync(&memory->disk, io->file);
    case DISK_PUBLISH:
        return publish(memory, io);
    case DISK_REMOVE:
        disk_memory_remove(&memory->disk, io->file); /* 0 also where there is none */
        return 0;
    default:
        return transfer_bytes(memory, io);
    }
}

static int memory_poll(struct disk *disk, struct disk_io **done, unsigned count) {
    struct disk_memory *memory = memory_of(disk);
    if (memory->crashed && memory->queued == 0)
        return -EIO;
    unsigned finished = 0;
    unsigned index = memory->faults.reverse ? memory->queued : 0;
    while (finished < count) {
        if (memory->faults.reverse ? index == 0 : index == memory->queued)
            break;
        unsigned at = memory->faults.reverse ? --index : index;
        struct memory_operation operation = memory->queue[at];
        if (memory->faults.hold && !operation.released) {
            index += !memory->faults.reverse;
            continue;
        }
        memmove(&memory->queue[at], &memory->queue[at + 1],
                (--memory->queued - at) * sizeof(operation));
        struct disk_io *io = operation.io;
        io->result = operation.fault != 0 ? operation.fault : perform(memory, io);
        done[finished++] = io;
    }
    return (int)finished;
}

/* --- control path ------------------------------------------------------------------------------------------------- */

static int memory_list(struct disk *disk, enum disk_file_kind kind, uint64_t *files,
                       unsigned count) {
    struct disk_memory *memory = memory_of(disk);
    unsigned found = 0;
    for (size_t i = 0; i < memory->file_count; i++) {
        if (disk_file_kind(memory->files[i].number) != kind)
            continue;
        if (found == count)
            return -ENOSPC;
        files[found++] = memory->files[i].number;
    }
    return (int)found;
}

static int64_t memory_size(struct disk *disk, uint64_t number) {
    struct memory_file *file = find(memory_of(disk), number);
    return file == NULL ? -ENOENT : (int64_t)file->size;
}

static int memory_read(struct disk *disk, uint64_t number, uint64_t offset, void *bytes,
                       size_t length) {
    struct memory_file *file = find(memory_of(disk), number);
    if (file == NULL)
        return -ENOENT;
    if (offset > file->size || length > file->size - offset)
        return -EIO;
    memcpy(bytes, file->bytes + offset, length);
    return 0;
}

static int memory_write(struct disk *disk, uint64_t number, uint64_t offset, const void *bytes,
                        size_t length) {
    struct memory_file *file = find(memory_of(disk), number);
    if (file == NULL)
        return -ENOENT;
    int rc = reach(memory_of(disk), number, offset + length);
    if (rc != 0)
        return rc == -EFBIG ? -EIO : rc;
    memcpy(file->bytes + offset, bytes, length);
    return 0;
}

static const char *memory_name(struct disk *disk, uint64_t number) {
    static const char *const suffixes[DISK_FILE_KINDS] = {"log", "data", "manifest"};
    struct disk_memory *memory = memory_of(disk);
    snprintf(memory->name, sizeof(memory->name), "memory:%020llu.%s",
             (unsigned long long)disk_file_number(number), suffixes[disk_file_kind(number)]);
    return memory->name;
}

int disk_memory_open(struct disk **disk) {
    struct disk_memory *memory = calloc(1, sizeof(*memory));
    if (memory == NULL)
        return -ENOMEM;
    memory->disk = (struct disk){memory_submit, memory_poll,  memory_list, memory_size,
                                 memory_read,   memory_write, memory_sync, memory_name};
    *disk = &memory->disk;
    return 0;
}

void disk_memory_close(struct disk *disk) {
    if (disk == NULL)
        return;
    struct disk_memory *memory = memory_of(disk);
    while (memory->file_count != 0)
        disk_memory_remove(disk, memory->files[memory->file_count - 1].number);
    free(memory->files);
    free(memory);
}

/* --- faults -------------------------------------------------------------------------------------------------------- */

struct disk_memory_faults *disk_memory_faults(struct disk *disk) {
    return &memory_of(disk)->faults;
}

unsigned disk_memory_pending(const struct disk *disk) {
    return memory_of(disk)->queued;
}

const struct disk_io *disk_memory_queued(const struct disk *disk, unsigned index) {
    struct disk_memory *memory = memory_of(disk);
    return index < memory->queued ? memory->queue[index].io : NULL;
}

int disk_memory_release(struct disk *disk, unsigned index) {
    struct disk_memory *memory = memory_of(disk);
    if (index >= memory->queued)
        return -ENOENT;
    memory->queue[index].released = true;
    return 0;
}

typedef bool keep_sector_fn(void *context, uint64_t file, uint64_t sector);

/** An operation that the power cut met on its way. */
static void crash_operation(struct disk_memory *memory, const struct disk_io *io,
                            keep_sector_fn *keep_sector, void *context) {
    if (io->operation == DISK_PUBLISH || io->operation == DISK_REMOVE) {
        if (keep_sector(context, io->file, 0))
            perform(memory, io);
        return;
    }
    struct memory_file *file = find(memory, io->file);
    if (io->operation != DISK_WRITE || file == NULL ||
        reach(memory, io->file, io->offset + io->bytes) != 0)
        return;
    if (disk_file_kind(io->file) == DISK_CHECKPOINT_DATA) {
        transfer_bytes(memory, io); /* written and not synced: decided below */
        return;
    }
    uint64_t at = io->offset;
    for (unsigned piece = 0; piece < io->iov_count; piece++) {
        const uint8_t *bytes = io->iov[piece].iov_base;
        for (size_t done = 0; done < io->iov[piece].iov_len;
             done += WAL_SECTOR_BYTES, at += WAL_SECTOR_BYTES)
            if (keep_sector(context, io->file, at / WAL_SECTOR_BYTES))
                memcpy(file->bytes + at, bytes + done, WAL_SECTOR_BYTES);
    }
}

/** What was written since the last sync is kept by the sector. The file ends behind the last sector that was; where its name was
 *  never synced either and nothing is kept, it is gone. @return whether it stays */
static bool crash_unsynced(struct memory_file *file, keep_sector_fn *keep_sector, void *context) {
    uint64_t end = file->synced_size;
    for (uint64_t at = 0; at < file->size; at += WAL_SECTOR_BYTES) {
        static const uint8_t zeros[WAL_SECTOR_BYTES];
        const uint8_t *before = at < file->synced_size ? file->synced_bytes + at : zeros;
        if (at < file->synced_size && memcmp(file->bytes + at, before, WAL_SECTOR_BYTES) == 0)
            continue;
        if (keep_sector != NULL && keep_sector(context, file->number, at / WAL_SECTOR_BYTES))
            end = at + WAL_SECTOR_BYTES > end ? at + WAL_SECTOR_BYTES : end;
        else
            memcpy(file->bytes + at, before, WAL_SECTOR_BYTES);
    }
    file->size = end;
    return file->synced || end != 0;
}

void disk_memory_crash(struct disk *disk, keep_sector_fn *keep_sector, void *context) {
    struct disk_memory *memory = memory_of(disk);
    for (unsigned i = 0; i < memory->queued && keep_sector != NULL; i++)
        crash_operation(memory, memory->queue[i].io, keep_sector, context);
    for (size_t i = memory->file_count; i-- > 0;) {
        struct memory_file *file = &memory->files[i];
        if (disk_file_kind(file->number) != DISK_CHECKPOINT_DATA)
            continue;
        memory->total_bytes -= file->size;
        bool stays = crash_unsynced(file, keep_sector, context);
        memory->total_bytes += file->size;
        if (!stays)
            disk_memory_remove(disk, file->number);
    }
    for (unsigned i = 0; i < memory->queued; i++) {
        memory->queue[i].fault = -EIO;
        memory->queue[i].released = true;
    }
    memory->crashed = true;
}

void disk_memory_restart(struct disk *disk) {
    struct disk_memory *memory = memory_of(disk);
    memory->faults = (struct disk_memory_faults){.capacity_bytes = memory->faults.capacity_bytes};
    memory->queued = 0;
    memory->crashed = false;
}

int disk_memory_copy(struct disk *disk, struct disk **copy) {
    struct disk_memory *memory = memory_of(disk);
    int rc = disk_memory_open(copy);
    for (size_t i = 0; rc == 0 && i < memory->file_count; i++) {
        const struct memory_file *file = &memory->files[i];
        rc = disk_memory_resize(*copy, file->number, file->size);
        if (rc == 0) {
            memcpy(find(memory_of(*copy), file->number)->bytes, file->bytes, file->size);
            rc = memory_sync(*copy, file->number);
        }
        if (rc != 0)
            disk_memory_close(*copy);
    }
    return rc;
}
