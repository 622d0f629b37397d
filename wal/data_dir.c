/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/check.h"
#include "wal/data_dir.h"
#include "wal/disk_uring.h"
#include "wal/wal_format.h"

#define SUPERBLOCK_MAGIC 0x524944594c4c4154ULL /**< "TALLYDIR" */
#define SUPERBLOCK_VERSION 1u
#define FILE_BYTES_MIN (4ull << 20) /**< holds the largest segment of an lcore and its header */
#define FILE_BYTES_MAX (1ull << 40)

/** DIRECTORY/superblock. Written once. Format: wal/FORMAT.md. */
struct superblock {
    uint64_t magic;
    uint32_t version;
    uint32_t bytes; /**< WAL_PAGE_BYTES */
    uint8_t cell_id[16];
    uint32_t partitions;
    uint32_t id_time;
    uint64_t hash_seed;
    uint64_t digest_seed;
    uint64_t file_bytes;
    uint32_t groups_in_flight;
    uint32_t reserved;
    uint64_t created_ns;
    uint8_t
        parent_cell_id[16]; /**< zero: none; directories made before there were parents have fill */
    uint8_t fill[3984];
    uint8_t digest[WAL_DIGEST_BYTES]; /**< XXH3-128 of all that stands before it */
};
_Static_assert(sizeof(struct superblock) == WAL_PAGE_BYTES, "a superblock is one page");
_Static_assert(offsetof(struct superblock, digest) == WAL_PAGE_BYTES - WAL_DIGEST_BYTES,
               "no padding inside");

struct data_dir {
    struct coordinator coordinator; /**< first */
    struct data_dir_settings settings;
    struct disk *disk;
    int lock_fd;     /**< -1: not held */
    char *begun;     /**< data_dir_begin: its path */
    bool begun_made; /**< ... and it was not there before */
};

static int refuse(int rc, char *error, size_t error_bytes, const char *path, const char *why) {
    snprintf(error, error_bytes, "%s: %s", path, why);
    return rc;
}

static int refuse_errno(int number, char *error, size_t error_bytes, const char *path) {
    const char *why = number == EACCES || number == EPERM
                          ? "no permission; run as the user that owns it"
                          : strerrordesc_np(number);
    return refuse(-number, error, error_bytes, path, why);
}

static char *join(const char *path, const char *name) {
    char *joined;
    return asprintf(&joined, "%s/%s", path, name) < 0 ? NULL : joined;
}

/* --- format -------------------------------------------------------------------------------------------------------- */

static const char *wrong_setting(const struct data_dir_settings *settings) {
    static const uint8_t none[16];
    const struct wal_identity *identity = &settings->identity;
    if (memcmp(identity->cell_id, none, sizeof(none)) == 0)
        return "the cell id must not be zero";
    if (identity->partitions == 0 || identity->partitions > PARTITIONS_MAX)
        return "the number of partitions must be 1 to 1024";
    if (identity->id_time > 1)
        return "id_time must be on or off";
    if (identity->file_bytes < FILE_BYTES_MIN || identity->file_bytes > FILE_BYTES_MAX ||
        identity->file_bytes % WAL_PAGE_BYTES != 0)
        return "the size of a log file must be 4 MiB to 1 TiB, in multiples of 4 KiB";
    if (settings->groups_in_flight == 0 || settings->groups_in_flight > WAL_GROUPS_IN_FLIGHT_MAX)
        return "the number of groups in flight must be 1 to 8";
    return NULL;
}

/** Make the directory, or see that it is empty. A file system's own lost+found does not count.
 *  @param made set to whether it was not there. @return 0 or -errno */
static int make_empty(const char *path, bool *made, char *error, size_t error_bytes) {
    *made = mkdir(path, 0750) == 0;
    if (*made)
        return 0;
    if (errno != EEXIST)
        return refuse_errno(errno, error, error_bytes, path);
    DIR *directory = opendir(path);
    if (directory == NULL)
        return refuse_errno(errno, error, error_bytes, path);
    bool empty = true, formatted = false;
    struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        const char *name = entry->d_name;
        formatted |= strcmp(name, "superblock") == 0;
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && strcmp(name, "lost+found") != 0)
            empty = false;
    }
    closedir(directory);
    if (empty)
        return 0;
    return refuse(-ENOTEMPTY, error, error_bytes, path,
                  formatted ? "is a data directory already; remove it first if its accounts may go"
                            : "is not empty; name a new or an empty directory");
}

static int write_superblock(const char *path, const struct data_dir_settings *settings) {
    const struct wal_identity *identity = &settings->identity;
    struct superblock block = {.magic = SUPERBLOCK_MAGIC,
                               .version = SUPERBLOCK_VERSION,
                               .bytes = WAL_PAGE_BYTES,
                               .partitions = identity->partitions,
                               .id_time = identity->id_time,
                               .hash_seed = identity->hash_seed,
                               .digest_seed = identity->digest_seed,
                               .file_bytes = identity->file_bytes,
                               .groups_in_flight = settings->groups_in_flight,
                               .created_ns = settings->created_ns};
    memcpy(block.cell_id, identity->cell_id, sizeof(block.cell_id));
    memcpy(block.parent_cell_id, settings->parent_cell_id, sizeof(block.parent_cell_id));
    memset(block.fill, WAL_FILL_BYTE, sizeof(block.fill));
    wal_digest(&block, offsetof(struct superblock, digest), block.digest);

    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return -errno;
    int rc = 0,
        fd = openat(directory, "superblock.new", O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0640);
    if (fd < 0) {
        rc = -errno;
    } else {
        ssize_t written = write(fd, &block, sizeof(block));
        if (written != (ssize_t)sizeof(block))
            rc = written < 0 ? -errno : -ENOSPC;
        else if (fsync(fd) != 0)
            rc = -errno;
        close(fd);
    }
    if (rc == 0 && (renameat(directory, "superblock.new", directory, "superblock") != 0 ||
                    fsync(directory) != 0))
        rc = -errno;
    /* the directory's own name has to last, too */
    int parent = rc == 0 ? openat(directory, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (parent >= 0) {
        if (fsync(parent) != 0)
            rc = -errno;
        close(parent);
    }
    if (rc != 0) { /* before anything else of it goes: with a superblock it would be somebody's */
        unlinkat(directory, "superblock.new", 0);
        unlinkat(directory, "superblock", 0);
    }
    close(directory);
    return rc;
}

/** The disk of a directory: its folders `wal` and `checkpoint`. */
static int open_disk(const char *path, enum disk_uring_mode mode, struct disk **disk, char *error,
                     size_t error_bytes) {
    char *log = join(path, "wal"), *checkpoints = join(path, "checkpoint");
    int rc = log == NULL || checkpoints == NULL
                 ? refuse_errno(ENOMEM, error, error_bytes, path)
                 : disk_uring_open(log, checkpoints, mode, disk, error, error_bytes);
    free(log);
    free(checkpoints);
    return rc;
}

static int make_folder(const char *path, const char *name, char *error, size_t error_bytes) {
    char *folder = join(path, name);
    if (folder == NULL)
        return refuse_errno(ENOMEM, error, error_bytes, path);
    int rc = mkdir(folder, 0750) != 0 ? refuse_errno(errno, error, error_bytes, folder) : 0;
    free(folder);
    return rc;
}

/** What a format that failed made goes again. */
static void empty_directory(const char *path) {
    static const char *const made[] = {"wal/00000000000000000001.log", "wal", "checkpoint"};
    for (unsigned i = 0; i < sizeof(made) / sizeof(*made); i++) {
        char *name = join(path, made[i]);
        if (name != NULL)
            remove(name);
        free(name);
    }
}

/** The superblock comes last: until it stands there, the directory is nobody's. */
static int fill_directory(const char *path, const struct data_dir_settings *settings, char *error,
                          size_t error_bytes) {
    struct disk *disk;
    int rc = make_folder(path, "wal", error, error_bytes);
    if (rc == 0)
        rc = make_folder(path, "checkpoint", error, error_bytes);
    if (rc == 0 && (rc = open_disk(path, DISK_URING_WRITE, &disk, error, error_bytes)) == 0) {
        rc = disk_uring_create(disk, 1, settings->identity.file_bytes);
        if (rc != 0)
            snprintf(error, error_bytes, "%s: making it with %llu bytes: %s", disk->name(disk, 1),
                     (unsigned long long)settings->identity.file_bytes, strerrordesc_np(-rc));
        disk_uring_close(disk);
    }
    if (rc == 0 && (rc = write_superblock(path, settings)) != 0)
        snprintf(error, error_bytes, "%s/superblock: %s", path, strerrordesc_np(-rc));
    if (rc != 0)
        empty_directory(path);
    return rc;
}

int data_dir_format(const char *path, const struct data_dir_settings *settings, char *error,
                    size_t error_bytes) {
    const char *wrong = wrong_setting(settings);
    if (wrong != NULL)
        return refuse(-EINVAL, error, error_bytes, path, wrong);
    bool made;
    int rc = make_empty(path, &made, error, error_bytes);
    return rc != 0 ? rc : fill_directory(path, settings, error, error_bytes);
}

/* --- open ---------------------------------------------------------------------------------------------------------- */

static int read_superblock(const char *path, struct data_dir_settings *settings, char *error,
                           size_t error_bytes) {
    struct superblock block;
    struct stat status;
    uint8_t digest[WAL_DIGEST_BYTES];
    if (stat(path, &status) != 0 && errno == ENOENT)
        return refuse(-ENOENT, error, error_bytes, path,
                      "there is no such directory; `tallyd format` makes one");
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return errno == ENOTDIR ? refuse(-ENOTDIR, error, error_bytes, path, "is not a directory")
                                : refuse_errno(errno, error, error_bytes, path);
    int fd = openat(directory, "superblock", O_RDONLY | O_CLOEXEC);
    int number = errno;
    const bool begun = fstatat(directory, "wal", &status, 0) == 0;
    close(directory);
    if (fd < 0 && number == ENOENT)
        return refuse(
            -ENOENT, error, error_bytes, path,
            begun ? "is not a data directory of tally (no superblock): a killed format, backup or "
                    "replay leaves that, remove it then; a superblock that was lost has to be put "
                    "back"
                  : "is not a data directory of tally (no superblock); `tallyd format` makes one");
    if (fd < 0)
        return refuse_errno(number, error, error_bytes, path);
    ssize_t got = read(fd, &block, sizeof(block));
    number = errno;
    close(fd);
    if (got < 0)
        return refuse_errno(number, error, error_bytes, path);
    if ((size_t)got >= sizeof(block.magic) && block.magic != SUPERBLOCK_MAGIC)
        return refuse(-EBADMSG, error, error_bytes, path,
                      "is not a data directory of tally, or its superblock is damaged");
    if ((size_t)got >= 16 && block.version > SUPERBLOCK_VERSION) {
        snprintf(error, error_bytes,
                 "%s: superblock has format %u, this program knows %u; run a newer tallyd", path,
                 block.version, SUPERBLOCK_VERSION);
        return -ENOTSUP;
    }
    wal_digest(&block, offsetof(struct superblock, digest), digest);
    if ((size_t)got != sizeof(block) || memcmp(digest, block.digest, sizeof(digest)) != 0)
        return refuse(
            -EBADMSG, error, error_bytes, path,
            "its superblock is damaged; put back a copy of this very one, or start from a backup");
    *settings = (struct data_dir_settings){.identity = {.partitions = block.partitions,
                                                        .id_time = block.id_time,
                                                        .hash_seed = block.hash_seed,
                                                        .digest_seed = block.digest_seed,
                                                        .file_bytes = block.file_bytes},
                                           .groups_in_flight = block.groups_in_flight,
                                           .created_ns = block.created_ns};
    memcpy(settings->identity.cell_id, block.cell_id, sizeof(block.cell_id));
    if (memcmp(block.parent_cell_id, block.fill, sizeof(block.parent_cell_id)) != 0)
        memcpy(settings->parent_cell_id, block.parent_cell_id, sizeof(block.parent_cell_id));
    if (wrong_setting(settings) != NULL)
        return refuse(-EBADMSG, error, error_bytes, path,
                      "its superblock makes no sense; put back a copy of this very one, or start "
                      "from a backup");
    return 0;
}

static int take_lock(struct data_dir *dir, const char *path, enum data_dir_mode mode, char *error,
                     size_t error_bytes) {
    char text[32] = "";
    char *lock = join(path, "lock");
    if (lock == NULL)
        return refuse_errno(ENOMEM, error, error_bytes, path);
    int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    int number = errno;
    free(lock);
    if (fd < 0 && number == EROFS && mode == DATA_DIR_LOCK_READ_ONLY)
        return 0; /* nobody can run on it */
    if (fd < 0)
        return refuse_errno(number, error, error_bytes, path);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        ssize_t got = errno == EWOULDBLOCK ? pread(fd, text, sizeof(text) - 1, 0) : 0;
        long holder = got > 0 ? strtol(text, NULL, 10) : 0;
        close(fd);
        if (holder > 0)
            snprintf(error, error_bytes, "%s: is in use by process %ld; stop that first", path,
                     holder);
        else
            snprintf(error, error_bytes, "%s: is in use by another process; stop that first", path);
        return -EBUSY;
    }
    int length = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)length, 0) != length) {
        number = errno;
        close(fd);
        return refuse_errno(number, error, error_bytes, path);
    }
    dir->lock_fd = fd;
    return 0;
}

static int solo_lead(struct coordinator *coordinator, term_t last_term, term_t *term) {
    struct data_dir *dir = (struct data_dir *)coordinator;
    if (dir->lock_fd < 0)
        return -EBUSY;
    *term = last_term + 1;
    return 0;
}

/** Closing the descriptor gives the lock back. */
static void solo_resign(struct coordinator *coordinator) {
    struct data_dir *dir = (struct data_dir *)coordinator;
    if (dir->lock_fd >= 0)
        close(dir->lock_fd);
    dir->lock_fd = -1;
}

static int open_log(struct data_dir *dir, const char *path, enum data_dir_mode mode, char *error,
                    size_t error_bytes) {
    uint64_t first;
    int rc = open_disk(path, mode == DATA_DIR_LOCK ? DISK_URING_WRITE : DISK_URING_READ_ONLY,
                       &dir->disk, error, error_bytes);
    if (rc == 0 && dir->disk->list(dir->disk, DISK_LOG, &first, 1) == 0) {
        /* format made one, and those that are behind it are made before it goes */
        snprintf(error, error_bytes,
                 "%s/wal: every log file is missing; put back copies of these very files, or start "
                 "from a backup",
                 path);
        rc = -ENODATA;
    }
    return rc;
}

static struct data_dir *new_dir(void) {
    struct data_dir *dir = calloc(1, sizeof(*dir));
    if (dir != NULL) {
        dir->coordinator = (struct coordinator){solo_lead, solo_resign};
        dir->lock_fd = -1;
    }
    return dir;
}

int data_dir_open(const char *path, enum data_dir_mode mode, struct data_dir **out, char *error,
                  size_t error_bytes) {
    struct data_dir *dir = new_dir();
    if (dir == NULL)
        return refuse_errno(ENOMEM, error, error_bytes, path);
    int rc = read_superblock(path, &dir->settings, error, error_bytes);
    if (rc == 0 && mode != DATA_DIR_READ_ONLY)
        rc = take_lock(dir, path, mode, error, error_bytes);
    if (rc == 0)
        rc = open_log(dir, path, mode, error, error_bytes);
    if (rc != 0) {
        data_dir_close(dir);
        return rc;
    }
    *out = dir;
    return 0;
}

void data_dir_close(struct data_dir *dir) {
    if (dir == NULL)
        return;
    disk_uring_close(dir->disk);
    solo_resign(&dir->coordinator);
    free(dir->begun);
    free(dir);
}

/* --- a directory that somebody else fills ------------------------------------------------------------------------------------ */

int data_dir_begin(const char *path, const struct data_dir_settings *settings,
                   struct data_dir **out, char *error, size_t error_bytes) {
    const char *wrong = wrong_setting(settings);
    if (wrong != NULL)
        return refuse(-EINVAL, error, error_bytes, path, wrong);
    struct data_dir *dir = new_dir();
    if (dir == NULL || (dir->begun = strdup(path)) == NULL) {
        free(dir);
        return refuse_errno(ENOMEM, error, error_bytes, path);
    }
    dir->settings = *settings;
    int rc = make_empty(path, &dir->begun_made, error, error_bytes);
    if (rc != 0) {
        data_dir_close(dir);
        return rc;
    }
    rc = take_lock(dir, path, DATA_DIR_LOCK, error, error_bytes);
    if (rc != 0) {
        data_dir_close(dir); /* what may stand in it is somebody else's */
        return rc;
    }
    rc = make_folder(path, "wal", error, error_bytes);
    if (rc == 0)
        rc = make_folder(path, "checkpoint", error, error_bytes);
    if (rc == 0)
        rc = open_disk(path, DISK_URING_WRITE, &dir->disk, error, error_bytes);
    if (rc != 0)
        data_dir_abandon(dir);
    else
        *out = dir;
    return rc;
}

int data_dir_finish(struct data_dir *dir, char *error, size_t error_bytes) {
    int rc = write_superblock(dir->begun, &dir->settings);
    if (rc != 0)
        snprintf(error, error_bytes, "%s/superblock: %s", dir->begun, strerrordesc_np(-rc));
    return rc;
}

#define ABANDONED_FILES_MAX 65536u /**< of a kind */

static void remove_files(struct disk *disk, enum disk_file_kind kind) {
    uint64_t *files = malloc(ABANDONED_FILES_MAX * sizeof(*files));
    int count = files == NULL ? 0 : disk->list(disk, kind, files, ABANDONED_FILES_MAX);
    for (int i = 0; i < count; i++) {
        const struct disk_io io = {.operation = DISK_REMOVE, .file = files[i]};
        disk_uring_perform(disk, &io);
    }
    free(files);
}

void data_dir_abandon(struct data_dir *dir) {
    if (dir->disk != NULL)
        for (unsigned kind = 0; kind < DISK_FILE_KINDS; kind++)
            remove_files(dir->disk, (enum disk_file_kind)kind);
    empty_directory(dir->begun);
    char *lock = join(dir->begun, "lock");
    if (lock != NULL && dir->lock_fd >= 0)
        unlink(lock);
    free(lock);
    if (dir->begun_made)
        rmdir(dir->begun);
    data_dir_close(dir);
}

const struct data_dir_settings *data_dir_settings(const struct data_dir *dir) {
    return &dir->settings;
}

struct disk *data_dir_disk(struct data_dir *dir) {
    return dir->disk;
}

struct coordinator *data_dir_coordinator(struct data_dir *dir) {
    return &dir->coordinator;
}
