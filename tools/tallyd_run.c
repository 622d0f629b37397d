/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/tallyd_run.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_lcore.h>
#include <rte_log.h>

#include "tools/tallyd_eal.h"
#include "tools/tallyd_node.h"
#include "wal/checkpoint_format.h"

#define HORIZON_BACK_MS 3600000u
#define HORIZON_MINIMUM_MS 60000u
#define HORIZON_SLACK_MS 1000u
#define DRAIN_MAX_NS (10 * NS_PER_SECOND)
#define LAST_REPLIES_NS (20 * NS_PER_MS)
#define LOG_FILES_MIN 4
#define MTU_ETHERNET 1500
#define MBUFS_SPARE 4096 /**< packets in rings and on their way, beside stored replies */

/* --- clock and random, as production has them ---------------------------------------------------------------------------- */

static uint64_t clock_monotonic(struct clock *clock) {
    (void)clock;
    return clock_read(CLOCK_MONOTONIC);
}

static uint64_t clock_realtime(struct clock *clock) {
    (void)clock;
    return clock_read(CLOCK_REALTIME);
}

static void random_fill(struct random *random, void *bytes, size_t length) {
    (void)random;
    uint8_t *next = bytes;
    while (length > 0) {
        ssize_t got = getrandom(next, length > 256 ? 256 : length, 0);
        if (got <= 0)
            continue;
        next += got;
        length -= (size_t)got;
    }
}

/* --- opening, in the order in which things depend on each other --------------------------------------------------------------- */

/** The log is never less than the file that is written to, the two that are made ahead of it, and the one before it. */
static int log_budget_check(const struct node *node) {
    uint64_t file_mb = data_dir_settings(node->dir)->identity.file_bytes >> 20;
    if (!node->options->log_max_mb || node->options->log_max_mb >= LOG_FILES_MIN * file_mb)
        return 0;
    fprintf(stderr,
            "tallyd: --log-max-mb is \"%" PRIu64 "\"; with log files of %" PRIu64
            " MiB give %" PRIu64 " or more\n",
            node->options->log_max_mb, file_mb, LOG_FILES_MIN * file_mb);
    return TALLYD_EXIT_USAGE;
}

static int directory_open(struct node *node) {
    char error[512];
    int problem =
        data_dir_open(node->options->data, DATA_DIR_LOCK, &node->dir, error, sizeof(error));
    if (!problem)
        return log_budget_check(node);
    fprintf(stderr, "tallyd: %s\n", error);
    return problem == -EBADMSG ? TALLYD_EXIT_DAMAGED : TALLYD_EXIT_DIRECTORY;
}

static int engine_start(struct node *node) {
    const struct data_dir_settings *settings = data_dir_settings(node->dir);
    node->board = aligned_alloc(CACHE_LINE_BYTES, sizeof(struct wal_board));
    node->lane = aligned_alloc(CACHE_LINE_BYTES, sizeof(struct wal_lane));
    if (!node->board || !node->lane) {
        fprintf(stderr, "tallyd: out of memory\n");
        return TALLYD_EXIT_FAILURE;
    }
    memset(node->board, 0, sizeof(*node->board));
    memset(node->lane, 0, sizeof(*node->lane));
    struct engine_config config = {
        .partitions = settings->identity.partitions,
        .lcores = 1,
        .hash_seed = settings->identity.hash_seed,
        .digest_seed = settings->identity.digest_seed,
        .id_time = settings->identity.id_time,
        .memory_bytes = node->options->memory_mb << 20,
        .log_buffer_bytes = WAL_SEGMENT_BYTES_MAX,
        .digest_interval_ns = NS_PER_SECOND,
        .horizon_back_ms = HORIZON_BACK_MS,
        .horizon_slack_ms = HORIZON_SLACK_MS,
        .prefault = true,
        .checkpoint_chunks =
            (unsigned)((node->options->checkpoint_memory_mb << 20) / CHECKPOINT_CHUNK_BYTES),
        .board = node->board,
        .lanes = node->lane,
    };
    char error[256];
    fprintf(stderr, "tallyd: preparing %" PRIu64 " MiB of memory\n", node->options->memory_mb);
    if (engine_open(&config, &node->engine, error, sizeof(error))) {
        fprintf(stderr, "tallyd: %s\n", error);
        return TALLYD_EXIT_FAILURE;
    }
    return 0;
}

static int clock_start(struct node *node) {
    uint64_t log_ns = node->position.cell_time, now = clock_read(CLOCK_REALTIME);
    if (cell_clock_start(&node->lcore->cell_clock, clock_read(CLOCK_MONOTONIC), now, log_ns,
                         node->options->accept_clock))
        return 0;
    fprintf(stderr,
            "tallyd: the time of day is %" PRIu64
            " minutes ahead of the log; if the node really was down that long, start with "
            "--accept-clock, else set the clock right\n",
            (now - log_ns) / (60 * NS_PER_SECOND));
    return TALLYD_EXIT_FAILURE;
}

/** Recover, lead, and open the log behind what was recovered. */
static int log_start(struct node *node) {
    const struct data_dir_settings *settings = data_dir_settings(node->dir);
    char error[512];
    int problem = tallyd_recover(node);
    if (problem)
        return problem;
    problem = clock_start(node);
    if (problem)
        return problem;
    struct coordinator *coordinator = data_dir_coordinator(node->dir);
    problem = coordinator->lead(coordinator, node->position.term, &node->term);
    if (problem) {
        fprintf(stderr, "tallyd: cannot lead: %s\n", strerror(-problem));
        return TALLYD_EXIT_DIRECTORY;
    }
    struct wal_config config = {
        .disk = data_dir_disk(node->dir),
        .identity = settings->identity,
        .term = node->term,
        .position = node->position,
        .board = node->board,
        .lanes = node->lane,
        .lane_count = 1,
        .groups_in_flight = settings->groups_in_flight,
        .file_bytes = settings->identity.file_bytes,
        .group_bytes_wanted = (uint32_t)node->options->group_kb << 10,
        .group_delay_ns = node->options->group_delay_us * 1000,
        .horizon_back_ms = HORIZON_BACK_MS,
        .horizon_minimum_ms = HORIZON_MINIMUM_MS,
    };
    if (node->options->checkpoint_memory_mb) {
        config.checkpoint_log_bytes = node->options->checkpoint_mb << 20;
        config.checkpoint_interval_ns = node->options->checkpoint_s * NS_PER_SECOND;
        config.log_bytes_max = node->options->log_max_mb << 20;
    }
    if (wal_open(&config, &node->wal, error, sizeof(error))) {
        fprintf(stderr, "tallyd: %s\n", error);
        return TALLYD_EXIT_FAILURE;
    }
    return -engine_replay_finish(node->engine, node->position.seq, node->term,
                                 node->position.cell_time, node->position.horizon_ms);
}

static int port_start(struct node *node) {
    const struct tallyd_options *options = node->options;
    char error[512];
    static const uint8_t none[16];
    struct port_dpdk_config config = {
        .name = options->port ? options->port : "0",
        .mtu = MTU_ETHERNET,
        .software_checksums = options->software_checksums,
        .packets = (unsigned)(options->sessions * options->window * 2 + MBUFS_SPARE),
        .ipv6 = memcmp(options->ipv6, none, 16) ? options->ipv6 : NULL,
    };
    int problem = port_dpdk_open(&node->port, &config, error, sizeof(error));
    if (problem) {
        fprintf(stderr, "tallyd: %s\n", error);
        return problem == -ENODEV ? TALLYD_EXIT_USAGE : TALLYD_EXIT_FAILURE;
    }
    node->port_open = true;
    return 0;
}

static int net_start(struct node *node) {
    const struct tallyd_options *options = node->options;
    const struct data_dir_settings *settings = data_dir_settings(node->dir);
    static const uint8_t placement[PARTITIONS_MAX]; /* all on lcore 0 */
    node->clock = (struct clock){clock_monotonic, clock_realtime};
    node->random = (struct random){random_fill};
    struct net_config config = {
        .port = &node->port.port,
        .random = &node->random,
        .pool = node->port.pool,
        .udp_port = (uint16_t)options->udp_port,
        .payload_max = node->port.payload_max,
        .tx_checksum_ipv4 = node->port.tx_checksum_ipv4,
        .tx_checksum_udp = node->port.tx_checksum_udp,
        .rx_checksum_trusted = node->port.rx_checksum,
        .session_max = (unsigned)options->sessions,
        .window = (unsigned)options->window,
        .reply_buffers = (unsigned)(options->sessions * options->window),
        .queueing_delay_max_ns = options->queueing_delay_us * 1000,
        .identity = settings->identity,
        .term = node->term,
        .lcores = 1,
        .ports = {(uint16_t)options->udp_port},
        .placement = placement,
        .id_window_ms = HORIZON_BACK_MS,
    };
    memcpy(config.mac, node->port.mac, sizeof(config.mac));
    memcpy(config.ipv4, options->ipv4, sizeof(config.ipv4));
    memcpy(config.ipv6, options->ipv6, sizeof(config.ipv6));
    char error[256];
    if (net_open(&config, &node->net, error, sizeof(error))) {
        fprintf(stderr, "tallyd: %s\n", error);
        return TALLYD_EXIT_FAILURE;
    }
    return 0;
}

/* --- serving -------------------------------------------------------------------------------------------------------------------- */

/** Ask for short, frequent turns on a core that others use too (kernel workers of the disk above all). Best effort: older kernels
 *  refuse, and then only latency suffers. */
static void scheduler_slice_set(void) {
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime_ns, deadline_ns, period_ns;
    } attributes = {.size = 48, .policy = SCHED_OTHER, .runtime_ns = 10 * NS_PER_MS};
    syscall(SYS_sched_setattr, 0, &attributes, 0);
}

/** The WAL's own lcore, where there is one. */
static int wal_main(void *context) {
    struct node *node = context;
    bool isolated = node->options->isolated;
    scheduler_slice_set();
    for (;;) {
        uint64_t now = clock_read(CLOCK_MONOTONIC);
        if (!wal_step(node->wal, now) && !isolated)
            sched_yield();
        if (atomic_load_explicit(&node->board->failed, memory_order_relaxed) ||
            atomic_load_explicit(&node->wal_abort, memory_order_relaxed))
            break;
        if (atomic_load_explicit(&node->wal_leave, memory_order_relaxed) &&
            wal_drained(node->wal, now))
            break;
    }
    /* Release pairs with the acquire in lcore_may_stop: after it the WAL belongs to the main thread again. */
    atomic_store_explicit(&node->wal_left, true, memory_order_release);
    return 0;
}

/** Whether everything accepted is answered and durable. */
static bool lcore_may_stop(struct node *node) {
    if (!lcore_drained(node->lcore))
        return false;
    if (node->wal_lcore == RTE_MAX_LCORE)
        return true;
    atomic_store_explicit(&node->wal_leave, true, memory_order_relaxed);
    return atomic_load_explicit(&node->wal_left, memory_order_acquire);
}

/** The engine lcore's life: turns, until somebody asks to stop or the disk is lost; then what was accepted is finished.
 *  @return 0, or the disk's -errno */
static int serve(struct node *node) {
    struct lcore *lcore = node->lcore;
    bool isolated = node->options->isolated;
    int failed = 0;
    scheduler_slice_set();
    net_announce(node->net);
    uint64_t deadline = 0;
    for (;;) {
        if (!lcore_step(lcore) && !isolated)
            sched_yield();
        /* Acquire pairs with the WAL's release: what it says about the failure is there. */
        failed = atomic_load_explicit(&node->board->failed, memory_order_acquire);
        if (failed)
            break;
        if (!lcore->draining && atomic_load_explicit(&node->stop, memory_order_relaxed)) {
            lcore->draining = true;
            engine_drain(lcore->engine);
            deadline = clock_read(CLOCK_MONOTONIC) + DRAIN_MAX_NS;
        }
        if (lcore->draining && lcore_may_stop(node))
            break;
        if (lcore->draining && clock_read(CLOCK_MONOTONIC) > deadline)
            return -ETIMEDOUT;
    }
    /* The last replies are with the driver; give it a moment to send them. */
    uint64_t last = clock_read(CLOCK_MONOTONIC) + LAST_REPLIES_NS;
    while (!failed && clock_read(CLOCK_MONOTONIC) < last)
        net_flush(node->net, clock_read(CLOCK_MONOTONIC));
    return failed;
}

/** The second lcore that EAL was given is the WAL's; with one alone, engine and WAL share it. */
static int wal_lcore_start(struct node *node) {
    node->wal_lcore = rte_get_next_lcore((unsigned)-1, 1, 0);
    if (node->wal_lcore == RTE_MAX_LCORE)
        return 0;
    node->lcore->wal = NULL;
    return rte_eal_remote_launch(wal_main, node, node->wal_lcore) ? TALLYD_EXIT_FAILURE : 0;
}

static int node_open(struct node *node) {
    node->lcore = calloc(1, sizeof(*node->lcore));
    if (!node->lcore)
        return TALLYD_EXIT_FAILURE;
    int (*const steps[])(struct node *) = {directory_open, port_start, engine_start, log_start,
                                           net_start};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        int problem = steps[i](node);
        if (problem)
            return problem;
    }
    node->lcore->engine = engine_lcore(node->engine, 0);
    node->lcore->net = node->net;
    node->lcore->wal = node->wal;
    node->lcore->board = node->board;
    node->lcore->clock = &node->clock;
    return tallyd_control_start(node) ? TALLYD_EXIT_FAILURE : wal_lcore_start(node);
}

static void node_close(struct node *node) {
    tallyd_control_stop(node);
    if (node->wal_lcore != RTE_MAX_LCORE) {
        atomic_store(&node->wal_abort, true);
        rte_eal_wait_lcore(node->wal_lcore);
    }
    if (node->net)
        net_close(node->net);
    if (node->port_open)
        port_dpdk_close(&node->port);
    if (node->wal)
        wal_close(node->wal);
    engine_close(node->engine);
    if (node->dir)
        data_dir_close(node->dir);
    free(node->lcore);
    free(node->board);
    free(node->lane);
}

int tallyd_run(const struct tallyd_options *options) {
    static struct node node = {.wal_lcore = RTE_MAX_LCORE, .signals = -1};
    node.options = options;
    /* Blocked here, so that every thread made later has them blocked and only the control thread sees them. */
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    int problem = tallyd_eal_start(options);
    if (problem)
        return problem;
    problem = node_open(&node);
    if (!problem) {
        fprintf(stderr,
                "tallyd: ready on UDP port %" PRIu64 ", term %" PRIu64
                ", %u partitions, log on %s\n",
                options->udp_port, node.term, data_dir_settings(node.dir)->identity.partitions,
                node.wal_lcore == RTE_MAX_LCORE ? "the same lcore" : "an lcore of its own");
        int failed = serve(&node);
        tallyd_counters_print(&node);
        if (failed == -ETIMEDOUT) {
            fprintf(stderr, "tallyd: stopped before everything that was asked for was answered: "
                            "the disk did not finish in time\n");
            problem = TALLYD_EXIT_FAILURE;
        } else if (failed) {
            fprintf(stderr, "tallyd: stopped, and acknowledges nothing any more: %s\n",
                    wal_error(node.wal));
            problem = TALLYD_EXIT_FAILURE;
        } else {
            fprintf(stderr, "tallyd: stopped cleanly\n");
        }
    }
    node_close(&node);
    rte_eal_cleanup();
    return problem;
}
