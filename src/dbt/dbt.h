/*
 * The engine: runs a vCPU by translating its code to 64-bit host code in windows
 * (docs/translation.md).
 */
#ifndef DBT_DBT_H
#define DBT_DBT_H

#include <signal.h>
#include <stdio.h>

#include "base/err.h"
#include "cpu/cpuid.h"
#include "cpu/state.h"
#include "mmu/mmu.h"

struct dbt;

struct dbt_options {
    uint32_t cache_size; /* bytes of code cache; 0: 64 MiB */
    bool verify;         /* run each block twice and compare */
    /* For tests: do without what the host CPU has. */
    bool no_bmi2, no_fsgsbase;
};

/* Why dbt_run came back. */
enum dbt_stop {
    DBT_HALTED,   /* HLT (vcpu.halted), no interrupt that would end it: wait, then run again */
    DBT_SHUTDOWN, /* triple fault */
    DBT_STOPPED,  /* vcpu.stop was set */
    DBT_DIVERGED, /* --verify found a difference and has logged it */
};

/*
 * Makes an engine with a vCPU of its own in the state after RESET, attached to `mmu`. The caller
 * sets ops and changes registers by way of dbt_vcpu before the first dbt_run.
 */
struct dbt *dbt_create(struct mmu *mmu, const struct cpu_model *model,
                       const struct dbt_options *options, struct err *err);
void dbt_destroy(struct dbt *d);
struct vcpu *dbt_vcpu(struct dbt *d);

/* Runs until one of the reasons above. Delivers interrupts itself, by way of ops->irq_ack. Every
   call must come from one thread. On return the FPU is parked. */
enum dbt_stop dbt_run(struct dbt *d);

/*
 * The signal that makes the running vCPU thread leave translated code at the next safe point, where
 * ops->poll is called: sent by timer_create (SIGEV_THREAD_ID) or pthread_kill to the thread that
 * runs dbt_run. Outside translated code it only sets vcpu.kicked.
 */
#define DBT_KICK_SIGNAL SIGUSR1

/* Prints the --stats counters, a line of English each. */
void dbt_print_stats(const struct dbt *d, FILE *to);

/* Installs (once a process) the handlers for SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP and the kick.
   Called by dbt_create. A fault that is not the guest's goes on to what was installed before. */

#endif
