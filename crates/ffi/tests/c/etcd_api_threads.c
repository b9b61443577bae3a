/* Eight threads call etcd-api.h, on one session and on one of each thread's own. */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "etcd-api.h"

#define THREADS 8
#define ROUNDS 6

#define CHECK(condition)                                                    \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                        \
        }                                                                   \
    } while (0)

static char *servers;
static etcd_session shared;
static etcd_session closing;
static int counter;

static void follow(etcd_session session, char *key, int round, int *next)
{
    char *told_key = NULL;
    char *value = NULL;
    char expected[16];

    sprintf(expected, "%d", round);
    CHECK(etcd_watch(session, key, &told_key, &value, next, next) == ETCD_OK);
    CHECK(strcmp(told_key, key) == 0 && strcmp(value, expected) == 0);
    ++*next;
    free(told_key);
    free(value);
}

static void *work(void *argument)
{
    int number = (int)(size_t)argument;
    etcd_session own = etcd_open_str(servers);
    char lock[] = "all";
    char key[32];
    char directory[] = "own";
    int next[2] = {1, 1};
    int round;

    CHECK(own);
    sprintf(key, "own/%d", number);
    for (round = 0; round < ROUNDS; round++) {
        etcd_session session = round % 2 ? own : shared;
        char *index = NULL;
        char *value;
        char text[16];

        sprintf(text, "%d", round);
        CHECK(etcd_lock(session, lock, 600, NULL, &index) == ETCD_OK);
        /* The lock orders these; the library's own synchronization has to make that visible. */
        counter++;
        CHECK(etcd_lock(shared, lock, 600, index, NULL) == ETCD_OK);
        CHECK(etcd_unlock(session, lock, index) == ETCD_OK);
        free(index);
        CHECK(etcd_set(session, key, text, NULL, 0) == ETCD_OK);
        follow(own, key, round, &next[0]);
        follow(shared, key, round, &next[1]);
        value = etcd_get(session, directory);
        CHECK(value);
        free(value);
        value = etcd_leader(session);
        CHECK(value);
        free(value);
    }
    CHECK(etcd_delete(own, key) == ETCD_OK);
    etcd_close_str(own);
    return NULL;
}

/* Waits until somebody else closes the session. */
static void *wait_for_end(void *key)
{
    CHECK(etcd_watch(closing, (char *)key, NULL, NULL, NULL, NULL) == ETCD_WTF);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    pthread_t waiting;
    char quiet[] = "quiet";
    size_t number;

    CHECK(argc == 2);
    servers = argv[1];
    shared = etcd_open_str(servers);
    closing = etcd_open_str(servers);
    CHECK(shared && closing);
    CHECK(pthread_create(&waiting, NULL, wait_for_end, quiet) == 0);
    for (number = 0; number < THREADS; number++)
        CHECK(pthread_create(&threads[number], NULL, work, (void *)number) == 0);
    for (number = 0; number < THREADS; number++)
        CHECK(pthread_join(threads[number], NULL) == 0);
    CHECK(counter == THREADS * ROUNDS);
    etcd_close_str(closing);
    CHECK(pthread_join(waiting, NULL) == 0);
    etcd_close_str(shared);
    puts("done");
    return 0;
}
