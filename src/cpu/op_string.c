/*
 * String instructions, one element at a time: an element is one round of a REP, is committed when
 * it is done, and between two of them the instruction gives way to an interrupt, a kick or a
 * single-step trap by returning with v->rip where it was (SDM 2B, REP). Flags of CMPS and SCAS are
 * those of before the instruction if an element faults.
 *
 * Also the other instructions with an implicit address in DS: XLAT and MASKMOV.
 */
#include "cpu/op.h"
#include "cpu/segment.h"

/* One element; does not touch the count. */
typedef int element_fn(struct vcpu *v, const struct insn *in, unsigned size);

static bool should_stop(const struct vcpu *v)
{
    return v->kicked || (v->sys_flags & FLAG_TF) || (v->irq_line && v->sys_flags & FLAG_IF) ||
           (v->nmi_pending && !v->nmi_blocked);
}

static unsigned element_size(const struct insn *in)
{
    return in->opcode & 1 ? in->opsize : 1;
}

static unsigned io_element_size(const struct insn *in)
{
    return in->opcode & 1 ? min_u32(in->opsize, 4) : 1;
}

static uint32_t pointer(const struct vcpu *v, const struct insn *in, enum reg r)
{
    return vcpu_get_reg(v, r, in->addrsize);
}

static void advance(struct vcpu *v, const struct insn *in, enum reg r, unsigned size)
{
    uint32_t step = v->host_flags & FLAG_DF ? 0 - size : size;
    vcpu_set_reg(v, r, in->addrsize, pointer(v, in, r) + step);
}

/* `compares`: ZF ends the loop, against the prefix. */
static int run(struct vcpu *v, const struct insn *in, element_fn *element, unsigned size,
               bool compares)
{
    uint64_t flags = v->host_flags;
    uint32_t count;

    if (!(in->prefixes & (PREFIX_REP | PREFIX_REPNE)))
        return element(v, in, size) == FAULT ? FAULT : op_done(v, in);

    while ((count = pointer(v, in, REG_CX)) != 0) {
        if (element(v, in, size) == FAULT) {
            v->host_flags = flags;
            return FAULT;
        }
        vcpu_set_reg(v, REG_CX, in->addrsize, --count);
        if (compares && !(v->host_flags & FLAG_ZF) != !(in->prefixes & PREFIX_REP))
            break;
        if (count && should_stop(v))
            return 0;
    }
    return op_done(v, in);
}

/* The flags of left - right. */
static void set_compare_flags(struct vcpu *v, uint32_t left, uint32_t right, unsigned size)
{
    uint32_t mask = (uint32_t)width_mask(size), sign = BIT(8 * size - 1);
    uint32_t result = (left - right) & mask;

    op_set_flags(v, FLAGS_ARITH,
                 (left < right ? FLAG_CF : 0) | (result == 0 ? FLAG_ZF : 0) |
                     (result & sign ? FLAG_SF : 0) | ((left ^ right ^ result) & FLAG_AF) |
                     ((left ^ right) & (left ^ result) & sign ? FLAG_OF : 0) |
                     (op_byte_flags((uint8_t)result) & FLAG_PF));
}

static int movs(struct vcpu *v, const struct insn *in, unsigned size)
{
    uint32_t value = 0;
    if (segment_read(v, in->seg, pointer(v, in, REG_SI), &value, size) == FAULT ||
        segment_write(v, SEG_ES, pointer(v, in, REG_DI), &value, size) == FAULT)
        return FAULT;
    advance(v, in, REG_SI, size);
    advance(v, in, REG_DI, size);
    return 0;
}

static int stos(struct vcpu *v, const struct insn *in, unsigned size)
{
    uint32_t value = vcpu_reg32(v, REG_AX);
    if (segment_write(v, SEG_ES, pointer(v, in, REG_DI), &value, size) == FAULT)
        return FAULT;
    advance(v, in, REG_DI, size);
    return 0;
}

static int lods(struct vcpu *v, const struct insn *in, unsigned size)
{
    uint32_t value = 0;
    if (segment_read(v, in->seg, pointer(v, in, REG_SI), &value, size) == FAULT)
        return FAULT;
    vcpu_set_reg(v, REG_AX, size, value);
    advance(v, in, REG_SI, size);
    return 0;
}

static int cmps(struct vcpu *v, const struct insn *in, unsigned size)
{
    uint32_t left = 0, right = 0;
    /* The destination first, as CPUs do: it shows in CR2 when both fault. */
    if (segment_read(v, SEG_ES, pointer(v, in, REG_DI), &right, size) == FAULT ||
        segment_read(v, in->seg, pointer(v, in, REG_SI), &left, size) == FAULT)
        return FAULT;
    advance(v, in, REG_SI, size);
    advance(v, in, REG_DI, size);
    set_compare_flags(v, left, right, size);
    return 0;
}

static int scas(struct vcpu *v, const struct insn *in, unsigned size)
{
    uint32_t right = 0;
    if (segment_read(v, SEG_ES, pointer(v, in, REG_DI), &right, size) == FAULT)
        return FAULT;
    advance(v, in, REG_DI, size);
    set_compare_flags(v, vcpu_get_reg(v, REG_AX, size), right, size);
    return 0;
}

/* The port is read only when the store cannot fault any more. */
static int ins(struct vcpu *v, const struct insn *in, unsigned size)
{
    uint16_t port = (uint16_t)v->regs[REG_DX];
    uint32_t offset = pointer(v, in, REG_DI), gva, value;

    if (op_io_allowed(v, port, size) == FAULT ||
        op_probe_write(v, SEG_ES, offset, size, &gva) == FAULT)
        return FAULT;
    if (segment_checks_alignment(v) && gva & (size - 1))
        return vcpu_raise_error(v, VEC_AC, 0);
    value = op_io_read(v, port, size);
    if (segment_write(v, SEG_ES, offset, &value, size) == FAULT)
        return FAULT;
    advance(v, in, REG_DI, size);
    return 0;
}

static int outs(struct vcpu *v, const struct insn *in, unsigned size)
{
    uint16_t port = (uint16_t)v->regs[REG_DX];
    uint32_t value = 0;

    if (op_io_allowed(v, port, size) == FAULT ||
        segment_read(v, in->seg, pointer(v, in, REG_SI), &value, size) == FAULT)
        return FAULT;
    op_io_write(v, port, size, value);
    advance(v, in, REG_SI, size);
    return 0;
}

int op_string_movs(struct vcpu *v, const struct insn *in)
{
    return run(v, in, movs, element_size(in), false);
}

int op_string_stos(struct vcpu *v, const struct insn *in)
{
    return run(v, in, stos, element_size(in), false);
}

int op_string_lods(struct vcpu *v, const struct insn *in)
{
    return run(v, in, lods, element_size(in), false);
}

int op_string_cmps(struct vcpu *v, const struct insn *in)
{
    return run(v, in, cmps, element_size(in), true);
}

int op_string_scas(struct vcpu *v, const struct insn *in)
{
    return run(v, in, scas, element_size(in), true);
}

/* The port is checked even if the count is 0. */
static int run_io(struct vcpu *v, const struct insn *in, element_fn *element)
{
    unsigned size = io_element_size(in);

    if (op_io_allowed(v, (uint16_t)v->regs[REG_DX], size) == FAULT)
        return FAULT;
    return run(v, in, element, size, false);
}

int op_string_ins(struct vcpu *v, const struct insn *in)
{
    return run_io(v, in, ins);
}

int op_string_outs(struct vcpu *v, const struct insn *in)
{
    return run_io(v, in, outs);
}

int op_string_xlat(struct vcpu *v, const struct insn *in)
{
    uint32_t offset = vcpu_reg32(v, REG_BX) + (uint8_t)v->regs[REG_AX];
    uint8_t value;

    if (segment_read(v, in->seg, offset & (uint32_t)width_mask(in->addrsize), &value, 1) == FAULT)
        return FAULT;
    vcpu_set_reg(v, REG_AX, 1, value);
    return op_done(v, in);
}

/* ---- MASKMOV ---- */

static void read_mmx(unsigned n, uint8_t out[8])
{
    switch (n & 7) {
#define CASE(i)                                                                                    \
    case i:                                                                                        \
        __asm__ volatile("movq %%mm" #i ", %0" : "=m"(*(uint64_t *)out));                          \
        break;
        CASE(0)
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
        CASE(5)
        CASE(6)
        CASE(7)
#undef CASE
    }
}

static void read_xmm(unsigned n, uint8_t out[16])
{
    switch (n & 7) {
#define CASE(i)                                                                                    \
    case i:                                                                                        \
        __asm__ volatile("movups %%xmm" #i ", %0" : "=m"(*(uint8_t(*)[16])out));                   \
        break;
        CASE(0)
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
        CASE(5)
        CASE(6)
        CASE(7)
#undef CASE
    }
}

/* All of the operand must be writable, though only the selected bytes are written. */
static int masked_store(struct vcpu *v, const struct insn *in, const uint8_t *data,
                        const uint8_t *mask, unsigned size)
{
    uint32_t offset = pointer(v, in, REG_DI), gva;

    if (op_probe_write(v, in->seg, offset, size, &gva) == FAULT)
        return FAULT;
    for (unsigned i = 0; i < size; i++) {
        if (mask[i] & 0x80 && v->mem->write(v, gva + i, data + i, 1, v->cpl == 3) == FAULT)
            return FAULT;
    }
    return op_done(v, in);
}

int op_string_maskmovq(struct vcpu *v, const struct insn *in)
{
    uint8_t data[8], mask[8];

    if (op_fpu_check_mmx(v) == FAULT)
        return FAULT;
    read_mmx(in->reg, data);
    read_mmx(in->rm, mask);
    return masked_store(v, in, data, mask, sizeof data);
}

static int maskmovdqu(struct vcpu *v, const struct insn *in)
{
    uint8_t data[16], mask[16];

    read_xmm(in->reg, data);
    read_xmm(in->rm, mask);
    return masked_store(v, in, data, mask, sizeof data);
}

int op_string_maskmovdqu(struct vcpu *v, const struct insn *in)
{
    return op_fpu_check_sse(v) == FAULT ? FAULT : maskmovdqu(v, in);
}

int op_string_vmaskmovdqu(struct vcpu *v, const struct insn *in)
{
    return op_fpu_check_avx(v) == FAULT ? FAULT : maskmovdqu(v, in);
}
