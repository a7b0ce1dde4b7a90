/*
 * System instructions executed in C: privilege, tables, control and debug registers, MSRs, IF,
 * ports, and the instructions on selectors and far pointers as far as operands and commits go (what
 * the selectors themselves lead to is tested in test_segment.c and its kin).
 */
#include "emulator.h"

static void privileged_instructions_fault_outside_ring_0(void **state)
{
    static const uint8_t cases[][4] = {
        {0xF4},             /* HLT */
        {0x0F, 0x06},       /* CLTS */
        {0x0F, 0x08},       /* INVD */
        {0x0F, 0x09},       /* WBINVD */
        {0x0F, 0x20, 0xC0}, /* MOV EAX, CR0 */
        {0x0F, 0x22, 0xC0}, /* MOV CR0, EAX */
        {0x0F, 0x21, 0xF8}, /* MOV EAX, DR7 */
        {0x0F, 0x23, 0xF8}, /* MOV DR7, EAX */
        {0x0F, 0x30},       /* WRMSR */
        {0x0F, 0x32},       /* RDMSR */
        {0x0F, 0x33},       /* RDPMC */
        {0x0F, 0x01, 0xF0}, /* LMSW AX */
        {0x0F, 0x01, 0x10}, /* LGDT [EAX] */
        {0x0F, 0x01, 0x18}, /* LIDT [EAX] */
        {0x0F, 0x01, 0x38}, /* INVLPG [EAX] */
        {0x0F, 0x00, 0xD0}, /* LLDT AX */
        {0x0F, 0x00, 0xD8}, /* LTR AX */
        {0xFA},             /* CLI, IOPL 0 */
        {0xFB},             /* STI */
    };
    struct emulator *e = *state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        for (unsigned cpl = 1; cpl <= 3; cpl += 2) {
            emulator_protected(e, cpl);
            RUN_FAULTS(e, VEC_GP, 0, cases[i][0], cases[i][1], cases[i][2]);
        }
        emulator_v86(e, 2);
        if (cases[i][1] != 0x00)
            RUN_FAULTS(e, VEC_GP, 0, cases[i][0], cases[i][1], cases[i][2]);
    }
}

static void undefined_instructions_are_undefined_in_every_ring(void **state)
{
    static const uint8_t cases[][4] = {
        {0x0F, 0x0B},       /* UD2 */
        {0x0F, 0xB9, 0xC0}, /* UD1 */
        {0x0F, 0x05},       /* SYSCALL */
        {0x0F, 0x07},       /* SYSRET */
        {0x0F, 0xAA},       /* RSM */
        {0x0F, 0x01, 0xC8}, /* MONITOR */
        {0x0F, 0x01, 0xC9}, /* MWAIT */
        {0x0F, 0x20, 0xC8}, /* MOV EAX, CR1 */
        {0x0F, 0x22, 0xE8}, /* MOV CR5, EAX */
        {0x0F, 0x22, 0xC0 | 7 << 3},
        {0x8E, 0xC8}, /* MOV CS, AX */
        {0x8C, 0xF0}, /* MOV EAX, sreg 6 */
    };
    struct emulator *e = *state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
            struct insn in;
            uint8_t bytes[15] = {cases[i][0], cases[i][1], cases[i][2]};
            emulator_protected(e, cpl);
            if (decode(&in, bytes, 15, 32) == DECODE_UNDEFINED)
                continue;
            RUN_FAULTS(e, VEC_UD, -1, cases[i][0], cases[i][1], cases[i][2]);
        }
    }
}

static void selector_instructions_do_not_exist_in_real_and_virtual_8086_mode(void **state)
{
    static const uint8_t cases[][3] = {
        {0x0F, 0x00, 0xC0}, {0x0F, 0x00, 0xC8}, {0x0F, 0x00, 0xD0},
        {0x0F, 0x00, 0xD8}, {0x0F, 0x00, 0xE0}, {0x0F, 0x00, 0xE8},
        {0x0F, 0x02, 0xC0}, {0x0F, 0x03, 0xC0}, {0x63, 0xC0, 0x90},
    };
    struct emulator *e = *state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        emulator_real(e);
        RUN_FAULTS(e, VEC_UD, -1, cases[i][0], cases[i][1], cases[i][2]);
        emulator_v86(e, 3);
        RUN_FAULTS(e, VEC_UD, -1, cases[i][0], cases[i][1], cases[i][2]);
    }
}

/* ---- tables ---- */

static void descriptor_table_registers_are_stored_for_everyone_and_loaded_by_ring_0(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    v->gdtr = (struct table_register){.base = 0x89ABCDEF, .limit = 0x1234};
    v->regs[REG_BX] = 0x8000;
    RUN_OK(e, 3, 0x0F, 0x01, 0x03);
    assert_int_equal(flatmem_get16(&e->w.m, 0x8000), 0x1234);
    assert_int_equal(flatmem_get32(&e->w.m, 0x8002), 0x89ABCDEF);
    flatmem_put32(&e->w.m, 0x8002, 0);
    RUN_OK(e, 4, 0x66, 0x0F, 0x01, 0x03); /* all 32 bits, even so */
    assert_int_equal(flatmem_get32(&e->w.m, 0x8002), 0x89ABCDEF);
    v = emulator_protected(e, 0);
    flatmem_put16(&e->w.m, 0x8000, 0x7FF);
    flatmem_put32(&e->w.m, 0x8002, 0x89ABCDEF);
    v->regs[REG_BX] = 0x8000;
    RUN_OK(e, 3, 0x0F, 0x01, 0x1B);
    assert_int_equal(v->idtr.base, 0x89ABCDEF);
    assert_int_equal(v->idtr.limit, 0x7FF);
    RUN_OK(e, 4, 0x66, 0x0F, 0x01, 0x13);
    assert_int_equal(v->gdtr.base, 0xABCDEF);
    /* SIDT that cannot be written */
    flatmem_fault(&e->w.m, 0x8004, 0x8004, FLATMEM_WRITE, true);
    RUN_FAULTS(e, VEC_PF, 3, 0x0F, 0x01, 0x0B);
    assert_int_equal(flatmem_get16(&e->w.m, 0x8000), 0x7FF);
}

static void ldtr_and_tr_take_only_their_kind(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 0);
    v->ldtr = (struct segment){0};
    v->regs[REG_AX] = S_LDT;
    RUN_OK(e, 3, 0x0F, 0x00, 0xD0);
    assert_int_equal(v->ldtr.sel, S_LDT);
    assert_int_equal(v->ldtr.base, P_LDT);
    v->regs[REG_AX] = S_DATA0;
    RUN_FAULTS(e, VEC_GP, S_DATA0, 0x0F, 0x00, 0xD0);
    RUN_FAULTS(e, VEC_GP, S_DATA0, 0x0F, 0x00, 0xD8);
    v->regs[REG_AX] = L_DATA3;
    RUN_FAULTS(e, VEC_GP, L_DATA3, 0x0F, 0x00, 0xD0);
    v->regs[REG_AX] = S_END;
    RUN_FAULTS(e, VEC_GP, S_END, 0x0F, 0x00, 0xD0);
    v->regs[REG_AX] = S_TSS_A; /* busy */
    RUN_FAULTS(e, VEC_GP, S_TSS_A, 0x0F, 0x00, 0xD8);
    v->regs[REG_AX] = 0;
    RUN_FAULTS(e, VEC_GP, 0, 0x0F, 0x00, 0xD8);
    RUN_OK(e, 3, 0x0F, 0x00, 0xD0);
    assert_int_equal(v->ldtr.attr, 0);
    v->regs[REG_AX] = S_TSS_B;
    RUN_OK(e, 3, 0x0F, 0x00, 0xD8);
    assert_int_equal(v->tr.base, P_TSS_B);
    assert_int_equal(*flatmem_byte(&e->w.m, P_GDT + S_TSS_B + 5), 0x8B);
    flatmem_put_descriptor(&e->w.m, P_GDT + S_TSS_B, P_TSS_B, 0x67, 0x0009);
    v->regs[REG_AX] = S_TSS_B;
    RUN_FAULTS(e, VEC_NP, S_TSS_B, 0x0F, 0x00, 0xD8);
    /* stored: 16 bits in memory, zero-extended in a register */
    v->regs[REG_AX] = v->regs[REG_CX] = 0xFFFFFFFF;
    v->regs[REG_BX] = 0x8000;
    flatmem_put32(&e->w.m, 0x8000, 0xFFFFFFFF);
    RUN_OK(e, 3, 0x0F, 0x00, 0xC8);
    assert_int_equal(v->regs[REG_AX], S_TSS_B);
    RUN_OK(e, 4, 0x66, 0x0F, 0x00, 0xC9);
    assert_int_equal(v->regs[REG_CX], 0xFFFF0000 | S_TSS_B);
    RUN_OK(e, 3, 0x0F, 0x00, 0x0B);
    assert_int_equal(flatmem_get32(&e->w.m, 0x8000), 0xFFFF0000 | S_TSS_B);
}

/* ---- selectors and far pointers ---- */

static void segment_registers_are_moved(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 0);
    v->regs[REG_AX] = 0xFFFFFFFF;
    RUN_OK(e, 2, 0x8C, 0xC8);
    assert_int_equal(v->regs[REG_AX], S_CODE0);
    v->regs[REG_AX] = S_DATA3 | 3;
    RUN_OK(e, 2, 0x8E, 0xD8);
    assert_int_equal(v->seg[SEG_DS].sel, S_DATA3 | 3);
    assert_int_equal(v->shadow, 0);
    RUN_FAULTS(e, VEC_GP, S_DATA3, 0x8E, 0xD0);
    v->regs[REG_AX] = S_DATA0;
    RUN_OK(e, 2, 0x8E, 0xD0);
    assert_int_equal(v->shadow, 2);
}

static void far_pointers_load_the_segment_before_the_register(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    v->regs[REG_BX] = 0x8000;
    flatmem_put32(&e->w.m, 0x8000, 0x12345678);
    flatmem_put16(&e->w.m, 0x8004, S_READ_ONLY | 3);
    RUN_OK(e, 2, 0xC4, 0x13); /* LES EDX, [EBX] */
    assert_int_equal(v->regs[REG_DX], 0x12345678);
    assert_int_equal(v->seg[SEG_ES].sel, S_READ_ONLY | 3);
    flatmem_put16(&e->w.m, 0x8002, S_DATA3 | 3);
    RUN_OK(e, 4, 0x66, 0x0F, 0xB4, 0x13); /* LFS DX, [EBX] */
    assert_int_equal(v->regs[REG_DX], 0x12345678);
    assert_int_equal(v->seg[SEG_FS].sel, S_DATA3 | 3);
    flatmem_put16(&e->w.m, 0x8004, S_DATA0);
    RUN_FAULTS(e, VEC_GP, S_DATA0, 0xC5, 0x0B);
    RUN_FAULTS(e, VEC_GP, S_DATA0, 0x0F, 0xB2, 0x0B);
    flatmem_fault(&e->w.m, 0x8005, 0x8005, FLATMEM_ANY, true);
    RUN_FAULTS(e, VEC_PF, 5, 0xC5, 0x0B);
}

static void lar_and_lsl_leave_the_register_if_the_selector_is_bad(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    v->regs[REG_AX] = S_DATA3 | 3;
    v->regs[REG_CX] = 0;
    RUN_OK(e, 3, 0x0F, 0x02, 0xC8);
    assert_int_equal(v->regs[REG_CX], 0x00CFF300);
    assert_int_equal(v->host_flags, FLAG_ZF);
    RUN_OK(e, 4, 0x66, 0x0F, 0x03, 0xC8);
    assert_int_equal(v->regs[REG_CX], 0x00CFFFFF);
    v->regs[REG_AX] = S_DATA0;
    v->host_flags = FLAG_ZF | FLAG_CF;
    RUN_OK(e, 3, 0x0F, 0x03, 0xC8);
    assert_int_equal(v->regs[REG_CX], 0x00CFFFFF);
    assert_int_equal(v->host_flags, FLAG_CF);
    v->regs[REG_AX] = S_READ_ONLY | 3;
    RUN_OK(e, 3, 0x0F, 0x00, 0xE0);
    assert_int_equal(v->host_flags, FLAG_CF | FLAG_ZF);
    RUN_OK(e, 3, 0x0F, 0x00, 0xE8);
    assert_int_equal(v->host_flags, FLAG_CF);
}

static void arpl_raises_the_rpl_of_its_destination(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    v->regs[REG_AX] = 0xFFFF0011;
    v->regs[REG_CX] = 3;
    RUN_OK(e, 2, 0x63, 0xC8);
    assert_int_equal(v->regs[REG_AX], 0xFFFF0013);
    assert_int_equal(v->host_flags, FLAG_ZF);
    RUN_OK(e, 2, 0x63, 0xC8);
    assert_int_equal(v->host_flags, 0);
    v->regs[REG_BX] = 0x8000;
    flatmem_put16(&e->w.m, 0x8000, 3); /* nothing to raise: it is not written */
    flatmem_fault(&e->w.m, 0x8000, 0x8000, FLATMEM_WRITE, true);
    RUN_OK(e, 2, 0x63, 0x0B);
    flatmem_put16(&e->w.m, 0x8000, 1);
    RUN_FAULTS(e, VEC_PF, 7, 0x63, 0x0B);
}

static void far_transfers_and_interrupts_take_their_operands(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 0);
    assert_int_equal(RUN(e, 0x9A, 0x78, 0x56, 0x34, 0x92, S_CODE0, 0x00), 0);
    assert_int_equal(v->rip, 0x92345678u);
    assert_int_equal(flatmem_get32(&e->w.m, P_STACK - 8), P_EIP + 7);
    assert_int_equal(RUN(e, 0xCA, 0x10, 0x00), 0);
    assert_int_equal(v->rip, P_EIP + 7);
    assert_int_equal(v->regs[REG_SP], P_STACK + 0x10);
    assert_int_equal(RUN(e, 0x66, 0xEA, 0x34, 0x92, S_CODE0, 0x00), 0);
    assert_int_equal(v->rip, 0x9234);
    v->regs[REG_BX] = 0x8000;
    flatmem_put32(&e->w.m, 0x8000, 0x23456);
    flatmem_put16(&e->w.m, 0x8004, S_CODE0);
    assert_int_equal(RUN(e, 0xFF, 0x2B), 0);
    assert_int_equal(v->rip, 0x23456);
    assert_int_equal(RUN(e, 0xFF, 0x1B), 0);
    assert_int_equal(flatmem_get32(&e->w.m, (uint32_t)v->regs[REG_SP]), 0x23458);

    v = emulator_protected(e, 3);
    protmode_idt(&e->w.m, 0x40, S_CODE0, 0x5000, 0xEE);
    protmode_idt(&e->w.m, 0x20, S_CODE0, 0x5000, 0x8E);
    protmode_idt(&e->w.m, VEC_OF, S_CODE0, 0x5100, 0xEE);
    RUN_FAULTS(e, VEC_GP, 0x20 * 8 + 2, 0xCD, 0x20);
    RUN_OK(e, 1, 0xCE);
    v->rip = P_EIP;
    assert_int_equal(RUN(e, 0xCD, 0x40), 0);
    assert_int_equal(v->rip, 0x5000);
    assert_int_equal(flatmem_get32(&e->w.m, P_STACK0 - 20), P_EIP + 2);
    assert_int_equal(RUN(e, 0xCF), 0);
    assert_int_equal(v->rip, P_EIP + 2);
    assert_int_equal(v->cpl, 3);
    v->host_flags = FLAG_OF;
    assert_int_equal(RUN(e, 0xCE), 0);
    assert_int_equal(v->rip, 0x5100);
}

static void bound_compares_signed_and_faults_at_the_instruction(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    v->regs[REG_BX] = 0x8000;
    flatmem_put32(&e->w.m, 0x8000, (uint32_t)-5);
    flatmem_put32(&e->w.m, 0x8004, 7);
    static const struct {
        int32_t index;
        bool inside;
    } cases[] = {{-5, true}, {7, true}, {0, true}, {-6, false}, {8, false}, {INT32_MIN, false}};
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        v->regs[REG_CX] = (uint32_t)cases[i].index;
        if (cases[i].inside)
            RUN_OK(e, 2, 0x62, 0x0B);
        else
            RUN_FAULTS(e, VEC_BR, -1, 0x62, 0x0B);
    }
}

/* ---- control registers ---- */

static void cr0_refuses_what_makes_no_sense(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 0);
    v->regs[REG_AX] = CR0_PG;
    RUN_FAULTS(e, VEC_GP, 0, 0x0F, 0x22, 0xC0);
    v->regs[REG_AX] = CR0_PE | CR0_NW;
    RUN_FAULTS(e, VEC_GP, 0, 0x0F, 0x22, 0xC0);
    v->regs[REG_AX] = 0xFFFFFFFF;
    v->mode_dirty = false;
    RUN_OK(e, 3, 0x0F, 0x22, 0xC0);
    assert_int_equal(v->cr0, 0xE005003F);
    assert_int_equal(e->w.m.paging_changes, 1);
    assert_true(v->mode_dirty);
    v->regs[REG_AX] = v->cr0 & ~(CR0_TS | CR0_ET);
    RUN_OK(e, 3, 0x0F, 0x22, 0xC0);
    assert_int_equal(v->cr0, 0xE0050037);
    assert_int_equal(e->w.m.paging_changes, 1);
    RUN_OK(e, 3, 0x0F, 0x20, 0xC1);
    assert_int_equal(v->regs[REG_CX], 0xE0050037);
}

static void the_machine_status_word_can_set_pe_but_not_clear_it(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_real(e);
    v->cr0 = 0x60000010 | CR0_TS;
    v->regs[REG_AX] = 0xFFF7;
    RUN_OK(e, 3, 0x0F, 0x01, 0xF0);
    assert_int_equal(v->cr0, 0x60000010 | CR0_PE | CR0_MP | CR0_EM);
    v->regs[REG_AX] = CR0_TS;
    RUN_OK(e, 3, 0x0F, 0x01, 0xF0);
    assert_int_equal(v->cr0, 0x60000010 | CR0_PE | CR0_TS);
    RUN_OK(e, 2, 0x0F, 0x06);
    assert_int_equal(v->cr0, 0x60000010 | CR0_PE);
    v = emulator_protected(e, 3);
    v->cr0 |= CR0_PG | CR0_WP;
    RUN_OK(e, 3, 0x0F, 0x01, 0xE0); /* SMSW EAX */
    assert_int_equal(v->regs[REG_AX], v->cr0);
    v->regs[REG_BX] = 0x8000;
    RUN_OK(e, 3, 0x0F, 0x01, 0x23);
    assert_int_equal(flatmem_get32(&e->w.m, 0x8000), v->cr0 & 0xFFFF);
}

static void pae_loads_the_pdptes_or_nothing_changes(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 0);
    v->cr4 = CR4_PAE;
    v->cr3 = 0x5000;
    v->regs[REG_AX] = v->cr0 | CR0_PG;
    e->w.m.bad_pdptes = true;
    RUN_FAULTS(e, VEC_GP, 0, 0x0F, 0x22, 0xC0);
    e->w.m.bad_pdptes = false;
    RUN_OK(e, 3, 0x0F, 0x22, 0xC0);
    assert_int_equal(v->pdpte[1], 0x5008);
    v->regs[REG_AX] = 0x7000;
    e->w.m.bad_pdptes = true;
    RUN_FAULTS(e, VEC_GP, 0, 0x0F, 0x22, 0xD8);
    e->w.m.bad_pdptes = false;
    RUN_OK(e, 3, 0x0F, 0x22, 0xD8);
    assert_int_equal(v->cr3, 0x7000);
    assert_int_equal(v->pdpte[0], 0x7000);
    assert_int_equal(e->w.m.paging_changes, 2);
    RUN_OK(e, 3, 0x0F, 0x22, 0xD8); /* the same CR3 again is a flush */
    assert_int_equal(e->w.m.paging_changes, 3);
}

static void cr4_has_the_bits_of_the_models_features(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 0);
    static const struct {
        uint32_t bit;
        uint8_t feature;
    } rows[] = {
        {CR4_VME, F_VME}, {CR4_TSD, F_TSC},        {CR4_PSE, F_PSE},       {CR4_PAE, F_PAE},
        {CR4_PGE, F_PGE}, {CR4_OSFXSR, F_FXSR},    {CR4_MCE, F_MCE},       {1u << 20, F_SMEP},
        {1u << 13, F_LM}, {CR4_OSXMMEXCPT, F_SSE}, {CR4_OSXSAVE, F_XSAVE},
    };
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        v->regs[REG_AX] = rows[i].bit;
        if (cpuid_has(&e->model, rows[i].feature)) {
            RUN_OK(e, 3, 0x0F, 0x22, 0xE0);
            assert_int_equal(v->cr4, rows[i].bit);
        } else {
            RUN_FAULTS(e, VEC_GP, 0, 0x0F, 0x22, 0xE0);
        }
    }
    assert_false(cpuid_has(&e->model, F_VME));
}

static void invlpg_names_a_linear_address_without_a_limit_check(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 0);
    v->seg[SEG_DS].base = 0x1000;
    v->seg[SEG_DS].limit = 0;
    v->regs[REG_BX] = 0x8000;
    RUN_OK(e, 3, 0x0F, 0x01, 0x3B);
    assert_int_equal(e->w.m.invlpg_gva, 0x9000);
}

static void debug_registers_have_fixed_bits_aliases_and_a_guard(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 0);
    v->regs[REG_AX] = 0xFFFFFFFF;
    RUN_OK(e, 3, 0x0F, 0x23, 0xF0);
    assert_int_equal(v->dr[6], 0xFFFFEFFF);
    v->regs[REG_AX] = 0;
    RUN_OK(e, 3, 0x0F, 0x23, 0xE0); /* DR4 is DR6 */
    assert_int_equal(v->dr[6], 0xFFFF0FF0);
    v->cr4 = CR4_DE;
    RUN_FAULTS(e, VEC_UD, -1, 0x0F, 0x23, 0xE0);
    RUN_FAULTS(e, VEC_UD, -1, 0x0F, 0x21, 0xE8);
    v->regs[REG_AX] = 0xFFFFDFFF;
    RUN_OK(e, 3, 0x0F, 0x23, 0xF8);
    assert_int_equal(v->dr[7], 0xFFFF07FF);
    v->dr[7] |= 1u << 13;
    RUN_FAULTS(e, VEC_DB, -1, 0x0F, 0x21, 0xC0);
    assert_int_equal(v->dr[6], 0xFFFF2FF0);
}

/* ---- MSRs, time ---- */

static void set_msr(struct vcpu *v, uint32_t index, uint64_t value)
{
    v->regs[REG_CX] = index;
    v->regs[REG_AX] = (uint32_t)value;
    v->regs[REG_DX] = value >> 32;
}

static void msrs_exist_with_their_feature_and_check_their_value(void **state)
{
    static const struct {
        uint32_t index;
        uint8_t feature;
        uint64_t good, bad; /* bad 0: there is none */
        uint64_t mask;      /* what can be read back */
    } rows[] = {
        {0x174, F_SEP, 0x60, 0, 0xFFFFFFFF},
        {0x175, F_SEP, 0x1FFFFFFFF, 0, 0xFFFFFFFF},
        {0x176, F_SEP, 0xC0100000, 0, 0xFFFFFFFF},
        {0x277, F_PAT, 0x0007010600070106, 0x0002010600070106, ~0ull},
        {0xC0000080, F_NX, EFER_NXE, EFER_NXE | 1, ~0ull},
        {0xC0000080, F_NX, 0, 1u << 8, ~0ull},
        {0xC0000103, F_RDTSCP, 0x12345678, 1ull << 32, ~0ull},
        {0x1B, F_APIC, 0xFEE00800, ~0ull, ~0ull},
        {0x2FF, F_MTRR, 0xC06, 0x1C06, ~0ull},
        {0x200, F_MTRR, 0x80000006, 0x80000002, ~0ull},
        {0x48, F_SPEC_CTRL, 1, 8, ~0ull},
        {0x12345, F_LM, 0, 0, 0}, /* nothing has it */
    };
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 0);
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        set_msr(v, rows[i].index, rows[i].good);
        if (!cpuid_has(&e->model, rows[i].feature)) {
            RUN_FAULTS(e, VEC_GP, 0, 0x0F, 0x30);
            RUN_FAULTS(e, VEC_GP, 0, 0x0F, 0x32);
            continue;
        }
        RUN_OK(e, 2, 0x0F, 0x30);
        if (rows[i].bad) {
            set_msr(v, rows[i].index, rows[i].bad);
            RUN_FAULTS(e, VEC_GP, 0, 0x0F, 0x30);
        }
        set_msr(v, rows[i].index, 0x5555);
        RUN_OK(e, 2, 0x0F, 0x32);
        assert_int_equal(v->regs[REG_DX] << 32 | v->regs[REG_AX], rows[i].good & rows[i].mask);
    }
}

static void efer_nxe_tells_the_mmu(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 0);
    if (!cpuid_has(&e->model, F_NX))
        skip();
    set_msr(v, 0xC0000080, EFER_NXE);
    RUN_OK(e, 2, 0x0F, 0x30);
    assert_int_equal(e->w.m.paging_changes, 1);
    RUN_OK(e, 2, 0x0F, 0x30);
    assert_int_equal(e->w.m.paging_changes, 1);
}

static void the_time_stamp_counter_can_be_set_and_reserved(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 0);
    set_msr(v, 0x10, 0x123456789A);
    RUN_OK(e, 2, 0x0F, 0x30);
    v->msr.tsc_aux = 0x77;
    RUN_OK(e, 3, 0x0F, 0x01, 0xF9);
    uint64_t now = v->regs[REG_DX] << 32 | v->regs[REG_AX];
    assert_true(now >= 0x123456789A && now - 0x123456789A < 1ull << 32);
    assert_int_equal(v->regs[REG_CX], 0x77);
    v = emulator_protected(e, 3);
    RUN_OK(e, 2, 0x0F, 0x31);
    v->cr4 = CR4_TSD;
    RUN_FAULTS(e, VEC_GP, 0, 0x0F, 0x31);
    RUN_FAULTS(e, VEC_GP, 0, 0x0F, 0x01, 0xF9);
}

/* ---- interrupt flag, HLT, ports ---- */

static void cli_and_sti_obey_iopl_and_sti_casts_a_shadow(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    v->sys_flags = 3u << 12;
    RUN_OK(e, 1, 0xFB);
    assert_int_equal(v->sys_flags, FLAG_IF | 3u << 12);
    assert_int_equal(v->shadow, 1);
    v->shadow = 0;
    RUN_OK(e, 1, 0xFB);
    assert_int_equal(v->shadow, 0);
    RUN_OK(e, 1, 0xFA);
    assert_int_equal(v->sys_flags, 3u << 12);
    v = emulator_v86(e, 3);
    RUN_OK(e, 1, 0xFA);
    assert_int_equal(v->sys_flags, FLAG_VM | FLAG_IOPL);
}

static void hlt_stops_behind_itself(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 0);
    RUN_OK(e, 1, 0xF4);
    assert_true(v->halted);
}

static void ports_are_read_and_written_in_every_size(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 0);
    v->regs[REG_AX] = 0x11223344;
    v->regs[REG_DX] = 0xFFFF1234;
    e->ports.value = 0xAABBCCDD;
    RUN_OK(e, 2, 0xE4, 0xF0);
    assert_int_equal(e->ports.port, 0xF0);
    assert_int_equal(v->regs[REG_AX], 0x112233DD);
    RUN_OK(e, 2, 0x66, 0xED);
    assert_int_equal(e->ports.port, 0x1234);
    assert_int_equal(v->regs[REG_AX], 0x1122CCDE);
    RUN_OK(e, 1, 0xED);
    assert_int_equal(v->regs[REG_AX], 0xAABBCCDF);
    RUN_OK(e, 1, 0xEE);
    assert_int_equal(e->ports.size, 1);
    assert_int_equal(e->ports.value, 0xDF);
    RUN_OK(e, 2, 0xE7, 0x80);
    assert_int_equal(e->ports.port, 0x80);
    assert_int_equal(e->ports.value, 0xAABBCCDF);
    assert_true(e->ports.parked);
}

static void ports_are_guarded_by_iopl_and_the_bitmap(void **state)
{
    enum { MAP = 0x68, PORT = 0x3F8 };
    struct emulator *e = *state;
    for (unsigned v86 = 0; v86 < 2; v86++) {
        struct vcpu *v = v86 ? emulator_v86(e, 3) : emulator_protected(e, 3);
        v->regs[REG_DX] = PORT;
        v->tr.limit = 0x2000;
        flatmem_put16(&e->w.m, P_TSS_A + 102, MAP);
        RUN_OK(e, 1, 0xEC);
        *flatmem_byte(&e->w.m, P_TSS_A + MAP + PORT / 8) = 0x02;
        RUN_OK(e, 1, 0xEC);
        RUN_FAULTS(e, VEC_GP, 0, 0xED);
        RUN_FAULTS(e, VEC_GP, 0, 0xEF);
        /* an access over the byte's end looks at the next one */
        v->regs[REG_DX] = PORT + 7;
        *flatmem_byte(&e->w.m, P_TSS_A + MAP + PORT / 8 + 1) = 0x01;
        RUN_OK(e, 1, 0xEC);
        RUN_FAULTS(e, VEC_GP, 0, 0xED);
        /* beyond the limit, with the byte after the last that is looked at */
        v->tr.limit = MAP + PORT / 8;
        RUN_FAULTS(e, VEC_GP, 0, 0xEC);
        v->tr.limit++;
        RUN_OK(e, 1, 0xEC);
        v->tr.limit = 102;
        RUN_FAULTS(e, VEC_GP, 0, 0xEC);
        v->tr.limit = 0x2000;
        v->tr.attr = 0x83; /* a 16-bit TSS has no bitmap */
        RUN_FAULTS(e, VEC_GP, 0, 0xEC);
        v->sys_flags |= FLAG_IOPL;
        if (v86)
            RUN_FAULTS(e, VEC_GP, 0, 0xEC);
        else
            RUN_OK(e, 1, 0xEC);
    }
    struct vcpu *v = emulator_protected(e, 3);
    v->regs[REG_DX] = PORT;
    flatmem_put16(&e->w.m, P_TSS_A + 102, 0x8000);
    v->tr.limit = 0xFFFF;
    flatmem_fault(&e->w.m, P_TSS_A + 0x8000, P_TSS_A + 0x9000, FLATMEM_SUPER_READ, false);
    RUN_FAULTS(e, VEC_PF, 0, 0xEC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(privileged_instructions_fault_outside_ring_0),
        TEST(undefined_instructions_are_undefined_in_every_ring),
        TEST(selector_instructions_do_not_exist_in_real_and_virtual_8086_mode),
        TEST(descriptor_table_registers_are_stored_for_everyone_and_loaded_by_ring_0),
        TEST(ldtr_and_tr_take_only_their_kind),
        TEST(segment_registers_are_moved),
        TEST(far_pointers_load_the_segment_before_the_register),
        TEST(lar_and_lsl_leave_the_register_if_the_selector_is_bad),
        TEST(arpl_raises_the_rpl_of_its_destination),
        TEST(far_transfers_and_interrupts_take_their_operands),
        TEST(bound_compares_signed_and_faults_at_the_instruction),
        TEST(cr0_refuses_what_makes_no_sense),
        TEST(the_machine_status_word_can_set_pe_but_not_clear_it),
        TEST(pae_loads_the_pdptes_or_nothing_changes),
        TEST(cr4_has_the_bits_of_the_models_features),
        TEST(invlpg_names_a_linear_address_without_a_limit_check),
        TEST(debug_registers_have_fixed_bits_aliases_and_a_guard),
        TEST(msrs_exist_with_their_feature_and_check_their_value),
        TEST(efer_nxe_tells_the_mmu),
        TEST(the_time_stamp_counter_can_be_set_and_reserved),
        TEST(cli_and_sti_obey_iopl_and_sti_casts_a_shadow),
        TEST(hlt_stops_behind_itself),
        TEST(ports_are_read_and_written_in_every_size),
        TEST(ports_are_guarded_by_iopl_and_the_bitmap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
