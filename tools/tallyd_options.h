/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TOOLS_TALLYD_OPTIONS_H
#define TALLY_TOOLS_TALLYD_OPTIONS_H

#include "engine/base/types.h"

/** tallyd's flags and configuration file. Every option can stand in either, under the same name; a flag wins. */

#define TALLYD_EXIT_FAILURE 1
#define TALLYD_EXIT_USAGE 2
#define TALLYD_EXIT_DIRECTORY 3 /**< data directory refused: missing, foreign, locked, newer */
#define TALLYD_EXIT_DAMAGED 4   /**< data directory damaged */

struct tallyd_options {
    bool format; /**< else run */
    const char *data;
    const char *config;
    /* format */
    uint64_t partitions;
    bool id_time;
    uint64_t file_mb;
    uint64_t groups_in_flight;
    /* run */
    const char *port;
    uint8_t ipv4[4];
    uint8_t ipv6[16];
    uint64_t udp_port;
    uint64_t memory_mb;
    uint64_t sessions;
    uint64_t window;
    uint64_t group_kb;
    uint64_t group_delay_us;
    uint64_t queueing_delay_us;
    uint64_t checkpoint_mb;        /**< of log between two checkpoints; 0: any */
    uint64_t checkpoint_s;         /**< between two checkpoints; 0: any */
    uint64_t checkpoint_memory_mb; /**< for chunks on their way to the disk; 0: no checkpoints */
    uint64_t log_max_mb;           /**< 0: none */
    uint64_t recovery_workers;     /**< 0: as many as there are cores */
    uint64_t stats_s;
    bool isolated;
    bool accept_clock;
    bool software_checksums;
    int eal_argc; /**< what follows "--" */
    char **eal_argv;
};

/** Parse the command line, and the configuration file that it names.
 *  @return 0 to go on; otherwise 1 + the exit status to leave with at once (help and version print on stdout; what is wrong has been
 *          said on stderr, in one line) */
int tallyd_options_parse(struct tallyd_options *options, int argc, char **argv);

#endif
