/* The server stops answering, goes on, and is killed; whoever runs this does that when a line asks for it. */
#include "check.h"

static quorate_ephemeral *ephemeral;
static quorate_registration *registration;

static void ask(const char *what) {
  char answer[16];
  puts(what);
  CHECK(fflush(stdout) == 0 && fgets(answer, sizeof answer, stdin));
}

static void *set(void *unused) {
  quorate_code code = quorate_ephemeral_set(ephemeral, quorate_str("2"), -1, NULL, NULL);
  CHECK(code == QUORATE_TIMEOUT || code == QUORATE_LOST);
  code = quorate_registration_drain(registration, true, -1, NULL, NULL);
  CHECK(code == QUORATE_TIMEOUT || code == QUORATE_LOST);
  return unused;
}

static void after_a_while(void) {
  struct timespec pause = ZERO;
  pause.tv_nsec = 100 * 1000000;
  nanosleep(&pause, NULL);
}

/* Neither who writes nor who releases waits for ever for a key to come back, and what was released does not. */
static void released_in_a_gap(quorate_client *client) {
  quorate_ephemeral_options options = ZERO;
  quorate_service_options service = ZERO;
  quorate_instance instance = ZERO;
  pthread_t setter;
  options.ttl_ms = service.ttl_ms = 2000;
  instance.address = quorate_str("h:1");
  OK(quorate_ephemeral_create(client, quorate_str("e"), quorate_str("1"), &options, LONG, NULL, &ephemeral, &error));
  OK(quorate_register(client, quorate_str("s"), quorate_str("i"), &instance, &service, LONG, NULL, &registration,
                      &error));
  ask("stop");
  int64_t begun = now_ms();
  while (quorate_ephemeral_state(ephemeral, NULL) == QUORATE_PRESENT ||
         quorate_registration_state(registration, NULL) == QUORATE_PRESENT) {
    CHECK(now_ms() < begun + LONG);
    after_a_while();
  }
  CHECK(pthread_create(&setter, NULL, set, NULL) == 0);
  after_a_while();
  quorate_code code = quorate_ephemeral_release(ephemeral, -1, NULL, NULL);
  CHECK(code == QUORATE_OK || code == QUORATE_TIMEOUT);
  code = quorate_registration_release(registration, -1, NULL, NULL);
  CHECK(code == QUORATE_OK || code == QUORATE_TIMEOUT);
  CHECK(pthread_join(setter, NULL) == 0);
  ask("go on");
  begun = now_ms();
  for (bool gone = false; !gone;) {
    quorate_kvs *kvs = NULL;
    quorate_code code = quorate_list(client, quorate_str(""), LONG, NULL, &kvs, NULL);
    gone = code == QUORATE_OK && kvs->len == 0;
    quorate_kvs_free(kvs);
    CHECK(now_ms() < begun + LONG);
  }
  quorate_ephemeral_free(ephemeral);
  quorate_registration_free(registration);
}

/* No signal ends the program when a connection is written to that is gone. */
static void without_a_server(quorate_client *client) {
  ask("kill");
  for (int call = 0; call < 3; call++) {
    quorate_code code = quorate_put(client, quorate_str("k"), quorate_str("v"), NULL, LONG, NULL, NULL, NULL, &error);
    CHECK(code == QUORATE_UNAVAILABLE || code == QUORATE_TIMEOUT);
    CHECK(error->code == code);
    quorate_error_free(error);
    error = NULL;
  }
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  quorate_client *client = connect_to(argv[1]);
  released_in_a_gap(client);
  without_a_server(client);
  quorate_client_free(client);
  all_is_free();
  return 0;
}
