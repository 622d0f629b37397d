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
    uint8_t *bytes;
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
    /* calloc keeps what was never touched out of memory; the bytes behind the end are zero */
    uint8_t *grown = calloc(1, bytes + 1);
    if (grown == NULL)
        return -ENOMEM;
    if (file->bytes != NULL)
        memcpy(grown, file->bytes, bytes < file->size ? bytes : file->size);
    free(file->bytes);
    memory->total_bytes += bytes - file->size;
    file->bytes = grown;
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

static int memory_submit(struct disk *disk, struct disk_io *io) {
    struct disk_memory *memory = memory_of(disk);
    if (memory->crashed)
        return -EIO;
    if (memory->queued == QUEUE_MAX)
        return -EAGAIN;
    struct disk_memory_faults *faults = &memory->faults;
    int64_t fault = 0;
    if (io->operation == DISK_WRITE && countdown(&faults->fail_write_at))
        fault = faults->fail_write_errno ? -faults->fail_write_errno
                                         : (int64_t)(io->bytes - WAL_PAGE_BYTES);
    else if (io->operation == DISK_READ && countdown(&faults->fail_read_at))
        fault = -EIO;
    else if (io->operation == DISK_CREATE && countdown(&faults->fail_create_at))
        fault = -EIO;
    memory->queue[memory->queued++] = (struct memory_operation){.io = io, .fault = fault};
    return 0;
}

/** Copy between the file and the operation's pieces. @return bytes, or -errno */
static int64_t transfer_bytes(struct disk_memory *memory, const struct disk_io *io) {
    struct memory_file *file = find(memory, io->file);
    if (file == NULL)
        return -ENOENT;
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

static int64_t create(struct disk_memory *memory, const struct disk_io *io) {
    if (find(memory, io->file) != NULL)
        return -EEXIST;
    if (memory->faults.capacity_bytes != 0 &&
        memory->total_bytes + io->bytes > memory->faults.capacity_bytes)
        return -ENOSPC;
    return disk_memory_resize(&memory->disk, io->file, io->bytes);
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
        if (operation.fault != 0)
            io->result = operation.fault;
        else
            io->result =
                io->operation == DISK_CREATE ? create(memory, io) : transfer_bytes(memory, io);
        done[finished++] = io;
    }
    return (int)finished;
}

/* --- control path ------------------------------------------------------------------------------------------------- */

static int memory_list(struct disk *disk, enum disk_file_kind kind, uint64_t *files,
                       unsigned count) {
    if (kind != DISK_LOG)
        return 0;
    struct disk_memory *memory = memory_of(disk);
    if (memory->file_count > count)
        return -ENOSPC;
    for (size_t i = 0; i < memory->file_count; i++)
        files[i] = memory->files[i].number;
    return (int)memory->file_count;
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
    if (offset > file->size || length > file->size - offset)
        return -EIO;
    memcpy(file->bytes + offset, bytes, length);
    return 0;
}

static int memory_sync(struct disk *disk, uint64_t number) {
    return find(memory_of(disk), number) == NULL ? -ENOENT : 0;
}

static const char *memory_name(struct disk *disk, uint64_t number) {
    struct disk_memory *memory = memory_of(disk);
    snprintf(memory->name, sizeof(memory->name), "memory:%020llu.log", (unsigned long long)number);
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
    for (size_t i = 0; i < memory->file_count; i++)
        free(memory->files[i].bytes);
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

int disk_memory_release(struct disk *disk, unsigned index) {
    struct disk_memory *memory = memory_of(disk);
    if (index >= memory->queued)
        return -ENOENT;
    memory->queue[index].released = true;
    return 0;
}

void disk_memory_crash(struct disk *disk,
                       bool (*keep_sector)(void *context, uint64_t file, uint64_t sector),
                       void *context) {
    struct disk_memory *memory = memory_of(disk);
    for (unsigned i = 0; i < memory->queued && keep_sector != NULL; i++) {
        const struct disk_io *io = memory->queue[i].io;
        struct memory_file *file = find(memory, io->file);
        if (io->operation != DISK_WRITE || file == NULL || io->offset + io->bytes > file->size)
            continue;
        uint64_t at = io->offset;
        for (unsigned piece = 0; piece < io->iov_count; piece++) {
            const uint8_t *bytes = io->iov[piece].iov_base;
            for (size_t done = 0; done < io->iov[piece].iov_len;
                 done += WAL_SECTOR_BYTES, at += WAL_SECTOR_BYTES)
                if (keep_sector(context, io->file, at / WAL_SECTOR_BYTES))
                    memcpy(file->bytes + at, bytes + done, WAL_SECTOR_BYTES);
        }
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
        if (rc == 0)
            memory_write(*copy, file->number, 0, file->bytes, file->size);
        else
            disk_memory_close(*copy);
    }
    return rc;
}
