/* Time-outs, cancellation, handles that are freed while somebody waits in them, and fork. */
#include <signal.h>
#include <sys/wait.h>

#include "check.h"

static quorate_client *client;
static quorate_cancel *cancel;
static quorate_observer *observer;
static int cancel_fd;

static void after_a_while(void) {
  struct timespec pause = ZERO;
  pause.tv_nsec = 100 * 1000000;
  nanosleep(&pause, NULL);
}

static void *trigger(void *unused) {
  (void)unused;
  after_a_while();
  CHECK(quorate_cancel_trigger(cancel, NULL) == QUORATE_OK);
  return NULL;
}

static void *free_observer(void *unused) {
  (void)unused;
  after_a_while();
  quorate_observer_free(observer);
  return NULL;
}

static void *free_client(void *other) {
  after_a_while();
  quorate_client_free((quorate_client *)other);
  return NULL;
}

static void on_signal(int number) {
  uint64_t one = 1;
  (void)number;
  if (write(cancel_fd, &one, sizeof one) != sizeof one) _exit(3);
}

static size_t contenders(const char *name) {
  quorate_contenders *all = NULL;
  OK(quorate_lock_contenders(client, quorate_str(name), LONG, NULL, &all, &error));
  size_t len = all->len;
  quorate_contenders_free(all);
  return len;
}

static void cancelled(void) {
  quorate_guard *guard = NULL, *other = NULL;
  pthread_t thread;
  OK(quorate_cancel_new(&cancel, &error));
  OK(quorate_lock_acquire(client, quorate_str("l"), NULL, LONG, cancel, &guard, &error));
  CHECK(pthread_create(&thread, NULL, trigger, NULL) == 0);
  int64_t begun = now_ms();
  IS(QUORATE_CANCELLED, quorate_lock_acquire(client, quorate_str("l"), NULL, -1, cancel, &other, &error));
  CHECK(!other && now_ms() - begun < LONG / 2);
  CHECK(pthread_join(thread, NULL) == 0);
  /* Once triggered it stays so: nothing begins. */
  IS(QUORATE_CANCELLED, quorate_put(client, quorate_str("k"), quorate_str("v"), NULL, LONG, cancel, NULL, NULL, &error));
  quorate_kv *kv = NULL;
  OK(quorate_get(client, quorate_str("k"), 0, LONG, NULL, &kv, &error));
  CHECK(!kv);
  /* Who was cancelled leaves the queue. */
  begun = now_ms();
  while (contenders("l") != 1) CHECK(now_ms() - begun < LONG);
  OK(quorate_guard_release(guard, LONG, NULL, &error));
  begun = now_ms();
  while (contenders("l") != 0) CHECK(now_ms() - begun < LONG);
  quorate_guard_free(guard);
  quorate_cancel_free(cancel);
  IS(QUORATE_BAD_HANDLE, quorate_cancel_trigger(cancel, &error));
  IS(QUORATE_BAD_HANDLE, quorate_get(client, quorate_str("k"), 0, LONG, cancel, &kv, &error));
}

static void by_a_signal(void) {
  struct sigaction action = ZERO;
  quorate_observed *seen = NULL;
  OK(quorate_cancel_new(&cancel, &error));
  OK(quorate_cancel_fd(cancel, &cancel_fd, &error));
  action.sa_handler = on_signal;
  CHECK(sigaction(SIGALRM, &action, NULL) == 0);
  OK(quorate_observe(client, quorate_key(quorate_str("k")), NULL, LONG, NULL, &observer, &error));
  OK(quorate_observer_next(observer, LONG, NULL, &seen, &error));
  quorate_observed_free(seen);
  alarm(1);
  IS(QUORATE_CANCELLED, quorate_observer_next(observer, -1, cancel, &seen, &error));
  quorate_cancel_free(cancel);
}

static void freed_meanwhile(void) {
  quorate_observed *seen = NULL;
  quorate_guard *guard = NULL, *other = NULL;
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, free_observer, NULL) == 0);
  IS(QUORATE_CLOSED, quorate_observer_next(observer, -1, NULL, &seen, &error));
  CHECK(pthread_join(thread, NULL) == 0);
  IS(QUORATE_BAD_HANDLE, quorate_observer_next(observer, -1, NULL, &seen, &error));
  quorate_observer_free(observer); /* twice is once */
  quorate_client *second = NULL;
  OK(quorate_client_namespace(client, quorate_str("ns"), &second, &error));
  OK(quorate_lock_acquire(second, quorate_str("l"), NULL, LONG, NULL, &guard, &error));
  CHECK(pthread_create(&thread, NULL, free_client, second) == 0);
  IS(QUORATE_CLOSED, quorate_lock_acquire(second, quorate_str("l"), NULL, -1, NULL, &other, &error));
  CHECK(pthread_join(thread, NULL) == 0);
  CHECK(quorate_guard_is_held(guard)); /* it keeps what it needs of its client */
  OK(quorate_guard_release(guard, LONG, NULL, &error));
  quorate_guard_free(guard);
}

/* The child of a fork is told that handles are its parent's, and can have its own. */
static void forked(const char *url) {
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    quorate_kv *kv = NULL;
    IS(QUORATE_FORKED, quorate_get(client, quorate_str("k"), 0, LONG, NULL, &kv, &error));
    quorate_client_free(client);
    IS(QUORATE_FORKED, quorate_get(client, quorate_str("k"), 0, LONG, NULL, &kv, &error));
    quorate_client *own = NULL;
    if (strncmp(url, "mem:", 4) == 0) {
      IS(QUORATE_FORKED, quorate_client_open(quorate_str(url), &own, &error));
      url = "mem:";
    }
    own = connect_to(url);
    OK(quorate_put(own, quorate_str("child"), quorate_str("1"), NULL, LONG, NULL, NULL, NULL, &error));
    quorate_guard *guard = NULL;
    OK(quorate_lock_acquire(own, quorate_str("child"), NULL, LONG, NULL, &guard, &error));
    OK(quorate_guard_release(guard, LONG, NULL, &error));
    quorate_guard_free(guard);
    quorate_client_free(own);
    all_is_free();
    _exit(0);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  quorate_kv *kv = NULL;
  OK(quorate_get(client, quorate_str("k"), 0, LONG, NULL, &kv, &error));
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  client = connect_to(argv[1]);
  cancelled();
  by_a_signal();
  freed_meanwhile();
  forked(argv[1]);
  quorate_client_free(client);
  all_is_free();
  return 0;
}
