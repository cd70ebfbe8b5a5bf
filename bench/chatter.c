/* What a chatty build writes, at two paces.
 *   chatter lines N      N lines of 100 bytes, one write each
 *   chatter clock N MS   every MS milliseconds a line with the monotonic clock in nanoseconds, N of them
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void put(const char *bytes, size_t count) {
    while (count > 0) {
        ssize_t done = write(STDOUT_FILENO, bytes, count);
        if (done < 0) exit(1);
        bytes += done;
        count -= (size_t)done;
    }
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    long count = atol(argv[2]);
    if (strcmp(argv[1], "lines") == 0) {
        char line[128];
        for (long i = 0; i < count; i++) {
            snprintf(line, sizeof line, "%099ld\n", i);
            put(line, 100);
        }
        return 0;
    }
    if (strcmp(argv[1], "clock") != 0 || argc < 4) return 2;
    long pause = atol(argv[3]) * 1000000L;
    struct timespec wait = {pause / 1000000000L, pause % 1000000000L};
    for (long i = 0; i < count; i++) {
        struct timespec now;
        char line[64];
        clock_gettime(CLOCK_MONOTONIC, &now);
        put(line, (size_t)snprintf(line, sizeof line, "%lld\n", now.tv_sec * 1000000000LL + now.tv_nsec));
        nanosleep(&wait, NULL);
    }
    return 0;
}
