/*
 * The state after power-up and RESET (SDM 3A 9.1, table 9-1). What belongs to the surroundings
 * stays: the interrupt line, requests to leave the run loop, and the borrowed pointers.
 */
#include "cpu/state.h"

#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/descriptor.h"
#include "cpu/fpu.h"

enum {
    RESET_DATA_ATTR = ATTR_P | ATTR_S | ATTR_WRITE | ATTR_ACCESSED,
    RESET_EIP = 0xFFF0,
    RESET_CS = 0xF000,
};
#define RESET_CS_BASE   0xFFFF0000u
#define RESET_CR0       (CR0_CD | CR0_NW | CR0_ET)
#define RESET_DR6       0xFFFF0FF0u
#define RESET_DR7       0x400u
#define RESET_PAT       0x0007040600070406ull
#define RESET_APIC_BASE 0xFEE00900ull /* enabled, boot processor */

static uint32_t signature(const struct cpu_model *model)
{
    for (unsigned i = 0; model && i < model->leaf_count && i < CPUID_MAX_LEAVES; i++) {
        if (model->leaves[i].leaf == 1)
            return model->leaves[i].eax;
    }
    return 0;
}

void vcpu_reset(struct vcpu *v)
{
    uint32_t old_cr0 = v->cr0, old_cr3 = v->cr3, old_cr4 = v->cr4;

    memset(v->regs, 0, sizeof v->regs);
    v->regs[REG_DX] = signature(v->model);
    v->rip = RESET_EIP;
    v->host_flags = 0;
    v->sys_flags = 0;
    v->cpl = 0;
    v->shadow = 0;
    v->halted = false;

    for (unsigned i = 0; i < SEG_COUNT; i++)
        v->seg[i] = (struct segment){.attr = RESET_DATA_ATTR, .limit = 0xFFFF};
    v->seg[SEG_CS].sel = RESET_CS;
    v->seg[SEG_CS].base = RESET_CS_BASE;
    v->ldtr = (struct segment){.attr = ATTR_P | SYS_LDT, .limit = 0xFFFF};
    v->tr = (struct segment){.attr = ATTR_P | SYS_TSS32_BUSY, .limit = 0xFFFF};
    v->gdtr = (struct table_register){.limit = 0xFFFF};
    v->idtr = (struct table_register){.limit = 0xFFFF};

    v->cr0 = RESET_CR0;
    v->cr2 = 0;
    v->cr3 = 0;
    v->cr4 = 0;
    memset(v->pdpte, 0, sizeof v->pdpte);
    memset(v->dr, 0, sizeof v->dr);
    v->dr[6] = RESET_DR6;
    v->dr[7] = RESET_DR7;
    v->efer = 0;
    v->xcr0 = XCR0_X87;
    v->tsc_offset = 0 - __builtin_ia32_rdtsc();
    v->msr = (struct msrs){.pat = RESET_PAT, .misc_enable = 1, .apic_base = RESET_APIC_BASE};

    v->exc = (struct exception){0};
    v->shutdown = false;
    v->nmi_pending = false;
    v->nmi_blocked = false;
    fpu_reset(v);
    if (v->mem)
        v->mem->paging_changed(v, old_cr0, old_cr3, old_cr4);
    vcpu_mode_changed(v);
}
