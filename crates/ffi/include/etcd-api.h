/*
 * etcd-api.h: the calls of the C library etcd-api, on etcd version 3 and libquorate.
 *
 * Programs that were written for that library need to be linked again, and nothing else:
 *
 *     cc program.c $(pkg-config --cflags --libs quorate)
 *
 * New programs are better off with quorate.h: its errors tell what went wrong, its waits have time-outs, its
 * bytes have a length, and its locks tell when they are lost.
 *
 * Keys are paths. Slashes at their beginning do not count: "/a/b" is the key a/b of every other program. A
 * path of slashes alone is the root, which etcd_get and etcd_watch take. Keys and values are any bytes but
 * zero; a value that has a zero in it, which another program wrote, seems to end there.
 *
 * An index is a revision of etcd version 3. Where one is an int it does not reach far enough for every store:
 * then the call fails, and its twin whose name ends in 64 is to be called.
 *
 * What is returned as a char *, or by a char **, is the caller's and is freed by free(). A call that fails
 * leaves its outputs as they are.
 *
 * Every call may be made from every thread, on one session too; but a prefix is for one thread at a time to
 * watch in a session. etcd_close may be called while others wait in a call: they fail with ETCD_WTF. So does,
 * and returns NULL if it returns a pointer, every call with NULL for a session, a key or a value, with an empty
 * key, with a session that was closed, and with one that was opened before a fork.
 *
 * Calls to the store fail after 5 seconds without an answer (or what the option timeout of a URL says);
 * etcd_watch and etcd_lock wait for as long as it takes. The servers are tried until one answers. A write of
 * which it is not known whether a server has done it is not sent to another: it fails with ETCD_WTF, and may
 * have been done.
 */

#ifndef ETCD_API_H
#define ETCD_API_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    /* It is done. */
    ETCD_OK = 0,
    /*
     * A server refused: there is no such key, its value is another, the lock is gone, the index is not kept any
     * more, a right is missing. Also if an index is larger than an int.
     */
    ETCD_PROTOCOL_ERROR,
    /* Everything else: an argument is wrong, no server answered, or a write's fate is not known. */
    ETCD_WTF
} etcd_result;

/* A server, for etcd_open. */
typedef struct {
    /* Its name or address; NULL behind the last server. */
    char *host;
    /* Its port; 0 stands for 2379. */
    unsigned short port;
} etcd_server;

typedef void *etcd_session;

/*
 * Opens a session with one of the servers in a list. It does not connect yet. The list may be freed.
 *
 * Returns NULL if the list is NULL or empty, or a host is no host.
 */
etcd_session etcd_open(etcd_server *server_list);

/*
 * Opens a session with the servers named in a string, as host:port or host alone (port 2379), with commas,
 * semicolons or white space between them. It may be an address of libquorate too: "mem:" for a store in this
 * process, "mem:NAME" for one that others here can open, "etcd://host,host/namespace?option=...", "https://...".
 *
 * Returns NULL if that cannot be understood.
 */
etcd_session etcd_open_str(char *server_names);

/*
 * Closes a session, and ends the calls that wait in it. Locks are left to their time. A session that is closed
 * already, or NULL, is left alone.
 */
void etcd_close(etcd_session session);

/* Is the same, for sessions of etcd_open_str. */
void etcd_close_str(etcd_session session);

/*
 * Returns the value of a key; or of a directory (there is no such key, but there are keys that begin with it
 * and a slash) the values of all keys in it, in the order of the keys, with a line feed between them.
 *
 * Returns NULL if there is neither, or no server answers.
 */
char *etcd_get(etcd_session session, char *key);

/*
 * Waits for one change of a key, or of any key that begins with it and a slash.
 *
 *     pfx        the key; if it ends with a slash, all keys that begin with it
 *     keyp       is set to the key that changed
 *     valuep     is set to its new value, or to NULL if it was deleted
 *     index_in   the index from which on to tell changes, that included; NULL, or 0 in it, begins with the next
 *                change to happen. One that is negative is ETCD_WTF; one of which the store has dropped the
 *                history is ETCD_PROTOCOL_ERROR: read the key, and begin with NULL
 *     index_out  is set to the index of the change. To go on without missing or repeating anything call again
 *                with index_in one higher, in the same session: changes that were made at once have one index,
 *                and the session knows which of them it told. With the same index again, changes are told again
 *
 * Outputs that are NULL are not set. index_in and index_out may be the same.
 *
 * It waits through the loss of servers, but fails if none answers when it begins.
 */
etcd_result etcd_watch(etcd_session session, char *pfx, char **keyp, char **valuep, int *index_in,
                       int *index_out);

/* Is the same, for indexes of any size. */
etcd_result etcd_watch64(etcd_session session, char *pfx, char **keyp, char **valuep, int64_t *index_in,
                         int64_t *index_out);

/*
 * Writes a key.
 *
 *     precond    unless this is NULL, the write is done only if the key has this value; if it has another or
 *                none the answer is ETCD_PROTOCOL_ERROR
 *     ttl        unless this is 0, the key vanishes after so many seconds; etcd may make them more
 */
etcd_result etcd_set(etcd_session session, char *key, char *value, char *precond, unsigned int ttl);

/* Deletes a key. If there is none the answer is ETCD_PROTOCOL_ERROR. */
etcd_result etcd_delete(etcd_session session, char *key);

/* Returns the first client URL of the member that leads the cluster; NULL if none does, or no server answers. */
char *etcd_leader(etcd_session session);

/*
 * Acquires a lock, or renews it.
 *
 *     key        the name of the lock. It is the lock of that name of quorate and libquorate, and, slashes at the
 *                beginning apart, of etcdctl
 *     ttl        for how many seconds it is held from now; not 0. etcd may make them more
 *     index_in   NULL to acquire: waits for its turn, and keeps its place meanwhile. If that is lost, as nobody
 *                answered for ttl or somebody deleted its key, the answer is ETCD_PROTOCOL_ERROR. The index of a
 *                hold to renew it: then it lasts for another ttl from now. If that hold is gone the answer is
 *                ETCD_PROTOCOL_ERROR
 *     index_out  unless this is NULL, it is set to the index of the hold, in decimal digits, to be freed
 *
 * Nobody keeps the lock when it is acquired: it ends after its ttl, even if this process lives on, unless it is
 * renewed, by any process that knows the index. Of a lock that was acquired no more than a quarter of the ttl is
 * over when the call returns; of one that was renewed, count from before the call. A process that is delayed does
 * not notice that its time is over; what must be safe even then needs more than a lock.
 */
etcd_result etcd_lock(etcd_session session, char *key, unsigned int ttl, char *index_in, char **index_out);

/*
 * Releases the hold of a lock that has this index, whoever acquired it. If it is gone, or is not one of
 * etcd_lock, the answer is not ETCD_OK.
 */
etcd_result etcd_unlock(etcd_session session, char *key, char *index);

#ifdef __cplusplus
}
#endif

#endif
