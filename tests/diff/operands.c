/*
 * Operands: see operands.h.
 */
#include "operands.h"

#include <string.h>

#include "encode.h"
#include "values.h"

enum { SP_LOW = 0x400, SP_ROOM = 0x3800 };

/* Selectors that mean the same natively and in the guest; none that leads to 64-bit code, and of
   the null ones only 0, since the kernel takes the RPL of others away. */
static const uint16_t selectors[] = {0x2B, 0x2B, 0x2B, 0x23, 0x23, 0,    SEL_BASED, 0x2A, 0x28,
                                     0x22, 0x08, 0x10, 0x18, 0x0F, 0x0B, 0xFFF8,    0x83};

static uint16_t pick_selector(struct rng *r)
{
    return selectors[rng_below(r, ARRAY_LEN(selectors))];
}

static void poke(struct operands *o, uint32_t gva, const void *bytes, uint32_t len)
{
    const struct region *r = layout_find(gva, len);
    if (o->pinned || !r || !(r->rights & REGION_W) || o->c->pokes == POKES_MAX ||
        (r->gva < 0x10000 && !o->native->has_low))
        return;
    struct poke *p = &o->c->poke[o->c->pokes++];
    p->gva = gva;
    p->len = len;
    memcpy(p->bytes, bytes, len);
    memcpy(native_at(gva), bytes, len);
}

static void poke_u32(struct operands *o, uint32_t gva, uint32_t value, unsigned size)
{
    uint8_t bytes[4];
    put_u32(bytes, value);
    poke(o, gva, bytes, size);
}

static void ignore(struct testcase *c, uint32_t gva, uint32_t len)
{
    if (c->ignores < IGNORES_MAX)
        c->ignore[c->ignores++] = (struct range){gva, len};
}

/* A linear address for `size` bytes: usually inside one region, at its inner page boundary or its
 * end. */
static uint32_t pick_linear(struct operands *o, const uint8_t *ids, unsigned n, uint32_t size)
{
    struct rng *r = o->rng;
    const struct region *g = &layout_regions[ids[rng_below(r, n)]];
    uint32_t room = g->size > size ? g->size - size : 0;
    uint32_t offset = rng_below(r, room + 1);
    unsigned how = rng_below(r, 20);
    if (o->fault) {
        uint32_t end = g->gva + g->size;
        if (how < 7)
            return end - rng_below(r, size + 1); /* straddles the end, or stands behind it */
        if (how < 10)
            return g->gva - rng_below(r, size + 1);
        if (how < 16)
            return layout_regions[REGION_RO].gva + rng_below(r, 0x1000 - size);
        return how < 18 ? 0x30002000 + rng_below(r, 0x1000) : rng_u32(r);
    }
    if (how < 8)
        offset &= ~15u;
    else if (how < 12)
        offset &= ~(min_u32(size, 64) - 1);
    else if (how < 14 && g->size > PAGE_SIZE)
        offset = PAGE_SIZE - rng_below(r, size + 1);
    else if (how == 14)
        offset = room;
    else if (how == 15)
        offset = 0;
    return g->gva + min_u32(offset, room);
}

static uint32_t pick_data(struct operands *o, uint32_t size, bool write)
{
    static const uint8_t ids[] = {REGION_DATA,  REGION_DATA, REGION_DATA1, REGION_DATA2,
                                  REGION_STACK, REGION_HIGH, REGION_BASED, REGION_RO};
    return pick_linear(o, ids, ARRAY_LEN(ids) - write, size);
}

/* What is added to an offset in `seg`, and whether offsets are 16 bits wide. */
static uint32_t pick_offset(struct operands *o, unsigned seg, unsigned addrsize, uint32_t size,
                            bool write)
{
    static const uint8_t based[] = {REGION_BASED, REGION_BASED, REGION_BASED_TOP};
    static const uint8_t low[] = {REGION_LOW, REGION_LOW, REGION_LOW_TOP};
    if (seg < 6 && o->s->sel[seg] == SEL_BASED) {
        uint32_t at = pick_linear(o, based, ARRAY_LEN(based), size) - BASED_GVA;
        return addrsize == 2 ? at & 0xFFFF : at;
    }
    if (addrsize == 2)
        return pick_linear(o, low, ARRAY_LEN(low), size) & 0xFFFF;
    return pick_data(o, size, write);
}

static uint32_t seg_base(const struct operands *o, unsigned seg)
{
    return seg < 6 && o->s->sel[seg] == SEL_BASED ? BASED_GVA : 0;
}

static uint32_t effective(const struct operands *o)
{
    const struct insn *in = o->in;
    uint32_t ea = (uint32_t)in->disp;
    if (in->base != NO_REG)
        ea += o->s->gpr[in->base & 7];
    if (in->index != NO_REG && !in->vsib)
        ea += o->s->gpr[in->index & 7] * in->scale;
    return in->addrsize == 2 ? ea & 0xFFFF : ea;
}

static void set_low(struct operands *o, unsigned reg, uint32_t value, unsigned size)
{
    uint32_t *g = &o->s->gpr[reg];
    *g = size == 2 ? (*g & 0xFFFF0000) | (value & 0xFFFF) : value;
}

/* Bends registers or displacement so that the operand stands at `offset`, as nearly as can be. */
static void aim(struct operands *o, uint32_t offset)
{
    struct insn *in = o->in;
    uint32_t off_by = offset - effective(o);
    bool has_base = in->base != NO_REG;
    bool has_index = in->index != NO_REG && !in->vsib;
    bool same = has_base && has_index && in->base == in->index;
    bool wide = in->moffs || in->disp_size == in->addrsize;
    if (o->pinned || (wide && (in->moffs || !has_base || same || rng_chance(o->rng, 50)))) {
        if (wide)
            encode_set_disp(in, (uint32_t)in->disp + off_by);
        return;
    }
    if (same)
        off_by /= in->scale + 1u;
    if (has_base)
        set_low(o, in->base, o->s->gpr[in->base] + off_by, in->addrsize);
    else if (has_index)
        set_low(o, in->index, o->s->gpr[in->index] + off_by / in->scale, in->addrsize);
}

static bool uses(const struct insn *in, unsigned reg)
{
    return in->has_mem && (in->base == reg || (!in->vsib && in->index == reg));
}

static unsigned mem_bytes(const struct insn *in)
{
    if (in->op == OP_FXSAVE || in->op == OP_FXRSTOR)
        return 512;
    if (in->op == OP_FLDENV || in->op == OP_FNSTENV)
        return in->opsize == 2 ? 14 : 28;
    if (in->op == OP_FRSTOR || in->op == OP_FNSAVE)
        return in->opsize == 2 ? 94 : 108;
    return in->mem_size ? in->mem_size : 16;
}

/* Lanes of a gather's index register lead to places near the base. */
static void set_lanes(struct operands *o)
{
    uint8_t *xmm = o->s->fpu + 160 + 16 * (o->in->index & 7);
    uint8_t *high = o->s->fpu + XSAVE_YMM + 16 * (o->in->index & 7);
    bool qword = (o->in->opcode & 1) != 0;
    for (unsigned i = 0; i < 32; i += 4) {
        uint32_t lane = rng_below(o->rng, 256) - 128;
        if (qword && (i & 4))
            lane = get_u32((i < 16 ? xmm : high - 16) + i - 4) >> 31 ? ~0u : 0;
        put_u32((i < 16 ? xmm : high - 16) + i, lane);
    }
}

static bool set_memory(struct operands *o)
{
    struct insn *in = o->in;
    uint32_t size = mem_bytes(in);
    uint32_t attr = in->row->attr;
    if (attr & A_NO_ACCESS) {
        if (!o->pinned && rng_chance(o->rng, 70))
            aim(o, pick_offset(o, in->seg, in->addrsize, size, false));
        return true;
    }
    if (in->vsib) {
        if (o->pinned)
            return false;
        set_lanes(o);
    }
    uint32_t at =
        pick_offset(o, in->seg, in->addrsize, in->vsib ? 2048 : size, (attr & A_MEM_WRITE) != 0);
    if (in->vsib && !o->fault)
        at += 1024;
    bool locked = (in->prefixes & PREFIX_LOCK) || in->op == OP_XCHG;
    uint32_t align = size >= 64 ? 16 : size;
    if ((attr & A_ALIGNED) || in->op == OP_FXSAVE || in->op == OP_FXRSTOR || locked) {
        if (!rng_chance(o->rng, locked ? 1 : 6) && (align & (align - 1)) == 0)
            at &= ~(align - 1);
    }
    aim(o, at);
    return true;
}

static void set_gpr(struct operands *o, unsigned reg, uint32_t value)
{
    if (!o->pinned && !uses(o->in, reg))
        o->s->gpr[reg] = value;
}

static bool region_ok(const struct operands *o, uint32_t gva, uint32_t below, uint32_t above)
{
    const struct region *r = layout_find(gva - below, below + above);
    return r && (r->rights & REGION_W) && (r->gva >= 0x10000 || o->native->has_low);
}

/* ---- jumps ---- */

static uint32_t free_place(struct operands *o, uint32_t low, uint32_t high)
{
    struct testcase *c = o->c;
    for (unsigned tries = 0; tries < 20; tries++) {
        uint32_t at = low + rng_below(o->rng, high - low);
        uint32_t self = o->eip - c->slot;
        bool free = at + 40 <= c->slot_size && (at >= self + o->in->len || at + 40 <= self);
        for (unsigned i = 0; free && i < 40; i++)
            free = !c->used[at + i];
        if (free)
            return c->slot + at;
    }
    return 0;
}

static uint32_t pick_target(struct operands *o)
{
    struct rng *r = o->rng;
    uint32_t here = o->eip - o->c->slot;
    unsigned how = rng_below(r, 100);
    if (o->in->opsize == 2)
        return 0x8000 + rng_below(r, 0xFF0);
    if (how < 5)
        return o->eip + o->in->len;
    if (how < 60) {
        uint32_t at =
            free_place(o, here > 200 ? here - 200 : 0, min_u32(here + 400, o->c->slot_size));
        if (at)
            return at;
    }
    if (how < 92)
        return LANDING_GVA + rng_below(r, 0xFFF0);
    return o->c->variant == VARIANT_PAE && how < 96 ? layout_regions[REGION_DATA].gva
                                                    : CODE_GVA + CODE_SIZE + rng_below(r, 0x1000);
}

static bool set_relative(struct operands *o)
{
    struct insn *in = o->in;
    uint32_t next = o->eip + in->len;
    if (in->imm_size == 1) {
        uint32_t here = next - o->c->slot;
        uint32_t at = free_place(o, here > 128 ? here - 128 : 0, here + 127);
        if (!at)
            return false;
        encode_set_imm(in, at - next);
    } else {
        encode_set_imm(in, pick_target(o) - next);
    }
    if (in->opsize == 2 && in->imm_size == 1)
        return o->native->has_low || !o->pinned;
    return true;
}

static uint32_t far_pointer(struct operands *o, uint8_t pointer[6])
{
    unsigned size = o->in->opsize;
    uint32_t target = pick_target(o);
    put_u32(pointer, target);
    put_u16(pointer + size, rng_chance(o->rng, 80) ? SEL_CS : pick_selector(o->rng));
    return target;
}

/* ---- the rest ---- */

static bool set_stack(struct operands *o)
{
    struct insn *in = o->in;
    uint32_t *esp = &o->s->gpr[REG_SP];
    if (o->pinned) /* and IRET with NT set means something else in long mode */
        return region_ok(o, *esp, 256, 256) && !(in->op == OP_IRET && (o->s->eflags & FLAG_NT));
    if (!uses(in, REG_SP)) {
        uint32_t base = layout_regions[REGION_STACK].gva;
        *esp = base + SP_LOW + rng_below(o->rng, SP_ROOM);
        if (o->fault && o->c->variant != VARIANT_KERNEL) {
            static const uint8_t ids[] = {REGION_STACK};
            *esp = pick_linear(o, ids, 1, 8);
        }
        /* Whether all of a selector's slot on the stack is accessed is the CPU's choice. */
        bool selector = in->op == OP_POP_SREG || in->op == OP_PUSH_SREG || in->op == OP_RET_FAR ||
                        in->op == OP_IRET || in->op == OP_CALL_FAR || in->op == OP_CALL_FAR_IND;
        if (selector || !rng_chance(o->rng, 8))
            *esp &= ~3u;
    }
    if (in->op == OP_IRET)
        o->s->eflags &= ~(uint32_t)FLAG_NT;
    if (o->fault && rng_chance(o->rng, 50))
        return true;
    uint32_t sp = *esp;
    unsigned w = in->opsize;
    uint8_t frame[16] = {0};
    switch (in->op) {
    case OP_RET_NEAR:
        poke_u32(o, sp, pick_target(o), w);
        break;
    case OP_POPF:
        poke_u32(o, sp, rng_u32(o->rng) & ~(uint32_t)(FLAG_TF | FLAG_AC), w);
        break;
    case OP_POP_SREG:
        poke_u32(o, sp, (rng_u32(o->rng) << 16) | pick_selector(o->rng), w);
        break;
    case OP_RET_FAR:
        put_u32(frame, pick_target(o));
        put_u16(frame + w, rng_chance(o->rng, 80) ? SEL_CS : pick_selector(o->rng));
        poke(o, sp, frame, 2 * w);
        break;
    case OP_IRET:
        put_u32(frame, pick_target(o));
        put_u16(frame + w, rng_chance(o->rng, 85) ? SEL_CS : pick_selector(o->rng));
        put_u32(frame + 2 * w, rng_u32(o->rng) & ~(uint32_t)(FLAG_TF | FLAG_AC));
        poke(o, sp, frame, 3 * w);
        break;
    case OP_ENTER:
        if (rng_chance(o->rng, 80))
            encode_set_imm(in, rng_below(o->rng, 0x300));
        if (rng_chance(o->rng, 50))
            encode_set_imm2(in, (uint16_t)rng_below(o->rng, 5));
        set_gpr(o, REG_BP, layout_regions[REGION_STACK].gva + SP_LOW + rng_below(o->rng, SP_ROOM));
        break;
    case OP_LEAVE:
        set_gpr(o, REG_BP, layout_regions[REGION_STACK].gva + SP_LOW + rng_below(o->rng, SP_ROOM));
        break;
    default:
        break;
    }
    return true;
}

static bool set_string(struct operands *o)
{
    struct insn *in = o->in;
    struct rng *r = o->rng;
    bool rep = in->prefixes & (PREFIX_REP | PREFIX_REPNE);
    bool down = o->s->eflags & FLAG_DF;
    if (o->pinned) {
        return in->addrsize == 4 && in->seg != SEG_GS && region_ok(o, o->s->gpr[REG_SI], 64, 64) &&
               region_ok(o, o->s->gpr[REG_DI], 64, 64) && (!rep || o->s->gpr[REG_CX] <= 16);
    }
    uint32_t count = rep ? rng_below(r, rng_chance(r, 5) ? 3000 : 50) : 1;
    uint32_t span = max_u32(count, 1) * in->opsize;
    if (span > 0xF00)
        span = in->opsize;
    uint32_t back = down ? span - in->opsize : 0;
    unsigned a = in->addrsize;
    uint32_t si = pick_offset(o, in->seg < 6 ? in->seg : SEG_DS, a, span, false);
    uint32_t di = pick_offset(o, SEG_ES, a, span, in->op == OP_MOVS || in->op == OP_STOS);
    if (in->op == OP_MOVS && rng_chance(r, 15) && seg_base(o, in->seg) == 0)
        di = si + rng_below(r, 17) - 8;
    if (rep)
        set_low(o, REG_CX, count, a);
    set_low(o, REG_SI, si + back, a);
    set_low(o, REG_DI, di + back, a);
    if ((in->op == OP_CMPS || in->op == OP_SCAS) && rng_chance(r, 60)) {
        uint8_t same[POKE_SIZE];
        uint32_t len = min_u32(span, POKE_SIZE);
        memset(same, rng_chance(r, 50) ? (int)(o->s->gpr[REG_AX] & 0xFF) : 0x5A, len);
        if (in->op == OP_SCAS && rng_chance(r, 30))
            set_gpr(o, REG_AX, 0x01010101 * same[0]);
        poke(o, si + seg_base(o, in->seg), same, len);
        if (rng_chance(r, 60))
            same[rng_below(r, len)] ^= (uint8_t)(1u << rng_below(r, 8));
        poke(o, di, same, len);
    }
    return true;
}

static void set_divide(struct operands *o, uint32_t gva)
{
    struct insn *in = o->in;
    unsigned w = in->opcode & 1 ? in->opsize : 1;
    bool is_signed = in->op == OP_IDIV;
    if (rng_chance(o->rng, 20))
        return;
    uint32_t a = values_u32(o->rng);
    set_gpr(o, REG_AX, a);
    if (w == 1) {
        uint32_t ah = is_signed && (a & 0x80) ? 0xFF : rng_below(o->rng, 3);
        set_gpr(o, REG_AX, (a & 0xFFFF00FF) | ah << 8);
    } else {
        bool negative = a >> (8 * w - 1) & 1;
        set_gpr(o, REG_DX, is_signed && negative ? ~0u : rng_below(o->rng, 3));
    }
    if (in->has_mem && rng_chance(o->rng, 50))
        poke_u32(o, gva, rng_u32(o->rng) >> rng_below(o->rng, 31), w);
}

static void set_compare_exchange(struct operands *o, uint32_t gva)
{
    struct insn *in = o->in;
    const struct region *r = layout_find(gva, 8);
    if (!in->has_mem || !r || !rng_chance(o->rng, 50) || (r->rights & REGION_X) ||
        (r->gva < 0x10000 && !o->native->has_low))
        return;
    set_gpr(o, REG_AX, get_u32(native_at(gva)));
    if (in->op == OP_CMPXCHG8B)
        set_gpr(o, REG_DX, get_u32(native_at(gva + 4)));
}

static void set_fpu_image(struct operands *o, uint32_t gva)
{
    uint8_t image[512];
    if (o->in->op == OP_FXRSTOR) {
        values_fxsave(o->rng, image);
        poke(o, gva, image, 512);
        return;
    }
    values_fsave(o->rng, image);
    if (o->in->opsize == 2) {
        memcpy(image + 2, image + 4, 2);
        memcpy(image + 4, image + 8, 2);
        memmove(image + 14, image + 28, 80);
    }
    poke(o, gva, image, mem_bytes(o->in));
}

static bool has_count_in_cl(const struct insn *in)
{
    return (in->map == 0 && (in->opcode == 0xD2 || in->opcode == 0xD3)) ||
           (in->map == 1 && (in->opcode == 0xA5 || in->opcode == 0xAD));
}

static bool set_special(struct operands *o, uint32_t gva)
{
    struct insn *in = o->in;
    struct rng *r = o->rng;
    uint32_t t;
    uint8_t pointer[8] = {0};
    unsigned w = in->opsize;
    switch (in->op) {
    case OP_XLAT:
        t = pick_offset(o, in->seg, in->addrsize, 256, false);
        if (o->pinned)
            return region_ok(o, o->s->gpr[REG_BX], 0, 256) && in->seg != SEG_GS &&
                   in->addrsize == 4;
        set_low(o, REG_BX, t, in->addrsize);
        break;
    case OP_BT:
    case OP_BTS:
    case OP_BTR:
    case OP_BTC:
        if (in->has_mem && in->map == 1 && in->opcode != 0xBA) {
            if (o->pinned)
                return o->s->gpr[in->reg & 7] + 0x2000u < 0x4000u;
            if (!o->fault || rng_chance(r, 70))
                set_gpr(o, in->reg & 7, rng_below(r, 0x400) - 0x200);
        }
        break;
    case OP_BOUND:
        t = o->s->gpr[in->reg & 7];
        if (rng_chance(r, 60)) {
            put_u32(pointer, t - rng_below(r, 3));
            put_u32(pointer + w, t + rng_below(r, 3) - (rng_chance(r, 20) ? 1 : 0));
            poke(o, gva, pointer, 2 * w);
        }
        break;
    case OP_DIV:
    case OP_IDIV:
        set_divide(o, gva);
        break;
    case OP_CMPXCHG:
    case OP_CMPXCHG8B:
        set_compare_exchange(o, gva);
        break;
    case OP_LOOP:
    case OP_LOOPE:
    case OP_LOOPNE:
    case OP_JCXZ:
        if (rng_chance(r, 70))
            set_gpr(o, REG_CX, (rng_chance(r, 30) ? rng_u32(r) << 16 : 0) + rng_below(r, 3));
        return set_relative(o);
    case OP_JCC:
    case OP_JMP_NEAR:
    case OP_CALL_NEAR:
        return set_relative(o);
    case OP_JMP_IND:
    case OP_CALL_IND:
        if (o->pinned)
            return false;
        if (in->has_mem)
            poke_u32(o, gva, pick_target(o), w);
        else if (in->rm != REG_SP)
            set_gpr(o, in->rm & 7, pick_target(o));
        break;
    case OP_CALL_FAR:
    case OP_JMP_FAR:
        encode_set_imm(in, pick_target(o));
        encode_set_imm2(in, rng_chance(r, 80) ? SEL_CS : pick_selector(r));
        break;
    case OP_CALL_FAR_IND:
    case OP_JMP_FAR_IND:
        if (o->pinned)
            return false;
        far_pointer(o, pointer);
        poke(o, gva, pointer, w + 2);
        break;
    case OP_LES:
    case OP_LDS:
    case OP_LSS:
    case OP_LFS:
    case OP_LGS:
        if (o->pinned)
            return false;
        put_u32(pointer, values_u32(r));
        put_u16(pointer + w, pick_selector(r));
        poke(o, gva, pointer, w + 2);
        break;
    case OP_ARPL:
    case OP_LAR:
    case OP_LSL:
    case OP_VERR:
    case OP_VERW:
    case OP_MOV_SREG_FROM:
        if (o->pinned)
            return false;
        t = pick_selector(r);
        if (in->has_mem)
            poke_u32(o, gva, t, 2);
        else
            set_gpr(o, in->rm & 7, (o->s->gpr[in->rm & 7] & 0xFFFF0000) | t);
        break;
    case OP_FXRSTOR:
    case OP_FRSTOR:
    case OP_FLDENV:
        if (o->pinned)
            return false;
        if (rng_chance(r, 95))
            set_fpu_image(o, gva);
        break;
    case OP_FNSTENV:
    case OP_FNSAVE:
        ignore(o->c, gva + (w == 2 ? 6 : 12), w == 2 ? 8 : 16);
        break;
    case OP_FXSAVE:
        ignore(o->c, gva + 6, 18);
        break;
    default:
        if (in->map == 1 && in->opcode == 0xF7) { /* MASKMOVQ, MASKMOVDQU */
            if (o->pinned)
                return region_ok(o, o->s->gpr[REG_DI], 0, 32) && in->seg != SEG_GS &&
                       in->addrsize == 4;
            set_low(o, REG_DI, pick_offset(o, in->seg, in->addrsize, 16, true), in->addrsize);
        } else if (in->map == 1 && in->opcode == 0xAE && in->has_mem && in->reg == 2 &&
                   rng_chance(r, 90)) { /* LDMXCSR */
            if (o->pinned)
                return false;
            poke_u32(o, gva, values_mxcsr(r), 4);
        } else if (has_count_in_cl(in) && rng_chance(r, 60)) {
            set_gpr(o, REG_CX, (o->s->gpr[REG_CX] & ~0xFFu) | rng_below(r, 40));
        }
        break;
    }
    return true;
}

/* True if the segment does not allow the access. */
static bool segment_refuses(const struct operands *o)
{
    const struct insn *in = o->in;
    if (in->seg == SEG_CS)
        return in->row->attr & A_MEM_WRITE;
    if (o->s->sel[in->seg] == SEL_BASED)
        return effective(o) > 0x10000 - mem_bytes(in);
    return o->s->sel[in->seg] < 4;
}

static bool writable_operand(const struct operands *o)
{
    const struct region *r = layout_find(effective(o) + seg_base(o, o->in->seg), mem_bytes(o->in));
    return r && (r->rights & REGION_W) && !segment_refuses(o) && o->in->seg != SEG_CS;
}

bool operands_set(struct operands *o)
{
    struct insn *in = o->in;
    uint32_t attr = in->row->attr;
    if (in->has_mem && !set_memory(o))
        return false;
    /* Whether the rest of an operand of several accesses wraps at FFFFh is the CPU's choice. */
    if (in->has_mem && in->addrsize == 2 && effective(o) + mem_bytes(in) > 0x10000 &&
        (mem_bytes(in) & (mem_bytes(in) - 1 + (mem_bytes(in) > 32))))
        return false;
    /* At CPL 0 the guest's end marker is another one. */
    const struct region *at =
        in->has_mem ? layout_find(effective(o) + seg_base(o, in->seg), 1) : NULL;
    if (at && (at->rights & REGION_X) && o->c->variant == VARIANT_KERNEL)
        return false;
    /* Whether #GP comes before the numeric exception, or the change to MMX mode, is the CPU's
     * choice. */
    if (in->has_mem && (attr & (A_X87 | A_MMX)) && segment_refuses(o))
        return false;
    if ((attr & A_STACK) && !(attr & (A_PRIV | A_IOPL)) && !set_stack(o))
        return false;
    bool string = (attr & A_REP) && (attr & A_IMPLICIT_MEM);
    if (string && (attr & A_IOPL)) /* with a count of 0, CPUs differ on whether ports are checked */
        set_gpr(o, REG_CX, o->s->gpr[REG_CX] | 1);
    if (in->op == OP_ARPL && in->has_mem && !writable_operand(o))
        return false; /* and on whether ARPL needs the right to write when it changes nothing */
    if (string && !(attr & A_IOPL) && !set_string(o))
        return false;
    return set_special(o, in->has_mem ? effective(o) + seg_base(o, in->seg) : 0);
}
