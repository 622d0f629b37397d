/* SPDX-License-Identifier: Apache-2.0 */
/** Preloaded into a program under test (LD_PRELOAD), it lets one call of the C library or of liburing fail: that with number
 *  FAULT_AT, counted over all functions below. Environment:
 *
 *    FAULT_AT     which call, from 1; 0 or absent: none, only count
 *    FAULT_NAME   every call of this function fails
 *    FAULT_KEEP   set: from then on every call of the same function fails
 *    FAULT_SHORT  set: a write writes only a half, and says so, instead of failing
 *    FAULT_GATE   counting begins when a path that contains this text is opened
 *    FAULT_TRACE  set: every call is noted as `call NAME NUMBER`
 *    FAULT_LOG    file that gets a line `failed NAME NUMBER` and, at a clean exit, `calls COUNT` */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EARLY_BYTES 65536

static struct {
    atomic_bool counting;
    atomic_ulong calls;
    unsigned long at;
    bool keep, cut, trace;
    _Atomic(const char *) failing; /**< the function that fails from now on (FAULT_KEEP) */
    const char *gate, *log;
    const char *name; /**< of which every call fails */
} shim;

/** What dlsym itself needs before the real allocator is known; never given back. */
static _Alignas(16) char early[EARLY_BYTES];
static atomic_size_t early_used;

static void *early_allocate(size_t bytes) {
    size_t at = atomic_fetch_add(&early_used, (bytes + 15) & ~(size_t)15);
    return at + bytes <= sizeof(early) ? early + at : NULL;
}

static bool is_early(const void *memory) {
    return (const char *)memory >= early && (const char *)memory < early + sizeof(early);
}

static void note(const char *format, ...) {
    char line[128];
    if (shim.log == NULL)
        return;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, shim.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
                          0600);
    if (fd >= 0) {
        (void)!syscall(SYS_write, fd, line, (size_t)length);
        syscall(SYS_close, fd);
    }
}

/** Whether this call is the one. */
static bool fails(const char *name) {
    if (!atomic_load_explicit(&shim.counting, memory_order_relaxed))
        return false;
    unsigned long number = atomic_fetch_add(&shim.calls, 1) + 1;
    if (shim.trace)
        note("call %s %lu\n", name, number);
    if (atomic_load(&shim.failing) == name)
        return true;
    bool named = shim.name != NULL && strcmp(name, shim.name) == 0;
    if (number != shim.at && !named)
        return false;
    if (shim.keep || named)
        atomic_store(&shim.failing, name);
    int before = errno;
    note("failed %s %lu\n", name, number);
    errno = before;
    return true;
}

static void gate(const char *path) {
    if (shim.gate != NULL && path != NULL && strstr(path, shim.gate) != NULL)
        atomic_store(&shim.counting, true);
}

__attribute__((constructor)) static void shim_start(void) {
    const char *at = getenv("FAULT_AT");
    shim.at = at ? strtoul(at, NULL, 10) : 0;
    shim.keep = getenv("FAULT_KEEP") != NULL;
    shim.trace = getenv("FAULT_TRACE") != NULL;
    shim.cut = getenv("FAULT_SHORT") != NULL;
    shim.log = getenv("FAULT_LOG");
    shim.gate = getenv("FAULT_GATE");
    shim.name = getenv("FAULT_NAME");
    atomic_store(&shim.counting, shim.gate == NULL);
}

__attribute__((destructor)) static void shim_end(void) {
    atomic_store(&shim.counting, false);
    note("calls %lu\n", atomic_load(&shim.calls));
}

/** The function behind this one. */
#define NEXT(name)                                                                                 \
    static __typeof__(name) *next;                                                                 \
    if (next == NULL)                                                                              \
    next = (__typeof__(name) *)(uintptr_t)dlsym(RTLD_NEXT, #name)
#define FAIL(number, value)                                                                        \
    do {                                                                                           \
        errno = (number);                                                                          \
        return value;                                                                              \
    } while (0)

/* --- memory -------------------------------------------------------------------------------------------------------------- */

static _Thread_local bool looking; /**< dlsym is under way and allocates */

void *malloc(size_t bytes) {
    static __typeof__(malloc) *next;
    if (looking)
        return early_allocate(bytes);
    if (next == NULL) {
        looking = true;
        next = (__typeof__(malloc) *)(uintptr_t)dlsym(RTLD_NEXT, "malloc");
        looking = false;
    }
    if (fails("malloc"))
        FAIL(ENOMEM, NULL);
    return next(bytes);
}

void *calloc(size_t count, size_t bytes) {
    static __typeof__(calloc) *next;
    if (looking)
        return early_allocate(count * bytes);
    if (next == NULL) {
        looking = true;
        next = (__typeof__(calloc) *)(uintptr_t)dlsym(RTLD_NEXT, "calloc");
        looking = false;
    }
    if (fails("calloc"))
        FAIL(ENOMEM, NULL);
    return next(count, bytes);
}

void free(void *memory) {
    static __typeof__(free) *next;
    if (memory == NULL || is_early(memory))
        return;
    if (next == NULL)
        next = (__typeof__(free) *)(uintptr_t)dlsym(RTLD_NEXT, "free");
    next(memory);
}

void *realloc(void *memory, size_t bytes) {
    NEXT(realloc);
    if (is_early(memory)) {
        size_t room = (size_t)(early + sizeof(early) - (char *)memory);
        void *moved = malloc(bytes);
        return moved ? memcpy(moved, memory, bytes < room ? bytes : room) : NULL;
    }
    if (fails("realloc"))
        FAIL(ENOMEM, NULL);
    return next(memory, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes) {
    NEXT(aligned_alloc);
    if (fails("aligned_alloc"))
        FAIL(ENOMEM, NULL);
    return next(alignment, bytes);
}

int posix_memalign(void **memory, size_t alignment, size_t bytes) {
    NEXT(posix_memalign);
    return fails("posix_memalign") ? ENOMEM : next(memory, alignment, bytes);
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    NEXT(mmap64);
    if (fails("mmap64"))
        FAIL(ENOMEM, MAP_FAILED);
    return next(address, length, protection, flags, fd, offset);
}

/* --- files --------------------------------------------------------------------------------------------------------------- */

static mode_t mode_of(int flags, va_list arguments) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

int open64(const char *path, int flags, ...) {
    NEXT(open64);
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    gate(path);
    if (fails("open64"))
        FAIL(EMFILE, -1);
    return next(path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...) {
    NEXT(openat64);
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    gate(path);
    if (fails("openat64"))
        FAIL(EIO, -1);
    return next(directory, path, flags, mode);
}

ssize_t pread64(int fd, void *bytes, size_t length, off_t offset) {
    NEXT(pread64);
    if (fails("pread64"))
        FAIL(EIO, -1);
    return next(fd, bytes, length, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t offset) {
    NEXT(pwrite64);
    if (!fails("pwrite64"))
        return next(fd, bytes, length, offset);
    if (shim.cut)
        return next(fd, bytes, length / 2 & ~(size_t)4095, offset);
    FAIL(ENOSPC, -1);
}

ssize_t read(int fd, void *bytes, size_t length) {
    NEXT(read);
    if (fd > STDERR_FILENO && fails("read"))
        FAIL(EIO, -1);
    return next(fd, bytes, length);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    NEXT(write);
    if (fd <= STDERR_FILENO || !fails("write"))
        return next(fd, bytes, length);
    if (shim.cut)
        return next(fd, bytes, length / 2);
    FAIL(ENOSPC, -1);
}

/** A function of these parameters that answers -1 when it fails. */
#define CALL(name, parameters, arguments, number)                                                  \
    int name parameters {                                                                          \
        NEXT(name);                                                                                \
        if (fails(#name))                                                                          \
            FAIL(number, -1);                                                                      \
        return next arguments;                                                                     \
    }

CALL(fsync, (int fd), (fd), EIO)
CALL(ftruncate64, (int fd, off_t length), (fd, length), EIO)
CALL(flock, (int fd, int operation), (fd, operation), ENOLCK)
CALL(mkdir, (const char *path, mode_t mode), (path, mode), ENOSPC)
CALL(renameat, (int from, const char *old, int to, const char *new), (from, old, to, new), EIO)
CALL(renameat2, (int from, const char *old, int to, const char *new, unsigned flags),
     (from, old, to, new, flags), EIO)
CALL(unlinkat, (int directory, const char *path, int flags), (directory, path, flags), EIO)
CALL(fstatat64, (int directory, const char *path, struct stat64 *status, int flags),
     (directory, path, status, flags), EIO)
CALL(stat64, (const char *path, struct stat64 *status), (path, status), EIO)
CALL(sem_init, (sem_t * semaphore, int shared, unsigned value), (semaphore, shared, value), ENOSPC)

/* --- threads and the ring ------------------------------------------------------------------------------------------------ */

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                   void *argument) {
    NEXT(pthread_create);
    return fails("pthread_create") ? EAGAIN : next(thread, attributes, start, argument);
}

int io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags) {
    NEXT(io_uring_queue_init);
    return fails("io_uring_queue_init") ? -EMFILE : next(entries, ring, flags);
}

int io_uring_submit(struct io_uring *ring) {
    NEXT(io_uring_submit);
    return fails("io_uring_submit") ? -EIO : next(ring);
}

int io_uring_submit_and_get_events(struct io_uring *ring) {
    NEXT(io_uring_submit_and_get_events);
    return fails("io_uring_submit_and_get_events") ? -EIO : next(ring);
}

/** One completion tells of an error, or of less than was asked for. */
unsigned io_uring_peek_batch_cqe(struct io_uring *ring, struct io_uring_cqe **cqes,
                                 unsigned count) {
    NEXT(io_uring_peek_batch_cqe);
    unsigned ready = next(ring, cqes, count);
    if (ready > 0 && fails("completion"))
        cqes[ready - 1]->res = shim.cut ? cqes[ready - 1]->res / 2 : -EIO;
    return ready;
}
