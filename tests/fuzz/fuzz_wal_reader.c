/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "tests/unit/wal/wal_fixture.h"
#include "wal/wal_inspect.h"

/* Recovery and inspection over arbitrary file bytes. The input is either the bytes of the files themselves or a list of
 * edits to a good log, which is made once; the edited pages may be signed again, so that what lies behind the digests is
 * reached too. Needs no corpus.
 *
 *  byte 0: bit 0 raw bytes instead of edits, bit 1 sign again, bit 2 any cell
 *  edits:  6 bytes each: operation, value, offset (4)
 *
 * Whatever the bytes are: nothing is read outside them (the sanitizers watch); a refusal has one line of text; what was
 * recovered is recovered again, to the same place, with nothing left to cut; inspection agrees with recovery. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FILES 4
#define FILE_BYTES (32u << 10)

static struct fixture *good;

static void make_good(void) {
    good = fixture_new(2, FILE_BYTES, 1);
    int rc = fixture_start(good);
    for (unsigned i = 0; rc == 0 && i < 9; i++) {
        fixture_append(good, 0, i * 7 % 23);
        fixture_append(good, 1, i * 31 % 70);
        rc = fixture_commit(good);
    }
    if (rc != 0 || fixture_drain(good) != 0)
        abort();
    fixture_stop(good);
}

static uint8_t *file_bytes(struct disk *disk, uint64_t file) {
    uint64_t size;
    uint8_t *bytes = disk_memory_bytes(disk, file, &size);
    if (bytes == NULL || size != FILE_BYTES)
        abort();
    return bytes;
}

static void edit(struct disk *disk, const uint8_t *data, size_t size) {
    for (; size >= 6; data += 6, size -= 6) {
        uint32_t offset;
        memcpy(&offset, data + 2, sizeof(offset));
        offset %= FILES * FILE_BYTES;
        uint8_t *at = file_bytes(disk, 1 + offset / FILE_BYTES) + offset % FILE_BYTES;
        uint8_t *sector = at - offset % WAL_SECTOR_BYTES, *page = at - offset % WAL_PAGE_BYTES;
        switch (data[0] % 6) {
        case 0:
            *at = data[1];
            break;
        case 1:
            *at ^= (uint8_t)(1u << (data[1] & 7));
            break;
        case 2:
            memset(sector, data[1] & 1 ? 0 : data[1], WAL_SECTOR_BYTES);
            break;
        case 3:
            memset(page, data[1] & 1 ? 0 : data[1], WAL_PAGE_BYTES);
            break;
        case 4: /* a page from elsewhere */
            memmove(page,
                    file_bytes(disk, 1 + data[1] % FILES) + (data[1] / FILES % 8) * WAL_PAGE_BYTES,
                    WAL_PAGE_BYTES);
            break;
        case 5: /* cut: zeros from here to the end of the file */
            memset(sector, 0,
                   FILE_BYTES - (size_t)(sector - file_bytes(disk, 1 + offset / FILE_BYTES)));
            break;
        }
    }
}

/** Make every header that still looks like one agree with its body and with the header before it. */
static void sign(struct disk *disk) {
    uint8_t previous[WAL_DIGEST_BYTES] = {0};
    for (uint64_t file = 1; file <= FILES; file++) {
        uint8_t *bytes = file_bytes(disk, file);
        for (size_t at = 0; at < FILE_BYTES; at += WAL_PAGE_BYTES) {
            struct wal_header *header = (void *)(bytes + at);
            if (header->chained.magic != WAL_HEADER_MAGIC ||
                header->chained.segment_count > LCORES_MAX)
                continue;
            for (uint32_t i = 0; i < header->chained.segment_count; i++) {
                struct wal_segment_entry *entry = &header->chained.segments[i];
                uint64_t start = at + WAL_PAGE_BYTES + entry->offset,
                         length = wal_page_align(entry->length);
                if (start + length <= FILE_BYTES)
                    wal_digest(bytes + start, length, entry->digest);
            }
            memcpy(header->chained.previous_digest, previous, sizeof(previous));
            wal_header_seal(header);
            memcpy(previous, header->chained.digest, sizeof(previous));
        }
    }
}

static int decode(void *context, seq_t seq, unsigned lcore, uint32_t offset, const void *record,
                  size_t length) {
    struct wal_transfer_fields fields;
    _Alignas(16) uint8_t again[WAL_RECORD_BYTES_MAX];
    (void)context;
    (void)seq;
    (void)offset;
    if (lcore >= LCORES_MAX || length == 0 || length > WAL_RECORD_BYTES_MAX ||
        wal_record_length(record, length) != length)
        abort();
    if (wal_record_transfer_decode(record, length, &fields) == 0 &&
        wal_record_transfer_encode(*(const uint8_t *)record, &fields, again) > length)
        abort();
    return 0;
}

static void check_refusal(const char *error) {
    if (error[0] == '\0' || strchr(error, '\n') != NULL)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct disk *disk;
    struct wal_position position, again;
    struct wal_inspect_summary summary;
    char error[512], inspect_error[512];
    if (size == 0)
        return 0;
    if (good == NULL)
        make_good();
    if (disk_memory_copy(good->disk, &disk) != 0)
        abort();
    for (uint64_t file = 1; file <= FILES; file++)
        if (disk_memory_resize(disk, file, FILE_BYTES) != 0)
            abort();
    if (data[0] & 1) {
        for (uint64_t file = 1; file <= FILES; file++)
            memset(file_bytes(disk, file), 0, FILE_BYTES);
        for (size_t at = 0; at < size - 1 && at < FILES * FILE_BYTES; at++)
            file_bytes(disk, 1 + at / FILE_BYTES)[at % FILE_BYTES] = data[1 + at];
    } else {
        edit(disk, data + 1, size - 1);
    }
    if (data[0] & 2)
        sign(disk);

    struct wal_identity *identity = &good->config.identity;
    const struct wal_inspect_visitor visitor = {.record = decode};
    int inspected = wal_inspect(disk, data[0] & 4 ? NULL : identity, &visitor, NULL, &summary,
                                inspect_error, sizeof(inspect_error));
    if (inspected != 0)
        check_refusal(inspect_error);
    int rc = fixture_read(disk, identity, decode, NULL, NULL, &position, error, sizeof(error));
    if (rc != 0) {
        check_refusal(error);
    } else {
        if (fixture_read(disk, identity, decode, NULL, NULL, &again, error, sizeof(error)) != 0 ||
            again.torn_bytes != 0 || again.seq != position.seq ||
            again.file_number != position.file_number ||
            again.file_offset != position.file_offset ||
            memcmp(again.digest, position.digest, 16) != 0)
            abort();
        wal_position_release(&position);
        wal_position_release(&again);
    }
    if (!(data[0] & 4) &&
        (inspected != rc || (rc == 0 && (summary.last_seq != position.seq ||
                                         summary.torn_bytes != position.torn_bytes))))
        abort();
    disk_memory_close(disk);
    return 0;
}
