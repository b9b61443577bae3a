/* Makes the clocks of one process run at another rate: QUORATE_CLOCK_RATE, such as 1.05.
   To be preloaded. The wall clock and CLOCK_MONOTONIC_RAW stay as they are. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static double rate = 1.0;
static struct timespec monotonic_origin, boottime_origin;

static int real_clock(clockid_t clock, struct timespec *time) {
  return (int)syscall(SYS_clock_gettime, clock, time);
}

__attribute__((constructor)) static void begin(void) {
  const char *text = getenv("QUORATE_CLOCK_RATE");
  if (text && atof(text) > 0) rate = atof(text);
  real_clock(CLOCK_MONOTONIC, &monotonic_origin);
  real_clock(CLOCK_BOOTTIME, &boottime_origin);
}

static void bend(const struct timespec *origin, struct timespec *time) {
  long long began = (long long)origin->tv_sec * 1000000000 + origin->tv_nsec;
  long long passed = (long long)time->tv_sec * 1000000000 + time->tv_nsec - began;
  long long bent = began + (long long)((double)passed * rate);
  time->tv_sec = bent / 1000000000;
  time->tv_nsec = bent % 1000000000;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  int result = real_clock(clock, time);
  if (result != 0) return result;
  if (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE)
    bend(&monotonic_origin, time);
  else if (clock == CLOCK_BOOTTIME)
    bend(&boottime_origin, time);
  return 0;
}

/* A timeout is counted by the bent clock, and waited for by the real one. */
static int unbent(int timeout) {
  return timeout <= 0 ? timeout : (int)((double)timeout / rate) + 1;
}

int epoll_wait(int epoll, struct epoll_event *events, int size, int timeout) {
  return (int)syscall(SYS_epoll_pwait, epoll, events, size, unbent(timeout), NULL, 8);
}

int epoll_pwait(int epoll, struct epoll_event *events, int size, int timeout,
                const sigset_t *mask) {
  return (int)syscall(SYS_epoll_pwait, epoll, events, size, unbent(timeout), mask, 8);
}
