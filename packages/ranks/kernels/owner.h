// What a JavaScript thread has made, released when its thread ends, however that ends: a worker
// that is terminated runs no JavaScript any more, but its thread still runs these destructors. So
// its peers learn at once that it is gone, its stream stops, and its memory is unmapped.
#pragma once
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

typedef void (*oi_release)(void *);
// Threads end before the memory that they use goes.
enum { OI_OWNED_THREAD, OI_OWNED_MEMORY, OI_OWNED_PHASES };
typedef struct oi_owned {
  void *what;
  oi_release release;
  int32_t phase;
  struct oi_owned *older;
} oi_owned;

static pthread_key_t owner_key;
static pthread_once_t owner_once = PTHREAD_ONCE_INIT;

static void release_all(void *list) {
  for (int32_t phase = 0; phase < OI_OWNED_PHASES; phase++)
    for (oi_owned *at = list; at != NULL; at = at->older)
      if (at->phase == phase) at->release(at->what);
  for (oi_owned *at = list; at != NULL;) {
    oi_owned *older = at->older;
    free(at);
    at = older;
  }
}

// The library that a function lies in is never unloaded again.
static void keep_library(const void *function) {
  Dl_info found;
  if (dladdr(function, &found) != 0 && found.dli_fname != NULL)
    dlopen(found.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

// Destructors and threads of this library may run after the JavaScript thread that loaded it has
// unloaded it, so the library stays.
static void prepare_owner(void) {
  keep_library((void *)(intptr_t)&prepare_owner);
  pthread_key_create(&owner_key, release_all);
}

// Without memory for the note it would be released only by hand.
static void own(void *what, oi_release release, int32_t phase) {
  pthread_once(&owner_once, prepare_owner);
  oi_owned *entry = malloc(sizeof *entry);
  if (entry == NULL) return;
  *entry = (oi_owned){.what = what, .release = release, .phase = phase};
  entry->older = pthread_getspecific(owner_key);
  pthread_setspecific(owner_key, entry);
}

// Releases it now.
static void disown(void *what, oi_release release) {
  pthread_once(&owner_once, prepare_owner);
  oi_owned *list = pthread_getspecific(owner_key);
  oi_owned **at = &list;
  while (*at != NULL && (*at)->what != what) at = &(*at)->older;
  if (*at != NULL) {
    oi_owned *entry = *at;
    *at = entry->older;
    free(entry);
    pthread_setspecific(owner_key, list);
  }
  release(what);
}
