/* Sets a process' wall clock off, by LD_PRELOAD: the file "clock" in its working directory holds by how many seconds, 8 bytes, and may be
 * written at any time. Nothing else is touched, neither the monotonic clock nor any wait: a JVM whose waits are meddled with spins. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int (*next)(clockid_t, struct timespec *);
static volatile int64_t *off;

__attribute__((constructor)) static void start(void) {
	next = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	int fd = open("clock", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		void *p = mmap(NULL, sizeof *off, PROT_READ, MAP_SHARED, fd, 0);
		if (p != MAP_FAILED) off = p;
		close(fd);
	}
}

int clock_gettime(clockid_t id, struct timespec *ts) {
	if (!next) start();
	int r = next(id, ts);
	if (r == 0 && off && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) ts->tv_sec += *off;
	return r;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone) {
	(void)zone;
	struct timespec ts;
	int r = clock_gettime(CLOCK_REALTIME, &ts);
	if (r == 0) {
		tv->tv_sec = ts.tv_sec;
		tv->tv_usec = ts.tv_nsec / 1000;
	}
	return r;
}

time_t time(time_t *at) {
	struct timespec ts;
	if (clock_gettime(CLOCK_REALTIME, &ts) != 0) return -1;
	if (at) *at = ts.tv_sec;
	return ts.tv_sec;
}
