/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>

#include "wal/disk_helper.h"

static void *helper_main(void *context) {
    struct disk_helper *helper = context;
    cpu_set_t all;
    /* the thread that made us may be pinned to an lcore's core */
    memset(&all, 0xff, sizeof(all));
    sched_setaffinity(0, sizeof(all), &all);
    for (;;) {
        while (sem_wait(&helper->wake) != 0)
            ;
        /* acquire: pairs with the release in disk_helper_submit */
        struct disk_io *io = atomic_exchange_explicit(&helper->wanted, NULL, memory_order_acquire);
        if (io != NULL) {
            io->result = disk_files_perform(helper->files, io);
            /* release: pairs with the acquire in disk_helper_take */
            atomic_store_explicit(&helper->finished, io, memory_order_release);
        }
        if (atomic_load_explicit(&helper->stop, memory_order_acquire))
            return NULL;
    }
}

static int start(struct disk_helper *helper) {
    pthread_attr_t attributes;
    sigset_t all, before;
    struct sched_param normal = {0};
    if (sem_init(&helper->wake, 0, 0) != 0)
        return -errno;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attributes);
    pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
    pthread_attr_setschedpolicy(&attributes, SCHED_OTHER);
    pthread_attr_setschedparam(&attributes, &normal);
    int rc = pthread_create(&helper->thread, &attributes, helper_main, helper);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    helper->runs = rc == 0;
    if (rc != 0)
        sem_destroy(&helper->wake);
    /* -EAGAIN would say that the queue is full, and be tried again for ever */
    return rc == EAGAIN ? -ENOMEM : -rc;
}

int disk_helper_submit(struct disk_helper *helper, struct disk_io *io) {
    if (helper->busy)
        return -EAGAIN;
    int rc = helper->runs ? 0 : start(helper);
    if (rc != 0)
        return rc;
    helper->busy = true;
    /* release: pairs with the acquire in helper_main */
    atomic_store_explicit(&helper->wanted, io, memory_order_release);
    sem_post(&helper->wake);
    return 0;
}

struct disk_io *disk_helper_take(struct disk_helper *helper) {
    if (!helper->busy)
        return NULL;
    /* acquire: pairs with the release in helper_main */
    struct disk_io *io = atomic_load_explicit(&helper->finished, memory_order_acquire);
    if (io != NULL) {
        atomic_store_explicit(&helper->finished, NULL, memory_order_relaxed);
        helper->busy = false;
    }
    return io;
}

void disk_helper_stop(struct disk_helper *helper) {
    if (!helper->runs)
        return;
    /* release: pairs with the acquire in helper_main */
    atomic_store_explicit(&helper->stop, true, memory_order_release);
    sem_post(&helper->wake);
    pthread_join(helper->thread, NULL);
    sem_destroy(&helper->wake);
    helper->runs = false;
}
