# SPDX-License-Identifier: Apache-2.0
"""Reads what the kernel's dm-log-writes target recorded, and makes the disk as it was at any moment of the record.

A write stands in the record when it is durable: one that bypassed the disk's cache when it completed, any other when the
flush behind it completed. So each prefix of the record is a disk that lost everything it was not forced to keep; and of the
writes that one flush made durable, any part may be there if the power goes during that flush."""

import os
import struct

FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
SECTOR = 512
_MAGIC = 0x6A736677736872
_SUPER = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")


class Entry:
    def __init__(self, sector, sectors, flags, data_at, mark):
        self.sector, self.sectors, self.flags, self.data_at, self.mark = sector, sectors, flags, data_at, mark

    def durable(self):
        """Whether it ends with everything before it being durable."""
        return bool(self.flags & (FLUSH | FUA))


class Record:
    """Entries of a record, in order."""

    def __init__(self, path):
        self.file = os.open(path, os.O_RDONLY)
        magic, version, count, size = _SUPER.unpack(os.pread(self.file, _SUPER.size, 0))
        assert (magic, version, size) == (_MAGIC, 1, SECTOR), f"no record of dm-log-writes: {magic:#x} {version} {size}"
        self.entries, at = [], SECTOR
        for _ in range(count):
            head = os.pread(self.file, SECTOR, at)
            sector, sectors, flags, length = _ENTRY.unpack_from(head)
            mark = head[_ENTRY.size:_ENTRY.size + length].decode() if flags & MARK else None
            at += SECTOR
            self.entries.append(Entry(sector, sectors, flags, at, mark))
            if not flags & DISCARD:
                at += sectors * SECTOR

    def data(self, entry):
        return os.pread(self.file, entry.sectors * SECTOR, entry.data_at)


class Disk:
    """An image to which the entries are applied one by one."""

    def __init__(self, record, path):
        self.record, self.path, self.applied = record, path, 0

    def advance(self, count):
        """Make it the disk after the first `count` entries; only forwards."""
        image = os.open(self.path, os.O_WRONLY)
        for entry in self.record.entries[self.applied:count]:
            self.apply(image, entry)
        os.close(image)
        self.applied = max(self.applied, count)

    def apply(self, image, entry, keep=None):
        """@param keep  decides for each sector whether it arrived; all when None"""
        if entry.sectors == 0 or entry.flags & MARK:
            return
        if entry.flags & DISCARD:
            os.pwrite(image, bytes(entry.sectors * SECTOR), entry.sector * SECTOR)
            return
        data = self.record.data(entry)
        if keep is None:
            os.pwrite(image, data, entry.sector * SECTOR)
            return
        for index in range(entry.sectors):
            if keep():
                os.pwrite(image, data[index * SECTOR:(index + 1) * SECTOR], (entry.sector + index) * SECTOR)

    def batch(self):
        """The entries behind the applied ones that the next flush makes durable together."""
        found = []
        for entry in self.record.entries[self.applied:]:
            if entry.flags & MARK:
                break
            if entry.sectors:
                found.append(entry)
            if entry.durable():
                break
        return found

    def tear(self, path, dice):
        """Of the batch, some writes arrive on another image of this state, some in part, some not at all."""
        image = os.open(path, os.O_WRONLY)
        for entry in self.batch():
            fate = dice.random()
            # a file system's first block holds its superblock, which it takes for written whole or not at all
            if fate < 0.4 or (fate < 0.8 and entry.sector < 8):
                self.apply(image, entry)
            elif fate < 0.8:
                share = dice.random()
                self.apply(image, entry, lambda: dice.random() < share)
        os.close(image)
