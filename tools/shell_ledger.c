/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/shell_ledger.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "engine/recovery.h"
#include "wal/data_dir.h"
#include "wal/disk_memory.h"

#define LOG_FILE_BYTES ((uint64_t)16 << 20)
#define HORIZON_BACK_MS 3600000
#define HORIZON_MINIMUM_MS 60000
#define CLOCK_START_NS 1
/** Turns in which nothing happens, with a disk that answers at once: more of them, and something is
 * broken. */
#define EMPTY_TURNS_MAX 100000
#define QUIET_TURNS 3

struct shell_ledger {
    struct wal_board *board;
    struct wal_lane *lanes;
    struct engine *engine;
    unsigned lcores;
    unsigned next_lcore; /**< that takes the next request */
    struct wal *wal;
    struct disk *memory_disk;  /**< with a log in memory */
    struct data_dir *data_dir; /**< with one on disk */
    uint64_t clock_ns;
    uint64_t wal_now_ns; /**< the WAL's own clock, which only delays what nobody waits for */
    uint64_t empty_turns;
    struct engine_request *finished; /**< taken from the engine, not yet answered */
    bool id_time;
    const char *error;
};

/* --- opening
 * -------------------------------------------------------------------------------------- */

static uint64_t random_seed(void) {
    uint64_t seed = 0;
    return getrandom(&seed, sizeof(seed), 0) == sizeof(seed) ? seed : (uint64_t)time(NULL);
}

/** Whether there is nothing in the directory, or no directory at all. */
static bool directory_is_empty(const char *path) {
    DIR *directory = opendir(path);
    if (!directory)
        return errno == ENOENT;
    bool empty = true;
    for (const struct dirent *entry; empty && (entry = readdir(directory));)
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    closedir(directory);
    return empty;
}

static int directory_format(const struct shell_ledger_config *config, char *error,
                            size_t error_bytes) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct data_dir_settings settings = {
        .identity = {.partitions = config->partitions ? config->partitions : PARTITIONS_DEFAULT,
                     .id_time = config->id_time != 0,
                     .hash_seed = random_seed(),
                     .digest_seed = random_seed(),
                     .file_bytes = LOG_FILE_BYTES},
        .groups_in_flight = DATA_DIR_GROUPS_IN_FLIGHT_DEFAULT,
        .created_ns = (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec,
    };
    if (getrandom(settings.identity.cell_id, sizeof(settings.identity.cell_id), 0) < 0) {
        snprintf(error, error_bytes, "getrandom: %s", strerror(errno));
        return -EIO;
    }
    return data_dir_format(config->wal_directory, &settings, error, error_bytes);
}

/** Take the data directory, made first where it is empty, and check that it is as asked for. */
static int directory_open(struct shell_ledger *ledger, const struct shell_ledger_config *config,
                          struct data_dir_settings *settings, char *error, size_t error_bytes) {
    const char *path = config->wal_directory;
    int outcome = 0;
    if (directory_is_empty(path))
        outcome = directory_format(config, error, error_bytes);
    if (!outcome)
        outcome = data_dir_open(path, DATA_DIR_LOCK, &ledger->data_dir, error, error_bytes);
    if (outcome)
        return outcome;
    *settings = *data_dir_settings(ledger->data_dir);
    const struct wal_identity *identity = &settings->identity;
    if (config->partitions && config->partitions != identity->partitions) {
        snprintf(error, error_bytes, "%s was formatted with --partitions %u, not %u", path,
                 identity->partitions, config->partitions);
        return -EINVAL;
    }
    if (config->id_time >= 0 && (uint32_t)config->id_time != identity->id_time) {
        snprintf(error, error_bytes, "%s was formatted with --id-time %s", path,
                 identity->id_time ? "on" : "off");
        return -EINVAL;
    }
    return 0;
}

/** A log in memory has the same identity every time, so that a shell's output depends on its input
 * alone. */
static int memory_open(struct shell_ledger *ledger, const struct shell_ledger_config *config,
                       struct data_dir_settings *settings, char *error, size_t error_bytes) {
    *settings = (struct data_dir_settings){
        .identity = {.cell_id = "tally shell",
                     .partitions = config->partitions ? config->partitions : PARTITIONS_DEFAULT,
                     .id_time = config->id_time != 0,
                     .hash_seed = 0x9e3779b97f4a7c15u,
                     .digest_seed = 0xbf58476d1ce4e5b9u,
                     .file_bytes = LOG_FILE_BYTES},
        .groups_in_flight = DATA_DIR_GROUPS_IN_FLIGHT_DEFAULT,
    };
    int outcome = disk_memory_open(&ledger->memory_disk);
    if (!outcome)
        outcome = disk_memory_resize(ledger->memory_disk, 1, LOG_FILE_BYTES);
    if (outcome)
        snprintf(error, error_bytes, "no memory for the log");
    return outcome;
}

static int engine_start(struct shell_ledger *ledger, const struct shell_ledger_config *config,
                        const struct wal_identity *identity, char *error, size_t error_bytes) {
    struct engine_config engine_config = {
        .partitions = identity->partitions,
        .lcores = ledger->lcores,
        .hash_seed = identity->hash_seed,
        .digest_seed = identity->digest_seed,
        .id_time = identity->id_time,
        .memory_bytes = config->memory_bytes,
        .log_buffer_bytes = WAL_SEGMENT_BYTES_MAX,
        .digest_interval_ns = NS_PER_SECOND,
        .horizon_back_ms = HORIZON_BACK_MS,
        .horizon_slack_ms = HORIZON_MINIMUM_MS,
        .prefault = false,
        .board = ledger->board,
        .lanes = ledger->lanes,
    };
    return engine_open(&engine_config, &ledger->engine, error, error_bytes);
}

/** Replay the log, take the next term, and start the WAL behind it. */
static int log_start(struct shell_ledger *ledger, const struct data_dir_settings *settings,
                     size_t memory_bytes, char *error, size_t error_bytes) {
    struct disk *disk = ledger->memory_disk;
    struct wal_config config = {
        .identity = settings->identity,
        .term = 1,
        .board = ledger->board,
        .lanes = ledger->lanes,
        .lane_count = ledger->lcores,
        .groups_in_flight = settings->groups_in_flight,
        .file_bytes = settings->identity.file_bytes,
        .group_bytes_wanted = WAL_SEGMENT_BYTES_MAX / 4,
        .group_delay_ns = 0,
        .horizon_back_ms = HORIZON_BACK_MS,
        .horizon_minimum_ms = HORIZON_MINIMUM_MS,
        .digest_interval_ns = NS_PER_SECOND,
    };
    struct wal_position *position = &config.position;
    if (ledger->data_dir)
        disk = data_dir_disk(ledger->data_dir);
    config.disk = disk;
    const struct recovery_config recovery = {
        .disk = disk, .identity = &config.identity, .workers = 1};
    struct recovery_report report;
    int outcome = recovery_run(&recovery, ledger->engine, position, &report, error, error_bytes);
    if (outcome == -ENOMEM)
        snprintf(error, error_bytes, "what the log holds does not fit into %zu MiB; give --memory",
                 memory_bytes >> 20);
    if (outcome)
        return outcome;
    if (ledger->data_dir) {
        struct coordinator *coordinator = data_dir_coordinator(ledger->data_dir);
        outcome = coordinator->lead(coordinator, position->term, &config.term);
    }
    if (!outcome)
        outcome = engine_replay_finish(ledger->engine, position->seq, config.term,
                                       position->cell_time, position->horizon_ms);
    if (outcome) {
        snprintf(error, error_bytes, "the log cannot be taken over: %s", strerror(-outcome));
        wal_position_release(position);
        return outcome;
    }
    return wal_open(&config, &ledger->wal, error, error_bytes);
}

static void ledger_free(struct shell_ledger *ledger) {
    if (ledger->wal)
        wal_close(ledger->wal);
    if (ledger->engine)
        engine_close(ledger->engine);
    if (ledger->memory_disk)
        disk_memory_close(ledger->memory_disk);
    if (ledger->data_dir)
        data_dir_close(ledger->data_dir);
    free(ledger->board);
    free(ledger->lanes);
    free(ledger);
}

int shell_ledger_open(const struct shell_ledger_config *config, struct shell_ledger **ledger_out,
                      char *error, size_t error_bytes) {
    struct data_dir_settings settings = {0};
    struct shell_ledger *ledger = calloc(1, sizeof(*ledger));
    if (ledger) {
        ledger->board = aligned_alloc(CACHE_LINE_BYTES, sizeof(*ledger->board));
        ledger->lcores = config->lcores ? config->lcores : 1;
        ledger->lanes = aligned_alloc(CACHE_LINE_BYTES, sizeof(*ledger->lanes) * ledger->lcores);
    }
    if (!ledger || !ledger->board || !ledger->lanes) {
        snprintf(error, error_bytes, "no memory");
        if (ledger)
            ledger_free(ledger);
        return -ENOMEM;
    }
    memset(ledger->board, 0, sizeof(*ledger->board));
    memset(ledger->lanes, 0, sizeof(*ledger->lanes) * ledger->lcores);
    ledger->clock_ns = CLOCK_START_NS;
    ledger->error = "";
    int outcome = config->wal_directory
                      ? directory_open(ledger, config, &settings, error, error_bytes)
                      : memory_open(ledger, config, &settings, error, error_bytes);
    if (ledger->lcores > settings.identity.partitions && !outcome)
        ledger->lcores = settings.identity.partitions; /* one more would have nothing to do */
    if (!outcome)
        outcome = engine_start(ledger, config, &settings.identity, error, error_bytes);
    if (!outcome)
        outcome = log_start(ledger, &settings, config->memory_bytes, error, error_bytes);
    ledger->id_time = settings.identity.id_time;
    if (!outcome)
        outcome = shell_ledger_settle(ledger);
    if (outcome == -EIO && *ledger->error)
        snprintf(error, error_bytes, "%s", ledger->error);
    if (outcome) {
        ledger_free(ledger);
        return outcome;
    }
    *ledger_out = ledger;
    return 0;
}

/* --- turning
 * -------------------------------------------------------------------------------------- */

static uint64_t wal_now(struct shell_ledger *ledger) {
    struct timespec now;
    if (ledger->memory_disk)
        return ledger->wal_now_ns += 1000;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

/** One turn of the lcore and of the WAL. Takes what is completed, by which the lcore also learns
 *  which buffers are free.
 *  @param executed what engine_execute answered
 *  @return 0 or -EIO */
static int ledger_turn(struct shell_ledger *ledger, unsigned *executed) {
    unsigned done = 0;
    *executed = 0;
    for (unsigned i = 0; i < ledger->lcores; i++) {
        struct engine_lcore *lcore = engine_lcore(ledger->engine, i);
        engine_clock(lcore, ledger->clock_ns);
        *executed += engine_exchange(lcore);
        *executed += engine_execute(lcore, REQUEST_EVENTS_MAX);
        if (!ledger->finished)
            done += engine_completed(lcore, &ledger->finished, 1);
        done += engine_seal(lcore);
    }
    done += *executed;
    done += wal_step(ledger->wal, wal_now(ledger));
    if (atomic_load_explicit(&ledger->board->failed, memory_order_acquire)) {
        ledger->error = wal_error(ledger->wal);
        return -EIO;
    }
    ledger->empty_turns = done ? 0 : ledger->empty_turns + 1;
    if (ledger->memory_disk && ledger->empty_turns > EMPTY_TURNS_MAX) {
        ledger->error = "the engine does not go on";
        return -EIO;
    }
    if (!done && !ledger->memory_disk)
        sched_yield();
    return 0;
}

static bool nothing_in_flight(const struct shell_ledger *ledger) {
    seq_t open = atomic_load_explicit(&ledger->board->open_group, memory_order_acquire);
    seq_t committed = atomic_load_explicit(&ledger->board->commit_seq, memory_order_acquire);
    bool nothing = committed + 1 >= open;
    for (unsigned i = 0; i < ledger->lcores; i++)
        nothing &= atomic_load_explicit(&ledger->lanes[i].segment_bytes, memory_order_relaxed) == 0;
    return nothing;
}

/** Turn until nothing is due and everything is durable. An lcore whose buffers were all in flight
 *  sees one turn later that one is free, claims it in the next, and goes on in the third: hence
 *  QUIET_TURNS. */
static int ledger_quiet(struct shell_ledger *ledger) {
    for (unsigned quiet = 0; quiet < QUIET_TURNS;) {
        unsigned executed;
        int error = ledger_turn(ledger, &executed);
        if (error)
            return error;
        quiet = executed || !nothing_in_flight(ledger) ? 0 : quiet + 1;
    }
    return 0;
}

/** The horizon of a group is fixed when the group opens. When it has fallen behind cell time, ask
 * for the next group. */
static int horizon_follow(struct shell_ledger *ledger) {
    uint64_t cell_ms = engine_cell_time(engine_lcore(ledger->engine, 0)) / NS_PER_MS;
    seq_t open = atomic_load_explicit(&ledger->board->open_group, memory_order_acquire);
    uint64_t horizon_ms =
        atomic_load_explicit(&ledger->board->horizon_ms[open % WAL_HORIZONS], memory_order_relaxed);
    if (!ledger->id_time || cell_ms < HORIZON_BACK_MS || cell_ms - HORIZON_BACK_MS <= horizon_ms)
        return 0;
    atomic_store_explicit(&ledger->lanes->wanted_group, open, memory_order_release);
    while (atomic_load_explicit(&ledger->board->open_group, memory_order_acquire) == open) {
        unsigned executed;
        int error = ledger_turn(ledger, &executed);
        if (error)
            return error;
    }
    return ledger_quiet(ledger);
}

int shell_ledger_settle(struct shell_ledger *ledger) {
    int error = ledger_quiet(ledger);
    return error ? error : horizon_follow(ledger);
}

int shell_ledger_run(struct shell_ledger *ledger, struct engine_request *request) {
    unsigned executed;
    int error = shell_ledger_settle(ledger);
    if (error || request->event_count == 0)
        return error;
    engine_submit(engine_lcore(ledger->engine, ledger->next_lcore++ % ledger->lcores), request);
    while (!ledger->finished) {
        error = ledger_turn(ledger, &executed);
        if (error)
            return error;
    }
    ledger->finished = NULL;
    if (request->code != REQUEST_CODE_ok) {
        ledger->error = "the log could not be read back";
        return -EIO;
    }
    return ledger_quiet(ledger);
}

int shell_ledger_close(struct shell_ledger *ledger) {
    int error = 0;
    unsigned executed;
    if (ledger->data_dir) {
        error = ledger_quiet(ledger);
        while (!error && !wal_drained(ledger->wal, wal_now(ledger)))
            error = ledger_turn(ledger, &executed);
    }
    ledger_free(ledger);
    return error;
}

void shell_ledger_clock(struct shell_ledger *ledger, uint64_t now_ns) {
    if (now_ns > ledger->clock_ns)
        ledger->clock_ns = now_ns;
}

uint64_t shell_ledger_cell_time(const struct shell_ledger *ledger) {
    uint64_t newest = ledger->clock_ns;
    for (unsigned i = 0; i < ledger->lcores; i++) {
        uint64_t cell_time = engine_cell_time(engine_lcore(ledger->engine, i));
        newest = cell_time > newest ? cell_time : newest;
    }
    return newest;
}

int shell_ledger_put_balances(struct shell_ledger *ledger, uint128_t id,
                              const struct balances *balances) {
    return engine_put_balances(ledger->engine, id, balances);
}

const char *shell_ledger_error(const struct shell_ledger *ledger) {
    return ledger->error;
}
