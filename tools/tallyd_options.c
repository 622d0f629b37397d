/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/tallyd_options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_cfgfile.h>
#include <rte_common.h>

#include "net/protocol.h"
#include "wal/checkpoint_format.h"
#include "wal/wal.h"

enum option_kind { KIND_TEXT, KIND_NUMBER, KIND_SWITCH, KIND_FLAG, KIND_IPV4, KIND_IPV6 };
enum option_use { USE_FORMAT = 1, USE_RUN = 2, USE_BOTH = 3 };

struct option_row {
    const char *name;
    enum option_kind kind;
    enum option_use use;
    size_t offset;
    uint64_t minimum, maximum, value; /**< numbers: bounds and default */
    const char *argument;
    const char *help;
};

/** What the rings of an lcore hold, and what its walk needs. */
#define CHECKPOINT_MEMORY_MB_MAX ((unsigned long long)WAL_CHUNKS_MAX * CHECKPOINT_CHUNK_BYTES >> 20)
#define CHECKPOINT_MEMORY_MB_MIN 4ull

#define AT(field) offsetof(struct tallyd_options, field)

static const struct option_row rows[] = {
    {"data", KIND_TEXT, USE_BOTH, AT(data), 0, 0, 0, "DIR", "data directory"},
    {"partitions", KIND_NUMBER, USE_FORMAT, AT(partitions), 1, PARTITIONS_MAX, PARTITIONS_DEFAULT,
     "N", "shards of the accounts, fixed for ever"},
    {"id-time", KIND_SWITCH, USE_FORMAT, AT(id_time), 0, 0, 1, "on|off",
     "ids carry time; off: they are remembered for ever"},
    {"file-mb", KIND_NUMBER, USE_FORMAT, AT(file_mb), 16, 65536, 256, "N",
     "size of a log file in MiB"},
    {"groups-in-flight", KIND_NUMBER, USE_FORMAT, AT(groups_in_flight), 1, 8, 4, "N",
     "groups written at the same time"},
    {"config", KIND_TEXT, USE_RUN, AT(config), 0, 0, 0, "FILE",
     "configuration: a section [tallyd] of lines name=value"},
    {"port", KIND_TEXT, USE_RUN, AT(port), 0, 0, 0, "NAME",
     "DPDK port, by name or number; default: the only one there is"},
    {"address", KIND_IPV4, USE_RUN, AT(ipv4), 0, 0, 0, "IPV4", "own IPv4 address"},
    {"address6", KIND_IPV6, USE_RUN, AT(ipv6), 0, 0, 0, "IPV6", "own IPv6 address"},
    {"udp-port", KIND_NUMBER, USE_RUN, AT(udp_port), 1, 65535, NET_UDP_PORT_DEFAULT, "N",
     "UDP port"},
    {"memory-mb", KIND_NUMBER, USE_RUN, AT(memory_mb), 32, 4u << 20, 1024, "N",
     "memory for accounts and remembered ids"},
    {"sessions", KIND_NUMBER, USE_RUN, AT(sessions), 1, 4096, 64, "N", "client sessions at a time"},
    {"window", KIND_NUMBER, USE_RUN, AT(window), 64, 4096, NET_WINDOW_DEFAULT, "N",
     "requests of a session, a power of two"},
    {"group-kb", KIND_NUMBER, USE_RUN, AT(group_kb), 4, 1024, 256, "N",
     "group that is sealed while others are being written"},
    {"group-delay-us", KIND_NUMBER, USE_RUN, AT(group_delay_us), 0, 100000, 100, "N",
     "... or when it has been open for so long"},
    {"queueing-delay-us", KIND_NUMBER, USE_RUN, AT(queueing_delay_us), 100, 10000000, 200000, "N",
     "queueing beyond this refuses new requests as overloaded"},
    {"checkpoint-mb", KIND_NUMBER, USE_RUN, AT(checkpoint_mb), 0, 16u << 20, 2048, "N",
     "checkpoint after so many MiB of log; 0: however much"},
    {"checkpoint-s", KIND_NUMBER, USE_RUN, AT(checkpoint_s), 0, 604800, 600, "N",
     "checkpoint so often if anything was logged; 0: never"},
    {"checkpoint-memory-mb", KIND_NUMBER, USE_RUN, AT(checkpoint_memory_mb), 0,
     CHECKPOINT_MEMORY_MB_MAX, 64, "N", "memory on its way to a checkpoint; 0: take none"},
    {"log-max-mb", KIND_NUMBER, USE_RUN, AT(log_max_mb), 0, 16u << 20, 0, "N",
     "log in all; beyond it ids are forgotten sooner; 0: any"},
    {"recovery-workers", KIND_NUMBER, USE_RUN, AT(recovery_workers), 0, LCORES_MAX, 0, "N",
     "threads that recover; 0: one a core"},
    {"stats-s", KIND_NUMBER, USE_RUN, AT(stats_s), 0, 86400, 0, "N",
     "print counters so often; 0: only on SIGUSR1 and at exit"},
    {"isolated", KIND_FLAG, USE_RUN, AT(isolated), 0, 0, 0, NULL,
     "the core is this process's alone: never yield it"},
    {"accept-clock", KIND_FLAG, USE_RUN, AT(accept_clock), 0, 0, 0, NULL,
     "start although the time of day is over an hour ahead of the log"},
    {"software-checksums", KIND_FLAG, USE_RUN, AT(software_checksums), 0, 0, 0, NULL,
     "do not use the port's checksum offloads"},
};
#define HELP_COLUMN 30
#define HELP_WIDTH 80

#define ROWS (sizeof(rows) / sizeof(rows[0]))

/** An option and what it does, wrapped between words. */
static void help_print(FILE *out, const char *left, const struct option_row *row) {
    char text[160], *end = text + snprintf(text, sizeof(text), "%s", row->help);
    if (row->kind == KIND_NUMBER)
        snprintf(end, sizeof(text) - (size_t)(end - text), " (%llu)",
                 (unsigned long long)row->value);
    int column = fprintf(out, "  %-*s", HELP_COLUMN - 3, left);
    for (char *rest = text, *word; (word = strsep(&rest, " "));) {
        if (column + 1 + (int)strlen(word) > HELP_WIDTH)
            column = fprintf(out, "\n%*s", HELP_COLUMN - 1, "") - 1;
        column += fprintf(out, " %s", word);
    }
    fprintf(out, "\n");
}

static void usage_print(FILE *out) {
    fprintf(out, "tallyd: the ledger server.\n\n"
                 "  tallyd format --data DIR [options]                   make a data directory\n"
                 "  tallyd run --data DIR [options] -- EAL arguments     serve it on a DPDK port\n"
                 "  tallyd help | version\n\n");
    for (unsigned pass = 0; pass < 2; pass++) {
        fprintf(out, pass == 0 ? "format:\n" : "run:\n");
        for (size_t i = 0; i < ROWS; i++) {
            if (!(rows[i].use & (pass == 0 ? USE_FORMAT : USE_RUN)))
                continue;
            char left[48];
            snprintf(left, sizeof(left), "--%s %s", rows[i].name,
                     rows[i].argument ? rows[i].argument : "");
            help_print(out, left, &rows[i]);
        }
    }
    fprintf(out, "\nExit status: 0 done, 1 failed, 2 bad flags or configuration,\n"
                 "3 data directory refused, 4 data damaged.\n");
}

static const struct option_row *row_find(const char *name, enum option_use use) {
    for (size_t i = 0; i < ROWS; i++) {
        if ((rows[i].use & use) && strcmp(rows[i].name, name) == 0)
            return &rows[i];
    }
    return NULL;
}

/** @return 0, or -EINVAL after saying what is wrong */
static int option_set(struct tallyd_options *options, const struct option_row *row,
                      const char *where, const char *value) {
    void *field = (uint8_t *)options + row->offset;
    char *end;
    unsigned long long number;
    switch (row->kind) {
    case KIND_TEXT:
        *(const char **)field = value;
        return 0;
    case KIND_FLAG:
        *(bool *)field = true;
        return 0;
    case KIND_SWITCH:
        if (strcmp(value, "on") != 0 && strcmp(value, "off") != 0) {
            fprintf(stderr, "tallyd: %s%s is \"%s\"; it must be on or off\n", where, row->name,
                    value);
            return -EINVAL;
        }
        *(bool *)field = strcmp(value, "on") == 0;
        return 0;
    case KIND_NUMBER:
        errno = 0;
        number = strtoull(value, &end, 10);
        if (errno || end == value || *end || *value == '-' || number < row->minimum ||
            number > row->maximum) {
            fprintf(stderr, "tallyd: %s%s is \"%s\"; it must be a number from %llu to %llu\n",
                    where, row->name, value, (unsigned long long)row->minimum,
                    (unsigned long long)row->maximum);
            return -EINVAL;
        }
        *(uint64_t *)field = number;
        return 0;
    case KIND_IPV4:
    case KIND_IPV6:
        if (inet_pton(row->kind == KIND_IPV4 ? AF_INET : AF_INET6, value, field) != 1) {
            fprintf(stderr, "tallyd: %s%s is \"%s\"; it must be an %s address, as in %s\n", where,
                    row->name, value, row->kind == KIND_IPV4 ? "IPv4" : "IPv6",
                    row->kind == KIND_IPV4 ? "10.0.0.2" : "fd00::2");
            return -EINVAL;
        }
        return 0;
    }
    return -EINVAL;
}

/** rte_cfgfile drops a line without '=' and cuts a long one, both in silence. */
static int config_lines_check(const char *path) {
    FILE *file = fopen(path, "r");
    char line[CFG_NAME_LEN + CFG_VALUE_LEN];
    int error = 0;
    if (!file)
        return 0; /* said by who reads it next */
    for (unsigned number = 1; !error && fgets(line, sizeof(line), file); number++) {
        const char *problem = NULL;
        if (!strchr(line, '\n') && !feof(file))
            problem = "is too long";
        line[strcspn(line, ";\r\n")] = '\0';
        const char *text = line + strspn(line, " \t");
        if (*text && *text != '[' && !strchr(text, '='))
            problem = "should be name=value";
        if (problem) {
            fprintf(stderr, "tallyd: configuration file %s: line %u %s\n", path, number, problem);
            error = -EINVAL;
        }
    }
    fclose(file);
    return error;
}

/** @param set by row: given as a flag already */
static int config_read(struct tallyd_options *options, const bool *set) {
    static struct rte_cfgfile_entry
        entries[RTE_DIM(rows) + 64]; /* values are used until the process ends */
    if (access(options->config, R_OK) != 0) {
        fprintf(stderr, "tallyd: configuration file %s: %s\n", options->config, strerror(errno));
        return -EINVAL;
    }
    if (config_lines_check(options->config))
        return -EINVAL;
    struct rte_cfgfile *file = rte_cfgfile_load(options->config, 0);
    if (!file) {
        fprintf(stderr,
                "tallyd: configuration file %s cannot be parsed; it needs a line [tallyd] and then "
                "lines name=value\n",
                options->config);
        return -EINVAL;
    }
    int count = rte_cfgfile_section_num_entries(file, "tallyd");
    if (count < 0 || rte_cfgfile_num_sections(file, NULL, 0) != 1 ||
        count > (int)RTE_DIM(entries)) {
        fprintf(stderr, "tallyd: configuration file %s must hold one section, [tallyd]\n",
                options->config);
        return -EINVAL;
    }
    rte_cfgfile_section_entries(file, "tallyd", entries, count);
    for (int i = 0; i < count; i++) {
        const struct option_row *row = row_find(entries[i].name, USE_RUN);
        if (!row || strcmp(entries[i].name, "config") == 0) {
            fprintf(stderr,
                    "tallyd: configuration file %s: there is no setting \"%s\"; `tallyd help` "
                    "lists them\n",
                    options->config, entries[i].name);
            return -EINVAL;
        }
        char where[PATH_MAX + 32];
        snprintf(where, sizeof(where), "configuration file %s: ", options->config);
        if (row->kind == KIND_FLAG && strcmp(entries[i].value, "on") != 0 &&
            strcmp(entries[i].value, "off") != 0) {
            fprintf(stderr, "tallyd: %s%s is \"%s\"; it must be on or off\n", where, row->name,
                    entries[i].value);
            return -EINVAL;
        }
        bool off = row->kind == KIND_FLAG && strcmp(entries[i].value, "off") == 0;
        if (!set[row - rows] && !off && option_set(options, row, where, entries[i].value))
            return -EINVAL;
    }
    rte_cfgfile_close(file);
    return 0;
}

static int usage_error(const char *format, const char *what) {
    fprintf(stderr, "tallyd: ");
    fprintf(stderr, format, what);
    fprintf(stderr, "; see `tallyd help`\n");
    return 1 + TALLYD_EXIT_USAGE;
}

static bool checkpoints_never(const struct tallyd_options *options) {
    return !options->checkpoint_memory_mb || (!options->checkpoint_mb && !options->checkpoint_s);
}

static int check(const struct tallyd_options *options) {
    static const uint8_t none[16];
    if (!options->data)
        return usage_error("%s is missing: give the data directory", "--data DIR");
    if (options->format)
        return 0;
    if (memcmp(options->ipv4, none, 4) == 0 && memcmp(options->ipv6, none, 16) == 0)
        return usage_error("%s is missing: the server needs an address of its own on the port",
                           "--address IPV4 or --address6 IPV6");
    if (options->window & (options->window - 1))
        return usage_error("%s must be a power of two", "--window");
    if (options->checkpoint_memory_mb && options->checkpoint_memory_mb < CHECKPOINT_MEMORY_MB_MIN) {
        fprintf(stderr,
                "tallyd: --checkpoint-memory-mb is \"%llu\"; it must be 0 (no checkpoints) or %llu "
                "to %llu\n",
                (unsigned long long)options->checkpoint_memory_mb, CHECKPOINT_MEMORY_MB_MIN,
                CHECKPOINT_MEMORY_MB_MAX);
        return 1 + TALLYD_EXIT_USAGE;
    }
    if (options->log_max_mb && checkpoints_never(options))
        return usage_error("%s needs checkpoints, for only what is in them may leave the log: give "
                           "--checkpoint-memory-mb, and --checkpoint-mb or --checkpoint-s",
                           "--log-max-mb");
    if (options->log_max_mb && options->log_max_mb / 2 < options->checkpoint_mb) {
        fprintf(stderr,
                "tallyd: --log-max-mb is \"%llu\"; the log of two checkpoints has to fit into it: "
                "give --checkpoint-mb %llu or less\n",
                (unsigned long long)options->log_max_mb,
                (unsigned long long)(options->log_max_mb / 2));
        return 1 + TALLYD_EXIT_USAGE;
    }
    uint64_t machine_mb = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) >> 20;
    if (options->memory_mb > machine_mb) {
        fprintf(stderr,
                "tallyd: --memory-mb is \"%llu\"; this machine has %llu MiB of memory in all\n",
                (unsigned long long)options->memory_mb, (unsigned long long)machine_mb);
        return 1 + TALLYD_EXIT_USAGE;
    }
    return 0;
}

int tallyd_options_parse(struct tallyd_options *options, int argc, char **argv) {
    bool set[ROWS] = {false};
    *options = (struct tallyd_options){0};
    for (size_t i = 0; i < ROWS; i++) {
        if (rows[i].kind == KIND_NUMBER)
            *(uint64_t *)((uint8_t *)options + rows[i].offset) = rows[i].value;
        if (rows[i].kind == KIND_SWITCH)
            *(bool *)((uint8_t *)options + rows[i].offset) = rows[i].value;
    }
    if (argc < 2)
        return usage_error("%s is missing: format or run", "the command");
    if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 ||
        strcmp(argv[1], "-h") == 0) {
        usage_print(stdout);
        return 1;
    }
    if (strcmp(argv[1], "version") == 0 || strcmp(argv[1], "--version") == 0) {
        printf("tallyd %s\n", TALLY_VERSION);
        return 1;
    }
    options->format = strcmp(argv[1], "format") == 0;
    if (!options->format && strcmp(argv[1], "run") != 0)
        return usage_error("there is no command \"%s\": it is format or run", argv[1]);
    enum option_use use = options->format ? USE_FORMAT : USE_RUN;
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--") == 0 && !options->format) {
            options->eal_argc = argc - i - 1;
            options->eal_argv = argv + i + 1;
            break;
        }
        if (strcmp(argv[i], "--help") == 0) {
            usage_print(stdout);
            return 1;
        }
        char name[64] = "";
        const char *equals = strchr(argv[i], '=');
        if (strncmp(argv[i], "--", 2) == 0)
            snprintf(name, sizeof(name), "%.*s", equals ? (int)(equals - argv[i] - 2) : 63,
                     argv[i] + 2);
        const struct option_row *row = row_find(name, use);
        if (!row)
            return usage_error(options->format ? "`tallyd format` has no option \"%s\""
                                               : "`tallyd run` has no option \"%s\"",
                               argv[i]);
        const char *value = equals ? equals + 1 : NULL;
        if (row->kind == KIND_FLAG && value)
            return usage_error("%s takes no value", argv[i]);
        if (row->kind != KIND_FLAG && !value && ++i < argc)
            value = argv[i];
        if (row->kind != KIND_FLAG && !value)
            return usage_error("--%s needs a value", row->name);
        if (option_set(options, row, "--", value))
            return 1 + TALLYD_EXIT_USAGE;
        set[row - rows] = true;
    }
    if (options->config && config_read(options, set))
        return 1 + TALLYD_EXIT_USAGE;
    return check(options);
}
