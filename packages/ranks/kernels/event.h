// An event that native threads write and an event loop reads: two connected sockets, because a
// socket is what Node reads by itself. A callback of a foreign-function library in its place ends
// the process if it fires while its JavaScript thread is being terminated. Each side closes its own
// end.
#pragma once
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

// Returns the end to write, or −1 where there are none: JavaScript then looks by a timer.
static int make_event(int *reader) {
  *reader = -1;
#if defined(__linux__)
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) return -1;
  *reader = ends[1];
  return ends[0];
#else
  return -1;
#endif
}

// If it is full it is readable, and if nobody reads any more nobody has to know.
static void write_event(int fd) {
#if defined(__linux__)
  char one = 1;
  if (fd < 0) return;
  ssize_t written = send(fd, &one, sizeof one, MSG_NOSIGNAL | MSG_DONTWAIT);
  (void)written;
#else
  (void)fd;
#endif
}

static void close_event(int writer, int reader) {
  if (writer >= 0) close(writer);
  if (reader >= 0) close(reader);
}
