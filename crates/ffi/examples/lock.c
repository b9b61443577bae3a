/* A lock: held by one at a time, with a fence for what must be safe in any case. Run it with the URL of a store; without one it is in memory. */
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

  quorate_lock_options options = {0};
  quorate_guard *guard = NULL;
  options.ttl_ms = 15000;
  options.holder = quorate_str("nightly");
  must(quorate_lock_acquire(client, quorate_str("jobs/nightly"), &options, 10000, NULL, &guard, &error));
  printf("held with token %lld\n", (long long)quorate_guard_token(guard));

  /* Applied only if the lock is still held when the store gets it. */
  quorate_txn *txn = NULL;
  quorate_txn_result *result = NULL;
  must(quorate_txn_new(&txn, &error));
  must(quorate_txn_if_held(txn, guard, &error));
  must(quorate_txn_put(txn, QUORATE_THEN, quorate_str("jobs/last"), quorate_str("42"), NULL, false, &error));
  must(quorate_txn_commit(client, txn, -1, NULL, &result, &error));
  printf("%s\n", result->succeeded ? "written under the fence" : "lost: nothing was written");
  quorate_txn_result_free(result);
  quorate_txn_free(txn);

  /* A look at whether it is lost; quorate_guard_lost_fd is for an event loop. */
  quorate_loss loss = QUORATE_LOSS_NONE;
  if (quorate_guard_wait_lost(guard, 0, NULL, &loss, NULL) == QUORATE_OK)
    printf("%s\n", quorate_loss_text(loss));
  must(quorate_guard_release(guard, -1, NULL, &error));
  quorate_guard_free(guard);
  quorate_client_free(client);
  return 0;
}
