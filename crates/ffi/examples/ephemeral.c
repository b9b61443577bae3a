/* An ephemeral key: it stands while its owner lives, and comes back by itself. Run it with the URL of a store; without one it is in memory. */
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

  quorate_ephemeral *key = NULL;
  quorate_bytes name = quorate_str("workers/7");
  must(quorate_ephemeral_create(client, name, quorate_str("idle"), NULL, -1, NULL, &key, &error));
  must(quorate_ephemeral_set(key, quorate_str("busy"), -1, NULL, &error));

  /* Somebody deletes it: it is made again. */
  int64_t token = quorate_ephemeral_token(key);
  must(quorate_delete(client, quorate_key(name), -1, NULL, NULL, NULL, NULL, &error));
  while (quorate_ephemeral_token(key) == token) {
    int state = 0;
    must(quorate_ephemeral_next(key, -1, NULL, &state, NULL, &error));
  }
  printf("it is back\n");
  must(quorate_ephemeral_release(key, -1, NULL, &error));
  quorate_ephemeral_free(key);

  /* A key that nobody keeps alive. */
  quorate_ttl_key *seen = NULL;
  must(quorate_ttl_key_put(client, quorate_str("seen/10.0.0.7"), quorate_str("now"), 30000, -1, NULL, &seen, &error));
  must(quorate_ttl_key_refresh(seen, -1, NULL, NULL, &error));
  must(quorate_ttl_key_delete(seen, -1, NULL, &error));
  quorate_ttl_key_free(seen);
  quorate_client_free(client);
  return 0;
}
