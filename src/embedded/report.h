/*
 * The guest's report: a cell for each instruction and ring counts what was compared and keeps the
 * words of the first difference.
 */
#ifndef EMBEDDED_REPORT_H
#define EMBEDDED_REPORT_H

#include "lib/console.h"
#include "lib/cpu.h"

struct cell {
    unsigned checks, wrong;
    char first[160];
};

struct row {
    const char *mnemonic, *about;
    void (*check)(struct cell *c, unsigned ring);
};

/* Counts one comparison. The words say what was compared, printf style. */
void expect(struct cell *c, uint32_t got, uint32_t want, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The run must have ended in this vector; for an exception also with this error code, at `eip`. */
void expect_trap(struct cell *c, const struct cpu_state *s, unsigned vector, uint32_t error,
                 const void *eip, const char *what, uint32_t detail);

/* registers.c */
void check_sgdt(struct cell *c, unsigned ring);
void check_sidt(struct cell *c, unsigned ring);
void check_sldt(struct cell *c, unsigned ring);
void check_str(struct cell *c, unsigned ring);
void check_smsw(struct cell *c, unsigned ring);
void check_pushf(struct cell *c, unsigned ring);
void check_popf(struct cell *c, unsigned ring);
/* segments.c */
void check_lar(struct cell *c, unsigned ring);
void check_lsl(struct cell *c, unsigned ring);
void check_verr(struct cell *c, unsigned ring);
void check_verw(struct cell *c, unsigned ring);
void check_push(struct cell *c, unsigned ring);
void check_pop(struct cell *c, unsigned ring);
void check_mov_from(struct cell *c, unsigned ring);
void check_mov_to(struct cell *c, unsigned ring);
/* transfers.c */
void check_jmp(struct cell *c, unsigned ring);
void check_call(struct cell *c, unsigned ring);
void check_ret(struct cell *c, unsigned ring);
void check_iret(struct cell *c, unsigned ring);
void check_int(struct cell *c, unsigned ring);

#endif
