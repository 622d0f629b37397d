/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "engine/checkpoint.h"
#include "wal/checkpoint_check.h"
#include "tests/lib/test.h"
#include "tests/unit/engine/recovery_fixture.h"

/** Recovery as a whole, from a data directory in memory with two checkpoints: which one it takes, what it does when one is damaged or both are,
 *  when parts of the log are missing, and where it stops when it is told to. */

struct saved {
    struct snapshot state; /**< at the end of the group */
    struct node_group group;
    struct checkpoint_chunk *chunks;
    unsigned chunk_count, chunk_capacity;
};

static struct node_batch batches[NODE_BATCHES];
static struct node node;
static struct history history;
static struct cell cell;
static struct saved older, newer;
static struct snapshot now;

static void live(unsigned groups) {
    for (; groups; groups--) {
        unsigned count = (unsigned)(test_random(&history.random) % (NODE_BATCHES + 1));
        for (unsigned i = 0; i < count; i++) {
            node.now_ns += NS_PER_MS + test_random(&history.random) % (200 * NS_PER_MS);
            history_next(&history, node.now_ns, &batches[i]);
            if (!node_run(&node, &batches[i].request))
                abort();
        }
        node_seal(&node, false);
    }
}

static void checkpoint_take(struct saved *saved) {
    node_seal(&node, false);
    snapshot_take(&node, &saved->state);
    node_seal(&node, true);
    saved->group = node.groups[node.group_count - 1];
    while (!node.complete) {
        live(1);
        engine_checkpoint(node.lcore);
        node_chunks(&node, 2);
    }
    node_seal(&node, false);
    saved->chunks = malloc(node.chunk_count * sizeof(*saved->chunks));
    saved->chunk_count = node.chunk_count;
    memcpy(saved->chunks, node.chunks, node.chunk_count * sizeof(*saved->chunks));
    node_chunks_forget(&node);
}

static void publish(const struct saved *saved) {
    struct node view = node;
    view.chunks = saved->chunks;
    view.chunk_count = saved->chunk_count;
    cell_publish(&cell, &view, &saved->group, saved->state.digest);
}

static void make(uint64_t seed) {
    const struct node_config config = {.partitions = 6,
                                       .checkpoint_chunks = 32,
                                       .memory_bytes = (size_t)48 << 20,
                                       .id_time = true,
                                       .horizon_back_ms = 20000};
    history = (struct history){.random = seed, .accounts_max = 150};
    node_open(&node, &config);
    node_begin(&node, 0, NODE_START_NS, NODE_START_NS / NS_PER_MS - 20000);
    live(60);
    checkpoint_take(&older);
    live(60);
    checkpoint_take(&newer);
    live(40);
    snapshot_take(&node, &now);
    cell_open(&cell, &node);
    publish(&older);
    publish(&newer);
}

static void drop(void) {
    cell_close(&cell);
    snapshot_release(&older.state);
    snapshot_release(&newer.state);
    snapshot_release(&now);
    free(older.chunks);
    free(newer.chunks);
    node_close(&node);
}

/** Recover and compare. @return NULL, or what is wrong */
static const char *recovers(const struct snapshot *want, seq_t checkpoint,
                            struct recovery_config config) {
    struct node to;
    struct snapshot got;
    int rc = cell_recover(&cell, &to, &node.config, config);
    if (rc) {
        printf("%d: %s\n", rc, cell.error);
        node_close(&to);
        return "it is refused";
    }
    snapshot_take(&to, &got);
    const char *what = snapshot_differs(&got, want, true);
    if (!what && cell.report.checkpoint_seq != checkpoint)
        what = "another checkpoint was taken";
    snapshot_release(&got);
    node_close(&to);
    return what;
}

static int refused(void) {
    struct node to;
    int rc = cell_recover(&cell, &to, &node.config, (struct recovery_config){.workers = 2});
    node_close(&to);
    return rc;
}

#define RECOVERS(want, checkpoint, ...)                                                            \
    do {                                                                                           \
        const char *what = recovers(want, checkpoint, (struct recovery_config){__VA_ARGS__});      \
        if (what)                                                                                  \
            printf("%s\n", what);                                                                  \
        CHECK(!what);                                                                              \
    } while (0)

static void test_newest_is_taken(void) {
    make(test_seed(71));
    for (unsigned workers = 1; workers <= 7; workers += 2) {
        RECOVERS(&now, newer.group.seq, .workers = workers);
        RECOVERS(&now, newer.group.seq, .workers = workers, .threads = true);
        RECOVERS(&now, newer.group.seq, .workers = workers, .read_only = true);
    }
    CHECK_EQ(cell.position.seq, cell.last_seq);
    CHECK_EQ(cell.position.checkpoints[0].seq, older.group.seq);
    CHECK_EQ(cell.position.checkpoints[0].log_file, cell.places[older.group.seq].file);
    CHECK_EQ(cell.position.checkpoints[1].seq, newer.group.seq);
    CHECK_EQ(cell.report.log_groups, cell.last_seq - newer.group.seq);
    drop();
}

/* --- damage ------------------------------------------------------------------------------------------------------------------ */

static uint8_t *bytes_of(uint64_t file, uint64_t *size) {
    uint64_t ignored;
    return disk_memory_bytes(cell.disk, file, size ? size : &ignored);
}

static struct checkpoint_manifest *manifest_of(seq_t seq) {
    return (void *)bytes_of(cell_manifest_file(seq), NULL);
}

static struct checkpoint_chunk *chunks_of(seq_t seq) {
    return (void *)bytes_of(cell_data_file(seq), NULL);
}

static void manifest_flipped(seq_t seq) {
    manifest_of(seq)->fill[9] ^= 1;
}
static void manifest_zero(seq_t seq) {
    memset(manifest_of(seq), 0, WAL_PAGE_BYTES);
}
static void manifest_cut(seq_t seq) {
    disk_memory_resize(cell.disk, cell_manifest_file(seq), 512);
}
static void manifest_of_other_partitions(seq_t seq) {
    manifest_of(seq)->partitions++;
    checkpoint_manifest_seal(manifest_of(seq));
}
static void manifest_of_other_files(seq_t seq) {
    manifest_of(seq)->log_file_bytes *= 2;
    checkpoint_manifest_seal(manifest_of(seq));
}
static void manifest_of_other_chunks(seq_t seq) {
    manifest_of(seq)->data_digest[3] ^= 1;
    checkpoint_manifest_seal(manifest_of(seq));
}
static void manifest_counts_more(seq_t seq) {
    manifest_of(seq)->accounts++;
    checkpoint_manifest_seal(manifest_of(seq));
}
static void data_missing(seq_t seq) {
    disk_memory_remove(cell.disk, cell_data_file(seq));
}
static void data_cut(seq_t seq) {
    uint64_t size;
    bytes_of(cell_data_file(seq), &size);
    disk_memory_resize(cell.disk, cell_data_file(seq), size - WAL_PAGE_BYTES);
}
static void data_longer(seq_t seq) {
    uint64_t size;
    bytes_of(cell_data_file(seq), &size);
    disk_memory_resize(cell.disk, cell_data_file(seq), size + CHECKPOINT_CHUNK_BYTES);
}
static void first_chunk_flipped(seq_t seq) {
    chunks_of(seq)[0].payload[100] ^= 4;
}
static void last_chunk_flipped(seq_t seq) {
    chunks_of(seq)[manifest_of(seq)->chunk_count - 1].header.records ^= 2;
}
static void chunk_zero(seq_t seq) {
    memset(&chunks_of(seq)[1], 0, CHECKPOINT_CHUNK_BYTES);
}
static void chunk_doubled(seq_t seq) {
    chunks_of(seq)[1] = chunks_of(seq)[0];
}
static void chunk_of_the_other(seq_t seq) {
    seq_t other = seq == older.group.seq ? newer.group.seq : older.group.seq;
    chunks_of(seq)[0] = chunks_of(other)[0];
}
static void account_richer(seq_t seq) {
    struct checkpoint_chunk *chunk = chunks_of(seq);
    while (chunk->header.kind != CHECKPOINT_ACCOUNTS)
        chunk++;
    ((struct account *)chunk->payload)->credits_posted++;
    cell_reseal(&cell, seq);
}

static const struct {
    const char *name;
    void (*make)(seq_t seq);
} damages[] = {
#define CASE(name)                                                                                 \
    { #name, name }
    CASE(manifest_flipped),
    CASE(manifest_zero),
    CASE(manifest_cut),
    CASE(manifest_of_other_partitions),
    CASE(manifest_of_other_files),
    CASE(manifest_of_other_chunks),
    CASE(manifest_counts_more),
    CASE(data_missing),
    CASE(data_cut),
    CASE(data_longer),
    CASE(first_chunk_flipped),
    CASE(last_chunk_flipped),
    CASE(chunk_zero),
    CASE(chunk_doubled),
    CASE(chunk_of_the_other),
    CASE(account_richer),
#undef CASE
};
#define DAMAGES (sizeof(damages) / sizeof(damages[0]))

/** The error or the warning names the file. */
static bool names(const char *text, seq_t seq) {
    char manifest[256], data[256];
    snprintf(manifest, sizeof(manifest), "%s", cell.disk->name(cell.disk, cell_manifest_file(seq)));
    snprintf(data, sizeof(data), "%s", cell.disk->name(cell.disk, cell_data_file(seq)));
    return strstr(text, manifest) || strstr(text, data);
}

static void test_damaged_newest(void) {
    make(test_seed(72));
    for (unsigned i = 0; i < DAMAGES; i++) {
        damages[i].make(newer.group.seq);
        const char *what =
            recovers(&now, older.group.seq,
                     (struct recovery_config){.workers = 1 + i % 3, .threads = i % 2 == 0});
        if (what || cell.warning_count != 1 || !names(cell.warnings, newer.group.seq))
            printf("%s: %s; %s", damages[i].name, what ? what : "warnings", cell.warnings);
        CHECK(!what);
        CHECK(cell.warning_count == 1 && names(cell.warnings, newer.group.seq));
        publish(&newer);
    }
    RECOVERS(&now, newer.group.seq, .workers = 2);
    CHECK_EQ(cell.warning_count, 0);
    drop();
}

static void test_both_damaged(void) {
    make(test_seed(73));
    for (unsigned i = 0; i < DAMAGES; i++) {
        damages[i].make(newer.group.seq);
        damages[(i * 7 + 3) % DAMAGES].make(older.group.seq);
        int rc = refused();
        if (rc != -EBADMSG)
            printf("%s: %d: %s\n", damages[i].name, rc, cell.error);
        CHECK_EQ(rc, -EBADMSG);
        CHECK(names(cell.error, newer.group.seq) && names(cell.error, older.group.seq));
        CHECK(strstr(cell.error, "first group") != NULL); /* what its operator can do at once */
        publish(&older);
        publish(&newer);
    }
    RECOVERS(&now, newer.group.seq, .workers = 2);
    drop();
}

static void test_foreign_and_newer(void) {
    make(test_seed(74));
    manifest_of(newer.group.seq)->cell_id[0] ^= 1;
    checkpoint_manifest_seal(manifest_of(newer.group.seq));
    CHECK_EQ(refused(), -EPERM);
    CHECK(strstr(cell.error, "out of the directory") != NULL);
    publish(&newer);
    manifest_of(newer.group.seq)->version++;
    checkpoint_manifest_seal(manifest_of(newer.group.seq));
    CHECK_EQ(refused(), -ENOTSUP);
    CHECK(names(cell.error, newer.group.seq));
    drop();
}

static void test_reads_that_fail(void) {
    make(test_seed(75));
    for (unsigned n = 1; n <= 3; n++) {
        disk_memory_faults(cell.disk)->fail_read_at = n;
        int rc = refused();
        CHECK(rc == 0 || rc == -EIO);
        CHECK(rc != 0 || cell.warning_count || cell.report.checkpoint_seq == newer.group.seq);
        disk_memory_faults(cell.disk)->fail_read_at = 0;
    }
    RECOVERS(&now, newer.group.seq, .workers = 2);
    drop();
}

/* --- what is missing --------------------------------------------------------------------------------------------------------- */

static void remove_log(uint64_t first, uint64_t last) {
    for (; first <= last; first++)
        disk_memory_remove(cell.disk, first);
}

/** First group in a file. */
static seq_t first_of(uint64_t file) {
    seq_t seq = 1;
    while (cell.places[seq].file < file)
        seq++;
    return seq;
}

static bool error_has(const char *format, uint64_t a, uint64_t b) {
    char text[128];
    snprintf(text, sizeof(text), format, (unsigned long long)a, (unsigned long long)b);
    if (!strstr(cell.error, text))
        printf("\"%s\" is not in: %s\n", text, cell.error);
    return strstr(cell.error, text);
}

static bool ends_file(const struct saved *saved) {
    return cell.places[saved->group.seq + 1].file != cell.places[saved->group.seq].file;
}

static void test_log_that_begins_late(void) {
    uint64_t seed = test_seed(76);
    /* A checkpoint's group that ends its file needs only the next one. */
    for (make(seed); ends_file(&older) || ends_file(&newer); make(++seed))
        drop();
    uint64_t file_older = cell.places[older.group.seq].file;
    uint64_t file_newer = cell.places[newer.group.seq].file;
    CHECK(file_older > 1 && file_newer > file_older && cell.last_file > file_newer + 1);
    remove_log(1, file_older - 1);
    RECOVERS(&now, newer.group.seq, .workers = 2);
    data_missing(newer.group.seq);
    RECOVERS(&now, older.group.seq, .workers = 2);

    remove_log(1, file_older); /* the older one is no good any more */
    CHECK_EQ(refused(), -ENODATA);
    CHECK(error_has("groups %llu..%llu are missing", older.group.seq + 1,
                    first_of(file_older + 1) - 1));
    publish(&newer);
    RECOVERS(&now, newer.group.seq, .workers = 2);

    remove_log(1, file_newer);
    CHECK_EQ(refused(), -ENODATA);
    CHECK(error_has("groups %llu..%llu are missing", newer.group.seq + 1,
                    first_of(file_newer + 1) - 1));

    disk_memory_remove(cell.disk, cell_manifest_file(older.group.seq));
    disk_memory_remove(cell.disk, cell_manifest_file(newer.group.seq));
    CHECK_EQ(refused(), -ENODATA);
    CHECK(error_has("the log begins at group %llu (file %llu)", first_of(file_newer + 1),
                    file_newer + 1));
    CHECK(error_has("groups %llu..%llu are missing", 1, first_of(file_newer + 1) - 1));
    remove_log(1, cell.last_file);
    publish(&newer);
    CHECK_EQ(refused(), -ENODATA);
    drop();
}

static void test_file_missing_in_the_middle(void) {
    make(test_seed(77));
    uint64_t file = cell.places[newer.group.seq].file + 1;
    CHECK(file < cell.last_file);
    disk_memory_remove(cell.disk, file);
    CHECK_EQ(refused(), -ENODATA);
    CHECK(strstr(cell.error, cell.disk->name(cell.disk, file)));
    drop();
}

/** What was durable when the checkpoint was published is gone: cut off at the group behind it. */
/** Nothing is replayed from files before the checkpoint's, but remembered transfers stand in them. */
static void test_earlier_file_missing(void) {
    make(test_seed(82));
    const uint64_t last = cell.places[newer.group.seq].file;
    CHECK(last > 2);
    remove_log(2, 2);
    RECOVERS(&now, newer.group.seq, .workers = 2);
    CHECK_EQ(cell.warning_count, 1);
    CHECK(strstr(cell.warnings, cell.disk->name(cell.disk, 2)) != NULL);
    /* the oldest ones may go */
    remove_log(1, 1);
    RECOVERS(&now, newer.group.seq, .workers = 2);
    CHECK_EQ(cell.warning_count, 0);
    drop();
}

static void test_log_that_ends_early(void) {
    make(test_seed(78));
    const struct cell_place *place = &cell.places[newer.group.seq];
    uint8_t *bytes = bytes_of(place->file, NULL);
    memset(bytes + place->offset, 0, CELL_FILE_BYTES - place->offset);
    for (uint64_t file = place->file + 1; file <= cell.last_file; file++)
        memset(bytes_of(file, NULL), 0, CELL_FILE_BYTES);
    CHECK_EQ(refused(), -ENODATA);
    CHECK(error_has("the log ends at group %llu", newer.group.seq, 0));
    drop();
}

static void test_torn_tail(void) {
    make(test_seed(79));
    const struct cell_place *place = &cell.places[cell.last_seq];
    uint8_t *behind = bytes_of(place->file, NULL) + place->offset;
    CHECK(place->offset + WAL_PAGE_BYTES <= CELL_FILE_BYTES);
    memset(behind, 0x33, 700);
    RECOVERS(&now, newer.group.seq, .read_only = true);
    CHECK_EQ(cell.report.torn_bytes, WAL_PAGE_BYTES);
    CHECK_EQ(behind[0], 0x33);
    RECOVERS(&now, newer.group.seq, .workers = 2);
    CHECK_EQ(cell.report.torn_bytes, WAL_PAGE_BYTES);
    CHECK_EQ(behind[0], 0);
    RECOVERS(&now, newer.group.seq, .workers = 2);
    CHECK_EQ(cell.report.torn_bytes, 0);
    drop();
}

/* --- back in time ------------------------------------------------------------------------------------------------------------ */

static void test_until(void) {
    make(test_seed(80));
    struct node to;
    RECOVERS(&older.state, older.group.seq, .until_seq = older.group.seq, .read_only = true);
    RECOVERS(&newer.state, newer.group.seq, .until_seq = newer.group.seq, .read_only = true);
    RECOVERS(&newer.state, newer.group.seq, .until_ns = newer.group.cell_time, .read_only = true);
    /* between the two, from the older one; before both, from the log's beginning */
    const struct recovery_config between = {.until_seq = newer.group.seq - 1, .read_only = true};
    CHECK_EQ(cell_recover(&cell, &to, &node.config, between), 0);
    CHECK_EQ(cell.report.checkpoint_seq, older.group.seq);
    CHECK_EQ(cell.position.seq, newer.group.seq - 1);
    node_close(&to);
    const struct recovery_config before = {.until_seq = 7, .read_only = true, .workers = 3};
    CHECK_EQ(cell_recover(&cell, &to, &node.config, before), 0);
    CHECK_EQ(cell.report.checkpoint_seq, 0);
    CHECK_EQ(cell.position.seq, 7);
    node_close(&to);
    /* nobody asks whether checkpoints are good that are of later */
    manifest_of(newer.group.seq)->accounts ^= 1;
    manifest_of(older.group.seq)->accounts ^= 1;
    CHECK_EQ(cell_recover(&cell, &to, &node.config, before), 0);
    CHECK_EQ(cell.position.seq, 7);
    CHECK_EQ(cell.warning_count, 0);
    node_close(&to);
    publish(&older);
    publish(&newer);
    remove_log(1, cell.places[older.group.seq].file - 1);
    CHECK_EQ(cell_recover(&cell, &to, &node.config, before), -ENODATA);
    CHECK(error_has("the oldest checkpoint is of group %llu", older.group.seq, 0));
    node_close(&to);
    drop();
}

static void test_other_partitions(void) {
    static const unsigned numbers[] = {1, 4, 13};
    make(test_seed(81));
    for (unsigned i = 0; i < 3; i++) {
        struct node_config config = node.config;
        struct node to;
        struct engine_totals totals, want;
        config.partitions = numbers[i];
        CHECK_EQ(cell_recover(&cell, &to, &config,
                              (struct recovery_config){.workers = 3, .threads = true}),
                 0);
        uint128_t digest = 0;
        for (unsigned p = 0; p < numbers[i]; p++)
            digest += engine_partition_digest(to.engine, p);
        engine_totals(to.engine, &totals);
        engine_totals(node.engine, &want);
        CHECK(digest == now.digest);
        CHECK_EQ(totals.accounts, want.accounts);
        CHECK_EQ(totals.pendings, want.pendings);
        node_close(&to);
    }
    drop();
}

/** Lcores are another number than wrote it: what each holds adds up to the same. */
static void test_several_lcores(void) {
    make(test_seed(83));
    for (unsigned lcores = 2; lcores <= 3; lcores++) {
        struct engine_config config = node.engine->config;
        struct engine *engine;
        struct wal_lane *lanes = aligned_alloc(CACHE_LINE_BYTES, lcores * sizeof(*lanes));
        memset(lanes, 0, lcores * sizeof(*lanes));
        config.lcores = lcores;
        config.lanes = lanes;
        config.memory_bytes *= lcores;
        CHECK_EQ(engine_open(&config, &engine, cell.error, sizeof(cell.error)), 0);
        const struct recovery_config recovery = {
            .disk = cell.disk, .identity = &cell.identity, .workers = 4, .threads = true};
        int rc = recovery_run(&recovery, engine, &cell.position, &cell.report, cell.error,
                              sizeof(cell.error));
        wal_position_release(&cell.position);
        if (rc)
            printf("%s\n", cell.error);
        CHECK_EQ(rc, 0);
        for (unsigned p = 0; p < config.partitions; p++)
            CHECK(engine_partition_digest(engine, p) == now.digests[p]);
        for (uint32_t slot = 0; slot < node.lcore->ledgers.slab.count; slot++) {
            const struct ledger_total *want = ledger_at(&node.lcore->ledgers, slot);
            uint128_t posted = 0, pending = 0;
            for (unsigned i = 0; i < lcores; i++) {
                struct ledger_total *part = ledger_find(&engine->lcores[i].ledgers, want->ledger);
                posted += part ? part->sums.debits_posted : 0;
                pending += part ? part->sums.credits_pending : 0;
            }
            CHECK(posted == want->sums.debits_posted && pending == want->sums.credits_pending);
        }
        uint64_t timestamps = 0;
        for (unsigned i = 0; i < lcores; i++)
            timestamps += engine->lcores[i].account_timestamps.count;
        CHECK_EQ(timestamps, now.account_count);
        engine_close(engine);
        free(lanes);
    }
    drop();
}

static void progress(void *context, const struct recovery_progress *at) {
    struct cell *told = context;
    if (at->done_bytes > at->total_bytes || !at->phase[0])
        abort();
    told->warning_count += 100;
}

static void test_progress_is_told(void) {
    struct node to;
    make(test_seed(82));
    const struct recovery_config config = {.progress = progress};
    CHECK_EQ(cell_recover(&cell, &to, &node.config, config), 0);
    CHECK(cell.warning_count % 100 == 0);
    node_close(&to);
    drop();
}

int main(void) {
    TEST_RUN(test_newest_is_taken);
    TEST_RUN(test_damaged_newest);
    TEST_RUN(test_both_damaged);
    TEST_RUN(test_foreign_and_newer);
    TEST_RUN(test_reads_that_fail);
    TEST_RUN(test_log_that_begins_late);
    TEST_RUN(test_file_missing_in_the_middle);
    TEST_RUN(test_earlier_file_missing);
    TEST_RUN(test_log_that_ends_early);
    TEST_RUN(test_torn_tail);
    TEST_RUN(test_until);
    TEST_RUN(test_other_partitions);
    TEST_RUN(test_several_lcores);
    TEST_RUN(test_progress_is_told);
    return TEST_DONE();
}
