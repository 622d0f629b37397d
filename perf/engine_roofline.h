/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_PERF_ENGINE_ROOFLINE_H
#define TALLY_PERF_ENGINE_ROOFLINE_H

#include <stddef.h>
#include <stdint.h>

/** What the memory of this machine allows: per event the same random cache lines as a transfer touches (2 of an account index, 4 of
 *  accounts, 1 of an id index) and 80 bytes of log written, prefetched burst by burst as the engine does, with no logic at all. */
struct roofline {
    uint64_t random;
    uint64_t checksum;
    size_t index_lines, account_lines, id_lines;
    uint8_t *index, *accounts, *ids, *log;
};

/** @return 0 or -1 for lack of memory */
int roofline_open(struct roofline *roofline, uint64_t accounts);
/** @return ns that `events` events took */
uint64_t roofline_slice(struct roofline *roofline, uint64_t events);

#endif
