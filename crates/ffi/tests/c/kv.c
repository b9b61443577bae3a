/* Keys, transactions and leases. */
#include "check.h"

static quorate_client *client;

static void put(const char *key, const char *value) {
  OK(quorate_put(client, quorate_str(key), quorate_str(value), NULL, LONG, NULL, NULL, NULL, &error));
}

static quorate_kv *get(const char *key, int64_t revision) {
  quorate_kv *kv = NULL;
  OK(quorate_get(client, quorate_str(key), revision, LONG, NULL, &kv, &error));
  return kv;
}

static void keys(void) {
  CHECK(!get("a", 0));
  int64_t revision = 0;
  quorate_kv *prev = NULL;
  OK(quorate_put(client, quorate_str("a"), quorate_buf("1\0x", 3), NULL, LONG, NULL, &revision, &prev, &error));
  CHECK(revision > 0 && !prev);
  OK(quorate_put(client, quorate_str("a"), quorate_str("2"), NULL, LONG, NULL, NULL, &prev, &error));
  CHECK(prev && prev->value.len == 3 && memcmp(prev->value.data, "1\0x", 4) == 0);
  quorate_kv_free(prev);
  quorate_kv *kv = get("a", 0);
  CHECK(same(kv->key, "a") && same(kv->value, "2"));
  CHECK(kv->create_revision == revision && kv->mod_revision > revision);
  CHECK(kv->version == 2 && kv->lease == 0);
  quorate_kv_free(kv);
  kv = get("a", revision);
  CHECK(kv->value.len == 3);
  quorate_kv_free(kv);
  quorate_kv_free(NULL);

  put("b", "x");
  put("c/1", "y");
  put("c/2", "z");
  quorate_range_options options = ZERO;
  options.limit = 2;
  options.sort_by = QUORATE_BY_VALUE;
  options.descending = true;
  quorate_kvs *kvs = NULL;
  OK(quorate_range(client, quorate_prefix(quorate_str("")), &options, LONG, NULL, &kvs, &error));
  CHECK(kvs->len == 2 && kvs->count == 4 && kvs->more);
  CHECK(same(kvs->kvs[0].value, "z") && same(kvs->kvs[1].value, "y"));
  quorate_kvs_free(kvs);
  OK(quorate_list(client, quorate_str("c/"), LONG, NULL, &kvs, &error));
  CHECK(kvs->len == 2 && kvs->count == 2 && !kvs->more && kvs->revision >= revision + 4);
  quorate_kvs_free(kvs);
  OK(quorate_range(client, quorate_between(quorate_str("b"), quorate_str("c/2")), NULL, LONG, NULL, &kvs, &error));
  CHECK(kvs->len == 2);
  quorate_kvs_free(kvs);
  OK(quorate_range(client, quorate_from(quorate_str("c")), NULL, LONG, NULL, &kvs, &error));
  CHECK(kvs->len == 2);
  quorate_kvs_free(kvs);

  int64_t deleted = 0;
  quorate_kvs *prevs = NULL;
  OK(quorate_delete(client, quorate_prefix(quorate_str("c/")), LONG, NULL, &deleted, NULL, &prevs, &error));
  CHECK(deleted == 2 && prevs->len == 2 && same(prevs->kvs[1].value, "z"));
  quorate_kvs_free(prevs);
  OK(quorate_delete(client, quorate_key(quorate_str("c/1")), LONG, NULL, &deleted, NULL, NULL, &error));
  CHECK(deleted == 0);
}

static void conditional_writes(void) {
  bool done = false;
  int64_t revision = 0;
  quorate_kv *present = NULL;
  OK(quorate_put_if_absent(client, quorate_str("n"), quorate_str("1"), LONG, NULL, &done, &revision, &present,
                           &error));
  CHECK(done && revision > 0 && !present);
  OK(quorate_put_if_absent(client, quorate_str("n"), quorate_str("2"), LONG, NULL, &done, NULL, &present, &error));
  CHECK(!done && same(present->value, "1"));
  quorate_kv_free(present);
  OK(quorate_put_if_revision(client, quorate_str("n"), revision, quorate_str("2"), LONG, NULL, &done, NULL, NULL,
                             &error));
  CHECK(done);
  OK(quorate_put_if_value(client, quorate_str("n"), quorate_str("1"), quorate_str("3"), LONG, NULL, &done, NULL,
                          NULL, &error));
  CHECK(!done);
  OK(quorate_put_if_value(client, quorate_str("n"), quorate_str("2"), quorate_str("3"), LONG, NULL, &done, NULL,
                          &present, &error));
  CHECK(done && !present);
}

static void transactions(void) {
  quorate_txn *txn = NULL, *inner = NULL;
  quorate_txn_result *result = NULL;
  quorate_keys n = quorate_key(quorate_str("n"));
  OK(quorate_txn_new(&inner, &error));
  OK(quorate_txn_put(inner, QUORATE_THEN, quorate_str("inner"), quorate_str("yes"), NULL, false, &error));
  OK(quorate_txn_new(&txn, &error));
  OK(quorate_txn_if_value(txn, n, QUORATE_EQUAL, quorate_str("3"), &error));
  OK(quorate_txn_if_create_revision(txn, n, QUORATE_GREATER, 0, &error));
  OK(quorate_txn_if_mod_revision(txn, n, QUORATE_NOT_EQUAL, 1, &error));
  OK(quorate_txn_if_version(txn, n, QUORATE_LESS, 100, &error));
  OK(quorate_txn_if_lease(txn, n, QUORATE_EQUAL, 0, &error));
  OK(quorate_txn_put(txn, QUORATE_THEN, quorate_str("n"), quorate_str("4"), NULL, true, &error));
  OK(quorate_txn_get(txn, QUORATE_THEN, n, NULL, &error));
  OK(quorate_txn_delete(txn, QUORATE_THEN, quorate_key(quorate_str("b")), true, &error));
  OK(quorate_txn_nest(txn, QUORATE_THEN, inner, &error));
  OK(quorate_txn_get(txn, QUORATE_ELSE, n, NULL, &error));
  quorate_txn_free(inner);
  OK(quorate_txn_commit(client, txn, LONG, NULL, &result, &error));
  CHECK(result->succeeded && result->len == 4 && result->revision > 0);
  CHECK(result->results[0].kind == QUORATE_OP_PUT && same(result->results[0].kvs.kvs[0].value, "3"));
  CHECK(result->results[1].kind == QUORATE_OP_GET && same(result->results[1].kvs.kvs[0].value, "4"));
  CHECK(result->results[2].kind == QUORATE_OP_DELETE && result->results[2].deleted == 1);
  CHECK(same(result->results[2].kvs.kvs[0].key, "b"));
  CHECK(result->results[3].kind == QUORATE_OP_TXN && result->results[3].txn->succeeded);
  quorate_txn_result_free(result);
  /* It can be committed again, and takes the other branch now. */
  OK(quorate_txn_commit(client, txn, LONG, NULL, &result, &error));
  CHECK(!result->succeeded && result->len == 1 && same(result->results[0].kvs.kvs[0].value, "4"));
  quorate_txn_result_free(result);
  quorate_txn_free(txn);

  /* What etcd would refuse is refused here. */
  OK(quorate_txn_new(&txn, &error));
  OK(quorate_txn_put(txn, QUORATE_THEN, quorate_str("n"), quorate_str("4"), NULL, false, &error));
  OK(quorate_txn_put(txn, QUORATE_THEN, quorate_str("n"), quorate_str("5"), NULL, false, &error));
  IS(QUORATE_INVALID_ARGUMENT, quorate_txn_commit(client, txn, LONG, NULL, &result, &error));
  CHECK(!result);
  quorate_txn_free(txn);
}

static void leases(void) {
  int64_t lease = 0, ttl = 0;
  OK(quorate_lease_grant(client, 30000, LONG, NULL, &lease, &ttl, &error));
  CHECK(lease != 0 && ttl >= 30000);
  quorate_put_options options = ZERO;
  options.lease = lease;
  OK(quorate_put(client, quorate_str("leased"), quorate_str("1"), &options, LONG, NULL, NULL, NULL, &error));
  options.lease = 0;
  options.ignore_lease = true;
  OK(quorate_put(client, quorate_str("leased"), quorate_str("2"), &options, LONG, NULL, NULL, NULL, &error));
  quorate_kv *kv = get("leased", 0);
  CHECK(kv->lease == lease && same(kv->value, "2"));
  quorate_kv_free(kv);
  quorate_lease_status *status = NULL;
  OK(quorate_lease_look(client, lease, LONG, NULL, &status, &error));
  CHECK(status->alive && status->len == 1 && same(status->keys[0], "leased") && status->remaining_ms > 20000);
  quorate_lease_status_free(status);
  OK(quorate_lease_revoke(client, lease, LONG, NULL, &error));
  IS(QUORATE_NOT_FOUND, quorate_lease_revoke(client, lease, LONG, NULL, &error));
  OK(quorate_lease_look(client, lease, LONG, NULL, &status, &error));
  CHECK(!status->alive);
  quorate_lease_status_free(status);
  CHECK(!get("leased", 0));

  quorate_ttl_key *key = NULL;
  OK(quorate_ttl_key_put(client, quorate_str("seen"), quorate_str("1"), 30000, LONG, NULL, &key, &error));
  CHECK(quorate_ttl_key_lease(key) != 0);
  int64_t remaining = 0;
  OK(quorate_ttl_key_refresh(key, LONG, NULL, &remaining, &error));
  CHECK(remaining >= 30000);
  OK(quorate_ttl_key_set(key, quorate_str("2"), LONG, NULL, &error));
  kv = get("seen", 0);
  CHECK(same(kv->value, "2") && kv->lease == quorate_ttl_key_lease(key));
  quorate_kv_free(kv);
  OK(quorate_ttl_key_delete(key, LONG, NULL, &error));
  OK(quorate_ttl_key_delete(key, LONG, NULL, &error));
  IS(QUORATE_NOT_FOUND, quorate_ttl_key_refresh(key, LONG, NULL, &remaining, &error));
  CHECK(remaining == 0 && !get("seen", 0));
  quorate_ttl_key_free(key);
}

static void refusals(void) {
  quorate_kv *kv = NULL;
  CHECK(quorate_get(client, quorate_str("a"), 1000000, LONG, NULL, &kv, &error) == QUORATE_INVALID_ARGUMENT);
  CHECK(error && error->code == QUORATE_INVALID_ARGUMENT && !error->retryable && !error->indefinite && !kv);
  quorate_error_free(error);
  quorate_error_free(error); /* twice is once */
  error = NULL;
  quorate_range_options options;
  memset(&options, 0xff, sizeof options);
  options.descending = options.keys_only = options.count_only = options.serializable = false;
  quorate_kvs *kvs = NULL;
  IS(QUORATE_INVALID_ARGUMENT, quorate_range(client, quorate_prefix(quorate_str("")), &options, LONG, NULL, &kvs, &error));
  /* Errors and outputs may be left out. */
  CHECK(quorate_get(client, quorate_str(""), 0, LONG, NULL, &kv, NULL) == QUORATE_INVALID_ARGUMENT);
  CHECK(quorate_put(client, quorate_str("a"), quorate_str("2"), NULL, LONG, NULL, NULL, NULL, NULL) == QUORATE_OK);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  CHECK(strcmp(quorate_version(), QUORATE_VERSION) == 0 && quorate_abi_version() == QUORATE_ABI_VERSION);
  quorate_client *outer = connect_to(argv[1]);
  OK(quorate_client_namespace(outer, quorate_str("kv"), &client, &error));
  quorate_client_free(outer);
  keys();
  conditional_writes();
  transactions();
  leases();
  refusals();
  quorate_client_free(client);
  all_is_free();
  return 0;
}
