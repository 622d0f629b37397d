/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/engine/recovery_fixture.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wal/checkpoint_check.h"

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("%s:%d: %s\n", __FILE__, __LINE__, #condition);                                 \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static uint8_t *file_bytes(const struct cell *cell, uint64_t file) {
    uint64_t size;
    uint8_t *bytes = disk_memory_bytes(cell->disk, file, &size);
    MUST(bytes);
    return bytes;
}

static void group_write(struct cell *cell, const struct node_group *group, uint64_t *file,
                        uint64_t *offset) {
    const uint64_t body = wal_page_align(group->length), bytes = WAL_PAGE_BYTES + body;
    MUST(bytes <= CELL_FILE_BYTES && group->seq == cell->last_seq + 1);
    if (*offset + bytes > CELL_FILE_BYTES) {
        *offset = 0;
        ++*file;
        MUST(disk_memory_resize(cell->disk, *file, CELL_FILE_BYTES) == 0);
    }
    uint8_t *at = file_bytes(cell, *file) + *offset, *segment = at + WAL_PAGE_BYTES;
    memcpy(segment, group->bytes, group->length);
    wal_segment_pad(segment, group->length);
    struct wal_header *header = (void *)at;
    struct wal_chained_header *chained = &header->chained;
    chained->magic = WAL_HEADER_MAGIC;
    chained->version = WAL_FORMAT_VERSION;
    chained->header_bytes = WAL_PAGE_BYTES;
    memcpy(chained->cell_id, cell->identity.cell_id, sizeof(chained->cell_id));
    chained->term = 1;
    chained->seq = group->seq;
    memcpy(chained->previous_digest, cell->places[cell->last_seq].digest, WAL_DIGEST_BYTES);
    chained->body_bytes = body;
    chained->horizon_ms = group->horizon_ms;
    chained->cell_time = group->cell_time;
    chained->groups_in_flight = 1;
    chained->segment_count = 1;
    chained->segments[0].length = group->length;
    chained->segments[0].records = group->records;
    wal_digest(segment, body, chained->segments[0].digest);
    header->local = (struct wal_local_block){.magic = WAL_LOCAL_MAGIC,
                                             .term = 1,
                                             .seq = group->seq,
                                             .durable_seq = group->seq - 1,
                                             .file_bytes = CELL_FILE_BYTES};
    wal_header_seal(header);
    *offset += bytes;
    cell->last_seq = group->seq;
    struct cell_place *place = &cell->places[group->seq];
    *place = (struct cell_place){*file, *offset, {0}};
    memcpy(place->digest, chained->digest, WAL_DIGEST_BYTES);
}

void cell_open(struct cell *cell, const struct node *node) {
    memset(cell, 0, sizeof(*cell));
    cell->identity = (struct wal_identity){.cell_id = "a cell in memory",
                                           .partitions = node->config.partitions,
                                           .id_time = node->config.id_time,
                                           .hash_seed = node->engine->config.hash_seed,
                                           .digest_seed = node->engine->config.digest_seed,
                                           .file_bytes = CELL_FILE_BYTES};
    cell->places = calloc(node->group_count + 1, sizeof(*cell->places));
    MUST(cell->places && disk_memory_open(&cell->disk) == 0);
    uint64_t file = 1, offset = 0;
    MUST(disk_memory_resize(cell->disk, file, CELL_FILE_BYTES) == 0);
    for (unsigned i = 0; i < node->group_count; i++)
        group_write(cell, &node->groups[i], &file, &offset);
    cell->last_file = file + 1;
    MUST(disk_memory_resize(cell->disk, cell->last_file, CELL_FILE_BYTES) == 0);
}

void cell_close(struct cell *cell) {
    disk_memory_close(cell->disk);
    free(cell->places);
}

uint64_t cell_data_file(seq_t seq) {
    return disk_file(DISK_CHECKPOINT_DATA, seq);
}

uint64_t cell_manifest_file(seq_t seq) {
    return disk_file(DISK_CHECKPOINT_MANIFEST, seq);
}

void cell_reseal(struct cell *cell, seq_t seq) {
    struct checkpoint_manifest *manifest = (void *)file_bytes(cell, cell_manifest_file(seq));
    struct checkpoint_chunk *chunks = (void *)file_bytes(cell, cell_data_file(seq));
    XXH3_state_t *state = XXH3_createState();
    XXH128_canonical_t canonical;
    XXH3_128bits_reset(state);
    for (uint64_t i = 0; i < manifest->chunk_count; i++) {
        checkpoint_chunk_seal(&chunks[i]);
        XXH3_128bits_update(state, chunks[i].digest, sizeof(chunks[i].digest));
    }
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state));
    XXH3_freeState(state);
    memcpy(manifest->data_digest, canonical.digest, sizeof(manifest->data_digest));
    checkpoint_manifest_seal(manifest);
}

void cell_publish(struct cell *cell, const struct node *node, const struct node_group *group,
                  uint128_t state_digest) {
    const seq_t seq = group->seq;
    MUST(disk_memory_resize(cell->disk, cell_manifest_file(seq), WAL_PAGE_BYTES) == 0 &&
         disk_memory_resize(cell->disk, cell_data_file(seq),
                            (uint64_t)node->chunk_count * CHECKPOINT_CHUNK_BYTES) == 0);
    struct checkpoint_manifest *manifest = (void *)file_bytes(cell, cell_manifest_file(seq));
    struct checkpoint_chunk *chunks = (void *)file_bytes(cell, cell_data_file(seq));
    node_manifest(node, group, state_digest, manifest);
    manifest->magic = CHECKPOINT_MANIFEST_MAGIC;
    manifest->version = CHECKPOINT_FORMAT_VERSION;
    manifest->bytes = WAL_PAGE_BYTES;
    memcpy(manifest->cell_id, cell->identity.cell_id, sizeof(manifest->cell_id));
    manifest->term = 1;
    memcpy(manifest->log_digest, cell->places[seq].digest, WAL_DIGEST_BYTES);
    manifest->log_file = cell->places[seq].file;
    manifest->log_offset = cell->places[seq].offset;
    manifest->log_file_bytes = CELL_FILE_BYTES;
    for (unsigned i = 0; i < node->chunk_count; i++) {
        chunks[i] = node->chunks[i];
        chunks[i].header.magic = CHECKPOINT_CHUNK_MAGIC;
        chunks[i].header.version = CHECKPOINT_FORMAT_VERSION;
        chunks[i].header.seq = seq;
        memcpy(chunks[i].header.cell_id, cell->identity.cell_id, sizeof(manifest->cell_id));
    }
    cell_reseal(cell, seq);
}

static void warning(void *context, const char *line) {
    struct cell *cell = context;
    size_t used = strlen(cell->warnings);
    snprintf(cell->warnings + used, sizeof(cell->warnings) - used, "%s\n", line);
    cell->warning_count++;
}

int cell_recover(struct cell *cell, struct node *to, const struct node_config *node_config,
                 struct recovery_config config) {
    node_open(to, node_config);
    config.disk = cell->disk;
    config.identity = &cell->identity;
    config.workers = config.workers ? config.workers : 1;
    config.warning = warning;
    config.context = cell;
    cell->warnings[0] = '\0';
    cell->warning_count = 0;
    int rc = recovery_run(&config, to->engine, &cell->position, &cell->report, cell->error,
                          sizeof(cell->error));
    wal_position_release(&cell->position);
    return rc;
}
