/*
 * What the small guests share: comparisons that count and report, code under test as top-level
 * assembly (CODE), and ways to make the same code be met cold, hot and after it was written to.
 */
#ifndef GUEST_CHECK_H
#define GUEST_CHECK_H

#include "console.h"
#include "cpu.h"

/*
 * Code for cpu_run: the text, then INT VECTOR_END at NAME_end. It stands in pages that paging_init
 * opens to ring 3, each piece on 64 bytes of its own.
 */
#define CODE(name, text)                                                                           \
    extern const char name[], name##_end[];                                                        \
    __asm__(".pushsection .user.text, \"ax\"\n\t.balign 64\n\t.globl " #name ", " #name            \
            "_end\n" #name ":\n\t" text "\n" #name "_end:\n\tint $0x30\n\tnop\n\t.popsection")

/* Data that ring 3 may write. */
#define USER_DATA __attribute__((section(".user.data"), aligned(64)))

enum { ROUNDS = 4 };

/* Counts a comparison; the first few failures are printed. */
void check(bool ok, const char *format, ...) __attribute__((format(printf, 2, 3)));
void check_equal(uint32_t got, uint32_t want, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The run ended in `vector`, at `eip` and with `error` unless they are NULL and -1. */
void check_trap(const struct cpu_state *s, unsigned vector, int error, const void *eip,
                const char *what);
/* As cpu_start and cpu_run, expecting the end of the code. */
void run_to_end(struct cpu_state *s, const char *what);
/* Prints the guest's one line; what guest_main returns. */
int check_done(const char *name);

/* Writes a byte of each 64 bytes of `size` to itself, so that translations of it are dropped. */
void touch_code(const void *code, size_t size);
/* All code made by CODE. */
void touch_all_code(void);

#endif
