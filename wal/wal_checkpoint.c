/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/check.h"
#include "engine/base/planted.h"
#include "wal/checkpoint_check.h"
#include "wal/wal_internal.h"

/* A checkpoint from the group after which it begins to its manifest. Lanes walk by themselves; here their chunks are numbered,
 * digested and written. What goes wrong on the way gives it up: the data file goes, lanes are told, and a later one is tried. */

#define RETRIES_DOUBLED 8

static struct wal_checkpoint *checkpoint_of(struct wal *wal) {
    return &wal->checkpoint;
}

/* --- what others see ----------------------------------------------------------------------------------------------- */

const struct wal_checkpoints *wal_checkpoints(const struct wal *wal) {
    return &wal->checkpoint.counters;
}

uint64_t wal_checkpoint_want(struct wal *wal) {
    return atomic_fetch_add(&wal->checkpoint.tickets, 1) + 1;
}

void wal_hold(struct wal *wal, bool hold) {
    if (hold)
        atomic_fetch_add(&wal->checkpoint.holds, 1);
    else if (atomic_fetch_sub(&wal->checkpoint.holds, 1) == 0)
        assert(!"a hold is given back once");
}

static const char *const use_words[] = {
    [WAL_USE_CREATE] = "making the data of checkpoint",
    [WAL_USE_WRITE] = "writing the data of checkpoint",
    [WAL_USE_SYNC_BETWEEN] = "syncing the data of checkpoint",
    [WAL_USE_SYNC] = "syncing the data of checkpoint",
    [WAL_USE_PUBLISH] = "publishing checkpoint",
    [WAL_USE_DISCARD] = "removing the data of checkpoint",
    [WAL_USE_STRAY] = "removing what is left of checkpoint",
    [WAL_USE_MANIFEST] = "removing checkpoint",
    [WAL_USE_LOG_FILE] = "removing log file",
};

void wal_checkpoint_warn(struct wal *wal, enum wal_checkpoint_use use, uint64_t number, int rc) {
    struct wal_checkpoint *checkpoint = checkpoint_of(wal);
    atomic_store_explicit(&checkpoint->failed_number, number, memory_order_relaxed);
    atomic_store_explicit(&checkpoint->failed_errno, -rc, memory_order_relaxed);
    /* release: pairs with the acquire in wal_checkpoint_warning */
    atomic_store_explicit(&checkpoint->failed_use, use, memory_order_release);
}

void wal_checkpoint_warning(const struct wal *wal, char *line, size_t line_bytes) {
    const struct wal_checkpoint *checkpoint = &wal->checkpoint;
    /* acquire: pairs with the release in wal_checkpoint_warn */
    uint32_t use = atomic_load_explicit(&checkpoint->failed_use, memory_order_acquire);
    line[0] = '\0';
    if (use != WAL_USE_NONE)
        snprintf(
            line, line_bytes, "%s %llu: %s; the log goes on, and it will be tried again",
            use_words[use],
            (unsigned long long)atomic_load_explicit(&checkpoint->failed_number,
                                                     memory_order_relaxed),
            strerrordesc_np(atomic_load_explicit(&checkpoint->failed_errno, memory_order_relaxed)));
}

/* --- begin --------------------------------------------------------------------------------------------------------- */

static bool tickets_wait(const struct wal_checkpoint *checkpoint) {
    return atomic_load_explicit(&checkpoint->tickets, memory_order_relaxed) >
           atomic_load_explicit(&checkpoint->counters.served, memory_order_relaxed);
}

static bool is_wanted(const struct wal *wal, uint64_t now_ns) {
    const struct wal_checkpoint *checkpoint = &wal->checkpoint;
    const struct wal_config *config = &wal->config;
    uint64_t bytes = checkpoint->logged_bytes - checkpoint->published_bytes;
    if (tickets_wait(checkpoint))
        return true;
    if (now_ns < checkpoint->retry_ns)
        return false;
    if (config->checkpoint_log_bytes != 0 && bytes >= config->checkpoint_log_bytes)
        return true;
    if (config->checkpoint_interval_ns != 0 &&
        checkpoint->logged_records != checkpoint->published_records &&
        now_ns - checkpoint->published_ns >= config->checkpoint_interval_ns)
        return true;
    return wal->open_seq - checkpoint->published_seq >= CHECKPOINT_SEQS_MAX ||
           wal_retention_wants_checkpoint(wal);
}

/** Tickets up to this one have been served, or have failed. */
static void serve(struct wal_checkpoint *checkpoint, uint64_t ticket, int error) {
    atomic_store_explicit(&checkpoint->counters.error, error, memory_order_relaxed);
    /* release: who sees it sees the error and what was published, too */
    atomic_store_explicit(&checkpoint->counters.served, ticket, memory_order_release);
}

static void decide(struct wal *wal, uint64_t now_ns) {
    struct wal_checkpoint *checkpoint = checkpoint_of(wal);
    if (checkpoint->published_ns == 0)
        checkpoint->published_ns = now_ns;
    checkpoint->due = false;
    if (!is_wanted(wal, now_ns))
        return;
    if (wal->draining || checkpoint->kept_count == CHECKPOINTS_MAX) {
        /* at the end, or while a hold lets none of them go, there will be no other */
        if (tickets_wait(checkpoint))
            serve(checkpoint, atomic_load(&checkpoint->tickets),
                  wal->draining ? -ECANCELED : -EBUSY);
        return;
    }
    checkpoint->due = checkpoint->strays_urgent == 0;
}

void wal_checkpoint_group_ends(struct wal *wal, seq_t seq, uint64_t now_ns) {
    struct wal_checkpoint *checkpoint = checkpoint_of(wal);
    if (!checkpoint->due || wal->alone || !wal_settled(wal))
        return; /* who is alone changes tables whose own lcores would save nothing */
    checkpoint->due = false;
    checkpoint->state = WAL_CHECKPOINT_CREATING;
    checkpoint->seq = seq;
    checkpoint->ticket = atomic_load(&checkpoint->tickets);
    checkpoint->bytes_mark = checkpoint->logged_bytes;
    checkpoint->records_mark = checkpoint->logged_records;
    checkpoint->begun_ns = now_ns;
    checkpoint->publish_after = seq + 1; /* whose place the manifest names */
    checkpoint->lanes_done = 0;
    checkpoint->synced_bytes = 0;
    checkpoint->listing = (struct wal_index_export){0};
    checkpoint->listing_begun = false;
    checkpoint->listed = false;
    checkpoint->state_digest = 0;
    wal_digest_stream_reset(checkpoint->digests);
    memset(checkpoint->manifest, 0, sizeof(*checkpoint->manifest));
    atomic_store_explicit(&checkpoint->counters.chunks, 0, memory_order_relaxed);
    atomic_store_explicit(&checkpoint->counters.bytes, 0, memory_order_relaxed);
    atomic_store_explicit(&checkpoint->counters.running_seq, seq, memory_order_relaxed);
    /* relaxed: covered by the release of open_group, which follows */
    atomic_store_explicit(&wal->config.board->checkpoint_seq, seq, memory_order_relaxed);
}

void wal_checkpoint_group_submitted(struct wal *wal, const struct wal_slot *slot) {
    struct wal_checkpoint *checkpoint = checkpoint_of(wal);
    struct checkpoint_manifest *manifest = checkpoint->manifest;
    const struct wal_chained_header *chained = &slot->header->chained;
    checkpoint->logged_bytes += slot->io.bytes;
    checkpoint->logged_records += slot->records;
    if (checkpoint->state == WAL_CHECKPOINT_IDLE)
        return;
    if (slot->seq == checkpoint->seq) {
        manifest->term = chained->term;
        memcpy(manifest->log_digest, chained->digest, WAL_DIGEST_BYTES);
        manifest->cell_time = chained->cell_time;
        manifest->horizon_ms = chained->horizon_ms;
    } else if (slot->seq == checkpoint->seq + 1) {
        manifest->log_file = slot->io.file;
        manifest->log_offset = slot->io.offset;
    }
}

bool wal_checkpoint_wants_group(const struct wal *wal) {
    const struct wal_checkpoint *checkpoint = &wal->checkpoint;
    return (checkpoint->due && wal->config.lane_count == 1) ||
           (checkpoint->state == WAL_CHECKPOINT_COMMITTING &&
            checkpoint->publish_after >= wal->open_seq);
}

bool wal_checkpoint_due(const struct wal *wal) {
    return wal->checkpoint.due;
}

/** A bit for every lane. */
static uint64_t all_lanes(const struct wal *wal) {
    return UINT64_MAX >> (LCORES_MAX - wal->config.lane_count);
}

bool wal_checkpoint_walking(const struct wal *wal) {
    return wal->checkpoint.state != WAL_CHECKPOINT_IDLE &&
           wal->checkpoint.lanes_done != all_lanes(wal);
}

bool wal_checkpoint_quiet(const struct wal *wal) {
    return wal->checkpoint.state == WAL_CHECKPOINT_IDLE && !tickets_wait(&wal->checkpoint);
}

/* --- the end ------------------------------------------------------------------------------------------------------- */

static void idle(struct wal_checkpoint *checkpoint) {
    checkpoint->state = WAL_CHECKPOINT_IDLE;
    atomic_store_explicit(&checkpoint->counters.running_seq, 0, memory_order_relaxed);
}

void wal_checkpoint_abandon(struct wal *wal, enum wal_checkpoint_use use, int rc, uint64_t now_ns) {
    struct wal_checkpoint *checkpoint = checkpoint_of(wal);
    unsigned doubled =
        checkpoint->failures < RETRIES_DOUBLED ? checkpoint->failures : RETRIES_DOUBLED;
    checkpoint->state = WAL_CHECKPOINT_ABANDONING;
    if (rc != -ECANCELED) {
        checkpoint->failures++;
        checkpoint->retry_ns = now_ns + (CHECKPOINT_RETRY_NS << doubled);
        wal_checkpoint_warn(wal, use, checkpoint->seq, rc);
    }
    wal_count(&checkpoint->counters.abandoned, 1);
    /* release: lanes read it relaxed, and those that begin the next one see it through open_group */
    atomic_store_explicit(&wal->config.board->checkpoint_abandoned, checkpoint->seq,
                          memory_order_release);
    serve(checkpoint, checkpoint->ticket, rc);
}

static void published(struct wal *wal) {
    struct wal_checkpoint *checkpoint = checkpoint_of(wal);
    checkpoint->kept[checkpoint->kept_count++] =
        (struct wal_checkpoint_kept){checkpoint->seq, checkpoint->manifest->log_file};
    checkpoint->published_seq = checkpoint->seq;
    checkpoint->published_bytes = checkpoint->bytes_mark;
    checkpoint->published_records = checkpoint->records_mark;
    checkpoint->published_ns = checkpoint->begun_ns;
    checkpoint->failures = 0;
    checkpoint->retry_ns = 0;
    wal_count(&checkpoint->counters.published, 1);
    atomic_store_explicit(&checkpoint->counters.published_seq, checkpoint->seq,
                          memory_order_relaxed);
    serve(checkpoint, checkpoint->ticket, 0);
    idle(checkpoint);
}

/* --- the helper ---------------------------------------------------------------------------------------------------- */

static void help_done(struct wal *wal, uint64_t now_ns) {
    struct wal_checkpoint *checkpoint = checkpoint_of(wal);
    enum wal_checkpoint_use use = checkpoint->use;
    int rc = (int)checkpoint->helper.result;
    checkpoint->use = WAL_USE_NONE;
    if (use >= WAL_USE_DISCARD && rc == 0) {
        /* there is room now, perhaps */
        wal->create_retry_ns = now_ns;
        wal->stuck_tried = false;
    }
    switch (use) {
    case WAL_USE_STRAY:
    case WAL_USE_MANIFEST:
    case WAL_USE_LOG_FILE:
        wal_retention_done(wal, use, checkpoint->helper.file, rc, now_ns);
        return;
    case WAL_USE_DISCARD:
        if (rc != 0)
            wal_retention_stray(wal, checkpoint->helper.file);
        idle(checkpoint);
        return;
    case WAL_USE_PUBLISH:
        if (rc != 0) {
            wal_checkpoint_abandon(wal, use, rc, now_ns);
            /* it may have its name, and may last: it goes first, so that no manifest is without its data */
            wal_retention_stray(wal, checkpoint->helper.file);
            wal_retention_stray(wal, wal_checkpoint_data(checkpoint));
            idle(checkpoint);
        } else {
            published(wal);
        }
        return;
    default:
        break;
    }
    if (checkpoint->state == WAL_CHECKPOINT_ABANDONING)
        return;
    if (rc != 0)
        wal_checkpoint_abandon(wal, use, rc, now_ns);
    else if (use == WAL_USE_CREATE)
        checkpoint->state = WAL_CHECKPOINT_WRITING;
    else if (use == WAL_USE_SYNC)
        checkpoint->state = WAL_CHECKPOINT_COMMITTING;
}

bool wal_checkpoint_help(struct wal *wal, enum wal_checkpoint_use use,
                         enum disk_operation operation, uint64_t file, uint64_t now_ns) {
    struct wal_checkpoint *checkpoint = checkpoint_of(wal);
    struct disk_io *io = &checkpoint->helper;
    if (checkpoint->use != WAL_USE_NONE)
        return false;
    if (wal_file_wanted(wal)) {
        checkpoint->helper_waits = true;
        return false;
    }
    *io = (struct disk_io){.operation = (uint8_t)operation, .file = file, .owner = checkpoint};
    if (operation == DISK_PUBLISH) {
        io->bytes = WAL_PAGE_BYTES;
        io->iov[0] = (struct iovec){checkpoint->manifest, WAL_PAGE_BYTES};
        io->iov_count = 1;
    }
    int rc = wal->config.disk->submit(wal->config.disk, io);
    if (rc == -EAGAIN)
        return false;
    checkpoint->use = use;
    checkpoint->helper_last = true;
    if (rc == 0) {
        wal->in_flight++;
    } else {
        io->result = rc;
        help_done(wal, now_ns);
    }
    return true;
}

/* --- the turn ------------------------------------------------------------------------------------------------------ */

static unsigned write_on(struct wal *wal, uint64_t now_ns) {
    struct wal_checkpoint *checkpoint = checkpoint_of(wal);
    uint64_t bytes = atomic_load_explicit(&checkpoint->counters.bytes, memory_order_relaxed);
    wal_checkpoint_submit_again(wal, now_ns);
    if (checkpoint->state != WAL_CHECKPOINT_WRITING)
        return 1;
    if (bytes - checkpoint->synced_bytes >= CHECKPOINT_SYNC_BYTES &&
        wal_checkpoint_help(wal, WAL_USE_SYNC_BETWEEN, DISK_SYNC, wal_checkpoint_data(checkpoint),
                            now_ns))
        checkpoint->synced_bytes = bytes;
    if (checkpoint->lanes_done == all_lanes(wal) && !checkpoint->listed)
        return wal_checkpoint_write_own(wal, now_ns);
    if (!checkpoint->listed || wal_checkpoint_writes_busy(checkpoint) != 0)
        return 0;
    checkpoint->state = WAL_CHECKPOINT_SYNCING;
    return 1;
}

static void complete_manifest(struct wal *wal) {
    struct wal_checkpoint *checkpoint = checkpoint_of(wal);
    struct checkpoint_manifest *manifest = checkpoint->manifest;
    manifest->magic = CHECKPOINT_MANIFEST_MAGIC;
    manifest->version = CHECKPOINT_FORMAT_VERSION;
    manifest->bytes = WAL_PAGE_BYTES;
    memcpy(manifest->cell_id, wal->config.identity.cell_id, sizeof(manifest->cell_id));
    manifest->seq = checkpoint->seq;
    manifest->log_file_bytes = wal->config.file_bytes;
    manifest->published = wal_newest_cell_time(wal);
    wal_digest_stream_end(checkpoint->digests, manifest->data_digest);
    memcpy(manifest->state_digest, &checkpoint->state_digest, WAL_DIGEST_BYTES);
    manifest->partitions = wal->config.identity.partitions;
    manifest->lcores = wal->config.lane_count;
    checkpoint_manifest_seal(manifest);
}

static unsigned advance(struct wal *wal, uint64_t now_ns) {
    struct wal_checkpoint *checkpoint = checkpoint_of(wal);
    uint64_t data = wal_checkpoint_data(checkpoint);
    switch (checkpoint->state) {
    case WAL_CHECKPOINT_IDLE:
        decide(wal, now_ns);
        return 0;
    case WAL_CHECKPOINT_CREATING:
        return wal_checkpoint_help(wal, WAL_USE_CREATE, DISK_CREATE, data, now_ns);
    case WAL_CHECKPOINT_WRITING:
        return write_on(wal, now_ns);
    case WAL_CHECKPOINT_SYNCING:
        return wal_checkpoint_help(wal, WAL_USE_SYNC, DISK_SYNC, data, now_ns);
    case WAL_CHECKPOINT_COMMITTING:
        if (wal->commit_seq < checkpoint->publish_after && !PLANTED(published_before_commit))
            return 0;
        complete_manifest(wal);
        checkpoint->state = WAL_CHECKPOINT_PUBLISHING;
        return 1;
    case WAL_CHECKPOINT_PUBLISHING:
        return wal_checkpoint_help(wal, WAL_USE_PUBLISH, DISK_PUBLISH,
                                   disk_file(DISK_CHECKPOINT_MANIFEST, checkpoint->seq), now_ns);
    case WAL_CHECKPOINT_ABANDONING:
        wal_checkpoint_submit_again(wal, now_ns);
        return wal_checkpoint_writes_busy(checkpoint) == 0 &&
               wal_checkpoint_help(wal, WAL_USE_DISCARD, DISK_REMOVE, data, now_ns);
    }
    return 0;
}

/** Neither over nor about to be. */
static bool is_unpublished(const struct wal_checkpoint *checkpoint) {
    return checkpoint->state >= WAL_CHECKPOINT_CREATING &&
           checkpoint->state <= WAL_CHECKPOINT_COMMITTING;
}

unsigned wal_checkpoint_step(struct wal *wal, uint64_t now_ns) {
    struct wal_checkpoint *checkpoint = checkpoint_of(wal);
    if (wal->draining && (checkpoint->state == WAL_CHECKPOINT_CREATING ||
                          checkpoint->state == WAL_CHECKPOINT_WRITING))
        wal_checkpoint_abandon(wal, WAL_USE_NONE, -ECANCELED, now_ns); /* the lcores have stopped */
    else if (wal->stuck && wal->stuck_tried && !wal->creating && is_unpublished(checkpoint))
        wal_checkpoint_abandon(wal, WAL_USE_WRITE, wal->create_error,
                               now_ns); /* the log needs its room */
    checkpoint->helper_waited = checkpoint->helper_waits;
    checkpoint->helper_waits = false;
    unsigned done = wal_checkpoint_take_chunks(wal, now_ns);
    done += advance(wal, now_ns);
    done += wal_retention_step(wal, now_ns);
    return done;
}

void wal_checkpoint_done(struct wal *wal, struct disk_io *io, uint64_t now_ns) {
    if (io == &checkpoint_of(wal)->helper)
        help_done(wal, now_ns);
    else
        wal_checkpoint_chunk_done(wal, io->owner, now_ns);
}

/* --- start and end ------------------------------------------------------------------------------------------------- */

int wal_checkpoint_open(struct wal *wal, char *error, size_t error_bytes) {
    struct wal_checkpoint *checkpoint = checkpoint_of(wal);
    const struct wal_position *position = &wal->config.position;
    checkpoint->manifest = aligned_alloc(WAL_PAGE_BYTES, WAL_PAGE_BYTES);
    checkpoint->digests = wal_digest_stream_new();
    bool memory = checkpoint->manifest != NULL && checkpoint->digests != NULL;
    for (unsigned i = 0; i < CHECKPOINT_WRITES; i++) {
        checkpoint->writes[i].own = aligned_alloc(WAL_PAGE_BYTES, CHECKPOINT_CHUNK_BYTES);
        memory &= checkpoint->writes[i].own != NULL;
        if (checkpoint->writes[i].own != NULL)
            memset(checkpoint->writes[i].own, 0, CHECKPOINT_CHUNK_BYTES);
    }
    if (!memory) {
        snprintf(error, error_bytes, "log: no memory for checkpoints");
        return -ENOMEM;
    }
    checkpoint->logged_bytes = position->bytes;
    checkpoint->logged_records = position->records;
    return wal_retention_open(wal, error, error_bytes);
}

void wal_checkpoint_free(struct wal *wal) {
    struct wal_checkpoint *checkpoint = checkpoint_of(wal);
    for (unsigned i = 0; i < CHECKPOINT_WRITES; i++)
        free(checkpoint->writes[i].own);
    wal_digest_stream_free(checkpoint->digests);
    free(checkpoint->manifest);
}
