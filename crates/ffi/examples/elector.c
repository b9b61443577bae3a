/* An elector: campaigns in the background, again after every loss. Run it with the URL of a store; without one it is in memory. */
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

  quorate_elector *elector = NULL;
  quorate_leader_state *state = NULL;
  int kind;
  must(quorate_elector_start(client, quorate_str("cleaner"), quorate_str("host-7"), NULL, &elector, &error));
  do {
    must(quorate_elector_next(elector, -1, NULL, &state, &error));
    kind = state->kind;
    if (kind == QUORATE_FOLLOWING) printf("%s leads\n", (const char *)state->leader->value.data);
    quorate_leader_state_free(state);
  } while (kind != QUORATE_LEADING);
  printf("we lead with token %lld\n", (long long)quorate_elector_token(elector));

  /* Work is written under the fence of the term. */
  quorate_txn *txn = NULL;
  quorate_txn_result *result = NULL;
  must(quorate_txn_new(&txn, &error));
  must(quorate_txn_if_leading(txn, elector, &error));
  must(quorate_txn_put(txn, QUORATE_THEN, quorate_str("cleaned"), quorate_str("yes"), NULL, false, &error));
  must(quorate_txn_commit(client, txn, -1, NULL, &result, &error));
  printf("%s\n", result->succeeded ? "cleaned" : "deposed meanwhile");
  quorate_txn_result_free(result);
  quorate_txn_free(txn);
  must(quorate_elector_stop(elector, -1, NULL, &error));
  quorate_elector_free(elector);
  quorate_client_free(client);
  return 0;
}
