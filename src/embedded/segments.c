/*
 * LAR LSL VERR VERW over every selector and RPL of both tables, and PUSH, POP and MOV of segment
 * registers: values, widths, privilege faults, accessed bits, and what the loaded segment reads.
 */
#include "model.h"
#include "report.h"
#include "snippets.h"

enum { FILL = 0xA5A5A5A5u };
enum sreg { ES, CS, SS, DS, FS, GS };

/* Runs a snippet that takes the selector in EAX, in the word at EDX, and at the top of the stack.
 */
static void run_selector(struct cpu_state *s, const char *code, unsigned ring, uint16_t selector)
{
    static uint32_t word;

    cpu_start(s, code, ring);
    s->eax = 0xABCD0000 | selector;
    s->ecx = FILL;
    word = 0x12340000 | selector;
    s->edx = (uint32_t)&word;
    *(uint32_t *)s->esp = 0xABCD0000 | selector;
    s->eflags |= FLAG_CF | FLAG_OF | (selector & 8 ? FLAG_ZF : 0);
    cpu_run(s);
}

/* The four queries: ZF says whether `ok`; the destination changes only then. */
static void check_query(struct cell *c, unsigned ring, const char *code, uint16_t selector, bool ok,
                        uint32_t result, uint32_t mask)
{
    struct cpu_state s;

    run_selector(&s, code, ring, selector);
    expect_trap(c, &s, VEC_END, 0, NULL, "selector", selector);
    expect(c, !!(s.eflags & FLAG_ZF), ok, "ZF for selector %04x", selector);
    expect(c, s.eflags & (FLAG_CF | FLAG_OF | FLAG_SF), FLAG_CF | FLAG_OF, "flags but ZF");
    expect(c, s.ecx & mask, (ok ? result : FILL) & mask, "result for selector %04x", selector);
}

static void check_value_query(struct cell *c, unsigned ring, const char *const code[3],
                              bool (*model)(unsigned, uint16_t, uint32_t *))
{
    for (unsigned i = 0; i < selector_count(); i++) {
        uint16_t selector = selector_at(i);
        uint32_t value = 0;
        bool ok = model(ring, selector, &value);
        /* LAR leaves bits 16-19 of a 32-bit destination undefined. */
        uint32_t mask = ok && model == model_lar ? 0xFFF0FFFF : ~0u;
        check_query(c, ring, code[0], selector, ok, value, mask);
        check_query(c, ring, code[1], selector, ok, (FILL & 0xFFFF0000) | (value & 0xFFFF), ~0u);
        if (i % 8 == 0)
            check_query(c, ring, code[2], selector, ok, value, mask);
    }
}

void check_lar(struct cell *c, unsigned ring)
{
    check_value_query(c, ring, (const char *const[]){s_lar, s_lar16, s_lar_m}, model_lar);
}

void check_lsl(struct cell *c, unsigned ring)
{
    check_value_query(c, ring, (const char *const[]){s_lsl, s_lsl16, s_lsl_m}, model_lsl);
}

static void check_bool_query(struct cell *c, unsigned ring, const char *code, const char *code_m,
                             bool (*model)(unsigned, uint16_t))
{
    for (unsigned i = 0; i < selector_count(); i++) {
        uint16_t selector = selector_at(i);
        bool ok = model(ring, selector);
        check_query(c, ring, code, selector, ok, FILL, ~0u);
        if (i % 8 == 0)
            check_query(c, ring, code_m, selector, ok, FILL, ~0u);
    }
}

void check_verr(struct cell *c, unsigned ring)
{
    check_bool_query(c, ring, s_verr, s_verr_m, model_verr);
}

void check_verw(struct cell *c, unsigned ring)
{
    check_bool_query(c, ring, s_verw, s_verw_m, model_verw);
}

static uint32_t *sreg_of(struct cpu_state *s, enum sreg sreg)
{
    uint32_t *const place[] = {&s->es, &s->cs, &s->ss, &s->ds, &s->fs, &s->gs};
    return place[sreg];
}

/* A state whose segment registers all hold different selectors where the ring allows it. */
static void start_sregs(struct cpu_state *s, const char *code, unsigned ring)
{
    cpu_start(s, code, ring);
    s->es = SPEC_TYPE(2, 3) | 3;
    s->fs = SPEC_DATA3 | 3;
    /* IRET to an outer ring may clear it. */
    s->gs = ring == 0 ? 2 : 0;
    s->ecx = FILL;
}

void check_push(struct cell *c, unsigned ring)
{
    for (unsigned i = 0; i < 2 * SNIPPET_SREGS; i++) {
        enum sreg sreg = i / 2;
        unsigned size = i & 1 ? 2 : 4;
        struct cpu_state s;
        start_sregs(&s, snippets_from[sreg][i & 1], ring);
        uint32_t esp = s.esp, want = *sreg_of(&s, sreg);
        uint16_t *top = (uint16_t *)(esp - size);
        top[0] = (uint16_t)~want;
        cpu_run(&s);
        expect_trap(c, &s, VEC_END, 0, NULL, "segment register", sreg);
        expect(c, esp - s.esp, size, "%u-bit: bytes pushed, segment register %u", 8 * size, sreg);
        /* The upper half of a 32-bit push is not defined alike by all CPUs. */
        expect(c, top[0], want, "%u-bit: segment register %u", 8 * size, sreg);
    }
}

void check_mov_from(struct cell *c, unsigned ring)
{
    static uint32_t word;

    for (unsigned i = 0; i < 3 * SNIPPET_SREGS; i++) {
        enum sreg sreg = i / 3;
        struct cpu_state s;
        start_sregs(&s, snippets_from[sreg][2 + i % 3], ring);
        uint32_t want = *sreg_of(&s, sreg);
        word = FILL;
        s.edx = (uint32_t)&word;
        cpu_run(&s);
        expect_trap(c, &s, VEC_END, 0, NULL, "from segment register", sreg);
        if (i % 3 == 0)
            expect(c, s.ecx, want, "32-bit: segment register %u", sreg);
        else
            expect(c, i % 3 == 1 ? s.ecx : word, (FILL & 0xFFFF0000) | want,
                   "16-bit: segment register %u", sreg);
    }

    struct cpu_state s;
    cpu_start(&s, s_get_sreg7, ring);
    cpu_run(&s);
    expect_trap(c, &s, VEC_UD, 0, s_get_sreg7, "from segment register", 7);
}

/* `pop`: bytes that ESP goes up by, 0 for MOV. */
static void check_one_load(struct cell *c, unsigned ring, enum sreg sreg, const char *code,
                           unsigned pop, uint16_t selector)
{
    struct outcome want = model_load(ring, sreg == SS, selector);
    struct descriptor *d = model_descriptor(selector);
    struct cpu_state s, before;

    /* A based or short stack would not take the trap that reports. */
    if (ring == 0 && sreg == SS && want.vector == VEC_END && selector != SEL_KDATA &&
        selector != SPEC_TYPE(2, 0))
        return;
    if (d && desc_s(d))
        d->high &= ~0x100u;
    uint32_t high = d ? d->high : 0;
    cpu_start(&before, code, ring);
    run_selector(&s, code, ring, selector);
    expect_trap(c, &s, want.vector, want.error, want.vector == VEC_END ? NULL : code,
                "loading selector", selector);
    bool loaded = want.vector == VEC_END;
    expect(c, s.esp - before.esp, loaded ? pop : 0, "bytes popped, selector %04x", selector);
    expect(c, *sreg_of(&s, sreg), loaded ? selector : *sreg_of(&before, sreg),
           "segment register %u after loading %04x", sreg, selector);
    if (d && d != &cpu_gdt[SEL_CODE(ring) / 8] && d != &cpu_gdt[SEL_DATA(ring) / 8] &&
        d != &cpu_gdt[SEL_KCODE / 8] && d != &cpu_gdt[SEL_KDATA / 8])
        expect(c, d->high, loaded ? high | 0x100 : high, "descriptor of selector %04x", selector);
}

static void check_loads(struct cell *c, unsigned ring, unsigned first)
{
    static const enum sreg order[] = {DS, SS, ES, FS, GS};

    for (unsigned r = 0; r < ARRAY_LEN(order); r++) {
        enum sreg sreg = order[r];
        /* DS and SS meet all selectors, the others, loaded alike, every fifth. */
        unsigned step = sreg == DS || sreg == SS ? 1 : 5;
        for (unsigned i = 0; i < selector_count(); i += step) {
            uint16_t selector = selector_at(i);
            check_one_load(c, ring, sreg, snippets_to[sreg][first], first ? 0 : 4, selector);
            check_one_load(c, ring, sreg, snippets_to[sreg][first + 1], first ? 0 : 2, selector);
        }
    }
}

/* The hidden part: what FS:0 reads is what stands at the descriptor's base. */
static void check_use(struct cell *c, unsigned ring, const char *code)
{
    struct cpu_state s;

    run_selector(&s, code, ring, SPEC_DATA3 | 3);
    expect_trap(c, &s, VEC_END, 0, NULL, "reading through selector", SPEC_DATA3);
    expect(c, s.ecx, based_data[0], "dword at FS:0");
    run_selector(&s, code, ring, 0);
    expect_trap(c, &s, VEC_GP, 0, NULL, "reading through selector", 0);
    expect(c, s.ecx, FILL, "destination of a faulting read");
    expect(c, s.fs, 0, "FS");
}

void check_pop(struct cell *c, unsigned ring)
{
    check_loads(c, ring, 0);
    check_use(c, ring, s_pop_fs_use);
}

void check_mov_to(struct cell *c, unsigned ring)
{
    struct cpu_state s;

    check_loads(c, ring, 2);
    check_use(c, ring, s_mov_fs_use);
    run_selector(&s, s_set_cs, ring, SEL_CODE(ring));
    expect_trap(c, &s, VEC_UD, 0, s_set_cs, "MOV to CS of", SEL_CODE(ring));
    run_selector(&s, s_set_sreg6, ring, SEL_DATA(ring));
    expect_trap(c, &s, VEC_UD, 0, s_set_sreg6, "MOV to segment register", 6);
}
