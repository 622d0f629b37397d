/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/recovery.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "engine/recovery_crew.h"
#include "engine/restore_internal.h"
#include "wal/checkpoint_inspect.h"
#include "wal/checkpoint_reader.h"
#include "wal/wal_index.h"
#include "wal/wal_recover.h"

#define PROGRESS_NS (NS_PER_SECOND / 10)
#define LINE_BYTES 512
#define READER_BYTES_MAX ((size_t)RECOVERY_BATCHES * RECOVERY_BATCH_BYTES)

/** A recovery under way. */
struct run {
    const struct recovery_config *config;
    struct engine *engine;
    struct wal_position *position;
    struct recovery_report *report;
    char *error;
    size_t error_bytes;
    struct restore *restore;
    struct recovery_crew *crew;
    seq_t complete_group; /**< when the checkpoint was published, this group was committed */
    uint64_t told_ns;     /**< when progress was told last */
    uint64_t records;
};

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

static void tell(struct run *run, const char *phase, uint64_t done, uint64_t total, seq_t seq) {
    uint64_t now = run->config->progress ? now_ns() : 0;
    if (!run->config->progress || now - run->told_ns < PROGRESS_NS)
        return;
    run->told_ns = now;
    const struct recovery_progress progress = {phase, done, total, run->records, seq};
    run->config->progress(run->config->context, &progress);
}

static void warn(struct run *run, const char *line) {
    if (run->config->warning)
        run->config->warning(run->config->context, line);
}

/* --- the workers --------------------------------------------------------------------------------------------------------- */

static int crew_open(struct run *run) {
    const struct recovery_config *config = run->config;
    int rc = restore_open(run->engine, config->workers, &run->restore);
    if (!rc) {
        restore_partitions_written(run->restore, config->identity->partitions);
        rc = recovery_crew_open(run->restore, config->workers, config->threads, &run->crew);
    }
    if (rc)
        snprintf(run->error, run->error_bytes, "no memory, or no threads, to recover with");
    return rc;
}

static void crew_close(struct run *run) {
    recovery_crew_close(run->crew);
    restore_close(run->restore);
    run->crew = NULL;
    run->restore = NULL;
}

/** What the ledger had against it, and where that stands. @return rc */
static int refused(struct run *run, int rc, const char *remedy) {
    const struct restore_worker *worker = restore_failed(run->restore);
    struct disk *disk = run->config->disk;
    char place[LINE_BYTES / 2] = "";
    if (worker->failed.seq)
        snprintf(place, sizeof(place),
                 "%s: bytes %llu..%llu: ", disk->name(disk, worker->failed.file),
                 (unsigned long long)worker->failed.file_offset,
                 (unsigned long long)(worker->failed.file_offset + worker->failed.bytes));
    snprintf(run->error, run->error_bytes, "%s%s%s", place, worker->error, remedy);
    return rc;
}

static bool batch_full(const struct recovery_batch *batch) {
    return batch->count == RECOVERY_BATCH_ITEMS || batch->bytes >= RECOVERY_BATCH_BYTES;
}

/* --- a checkpoint -------------------------------------------------------------------------------------------------------- */

/** What concerns none of the workers. */
static int take_chunk(struct run *run, const struct checkpoint_chunk *chunk) {
    run->records += chunk->header.records;
    if (chunk->header.kind == CHECKPOINT_LCORE) {
        const struct checkpoint_lcore *lcore = (const void *)chunk->payload;
        if (lcore->complete_group > run->complete_group)
            run->complete_group = lcore->complete_group;
    }
    if (chunk->header.kind != CHECKPOINT_LOG_FILES && chunk->header.kind != CHECKPOINT_LOG_INDEX)
        return 0;
    int rc = wal_index_import(run->position->index, chunk);
    if (rc)
        snprintf(run->error, run->error_bytes,
                 "%s: chunk %llu: where the log's groups lie makes no sense",
                 run->config->disk->name(run->config->disk,
                                         disk_file(DISK_CHECKPOINT_DATA, chunk->header.seq)),
                 (unsigned long long)chunk->header.number);
    return rc;
}

/** Hand the batch over and get the next one; what is done need not stay any more.
 *  @param room the reader has some. @return NULL when somebody failed */
static struct recovery_batch *next_chunks(struct run *run, struct checkpoint_reader *reader,
                                          bool room, uint64_t taken) {
    recovery_crew_hand_over(run->crew);
    if (!room)
        recovery_crew_wait_oldest(run->crew);
    if (recovery_crew_failed(run->crew))
        return NULL;
    struct recovery_batch *batch = recovery_crew_batch(run->crew, RECOVERY_CHUNKS);
    const struct recovery_batch *oldest = recovery_crew_oldest(run->crew);
    checkpoint_reader_release(reader, oldest->count ? oldest->chunks[0]->header.number : taken);
    return batch;
}

/** Hand every chunk to every worker. @return 0 or -errno, `error` filled */
static int load_chunks(struct run *run, const struct checkpoint_manifest *manifest,
                       struct checkpoint_reader *reader) {
    const struct checkpoint_chunk *chunk;
    struct recovery_batch *batch = recovery_crew_batch(run->crew, RECOVERY_CHUNKS);
    uint64_t taken = 0;
    int rc;
    while ((rc = checkpoint_reader_next(reader, &chunk, run->error, run->error_bytes)) == 1 ||
           rc == -EAGAIN) {
        bool room = rc == 1;
        if (room) {
            batch->chunks[batch->count++] = chunk;
            batch->bytes += CHECKPOINT_CHUNK_BYTES;
            taken++;
            rc = take_chunk(run, chunk);
            if (rc)
                break;
        }
        if (room && !batch_full(batch))
            continue;
        batch = next_chunks(run, reader, room, taken);
        if (!batch)
            break;
        tell(run, "checkpoint", taken * CHECKPOINT_CHUNK_BYTES,
             manifest->chunk_count * CHECKPOINT_CHUNK_BYTES, manifest->seq);
    }
    if (batch)
        recovery_crew_hand_over(run->crew);
    int failed = recovery_crew_wait(run->crew);
    return failed ? refused(run, failed, "") : rc;
}

/** Memory for chunks on their way: they come partition by partition, and each worker shall find some of its own. */
static size_t reader_bytes(const struct run *run, const struct checkpoint_manifest *manifest) {
    uint64_t partition = manifest->chunk_count * CHECKPOINT_CHUNK_BYTES / manifest->partitions + 1;
    uint64_t bytes = 2 * partition * run->config->workers;
    if (run->config->workers == 1 || bytes < CHECKPOINT_READER_BYTES)
        return CHECKPOINT_READER_BYTES;
    return bytes > READER_BYTES_MAX ? READER_BYTES_MAX : (size_t)bytes;
}

/** Restore the state from one checkpoint. @return 0 or -errno, `error` filled; then the engine holds parts of it */
static int load_checkpoint(struct run *run, const struct checkpoint_manifest *manifest) {
    const struct wal_identity *identity = run->config->identity;
    struct disk *disk = run->config->disk;
    struct checkpoint_reader *reader;
    uint64_t start = now_ns();
    if (manifest->partitions != identity->partitions ||
        (identity->file_bytes && manifest->log_file_bytes != identity->file_bytes)) {
        snprintf(run->error, run->error_bytes,
                 "%s: it is of a cell with %u partitions and log files of %llu bytes",
                 disk->name(disk, disk_file(DISK_CHECKPOINT_MANIFEST, manifest->seq)),
                 manifest->partitions, (unsigned long long)manifest->log_file_bytes);
        return -EBADMSG;
    }
    int rc = checkpoint_reader_open(disk, manifest, reader_bytes(run, manifest), &reader,
                                    run->error, run->error_bytes);
    if (rc)
        return rc;
    run->records = run->complete_group = 0;
    restore_checkpoint_begin(run->restore, manifest);
    rc = load_chunks(run, manifest, reader);
    checkpoint_reader_close(reader);
    if (!rc && (rc = restore_checkpoint_end(run->restore, manifest)) != 0)
        refused(run, rc, "");
    if (rc)
        return rc;
    struct wal_position *position = run->position;
    position->seq = position->durable_seq = manifest->seq;
    position->term = manifest->term;
    memcpy(position->digest, manifest->log_digest, sizeof(position->digest));
    position->file_number = manifest->log_file;
    position->file_offset = manifest->log_offset;
    position->cell_time = manifest->cell_time;
    position->horizon_ms = manifest->horizon_ms;
    run->report->checkpoint_seq = manifest->seq;
    run->report->checkpoint_bytes = manifest->chunk_count * CHECKPOINT_CHUNK_BYTES;
    run->report->checkpoint_records = manifest->accounts + manifest->pendings + manifest->ids;
    run->report->checkpoint_ns = now_ns() - start;
    return 0;
}

/** Everything as if nothing had been loaded. */
static int start_over(struct run *run) {
    crew_close(run);
    engine_clear(run->engine);
    wal_position_release(run->position);
    *run->position = (struct wal_position){.file_number = 1, .index = wal_index_new()};
    if (!run->position->index) {
        snprintf(run->error, run->error_bytes, "log: no memory for its index");
        return -ENOMEM;
    }
    return crew_open(run);
}

static bool is_within(const struct recovery_config *config,
                      const struct checkpoint_manifest *manifest) {
    return (!config->until_seq || manifest->seq <= config->until_seq) &&
           (!config->until_ns || manifest->cell_time <= config->until_ns);
}

/** Whether something is wrong with this checkpoint, so that another one may do. */
static bool is_damage(int rc) {
    return rc && rc != -ENOMEM && rc != -EPERM && rc != -ENOTSUP;
}

/** Whether the log needs no checkpoint. */
static bool log_is_whole(const struct recovery_config *config) {
    uint64_t file;
    seq_t first;
    return wal_log_begin(config->disk, config->identity, &file, &first) == 0 && file == 1 &&
           first == 1;
}

/** Load the newest good checkpoint. @param first_later the oldest that lies behind where recovery shall end
 *  @return 0 (position->seq: which; 0: there is none), or -errno with `error` filled */
static int find_checkpoint(struct run *run, seq_t *first_later) {
    const struct recovery_config *config = run->config;
    seq_t seqs[CHECKPOINT_LIST_MAX];
    char bad[2][LINE_BYTES / 2 - 32] = {"", ""};
    unsigned bad_count = 0;
    int bad_rc = -EBADMSG; /* or what a read that failed answered: then trying again may help */
    int count = checkpoint_list(config->disk, seqs, CHECKPOINT_LIST_MAX);
    if (count < 0)
        snprintf(run->error, run->error_bytes, "checkpoints: cannot list them: %s",
                 strerrordesc_np(-count));
    int rc = count < 0 ? count : 0;
    for (int i = count - 1; i >= 0; i--) {
        struct checkpoint_manifest manifest;
        if (config->until_seq && seqs[i] > config->until_seq) { /* good or not: it is not wanted */
            *first_later = seqs[i];
            continue;
        }
        rc = checkpoint_manifest_read(config->disk, config->identity->cell_id, seqs[i], &manifest,
                                      run->error, run->error_bytes);
        if (!rc && !is_within(config, &manifest)) {
            *first_later = manifest.seq;
            continue;
        }
        if (!rc)
            rc = load_checkpoint(run, &manifest);
        if (rc == -EPERM) {
            size_t used = strlen(run->error);
            snprintf(run->error + used, run->error_bytes - used,
                     "; take the files of another cell out of the directory; nothing was changed");
        }
        if (!is_damage(rc))
            return rc;
        snprintf(bad[bad_count ? 1 : 0], sizeof(bad[0]), "%s", run->error);
        bad_count++;
        bad_rc = rc == -ENOENT || rc == -EBADMSG ? bad_rc : rc;
        char line[LINE_BYTES];
        snprintf(line, sizeof(line), "checkpoint of group %llu is passed over: %s",
                 (unsigned long long)seqs[i], run->error);
        warn(run, line);
        rc = start_over(run);
        if (rc)
            return rc;
    }
    if (!bad_count || rc)
        return rc;
    snprintf(run->error, run->error_bytes, "no checkpoint is good: %s%s%s; %s; nothing was changed",
             bad[0], bad_count > 1 ? "; " : "", bad[1],
             log_is_whole(config)
                 ? "the log goes back to its first group: move all files of checkpoint/ elsewhere, "
                   "and the log alone is replayed; or start from a backup"
                 : "put back copies of these very files, or start from a backup");
    return bad_rc;
}

/** Note which checkpoints are kept, oldest first, for the WAL to remove older ones in their turn. */
static void note_checkpoints(struct run *run) {
    const struct recovery_config *config = run->config;
    struct checkpoint_manifest manifest;
    char ignored[LINE_BYTES];
    seq_t seqs[CHECKPOINT_LIST_MAX];
    int count = checkpoint_list(config->disk, seqs, CHECKPOINT_LIST_MAX);
    unsigned noted = 0;
    for (int i = count - 1; i >= 0 && noted < CHECKPOINT_KEPT; i--) {
        if (seqs[i] > run->report->checkpoint_seq ||
            checkpoint_manifest_read(config->disk, config->identity->cell_id, seqs[i], &manifest,
                                     ignored, sizeof(ignored)))
            continue;
        unsigned place = CHECKPOINT_KEPT - 1 - noted++;
        run->position->checkpoints[place].seq = manifest.seq;
        run->position->checkpoints[place].log_file = manifest.log_file;
    }
}

/* --- the log ------------------------------------------------------------------------------------------------------------- */

/** Files before the one where replay begins are not read, but the fields of remembered transfers stand in them. */
static void look_for_earlier_files(struct run *run, uint64_t file) {
    struct disk *disk = run->config->disk;
    const uint64_t file_bytes = run->config->identity->file_bytes;
    for (; file && file < run->position->file_number; file++) {
        int64_t size = disk->size(disk, file);
        if (size >= 0 && (!file_bytes || (uint64_t)size == file_bytes))
            continue;
        char line[LINE_BYTES];
        snprintf(line, sizeof(line),
                 "%s %s: the state is whole without it, but what asks for transfers in it stays "
                 "unanswered, and no backup can be taken; put back a copy of this very file",
                 disk->name(disk, file),
                 size < 0 ? "is missing or cannot be read" : "has not its size");
        warn(run, line);
    }
}

/** Does the log reach back to where it is to be read from? */
static int check_beginning(struct run *run, seq_t first_later) {
    struct wal_position *position = run->position;
    struct disk *disk = run->config->disk;
    uint64_t file;
    seq_t first;
    int rc = wal_log_begin(disk, run->config->identity, &file, &first);
    if (rc) {
        snprintf(run->error, run->error_bytes, "log: cannot read its beginning: %s",
                 strerrordesc_np(-rc));
        return rc;
    }
    wal_index_trim(position->index, file); /* files went since the checkpoint was published */
    if (position->seq && file == position->file_number + 1 && first == position->seq + 1) {
        position->file_number = file;
        position->file_offset = 0;
    }
    if (file <= position->file_number && (file || !position->seq)) {
        look_for_earlier_files(run, file);
        return 0;
    }
    char begins[LINE_BYTES / 4] = "there is no log";
    char missing[LINE_BYTES / 4] = "";
    if (first > position->seq + 1) {
        snprintf(begins, sizeof(begins), "the log begins at group %llu (file %llu)",
                 (unsigned long long)first, (unsigned long long)file);
        snprintf(missing, sizeof(missing), ": groups %llu..%llu are missing",
                 (unsigned long long)(position->seq + 1), (unsigned long long)(first - 1));
    } else if (file) {
        snprintf(begins, sizeof(begins),
                 "the log begins with file %llu, whose first group cannot be read",
                 (unsigned long long)file);
    }
    if (first_later && !position->seq)
        snprintf(run->error, run->error_bytes,
                 "what is asked for is not held any more: the oldest checkpoint is of group %llu, "
                 "and %s; use an older backup",
                 (unsigned long long)first_later, begins);
    else if (position->seq)
        snprintf(run->error, run->error_bytes,
                 "%s is missing: %s, and the checkpoint reaches up to group %llu%s; put back "
                 "copies of the log's very files, or start from a backup; nothing was changed",
                 disk->name(disk, position->file_number), begins, (unsigned long long)position->seq,
                 missing);
    else
        snprintf(run->error, run->error_bytes,
                 "%s is missing: %s, and no checkpoint reaches it%s; put back copies of the "
                 "log's very files, or start from a backup; nothing was changed",
                 disk->name(disk, position->file_number), begins, missing);
    return -ENODATA;
}

static bool is_behind(const struct recovery_config *config, const struct wal_group_view *view) {
    const struct wal_chained_header *chained = &view->header->chained;
    return (config->until_seq && chained->seq > config->until_seq) ||
           (config->until_ns && chained->cell_time > config->until_ns);
}

static int take_group(struct run *run, struct recovery_batch *batch,
                      const struct wal_group_view *view) {
    int rc = wal_position_take(run->position, view);
    if (rc) {
        snprintf(run->error, run->error_bytes, "log: it has too many files for its index");
        return rc;
    }
    run->records = run->position->records;
    batch->groups[batch->count++] = *view;
    batch->bytes += view->bytes;
    return 0;
}

/** Hand the batch over and get the next one; what is done need not stay any more.
 *  @param room the reader has some. @return NULL when somebody failed */
static struct recovery_batch *next_groups(struct run *run, struct wal_reader *reader, bool room) {
    recovery_crew_hand_over(run->crew);
    if (!room)
        recovery_crew_wait_oldest(run->crew);
    if (recovery_crew_failed(run->crew))
        return NULL;
    struct recovery_batch *batch = recovery_crew_batch(run->crew, RECOVERY_GROUPS);
    const struct recovery_batch *oldest = recovery_crew_oldest(run->crew);
    wal_reader_hold(reader, oldest->count ? &oldest->groups[0] : NULL);
    return batch;
}

/** Hand every group to every worker. @return 0 or -errno, `error` filled */
static int replay_groups(struct run *run, struct wal_reader *reader, uint64_t total_bytes) {
    struct wal_group_view view;
    struct recovery_batch *batch = recovery_crew_batch(run->crew, RECOVERY_GROUPS);
    bool held = false;
    int rc;
    while ((rc = wal_reader_next(reader, &view, run->error, run->error_bytes)) == 1 ||
           rc == -EAGAIN) {
        bool room = rc == 1;
        if (room && is_behind(run->config, &view)) {
            rc = 0;
            break;
        }
        if (room && (rc = take_group(run, batch, &view)) != 0)
            break;
        if (room && !held)
            wal_reader_hold(reader, &view);
        held = true;
        if (room && !batch_full(batch))
            continue;
        batch = next_groups(run, reader, room);
        if (!batch)
            break;
        held = recovery_crew_oldest(run->crew)->count != 0;
        tell(run, "log", run->position->bytes, total_bytes, run->position->seq);
    }
    if (batch)
        recovery_crew_hand_over(run->crew);
    int failed = recovery_crew_wait(run->crew);
    return failed ? refused(run, failed,
                            "; put back a copy of this very file, or start from a backup; nothing "
                            "was changed")
                  : rc;
}

/** What was durable when the checkpoint was published must be there still. */
static int check_end(struct run *run) {
    const struct recovery_config *config = run->config;
    struct disk *disk = config->disk;
    if (run->position->seq < run->complete_group && !config->until_seq && !config->until_ns) {
        snprintf(
            run->error, run->error_bytes,
            "%s: byte %llu: the log ends at group %llu, and group %llu was durable when the "
            "checkpoint was published; put back copies of the log's very files, or start from a "
            "backup; nothing was changed",
            disk->name(disk, run->position->file_number),
            (unsigned long long)run->position->file_offset, (unsigned long long)run->position->seq,
            (unsigned long long)run->complete_group);
        return -ENODATA;
    }
    return 0;
}

static int verify(struct run *run) {
    static const char remedy[] =
        "; put back copies of the log's very files, or start from a backup; "
        "nothing was changed";
    recovery_crew_batch(run->crew, RECOVERY_VERIFY);
    recovery_crew_hand_over(run->crew);
    int rc = recovery_crew_wait(run->crew);
    if (!rc)
        rc = restore_end(run->restore);
    return rc ? refused(run, rc, remedy) : 0;
}

static int replay_log(struct run *run) {
    const struct recovery_config *config = run->config;
    struct wal_position *position = run->position;
    struct wal_reader_start start = {
        .seq = position->seq,
        .term = position->term,
        .cell_time = position->cell_time,
        .horizon_ms = position->horizon_ms,
        .file = position->file_number,
        .file_offset = position->file_offset,
    };
    struct wal_reader *reader;
    uint64_t begun = now_ns();
    memcpy(start.digest, position->digest, sizeof(start.digest));
    int rc = wal_reader_open_at(config->disk, config->identity, !config->read_only, &start, &reader,
                                run->error, run->error_bytes);
    if (rc)
        return rc;
    int64_t file_bytes = config->disk->size(config->disk, start.file);
    uint64_t files = wal_reader_last_file(reader) + 1 - start.file;
    uint64_t total_bytes = file_bytes > 0 ? files * (uint64_t)file_bytes - start.file_offset : 0;
    run->records = 0;
    run->report->log_file = start.file;
    run->report->log_offset = start.file_offset;
    rc = replay_groups(run, reader, total_bytes);
    if (!rc)
        rc = check_end(run);
    run->report->log_ns = now_ns() - begun;
    if (!rc)
        rc = verify(run);
    bool torn = wal_reader_end(reader)->verdict == WAL_VERDICT_TORN;
    if (!rc && torn)
        rc = config->read_only ? wal_count_tail(config->disk, reader, &position->torn_bytes,
                                                run->error, run->error_bytes)
                               : wal_cut_tail(config->disk, reader, &position->torn_bytes,
                                              run->error, run->error_bytes);
    wal_reader_close(reader);
    run->report->log_bytes = position->bytes;
    run->report->log_records = position->records;
    run->report->log_groups = position->groups;
    run->report->torn_bytes = position->torn_bytes;
    /* A checkpoint may lack ids between its own horizon and this. */
    if (position->horizon_ms < run->engine->lcores[0].horizon_ms)
        position->horizon_ms = run->engine->lcores[0].horizon_ms;
    return rc;
}

int recovery_run(const struct recovery_config *config, struct engine *engine,
                 struct wal_position *position, struct recovery_report *report, char *error,
                 size_t error_bytes) {
    struct run run = {.config = config,
                      .engine = engine,
                      .position = position,
                      .report = report,
                      .error = error,
                      .error_bytes = error_bytes};
    assert(error_bytes != 0 && config->workers >= 1);
    error[0] = '\0';
    *report = (struct recovery_report){0};
    *position = (struct wal_position){.file_number = 1, .index = wal_index_new()};
    seq_t first_later = 0;
    int rc = position->index ? crew_open(&run) : -ENOMEM;
    if (!position->index)
        snprintf(error, error_bytes, "log: no memory for its index");
    if (!rc)
        rc = find_checkpoint(&run, &first_later);
    if (!rc)
        rc = check_beginning(&run, first_later);
    if (!rc)
        rc = replay_log(&run);
    if (!rc)
        note_checkpoints(&run);
    crew_close(&run);
    if (rc)
        wal_position_release(position);
    return rc;
}
