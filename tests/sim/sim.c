/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim.h"

#include <stdarg.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static const struct {
    const char *name, *what;
    bool malign;
} faults[SIM_FAULTS] = {
#define X(name, malign, what) [SIM_FAULT_##name] = {#name, what, malign},
    SIM_FAULT_TABLE(X)
#undef X
};

bool sim_fault_malign(enum sim_fault fault) {
    return faults[fault].malign;
}

const char *sim_fault_name(enum sim_fault fault) {
    return faults[fault].name;
}

const char *sim_fault_what(enum sim_fault fault) {
    return faults[fault].what;
}

void sim_fault(struct sim *sim, enum sim_fault fault) {
    sim->faults[fault]++;
    sim_note(sim, 0xfa00 + fault);
    SIM_TRACE(sim, "fault", "%s", faults[fault].name);
}

void sim_note_bytes(struct sim *sim, const void *bytes, size_t length) {
    sim_note(sim, XXH3_64bits(bytes, length));
}

void sim_say(const struct sim *sim, const char *who, const char *format, ...) {
    va_list arguments;
    printf("%6" PRIu64 ".%09" PRIu64 " %-8s ", sim->now_ns / NS_PER_SECOND,
           sim->now_ns % NS_PER_SECOND, who);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

void sim_violation(struct sim *sim, const char *format, ...) {
    if (sim->failed)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sim->violation, sizeof(sim->violation), format, arguments);
    va_end(arguments);
    sim->failed = true;
    SIM_TRACE(sim, "VIOLATED", "%s", sim->violation);
}
