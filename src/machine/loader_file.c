/*
 * Files for the loaders. A regular file stays open and is read again at every reset, so that an
 * initrd does not stay in memory twice; anything else that can be read (a pipe) is read once and
 * kept.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine/loader_format.h"

enum { CHUNK = 1 << 16 };
/* What is read from a pipe: more would not be a kernel or initrd but a mistake such as /dev/zero.
 */
static const uint64_t pipe_max = MIB(256);

static int read_all(struct loader_file *f, int fd, struct err *err)
{
    uint64_t room = 0;
    for (;;) {
        if (room - f->size < CHUNK) {
            room = room ? 2 * room : 16 * CHUNK;
            uint8_t *bigger = realloc(f->owned, room);
            if (!bigger)
                return err_set(err, ENOMEM, "%s: no memory for '%s'", f->option, f->path);
            f->owned = bigger;
        }
        ssize_t got = read(fd, f->owned + f->size, CHUNK);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_set(err, errno, "%s: cannot read '%s': %s", f->option, f->path,
                           strerror(errno));
        if (got == 0)
            break;
        f->size += (uint64_t)got;
        if (f->size > pipe_max)
            return err_set(err, EFBIG, "%s: '%s' does not end", f->option, f->path);
    }
    f->bytes = f->owned;
    return 0;
}

int loader_file_open(struct loader_file *f, const char *option, const char *path, struct err *err)
{
    *f = (struct loader_file){.option = option, .fd = -1};
    f->path = strdup(path);
    if (!f->path)
        return err_set(err, ENOMEM, "%s: no memory", option);

    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) {
        int code = errno;
        if (fd >= 0)
            close(fd);
        return err_set(err, code, "%s: cannot open '%s': %s", option, path, strerror(code));
    }
    int ret = 0;
    if (S_ISDIR(st.st_mode)) {
        ret = err_set(err, EISDIR, "%s: '%s' is a directory", option, path);
    } else if (S_ISREG(st.st_mode)) {
        f->size = (uint64_t)st.st_size;
        f->fd = fd;
        fd = -1;
    } else {
        ret = read_all(f, fd, err);
    }
    if (fd >= 0)
        close(fd);
    if (ret == 0 && f->size == 0)
        ret = err_set(err, EINVAL, "%s: '%s' is empty", option, path);
    return ret;
}

void loader_file_close(struct loader_file *f)
{
    if (f->path && f->fd >= 0)
        close(f->fd);
    free(f->owned);
    free(f->path);
    *f = (struct loader_file){.fd = -1};
}

int loader_file_read(const struct loader_file *f, uint64_t offset, void *to, size_t size,
                     struct err *err)
{
    if (offset > f->size || size > f->size - offset)
        return err_set(err, EINVAL, "%s: '%s' is truncated", f->option, f->path);
    if (f->fd < 0) {
        memcpy(to, f->bytes + offset, size);
        return 0;
    }
    uint8_t *at = to;
    while (size) {
        ssize_t got = pread(f->fd, at, size, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_set(err, errno, "%s: cannot read '%s': %s", f->option, f->path,
                           strerror(errno));
        if (got == 0)
            return err_set(err, EINVAL, "%s: '%s' has become shorter", f->option, f->path);
        at += got;
        offset += (uint64_t)got;
        size -= (size_t)got;
    }
    return 0;
}

int loader_file_load(const struct loader_file *f, uint64_t offset, uint32_t size, struct mmu *mmu,
                     uint32_t gpa, struct err *err)
{
    uint8_t *buffer = malloc(CHUNK);
    if (!buffer)
        return err_set(err, ENOMEM, "%s: no memory", f->option);
    int ret = 0;
    while (size && ret == 0) {
        uint32_t n = min_u32(size, CHUNK);
        ret = loader_file_read(f, offset, buffer, n, err);
        if (ret == 0)
            mmu_load(mmu, gpa, buffer, n);
        offset += n;
        gpa += n;
        size -= n;
    }
    free(buffer);
    return ret;
}
