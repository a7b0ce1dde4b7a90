/*
 * Making cases: see testcase.h.
 */
#include "testcase.h"

#include <capstone/capstone.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "encode.h"
#include "operands.h"
#include "rows.h"
#include "values.h"

enum variant testcase_variant(uint64_t index)
{
    static const uint8_t turns[] = {VARIANT_USER,  VARIANT_SUPER, VARIANT_USER, VARIANT_KERNEL,
                                    VARIANT_USER,  VARIANT_PAE,   VARIANT_USER, VARIANT_MIXED,
                                    VARIANT_SUPER, VARIANT_USER};
    return (enum variant)turns[index / 4096 % ARRAY_LEN(turns)];
}

static bool user_only(enum variant v)
{
    return v != VARIANT_USER && v != VARIANT_PAE;
}

static void pick_slot(struct rng *r, struct testcase *c)
{
    uint32_t start = rng_below(r, CODE_SIZE - SLOT_SIZE) + SLOT_START;
    if (rng_chance(r, 5)) /* the first instruction crosses a page, or nearly */
        start = (start | PAGE_MASK) - rng_below(r, 20);
    if (rng_chance(r, 1)) /* or the end of the region */
        start = CODE_SIZE - 1 - rng_below(r, 16);
    start = max_u32(start, SLOT_START);
    c->slot = CODE_GVA + start - SLOT_START;
    c->slot_size = min_u32(SLOT_SIZE, CODE_SIZE - (start - SLOT_START));
}

static bool place(struct testcase *c, const struct native *n, const struct insn *in, uint32_t eip)
{
    uint32_t at = eip - c->slot;
    if (at >= c->slot_size)
        return false;
    /* And a marker behind it, lest the case run on into what it has run before. */
    for (unsigned i = 0; i <= in->len && at + i < c->slot_size; i++) {
        if (c->used[at + i])
            return false;
    }
    for (unsigned i = 0; i < in->len && at + i < c->slot_size; i++) {
        c->used[at + i] = true;
        c->code[at + i] = in->bytes[i];
    }
    memcpy(n->code + (c->slot - CODE_GVA), c->code, c->slot_size);
    return true;
}

static void first_state(struct maker *m, struct rng *r, struct testcase *c)
{
    struct cpu_state *s = &c->start;
    values_state(r, s, m->native->has_avx && (m->model->host_xsave & 4));
    s->sel[SEG_CS] = SEL_CS;
    s->sel[SEG_DS] = s->sel[SEG_ES] = s->sel[SEG_SS] = SEL_DS;
    s->sel[SEG_FS] = rng_chance(r, 90) ? SEL_DS : 0;
    s->sel[SEG_GS] = m->native->has_based ? SEL_BASED : SEL_DS;
    /* Pointers, so that later instructions find something. */
    uint32_t stack = layout_regions[REGION_STACK].gva;
    if (c->variant == VARIANT_KERNEL || rng_chance(r, 70))
        s->gpr[REG_SP] = stack + 0x400 + (rng_below(r, 0x3800) & ~3u);
    if (rng_chance(r, 30))
        s->gpr[REG_SI] = layout_regions[REGION_DATA].gva + 0x100 + rng_below(r, 0x1E00);
    if (rng_chance(r, 30))
        s->gpr[REG_DI] = layout_regions[REGION_DATA2].gva + 0x100 + rng_below(r, 0x1E00);
    if (rng_chance(r, 20))
        s->gpr[REG_CX] = rng_below(r, 16);
}

/* Whether a later step may read what it reads. */
static bool flags_allow(const struct insn *in, uint32_t undef)
{
    return !(decode_flags(in).read & undef);
}

static uint32_t undef_after(const struct insn *in, uint32_t undef)
{
    struct insn_flags f = decode_flags(in);
    return (undef & ~(uint32_t)(f.set & ~f.read)) | f.undef;
}

static bool run_twice(struct maker *m, const struct cpu_state *from, struct outcome *out)
{
    struct outcome again = *out;
    static uint8_t after[REGION_COUNT][0x4000];
    for (unsigned i = 0; i < REGION_COUNT; i++) {
        const struct region *r = &layout_regions[i];
        if (m->memory->golden[i] && (r->rights & REGION_W))
            memcpy(after[i], native_at(r->gva), r->size);
    }
    memory_restore(m->memory, memory_dirty(m->memory));
    native_run(m->native, from, &again);
    bool same = !memcmp(&again.state, &out->state, sizeof again.state) &&
                again.vector == out->vector && again.error == out->error;
    for (unsigned i = 0; i < REGION_COUNT; i++) {
        const struct region *r = &layout_regions[i];
        if (m->memory->golden[i] && (r->rights & REGION_W))
            same = same && !memcmp(after[i], native_at(r->gva), r->size);
    }
    return same;
}

static const struct decode_row *choose_row(struct maker *m, struct rng *r, struct testcase *c)
{
    if (c->steps == 0)
        return m->first[c->index % m->first_count];
    const struct decode_row *row = m->rows[rng_below(r, m->row_count)];
    /* Calls are seldom followed by returns by chance. */
    const struct step *last = &c->step[c->steps - 1];
    if (last->in.row->attr & A_STACK && rng_chance(r, 30)) {
        for (unsigned i = 0; i < 64 && row->op != OP_RET_NEAR; i++)
            row = m->rows[rng_below(r, m->row_count)];
    }
    return row;
}

/* Adds a step at `eip` in state `s`. False if no instruction was found that fits. */
static bool add_step(struct maker *m, struct rng *r, struct testcase *c, struct cpu_state *s,
                     bool fault)
{
    bool pinned = c->steps != 0;
    uint32_t undef = pinned ? c->step[c->steps - 1].undef : 0;
    struct step *step = &c->step[c->steps];
    unsigned pokes = c->pokes, ignores = c->ignores;
    for (unsigned tries = 0; tries < (pinned ? 12 : 4); tries++) {
        const struct decode_row *row = choose_row(m, r, c);
        struct encode_wish wish = {.pinned = pinned, .flat = pinned};
        if (rows_use(row, m->model) == ROW_USER && user_only(c->variant))
            continue;
        if (pinned && (row->attr & (A_PRIV | A_IOPL)))
            continue;
        if (!encode_random(r, row, &wish, &step->in) || !flags_allow(&step->in, undef))
            continue;
        struct operands o = {
            .rng = r,
            .c = c,
            .native = m->native,
            .in = &step->in,
            .s = s,
            .eip = s->eip,
            .pinned = pinned,
            .fault = fault,
        };
        if (!operands_set(&o) || !place(c, m->native, &step->in, s->eip)) {
            c->ignores = ignores;
            if (c->pokes != pokes)
                return false;
            continue;
        }
        step->eip = s->eip;
        step->before = *s;
        step->undef = undef_after(&step->in, undef);
        c->steps++;
        return true;
    }
    return false;
}

/*
 * What differs between CPUs and may therefore differ here: the upper half of the doubleword that a
 * push of a segment register takes (SDM 2B, PUSH), and what instructions of many pushes have
 * written below ESP when a later push faults.
 */
static void ignore_stack(struct testcase *c, const struct step *s, const struct outcome *out)
{
    struct range *r = &c->ignore[c->ignores];
    if (c->ignores == IGNORES_MAX)
        return;
    if (s->in.op == OP_PUSH_SREG && s->in.opsize == 4 &&
        out->state.gpr[REG_SP] != s->before.gpr[REG_SP])
        *r = (struct range){out->state.gpr[REG_SP] + 2, 2};
    else if ((s->in.op == OP_ENTER || s->in.op == OP_PUSHA) && out->vector != VEC_BP)
        *r = (struct range){s->before.gpr[REG_SP] - 256, 256};
    else
        return;
    c->ignores++;
}

/* True if the run ended at a marker of ours, and so can go on there. */
static bool at_marker(const struct testcase *c, const struct outcome *out)
{
    uint32_t at = out->state.eip - 1 - c->slot;
    return out->vector == VEC_BP && at < c->slot_size && !c->used[at];
}

static bool comparable(const struct testcase *c, const struct outcome *out)
{
    const struct region *r = layout_find(out->cr2, 1);
    if (out->vector == VEC_PF) {
        if (out->cr2 - KERNEL_GVA < KERNEL_SIZE)
            return false;
        if ((out->error & 0x10) && r && c->variant != VARIANT_PAE)
            return false; /* the guest has no NX */
    }
    if (c->variant == VARIANT_KERNEL) {
        uint32_t esp = out->state.gpr[REG_SP];
        const struct region *stack = layout_find(esp - 64, 128);
        return stack && (stack->rights & REGION_W) && stack->gva >= 0x10000;
    }
    return true;
}

bool testcase_make(struct maker *m, uint64_t index, struct testcase *c)
{
    struct rng r = rng_make(m->seed, index);
    memset(c, 0, offsetof(struct testcase, step));
    c->pokes = c->ignores = 0;
    c->index = index;
    c->variant = testcase_variant(index);
    memset(c->code, END_MARKER, sizeof c->code);
    pick_slot(&r, c);
    first_state(m, &r, c);
    c->start.eip = c->slot + SLOT_START;
    bool fault = rng_chance(&r, 10);
    unsigned steps = rng_chance(&r, 25) ? 2 + rng_below(&r, STEPS_MAX - 1) : 1;
    struct cpu_state now = c->start;
    while (c->steps < steps) {
        bool first = c->steps == 0;
        if (!add_step(m, &r, c, first ? &c->start : &now, fault))
            break;
        native_run(m->native, &c->step[c->steps - 1].before, &c->native);
        if (m->twice && first && c->pokes == 0 && !run_twice(m, &c->step[0].before, &c->native)) {
            m->unequal++;
            testcase_print(c);
        }
        if (c->native.vector == NATIVE_STUCK) {
            printf("does not end natively:\n");
            testcase_print(c);
            return false;
        }
        ignore_stack(c, &c->step[c->steps - 1], &c->native);
        if (!at_marker(c, &c->native))
            break;
        now = c->native.state;
        now.eip--;
        const struct insn *in = &c->step[c->steps - 1].in;
        if ((in->row->attr & A_FPU_CONTROL) || in->op == OP_PUSH_SREG ||
            (now.eflags & (FLAG_AC | FLAG_TF)))
            break;
    }
    if (c->steps == 0)
        return false;
    if (c->native.vector != VEC_BP) /* the last one has not written its flags */
        c->step[c->steps - 1].undef = c->steps > 1 ? c->step[c->steps - 2].undef : 0;
    return comparable(c, &c->native);
}

static void print_state(const struct cpu_state *s)
{
    printf("    eax %08x ecx %08x edx %08x ebx %08x esp %08x ebp %08x esi %08x edi %08x\n",
           s->gpr[0], s->gpr[1], s->gpr[2], s->gpr[3], s->gpr[4], s->gpr[5], s->gpr[6], s->gpr[7]);
    printf("    eip %08x eflags %08x fcw %04x fsw %04x ftw %02x mxcsr %08x\n", s->eip, s->eflags,
           get_u16(s->fpu), get_u16(s->fpu + 2), s->fpu[4], get_u32(s->fpu + 24));
}

void testcase_print(const struct testcase *c)
{
    csh cs;
    bool open = cs_open(CS_ARCH_X86, CS_MODE_32, &cs) == CS_ERR_OK;
    printf("  case %" PRIu64 ", %s, slot %08x\n", c->index, guest_variant_names[c->variant],
           c->slot);
    for (unsigned i = 0; i < c->steps; i++) {
        const struct step *s = &c->step[i];
        cs_insn *text = NULL;
        size_t n = open ? cs_disasm(cs, s->in.bytes, s->in.len, s->eip, 1, &text) : 0;
        printf("    %08x:", s->eip);
        for (unsigned k = 0; k < s->in.len; k++)
            printf(" %02x", s->in.bytes[k]);
        printf("   %s %s   [%s]\n", n ? text->mnemonic : "?", n ? text->op_str : "",
               decode_op_name(s->in.op));
        if (n)
            cs_free(text, n);
    }
    if (open)
        cs_close(&cs);
    printf("  from\n");
    print_state(&c->start);
    for (unsigned i = 0; i < c->pokes; i++) {
        printf("    memory %08x:", c->poke[i].gva);
        for (unsigned k = 0; k < min_u32(c->poke[i].len, 32); k++)
            printf(" %02x", c->poke[i].bytes[k]);
        printf(c->poke[i].len > 32 ? " ... (%u)\n" : "\n", c->poke[i].len);
    }
}
