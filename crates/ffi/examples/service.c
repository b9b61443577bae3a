/* Service discovery: an instance registers, a client tracks and picks. Run it with the URL of a store; without one it is in memory. */
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

  quorate_bytes api = quorate_str("api");
  quorate_tracker *tracker = NULL;
  quorate_registration *registration = NULL;
  quorate_change *change = NULL;
  quorate_instance here = {0};
  here.address = quorate_str("10.0.0.7:8080");
  here.metadata = quorate_str("{\"zone\":\"b\"}");
  here.weight = 1;
  must(quorate_tracker_open(client, api, NULL, -1, NULL, &tracker, &error));
  must(quorate_register(client, api, quorate_str("api-7"), &here, NULL, -1, NULL, &registration, &error));
  must(quorate_tracker_next(tracker, -1, NULL, &change, &error));
  printf("%s joined at %s\n", (const char *)change->registered.id.data,
         (const char *)change->registered.instance.address.data);
  quorate_change_free(change);

  quorate_picker *picker = NULL;
  quorate_pick *pick = NULL;
  quorate_registered *picked = NULL;
  must(quorate_picker_new(tracker, QUORATE_WEIGHTED, &picker, &error));
  must(quorate_picker_pick(picker, &pick, &error));
  must(quorate_pick_instance(pick, &picked, &error));
  printf("call %s\n", (const char *)picked->instance.address.data);
  must(quorate_pick_succeeded(pick, &error));
  quorate_registered_free(picked);
  quorate_pick_free(pick);
  quorate_picker_free(picker);

  must(quorate_registration_drain(registration, true, -1, NULL, &error));
  must(quorate_registration_release(registration, -1, NULL, &error));
  quorate_registration_free(registration);
  quorate_tracker_free(tracker);
  quorate_client_free(client);
  return 0;
}
