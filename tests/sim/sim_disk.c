/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_disk_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/check.h"

/* Submission and completion, and the control path. What reaches the files and what survives there: sim_disk_files.c. */

static struct sim_disk *disk_of(struct disk *disk) {
    return (struct sim_disk *)disk;
}

/* --- boundaries ----------------------------------------------------------------------------------------------------- */

/** One more boundary of an operation. @return whether power fails right here */
static bool boundary(struct sim_disk *disk) {
    if (disk->cut_in == 0 || --disk->cut_in != 0)
        return false;
    sim_fault(disk->sim, disk->blocking ? SIM_FAULT_power_cut_in_start : SIM_FAULT_power_cut_at_io);
    sim_disk_cut_power(disk);
    return true;
}

/* --- asynchronous --------------------------------------------------------------------------------------------------- */

static uint64_t latency(struct sim_disk *disk, const struct disk_io *io) {
    const struct sim_disk_plan *plan = &disk->plan;
    uint64_t base = plan->latency_ns + io->bytes / 4; /* 4 GB/s behind the first byte */
    if (io->operation == DISK_CREATE)
        base *= 4;
    uint64_t ns = sim_between(&disk->random, base / 2, base * 2);
    if (sim_chance(&disk->random, plan->slow_ppm)) {
        sim_fault(disk->sim, SIM_FAULT_write_slow);
        ns *= plan->slow_times;
    }
    return ns;
}

static void set_fault(struct sim_operation *operation, enum sim_fault fault, int64_t answer) {
    operation->faulty = true;
    operation->fault = fault;
    operation->answer = answer;
}

/** What will go wrong with an operation, drawn when it is submitted. */
static void draw_fault(struct sim_disk *disk, struct sim_operation *operation) {
    const struct sim_disk_plan *plan = &disk->plan;
    const struct disk_io *io = operation->io;
    struct sim_random *random = &disk->random;
    switch (io->operation) {
    case DISK_WRITE:
        if (sim_chance(random, plan->write_failed_ppm))
            set_fault(operation, SIM_FAULT_write_failed, -EIO);
        else if (sim_chance(random, plan->write_short_ppm))
            set_fault(operation, SIM_FAULT_write_short,
                      (int64_t)(sim_below(random, io->bytes / SIM_PAGE_BYTES) * SIM_PAGE_BYTES));
        else if (sim_chance(random, plan->write_lost_ppm))
            set_fault(operation, SIM_FAULT_write_lost, (int64_t)io->bytes);
        else if (sim_chance(random, plan->write_misdirected_ppm))
            set_fault(operation, SIM_FAULT_write_misdirected, (int64_t)io->bytes);
        else if (sim_chance(random, plan->write_holed_ppm))
            set_fault(operation, SIM_FAULT_write_holed, (int64_t)io->bytes);
        else if (sim_chance(random, plan->sync_lied_ppm))
            set_fault(operation, SIM_FAULT_sync_lied, (int64_t)io->bytes);
        return;
    case DISK_READ:
        if (sim_chance(random, plan->read_failed_ppm))
            set_fault(operation, SIM_FAULT_read_failed, -EIO);
        else if (sim_chance(random, plan->read_flipped_ppm))
            set_fault(operation, SIM_FAULT_read_flipped, (int64_t)io->bytes);
        return;
    default:
        if (io->operation != DISK_REMOVE && sim_chance(random, plan->disk_full_ppm))
            set_fault(operation, SIM_FAULT_disk_full, -ENOSPC);
        else if (sim_chance(random, plan->create_failed_ppm))
            set_fault(operation, SIM_FAULT_create_failed, -EIO);
    }
}

static bool one_at_a_time(const struct disk_io *io) {
    return io->operation >= DISK_CREATE;
}

static int sim_submit(struct disk *base, struct disk_io *io) {
    struct sim_disk *disk = disk_of(base);
    if (disk->dead)
        return -EIO;
    for (unsigned i = 0; one_at_a_time(io) && i < disk->queued; i++)
        if (one_at_a_time(disk->queue[i].io))
            return -EAGAIN;
    if (disk->queued == SIM_DISK_QUEUE)
        return -EAGAIN;
    if (disk->queued != 0 && sim_chance(&disk->random, disk->plan.queue_full_ppm)) {
        sim_fault(disk->sim, SIM_FAULT_queue_full);
        return -EAGAIN;
    }
    if (boundary(disk))
        return -EIO;
    struct sim_operation *operation = &disk->queue[disk->queued++];
    *operation = (struct sim_operation){.io = io, .due_ns = disk->sim->now_ns + latency(disk, io)};
    draw_fault(disk, operation);
    sim_note(disk->sim, io->operation ^ io->file << 8 ^ io->offset << 16 ^ io->bytes << 40);
    for (unsigned i = 0; io->operation == DISK_WRITE && i < io->iov_count; i++)
        sim_note_bytes(disk->sim, io->iov[i].iov_base, io->iov[i].iov_len);
    SIM_TRACE(disk->sim, "disk", "submit %s %s %" PRIu64 "+%" PRIu64,
              sim_disk_operation_name(io->operation), base->name(base, io->file), io->offset,
              io->bytes);
    if (disk->watch.submitted)
        disk->watch.submitted(disk->watch.context, io);
    boundary(disk); /* ... and it is in flight when power fails */
    return 0;
}

/** Do the operation, with what goes wrong. @return the answer */
static int64_t perform(struct sim_disk *disk, const struct sim_operation *operation) {
    struct disk_io *io = operation->io;
    if (!operation->faulty)
        return io->operation == DISK_READ    ? sim_disk_fetch(disk, io)
               : io->operation == DISK_WRITE ? sim_disk_store(disk, io, SIM_STORE_DURABLE)
                                             : sim_disk_change(disk, io);
    sim_fault(disk->sim, operation->fault);
    if (operation->answer < 0)
        disk->errors++;
    if (sim_fault_malign(operation->fault) && io->operation != DISK_READ)
        sim_disk_harm(disk, io->file);
    if (disk->watch.unsound && (sim_fault_malign(operation->fault) || io->operation == DISK_READ))
        disk->watch.unsound(disk->watch.context);
    switch (operation->fault) {
    case SIM_FAULT_write_failed:
    case SIM_FAULT_write_short:
        sim_disk_store(disk, io, SIM_STORE_SOME);
        disk->errors++;
        break;
    case SIM_FAULT_write_misdirected:
        sim_disk_store_elsewhere(disk, io);
        break;
    case SIM_FAULT_write_holed:
        sim_disk_store(disk, io, SIM_STORE_SOME);
        break;
    case SIM_FAULT_sync_lied:
        sim_disk_store(disk, io, SIM_STORE_LIED);
        break;
    case SIM_FAULT_read_flipped:
        disk->flips++;
        return sim_disk_fetch_flipped(disk, io);
    default:
        break;
    }
    return operation->answer;
}

static void take_out(struct sim_disk *disk, unsigned at) {
    disk->queued--;
    memmove(&disk->queue[at], &disk->queue[at + 1], (disk->queued - at) * sizeof(disk->queue[0]));
}

/** The queued operation that is done first; of equals the one submitted first. */
static unsigned first_due(const struct sim_disk *disk) {
    unsigned first = 0;
    for (unsigned i = 1; i < disk->queued; i++)
        if (disk->queue[i].due_ns < disk->queue[first].due_ns)
            first = i;
    return first;
}

uint64_t sim_disk_next_ns(const struct sim_disk *disk) {
    return disk->queued == 0 ? UINT64_MAX : disk->queue[first_due(disk)].due_ns;
}

static int give_back_dead(struct sim_disk *disk, struct disk_io **done, unsigned count) {
    unsigned given = 0;
    while (given < count && disk->queued != 0) {
        done[given] = disk->queue[0].io;
        done[given++]->result = -EIO;
        take_out(disk, 0);
    }
    return given == 0 ? -EIO : (int)given;
}

static int sim_poll(struct disk *base, struct disk_io **done, unsigned count) {
    struct sim_disk *disk = disk_of(base);
    unsigned given = 0;
    while (!disk->dead && given < count && disk->queued != 0) {
        unsigned at = first_due(disk);
        struct sim_operation operation = disk->queue[at];
        if (!disk->blocking && operation.due_ns > disk->sim->now_ns)
            break;
        if (boundary(disk))
            break;
        take_out(disk, at);
        operation.io->result = perform(disk, &operation);
        sim_note(disk->sim, (uint64_t)operation.io->result ^ operation.io->file << 32);
        SIM_TRACE(disk->sim, "disk", "done   %s %s %" PRIu64 "+%" PRIu64 " -> %" PRId64,
                  sim_disk_operation_name(operation.io->operation),
                  base->name(base, operation.io->file), operation.io->offset, operation.io->bytes,
                  operation.io->result);
        if (disk->watch.completed)
            disk->watch.completed(disk->watch.context, operation.io);
        done[given++] = operation.io;
        boundary(disk); /* it is done, and nobody heard of it in time */
    }
    if (disk->dead && given == 0)
        return give_back_dead(disk, done, count);
    return (int)given;
}

/* --- control path --------------------------------------------------------------------------------------------------- */

/** @return whether an operation of the control path fails here; `rc` says how */
static bool control_fails(struct sim_disk *disk, uint32_t ppm, enum sim_fault fault, int *rc) {
    *rc = -EIO;
    if (disk->dead || boundary(disk))
        return true;
    if (!sim_chance(&disk->random, ppm))
        return false;
    sim_fault(disk->sim, fault);
    disk->errors++;
    return true;
}

static int sim_list(struct disk *base, enum disk_file_kind kind, uint64_t *files, unsigned count) {
    struct sim_disk *disk = disk_of(base);
    unsigned found = 0;
    for (uint64_t file; (file = sim_disk_file(disk, kind, found)) != 0; found++) {
        if (found == count)
            return -ENOSPC;
        files[found] = file;
    }
    return disk->dead ? -EIO : (int)found;
}

static int64_t sim_size(struct disk *base, uint64_t file) {
    uint64_t bytes;
    if (disk_of(base)->dead)
        return -EIO;
    return sim_disk_bytes(disk_of(base), file, &bytes) ? (int64_t)bytes : -ENOENT;
}

static int sim_read(struct disk *base, uint64_t file, uint64_t offset, void *bytes, size_t length) {
    struct sim_disk *disk = disk_of(base);
    struct disk_io io = {.operation = DISK_READ,
                         .file = file,
                         .offset = offset,
                         .bytes = length,
                         .iov = {{bytes, length}},
                         .iov_count = 1};
    int rc;
    if (control_fails(disk, disk->plan.read_failed_ppm, SIM_FAULT_read_failed, &rc))
        return rc;
    int64_t got;
    if (sim_chance(&disk->random, disk->plan.read_flipped_ppm)) {
        sim_fault(disk->sim, SIM_FAULT_read_flipped);
        disk->flips++;
        got = sim_disk_fetch_flipped(disk, &io);
    } else {
        got = sim_disk_fetch(disk, &io);
    }
    return got < 0 ? (int)got : (uint64_t)got == length ? 0 : -EIO;
}

static int sim_write(struct disk *base, uint64_t file, uint64_t offset, const void *bytes,
                     size_t length) {
    struct sim_disk *disk = disk_of(base);
    struct disk_io io = {.operation = DISK_WRITE,
                         .file = file,
                         .offset = offset,
                         .bytes = length,
                         .iov = {{(void *)(uintptr_t)bytes, length}},
                         .iov_count = 1};
    int rc;
    if (control_fails(disk, disk->plan.write_failed_ppm, SIM_FAULT_write_failed, &rc)) {
        if (!disk->dead)
            sim_disk_store(disk, &io, SIM_STORE_SOME);
        return rc;
    }
    int64_t put = sim_disk_store(disk, &io, SIM_STORE_UNSYNCED);
    SIM_TRACE(disk->sim, "disk", "write  %s %" PRIu64 "+%zu, not synced", base->name(base, file),
              offset, length);
    boundary(disk);
    return put < 0 ? (int)put : 0;
}

static int sim_sync(struct disk *base, uint64_t file) {
    struct sim_disk *disk = disk_of(base);
    int rc;
    if (control_fails(disk, disk->plan.write_failed_ppm, SIM_FAULT_write_failed, &rc))
        return rc;
    return sim_disk_settle(disk, file);
}

static const char *sim_name(struct disk *base, uint64_t file) {
    static const char *const suffixes[] = {"log", "checkpoint", "manifest"};
    struct sim_disk *disk = disk_of(base);
    unsigned kind = disk_file_kind(file);
    snprintf(disk->name, sizeof(disk->name), "%" PRIu64 ".%s", disk_file_number(file),
             kind < DISK_FILE_KINDS ? suffixes[kind] : "file");
    return disk->name;
}

void sim_disk_open(struct sim_disk *disk, struct sim *sim, const struct sim_disk_plan *plan) {
    memset(disk, 0, sizeof(*disk));
    disk->disk = (struct disk){.submit = sim_submit,
                               .poll = sim_poll,
                               .list = sim_list,
                               .size = sim_size,
                               .read = sim_read,
                               .write = sim_write,
                               .sync = sim_sync,
                               .name = sim_name};
    disk->sim = sim;
    disk->plan = *plan;
    disk->random = sim_random_make(sim->seed, 1);
}

void sim_disk_heal(struct sim_disk *disk) {
    disk->plan = (struct sim_disk_plan){.latency_ns = disk->plan.latency_ns};
    disk->cut_in = 0;
}
