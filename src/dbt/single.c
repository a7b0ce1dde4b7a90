/*
 * One instruction at a time, without translated blocks: for I/O memory, corners of segmentation,
 * stores into the code that is running, the trap flag, interrupt shadows, and --verify.
 *
 * What emulate() knows is executed there. The rest is innocuous (A_COPY): the CPU executes it
 * itself, its memory operand redirected to vcpu.bounce (congruent modulo 64, so that alignment
 * faults are kept), which is filled before and written back after; a pure store does not read
 * memory first. Nothing is written back if the instruction faults.
 */
#include "dbt/engine.h"
#include "cpu/fpu.h"
#include "cpu/segment.h"

int single_fetch(struct dbt *d, struct insn *in)
{
    struct vcpu *v = &d->cpu;
    const struct segment *cs = &v->seg[SEG_CS];
    uint8_t bytes[INSN_MAX];
    uint32_t eip = (uint32_t)v->rip;
    bool user = v->cpl == 3;

    if (eip > cs->limit)
        return vcpu_raise_error(v, VEC_GP, 0);
    unsigned room = min_u32(INSN_MAX, cs->limit - eip + (cs->limit - eip < INSN_MAX));
    int got = v->mem->fetch(v, cs->base + eip, bytes, room, user);
    if (got == FAULT)
        return FAULT;
    enum decode_result r = decode(in, bytes, (unsigned)got, cs->attr & ATTR_DB ? 32 : 16);
    if (r == DECODE_TRUNCATED) {
        if ((unsigned)got == room && room < INSN_MAX)
            return vcpu_raise_error(v, VEC_GP, 0);
        if (v->mem->fetch(v, cs->base + eip + (unsigned)got, bytes, 1, user) == FAULT)
            return FAULT;
        return vcpu_raise(v, VEC_UD);
    }
    if (r == DECODE_TOO_LONG)
        return vcpu_raise_error(v, VEC_GP, 0);
    if (r == DECODE_UNDEFINED)
        in->row = NULL;
    else
        translate_narrow(in, v->model);
    return 0;
}

/* #UD and #NM by CR0 and CR4, before anything else (SDM 3A 2.5, 13.1). */
static int check_fpu(struct vcpu *v, const struct insn *in)
{
    uint32_t attr = in->row->attr;

    if (in->op == OP_FWAIT)
        return (v->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS) ? vcpu_raise(v, VEC_NM) : 0;
    if (in->vex && vcpu_real_segments(v))
        return vcpu_raise(v, VEC_UD);
    if ((attr & A_AVX) && !((v->cr4 & CR4_OSXSAVE) && (v->xcr0 & XCR0_AVX)))
        return vcpu_raise(v, VEC_UD);
    if ((attr & A_SSE) && ((v->cr0 & CR0_EM) || !(v->cr4 & CR4_OSFXSR)))
        return vcpu_raise(v, VEC_UD);
    if ((attr & A_MMX) && (v->cr0 & CR0_EM))
        return vcpu_raise(v, VEC_UD);
    if ((attr & A_X87) && (v->cr0 & (CR0_EM | CR0_TS)))
        return vcpu_raise(v, VEC_NM);
    if ((attr & (A_AVX | A_SSE | A_MMX)) && (v->cr0 & CR0_TS))
        return vcpu_raise(v, VEC_NM);
    return 0;
}

/* The dword, word or quadword that a BT with a register bit offset touches (SDM 2A, BT). */
static uint32_t bit_offset(const struct vcpu *v, const struct insn *in)
{
    if (in->row->operand[1].kind != K_G)
        return 0;
    switch (in->op) {
    case OP_BT:
    case OP_BTS:
    case OP_BTR:
    case OP_BTC: {
        uint32_t bit = vcpu_get_reg(v, in->reg, in->opsize);
        int32_t index = in->opsize == 2 ? (int16_t)bit >> 4 : (int32_t)bit >> 5;
        return (uint32_t)index * in->opsize;
    }
    default:
        return 0;
    }
}

int single_raise_host(struct vcpu *v, int trap)
{
    switch (trap) {
    case 0:
        return vcpu_raise(v, VEC_DE);
    case 6:
        return vcpu_raise(v, VEC_UD);
    case 16:
        return vcpu_raise(v, VEC_MF);
    case 17:
        return vcpu_raise_error(v, VEC_AC, 0);
    case 19:
        return vcpu_raise(v, v->cr4 & CR4_OSXMMEXCPT ? VEC_XM : VEC_UD);
    default:
        return vcpu_raise_error(v, VEC_GP, 0);
    }
}

static uint16_t fpu_status(void)
{
    uint16_t status;
    __asm__ volatile("fnstsw %0" : "=a"(status));
    return status;
}

enum { FSW_ES = 0x80 };

/* An x87 exception that is pending comes before the memory access of a waiting instruction. */
static int check_pending(struct vcpu *v, const struct insn *in)
{
    bool waits = (in->row->attr & (A_X87 | A_MMX)) && in->op != OP_FNSTCW && in->op != OP_FNSTSW;

    return waits && (fpu_status() & FSW_ES) ? vcpu_raise(v, VEC_MF) : 0;
}

static int run_single(struct dbt *d, const void *code)
{
    d->stats.singles++;
    d->single_running = true;
    int trap = dbt_run_single(d, code);
    d->single_running = false;
    return trap ? single_raise_host(&d->cpu, trap - 1) : 0;
}

/*
 * A store from the FPU. From an x87 register: it is executed before the memory is looked at, since
 * it makes no access if it meets an unmasked exception; if memory faults the FPU is as before. From
 * an MMX register: the FPU has gone over to MMX even if memory faults; VCVTPS2PH: it has raised its
 * exceptions.
 */
static int store_from_fpu(struct dbt *d, const struct insn *in, const void *code, uint32_t gva,
                          unsigned size)
{
    struct vcpu *v = &d->cpu;
    _Alignas(16) uint8_t before[512];

    __asm__ volatile("fxsave64 %0" : "=m"(before));
    if (run_single(d, code))
        return FAULT;
    if ((in->row->attr & A_X87) && (fpu_status() & FSW_ES))
        return 0;
    if (v->mem->probe_write(v, gva, size, v->cpl == 3)) {
        if (in->row->attr & A_X87)
            __asm__ volatile("fxrstor64 %0" : : "m"(before));
        return FAULT;
    }
    return v->mem->write(v, gva, v->bounce + (gva & 63), size, v->cpl == 3);
}

static int execute_copied(struct dbt *d, const struct insn *in)
{
    struct vcpu *v = &d->cpu;
    const struct decode_row *row = in->row;
    bool memory = in->has_mem && !(row->attr & A_NO_ACCESS);
    bool writes = memory && (row->attr & A_MEM_WRITE);
    unsigned size = in->mem_size;
    uint32_t gva = 0, offset = 0, skipped = 0;

    fpu_unpark(v);
    if (check_fpu(v, in) || check_pending(v, in))
        return FAULT;
    bool from_fpu =
        writes && !(row->attr & A_MEM_READ) && (row->attr & (A_X87 | A_MMX | A_SSE | A_AVX));
    if (memory) {
        uint32_t bits = bit_offset(v, in), ea = emulate_ea(v, in) + bits;
        if (in->addrsize == 2)
            ea &= 0xFFFF;
        unsigned access = (row->attr & A_MEM_READ ? ACCESS_READ : 0) | (writes ? ACCESS_WRITE : 0);
        if (!size || size > 64)
            return vcpu_raise(v, VEC_UD);
        if (segment_linear(v, in->seg, ea, size, access ? access : ACCESS_READ, &gva))
            return FAULT;
        if ((row->attr & A_ALIGNED) && (gva & (size - 1)))
            return vcpu_raise_error(v, VEC_GP, 0);
        unsigned align = size == 10 ? 8 : size;
        if (align <= 8 && (gva & (align - 1)) && segment_checks_alignment(v))
            return vcpu_raise_error(v, VEC_AC, 0);
        offset = gva & 63;
        skipped = bits; /* the CPU adds it once more */
        if (writes && !from_fpu && v->mem->probe_write(v, gva, size, v->cpl == 3))
            return FAULT;
        if ((row->attr & A_MEM_READ) || !writes) {
            if (v->mem->read(v, gva, v->bounce + offset, size, v->cpl == 3))
                return FAULT;
        }
    }
    const void *code = translate_single(d, in, (int32_t)(offset - skipped));
    if (!code)
        return vcpu_raise(v, VEC_UD);
    fpu_unpark(v);
    if (from_fpu) {
        if (store_from_fpu(d, in, code, gva, size))
            return FAULT;
    } else if (run_single(d, code) ||
               (writes && v->mem->write(v, gva, v->bounce + offset, size, v->cpl == 3))) {
        return FAULT;
    }
    v->rip = (uint32_t)v->rip + in->len;
    return 0;
}

int single_step(struct dbt *d, const struct insn *in)
{
    struct vcpu *v = &d->cpu;

    if (!in->row)
        return vcpu_raise(v, VEC_UD);
    if (v->fpu_parked && (in->row->attr & (A_FPU_CONTROL | A_IMPLICIT_MEM)))
        fpu_unpark(v);
    int r = emulate(v, in);
    if (r == EMULATE_UNKNOWN)
        r = execute_copied(d, in);
    return r;
}
