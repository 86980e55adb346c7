package confluent

/*
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
static void bound_malloc(void) {
	mallopt(M_ARENA_MAX, 4);
	mallopt(M_MMAP_THRESHOLD, 256 << 10);
	mallopt(M_TRIM_THRESHOLD, 4 << 20);
}
#else
static void bound_malloc(void) {}
#endif
*/
import "C"

import "sync"

// boundMalloc has glibc give back what librdkafka has freed. By itself it keeps an arena for each of many threads, and once a large block was freed it
// takes the next ones from those arenas as well, where they leave holes: with values of a megabyte that is tens of MiB nobody uses. Other C libraries
// have no such settings.
var boundMalloc = sync.OnceFunc(func() { C.bound_malloc() })
