/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/tally_progress.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BAR_COLUMNS 30
#define INTERVAL_NS 100000000u
#define LINE_COLUMNS 79

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void progress_begin(struct progress *progress, const char *what) {
    *progress = (struct progress){
        .what = what, .terminal = isatty(STDERR_FILENO) == 1, .begun_ns = now_ns()};
}

void progress_show(struct progress *progress, uint64_t done_bytes, uint64_t total_bytes) {
    uint64_t now = now_ns();
    if (!progress->terminal || now - progress->printed_ns < INTERVAL_NS)
        return;
    double seconds = (double)(now - progress->begun_ns) / 1e9;
    double rate = seconds > 0 ? (double)done_bytes / seconds / 1e6 : 0;
    char bar[BAR_COLUMNS + 1];
    unsigned full = 0;
    if (total_bytes)
        full = (unsigned)((double)done_bytes / (double)total_bytes * BAR_COLUMNS);
    full = full > BAR_COLUMNS ? BAR_COLUMNS : full;
    memset(bar, '.', BAR_COLUMNS);
    memset(bar, '#', full);
    bar[BAR_COLUMNS] = '\0';
    fprintf(stderr, "\r%-12s [%s] %10.1f MB %8.1f MB/s ", progress->what, bar,
            (double)done_bytes / 1e6, rate);
    fflush(stderr);
    progress->printed_ns = now;
    progress->shown = true;
}

void progress_end(struct progress *progress) {
    if (progress->shown)
        fprintf(stderr, "\r%*s\r", LINE_COLUMNS, "");
    progress->shown = false;
}
