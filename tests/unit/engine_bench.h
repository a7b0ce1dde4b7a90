/*
 * A bench for the engine: guest RAM, a vCPU in 32-bit protected mode with flat segments, tables for
 * exceptions, and code to run on it, without any device.
 *
 * Guests are written in assembly beside the test (GUEST) and loaded at CODE, for which labels are
 * made absolute by AT. They end with HLT, with IF clear, and are then looked at. They speak to the
 * test by way of ports: what they write is kept in bench.out, and a hook may do something.
 *
 * Every vector has a gate that leads to a HLT of its own, so that an exception ends the run with
 * the registers as they were, but for ESP, and a frame on the stack: bench_exception reads it.
 *
 * Memory: tables in the first 64 KiB, the stack of ring 0 below STACK, page tables at TABLES, code
 * at CODE, data from DATA on. bench_paging maps it all one to one, page by page, for the
 * supervisor.
 */
#ifndef TESTS_UNIT_ENGINE_BENCH_H
#define TESTS_UNIT_ENGINE_BENCH_H

#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "cpu/cpuid.h"
#include "dbt/engine.h"

enum {
    GDT = 0x1000,
    IDT = 0x2000,
    TSS = 0x3000,
    HANDLERS = 0x4000, /* 16 bytes a vector */
    STACK3 = 0x70000,  /* for guests in ring 3 */
    STACK0 = 0x78000,  /* ESP0 */
    STACK = 0x80000,   /* ESP where guests start */
    TABLES = 0x100000,
    CODE = 0x200000,
    DATA = 0x300000,
    BENCH_RAM = 32 << 20,
    BENCH_OUT_MAX = 64,
};

enum {
    SEL_CODE0 = 0x08,
    SEL_DATA0 = 0x10,
    SEL_CODE3 = 0x1B,
    SEL_DATA3 = 0x23,
    SEL_TSS = 0x28,
    SEL_TEST = 0x30, /* two that tests define */
    SEL_TEST2 = 0x38,
};

/* Page-table entries. */
enum { PT_P = 1, PT_W = 2, PT_U = 4, PT_A = 0x20, PT_D = 0x40, PT_PS = 0x80 };

struct bench {
    struct cpu_model model;
    struct mmu *m;
    struct dbt *d;
    struct vcpu *v;
    uint32_t out[BENCH_OUT_MAX];
    unsigned outs;
    int vector; /* of the next interrupt acknowledged */
    unsigned polls, acks;
    void (*on_out)(struct bench *b, uint16_t port, uint32_t value);
    void (*on_poll)(struct bench *b);
    uint32_t (*on_in)(struct bench *b, uint16_t port);
    timer_t watchdog;
    bool ran_too_long;
    void *user; /* a test's own */
};

/*
 * Guest code in AT&T syntax, as an array of bytes. Labels inside are numbers, of which 0 is that of
 * the first byte; AT gives the address of one when the guest is loaded at CODE.
 */
#define GUEST(name, text)                                                                          \
    extern const uint8_t name[], name##_end[];                                                     \
    __asm__(".pushsection .rodata." #name ",\"a\",@progbits\n.code32\n" #name ":\n0:\n" text       \
            "\n" #name "_end:\n.code64\n.popsection\n")
#define AT(label) "(" label " - 0b + 0x200000)"

/* ---- memory ---- */

static inline void bench_write(struct bench *b, uint32_t gpa, const void *from, uint32_t size)
{
    mmu_phys_write(b->m, gpa, from, size);
}

static inline void bench_put32(struct bench *b, uint32_t gpa, uint32_t value)
{
    bench_write(b, gpa, &value, 4);
}

static inline uint32_t bench_get32(struct bench *b, uint32_t gpa)
{
    uint32_t value;
    mmu_phys_read(b->m, gpa, &value, 4);
    return value;
}

/* Does nothing where the bytes are there already, so that translations stay. */
static inline void bench_load(struct bench *b, uint32_t gpa, const uint8_t *begin,
                              const uint8_t *end)
{
    if (memcmp(mmu_ram(b->m) + gpa, begin, (size_t)(end - begin)))
        bench_write(b, gpa, begin, (uint32_t)(end - begin));
}

#define BENCH_LOAD(b, gpa, name) bench_load(b, gpa, name, name##_end)

/* ---- surroundings ---- */

static inline uint32_t bench_io_read(void *opaque, uint16_t port, unsigned size)
{
    struct bench *b = opaque;
    (void)size;
    return b->on_in ? b->on_in(b, port) : 0xFFFFFFFF;
}

static inline void bench_io_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct bench *b = opaque;
    (void)size;
    if (b->on_out)
        b->on_out(b, port, value);
    if (b->outs < BENCH_OUT_MAX)
        b->out[b->outs++] = value;
}

static inline int bench_irq_ack(void *opaque)
{
    struct bench *b = opaque;
    b->acks++;
    b->v->irq_line = false;
    return b->vector;
}

static inline bool bench_timer_passed(timer_t timer)
{
    struct itimerspec left;
    timer_gettime(timer, &left);
    return left.it_value.tv_sec == 0 && left.it_value.tv_nsec == 0;
}

static inline void bench_poll(void *opaque)
{
    struct bench *b = opaque;
    b->polls++;
    if (b->on_poll)
        b->on_poll(b);
    if (bench_timer_passed(b->watchdog)) {
        b->ran_too_long = true;
        b->v->stop = true;
    }
}

/* ---- tables ---- */

/* `attr` as in struct segment, `limit` as in the descriptor's 20 bits. */
static inline void bench_descriptor(struct bench *b, unsigned sel, uint32_t base, uint32_t limit,
                                    uint16_t attr)
{
    bench_put32(b, GDT + (sel & ~7u), base << 16 | (limit & 0xFFFF));
    bench_put32(b, GDT + (sel & ~7u) + 4,
                (base & 0xFF000000) | (uint32_t)attr << 8 | (limit & 0xF0000) |
                    (base >> 16 & 0xFF));
}

/* Loads the register from the GDT without any check. */
static inline void bench_segment(struct bench *b, enum seg seg, uint16_t sel)
{
    uint32_t low = bench_get32(b, GDT + (sel & ~7u)), high = bench_get32(b, GDT + (sel & ~7u) + 4);
    uint32_t limit = (low & 0xFFFF) | (high & 0xF0000);

    b->v->seg[seg] = (struct segment){
        .sel = sel,
        .attr = (uint16_t)(high >> 8 & 0xF0FF),
        .base = low >> 16 | (high & 0xFF) << 16 | (high & 0xFF000000),
        .limit = high >> 23 & 1 ? limit << 12 | 0xFFF : limit,
    };
    vcpu_mode_changed(b->v);
}

static inline void bench_gate(struct bench *b, unsigned vector, uint32_t offset, uint8_t attr)
{
    bench_put32(b, IDT + 8 * vector, SEL_CODE0 << 16 | (offset & 0xFFFF));
    bench_put32(b, IDT + 8 * vector + 4, (offset & 0xFFFF0000) | (uint32_t)attr << 8);
}

/* Everything as before the first run, but for memory and the code cache. */
static inline void bench_reset(struct bench *b)
{
    struct vcpu *v = b->v;

    vcpu_reset(v);
    v->cr0 = CR0_PE | CR0_ET | CR0_NE;
    v->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT;
    v->gdtr = (struct table_register){.base = GDT, .limit = 0x3F};
    v->idtr = (struct table_register){.base = IDT, .limit = 0x7FF};
    v->tr = (struct segment){.sel = SEL_TSS, .attr = 0x8B, .base = TSS, .limit = 0x67};
    for (unsigned seg = 0; seg < SEG_COUNT; seg++)
        bench_segment(b, seg, seg == SEG_CS ? SEL_CODE0 : SEL_DATA0);
    v->rip = CODE;
    v->regs[REG_DX] = 0;
    v->regs[REG_SP] = STACK;
    /* A control word that masks everything, as FNINIT sets it. */
    v->fpu_area[0] = 0x7F;
    v->fpu_area[1] = 0x03;
    v->fpu_area[4] = 0;
    b->outs = b->polls = b->acks = 0;
    vcpu_mode_changed(v);
}

/* Ring 3, with the rights and the stack that go with it. */
static inline void bench_ring3(struct bench *b)
{
    for (unsigned seg = 0; seg < SEG_COUNT; seg++)
        bench_segment(b, seg, seg == SEG_CS ? SEL_CODE3 : SEL_DATA3);
    b->v->cpl = 3;
    b->v->regs[REG_SP] = STACK3;
    vcpu_mode_changed(b->v);
}

/* cmocka takes these signals for itself before each test; the engine installs its handlers once. */
static inline void bench_take_signals(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    static struct sigaction ours[ARRAY_LEN(signals)];
    static bool known;

    for (unsigned i = 0; i < ARRAY_LEN(signals); i++)
        sigaction(signals[i], known ? &ours[i] : NULL, known ? NULL : &ours[i]);
    known = true;
}

static inline struct bench *bench_create_with(const struct dbt_options *options,
                                              unsigned vma_budget)
{
    static const struct vcpu_ops ops = {bench_io_read, bench_io_write, bench_irq_ack, bench_poll};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = DBT_KICK_SIGNAL};
    struct bench *b = calloc(1, sizeof(*b));
    struct err err = {""};

    assert_non_null(b);
    cpuid_init(&b->model);
    b->m = mmu_create(BENCH_RAM, vma_budget, &err);
    assert_non_null(b->m);
    b->d = dbt_create(b->m, &b->model, options, &err);
    assert_non_null(b->d);
    bench_take_signals();
    b->v = dbt_vcpu(b->d);
    b->v->ops = &ops;
    b->v->ops_opaque = b;
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &b->watchdog), 0);

    bench_descriptor(b, SEL_CODE0, 0, 0xFFFFF, 0xC09B);
    bench_descriptor(b, SEL_DATA0, 0, 0xFFFFF, 0xC093);
    bench_descriptor(b, SEL_CODE3, 0, 0xFFFFF, 0xC0FB);
    bench_descriptor(b, SEL_DATA3, 0, 0xFFFFF, 0xC0F3);
    bench_descriptor(b, SEL_TSS, TSS, 0x67, 0x008B);
    bench_put32(b, TSS + 4, STACK0);
    bench_put32(b, TSS + 8, SEL_DATA0);
    bench_put32(b, TSS + 100, 104u << 16); /* no I/O bitmap */
    for (unsigned vector = 0; vector < 256; vector++) {
        bench_gate(b, vector, HANDLERS + 16 * vector, 0xEE);
        bench_write(b, HANDLERS + 16 * vector, "\xF4", 1);
    }
    bench_reset(b);
    return b;
}

static inline struct bench *bench_create(void)
{
    return bench_create_with(NULL, 0);
}

static inline void bench_destroy(struct bench *b)
{
    timer_delete(b->watchdog);
    dbt_destroy(b->d);
    mmu_destroy(b->m);
    free(b);
}

/* ---- paging ---- */

static inline uint32_t bench_pte_gpa(uint32_t gva)
{
    return TABLES + PAGE_SIZE + (gva >> 12) * 4;
}

/* Sets one entry. The guest, or bench_flush, is to flush afterwards. */
static inline void bench_map(struct bench *b, uint32_t gva, uint32_t gpa, unsigned flags)
{
    bench_put32(b, bench_pte_gpa(gva), (gpa & ~PAGE_MASK) | flags);
}

/* What MOV CR3, CR3 does. */
static inline void bench_flush(struct bench *b)
{
    struct vcpu *v = b->v;
    v->mem->paging_changed(v, v->cr0, v->cr3, v->cr4);
    vcpu_mode_changed(v);
}

static inline void bench_set_cr0(struct bench *b, uint32_t cr0)
{
    uint32_t old = b->v->cr0;
    b->v->cr0 = cr0;
    b->v->mem->paging_changed(b->v, old, b->v->cr3, b->v->cr4);
    vcpu_mode_changed(b->v);
}

/* Maps the first 16 MiB one to one, page by page, with `flags`, and turns paging on with WP. */
static inline void bench_paging(struct bench *b, unsigned flags)
{
    for (unsigned i = 0; i < 4; i++)
        bench_put32(b, TABLES + 4 * i, (TABLES + (1 + i) * PAGE_SIZE) | PT_P | PT_W | PT_U);
    for (uint32_t gpa = 0; gpa < 16u << 20; gpa += PAGE_SIZE)
        bench_map(b, gpa, gpa, flags);
    b->v->cr3 = TABLES;
    bench_set_cr0(b, b->v->cr0 | CR0_PG | CR0_WP);
}

/* ---- running ---- */

static inline void bench_arm_watchdog(struct bench *b, unsigned seconds)
{
    struct itimerspec when = {.it_value.tv_sec = seconds};
    timer_settime(b->watchdog, 0, &when, NULL);
}

/* Runs to the guest's HLT and gives EIP behind it. */
static inline uint32_t bench_run(struct bench *b)
{
    bench_arm_watchdog(b, 20);
    enum dbt_stop why = dbt_run(b->d);
    bench_arm_watchdog(b, 0);
    b->v->kicked = false;
    if (b->ran_too_long)
        fail_msg("the guest does not end: eip %08x", (unsigned)b->v->rip);
    if (why != DBT_HALTED)
        fail_msg("stopped by %d at eip %08x, vector %u", (int)why, (unsigned)b->v->rip,
                 b->v->exc.vector);
    b->v->halted = false;
    return (uint32_t)b->v->rip;
}

static inline uint32_t bench_reg(const struct bench *b, enum reg r)
{
    assert_int_equal(b->v->regs[r] >> 32, 0);
    return (uint32_t)b->v->regs[r];
}

/* What an exception has pushed. */
struct bench_frame {
    int vector; /* -1: the guest ended by a HLT of its own */
    uint32_t error, eip, cs, eflags;
    uint32_t esp; /* before the exception */
};

static inline bool bench_has_error(int vector)
{
    return vector == VEC_DF || (vector >= VEC_TS && vector <= VEC_PF) || vector == VEC_AC;
}

static inline struct bench_frame bench_exception(struct bench *b)
{
    uint32_t eip = (uint32_t)b->v->rip - 1, esp = bench_reg(b, REG_SP);
    struct bench_frame f = {.vector = -1};

    if (eip < HANDLERS || eip >= HANDLERS + 16 * 256)
        return f;
    f.vector = (int)(eip - HANDLERS) / 16;
    if (bench_has_error(f.vector)) {
        f.error = bench_get32(b, esp);
        esp += 4;
    }
    f.eip = bench_get32(b, esp);
    f.cs = bench_get32(b, esp + 4);
    f.eflags = bench_get32(b, esp + 8);
    f.esp = f.cs & 3 ? bench_get32(b, esp + 12) : esp + 12;
    return f;
}

/* Runs a guest that is to end with an exception. */
static inline struct bench_frame bench_run_to(struct bench *b, int vector)
{
    bench_run(b);
    struct bench_frame f = bench_exception(b);
    if (f.vector != vector)
        fail_msg("vector %d instead of %d (eip %08x, frame's %08x, error %x)", f.vector, vector,
                 (unsigned)b->v->rip, f.eip, f.error);
    return f;
}

/* ---- the same guest under every condition ---- */

/*
 * A scenario sets the bench up and runs a guest, asserting what comes out of it. It is called, in
 * each of the engine's configurations, three times on one bench: with nothing translated, with all
 * translated and chained, and after every translation was dropped by a write to its source.
 */
typedef void bench_scenario(struct bench *b);

/* Drops what was translated from [CODE, DATA), as a device would that writes the same bytes. */
static inline void bench_rewrite_code(struct bench *b)
{
    for (uint32_t gpa = CODE; gpa < DATA; gpa += PAGE_SIZE)
        bench_put32(b, gpa, bench_get32(b, gpa));
}

static inline void bench_scenario_with(bench_scenario *scenario, const struct dbt_options *options)
{
    struct bench *b = bench_create_with(options, 0);

    scenario(b);
    bench_reset(b);
    scenario(b);
    bench_rewrite_code(b);
    bench_reset(b);
    scenario(b);
    bench_destroy(b);
}

static inline void bench_everywhere(bench_scenario *scenario)
{
    static const struct dbt_options options[] = {
        {.verify = false},     {.verify = true},          {.no_bmi2 = true},
        {.no_fsgsbase = true}, {.cache_size = 256 << 10},
    };
    for (unsigned i = 0; i < ARRAY_LEN(options); i++)
        bench_scenario_with(scenario, &options[i]);
}

#endif
