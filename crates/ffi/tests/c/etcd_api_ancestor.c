/* A program as they were written for etcd-api: it knows the header's eleven calls, and nothing else of it. */

#include "etcd-api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

static void check(int is_so, const char *what)
{
    if (!is_so) {
        fprintf(stderr, "not so: %s\n", what);
        ++failures;
    }
}

/* Votes for a leader as the program of the library did: who finds nobody is tentative, and then confirmed. */
static void vote(etcd_session sess, char *key, char *me, char *rival)
{
    char tentative[64];
    char confirmed[64];
    char *text = etcd_get(sess, key);

    check(text == NULL, "nobody leads yet");
    sprintf(tentative, "%s,1,42", me);
    sprintf(confirmed, "%s,2,42", me);
    check(etcd_set(sess, key, tentative, text, 5) == ETCD_OK, "the first vote");
    check(etcd_set(sess, key, rival, rival, 5) == ETCD_PROTOCOL_ERROR, "a vote that comes late");
    text = etcd_get(sess, key);
    check(text && !strcmp(text, tentative), "the first vote is there");
    check(etcd_set(sess, key, confirmed, text, 5) == ETCD_OK, "the confirmation");
    free(text);
    check(etcd_set(sess, key, confirmed, confirmed, 5) == ETCD_OK, "the next confirmation");
    text = etcd_get(sess, key);
    check(text && !strcmp(text, confirmed), "the leader is there");
    free(text);
    check(etcd_delete(sess, key) == ETCD_OK, "its end");
}

/* Follows what was written, with one variable for both indexes. */
static void follow(etcd_session sess, char *pfx, int index)
{
    static const char *expected[] = {"one", "two", NULL, "three"};
    char *key;
    char *value;
    int i;

    for (i = 0; i < 4; ++i) {
        key = value = NULL;
        if (etcd_watch(sess, pfx, &key, &value, &index, &index) != ETCD_OK) {
            check(0, "a change is told");
            return;
        }
        check(key && !strncmp(key, "followed/", 9), "its key");
        check(expected[i] ? value && !strcmp(value, expected[i]) : !value, "its value");
        free(key);
        free(value);
        ++index;
    }
}

static void hold(etcd_session sess, etcd_session other, char *key)
{
    char *index = NULL;
    char *again = NULL;

    check(etcd_lock(sess, key, 60, NULL, &index) == ETCD_OK && index, "the lock");
    check(etcd_lock(other, key, 30, index, &again) == ETCD_OK, "its renewal");
    check(index && again && !strcmp(index, again), "its index");
    check(etcd_unlock(other, key, index) == ETCD_OK, "its release");
    check(etcd_unlock(sess, key, index) != ETCD_OK, "no second release");
    free(index);
    free(again);
}

int main(int argc, char **argv)
{
    char elected[] = "/nsr";
    char me[] = "node1";
    char rival[] = "node2,1,43";
    char a[] = "/followed/a";
    char b[] = "/followed/b";
    char dir[] = "/followed";
    char one[] = "one";
    char two[] = "two";
    char three[] = "three";
    char locked[] = "/locked";
    char host[] = "127.0.0.1";
    etcd_server servers[3];
    etcd_session sess;
    etcd_session other;
    char *text;
    char *colon;
    char *key = NULL;
    int index = 1;

    if (argc != 2)
        return 9;
    sess = etcd_open_str(argv[1]);
    memset(servers, 0, sizeof servers);
    colon = strrchr(argv[1], ':');
    if (!strncmp(argv[1], "mem:", 4)) {
        other = etcd_open_str(argv[1]);
    } else {
        /* Nobody listens at the first one. */
        servers[0].host = host;
        servers[0].port = 1;
        servers[1].host = host;
        servers[1].port = (unsigned short)atoi(colon + 1);
        other = etcd_open(servers);
    }
    if (!sess || !other)
        return 8;

    vote(sess, elected, me, rival);
    check(etcd_set(sess, a, one, NULL, 0) == ETCD_OK, "a set");
    check(etcd_set(other, b, two, NULL, 0) == ETCD_OK, "a set by another server");
    text = etcd_get(sess, dir);
    check(text && !strcmp(text, "one\ntwo"), "a directory");
    free(text);
    check(etcd_delete(other, b) == ETCD_OK, "a deletion");
    check(etcd_set(sess, a, three, one, 0) == ETCD_OK, "a set on a condition");
    check(etcd_watch(sess, dir, &key, NULL, &index, &index) == ETCD_OK && index > 1, "the first change");
    check(key && !strcmp(key, "followed/a"), "its key");
    free(key);
    follow(other, dir, index);
    hold(sess, other, locked);
    text = etcd_leader(sess);
    check(text && *text, "the leader of the cluster");
    free(text);

    if (servers[0].host)
        etcd_close(other);
    else
        etcd_close_str(other);
    etcd_close_str(sess);
    if (!failures)
        puts("done");
    return failures != 0;
}
