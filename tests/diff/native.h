/*
 * Runs 32-bit code natively, in the compatibility-mode code segment that every 64-bit Linux process
 * has (selector 23h), until it meets an exception. Way in: XRSTOR, segment loads and IRETQ
 * (native_enter.S). Way out: the signal that the exception becomes; its handler takes the registers
 * from the frame and points the frame at the way out.
 *
 * While 32-bit code runs, FS and GS belong to it, so the handler's first instructions
 * (native_signal) give the C library its FS back, and clear DF, NT and AC, before any C. The
 * handlers are installed for the length of a run only: the engine has its own for the same signals.
 */
#ifndef DIFF_NATIVE_H
#define DIFF_NATIVE_H

#include "outcome.h"

struct native {
    bool has_low;   /* the regions LOW are mapped */
    bool has_based; /* selector SEL_BASED works */
    bool has_avx;
    uint8_t *code; /* writable alias of CODE */
};

/* Maps the regions, all zero but for code regions, which hold end markers. Prints why not. */
bool native_init(struct native *n);
/* To be called after fork(): gives the process code memory of its own, and the clock that ends runs
   which would never end (vector NATIVE_STUCK). */
bool native_start(struct native *n);
enum { NATIVE_STUCK = 0xFF };
/* The bytes at a writable or read-only region's linear address, which is a host address too. */
static inline uint8_t *native_at(uint32_t gva)
{
    return (uint8_t *)(uintptr_t)gva;
}
/* Lets the read-only region be written (by the caller, not by cases). */
void native_seal(const struct native *n, bool sealed);
void native_run(const struct native *n, const struct cpu_state *from, struct outcome *out);

#endif
