/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <xxhash.h>

#include "tests/sim/oracle_internal.h"

/* Groups, after wal/FORMAT.md. */

#define PAGE 4096u
#define SECTOR 512u
#define HEADER_MAGIC 0x505247594c4c4154u
#define LOCAL_MAGIC 0x434f4c594c4c4154u

static void digest_of(const void *bytes, size_t length, uint8_t digest[16]) {
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes, length));
    memcpy(digest, canonical.digest, 16);
}

static bool digest_is(const void *bytes, size_t length, const uint8_t *digest) {
    uint8_t computed[16];
    digest_of(bytes, length, computed);
    return memcmp(computed, digest, 16) == 0;
}

static bool all_zero(const uint8_t *bytes, size_t length) {
    return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

bool log_header_good(const uint8_t *page, size_t length, size_t *group_bytes) {
    if (length < PAGE || u64_at(page, 0) != HEADER_MAGIC || u64_at(page, 3584) != LOCAL_MAGIC ||
        !digest_is(page, 3568, page + 3568) || !digest_is(page + 3584, 496, page + 4080))
        return false;
    *group_bytes = PAGE + u64_at(page, 64);
    return *group_bytes % PAGE == 0 && *group_bytes <= length;
}

/* --- what a group must be ------------------------------------------------------------------------------------------------------------ */

static bool check_fields(struct oracle *oracle, const uint8_t *page) {
    seq_t seq = u64_at(page, 40);
    if (memcmp(page + 16, oracle->config.cell_id, 16) != 0)
        return oracle_fail(oracle, "format", "group %" PRIu64 " is another cell's", seq);
    if (u32_at(page, 8) != 1 || u32_at(page, 12) != PAGE ||
        u64_at(page, 3592) != u64_at(page, 32) || u64_at(page, 3600) != seq ||
        !all_zero(page + 104, 24))
        return oracle_fail(oracle, "format", "group %" PRIu64 ": its header contradicts itself",
                           seq);
    if (u64_at(page, 72) >= seq || u64_at(page, 3608) >= seq)
        return oracle_fail(oracle, "format",
                           "group %" PRIu64 " says that %" PRIu64 " was committed, %" PRIu64
                           " durable",
                           seq, u64_at(page, 72), u64_at(page, 3608));
    return true;
}

/** What follows the newest group: number, digest, times. */
static bool check_follows(struct oracle *oracle, const uint8_t *page) {
    static const uint8_t nothing[16];
    const struct log_group *last =
        oracle->group_count ? &oracle->groups[oracle->group_count - 1] : NULL;
    seq_t seq = u64_at(page, 40);
    uint64_t horizon_ms = u64_at(page, 80), cell_time = u64_at(page, 88);
    if (seq != oracle->group_count + 1)
        return oracle_fail(oracle, "INV-6", "group %" PRIu64 " comes behind group %zu", seq,
                           oracle->group_count);
    if (memcmp(page + 48, last ? last->digest : nothing, 16) != 0)
        return oracle_fail(oracle, "INV-6",
                           "group %" PRIu64 " does not carry the digest of the one before it", seq);
    if (last && (u64_at(page, 32) < last->term || horizon_ms < last->horizon_ms ||
                 cell_time < last->cell_time))
        return oracle_fail(oracle, "INV-6",
                           "group %" PRIu64 ": term %" PRIu64 ", horizon %" PRIu64
                           " ms or cell time %" PRIu64 " fell (before: %" PRIu64 ", %" PRIu64
                           ", %" PRIu64 ")",
                           seq, u64_at(page, 32), horizon_ms, cell_time, last->term,
                           last->horizon_ms, last->cell_time);
    uint64_t back_ms = oracle->config.horizon_rises ? oracle->config.horizon_min_ms
                                                    : oracle->config.horizon_back_ms;
    if (oracle->config.id_time ? horizon_ms && horizon_ms + back_ms > cell_time / NS_PER_MS
                               : horizon_ms != 0)
        return oracle_fail(oracle, "horizon",
                           "group %" PRIu64 ": horizon %" PRIu64
                           " ms is too near its cell time, %" PRIu64 " ms",
                           seq, horizon_ms, cell_time / NS_PER_MS);
    return true;
}

static size_t record_bytes(const uint8_t *record, size_t left) {
    size_t length = left < 16 ? 0 : (size_t)record[1] * 16;
    return length > left || length > 256 ? 0 : length;
}

static size_t fixed_bytes(uint8_t type) {
    static const size_t sizes[] = {0, 80, 80, 80, 32, 48, 80, 32};
    return type < sizeof(sizes) / sizeof(sizes[0]) ? sizes[type] : 0;
}

struct records {
    struct log_record *list;
    size_t count, capacity;
};

static bool take_segment(struct oracle *oracle, const struct log_group *group, unsigned lcore,
                         struct records *records) {
    const seq_t seq = group->seq;
    const uint8_t *entry = group->bytes + 128 + lcore * 32, *body = group->bytes + PAGE;
    const size_t body_bytes = group->length - PAGE;
    size_t offset = u32_at(entry, 0), length = u32_at(entry, 4), count = u32_at(entry, 8);
    size_t padded = (length + PAGE - 1) / PAGE * PAGE;
    if (offset % PAGE || length % 16 || offset > body_bytes || padded > body_bytes - offset ||
        u32_at(entry, 12) != 0)
        return oracle_fail(oracle, "format", "group %" PRIu64 ": its directory is wrong", seq);
    if (!digest_is(body + offset, padded, entry + 16))
        return oracle_fail(oracle, "format", "group %" PRIu64 ": a segment's digest is wrong", seq);
    size_t found = 0;
    for (size_t at = 0; at < length; found++) {
        const uint8_t *record = body + offset + at;
        size_t bytes = record_bytes(record, length - at);
        size_t fixed = bytes ? fixed_bytes(record[0]) : 0;
        bool optional = record[0] == 1 || record[0] == 3;
        if (!fixed || bytes < fixed || (!optional && bytes != fixed))
            return oracle_fail(oracle, "format", "group %" PRIu64 ": a record is malformed", seq);
        struct log_record *taken =
            ORACLE_PUSH(oracle, records->list, records->count, records->capacity);
        *taken = (struct log_record){record, bytes, u64_at(record, 8), lcore, records->count};
        at += bytes;
    }
    if (found != count)
        return oracle_fail(oracle, "format", "group %" PRIu64 ": %zu records, the header says %zu",
                           seq, found, count);
    for (size_t at = length; at < padded; at++) {
        uint8_t want = at >= length + 8 ? 0xa5 : at == length ? 0xff : 0;
        if (body[offset + at] != want)
            return oracle_fail(oracle, "format", "group %" PRIu64 ": its padding is wrong", seq);
    }
    return true;
}

static int by_time(const void *left, const void *right) {
    const struct log_record *a = left, *b = right;
    if (a->decided != b->decided)
        return a->decided < b->decided ? -1 : 1;
    return a->order < b->order ? -1 : a->order > b->order;
}

static bool take_start(struct oracle *oracle, const struct log_group *group,
                       const struct log_record *record) {
    if (u64_at(record->bytes, 16) != group->term)
        return oracle_fail(oracle, "format",
                           "group %" PRIu64 " of term %" PRIu64 " starts term %" PRIu64, group->seq,
                           group->term, u64_at(record->bytes, 16));
    return true;
}

/** A record's time: within its group's, unique, and rising on its lcore. */
static bool check_time(struct oracle *oracle, const struct log_group *group,
                       const struct log_record *record) {
    uint64_t *newest = &oracle->ledger.newest[record->lcore];
    uint64_t low = record->decided & (timestamp_step(group->lcores) - 1);
    bool event = record->bytes[0] <= 4;
    if (record->decided > group->cell_time)
        return oracle_fail(oracle, "time",
                           "group %" PRIu64 ": a record of %" PRIu64
                           " is later than its cell time %" PRIu64,
                           group->seq, record->decided, group->cell_time);
    if (event ? record->decided <= *newest || low != record->lcore : record->decided < *newest)
        return oracle_fail(oracle, "time",
                           "group %" PRIu64 ": a record of %" PRIu64 " comes behind one of %" PRIu64
                           " on lcore %u",
                           group->seq, record->decided, *newest, record->lcore);
    *newest = record->decided;
    return true;
}

/** What each lcore says of a ledger counts together, where all of them say something. */
static bool check_totals(struct oracle *oracle, const struct log_group *group,
                         const struct records *records, const struct log_record *first) {
    struct balances sums = {0};
    uint32_t number = u32_at(first->bytes, 4), count = 0;
    for (size_t i = 0; i < records->count; i++) {
        const struct log_record *record = &records->list[i];
        if (record->bytes[0] != 6 || u32_at(record->bytes, 4) != number)
            continue;
        if (count == 0 && record != first)
            return true; /* looked at already */
        count++;
        sums.debits_pending += u128_at(record->bytes, 16);
        sums.debits_posted += u128_at(record->bytes, 32);
        sums.credits_pending += u128_at(record->bytes, 48);
        sums.credits_posted += u128_at(record->bytes, 64);
    }
    return count != group->lcores || ledger_check_total(oracle, group, number, &sums);
}

/** A new term begins behind everything that was before. */
static void begin_term(struct oracle *oracle, const struct log_group *group) {
    uint64_t newest = group->seq > 1 ? group[-1].cell_time : 0;
    for (unsigned i = 0; i < LCORES_MAX; i++) {
        if (oracle->ledger.newest[i] < newest)
            oracle->ledger.newest[i] = newest;
    }
}

/** Take a group's records in the order of their timestamps, then what they say about the state that they leave. */
static bool take_records(struct oracle *oracle, const struct log_group *group,
                         struct records *records) {
    if (records->count)
        qsort(records->list, records->count, sizeof(*records->list), by_time);
    bool new_term = group->seq == 1 || group[-1].term != group->term, started = false;
    if (new_term)
        begin_term(oracle, group);
    for (size_t i = 0; i < records->count; i++) {
        const struct log_record *record = &records->list[i];
        uint8_t type = record->bytes[0];
        started |= type == 7;
        if (new_term && !started)
            return oracle_fail(oracle, "format",
                               "group %" PRIu64 " of a new term does not begin with START",
                               group->seq);
        if (!check_time(oracle, group, record) || (type == 7 && !take_start(oracle, group, record)))
            return false;
        if (type <= 4 && !ledger_apply(oracle, group, record))
            return false;
    }
    if (started != new_term)
        return oracle_fail(oracle, "format",
                           "group %" PRIu64 ", term %" PRIu64 ": START where none belongs, or none",
                           group->seq, group->term);
    if (!explain_chains(oracle, group) || !ledger_group_end(oracle, group))
        return false;
    for (size_t i = 0; i < records->count; i++) {
        const struct log_record *record = &records->list[i];
        if (record->bytes[0] == 5 && !ledger_check_digest(oracle, group, record))
            return false;
        if (record->bytes[0] == 6 && !check_totals(oracle, group, records, record))
            return false;
    }
    return true;
}

/** The next group of the log is durable. */
static bool take_next(struct oracle *oracle, const uint8_t *bytes, size_t length) {
    struct records records = {0};
    if (!check_follows(oracle, bytes))
        return false;
    seq_t seq = u64_at(bytes, 40);
    struct log_group *group =
        ORACLE_PUSH(oracle, oracle->groups, oracle->group_count, oracle->group_capacity);
    *group = (struct log_group){
        .seq = seq,
        .term = u64_at(bytes, 32),
        .horizon_ms = u64_at(bytes, 80),
        .cell_time = u64_at(bytes, 88),
        .bytes = oracle_take(oracle, length),
        .length = length,
    };
    memcpy(group->digest, bytes + 3568, 16);
    memcpy(group->bytes, bytes, length);
    for (size_t at = 0; at < length; at += SECTOR) {
        if (all_zero(bytes + at, SECTOR))
            return oracle_fail(oracle, "format", "group %" PRIu64 " has a sector of zeros", seq);
    }
    uint32_t segments = u32_at(bytes, 100);
    if (segments < 1 || segments > LCORES_MAX)
        return oracle_fail(oracle, "format", "group %" PRIu64 " has %" PRIu32 " segments", seq,
                           segments);
    group->lcores = segments;
    for (uint32_t i = 0; i < segments; i++) {
        if (!take_segment(oracle, group, i, &records))
            return false;
    }
    oracle->counts.groups++;
    return take_records(oracle, group, &records);
}

bool log_group_take(struct oracle *oracle, const uint8_t *bytes, size_t length) {
    size_t whole;
    if (!log_header_good(bytes, length, &whole) || whole != length)
        return oracle_fail(oracle, "format", "a write of %zu bytes to the log is no whole group",
                           length);
    if (!check_fields(oracle, bytes))
        return false;
    return take_next(oracle, bytes, length);
}

/* --- as it is written -------------------------------------------------------------------------------------------------------------- */

bool oracle_group_submitted(struct oracle *oracle, const void *bytes, size_t length) {
    size_t whole;
    if (oracle->violation[0])
        return false;
    if (length < PAGE || u64_at(bytes, 0) != HEADER_MAGIC)
        return true;
    if (!log_header_good(bytes, length, &whole) || whole != length)
        return oracle_fail(oracle, "format", "a write of %zu bytes to the log is no whole group",
                           length);
    if (u64_at(bytes, 72) > oracle->group_count || u64_at(bytes, 3608) > oracle->group_count)
        return oracle_fail(oracle, "INV-3",
                           "group %" PRIu64 " says that %" PRIu64 " is committed and %" PRIu64
                           " durable, and only %zu is",
                           u64_at(bytes, 40), u64_at(bytes, 72), u64_at(bytes, 3608),
                           oracle->group_count);
    return check_fields(oracle, bytes);
}

bool oracle_group_durable(struct oracle *oracle, const void *bytes, size_t length) {
    if (oracle->violation[0])
        return false;
    if (length < PAGE || u64_at(bytes, 0) != HEADER_MAGIC)
        return true;
    seq_t seq = u64_at(bytes, 40);
    if (seq <= oracle->group_count)
        return oracle_fail(oracle, "INV-6", "group %" PRIu64 " is written again", seq);
    if (seq > oracle->group_count + 1) {
        struct log_group *early =
            ORACLE_PUSH(oracle, oracle->early, oracle->early_count, oracle->early_capacity);
        *early = (struct log_group){.seq = seq, .length = length};
        early->bytes = oracle_take(oracle, length);
        memcpy(early->bytes, bytes, length);
        return true;
    }
    if (!log_group_take(oracle, bytes, length))
        return false;
    for (size_t i = 0; i < oracle->early_count; i++) {
        if (oracle->early[i].seq != oracle->group_count + 1)
            continue;
        struct log_group next = oracle->early[i];
        oracle->early[i] = oracle->early[--oracle->early_count];
        if (!log_group_take(oracle, next.bytes, next.length))
            return false;
        i = (size_t)-1; /* from the first again: maybe the one behind it is here, too */
    }
    return true;
}

void oracle_read_failed(struct oracle *oracle) {
    oracle->read_failed = true;
}

/* --- as it is found again ------------------------------------------------------------------------------------------------------------- */

void oracle_stopped(struct oracle *oracle) {
    oracle->early_count = 0;
    oracle->shown_volatile = oracle->shown_durable;
    oracle->shown_newest_at = oracle->shown_durable_at;
    oracle->shown_clock = 0;
    for (struct net_session *session = oracle->all_sessions; session; session = session->next) {
        if (!session->dead) {
            session->dead = true;
            session->dead_seq = UINT64_MAX; /* until the log has been seen again */
        }
    }
}

bool oracle_log_begin(struct oracle *oracle, uint64_t behind, bool may_lose) {
    if (oracle->violation[0])
        return false;
    oracle->showing = true;
    oracle->may_lose = may_lose;
    oracle->shown_seq = behind;
    oracle->shown_behind = false;
    oracle->counts.restarts++;
    return true;
}

void log_forget_behind(struct oracle *oracle, seq_t seq) {
    struct log_group *groups = oracle->groups;
    oracle->groups = NULL;
    oracle->group_count = oracle->group_capacity = 0;
    oracle->ledger = (struct ledger){0};
    oracle->lost = true;
    for (seq_t i = 0; i < seq; i++) {
        if (!log_group_take(oracle, groups[i].bytes, groups[i].length))
            return;
    }
    oracle->shown_durable = oracle->shown_volatile = 0;
    oracle->shown_durable_at = oracle->shown_newest_at = 0;
}

/** A group that was found. @return false: wrong */
static bool show_group(struct oracle *oracle, const uint8_t *bytes, size_t length) {
    seq_t seq = u64_at(bytes, 40);
    if (oracle->shown_seq && seq != oracle->shown_seq + 1)
        return oracle_fail(oracle, "INV-6", "group %" PRIu64 " comes behind group %" PRIu64, seq,
                           oracle->shown_seq);
    if (seq > oracle->group_count + 1)
        return oracle_fail(oracle, "INV-3", "the log begins with group %" PRIu64 " behind %zu", seq,
                           oracle->group_count);
    oracle->shown_seq = seq;
    if (seq > oracle->group_count)
        return log_group_take(oracle, bytes, length);
    const struct log_group *known = &oracle->groups[seq - 1];
    if (known->length == length && memcmp(known->bytes, bytes, 3584) == 0 &&
        memcmp(known->bytes + PAGE, bytes + PAGE, length - PAGE) == 0)
        return true;
    if (!oracle->may_lose)
        return oracle_fail(oracle, "INV-6", "group %" PRIu64 " is another one than before", seq);
    log_forget_behind(oracle, seq - 1);
    return log_group_take(oracle, bytes, length);
}

bool oracle_log_file(struct oracle *oracle, const void *bytes, size_t length) {
    const uint8_t *file = bytes;
    size_t at = 0, whole;
    if (oracle->violation[0])
        return false;
    while (at < length && log_header_good(file + at, length - at, &whole)) {
        if (oracle->shown_behind)
            break;
        if (!show_group(oracle, file + at, whole))
            return false;
        at += whole;
    }
    if (!all_zero(file + at, length - at)) {
        if (!oracle->may_lose)
            return oracle_fail(oracle, "torn tail", "behind group %" PRIu64 " the log is not zero",
                               oracle->shown_seq);
        oracle->shown_behind = true;
    }
    return true;
}

bool oracle_log_end(struct oracle *oracle) {
    if (oracle->violation[0])
        return false;
    oracle->showing = false;
    if (oracle->shown_seq < oracle->group_count) {
        if (!oracle->may_lose)
            return oracle_fail(oracle, "INV-3",
                               "the log ends with group %" PRIu64 ", and %zu was durable",
                               oracle->shown_seq, oracle->group_count);
        log_forget_behind(oracle, oracle->shown_seq);
    }
    for (struct net_session *session = oracle->all_sessions; session; session = session->next) {
        if (session->dead && session->dead_seq > oracle->group_count)
            session->dead_seq = oracle->group_count;
    }
    return !oracle->violation[0];
}

/* --- time ------------------------------------------------------------------------------------------------------------------------------ */

const struct log_group *log_group_at(const struct oracle *oracle, uint64_t decided) {
    size_t low = 0, high = oracle->group_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (oracle->groups[middle].cell_time < decided)
            low = middle + 1;
        else
            high = middle;
    }
    return low < oracle->group_count ? &oracle->groups[low] : NULL;
}

unsigned log_lcores(const struct oracle *oracle, term_t term) {
    const struct log_group *last =
        oracle->group_count ? &oracle->groups[oracle->group_count - 1] : NULL;
    return last && last->term == term ? last->lcores : 0;
}

uint64_t timestamp_step(unsigned lcores) {
    uint64_t step = 1;
    while (step < lcores)
        step *= 2;
    return step;
}

unsigned log_moments(const struct oracle *oracle, uint64_t decided, struct moment *moments) {
    const struct oracle_config *config = &oracle->config;
    unsigned count = 0;
    seq_t last = oracle->group_count;
    const struct log_group *group = log_group_at(oracle, decided);
    seq_t seq = group ? group->seq : last + 1;
    /* Decided when a group ended on this lcore, it can have been in the next one already. One lcore may be a group ahead of another. */
    unsigned lcores = last ? oracle->groups[last - 1].lcores : 1;
    for (bool more = true; more && count < MOMENTS_MAX - 1 && seq <= last; seq++) {
        group = &oracle->groups[seq - 1];
        moments[count++] =
            (struct moment){position_make(seq, decided), config->id_time ? group->horizon_ms : 0};
        more = group->cell_time == decided || (lcores > 1 && count < 3);
        if (!more)
            return count;
    }
    uint64_t last_ms = last && config->id_time ? oracle->groups[last - 1].horizon_ms : 0;
    uint64_t back_ms = config->horizon_rises ? config->horizon_min_ms : config->horizon_back_ms;
    uint64_t now_ms = decided / NS_PER_MS;
    moments[count++] = (struct moment){position_make(seq, decided), last_ms};
    if (config->id_time && now_ms > back_ms && now_ms - back_ms > last_ms && count < MOMENTS_MAX)
        moments[count++] = (struct moment){position_make(seq, decided), now_ms - back_ms};
    return count;
}
