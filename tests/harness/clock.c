/*
 * A wall clock that can be set, for one process: preloaded (LD_PRELOAD), it shifts CLOCK_REALTIME by what stands in the
 * file METERFERRY_CLOCK_SHIFT, nanoseconds as eight bytes, which may change at any time. The clocks that nobody sets
 * (monotonic, boot) stay as they are.
 *
 * Whoever waits until a time of day waits as the kernel lets him: a clock set back makes the wait longer by as much, a
 * clock set ahead ends it. That is what the library faketime leaves out.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define SLICE (20 * 1000000LL)

static int64_t *shift;

__attribute__((constructor)) static void look(void) {
    const char *path = getenv("METERFERRY_CLOCK_SHIFT");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *map = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (map != MAP_FAILED)
        shift = map;
}

static int64_t nanoseconds(clockid_t clock) {
    struct timespec time;
    syscall(SYS_clock_gettime, clock, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

static int64_t wall(void) {
    int64_t real = nanoseconds(CLOCK_REALTIME);
    return shift ? real + __atomic_load_n(shift, __ATOMIC_RELAXED) : real;
}

static struct timespec split(int64_t time) {
    int64_t part = ((time % SECOND) + SECOND) % SECOND;
    return (struct timespec){.tv_sec = (time - part) / SECOND, .tv_nsec = part};
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)
        return syscall(SYS_clock_gettime, clock, time);
    *time = split(wall());
    return 0;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    (void)zone;
    struct timespec now = split(wall());
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result) {
    time_t now = split(wall()).tv_sec;
    if (result)
        *result = now;
    return now;
}

int timespec_get(struct timespec *time, int base) {
    if (base != TIME_UTC)
        return 0;
    *time = split(wall());
    return base;
}

static int wait_until(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
    int64_t end = until->tv_sec * SECOND + until->tv_nsec;
    for (;;) {
        int64_t left = end - wall();
        if (left <= 0)
            return ETIMEDOUT;
        struct timespec look_again = split(nanoseconds(CLOCK_MONOTONIC) + (left < SLICE ? left : SLICE));
        int result = pthread_cond_clockwait(condition, mutex, CLOCK_MONOTONIC, &look_again);
        if (result != ETIMEDOUT)
            return result;
    }
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    return wait_until(condition, mutex, until);
}

/* In the GNU library the types of C's threads are those of POSIX under other names. */
int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until) {
    switch (wait_until((pthread_cond_t *)condition, (pthread_mutex_t *)mutex, until)) {
    case 0:
        return thrd_success;
    case ETIMEDOUT:
        return thrd_timedout;
    default:
        return thrd_error;
    }
}
