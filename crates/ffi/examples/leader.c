/* Candidates that publish their name and their fitness: one leads, and all know who.
 *
 * usage: leader [-s URL] [-k KEY] [-n NAME] [-f FITNESS]; the URL is else that of ETCD_SERVERS.
 *
 * Each stands in the election KEY with the value "NAME,FITNESS", by a lease of 5 s. Who came first leads;
 * the fitness is there for the others to see. SIGINT and SIGTERM resign. */
#include <quorate.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TTL_MS 5000

static int stop_fd;

static void on_signal(int number) {
  uint64_t one = 1;
  (void)number;
  if (write(stop_fd, &one, sizeof one) < 0) _exit(1);
}

static int failed(const char *what, quorate_error *error) {
  fprintf(stderr, "leader: %s: %s\n", what, error ? error->message : "failed");
  quorate_error_free(error);
  return 1;
}

/* Tells who leads, whenever that is another. */
static int follow(quorate_elector *elector, const quorate_cancel *stop) {
  for (;;) {
    quorate_error *error = NULL;
    quorate_leader_state *state = NULL;
    quorate_code code = quorate_elector_next(elector, -1, stop, &state, &error);
    if (code == QUORATE_CANCELLED) {
      quorate_error_free(error);
      return 0;
    }
    if (code != QUORATE_OK) return failed("campaign", error);
    if (state->kind == QUORATE_LEADING)
      printf("we lead, with token %lld%s\n", (long long)state->token, state->at_risk ? ", at risk" : "");
    else if (state->kind == QUORATE_FOLLOWING)
      printf("leader is %s\n", (const char *)state->leader->value.data);
    else
      printf("nobody leads\n");
    fflush(stdout);
    quorate_leader_state_free(state);
  }
}

static int run(const char *url, const char *key, const char *value) {
  quorate_error *error = NULL;
  quorate_client *client = NULL;
  quorate_cancel *stop = NULL;
  quorate_elector *elector = NULL;
  quorate_election_options options = {0};
  struct sigaction action = {0};
  options.ttl_ms = TTL_MS;
  action.sa_handler = on_signal;
  if (quorate_cancel_new(&stop, &error) || quorate_cancel_fd(stop, &stop_fd, &error))
    return failed("start", error);
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  if (quorate_client_open(quorate_str(url), &client, &error)) return failed(url, error);
  if (quorate_elector_start(client, quorate_str(key), quorate_str(value), &options, &elector, &error))
    return failed(key, error);
  int status = follow(elector, stop);
  if (status == 0 && quorate_elector_stop(elector, TTL_MS, NULL, &error)) status = failed("resign", error);
  quorate_elector_free(elector);
  quorate_client_free(client);
  quorate_cancel_free(stop);
  return status;
}

int main(int argc, char **argv) {
  const char *url = getenv("ETCD_SERVERS"), *key = "nsr", *name = NULL;
  long fitness = 42;
  char host[256] = "", value[512];
  int option;
  while ((option = getopt(argc, argv, "f:k:n:s:")) != -1) switch (option) {
      case 'f': fitness = strtol(optarg, NULL, 10); break;
      case 'k': key = optarg; break;
      case 'n': name = optarg; break;
      case 's': url = optarg; break;
      default: url = NULL; optind = argc; break;
    }
  if (!url) {
    fprintf(stderr, "usage: leader [-s URL] [-k KEY] [-n NAME] [-f FITNESS]\n");
    return 2;
  }
  if (!name && gethostname(host, sizeof host - 1) == 0) name = host;
  snprintf(value, sizeof value, "%s,%ld", name ? name : "?", fitness);
  return run(url, key, value);
}
