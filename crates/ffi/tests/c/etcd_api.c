/* What a program for the C library etcd-api relies on. Compiled as C99 and as C++17. */

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "etcd-api.h"

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);     \
            exit(1);                                                            \
        }                                                                       \
    } while (0)

#define STRING(text) ((char *)(text))

static etcd_session session;

/* The types are those that programs were compiled with. */
static etcd_session (*const open_list)(etcd_server *) = etcd_open;
static etcd_session (*const open_string)(char *) = etcd_open_str;
static void (*const close_list)(etcd_session) = etcd_close;
static void (*const close_string)(etcd_session) = etcd_close_str;
static char *(*const get_value)(etcd_session, char *) = etcd_get;
static etcd_result (*const watch_prefix)(etcd_session, char *, char **, char **, int *, int *) = etcd_watch;
static etcd_result (*const set_value)(etcd_session, char *, char *, char *, unsigned int) = etcd_set;
static etcd_result (*const delete_key)(etcd_session, char *) = etcd_delete;
static char *(*const find_leader)(etcd_session) = etcd_leader;
static etcd_result (*const lock_key)(etcd_session, char *, unsigned int, char *, char **) = etcd_lock;
static etcd_result (*const unlock_key)(etcd_session, char *, char *) = etcd_unlock;

static void expect(const char *key, const char *value)
{
    char *found = etcd_get(session, STRING(key));

    if (!value) {
        CHECK(!found);
        return;
    }
    CHECK(found && strcmp(found, value) == 0);
    free(found);
}

static etcd_result set(const char *key, const char *value)
{
    return etcd_set(session, STRING(key), STRING(value), NULL, 0);
}

static void keys(void)
{
    struct timespec pause = {0, 50000000};
    time_t began;
    char *leader;

    expect("keys/a", NULL);
    CHECK(set("keys/a", "1") == ETCD_OK);
    CHECK(set("/keys/b", "2") == ETCD_OK);
    expect("/keys/a", "1");
    expect("//keys/b", "2");
    expect("keys", "1\n2");
    expect("/keys/", "1\n2");
    expect("key", NULL);
    CHECK(etcd_set(session, STRING("keys/a"), STRING("3"), STRING("1"), 0) == ETCD_OK);
    CHECK(etcd_set(session, STRING("keys/a"), STRING("4"), STRING("1"), 0) == ETCD_PROTOCOL_ERROR);
    CHECK(etcd_set(session, STRING("keys/c"), STRING("4"), STRING(""), 9) == ETCD_PROTOCOL_ERROR);
    expect("keys/a", "3");
    CHECK(set("keys/a", "") == ETCD_OK);
    expect("keys/a", "");
    CHECK(set("keys/\xff\xfe", "\xff") == ETCD_OK);
    expect("keys/\xff\xfe", "\xff");
    CHECK(etcd_delete(session, STRING("/keys/a")) == ETCD_OK);
    CHECK(etcd_delete(session, STRING("keys/a")) == ETCD_PROTOCOL_ERROR);
    CHECK(etcd_delete(session, STRING("keys")) == ETCD_PROTOCOL_ERROR);
    expect("keys/a", NULL);

    CHECK(etcd_set(session, STRING("keys/ttl"), STRING("x"), NULL, 2) == ETCD_OK);
    expect("keys/ttl", "x");
    began = time(NULL);
    for (;;) {
        char *left = etcd_get(session, STRING("keys/ttl"));

        if (!left)
            break;
        free(left);
        CHECK(time(NULL) - began < 20);
        nanosleep(&pause, NULL);
    }

    leader = etcd_leader(session);
    CHECK(leader && *leader);
    free(leader);
}

static void changes(void)
{
    char *key = NULL;
    char *value = NULL;
    int index = 0;
    int first;
    int64_t wide = 0;
    int64_t wide_first;

    /* The index of something that happened. */
    CHECK(set("changes/begin", "x") == ETCD_OK);
    CHECK(set("changes/a", "1") == ETCD_OK);
    CHECK(set("changes/a", "2") == ETCD_OK);
    CHECK(set("changes-not", "2") == ETCD_OK);
    CHECK(etcd_delete(session, STRING("changes/a")) == ETCD_OK);
    wide = 1;
    CHECK(etcd_watch64(session, STRING("changes"), &key, &value, &wide, &wide) == ETCD_OK);
    CHECK(strcmp(key, "changes/begin") == 0 && strcmp(value, "x") == 0);
    free(key);
    free(value);
    wide_first = wide;
    CHECK(wide_first < INT_MAX);
    first = (int)wide_first;

    index = first + 1;
    CHECK(etcd_watch(session, STRING("/changes"), &key, &value, &index, &index) == ETCD_OK);
    CHECK(index == first + 1 && strcmp(key, "changes/a") == 0 && strcmp(value, "1") == 0);
    free(key);
    free(value);
    /* The same index is the same change. */
    CHECK(etcd_watch(session, STRING("/changes"), NULL, &value, &index, &index) == ETCD_OK);
    CHECK(index == first + 1 && strcmp(value, "1") == 0);
    free(value);
    ++index;
    CHECK(etcd_watch(session, STRING("/changes"), &key, NULL, &index, &index) == ETCD_OK);
    CHECK(index == first + 2 && strcmp(key, "changes/a") == 0);
    free(key);
    ++index;
    value = STRING("untouched");
    CHECK(etcd_watch(session, STRING("/changes"), &key, &value, &index, &index) == ETCD_OK);
    CHECK(index == first + 4 && strcmp(key, "changes/a") == 0 && value == NULL);
    free(key);
    index = first + 1;
    CHECK(etcd_watch(session, STRING("changes/"), NULL, NULL, &index, NULL) == ETCD_OK);
    CHECK(index == first + 1);
    index = -1;
    CHECK(etcd_watch(session, STRING("changes"), &key, &value, &index, &index) == ETCD_WTF);
    CHECK(index == -1);
}

/* Whoever waits is told what happens from then on: written until it was told. */
static void *write_later(void *writes)
{
    struct timespec pause = {0, 20000000};
    char *on;

    do {
        nanosleep(&pause, NULL);
        CHECK(set("later/key", "now") == ETCD_OK);
        on = etcd_get(session, STRING("writes"));
        free(on);
    } while (on);
    return writes;
}

static void next_change(void)
{
    pthread_t writer;
    char *key = NULL;
    char *value = NULL;
    int index = 0;

    CHECK(set("later/key", "before") == ETCD_OK);
    CHECK(set("writes", "on") == ETCD_OK);
    CHECK(pthread_create(&writer, NULL, write_later, NULL) == 0);
    CHECK(etcd_watch(session, STRING("later"), &key, &value, NULL, &index) == ETCD_OK);
    CHECK(strcmp(key, "later/key") == 0 && strcmp(value, "now") == 0 && index > 0);
    free(key);
    free(value);
    CHECK(etcd_delete(session, STRING("writes")) == ETCD_OK);
    CHECK(pthread_join(writer, NULL) == 0);
}

static void locks(void)
{
    char *index = NULL;
    char *same = NULL;
    char *next = NULL;
    time_t began;

    CHECK(etcd_lock(session, STRING("/locks/a"), 60, NULL, &index) == ETCD_OK);
    CHECK(index && strtoll(index, NULL, 10) > 0);
    CHECK(etcd_lock(session, STRING("locks/a"), 30, index, &same) == ETCD_OK);
    CHECK(strcmp(index, same) == 0);
    free(same);
    CHECK(etcd_unlock(session, STRING("locks/b"), index) == ETCD_PROTOCOL_ERROR);
    CHECK(etcd_lock(session, STRING("locks/b"), 5, index, NULL) == ETCD_PROTOCOL_ERROR);
    CHECK(etcd_unlock(session, STRING("locks/a"), index) == ETCD_OK);
    CHECK(etcd_unlock(session, STRING("locks/a"), index) == ETCD_PROTOCOL_ERROR);
    CHECK(etcd_lock(session, STRING("locks/a"), 5, index, NULL) == ETCD_PROTOCOL_ERROR);
    free(index);

    /* It ends by itself, and no sooner. */
    began = time(NULL);
    CHECK(etcd_lock(session, STRING("locks/a"), 2, NULL, NULL) == ETCD_OK);
    CHECK(etcd_lock(session, STRING("locks/a"), 60, NULL, &next) == ETCD_OK);
    CHECK(time(NULL) - began >= 1);
    CHECK(etcd_unlock(session, STRING("locks/a"), next) == ETCD_OK);
    free(next);
}

/* No argument crashes. */
static void wrong_calls(const char *servers)
{
    etcd_session others[4];
    etcd_server empty = {NULL, 0};
    etcd_server strange[2] = {{STRING("host?x=y"), 1}, {NULL, 0}};
    etcd_server nameless[3] = {{STRING(""), 0}, {STRING("host"), 1}, {NULL, 0}};
    char *key = NULL;
    char *value = NULL;
    char *index = NULL;
    char *longest = (char *)malloc(4 << 20);
    int number = 1;
    size_t i;

    CHECK(longest);
    memset(longest, 'x', (4 << 20) - 1);
    longest[(4 << 20) - 1] = 0;

    CHECK(!etcd_open(NULL));
    CHECK(!etcd_open(&empty));
    CHECK(!etcd_open(strange));
    CHECK(!etcd_open(nameless));
    CHECK(!etcd_open_str(NULL));
    CHECK(!etcd_open_str(STRING("")));
    CHECK(!etcd_open_str(STRING(" ;, ")));
    CHECK(!etcd_open_str(STRING("host:port")));
    CHECK(!etcd_open_str(STRING("\xff")));
    etcd_close(NULL);
    etcd_close_str(NULL);

    others[0] = NULL;
    others[1] = etcd_open_str(STRING(servers));
    CHECK(others[1]);
    etcd_close(others[1]);
    etcd_close_str(others[1]);
    others[2] = (etcd_session)&number;
    others[3] = (etcd_session)(intptr_t)-1;
    for (i = 0; i < sizeof others / sizeof *others; i++) {
        CHECK(!etcd_get(others[i], STRING("k")));
        CHECK(!etcd_leader(others[i]));
        CHECK(etcd_set(others[i], STRING("k"), STRING("v"), NULL, 0) == ETCD_WTF);
        CHECK(etcd_delete(others[i], STRING("k")) == ETCD_WTF);
        CHECK(etcd_watch(others[i], STRING("k"), &key, &value, NULL, &number) == ETCD_WTF);
        CHECK(etcd_lock(others[i], STRING("k"), 5, NULL, &index) == ETCD_WTF);
        CHECK(etcd_unlock(others[i], STRING("k"), STRING("1")) == ETCD_WTF);
        etcd_close(others[i]);
    }
    for (i = 0; i < 2; i++) {
        char *bad = i ? STRING("") : NULL;

        CHECK(!etcd_get(session, bad));
        CHECK(etcd_set(session, bad, STRING("v"), NULL, 0) == ETCD_WTF);
        CHECK(etcd_delete(session, bad) == ETCD_WTF);
        CHECK(etcd_watch(session, bad, &key, &value, &number, &number) == ETCD_WTF);
        CHECK(etcd_lock(session, bad, 5, NULL, &index) == ETCD_WTF);
        CHECK(etcd_unlock(session, bad, STRING("1")) == ETCD_WTF);
        CHECK(etcd_unlock(session, STRING("k"), bad) == ETCD_WTF);
    }
    CHECK(etcd_set(session, STRING("k"), NULL, NULL, 0) == ETCD_WTF);
    CHECK(etcd_set(session, STRING("/"), STRING("v"), NULL, 0) == ETCD_WTF);
    CHECK(etcd_set(session, STRING("k"), longest, NULL, 0) == ETCD_WTF);
    CHECK(etcd_set(session, longest, STRING("v"), NULL, 0) == ETCD_WTF);
    CHECK(!etcd_get(session, longest));
    CHECK(etcd_lock(session, longest, 5, NULL, &index) == ETCD_WTF);
    CHECK(etcd_lock(session, STRING("k"), 0, NULL, &index) == ETCD_WTF);
    CHECK(etcd_lock(session, STRING("k"), 5, STRING(""), &index) == ETCD_WTF);
    CHECK(etcd_lock(session, STRING("k"), 5, STRING("one"), &index) == ETCD_WTF);
    CHECK(etcd_lock(session, STRING("k"), 5, STRING("99999999999999999999"), &index) == ETCD_WTF);
    CHECK(etcd_unlock(session, STRING("k"), STRING("-1")) == ETCD_PROTOCOL_ERROR);
    CHECK(!key && !value && !index && number == 1);
    free(longest);
}

static void *wait_for_lock(void *other)
{
    char *index = NULL;

    CHECK(etcd_lock((etcd_session)other, STRING("closing"), 60, NULL, &index) == ETCD_WTF);
    CHECK(!index);
    return NULL;
}

static void *wait_for_change(void *other)
{
    CHECK(etcd_watch((etcd_session)other, STRING("quiet"), NULL, NULL, NULL, NULL) == ETCD_WTF);
    return NULL;
}

/* Who closes a session ends the calls that wait in it. */
static void closing(const char *servers)
{
    etcd_session other;
    char *index = NULL;
    char *again = NULL;
    pthread_t locker;
    pthread_t watcher;

    CHECK(etcd_lock(session, STRING("closing"), 60, NULL, &index) == ETCD_OK);
    other = etcd_open_str(STRING(servers));
    CHECK(other);
    CHECK(pthread_create(&locker, NULL, wait_for_lock, other) == 0);
    CHECK(pthread_create(&watcher, NULL, wait_for_change, other) == 0);
    sleep(1);
    etcd_close_str(other);
    CHECK(pthread_join(locker, NULL) == 0);
    CHECK(pthread_join(watcher, NULL) == 0);
    CHECK(etcd_unlock(session, STRING("closing"), index) == ETCD_OK);
    free(index);
    /* It left the queue. */
    CHECK(etcd_lock(session, STRING("closing"), 60, NULL, &again) == ETCD_OK);
    CHECK(etcd_unlock(session, STRING("closing"), again) == ETCD_OK);
    free(again);
}

/* A list of servers, the first of which is not there. */
static void servers_in_turn(const char *host_and_port)
{
    const char *last = strrchr(host_and_port, ' ');
    const char *colon = strrchr(host_and_port, ':');
    char host[64];
    etcd_server list[3];
    char *value;

    if (!colon || strncmp(host_and_port, "mem:", 4) == 0)
        return;
    if (last)
        host_and_port = last + 1;
    snprintf(host, sizeof host, "%.*s", (int)(colon - host_and_port), host_and_port);
    list[0].host = host;
    list[0].port = 1;
    list[1].host = host;
    list[1].port = (unsigned short)atoi(colon + 1);
    list[2].host = NULL;
    list[2].port = 0;
    etcd_session other = etcd_open(list);
    CHECK(other);
    /* The list was copied. */
    memset(list, 0, sizeof list);
    CHECK(etcd_set(other, STRING("turn"), STRING("x"), NULL, 0) == ETCD_OK);
    value = etcd_get(other, STRING("turn"));
    CHECK(value && strcmp(value, "x") == 0);
    free(value);
    etcd_close(other);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    CHECK(ETCD_OK == 0 && ETCD_PROTOCOL_ERROR == 1 && ETCD_WTF == 2);
    CHECK(open_list && open_string && close_list && close_string && get_value && watch_prefix && set_value &&
          delete_key && find_leader && lock_key && unlock_key);
    session = etcd_open_str(argv[1]);
    CHECK(session);
    keys();
    changes();
    next_change();
    locks();
    wrong_calls(argv[1]);
    closing(argv[1]);
    servers_in_turn(argv[1]);
    etcd_close_str(session);
    puts("done");
    return 0;
}
