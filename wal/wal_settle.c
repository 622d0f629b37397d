/* SPDX-License-Identifier: Apache-2.0 */
#include "wal/wal_internal.h"

/* With several engine lcores some of what is decided is still on its way home to other lcores' tables. Where the tables of all lcores have
 * to show exactly what the log up to one group says (state digests, checkpoints), or where one lcore needs all of them to itself (imported
 * events), the lcores are asked to let nothing new travel until everything is home. What needs no travelling goes on meanwhile. */

bool wal_settled(const struct wal *wal) {
    const struct wal_config *config = &wal->config;
    if (config->lane_count == 1)
        return true;
    if (!wal->settle_ticket)
        return false;
    for (unsigned lane = 0; lane < config->lane_count; lane++) {
        /* acquire: pairs with the lcore's release; its tables are as they will stay */
        if (atomic_load_explicit(&config->lanes[lane].settled, memory_order_acquire) !=
            wal->settle_ticket)
            return false;
    }
    return true;
}

static void settle_begin(struct wal *wal) {
    if (wal->settle_ticket)
        return;
    wal->settle_ticket = ++wal->settle_tickets;
    /* release: pairs with the lcores' acquire; they see who is alone, if somebody is to be */
    atomic_store_explicit(&wal->config.board->settle, wal->settle_ticket, memory_order_release);
}

void wal_settle_end(struct wal *wal) {
    if (!wal->settle_ticket)
        return;
    wal->settle_ticket = 0;
    /* release: pairs with the lcores' acquire; what was done meanwhile, and the group that was opened, come before it */
    atomic_store_explicit(&wal->config.board->settle, 0, memory_order_release);
}

static bool digests_due(const struct wal *wal, uint64_t now_ns) {
    return wal->config.digest_interval_ns &&
           now_ns - wal->digests_at_ns >= wal->config.digest_interval_ns &&
           wal->records_sealed != wal->digests_records;
}

bool wal_settle_wants_group(struct wal *wal, uint64_t now_ns) {
    if (wal->config.lane_count == 1 || wal->alone)
        return false;
    if (!wal_checkpoint_due(wal) && !digests_due(wal, now_ns))
        return false;
    settle_begin(wal);
    return wal_settled(wal);
}

void wal_settle_group_ends(struct wal *wal, uint64_t now_ns) {
    if (wal->config.lane_count == 1 || !wal_settled(wal))
        return;
    wal->digests_at_ns = now_ns;
    wal->digests_seq = wal->open_seq;
    /* relaxed: covered by the release of open_group */
    atomic_store_explicit(&wal->config.board->digest_seq, wal->open_seq, memory_order_relaxed);
}

/** An lcore that wants everything to itself gets it when all have settled in the same group; until it is done no other group opens. */
unsigned wal_settle_step(struct wal *wal) {
    struct wal_board *board = wal->config.board;
    if (wal->config.lane_count == 1)
        return 0;
    if (wal->alone) {
        const struct wal_lane *lane = &wal->config.lanes[wal->alone - 1];
        /* acquire: pairs with the lcore's release, after which it touches what is others' no more */
        if (atomic_load_explicit(&lane->alone_wanted, memory_order_acquire)) {
            if (!wal->alone_granted && wal_settled(wal) && wal->sealed_seq + 1 == wal->open_seq) {
                wal->alone_granted = true;
                /* release: pairs with the lcore's acquire */
                atomic_store_explicit(&board->alone_granted, wal->settle_ticket,
                                      memory_order_release);
                return 1;
            }
            return 0;
        }
        wal->alone = 0;
        wal->alone_granted = false;
        atomic_store_explicit(&board->alone, 0, memory_order_relaxed);
        wal_settle_end(wal);
        return 1;
    }
    if (wal->settle_ticket || wal_checkpoint_walking(wal))
        return 0; /* what one lcore changes in another's tables is saved by nobody */
    for (unsigned i = 0; i < wal->config.lane_count; i++) {
        unsigned lane = (wal->alone_last + i) % wal->config.lane_count;
        if (!atomic_load_explicit(&wal->config.lanes[lane].alone_wanted, memory_order_relaxed))
            continue;
        wal->alone = lane + 1;
        wal->alone_last = lane + 1;
        atomic_store_explicit(&board->alone, lane + 1, memory_order_relaxed);
        settle_begin(wal);
        return 1;
    }
    return 0;
}
