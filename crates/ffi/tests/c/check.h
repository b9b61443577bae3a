/* What the tests share: checks that name themselves, and waiting for a descriptor. */
#ifndef CHECK_H
#define CHECK_H

#include <poll.h>
#include <pthread.h>
#include <quorate.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#ifdef __cplusplus
#define ZERO {}
#else
#define ZERO {0}
#endif

/* How long anything may take; what takes longer hangs. */
#define LONG 20000

static quorate_error *error;

#define CHECK(condition)                                                                                     \
  do {                                                                                                       \
    if (!(condition)) {                                                                                      \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                \
      exit(1);                                                                                               \
    }                                                                                                        \
  } while (0)

/* The call, whose last argument is &error, returns this code. */
#define IS(expected, call)                                                                                   \
  do {                                                                                                       \
    quorate_code code_ = (call);                                                                             \
    if (code_ != (expected)) {                                                                               \
      fprintf(stderr, "%s:%d: %s: %d (%s), not %s\n", __FILE__, __LINE__, #call, (int)code_,                 \
              error ? error->message : "no error", #expected);                                               \
      exit(1);                                                                                               \
    }                                                                                                        \
    CHECK((error == NULL) == (code_ == QUORATE_OK));                                                         \
    CHECK(!error || (error->code == code_ && error->message && *error->message));                            \
    quorate_error_free(error);                                                                               \
    error = NULL;                                                                                            \
  } while (0)

#define OK(call) IS(QUORATE_OK, call)

static inline bool same(quorate_bytes bytes, const char *text) {
  return bytes.len == strlen(text) && memcmp(bytes.data, text, bytes.len) == 0 && bytes.data[bytes.len] == 0;
}

static inline bool readable(int fd, int timeout_ms) {
  struct pollfd polled = ZERO;
  polled.fd = fd;
  polled.events = POLLIN;
  CHECK(poll(&polled, 1, timeout_ms) >= 0);
  return (polled.revents & POLLIN) != 0;
}

static inline quorate_client *connect_to(const char *url) {
  quorate_client *client = NULL;
  OK(quorate_client_open(quorate_str(url), &client, &error));
  CHECK(client);
  return client;
}

static inline int64_t now_ms(void) {
  struct timespec now;
  CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Nothing that the library gave out is left. */
static inline void all_is_free(void) { CHECK(quorate_in_use() == 0); }

#endif
