/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/engine/checkpoint_fixture.h"
#include "wal/checkpoint_check.h"

/** A good checkpoint, made once from a random history, with bytes changed: what is not noticed by the digests is restored into a
 *  fresh engine. What must hold: a change without a new digest is noticed; whatever is refused is refused with one line of
 *  text; nothing is read or written outside (the sanitizers watch).
 *
 *  byte 0: bit 0 sign again, bits 1-2 workers; then 6 bytes an edit: where (chunk, or the manifest), how, value, offset, width
 *  Needs no corpus. */

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

enum { GROUPS = 14, EDIT_BYTES = 6 };

static struct node good;
static struct checkpoint_manifest good_manifest;
static struct checkpoint_chunk *copies;

static void check(bool condition, const char *what) {
    if (condition)
        return;
    fprintf(stderr, "does not hold: %s\n", what);
    abort();
}

static void make_good(void) {
    static struct node_batch batch;
    struct history history = {.random = 11, .accounts_max = 60};
    const struct node_config config = {.partitions = 4,
                                       .checkpoint_chunks = 32,
                                       .memory_bytes = (size_t)48 << 20,
                                       .id_time = true,
                                       .horizon_back_ms = 20000};
    struct snapshot at;
    node_open(&good, &config);
    node_begin(&good, 0, NODE_START_NS, NODE_START_NS / NS_PER_MS - 20000);
    for (unsigned i = 0; i < GROUPS; i++) {
        good.now_ns += 5 * NS_PER_MS;
        history_next(&history, good.now_ns, &batch);
        check(node_run(&good, &batch.request), "a history is lived");
        node_seal(&good, false);
    }
    snapshot_take(&good, &at);
    node_seal(&good, true);
    const struct node_group group = good.groups[good.group_count - 1];
    while (!good.complete) {
        checkpoint_walk(good.lcore, 50);
        node_chunks(&good, 8);
    }
    node_manifest(&good, &group, at.digest, &good_manifest);
    good_manifest.magic = CHECKPOINT_MANIFEST_MAGIC;
    good_manifest.version = CHECKPOINT_FORMAT_VERSION;
    good_manifest.bytes = WAL_PAGE_BYTES;
    good_manifest.term = 1;
    good_manifest.log_file = 1;
    good_manifest.log_file_bytes = 16u << 20;
    good_manifest.published = group.cell_time;
    memset(good_manifest.cell_id, 7, sizeof(good_manifest.cell_id));
    for (unsigned i = 0; i < good.chunk_count; i++) {
        struct checkpoint_chunk *chunk = &good.chunks[i];
        chunk->header.number = i;
        memcpy(chunk->header.cell_id, good_manifest.cell_id, sizeof(chunk->header.cell_id));
        checkpoint_chunk_seal(chunk);
    }
    checkpoint_manifest_seal(&good_manifest);
    snapshot_release(&at);
    copies = malloc(good.chunk_count * sizeof(*copies));
    check(copies != NULL, "there is memory");
}

/** Where an edit goes: mostly the head and the first records of a chunk, where it means something. */
static uint8_t *place(struct checkpoint_manifest *manifest, const uint8_t *edit, size_t *room) {
    uint32_t offset = (uint32_t)(edit[3] | edit[4] << 8);
    if (edit[0] % (good.chunk_count + 1) == good.chunk_count) {
        offset %= WAL_PAGE_BYTES - WAL_DIGEST_BYTES;
        *room = WAL_PAGE_BYTES - WAL_DIGEST_BYTES - offset;
        return (uint8_t *)manifest + offset;
    }
    struct checkpoint_chunk *chunk = &copies[edit[0] % (good.chunk_count + 1)];
    size_t used = sizeof(chunk->header) +
                  (size_t)good.chunks[chunk - copies].header.records * 160 % sizeof(chunk->payload);
    size_t limit = edit[5] & 0x80 ? sizeof(*chunk) - WAL_DIGEST_BYTES : used;
    offset = (uint32_t)(((uint64_t)offset * (edit[5] & 0x40 ? 2 : 1)) % limit);
    *room = limit - offset;
    return (uint8_t *)chunk + offset;
}

static void edit_one(struct checkpoint_manifest *manifest, const uint8_t *edit) {
    size_t room;
    uint8_t *at = place(manifest, edit, &room);
    size_t width = edit[5] & 8 ? 16 : 1u << (edit[5] & 3);
    width = width < room ? width : room;
    switch (edit[1] % 5) {
    case 0:
        at[0] = edit[2];
        break;
    case 1:
        at[0] ^= (uint8_t)(1u << (edit[2] & 7));
        break;
    case 2:
        memset(at, edit[2] & 1 ? 0xff : 0, width);
        break;
    case 3: /* one more, one less */
        at[0] = (uint8_t)(at[0] + (edit[2] & 1 ? 1 : -1));
        break;
    case 4: { /* another chunk's bytes */
        const struct checkpoint_chunk *from = &good.chunks[edit[2] % good.chunk_count];
        size_t bytes = width * 16 < room ? width * 16 : room;
        if ((const uint8_t *)manifest > at || at >= (const uint8_t *)(manifest + 1))
            memcpy(at, (const uint8_t *)from + (at - (uint8_t *)copies) % sizeof(*from), bytes);
        break;
    }
    }
}

/** @return whether everything passes the checks that need no engine */
static bool judged_good(const struct checkpoint_manifest *manifest, bool same) {
    const char *why = NULL;
    if (checkpoint_manifest_check(manifest, NULL, manifest->seq, &why) != WAL_PAGE_GOOD) {
        check(why != NULL && *why != 0, "a refused manifest is explained");
        check(!same, "a good manifest is good");
        return false;
    }
    for (unsigned i = 0; i < good.chunk_count; i++) {
        why = NULL;
        if (checkpoint_chunk_check(&copies[i], manifest, i, &why) != WAL_PAGE_GOOD) {
            check(why != NULL && *why != 0, "a refused chunk is explained");
            check(!same, "good chunks are good");
            return false;
        }
    }
    return manifest->chunk_count == good.chunk_count;
}

static void restore(const struct checkpoint_manifest *manifest, unsigned workers, bool same) {
    static struct node to;
    char error[512] = "";
    node_open(&to, &good.config);
    struct checkpoint_chunk *chunks = good.chunks;
    good.chunks = copies;
    int rc = node_restore(&to, &good, manifest, workers, manifest->seq, error, sizeof(error));
    good.chunks = chunks;
    check(rc == 0 || (error[0] != 0 && strchr(error, '\n') == NULL), "a refusal has one line");
    check(rc == 0 || !same, "a good checkpoint is restored");
    node_close(&to);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length) {
    if (length == 0)
        return 0;
    if (copies == NULL)
        make_good();
    struct checkpoint_manifest manifest = good_manifest;
    memcpy(copies, good.chunks, good.chunk_count * sizeof(*copies));
    for (size_t at = 1; at + EDIT_BYTES <= length; at += EDIT_BYTES)
        edit_one(&manifest, input + at);
    bool same = memcmp(&manifest, &good_manifest, sizeof(manifest)) == 0 &&
                memcmp(copies, good.chunks, good.chunk_count * sizeof(*copies)) == 0;
    if (input[0] & 1) {
        for (unsigned i = 0; i < good.chunk_count; i++)
            wal_digest(&copies[i], offsetof(struct checkpoint_chunk, digest), copies[i].digest);
        wal_digest(&manifest, offsetof(struct checkpoint_manifest, digest), manifest.digest);
    } else {
        check(same || !judged_good(&manifest, false), "a change is noticed");
        if (!same)
            return 0;
    }
    if (judged_good(&manifest, same))
        restore(&manifest, 1 + (input[0] >> 1 & 3) % 3, same);
    return 0;
}
