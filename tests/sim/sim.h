/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_TESTS_SIM_SIM_H
#define TALLY_TESTS_SIM_SIM_H

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/types.h"

/** What every part of a simulated world shares: its time, its randomness, what was done to it, and what went wrong.
 *  One seed is one history, bit for bit: whatever happens goes into `digest`, and nothing outside of it decides anything.
 *  Flow:  sim_plan -> sim_world -> disk, network, nodes, clients -> [sim] -> summary, trace
 *  Owner: one world. No thread, global or clock of the machine inside. */

/** Faults by kind. X(name, malign, what). A malign one may lose what was durable; the others never may. */
#define SIM_FAULT_TABLE(X)                                                                         \
    X(packet_lost, false, "packets lost")                                                          \
    X(packet_doubled, false, "packets that arrived twice")                                         \
    X(packet_delayed, false, "packets delayed beyond those behind them")                           \
    X(packet_flipped, false, "packets with a bit flipped")                                         \
    X(packet_forged, false, "packets made of anything, with sound checksums")                      \
    X(link_cut, false, "one-way cuts between a client and the node")                               \
    X(port_full, false, "packets that the node's port did not take")                               \
    X(ring_delayed, false, "turns of one lcore held back against the other")                       \
    X(node_paused, false, "pauses of the node")                                                    \
    X(node_killed, false, "node killed; what the disk had in flight still arrives")                \
    X(power_cut, false, "power cuts at any moment")                                                \
    X(power_cut_at_io, false, "power cuts at a boundary of an operation of the disk")              \
    X(power_cut_in_start, false, "power cuts while the node starts")                               \
    X(node_stopped, false, "orderly stops")                                                        \
    X(write_torn, false, "writes of which a power cut left some sectors")                          \
    X(write_unsynced_lost, false, "unsynced bytes that a power cut took")                          \
    X(write_failed, false, "writes answered with EIO, some sectors written")                       \
    X(write_short, false, "short writes")                                                          \
    X(write_slow, false, "operations of the disk slower than a hundred others")                    \
    X(read_failed, false, "reads answered with EIO")                                               \
    X(create_failed, false, "files that could not be made, synced, published or removed: EIO")     \
    X(disk_full, false, "files that could not be made or grown: ENOSPC")                           \
    X(queue_full, false, "operations that the disk's queue did not take")                          \
    X(clock_jumped, false, "jumps of the time of day")                                             \
    X(clock_drifted, false, "drifts of the time of day")                                           \
    X(clock_frozen, false, "freezes of the time of day")                                           \
    X(checkpoint_wanted, false,                                                                    \
      "checkpoints that somebody asked for (no fault, but a disturbance)")                         \
    X(client_crashed, false, "clients that died and came back")                                    \
    X(client_left, false, "clients that said goodbye and came back")                               \
    X(read_flipped, true, "reads with a bit flipped on their way")                                 \
    X(bit_rotted, true, "bits, sectors or pages that rotted")                                      \
    X(write_lost, true, "writes reported as done and never made")                                  \
    X(write_misdirected, true, "writes made at another place")                                     \
    X(write_holed, true, "writes reported as done and made by half")                               \
    X(sync_lied, true, "writes reported as durable and not so")                                    \
    X(file_lost, true, "files that vanished")

enum sim_fault {
#define X(name, malign, what) SIM_FAULT_##name,
    SIM_FAULT_TABLE(X)
#undef X
        SIM_FAULTS
};

#define SIM_OPERATIONS 5 /**< enum operation, from 1 */

struct sim {
    uint64_t seed;
    uint64_t now_ns; /**< simulated time since the world began */
    uint64_t digest; /**< over all that happened */
    bool tracing;
    bool failed;
    char violation[600]; /**< of the first one */
    uint64_t faults[SIM_FAULTS];
    /** What clients were told: by operation, and by status (its low 8 bits; `created` is 255). */
    uint64_t told[SIM_OPERATIONS][256];
};

/** A generator of its own for each part of the world, so that one more draw here moves nothing there. splitmix64. */
struct sim_random {
    uint64_t state;
};

static inline uint64_t sim_mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline struct sim_random sim_random_make(uint64_t seed, uint64_t part) {
    return (struct sim_random){sim_mix(seed + 0x9e3779b97f4a7c15u * (part + 1))};
}

static inline uint64_t sim_draw(struct sim_random *random) {
    return sim_mix(random->state += 0x9e3779b97f4a7c15u);
}

/** 0 .. count-1; 0 of nothing. */
static inline uint64_t sim_below(struct sim_random *random, uint64_t count) {
    return count ? sim_draw(random) % count : 0;
}

/** low .. high, both included. */
static inline uint64_t sim_between(struct sim_random *random, uint64_t low, uint64_t high) {
    return low + sim_below(random, high - low + 1);
}

/** Whether one of `per_million` cases is this one. */
static inline bool sim_chance(struct sim_random *random, uint32_t per_million) {
    return per_million && sim_below(random, 1000000) < per_million;
}

/** One draw a statement: the order of two in one expression is the compiler's choice, and a seed is the same with every compiler. */
static inline uint128_t sim_draw_128(struct sim_random *random) {
    uint64_t high = sim_draw(random);
    return uint128_make(high, sim_draw(random));
}

/** low .. high, each doubling equally likely. */
static inline uint64_t sim_spread(struct sim_random *random, uint64_t low, uint64_t high) {
    uint64_t top = low;
    unsigned doublings = 0;
    while (top < high / 2) {
        top *= 2;
        doublings++;
    }
    top = low << sim_below(random, doublings + 1);
    uint64_t drawn = sim_between(random, top, 2 * top);
    return drawn < high ? drawn : high;
}

/** Put something that happened into the history. */
static inline void sim_note(struct sim *sim, uint64_t what) {
    sim->digest = sim_mix(sim->digest ^ what) + 0x9e3779b97f4a7c15u;
}
void sim_note_bytes(struct sim *sim, const void *bytes, size_t length);

/** Count a fault, and note it. */
void sim_fault(struct sim *sim, enum sim_fault fault);
bool sim_fault_malign(enum sim_fault fault);
const char *sim_fault_name(enum sim_fault fault);
const char *sim_fault_what(enum sim_fault fault);

/** Something that must never be. The first one is kept; the world ends. */
void sim_violation(struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** One line of the trace: time, who, what. */
void sim_say(const struct sim *sim, const char *who, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#define SIM_TRACE(sim, who, ...)                                                                   \
    do {                                                                                           \
        if ((sim)->tracing)                                                                        \
            sim_say((sim), (who), __VA_ARGS__);                                                    \
    } while (0)

#endif
