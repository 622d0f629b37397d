/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "tools/tallyd_node.h"
#include "wal/checkpoint_format.h"

/** The control thread: signals, counters, and what the operator asks for through the socket. No lcore waits for it. */

#define CONTROL_TURN_MS 100

/* --- counters ---------------------------------------------------------------------------------------------------------------- */

void tallyd_counters_print(const struct node *node) {
    const struct net_counters *net = net_counters(node->net);
    const struct wal_counters *wal = wal_counters(node->wal);
    const struct wal_checkpoints *checkpoints = wal_checkpoints(node->wal);
    struct engine_totals totals;
    engine_totals(node->engine, &totals);
#define X(name, what) fprintf(stderr, "net_" #name " %" PRIu64 "\n", net->name);
    NET_COUNTER_TABLE(X)
#undef X
    fprintf(stderr, "engine_accounts %" PRIu64 "\n", totals.accounts);
    fprintf(stderr, "engine_transfer_ids %" PRIu64 "\n", totals.transfer_ids);
    fprintf(stderr, "engine_pendings %" PRIu64 "\n", totals.pendings);
    fprintf(stderr, "engine_memory_used_bytes %zu\n", totals.memory_used_bytes);
    fprintf(stderr, "engine_memory_bytes %zu\n", totals.memory_bytes);
    fprintf(stderr, "lcore_turns %" PRIu64 "\n", node->lcore->turns);
    fprintf(stderr, "lcore_empty_turns %" PRIu64 "\n", node->lcore->empty_turns);
    fprintf(stderr, "lcore_events %" PRIu64 "\n", node->lcore->events);
    fprintf(stderr, "wal_groups %" PRIu64 "\n", atomic_load(&wal->groups));
    fprintf(stderr, "wal_records %" PRIu64 "\n", atomic_load(&wal->records));
    fprintf(stderr, "wal_bytes %" PRIu64 "\n", atomic_load(&wal->bytes));
    fprintf(stderr, "wal_commit_seq %" PRIu64 "\n", atomic_load(&node->board->commit_seq));
    fprintf(stderr, "wal_term %" PRIu64 "\n", node->term);
    fprintf(stderr, "wal_log_bytes %" PRIu64 "\n", atomic_load(&checkpoints->log_bytes));
    fprintf(stderr, "wal_files_removed %" PRIu64 "\n", atomic_load(&checkpoints->files_removed));
    fprintf(stderr, "checkpoint_published_seq %" PRIu64 "\n",
            atomic_load(&checkpoints->published_seq));
    fprintf(stderr, "checkpoint_published %" PRIu64 "\n", atomic_load(&checkpoints->published));
    fprintf(stderr, "checkpoint_abandoned %" PRIu64 "\n", atomic_load(&checkpoints->abandoned));
    fprintf(stderr, "checkpoint_running_seq %" PRIu64 "\n", atomic_load(&checkpoints->running_seq));
    fprintf(stderr, "checkpoint_bytes %" PRIu64 "\n", atomic_load(&checkpoints->bytes));
    fprintf(stderr, "recovery_checkpoint_seq %" PRIu64 "\n", node->recovered.checkpoint_seq);
    fprintf(stderr, "recovery_checkpoint_bytes %" PRIu64 "\n", node->recovered.checkpoint_bytes);
    fprintf(stderr, "recovery_checkpoint_ns %" PRIu64 "\n", node->recovered.checkpoint_ns);
    fprintf(stderr, "recovery_log_records %" PRIu64 "\n", node->recovered.log_records);
    fprintf(stderr, "recovery_log_bytes %" PRIu64 "\n", node->recovered.log_bytes);
    fprintf(stderr, "recovery_log_ns %" PRIu64 "\n", node->recovered.log_ns);
    fprintf(stderr, "recovery_torn_bytes %" PRIu64 "\n", node->recovered.torn_bytes);
}

/* --- what the operator asks for ------------------------------------------------------------------------------------------------- */

static void node_status(void *context, struct control_status *status) {
    const struct node *node = context;
    const struct wal_checkpoints *checkpoints = wal_checkpoints(node->wal);
    const struct wal_identity *identity = &data_dir_settings(node->dir)->identity;
    struct engine_totals totals;
    engine_totals(node->engine, &totals);
    *status = (struct control_status){
        .partitions = identity->partitions,
        .checkpoints = node->options->checkpoint_memory_mb != 0,
        .term = node->term,
        .commit_seq = atomic_load(&node->board->commit_seq),
        .log_bytes = atomic_load(&checkpoints->log_bytes),
        .log_files_removed = atomic_load(&checkpoints->files_removed),
        .served = atomic_load(&checkpoints->served),
        .published = atomic_load(&checkpoints->published),
        .abandoned = atomic_load(&checkpoints->abandoned),
        .published_seq = atomic_load(&checkpoints->published_seq),
        .running_seq = atomic_load(&checkpoints->running_seq),
        .bytes = atomic_load(&checkpoints->bytes),
        .bytes_expected = totals.accounts * sizeof(struct account) +
                          totals.pendings * sizeof(struct checkpoint_pending) +
                          totals.transfer_ids * sizeof(struct checkpoint_id),
        .error = atomic_load(&checkpoints->error),
    };
    memcpy(status->cell_id, identity->cell_id, sizeof(status->cell_id));
    wal_checkpoint_warning(node->wal, status->warning, sizeof(status->warning));
}

static uint64_t node_checkpoint(void *context, char *error, size_t error_bytes) {
    const struct node *node = context;
    if (node->options->checkpoint_memory_mb != 0)
        return wal_checkpoint_want(node->wal);
    snprintf(error, error_bytes,
             "this tallyd takes no checkpoints: it was started with --checkpoint-memory-mb 0");
    return 0;
}

static void node_hold(void *context, bool hold) {
    const struct node *node = context;
    wal_hold(node->wal, hold);
}

/* --- the thread ----------------------------------------------------------------------------------------------------------------- */

/** What became of checkpoints since the last look, on standard error. */
static void checkpoints_tell(const struct node *node, uint64_t *published, uint64_t *abandoned) {
    const struct wal_checkpoints *checkpoints = wal_checkpoints(node->wal);
    uint64_t now_published = atomic_load(&checkpoints->published);
    uint64_t now_abandoned = atomic_load(&checkpoints->abandoned);
    if (now_published != *published)
        fprintf(stderr, "tallyd: checkpoint at group %" PRIu64 ", log of %" PRIu64 " bytes\n",
                atomic_load(&checkpoints->published_seq), atomic_load(&checkpoints->log_bytes));
    if (now_abandoned != *abandoned) {
        char line[256];
        wal_checkpoint_warning(node->wal, line, sizeof(line));
        fprintf(stderr, "tallyd: warning: a checkpoint was given up, the log goes on: %s\n", line);
    }
    *published = now_published;
    *abandoned = now_abandoned;
}

/** Wait for a signal, and serve the socket meanwhile. @return the signal, or 0 */
static int next_signal(struct node *node) {
    struct pollfd wait = {node->signals, POLLIN, 0};
    struct signalfd_siginfo info;
    bool arrived = node->control_socket
                       ? control_serve(node->control_socket, node->signals, CONTROL_TURN_MS)
                       : poll(&wait, 1, CONTROL_TURN_MS) == 1;
    if (!arrived || read(node->signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return 0;
    return (int)info.ssi_signo;
}

static void *control_main(void *context) {
    struct node *node = context;
    uint64_t stats_ns = node->options->stats_s * NS_PER_SECOND,
             printed = clock_read(CLOCK_MONOTONIC), published = 0, abandoned = 0;
    while (!atomic_load(&node->control_leave)) {
        int signal = next_signal(node);
        uint64_t now = clock_read(CLOCK_MONOTONIC);
        checkpoints_tell(node, &published, &abandoned);
        if (signal == SIGTERM || signal == SIGINT)
            atomic_store(&node->stop, true);
        else if (signal == SIGUSR1 || (stats_ns && now - printed >= stats_ns)) {
            tallyd_counters_print(node);
            printed = now;
        }
    }
    return NULL;
}

static void socket_open(struct node *node) {
    const struct control_node served = {node, node_status, node_checkpoint, node_hold};
    char error[512];
    if (control_open(node->options->data, &served, &node->control_socket, error, sizeof(error)))
        fprintf(stderr,
                "tallyd: warning: no control socket, so `tally checkpoint` and `tally backup` "
                "will not find this tallyd: %s\n",
                error);
}

/** Threads that are made from here on may run anywhere: EAL pins its main thread, and they inherit that. */
int tallyd_control_start(struct node *node) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGUSR1);
    node->signals = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
    if (node->signals < 0)
        return -errno;
    socket_open(node);
    cpu_set_t everywhere;
    CPU_ZERO(&everywhere);
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++)
        CPU_SET(cpu, &everywhere);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setaffinity_np(&attributes, sizeof(everywhere), &everywhere);
    int error = pthread_create(&node->control, &attributes, control_main, node);
    pthread_attr_destroy(&attributes);
    node->control_started = error == 0;
    return -error;
}

void tallyd_control_stop(struct node *node) {
    if (node->control_started) {
        atomic_store(&node->control_leave, true);
        pthread_join(node->control, NULL);
    }
    control_close(node->control_socket);
    if (node->signals >= 0)
        close(node->signals);
}
