/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/restore_internal.h"

/** What the log says of a whole ledger concerns every worker, and none waits for another: each adds its part when it comes to the end of
 *  the group, and whoever is last compares. All come to the same totals in the same order, so a total has a number; those that somebody
 *  has not passed yet stand in a ring. Rare: a few hundred a second of what was lived. */

struct restore_totals {
    pthread_mutex_t lock;
    struct restore_total *ring;
    uint64_t capacity; /**< a power of two */
    uint64_t first;    /**< number of the oldest that somebody has not passed */
    uint64_t end;      /**< number of the next new one */
};

int restore_totals_open(struct restore *restore) {
    restore->totals = calloc(1, sizeof(*restore->totals));
    if (!restore->totals)
        return -ENOMEM;
    pthread_mutex_init(&restore->totals->lock, NULL);
    return 0;
}

void restore_totals_close(struct restore *restore) {
    if (!restore->totals)
        return;
    pthread_mutex_destroy(&restore->totals->lock);
    free(restore->totals->ring);
    free(restore->totals);
}

static struct restore_total *total_at(const struct restore_totals *totals, uint64_t number) {
    return &totals->ring[number & (totals->capacity - 1)];
}

static int ring_grow(struct restore_totals *totals) {
    struct restore_totals grown = *totals;
    grown.capacity = totals->capacity ? totals->capacity * 2 : 256;
    grown.ring = aligned_alloc(CACHE_LINE_BYTES, grown.capacity * sizeof(*grown.ring));
    if (!grown.ring)
        return -ENOMEM;
    for (uint64_t number = totals->first; number < totals->end; number++)
        *total_at(&grown, number) = *total_at(totals, number);
    free(totals->ring);
    totals->ring = grown.ring;
    totals->capacity = grown.capacity;
    return 0;
}

static int total_differs(struct restore_worker *worker, const struct restore_total *total) {
    worker->group = total->group;
    if (total->ledger)
        return restore_fail(worker, -EBADMSG,
                            "group %llu says other totals of ledger %u than what was restored",
                            (unsigned long long)total->group.seq, total->ledger);
    return restore_fail(worker, -EBADMSG,
                        "group %llu says another state digest of all partitions than what was "
                        "restored",
                        (unsigned long long)total->group.seq);
}

int restore_totals_add(struct restore_worker *worker, const struct restore_total *part) {
    struct restore_totals *totals = worker->restore->totals;
    struct restore_total complete = {0};
    int rc = 0;
    pthread_mutex_lock(&totals->lock);
    uint64_t number = worker->totals_seen;
    if (number == totals->end) {
        if (totals->end - totals->first == totals->capacity)
            rc = ring_grow(totals);
        if (!rc) {
            *total_at(totals, totals->end) = *part;
            total_at(totals, totals->end++)->passed = 0;
        }
    } else {
        struct restore_total *total = total_at(totals, number);
        total->sums.debits_pending += part->sums.debits_pending;
        total->sums.debits_posted += part->sums.debits_posted;
        total->sums.credits_pending += part->sums.credits_pending;
        total->sums.credits_posted += part->sums.credits_posted;
    }
    if (!rc) {
        worker->totals_seen++;
        if (++total_at(totals, number)->passed == worker->restore->workers)
            complete = *total_at(totals, number);
        while (totals->first < totals->end &&
               total_at(totals, totals->first)->passed == worker->restore->workers)
            totals->first++;
    }
    pthread_mutex_unlock(&totals->lock);
    if (rc)
        return restore_fail(worker, rc, "%s", restore_full);
    if (complete.passed && memcmp(&complete.expected, &complete.sums, sizeof(complete.sums)) != 0)
        return total_differs(worker, &complete);
    return 0;
}
