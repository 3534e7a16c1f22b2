/* Writes down what a process does to files named data.mdb: each write with its bytes, each
 * sync; and each line that it writes to a file named acks. Preloaded before the C library.
 *
 * One record: kind (w, s, a), whether the write is durable on return (O_DSYNC), offset,
 * length, bytes. The log is named by RECORDER_LOG.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES 1024
static unsigned char kinds[FILES]; /* 0: not ours, d: data, a: acks */
static unsigned char durable[FILES];
static int log_fd = -1;

static void put(const void *bytes, size_t length) {
    while (length) {
        ssize_t n = syscall(SYS_write, log_fd, bytes, length);
        if (n <= 0) abort();
        bytes = (const char *)bytes + n;
        length -= n;
    }
}

static void note(char kind, int is_durable, uint64_t offset, uint32_t length) {
    if (log_fd < 0) {
        const char *path = getenv("RECORDER_LOG");
        if (!path) abort();
        log_fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (log_fd < 0) abort();
    }
    unsigned char head[14] = {kind, is_durable};
    memcpy(head + 2, &offset, 8);
    memcpy(head + 10, &length, 4);
    put(head, sizeof head);
}

static int opened(int fd, const char *path, int flags) {
    if (fd >= 0 && fd < FILES) {
        const char *name = strrchr(path, '/');
        name = name ? name + 1 : path;
        kinds[fd] = !strcmp(name, "data.mdb") ? 'd' : !strcmp(name, "acks") ? 'a' : 0;
        durable[fd] = (flags & O_DSYNC) != 0;
    }
    return fd;
}

#define IS(fd, kind) ((fd) >= 0 && (fd) < FILES && kinds[fd] == (kind))

static int mode_of(int flags, va_list more) { return flags & O_CREAT ? va_arg(more, int) : 0; }

#define OPEN(name)                                                          \
    int name(const char *path, int flags, ...) {                            \
        va_list more;                                                       \
        va_start(more, flags);                                              \
        int mode = mode_of(flags, more);                                    \
        va_end(more);                                                       \
        return opened(syscall(SYS_openat, AT_FDCWD, path, flags, mode) , path, flags); \
    }
#define OPENAT(name)                                                        \
    int name(int at, const char *path, int flags, ...) {                    \
        va_list more;                                                       \
        va_start(more, flags);                                              \
        int mode = mode_of(flags, more);                                    \
        va_end(more);                                                       \
        return opened(syscall(SYS_openat, at, path, flags, mode), path, flags); \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

static void written(int fd, const void *bytes, ssize_t length, uint64_t offset) {
    if (length <= 0) return;
    note('w', durable[fd], offset, length);
    put(bytes, length);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    uint64_t offset = IS(fd, 'd') ? syscall(SYS_lseek, fd, 0, SEEK_CUR) : 0;
    ssize_t n = syscall(SYS_write, fd, bytes, length);
    if (IS(fd, 'd')) written(fd, bytes, n, offset);
    if (IS(fd, 'a') && n > 0) {
        note('a', 0, 0, n);
        put(bytes, n);
    }
    return n;
}

#define PWRITE(name)                                                       \
    ssize_t name(int fd, const void *bytes, size_t length, off_t offset) { \
        ssize_t n = syscall(SYS_pwrite64, fd, bytes, length, offset);      \
        if (IS(fd, 'd')) written(fd, bytes, n, offset);                    \
        return n;                                                          \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

static void scattered(int fd, const struct iovec *parts, ssize_t n, uint64_t offset) {
    for (int i = 0; n > 0; i++) {
        ssize_t length = (size_t)n < parts[i].iov_len ? n : (ssize_t)parts[i].iov_len;
        written(fd, parts[i].iov_base, length, offset);
        offset += length;
        n -= length;
    }
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    uint64_t offset = IS(fd, 'd') ? syscall(SYS_lseek, fd, 0, SEEK_CUR) : 0;
    ssize_t n = syscall(SYS_writev, fd, parts, count);
    if (IS(fd, 'd')) scattered(fd, parts, n, offset);
    return n;
}

#define PWRITEV(name)                                                         \
    ssize_t name(int fd, const struct iovec *parts, int count, off_t offset) { \
        ssize_t n = syscall(SYS_pwritev, fd, parts, count, offset, 0);        \
        if (IS(fd, 'd')) scattered(fd, parts, n, offset);                     \
        return n;                                                             \
    }
PWRITEV(pwritev)
PWRITEV(pwritev64)

#define SYNC(name, number)                                    \
    int name(int fd) {                                        \
        int result = syscall(number, fd);                     \
        if (IS(fd, 'd') && !result) note('s', 0, 0, 0);       \
        return result;                                        \
    }
SYNC(fsync, SYS_fsync)
SYNC(fdatasync, SYS_fdatasync)

int close(int fd) {
    if (fd >= 0 && fd < FILES) kinds[fd] = 0;
    return syscall(SYS_close, fd);
}
