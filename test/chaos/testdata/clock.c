/*
 * Preloaded into a redis-server, this adds to the time of day the microseconds
 * that a file holds (8 bytes in the machine's order, shared memory), so that a
 * test can step the clock that Redis TIME and the expiry of keys go by. The
 * monotonic clock, by which Redis runs its own loop, stays as it is.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

static volatile int64_t *offset;

__attribute__((constructor)) static void map_offset(void) {
	const char *path = getenv("CHAOS_CLOCK_FILE");
	int fd = path ? open(path, O_RDONLY) : -1;
	if (fd < 0)
		return;
	void *at = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (at != MAP_FAILED)
		offset = at;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone) {
	if (syscall(SYS_gettimeofday, tv, zone) != 0)
		return -1;
	if (offset && tv) {
		int64_t us = (int64_t)tv->tv_sec * 1000000 + tv->tv_usec + *offset;
		tv->tv_sec = us / 1000000;
		tv->tv_usec = us % 1000000;
	}
	return 0;
}
