/* Cluster health: whether it is up, and what is wrong. Run it with the URL of a store; without one it is in memory. */
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

  static const char *const words[] = {"up", "degraded", "down"};
  quorate_health_monitor *monitor = NULL;
  quorate_health_report *report = NULL;
  must(quorate_health_monitor_open(client, NULL, &monitor, &error));
  must(quorate_health_monitor_next(monitor, 20000, NULL, &report, &error)); /* then whenever it changes */
  printf("%s\n", words[report->health]);
  for (size_t i = 0; i < report->reasons_len; i++) printf("%s\n", report->reasons[i].text);
  for (size_t i = 0; i < report->members_len; i++)
    printf("%s%s\n", report->members[i].label, report->members[i].is_leader ? " leads" : "");
  quorate_health_report_free(report);
  quorate_health_monitor_free(monitor);
  quorate_client_free(client);
  return 0;
}
