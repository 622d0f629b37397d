/* SPDX-License-Identifier: Apache-2.0 */
/** tally-bench: load on a running tallyd, and what it felt like.
 *  Flow:  options -> accounts -> threads, each with a client of its own -> [load_run] -> proof of the books -> report
 *  Reading order: load_work.c (what is asked), load_run.c (when), load_report.c (what it amounts to). */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "perf/bench.h"
#include "perf/load/load_dpdk.h"
#include "perf/load/load_report.h"
#include "tools/tally_args.h"

#define THREADS_MAX 64u
#define SWEEP_STEP 1.25
#define KNEE_FACTOR 10.0 /**< the knee is where p99 exceeds so many times that of the lowest rate */

struct bench {
    struct load_world world;
    struct load_plan plan; /**< of all threads together until they are started */
    const char *server, *dpdk, *address, *workload, *arrival, *zipf, *sweep, *log, *series;
    uint64_t rate, outstanding, batch, accounts, houses, threads, warm_s, seconds, events,
        patience_ms, seed, p99_us;
    bool json, sleeps, unproven;
    double sweep_low, sweep_high;
    int eal_argc;
    char **eal_argv;
    struct tally_client *clients[THREADS_MAX];
};

struct thread {
    pthread_t thread;
    struct bench *bench;
    unsigned number;
    struct load_plan plan;
    struct load_source source;
    struct load_outcome outcome;
    struct load_runner *runner;
};

static _Atomic bool stop;

static void on_signal(int number) {
    (void)number;
    stop = true;
}

/* --- one run --------------------------------------------------------------------------------------------------------- */

static void *thread_main(void *context) {
    struct thread *thread = context;
    struct bench *bench = thread->bench;
    thread->runner = load_run(bench->clients[thread->number], &thread->source, &thread->plan, &stop,
                              &thread->outcome);
    return NULL;
}

/** @param rate events a second of all threads. @return 0 or -errno, then nothing was measured */
static int run_once(struct bench *bench, double rate, struct load_summary *summary) {
    unsigned threads = (unsigned)bench->threads;
    const struct load_outcome *outcomes[THREADS_MAX];
    struct thread *all = calloc(threads, sizeof(*all));
    int rc = all == NULL ? -ENOMEM : 0;
    unsigned started = 0;
    for (; rc == 0 && started < threads; started++) {
        struct thread *thread = &all[started];
        thread->bench = bench;
        thread->number = started;
        thread->plan = bench->plan;
        thread->plan.rate = rate / threads;
        thread->plan.events_max = bench->events / threads + (started < bench->events % threads);
        outcomes[started] = &thread->outcome;
        rc = load_source_open(&thread->source, &bench->world, bench->clients[started],
                              bench->seed * THREADS_MAX + started);
        if (rc == 0)
            rc = -pthread_create(&thread->thread, NULL, thread_main, thread);
        if (rc != 0)
            break;
    }
    if (rc != 0)
        stop = true;
    for (unsigned i = 0; i < started; i++)
        pthread_join(all[i].thread, NULL);
    if (rc == 0) {
        bench->plan.rate = rate / threads;
        *summary =
            (struct load_summary){.world = &bench->world, .plan = &bench->plan, .threads = threads};
        load_summarize(summary, outcomes, stop);
    }
    for (unsigned i = 0; i < started; i++) {
        if (all[i].outcome.unanswered != 0) {
            tally_client_close(bench->clients[i]); /* gives back what is on its way */
            bench->clients[i] = NULL;
        }
        load_runner_free(all[i].runner);
        load_source_close(&all[i].source);
    }
    free(all);
    return rc;
}

static bool clients_left(const struct bench *bench) {
    for (unsigned i = 0; i < bench->threads; i++)
        if (bench->clients[i] == NULL)
            return false;
    return true;
}

/** Higher and higher rates, until one is too high. The summary is that of the knee. @return the knee's rate, 0: there is none */
static double sweep(struct bench *bench, struct load_summary *summary, int *rc) {
    static struct load_summary now;
    double knee = 0, p99_lowest_ns = 0;
    for (double rate = bench->sweep_low; rate <= bench->sweep_high * 1.0001 && clients_left(bench);
         rate *= SWEEP_STEP) {
        *rc = run_once(bench, rate, &now);
        if (*rc != 0)
            break;
        if (!bench->json)
            load_print(&now);
        uint64_t p99_ns = load_histogram_quantile(&now.all.latency[LOAD_PHASE_ALL], 0.99);
        if (p99_lowest_ns == 0)
            p99_lowest_ns = (double)p99_ns;
        double limit_ns = bench->p99_us ? (double)bench->p99_us * 1e3 : p99_lowest_ns * KNEE_FACTOR;
        bool good = now.problem[0] == '\0' && (double)p99_ns <= limit_ns;
        if (good || knee == 0)
            *summary = now;
        if (!good)
            break;
        knee = rate;
    }
    return knee;
}

/* --- options --------------------------------------------------------------------------------------------------------- */

static int name_index(const char *option, const char *text, const char *const *names,
                      unsigned count) {
    for (unsigned i = 0; i < count; i++)
        if (strcmp(text, names[i]) == 0)
            return (int)i;
    char all[256] = "";
    size_t length = 0;
    for (unsigned i = 0; i < count; i++)
        length +=
            (size_t)snprintf(all + length, sizeof(all) - length, "%s%s", i ? ", " : "", names[i]);
    args_complain("--%s '%s': there is %s", option, text, all);
    return -EINVAL;
}

static int parse_sweep(struct bench *bench) {
    char *end;
    bench->sweep_low = strtod(bench->sweep, &end);
    bench->sweep_high = *end == ':' ? strtod(end + 1, &end) : 0;
    if (*end == '\0' && bench->sweep_low >= 1 && bench->sweep_high >= bench->sweep_low &&
        bench->sweep_high <= 1e9)
        return 0;
    args_complain("--sweep '%s' should be LOW:HIGH in events a second, such as 10000:1000000",
                  bench->sweep);
    return -EINVAL;
}

/** What the options say together. @return 0 or -EINVAL */
static int settle_options(struct bench *bench) {
    int workload = name_index("workload", bench->workload, load_workload_names, 5);
    int arrival = bench->arrival ? name_index("arrival", bench->arrival, load_arrival_names, 3)
                  : bench->rate || bench->sweep ? LOAD_POISSON
                                                : LOAD_CLOSED;
    char *end;
    double zipf = strtod(bench->zipf, &end);
    if (workload < 0 || arrival < 0 || (bench->sweep && parse_sweep(bench) != 0))
        return -EINVAL;
    if (*end != '\0' || end == bench->zipf || !(zipf >= 0 && zipf <= 5)) {
        args_complain("--zipf '%s' should be an exponent from 0 (uniform) to 5", bench->zipf);
        return -EINVAL;
    }
    if (arrival == LOAD_CLOSED && (bench->rate || bench->sweep)) {
        args_complain("--arrival closed goes as fast as answers come: without --rate and --sweep");
        return -EINVAL;
    }
    if (arrival != LOAD_CLOSED && !bench->rate && !bench->sweep) {
        args_complain("--arrival %s needs --rate EVENTS_PER_S", load_arrival_names[arrival]);
        return -EINVAL;
    }
    if (bench->rate && bench->sweep) {
        args_complain("--rate and --sweep exclude each other");
        return -EINVAL;
    }
    if (bench->dpdk && (!bench->address || !bench->server || bench->threads > 1)) {
        args_complain("--dpdk needs --address (its own) and --server, and has one thread");
        return -EINVAL;
    }
    if (!bench->dpdk && (bench->eal_argc || bench->address)) {
        args_complain("'%s' is for --dpdk PORT only",
                      bench->address ? "--address" : bench->eal_argv[0]);
        return -EINVAL;
    }
    if (workload == LOAD_MATCHDAY && (arrival == LOAD_CLOSED || bench->sweep)) {
        args_complain("--workload matchday follows the day: it needs --rate, the normal one");
        return -EINVAL;
    }
    bench->world = (struct load_world){
        .workload = (enum load_workload)workload,
        .accounts = bench->accounts,
        .houses = bench->houses,
        .batch = (uint32_t)bench->batch,
        .amount_max = 100,
    };
    load_keys_init(&bench->world.keys, bench->accounts, zipf);
    bench->plan = (struct load_plan){
        .arrival = (enum load_arrival)arrival,
        .outstanding = (uint32_t)bench->outstanding,
        .warm_ns = bench->warm_s * 1000000000u,
        .duration_ns = bench->seconds * 1000000000u,
        .patience_ms = (uint32_t)bench->patience_ms,
        .sleeps = bench->sleeps,
    };
    return 0;
}

static enum args_answer options_parse(struct bench *bench, int argc, char **argv) {
    const struct args_option options[] = {
        {"server", 's', ARGS_TEXT, &bench->server, "ADDR[:PORT]", "where tallyd is (127.0.0.1)",
         false, 0, 0, NULL},
        {"dpdk", 0, ARGS_TEXT, &bench->dpdk, "PORT",
         "over this DPDK port; EAL arguments stand behind --", false, 0, 0, NULL},
        {"address", 0, ARGS_TEXT, &bench->address, "A.B.C.D", "... and this is its own address",
         false, 0, 0, NULL},
        {"workload", 'w', ARGS_TEXT, &bench->workload, "NAME",
         "transfers, wallet, hold, reads, matchday (transfers)", false, 0, 0, NULL},
        {"rate", 'r', ARGS_NUMBER, &bench->rate, "N", "events a second (closed loop if not given)",
         false, 1, 1000000000, NULL},
        {"arrival", 'a', ARGS_TEXT, &bench->arrival, "KIND", "poisson, fixed, closed (poisson)",
         false, 0, 0, NULL},
        {"sweep", 0, ARGS_TEXT, &bench->sweep, "LOW:HIGH",
         "rates, each 1.25 times the last: finds the knee", false, 0, 0, NULL},
        {"p99-us", 0, ARGS_NUMBER, &bench->p99_us, "N",
         "... where p99 exceeds this (10 x the lowest's)", false, 1, 1000000000, NULL},
        {"outstanding", 'o', ARGS_NUMBER, &bench->outstanding, "N",
         "requests on their way, a thread (256)", false, 1, 1u << 20, NULL},
        {"batch", 'b', ARGS_NUMBER, &bench->batch, "N", "events of a request (1)", false, 1, 1024,
         NULL},
        {"accounts", 'n', ARGS_NUMBER, &bench->accounts, "N", "of users (10000)", false, 2,
         100000000, NULL},
        {"houses", 0, ARGS_NUMBER, &bench->houses, "N", "house accounts of a wallet (8)", false, 1,
         1000000, NULL},
        {"zipf", 'z', ARGS_TEXT, &bench->zipf, "X", "how uneven accounts are used (0: uniform)",
         false, 0, 0, NULL},
        {"threads", 't', ARGS_NUMBER, &bench->threads, "N", "threads, each with a client (1)",
         false, 1, THREADS_MAX, NULL},
        {"warm-s", 0, ARGS_NUMBER, &bench->warm_s, "N", "seconds before measuring (1)", false, 0,
         3600, NULL},
        {"seconds", 'd', ARGS_NUMBER, &bench->seconds, "N", "measured time (5)", false, 1, 86400,
         NULL},
        {"events", 'e', ARGS_NUMBER, &bench->events, "N", "end after so many measured events",
         false, 1, UINT64_MAX, NULL},
        {"patience-ms", 0, ARGS_NUMBER, &bench->patience_ms, "N",
         "how long an answer may take (5000)", false, 10, 600000, NULL},
        {"seed", 0, ARGS_NUMBER, &bench->seed, "N", "another sequence (1)", false, 0, UINT32_MAX,
         NULL},
        {"log", 'l', ARGS_TEXT, &bench->log, "FILE", "histograms, in the HdrHistogram log format",
         false, 0, 0, NULL},
        {"series", 0, ARGS_TEXT, &bench->series, "FILE", "rates and latencies over time, as CSV",
         false, 0, 0, NULL},
        {"sleep", 0, ARGS_SWITCH, &bench->sleeps, NULL, "sleep between arrivals instead of polling",
         false, 0, 0, NULL},
        {"unproven", 0, ARGS_SWITCH, &bench->unproven, NULL,
         "skip the proof of the books in the end", false, 0, 0, NULL},
        {"json", 'j', ARGS_SWITCH, &bench->json, NULL, "one JSON line instead of the table", false,
         0, 0, NULL},
        {0},
    };
    static const char notes[] =
        "Open loop (--rate): requests leave when they should, whatever became of earlier\n"
        "ones, and latency counts from then. Exit status: 0 valid, 1 not valid, 2 usage.\n";
    const struct args_command command = {
        "", "Load on a running tallyd, measured.", "[-- EAL-ARGUMENT...]", 0, 256, options, notes};
    unsigned operands = 0;
    enum args_answer answer = args_parse(&command, argc - 1, argv + 1, &operands);
    bench->eal_argc = (int)operands;
    bench->eal_argv = argv + 1;
    return answer;
}

/* --- main ------------------------------------------------------------------------------------------------------------ */

static int clients_open(struct bench *bench) {
    char error[256] = "";
    for (unsigned i = 0; i < bench->threads; i++) {
        struct tally_options options = {.server = bench->server,
                                        .timeout_ms = (uint32_t)bench->patience_ms};
        const struct load_dpdk_config dpdk = {bench->dpdk, bench->address, bench->server,
                                              bench->eal_argc, bench->eal_argv};
        int rc = 0;
        if (bench->dpdk)
            rc = load_dpdk_open(&dpdk, &options.transport, error, sizeof(error));
        if (rc == 0)
            rc = tally_client_open(&options, &bench->clients[i], error, sizeof(error));
        if (rc != 0) {
            bench->clients[i] = NULL;
            args_complain("%s", error);
            return rc == -EINVAL ? 2 : 1;
        }
    }
    return 0;
}

/** @return exit status */
static int measure(struct bench *bench) {
    static struct load_summary summary;
    char error[256] = "";
    struct timespec wall;
    double knee = 0;
    int rc = load_world_make(&bench->world, bench->clients[0], error, sizeof(error));
    if (rc != 0) {
        args_complain("%s", error);
        return 1;
    }
    clock_gettime(CLOCK_REALTIME, &wall);
    if (!bench->json)
        load_print_head();
    if (bench->sweep)
        knee = sweep(bench, &summary, &rc);
    else
        rc = run_once(bench, (double)bench->rate, &summary);
    if (rc != 0) {
        args_complain("%s", strerrordesc_np(-rc));
        return 1;
    }
    if (summary.problem[0] == '\0' && !bench->unproven && clients_left(bench) &&
        load_world_prove(&bench->world, bench->clients[0], error, sizeof(error)) != 0)
        snprintf(summary.problem, sizeof(summary.problem), "%s", error);
    if (!bench->json && !bench->sweep)
        load_print(&summary);
    if (!bench->json && bench->sweep)
        printf(knee > 0 ? "knee at %.0f events/s\n" : "no rate of the sweep could be carried\n",
               knee);
    uint64_t start_ns = (uint64_t)wall.tv_sec * 1000000000u + (uint64_t)wall.tv_nsec;
    if (bench->log && (rc = load_write_log(&summary, bench->log, start_ns)) != 0)
        args_complain("--log %s: %s", bench->log, strerrordesc_np(-rc));
    if (bench->series && (rc = load_write_series(&summary, bench->series)) != 0)
        args_complain("--series %s: %s", bench->series, strerrordesc_np(-rc));
    if (bench->json)
        load_print_json(&summary, knee);
    return summary.problem[0] == '\0' && rc == 0 ? 0 : 1;
}

int main(int argc, char **argv) {
    static struct bench bench = {
        .workload = "transfers",
        .zipf = "0",
        .outstanding = 256,
        .batch = 1,
        .accounts = 10000,
        .houses = 8,
        .threads = 1,
        .warm_s = 1,
        .seconds = 5,
        .patience_ms = 5000,
        .seed = 1,
    };
    args_program = "tally-bench";
    enum args_answer answer = options_parse(&bench, argc, argv);
    if (answer != ARGS_RUN || settle_options(&bench) != 0)
        return answer == ARGS_HELP ? 0 : 2;
    if (getrandom(&bench.world.run_id, sizeof(bench.world.run_id), 0) != sizeof(bench.world.run_id))
        bench.world.run_id = bench_now_ns();
    bench.world.run_id >>= 1;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    int status = clients_open(&bench);
    if (status == 0)
        status = measure(&bench);
    for (unsigned i = 0; i < bench.threads; i++)
        if (bench.clients[i] != NULL)
            tally_client_close(bench.clients[i]);
    load_dpdk_close();
    return status;
}
