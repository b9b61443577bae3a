/* Indexes that are larger than an int: the first of them is given. */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "etcd-api.h"

#define CHECK(condition)                                                    \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            return 1;                                                       \
        }                                                                   \
    } while (0)

static volatile int told;

/* Writes until a change was told. */
static void *write_on(void *session)
{
    struct timespec pause = {0, 20000000};
    char name[] = "wide/later";
    char value[] = "x";
    int i;

    for (i = 0; i < 500 && !told; i++) {
        nanosleep(&pause, NULL);
        (void)etcd_set((etcd_session)session, name, value, NULL, 0);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    char name[] = "wide/key";
    char one[] = "1";
    char two[] = "2";
    etcd_session session;
    char *key = NULL;
    char *value = NULL;
    char *index = NULL;
    int narrow = 7;
    pthread_t writer;
    int64_t wide;

    CHECK(argc == 3);
    wide = strtoll(argv[2], NULL, 10);
    session = etcd_open_str(argv[1]);
    CHECK(session);
    CHECK(etcd_set(session, name, one, NULL, 0) == ETCD_OK);
    CHECK(etcd_set(session, name, two, one, 0) == ETCD_OK);
    CHECK(etcd_watch64(session, name, &key, &value, &wide, &wide) == ETCD_OK);
    CHECK(strcmp(key, "wide/key") == 0 && strcmp(value, "1") == 0 && wide > INT32_MAX);
    free(key);
    free(value);
    ++wide;
    CHECK(etcd_watch64(session, name, NULL, &value, &wide, &wide) == ETCD_OK);
    CHECK(strcmp(value, "2") == 0);
    free(value);

    /* The index of a lock is a string, and reaches as far as it has to. */
    CHECK(etcd_lock(session, name, 60, NULL, &index) == ETCD_OK);
    CHECK(strtoll(index, NULL, 10) > wide);
    CHECK(etcd_lock(session, name, 60, index, NULL) == ETCD_OK);

    /* An int cannot tell the index of any change to come. */
    key = value = NULL;
    strcpy(name, "wide");
    CHECK(pthread_create(&writer, NULL, write_on, session) == 0);
    CHECK(etcd_watch(session, name, &key, &value, NULL, &narrow) == ETCD_PROTOCOL_ERROR);
    CHECK(!key && !value && narrow == 7);
    CHECK(etcd_watch(session, name, &key, &value, NULL, NULL) == ETCD_OK);
    CHECK(strcmp(key, "wide/later") == 0 && strcmp(value, "x") == 0);
    free(key);
    free(value);
    told = 1;
    CHECK(pthread_join(writer, NULL) == 0);
    strcpy(name, "wide/key");
    CHECK(etcd_unlock(session, name, index) == ETCD_OK);
    free(index);
    etcd_close(session);
    puts("done");
    return 0;
}
