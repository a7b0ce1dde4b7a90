/*
 * Host signals. The handlers do the least possible: a fault in translated code copies the frame's
 * registers to struct jit and points the frame at stub_fault on the C stack, so that all work
 * is done in normal context; a kick sets vcpu.kicked and replaces r14 where it is live.
 *
 * DF, TF, AC and NT are cleared in the frame: C must not see the guest's.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "dbt/engine.h"

/* The one pointer that the signal handlers need: the engine that this thread is running. */
static __thread struct dbt *current;
static __thread void *alternate_stack;

static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
static struct sigaction previous[ARRAY_LEN(signals)];
static pthread_once_t installed = PTHREAD_ONCE_INIT;
static int install_error;

static bool in_cache(const struct dbt *d, uint64_t pc)
{
    return pc - (uint64_t)d->cache.rx < d->cache.size;
}

/* Sends the frame, in translated code, to stub_fault. */
static void leave_frame(struct dbt *d, greg_t *g, int trap)
{
    static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                  REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                  REG_R12, REG_R13, REG_R14, REG_R15};

    for (unsigned i = 0; i < 16; i++)
        d->jit.frame[i] = (uint64_t)g[order[i]];
    d->jit.frame_rip = (uint64_t)g[REG_RIP];
    d->jit.frame_flags = (uint64_t)g[REG_EFL];
    d->fault.trap = trap;
    d->fault.error = (uint32_t)g[REG_ERR];
    d->fault.address = (uint64_t)g[REG_CR2];
    g[REG_RIP] = (greg_t)stub_fault;
    g[REG_RSP] = (greg_t)d->jit.c_sp;
    g[REG_EFL] &= ~(greg_t)(FLAG_DF | FLAG_TF | FLAG_AC | FLAG_NT | FLAG_RF);
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    struct dbt *d = current;
    uint64_t pc = (uint64_t)g[REG_RIP];

    if (info->si_code <= 0 || !d || !in_cache(d, pc)) {
        for (unsigned i = 0; i < ARRAY_LEN(signals); i++) {
            if (signals[i] == sig)
                sigaction(sig, &previous[i], NULL);
        }
        /* Unless somebody sent it, the instruction faults again, into what was there. */
        if (info->si_code <= 0)
            raise(sig);
        return;
    }
    if (pc < (uint64_t)d->cache.rx + SINGLE_CODE_SIZE) {
        g[REG_RAX] = g[REG_TRAPNO] + 1;
        g[REG_RIP] = (greg_t)stub_single_fault;
        return;
    }
    leave_frame(d, g, (int)g[REG_TRAPNO]);
}

/* A REP string is a safe point between its elements: F3 or F2, by itself or behind 66, then A4-A7,
 * AA-AF. */
static bool at_rep_string(const uint8_t *pc)
{
    if (*pc == 0x66)
        pc++;
    return (pc[0] == 0xF3 || pc[0] == 0xF2) && pc[1] >= 0xA4 && pc[1] <= 0xAF && pc[1] != 0xA8 &&
           pc[1] != 0xA9;
}

static void on_kick(int sig, siginfo_t *info, void *context)
{
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    struct dbt *d = current;
    uint64_t pc = (uint64_t)g[REG_RIP];

    (void)sig;
    (void)info;
    if (!d)
        return;
    d->cpu.kicked = true;
    d->jit.r14 = (uint64_t)d->all_miss;
    if (in_cache(d, pc) || pc - (uint64_t)stubs_begin < (size_t)(stubs_end - stubs_begin))
        g[REG_R14] = (greg_t)d->all_miss;
    if (in_cache(d, pc) && pc >= (uint64_t)d->cache.rx + SINGLE_CODE_SIZE &&
        at_rep_string((const uint8_t *)pc))
        leave_frame(d, g, TRAP_KICK);
}

static void install(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, DBT_KICK_SIGNAL);
    for (unsigned i = 0; i < ARRAY_LEN(signals); i++) {
        if (sigaction(signals[i], &action, &previous[i]) < 0)
            install_error = errno;
    }
    action.sa_sigaction = on_kick;
    action.sa_flags |= SA_RESTART;
    if (sigaction(DBT_KICK_SIGNAL, &action, NULL) < 0)
        install_error = errno;
}

int fault_install(struct err *err)
{
    pthread_once(&installed, install);
    if (install_error)
        return err_set(err, install_error, "cannot install signal handlers: %s",
                       strerror(install_error));
    return 0;
}

int fault_attach(struct dbt *d, struct err *err)
{
    if (!alternate_stack) {
        size_t size = getauxval(AT_MINSIGSTKSZ) + 65536;
        void *stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack == MAP_FAILED)
            return err_set(err, errno, "no memory for a signal stack");
        if (sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = size}, NULL) < 0)
            return err_set(err, errno, "cannot use a signal stack: %s", strerror(errno));
        alternate_stack = stack;
    }
    current = d;
    return 0;
}

void fault_detach(const struct dbt *d)
{
    if (current == d)
        current = NULL;
}
