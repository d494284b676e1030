// Whether this process may use matrix tiles (Intel AMX): the processor has to have them, the
// operating system to save them, and Linux wants to be asked once a process. The permission holds
// for every thread, and asking again is free. Nothing here needs the instructions themselves.
#pragma once

enum { OI_TILES_ABSENT, OI_TILES_GRANTED, OI_TILES_REFUSED };

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

static int oi_tiles_grant(void) {
  enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };  // arch_prctl(2)
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1u << 27)) return OI_TILES_ABSENT;  // OSXSAVE
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return OI_TILES_ABSENT;
  const unsigned wanted = 1u << 22 | 1u << 24 | 1u << 25;  // AMX-BF16, AMX-TILE, AMX-INT8
  if ((d & wanted) != wanted) return OI_TILES_ABSENT;
  unsigned saved, high;
  __asm__ volatile("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
  if ((saved & 0x60000) != 0x60000) return OI_TILES_REFUSED;
  int refused = syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) != 0;
  return refused ? OI_TILES_REFUSED : OI_TILES_GRANTED;
}
#else
static int oi_tiles_grant(void) { return OI_TILES_ABSENT; }
#endif
