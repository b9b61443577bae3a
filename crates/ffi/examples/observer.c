/* An observer: the state of some keys, then every change. Run it with the URL of a store; without one it is in memory. */
#include <quorate.h>
#include <stdio.h>
#include <stdlib.h>

static quorate_error *error;

/* Ends the program if a call failed. */
static void must(quorate_code code) {
  if (code == QUORATE_OK) return;
  fprintf(stderr, "%s\n", error ? error->message : quorate_code_text(code));
  exit(1);
}

int main(int argc, char **argv) {
  quorate_client *client = NULL;
  must(quorate_client_open(quorate_str(argc > 1 ? argv[1] : "mem:"), &client, &error));

  quorate_observer *observer = NULL;
  quorate_observed *seen = NULL;
  must(quorate_put(client, quorate_str("cfg/a"), quorate_str("1"), NULL, -1, NULL, NULL, NULL, &error));
  must(quorate_observe(client, quorate_prefix(quorate_str("cfg/")), NULL, -1, NULL, &observer, &error));
  must(quorate_delete(client, quorate_key(quorate_str("cfg/a")), -1, NULL, NULL, NULL, NULL, &error));
  for (int i = 0; i < 2; i++) {
    must(quorate_observer_next(observer, 10000, NULL, &seen, &error));
    for (size_t k = 0; k < seen->state.len; k++) /* start over from these */
      printf("%s = %s\n", (const char *)seen->state.kvs[k].key.data, (const char *)seen->state.kvs[k].value.data);
    for (size_t k = 0; k < seen->len; k++)
      printf("%s %s\n", seen->events[k].deleted ? "deleted" : "written", (const char *)seen->events[k].kv.key.data);
    quorate_observed_free(seen);
  }
  quorate_observer_free(observer);
  quorate_client_free(client);
  return 0;
}
