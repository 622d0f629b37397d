/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "engine/base/check.h"
#include "tests/sim/sim_disk_internal.h"

/* Files, what is written to them, what of it is durable, and what a power cut, a kill and time make of it. */

const char *sim_disk_operation_name(uint8_t operation) {
    static const char *const names[] = {"?",    "write",   "read",  "create",
                                        "sync", "publish", "remove"};
    return names[operation < sizeof(names) / sizeof(names[0]) ? operation : 0];
}

static void *grown(void *memory, size_t bytes) {
    void *more = realloc(memory, bytes);
    if (more == NULL)
        abort(); /* the machine of the simulation is out of memory; nothing can be said of the node */
    return more;
}

/* --- files ---------------------------------------------------------------------------------------------------------- */

static struct sim_file *find(const struct sim_disk *disk, uint64_t file) {
    for (unsigned i = 0; i < disk->file_count; i++)
        if (disk->files[i].file == file)
            return &disk->files[i];
    return NULL;
}

void sim_disk_harm(struct sim_disk *disk, uint64_t number) {
    struct sim_file *file = find(disk, number);
    disk->harm++;
    if (file)
        file->harmed = true;
}

bool sim_disk_harmed(const struct sim_disk *disk, uint64_t number) {
    const struct sim_file *file = find(disk, number);
    return file && file->harmed;
}

static void forget_undo(struct sim_disk *disk, uint64_t file, bool lied_too) {
    size_t kept = 0;
    for (size_t i = 0; i < disk->undo_count; i++)
        if (disk->undo[i].file != file || (disk->undo[i].lied && !lied_too))
            disk->undo[kept++] = disk->undo[i];
    disk->undo_count = kept;
}

static void remove_file(struct sim_disk *disk, struct sim_file *file) {
    forget_undo(disk, file->file, true);
    disk->total_bytes -= file->size;
    free(file->bytes);
    disk->file_count--;
    memmove(file, file + 1,
            (size_t)(&disk->files[disk->file_count] - file) * sizeof(disk->files[0]));
}

static void resize(struct sim_disk *disk, struct sim_file *file, uint64_t size) {
    if (size > file->room) {
        file->room = size > 2 * file->room ? size : 2 * file->room;
        file->bytes = grown(file->bytes, file->room);
    }
    if (size > file->size)
        memset(file->bytes + file->size, 0, size - file->size);
    disk->total_bytes += size - file->size;
    file->size = size;
}

/** A new file of so many zero bytes, in place of what has its name. */
static struct sim_file *make_file(struct sim_disk *disk, uint64_t number, uint64_t size) {
    struct sim_file *file = find(disk, number);
    if (file)
        remove_file(disk, file);
    disk->files = grown(disk->files, (disk->file_count + 1) * sizeof(disk->files[0]));
    unsigned at = disk->file_count++;
    for (; at > 0 && disk->files[at - 1].file > number; at--)
        disk->files[at] = disk->files[at - 1];
    file = &disk->files[at];
    *file = (struct sim_file){.file = number};
    resize(disk, file, size);
    return file;
}

const uint8_t *sim_disk_bytes(const struct sim_disk *disk, uint64_t number, uint64_t *bytes) {
    struct sim_file *file = find(disk, number);
    static const uint8_t empty[1];
    if (!file)
        return NULL;
    *bytes = file->size;
    return file->bytes ? file->bytes : empty;
}

uint64_t sim_disk_any_file(const struct sim_disk *disk, unsigned n) {
    return disk->files[n].file;
}

uint64_t sim_disk_file(const struct sim_disk *disk, enum disk_file_kind kind, unsigned n) {
    for (unsigned i = 0; i < disk->file_count; i++)
        if (disk_file_kind(disk->files[i].file) == kind && n-- == 0)
            return disk->files[i].file;
    return 0;
}

/* --- bytes ---------------------------------------------------------------------------------------------------------- */

static void put_sector(struct sim_disk *disk, struct sim_file *file, uint64_t sector,
                       const uint8_t *bytes, enum sim_store how) {
    uint8_t *at = file->bytes + sector * SIM_SECTOR_BYTES;
    if (how == SIM_STORE_DURABLE) {
        size_t kept = 0;
        for (size_t i = 0; i < disk->undo_count; i++)
            if (disk->undo[i].file != file->file || disk->undo[i].sector != sector)
                disk->undo[kept++] = disk->undo[i];
        disk->undo_count = kept;
    } else {
        if (disk->undo_count == disk->undo_room) {
            disk->undo_room = disk->undo_room ? 2 * disk->undo_room : 64;
            disk->undo = grown(disk->undo, disk->undo_room * sizeof(disk->undo[0]));
        }
        struct sim_undo *undo = &disk->undo[disk->undo_count++];
        undo->file = file->file;
        undo->sector = sector;
        undo->lied = how == SIM_STORE_LIED;
        memcpy(undo->before, at, SIM_SECTOR_BYTES);
    }
    memcpy(at, bytes, SIM_SECTOR_BYTES);
}

/** Which sectors of a piece of work are done: all, or a choice. */
struct choice {
    bool whole;
    uint64_t before;   /**< every sector in front of this one ... */
    uint32_t rest_ppm; /**< ... and of the others so many */
};

static unsigned put_chosen(struct sim_disk *disk, struct sim_file *file, const struct disk_io *io,
                           enum sim_store how, const struct choice *choice) {
    uint64_t sector = io->offset / SIM_SECTOR_BYTES, number = 0;
    unsigned left_out = 0;
    for (unsigned i = 0; i < io->iov_count; i++) {
        const uint8_t *bytes = io->iov[i].iov_base;
        for (size_t at = 0; at < io->iov[i].iov_len; at += SIM_SECTOR_BYTES, sector++, number++) {
            if (choice->whole || number < choice->before ||
                sim_chance(&disk->random, choice->rest_ppm))
                put_sector(disk, file, sector, bytes + at, how);
            else
                left_out++;
        }
    }
    return left_out;
}

static struct choice draw_choice(struct sim_disk *disk, uint64_t bytes) {
    struct choice choice = {.before = sim_below(&disk->random, bytes / SIM_SECTOR_BYTES + 1)};
    if (sim_chance(&disk->random, 500000)) {
        choice.before = 0;
        choice.rest_ppm = (uint32_t)sim_between(&disk->random, 0, 1000000);
    }
    return choice;
}

/** The file, long enough for the write; NULL and an answer when that cannot be. */
static struct sim_file *file_for(struct sim_disk *disk, const struct disk_io *io, int64_t *answer) {
    struct sim_file *file = find(disk, io->file);
    *answer = (int64_t)io->bytes;
    if (!file) {
        *answer = -ENOENT;
    } else if (disk_file_kind(io->file) == DISK_CHECKPOINT_DATA && io->operation == DISK_WRITE &&
               io->offset + io->bytes > file->size) {
        uint64_t more = io->offset + io->bytes - file->size;
        if (disk->plan.capacity_bytes && disk->total_bytes + more > disk->plan.capacity_bytes) {
            sim_fault(disk->sim, SIM_FAULT_disk_full);
            disk->errors++;
            *answer = -ENOSPC;
        } else {
            resize(disk, file, io->offset + io->bytes);
        }
    } else if (io->offset > file->size || io->bytes > file->size - io->offset) {
        *answer = -EFBIG;
    }
    return *answer < 0 ? NULL : file;
}

int64_t sim_disk_store(struct sim_disk *disk, const struct disk_io *io, enum sim_store how) {
    int64_t answer;
    struct sim_file *file = file_for(disk, io, &answer);
    if (!file)
        return answer;
    struct choice choice = {.whole = how != SIM_STORE_SOME};
    if (!choice.whole)
        choice = draw_choice(disk, io->bytes);
    if (how == SIM_STORE_DURABLE && disk_file_kind(io->file) != DISK_LOG)
        how = SIM_STORE_UNSYNCED;
    put_chosen(disk, file, io, how == SIM_STORE_SOME ? SIM_STORE_DURABLE : how, &choice);
    return answer;
}

void sim_disk_store_elsewhere(struct sim_disk *disk, const struct disk_io *io) {
    struct disk_io astray = *io;
    enum disk_file_kind kind = disk_file_kind(io->file);
    unsigned count = 0;
    while (sim_disk_file(disk, kind, count) != 0)
        count++;
    astray.file = sim_disk_file(disk, kind, (unsigned)sim_below(&disk->random, count));
    struct sim_file *file = find(disk, astray.file);
    if (!file || file->size < io->bytes)
        return;
    astray.offset =
        sim_below(&disk->random, (file->size - io->bytes) / SIM_PAGE_BYTES + 1) * SIM_PAGE_BYTES;
    sim_disk_harm(disk, astray.file);
    put_chosen(disk, file, &astray, SIM_STORE_DURABLE, &(struct choice){.whole = true});
}

int64_t sim_disk_fetch(struct sim_disk *disk, const struct disk_io *io) {
    int64_t answer;
    struct sim_file *file = file_for(disk, io, &answer);
    if (!file)
        return answer;
    const uint8_t *from = file->bytes + io->offset;
    for (unsigned i = 0; i < io->iov_count; i++) {
        memcpy(io->iov[i].iov_base, from, io->iov[i].iov_len);
        from += io->iov[i].iov_len;
    }
    return answer;
}

int64_t sim_disk_fetch_flipped(struct sim_disk *disk, const struct disk_io *io) {
    int64_t answer = sim_disk_fetch(disk, io);
    if (answer > 0) {
        uint8_t *bytes = io->iov[0].iov_base;
        bytes[sim_below(&disk->random, io->iov[0].iov_len)] ^=
            (uint8_t)(1u << sim_below(&disk->random, 8));
    }
    return answer;
}

int sim_disk_settle(struct sim_disk *disk, uint64_t number) {
    struct sim_file *file = find(disk, number);
    if (!file)
        return -ENOENT;
    forget_undo(disk, number, false);
    file->durable_size = file->size;
    file->name_durable = true;
    return 0;
}

int64_t sim_disk_change(struct sim_disk *disk, const struct disk_io *io) {
    struct sim_file *file = find(disk, io->file);
    const bool log = disk_file_kind(io->file) == DISK_LOG;
    const uint64_t wanted =
        io->operation == DISK_SYNC || io->operation == DISK_REMOVE ? 0 : io->bytes;
    if (disk->plan.capacity_bytes && disk->total_bytes + wanted > disk->plan.capacity_bytes &&
        wanted != 0) {
        sim_fault(disk->sim, SIM_FAULT_disk_full);
        disk->errors++;
        return -ENOSPC;
    }
    switch (io->operation) {
    case DISK_CREATE:
        if (log && file)
            return -EEXIST;
        make_file(disk, io->file, log ? io->bytes : 0);
        return log ? sim_disk_settle(disk, io->file) : 0;
    case DISK_SYNC:
        return sim_disk_settle(disk, io->file);
    case DISK_PUBLISH:
        file = make_file(disk, io->file, io->bytes);
        memcpy(file->bytes, io->iov[0].iov_base, io->bytes);
        return sim_disk_settle(disk, io->file);
    case DISK_REMOVE:
        if (file)
            remove_file(disk, file);
        return 0;
    default:
        return -EINVAL;
    }
}

/* --- power, kills, time ------------------------------------------------------------------------------------------------ */

/** What becomes of an operation in flight: all of it, nothing, or some sectors. */
static void interrupt(struct sim_disk *disk, const struct disk_io *io) {
    int64_t answer;
    uint64_t way = sim_below(&disk->random, 8);
    if (io->operation == DISK_READ || io->operation == DISK_SYNC || way == 0)
        return;
    if (io->operation != DISK_WRITE) {
        if (way < 4)
            sim_disk_change(disk, io);
        return;
    }
    struct sim_file *file = file_for(disk, io, &answer);
    if (!file)
        return;
    struct choice choice = {.whole = way == 1};
    if (!choice.whole)
        choice = draw_choice(disk, io->bytes);
    unsigned left_out = put_chosen(
        disk, file, io,
        disk_file_kind(io->file) == DISK_LOG ? SIM_STORE_DURABLE : SIM_STORE_UNSYNCED, &choice);
    if (left_out != 0)
        sim_fault(disk->sim, SIM_FAULT_write_torn);
}

/** Take back what was not durable, newest first, as it is drawn. */
static void lose_unsynced(struct sim_disk *disk) {
    static const uint32_t styles[] = {0, 500000, 1000000, 1000000};
    const uint32_t lose_ppm = styles[sim_below(&disk->random, 4)];
    bool lost = false;
    while (disk->undo_count != 0) {
        struct sim_undo *undo = &disk->undo[--disk->undo_count];
        struct sim_file *file = find(disk, undo->file);
        if (!file || !sim_chance(&disk->random, lose_ppm))
            continue;
        memcpy(file->bytes + undo->sector * SIM_SECTOR_BYTES, undo->before, SIM_SECTOR_BYTES);
        lost = true;
        if (undo->lied)
            sim_disk_harm(disk, undo->file);
    }
    for (unsigned i = disk->file_count; i-- > 0;) {
        struct sim_file *file = &disk->files[i];
        if (!file->name_durable && sim_chance(&disk->random, 500000)) {
            remove_file(disk, file);
            lost = true;
            continue;
        }
        if (file->size > file->durable_size)
            resize(disk, file,
                   file->durable_size +
                       sim_below(&disk->random,
                                 (file->size - file->durable_size) / SIM_PAGE_BYTES + 1) *
                           SIM_PAGE_BYTES);
        file->name_durable = true;
        file->durable_size = file->size;
    }
    if (lost)
        sim_fault(disk->sim, SIM_FAULT_write_unsynced_lost);
}

void sim_disk_cut_power(struct sim_disk *disk) {
    if (disk->dead)
        return;
    for (unsigned i = 0; i < disk->queued; i++)
        interrupt(disk, disk->queue[i].io);
    lose_unsynced(disk);
    disk->dead = true;
    disk->cut_in = 0;
}

void sim_disk_kill(struct sim_disk *disk) {
    int64_t answer;
    if (disk->dead)
        return;
    for (unsigned i = 0; i < disk->queued; i++) {
        const struct disk_io *io = disk->queue[i].io;
        struct sim_file *file = io->operation == DISK_WRITE ? file_for(disk, io, &answer) : NULL;
        if (file)
            put_chosen(disk, file, io, SIM_STORE_UNSYNCED, &(struct choice){.whole = true});
        else if (io->operation >= DISK_CREATE && sim_chance(&disk->random, 500000))
            sim_disk_change(disk, io);
    }
    disk->dead = true;
    disk->cut_in = 0;
}

void sim_disk_restart(struct sim_disk *disk) {
    assert(disk->queued == 0);
    disk->dead = false;
}

bool sim_disk_rot(struct sim_disk *disk, uint64_t number, uint64_t offset) {
    struct sim_file *file = find(disk, number);
    if (!file || offset >= file->size)
        return false;
    uint64_t way = sim_below(&disk->random, 6);
    if (way < 4) {
        file->bytes[offset] ^= (uint8_t)(1u << sim_below(&disk->random, 8));
    } else {
        uint64_t unit = way == 4 ? SIM_SECTOR_BYTES : SIM_PAGE_BYTES;
        uint8_t *at = file->bytes + offset / unit * unit;
        const bool zero = sim_chance(&disk->random, 300000);
        for (uint64_t i = 0; i < unit; i++)
            at[i] = zero ? 0 : (uint8_t)sim_draw(&disk->random);
    }
    sim_disk_harm(disk, number);
    sim_fault(disk->sim, SIM_FAULT_bit_rotted);
    return true;
}

bool sim_disk_lose_file(struct sim_disk *disk, uint64_t number) {
    struct sim_file *file = find(disk, number);
    if (!file)
        return false;
    SIM_TRACE(disk->sim, "disk", "%s is gone", disk->disk.name(&disk->disk, number));
    remove_file(disk, file);
    disk->harm++;
    disk->files_lost++;
    sim_fault(disk->sim, SIM_FAULT_file_lost);
    return true;
}

void sim_disk_close(struct sim_disk *disk) {
    for (unsigned i = 0; i < disk->file_count; i++)
        free(disk->files[i].bytes);
    free(disk->files);
    free(disk->undo);
}
