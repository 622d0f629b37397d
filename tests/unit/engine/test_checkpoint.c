/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/test.h"
#include "tests/unit/engine/checkpoint_fixture.h"

/** Random histories with a checkpoint begun at a random group and walked a few records at a time, between requests that change everything.
 *  What is restored must be what the engine held at the end of that group, to the byte; with the groups behind it, what it holds now; and
 *  from there both must go on alike. */

static struct node_batch batches[NODE_BATCHES], mirrored[NODE_BATCHES];

/** Time goes on: mostly a little, now and then so far that holds expire and slices of ids are forgotten. */
static uint64_t time_step(uint64_t *random) {
    switch (test_random(random) % 24) {
    case 0:
        return (1 + test_random(random) % 25) * NS_PER_SECOND;
    case 1:
    case 2:
        return test_random(random) % (3 * NS_PER_SECOND);
    default:
        return NS_PER_MS + test_random(random) % (20 * NS_PER_MS);
    }
}

/** Some requests, and the end of their group, in which all come back. */
static bool live_a_while(struct node *node, struct history *history, bool checkpoint) {
    unsigned count = (unsigned)(test_random(&history->random) % (NODE_BATCHES + 1));
    for (unsigned i = 0; i < count; i++) {
        node->now_ns += time_step(&history->random);
        history_next(history, node->now_ns, &batches[i]);
        if (!node_run(node, &batches[i].request))
            return false;
    }
    node_seal(node, checkpoint);
    return node->unfinished == 0;
}

/** The same requests at the same times, in both. @return NULL, or what differs */
static const char *live_alike(struct node *a, struct node *b, struct history *history) {
    unsigned count = (unsigned)(test_random(&history->random) % (NODE_BATCHES + 1));
    for (unsigned i = 0; i < count; i++) {
        a->now_ns = b->now_ns = a->now_ns + time_step(&history->random);
        history_next(history, a->now_ns, &batches[i]);
        mirrored[i] = batches[i];
        mirrored[i].request.results = mirrored[i].results;
        mirrored[i].request.balances = mirrored[i].balances;
        if (!node_run(a, &batches[i].request) || !node_run(b, &mirrored[i].request))
            return "a request that cannot be executed";
    }
    node_seal(a, false);
    node_seal(b, false);
    for (unsigned i = 0; i < count; i++) {
        if (batches[i].request.code != mirrored[i].request.code ||
            memcmp(batches[i].results, mirrored[i].results, sizeof(batches[i].results)) != 0)
            return "results";
        if (memcmp(batches[i].balances, mirrored[i].balances, sizeof(batches[i].balances)) != 0)
            return "balances";
    }
    return NULL;
}

/** Restore from the node's checkpoint up to `until`. */
static int restored(struct node *to, const struct node *from, const struct snapshot *at,
                    const struct node_group *group, seq_t until, unsigned workers) {
    struct checkpoint_manifest manifest;
    char error[256];
    struct node_config config = from->config;
    node_open(to, &config);
    node_manifest(from, group, at->digest, &manifest);
    int rc = node_restore(to, from, &manifest, workers, until, error, sizeof(error));
    if (rc)
        printf("restoring: %s\n", error);
    return rc;
}

static const char *compare(const struct node *node, const struct snapshot *want, bool places) {
    struct snapshot got;
    snapshot_take(node, &got);
    const char *what = snapshot_differs(&got, want, places);
    snapshot_release(&got);
    return what;
}

struct tally {
    unsigned checkpoints, lost_slices, changed;
    unsigned pendings, resolved, closed, burnt, ids;
};

static void count_state(const struct snapshot *state, struct tally *tally) {
    tally->ids += state->id_count;
    for (unsigned i = 0; i < state->pending_count; i++) {
        tally->pendings++;
        tally->resolved += state->pendings[i].state != PENDING_LIVE;
    }
    for (unsigned i = 0; i < state->account_count; i++)
        tally->closed += !!(state->accounts[i].flags & ACCOUNT_CLOSED);
    for (unsigned i = 0; i < state->id_count; i++)
        tally->burnt += !!(state->ids[i].place & WAL_PLACE_BURNT);
}

/** One checkpoint in the life of a node: walked while it lives on, restored at once and with the groups behind it. */
static const char *checkpoint_once(struct node *node, struct history *history,
                                   struct tally *tally) {
    struct snapshot at, now;
    struct node other;
    uint64_t *random = &history->random;
    unsigned workers = 1 + (unsigned)(test_random(random) % 3);
    unsigned slice = 1 + (unsigned)(test_random(random) % (test_random(random) % 2 ? 4 : 60));
    unsigned haste = 1 + (unsigned)(test_random(random) % 30);
    /* At once there goes by: little, a slice of ids, all of them (and the next ones stand where the old ones did). */
    static const uint64_t leaps_ms[] = {1500, 1500, 34000, ID_SLICES * ID_SLICE_MS};
    uint64_t leap_ms = leaps_ms[test_random(random) % 4];
    unsigned leap = (unsigned)(test_random(random) % 60);
    snapshot_take(node, &at);
    count_state(&at, tally);
    node_seal(node, true);
    const struct node_group group = node->groups[node->group_count - 1];
    for (unsigned turn = 0; !node->complete; turn++) {
        if (turn > 100000 ||
            (test_random(random) % haste == 0 && !live_a_while(node, history, false)))
            return "the walk does not end";
        node->now_ns += turn == leap ? leap_ms * NS_PER_MS : 0;
        checkpoint_walk(node->lcore,
                        turn < 3000 ? slice : 5000); /* or ids may come faster than it walks */
        node_chunks(node, (unsigned)(test_random(random) % 4));
    }
    node_seal(node, false);
    snapshot_take(node, &now);
    const struct checkpoint_lcore *lcore =
        (const void *)node->chunks[node->chunk_count - 1].payload;
    tally->checkpoints++;
    tally->lost_slices += lcore->ids_from_ms > group.horizon_ms;
    tally->changed += now.digest != at.digest;

    const char *what = "what cannot be restored";
    if (!restored(&other, node, &at, &group, group.seq, workers))
        what = compare(&other, &at, true);
    node_close(&other);
    int rc = restored(&other, node, &at, &group, UINT64_MAX, workers);
    if (!what && rc)
        what = "what cannot be restored behind it";
    if (!what)
        what = compare(&other, &now, true);
    if (!what) {
        other.now_ns = node->now_ns;
        node_begin(&other, node->groups[node->group_count - 1].seq,
                   node->groups[node->group_count - 1].cell_time, node->lcore->horizon_ms);
        for (unsigned i = 0; i < 8 && !what; i++)
            what = live_alike(node, &other, history);
    }
    if (!what) {
        snapshot_release(&now);
        snapshot_take(node, &now);
        what = compare(&other, &now, false);
    }
    node_close(&other);
    snapshot_release(&at);
    snapshot_release(&now);
    node_chunks_forget(node);
    return what;
}

static void random_histories(unsigned partitions, bool id_time, uint64_t seed_default) {
    static struct node node;
    uint64_t seed = test_seed(seed_default);
    struct tally tally = {0};
    for (unsigned round = 0; round < 12; round++) {
        struct history history = {.random = seed + round, .accounts_max = 40 + 60 * (round % 4)};
        const struct node_config config = {.partitions = partitions,
                                           .checkpoint_chunks = 32,
                                           .memory_bytes = (size_t)(partitions > 100 ? 512 : 48)
                                                           << 20,
                                           .id_time = id_time,
                                           .horizon_back_ms = 20000};
        node_open(&node, &config);
        node_begin(&node, 0, NODE_START_NS, id_time ? NODE_START_NS / NS_PER_MS - 20000 : 0);
        const char *what = NULL;
        for (unsigned i = 0; i < 6 && !what; i++) {
            for (unsigned groups = (unsigned)(test_random(&history.random) % 25); groups; groups--)
                CHECK(live_a_while(&node, &history, false));
            what = checkpoint_once(&node, &history, &tally);
        }
        if (what)
            printf("round %u (seed %" PRIu64 "): %s differ\n", round, seed, what);
        CHECK(!what);
        node_close(&node);
    }
    printf("%u checkpoints, %u during which the state changed, %u during which ids were forgotten; "
           "%u pending transfers, %u resolved; %u accounts closed; %u ids, %u burnt\n",
           tally.checkpoints, tally.changed, tally.lost_slices, tally.pendings, tally.resolved,
           tally.closed, tally.ids, tally.burnt);
    CHECK(tally.resolved && tally.pendings > tally.resolved && tally.closed && tally.burnt);
    CHECK(tally.changed > tally.checkpoints / 2);
    CHECK(!id_time || tally.lost_slices);
}

static void test_histories_in_one_partition(void) {
    random_histories(1, true, 1);
}

static void test_histories_in_a_few_partitions(void) {
    random_histories(7, true, 2);
}

static void test_histories_in_many_partitions(void) {
    random_histories(256, true, 3);
}

static void test_histories_without_id_time(void) {
    random_histories(5, false, 4);
}

int main(void) {
    TEST_RUN(test_histories_in_one_partition);
    TEST_RUN(test_histories_in_a_few_partitions);
    TEST_RUN(test_histories_in_many_partitions);
    TEST_RUN(test_histories_without_id_time);
    return TEST_DONE();
}
