/*
 * The dispatch of emulate(), and the operands of its handlers.
 */
#include "cpu/emulate.h"

#include "cpu/cpuid.h"
#include "cpu/fpu.h"
#include "cpu/op.h"

typedef int handler_fn(struct vcpu *v, const struct insn *in);

static handler_fn *const handlers[OP_COUNT] = {
#define HANDLER(name, function) [OP_##name] = function,
#include "cpu/handlers.def"
#undef HANDLER
};

int emulate(struct vcpu *v, const struct insn *in)
{
    handler_fn *handler = handlers[in->op];

    if (!handler && in->row->attr & A_COPY)
        return EMULATE_UNKNOWN;
    /* What has no handler (64-bit mode's, and what no model offers) is not for the host either. */
    if (!handler || !cpuid_has(v->model, in->row->feature))
        return vcpu_raise(v, VEC_UD);
    return handler(v, in);
}

uint32_t emulate_ea(const struct vcpu *v, const struct insn *in)
{
    uint64_t ea = (uint64_t)in->disp;
    if (in->base != NO_REG)
        ea += v->regs[in->base];
    if (in->index != NO_REG)
        ea += v->regs[in->index] * in->scale;
    return (uint32_t)(ea & width_mask(in->addrsize));
}

unsigned op_width(const struct insn *in, unsigned n)
{
    return decode_width(in, in->row->operand[n].width);
}

int op_read_rm(struct vcpu *v, const struct insn *in, unsigned size, uint32_t *value)
{
    *value = 0;
    if (in->has_mem)
        return segment_read(v, in->seg, emulate_ea(v, in), value, size);
    *value = vcpu_get_reg(v, in->rm, size);
    return 0;
}

int op_write_rm(struct vcpu *v, const struct insn *in, unsigned size, uint32_t value)
{
    if (in->has_mem)
        return segment_write(v, in->seg, emulate_ea(v, in), &value, size);
    vcpu_set_reg(v, in->rm, size, value);
    return 0;
}

/* The number of the general register that operand `n` is, or NO_REG. */
static unsigned operand_register(const struct insn *in, unsigned n)
{
    const struct operand *o = &in->row->operand[n];
    switch (o->kind) {
    case K_G:
        return in->reg;
    case K_Z:
        return in->opcode & 7;
    case K_GPR:
        return o->reg;
    case K_E:
    case K_R:
        return in->has_mem ? NO_REG : in->rm;
    default:
        return NO_REG;
    }
}

int op_read(struct vcpu *v, const struct insn *in, unsigned n, uint32_t *value)
{
    const struct operand *o = &in->row->operand[n];
    unsigned reg = operand_register(in, n), size = op_width(in, n);

    if (reg != NO_REG) {
        *value = vcpu_get_reg(v, reg, size);
        return 0;
    }
    if (o->kind == K_I) {
        *value = (uint32_t)in->imm;
        return 0;
    }
    if (o->kind == K_ONE) {
        *value = 1;
        return 0;
    }
    return op_read_rm(v, in, size, value);
}

int op_write(struct vcpu *v, const struct insn *in, unsigned n, uint32_t value)
{
    unsigned reg = operand_register(in, n), size = op_width(in, n);

    if (reg == NO_REG)
        return op_write_rm(v, in, size, value);
    vcpu_set_reg(v, reg, size, value);
    return 0;
}

int op_probe_write(struct vcpu *v, enum seg seg, uint32_t offset, unsigned size, uint32_t *gva)
{
    if (segment_linear(v, seg, offset, size, ACCESS_WRITE, gva) == FAULT)
        return FAULT;
    return v->mem->probe_write(v, *gva, size, v->cpl == 3);
}

uint32_t op_byte_flags(uint8_t value)
{
    return (value & 0x80 ? FLAG_SF : 0) | (value == 0 ? FLAG_ZF : 0) |
           (__builtin_parity(value) ? 0 : FLAG_PF);
}

bool op_condition(const struct vcpu *v, unsigned cc)
{
    uint64_t f = v->host_flags;
    bool less = !(f & FLAG_SF) != !(f & FLAG_OF), holds;

    switch (cc >> 1 & 7) {
    case 0:
        holds = f & FLAG_OF;
        break;
    case 1:
        holds = f & FLAG_CF;
        break;
    case 2:
        holds = f & FLAG_ZF;
        break;
    case 3:
        holds = f & (FLAG_CF | FLAG_ZF);
        break;
    case 4:
        holds = f & FLAG_SF;
        break;
    case 5:
        holds = f & FLAG_PF;
        break;
    case 6:
        holds = less;
        break;
    default:
        holds = less || f & FLAG_ZF;
        break;
    }
    return holds != (cc & 1);
}

int op_io_allowed(struct vcpu *v, uint16_t port, unsigned size)
{
    enum { TSS_IO_BASE = 102, TYPE_TSS32 = 9 };
    uint16_t base, map;
    uint32_t at;

    if (!vcpu_protected(v) || (!vcpu_v86(v) && v->cpl <= vcpu_iopl(v)))
        return 0;
    /* Only the 32-bit TSS has a bitmap; two bytes of it are read for every port. */
    if (!(v->tr.attr & ATTR_P) || (v->tr.attr & ATTR_TYPE & ~2u) != TYPE_TSS32 ||
        v->tr.limit < TSS_IO_BASE + 1)
        return op_gp(v);
    if (v->mem->read(v, v->tr.base + TSS_IO_BASE, &base, 2, false) == FAULT)
        return FAULT;
    at = base + port / 8u;
    if (at + 1 > v->tr.limit)
        return op_gp(v);
    if (v->mem->read(v, v->tr.base + at, &map, 2, false) == FAULT)
        return FAULT;
    return map >> port % 8 & (BIT(size) - 1) ? op_gp(v) : 0;
}

uint32_t op_io_read(struct vcpu *v, uint16_t port, unsigned size)
{
    fpu_park(v);
    return v->ops->io_read(v->ops_opaque, port, size) & (uint32_t)width_mask(size);
}

void op_io_write(struct vcpu *v, uint16_t port, unsigned size, uint32_t value)
{
    fpu_park(v);
    v->ops->io_write(v->ops_opaque, port, size, value & (uint32_t)width_mask(size));
}
