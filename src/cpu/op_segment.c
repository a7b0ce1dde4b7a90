/*
 * Instructions that deal in selectors and far pointers. The work is done by segment.c,
 * descriptor.c, transfer.c and deliver.c; here operands are read and results committed.
 */
#include "cpu/descriptor.h"
#include "cpu/op.h"
#include "cpu/transfer.h"

/* ---- segment registers ---- */

/* A register gets the operand size, zero-extended; memory always gets 16 bits (SDM 2B, MOV, SLDT,
 * STR). */
static int store_selector(struct vcpu *v, const struct insn *in, uint16_t sel)
{
    if (op_write_rm(v, in, in->has_mem ? 2 : in->opsize, sel) == FAULT)
        return FAULT;
    return op_done(v, in);
}

int op_segment_mov_sreg_to(struct vcpu *v, const struct insn *in)
{
    if (in->reg >= SEG_COUNT)
        return vcpu_raise(v, VEC_UD);
    return store_selector(v, in, v->seg[in->reg].sel);
}

int op_segment_mov_sreg_from(struct vcpu *v, const struct insn *in)
{
    uint32_t sel;

    if (in->reg >= SEG_COUNT || in->reg == SEG_CS)
        return vcpu_raise(v, VEC_UD);
    if (op_read_rm(v, in, 2, &sel) == FAULT ||
        segment_load(v, (enum seg)in->reg, (uint16_t)sel) == FAULT)
        return FAULT;
    if (in->reg == SEG_SS)
        v->shadow = 2;
    return op_done(v, in);
}

/* Reads the m16:16 or m16:32 that ModRM points at. */
static int read_far_pointer(struct vcpu *v, const struct insn *in, uint16_t *sel, uint32_t *offset)
{
    uint8_t bytes[6];

    if (!in->has_mem)
        return vcpu_raise(v, VEC_UD);
    if (segment_read(v, in->seg, emulate_ea(v, in), bytes, in->opsize + 2u) == FAULT)
        return FAULT;
    *offset = 0;
    for (unsigned i = 0; i < in->opsize; i++)
        *offset |= (uint32_t)bytes[i] << 8 * i;
    *sel = (uint16_t)(bytes[in->opsize] | bytes[in->opsize + 1] << 8);
    return 0;
}

static int load_far_pointer(struct vcpu *v, const struct insn *in, enum seg seg)
{
    uint16_t sel;
    uint32_t offset;

    if (read_far_pointer(v, in, &sel, &offset) == FAULT || segment_load(v, seg, sel) == FAULT)
        return FAULT;
    vcpu_set_reg(v, in->reg, in->opsize, offset);
    return op_done(v, in);
}

int op_segment_lds(struct vcpu *v, const struct insn *in)
{
    return load_far_pointer(v, in, SEG_DS);
}

int op_segment_les(struct vcpu *v, const struct insn *in)
{
    return load_far_pointer(v, in, SEG_ES);
}

int op_segment_lss(struct vcpu *v, const struct insn *in)
{
    return load_far_pointer(v, in, SEG_SS);
}

int op_segment_lfs(struct vcpu *v, const struct insn *in)
{
    return load_far_pointer(v, in, SEG_FS);
}

int op_segment_lgs(struct vcpu *v, const struct insn *in)
{
    return load_far_pointer(v, in, SEG_GS);
}

/* ---- selectors examined ---- */

static void set_zf(struct vcpu *v, bool set)
{
    op_set_flags(v, FLAG_ZF, set ? FLAG_ZF : 0);
}

/* LAR and LSL: the result goes to the register only if ZF is set. */
static int examine(struct vcpu *v, const struct insn *in,
                   int (*look)(struct vcpu *v, uint16_t sel, uint32_t *result))
{
    uint32_t sel, result = 0;
    int found;

    if (op_protected(v) == FAULT || op_read_rm(v, in, 2, &sel) == FAULT)
        return FAULT;
    found = look(v, (uint16_t)sel, &result);
    if (found == FAULT)
        return FAULT;
    if (found)
        vcpu_set_reg(v, in->reg, in->opsize, result);
    set_zf(v, found);
    return op_done(v, in);
}

int op_segment_lar(struct vcpu *v, const struct insn *in)
{
    return examine(v, in, descriptor_lar);
}

int op_segment_lsl(struct vcpu *v, const struct insn *in)
{
    return examine(v, in, descriptor_lsl);
}

static int verify(struct vcpu *v, const struct insn *in, int (*look)(struct vcpu *v, uint16_t sel))
{
    uint32_t sel;
    int found;

    if (op_protected(v) == FAULT || op_read_rm(v, in, 2, &sel) == FAULT)
        return FAULT;
    found = look(v, (uint16_t)sel);
    if (found == FAULT)
        return FAULT;
    set_zf(v, found);
    return op_done(v, in);
}

int op_segment_verr(struct vcpu *v, const struct insn *in)
{
    return verify(v, in, descriptor_verr);
}

int op_segment_verw(struct vcpu *v, const struct insn *in)
{
    return verify(v, in, descriptor_verw);
}

/* The destination must be writable even if it does not change. */
int op_segment_arpl(struct vcpu *v, const struct insn *in)
{
    uint32_t target, source = vcpu_get_reg(v, in->reg, 2);
    bool adjust;

    /* CPUs ask for write permission only when they write. */
    if (op_protected(v) == FAULT || op_read_rm(v, in, 2, &target) == FAULT)
        return FAULT;
    adjust = (target & SEL_RPL) < (source & SEL_RPL);
    if (adjust &&
        op_write_rm(v, in, 2, (target & ~(uint32_t)SEL_RPL) | (source & SEL_RPL)) == FAULT)
        return FAULT;
    set_zf(v, adjust);
    return op_done(v, in);
}

/* ---- LDTR and TR ---- */

int op_segment_sldt(struct vcpu *v, const struct insn *in)
{
    return op_protected(v) == FAULT ? FAULT : store_selector(v, in, v->ldtr.sel);
}

int op_segment_str(struct vcpu *v, const struct insn *in)
{
    return op_protected(v) == FAULT ? FAULT : store_selector(v, in, v->tr.sel);
}

/* The descriptor of a system segment: in the GDT, of a type in the set `types`, present. */
static int fetch_system(struct vcpu *v, uint16_t sel, uint32_t types, struct descriptor *d)
{
    uint32_t error = descriptor_error(sel, 0);

    if (sel & SEL_TI)
        return vcpu_raise_error(v, VEC_GP, error);
    if (descriptor_fetch(v, sel, VEC_GP, 0, d) == FAULT)
        return FAULT;
    if (!descriptor_system(d) || !(types >> descriptor_type(d) & 1))
        return vcpu_raise_error(v, VEC_GP, error);
    return descriptor_present(d) ? 0 : vcpu_raise_error(v, VEC_NP, error);
}

int op_segment_lldt(struct vcpu *v, const struct insn *in)
{
    struct descriptor d;
    uint32_t sel;

    if (op_protected(v) == FAULT || op_privileged(v) == FAULT ||
        op_read_rm(v, in, 2, &sel) == FAULT)
        return FAULT;
    if (selector_null((uint16_t)sel)) {
        v->ldtr = (struct segment){.sel = (uint16_t)sel};
        return op_done(v, in);
    }
    if (fetch_system(v, (uint16_t)sel, BIT(SYS_LDT), &d) == FAULT)
        return FAULT;
    v->ldtr = descriptor_segment((uint16_t)sel, &d);
    return op_done(v, in);
}

int op_segment_ltr(struct vcpu *v, const struct insn *in)
{
    struct descriptor d;
    uint32_t sel;

    if (op_protected(v) == FAULT || op_privileged(v) == FAULT ||
        op_read_rm(v, in, 2, &sel) == FAULT)
        return FAULT;
    if (selector_null((uint16_t)sel))
        return op_gp(v);
    if (fetch_system(v, (uint16_t)sel, BIT(SYS_TSS16) | BIT(SYS_TSS32), &d) == FAULT ||
        descriptor_set_busy(v, &d, true) == FAULT)
        return FAULT;
    v->tr = descriptor_segment((uint16_t)sel, &d);
    return op_done(v, in);
}

/* ---- far transfers ---- */

static uint32_t pointer_offset(const struct insn *in)
{
    return (uint32_t)in->imm & (uint32_t)width_mask(in->opsize);
}

int op_segment_call_far(struct vcpu *v, const struct insn *in)
{
    return transfer_call_far(v, in->imm2, pointer_offset(in), in->opsize, op_next(v, in));
}

int op_segment_call_far_ind(struct vcpu *v, const struct insn *in)
{
    uint16_t sel;
    uint32_t offset;

    if (read_far_pointer(v, in, &sel, &offset) == FAULT)
        return FAULT;
    return transfer_call_far(v, sel, offset, in->opsize, op_next(v, in));
}

int op_segment_jmp_far(struct vcpu *v, const struct insn *in)
{
    return transfer_jmp_far(v, in->imm2, pointer_offset(in), in->opsize, op_next(v, in));
}

int op_segment_jmp_far_ind(struct vcpu *v, const struct insn *in)
{
    uint16_t sel;
    uint32_t offset;

    if (read_far_pointer(v, in, &sel, &offset) == FAULT)
        return FAULT;
    return transfer_jmp_far(v, sel, offset, in->opsize, op_next(v, in));
}

int op_segment_ret_far(struct vcpu *v, const struct insn *in)
{
    return transfer_ret_far(v, in->opsize, in->imm_size ? (uint16_t)in->imm : 0);
}

int op_segment_iret(struct vcpu *v, const struct insn *in)
{
    return transfer_iret(v, in->opsize, op_next(v, in));
}

int op_segment_sysenter(struct vcpu *v, const struct insn *in)
{
    (void)in;
    return transfer_sysenter(v);
}

int op_segment_sysexit(struct vcpu *v, const struct insn *in)
{
    (void)in;
    return transfer_sysexit(v);
}

/* ---- software interrupts ---- */

static int interrupt(struct vcpu *v, const struct insn *in, uint8_t vector, enum event_kind kind)
{
    uint64_t rip = v->rip;

    v->rip = op_next(v, in);
    if (deliver_software(v, vector, kind) == 0)
        return 0;
    v->rip = rip;
    return FAULT;
}

int op_segment_int_n(struct vcpu *v, const struct insn *in)
{
    return interrupt(v, in, (uint8_t)in->imm, EVENT_SOFTWARE);
}

int op_segment_int3(struct vcpu *v, const struct insn *in)
{
    return interrupt(v, in, VEC_BP, EVENT_SOFTWARE_EXCEPTION);
}

int op_segment_into(struct vcpu *v, const struct insn *in)
{
    if (!(v->host_flags & FLAG_OF))
        return op_done(v, in);
    return interrupt(v, in, VEC_OF, EVENT_SOFTWARE_EXCEPTION);
}

int op_segment_int1(struct vcpu *v, const struct insn *in)
{
    return interrupt(v, in, VEC_DB, EVENT_ICEBP);
}

int op_segment_bound(struct vcpu *v, const struct insn *in)
{
    unsigned size = in->opsize;
    int64_t index = sign_extend(vcpu_get_reg(v, in->reg, size), size);
    uint32_t ea = emulate_ea(v, in), lower = 0, upper = 0;
    uint32_t upper_ea = (ea + size) & (uint32_t)width_mask(in->addrsize);

    if (!in->has_mem)
        return vcpu_raise(v, VEC_UD);
    if (segment_read(v, in->seg, ea, &lower, size) == FAULT ||
        segment_read(v, in->seg, upper_ea, &upper, size) == FAULT)
        return FAULT;
    if (index < sign_extend(lower, size) || index > sign_extend(upper, size))
        return vcpu_raise(v, VEC_BR);
    return op_done(v, in);
}
