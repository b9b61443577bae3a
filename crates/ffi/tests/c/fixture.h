/* One handle of each type that lives, one that was freed, and one whose use has ended. */
#ifndef FIXTURE_H
#define FIXTURE_H

#include "check.h"

typedef struct {
  quorate_client *client;
  quorate_cancel *cancel;
  quorate_txn *txn;
  quorate_ttl_key *ttl_key;
  quorate_session *session;
  quorate_guard *guard;
  quorate_leaders *leaders;
  quorate_elector *elector;
  quorate_ephemeral *ephemeral;
  quorate_registration *registration;
  quorate_tracker *tracker;
  quorate_picker *picker;
  quorate_pick *pick;
  quorate_observer *observer;
  quorate_config *config;
  quorate_health_monitor *health_monitor;
} fixture;

static fixture live, freed, ended;
static const char *url;
static quorate_instance instance;

static inline void fixture_make(fixture *made) {
  static int number;
  char name[32];
  snprintf(name, sizeof name, "fixture-%d", number++);
  quorate_bytes one = quorate_str(name), value = quorate_str("{}");
  memset(&instance, 0, sizeof instance);
  instance.address = quorate_str("h:1");
  instance.weight = 1;
  made->client = connect_to(url);
  OK(quorate_cancel_new(&made->cancel, &error));
  OK(quorate_txn_new(&made->txn, &error));
  OK(quorate_ttl_key_put(made->client, quorate_str("t"), value, 30000, LONG, NULL, &made->ttl_key, &error));
  OK(quorate_session_open(made->client, 30000, LONG, NULL, &made->session, &error));
  OK(quorate_lock_acquire(made->client, one, NULL, LONG, NULL, &made->guard, &error));
  OK(quorate_election_observe(made->client, one, &made->leaders, &error));
  char term[40];
  snprintf(term, sizeof term, "%s/term", name);
  OK(quorate_elector_start(made->client, quorate_str(term), value, NULL, &made->elector, &error));
  for (int64_t begun = now_ms(); quorate_elector_token(made->elector) == 0;) {
    quorate_leader_state *state = NULL;
    CHECK(now_ms() < begun + LONG);
    OK(quorate_elector_next(made->elector, LONG, NULL, &state, &error));
    quorate_leader_state_free(state);
  }
  OK(quorate_ephemeral_create(made->client, one, value, NULL, LONG, NULL, &made->ephemeral, &error));
  OK(quorate_register(made->client, quorate_str("s"), one, &instance, NULL, LONG, NULL, &made->registration, &error));
  OK(quorate_tracker_open(made->client, quorate_str("s"), NULL, LONG, NULL, &made->tracker, &error));
  OK(quorate_picker_new(made->tracker, QUORATE_ROUND_ROBIN, &made->picker, &error));
  OK(quorate_picker_pick(made->picker, &made->pick, &error));
  CHECK(made->pick);
  OK(quorate_observe(made->client, quorate_key(one), NULL, LONG, NULL, &made->observer, &error));
  OK(quorate_config_open(made->client, one, NULL, LONG, NULL, &made->config, &error));
  OK(quorate_health_monitor_open(made->client, NULL, &made->health_monitor, &error));
}

/* Each is freed twice, which is once. */
static inline void fixture_free(fixture *made) {
  for (int twice = 0; twice < 2; twice++) {
    quorate_cancel_free(made->cancel);
    quorate_txn_free(made->txn);
    quorate_ttl_key_free(made->ttl_key);
    quorate_session_free(made->session);
    quorate_guard_free(made->guard);
    quorate_leaders_free(made->leaders);
    quorate_elector_free(made->elector);
    quorate_ephemeral_free(made->ephemeral);
    quorate_registration_free(made->registration);
    quorate_tracker_free(made->tracker);
    quorate_picker_free(made->picker);
    quorate_pick_free(made->pick);
    quorate_observer_free(made->observer);
    quorate_config_free(made->config);
    quorate_health_monitor_free(made->health_monitor);
    quorate_client_free(made->client);
  }
}

static inline void fixture_end(fixture *made) {
  OK(quorate_ttl_key_delete(made->ttl_key, LONG, NULL, &error));
  OK(quorate_guard_release(made->guard, LONG, NULL, &error));
  OK(quorate_elector_stop(made->elector, LONG, NULL, &error));
  OK(quorate_ephemeral_release(made->ephemeral, LONG, NULL, &error));
  OK(quorate_registration_release(made->registration, LONG, NULL, &error));
  OK(quorate_pick_failed(made->pick, &error));
  OK(quorate_session_close(made->session, LONG, NULL, &error));
  OK(quorate_client_close(made->client, LONG, NULL, &error));
  OK(quorate_cancel_trigger(made->cancel, &error));
}

static inline quorate_bytes bytes_null_with_length(void) { return quorate_buf(NULL, 5); }
static inline quorate_bytes bytes_over_long(void) { return quorate_buf("x", (size_t)QUORATE_MAX_LEN + 1); }
static inline quorate_bytes bytes_endless(void) { return quorate_buf("x", SIZE_MAX); }
static inline quorate_bytes bytes_empty(void) { return quorate_buf(NULL, 0); }
static inline quorate_bytes bytes_not_utf8(void) { return quorate_buf("\xff\xfe\x80", 3); }
static inline quorate_keys keys_of(quorate_bytes key) { return quorate_key(key); }
static inline quorate_keys keys_unknown(void) {
  quorate_keys keys = quorate_key(quorate_str("x"));
  keys.kind = 99;
  return keys;
}

/* What a call returned: an error beside it, and a code that is documented; else the test fails. */
static inline quorate_code expect(const char *what, quorate_code code, quorate_code expected, bool has_error) {
  bool good = expected < 0 ? code != QUORATE_INTERNAL && code != QUORATE_FORKED : code == expected;
  if (expected == -2) good = good && code != QUORATE_BAD_HANDLE;
  if (expected == -3) good = code == QUORATE_BAD_HANDLE || code == QUORATE_INVALID_ARGUMENT;
  if (!good || (has_error && ((code == QUORATE_OK) != (error == NULL) || (error && error->code != code)))) {
    fprintf(stderr, "%s: %d (%s), expected %d\n", what, (int)code, error ? error->message : "no error", (int)expected);
    exit(1);
  }
  quorate_error_free(error);
  quorate_error_free(error);
  error = NULL;
  return code;
}

/* What failed leaves its outputs empty. */
static inline void zeroed(const char *what, bool are_zero) {
  if (are_zero) return;
  fprintf(stderr, "%s: it failed, and an output is not zero\n", what);
  exit(1);
}

#endif
