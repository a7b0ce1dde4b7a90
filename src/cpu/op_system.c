/*
 * System instructions: descriptor tables, control, debug and model-specific registers, IF, HLT,
 * ports, CPUID, time. Privilege is checked before an operand is read.
 */
#include "cpu/cpuid.h"
#include "cpu/op.h"
#include "cpu/sysreg.h"

/* ---- GDTR and IDTR ---- */

/* All 32 bits of the base are stored, whatever the operand size (as every CPU since the 386 does).
 */
static int store_table(struct vcpu *v, const struct insn *in, const struct table_register *table)
{
    uint8_t bytes[6];

    if (!in->has_mem)
        return vcpu_raise(v, VEC_UD);
    bytes[0] = (uint8_t)table->limit;
    bytes[1] = (uint8_t)(table->limit >> 8);
    for (unsigned i = 0; i < 4; i++)
        bytes[2 + i] = (uint8_t)(table->base >> 8 * i);
    if (segment_write(v, in->seg, emulate_ea(v, in), bytes, sizeof bytes) == FAULT)
        return FAULT;
    return op_done(v, in);
}

/* With a 16-bit operand size the base has 24 bits. */
static int load_table(struct vcpu *v, const struct insn *in, struct table_register *table)
{
    uint8_t bytes[6];

    if (!in->has_mem)
        return vcpu_raise(v, VEC_UD);
    if (op_privileged(v) == FAULT ||
        segment_read(v, in->seg, emulate_ea(v, in), bytes, sizeof bytes) == FAULT)
        return FAULT;
    table->limit = (uint16_t)(bytes[0] | bytes[1] << 8);
    table->base = bytes[2] | (uint32_t)bytes[3] << 8 | (uint32_t)bytes[4] << 16;
    if (in->opsize != 2)
        table->base |= (uint32_t)bytes[5] << 24;
    return op_done(v, in);
}

int op_system_sgdt(struct vcpu *v, const struct insn *in)
{
    return store_table(v, in, &v->gdtr);
}

int op_system_sidt(struct vcpu *v, const struct insn *in)
{
    return store_table(v, in, &v->idtr);
}

int op_system_lgdt(struct vcpu *v, const struct insn *in)
{
    return load_table(v, in, &v->gdtr);
}

int op_system_lidt(struct vcpu *v, const struct insn *in)
{
    return load_table(v, in, &v->idtr);
}

/* ---- control registers ---- */

/* A 32-bit register gets all of CR0, which SDM 2B (SMSW) calls undefined above bit 15. */
int op_system_smsw(struct vcpu *v, const struct insn *in)
{
    if (op_write_rm(v, in, in->has_mem ? 2 : in->opsize, v->cr0) == FAULT)
        return FAULT;
    return op_done(v, in);
}

/* PE, MP, EM and TS; PE can be set but not cleared. */
int op_system_lmsw(struct vcpu *v, const struct insn *in)
{
    const uint32_t writable = CR0_PE | CR0_MP | CR0_EM | CR0_TS;
    uint32_t value;

    if (op_privileged(v) == FAULT || op_read_rm(v, in, 2, &value) == FAULT)
        return FAULT;
    value = (v->cr0 & ~(CR0_MP | CR0_EM | CR0_TS)) | (value & writable);
    return sysreg_write_cr(v, 0, value) == FAULT ? FAULT : op_done(v, in);
}

int op_system_clts(struct vcpu *v, const struct insn *in)
{
    if (op_privileged(v) == FAULT)
        return FAULT;
    v->cr0 &= ~CR0_TS;
    vcpu_mode_changed(v);
    return op_done(v, in);
}

int op_system_mov_cr_read(struct vcpu *v, const struct insn *in)
{
    const uint32_t *const crs[] = {&v->cr0, NULL, &v->cr2, &v->cr3, &v->cr4};

    if (in->reg >= ARRAY_LEN(crs) || !crs[in->reg])
        return vcpu_raise(v, VEC_UD);
    if (op_privileged(v) == FAULT)
        return FAULT;
    vcpu_set_reg(v, in->rm, 4, *crs[in->reg]);
    return op_done(v, in);
}

int op_system_mov_cr_write(struct vcpu *v, const struct insn *in)
{
    if (in->reg == 1 || in->reg > 4)
        return vcpu_raise(v, VEC_UD);
    if (op_privileged(v) == FAULT || sysreg_write_cr(v, in->reg, vcpu_reg32(v, in->rm)) == FAULT)
        return FAULT;
    return op_done(v, in);
}

/* There is no limit check (SDM 2A, INVLPG). */
int op_system_invlpg(struct vcpu *v, const struct insn *in)
{
    if (!in->has_mem)
        return vcpu_raise(v, VEC_UD);
    if (op_privileged(v) == FAULT)
        return FAULT;
    v->mem->invlpg(v, v->seg[in->seg].base + emulate_ea(v, in));
    return op_done(v, in);
}

/* INVD, WBINVD: there is no cache to be seen. */
int op_system_privileged_nop(struct vcpu *v, const struct insn *in)
{
    return op_privileged(v) == FAULT ? FAULT : op_done(v, in);
}

/* ---- debug registers (SDM 3B 18.2) ---- */

enum {
    DR6_BD = 1u << 13,
    DR6_WRITABLE = 0xE00F,
    DR7_FIXED = 1u << 10,
    DR7_GD = 1u << 13,
};
#define DR6_FIXED    0xFFFF0FF0u
#define DR7_WRITABLE 0xFFFF23FFu

/*
 * The register that `n` means: 4 and 5 are 6 and 7 unless CR4.DE makes them undefined. Every access
 * is a #DB while DR7.GD is set, which delivery clears.
 */
static int debug_register(struct vcpu *v, unsigned n, unsigned *out)
{
    if (n > 7 || ((n == 4 || n == 5) && v->cr4 & CR4_DE))
        return vcpu_raise(v, VEC_UD);
    if (op_privileged(v) == FAULT)
        return FAULT;
    if (v->dr[7] & DR7_GD) {
        v->dr[6] |= DR6_BD;
        return vcpu_raise(v, VEC_DB);
    }
    *out = n == 4 || n == 5 ? n + 2 : n;
    return 0;
}

int op_system_mov_dr_read(struct vcpu *v, const struct insn *in)
{
    unsigned n;

    if (debug_register(v, in->reg, &n) == FAULT)
        return FAULT;
    vcpu_set_reg(v, in->rm, 4, v->dr[n]);
    return op_done(v, in);
}

int op_system_mov_dr_write(struct vcpu *v, const struct insn *in)
{
    uint32_t value = vcpu_reg32(v, in->rm);
    unsigned n;

    if (debug_register(v, in->reg, &n) == FAULT)
        return FAULT;
    if (n == 6)
        value = (value & DR6_WRITABLE) | DR6_FIXED;
    else if (n == 7)
        value = (value & DR7_WRITABLE) | DR7_FIXED;
    v->dr[n] = value;
    vcpu_mode_changed(v);
    return op_done(v, in);
}

/* ---- MSRs, time, CPUID ---- */

static uint64_t edx_eax(const struct vcpu *v)
{
    return (uint64_t)vcpu_reg32(v, REG_DX) << 32 | vcpu_reg32(v, REG_AX);
}

static void set_edx_eax(struct vcpu *v, uint64_t value)
{
    v->regs[REG_AX] = (uint32_t)value;
    v->regs[REG_DX] = value >> 32;
}

int op_system_rdmsr(struct vcpu *v, const struct insn *in)
{
    uint64_t value;

    if (op_privileged(v) == FAULT || sysreg_read_msr(v, vcpu_reg32(v, REG_CX), &value) == FAULT)
        return FAULT;
    set_edx_eax(v, value);
    return op_done(v, in);
}

int op_system_wrmsr(struct vcpu *v, const struct insn *in)
{
    if (op_privileged(v) == FAULT ||
        sysreg_write_msr(v, vcpu_reg32(v, REG_CX), edx_eax(v)) == FAULT)
        return FAULT;
    return op_done(v, in);
}

int op_system_rdtsc(struct vcpu *v, const struct insn *in)
{
    if (v->cr4 & CR4_TSD && v->cpl != 0)
        return op_gp(v);
    set_edx_eax(v, sysreg_tsc(v));
    return op_done(v, in);
}

int op_system_rdtscp(struct vcpu *v, const struct insn *in)
{
    if (op_system_rdtsc(v, in) == FAULT)
        return FAULT;
    v->regs[REG_CX] = (uint32_t)v->msr.tsc_aux;
    return 0;
}

/* Leaf 0Ah says that there are no counters, so every index is one too many. */
int op_system_rdpmc(struct vcpu *v, const struct insn *in)
{
    (void)in;
    return op_gp(v);
}

int op_system_cpuid(struct vcpu *v, const struct insn *in)
{
    uint32_t out[4];

    cpuid_read(v, vcpu_reg32(v, REG_AX), vcpu_reg32(v, REG_CX), out);
    v->regs[REG_AX] = out[0];
    v->regs[REG_BX] = out[1];
    v->regs[REG_CX] = out[2];
    v->regs[REG_DX] = out[3];
    return op_done(v, in);
}

/* ECX = 1 gives the components that are in use, as XSAVEC would find them. */
int op_system_xgetbv(struct vcpu *v, const struct insn *in)
{
    uint32_t index = vcpu_reg32(v, REG_CX);

    if (!(v->cr4 & CR4_OSXSAVE))
        return vcpu_raise(v, VEC_UD);
    if (index == 0) {
        set_edx_eax(v, v->xcr0);
    } else if (index == 1 && cpuid_has(v->model, F_XGETBV1)) {
        set_edx_eax(v, op_fpu_in_use(v));
    } else {
        return op_gp(v);
    }
    return op_done(v, in);
}

int op_system_xsetbv(struct vcpu *v, const struct insn *in)
{
    uint64_t value = edx_eax(v);

    if (!(v->cr4 & CR4_OSXSAVE))
        return vcpu_raise(v, VEC_UD);
    if (op_privileged(v) == FAULT)
        return FAULT;
    if (vcpu_reg32(v, REG_CX) != 0 || !(value & XCR0_X87) || value & ~v->model->xcr0_mask ||
        (value & XCR0_AVX && !(value & XCR0_SSE)))
        return op_gp(v);
    v->xcr0 = value;
    vcpu_mode_changed(v);
    return op_done(v, in);
}

/* MONITOR and MWAIT at CPL > 0 are #UD (SDM 2B); waiting may end at any time, and ends at once. */
int op_system_monitor(struct vcpu *v, const struct insn *in)
{
    uint8_t byte;

    if (v->cpl != 0)
        return vcpu_raise(v, VEC_UD);
    if (vcpu_reg32(v, REG_CX) != 0)
        return op_gp(v);
    if (segment_read(v, in->seg == SEG_NONE ? SEG_DS : in->seg,
                     vcpu_get_reg(v, REG_AX, in->addrsize), &byte, 1) == FAULT)
        return FAULT;
    return op_done(v, in);
}

int op_system_mwait(struct vcpu *v, const struct insn *in)
{
    if (v->cpl != 0)
        return vcpu_raise(v, VEC_UD);
    return vcpu_reg32(v, REG_CX) & ~1u ? op_gp(v) : op_done(v, in);
}

/* ---- interrupt flag, HLT ---- */

int op_system_hlt(struct vcpu *v, const struct insn *in)
{
    if (op_privileged(v) == FAULT)
        return FAULT;
    v->halted = true;
    return op_done(v, in);
}

/* IF may be changed in real mode, and where CPL <= IOPL; virtual-8086 mode has CPL 3. */
static int check_if(struct vcpu *v)
{
    return vcpu_protected(v) && v->cpl > vcpu_iopl(v) ? op_gp(v) : 0;
}

int op_system_cli(struct vcpu *v, const struct insn *in)
{
    if (check_if(v) == FAULT)
        return FAULT;
    v->sys_flags &= ~FLAG_IF;
    return op_done(v, in);
}

int op_system_sti(struct vcpu *v, const struct insn *in)
{
    if (check_if(v) == FAULT)
        return FAULT;
    if (!(v->sys_flags & FLAG_IF))
        v->shadow = 1;
    v->sys_flags |= FLAG_IF;
    return op_done(v, in);
}

/* ---- ports ---- */

/* E4-E7 name the port in an immediate byte, EC-EF in DX. */
static uint16_t io_port(const struct vcpu *v, const struct insn *in)
{
    return in->opcode & 8 ? (uint16_t)v->regs[REG_DX] : (uint8_t)in->imm;
}

static unsigned io_size(const struct insn *in)
{
    return in->opcode & 1 ? min_u32(in->opsize, 4) : 1;
}

int op_system_in(struct vcpu *v, const struct insn *in)
{
    unsigned size = io_size(in);
    uint16_t port = io_port(v, in);

    if (op_io_allowed(v, port, size) == FAULT)
        return FAULT;
    vcpu_set_reg(v, REG_AX, size, op_io_read(v, port, size));
    return op_done(v, in);
}

int op_system_out(struct vcpu *v, const struct insn *in)
{
    unsigned size = io_size(in);
    uint16_t port = io_port(v, in);

    if (op_io_allowed(v, port, size) == FAULT)
        return FAULT;
    op_io_write(v, port, size, vcpu_reg32(v, REG_AX));
    return op_done(v, in);
}

int op_system_ud(struct vcpu *v, const struct insn *in)
{
    (void)in;
    return vcpu_raise(v, VEC_UD);
}
