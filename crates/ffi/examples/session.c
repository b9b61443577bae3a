/* A session: a lease kept alive, under which keys stand, and a descriptor that tells of its end. Run it with the URL of a store; without one it is in memory. */
#include <quorate.h>
#include <stdio.h>
#include <stdlib.h>
#include <poll.h>

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

  quorate_session *session = NULL;
  quorate_put_options leased = {0};
  int fd = -1, state = 0;
  must(quorate_session_open(client, 10000, -1, NULL, &session, &error));
  leased.lease = quorate_session_lease(session);
  must(quorate_put(client, quorate_str("workers/7"), quorate_str("idle"), &leased, -1, NULL, NULL, NULL, &error));
  printf("reliable for %lld s\n", (long long)quorate_session_remaining_ms(session) / 1000);

  /* Here an administrator revokes it; the event loop learns of that. */
  must(quorate_lease_revoke(client, leased.lease, -1, NULL, &error));
  must(quorate_session_fd(session, &fd, &error));
  struct pollfd polled = {0};
  polled.fd = fd;
  polled.events = POLLIN;
  while (poll(&polled, 1, -1) != 1)
    ;
  quorate_loss loss = QUORATE_LOSS_NONE;
  do
    must(quorate_session_next(session, -1, NULL, &state, &loss, &error));
  while (state != QUORATE_SESSION_LOST);
  printf("lost: %s\n", quorate_loss_text(loss));
  quorate_session_free(session);
  quorate_client_free(client);
  return 0;
}
