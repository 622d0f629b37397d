/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/check.h"
#include "engine/base/planted.h"
#include "wal/wal_internal.h"

#define POLL_BURST 32
#define CLOSE_POLLS_MAX                                                                            \
    1000000u /**< wal_close waits for so many polls at most, then leaves the memory to the disk */

void wal_fail(struct wal *wal, int rc, const char *format, ...) {
    if (wal->failed != 0)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(wal->error, sizeof(wal->error), format, arguments);
    va_end(arguments);
    wal->failed = rc;
    /* release: pairs with the acquire of whoever looks before it acknowledges */
    atomic_store_explicit(&wal->config.board->failed, rc, memory_order_release);
}

const char *wal_error(const struct wal *wal) {
    return wal->error;
}

const struct wal_counters *wal_counters(const struct wal *wal) {
    return &wal->counters;
}

void wal_position_release(struct wal_position *position) {
    wal_index_free(position->index);
    position->index = NULL;
}

/* --- the turn ------------------------------------------------------------------------------------------------------ */

static void write_done(struct wal *wal, struct wal_slot *slot, uint64_t now_ns) {
    const struct disk_io *io = &slot->io;
    wal_count(&wal->counters.writes_in_flight, (uint64_t)-1);
    if (io->result != (int64_t)io->bytes && !PLANTED(failed_write_ignored)) {
        int rc = io->result < 0 ? (int)io->result : -EIO;
        wal_fail(wal, rc,
                 "%s: writing group %llu to bytes %llu..%llu: %s%s; the log is closed and nothing "
                 "is acknowledged",
                 wal->config.disk->name(wal->config.disk, io->file), (unsigned long long)slot->seq,
                 (unsigned long long)io->offset, (unsigned long long)(io->offset + io->bytes),
                 strerrordesc_np(-rc), io->result < 0 ? "" : " (short write)");
        return;
    }
    slot->state = WAL_SLOT_DURABLE;
    wal_count(&wal->counters.write_ns_total, now_ns - slot->submitted_ns);
}

static unsigned collect_completions(struct wal *wal, uint64_t now_ns) {
    if (wal->in_flight == 0)
        return 0;
    struct disk_io *done[POLL_BURST];
    int count = wal->config.disk->poll(wal->config.disk, done, POLL_BURST);
    if (count < 0) {
        wal_fail(wal, count, "the disk of the log is lost: %s", strerrordesc_np(-count));
        return 0;
    }
    for (int i = 0; i < count; i++) {
        wal->in_flight--;
        if (done[i] == &wal->create_io)
            wal_create_done(wal, now_ns);
        else if (done[i] == &wal->checkpoint.helper || disk_file_kind(done[i]->file) != DISK_LOG)
            wal_checkpoint_done(wal, done[i], now_ns);
        else if (done[i]->operation == DISK_WRITE)
            write_done(wal, done[i]->owner, now_ns);
        else
            wal_fetch_done(done[i]->owner);
    }
    return (unsigned)count;
}

/** Groups commit in order, whatever the order in which the disk finished them. */
static unsigned advance_commit(struct wal *wal, uint64_t now_ns) {
    unsigned done = 0;
    while (wal->commit_seq < wal->submitted_seq &&
           wal_slot_of(wal, wal->commit_seq + 1)->state == WAL_SLOT_DURABLE) {
        struct wal_slot *slot = wal_slot_of(wal, ++wal->commit_seq);
        if (slot->durable_seq > wal->proven_seq)
            wal->proven_seq = slot->durable_seq;
        if (!slot->closing) {
            wal->proof_wanted_seq = slot->seq;
            wal->quiet_known = false;
        }
        wal_count(&wal->counters.groups, 1);
        wal_count(&wal->counters.records, slot->records);
        wal_count(&wal->counters.bytes, slot->io.bytes);
        wal->committed_horizon_ms = slot->header->chained.horizon_ms;
        slot->state = WAL_SLOT_FREE;
        /* relaxed: ordered by the release of commit_seq below */
        atomic_store_explicit(&wal->config.board->commit_time, slot->header->chained.cell_time,
                              memory_order_relaxed);
        done++;
    }
    if (!wal->quiet_known) {
        wal->quiet_known = true;
        wal->quiet_since_ns = now_ns;
    }
    seq_t committed = wal->commit_seq;
    if (PLANTED(acknowledge_before_sync))
        committed = wal->submitted_seq;
    if (PLANTED(commit_out_of_order) && committed + 2 <= wal->submitted_seq &&
        wal_slot_of(wal, committed + 2)->state == WAL_SLOT_DURABLE)
        committed += 2;
    if (done != 0 || committed > wal->commit_seq)
        /* release: pairs with the lcores' acquire before they release replies and reuse buffers */
        atomic_store_explicit(&wal->config.board->commit_seq, committed, memory_order_release);
    return done;
}

uint64_t wal_newest_cell_time(const struct wal *wal) {
    uint64_t newest = wal->cell_time;
    for (unsigned lane = 0; lane < wal->config.lane_count; lane++) {
        uint64_t of_lane =
            atomic_load_explicit(&wal->config.lanes[lane].cell_time, memory_order_relaxed);
        if (of_lane > newest)
            newest = of_lane;
    }
    return newest;
}

static uint64_t horizon_after(const struct wal *wal, uint64_t previous_ms) {
    const struct wal_config *config = &wal->config;
    uint64_t now_ms = wal_newest_cell_time(wal) / NS_PER_MS;
    uint64_t wanted_ms = wal_retention_horizon_ms(wal);
    if (!config->identity.id_time)
        return 0;
    for (unsigned lane = 0; lane < config->lane_count; lane++) {
        uint64_t wish =
            atomic_load_explicit(&config->lanes[lane].horizon_wanted_ms, memory_order_relaxed);
        if (wish > wanted_ms)
            wanted_ms = wish;
    }
    uint64_t horizon_ms = now_ms > config->horizon_back_ms ? now_ms - config->horizon_back_ms : 0;
    uint64_t highest_ms =
        now_ms > config->horizon_minimum_ms ? now_ms - config->horizon_minimum_ms : 0;
    if (wanted_ms > horizon_ms)
        horizon_ms = wanted_ms;
    if (horizon_ms > highest_ms)
        horizon_ms = highest_ms;
    return horizon_ms > previous_ms || PLANTED(horizon_falls) ? horizon_ms : previous_ms;
}

/** Publish the next group; the lcores close the one before when they notice. */
static void open_next(struct wal *wal, uint64_t previous_horizon_ms, uint64_t now_ns) {
    struct wal_board *board = wal->config.board;
    wal_checkpoint_group_ends(wal, wal->open_seq, now_ns);
    wal_settle_group_ends(wal, now_ns);
    seq_t seq = ++wal->open_seq;
    uint64_t horizon_ms = horizon_after(wal, previous_horizon_ms);
    wal->horizon_ms[seq % WAL_HORIZONS] = horizon_ms;
    wal->open_noted = false;
    wal->raised_ns = now_ns;
    atomic_store_explicit(&board->horizon_ms[seq % WAL_HORIZONS], horizon_ms, memory_order_relaxed);
    /* release: pairs with the lcores' acquire; they then see the horizon */
    atomic_store_explicit(&board->open_group, seq, memory_order_release);
    if (!wal->alone && wal_settled(wal))
        wal_settle_end(wal);
}

/** Whether no write is in flight that anybody waits for: a closing group does not hold up what comes behind it. */
static bool nobody_waits(struct wal *wal) {
    for (seq_t seq = wal->commit_seq + 1; seq <= wal->sealed_seq; seq++)
        if (!wal_slot_of(wal, seq)->closing)
            return false;
    return true;
}

/** Design section 5, rule 2. */
static unsigned consider_opening(struct wal *wal, uint64_t now_ns) {
    const struct wal_config *config = &wal->config;
    uint64_t bytes = 0;
    bool wanted = wal_checkpoint_wants_group(wal);
    if (wal->sealed_seq + 1 != wal->open_seq ||
        wal->sealed_seq - wal->commit_seq >= config->groups_in_flight || wal->alone_granted)
        return 0; /* the one before is not handed over yet, no write slot is free, or an lcore has all tables to itself */
    wanted |= wal_settle_wants_group(wal, now_ns);
    for (unsigned lane = 0; lane < config->lane_count; lane++) {
        /* hints: what is missed now is seen in the next turn */
        bytes += atomic_load_explicit(&config->lanes[lane].segment_bytes, memory_order_relaxed);
        wanted |= atomic_load_explicit(&config->lanes[lane].wanted_group, memory_order_relaxed) ==
                      wal->open_seq &&
                  !PLANTED(wanted_group_forgotten);
    }
    bool closing = false;
    if (bytes != 0 || wanted) {
        if (!wal->open_noted) {
            wal->open_noted = true;
            wal->open_noted_ns = now_ns;
        }
        if (bytes < config->group_bytes_wanted &&
            now_ns - wal->open_noted_ns < config->group_delay_ns && !nobody_waits(wal))
            return 0;
    } else {
        closing = wal->commit_seq == wal->sealed_seq && wal->proof_wanted_seq > wal->proven_seq &&
                  (wal->draining || now_ns - wal->quiet_since_ns >= WAL_CLOSING_DELAY_NS);
        if (!closing)
            return 0;
    }
    wal->closing_raised = closing;
    open_next(wal, wal->horizon_ms[wal->open_seq % WAL_HORIZONS], now_ns);
    return 1;
}

unsigned wal_step(struct wal *wal, uint64_t now_ns) {
    if (wal->failed != 0)
        return 0;
    unsigned done = collect_completions(wal, now_ns);
    if (wal->failed != 0)
        return 0;
    done += advance_commit(wal, now_ns);
    done += wal_seal(wal, now_ns);
    done += wal_submit(wal, now_ns);
    done += wal_create_ahead(wal, now_ns);
    done += wal_checkpoint_step(wal, now_ns);
    done += wal_settle_step(wal);
    done += consider_opening(wal, now_ns);
    done += wal_fetch(wal);
    return wal->failed != 0 ? 0 : done;
}

bool wal_drained(struct wal *wal, uint64_t now_ns) {
    (void)now_ns;
    wal->draining = true;
    if (wal->failed != 0 || wal->sealed_seq + 1 != wal->open_seq ||
        wal->commit_seq != wal->sealed_seq || wal->proof_wanted_seq > wal->proven_seq ||
        !wal_checkpoint_quiet(wal))
        return false;
    for (unsigned lane = 0; lane < wal->config.lane_count; lane++)
        if (atomic_load_explicit(&wal->config.lanes[lane].segment_bytes, memory_order_relaxed) !=
                0 ||
            atomic_load_explicit(&wal->config.lanes[lane].wanted_group, memory_order_relaxed) ==
                wal->open_seq)
            return false;
    return true;
}

/* --- start and end ------------------------------------------------------------------------------------------------- */

static int allocate_buffers(struct wal *wal) {
    for (unsigned i = 0; i < WAL_GROUPS_IN_FLIGHT_MAX; i++) {
        wal->slots[i].header = aligned_alloc(WAL_PAGE_BYTES, WAL_PAGE_BYTES);
        if (wal->slots[i].header == NULL)
            return -ENOMEM;
    }
    for (unsigned i = 0; i < WAL_FETCH_SLOTS; i++) {
        wal->windows[i].buffer = aligned_alloc(WAL_PAGE_BYTES, WAL_FETCH_BUFFER_BYTES);
        if (wal->windows[i].buffer == NULL)
            return -ENOMEM;
    }
    return 0;
}

static void free_wal(struct wal *wal) {
    for (unsigned i = 0; i < WAL_GROUPS_IN_FLIGHT_MAX; i++)
        free(wal->slots[i].header);
    for (unsigned i = 0; i < WAL_FETCH_SLOTS; i++)
        free(wal->windows[i].buffer);
    wal_checkpoint_free(wal);
    wal_index_free(wal->index);
    free(wal);
}

static int check_config(const struct wal_config *config, char *error, size_t error_bytes) {
    const char *wrong = NULL;
    if (config->lane_count == 0 || config->lane_count > LCORES_MAX)
        wrong = "the number of lanes is not 1..64";
    else if (config->groups_in_flight == 0 || config->groups_in_flight > WAL_GROUPS_IN_FLIGHT_MAX)
        wrong = "the number of groups in flight is not 1..8";
    else if (config->file_bytes % WAL_PAGE_BYTES != 0 || config->file_bytes < 2 * WAL_PAGE_BYTES)
        wrong = "the size of a log file is not a multiple of 4096 bytes, or below 8192";
    else if (config->term < config->position.term || config->term == 0)
        wrong = "the term is older than the log's";
    else if (config->position.file_number == 0)
        wrong = "the position is not one that recovery gave";
    if (wrong == NULL)
        return 0;
    snprintf(error, error_bytes, "log: %s", wrong);
    return -EINVAL;
}

/** Find the highest file, all of one size, and make what is missing up to the one behind the first to be written. */
static int prepare_files(struct wal *wal, char *error, size_t error_bytes) {
    struct disk *disk = wal->config.disk;
    int64_t size;
    wal->files_ready = wal->file - 1;
    while ((size = disk->size(disk, wal->files_ready + 1)) >= 0) {
        wal->files_ready++;
        if ((uint64_t)size != wal->config.file_bytes) {
            snprintf(error, error_bytes, "%s has %lld bytes and should have %llu",
                     disk->name(disk, wal->files_ready), (long long)size,
                     (unsigned long long)wal->config.file_bytes);
            return -EINVAL;
        }
    }
    if (size != -ENOENT) {
        snprintf(error, error_bytes, "%s: %s", disk->name(disk, wal->files_ready + 1),
                 strerrordesc_np((int)-size));
        return (int)size;
    }
    while (wal->failed == 0 && wal->create_error == 0 && wal->files_ready < wal->file + 1) {
        struct disk_io *done;
        wal_create_ahead(wal, 0);
        int count = wal->in_flight != 0 ? disk->poll(disk, &done, 1) : 0;
        if (count < 0) {
            wal_fail(wal, count, "the disk of the log is lost: %s", strerrordesc_np(-count));
        } else if (count > 0) {
            wal->in_flight--;
            wal_create_done(wal, 0);
        } else {
            sched_yield();
        }
    }
    if (wal->create_error != 0)
        wal_fail(wal, wal->create_error, "%s: making the log file of %llu bytes: %s",
                 disk->name(disk, wal->create_io.file), (unsigned long long)wal->config.file_bytes,
                 strerrordesc_np(-wal->create_error));
    if (wal->failed != 0)
        snprintf(error, error_bytes, "%s", wal->error);
    return wal->failed;
}

int wal_open(const struct wal_config *config, struct wal **out, char *error, size_t error_bytes) {
    int rc = check_config(config, error, error_bytes);
    if (rc != 0) {
        wal_index_free(config->position.index);
        return rc;
    }
    struct wal *wal = aligned_alloc(CACHE_LINE_BYTES, (sizeof(*wal) + CACHE_LINE_BYTES - 1) &
                                                          ~(size_t)(CACHE_LINE_BYTES - 1));
    if (wal == NULL) {
        snprintf(error, error_bytes, "log: no memory for %zu bytes", sizeof(*wal));
        wal_index_free(config->position.index);
        return -ENOMEM;
    }
    memset(wal, 0, sizeof(*wal));
    const struct wal_position *position = &config->position;
    wal->config = *config;
    wal->index = position->index;
    wal->config.position.index = NULL;
    wal->open_seq = wal->sealed_seq = wal->submitted_seq = wal->commit_seq = position->seq;
    wal->proof_wanted_seq = position->seq;
    wal->proven_seq = position->durable_seq;
    wal->cell_time = PLANTED(cell_time_falls_at_start) ? 0 : position->cell_time;
    wal->committed_horizon_ms = position->horizon_ms;
    if (!PLANTED(chain_broken_at_start))
        memcpy(wal->last_digest, position->digest, WAL_DIGEST_BYTES);
    wal->file = position->file_number;
    wal->file_offset = position->file_offset;
    if (wal->index == NULL && (wal->index = wal_index_new()) != NULL && position->seq != 0)
        /* nobody says where groups lie: fetches walk from the start */
        rc = wal_index_note(wal->index, 1, 1, 0, position->cell_time);
    if (wal->index == NULL || rc != 0 || allocate_buffers(wal) != 0) {
        snprintf(error, error_bytes, "log: no memory for its buffers");
        rc = -ENOMEM;
    }
    if (rc == 0)
        rc = wal_checkpoint_open(wal, error, error_bytes);
    if (rc == 0)
        rc = prepare_files(wal, error, error_bytes);
    if (rc != 0) {
        wal_close(wal);
        return rc;
    }
    wal_retention_count(wal);
    atomic_store_explicit(&config->board->commit_seq, wal->commit_seq, memory_order_release);
    open_next(wal, position->horizon_ms, 0);
    *out = wal;
    return 0;
}

void wal_close(struct wal *wal) {
    if (wal == NULL)
        return;
    struct disk *disk = wal->config.disk;
    for (unsigned polls = 0; wal->in_flight != 0 && polls < CLOSE_POLLS_MAX; polls++) {
        struct disk_io *done[POLL_BURST];
        int count = disk->poll(disk, done, POLL_BURST);
        if (count < 0)
            break;
        wal->in_flight -= (unsigned)count;
        if (count == 0)
            sched_yield();
    }
    /* What a lost disk still has, it may still write from: a freed page would put a stranger's bytes into the log. */
    if (wal->in_flight == 0)
        free_wal(wal);
}
