/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/recovery_crew.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "engine/restore_internal.h"

struct crew_worker {
    struct recovery_crew *crew;
    unsigned index;
    uint64_t done; /**< batches; under the lock */
    int rc;        /**< of the first thing that it failed at; under the lock */
    pthread_t thread;
};

struct recovery_crew {
    struct restore *restore;
    unsigned workers, started;
    bool threads;
    pthread_mutex_t lock;
    pthread_cond_t more; /**< a batch was handed over, or there will be none any more */
    pthread_cond_t less; /**< a worker is done with one */
    uint64_t handed;     /**< batches; batch n stands at n % RECOVERY_BATCHES */
    bool closing;
    struct recovery_batch *batches; /**< RECOVERY_BATCHES of them */
    struct crew_worker worker[];
};

static int work_chunk(struct restore *restore, unsigned worker,
                      const struct checkpoint_chunk *chunk) {
    const struct checkpoint_chunk_header *header = &chunk->header;
    restore_worker(restore, worker)->group =
        (struct restore_place){header->number + 1, disk_file(DISK_CHECKPOINT_DATA, header->seq),
                               header->number * CHECKPOINT_CHUNK_BYTES, CHECKPOINT_CHUNK_BYTES, 0};
    return restore_chunk(restore, worker, chunk);
}

/** One worker's share of a batch. */
static int work(struct restore *restore, unsigned worker, const struct recovery_batch *batch) {
    int rc = batch->work == RECOVERY_VERIFY ? restore_verify(restore, worker) : 0;
    for (unsigned i = 0; i < batch->count && !rc; i++)
        rc = batch->work == RECOVERY_CHUNKS ? work_chunk(restore, worker, batch->chunks[i])
                                            : restore_group(restore, worker, &batch->groups[i]);
    return rc;
}

static void *worker_main(void *context) {
    struct crew_worker *worker = context;
    struct recovery_crew *crew = worker->crew;
    pthread_mutex_lock(&crew->lock);
    for (;;) {
        while (worker->done == crew->handed && !crew->closing)
            pthread_cond_wait(&crew->more, &crew->lock);
        if (worker->done == crew->handed)
            break;
        int rc = worker->rc;
        pthread_mutex_unlock(&crew->lock);
        if (!rc)
            rc =
                work(crew->restore, worker->index, &crew->batches[worker->done % RECOVERY_BATCHES]);
        pthread_mutex_lock(&crew->lock);
        worker->rc = rc;
        worker->done++;
        pthread_cond_signal(&crew->less);
    }
    pthread_mutex_unlock(&crew->lock);
    return NULL;
}

int recovery_crew_open(struct restore *restore, unsigned workers, bool threads,
                       struct recovery_crew **out) {
    struct recovery_crew *crew = calloc(1, sizeof(*crew) + workers * sizeof(struct crew_worker));
    struct recovery_batch *batches = calloc(RECOVERY_BATCHES, sizeof(*batches));
    if (!crew || !batches) {
        free(crew);
        free(batches);
        return -ENOMEM;
    }
    crew->batches = batches;
    crew->restore = restore;
    crew->workers = workers;
    crew->threads = threads;
    pthread_mutex_init(&crew->lock, NULL);
    pthread_cond_init(&crew->more, NULL);
    pthread_cond_init(&crew->less, NULL);
    int rc = 0;
    for (unsigned i = 0; i < workers && !rc; i++) {
        crew->worker[i].crew = crew;
        crew->worker[i].index = i;
        if (threads)
            rc = -pthread_create(&crew->worker[i].thread, NULL, worker_main, &crew->worker[i]);
        crew->started += threads && !rc;
    }
    if (rc) {
        recovery_crew_close(crew);
        return rc;
    }
    *out = crew;
    return 0;
}

void recovery_crew_close(struct recovery_crew *crew) {
    if (!crew)
        return;
    pthread_mutex_lock(&crew->lock);
    crew->closing = true;
    pthread_cond_broadcast(&crew->more);
    pthread_mutex_unlock(&crew->lock);
    for (unsigned i = 0; i < crew->started; i++)
        pthread_join(crew->worker[i].thread, NULL);
    pthread_cond_destroy(&crew->more);
    pthread_cond_destroy(&crew->less);
    pthread_mutex_destroy(&crew->lock);
    free(crew->batches);
    free(crew);
}

/** Batches that every worker is done with. Under the lock. */
static uint64_t batches_done(const struct recovery_crew *crew) {
    uint64_t done = crew->handed;
    for (unsigned i = 0; i < crew->workers; i++) {
        if (crew->worker[i].done < done)
            done = crew->worker[i].done;
    }
    return done;
}

static void wait_for(struct recovery_crew *crew, uint64_t batches) {
    pthread_mutex_lock(&crew->lock);
    while (batches_done(crew) < batches)
        pthread_cond_wait(&crew->less, &crew->lock);
    pthread_mutex_unlock(&crew->lock);
}

struct recovery_batch *recovery_crew_batch(struct recovery_crew *crew, enum recovery_work work) {
    if (crew->handed >= RECOVERY_BATCHES)
        wait_for(crew, crew->handed - RECOVERY_BATCHES + 1);
    struct recovery_batch *batch = &crew->batches[crew->handed % RECOVERY_BATCHES];
    batch->work = work;
    batch->count = 0;
    batch->bytes = 0;
    return batch;
}

void recovery_crew_hand_over(struct recovery_crew *crew) {
    const struct recovery_batch *filled = &crew->batches[crew->handed % RECOVERY_BATCHES];
    if (!filled->count && filled->work != RECOVERY_VERIFY)
        return;
    if (crew->threads) {
        pthread_mutex_lock(&crew->lock);
        crew->handed++;
        pthread_cond_broadcast(&crew->more);
        pthread_mutex_unlock(&crew->lock);
        return;
    }
    crew->handed++;
    for (unsigned i = 0; i < crew->workers; i++) {
        if (!crew->worker[i].rc)
            crew->worker[i].rc = work(crew->restore, i, filled);
        crew->worker[i].done++;
    }
}

const struct recovery_batch *recovery_crew_oldest(struct recovery_crew *crew) {
    pthread_mutex_lock(&crew->lock);
    uint64_t done = batches_done(crew);
    pthread_mutex_unlock(&crew->lock);
    return &crew->batches[done % RECOVERY_BATCHES];
}

bool recovery_crew_wait_oldest(struct recovery_crew *crew) {
    pthread_mutex_lock(&crew->lock);
    uint64_t done = batches_done(crew);
    bool any = done < crew->handed;
    while (any && batches_done(crew) == done)
        pthread_cond_wait(&crew->less, &crew->lock);
    pthread_mutex_unlock(&crew->lock);
    return any;
}

bool recovery_crew_failed(struct recovery_crew *crew) {
    bool failed = false;
    pthread_mutex_lock(&crew->lock);
    for (unsigned i = 0; i < crew->workers; i++)
        failed = failed || crew->worker[i].rc;
    pthread_mutex_unlock(&crew->lock);
    return failed;
}

int recovery_crew_wait(struct recovery_crew *crew) {
    wait_for(crew, crew->handed);
    for (unsigned i = 0; i < crew->workers; i++) {
        if (crew->worker[i].rc)
            return crew->worker[i].rc;
    }
    return 0;
}
