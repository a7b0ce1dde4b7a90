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

/* How far from its operand the word or dword lies that a BT with a register bit offset touches. */
static uint32_t bit_offset(const struct vcpu *v, const struct insn *in)
{
    if (!translate_has_bit_offset(in))
        return 0;
    uint32_t bit = vcpu_get_reg(v, in->reg, in->opsize);
    int32_t index = in->opsize == 2 ? (int16_t)bit >> 4 : (int32_t)bit >> 5;
    return (uint32_t)index * in->opsize;
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

static uint16_t fpu_control(void)
{
    uint16_t control;
    __asm__ volatile("fnstcw %0" : "=m"(control));
    return control;
}

/* Exception flags and masks but for precision, with which a result is stored all the same. */
enum { FSW_ES = 0x80, FPU_NO_RESULT = 0x1F };

/* An x87 exception that is pending comes before the memory access of a waiting instruction. */
static int check_pending(struct vcpu *v, const struct insn *in)
{
    bool waits = (in->row->attr & (A_X87 | A_MMX)) && in->op != OP_FNSTCW && in->op != OP_FNSTSW;

    return waits && (fpu_status() & FSW_ES) ? vcpu_raise(v, VEC_MF) : 0;
}

static int run_single(struct dbt *d, const void *code)
{
    d->stats.singles++;
    int trap = stub_run_single(d, code);
    return trap ? single_raise_host(&d->cpu, trap - 1) : 0;
}

/* The linear address of the memory operand, its segment and alignment checked. *bits: how much of
   it is the bit offset. */
static int locate(struct vcpu *v, const struct insn *in, uint32_t *gva, uint32_t *bits)
{
    uint32_t attr = in->row->attr, ea = emulate_ea(v, in);
    unsigned size = in->mem_size, align = size == 10 ? 8 : size;
    unsigned access =
        (attr & A_MEM_WRITE ? ACCESS_WRITE : 0) | (attr & A_MEM_READ ? ACCESS_READ : 0);

    *bits = bit_offset(v, in);
    ea += *bits;
    if (in->addrsize == 2)
        ea &= 0xFFFF;
    if (segment_linear(v, in->seg, ea, size, access ? access : ACCESS_READ, gva))
        return FAULT;
    if ((attr & A_ALIGNED) && (*gva & (size - 1)))
        return vcpu_raise_error(v, VEC_GP, 0);
    if (align <= 8 && (*gva & (align - 1)) && segment_checks_alignment(v))
        return vcpu_raise_error(v, VEC_AC, 0);
    return 0;
}

static int execute_without_memory(struct dbt *d, const struct insn *in)
{
    const void *code = translate_single(d, in, 0);
    return code ? run_single(d, code) : vcpu_raise(&d->cpu, VEC_UD);
}

/*
 * A store from the FPU is executed before its memory is looked at. From an x87 register: it makes
 * no access if it meets an unmasked exception, and if memory faults the FPU is as before. From an
 * MMX register: the FPU has gone over to MMX even if memory faults. VCVTPS2PH: it has raised its
 * exceptions.
 */
static int execute_fpu_store(struct dbt *d, const struct insn *in)
{
    struct vcpu *v = &d->cpu;
    _Alignas(16) uint8_t before[512];
    uint32_t gva, bits;

    __asm__ volatile("fxsave64 %0" : "=m"(before));
    if (execute_without_memory(d, in))
        return FAULT;
    if ((in->row->attr & A_X87) && (fpu_status() & ~fpu_control() & FPU_NO_RESULT))
        return 0;
    if (locate(v, in, &gva, &bits) || v->mem->write(v, gva, v->bounce, in->mem_size, v->cpl == 3)) {
        if (in->row->attr & A_X87)
            __asm__ volatile("fxrstor64 %0" : : "m"(before));
        return FAULT;
    }
    return 0;
}

static int execute_memory(struct dbt *d, const struct insn *in)
{
    struct vcpu *v = &d->cpu;
    bool writes = in->row->attr & A_MEM_WRITE, reads = !writes || (in->row->attr & A_MEM_READ);
    bool user = v->cpl == 3;
    uint32_t gva, bits;

    if (locate(v, in, &gva, &bits) || (writes && v->mem->probe_write(v, gva, in->mem_size, user)) ||
        (reads && v->mem->read(v, gva, v->bounce + (gva & 63), in->mem_size, user)))
        return FAULT;
    /* The CPU adds the bit offset once more. */
    const void *code = translate_single(d, in, (int32_t)((gva & 63) - bits));
    if (!code)
        return vcpu_raise(v, VEC_UD);
    fpu_unpark(v);
    if (run_single(d, code))
        return FAULT;
    return writes ? v->mem->write(v, gva, v->bounce + (gva & 63), in->mem_size, user) : 0;
}

static int execute_copied(struct dbt *d, const struct insn *in)
{
    struct vcpu *v = &d->cpu;
    uint32_t attr = in->row->attr;
    int r;

    fpu_unpark(v);
    if (check_fpu(v, in) || (in->has_mem && check_pending(v, in)))
        return FAULT;
    if (!in->has_mem || (attr & A_NO_ACCESS))
        r = execute_without_memory(d, in);
    else if (!in->mem_size || in->mem_size > 64)
        r = vcpu_raise(v, VEC_UD);
    else if ((attr & A_MEM_WRITE) && !(attr & A_MEM_READ) &&
             (attr & (A_X87 | A_MMX | A_SSE | A_AVX)))
        r = execute_fpu_store(d, in);
    else
        r = execute_memory(d, in);
    if (r == 0)
        v->rip = (uint32_t)v->rip + in->len;
    return r;
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
