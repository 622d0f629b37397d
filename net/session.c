/* SPDX-License-Identifier: Apache-2.0 */
#include "net/session.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void *session_memory(size_t count, size_t bytes) {
    const size_t huge = 2u << 20;
    size_t total, align = CACHE_LINE_BYTES;
    if (__builtin_mul_overflow(count, bytes, &total) || total > SIZE_MAX - huge)
        return NULL;
    if (total >= huge)
        align = huge;
    total = (total + align - 1) & ~(align - 1);
    void *memory = aligned_alloc(align, total);
    if (memory == NULL)
        return NULL;
    if (align == huge)
        (void)madvise(memory, total, MADV_HUGEPAGE); /* only faster */
    memset(memory, 0, total);
    return memory;
}

/* --- stored replies --------------------------------------------------------------------------- */

static int reply_store_open(struct reply_store *store, unsigned count, size_t bytes) {
    store->stride = (bytes + CACHE_LINE_BYTES - 1) & ~(size_t)(CACHE_LINE_BYTES - 1);
    store->bytes = session_memory(count, store->stride);
    store->next = session_memory(count, sizeof(*store->next));
    store->lengths = session_memory(count, sizeof(*store->lengths));
    if (store->bytes == NULL || store->next == NULL || store->lengths == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < count; i++)
        store->next[i] = i + 1 < count ? i + 1 : NET_NONE;
    store->free = 0;
    store->free_count = count;
    return 0;
}

uint32_t reply_store_take(struct reply_store *store) {
    uint32_t index = store->free;
    assert(index != NET_NONE); /* credits and charges never exceed the buffers */
    store->free = store->next[index];
    store->free_count--;
    store->next[index] = NET_NONE;
    return index;
}

static void reply_store_give_back(struct reply_store *store, uint32_t chain) {
    while (chain != NET_NONE) {
        uint32_t next = store->next[chain];
        store->next[chain] = store->free;
        store->free = chain;
        store->free_count++;
        chain = next;
    }
}

/* --- the table -------------------------------------------------------------------------------- */

int session_table_open(struct session_table *table, const struct session_limits *limits) {
    memset(table, 0, sizeof(*table));
    assert(limits->session_max > 0 && limits->request_max >= limits->session_max);
    assert(limits->reply_buffers >= limits->request_max + NET_REPLY_DATAGRAMS_MAX);
    uint32_t buckets = 1;
    while (buckets < limits->session_max)
        buckets *= 2;
    table->session_max = limits->session_max;
    table->window = limits->window;
    table->bucket_mask = buckets - 1;
    table->sessions = session_memory(limits->session_max, sizeof(*table->sessions));
    table->slots =
        session_memory((size_t)limits->session_max * limits->window, sizeof(*table->slots));
    table->by_id = session_memory(buckets, sizeof(*table->by_id));
    table->by_instance = session_memory(buckets, sizeof(*table->by_instance));
    if (table->sessions == NULL || table->slots == NULL || table->by_id == NULL ||
        table->by_instance == NULL ||
        reply_store_open(&table->replies, limits->reply_buffers, limits->reply_bytes) != 0) {
        session_table_close(table);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < buckets; i++)
        table->by_id[i] = table->by_instance[i] = NET_NONE;
    for (uint32_t i = 0; i < limits->session_max; i++) {
        table->sessions[i].slots = table->slots + (size_t)i * limits->window;
        table->sessions[i].next_by_id = i + 1 < limits->session_max ? i + 1 : NET_NONE;
    }
    /* one half is shared out in advance, the rest is common */
    uint32_t share = limits->request_max / (2 * limits->session_max);
    share = share < 1 ? 1 : share;
    table->share = share < limits->window ? share : limits->window;
    table->request_max = limits->request_max;
    table->rest_max = limits->request_max - table->share * limits->session_max;
    table->charge_max = limits->reply_buffers - limits->request_max;
    return 0;
}

void session_table_close(struct session_table *table) {
    free(table->sessions);
    free(table->slots);
    free(table->by_id);
    free(table->by_instance);
    free(table->replies.bytes);
    free(table->replies.next);
    free(table->replies.lengths);
    memset(table, 0, sizeof(*table));
}

/* Ids are ours and random; instances are the client's, and one that picks them to collide slows
 * down nobody for long: chains are bounded by session_max, and only HELLOs with a good cookie walk
 * them. */
static uint32_t *bucket_of_id(const struct session_table *table, uint64_t id) {
    return &table->by_id[id & table->bucket_mask];
}

static uint32_t *bucket_of_instance(const struct session_table *table, const uint8_t instance[16]) {
    uint64_t low;
    memcpy(&low, instance, sizeof(low));
    return &table->by_instance[low & table->bucket_mask];
}

struct session *session_find(struct session_table *table, uint64_t id) {
    if (id == 0)
        return NULL;
    for (uint32_t i = *bucket_of_id(table, id); i != NET_NONE; i = table->sessions[i].next_by_id)
        if (table->sessions[i].id == id)
            return &table->sessions[i];
    return NULL;
}

struct session *session_find_instance(struct session_table *table, const uint8_t instance[16]) {
    uint32_t i = *bucket_of_instance(table, instance);
    for (; i != NET_NONE; i = table->sessions[i].next_by_instance)
        if (memcmp(table->sessions[i].instance, instance, 16) == 0)
            return &table->sessions[i];
    return NULL;
}

/* --- credit ----------------------------------------------------------------------------------- */

/** What a session holds above its share. */
static uint32_t credit_above_share(const struct session_table *table,
                                   const struct session *session) {
    uint64_t held = session->credit - session->edge;
    return held > table->share ? (uint32_t)(held - table->share) : 0;
}

/** Take from the rest or give back to it; the credit itself never falls.
 *  @param above  what the session held above its share before the caller changed something */
static void credit_advance(struct session_table *table, struct session *session, uint32_t above) {
    assert(table->rest_used >= above);
    table->rest_used -= above;
    uint32_t wanted = table->share + (table->rest_max - table->rest_used) / 8;
    if (wanted > table->window)
        wanted = table->window;
    wanted = wanted > session->charged ? wanted - session->charged : 0;
    if (session->edge + wanted > session->credit)
        session->credit = session->edge + wanted;
    table->rest_used += credit_above_share(table, session);
    assert(table->rest_used <= table->rest_max);
}

int session_reserve(struct session_table *table, struct session *session, struct slot *slot,
                    unsigned datagrams) {
    assert(datagrams >= 1 && datagrams <= NET_REPLY_DATAGRAMS_MAX);
    if (table->charge_used + datagrams - 1 > table->charge_max)
        return -EAGAIN;
    table->charge_used += datagrams - 1;
    session->charged += datagrams - 1;
    slot->datagrams = (uint8_t)datagrams;
    return 0;
}

void session_reserve_trim(struct session_table *table, struct session *session, struct slot *slot,
                          unsigned datagrams) {
    assert(datagrams >= 1 && datagrams <= slot->datagrams);
    uint32_t unused = slot->datagrams - datagrams;
    assert(session->charged >= unused && table->charge_used >= unused);
    session->charged -= unused;
    table->charge_used -= unused;
    slot->datagrams = (uint8_t)datagrams;
}

/* --- a session's life ------------------------------------------------------------------------- */

struct session *session_open(struct session_table *table, struct random *random,
                             const uint8_t instance[16], uint64_t now_ns) {
    uint32_t index = table->free;
    if (index == NET_NONE)
        return NULL;
    struct session *session = &table->sessions[index];
    uint64_t id;
    do
        random->fill(random, &id, sizeof(id));
    while (id == 0 || session_find(table, id) != NULL);

    table->free = session->next_by_id;
    struct slot *slots = session->slots;
    memset(session, 0, sizeof(*session));
    memset(slots, 0, table->window * sizeof(*slots));
    session->slots = slots;
    session->id = id;
    session->opened_ns = session->heard_ns = now_ns;
    memcpy(session->instance, instance, 16);
    uint32_t *bucket = bucket_of_id(table, id);
    session->next_by_id = *bucket;
    *bucket = index;
    bucket = bucket_of_instance(table, instance);
    session->next_by_instance = *bucket;
    *bucket = index;
    table->open_count++;
    credit_advance(table, session, 0);
    assert(session->credit > 0);
    return session;
}

bool session_end(struct session_table *table, struct session *session) {
    session->closing = true;
    if (session->in_progress > 0)
        return false;
    session_forget(table, session);
    return true;
}

void session_forget(struct session_table *table, struct session *session) {
    assert(session->id != 0 && session->in_progress == 0);
    uint32_t index = (uint32_t)(session - table->sessions);
    for (uint64_t n = session->edge + 1; n <= session->credit; n++)
        if (session_slot(table, session, n)->state == SLOT_REPLIED)
            reply_store_give_back(&table->replies, session_slot(table, session, n)->reply);
    table->rest_used -= credit_above_share(table, session);
    table->charge_used -= session->charged;

    uint32_t *link = bucket_of_id(table, session->id);
    while (*link != index)
        link = &table->sessions[*link].next_by_id;
    *link = session->next_by_id;
    link = bucket_of_instance(table, session->instance);
    while (*link != index)
        link = &table->sessions[*link].next_by_instance;
    *link = session->next_by_instance;

    session->id = 0;
    session->next_by_id = table->free;
    table->free = index;
    table->open_count--;
}

/* --- counters --------------------------------------------------------------------------------- */

static uint64_t *seen_word(struct session *session, uint64_t counter) {
    return &session->rx_seen[counter % NET_REPLAY_WINDOW / 64];
}

bool session_counter_fresh(const struct session *session, uint64_t counter) {
    if (counter > session->rx_counter)
        return true;
    if (counter == 0 || session->rx_counter - counter >= NET_REPLAY_WINDOW)
        return false;
    return !(session->rx_seen[counter % NET_REPLAY_WINDOW / 64] >> (counter % 64) & 1);
}

void session_counter_note(struct session *session, uint64_t counter) {
    if (counter > session->rx_counter) {
        if (counter - session->rx_counter >= NET_REPLAY_WINDOW)
            memset(session->rx_seen, 0, sizeof(session->rx_seen));
        else
            for (uint64_t c = session->rx_counter + 1; c < counter; c++)
                *seen_word(session, c) &= ~(1ull << (c % 64));
        session->rx_counter = counter;
    }
    *seen_word(session, counter) |= 1ull << (counter % 64);
}

/* --- acknowledgements ------------------------------------------------------------------------- */

bool session_acknowledgement_valid(const struct session_table *table, const struct session *session,
                                   uint64_t acknowledged) {
    if (acknowledged > session->credit)
        return false;
    for (uint64_t n = session->edge + 1; n <= acknowledged; n++)
        if (session_slot(table, session, n)->state != SLOT_REPLIED)
            return false;
    return true;
}

void session_acknowledge(struct session_table *table, struct session *session,
                         uint64_t acknowledged) {
    uint32_t above = credit_above_share(table, session);
    while (session->edge < acknowledged) {
        struct slot *slot = session_slot(table, session, session->edge + 1);
        assert(slot->state == SLOT_REPLIED);
        reply_store_give_back(&table->replies, slot->reply);
        session->charged -= slot->datagrams - 1u;
        table->charge_used -= slot->datagrams - 1u;
        *slot = (struct slot){.state = SLOT_FREE, .reply = NET_NONE};
        session->edge++;
    }
    credit_advance(table, session, above);
}
