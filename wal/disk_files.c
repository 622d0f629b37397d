/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/check.h"
#include "wal/disk_files.h"
#include "wal/wal_format.h"

#define FILL_BYTES                                                                                 \
    (256u << 10) /**< small enough that the log's own writes get through in between */
#define NAME_BYTES 48
#define KIND_LIMIT ((uint64_t)1 << DISK_KIND_SHIFT)

static const char *const suffixes[DISK_FILE_KINDS] = {
    [DISK_LOG] = "log", [DISK_CHECKPOINT_DATA] = "data", [DISK_CHECKPOINT_MANIFEST] = "manifest"};

static unsigned folder_index(uint64_t file) {
    return disk_file_kind(file) == DISK_LOG ? 0 : 1;
}

static int folder_of(const struct disk_files *files, uint64_t file) {
    return files->folders[folder_index(file)];
}

static void file_name(uint64_t file, const char *behind, char name[NAME_BYTES]) {
    snprintf(name, NAME_BYTES, "%020llu.%s%s", (unsigned long long)disk_file_number(file),
             suffixes[disk_file_kind(file)], behind);
}

/** @return the number in a file's name, 0 where it is another file */
static uint64_t file_number(const char *name, enum disk_file_kind kind, const char *behind) {
    char again[NAME_BYTES];
    uint64_t number = strtoull(name, NULL, 10);
    if (number >= KIND_LIMIT)
        return 0;
    file_name(disk_file(kind, number), behind, again);
    return strcmp(name, again) == 0 ? number : 0;
}

/* --- one file ------------------------------------------------------------------------------------------------------ */

int disk_files_descriptor(const struct disk_files *files, uint64_t file, int flags) {
    char name[NAME_BYTES];
    file_name(file, "", name);
    if (folder_of(files, file) < 0)
        return -ENOENT;
    int fd = openat(folder_of(files, file), name, flags | O_DIRECT | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int64_t disk_files_size(const struct disk_files *files, uint64_t file) {
    char name[NAME_BYTES];
    struct stat status;
    file_name(file, "", name);
    if (folder_of(files, file) < 0)
        return -ENOENT;
    return fstatat(folder_of(files, file), name, &status, 0) != 0 ? -errno : status.st_size;
}

const char *disk_files_name(struct disk_files *files, uint64_t file) {
    char name[NAME_BYTES];
    const char *path = files->paths[folder_index(file)];
    file_name(file, "", name);
    snprintf(files->name, files->name_bytes, "%s/%s", path == NULL ? "" : path, name);
    return files->name;
}

/** Zeros all through, so that the extents are written ones: the log's writes then change no metadata. */
static int fill(int fd, uint64_t bytes) {
    uint8_t *zeros = aligned_alloc(WAL_PAGE_BYTES, FILL_BYTES);
    int rc = zeros == NULL ? -ENOMEM : 0;
    if (zeros != NULL)
        memset(zeros, 0, FILL_BYTES);
    for (uint64_t done = 0; rc == 0 && done < bytes;) {
        size_t piece = bytes - done < FILL_BYTES ? (size_t)(bytes - done) : FILL_BYTES;
        ssize_t written = pwrite(fd, zeros, piece, (off_t)done);
        if (written < 0)
            rc = -errno;
        else if ((size_t)written != piece)
            rc = -ENOSPC;
        else
            done += piece;
    }
    free(zeros);
    return rc;
}

/** btrfs would write everything to a new place, and keep the old one while a byte around it is in use: so a log filled a disk
 * that had room for several. Our own digests stand for the checksums that this gives up. Other file systems refuse it, and
 * need it not. */
static void write_in_place(int fd) {
    int flags = 0;
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) != 0)
        return;
    flags |= FS_NOCOW_FL;
    ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

static int put_bytes(int fd, const struct iovec *from) {
    ssize_t written = pwrite(fd, from->iov_base, from->iov_len, 0);
    return written < 0 ? -errno : (size_t)written == from->iov_len ? 0 : -ENOSPC;
}

/** Under another name until it is whole and durable. @param from NULL: `bytes` zeros
 *  @param rename_flags of renameat2 */
static int make_whole(const struct disk_files *files, uint64_t file, uint64_t bytes,
                      const struct iovec *from, unsigned rename_flags) {
    char name[NAME_BYTES], unfinished[NAME_BYTES];
    int folder = folder_of(files, file);
    file_name(file, "", name);
    file_name(file, ".new", unfinished);
    int fd = openat(folder, unfinished, O_CREAT | O_TRUNC | O_WRONLY | O_DIRECT | O_CLOEXEC, 0640);
    if (fd < 0)
        return -errno;
    if (from == NULL)
        write_in_place(fd); /* while it is empty */
    int rc = from == NULL ? fill(fd, bytes) : put_bytes(fd, from);
    if (rc == 0 && fsync(fd) != 0)
        rc = -errno;
    close(fd);
    if (rc == 0 && renameat2(folder, unfinished, folder, name, rename_flags) != 0)
        rc = -errno;
    if (rc != 0)
        unlinkat(folder, unfinished, 0);
    else if (fsync(folder) != 0)
        rc = -errno;
    return rc;
}

/** An empty one, never the one that had the name: what a killed process still has in flight goes into that. */
static int make_empty(const struct disk_files *files, uint64_t file) {
    char name[NAME_BYTES];
    file_name(file, "", name);
    if (unlinkat(folder_of(files, file), name, 0) != 0 && errno != ENOENT)
        return -errno;
    int fd = openat(folder_of(files, file), name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0640);
    if (fd < 0)
        return -errno;
    close(fd);
    return 0;
}

static int sync_file(const struct disk_files *files, uint64_t file) {
    int fd = disk_files_descriptor(files, file, O_RDONLY);
    if (fd < 0)
        return fd;
    int rc = fsync(fd) != 0 ? -errno : 0;
    close(fd);
    return rc == 0 && fsync(folder_of(files, file)) != 0 ? -errno : rc;
}

static int remove_file(const struct disk_files *files, uint64_t file) {
    char name[NAME_BYTES];
    file_name(file, "", name);
    if (unlinkat(folder_of(files, file), name, 0) != 0 && errno != ENOENT)
        return -errno;
    return fsync(folder_of(files, file)) != 0 ? -errno : 0;
}

int disk_files_perform(const struct disk_files *files, const struct disk_io *io) {
    if (folder_of(files, io->file) < 0)
        return -ENOENT;
    switch (io->operation) {
    case DISK_CREATE:
        return disk_file_kind(io->file) == DISK_LOG
                   ? make_whole(files, io->file, io->bytes, NULL, RENAME_NOREPLACE)
                   : make_empty(files, io->file);
    case DISK_SYNC:
        return sync_file(files, io->file);
    case DISK_PUBLISH:
        return make_whole(files, io->file, io->bytes, io->iov, 0);
    case DISK_REMOVE:
        return remove_file(files, io->file);
    default:
        return -EINVAL;
    }
}

/* --- folders ------------------------------------------------------------------------------------------------------- */

static int open_listing(int folder, DIR **listing) {
    int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *listing = fd < 0 ? NULL : fdopendir(fd);
    if (*listing != NULL)
        return 0;
    int rc = -errno;
    if (fd >= 0)
        close(fd);
    return rc;
}

static int compare_numbers(const void *a, const void *b) {
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

int disk_files_list(const struct disk_files *files, enum disk_file_kind kind, uint64_t *list,
                    unsigned count) {
    DIR *listing;
    struct dirent *entry;
    unsigned found = 0;
    int folder = folder_of(files, disk_file(kind, 0));
    if (folder < 0)
        return 0;
    int rc = open_listing(folder, &listing);
    if (rc != 0)
        return rc;
    while (rc == 0 && (entry = readdir(listing)) != NULL) {
        uint64_t number = file_number(entry->d_name, kind, "");
        if (number == 0)
            continue;
        if (found == count)
            rc = -ENOSPC;
        else
            list[found++] = disk_file(kind, number);
    }
    closedir(listing);
    if (rc == 0)
        qsort(list, found, sizeof(*list), compare_numbers);
    return rc == 0 ? (int)found : rc;
}

/** Whether an operation that died with its process left this. */
static bool is_leftover(const struct disk_files *files, unsigned folder, const char *name) {
    if (folder == 0)
        return file_number(name, DISK_LOG, ".new") != 0;
    uint64_t data = file_number(name, DISK_CHECKPOINT_DATA, "");
    if (data != 0)
        return disk_files_size(files, disk_file(DISK_CHECKPOINT_MANIFEST, data)) == -ENOENT;
    return file_number(name, DISK_CHECKPOINT_MANIFEST, ".new") != 0;
}

static int remove_leftovers(const struct disk_files *files, unsigned folder) {
    DIR *listing;
    struct dirent *entry;
    int rc = open_listing(files->folders[folder], &listing);
    if (rc != 0)
        return rc;
    while (rc == 0 && (entry = readdir(listing)) != NULL)
        if (is_leftover(files, folder, entry->d_name) &&
            unlinkat(files->folders[folder], entry->d_name, 0) != 0)
            rc = -errno;
    closedir(listing);
    return rc;
}

/** See whether O_DIRECT works here, before anything depends on it. */
static int probe_direct(int folder) {
    char probe[NAME_BYTES];
    file_name(disk_file(DISK_LOG, 0), ".new", probe);
    int fd = openat(folder, probe, O_CREAT | O_TRUNC | O_WRONLY | O_DIRECT | O_CLOEXEC, 0640);
    int rc = fd < 0 ? -errno : 0;
    if (fd >= 0)
        close(fd);
    unlinkat(folder, probe, 0);
    return rc == -EINVAL ? -EOPNOTSUPP : rc;
}

/** Directories made before there were checkpoints have no folder for them. */
static int make_folder(const char *path) {
    if (mkdir(path, 0750) != 0)
        return errno == EEXIST ? 0 : -errno;
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int parent = folder < 0 ? -1 : openat(folder, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = parent < 0 || fsync(parent) != 0 ? -errno : 0;
    if (parent >= 0)
        close(parent);
    if (folder >= 0)
        close(folder);
    return rc;
}

int disk_files_open(struct disk_files *files, const char *log, const char *checkpoints,
                    bool write) {
    const char *const paths[2] = {log, checkpoints};
    *files = (struct disk_files){.folders = {-1, -1}};
    for (unsigned i = 0; i < 2 && paths[i] != NULL; i++) {
        size_t name_bytes = strlen(paths[i]) + 1 + NAME_BYTES;
        int rc = i == 1 && write ? make_folder(paths[i]) : 0;
        if (rc != 0)
            return rc;
        if (name_bytes > files->name_bytes)
            files->name_bytes = name_bytes;
        files->paths[i] = strdup(paths[i]);
        files->folders[i] = open(paths[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (files->folders[i] < 0 && !(i == 1 && !write && errno == ENOENT))
            return -errno;
        if (files->paths[i] == NULL)
            return -ENOMEM;
        rc = write ? remove_leftovers(files, i) : 0;
        if (rc == 0 && write)
            rc = probe_direct(files->folders[i]);
        if (rc != 0)
            return rc;
    }
    files->name = malloc(files->name_bytes);
    return files->name == NULL ? -ENOMEM : 0;
}

void disk_files_close(struct disk_files *files) {
    for (unsigned i = 0; i < 2; i++) {
        if (files->folders[i] >= 0)
            close(files->folders[i]);
        free(files->paths[i]);
    }
    free(files->name);
}
