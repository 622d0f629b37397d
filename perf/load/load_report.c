/* SPDX-License-Identifier: Apache-2.0 */
#include "perf/load/load_report.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "perf/bench.h"

#define RETRY_STORM 0.001 /**< more retransmissions than this share of datagrams spoil a run */
#define RATE_MISSED 0.99  /**< less than this share of the planned rate was answered in time */

const char *const load_workload_names[] = {"transfers", "wallet", "hold", "reads", "matchday"};
const char *const load_arrival_names[] = {"closed", "fixed", "poisson"};

static void outcome_merge(struct load_outcome *into, const struct load_outcome *from) {
    for (unsigned i = 0; i < LOAD_PHASES; i++)
        load_histogram_merge(&into->latency[i], &from->latency[i]);
    for (unsigned i = 0; i < LOAD_SERIES; i++) {
        into->series[i].planned += from->series[i].planned;
        into->series[i].answered += from->series[i].answered;
        for (unsigned step = 0; step < LOAD_SERIES_STEPS; step++)
            into->series[i].counts[step] += from->series[i].counts[step];
    }
    into->events += from->events;
    into->requests += from->requests;
    into->wrong += from->wrong;
    into->unanswered += from->unanswered;
    into->overloaded += from->overloaded;
    into->unsent += from->unsent;
    into->checksum += from->checksum;
    into->died |= from->died;
    if (from->wrong != 0)
        into->worst_status = from->worst_status;
    if (from->error != 0)
        into->error = from->error;
    if (into->begin_ns == 0 || from->begin_ns < into->begin_ns)
        into->begin_ns = from->begin_ns;
    if (from->end_ns > into->end_ns)
        into->end_ns = from->end_ns;
    into->stats.datagrams_sent += from->stats.datagrams_sent;
    into->stats.retransmissions += from->stats.retransmissions;
    into->stats.sessions += from->stats.sessions;
}

static void judge(struct load_summary *summary, bool interrupted) {
    const struct load_outcome *all = &summary->all;
    const struct tally_stats *stats = &all->stats;
    char *text = summary->problem;
    size_t room = sizeof(summary->problem);
    if (all->error != 0)
        snprintf(text, room, "the client failed: %s", strerrordesc_np(-all->error));
    else if (all->died)
        snprintf(text, room,
                 "the server stopped answering: partial results; %" PRIu64
                 " events have no known outcome",
                 all->unanswered);
    else if (interrupted)
        snprintf(text, room, "interrupted: partial results");
    else if (all->events == 0)
        snprintf(text, room, "nothing was measured");
    else if (all->wrong != 0)
        snprintf(text, room, "%" PRIu64 " events were answered with what they should not be: %s",
                 all->wrong, tally_transfer_status_name(all->worst_status));
    else if (all->unanswered != 0)
        snprintf(text, room, "%" PRIu64 " events were not answered in time", all->unanswered);
    else if (all->overloaded != 0)
        snprintf(text, room, "%" PRIu64 " events were refused as overloaded", all->overloaded);
    else if (stats->sessions != 0)
        snprintf(text, room, "%" PRIu64 " sessions had to be opened again", stats->sessions);
    else if ((double)stats->retransmissions > RETRY_STORM * (double)stats->datagrams_sent)
        snprintf(text, room, "%" PRIu64 " of %" PRIu64 " datagrams had to be sent again",
                 stats->retransmissions, stats->datagrams_sent);
    else if (summary->plan->arrival != LOAD_CLOSED &&
             (double)all->events < RATE_MISSED * (double)(all->events + all->unsent))
        snprintf(text, room, "the rate was not reached: %" PRIu64 " events could not leave in time",
                 all->unsent);
}

void load_summarize(struct load_summary *summary, const struct load_outcome *const *outcomes,
                    bool interrupted) {
    memset(&summary->all, 0, sizeof(summary->all));
    summary->problem[0] = '\0';
    for (unsigned i = 0; i < summary->threads; i++)
        outcome_merge(&summary->all, outcomes[i]);
    summary->seconds = (double)(summary->all.end_ns - summary->all.begin_ns) / 1e9;
    summary->rate = summary->seconds > 0 ? (double)summary->all.events / summary->seconds : 0;
    judge(summary, interrupted);
}

static double us(const struct load_histogram *histogram, double quantile) {
    return (double)load_histogram_quantile(histogram, quantile) / 1e3;
}

void load_print_head(void) {
    printf("%-12s %10s %11s %9s %9s %9s %9s %9s\n", "", "events", "events/s", "p50 us", "p99 us",
           "p99.9 us", "p99.99 us", "max us");
}

static void print_row(const char *name, const struct load_histogram *latency, double rate) {
    printf("%-12s %10" PRIu64 " %11.0f %9.1f %9.1f %9.1f %9.1f %9.1f\n", name, latency->total, rate,
           us(latency, 0.5), us(latency, 0.99), us(latency, 0.999), us(latency, 0.9999),
           (double)latency->max_ns / 1e3);
}

void load_print(const struct load_summary *summary) {
    const struct load_outcome *all = &summary->all;
    if (summary->world->workload != LOAD_MATCHDAY)
        print_row(load_workload_names[summary->world->workload], &all->latency[LOAD_PHASE_ALL],
                  summary->rate);
    for (unsigned phase = LOAD_PHASE_ALL + 1; phase < LOAD_PHASES; phase++)
        if (all->latency[phase].total != 0)
            print_row(load_phase_names[phase], &all->latency[phase],
                      (double)all->latency[phase].total / summary->seconds);
    if (summary->problem[0] != '\0')
        printf("NOT VALID: %s\n", summary->problem);
}

static void print_json_latency(const struct load_histogram *latency) {
    printf("\"events\":%" PRIu64 ",\"mean_us\":%.2f,\"p50_us\":%.2f,\"p90_us\":%.2f,"
           "\"p99_us\":%.2f,\"p99_9_us\":%.2f,\"p99_99_us\":%.2f,\"max_us\":%.2f",
           latency->total, latency->total ? latency->sum_ns / (double)latency->total / 1e3 : 0,
           us(latency, 0.5), us(latency, 0.9), us(latency, 0.99), us(latency, 0.999),
           us(latency, 0.9999), (double)latency->max_ns / 1e3);
}

void load_print_json(const struct load_summary *summary, double knee) {
    static struct load_histogram whole;
    const struct load_outcome *all = &summary->all;
    const char *machine = getenv("TALLY_PERF_MACHINE"), *commit = getenv("TALLY_PERF_COMMIT");
    memset(&whole, 0, sizeof(whole));
    for (unsigned phase = 0; phase < LOAD_PHASES; phase++)
        load_histogram_merge(&whole, &all->latency[phase]);
    printf("{\"benchmark\":\"load\",\"workload\":\"%s\",\"arrival\":\"%s\",\"threads\":%u,"
           "\"batch\":%u,\"accounts\":%" PRIu64 ",\"zipf\":%g,",
           load_workload_names[summary->world->workload],
           load_arrival_names[summary->plan->arrival], summary->threads, summary->world->batch,
           summary->world->accounts, summary->world->keys.exponent);
    if (summary->plan->arrival != LOAD_CLOSED)
        printf("\"planned_rate\":%.0f,", summary->plan->rate * summary->threads);
    if (knee > 0)
        printf("\"knee\":%.0f,", knee);
    printf("\"figure\":%.0f,\"unit\":\"events/s\",\"seconds\":%.3f,", summary->rate,
           summary->seconds);
    print_json_latency(&whole);
    printf(",\"phases\":{");
    const char *comma = "";
    for (unsigned phase = LOAD_PHASE_ALL + 1; phase < LOAD_PHASES; phase++) {
        if (all->latency[phase].total == 0)
            continue;
        printf("%s\"%s\":{", comma, load_phase_names[phase]);
        print_json_latency(&all->latency[phase]);
        printf("}");
        comma = ",";
    }
    printf("},\"requests\":%" PRIu64 ",\"wrong\":%" PRIu64 ",\"unanswered\":%" PRIu64
           ",\"overloaded\":%" PRIu64 ",\"unsent\":%" PRIu64 ",\"datagrams\":%" PRIu64
           ",\"retransmissions\":%" PRIu64 ",\"valid\":%s,\"problem\":\"%s\",\"machine\":\"%s\","
           "\"commit\":\"%s\",\"checksum\":\"%016" PRIx64 "\",\"errors\":%" PRIu64 "}\n",
           all->requests, all->wrong, all->unanswered, all->overloaded, all->unsent,
           all->stats.datagrams_sent, all->stats.retransmissions,
           summary->problem[0] == '\0' ? "true" : "false", summary->problem,
           machine ? machine : "unknown", commit ? commit : "unknown", all->checksum,
           all->wrong + all->unanswered + all->overloaded);
}

int load_write_log(const struct load_summary *summary, const char *path, uint64_t start_ns) {
    FILE *file = fopen(path, "w");
    int rc = 0;
    if (file == NULL)
        return -errno;
    load_histogram_log_head(file, start_ns);
    if (summary->problem[0] != '\0')
        fprintf(file, "#[NOT VALID: %s]\n", summary->problem);
    for (unsigned phase = 0; rc == 0 && phase < LOAD_PHASES; phase++) {
        const char *tag = phase == LOAD_PHASE_ALL ? load_workload_names[summary->world->workload]
                                                  : load_phase_names[phase];
        if (summary->all.latency[phase].total != 0)
            rc = load_histogram_log(file, &summary->all.latency[phase], tag, 0, summary->seconds);
    }
    if (fclose(file) != 0 && rc == 0)
        rc = -errno;
    return rc;
}

int load_write_series(const struct load_summary *summary, const char *path) {
    FILE *file = fopen(path, "w");
    double length = (double)summary->plan->duration_ns / 1e9 / LOAD_SERIES;
    if (file == NULL)
        return -errno;
    fprintf(file, "seconds,planned_per_s,answered_per_s,p50_us,p99_us\n");
    for (unsigned i = 0; i < LOAD_SERIES; i++) {
        const struct load_stretch *stretch = &summary->all.series[i];
        fprintf(file, "%.3f,%.0f,%.0f,%.1f,%.1f\n", i * length, (double)stretch->planned / length,
                (double)stretch->answered / length,
                (double)load_stretch_quantile(stretch, 0.5) / 1e3,
                (double)load_stretch_quantile(stretch, 0.99) / 1e3);
    }
    return fclose(file) != 0 ? -errno : 0;
}
