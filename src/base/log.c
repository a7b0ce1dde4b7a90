#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "base/base.h"

uint32_t log_mask;
uint32_t log_low;
uint32_t log_high = UINT32_MAX;

static FILE *stream;

static const struct {
    const char *name, *help;
} categories[] = {
#define X(id, name, help) {name, help},
    LOG_CATEGORIES(X)
#undef X
};

int log_parse(const char *list, uint32_t *mask, struct err *err)
{
    *mask = 0;
    while (*list) {
        size_t len = strcspn(list, ",");
        size_t i;
        for (i = 0; i < ARRAY_LEN(categories); i++) {
            if (strlen(categories[i].name) == len && !memcmp(list, categories[i].name, len))
                break;
        }
        if (i == ARRAY_LEN(categories))
            return err_set(err, EINVAL, "-d: unknown category '%.*s' (see -d help)", (int)len,
                           list);
        *mask |= 1u << i;
        list += len + (list[len] == ',');
    }
    return 0;
}

void log_help(FILE *to)
{
    for (size_t i = 0; i < ARRAY_LEN(categories); i++)
        fprintf(to, "  %-8s %s\n", categories[i].name, categories[i].help);
}

int log_open(const char *path, struct err *err)
{
    FILE *file = fopen(path, "w");
    if (!file)
        return err_set(err, errno, "-D: cannot open '%s': %s", path, strerror(errno));
    setvbuf(file, NULL, _IOLBF, 0);
    stream = file;
    return 0;
}

FILE *log_stream(void)
{
    return stream ? stream : stderr;
}

void log_write(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(log_stream(), format, args);
    va_end(args);
}
