/* Records every act by which a process changes the files below one folder, and can end the process before any of them.

   Loaded into the agent with LD_PRELOAD. It stands between the program (Python, SQLite) and the C library, so it sees
   what both of them do, in one order: an act is done and written down before the next one begins. recording.py reads
   what it writes, and has the meaning of each field. What passes it by, such as a write through a mapping, is found
   there: what the record says must have become of the disk is compared with the disk.

       POWER_FOLDER   the folder, by its real path
       POWER_RECORD   the file that the acts are appended to
       POWER_CRASH    SIGKILL instead of the act of this number, counted from 0; absent: never

   It takes itself out of the environment, so it is not in the process's children. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { NOTHING, CREATE, WRITE, RESIZE, SYNC, RENAME, LINK, UNLINK, MKDIR, RMDIR, CHMOD, SYMLINK };

struct __attribute__((packed)) head {
    uint8_t kind;
    uint64_t inode;
    int64_t number; /* offset, size or mode */
    uint16_t path, other;
    uint32_t data; /* how many bytes of each follow, in this order */
};

static char folder[PATH_MAX];
static int record = -1;
static long crash_at = -1, acts = 0;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
    const char *where = getenv("POWER_FOLDER"), *into = getenv("POWER_RECORD"), *crash = getenv("POWER_CRASH");
    if (!where || !into) return;
    snprintf(folder, sizeof folder, "%s", where);
    crash_at = crash ? atol(crash) : -1;
    record = syscall(SYS_openat, AT_FDCWD, into, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    unsetenv("LD_PRELOAD");
    unsetenv("POWER_FOLDER");
    unsetenv("POWER_RECORD");
    unsetenv("POWER_CRASH");
}

#define NEXT(name) \
    static __typeof__(&name) next; \
    if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* ── What is below the folder ── */

static int below(const char *path) {
    size_t length = strlen(folder);
    return record >= 0 && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

/* The path as a whole; empty when it is not below the folder. */
static const char *whole(int at, const char *path, char *buffer) {
    if (path[0] == '/') {
        snprintf(buffer, PATH_MAX, "%s", path);
    } else {
        char place[64], base[PATH_MAX];
        snprintf(place, sizeof place, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
        ssize_t length = readlink(place, base, sizeof base - 1);
        base[length < 0 ? 0 : length] = 0;
        snprintf(buffer, PATH_MAX, "%.*s/%s", PATH_MAX / 2, base, path);
    }
    if (!below(buffer)) buffer[0] = 0;
    return buffer;
}

/* Whether it is an open file or folder below the folder. */
static int ours(int handle, struct stat *found) {
    char place[64], path[PATH_MAX];
    if (record < 0 || fstat(handle, found) || !(S_ISREG(found->st_mode) || S_ISDIR(found->st_mode))) return 0;
    snprintf(place, sizeof place, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(place, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    return below(path);
}

/* ── The record ── */

static void before(void) {
    pthread_mutex_lock(&turn);
    if (acts++ == crash_at) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
}

static void put(const void *bytes, size_t length) {
    for (const char *next = bytes; length;) {
        ssize_t done = syscall(SYS_write, record, next, length);
        if (done <= 0) abort(); /* a record with a hole would be worse than none */
        next += done, length -= done;
    }
}

static void note(enum kind kind, uint64_t inode, int64_t number, const char *path, const char *other, const void *data,
                 size_t length) {
    struct head head = {kind, inode, number, strlen(path), strlen(other), length};
    put(&head, sizeof head);
    put(path, head.path);
    put(other, head.other);
    put(data, length);
}

/* The act is over. One that failed has changed nothing, but has its number. */
static void after(int done, enum kind kind, uint64_t inode, int64_t number, const char *path, const char *other) {
    int kept = errno;
    note(done ? kind : NOTHING, inode, number, path, other, "", 0);
    pthread_mutex_unlock(&turn);
    errno = kept;
}

static void after_write(ssize_t done, uint64_t inode, int64_t offset, const void *data) {
    int kept = errno;
    note(done > 0 ? WRITE : NOTHING, inode, offset, "", "", data, done > 0 ? done : 0);
    pthread_mutex_unlock(&turn);
    errno = kept;
}

/* For bytes that never were in this process's memory: they are read back. */
static void after_copy(ssize_t done, int handle, uint64_t inode, int64_t offset) {
    int kept = errno;
    char place[64], *data = malloc(done > 0 ? done : 1);
    snprintf(place, sizeof place, "/proc/self/fd/%d", handle);
    int again = syscall(SYS_openat, AT_FDCWD, place, O_RDONLY | O_CLOEXEC);
    if (!data || again < 0 || (done > 0 && pread(again, data, done, offset) != done)) abort();
    close(again);
    note(done > 0 ? WRITE : NOTHING, inode, offset, "", "", data, done > 0 ? done : 0);
    free(data);
    pthread_mutex_unlock(&turn);
    errno = kept;
}

/* ── Opening, writing, syncing ── */

static int opened(int at, const char *path, int flags, mode_t mode) {
    char place[PATH_MAX];
    struct stat found;
    if (record < 0 || !(flags & (O_CREAT | O_TRUNC)) || !*whole(at, path, place))
        return syscall(SYS_openat, at, path, flags, mode);
    int there = !lstat(place, &found);
    if (there && !((flags & O_TRUNC) && found.st_size)) return syscall(SYS_openat, at, path, flags, mode);
    before();
    int handle = syscall(SYS_openat, at, path, flags, mode), known = handle >= 0 && !fstat(handle, &found);
    after(known, there ? RESIZE : CREATE, found.st_ino, there ? 0 : found.st_mode & 07777, place, "");
    return handle;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more); \
        return opened(AT_FDCWD, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int at, const char *path, int flags, ...) { \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more); \
        return opened(at, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int handle, const void *data, size_t length) {
    struct stat found;
    if (!ours(handle, &found)) return syscall(SYS_write, handle, data, length);
    before();
    fstat(handle, &found);
    int appends = fcntl(handle, F_GETFL) & O_APPEND;
    off_t offset = appends ? found.st_size : lseek(handle, 0, SEEK_CUR);
    ssize_t done = syscall(SYS_write, handle, data, length);
    after_write(done, found.st_ino, offset, data);
    return done;
}

#define PWRITE(name) \
    ssize_t name(int handle, const void *data, size_t length, off64_t offset) { \
        struct stat found; \
        if (!ours(handle, &found)) return syscall(SYS_pwrite64, handle, data, length, offset); \
        before(); \
        ssize_t done = syscall(SYS_pwrite64, handle, data, length, offset); \
        after_write(done, found.st_ino, offset, data); \
        return done; \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t copy_file_range(int from, off64_t *start, int to, off64_t *offset, size_t length, unsigned flags) {
    NEXT(copy_file_range);
    struct stat found;
    if (!ours(to, &found)) return next(from, start, to, offset, length, flags);
    before();
    off64_t where = offset ? *offset : lseek(to, 0, SEEK_CUR);
    ssize_t done = next(from, start, to, offset, length, flags);
    after_copy(done, to, found.st_ino, where);
    return done;
}

#define SENDFILE(name) \
    ssize_t name(int to, int from, off64_t *start, size_t length) { \
        struct stat found; \
        if (!ours(to, &found)) return syscall(SYS_sendfile, to, from, start, length); \
        before(); \
        off64_t where = lseek(to, 0, SEEK_CUR); \
        ssize_t done = syscall(SYS_sendfile, to, from, start, length); \
        after_copy(done, to, found.st_ino, where); \
        return done; \
    }
ssize_t sendfile(int, int, off64_t *, size_t);
ssize_t sendfile64(int, int, off64_t *, size_t);
SENDFILE(sendfile)
SENDFILE(sendfile64)

int ioctl(int handle, unsigned long request, ...) {
    va_list more;
    va_start(more, request);
    void *argument = va_arg(more, void *);
    va_end(more);
    struct stat found;
    if (request != FICLONERANGE || !ours(handle, &found)) return syscall(SYS_ioctl, handle, request, argument);
    const struct file_clone_range *range = argument;
    before();
    int failed = syscall(SYS_ioctl, handle, request, argument);
    after_copy(failed ? 0 : (ssize_t)range->src_length, handle, found.st_ino, range->dest_offset);
    return failed;
}

#define RESIZED(name) \
    int name(int handle, off64_t size) { \
        struct stat found; \
        if (!ours(handle, &found)) return syscall(SYS_ftruncate, handle, size); \
        before(); \
        int failed = syscall(SYS_ftruncate, handle, size); \
        after(!failed, RESIZE, found.st_ino, size, "", ""); \
        return failed; \
    }
RESIZED(ftruncate)
RESIZED(ftruncate64)

#define ALLOCATED(name) \
    int name(int handle, off64_t offset, off64_t length) { \
        NEXT(name); \
        struct stat found; \
        if (!ours(handle, &found)) return next(handle, offset, length); \
        before(); \
        int error = next(handle, offset, length), larger = offset + length > found.st_size; \
        after(!error, RESIZE, found.st_ino, larger ? offset + length : found.st_size, "", ""); \
        return error; \
    }
int posix_fallocate(int, off64_t, off64_t);
int posix_fallocate64(int, off64_t, off64_t);
ALLOCATED(posix_fallocate)
ALLOCATED(posix_fallocate64)

#define SYNCED(name) \
    int name(int handle) { \
        struct stat found; \
        if (!ours(handle, &found)) return syscall(SYS_##name, handle); \
        before(); \
        int failed = syscall(SYS_##name, handle); \
        after(!failed, SYNC, found.st_ino, 0, "", ""); \
        return failed; \
    }
SYNCED(fsync)
SYNCED(fdatasync)

int fchmod(int handle, mode_t mode) {
    struct stat found;
    if (!ours(handle, &found)) return syscall(SYS_fchmod, handle, mode);
    before();
    int failed = syscall(SYS_fchmod, handle, mode);
    after(!failed, CHMOD, found.st_ino, mode, "", "");
    return failed;
}

/* ── Names ── */

static int changed_mode(int at, const char *path, mode_t mode) {
    char place[PATH_MAX];
    struct stat found;
    if (!*whole(at, path, place) || stat(place, &found)) return syscall(SYS_fchmodat, at, path, mode);
    before();
    int failed = syscall(SYS_fchmodat, at, path, mode);
    after(!failed, CHMOD, found.st_ino, mode, "", "");
    return failed;
}

int chmod(const char *path, mode_t mode) { return changed_mode(AT_FDCWD, path, mode); }

int fchmodat(int at, const char *path, mode_t mode, int flags) {
    NEXT(fchmodat);
    return flags ? next(at, path, mode, flags) : changed_mode(at, path, mode);
}

static int renamed(int at, const char *path, int to, const char *other, unsigned flags) {
    char place[PATH_MAX], target[PATH_MAX];
    if (!*whole(at, path, place) || !*whole(to, other, target)) return syscall(SYS_renameat2, at, path, to, other, flags);
    before();
    int failed = syscall(SYS_renameat2, at, path, to, other, flags);
    after(!failed, RENAME, 0, 0, place, target);
    return failed;
}

int rename(const char *path, const char *other) { return renamed(AT_FDCWD, path, AT_FDCWD, other, 0); }
int renameat(int at, const char *path, int to, const char *other) { return renamed(at, path, to, other, 0); }
int renameat2(int at, const char *path, int to, const char *other, unsigned flags) {
    return renamed(at, path, to, other, flags);
}

int linkat(int at, const char *path, int to, const char *other, int flags) {
    char place[PATH_MAX], target[PATH_MAX];
    if (!*whole(at, path, place) || !*whole(to, other, target)) return syscall(SYS_linkat, at, path, to, other, flags);
    before();
    int failed = syscall(SYS_linkat, at, path, to, other, flags);
    after(!failed, LINK, 0, 0, place, target);
    return failed;
}

int link(const char *path, const char *other) { return linkat(AT_FDCWD, path, AT_FDCWD, other, 0); }

int symlinkat(const char *path, int to, const char *other) {
    char target[PATH_MAX];
    if (!*whole(to, other, target)) return syscall(SYS_symlinkat, path, to, other);
    before();
    int failed = syscall(SYS_symlinkat, path, to, other), kept = errno;
    note(failed ? NOTHING : SYMLINK, 0, 0, target, "", path, strlen(path));
    pthread_mutex_unlock(&turn);
    errno = kept;
    return failed;
}

int symlink(const char *path, const char *other) { return symlinkat(path, AT_FDCWD, other); }

static int removed(int at, const char *path, int flags) {
    char place[PATH_MAX];
    if (!*whole(at, path, place)) return syscall(SYS_unlinkat, at, path, flags);
    before();
    int failed = syscall(SYS_unlinkat, at, path, flags);
    after(!failed, flags & AT_REMOVEDIR ? RMDIR : UNLINK, 0, 0, place, "");
    return failed;
}

int unlink(const char *path) { return removed(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return removed(at, path, flags); }
int rmdir(const char *path) { return removed(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int at, const char *path, mode_t mode) {
    char place[PATH_MAX];
    struct stat found = {0};
    if (!*whole(at, path, place)) return syscall(SYS_mkdirat, at, path, mode);
    before();
    int failed = syscall(SYS_mkdirat, at, path, mode), known = !failed && !lstat(place, &found);
    after(known, MKDIR, found.st_ino, found.st_mode & 07777, place, "");
    return failed;
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
