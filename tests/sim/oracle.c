/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "tests/sim/oracle_internal.h"

#define BLOCK_BYTES ((size_t)256 << 10)

/* --- open and close ------------------------------------------------------------------------------------------------------------ */

struct oracle *oracle_open(const struct oracle_config *config) {
    struct oracle *oracle = calloc(1, sizeof(*oracle));
    if (oracle)
        oracle->config = *config;
    return oracle;
}

void oracle_close(struct oracle *oracle) {
    if (!oracle)
        return;
    while (oracle->blocks) {
        struct oracle_block *block = oracle->blocks;
        oracle->blocks = block->next;
        free(block);
    }
    free(oracle);
}

/* --- what is wrong --------------------------------------------------------------------------------------------------------------- */

bool oracle_fail(struct oracle *oracle, const char *check, const char *format, ...) {
    if (oracle->violation[0])
        return false;
    int used = snprintf(oracle->violation, sizeof(oracle->violation), "%s: ", check);
    snprintf(oracle->check, sizeof(oracle->check), "%s", check);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(oracle->violation + used, sizeof(oracle->violation) - (size_t)used, format,
              arguments);
    va_end(arguments);
    return false;
}

const char *oracle_violation(const struct oracle *oracle) {
    return oracle->violation[0] ? oracle->violation : NULL;
}

const char *oracle_check(const struct oracle *oracle) {
    return oracle->check[0] ? oracle->check : NULL;
}

const char *oracle_id(uint128_t id) {
    static _Thread_local char buffers[8][36];
    static _Thread_local unsigned next;
    char *buffer = buffers[next++ % 8];
    if (id >> 64)
        snprintf(buffer, sizeof(buffers[0]), "%" PRIx64 "%016" PRIx64, (uint64_t)(id >> 64),
                 (uint64_t)id);
    else
        snprintf(buffer, sizeof(buffers[0]), "%" PRIx64, (uint64_t)id);
    return buffer;
}

/* --- memory ------------------------------------------------------------------------------------------------------------------------ */

void *oracle_take(struct oracle *oracle, size_t bytes) {
    bytes = (bytes + 15) & ~(size_t)15;
    struct oracle_block *block = oracle->blocks;
    if (!block || block->size - block->used < bytes) {
        size_t size = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
        block = aligned_alloc(16, sizeof(*block) + size);
        if (!block) {
            fputs("the oracle has no memory\n", stderr);
            abort();
        }
        block->next = oracle->blocks;
        block->used = 0;
        block->size = size;
        oracle->blocks = block;
    }
    void *taken = block->bytes + block->used;
    block->used += bytes;
    return memset(taken, 0, bytes);
}

void *oracle_grow(struct oracle *oracle, void *array, size_t count, size_t *capacity,
                  size_t bytes) {
    if (count < *capacity)
        return array;
    *capacity = *capacity ? *capacity * 2 : 4;
    void *larger = oracle_take(oracle, *capacity * bytes);
    if (count)
        memcpy(larger, array, count * bytes);
    return larger;
}

static size_t key_hash(uint128_t key) {
    uint64_t mixed = (uint64_t)key * 0x9e3779b97f4a7c15u ^ (uint64_t)(key >> 64);
    mixed = (mixed ^ mixed >> 29) * 0xbf58476d1ce4e5b9u;
    return (size_t)(mixed ^ mixed >> 32);
}

static struct oracle_slot *slot_of(const struct oracle_map *map, uint128_t key) {
    size_t i = key_hash(key) & (map->slot_count - 1);
    while (map->slots[i].value && map->slots[i].key != key)
        i = (i + 1) & (map->slot_count - 1);
    return &map->slots[i];
}

void *oracle_map_get(const struct oracle_map *map, uint128_t key) {
    return map->slot_count ? slot_of(map, key)->value : NULL;
}

void oracle_map_put(struct oracle *oracle, struct oracle_map *map, uint128_t key, void *value) {
    if (map->count * 2 >= map->slot_count) {
        struct oracle_map larger = {.slot_count = map->slot_count ? map->slot_count * 2 : 16,
                                    .count = map->count};
        larger.slots = oracle_take(oracle, larger.slot_count * sizeof(*larger.slots));
        for (size_t i = 0; i < map->slot_count; i++) {
            if (map->slots[i].value)
                *slot_of(&larger, map->slots[i].key) = map->slots[i];
        }
        *map = larger;
    }
    struct oracle_slot *slot = slot_of(map, key);
    if (!slot->value)
        map->count++;
    *slot = (struct oracle_slot){key, value};
}

/* --- looking in ---------------------------------------------------------------------------------------------------------------------- */

void oracle_counts(const struct oracle *oracle, struct oracle_counts *counts) {
    *counts = oracle->counts;
    counts->accounts = oracle->ledger.account_count;
    counts->transfers = oracle->ledger.transfer_count;
    counts->burnt = oracle->ledger.burnt_count;
    counts->expired = oracle->ledger.expired_count;
    counts->committed_seq = oracle->group_count;
}

bool oracle_account(const struct oracle *oracle, uint128_t id, struct account *account) {
    const struct ledger_account *known = ledger_account_get(oracle, id);
    return known && ledger_account_as_of(known, ~(position_t)0, account);
}
