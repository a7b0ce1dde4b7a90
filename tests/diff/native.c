/*
 * The native side: see native.h.
 *
 * The regions' protections hold for the test's own C too: DATA and its kin are ordinary writable
 * memory, CODE is written through a second mapping of the same memory. Everything below 4 GiB but
 * these regions must be empty (the program is built position-independent), which native_init
 * checks, since random addresses are what cases are made of.
 */
#define _GNU_SOURCE
#include "native.h"

#include <asm/ldt.h>
#include <asm/prctl.h>
#include <cpuid.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include "layout.h"

/* Known to native_enter.S. */
struct native_frame {
    uint64_t host_rsp, host_fsbase;
    const uint8_t *fpu;
    uint32_t xsave_mask, pad;
    uint32_t gpr[8];
    uint32_t eip, eflags;
    uint16_t sel[6], out_sel[6];
    uint32_t wrfsbase_works;
    uint32_t ticks; /* of the clock that finds runs that do not end */
    struct outcome *out;
};

_Static_assert(offsetof(struct native_frame, fpu) == 16, "native_enter.S");
_Static_assert(offsetof(struct native_frame, gpr) == 32, "native_enter.S");
_Static_assert(offsetof(struct native_frame, eip) == 64, "native_enter.S");
_Static_assert(offsetof(struct native_frame, sel) == 72, "native_enter.S");
_Static_assert(offsetof(struct native_frame, out_sel) == 84, "native_enter.S");
_Static_assert(offsetof(struct native_frame, wrfsbase_works) == 96, "native_enter.S");
_Static_assert(offsetof(struct native_frame, ticks) == 100, "native_enter.S");
_Static_assert(SIGVTALRM == 26, "native_enter.S");

void native_enter(struct native_frame *f);
void native_leave(void);
void native_signal(int sig, siginfo_t *info, void *context);
void native_trap(int sig, siginfo_t *info, void *context);

/* The run in progress, NULL outside one: a signal handler has no other way to know. */
struct native_frame *native_frame;

static const int caught[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};

/* The frame's FPU image is in the standard XSAVE form if the kernel says so, else 512 bytes. */
static void take_fpu(const ucontext_t *uc, uint8_t fpu[XSAVE_SIZE])
{
    const uint8_t *image = (const uint8_t *)uc->uc_mcontext.fpregs;
    memset(fpu, 0, XSAVE_SIZE);
    memcpy(fpu, image, 512);
    uint32_t magic = get_u32(image + 464);
    uint32_t size = get_u32(image + 480);
    memset(fpu + 416, 0, 96);
    fpu[XSAVE_HEADER] = 7;
    if (magic != 0x46505853 || size < XSAVE_YMM)
        return;
    uint32_t present = get_u32(image + XSAVE_HEADER);
    if (!(present & 1)) {
        memset(fpu, 0, 24);
        memset(fpu + 32, 0, 128);
        put_u16(fpu, 0x37F);
    }
    if (!(present & 2))
        memset(fpu + 160, 0, 256);
    if ((present & 4) && size >= XSAVE_SIZE)
        memcpy(fpu + XSAVE_YMM, image + XSAVE_YMM, 256);
}

void native_trap(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    greg_t *g = uc->uc_mcontext.gregs;
    struct native_frame *f = native_frame;
    (void)info;
    if (!f) {
        if (sig != SIGVTALRM)
            signal(sig, SIG_DFL);
        return;
    }
    native_frame = NULL;
    struct outcome *out = f->out;
    static const uint8_t order[8] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX,
                                     REG_RSP, REG_RBP, REG_RSI, REG_RDI};
    for (unsigned i = 0; i < 8; i++)
        out->state.gpr[i] = (uint32_t)g[order[i]];
    out->state.eip = (uint32_t)g[REG_RIP];
    out->state.eflags = (uint32_t)g[REG_EFL];
    memcpy(out->state.sel, f->out_sel, sizeof out->state.sel);
    uint64_t segments = (uint64_t)g[REG_CSGSFS];
    out->state.sel[1] = (uint16_t)segments;
    out->state.sel[2] = (uint16_t)(segments >> 48);
    take_fpu(uc, out->state.fpu);
    out->vector = (uint8_t)g[REG_TRAPNO];
    out->error = (uint32_t)g[REG_ERR];
    out->cr2 = (uint32_t)g[REG_CR2];
    out->has_error =
        out->vector == 8 || (out->vector >= 10 && out->vector <= 14) || out->vector == 17;

    if (sig == SIGVTALRM)
        out->vector = NATIVE_STUCK;
    g[REG_RIP] = (greg_t)(uintptr_t)native_leave;
    g[REG_RSP] = (greg_t)f->host_rsp;
    g[REG_EFL] = 0x202;
    g[REG_CSGSFS] = (greg_t)0x002B000000000033;
}

void native_run(const struct native *n, const struct cpu_state *from, struct outcome *out)
{
    struct sigaction old[ARRAY_LEN(caught)];
    struct sigaction act = {.sa_sigaction = native_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    struct native_frame f = {.fpu = from->fpu, .eip = from->eip, .out = out};
    uint64_t gsbase = 0;
    sigfillset(&act.sa_mask);
    syscall(SYS_arch_prctl, ARCH_GET_FS, &f.host_fsbase);
    syscall(SYS_arch_prctl, ARCH_GET_GS, &gsbase);
    f.wrfsbase_works = getauxval(AT_HWCAP2) >> 1 & 1; /* HWCAP2_FSGSBASE */
    f.xsave_mask = n->has_avx ? 7 : 0;
    f.eflags = from->eflags;
    memcpy(f.gpr, from->gpr, sizeof f.gpr);
    memcpy(f.sel, from->sel, sizeof f.sel);
    for (unsigned i = 0; i < ARRAY_LEN(caught); i++)
        sigaction(caught[i], &act, &old[i]);
    __atomic_store_n(&native_frame, &f, __ATOMIC_SEQ_CST);
    native_enter(&f);
    for (unsigned i = 0; i < ARRAY_LEN(caught); i++)
        sigaction(caught[i], &old[i], NULL);
    if (gsbase)
        syscall(SYS_arch_prctl, ARCH_SET_GS, gsbase);
}

static bool low_is_empty(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    bool empty = true;
    while (maps && fgets(line, sizeof line, maps)) {
        if (strtoull(line, NULL, 16) < 1ull << 32) {
            fprintf(stderr, "differential: mapped below 4 GiB: %s", line);
            empty = false;
        }
    }
    if (maps)
        fclose(maps);
    return empty && maps;
}

/* MAP_FIXED_NOREPLACE at first, MAP_FIXED for native_own_code. */
static bool map_region(struct native *n, unsigned id, int fixed)
{
    const struct region *r = &layout_regions[id];
    void *at = native_at(r->gva);
    int fd = -1, flags = fixed | MAP_PRIVATE | MAP_ANONYMOUS;
    if (id == REGION_CODE) {
        fd = memfd_create("differential-code", MFD_CLOEXEC);
        if (fd < 0 || ftruncate(fd, r->size))
            return false;
        n->code = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (n->code == MAP_FAILED)
            return false;
        memset(n->code, END_MARKER, r->size);
        flags = fixed | MAP_SHARED;
    }
    void *p = mmap(at, r->size, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (fd >= 0)
        close(fd);
    if (p == MAP_FAILED)
        return false;
    if (p != at) {
        munmap(p, r->size);
        return false;
    }
    memset(p, r->rights & REGION_X ? END_MARKER : 0, r->size);
    if (r->rights & REGION_X)
        mprotect(p, r->size, PROT_READ | PROT_EXEC);
    return true;
}

/* The 32-bit data segment with base BASED and a limit of 64 KiB: entry 0 of the LDT (SEL_BASED). */
static bool make_based(void)
{
    struct user_desc d = {
        .entry_number = SEL_BASED >> 3,
        .base_addr = BASED_GVA,
        .limit = 0xFFFF,
        .seg_32bit = 1,
        .useable = 1,
    };
    return syscall(SYS_modify_ldt, 0x11, &d, sizeof d) == 0;
}

void native_seal(const struct native *n, bool sealed)
{
    const struct region *r = &layout_regions[REGION_RO];
    (void)n;
    mprotect(native_at(r->gva), r->size, sealed ? PROT_READ : PROT_READ | PROT_WRITE);
}

bool native_start(struct native *n)
{
    struct sigaction act = {.sa_sigaction = native_signal,
                            .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    struct itimerval second = {{1, 0}, {1, 0}};
    sigfillset(&act.sa_mask);
    munmap(n->code, CODE_SIZE);
    return map_region(n, REGION_CODE, MAP_FIXED) && !sigaction(SIGVTALRM, &act, NULL) &&
           !setitimer(ITIMER_VIRTUAL, &second, NULL);
}

bool native_init(struct native *n)
{
    unsigned a, b, c, d;
    memset(n, 0, sizeof *n);
    if (!low_is_empty())
        return false;
    const int fixed = MAP_FIXED_NOREPLACE;
    for (unsigned id = 0; id < REGION_COUNT; id++) {
        if (id > REGION_LOW_TOP && !map_region(n, id, fixed)) {
            fprintf(stderr, "differential: cannot map linear address %08x\n",
                    layout_regions[id].gva);
            return false;
        }
    }
    n->has_low = map_region(n, REGION_LOW, fixed) && map_region(n, REGION_LOW_CODE, fixed) &&
                 map_region(n, REGION_LOW_TOP, fixed);
    n->has_based = make_based();
    if (__get_cpuid(1, &a, &b, &c, &d) && (c & bit_OSXSAVE)) {
        uint32_t xcr0, high;
        __asm__("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
        n->has_avx = (xcr0 & 7) == 7;
    }
    size_t size = 1 << 18;
    stack_t stack = {.ss_sp = malloc(size), .ss_size = size};
    if (!stack.ss_sp || sigaltstack(&stack, NULL)) {
        fprintf(stderr, "differential: no alternate signal stack\n");
        return false;
    }
    return true;
}
