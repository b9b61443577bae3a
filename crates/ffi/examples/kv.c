/* Keys: written, read, compared and swapped, all of it at revisions. Run it with the URL of a store; without one it is in memory. */
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

  int64_t revision = 0;
  must(quorate_put(client, quorate_str("cfg/limit"), quorate_str("10"), NULL, -1, NULL, &revision, NULL, &error));

  bool done = false;
  quorate_kv *present = NULL;
  must(quorate_put_if_revision(client, quorate_str("cfg/limit"), revision, quorate_str("11"), -1, NULL, &done,
                               NULL, &present, &error));
  printf("swapped: %s\n", done ? "yes" : (const char *)present->value.data);
  quorate_kv_free(present);

  quorate_kvs *kvs = NULL;
  must(quorate_list(client, quorate_str("cfg/"), -1, NULL, &kvs, &error));
  for (size_t i = 0; i < kvs->len; i++)
    printf("%s = %s\n", (const char *)kvs->kvs[i].key.data, (const char *)kvs->kvs[i].value.data);
  quorate_kvs_free(kvs);

  quorate_kv *before = NULL;
  must(quorate_get(client, quorate_str("cfg/limit"), revision, -1, NULL, &before, &error));
  printf("it was %s\n", (const char *)before->value.data);
  quorate_kv_free(before);
  quorate_client_free(client);
  return 0;
}
