/*
 * One sentence for the user about what the host or the user did wrong. Functions that can fail for
 * such a reason return a negative errno and fill a struct err; main prints it once.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdarg.h>

struct err {
    char text[512];
};

/*
 * Stores the sentence (printf style, no trailing newline) and returns -code, so that a caller can
 * write `return err_set(err, EINVAL, "...")`. An earlier sentence is kept.
 */
int err_set(struct err *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
