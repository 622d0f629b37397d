/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "tools/tallyd_options.h"
#include "tools/tallyd_run.h"
#include "wal/data_dir.h"

/** tallyd format: make an empty data directory. */
static int format(const struct tallyd_options *options) {
    struct data_dir_settings settings = {0};
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    settings.created_ns = (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
    settings.groups_in_flight = (uint32_t)options->groups_in_flight;
    settings.identity.partitions = (uint32_t)options->partitions;
    settings.identity.id_time = options->id_time;
    settings.identity.file_bytes = options->file_mb << 20;
    uint64_t seeds[2];
    if (getrandom(settings.identity.cell_id, sizeof(settings.identity.cell_id), 0) !=
            sizeof(settings.identity.cell_id) ||
        getrandom(seeds, sizeof(seeds), 0) != sizeof(seeds)) {
        fprintf(stderr, "tallyd: no random numbers to be had: %s\n", strerror(errno));
        return TALLYD_EXIT_FAILURE;
    }
    settings.identity.hash_seed = seeds[0];
    settings.identity.digest_seed = seeds[1];
    char error[512];
    int problem = data_dir_format(options->data, &settings, error, sizeof(error));
    if (problem) {
        fprintf(stderr, "tallyd: %s\n", error);
        return problem == -ENOSPC || problem == -EIO ? TALLYD_EXIT_FAILURE : TALLYD_EXIT_DIRECTORY;
    }
    fprintf(stderr, "tallyd: formatted %s: %llu partitions, log files of %llu MiB, id time %s\n",
            options->data, (unsigned long long)options->partitions,
            (unsigned long long)options->file_mb, options->id_time ? "on" : "off");
    return 0;
}

int main(int argc, char **argv) {
    struct tallyd_options options;
    int leave = tallyd_options_parse(&options, argc, argv);
    if (leave)
        return leave - 1;
    return options.format ? format(&options) : tallyd_run(&options);
}
