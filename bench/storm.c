/* The workload that probes are measured under: COUNT execs, opens, TCP connects on loopback, round trips between two
 * processes, writes to memory or reads of a disk past its cache, then its own CPU seconds (children included) and wall
 * seconds. One file, no library, so that nothing but the system calls counts.
 *
 *   storm exec|open|tcp|switch|write COUNT   ->   "<cpu seconds> <wall seconds>"
 *   storm block COUNT DISK                   ->   the same
 *
 * And two faults, for the latency measurement, in the control groups that the parent put it in:
 *
 *   storm hog MEBIBYTES    takes that much memory and ends
 *   storm refused COUNT    opens /dev/nvidiactl once, waits for a line on its input, opens it COUNT times again
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what) { perror(what); exit(1); }

static double cpu_seconds(int who) {
    struct rusage use;
    if (getrusage(who, &use)) fail("getrusage");
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) + (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

static double wall_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void storm_exec(long count) {
    char *const argv[] = {"true", NULL}, *const env[] = {NULL};
    while (count--) {
        pid_t child = vfork();
        if (child < 0) fail("vfork");
        if (child == 0) { execve("/bin/true", argv, env); _exit(127); }
        int status;
        if (waitpid(child, &status, 0) < 0 || status) fail("waitpid");
    }
}

static void storm_open(long count) {
    while (count--) {
        int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
        if (fd < 0) fail("open");
        close(fd);
    }
}

static void storm_tcp(long count) {
    int server = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    if (server < 0 || bind(server, (void *)&at, sizeof at) || listen(server, 128) || getsockname(server, (void *)&at, &length))
        fail("listen");
    struct linger reset = {.l_onoff = 1, .l_linger = 0}; /* no TIME_WAIT: ports would run out */
    while (count--) {
        int client = socket(AF_INET, SOCK_STREAM, 0);
        if (client < 0 || connect(client, (void *)&at, sizeof at)) fail("connect");
        int peer = accept(server, NULL, NULL);
        if (peer < 0) fail("accept");
        setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(client);
        close(peer);
    }
}

/* On one processor every read waits, so that each round trip is two switches and two wakeups. */
static void storm_switch(long count) {
    int there[2], back[2], status;
    char byte = 0;
    if (pipe(there) || pipe(back)) fail("pipe");
    pid_t child = fork();
    if (child < 0) fail("fork");
    for (long left = count; left--;)
        if (child ? write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1
                  : read(there[0], &byte, 1) != 1 || write(back[1], &byte, 1) != 1)
            fail("round trip");
    if (!child) _exit(0);
    if (waitpid(child, &status, 0) < 0 || status) fail("waitpid");
}

static void storm_block(long count, const char *disk) {
    void *page;
    int fd = open(disk, O_RDONLY | O_DIRECT);
    if (fd < 0 || posix_memalign(&page, 4096, 4096)) fail(disk);
    for (long i = 0; i < count; i++)
        if (pread(fd, page, 4096, i % 1024 * 4096) != 4096) fail("pread");
    close(fd);
}

static void storm_write(long count) {
    static char page[4096];
    int fd = memfd_create("storm", MFD_CLOEXEC);
    if (fd < 0) fail("memfd_create");
    for (long i = 0; i < count; i++)
        if (pwrite(fd, page, sizeof page, i % 1024 * 4096) != sizeof page) fail("pwrite");
    close(fd);
}

static void hog(long mebibytes) {
    while (mebibytes--) {
        void *memory = malloc(1 << 20);
        if (!memory) fail("malloc");
        memset(memory, 1, 1 << 20);
    }
}

static void refused(long count) {
    int fd = open("/dev/nvidiactl", O_RDWR);
    if (fd < 0) fail("open /dev/nvidiactl");
    close(fd);
    puts("opened");
    fflush(stdout);
    if (getchar() == EOF) return;
    while (count--)
        if (open("/dev/nvidiactl", O_RDWR) >= 0) { fprintf(stderr, "storm: the open was not refused\n"); exit(1); }
}

int main(int argc, char **argv) {
    if (argc != (argc > 1 && !strcmp(argv[1], "block") ? 4 : 3)) { fprintf(stderr, "usage: storm exec|open|tcp|switch|write|hog|refused COUNT, storm block COUNT DISK\n"); return 2; }
    long count = atol(argv[2]);
    if (!strcmp(argv[1], "hog")) { hog(count); return 0; }
    if (!strcmp(argv[1], "refused")) { refused(count); return 0; }
    double wall = wall_seconds();
    if (!strcmp(argv[1], "exec")) storm_exec(count);
    else if (!strcmp(argv[1], "open")) storm_open(count);
    else if (!strcmp(argv[1], "tcp")) storm_tcp(count);
    else if (!strcmp(argv[1], "write")) storm_write(count);
    else if (!strcmp(argv[1], "block")) storm_block(count, argv[3]);
    else if (!strcmp(argv[1], "switch")) storm_switch(count);
    else { fprintf(stderr, "storm: unknown workload %s\n", argv[1]); return 2; }
    printf("%.6f %.6f\n", cpu_seconds(RUSAGE_SELF) + cpu_seconds(RUSAGE_CHILDREN), wall_seconds() - wall);
    return 0;
}
