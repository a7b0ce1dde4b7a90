#include "compare.h"

#include <stdio.h>
#include <string.h>

static const char *const reg_names[] = {"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"};
static const char *const seg_names[] = {"es", "cs", "ss", "ds", "fs", "gs"};

static unsigned differ(unsigned bit, bool print, const char *name, uint32_t native, uint32_t guest)
{
    if (native == guest)
        return 0;
    if (print)
        printf("    %-8s native %08x guest %08x\n", name, native, guest);
    return bit;
}

static unsigned differ_bytes(unsigned bit, bool print, const char *name, unsigned n,
                             const uint8_t *native, const uint8_t *guest, unsigned size)
{
    if (!memcmp(native, guest, size))
        return 0;
    if (print) {
        printf("    %s%-5u native ", name, n);
        for (unsigned i = size; i-- > 0;)
            printf("%02x", native[i]);
        printf(" guest ");
        for (unsigned i = size; i-- > 0;)
            printf("%02x", guest[i]);
        printf("\n");
    }
    return bit;
}

static unsigned compare_fpu(const uint8_t *n, const uint8_t *g, bool print)
{
    unsigned d = 0;
    d |= differ(DIFF_X87, print, "fcw", get_u16(n), get_u16(g));
    d |= differ(DIFF_X87, print, "fsw", get_u16(n + 2), get_u16(g + 2));
    d |= differ(DIFF_X87, print, "ftw", n[4], g[4]);
    d |= differ(DIFF_MXCSR, print, "mxcsr", get_u32(n + 24), get_u32(g + 24));
    for (unsigned i = 0; i < 8; i++) {
        d |= differ_bytes(DIFF_X87, print, "st", i, n + 32 + 16 * i, g + 32 + 16 * i, 10);
        d |= differ_bytes(DIFF_XMM, print, "xmm", i, n + 160 + 16 * i, g + 160 + 16 * i, 16);
        d |= differ_bytes(DIFF_YMM, print, "ymmh", i, n + XSAVE_YMM + 16 * i,
                          g + XSAVE_YMM + 16 * i, 16);
    }
    return d;
}

/* What CPL 3 of a guest without NX, or a supervisor, gets for the native error code. */
static uint32_t expected_error(const struct testcase *c, const struct outcome *native)
{
    uint32_t error = native->error;
    if (native->vector != VEC_PF)
        return error;
    if (c->variant != VARIANT_PAE)
        error &= ~0x10u;
    if (c->variant != VARIANT_PAE && c->variant != VARIANT_USER)
        error &= ~4u;
    return error;
}

/*
 * Instructions of several accesses: which of them meets its fault first, and what has been done by
 * then, is the CPU's choice.
 */
static bool many_accesses(unsigned op, uint16_t opcode)
{
    switch (op) {
    case OP_PUSHA:
    case OP_POPA:
    case OP_ENTER:
    case OP_IRET:
    case OP_CALL_FAR:
    case OP_CALL_FAR_IND:
    case OP_RET_FAR:
    case OP_LES:
    case OP_LDS:
    case OP_LSS:
    case OP_LFS:
    case OP_LGS:
    case OP_JMP_FAR_IND:
    case OP_VMASKMOVPS:
    case OP_VMASKMOVPD:
    case OP_VPMASKMOVD:
    case OP_VPMASKMOVQ:
    case OP_FXSAVE:
    case OP_FXRSTOR:
    case OP_FLDENV:
    case OP_FNSTENV:
    case OP_FRSTOR:
    case OP_FNSAVE:
        return true;
    default:
        return opcode == 0x1F7; /* MASKMOVQ, MASKMOVDQU */
    }
}

/* Two things may be wrong with a string instruction or BOUND; which is met first is the CPU's
 * choice, too. */
static bool two_faults(const struct insn *in, const struct outcome *native,
                       const struct outcome *guest)
{
    if (in->op == OP_BOUND && native->vector == VEC_BR)
        return guest->vector == VEC_PF || guest->vector == VEC_GP || guest->vector == VEC_BR;
    return (in->op == OP_CMPS || in->op == OP_MOVS) &&
           (native->vector == VEC_PF || native->vector == VEC_GP) &&
           (guest->vector == VEC_PF || guest->vector == VEC_GP);
}

/* The nearest thing to `guest` that such an instruction may report natively. */
static uint32_t near_cr2(const struct insn *in, uint32_t native, uint32_t guest)
{
    bool many = many_accesses(in->op, (uint16_t)(in->map << 8 | in->opcode)) || in->mem_size == 10;
    if (many && in->addrsize == 2 && (uint16_t)(native - guest + 512) < 1024)
        return guest; /* of what goes past FFFFh, the rest may wrap */
    return many && native - guest + 512 < 1024 ? guest : native;
}

/* Null selectors lose their RPL when the kernel returns to the program. */
static uint16_t plain_selector(uint16_t sel)
{
    return sel < 4 ? 0 : sel;
}

unsigned compare_outcome(const struct testcase *c, const struct guest *g,
                         const struct outcome *native, const struct outcome *guest, uint32_t undef,
                         bool print)
{
    const struct cpu_state *n = &native->state, *s = &guest->state;
    const struct insn *last = &c->step[c->steps - 1].in;
    /* Linux, told by #DB of a locked access across cache lines, has been seen to lose NT. */
    for (unsigned i = 0; i < c->steps; i++) {
        if ((c->step[i].in.prefixes & PREFIX_LOCK) || c->step[i].in.op == OP_XCHG)
            undef |= FLAG_NT;
    }
    bool popa = last->op == OP_POPA && native->vector != VEC_BP; /* may have loaded some */
    uint32_t mask = ~(undef | 2) & 0x3F7FD7;
    unsigned d = 0;
    bool either = two_faults(last, native, guest);
    if (!either)
        d |= differ(DIFF_VECTOR, print, "vector", native->vector, guest->vector);
    if (!d && !either) {
        d |= differ(DIFF_ERROR, print, "has_err", native->has_error, guest->has_error);
        if (native->has_error)
            d |= differ(DIFF_ERROR, print, "error", expected_error(c, native), guest->error);
        if (native->vector == VEC_PF)
            d |=
                differ(DIFF_CR2, print, "cr2", near_cr2(last, native->cr2, guest->cr2), guest->cr2);
    }
    d |= differ(DIFF_EIP, print, "eip", n->eip, s->eip);
    for (unsigned i = 0; i < 8 && !popa; i++)
        d |= differ(DIFF_GPR, print, reg_names[i], n->gpr[i], s->gpr[i]);
    d |= differ(DIFF_FLAGS, print, "eflags", n->eflags & mask, s->eflags & mask);
    for (unsigned i = 0; i < 6; i++) {
        /* Delivery at CPL 0 has changed CS. */
        if (i == SEG_CS && c->variant == VARIANT_KERNEL)
            continue;
        d |= differ(DIFF_SEGMENT, print, seg_names[i], plain_selector(n->sel[i]),
                    plain_selector(guest_native_selector(g, s->sel[i])));
    }
    unsigned f = compare_fpu(n->fpu, s->fpu, print);
    /* A store from an MMX register has been seen to enter MMX mode before its fault. */
    if ((last->row->attr & A_MMX) && native->vector != VEC_BP)
        f &= ~(unsigned)DIFF_X87;
    /* How far a gather has come, and whether it has cleared what is above, at a fault. */
    if (last->vsib && native->vector != VEC_BP)
        f &= ~(unsigned)(DIFF_XMM | DIFF_YMM);
    return d | f;
}

static bool ignored(const struct testcase *c, const struct outcome *native, uint32_t gva)
{
    /* The exception's frame, where delivery does not change stacks. */
    if (c->variant == VARIANT_KERNEL && native->state.gpr[REG_SP] - 1 - gva < 16)
        return true;
    for (unsigned i = 0; i < c->ignores; i++) {
        if (gva - c->ignore[i].gva < c->ignore[i].len)
            return true;
    }
    return false;
}

unsigned compare_memory(const struct testcase *c, const struct guest *g,
                        const struct outcome *native, uint32_t *dirty, bool print)
{
    unsigned found = 0;
    for (unsigned i = 0; i < g->memory->page_count; i++) {
        const struct memory_page *p = &g->memory->page[i];
        const uint8_t *a = native_at(p->gva), *b = guest_at(g, p->gpa);
        if (memory_same_page(a, b))
            continue;
        *dirty |= 1u << i;
        for (uint32_t at = 0; at < PAGE_SIZE; at++) {
            if (a[at] == b[at] || ignored(c, native, p->gva + at))
                continue;
            if (print && found < 16)
                printf("    [%08x] native %02x guest %02x before %02x\n", p->gva + at, a[at], b[at],
                       p->golden[at]);
            found++;
        }
    }
    return found ? DIFF_MEMORY : 0;
}

void compare_print_names(unsigned differences)
{
    static const char *const texts[] = {
#define X(name, text) text,
        DIFFERENCES(X)
#undef X
    };
    const char *comma = "";
    for (unsigned i = 0; i < ARRAY_LEN(texts); i++) {
        if (differences >> i & 1) {
            printf("%s%s", comma, texts[i]);
            comma = ", ";
        }
    }
}
