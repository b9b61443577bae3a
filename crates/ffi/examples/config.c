/* Shared configuration: taken over without a restart, and never replaced by what is no document. Run it with the URL of a store; without one it is in memory. */
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

  quorate_bytes key = quorate_str("cfg/limits.toml");
  quorate_config *config = NULL;
  quorate_document *document = NULL;
  quorate_config_update *update = NULL;
  must(quorate_config_set(client, key, quorate_str("rps = 100"), QUORATE_FORMAT_OF_KEY, -1, NULL, NULL, &error));
  must(quorate_config_open(client, key, NULL, 10000, NULL, &config, &error));
  must(quorate_config_current(config, &document, &error));
  printf("%s\n", (const char *)document->json.data);
  quorate_document_free(document);

  must(quorate_put(client, key, quorate_str("rps ="), NULL, -1, NULL, NULL, NULL, &error));
  must(quorate_config_next(config, 10000, NULL, &update, &error));
  if (update->kind == QUORATE_CONFIG_REJECTED) printf("refused: %s\n", update->rejected->reason);
  quorate_config_update_free(update);
  quorate_config_free(config);
  quorate_client_free(client);
  return 0;
}
