/* Eight threads, one client: every recipe at once, and one thread that cancels and frees. */
#include "check.h"

#define THREADS 8
#define ROUNDS 12

static quorate_client *client;
static int64_t counter, last_token;

static void fail(const char *what, quorate_code code, quorate_error *why) {
  fprintf(stderr, "%s: %d %s\n", what, (int)code, why ? why->message : "");
  exit(1);
}

#define DO(call)                                                                                             \
  do {                                                                                                       \
    quorate_code code_ = (call);                                                                             \
    if (code_) fail(#call, code_, why);                                                                      \
  } while (0)

static void *work(void *argument) {
  size_t number = (size_t)argument;
  quorate_error *why = NULL;
  quorate_observer *observer = NULL;
  char name[32];
  snprintf(name, sizeof name, "own/%u", (unsigned)number);
  DO(quorate_observe(client, quorate_key(quorate_str(name)), NULL, LONG, NULL, &observer, &why));
  quorate_observed *seen = NULL;
  DO(quorate_observer_next(observer, LONG, NULL, &seen, &why));
  quorate_observed_free(seen);
  for (int round = 0; round < ROUNDS; round++) {
    quorate_guard *guard = NULL;
    DO(quorate_lock_acquire(client, quorate_str("all"), NULL, -1, NULL, &guard, &why));
    /* The lock orders these; the library's own synchronization has to make that visible. */
    counter++;
    CHECK(quorate_guard_token(guard) > last_token);
    last_token = quorate_guard_token(guard);
    CHECK(quorate_guard_is_held(guard));
    DO(quorate_guard_release(guard, LONG, NULL, &why));
    quorate_guard_free(guard);
    DO(quorate_put(client, quorate_str(name), quorate_str("x"), NULL, LONG, NULL, NULL, NULL, &why));
    DO(quorate_observer_next(observer, LONG, NULL, &seen, &why));
    CHECK(seen->kind == QUORATE_CHANGES && seen->len == 1);
    quorate_observed_free(seen);
    quorate_kv *kv = NULL;
    DO(quorate_get(client, quorate_str(name), 0, LONG, NULL, &kv, &why));
    CHECK(kv->version == round + 1);
    quorate_kv_free(kv);
    CHECK(quorate_get(client, quorate_str(""), 0, LONG, NULL, &kv, &why) == QUORATE_INVALID_ARGUMENT);
    quorate_error_free(why);
  }
  quorate_observer_free(observer);
  return NULL;
}

int main(int argc, char **argv) {
  pthread_t threads[THREADS];
  CHECK(argc == 2);
  client = connect_to(argv[1]);
  for (size_t number = 0; number < THREADS; number++)
    CHECK(pthread_create(&threads[number], NULL, work, (void *)number) == 0);
  for (size_t number = 0; number < THREADS; number++) CHECK(pthread_join(threads[number], NULL) == 0);
  CHECK(counter == THREADS * ROUNDS);
  OK(quorate_client_close(client, LONG, NULL, &error));
  quorate_client_free(client);
  all_is_free();
  return 0;
}
