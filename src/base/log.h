/*
 * The debug log (-d, -D). Categories are bits of log_mask; the list is LOG_CATEGORIES, from which the
 * enum, the names and the help text are made. Logging uses stdio and so may use the FPU: code that
 * runs with the guest's FPU state calls fpu_park (cpu/fpu.h) first.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

/* name, help */
#define LOG_CATEGORIES(X)                                                                          \
    X(IN_ASM, "in_asm", "guest instructions of each block as it is translated")                    \
    X(OUT_ASM, "out_asm", "host instructions of each block, under the guest line they come from")  \
    X(EXITS, "exits", "each exit from translated code, with its reason and guest address")         \
    X(FAULT, "fault", "each exception delivered to the guest, and each hidden fault")              \
    X(WINDOW, "window", "windows made, revalidated, recycled; pages mapped and dropped")           \
    X(PORT, "port", "each access to an I/O port and to unassigned memory")                         \
    X(IRQ, "irq", "interrupt lines raised and lowered, interrupts delivered")

enum log_bit {
#define X(id, name, help) LOG_BIT_##id,
    LOG_CATEGORIES(X)
#undef X
        LOG_BIT_COUNT
};

enum log_category {
#define X(id, name, help) LOG_##id = 1u << LOG_BIT_##id,
    LOG_CATEGORIES(X)
#undef X
};

/*
 * Process-wide by nature, as stderr is: set once by the command line before any machine exists, only
 * read afterwards.
 */
extern uint32_t log_mask;
/* Only guest addresses in [log_low, log_high] are shown by in_asm, out_asm, exits and fault. */
extern uint32_t log_low, log_high;

static inline int log_on(enum log_category category)
{
    return __builtin_expect((log_mask & category) != 0, 0);
}

static inline int log_on_at(enum log_category category, uint32_t gva)
{
    return log_on(category) && gva >= log_low && gva <= log_high;
}

/* Parses "in_asm,exits" into the mask. Returns 0, or -EINVAL with the unknown name in `err`. */
int log_parse(const char *list, uint32_t *mask, struct err *err);
/* Prints one line a category. */
void log_help(FILE *to);
/* Sends the log to a file instead of stderr. Returns 0 or a negative errno. */
int log_open(const char *path, struct err *err);
/* Writes to the log, printf style; the caller gives the newline. */
void log_write(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The stream itself, for listings of several lines. */
FILE *log_stream(void);

#endif
