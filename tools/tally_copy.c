/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/tally_copy.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "tools/tally_cli.h"
#include "wal/checkpoint_copy.h"
#include "wal/checkpoint_inspect.h"
#include "wal/wal_copy.h"
#include "wal/wal_index.h"

#define ASK_NS (5 * NS_PER_SECOND)
#define ID_AHEAD_MS 60001u /**< an id may be ahead of the cell time of its group by so much */

/* --- paths ---------------------------------------------------------------------------------------- */

/** The real path of something that need not be there yet; its folder must be. @return false when it is not */
static bool real_path(const char *path, char *out) {
    char folder[PATH_MAX], name[PATH_MAX], real[PATH_MAX];
    if (realpath(path, out) != NULL)
        return true;
    if (strlen(path) >= PATH_MAX)
        return false;
    strcpy(folder, path);
    strcpy(name, path);
    if (realpath(dirname(folder), real) == NULL)
        return false;
    return snprintf(out, PATH_MAX, "%s/%s", real, basename(name)) < PATH_MAX;
}

bool copy_lies_in(const char *path, const char *directory) {
    char inner[PATH_MAX], outer[PATH_MAX];
    if (!real_path(path, inner) || !real_path(directory, outer))
        return false;
    size_t length = strlen(outer);
    return strncmp(inner, outer, length) == 0 && (inner[length] == '/' || inner[length] == '\0');
}

/* --- which checkpoint ------------------------------------------------------------------------------ */

seq_t copy_newest_checkpoint(struct data_dir *dir, seq_t limit) {
    seq_t seqs[CHECKPOINT_LIST_MAX];
    int count = checkpoint_list(data_dir_disk(dir), seqs, CHECKPOINT_LIST_MAX);
    while (count-- > 0) {
        struct checkpoint_manifest manifest;
        char error[512];
        if (seqs[count] > limit)
            continue;
        if (checkpoint_manifest_read(data_dir_disk(dir), data_dir_settings(dir)->identity.cell_id,
                                     seqs[count], &manifest, error, sizeof(error)) == 0)
            return seqs[count];
        args_complain("warning: %s; taking the one before", error);
    }
    return 0;
}

/* --- progress -------------------------------------------------------------------------------------- */

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

static int written(void *context, uint64_t bytes) {
    struct copy *copy = context;
    copy->bytes += bytes;
    progress_show(&copy->progress, copy->bytes, copy->total_bytes);
    uint64_t now = now_ns();
    if (copy->alive == NULL || now - copy->asked_ns < ASK_NS)
        return 0;
    copy->asked_ns = now;
    return copy->alive(copy->context);
}

static int copied_group(void *context, const struct wal_header *header, uint64_t file,
                        uint64_t file_offset) {
    struct copy *copy = context;
    if (header->chained.seq == copy->checkpoint_seq) {
        memcpy(copy->log_digest, header->chained.digest, sizeof(copy->log_digest));
        copy->log_digest_known = true;
    }
    if (header->chained.seq == copy->checkpoint_seq + 1) {
        copy->next_file = file;
        copy->next_offset = file_offset;
    }
    return written(copy, WAL_PAGE_BYTES + header->chained.body_bytes);
}

/* --- the parts ------------------------------------------------------------------------------------- */

/** A cell of its own, that knows its parent. */
static int new_settings(const struct copy *copy, struct data_dir_settings *settings, char *error,
                        size_t error_bytes) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    *settings = *data_dir_settings(copy->from);
    memcpy(settings->parent_cell_id, settings->identity.cell_id, sizeof(settings->parent_cell_id));
    settings->created_ns = (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
    if (copy->partitions)
        settings->identity.partitions = copy->partitions;
    if (getrandom(settings->identity.cell_id, sizeof(settings->identity.cell_id), 0) ==
        (ssize_t)sizeof(settings->identity.cell_id))
        return 0;
    snprintf(error, error_bytes, "no random numbers to be had: %s", strerror(errno));
    return -errno;
}

/** The first file of the log that the copy needs: where replay begins, or earlier as long as ids are remembered that stand there. */
static int first_file(const struct copy *copy, const struct checkpoint_manifest *manifest,
                      uint64_t *file, seq_t *seq, char *error, size_t error_bytes) {
    struct disk *disk = data_dir_disk(copy->from);
    const struct wal_index_file *oldest;
    struct wal_index *index = wal_index_new();
    if (index == NULL) {
        snprintf(error, error_bytes, "no memory");
        return -ENOMEM;
    }
    int rc = checkpoint_index_read(disk, manifest, index, error, error_bytes);
    while (rc == 0 && (oldest = wal_index_oldest(index)) != NULL &&
           oldest->file < manifest->log_file) {
        bool forgotten = data_dir_settings(copy->from)->identity.id_time &&
                         oldest->last_cell_time / NS_PER_MS + ID_AHEAD_MS < manifest->horizon_ms;
        if (!forgotten && disk->size(disk, oldest->file) >= 0)
            break;
        wal_index_trim(index, oldest->file + 1);
    }
    oldest = wal_index_oldest(index);
    *file = oldest != NULL ? oldest->file : manifest->log_file;
    *seq = oldest != NULL ? oldest->first_seq : manifest->seq + 1;
    wal_index_free(index);
    return rc;
}

/** About, for progress: up to the checkpoint, or whatever stands where there is none. */
static uint64_t log_bytes(const struct copy *copy, uint64_t file,
                          const struct checkpoint_manifest *manifest) {
    struct disk *disk = data_dir_disk(copy->from);
    uint64_t bytes = 0;
    if (manifest != NULL)
        return (manifest->log_file - file) * manifest->log_file_bytes + manifest->log_offset;
    for (int64_t size; (size = disk->size(disk, file)) >= 0; file++)
        bytes += (uint64_t)size;
    return bytes;
}

static int copy_log(struct copy *copy, uint64_t file, seq_t first_seq, char *error,
                    size_t error_bytes) {
    const struct wal_copy_config config = {
        .from = data_dir_disk(copy->from),
        .to = data_dir_disk(copy->dir),
        .from_identity = &data_dir_settings(copy->from)->identity,
        .to_identity = &data_dir_settings(copy->dir)->identity,
        /* its digests are those of the old partitions: nobody may start from its first group */
        .to_file = copy->log_only && file == 1 ? 2 : file,
        .file = file,
        .first_seq = first_seq,
        .last_seq = copy->last_seq,
        .copied = copied_group,
        .context = copy};
    progress_begin(&copy->progress, "log");
    int rc = wal_copy(&config, &copy->position, error, error_bytes);
    progress_end(&copy->progress);
    return rc;
}

static int copy_checkpoint(struct copy *copy, const struct checkpoint_manifest *manifest,
                           char *error, size_t error_bytes) {
    const struct checkpoint_copy_config config = {
        .from = data_dir_disk(copy->from),
        .to = data_dir_disk(copy->dir),
        .to_identity = &data_dir_settings(copy->dir)->identity,
        .manifest = manifest,
        .index = copy->position.index,
        .log_digest = copy->log_digest_known ? copy->log_digest : NULL,
        .log_file = copy->next_file ? copy->next_file : copy->position.file_number,
        .log_offset = copy->next_file ? copy->next_offset : copy->position.file_offset,
        .progress = written,
        .context = copy};
    progress_begin(&copy->progress, "checkpoint");
    int rc = checkpoint_copy(&config, error, error_bytes);
    progress_end(&copy->progress);
    return rc;
}

/** Into a directory that has been begun. */
static int copy_parts(struct copy *copy, char *error, size_t error_bytes) {
    struct checkpoint_manifest manifest;
    uint64_t file = 1;
    seq_t first_seq = 1;
    int rc = 0;
    if (copy->checkpoint_seq != 0) {
        rc = checkpoint_manifest_read(data_dir_disk(copy->from),
                                      data_dir_settings(copy->from)->identity.cell_id,
                                      copy->checkpoint_seq, &manifest, error, error_bytes);
        if (rc == 0)
            rc = first_file(copy, &manifest, &file, &first_seq, error, error_bytes);
        copy->total_bytes = manifest.chunk_count * CHECKPOINT_CHUNK_BYTES;
    }
    if (rc != 0)
        return rc;
    copy->total_bytes += log_bytes(copy, file, copy->checkpoint_seq != 0 ? &manifest : NULL);
    rc = copy_log(copy, file, first_seq, error, error_bytes);
    if (rc == 0 && copy->checkpoint_seq != 0 && !copy->log_only) {
        rc = copy_checkpoint(copy, &manifest, error, error_bytes);
        if (rc != 0)
            wal_position_release(&copy->position);
    }
    return rc;
}

int copy_directory(struct copy *copy, char *error, size_t error_bytes) {
    struct data_dir_settings settings;
    error[0] = '\0';
    copy->dir = NULL;
    copy->asked_ns = now_ns();
    int rc = new_settings(copy, &settings, error, error_bytes);
    if (rc == 0)
        rc = data_dir_begin(copy->into, &settings, &copy->dir, error, error_bytes);
    if (rc != 0)
        return rc;
    rc = copy_parts(copy, error, error_bytes);
    if (rc != 0) {
        data_dir_abandon(copy->dir);
        copy->dir = NULL;
    }
    return rc;
}
