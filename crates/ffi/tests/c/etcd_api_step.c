/* One call, or a watch for a number of changes, for tests across processes. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "etcd-api.h"

int main(int argc, char **argv)
{
    etcd_session session;
    etcd_result result = ETCD_WTF;
    char *index = NULL;

    if (argc < 4)
        return 9;
    setvbuf(stdout, NULL, _IOLBF, 0);
    session = etcd_open_str(argv[1]);
    if (!session)
        return 8;
    if (strcmp(argv[2], "lock") == 0)
        result = etcd_lock(session, argv[3], (unsigned int)atoi(argv[4]), argv[5], &index);
    else if (strcmp(argv[2], "set") == 0)
        result = etcd_set(session, argv[3], argv[4], NULL, argc > 5 ? (unsigned int)atoi(argv[5]) : 0);
    else if (strcmp(argv[2], "delete") == 0)
        result = etcd_delete(session, argv[3]);
    else if (strcmp(argv[2], "get") == 0) {
        char *value = etcd_get(session, argv[3]);

        if (value) {
            result = ETCD_OK;
            puts(value);
        }
        free(value);
    } else if (strcmp(argv[2], "unlock") == 0)
        result = etcd_unlock(session, argv[3], argv[4]);
    else if (strcmp(argv[2], "watch") == 0) {
        char *key = NULL;
        char *value = NULL;
        int next = atoi(argv[4]);
        int number = atoi(argv[5]);
        int told;

        for (told = 0; told < number; told++) {
            result = etcd_watch(session, argv[3], &key, &value, &next, &next);
            if (result != ETCD_OK)
                break;
            printf("%d %s %s\n", next++, key, value ? value : "-");
            free(key);
            free(value);
        }
    }
    if (index)
        puts(index);
    free(index);
    etcd_close(session);
    return (int)result;
}
