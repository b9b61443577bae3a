/* An election: one leader at a time, known to all. Run it with the URL of a store; without one it is in memory. */
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

  quorate_guard *leadership = NULL;
  quorate_leaders *leaders = NULL;
  quorate_contender *leader = NULL;
  quorate_bytes name = quorate_str("scheduler");
  must(quorate_election_campaign(client, name, quorate_str("10.0.0.7:9000"), NULL, -1, NULL, &leadership, &error));
  must(quorate_election_observe(client, name, &leaders, &error));
  must(quorate_leaders_next(leaders, -1, NULL, &leader, &error));
  printf("%s leads\n", (const char *)leader->value.data);
  quorate_contender_free(leader);

  must(quorate_guard_proclaim(leadership, quorate_str("10.0.0.7:9001"), -1, NULL, &error));
  must(quorate_leaders_next(leaders, -1, NULL, &leader, &error));
  printf("%s leads\n", (const char *)leader->value.data);
  quorate_contender_free(leader);

  must(quorate_guard_release(leadership, -1, NULL, &error)); /* resigns */
  must(quorate_leaders_next(leaders, -1, NULL, &leader, &error));
  printf("%s leads\n", leader ? (const char *)leader->value.data : "nobody");
  quorate_contender_free(leader);
  quorate_leaders_free(leaders);
  quorate_guard_free(leadership);
  quorate_client_free(client);
  return 0;
}
