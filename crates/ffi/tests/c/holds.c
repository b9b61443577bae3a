/* Sessions, locks, elections, electors and ephemeral keys. */
#include "check.h"

static quorate_client *here, *there;

static void sessions(void) {
  quorate_session *session = NULL;
  int fd = -1, state = -1;
  quorate_loss loss = -1;
  OK(quorate_session_open(here, 10000, LONG, NULL, &session, &error));
  CHECK(quorate_session_lease(session) != 0 && quorate_session_ttl_ms(session) >= 10000);
  CHECK(quorate_session_remaining_ms(session) > 5000);
  CHECK(quorate_session_state(session, &loss) == QUORATE_SESSION_LIVE && loss == QUORATE_LOSS_NONE);
  OK(quorate_session_fd(session, &fd, &error));
  CHECK(!readable(fd, 0));
  IS(QUORATE_TIMEOUT, quorate_session_next(session, 0, NULL, &state, NULL, &error));
  IS(QUORATE_TIMEOUT, quorate_session_wait_lost(session, 10, NULL, &loss, &error));
  OK(quorate_session_close(session, LONG, NULL, &error));
  CHECK(readable(fd, LONG));
  OK(quorate_session_next(session, LONG, NULL, &state, &loss, &error));
  CHECK(state == QUORATE_SESSION_LOST && loss == QUORATE_LOSS_CLOSED);
  IS(QUORATE_END, quorate_session_next(session, LONG, NULL, &state, NULL, &error));
  CHECK(readable(fd, 0));
  OK(quorate_session_wait_lost(session, -1, NULL, &loss, &error));
  CHECK(loss == QUORATE_LOSS_CLOSED && quorate_session_remaining_ms(session) == 0);
  quorate_session_free(session);
}

static void locks(void) {
  quorate_bytes name = quorate_str("jobs");
  quorate_guard *guard = NULL, *other = NULL;
  quorate_buffer *key = NULL;
  quorate_lock_options options = ZERO;
  options.ttl_ms = 20000;
  options.holder = quorate_str("nightly");
  OK(quorate_lock_acquire(here, name, &options, LONG, NULL, &guard, &error));
  CHECK(quorate_guard_is_held(guard) && quorate_guard_token(guard) > 0);
  CHECK(quorate_guard_lease(guard) != 0 && quorate_guard_remaining_ms(guard) > 5000);
  CHECK(quorate_guard_loss(guard) == QUORATE_LOSS_NONE);
  OK(quorate_guard_key(guard, &key, &error));
  CHECK(key->bytes.len > 5 && memcmp(key->bytes.data, "jobs/", 5) == 0);
  quorate_buffer_free(key);
  IS(QUORATE_UNSUPPORTED, quorate_guard_proclaim(guard, quorate_str("x"), LONG, NULL, &error));
  IS(QUORATE_NOT_HELD, quorate_lock_try_acquire(there, name, NULL, LONG, NULL, &other, &error));
  CHECK(!other);
  IS(QUORATE_TIMEOUT, quorate_lock_acquire(there, name, NULL, 200, NULL, &other, &error));

  quorate_contenders *contenders = NULL;
  int64_t begun = now_ms();
  do { /* who gave up leaves the queue in the background */
    quorate_contenders_free(contenders);
    OK(quorate_lock_contenders(there, name, LONG, NULL, &contenders, &error));
  } while (contenders->len != 1 && now_ms() < begun + LONG);
  CHECK(contenders->len == 1 && contenders->contenders[0].token == quorate_guard_token(guard));
  CHECK(strstr((const char *)contenders->contenders[0].value.data, "nightly"));
  quorate_contenders_free(contenders);

  quorate_txn *txn = NULL;
  quorate_txn_result *result = NULL;
  OK(quorate_txn_new(&txn, &error));
  OK(quorate_txn_if_held(txn, guard, &error));
  OK(quorate_txn_put(txn, QUORATE_THEN, quorate_str("last"), quorate_str("42"), NULL, false, &error));
  OK(quorate_txn_commit(here, txn, LONG, NULL, &result, &error));
  CHECK(result->succeeded);
  quorate_txn_result_free(result);

  /* Lost behind our back: the descriptor tells, and the fence refuses. */
  int fd = -1;
  quorate_loss loss = -1;
  OK(quorate_guard_lost_fd(guard, &fd, &error));
  CHECK(!readable(fd, 0));
  OK(quorate_lease_revoke(there, quorate_guard_lease(guard), LONG, NULL, &error));
  CHECK(readable(fd, LONG));
  OK(quorate_guard_wait_lost(guard, LONG, NULL, &loss, &error));
  CHECK(loss != QUORATE_LOSS_NONE && loss == quorate_guard_loss(guard) && !quorate_guard_is_held(guard));
  CHECK(*quorate_loss_text(loss) && *quorate_code_text(QUORATE_LOST));
  OK(quorate_txn_commit(here, txn, LONG, NULL, &result, &error));
  CHECK(!result->succeeded);
  quorate_txn_result_free(result);
  quorate_txn_free(txn);
  CHECK(quorate_guard_release(guard, LONG, NULL, &error) == QUORATE_LOST);
  CHECK(error->loss == loss);
  quorate_error_free(error);
  error = NULL;
  IS(QUORATE_LOST, quorate_guard_release(guard, LONG, NULL, &error));
  quorate_guard_free(guard);

  /* Released, broken, over its limit, freed: the next one acquires. */
  OK(quorate_lock_try_acquire(there, name, NULL, LONG, NULL, &guard, &error));
  int64_t token = quorate_guard_token(guard);
  OK(quorate_guard_release(guard, LONG, NULL, &error));
  CHECK(!quorate_guard_is_held(guard) && quorate_guard_loss(guard) == QUORATE_LOSS_RELEASED);
  CHECK(quorate_guard_lease(guard) == 0 && quorate_guard_token(guard) == token);
  quorate_guard_free(guard);
  OK(quorate_lock_acquire(here, name, NULL, LONG, NULL, &guard, &error));
  CHECK(quorate_guard_token(guard) > token);
  bool broken = false;
  OK(quorate_lock_break(there, name, quorate_guard_token(guard), LONG, NULL, &broken, &error));
  CHECK(broken);
  OK(quorate_guard_wait_lost(guard, LONG, NULL, &loss, &error));
  CHECK(loss == QUORATE_LOSS_DELETED);
  quorate_guard_free(guard);
  quorate_lock_options limited = ZERO;
  limited.max_hold_ms = 100;
  OK(quorate_lock_acquire(here, name, &limited, LONG, NULL, &guard, &error));
  OK(quorate_guard_wait_lost(guard, LONG, NULL, &loss, &error));
  CHECK(loss == QUORATE_LOSS_HOLD_LIMIT);
  quorate_guard_free(guard);
  OK(quorate_lock_acquire(here, name, NULL, LONG, NULL, &guard, &error));
  quorate_guard_free(guard);
  OK(quorate_lock_acquire(there, name, NULL, LONG, NULL, &guard, &error));
  OK(quorate_guard_release(guard, LONG, NULL, &error));
  quorate_guard_free(guard);

  /* Two ways to say the session exclude each other. */
  quorate_session *session = NULL;
  OK(quorate_session_open(here, 0, LONG, NULL, &session, &error));
  options.session = session;
  IS(QUORATE_INVALID_ARGUMENT, quorate_lock_acquire(here, name, &options, LONG, NULL, &guard, &error));
  options.ttl_ms = 0;
  OK(quorate_lock_acquire(here, name, &options, LONG, NULL, &guard, &error));
  CHECK(quorate_guard_lease(guard) == quorate_session_lease(session));
  quorate_session_free(session); /* the guard keeps it */
  CHECK(quorate_guard_is_held(guard));
  OK(quorate_guard_release(guard, LONG, NULL, &error));
  quorate_guard_free(guard);
}

static void elections(void) {
  quorate_bytes name = quorate_str("scheduler");
  quorate_leaders *leaders = NULL;
  quorate_contender *leader = NULL;
  quorate_guard *guard = NULL;
  int fd = -1;
  OK(quorate_election_observe(there, name, &leaders, &error));
  OK(quorate_leaders_fd(leaders, &fd, &error));
  CHECK(readable(fd, LONG));
  OK(quorate_leaders_next(leaders, 0, NULL, &leader, &error));
  CHECK(!leader && !readable(fd, 0));
  OK(quorate_election_campaign(here, name, quorate_str("one"), NULL, LONG, NULL, &guard, &error));
  OK(quorate_leaders_next(leaders, LONG, NULL, &leader, &error));
  CHECK(same(leader->value, "one") && leader->token == quorate_guard_token(guard));
  quorate_contender_free(leader);
  OK(quorate_guard_proclaim(guard, quorate_str("two"), LONG, NULL, &error));
  OK(quorate_leaders_next(leaders, LONG, NULL, &leader, &error));
  CHECK(same(leader->value, "two"));
  quorate_contender_free(leader);
  OK(quorate_election_leader(there, name, LONG, NULL, &leader, &error));
  CHECK(same(leader->value, "two"));
  quorate_contender_free(leader);
  quorate_contenders *candidates = NULL;
  OK(quorate_election_candidates(there, name, LONG, NULL, &candidates, &error));
  CHECK(candidates->len == 1);
  quorate_contenders_free(candidates);
  OK(quorate_guard_release(guard, LONG, NULL, &error));
  IS(QUORATE_LOST, quorate_guard_proclaim(guard, quorate_str("three"), LONG, NULL, &error));
  quorate_guard_free(guard);
  OK(quorate_leaders_next(leaders, LONG, NULL, &leader, &error));
  CHECK(!leader);
  quorate_leaders_free(leaders);
}

static quorate_leader_state *state_of_kind(quorate_elector *elector, int kind) {
  for (;;) {
    quorate_leader_state *state = NULL;
    OK(quorate_elector_next(elector, LONG, NULL, &state, &error));
    if (state->kind == kind) return state;
    quorate_leader_state_free(state);
  }
}

static void electors(void) {
  quorate_bytes name = quorate_str("cleaner");
  quorate_elector *one = NULL, *two = NULL;
  quorate_leader_state *state = NULL;
  int fd = -1;
  quorate_txn *txn = NULL;
  quorate_txn_result *result = NULL;
  quorate_election_options options = ZERO;
  options.ttl_ms = 10000;
  OK(quorate_elector_start(here, name, quorate_str("one"), &options, &one, &error));
  state = state_of_kind(one, QUORATE_LEADING);
  CHECK(state->token > 0 && !state->leader && quorate_elector_token(one) == state->token);
  int64_t token = state->token;
  quorate_leader_state_free(state);
  OK(quorate_elector_start(there, name, quorate_str("two"), NULL, &two, &error));
  state = state_of_kind(two, QUORATE_FOLLOWING);
  CHECK(same(state->leader->value, "one") && state->token == token && quorate_elector_token(two) == 0);
  quorate_leader_state_free(state);
  OK(quorate_elector_fd(two, &fd, &error));
  CHECK(!readable(fd, 0));

  OK(quorate_txn_new(&txn, &error));
  IS(QUORATE_LOST, quorate_txn_if_leading(txn, two, &error));
  OK(quorate_txn_if_leading(txn, one, &error));
  OK(quorate_txn_put(txn, QUORATE_THEN, quorate_str("cleaned"), quorate_str("1"), NULL, false, &error));
  OK(quorate_txn_commit(here, txn, LONG, NULL, &result, &error));
  CHECK(result->succeeded);
  quorate_txn_result_free(result);

  OK(quorate_elector_stop(one, LONG, NULL, &error));
  IS(QUORATE_CLOSED, quorate_elector_stop(one, LONG, NULL, &error));
  OK(quorate_elector_state(one, &state, &error));
  CHECK(state->kind == QUORATE_NO_LEADER);
  quorate_leader_state_free(state);
  OK(quorate_txn_commit(here, txn, LONG, NULL, &result, &error));
  CHECK(!result->succeeded); /* the term is over, and its fence holds */
  quorate_txn_result_free(result);
  quorate_txn_free(txn);
  CHECK(readable(fd, LONG));
  quorate_leader_state_free(state_of_kind(two, QUORATE_LEADING));
  quorate_code code;
  do { /* what was fetched before the end, then the end */
    code = quorate_elector_next(one, LONG, NULL, &state, &error);
    quorate_leader_state_free(state);
  } while (code == QUORATE_OK);
  CHECK(code == QUORATE_END);
  quorate_error_free(error);
  error = NULL;
  quorate_elector_free(one);
  quorate_elector_free(two);
}

static void ephemerals(void) {
  quorate_bytes name = quorate_str("workers/7");
  quorate_ephemeral *key = NULL, *other = NULL;
  int fd = -1, state = -1;
  quorate_loss loss = -1;
  quorate_kv *kv = NULL;
  quorate_ephemeral_options options = ZERO;
  options.ttl_ms = 10000;
  OK(quorate_ephemeral_create(here, name, quorate_str("idle"), &options, LONG, NULL, &key, &error));
  CHECK(quorate_ephemeral_state(key, NULL) == QUORATE_PRESENT && quorate_ephemeral_token(key) > 0);
  IS(QUORATE_ALREADY_EXISTS, quorate_ephemeral_create(there, name, quorate_str("x"), NULL, LONG, NULL, &other, &error));
  OK(quorate_ephemeral_set(key, quorate_str("busy"), LONG, NULL, &error));
  OK(quorate_get(there, name, 0, LONG, NULL, &kv, &error));
  CHECK(same(kv->value, "busy"));
  quorate_kv_free(kv);

  OK(quorate_ephemeral_fd(key, &fd, &error));
  CHECK(!readable(fd, 0));
  int64_t token = quorate_ephemeral_token(key);
  OK(quorate_delete(there, quorate_key(name), LONG, NULL, NULL, NULL, NULL, &error));
  CHECK(readable(fd, LONG));
  do { /* a gap, of which one may be told or not, and back again */
    OK(quorate_ephemeral_next(key, LONG, NULL, &state, &loss, &error));
    CHECK(loss == QUORATE_LOSS_NONE);
  } while (state != QUORATE_PRESENT || quorate_ephemeral_token(key) == token);

  options.take_over = true;
  OK(quorate_ephemeral_create(there, name, quorate_str("mine"), &options, LONG, NULL, &other, &error));
  do {
    OK(quorate_ephemeral_next(key, LONG, NULL, &state, &loss, &error));
  } while (state != QUORATE_OVER);
  CHECK(loss == QUORATE_LOSS_CONFLICT && quorate_ephemeral_state(key, &loss) == QUORATE_OVER);
  IS(QUORATE_END, quorate_ephemeral_next(key, LONG, NULL, &state, NULL, &error));
  IS(QUORATE_LOST, quorate_ephemeral_set(key, quorate_str("x"), LONG, NULL, &error));
  IS(QUORATE_LOST, quorate_ephemeral_release(key, LONG, NULL, &error));
  quorate_ephemeral_free(key);
  OK(quorate_ephemeral_release(other, LONG, NULL, &error));
  IS(QUORATE_LOST, quorate_ephemeral_release(other, LONG, NULL, &error));
  IS(QUORATE_LOST, quorate_ephemeral_set(other, quorate_str("x"), LONG, NULL, &error));
  CHECK(quorate_ephemeral_token(other) == 0);
  quorate_ephemeral_free(other);
  OK(quorate_get(there, name, 0, LONG, NULL, &kv, &error));
  CHECK(!kv);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  here = connect_to(argv[1]);
  there = connect_to(argv[1]);
  sessions();
  locks();
  elections();
  electors();
  ephemerals();
  quorate_guard *guard = NULL;
  OK(quorate_lock_acquire(here, quorate_str("last"), NULL, LONG, NULL, &guard, &error));
  OK(quorate_client_close(here, LONG, NULL, &error));
  CHECK(!quorate_guard_is_held(guard) && quorate_guard_loss(guard) == QUORATE_LOSS_CLOSED);
  quorate_guard_free(guard);
  quorate_client_free(here);
  quorate_client_free(there);
  all_is_free();
  return 0;
}
