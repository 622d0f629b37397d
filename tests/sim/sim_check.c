/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_check.h"

#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "engine/engine_internal.h"
#include "net/net_state.h"

#define PAGE 4096u
#define SECTOR 512u

/* --- after each turn -------------------------------------------------------------------------------------------------- */

/** Of a page, after wal/FORMAT.md. */
static uint64_t field(const uint8_t *page, unsigned offset) {
    uint64_t value;
    memcpy(&value, page + offset, sizeof(value));
    return value;
}

static void check_bound(struct sim_node *node, const char *what, uint64_t is, uint64_t most) {
    if (is > most)
        sim_violation(node->sim, "INV-9: %s: %" PRIu64 ", at most %" PRIu64, what, is, most);
}

static uint32_t ring(_Atomic uint32_t *head, _Atomic uint32_t *tail) {
    return atomic_load_explicit(head, memory_order_relaxed) -
           atomic_load_explicit(tail, memory_order_relaxed);
}

static void check_bounds(struct sim_node *node, unsigned number) {
    const struct sim_engine *engine = &node->engines[number];
    const struct session_table *table = &engine->net->table;
    const struct engine_lcore *lcore = engine->lcore->engine;
    struct wal_lane *lane = &node->lanes[number];
    check_bound(node, "requests in the engine", lcore->outstanding,
                engine->net->config.request_max);
    check_bound(node, "packets to be sent", engine->net->tx_count, NET_TX_QUEUE);
    check_bound(node, "credit beyond the sessions' shares", table->rest_used, table->rest_max);
    check_bound(node, "datagrams of long replies", table->charge_used, table->charge_max);
    check_bound(node, "sessions", table->open_count, table->session_max);
    check_bound(node, "segments handed over", ring(&lane->handover_head, &lane->handover_tail),
                WAL_BUFFERS);
    check_bound(node, "fetches asked for", ring(&lane->fetch_head, &lane->fetch_tail),
                WAL_FETCHES_MAX);
    check_bound(node, "fetches answered", ring(&lane->answer_head, &lane->answer_tail),
                WAL_FETCHES_MAX);
    check_bound(node, "chunks handed over", ring(&lane->chunk_head, &lane->chunk_tail),
                WAL_CHUNKS_MAX);
    check_bound(node, "chunks given back", ring(&lane->spent_head, &lane->spent_tail),
                WAL_CHUNKS_MAX);
    check_bound(node, "bytes in the open segment", lcore->segment_bytes, lcore->buffer_bytes);
}

void sim_check_turn(struct sim_node *node) {
    seq_t commit_seq = atomic_load_explicit(&node->board->commit_seq, memory_order_relaxed);
    if (commit_seq < node->commit_seq)
        sim_violation(node->sim, "commit_seq falls from %" PRIu64 " to %" PRIu64, node->commit_seq,
                      commit_seq);
    node->commit_seq = commit_seq;
    if (commit_seq > node->durable_seq)
        sim_violation(node->sim,
                      "INV-5: group %" PRIu64
                      " counts as committed, the disk has promised all up to %" PRIu64,
                      commit_seq, node->durable_seq);
    for (unsigned i = 0; i < node->lcore_count; i++)
        check_bounds(node, i);
    const char *violation = oracle_violation(node->oracle);
    if (violation)
        sim_violation(node->sim, "%s", violation);
}

void sim_check_operation(struct sim_node *node, const struct disk_io *io) {
    const enum disk_file_kind kind = disk_file_kind(io->file);
    if (io->operation == DISK_PUBLISH && kind == DISK_CHECKPOINT_MANIFEST &&
        disk_file_number(io->file) > node->durable_seq)
        sim_violation(node->sim,
                      "checkpoint %" PRIu64 " is published, and only group %" PRIu64 " is durable",
                      disk_file_number(io->file), node->durable_seq);
    if (io->operation != DISK_REMOVE || kind != DISK_LOG || node->disk.harm != 0)
        return;
    uint64_t file, bytes;
    for (unsigned n = 0; (file = sim_disk_file(&node->disk, DISK_CHECKPOINT_MANIFEST, n)) != 0;
         n++) {
        const uint8_t *manifest = sim_disk_bytes(&node->disk, file, &bytes);
        if (bytes == PAGE && field(manifest, 64) <= disk_file_number(io->file))
            sim_violation(node->sim,
                          "log file %" PRIu64 " is removed, and checkpoint %" PRIu64
                          " needs all from file %" PRIu64 " on",
                          disk_file_number(io->file), disk_file_number(file), field(manifest, 64));
    }
}

void sim_check_stopped(struct sim_node *node) {
    for (unsigned i = 0; i < node->lcore_count; i++) {
        const struct engine_lcore *lcore = node->engines[i].lcore->engine;
        const struct net *net = node->engines[i].net;
        if (lcore->outstanding || lcore->segment_bytes || net->tx_count)
            sim_violation(node->sim,
                          "the node stopped with %u requests, %u bytes and %u packets left",
                          lcore->outstanding, lcore->segment_bytes, net->tx_count);
    }
    if (node->commit_seq != node->written_seq)
        sim_violation(node->sim,
                      "the node stopped with group %" PRIu64 " written and %" PRIu64 " committed",
                      node->written_seq, node->commit_seq);
}

/* --- after each start: the log ---------------------------------------------------------------------------------------- */

static bool digest_right(const uint8_t *bytes, size_t length) {
    XXH128_canonical_t digest;
    XXH128_canonicalFromHash(&digest, XXH3_128bits(bytes, length));
    return memcmp(bytes + length, &digest, 16) == 0;
}

/** A header page of ours, whole in both of its parts; offsets as in wal/FORMAT.md. */
static bool is_header(const struct sim_node *node, const uint8_t *page) {
    return memcmp(page, "TALLYGRP", 8) == 0 && memcmp(page + 16, node->identity.cell_id, 16) == 0 &&
           digest_right(page, 3568) && digest_right(page + 3584, 496);
}

static bool is_zero(const uint8_t *bytes, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

static bool has_zero_sector(const uint8_t *bytes, uint64_t length) {
    for (uint64_t at = 0; at < length; at += SECTOR)
        if (is_zero(bytes + at, SECTOR))
            return true;
    return false;
}

/** Whether a page behind the place where the log ended proves more groups. */
static bool more_is_proven(const struct sim_node *node, const uint8_t *page) {
    const seq_t missing = node->position.seq + 1;
    if (!is_header(node, page) || field(page, 32) < node->position.term)
        return false;
    if (field(page, 40) == missing)
        return memcmp(page + 48, node->position.digest, 16) == 0;
    return field(page, 40) > missing && field(page, 3608) >= missing;
}

/** Whether what stands where the next group should cannot be the rest of a write: every sector of it was written, or it is another
 *  group. @param left bytes of the file from there on */
static bool stands_whole(const struct sim_node *node, const uint8_t *place, uint64_t left) {
    if (!is_header(node, place))
        return !has_zero_sector(place, PAGE);
    uint64_t group = PAGE + field(place, 64);
    return !more_is_proven(node, place) || field(place, 40) != node->position.seq + 1 ||
           group > left || !has_zero_sector(place, group);
}

/** Look at every page from the log's end on, as it was found. */
static bool loss_is_proven(const struct sim_node *node, const struct sim_image *image) {
    unsigned i = 0;
    uint64_t at = node->position.file_offset;
    while (i < image->count && disk_file_number(image->files[i]) < node->position.file_number)
        i++;
    /* the group that is missing stands in the next file, unless what begins there is a later one */
    if (i + 1 < image->count && at <= image->sizes[i] &&
        is_zero(image->bytes[i] + at, image->sizes[i] - at) &&
        !is_zero(image->bytes[i + 1], PAGE) &&
        !(is_header(node, image->bytes[i + 1]) &&
          field(image->bytes[i + 1], 40) > node->position.seq + 1)) {
        i++;
        at = 0;
    }
    if (i < image->count && at + PAGE <= image->sizes[i] && !is_zero(image->bytes[i] + at, PAGE) &&
        stands_whole(node, image->bytes[i] + at, image->sizes[i] - at))
        return true;
    for (at += PAGE; i < image->count; i++, at = 0)
        for (; at + PAGE <= image->sizes[i]; at += PAGE)
            if (more_is_proven(node, image->bytes[i] + at))
                return true;
    return false;
}

static void check_cut(struct sim_node *node) {
    uint64_t at = node->position.file_offset, bytes;
    uint64_t file = node->position.file_number;
    const uint8_t *found = sim_disk_bytes(&node->disk, disk_file(DISK_LOG, file), &bytes);
    for (; found; found = sim_disk_bytes(&node->disk, disk_file(DISK_LOG, ++file), &bytes), at = 0)
        if (at < bytes && !is_zero(found + at, bytes - at))
            sim_violation(node->sim,
                          "something stands behind the end of the recovered log, in file %" PRIu64
                          " behind byte %" PRIu64,
                          file, at);
}

bool sim_check_recovered(struct sim_node *node, const struct sim_image *image) {
    const seq_t found = node->position.seq;
    check_cut(node);
    if (found >= node->durable_seq)
        return false;
    if (node->disk.harm == 0)
        sim_violation(node->sim,
                      "INV-3: group %" PRIu64
                      " was promised by a disk that never lied, and the log "
                      "ends with group %" PRIu64,
                      node->durable_seq, found);
    else if (loss_is_proven(node, image))
        sim_violation(node->sim,
                      "the log was taken although its own pages prove that more than group "
                      "%" PRIu64 " was durable",
                      found);
    return true;
}

void sim_image_take(struct sim_image *image, const struct sim_disk *disk) {
    *image = (struct sim_image){0};
    while (sim_disk_file(disk, DISK_LOG, image->count) != 0)
        image->count++;
    image->files = calloc(image->count + 1, sizeof(image->files[0]));
    image->sizes = calloc(image->count + 1, sizeof(image->sizes[0]));
    image->bytes = calloc(image->count + 1, sizeof(image->bytes[0]));
    if (!image->files || !image->sizes || !image->bytes)
        abort();
    for (unsigned i = 0; i < image->count; i++) {
        image->files[i] = sim_disk_file(disk, DISK_LOG, i);
        const uint8_t *bytes = sim_disk_bytes(disk, image->files[i], &image->sizes[i]);
        image->bytes[i] = malloc(image->sizes[i] + 1);
        if (!image->bytes[i])
            abort();
        memcpy(image->bytes[i], bytes, image->sizes[i]);
    }
}

void sim_image_release(struct sim_image *image) {
    for (unsigned i = 0; i < image->count; i++)
        free(image->bytes[i]);
    free(image->files);
    free(image->sizes);
    free(image->bytes);
    *image = (struct sim_image){0};
}

void sim_check_show_log(struct sim_node *node, bool may_lose) {
    const struct recovery_report *report = &node->recovered;
    oracle_log_begin(node->oracle, report->checkpoint_seq, may_lose);
    uint64_t file, bytes;
    for (unsigned n = 0; (file = sim_disk_file(&node->disk, DISK_LOG, n)) != 0; n++) {
        if (file < report->log_file)
            continue;
        const uint8_t *found = sim_disk_bytes(&node->disk, file, &bytes);
        uint64_t from = file == report->log_file ? report->log_offset : 0;
        oracle_log_file(node->oracle, found + from, bytes - from);
    }
    oracle_log_end(node->oracle);
    const char *violation = oracle_violation(node->oracle);
    if (violation)
        sim_violation(node->sim, "%s", violation);
}

/* --- the state ---------------------------------------------------------------------------------------------------------- */

static void check_account(struct sim_node *node, const struct account *held) {
    struct account known, shown = *held;
    shown.reserved = 0; /* the engine's own mark */
    shown.flags &= 0x7fff;
    if (!oracle_account(node->oracle, held->id, &known))
        sim_violation(node->sim, "the node has an account that the log never created: %" PRIx64,
                      (uint64_t)held->id);
    else if (memcmp(&known, &shown, sizeof(known)) != 0)
        sim_violation(node->sim,
                      "account %" PRIx64 " is not what the log makes of it: debits %" PRIu64
                      "/%" PRIu64 ", credits %" PRIu64 "/%" PRIu64 ", should be %" PRIu64
                      "/%" PRIu64 ", %" PRIu64 "/%" PRIu64 " (pending/posted), flags %x/%x",
                      (uint64_t)held->id, (uint64_t)shown.debits_pending,
                      (uint64_t)shown.debits_posted, (uint64_t)shown.credits_pending,
                      (uint64_t)shown.credits_posted, (uint64_t)known.debits_pending,
                      (uint64_t)known.debits_posted, (uint64_t)known.credits_pending,
                      (uint64_t)known.credits_posted, shown.flags, known.flags);
}

void sim_check_state(struct sim_node *node) {
    struct engine_totals totals;
    struct oracle_counts counts;
    oracle_counts(node->oracle, &counts);
    engine_totals(node->engine, &totals);
    if (totals.accounts != counts.accounts)
        sim_violation(node->sim, "the node has %" PRIu64 " accounts, the log makes %" PRIu64,
                      totals.accounts, counts.accounts);
    for (unsigned p = 0; p < node->identity.partitions && !node->sim->failed; p++) {
        const struct account_table *table = &node->engine->partitions[p].accounts;
        for (uint32_t slot = 0; slot < table->slab.count; slot++)
            check_account(node, account_at(table, slot));
        /* several engine lcores do not keep the running digest yet */
        if (node->lcore_count == 1 && engine_partition_digest(node->engine, p) !=
                                          engine_partition_digest_recompute(node->engine, p))
            sim_violation(node->sim, "partition %u: the running digest is not that of its tables",
                          p);
    }
}
