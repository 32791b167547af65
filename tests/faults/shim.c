/* Faults of files below one folder, for a process that preloads this: the n-th operation fails, or kills the process.

   faults_arm says where, what and when; faults_seen counts the operations. A write may be cut in half before the kill. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, FAIL, FULL, KILL, READ };  /* FULL: all that needs room fails from the n-th on; READ: the n-th read fails */
static char where[PATH_MAX];
static long seen, nth;
static int action, error;

void faults_arm(const char *folder, int what, long n, int number) {
    snprintf(where, sizeof where, "%s", folder);
    seen = 0, nth = n, action = what, error = number;
}

long faults_seen(void) { return seen; }

static int below(const char *path) { return where[0] && !strncmp(path, where, strlen(where)); }

static int below_at(int folder, const char *path) {
    char whole[PATH_MAX], link[64];
    if (!where[0] || !path) return 0;
    if (path[0] == '/') return below(path);
    if (folder == AT_FDCWD) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, whole, sizeof whole - 1);
    if (length < 0) return 0;
    whole[length] = 0;
    return below(whole);
}

static int below_fd(int fd) {
    char path[PATH_MAX], link[64];
    if (!where[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

/* Does this operation fail? room: it needs room on the disk; reads: it only reads. Kills where a kill is due. */
static int fails(int here, int room, int reads) {
    if (!here || reads != (action == READ)) return 0;
    seen++;
    if (action == KILL && seen == nth) raise(SIGKILL);
    if (((action == FAIL || action == READ) && seen == nth) || (action == FULL && seen >= nth && room)) {
        errno = error;
        return 1;
    }
    return 0;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define WRITES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))
#define MODE va_list list; va_start(list, flags); int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, int) : 0; va_end(list)

int open(const char *path, int flags, ...) {
    REAL(open); MODE;
    return fails(below(path), flags & O_CREAT, !WRITES(flags)) ? -1 : real(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    REAL(open64); MODE;
    return fails(below(path), flags & O_CREAT, !WRITES(flags)) ? -1 : real(path, flags, mode);
}
int openat(int folder, const char *path, int flags, ...) {
    REAL(openat); MODE;
    return fails(below_at(folder, path), flags & O_CREAT, !WRITES(flags)) ? -1 : real(folder, path, flags, mode);
}
int openat64(int folder, const char *path, int flags, ...) {
    REAL(openat64); MODE;
    return fails(below_at(folder, path), flags & O_CREAT, !WRITES(flags)) ? -1 : real(folder, path, flags, mode);
}
ssize_t write(int fd, const void *bytes, size_t count) {
    REAL(write);
    int here = below_fd(fd);
    if (here && action == KILL && seen + 1 == nth) real(fd, bytes, count / 2);  /* torn, then killed */
    return fails(here, 1, 0) ? -1 : real(fd, bytes, count);
}
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    REAL(pwrite64);
    return fails(below_fd(fd), 1, 0) ? -1 : real(fd, bytes, count, at);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    return fails(below_fd(fd), 1, 0) ? -1 : real(fd, parts, count);
}
ssize_t read(int fd, void *bytes, size_t count) {
    REAL(read);
    return action == READ && fails(below_fd(fd), 0, 1) ? -1 : real(fd, bytes, count);
}
ssize_t pread64(int fd, void *bytes, size_t count, off64_t at) {
    REAL(pread64);
    return action == READ && fails(below_fd(fd), 0, 1) ? -1 : real(fd, bytes, count, at);
}
int fsync(int fd) { REAL(fsync); return fails(below_fd(fd), 1, 0) ? -1 : real(fd); }
int ftruncate64(int fd, off64_t size) { REAL(ftruncate64); return fails(below_fd(fd), 1, 0) ? -1 : real(fd, size); }
int rename(const char *from, const char *to) { REAL(rename); return fails(below(to), 0, 0) ? -1 : real(from, to); }
int renameat(int a, const char *from, int b, const char *to) {
    REAL(renameat);
    return fails(below_at(b, to), 0, 0) ? -1 : real(a, from, b, to);
}
int unlink(const char *path) { REAL(unlink); return fails(below(path), 0, 0) ? -1 : real(path); }
int unlinkat(int folder, const char *path, int flags) {
    REAL(unlinkat);
    return fails(below_at(folder, path), 0, 0) ? -1 : real(folder, path, flags);
}
int mkdir(const char *path, mode_t mode) { REAL(mkdir); return fails(below(path), 1, 0) ? -1 : real(path, mode); }
int rmdir(const char *path) { REAL(rmdir); return fails(below(path), 0, 0) ? -1 : real(path); }
