/*
 * Far JMP, CALL and RET, IRET and INT n: to every selector of both tables, through call gates, to
 * outer and inner rings, with 32- and 16-bit operands, and the frames that they leave.
 */
#include "model.h"
#include "report.h"
#include "snippets.h"

enum { FILL = 0xA5A5A5A5u, STACK_WORDS = 16 };

static uint32_t top_word(const struct cpu_state *s, unsigned width, unsigned index)
{
    return width == 4 ? ((uint32_t *)s->esp)[index] : ((uint16_t *)s->esp)[index];
}

/* `landing` lies at a small offset in based segments, at its address in flat ones. */
static uint32_t offset_in(uint16_t selector)
{
    const struct descriptor *d = model_descriptor(selector);
    return d && desc_s(d) && desc_base(d) ? LANDING_OFFSET : (uint32_t)landing;
}

static bool reachable(const struct descriptor *d, uint32_t eip)
{
    return desc_base(d) + eip == (uint32_t)landing;
}

/* The parameters that a gate copies: marked words on the caller's stack. */
static void fill_stack(const struct cpu_state *s)
{
    for (unsigned i = 0; i < STACK_WORDS; i++)
        ((uint32_t *)s->esp)[i] = 0x51AC0000 + 0x10001 * i;
}

/* What a far CALL leaves on the stack: [SS ESP parameters] CS EIP, in the width of gate or operand.
 */
static void expect_call_frame(struct cell *c, const struct cpu_state *s,
                              const struct cpu_state *before, const struct far_target *to,
                              unsigned width, uint32_t return_eip, uint16_t selector)
{
    uint32_t esp = to->inner ? cpu_tss.stack[to->cpl].esp : before->esp;
    unsigned params = to->inner ? to->gate_count : 0;
    unsigned items = to->inner ? 4 + params : 2;
    uint32_t mask = width == 4 ? ~0u : 0xFFFF;

    expect(c, s->ss, to->inner ? cpu_tss.stack[to->cpl].ss : before->ss, "SS after CALL %04x",
           selector);
    expect(c, s->esp, esp - items * width, "ESP after CALL %04x", selector);
    expect(c, top_word(s, width, 0), return_eip & mask, "pushed EIP, CALL %04x", selector);
    expect(c, top_word(s, width, 1) & 0xFFFF, before->cs, "pushed CS, CALL %04x", selector);
    if (!to->inner)
        return;
    for (unsigned i = 0; i < params; i++) {
        uint32_t want = width == 4 ? ((uint32_t *)before->esp)[i] : ((uint16_t *)before->esp)[i];
        expect(c, top_word(s, width, 2 + i), want, "copied parameter %u, CALL %04x", i, selector);
    }
    expect(c, top_word(s, width, 2 + params), before->esp & mask, "pushed ESP, CALL %04x",
           selector);
    expect(c, top_word(s, width, 3 + params) & 0xFFFF, before->ss, "pushed SS, CALL %04x",
           selector);
}

static void check_far(struct cell *c, unsigned ring, bool call, const char *code, unsigned width,
                      unsigned length, uint16_t selector, uint32_t offset, uint32_t pointer)
{
    struct far_target to;
    struct outcome want =
        model_far(ring, call, selector, width == 2 ? offset & 0xFFFF : offset, &to);
    bool arrives = want.vector == VEC_END;
    struct cpu_state s, before;

    if (to.task || (arrives && !reachable(to.code, to.eip)))
        return;
    cpu_start(&s, code, ring);
    s.eax = pointer;
    fill_stack(&s);
    before = s;
    cpu_run(&s);
    expect_trap(c, &s, want.vector, want.error, arrives ? NULL : code, call ? "CALL" : "JMP",
                selector);
    if (!arrives) {
        expect(c, s.esp, before.esp, "ESP after a fault, selector %04x", selector);
        expect(c, s.cs, before.cs, "CS after a fault, selector %04x", selector);
        return;
    }
    expect(c, s.cs, to.cs, "CS after selector %04x", selector);
    expect(c, s.eip, to.eip + 2, "EIP after selector %04x", selector);
    if (call)
        expect_call_frame(c, &s, &before, &to, to.gate_width ? to.gate_width : width,
                          (uint32_t)code + length, selector);
    else
        expect(c, s.esp, before.esp, "ESP after JMP %04x", selector);
}

static void check_far_all(struct cell *c, unsigned ring, bool call, const char *code,
                          const char *code16, char *direct)
{
    static struct __attribute__((packed)) {
        uint32_t offset;
        uint16_t selector;
    } far;
    static struct {
        uint16_t offset, selector;
    } far16;

    for (unsigned i = 0; i < selector_count(); i++) {
        uint16_t selector = selector_at(i);
        uint32_t offset = offset_in(selector);
        far.offset = offset;
        far.selector = far16.selector = selector;
        far16.offset = (uint16_t)offset;
        check_far(c, ring, call, code, 4, 2, selector, offset, (uint32_t)&far);
        check_far(c, ring, call, code16, 2, 3, selector, offset, (uint32_t)&far16);
        /* EA or 9A in data: every one is code that has just been changed. */
        if (i % 4 == 0) {
            memcpy(direct + 1, &far, sizeof(far));
            check_far(c, ring, call, direct, 4, 7, selector, offset, 0);
        }
    }
}

void check_jmp(struct cell *c, unsigned ring)
{
    check_far_all(c, ring, false, s_ljmp, s_ljmp16, s_ljmp_direct);
}

void check_call(struct cell *c, unsigned ring)
{
    check_far_all(c, ring, true, s_lcall, s_lcall16, s_lcall_direct);
}

/* RET and IRET differ in the flags, which IRET alone pops. */
struct return_case {
    const char *code;
    unsigned width, release;
    bool flags;
};

static const struct return_case returns[] = {
    {s_lret, 4, 0, false}, {s_lret_imm, 4, 12, false}, {s_lret16, 2, 0, false},
    {s_iret, 4, 0, true},  {s_iret16, 2, 0, true},
};

static void put(uint32_t *at, unsigned width, uint32_t value)
{
    if (width == 4)
        *(uint32_t *)*at = value;
    else
        *(uint16_t *)*at = (uint16_t)value;
    *at += width;
}

/* A data segment register after a return to an outer ring (SDM 2B, RET): null if the ring may not.
 */
static uint32_t cleared(unsigned cpl, uint32_t selector)
{
    const struct descriptor *d = model_descriptor((uint16_t)selector);
    bool conforming = d && (desc_type(d) & 12) == 12;
    return d && !conforming && desc_dpl(d) < cpl ? 0 : selector;
}

static uint32_t iret_flags(unsigned ring, uint32_t old, uint32_t image, unsigned width)
{
    uint32_t changeable = FLAGS_ARITH | FLAG_DF | FLAG_NT;

    if (width == 4)
        changeable |= FLAG_AC | FLAG_ID;
    if (ring == 0)
        changeable |= FLAG_IOPL;
    if (ring <= (old & FLAG_IOPL) >> 12)
        changeable |= FLAG_IF;
    return (old & ~changeable) | (image & changeable);
}

/* Starts with IOPL `iopl` and pops the flags `image`. */
static void check_return(struct cell *c, unsigned ring, const struct return_case *r, uint16_t cs,
                         uint16_t ss, unsigned iopl, uint32_t image)
{
    uint32_t eip = offset_in(cs);
    uint32_t esp = (uint32_t)cpu_stack[3] + STACK_BYTES - 128;
    if (r->width == 2) {
        eip &= 0xFFFF;
        esp &= 0xFFFF;
    }
    struct outcome want = model_return(ring, cs, eip, ss);
    bool arrives = want.vector == VEC_END, outer = (cs & 3u) > ring;
    struct cpu_state s, before;

    /* #GP(0) is for EIP past the limit: a machine that lets it pass is to land where it is seen. */
    bool jumps = arrives || (want.error == 0 && cs >= 4);
    if (jumps && !reachable(model_descriptor(cs), eip))
        return;
    cpu_start(&s, r->code, ring);
    s.eflags = FLAG_ONE | FLAG_AC | FLAG_ZF | FLAGS_IOPL(iopl);
    s.es = SEL_DATA(3);
    s.fs = SPEC_TYPE(14, 0) | ring;
    s.gs = SPEC_TYPE(2, ring == 0 ? 1 : 3) | ring;
    uint32_t at = s.esp;
    put(&at, r->width, eip);
    put(&at, r->width, 0xBEEF0000 | cs);
    if (r->flags)
        put(&at, r->width, image);
    uint32_t inner_esp = at + r->release;
    at = inner_esp;
    put(&at, r->width, esp);
    put(&at, r->width, 0xBEEF0000 | ss);
    before = s;
    cpu_run(&s);
    expect_trap(c, &s, want.vector, want.error, arrives ? NULL : r->code, "return to CS", cs);
    if (!arrives) {
        expect(c, s.esp, before.esp, "ESP after a fault, CS %04x SS %04x", cs, ss);
        expect(c, s.cs, before.cs, "CS after a fault, CS %04x SS %04x", cs, ss);
        return;
    }
    expect(c, s.cs, cs, "CS");
    expect(c, s.eip, eip + 2, "EIP, CS %04x", cs);
    expect(c, s.ss, outer ? ss : before.ss, "SS, CS %04x", cs);
    expect(c, s.esp, outer ? esp + r->release : inner_esp, "ESP, CS %04x", cs);
    expect(c, s.ds, outer ? cleared(cs & 3, before.ds) : before.ds, "DS, CS %04x", cs);
    expect(c, s.es, outer ? cleared(cs & 3, before.es) : before.es, "ES, CS %04x", cs);
    expect(c, s.fs, outer ? cleared(cs & 3, before.fs) : before.fs, "FS, CS %04x", cs);
    expect(c, s.gs, outer ? cleared(cs & 3, before.gs) : before.gs, "GS, CS %04x", cs);
    expect(c, s.eflags, r->flags ? iret_flags(ring, before.eflags, image, r->width) : before.eflags,
           "flags, CS %04x", cs);
}

static void check_returns(struct cell *c, unsigned ring, bool flags)
{
    static const uint32_t images[] = {
        FLAG_ONE,
        FLAG_ONE | FLAGS_ARITH | FLAG_IF | FLAG_DF | FLAG_AC | FLAG_ID,
        FLAG_ONE | FLAG_IF | FLAG_CF | FLAGS_IOPL(3) | FLAG_NT,
    };

    for (unsigned k = 0; k < ARRAY_LEN(returns); k++) {
        const struct return_case *r = &returns[k];
        if (r->flags != flags)
            continue;
        for (unsigned i = 0; i < selector_count(); i++) {
            uint16_t cs = selector_at(i);
            check_return(c, ring, r, cs, SEL_DATA(cs & 3), 0, images[i % ARRAY_LEN(images)]);
        }
        /* Every stack with an outer ring that is right otherwise. */
        for (unsigned i = 0; i < selector_count() && ring < 3; i++) {
            uint16_t cs = r->width == 4 ? SEL_CODE(3) : SPEC_TYPE(10, 3) | 3;
            check_return(c, ring, r, cs, selector_at(i), 0, FLAG_ONE);
        }
        for (unsigned iopl = 0; iopl < 4; iopl++) {
            for (unsigned i = 0; i < ARRAY_LEN(images); i++) {
                uint16_t cs =
                    r->width == 4 ? SEL_CODE(ring) : (uint16_t)(SPEC_TYPE(10, ring) | ring);
                check_return(c, ring, r, cs, SEL_DATA(ring), iopl, images[i]);
            }
        }
    }
}

void check_ret(struct cell *c, unsigned ring)
{
    check_returns(c, ring, false);
}

void check_iret(struct cell *c, unsigned ring)
{
    check_returns(c, ring, true);
}

/* A gate for INT: where it leads, or why not. */
struct int_case {
    const char *code;
    unsigned vector, length;
    uint16_t selector;
    unsigned access;
};

static const struct int_case interrupts[] = {
    {s_int40, 0x40, 2, SEL_CODE(0), DESC_INT | DESC_DPL(3)},
    {s_int41, 0x41, 2, SEL_CODE(0), DESC_TRAP | DESC_DPL(3)},
    {s_int42, 0x42, 2, SEL_CODE(0), DESC_INT},
    {s_int43, 0x43, 2, SEL_CODE(0), DESC_INT - DESC_PRESENT + DESC_DPL(3)},
    {s_int44, 0x44, 2, SPEC_TYPE(10, 0), DESC_INT16 | DESC_DPL(3)},
    {s_int45, 0x45, 2, SPEC_TYPE(14, 0), DESC_TRAP | DESC_DPL(3)},
    {s_int46, 0x46, 2, SEL_CODE(0), DESC_CALL | DESC_DPL(3)},
    {s_int40, 0x40, 2, SEL_CODE(1), DESC_INT | DESC_DPL(3)},
    {s_int41, 0x41, 2, SPEC_TYPE(10, 0), DESC_TRAP16 | DESC_DPL(3)},
    {s_int42, 0x42, 2, SEL_CODE(0), DESC_TRAP | DESC_DPL(1)},
    {s_int43, 0x43, 2, SEL_CODE(3), DESC_INT | DESC_DPL(3)},
    {s_int44, 0x44, 2, SEL_DATA(0), DESC_INT | DESC_DPL(3)},
    {s_int45, 0x45, 2, 0, DESC_INT | DESC_DPL(3)},
    {s_int46, 0x46, 2, SPEC_ABSENT + 8, DESC_INT | DESC_DPL(3)},
    {s_int13, 13, 2, SEL_CODE(0), DESC_INT},
    {s_int3, 3, 1, SEL_CODE(0), DESC_TRAP | DESC_DPL(3)},
    {s_int3, 3, 1, SEL_CODE(0), DESC_INT},
    {s_int3_long, 3, 2, SEL_CODE(0), DESC_INT | DESC_DPL(3)},
    {s_int3_long, 3, 2, SEL_CODE(0), DESC_INT},
    {s_into, 4, 1, SEL_CODE(0), DESC_INT | DESC_DPL(3)},
    {s_into, 4, 1, SEL_CODE(0), DESC_INT},
};

/* INT n through a gate (SDM 2A, INT): software interrupts check the gate's DPL, and EXT is 0. */
static struct outcome model_int(unsigned cpl, const struct int_case *k, unsigned *new_cpl)
{
    const struct descriptor *d = model_descriptor(k->selector);
    unsigned type = k->access & 15, in_idt = k->vector * 8 + 2;

    *new_cpl = cpl;
    if ((type != 6 && type != 7 && type != 14 && type != 15) || (k->access >> 5 & 3) < cpl)
        return (struct outcome){VEC_GP, in_idt};
    if (!(k->access & DESC_PRESENT))
        return (struct outcome){VEC_NP, in_idt};
    if (!d || !desc_s(d) || !(desc_type(d) & 8) || desc_dpl(d) > cpl)
        return (struct outcome){VEC_GP, k->selector & 0xFFFCu};
    if (!desc_present(d))
        return (struct outcome){VEC_NP, k->selector & 0xFFFCu};
    if ((desc_type(d) & 4) == 0)
        *new_cpl = desc_dpl(d);
    return (struct outcome){VEC_END, 0};
}

static void check_one_int(struct cell *c, unsigned ring, const struct int_case *k, uint32_t flags)
{
    const struct descriptor *d = model_descriptor(k->selector);
    uint32_t target = d && desc_base(d) ? LANDING_OFFSET : (uint32_t)landing;
    unsigned width = k->access & 8 ? 4 : 2, cpl;
    uint32_t mask = width == 4 ? ~0u : 0xFFFF;
    struct descriptor kept = cpu_idt[k->vector];
    struct outcome want = model_int(ring, k, &cpl);
    struct cpu_state s, before;

    cpu_start(&s, k->code, ring);
    s.eflags = flags;
    before = s;
    if (k->vector != VEC_GP)
        cpu_idt[k->vector] = cpu_gate(k->selector, target, k->access, 0);
    cpu_run(&s);
    cpu_idt[k->vector] = kept;
    bool arrives = want.vector == VEC_END;
    expect_trap(c, &s, want.vector, want.error, arrives ? NULL : k->code, "INT", k->vector);
    if (!arrives) {
        expect(c, s.esp, before.esp, "ESP after a fault, INT %02x", k->vector);
        expect(c, s.eflags & ~(uint32_t)FLAG_RF, flags, "flags after a fault, INT %02x", k->vector);
        return;
    }
    bool inner = cpl < ring;
    uint32_t esp = inner ? cpu_tss.stack[cpl].esp : before.esp;
    uint32_t clear = FLAG_TF | FLAG_NT | FLAG_RF | (k->access & 1 ? 0 : FLAG_IF);
    expect(c, s.cs, (k->selector & ~3u) | cpl, "CS, INT %02x", k->vector);
    expect(c, s.eip, target + 2, "EIP, INT %02x", k->vector);
    expect(c, s.eflags, flags & ~clear, "flags, INT %02x", k->vector);
    expect(c, s.ss, inner ? cpu_tss.stack[cpl].ss : before.ss, "SS, INT %02x", k->vector);
    expect(c, s.esp, esp - width * (inner ? 5 : 3), "ESP, INT %02x", k->vector);
    expect(c, top_word(&s, width, 0), ((uint32_t)k->code + k->length) & mask,
           "pushed EIP, INT %02x", k->vector);
    expect(c, top_word(&s, width, 1) & 0xFFFF, before.cs, "pushed CS, INT %02x", k->vector);
    expect(c, top_word(&s, width, 2), flags & mask, "pushed flags, INT %02x", k->vector);
    if (inner) {
        expect(c, top_word(&s, width, 3), before.esp & mask, "pushed ESP, INT %02x", k->vector);
        expect(c, top_word(&s, width, 4) & 0xFFFF, before.ss, "pushed SS, INT %02x", k->vector);
    }
}

void check_int(struct cell *c, unsigned ring)
{
    static const uint32_t flag_sets[] = {
        FLAG_ONE | FLAG_OF,
        FLAG_ONE | FLAG_OF | FLAG_IF | FLAG_NT | FLAG_AC | FLAGS_IOPL(2),
        FLAG_ONE | FLAGS_ARITH | FLAG_DF | FLAG_IF | FLAG_ID | FLAGS_IOPL(3),
    };

    for (unsigned i = 0; i < ARRAY_LEN(interrupts); i++) {
        const struct int_case *k = &interrupts[i];
        /* The stub of vector 13 takes an error code that INT 13 does not push. */
        if (k->vector == 13 && ring == 0)
            continue;
        for (unsigned f = 0; f < ARRAY_LEN(flag_sets); f++)
            check_one_int(c, ring, k, flag_sets[f]);
    }

    struct cpu_state s;
    cpu_start(&s, s_into, ring);
    cpu_run(&s);
    expect_trap(c, &s, VEC_END, 0, NULL, "INTO with OF = 0", 0);

    /* A vector past IDTR's limit. */
    struct table_register idtr = {0x46 * 8 - 1, (uint32_t)cpu_idt};
    __asm__ volatile("lidt %0" : : "m"(idtr) : "memory");
    cpu_start(&s, s_int46, ring);
    cpu_run(&s);
    expect_trap(c, &s, VEC_GP, 0x46 * 8 + 2, s_int46, "INT past the IDT's limit", 0x46);
    idtr.limit = sizeof(cpu_idt) - 1;
    __asm__ volatile("lidt %0" : : "m"(idtr) : "memory");
}
