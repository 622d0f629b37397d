/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_mbuf.h>

#include "net/client/tally.h"
#include "engine/base/planted.h"
#include "tests/sim/sim_network.h"
#include "tests/sim/sim_plan.h"
#include "tests/sim/sim_world.h"

/** tally-sim: seeds, one after the other or side by side in some processes, and what became of them.
 *  Flow:  options -> processes -> sim_world_run -> totals -> summary
 *  A process that a seed brings down (an assert, a fault) costs that seed alone: another one goes on behind it. */

#define JOBS_MAX 16
#define SEED_SECONDS_MAX 60 /**< of a core; a seed that takes longer hangs */
#define PACKETS 4095
#define PROGRESS_SECONDS 60

struct options {
    uint64_t first, count, replay_every;
    unsigned jobs;
    struct sim_options world;
    bool forever, one, stop;
};

/** What all processes share. */
struct totals {
    _Atomic uint64_t next, passed, failed, refused, lost, replayed;
    _Atomic uint64_t checkpoints, checkpoints_abandoned, files_removed;
    _Atomic uint64_t simulated_ns, starts, turns, packets, groups, events, lookups, requests,
        digests;
    _Atomic uint64_t faults[SIM_FAULTS];
    _Atomic uint64_t told[SIM_OPERATIONS][256];
    struct {
        _Atomic uint64_t seed;     /**< plus one; 0: between two */
        _Atomic uint64_t began_ns; /**< the process' own time when the seed began */
    } jobs[JOBS_MAX];
};

static struct totals *totals;
static unsigned replay_lcores; /**< named in the command that replays a seed; 0: as usual */

static uint64_t clock_ns(clockid_t clock) {
    struct timespec now = {0};
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

static uint64_t real_ns(void) {
    return clock_ns(CLOCK_MONOTONIC);
}

static void report_failure(uint64_t seed, const char *what) {
    printf("FAIL seed %" PRIu64 ": %s\n     replay: tests/sim/run --seed %" PRIu64 " --trace", seed,
           what, seed);
    if (replay_lcores)
        printf(" --lcores %u", replay_lcores);
    putchar('\n');
    fflush(stdout);
}

/* --- one process ------------------------------------------------------------------------------------------------------ */

static struct rte_mempool *start_packets(void) {
    char *arguments[] = {"tally-sim",
                         "--no-huge",
                         "-m",
                         "16",
                         "--no-pci",
                         "--no-shconf",
                         "--no-telemetry",
                         "--log-level",
                         "lib.eal:error",
                         "--lcores",
                         "0@0"};
    cpu_set_t allowed;
    sched_getaffinity(0, sizeof(allowed), &allowed);
    char lcore[16];
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed)) {
            snprintf(lcore, sizeof(lcore), "0@%d", cpu);
            break;
        }
    arguments[sizeof(arguments) / sizeof(arguments[0]) - 1] = lcore;
    struct rte_mempool *pool = NULL;
    if (rte_eal_init(sizeof(arguments) / sizeof(arguments[0]), arguments) >= 0)
        pool = rte_pktmbuf_pool_create("sim", PACKETS, 0, 0, SIM_FRAME_BYTES + RTE_PKTMBUF_HEADROOM,
                                       0);
    if (!pool) {
        fprintf(stderr, "tally-sim: EAL does not start\n");
        exit(1);
    }
    sched_setaffinity(0, sizeof(allowed), &allowed); /* EAL has pinned us */
    return pool;
}

static void add(_Atomic uint64_t *total, uint64_t more) {
    atomic_fetch_add_explicit(total, more, memory_order_relaxed);
}

static void count(const struct sim_result *result) {
    add(&totals->simulated_ns, result->simulated_ns);
    add(&totals->starts, result->starts);
    add(&totals->checkpoints, result->checkpoints);
    add(&totals->checkpoints_abandoned, result->checkpoints_abandoned);
    add(&totals->files_removed, result->files_removed);
    add(&totals->turns, result->turns);
    add(&totals->packets, result->packets);
    add(&totals->groups, result->groups);
    add(&totals->events, result->events);
    add(&totals->lookups, result->lookups);
    add(&totals->requests, result->requests);
    add(&totals->digests, result->digests);
    for (unsigned i = 0; i < SIM_FAULTS; i++)
        add(&totals->faults[i], result->faults[i]);
    for (unsigned operation = 0; operation < SIM_OPERATIONS; operation++)
        for (unsigned status = 0; status < 256; status++)
            if (result->told[operation][status])
                add(&totals->told[operation][status], result->told[operation][status]);
}

static void run_seed(const struct options *options, uint64_t seed, struct rte_mempool *pool) {
    static struct sim_result result, again;
    sim_world_run(seed, &options->world, pool, &result);
    bool failed = result.outcome == SIM_VIOLATED;
    if (failed)
        report_failure(seed, result.violation);
    if (options->one)
        printf("seed %" PRIu64 ": digest %016" PRIx64 "\n", seed, result.digest);
    if (!failed && options->replay_every && seed % options->replay_every == 0) {
        const struct sim_options silent = {.lcores = options->world.lcores};
        sim_world_run(seed, &silent, pool, &again);
        add(&totals->replayed, 1);
        failed = again.digest != result.digest;
        if (failed)
            report_failure(seed, "two runs of it differ");
    }
    count(&result);
    add(failed                          ? &totals->failed
        : result.outcome == SIM_REFUSED ? &totals->refused
                                        : &totals->passed,
        1);
    if (!failed && result.outcome == SIM_LOST)
        add(&totals->lost, 1);
    fflush(stdout);
}

static int job_main(const struct options *options, unsigned job) {
    struct rte_mempool *pool = start_packets();
    for (;;) {
        uint64_t seed = atomic_fetch_add(&totals->next, 1);
        if ((!options->forever && seed >= options->first + options->count) ||
            (options->stop && totals->failed))
            return 0;
        atomic_store(&totals->jobs[job].began_ns, clock_ns(CLOCK_PROCESS_CPUTIME_ID));
        atomic_store(&totals->jobs[job].seed, seed + 1);
        run_seed(options, seed, pool);
        atomic_store(&totals->jobs[job].seed, 0);
    }
}

/* --- all of them ------------------------------------------------------------------------------------------------------ */

static pid_t fork_job(const struct options *options, unsigned job) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        exit(job_main(options, job));
    if (pid < 0) {
        perror("tally-sim: fork");
        exit(1);
    }
    return pid;
}

/** A process ended. @return whether another one has to go on in its place */
static bool job_ended(unsigned job, int status) {
    char what[100];
    uint64_t seed = atomic_exchange(&totals->jobs[job].seed, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return false;
    if (seed == 0) {
        printf("FAIL a process ended between two seeds (status %x)\n", (unsigned)status);
        add(&totals->failed, 1);
        return false;
    }
    if (WIFSIGNALED(status))
        snprintf(what, sizeof(what), "the process died: %s%s", strsignal(WTERMSIG(status)),
                 WTERMSIG(status) == SIGKILL ? " (it hung, if nobody else killed it)" : "");
    else
        snprintf(what, sizeof(what), "the process ended with status %d", WEXITSTATUS(status));
    report_failure(seed - 1, what);
    add(&totals->failed, 1);
    return true;
}

static volatile sig_atomic_t interrupted;

static void interrupt(int number) {
    interrupted = number;
}

/** Whether the process has been at one seed for too long; counted in its own time, for the machine may be busy with others. */
static bool job_hangs(pid_t pid, unsigned job) {
    clockid_t clock;
    uint64_t began_ns = atomic_load(&totals->jobs[job].began_ns);
    if (atomic_load(&totals->jobs[job].seed) == 0 || clock_getcpuclockid(pid, &clock) != 0)
        return false;
    uint64_t now_ns = clock_ns(clock);
    return now_ns > began_ns && now_ns - began_ns > SEED_SECONDS_MAX * NS_PER_SECOND;
}

static void watch_jobs(const struct options *options) {
    pid_t pids[JOBS_MAX];
    unsigned running = 0;
    for (unsigned job = 0; job < options->jobs; job++, running++)
        pids[job] = fork_job(options, job);
    for (uint64_t said_ns = real_ns(); running != 0;) {
        if (options->forever && real_ns() - said_ns > PROGRESS_SECONDS * NS_PER_SECOND) {
            said_ns = real_ns();
            printf("... %" PRIu64 " seeds, %" PRIu64 " failed, next %" PRIu64 "\n",
                   totals->passed + totals->refused + totals->failed, totals->failed, totals->next);
            fflush(stdout);
        }
        struct timespec pause = {.tv_nsec = 20000000};
        nanosleep(&pause, NULL);
        for (unsigned job = 0; job < options->jobs; job++) {
            int status;
            if (pids[job] == 0)
                continue;
            if (job_hangs(pids[job], job) || interrupted)
                kill(pids[job], SIGKILL);
            if (interrupted)
                atomic_store(&totals->jobs[job].seed, 0);
            if (waitpid(pids[job], &status, interrupted ? 0 : WNOHANG) != pids[job])
                continue;
            bool more = !interrupted && job_ended(job, status);
            pids[job] = more ? fork_job(options, job) : 0;
            running -= !more;
        }
    }
}

/** What clients were told, so that a kind of answer which never comes shows. */
static void print_told(void) {
    static const char *const operations[SIM_OPERATIONS] = {"not settled", "accounts", "transfers",
                                                           "account lookups", "transfer lookups"};
    for (unsigned operation = 0; operation < SIM_OPERATIONS; operation++) {
        printf("told of %s:", operations[operation]);
        for (unsigned low = 0; low < 256; low++) {
            uint64_t times = totals->told[operation][low];
            uint32_t status = low == 255 ? UINT32_MAX : low;
            if (times)
                printf(" %s %" PRIu64 ",",
                       operation == 0   ? tally_code_name((int)low)
                       : operation == 1 ? tally_account_status_name(status)
                       : operation == 2 ? tally_transfer_status_name(status)
                                        : tally_lookup_status_name(status),
                       times);
        }
        printf("\n");
    }
}

static void summary(uint64_t took_ns, const struct options *options) {
    const double seconds = (double)took_ns / NS_PER_SECOND;
    const double simulated = (double)totals->simulated_ns / NS_PER_SECOND;
    const uint64_t seeds = totals->passed + totals->failed + totals->refused;
    struct rusage used;
    getrusage(options->one ? RUSAGE_SELF : RUSAGE_CHILDREN, &used);
    const double busy = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                        (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    printf("%" PRIu64 " seeds from %" PRIu64 " in %.1f s with %u processes: %.1f seeds/s, "
           "%.1f for each second of a core\n",
           seeds, options->first, seconds, options->jobs, (double)seeds / seconds,
           (double)seeds / busy);
    printf("simulated: %.0f s, %.0f times real time\n", simulated, simulated / seconds);
    printf("in it: %" PRIu64 " starts, %" PRIu64 " turns, %" PRIu64 " packets, %" PRIu64
           " groups, %" PRIu64 " requests, %" PRIu64 " outcomes and %" PRIu64
           " lookups compared, %" PRIu64 " digests and totals recomputed, %" PRIu64
           " seeds run twice\n",
           totals->starts, totals->turns, totals->packets, totals->groups, totals->requests,
           totals->events, totals->lookups, totals->digests, totals->replayed);
    printf("checkpoints: %" PRIu64 " published, %" PRIu64 " given up; %" PRIu64
           " log files removed\n",
           totals->checkpoints, totals->checkpoints_abandoned, totals->files_removed);
    print_told();
    printf("faults injected:\n");
    for (unsigned i = 0; i < SIM_FAULTS; i++)
        printf("  %-20s %10" PRIu64 "  %s%s\n", sim_fault_name(i), totals->faults[i],
               sim_fault_what(i), sim_fault_malign(i) ? " (malign)" : "");
    printf("damage: %" PRIu64 " seeds ended with a refused start, %" PRIu64
           " lost what nothing on the disk could prove\n",
           totals->refused, totals->lost);
    printf("%" PRIu64 " passed, %" PRIu64 " failed\n", totals->passed + totals->refused,
           totals->failed);
}

static void usage(void) {
    fputs(
        "usage: tally-sim [--seeds N] [--first SEED] [--seed S] [--trace] [--forever] [--jobs N]\n"
        "                 [--lcores N] [--replay-every N] [--stop] [--bug "
        "NAME|list]\n",
        stderr);
    exit(2);
}

/** Break the code on purpose (engine/base/planted.h); "list" says in which ways. */
static void plant(const char *name) {
#ifdef TALLY_PLANTED_BUGS
    static const char *const bugs[][2] = {
#define X(bug, what) {#bug, what},
        {"none", "nothing"}, PLANTED_TABLE(X)
#undef X
    };
    const size_t count = sizeof(bugs) / sizeof(bugs[0]);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(name, "list") == 0 && i)
            printf("%-26s %s\n", bugs[i][0], bugs[i][1]);
        if (strcmp(name, bugs[i][0]) != 0)
            continue;
        planted_bug = (enum planted)i;
        return;
    }
    if (strcmp(name, "list") == 0)
        exit(0);
    fprintf(stderr, "tally-sim: there is no bug %s; --bug list says which there are\n", name);
#else
    fprintf(stderr, "tally-sim: no bug %s: this build has none (meson option planted_bugs)\n",
            name);
#endif
    exit(2);
}

static uint64_t number(const char *text) {
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 0);
    if (errno || end == text || *end)
        usage();
    return value;
}

static struct options parse(int argc, char **argv) {
    static const struct option names[] = {{"seeds", required_argument, 0, 'n'},
                                          {"first", required_argument, 0, 'f'},
                                          {"seed", required_argument, 0, 's'},
                                          {"trace", no_argument, 0, 't'},
                                          {"forever", no_argument, 0, 'e'},
                                          {"stop", no_argument, 0, 'x'},
                                          {"jobs", required_argument, 0, 'j'},
                                          {"replay-every", required_argument, 0, 'r'},
                                          {"bug", required_argument, 0, 'b'},
                                          {"lcores", required_argument, 0, 'l'},
                                          {0}};
    struct options options = {
        .world = {.lcores = 1}, .first = 1, .count = 100, .jobs = 2, .replay_every = 50};
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (option) {
        case 'n':
            options.count = number(optarg);
            break;
        case 'f':
            options.first = number(optarg);
            break;
        case 's':
            options.first = number(optarg);
            options.count = options.jobs = 1;
            options.one = true;
            break;
        case 't':
            options.world.trace = true;
            break;
        case 'e':
            options.forever = true;
            break;
        case 'x':
            options.stop = true;
            break;
        case 'j':
            options.jobs = (unsigned)number(optarg);
            break;
        case 'r':
            options.replay_every = number(optarg);
            break;
        case 'l':
            options.world.lcores = replay_lcores = (unsigned)number(optarg);
            break;
        case 'b':
            plant(optarg);
            break;
        default:
            usage();
        }
    }
    if (options.world.lcores < 1 || options.world.lcores > SIM_LCORES_MAX)
        usage();
    if (optind != argc || options.jobs == 0 || options.jobs > JOBS_MAX)
        usage();
    return options;
}

int main(int argc, char **argv) {
    struct options options = parse(argc, argv);
    totals = mmap(NULL, sizeof(*totals), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (totals == MAP_FAILED) {
        perror("tally-sim: mmap");
        return 1;
    }
    totals->next = options.first;
    signal(SIGINT, interrupt);
    signal(SIGTERM, interrupt);
    uint64_t began_ns = real_ns();
    if (options.one)
        job_main(&options, 0); /* in this process, for a debugger's sake */
    else
        watch_jobs(&options);
    summary(real_ns() - began_ns, &options);
    return totals->failed != 0 || totals->passed + totals->refused == 0;
}
