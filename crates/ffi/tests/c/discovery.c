/* Registrations, trackers, pickers, observers, configuration and health. */
#include "check.h"

static quorate_client *client;

static quorate_instance at(const char *address, const char *metadata, uint32_t weight) {
  quorate_instance instance = ZERO;
  instance.address = quorate_str(address);
  instance.metadata = quorate_str(metadata);
  instance.weight = weight;
  return instance;
}

static void services(void) {
  quorate_bytes api = quorate_str("api");
  quorate_tracker *tracker = NULL;
  quorate_instances *instances = NULL;
  quorate_registration *a = NULL, *b = NULL;
  quorate_change *change = NULL;
  int fd = -1, state = -1;
  OK(quorate_tracker_open(client, api, NULL, LONG, NULL, &tracker, &error));
  OK(quorate_tracker_snapshot(tracker, &instances, &error));
  CHECK(instances->len == 0 && !instances->instances && !instances->stale && !quorate_tracker_is_stale(tracker));
  quorate_instances_free(instances);
  OK(quorate_tracker_fd(tracker, &fd, &error));
  CHECK(!readable(fd, 0));

  quorate_instance here = at("10.0.0.7:80", "{\"zone\":\"b\"}", 2);
  OK(quorate_register(client, api, quorate_str("a"), &here, NULL, LONG, NULL, &a, &error));
  CHECK(quorate_registration_state(a, NULL) == QUORATE_PRESENT);
  CHECK(readable(fd, LONG));
  OK(quorate_tracker_next(tracker, LONG, NULL, &change, &error));
  CHECK(change->kind == QUORATE_JOINED && same(change->registered.id, "a"));
  CHECK(same(change->registered.instance.address, "10.0.0.7:80") && change->registered.instance.weight == 2);
  CHECK(same(change->registered.instance.metadata, "{\"zone\":\"b\"}"));
  quorate_change_free(change);
  IS(QUORATE_ALREADY_EXISTS, quorate_register(client, api, quorate_str("a"), &here, NULL, LONG, NULL, &b, &error));
  quorate_instance bad = at("x:1", "{", 1);
  IS(QUORATE_INVALID_ARGUMENT, quorate_register(client, api, quorate_str("b"), &bad, NULL, LONG, NULL, &b, &error));
  IS(QUORATE_INVALID_ARGUMENT, quorate_register(client, api, quorate_str("b/c"), &here, NULL, LONG, NULL, &b, &error));

  here.address = quorate_str("10.0.0.7:81");
  OK(quorate_registration_set(a, &here, LONG, NULL, &error));
  OK(quorate_tracker_next(tracker, LONG, NULL, &change, &error));
  CHECK(change->kind == QUORATE_UPDATED && same(change->registered.instance.address, "10.0.0.7:81"));
  quorate_change_free(change);
  OK(quorate_registration_drain(a, true, LONG, NULL, &error));
  OK(quorate_tracker_next(tracker, LONG, NULL, &change, &error));
  CHECK(change->registered.instance.draining);
  quorate_change_free(change);
  OK(quorate_registration_drain(a, false, LONG, NULL, &error));

  quorate_instance other = at("10.0.0.8:80", "", 1);
  OK(quorate_register(client, api, quorate_str("b"), &other, NULL, LONG, NULL, &b, &error));
  /* A snapshot is a look: nothing of it is told again. */
  int64_t begun = now_ms();
  do {
    quorate_instances_free(instances);
    OK(quorate_tracker_snapshot(tracker, &instances, &error));
  } while ((instances->len != 2 || instances->instances[0].instance.draining) && now_ms() < begun + LONG);
  CHECK(instances->len == 2 && same(instances->instances[0].id, "a") && same(instances->instances[1].id, "b"));
  CHECK(instances->malformed_len == 0 && instances->revision > 0);
  quorate_instances_free(instances);
  IS(QUORATE_TIMEOUT, quorate_tracker_next(tracker, 100, NULL, &change, &error));
  OK(quorate_service_instances(client, api, NULL, LONG, NULL, &instances, &error));
  CHECK(instances->len == 2);
  quorate_instances_free(instances);
  quorate_services *services = NULL;
  OK(quorate_service_list(client, LONG, NULL, &services, &error));
  CHECK(services->len == 1 && same(services->services[0].name, "api") && services->services[0].instances == 2);
  quorate_services_free(services);

  quorate_picker *picker = NULL;
  quorate_pick *pick = NULL;
  quorate_registered *first = NULL, *second = NULL;
  IS(QUORATE_INVALID_ARGUMENT, quorate_picker_new(tracker, 99, &picker, &error));
  OK(quorate_picker_new(tracker, QUORATE_ROUND_ROBIN, &picker, &error));
  OK(quorate_picker_pick(picker, &pick, &error));
  OK(quorate_pick_instance(pick, &first, &error));
  OK(quorate_pick_failed(pick, &error));
  OK(quorate_pick_succeeded(pick, &error)); /* too late, and no error */
  quorate_pick_free(pick);
  OK(quorate_picker_pick(picker, &pick, &error));
  OK(quorate_pick_instance(pick, &second, &error));
  CHECK(first->id.data[0] != second->id.data[0]);
  quorate_registered_free(first);
  quorate_registered_free(second);
  quorate_pick_free(pick);
  quorate_picker_free(picker);

  OK(quorate_registration_release(b, LONG, NULL, &error));
  quorate_loss loss = -1;
  OK(quorate_registration_next(b, LONG, NULL, &state, &loss, &error));
  CHECK(state == QUORATE_OVER && loss == QUORATE_LOSS_RELEASED);
  IS(QUORATE_END, quorate_registration_next(b, LONG, NULL, &state, NULL, &error));
  IS(QUORATE_LOST, quorate_registration_release(b, LONG, NULL, &error));
  IS(QUORATE_LOST, quorate_registration_set(b, &other, LONG, NULL, &error));
  OK(quorate_registration_fd(b, &fd, &error));
  CHECK(readable(fd, 0));
  OK(quorate_tracker_next(tracker, LONG, NULL, &change, &error));
  CHECK(change->kind == QUORATE_LEFT && same(change->registered.id, "b"));
  quorate_change_free(change);
  quorate_registration_free(a);
  quorate_registration_free(b);
  OK(quorate_tracker_next(tracker, LONG, NULL, &change, &error));
  CHECK(change->kind == QUORATE_LEFT);
  quorate_change_free(change);
  quorate_tracker_free(tracker);
}

static void put(const char *key, const char *value) {
  OK(quorate_put(client, quorate_str(key), quorate_str(value), NULL, LONG, NULL, NULL, NULL, &error));
}

static void observers(void) {
  quorate_observer *observer = NULL;
  quorate_observed *seen = NULL;
  quorate_observe_options options = ZERO;
  int fd = -1;
  put("cfg/a", "1");
  options.prev = true;
  OK(quorate_observe(client, quorate_prefix(quorate_str("cfg/")), &options, LONG, NULL, &observer, &error));
  OK(quorate_observer_next(observer, LONG, NULL, &seen, &error));
  CHECK(seen->kind == QUORATE_RESET && seen->state.len == 1 && same(seen->state.kvs[0].value, "1") && seen->len == 0);
  quorate_observed_free(seen);
  OK(quorate_observer_fd(observer, &fd, &error));
  CHECK(!readable(fd, 0));
  quorate_txn *txn = NULL;
  quorate_txn_result *result = NULL;
  OK(quorate_txn_new(&txn, &error));
  OK(quorate_txn_put(txn, QUORATE_THEN, quorate_str("cfg/a"), quorate_str("2"), NULL, false, &error));
  OK(quorate_txn_put(txn, QUORATE_THEN, quorate_str("cfg/b"), quorate_str("3"), NULL, false, &error));
  OK(quorate_txn_commit(client, txn, LONG, NULL, &result, &error));
  CHECK(readable(fd, LONG));
  OK(quorate_observer_next(observer, LONG, NULL, &seen, &error));
  CHECK(seen->kind == QUORATE_CHANGES && seen->len == 2 && seen->revision == result->revision);
  CHECK(same(seen->events[0].kv.value, "2") && same(seen->events[0].prev->value, "1") && !seen->events[1].prev);
  quorate_observed_free(seen);
  quorate_txn_result_free(result);
  quorate_txn_free(txn);
  quorate_observer_free(observer);

  memset(&options, 0, sizeof options);
  options.start = QUORATE_START_NOW;
  options.until_deleted = true;
  OK(quorate_observe(client, quorate_key(quorate_str("cfg/a")), &options, LONG, NULL, &observer, &error));
  OK(quorate_delete(client, quorate_key(quorate_str("cfg/a")), LONG, NULL, NULL, NULL, NULL, &error));
  OK(quorate_observer_next(observer, LONG, NULL, &seen, &error));
  CHECK(seen->len == 1 && seen->events[0].deleted && same(seen->events[0].kv.key, "cfg/a"));
  quorate_observed_free(seen);
  IS(QUORATE_END, quorate_observer_next(observer, LONG, NULL, &seen, &error));
  quorate_observer_free(observer);
}

static void configuration(void) {
  quorate_bytes key = quorate_str("limits.toml");
  quorate_config *config = NULL;
  quorate_document *document = NULL;
  quorate_config_update *update = NULL;
  quorate_buffer *json = NULL;
  int64_t revision = 0;
  int fd = -1;
  IS(QUORATE_NOT_FOUND, quorate_config_get(client, key, NULL, LONG, NULL, &json, &error));
  IS(QUORATE_INVALID_ARGUMENT,
     quorate_config_set(client, key, quorate_str("rps ="), QUORATE_FORMAT_OF_KEY, LONG, NULL, NULL, &error));
  OK(quorate_config_set(client, key, quorate_str("rps = 1"), QUORATE_FORMAT_OF_KEY, LONG, NULL, &revision, &error));
  OK(quorate_config_get(client, key, NULL, LONG, NULL, &json, &error));
  CHECK(same(json->bytes, "{\"rps\":1}"));
  quorate_buffer_free(json);
  OK(quorate_config_open(client, key, NULL, LONG, NULL, &config, &error));
  OK(quorate_config_current(config, &document, &error));
  CHECK(same(document->json, "{\"rps\":1}") && document->revision == revision && !document->rejected);
  quorate_document_free(document);
  OK(quorate_config_fd(config, &fd, &error));
  CHECK(!readable(fd, 0));
  put("limits.toml", "rps = 2");
  CHECK(readable(fd, LONG));
  OK(quorate_config_next(config, LONG, NULL, &update, &error));
  CHECK(update->kind == QUORATE_CONFIG_CHANGED && same(update->json, "{\"rps\":2}") && !update->rejected);
  quorate_config_update_free(update);
  put("limits.toml", "rps =");
  OK(quorate_config_next(config, LONG, NULL, &update, &error));
  CHECK(update->kind == QUORATE_CONFIG_REJECTED && same(update->rejected->key, "limits.toml"));
  CHECK(!update->rejected->deleted && strstr(update->rejected->reason, "TOML"));
  quorate_config_update_free(update);
  OK(quorate_config_current(config, &document, &error));
  CHECK(same(document->json, "{\"rps\":2}") && document->rejected);
  quorate_document_free(document);
  quorate_config_free(config);

  quorate_config_options options = ZERO;
  options.prefix = true;
  put("api/log/level", "info");
  put("api/rps", "5");
  OK(quorate_config_get(client, quorate_str("api"), &options, LONG, NULL, &json, &error));
  CHECK(same(json->bytes, "{\"log\":{\"level\":\"info\"},\"rps\":5}"));
  quorate_buffer_free(json);
  memset(&options, 0, sizeof options);
  options.default_document = quorate_str("[7]");
  OK(quorate_config_get(client, quorate_str("nothing"), &options, LONG, NULL, &json, &error));
  CHECK(same(json->bytes, "[7]"));
  quorate_buffer_free(json);
  options.format = 99;
  IS(QUORATE_INVALID_ARGUMENT, quorate_config_get(client, quorate_str("nothing"), &options, LONG, NULL, &json, &error));
}

static void health(void) {
  quorate_health_report *report = NULL;
  quorate_health_monitor *monitor = NULL;
  quorate_health_options options = ZERO;
  int fd = -1;
  OK(quorate_health_check(client, NULL, LONG, NULL, &report, &error));
  CHECK(report->health == QUORATE_UP && report->reasons_len == 0 && report->members_len == 1);
  CHECK(report->members[0].is_leader && report->members[0].is_reachable && report->members[0].version);
  quorate_health_report_free(report);
  options.interval_ms = 20;
  OK(quorate_health_monitor_open(client, &options, &monitor, &error));
  OK(quorate_health_monitor_fd(monitor, &fd, &error));
  CHECK(readable(fd, LONG));
  OK(quorate_health_monitor_next(monitor, LONG, NULL, &report, &error));
  CHECK(report->health == QUORATE_UP);
  quorate_health_report_free(report);
  IS(QUORATE_TIMEOUT, quorate_health_monitor_next(monitor, 100, NULL, &report, &error));
  quorate_health_monitor_free(monitor);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  client = connect_to(argv[1]);
  services();
  observers();
  configuration();
  health();
  quorate_client_free(client);
  all_is_free();
  return 0;
}
