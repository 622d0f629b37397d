/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/lcore.h"

#include "engine/base/check.h"
#include "engine/checkpoint.h"
#include "net/net.h"
#include "wal/wal.h"

#define EVENTS_PER_TURN                                                                            \
    1024 /**< a turn ends after about so many, so that replies and the log keep moving */
#define COMPLETED_PER_TURN 64

/** How long requests have been waiting for their turn: the time for which the queue has never been empty. */
static uint64_t queueing_delay(struct lcore *lcore, uint64_t now_ns) {
    if (!engine_backlog(lcore->engine)) {
        lcore->backlog_since = 0;
        return 0;
    }
    if (!lcore->backlog_since)
        lcore->backlog_since = now_ns;
    return now_ns - lcore->backlog_since;
}

unsigned lcore_step(struct lcore *lcore) {
    struct engine_request
        *requests[COMPLETED_PER_TURN > NET_BURST ? COMPLETED_PER_TURN : NET_BURST];
    struct engine_lcore *engine = lcore->engine;
    uint64_t now_ns = lcore->clock->monotonic_ns(lcore->clock);
    unsigned work = 0, packets = 0;
    if (unlikely(atomic_load_explicit(&lcore->board->failed, memory_order_relaxed)))
        return 0;

    /* rx, decode: packets in, requests out. What needs no engine is answered inside. */
    engine_clock(engine, cell_clock_now(&lcore->cell_clock, now_ns,
                                        lcore->clock->realtime_ns(lcore->clock)));
    if (likely(!lcore->draining)) {
        unsigned count = net_rx(lcore->net, now_ns, engine_cell_time(engine), requests, &packets);
        work += packets;

        /* exchange: a request is executed where it came in; what it needs elsewhere, travellers fetch. */
        for (unsigned i = 0; i < count; i++)
            engine_submit(engine, requests[i]);
        lcore->requests += count;
    }

    work += engine_exchange(engine);

    /* execute: gather, decide, install; outcomes go into the open group. */
    unsigned executed = engine_execute(engine, EVENTS_PER_TURN);
    lcore->events += executed;
    work += executed;
    net_note_delay(lcore->net, queueing_delay(lcore, now_ns));

    /* seal: when the WAL has opened the next group, hand this one's segment over. With the WAL on this lcore, let it open, take and
     * submit the group within this turn. */
    work += engine_seal(engine);
    if (lcore->wal) {
        work += wal_step(lcore->wal, now_ns);
        if (engine_seal(engine))
            work += wal_step(lcore->wal, now_ns);
    }

    /* release: whose group is durable may be answered. */
    unsigned completed = engine_completed(engine, requests, COMPLETED_PER_TURN);
    for (unsigned i = 0; i < completed; i++)
        net_reply(lcore->net, requests[i], now_ns);
    work += completed;

    /* tx */
    work += net_flush(lcore->net, now_ns);

    /* A slice of a checkpoint's walk, now that nobody waits for this turn any more. */
    work += engine_checkpoint(engine);
    lcore->turns++;
    lcore->empty_turns += work == 0;
    return work;
}

bool lcore_drained(struct lcore *lcore) {
    return engine_idle(lcore->engine) &&
           (!lcore->wal || wal_drained(lcore->wal, lcore->clock->monotonic_ns(lcore->clock)));
}
