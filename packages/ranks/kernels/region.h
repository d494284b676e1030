// Shared memory without a name, so that nothing is left behind whoever dies: a memfd that its maker
// holds. Threads of the maker's process use the maker's mapping and are counted here; another
// process of the host maps it through /proc/<pid>/fd/<fd>.
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "owner.h"

typedef struct oi_region {
  uint8_t *address;
  size_t bytes;
  int fd;  // −1: another process's
  uint64_t inode;
  int64_t holders;
  struct oi_region *next;
} oi_region;

// All that this process has mapped, so that a thread finds what another one made, and never uses
// what is already gone.
static oi_region *regions;
static pthread_mutex_t regions_lock = PTHREAD_MUTEX_INITIALIZER;

static int shared_file(void) {
#if defined(__linux__)
  return memfd_create("open-infra-ranks", MFD_CLOEXEC);
#else
  static _Atomic int64_t made;
  char name[48];
  snprintf(name, sizeof name, "/oi-%d-%lld", getpid(), (long long)atomic_fetch_add(&made, 1));
  int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
  if (fd >= 0) shm_unlink(name);
  return fd;
#endif
}

static void drop_region(void *pointer) {
  oi_region *region = pointer;
  pthread_mutex_lock(&regions_lock);
  if (--region->holders > 0) {
    pthread_mutex_unlock(&regions_lock);
    return;
  }
  oi_region **at = &regions;
  while (*at != region) at = &(*at)->next;
  *at = region->next;
  pthread_mutex_unlock(&regions_lock);
  munmap(region->address, region->bytes);
  if (region->fd >= 0) close(region->fd);
  free(region);
}

// Maps `fd`, which the region keeps if `keeps`; the caller closes it otherwise and after a failure.
static int64_t map_region(int fd, size_t bytes, int keeps, uint64_t inode, int64_t *block) {
  oi_region *region = calloc(1, sizeof *region);
  if (region == NULL) return -ENOMEM;
  void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) {
    free(region);
    return -errno;
  }
  *region = (oi_region){.address = at, .bytes = bytes, .inode = inode, .holders = 1};
  region->fd = keeps ? fd : -1;
  pthread_mutex_lock(&regions_lock);
  region->next = regions;
  regions = region;
  pthread_mutex_unlock(&regions_lock);
  own(region, drop_region, OI_OWNED_MEMORY);
  block[0] = (int64_t)(intptr_t)at;
  block[1] = (int64_t)(intptr_t)region;
  return 0;
}

// block: { bytes } -> { address, region, fd, inode }. Returns 0 or -errno.
int64_t oi_region_create(int64_t *block) {
  size_t bytes = (size_t)block[0];
  int fd = shared_file();
  if (fd < 0) return -errno;
  struct stat info;
  int64_t result = 0;
  if (ftruncate(fd, (off_t)bytes) != 0 || fstat(fd, &info) != 0) result = -errno;
  else result = map_region(fd, bytes, 1, (uint64_t)info.st_ino, block);
  if (result != 0) {
    close(fd);
    return result;
  }
  block[2] = fd;
  block[3] = (int64_t)info.st_ino;
  return 0;
}

// block: { address, inode } -> { address, region }. Uses what another thread of this process made.
// Returns 0, or -ENOENT if it is gone.
int64_t oi_region_retain(int64_t *block) {
  oi_region *found = NULL;
  pthread_mutex_lock(&regions_lock);
  for (oi_region *r = regions; r != NULL && found == NULL; r = r->next)
    if ((int64_t)(intptr_t)r->address == block[0] && (int64_t)r->inode == block[1]) found = r;
  if (found != NULL) found->holders++;
  pthread_mutex_unlock(&regions_lock);
  if (found == NULL) return -ENOENT;
  own(found, drop_region, OI_OWNED_MEMORY);
  block[1] = (int64_t)(intptr_t)found;
  return 0;
}

// block: { bytes, pid, fd, inode } -> { address, region }. Maps a region of another process.
// Returns 0 or -errno; -ESTALE if the descriptor stands for something else by now.
int64_t oi_region_map(int64_t *block) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%lld/fd/%lld", (long long)block[1], (long long)block[2]);
  int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return -errno;
  struct stat info;
  int64_t result = 0;
  if (fstat(fd, &info) != 0) result = -errno;
  else if ((int64_t)info.st_ino != block[3] || info.st_size != block[0]) result = -ESTALE;
  if (result == 0) result = map_region(fd, (size_t)block[0], 0, (uint64_t)info.st_ino, block);
  close(fd);
  return result;
}

// block: { region }. Lets go of what one of the three above gave.
int64_t oi_region_drop(int64_t *block) {
  disown((void *)(intptr_t)block[0], drop_region);
  return 0;
}
