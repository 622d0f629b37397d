/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/recovery.h"
#include "tools/tallyd_node.h"

/** How far recovery is: on a terminal one line that is drawn again and again, else a line a second. */
struct progress {
    bool terminal, drawn;
    uint64_t begun_ns, told_ns;
};

static void progress_tell(void *context, const struct recovery_progress *now) {
    struct progress *progress = context;
    uint64_t ns = clock_read(CLOCK_MONOTONIC);
    if (!progress->terminal && ns - progress->told_ns < NS_PER_SECOND)
        return;
    progress->told_ns = ns;
    unsigned percent =
        now->total_bytes ? (unsigned)(now->done_bytes * 100 / now->total_bytes) : 100;
    fprintf(stderr,
            "%stallyd: recovering from the %s: %u %% of %" PRIu64 " MiB, %" PRIu64
            " records, group %" PRIu64 ", %" PRIu64 " s%s",
            progress->terminal ? "\r" : "", now->phase, percent, now->total_bytes >> 20,
            now->records, now->seq, (ns - progress->begun_ns) / NS_PER_SECOND,
            progress->terminal ? "\033[K" : "\n");
    progress->drawn = progress->terminal;
}

/** Leave the line that was drawn, so that the next one stands alone. */
static void progress_end(struct progress *progress) {
    if (progress->drawn)
        fputc('\n', stderr);
    progress->drawn = false;
}

static void warn(void *context, const char *line) {
    progress_end(context);
    fprintf(stderr, "tallyd: warning: %s\n", line);
}

/** The cores that threads of this process may run on: EAL pins its main thread, and those made by it inherit that. */
static unsigned cores_open(cpu_set_t *before) {
    cpu_set_t everywhere;
    CPU_ZERO(&everywhere);
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++)
        CPU_SET(cpu, &everywhere);
    sched_getaffinity(0, sizeof(*before), before);
    sched_setaffinity(0, sizeof(everywhere), &everywhere);
    sched_getaffinity(0, sizeof(everywhere), &everywhere);
    return (unsigned)CPU_COUNT(&everywhere);
}

static unsigned workers_wanted(const struct node *node, unsigned cores) {
    unsigned partitions = data_dir_settings(node->dir)->identity.partitions;
    unsigned workers =
        node->options->recovery_workers ? (unsigned)node->options->recovery_workers : cores;
    workers = workers > partitions ? partitions : workers;
    return workers > LCORES_MAX ? LCORES_MAX : workers < 1 ? 1 : workers;
}

static void report_print(const struct node *node, const struct recovery_report *report,
                         uint64_t took_ns) {
    if (report->checkpoint_seq)
        fprintf(stderr,
                "tallyd: loaded the checkpoint of group %" PRIu64 ", %" PRIu64 " records, %" PRIu64
                " bytes in %" PRIu64 " ms\n",
                report->checkpoint_seq, report->checkpoint_records, report->checkpoint_bytes,
                report->checkpoint_ns / NS_PER_MS);
    fprintf(stderr,
            "tallyd: recovered %" PRIu64 " groups, %" PRIu64 " records, %" PRIu64
            " bytes in %" PRIu64 " ms, up to group %" PRIu64 "%s\n",
            report->log_groups, report->log_records, report->log_bytes, took_ns / NS_PER_MS,
            node->position.seq, report->torn_bytes ? "; a torn tail was cut" : "");
}

int tallyd_recover(struct node *node) {
    const struct data_dir_settings *settings = data_dir_settings(node->dir);
    struct progress progress = {.terminal = isatty(STDERR_FILENO),
                                .begun_ns = clock_read(CLOCK_MONOTONIC),
                                .told_ns = clock_read(CLOCK_MONOTONIC)};
    struct recovery_report report;
    cpu_set_t before;
    char error[1024];
    unsigned cores = cores_open(&before);
    const struct recovery_config config = {
        .disk = data_dir_disk(node->dir),
        .identity = &settings->identity,
        .workers = workers_wanted(node, cores),
        .threads = true,
        .progress = progress_tell,
        .warning = warn,
        .context = &progress,
    };
    int problem =
        recovery_run(&config, node->engine, &node->position, &report, error, sizeof(error));
    sched_setaffinity(0, sizeof(before), &before);
    progress_end(&progress);
    if (problem == -ENOMEM) {
        fprintf(stderr,
                "tallyd: the log holds more than fits into --memory-mb %" PRIu64 "; give more\n",
                node->options->memory_mb);
        return TALLYD_EXIT_FAILURE;
    }
    if (problem) {
        fprintf(stderr, "tallyd: %s\n", error);
        return problem == -EBADMSG || problem == -ENODATA ? TALLYD_EXIT_DAMAGED
               : problem == -EPERM || problem == -ENOTSUP ? TALLYD_EXIT_DIRECTORY
                                                          : TALLYD_EXIT_FAILURE;
    }
    node->recovered = report;
    report_print(node, &report, clock_read(CLOCK_MONOTONIC) - progress.begun_ns);
    return 0;
}
