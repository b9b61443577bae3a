/* Eight threads, one client: locks, keys and observers at once, and one more that cancels and frees. */
#include "check.h"

#define THREADS 8
#define ROUNDS 12

static quorate_client *client;
static int64_t counter, last_token;

/* What one thread makes, triggers and frees while the others use it. */
static struct {
  pthread_mutex_t lock;
  quorate_observer *observer;
  quorate_guard *guard;
  quorate_cancel *cancel;
  size_t working;
} shared = {PTHREAD_MUTEX_INITIALIZER, NULL, NULL, NULL, THREADS};

static void fail(const char *what, quorate_code code, quorate_error *why) {
  fprintf(stderr, "%s: %d %s\n", what, (int)code, why ? why->message : "");
  exit(1);
}

#define DO(call)                                                                                             \
  do {                                                                                                       \
    quorate_code code_ = (call);                                                                             \
    if (code_) fail(#call, code_, why);                                                                      \
  } while (0)

/* The handles are good at first, and may be freed at any moment. */
static void use_shared(void) {
  quorate_observed *seen = NULL;
  quorate_loss loss = -1;
  pthread_mutex_lock(&shared.lock);
  quorate_observer *observer = shared.observer;
  quorate_guard *guard = shared.guard;
  quorate_cancel *cancel = shared.cancel;
  pthread_mutex_unlock(&shared.lock);
  quorate_code codes[2];
  codes[0] = quorate_observer_next(observer, 2, cancel, &seen, NULL);
  codes[1] = quorate_guard_wait_lost(guard, 2, cancel, &loss, NULL);
  (void)quorate_guard_is_held(guard);
  for (int call = 0; call < 2; call++)
    CHECK(codes[call] == QUORATE_OK || codes[call] == QUORATE_TIMEOUT || codes[call] == QUORATE_CANCELLED ||
          codes[call] == QUORATE_CLOSED || codes[call] == QUORATE_BAD_HANDLE);
  quorate_observed_free(seen);
}

static void *make_and_free(void *unused) {
  quorate_error *why = NULL;
  for (size_t working = THREADS; working;) {
    quorate_observer *observer = NULL;
    quorate_guard *guard = NULL;
    quorate_cancel *cancel = NULL;
    int fd = -1;
    DO(quorate_observe(client, quorate_prefix(quorate_str("own/")), NULL, LONG, NULL, &observer, &why));
    DO(quorate_lock_acquire(client, quorate_str("shared"), NULL, LONG, NULL, &guard, &why));
    DO(quorate_guard_lost_fd(guard, &fd, &why));
    DO(quorate_cancel_new(&cancel, &why));
    pthread_mutex_lock(&shared.lock);
    shared.observer = observer;
    shared.guard = guard;
    shared.cancel = cancel;
    working = shared.working;
    pthread_mutex_unlock(&shared.lock);
    (void)readable(fd, 1);
    DO(quorate_cancel_trigger(cancel, &why));
    quorate_observer_free(observer);
    quorate_guard_free(guard);
    quorate_cancel_free(cancel);
  }
  return unused;
}

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
    use_shared();
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
  pthread_mutex_lock(&shared.lock);
  shared.working--;
  pthread_mutex_unlock(&shared.lock);
  return NULL;
}

int main(int argc, char **argv) {
  pthread_t threads[THREADS], maker;
  CHECK(argc == 2);
  client = connect_to(argv[1]);
  CHECK(pthread_create(&maker, NULL, make_and_free, NULL) == 0);
  for (size_t number = 0; number < THREADS; number++)
    CHECK(pthread_create(&threads[number], NULL, work, (void *)number) == 0);
  for (size_t number = 0; number < THREADS; number++) CHECK(pthread_join(threads[number], NULL) == 0);
  CHECK(pthread_join(maker, NULL) == 0);
  CHECK(counter == THREADS * ROUNDS);
  OK(quorate_client_close(client, LONG, NULL, &error));
  quorate_client_free(client);
  all_is_free();
  return 0;
}
