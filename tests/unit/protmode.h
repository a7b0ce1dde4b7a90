/*
 * A small protected-mode world in flat memory for tests of segmentation, delivery and far
 * transfers: a GDT with a descriptor of each kind, an LDT, an IDT, three TSSs. protmode_init leaves
 * the vCPU in ring `cpl` of it, with flat 32-bit segments and EIP 10000h.
 */
#ifndef TESTS_UNIT_PROTMODE_H
#define TESTS_UNIT_PROTMODE_H

#include <stdlib.h>

#include "flatmem.h"

struct world {
    struct flatmem m;
    struct vcpu v, before;
};

/* cmocka's set-up and tear-down of one test. */
static inline int world_setup(void **state)
{
    *state = aligned_alloc(64, (sizeof(struct world) + 63) / 64 * 64);
    return *state ? 0 : -1;
}

static inline int world_teardown(void **state)
{
    free(*state);
    return 0;
}

enum {
    P_GDT = 0x1000,
    P_LDT = 0x2000,
    P_IDT = 0x3000,
    P_TSS_A = 0x4000,
    P_TSS_B = 0x4100,
    P_TSS_16 = 0x4200,
    P_EIP = 0x10000,
    P_STACK = 0x30000, /* ESP where the test starts */
    P_STACK0 = 0x20000,
    P_STACK1 = 0x21000,
    P_STACK2 = 0x22000,
};

/* Selectors, RPL 0. */
enum {
    S_CODE0 = 0x08,
    S_DATA0 = 0x10,
    S_CODE3 = 0x18,
    S_DATA3 = 0x20,
    S_CONFORMING = 0x28, /* code, readable, DPL 0 */
    S_READ_ONLY = 0x30,  /* data, DPL 3 */
    S_EXEC_ONLY = 0x38,  /* code, DPL 3 */
    S_DOWN = 0x40,       /* expand-down, limit FFFh, B = 1, DPL 3 */
    S_ABSENT_DATA = 0x48,
    S_TSS_A = 0x50, /* busy: the current one */
    S_TSS_B = 0x58,
    S_LDT = 0x60,
    S_CODE16 = 0x68,      /* DPL 0, base 50000h, limit FFFFh */
    S_DATA16 = 0x70,      /* DPL 0, B = 0, base 60000h, limit FFFFh */
    S_CALL32 = 0x78,      /* DPL 3, to S_CODE0:12345h, 2 parameters */
    S_CALL16 = 0x80,      /* DPL 3, to S_CODE16:1234h, 1 parameter */
    S_TASK_GATE = 0x88,   /* DPL 3, to S_TSS_B */
    S_ABSENT_CODE = 0x90, /* DPL 0 */
    S_CODE1 = 0x98,
    S_DATA1 = 0xA0,
    S_TSS_16 = 0xA8,       /* DPL 0 */
    S_ABSENT_STACK = 0xB0, /* DPL 0 */
    S_CALL_DPL0 = 0xB8,    /* as S_CALL32, DPL 0 */
    S_CALL_ABSENT = 0xC0,
    S_CALL_CONFORMING = 0xC8, /* DPL 3, to S_CONFORMING:2000h */
    S_ABSENT_CODE3 = 0xD0,
    S_SHORT = 0xD8,    /* code, DPL 0, limit FFFh */
    S_DATA16_3 = 0xE0, /* as S_DATA16, DPL 3 */
    S_END = 0xE8,
    L_CODE3 = 0x0C, /* in the LDT */
    L_DATA3 = 0x14,
};

static inline void protmode_gdt(struct flatmem *m, unsigned sel, uint32_t base, uint32_t limit,
                                uint16_t attr)
{
    flatmem_put_descriptor(m, P_GDT + sel, base, limit, attr);
}

/* The register's hidden part straight from the descriptor, without any check. */
static inline void protmode_segment(struct vcpu *v, enum seg seg, uint16_t sel)
{
    struct flatmem *m = flatmem_of(v);
    uint32_t low = flatmem_get32(m, P_GDT + (sel & 0xFFF8)),
             high = flatmem_get32(m, P_GDT + (sel & 0xFFF8) + 4);
    uint32_t limit = (low & 0xFFFF) | (high & 0xF0000);
    v->seg[seg] = (struct segment){
        .sel = sel,
        .attr = (uint16_t)(high >> 8 & 0xF0FF),
        .base = low >> 16 | (high & 0xFF) << 16 | (high & 0xFF000000),
        .limit = high >> 23 & 1 ? limit << 12 | 0xFFF : limit,
    };
}

static inline void protmode_init(struct flatmem *m, struct vcpu *v, unsigned cpl)
{
    static const uint8_t data[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    flatmem_init(m, v);
    protmode_gdt(m, S_CODE0, 0, 0xFFFFF, 0xC09B);
    protmode_gdt(m, S_DATA0, 0, 0xFFFFF, 0xC093);
    protmode_gdt(m, S_CODE3, 0, 0xFFFFF, 0xC0FB);
    protmode_gdt(m, S_DATA3, 0, 0xFFFFF, 0xC0F3);
    protmode_gdt(m, S_CONFORMING, 0, 0xFFFFF, 0xC09F);
    protmode_gdt(m, S_READ_ONLY, 0x1000, 0xFFF, 0x40F1);
    protmode_gdt(m, S_EXEC_ONLY, 0, 0xFFFFF, 0xC0F9);
    protmode_gdt(m, S_DOWN, 0, 0xFFF, 0x40F7);
    protmode_gdt(m, S_ABSENT_DATA, 0, 0xFFFFF, 0xC073);
    protmode_gdt(m, S_TSS_A, P_TSS_A, 0x67, 0x008B);
    protmode_gdt(m, S_TSS_B, P_TSS_B, 0x67, 0x0089);
    protmode_gdt(m, S_LDT, P_LDT, 0x1F, 0x0082);
    protmode_gdt(m, S_CODE16, 0x50000, 0xFFFF, 0x009B);
    protmode_gdt(m, S_DATA16, 0x60000, 0xFFFF, 0x0093);
    flatmem_put_gate(m, P_GDT + S_CALL32, S_CODE0, 0x12345, 0xEC, 2);
    flatmem_put_gate(m, P_GDT + S_CALL16, S_CODE16, 0x1234, 0xE4, 1);
    flatmem_put_gate(m, P_GDT + S_TASK_GATE, S_TSS_B, 0, 0xE5, 0);
    protmode_gdt(m, S_ABSENT_CODE, 0, 0xFFFFF, 0xC01B);
    protmode_gdt(m, S_CODE1, 0, 0xFFFFF, 0xC0BB);
    protmode_gdt(m, S_DATA1, 0, 0xFFFFF, 0xC0B3);
    protmode_gdt(m, S_TSS_16, P_TSS_16, 0x2B, 0x0081);
    protmode_gdt(m, S_ABSENT_STACK, 0, 0xFFFFF, 0xC013);
    flatmem_put_gate(m, P_GDT + S_CALL_DPL0, S_CODE0, 0x12345, 0x8C, 0);
    flatmem_put_gate(m, P_GDT + S_CALL_ABSENT, S_CODE0, 0x12345, 0x6C, 0);
    flatmem_put_gate(m, P_GDT + S_CALL_CONFORMING, S_CONFORMING, 0x2000, 0xEC, 0);
    protmode_gdt(m, S_ABSENT_CODE3, 0, 0xFFFFF, 0xC07B);
    protmode_gdt(m, S_SHORT, 0, 0xFFF, 0x409B);
    protmode_gdt(m, S_DATA16_3, 0x60000, 0xFFFF, 0x00F3);
    flatmem_put_descriptor(m, P_LDT + (L_CODE3 & ~7), 0, 0xFFFFF, 0xC0FB);
    flatmem_put_descriptor(m, P_LDT + (L_DATA3 & ~7), 0x1000, 0xFFF, 0x40F3);

    flatmem_put32(m, P_TSS_A + 4, P_STACK0);
    flatmem_put16(m, P_TSS_A + 8, S_DATA0);
    flatmem_put32(m, P_TSS_A + 0xC, P_STACK1);
    flatmem_put16(m, P_TSS_A + 0x10, S_DATA1 | 1);

    v->gdtr = (struct table_register){.base = P_GDT, .limit = S_END - 1};
    v->idtr = (struct table_register){.base = P_IDT, .limit = 0x3FF};
    v->ldtr = (struct segment){.sel = S_LDT, .attr = 0x82, .base = P_LDT, .limit = 0x1F};
    v->tr = (struct segment){.sel = S_TSS_A, .attr = 0x8B, .base = P_TSS_A, .limit = 0x67};
    v->cr0 = CR0_PE | CR0_ET;
    v->cpl = (uint8_t)cpl;
    v->rip = P_EIP;
    v->regs[REG_SP] = P_STACK;
    uint16_t code = cpl == 0 ? S_CODE0 : cpl == 1 ? S_CODE1 : S_CODE3;
    uint16_t stack = cpl == 0 ? S_DATA0 : cpl == 1 ? S_DATA1 : S_DATA3;
    protmode_segment(v, SEG_CS, (uint16_t)(code | cpl));
    protmode_segment(v, SEG_SS, (uint16_t)(stack | cpl));
    for (unsigned i = 0; i < ARRAY_LEN(data); i++)
        protmode_segment(v, (enum seg)data[i], (uint16_t)(stack | cpl));
}

/* Virtual-8086 mode at CS 1000h, IP 100h; SS 2000h, SP 800h; DS 3000h, ES 4000h, FS 5000h, GS
 * 6000h. */
static inline void protmode_v86(struct flatmem *m, struct vcpu *v, unsigned iopl)
{
    static const uint16_t sel[] = {0x4000, 0x1000, 0x2000, 0x3000, 0x5000, 0x6000};
    protmode_init(m, v, 3);
    v->sys_flags = FLAG_VM | FLAG_IF | (iopl << FLAG_IOPL_SHIFT);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        v->seg[i] =
            (struct segment){.sel = sel[i], .attr = 0xF3, .base = sel[i] * 16u, .limit = 0xFFFF};
    v->rip = 0x100;
    v->regs[REG_SP] = 0x800;
}

/* Real mode at CS 1000h, IP 100h; SS 2000h, SP 800h, with the IVT at 0. */
static inline void protmode_real(struct flatmem *m, struct vcpu *v)
{
    protmode_v86(m, v, 0);
    v->sys_flags = FLAG_IF;
    v->cr0 = CR0_ET;
    v->cpl = 0;
    v->idtr = (struct table_register){.base = 0, .limit = 0x3FF};
    for (unsigned i = 0; i < SEG_COUNT; i++)
        v->seg[i].attr = 0x93;
}

static inline void protmode_idt(struct flatmem *m, unsigned vector, uint16_t sel, uint32_t offset,
                                uint8_t attr)
{
    flatmem_put_gate(m, P_IDT + 8 * vector, sel, offset, attr, 0);
}

/* All that a test may find changed, to compare a vCPU before and after a fault. */
static inline bool protmode_same_state(const struct vcpu *a, const struct vcpu *b)
{
    return !memcmp(a->regs, b->regs, sizeof a->regs) && a->rip == b->rip &&
           vcpu_eflags(a) == vcpu_eflags(b) && a->cpl == b->cpl &&
           !memcmp(a->seg, b->seg, sizeof a->seg) && !memcmp(&a->ldtr, &b->ldtr, sizeof a->ldtr) &&
           !memcmp(&a->tr, &b->tr, sizeof a->tr) && a->cr0 == b->cr0 && a->cr3 == b->cr3;
}

#endif
