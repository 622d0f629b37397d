/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/planted.h"
#include "wal/wal_internal.h"

/* What stands on disk, and what may go: two checkpoints stay, and the log from where replay from the older one begins. A log file
 * goes when
 *   1. the older of the two kept checkpoints needs it no more,
 *   2. every id in it is below the horizon of a group that is committed (without id_time ids are looked up for ever),
 *   3. nobody holds it, or the disk is full and the log would end,
 *   4. it is the oldest that stands.
 * Everything goes one by one, through the disk's helper; what fails is tried again later. */

#define RETRIES_DOUBLED 8

/** A hold ends where the log would: when the next group has no place on a full disk, the oldest goes all the same. */
static bool is_held(const struct wal *wal) {
    return atomic_load(&wal->checkpoint.holds) != 0 &&
           !(wal->stuck && wal->stuck_tried && !wal->creating && wal->create_error == -ENOSPC);
}

/** Above the time of any id in the oldest file. */
static uint64_t ids_end_ms(const struct wal_index_file *oldest) {
    return oldest->last_cell_time / NS_PER_MS + WAL_ID_AHEAD_MS + 1;
}

/** The oldest file that stands, unless it is written to or nothing is known of it. */
static const struct wal_index_file *oldest_file(const struct wal *wal) {
    const struct wal_index_file *oldest = wal_index_oldest(wal->index);
    return oldest != NULL && oldest->file == wal->checkpoint.first_file && oldest->file < wal->file
               ? oldest
               : NULL;
}

static bool ids_are_gone(const struct wal *wal, const struct wal_index_file *oldest) {
    return (wal->config.identity.id_time && ids_end_ms(oldest) < wal->committed_horizon_ms) ||
           PLANTED(log_removed_with_ids);
}

/** Whether the older of the kept checkpoints, or the lack of one, wants the file. */
static bool replay_needs(const struct wal_checkpoint *checkpoint,
                         const struct wal_index_file *oldest) {
    return checkpoint->kept_count < CHECKPOINT_KEPT ||
           oldest->file >= checkpoint
                               ->kept[checkpoint->kept_count - CHECKPOINT_KEPT +
                                      PLANTED(log_removed_with_older)]
                               .log_file;
}

static bool log_file_may_go(const struct wal *wal) {
    const struct wal_checkpoint *checkpoint = &wal->checkpoint;
    const struct wal_index_file *oldest = oldest_file(wal);
    return oldest != NULL && !replay_needs(checkpoint, oldest) && ids_are_gone(wal, oldest) &&
           !(checkpoint->state == WAL_CHECKPOINT_WRITING && checkpoint->listing_begun);
}

/* --- the budget ---------------------------------------------------------------------------------------------------- */

static uint64_t log_bytes(const struct wal *wal) {
    return (wal->files_ready - wal->checkpoint.first_file + 1) * wal->config.file_bytes;
}

void wal_retention_count(struct wal *wal) {
    atomic_store_explicit(&wal->checkpoint.counters.log_bytes, log_bytes(wal),
                          memory_order_relaxed);
}

static bool over_budget(const struct wal *wal) {
    return wal->config.log_bytes_max != 0 && wal->config.identity.id_time &&
           log_bytes(wal) > wal->config.log_bytes_max;
}

/** The disk has no room for another log file, and it is ids alone that keep the oldest. */
static bool disk_wants_room(const struct wal *wal, const struct wal_index_file *oldest) {
    return wal->create_error == -ENOSPC && wal->config.identity.id_time &&
           !replay_needs(&wal->checkpoint, oldest);
}

uint64_t wal_retention_horizon_ms(const struct wal *wal) {
    const struct wal_index_file *oldest = oldest_file(wal);
    return oldest != NULL && (over_budget(wal) || disk_wants_room(wal, oldest))
               ? ids_end_ms(oldest) + 1
               : 0;
}

bool wal_retention_wants_checkpoint(const struct wal *wal) {
    const struct wal_index_file *oldest = over_budget(wal) ? oldest_file(wal) : NULL;
    return oldest != NULL && !is_held(wal) && ids_are_gone(wal, oldest) &&
           replay_needs(&wal->checkpoint, oldest);
}

bool wal_retention_makes_room(const struct wal *wal, uint64_t now_ns) {
    const struct wal_checkpoint *checkpoint = &wal->checkpoint;
    if (checkpoint->use >= WAL_USE_DISCARD || checkpoint->state != WAL_CHECKPOINT_IDLE)
        return true;
    return !is_held(wal) && now_ns >= checkpoint->removal_retry_ns &&
           (checkpoint->kept_count > CHECKPOINT_KEPT || log_file_may_go(wal));
}

/* --- removal ------------------------------------------------------------------------------------------------------- */

unsigned wal_retention_step(struct wal *wal, uint64_t now_ns) {
    const struct wal_checkpoint *checkpoint = &wal->checkpoint;
    enum wal_checkpoint_use use;
    uint64_t file;
    if (checkpoint->use != WAL_USE_NONE || now_ns < checkpoint->removal_retry_ns)
        return 0;
    if (checkpoint->strays_urgent != 0 ||
        (checkpoint->stray_count != 0 &&
         atomic_load_explicit(&checkpoint->counters.published, memory_order_relaxed) != 0)) {
        /* what was never a good checkpoint helps until there is a better one, if only to be looked at */
        use = WAL_USE_STRAY;
        file = checkpoint->strays[0];
    } else if (checkpoint->kept_count > CHECKPOINT_KEPT) {
        use = WAL_USE_MANIFEST;
        file = disk_file(DISK_CHECKPOINT_MANIFEST, checkpoint->kept[0].seq);
    } else if (log_file_may_go(wal)) {
        use = WAL_USE_LOG_FILE;
        file = disk_file(DISK_LOG, checkpoint->first_file);
    } else {
        return 0;
    }
    /* who holds since before this is looked at finds everything in its place when its next ticket is served */
    return !is_held(wal) && wal_checkpoint_help(wal, use, DISK_REMOVE, file, now_ns);
}

bool wal_retention_removed(const struct wal *wal, uint64_t file) {
    const struct wal_checkpoint *checkpoint = &wal->checkpoint;
    return file < checkpoint->first_file + (checkpoint->use == WAL_USE_LOG_FILE);
}

void wal_retention_stray(struct wal *wal, uint64_t file) {
    struct wal_checkpoint *checkpoint = &wal->checkpoint;
    if (checkpoint->stray_count < CHECKPOINT_STRAYS_MAX)
        checkpoint->strays[checkpoint->stray_count++] =
            file; /* else it stays until the next start */
}

void wal_retention_done(struct wal *wal, enum wal_checkpoint_use use, uint64_t file, int rc,
                        uint64_t now_ns) {
    struct wal_checkpoint *checkpoint = &wal->checkpoint;
    if (rc != 0) {
        unsigned doubled = checkpoint->removal_failures < RETRIES_DOUBLED
                               ? checkpoint->removal_failures
                               : RETRIES_DOUBLED;
        checkpoint->removal_failures++;
        checkpoint->removal_retry_ns = now_ns + (CHECKPOINT_RETRY_NS << doubled);
        wal_checkpoint_warn(wal, use, disk_file_number(file), rc);
        return;
    }
    checkpoint->removal_failures = 0;
    switch (use) {
    case WAL_USE_STRAY:
        memmove(checkpoint->strays, checkpoint->strays + 1,
                --checkpoint->stray_count * sizeof(checkpoint->strays[0]));
        checkpoint->strays_urgent -= checkpoint->strays_urgent != 0;
        break;
    case WAL_USE_MANIFEST:
        wal_retention_stray(wal, disk_file(DISK_CHECKPOINT_DATA, disk_file_number(file)));
        memmove(checkpoint->kept, checkpoint->kept + 1,
                --checkpoint->kept_count * sizeof(checkpoint->kept[0]));
        break;
    default:
        checkpoint->first_file++;
        wal_index_trim(wal->index, checkpoint->first_file);
        wal_count(&checkpoint->counters.files_removed, 1);
        wal_retention_count(wal);
        break;
    }
}

/* --- start --------------------------------------------------------------------------------------------------------- */

/** @param files to be freed. @return how many, or -errno */
static int list_all(struct disk *disk, enum disk_file_kind kind, uint64_t **files) {
    int count = -ENOSPC;
    *files = NULL;
    for (unsigned room = 256; count == -ENOSPC; room *= 2) {
        free(*files);
        *files = malloc(room * sizeof(**files));
        count = *files == NULL ? -ENOMEM : disk->list(disk, kind, *files, room);
    }
    return count;
}

static bool is_kept(const struct wal_checkpoint *checkpoint, seq_t seq) {
    for (unsigned i = 0; i < checkpoint->kept_count; i++)
        if (checkpoint->kept[i].seq == seq)
            return true;
    return false;
}

/** Files of checkpoints that recovery did not name, either those behind the log's end or the others. */
static int note_strays(struct wal *wal, enum disk_file_kind kind, bool behind) {
    uint64_t *files;
    int count = list_all(wal->config.disk, kind, &files);
    for (int i = 0; i < count; i++) {
        seq_t seq = disk_file_number(files[i]);
        if (!is_kept(&wal->checkpoint, seq) && (seq > wal->config.position.seq) == behind)
            wal_retention_stray(wal, files[i]);
    }
    free(files);
    return count < 0 ? count : 0;
}

int wal_retention_open(struct wal *wal, char *error, size_t error_bytes) {
    struct wal_checkpoint *checkpoint = &wal->checkpoint;
    const struct wal_position *position = &wal->config.position;
    uint64_t *files;
    for (unsigned i = 0; i < CHECKPOINT_KEPT; i++) {
        if (position->checkpoints[i].seq == 0)
            continue;
        checkpoint->kept[checkpoint->kept_count++] = (struct wal_checkpoint_kept){
            position->checkpoints[i].seq, position->checkpoints[i].log_file};
        checkpoint->published_seq = position->checkpoints[i].seq;
    }
    atomic_store_explicit(&checkpoint->counters.published_seq, checkpoint->published_seq,
                          memory_order_relaxed);
    int count = list_all(wal->config.disk, DISK_LOG, &files), rc = count < 0 ? count : 0;
    checkpoint->first_file = count > 0 ? disk_file_number(files[0]) : position->file_number;
    free(files);
    /* a manifest goes before its data, and first those whose numbers are to be used again */
    if (rc == 0)
        rc = note_strays(wal, DISK_CHECKPOINT_MANIFEST, true);
    if (rc == 0)
        rc = note_strays(wal, DISK_CHECKPOINT_DATA, true);
    checkpoint->strays_urgent = checkpoint->stray_count;
    if (rc == 0)
        rc = note_strays(wal, DISK_CHECKPOINT_MANIFEST, false);
    if (rc == 0)
        rc = note_strays(wal, DISK_CHECKPOINT_DATA, false);
    if (rc != 0)
        snprintf(error, error_bytes, "log: cannot list its files: %s", strerrordesc_np(-rc));
    wal_index_trim(wal->index, checkpoint->first_file);
    return rc;
}
