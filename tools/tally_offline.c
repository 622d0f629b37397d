/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/tally_offline.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "wal/wal_format.h"

#define HORIZON_BACK_MS 3600000u
#define HORIZON_SLACK_MS 60000u
#define ASK_NS (5 * NS_PER_SECOND)
#define HOLD_PAUSE_NS (100 * NS_PER_MS)
#define DIRECTORY_DEFAULT "/var/lib/tally"

int offline_open(const struct wal_identity *identity, unsigned partitions, uint64_t memory_mb,
                 unsigned checkpoint_chunks, struct offline *offline) {
    *offline = (struct offline){
        .board = aligned_alloc(CACHE_LINE_BYTES, sizeof(struct wal_board)),
        .lane = aligned_alloc(CACHE_LINE_BYTES, sizeof(struct wal_lane)),
    };
    if (offline->board == NULL || offline->lane == NULL) {
        args_complain("no memory");
        offline_close(offline);
        return CLI_USAGE;
    }
    memset(offline->board, 0, sizeof(*offline->board));
    memset(offline->lane, 0, sizeof(*offline->lane));
    uint64_t machine_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    const struct engine_config config = {
        .partitions = partitions,
        .lcores = 1,
        .hash_seed = identity->hash_seed,
        .digest_seed = identity->digest_seed,
        .id_time = identity->id_time,
        .memory_bytes = memory_mb ? memory_mb << 20 : machine_bytes,
        .log_buffer_bytes = WAL_SEGMENT_BYTES_MAX,
        .digest_interval_ns = NS_PER_SECOND,
        .horizon_back_ms = HORIZON_BACK_MS,
        .horizon_slack_ms = HORIZON_SLACK_MS,
        .checkpoint_chunks = checkpoint_chunks,
        .board = offline->board,
        .lanes = offline->lane,
    };
    char error[256];
    if (engine_open(&config, &offline->engine, error, sizeof(error)) == 0)
        return CLI_DONE;
    args_complain("%s", error);
    offline_close(offline);
    return CLI_USAGE;
}

void offline_close(struct offline *offline) {
    engine_close(offline->engine);
    free(offline->board);
    free(offline->lane);
    *offline = (struct offline){0};
}

uint128_t offline_digest(const struct offline *offline, unsigned partitions, bool *agrees) {
    uint128_t sum = 0;
    *agrees = true;
    for (unsigned p = 0; p < partitions; p++) {
        uint128_t digest = engine_partition_digest_recompute(offline->engine, p);
        *agrees &= digest == engine_partition_digest(offline->engine, p);
        sum += digest;
    }
    return sum;
}

/* --- recovery ------------------------------------------------------------------------------------ */

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

void offline_watch_begin(struct offline_watch *watch, const char *what,
                         struct control_client *client) {
    *watch = (struct offline_watch){.client = client, .asked_ns = now_ns()};
    progress_begin(&watch->progress, what);
}

void offline_watch_show(struct offline_watch *watch, uint64_t done_bytes, uint64_t total_bytes) {
    progress_show(&watch->progress, done_bytes, total_bytes);
    uint64_t now = now_ns();
    if (watch->client == NULL || watch->lost || now - watch->asked_ns < ASK_NS)
        return;
    watch->asked_ns = now;
    struct json_object *answer = control_client_ask(watch->client, CONTROL_STATUS);
    watch->lost = answer == NULL;
    json_object_put(answer);
}

static void show_progress(void *context, const struct recovery_progress *now) {
    struct offline_watch *watch = context;
    watch->progress.what = now->phase;
    offline_watch_show(watch, now->done_bytes, now->total_bytes);
}

static void show_warning(void *context, const char *line) {
    struct offline_watch *watch = context;
    progress_end(&watch->progress);
    args_complain("warning: %s", line);
}

int offline_recover(const struct offline *offline, struct data_dir *dir,
                    struct control_client *client, const struct recovery_config *limits,
                    struct wal_position *position, struct recovery_report *report, char *error,
                    size_t error_bytes) {
    struct offline_watch watch;
    struct recovery_config config = *limits;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (config.workers == 0)
        config.workers = cores < 1 ? 1 : cores > LCORES_MAX ? LCORES_MAX : (unsigned)cores;
    config.disk = data_dir_disk(dir);
    config.identity = &data_dir_settings(dir)->identity;
    config.threads = true;
    config.read_only = true;
    config.progress = show_progress;
    config.warning = show_warning;
    config.context = &watch;
    error[0] = '\0';
    offline_watch_begin(&watch, "recovery", client);
    int rc = recovery_run(&config, offline->engine, position, report, error, error_bytes);
    progress_end(&watch.progress);
    if (rc == 0 && watch.lost)
        wal_position_release(position);
    return rc == 0 && watch.lost ? -ECONNRESET : rc;
}

int offline_hold(const char *data, uint64_t timeout_ms, struct control_client **client,
                 seq_t *last_seq) {
    *client = NULL;
    *last_seq = 0;
    enum control_found found = control_client_open(data, timeout_ms, client);
    if (found != CONTROL_SERVED)
        return found == CONTROL_NOBODY ? CLI_DONE : CLI_USAGE;
    struct json_object *answer = control_client_ask(*client, CONTROL_HOLD);
    json_object_put(answer);
    if (answer != NULL) {
        /* a removal that had just begun may still end */
        const struct timespec pause = {.tv_nsec = HOLD_PAUSE_NS};
        nanosleep(&pause, NULL);
        answer = control_client_ask(*client, CONTROL_STATUS);
    }
    if (answer == NULL)
        return CLI_UNKNOWN;
    *last_seq = control_number(answer, "commit_seq");
    json_object_put(answer);
    return CLI_DONE;
}

int offline_exit(int rc) {
    if (rc == 0)
        return CLI_DONE;
    return rc == -EBADMSG || rc == -ENODATA || rc == -EPERM ? CLI_DAMAGED : CLI_USAGE;
}

const char *offline_hex(const void *bytes, char *out) {
    for (unsigned i = 0; i < 16; i++)
        snprintf(out + (size_t)2 * i, 3, "%02x", ((const uint8_t *)bytes)[i]);
    return out;
}

const char *offline_directory(const char *named) {
    const char *environment = getenv("TALLY_DATA_DIR");
    return named != NULL                                 ? named
           : environment != NULL && *environment != '\0' ? environment
                                                         : DIRECTORY_DEFAULT;
}
