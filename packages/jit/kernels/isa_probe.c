// Asks the processor (and the operating system, which must save the wide registers) what it has.
// Compiled for the portable floor; the bits are in the order of cpuFeatures in src/isa-flags.ts.
#include <stdint.h>
#include "oi_tiles_grant.h"

enum {
  HAS_AVX2 = 1 << 0,
  HAS_AVX512 = 1 << 1,
  HAS_AVX512BF16 = 1 << 2,
  HAS_AVX512VBMI = 1 << 3,
  HAS_AVX512VNNI = 1 << 4,
  HAS_NEON = 1 << 5,
  HAS_AMX = 1 << 6,
  AMX_REFUSED = 1 << 7,  // the processor has it, the operating system does not grant it
};

#if defined(__x86_64__)
#include <cpuid.h>

static int bit(unsigned word, int index) { return (word >> index) & 1; }

static int64_t probe(void) {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
  int fma = bit(c, 12), movbe = bit(c, 22), popcnt = bit(c, 23), osxsave = bit(c, 27),
      f16c = bit(c, 29);
  if (!osxsave) return 0;
  unsigned saved, high;
  __asm__ volatile("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
  int ymm = (saved & 0x06) == 0x06, zmm = (saved & 0xe6) == 0xe6;
#if defined(__APPLE__)
  zmm = ymm;  // macOS turns the wide registers on when a thread first uses them.
#endif
  if (!__get_cpuid_count(0x80000001, 0, &a, &b, &c, &d)) return 0;
  int lzcnt = bit(c, 5);
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
  int64_t mask = 0;
  int avx2 = ymm && fma && movbe && popcnt && f16c && lzcnt && bit(b, 3) && bit(b, 5) && bit(b, 8);
  if (avx2) mask |= HAS_AVX2;
  if (avx2 && zmm && bit(b, 16) && bit(b, 17) && bit(b, 28) && bit(b, 30) && bit(b, 31)) {
    mask |= HAS_AVX512;
    if (bit(c, 1)) mask |= HAS_AVX512VBMI;
    if (bit(c, 11)) mask |= HAS_AVX512VNNI;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && bit(a, 5)) mask |= HAS_AVX512BF16;
  }
  return mask;
}
#elif defined(__aarch64__)
static int64_t probe(void) { return HAS_NEON; }
#else
static int64_t probe(void) { return 0; }
#endif

// block: { whether to ask for the matrix tiles }. The system is not asked for what nobody wants.
int64_t oi_isa_probe(const int64_t *block) {
  int64_t mask = probe();
  if (block[0] == 0) return mask;
  int tiles = oi_tiles_grant();
  if (tiles == OI_TILES_GRANTED) mask |= HAS_AMX;
  if (tiles == OI_TILES_REFUSED) mask |= AMX_REFUSED;
  return mask;
}
