/* Time-outs, cancellation, handles that are freed while somebody waits in them, and fork. */
#include <signal.h>
#include <sys/time.h>
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

static quorate_guard *waited_guard;
static quorate_session *waited_session;
static quorate_ephemeral *waited_ephemeral;
static quorate_registration *waited_registration;
static quorate_elector *waited_elector;

static void *free_holds(void *unused) {
  (void)unused;
  after_a_while();
  quorate_guard_free(waited_guard);
  after_a_while();
  quorate_session_free(waited_session);
  after_a_while();
  quorate_ephemeral_free(waited_ephemeral);
  after_a_while();
  quorate_registration_free(waited_registration);
  after_a_while();
  quorate_elector_free(waited_elector);
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
  struct itimerval soon = ZERO;
  soon.it_value.tv_usec = 100 * 1000;
  CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
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

/* The last of the calls in a handle that was freed ends what it stands for. */
static void holds_freed_meanwhile(void) {
  quorate_bytes name = quorate_str("waited");
  quorate_guard *guard = NULL;
  quorate_leader_state *leading = NULL;
  quorate_instance told = ZERO;
  pthread_t thread;
  int state = -1;
  told.address = quorate_str("h:1");
  OK(quorate_lock_acquire(client, name, NULL, LONG, NULL, &waited_guard, &error));
  OK(quorate_session_open(client, 60000, LONG, NULL, &waited_session, &error));
  OK(quorate_ephemeral_create(client, name, quorate_str("v"), NULL, LONG, NULL, &waited_ephemeral, &error));
  OK(quorate_register(client, name, name, &told, NULL, LONG, NULL, &waited_registration, &error));
  OK(quorate_elector_start(client, quorate_str("waited-term"), name, NULL, &waited_elector, &error));
  for (int64_t begun = now_ms(); quorate_elector_token(waited_elector) == 0;) {
    CHECK(now_ms() < begun + LONG);
    OK(quorate_elector_next(waited_elector, LONG, NULL, &leading, &error));
    quorate_leader_state_free(leading);
  }
  int64_t lease = quorate_session_lease(waited_session);

  CHECK(pthread_create(&thread, NULL, free_holds, NULL) == 0);
  IS(QUORATE_CLOSED, quorate_guard_wait_lost(waited_guard, -1, NULL, NULL, &error));
  IS(QUORATE_CLOSED, quorate_session_wait_lost(waited_session, -1, NULL, NULL, &error));
  IS(QUORATE_CLOSED, quorate_ephemeral_next(waited_ephemeral, -1, NULL, &state, NULL, &error));
  IS(QUORATE_CLOSED, quorate_registration_next(waited_registration, -1, NULL, &state, NULL, &error));
  quorate_code code;
  do {
    code = quorate_elector_next(waited_elector, -1, NULL, &leading, NULL);
    quorate_leader_state_free(leading);
  } while (code == QUORATE_OK);
  CHECK(code == QUORATE_CLOSED);
  CHECK(pthread_join(thread, NULL) == 0);

  OK(quorate_lock_acquire(client, name, NULL, LONG, NULL, &guard, &error));
  quorate_guard_free(guard);
  OK(quorate_election_campaign(client, quorate_str("waited-term"), name, NULL, LONG, NULL, &guard, &error));
  quorate_guard_free(guard);
  int64_t begun = now_ms();
  for (bool gone = false; !gone;) {
    quorate_lease_status *status = NULL;
    quorate_instances *instances = NULL;
    quorate_kv *kv = NULL;
    CHECK(now_ms() < begun + LONG);
    OK(quorate_lease_look(client, lease, LONG, NULL, &status, &error));
    OK(quorate_service_instances(client, name, NULL, LONG, NULL, &instances, &error));
    OK(quorate_get(client, name, 0, LONG, NULL, &kv, &error));
    gone = !status->alive && instances->len == 0 && !kv;
    quorate_lease_status_free(status);
    quorate_instances_free(instances);
    quorate_kv_free(kv);
  }
}

/* To release is to hold no more, even if nobody may wait for it. */
static void released_though_cancelled(void) {
  quorate_guard *guard = NULL, *other = NULL;
  OK(quorate_cancel_new(&cancel, &error));
  OK(quorate_cancel_trigger(cancel, &error));
  OK(quorate_lock_acquire(client, quorate_str("given up"), NULL, LONG, NULL, &guard, &error));
  quorate_code code = quorate_guard_release(guard, -1, cancel, &error);
  CHECK(code == QUORATE_OK || (code == QUORATE_CANCELLED && error->indefinite));
  quorate_error_free(error);
  error = NULL;
  CHECK(!quorate_guard_is_held(guard));
  OK(quorate_lock_acquire(client, quorate_str("given up"), NULL, LONG, NULL, &other, &error));
  quorate_guard_free(other);
  quorate_guard_free(guard);
  quorate_cancel_free(cancel);
}

static void *proclaim(void *guard) {
  for (int round = 0; round < 20; round++)
    CHECK(quorate_guard_proclaim((quorate_guard *)guard, quorate_str("v"), LONG, NULL, NULL) == QUORATE_OK);
  return guard;
}

/* Who looks while the value of a leader is changed sees what is held. */
static void looked_at_meanwhile(void) {
  quorate_guard *guard = NULL;
  pthread_t thread;
  OK(quorate_election_campaign(client, quorate_str("term"), quorate_str(""), NULL, LONG, NULL, &guard, &error));
  int64_t lease = quorate_guard_lease(guard);
  CHECK(lease != 0 && pthread_create(&thread, NULL, proclaim, guard) == 0);
  for (int round = 0; round < 20000; round++) {
    CHECK(quorate_guard_lease(guard) == lease);
    CHECK(quorate_guard_remaining_ms(guard) > 0);
    CHECK(quorate_guard_is_held(guard));
  }
  CHECK(pthread_join(thread, NULL) == 0);
  OK(quorate_guard_release(guard, LONG, NULL, &error));
  quorate_guard_free(guard);
}

static quorate_client *last_client;
static quorate_guard *last_guard, *thread_guard;

/* A destructor of C++ may run when the thread's own storage is gone. */
static void at_end_of_thread(void *unused) {
  (void)unused;
  CHECK(quorate_guard_release(thread_guard, LONG, NULL, NULL) == QUORATE_OK);
  quorate_guard_free(thread_guard);
}

static void *end_thread(void *key) {
  quorate_bytes name = quorate_str("thread's");
  CHECK(pthread_setspecific(*(pthread_key_t *)key, client) == 0);
  CHECK(quorate_lock_acquire(client, name, NULL, LONG, NULL, &thread_guard, NULL) == QUORATE_OK);
  return NULL;
}

static void released_as_a_thread_ends(void) {
  pthread_key_t key;
  pthread_t thread;
  CHECK(pthread_key_create(&key, at_end_of_thread) == 0);
  CHECK(pthread_create(&thread, NULL, end_thread, &key) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  CHECK(pthread_key_delete(key) == 0);
}

static void at_exit(void) {
  quorate_code released = quorate_guard_release(last_guard, LONG, NULL, &error);
  if (released != QUORATE_OK) fprintf(stderr, "at exit: %d %s\n", (int)released, error->message);
  quorate_guard_free(last_guard);
  quorate_code closed = quorate_client_close(last_client, LONG, NULL, NULL);
  quorate_client_free(last_client);
  if (released != QUORATE_OK || closed != QUORATE_OK || quorate_in_use() != 0) _exit(1);
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
      IS(QUORATE_FORKED, quorate_client_open(quorate_str(" MEM:test"), &own, &error));
      OK(quorate_client_open(quorate_str("mem:?timeout=1s"), &own, &error));
      quorate_client_free(own);
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
  holds_freed_meanwhile();
  released_though_cancelled();
  looked_at_meanwhile();
  released_as_a_thread_ends();
  forked(argv[1]);
  quorate_client_free(client);
  all_is_free();
  CHECK(atexit(at_exit) == 0);
  last_client = connect_to(argv[1]);
  OK(quorate_lock_acquire(last_client, quorate_str("last"), NULL, LONG, NULL, &last_guard, &error));
  return 0;
}
