/*
 * Far JMP, CALL, RET, IRET, SYSENTER and SYSEXIT and the task switches they make: where they lead,
 * what they push and pop, and every check with its vector and error code.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cpu/emulate.h"
#include "cpu/transfer.h"
#include "protmode.h"

#define TEST(f) cmocka_unit_test_setup_teardown(f, world_setup, world_teardown)

/* GATE_DPL2 in an expected error code: S_CALL32 is made DPL 2, without parameters. */
enum { OK = -1, NEXT = P_EIP + 7, GATE_DPL2 = 0x10000 };

/* Checks the outcome of a transfer, and that a fault changed nothing. */
static void check(struct world *w, unsigned i, int result, int vector, uint32_t error)
{
    int got = result == 0 ? OK : w->v.exc.vector;
    if (got != vector || (result == FAULT && w->v.exc.error != error))
        fail_msg("case %u gives vector %d error %x", i, got, w->v.exc.error);
    if (result == FAULT && !protmode_same_state(&w->v, &w->before))
        fail_msg("case %u changes state", i);
}

static void jmp_and_call_are_checked(void **state)
{
    static const struct {
        uint16_t sel;
        unsigned cpl;
        int jmp, call; /* OK or a vector */
        uint32_t error;
        uint32_t offset; /* 0: 1000h */
    } cases[] = {
        {0, 0, VEC_GP, VEC_GP, 0, 0},
        {3, 0, VEC_GP, VEC_GP, 0, 0},
        {S_END, 0, VEC_GP, VEC_GP, S_END, 0},
        {S_CODE0, 0, OK, OK, 0, 0},
        {S_CODE0 | 1, 0, VEC_GP, VEC_GP, S_CODE0, 0},
        {S_CODE0, 3, VEC_GP, VEC_GP, S_CODE0, 0},
        {S_CODE3, 0, VEC_GP, VEC_GP, S_CODE3, 0},
        {S_CODE3, 3, OK, OK, 0, 0},
        {S_CODE3 | 3, 3, OK, OK, 0, 0},
        {S_CONFORMING, 3, OK, OK, 0, 0},
        {S_CONFORMING | 3, 0, OK, OK, 0, 0},
        {S_EXEC_ONLY | 3, 3, OK, OK, 0, 0},
        {S_DATA3 | 3, 3, VEC_GP, VEC_GP, S_DATA3, 0},
        {S_LDT, 0, VEC_GP, VEC_GP, S_LDT, 0},
        {S_ABSENT_CODE, 0, VEC_NP, VEC_NP, S_ABSENT_CODE, 0},
        {S_ABSENT_CODE, 3, VEC_GP, VEC_GP, S_ABSENT_CODE, 0},
        {S_SHORT, 0, OK, OK, 0, 0xFFF},
        {S_SHORT, 0, VEC_GP, VEC_GP, 0, 0x1000},
        {L_CODE3 | 3, 3, OK, OK, 0, 0},
        {S_CALL32 | 3, 0, VEC_GP, VEC_GP, S_CALL32 | GATE_DPL2, 0},
        {S_CALL32, 0, OK, OK, 0, 0},
        {S_CALL32 | 3, 3, VEC_GP, OK, S_CODE0, 0},
        {S_CALL_DPL0, 3, VEC_GP, VEC_GP, S_CALL_DPL0, 0},
        {S_CALL_DPL0, 0, OK, OK, 0, 0},
        {S_CALL_ABSENT, 3, VEC_NP, VEC_NP, S_CALL_ABSENT, 0},
        {S_CALL_CONFORMING, 3, OK, OK, 0, 0},
        {S_TSS_A, 0, VEC_GP, VEC_GP, S_TSS_A, 0}, /* busy */
        {S_TSS_B, 3, VEC_GP, VEC_GP, S_TSS_B, 0},
        {S_TSS_B | 1, 0, VEC_GP, VEC_GP, S_TSS_B, 0},
    };
    struct world *w = *state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        for (unsigned call = 0; call < 2; call++) {
            uint32_t offset = cases[i].offset ? cases[i].offset : 0x1000;
            protmode_init(&w->m, &w->v, cases[i].cpl);
            if (cases[i].error & GATE_DPL2)
                flatmem_put_gate(&w->m, P_GDT + S_CALL32, S_CODE0, 0x12345, 0xCC, 0);
            w->before = w->v;
            int r = call ? transfer_call_far(&w->v, cases[i].sel, offset, 4, NEXT)
                         : transfer_jmp_far(&w->v, cases[i].sel, offset, 4, NEXT);
            check(w, i, r, call ? cases[i].call : cases[i].jmp, cases[i].error & 0xFFFF);
        }
    }
}

static void a_direct_call_pushes_and_keeps_the_ring(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    protmode_init(&w->m, v, 3);
    assert_int_equal(transfer_call_far(v, S_CONFORMING, 0xABCD1234, 4, NEXT), 0);
    assert_int_equal(v->seg[SEG_CS].sel, S_CONFORMING | 3);
    assert_int_equal(v->cpl, 3);
    assert_int_equal(v->rip, 0xABCD1234);
    assert_int_equal(v->regs[REG_SP], P_STACK - 8);
    assert_int_equal(flatmem_get32(&w->m, P_STACK - 8), NEXT);
    assert_int_equal(flatmem_get32(&w->m, P_STACK - 4), S_CODE3 | 3);

    protmode_init(&w->m, v, 0);
    protmode_gdt(&w->m, S_SHORT, 0, 0xFFF, 0x409A);
    assert_int_equal(transfer_call_far(v, S_SHORT, 0xABCD0234, 2, NEXT), 0);
    assert_int_equal(v->rip, 0x234);
    assert_int_equal(v->regs[REG_SP], P_STACK - 4);
    assert_int_equal(flatmem_get16(&w->m, P_STACK - 4), NEXT & 0xFFFF);
    assert_int_equal(flatmem_get16(&w->m, P_STACK - 2), S_CODE0);
    assert_int_equal(v->seg[SEG_CS].attr, 0x409B);
    assert_int_equal(flatmem_get32(&w->m, P_GDT + S_SHORT + 4), 0x00409B00);

    /* alignment */
    protmode_init(&w->m, v, 3);
    v->cr0 |= CR0_AM;
    v->sys_flags |= FLAG_AC;
    v->regs[REG_SP]++;
    w->before = *v;
    check(w, 2, transfer_call_far(v, S_CODE3, 0x1000, 4, NEXT), VEC_AC, 0);
    check(w, 3, transfer_ret_far(v, 4, 0), VEC_AC, 0);

    /* a stack without room, and one that is not mapped */
    protmode_init(&w->m, v, 3);
    v->seg[SEG_SS].limit = P_STACK - 2;
    w->before = *v;
    check(w, 0, transfer_call_far(v, S_CODE3, 0x1000, 4, NEXT), VEC_SS, 0);
    protmode_init(&w->m, v, 3);
    flatmem_fault(&w->m, P_STACK - 8, P_STACK - 8, FLATMEM_USER, true);
    w->before = *v;
    check(w, 1, transfer_call_far(v, S_CODE3, 0x1000, 4, NEXT), VEC_PF, 7);
}

static void a_call_gate_changes_stacks_and_copies_parameters(void **state)
{
    static const uint32_t frame[] = {NEXT,       S_CODE3 | 3, 0x11111111,
                                     0x22222222, P_STACK,     S_DATA3 | 3};
    struct world *w = *state;
    struct vcpu *v = &w->v;
    protmode_init(&w->m, v, 3);
    flatmem_put32(&w->m, P_STACK, 0x11111111);
    flatmem_put32(&w->m, P_STACK + 4, 0x22222222);
    flatmem_fault(&w->m, P_STACK0 - 0x1000, P_STACK0, FLATMEM_USER, true);
    flatmem_fault(&w->m, P_STACK, P_STACK + 8, FLATMEM_SUPER_READ, true); /* read as CPL 3 */
    vcpu_set_eflags(v, FLAG_IF | FLAG_NT | FLAG_TF);
    assert_int_equal(transfer_call_far(v, S_CALL32 | 3, 0xDEADBEEF, 4, NEXT), 0);
    assert_int_equal(v->cpl, 0);
    assert_int_equal(v->seg[SEG_CS].sel, S_CODE0);
    assert_int_equal(v->seg[SEG_SS].sel, S_DATA0);
    assert_int_equal(v->rip, 0x12345);
    assert_int_equal(v->regs[REG_SP], P_STACK0 - 24);
    assert_int_equal(vcpu_eflags(v), FLAG_IF | FLAG_NT | FLAG_TF | 2);
    for (unsigned i = 0; i < ARRAY_LEN(frame); i++)
        assert_int_equal(flatmem_get32(&w->m, P_STACK0 - 24 + 4 * i), frame[i]);

    /* and back: RET 8 */
    v->cpl = 0;
    w->m.faults = 0;
    protmode_segment(v, SEG_DS, S_DATA0);
    assert_int_equal(transfer_ret_far(v, 4, 8), 0);
    assert_int_equal(v->cpl, 3);
    assert_int_equal(v->rip, NEXT);
    assert_int_equal(v->seg[SEG_SS].sel, S_DATA3 | 3);
    assert_int_equal(v->regs[REG_SP], P_STACK + 8);
    assert_int_equal(v->seg[SEG_DS].sel, 0);
    assert_int_equal(v->seg[SEG_DS].attr, 0);
    assert_int_equal(v->seg[SEG_ES].sel, S_DATA3 | 3);
}

static void a_16_bit_call_gate_works_in_words(void **state)
{
    static const uint16_t frame[] = {NEXT & 0xFFFF, S_CODE3 | 3, 0x5678, P_STACK & 0xFFFF,
                                     S_DATA3 | 3};
    struct world *w = *state;
    struct vcpu *v = &w->v;
    protmode_init(&w->m, v, 3);
    flatmem_put32(&w->m, P_STACK, 0x12345678);
    flatmem_put32(&w->m, P_TSS_A + 4, 0xABCD0800);
    flatmem_put16(&w->m, P_TSS_A + 8, S_DATA16);
    assert_int_equal(transfer_call_far(v, S_CALL16 | 3, 0, 4, NEXT), 0);
    assert_int_equal(v->seg[SEG_CS].sel, S_CODE16);
    assert_int_equal(v->rip, 0x1234);
    assert_int_equal(v->regs[REG_SP], 0xABCD07F6);
    for (unsigned i = 0; i < ARRAY_LEN(frame); i++)
        assert_int_equal(flatmem_get16(&w->m, 0x607F6 + 2 * i), frame[i]);
}

static void checks_of_the_inner_stack_of_a_call(void **state)
{
    static const struct {
        uint16_t ss;
        uint32_t esp, tss_limit;
        int vector;
        uint32_t error;
    } cases[] = {
        {S_DATA0, P_STACK0, 9, OK, 0},
        {S_DATA0, P_STACK0, 8, VEC_TS, S_TSS_A},
        {0, P_STACK0, 0x67, VEC_TS, 0},
        {S_END, P_STACK0, 0x67, VEC_TS, S_END},
        {S_DATA0 | 2, P_STACK0, 0x67, VEC_TS, S_DATA0},
        {S_DATA1, P_STACK0, 0x67, VEC_TS, S_DATA1},
        {S_CODE0, P_STACK0, 0x67, VEC_TS, S_CODE0},
        {S_ABSENT_STACK, P_STACK0, 0x67, VEC_SS, S_ABSENT_STACK},
        {S_DATA16, 24, 0x67, OK, 0},
        {S_DATA16, 22, 0x67, VEC_SS, S_DATA16}, /* 32-bit parts that straddle 64K */
    };
    struct world *w = *state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        protmode_init(&w->m, &w->v, 3);
        w->v.tr.limit = cases[i].tss_limit;
        flatmem_put32(&w->m, P_TSS_A + 4, cases[i].esp);
        flatmem_put16(&w->m, P_TSS_A + 8, cases[i].ss);
        w->before = w->v;
        int r = transfer_call_far(&w->v, S_CALL32 | 3, 0, 4, NEXT);
        check(w, i, r, cases[i].vector, cases[i].error);
    }
    /* parameters that lie beyond the old stack's limit */
    protmode_init(&w->m, &w->v, 3);
    w->v.seg[SEG_SS].limit = P_STACK + 6;
    w->before = w->v;
    check(w, 100, transfer_call_far(&w->v, S_CALL32 | 3, 0, 4, NEXT), VEC_SS, 0);
    assert_int_equal(flatmem_get32(&w->m, P_STACK0 - 4), 0);
}

static void push32(struct world *w, uint32_t value)
{
    w->v.regs[REG_SP] -= 4;
    flatmem_put32(&w->m, w->v.seg[SEG_SS].base + vcpu_reg32(&w->v, REG_SP), value);
}

static void ret_and_iret_are_checked(void **state)
{
    static const struct {
        unsigned cpl;
        uint16_t cs, ss; /* ss: where an outer ring is gone to */
        int vector;
        uint32_t error;
        uint32_t eip;
    } cases[] = {
        {0, S_CODE0, 0, OK, 0, 0},
        {0, 0, 0, VEC_GP, 0, 0},
        {0, S_END, 0, VEC_GP, S_END, 0},
        {0, S_DATA0, 0, VEC_GP, S_DATA0, 0},
        {0, S_TSS_B, 0, VEC_GP, S_TSS_B, 0},
        {3, S_CODE0, 0, VEC_GP, S_CODE0, 0},
        {3, S_CODE3, 0, VEC_GP, S_CODE3, 0},
        {3, S_CODE3 | 3, 0, OK, 0, 0},
        {0, S_CODE3, 0, VEC_GP, S_CODE3, 0},
        {0, S_CODE0 | 3, S_DATA3 | 3, VEC_GP, S_CODE0, 0},
        {0, S_CODE3 | 3, S_DATA3 | 3, OK, 0, 0},
        {0, S_CODE1 | 1, S_DATA1 | 1, OK, 0, 0},
        {0, S_CONFORMING | 3, S_DATA3 | 3, OK, 0, 0},
        {0, S_CODE3 | 3, 0, VEC_GP, 0, 0},
        {0, S_CODE3 | 3, S_END, VEC_GP, S_END, 0},
        {0, S_CODE3 | 3, S_DATA3, VEC_GP, S_DATA3, 0},
        {0, S_CODE3 | 3, S_DATA1 | 3, VEC_GP, S_DATA1, 0},
        {0, S_CODE3 | 3, S_READ_ONLY | 3, VEC_GP, S_READ_ONLY, 0},
        {0, S_CODE3 | 3, S_ABSENT_DATA | 3, VEC_SS, S_ABSENT_DATA, 0},
        {0, S_ABSENT_CODE, 0, VEC_NP, S_ABSENT_CODE, 0},
        {0, S_ABSENT_CODE3 | 3, S_END, VEC_NP, S_ABSENT_CODE3, 0},
        {0, S_SHORT, 0, VEC_GP, 0, 0x1000},
        {0, S_SHORT, 0, OK, 0, 0xFFF},
        {3, L_CODE3 | 3, 0, OK, 0, 0},
    };
    struct world *w = *state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        for (unsigned iret = 0; iret < 2; iret++) {
            protmode_init(&w->m, &w->v, cases[i].cpl);
            push32(w, cases[i].ss);
            push32(w, 0x2000);
            if (iret)
                push32(w, 2);
            push32(w, cases[i].cs);
            push32(w, cases[i].eip);
            w->before = w->v;
            int r = iret ? transfer_iret(&w->v, 4, NEXT) : transfer_ret_far(&w->v, 4, 0);
            check(w, i, r, cases[i].vector, cases[i].error);
            if (r == 0) {
                assert_int_equal(w->v.cpl, cases[i].cs & 3);
                assert_int_equal(w->v.regs[REG_SP], cases[i].ss ? 0x2000 : P_STACK - 8);
            }
            /* one byte of the frame beyond the limit */
            protmode_init(&w->m, &w->v, cases[i].cpl);
            w->v.regs[REG_SP] = P_STACK - (iret ? 12 : 8);
            w->v.seg[SEG_SS].limit = P_STACK - 2;
            w->before = w->v;
            r = iret ? transfer_iret(&w->v, 4, NEXT) : transfer_ret_far(&w->v, 4, 0);
            check(w, 1000 + i, r, VEC_SS, 0);
        }
    }
}

static void iret_to_a_16_bit_stack_keeps_the_upper_half_of_esp(void **state)
{
    struct world *w = *state;
    protmode_init(&w->m, &w->v, 0);
    push32(w, S_DATA16_3 | 3);
    push32(w, 0x11112222);
    push32(w, 2);
    push32(w, S_CODE3 | 3);
    push32(w, 0x1000);
    assert_int_equal(transfer_iret(&w->v, 4, NEXT), 0);
    assert_int_equal(w->v.regs[REG_SP], (P_STACK & 0xFFFF0000) - 0x10000 + 0x2222);
    assert_int_equal(w->v.seg[SEG_SS].base, 0x60000);
}

static void iret_changes_the_flags_that_cpl_and_iopl_allow(void **state)
{
    enum { ALL = 0x3F7FD5 & ~(FLAG_VM | FLAG_NT), USER = FLAGS_ARITH | FLAG_DF | FLAG_TF };
    static const struct {
        unsigned cpl, iopl, opsize;
        uint32_t set;
    } cases[] = {
        {0, 0, 4, ALL},
        {0, 3, 4, ALL},
        {1, 0, 4, USER | FLAG_RF | FLAG_AC | FLAG_ID},
        {1, 1, 4, USER | FLAG_RF | FLAG_AC | FLAG_ID | FLAG_IF},
        {3, 2, 4, USER | FLAG_RF | FLAG_AC | FLAG_ID},
        {3, 3, 4, USER | FLAG_RF | FLAG_AC | FLAG_ID | FLAG_IF},
        {0, 0, 2, USER | FLAG_IF | FLAG_IOPL},
        {3, 0, 2, USER},
        {3, 3, 2, USER | FLAG_IF},
    };
    struct world *w = *state;
    struct vcpu *v = &w->v;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        for (unsigned up = 0; up < 2; up++) {
            uint32_t iopl = cases[i].iopl << FLAG_IOPL_SHIFT;
            protmode_init(&w->m, v, cases[i].cpl);
            uint16_t cs = v->seg[SEG_CS].sel;
            uint32_t popped = up ? ALL : 0, old = (up ? 0 : ALL & ~(uint32_t)FLAG_IOPL) | iopl;
            vcpu_set_eflags(v, old);
            if (cases[i].opsize == 4) {
                push32(w, popped);
                push32(w, cs);
                push32(w, 0x1000);
            } else {
                push32(w, popped << 16 | cs);
                push32(w, 0x10000000);
                v->regs[REG_SP] += 2;
            }
            assert_int_equal(transfer_iret(v, cases[i].opsize, NEXT), 0);
            uint32_t expected = (old & ~(cases[i].set | FLAG_RF)) | (popped & cases[i].set) | 2;
            if (vcpu_eflags(v) != expected)
                fail_msg("case %u: %x for %x", i, vcpu_eflags(v), expected);
            assert_int_equal(v->rip, 0x1000);
        }
    }
}

static void iret_enters_virtual_8086_mode_from_ring_0_only(void **state)
{
    static const uint32_t frame[] = {0x6000, 0x5000, 0x3000, 0x4000, 0x2000, 0x800};
    struct world *w = *state;
    struct vcpu *v = &w->v;
    uint32_t flags = FLAG_VM | FLAG_IF | FLAG_IOPL | FLAG_ZF | FLAG_VIF;
    for (unsigned cpl = 0; cpl < 2; cpl++) {
        protmode_init(&w->m, v, cpl);
        for (unsigned i = 0; i < ARRAY_LEN(frame); i++)
            push32(w, frame[i]);
        push32(w, flags);
        push32(w, cpl ? S_CODE1 | 1 : 0x1000);
        push32(w, 0x100);
        assert_int_equal(transfer_iret(v, 4, NEXT), 0);
        assert_int_equal(v->rip, 0x100);
        if (cpl) {
            assert_false(vcpu_v86(v));
            continue;
        }
        assert_int_equal(vcpu_eflags(v), flags | 2);
        assert_int_equal(v->cpl, 3);
        static const uint16_t sel[] = {0x4000, 0x1000, 0x2000, 0x3000, 0x5000, 0x6000};
        for (unsigned i = 0; i < SEG_COUNT; i++) {
            assert_int_equal(v->seg[i].sel, sel[i]);
            assert_int_equal(v->seg[i].base, sel[i] * 16);
            assert_int_equal(v->seg[i].limit, 0xFFFF);
            assert_int_equal(v->seg[i].attr, 0xF3);
        }
        assert_int_equal(v->regs[REG_SP], 0x800);
    }
    protmode_init(&w->m, v, 0);
    for (unsigned i = 0; i < ARRAY_LEN(frame); i++)
        push32(w, frame[i]);
    push32(w, flags);
    push32(w, 0x1000);
    push32(w, 0x10000);
    w->before = *v;
    check(w, 0, transfer_iret(v, 4, NEXT), VEC_GP, 0);
}

static void iret_in_virtual_8086_mode_needs_iopl_3_and_keeps_iopl(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    protmode_v86(&w->m, v, 2);
    v->nmi_blocked = true;
    w->before = *v;
    check(w, 0, transfer_iret(v, 2, NEXT), VEC_GP, 0);
    assert_false(v->nmi_blocked); /* all the same */
    protmode_v86(&w->m, v, 3);
    flatmem_put16(&w->m, 0x20800, 0x1111);
    flatmem_put16(&w->m, 0x20802, 0x2222);
    flatmem_put16(&w->m, 0x20804, FLAG_CF | FLAG_NT);
    assert_int_equal(transfer_iret(v, 2, NEXT), 0);
    assert_int_equal(v->rip, 0x1111);
    assert_int_equal(v->seg[SEG_CS].base, 0x22220);
    assert_int_equal(v->regs[REG_SP], 0x806);
    assert_int_equal(vcpu_eflags(v), FLAG_VM | FLAG_IOPL | FLAG_CF | FLAG_NT | 2);
    assert_int_equal(v->cpl, 3);
}

static void real_mode_transfers_go_to_16_times_the_selector(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    protmode_real(&w->m, v);
    assert_int_equal(transfer_call_far(v, 0x2345, 0xFFFF0010, 2, 0x105), 0);
    assert_int_equal(v->seg[SEG_CS].base, 0x23450);
    assert_int_equal(v->rip, 0x10);
    assert_int_equal(v->regs[REG_SP], 0x7FC);
    assert_int_equal(flatmem_get32(&w->m, 0x207FC), 0x10000105);
    assert_int_equal(transfer_ret_far(v, 2, 6), 0);
    assert_int_equal(v->seg[SEG_CS].base, 0x10000);
    assert_int_equal(v->rip, 0x105);
    assert_int_equal(v->regs[REG_SP], 0x806);
    w->before = *v;
    check(w, 0, transfer_jmp_far(v, 0x2345, 0x10000, 4, 0x105), VEC_GP, 0);
    assert_int_equal(transfer_jmp_far(v, 0x2345, 0x10000, 2, 0x105), 0);
    assert_int_equal(v->rip, 0);
    v->regs[REG_SP] = 1;
    w->before = *v;
    check(w, 1, transfer_call_far(v, 0x2345, 0, 2, 0x105), VEC_SS, 0);
    v->regs[REG_SP] = 0xFFFD;
    w->before = *v;
    check(w, 2, transfer_iret(v, 2, 0x105), VEC_SS, 0);

    v->regs[REG_SP] = 0x800;
    flatmem_put32(&w->m, 0x20800, 0x1000);
    flatmem_put32(&w->m, 0x20804, 0x3000);
    flatmem_put32(&w->m, 0x20808, 0x3F7FD7);
    assert_int_equal(transfer_iret(v, 4, 0x105), 0);
    assert_int_equal(vcpu_eflags(v), 0x257FD7);
    assert_int_equal(v->seg[SEG_CS].sel, 0x3000);
}

static void sysenter_and_sysexit_make_flat_segments(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    protmode_init(&w->m, v, 3);
    w->before = *v;
    check(w, 0, transfer_sysenter(v), VEC_GP, 0);
    v->msr.sysenter_cs = 0x63;
    v->msr.sysenter_esp = 0x8000;
    v->msr.sysenter_eip = 0x9000;
    check(w, 1, transfer_sysexit(v), VEC_GP, 0);
    vcpu_set_eflags(v, FLAG_IF | FLAG_TF | FLAG_ZF);
    assert_int_equal(transfer_sysenter(v), 0);
    assert_int_equal(v->seg[SEG_CS].sel, 0x60);
    assert_int_equal(v->seg[SEG_CS].attr, 0xC09B);
    assert_int_equal(v->seg[SEG_CS].limit, 0xFFFFFFFF);
    assert_int_equal(v->seg[SEG_SS].sel, 0x68);
    assert_int_equal(v->seg[SEG_SS].attr, 0xC093);
    assert_int_equal(v->cpl, 0);
    assert_int_equal(v->rip, 0x9000);
    assert_int_equal(v->regs[REG_SP], 0x8000);
    assert_int_equal(vcpu_eflags(v), FLAG_TF | FLAG_ZF | 2);
    v->regs[REG_DX] = 0x1234;
    v->regs[REG_CX] = 0x5678;
    assert_int_equal(transfer_sysexit(v), 0);
    assert_int_equal(v->seg[SEG_CS].sel, 0x73);
    assert_int_equal(v->seg[SEG_CS].attr, 0xC0FB);
    assert_int_equal(v->seg[SEG_SS].sel, 0x7B);
    assert_int_equal(v->seg[SEG_SS].attr, 0xC0F3);
    assert_int_equal(v->cpl, 3);
    assert_int_equal(v->rip, 0x1234);
    assert_int_equal(v->regs[REG_SP], 0x5678);
    protmode_real(&w->m, v);
    v->msr.sysenter_cs = 0x60;
    w->before = *v;
    check(w, 2, transfer_sysenter(v), VEC_GP, 0);
}

/* A ring-3 task in TSS B, with an LDT. */
static void task_b(struct world *w)
{
    static const uint16_t sel[] = {S_DATA3 | 3, S_CODE3 | 3, S_DATA3 | 3, L_DATA3 | 3, 0, 0};
    flatmem_put32(&w->m, P_TSS_B + 0x1C, 0x9000);
    flatmem_put32(&w->m, P_TSS_B + 0x20, 0x7000);
    flatmem_put32(&w->m, P_TSS_B + 0x24, FLAG_CF | FLAG_IF | 2);
    for (unsigned i = 0; i < 8; i++)
        flatmem_put32(&w->m, P_TSS_B + 0x28 + 4 * i, 0x1000000 * i + 0x42);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        flatmem_put16(&w->m, P_TSS_B + 0x48 + 4 * i, sel[i]);
    flatmem_put16(&w->m, P_TSS_B + 0x60, S_LDT);
}

static unsigned tss_type(struct world *w, unsigned sel)
{
    return flatmem_get32(&w->m, P_GDT + sel + 4) >> 8 & 0xF;
}

static void a_task_switch_saves_and_loads_everything(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    for (unsigned call = 0; call < 2; call++) {
        protmode_init(&w->m, v, 0);
        task_b(w);
        v->cr0 |= CR0_PG;
        v->cr3 = 0x8000;
        v->ldtr = (struct segment){0};
        v->dr[7] = 0x7FF;
        for (unsigned i = 0; i < 8; i++)
            v->regs[i] = 0x20000 + i;
        vcpu_set_eflags(v, FLAG_ZF | FLAG_RF);
        assert_int_equal(call ? transfer_call_far(v, S_TSS_B, 0x5555, 4, NEXT)
                              : transfer_jmp_far(v, S_TSS_B, 0x5555, 4, NEXT),
                         0);
        assert_int_equal(flatmem_get32(&w->m, P_TSS_A + 0x20), NEXT);
        assert_int_equal(flatmem_get32(&w->m, P_TSS_A + 0x24), FLAG_ZF | 2);
        for (unsigned i = 0; i < 8; i++)
            assert_int_equal(flatmem_get32(&w->m, P_TSS_A + 0x28 + 4 * i), 0x20000 + i);
        assert_int_equal(flatmem_get16(&w->m, P_TSS_A + 0x4C), S_CODE0);
        assert_int_equal(flatmem_get16(&w->m, P_TSS_A + 0x5C), S_DATA0);

        assert_int_equal(v->tr.sel, S_TSS_B);
        assert_int_equal(v->tr.base, P_TSS_B);
        assert_int_equal(v->tr.attr, 0x8B);
        assert_int_equal(tss_type(w, S_TSS_A), call ? 0xB : 0x9);
        assert_int_equal(tss_type(w, S_TSS_B), 0xB);
        assert_int_equal(flatmem_get16(&w->m, P_TSS_B), call ? S_TSS_A : 0);
        assert_int_equal(v->cr3, 0x9000);
        assert_int_equal(w->m.paging_changes, 1);
        assert_true(v->cr0 & CR0_TS);
        assert_int_equal(v->dr[7], 0x7FF & ~0x155);
        assert_int_equal(vcpu_eflags(v), FLAG_CF | FLAG_IF | (call ? FLAG_NT : 0) | 2);
        assert_int_equal(v->cpl, 3);
        assert_int_equal(v->rip, 0x7000);
        for (unsigned i = 0; i < 8; i++)
            assert_int_equal(v->regs[i], 0x1000000 * i + 0x42);
        assert_int_equal(v->ldtr.sel, S_LDT);
        assert_int_equal(v->ldtr.base, P_LDT);
        assert_int_equal(v->seg[SEG_DS].base, 0x1000);
        assert_int_equal(v->seg[SEG_SS].sel, S_DATA3 | 3);
        assert_int_equal(v->seg[SEG_GS].attr, 0);
        if (call) {
            /* IRET with NT goes back. */
            v->rip = 0x7010;
            assert_int_equal(transfer_iret(v, 4, 0x7011), 0);
            assert_int_equal(v->tr.sel, S_TSS_A);
            assert_int_equal(v->rip, NEXT);
            assert_int_equal(v->cpl, 0);
            assert_int_equal(v->regs[REG_DI], 0x20007);
            assert_int_equal(vcpu_eflags(v), FLAG_ZF | 2);
            assert_int_equal(tss_type(w, S_TSS_A), 0xB);
            assert_int_equal(tss_type(w, S_TSS_B), 0x9);
            assert_int_equal(flatmem_get32(&w->m, P_TSS_B + 0x20), 0x7011);
            assert_int_equal(flatmem_get32(&w->m, P_TSS_B + 0x24), FLAG_CF | FLAG_IF | 2);
        }
    }
}

static void a_16_bit_tss_holds_words(void **state)
{
    static const uint16_t sel[] = {S_DATA0, S_CODE16, S_DATA16, S_DATA0};
    struct world *w = *state;
    struct vcpu *v = &w->v;
    protmode_init(&w->m, v, 0);
    flatmem_put16(&w->m, P_TSS_16 + 0x0E, 0x7000);
    flatmem_put16(&w->m, P_TSS_16 + 0x10, FLAG_CF);
    for (unsigned i = 0; i < 8; i++)
        flatmem_put16(&w->m, P_TSS_16 + 0x12 + 2 * i, (uint16_t)(0x1100 + i));
    for (unsigned i = 0; i < 4; i++)
        flatmem_put16(&w->m, P_TSS_16 + 0x22 + 2 * i, sel[i]);
    assert_int_equal(transfer_call_far(v, S_TSS_16, 0, 4, NEXT), 0);
    assert_int_equal(v->rip, 0x7000);
    assert_int_equal(v->regs[REG_DI], 0x1107);
    assert_int_equal(v->seg[SEG_CS].base, 0x50000);
    assert_int_equal(v->seg[SEG_SS].base, 0x60000);
    assert_int_equal(v->seg[SEG_FS].attr, 0);
    assert_int_equal(v->ldtr.attr, 0);
    assert_int_equal(vcpu_eflags(v), FLAG_CF | FLAG_NT | 2);
    assert_int_equal(tss_type(w, S_TSS_16), 3);
    v->regs[REG_AX] = 0x12345678;
    assert_int_equal(transfer_iret(v, 4, 0x7001), 0);
    assert_int_equal(v->tr.sel, S_TSS_A);
    assert_int_equal(flatmem_get16(&w->m, P_TSS_16 + 0x0E), 0x7001);
    assert_int_equal(flatmem_get16(&w->m, P_TSS_16 + 0x10), FLAG_CF | 2);
    assert_int_equal(flatmem_get16(&w->m, P_TSS_16 + 0x12), 0x5678);
    assert_int_equal(flatmem_get16(&w->m, P_TSS_16 + 0x2A), 0);
    assert_int_equal(v->regs[REG_SP], P_STACK);
}

static void a_task_may_be_in_virtual_8086_mode(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    protmode_init(&w->m, v, 0);
    task_b(w);
    flatmem_put32(&w->m, P_TSS_B + 0x24, FLAG_VM | 2);
    flatmem_put16(&w->m, P_TSS_B + 0x4C, 0x1230);
    assert_int_equal(transfer_jmp_far(v, S_TSS_B, 0, 4, NEXT), 0);
    assert_int_equal(v->cpl, 3);
    assert_int_equal(v->seg[SEG_CS].base, 0x12300);
    assert_int_equal(v->seg[SEG_DS].attr, 0xF3);
    assert_int_equal(v->rip, 0x7000);
}

static void faults_before_the_switch_leave_the_old_task(void **state)
{
    static const struct {
        uint32_t fault; /* page fault on an access to this address */
        uint32_t limit; /* of TSS B */
        bool pdptes;
        int vector;
        uint32_t error;
    } cases[] = {
        {0, 0x66, false, VEC_TS, S_TSS_B},
        {P_TSS_B + 0x64, 0x67, false, VEC_PF, 0},
        {P_TSS_A + 0x5C, 0x67, false, VEC_PF, 2},
        {P_GDT + S_TSS_B + 4, 0x67, false, VEC_PF, 0},
        {P_GDT + S_TSS_A + 4, 0x67, false, VEC_PF, 0},
        {0, 0x67, true, VEC_GP, 0},
    };
    struct world *w = *state;
    struct vcpu *v = &w->v;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        protmode_init(&w->m, v, 0);
        task_b(w);
        protmode_gdt(&w->m, S_TSS_B, P_TSS_B, cases[i].limit, 0x89);
        v->cr0 |= CR0_PG;
        v->cr4 |= CR4_PAE;
        w->m.bad_pdptes = cases[i].pdptes;
        if (cases[i].fault)
            flatmem_fault(&w->m, cases[i].fault, cases[i].fault, FLATMEM_ANY, false);
        w->before = *v;
        check(w, i, transfer_jmp_far(v, S_TSS_B, 0, 4, NEXT), cases[i].vector, cases[i].error);
        assert_int_equal(tss_type(w, S_TSS_A), 0xB);
        assert_int_equal(tss_type(w, S_TSS_B), 0x9);
        assert_int_equal(flatmem_get32(&w->m, P_TSS_A + 0x20), 0);
    }
    protmode_init(&w->m, v, 0);
    task_b(w);
    v->tr.limit = 0x5E;
    w->before = *v;
    check(w, 50, transfer_jmp_far(v, S_TSS_B, 0, 4, NEXT), VEC_TS, S_TSS_A);
    v->tr.limit = 0x67;
    flatmem_put_descriptor(&w->m, P_LDT + 0x18, P_TSS_B, 0x67, 0x89);
    w->before = *v;
    check(w, 51, transfer_jmp_far(v, 0x1C, 0, 4, NEXT), VEC_GP, 0x1C);

    /* IRET: the link must name a busy TSS */
    static const struct {
        uint16_t link;
        int vector;
    } links[] = {
        {S_TSS_B, VEC_TS}, {0, VEC_TS}, {S_CODE0, VEC_TS}, {S_TSS_B | 4, VEC_TS}, {S_END, VEC_TS}};
    for (unsigned i = 0; i < ARRAY_LEN(links); i++) {
        protmode_init(&w->m, v, 0);
        v->sys_flags = FLAG_NT;
        flatmem_put16(&w->m, P_TSS_A, links[i].link);
        w->before = *v;
        check(w, 100 + i, transfer_iret(v, 4, NEXT), links[i].vector, links[i].link & 0xFFFC);
    }
}

static void faults_behind_the_switch_are_the_new_tasks(void **state)
{
    static const struct {
        uint32_t offset; /* into TSS B */
        uint16_t value;
        enum vector vector;
        uint32_t error;
    } cases[] = {
        {0x60, S_CODE0, VEC_TS, S_CODE0},
        {0x60, S_LDT | 4, VEC_TS, S_LDT | 4},
        {0x60, S_END, VEC_TS, S_END},
        {0x4C, 0, VEC_TS, 0},
        {0x4C, S_DATA3 | 3, VEC_TS, S_DATA3},
        {0x4C, S_CODE0 | 3, VEC_TS, S_CODE0},
        {0x4C, S_ABSENT_CODE3 | 3, VEC_NP, S_ABSENT_CODE3},
        {0x50, 0, VEC_TS, 0},
        {0x50, S_DATA3, VEC_TS, S_DATA3},
        {0x50, S_DATA0, VEC_TS, S_DATA0},
        {0x50, S_ABSENT_DATA | 3, VEC_SS, S_ABSENT_DATA},
        {0x48, S_EXEC_ONLY | 3, VEC_TS, S_EXEC_ONLY},
        {0x54, S_DATA0 | 3, VEC_TS, S_DATA0},
        {0x58, S_ABSENT_DATA | 3, VEC_NP, S_ABSENT_DATA},
        {0x5C, S_END, VEC_TS, S_END},
    };
    struct world *w = *state;
    struct vcpu *v = &w->v;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        protmode_init(&w->m, v, 0);
        task_b(w);
        for (unsigned n = 0; n < 20; n++)
            protmode_idt(&w->m, n, S_CODE0, 0x5000 + n, 0x8E);
        flatmem_put32(&w->m, P_TSS_B + 4, P_STACK0);
        flatmem_put16(&w->m, P_TSS_B + 8, S_DATA0);
        flatmem_put16(&w->m, P_TSS_B + cases[i].offset, cases[i].value);
        if (cases[i].offset == 0x4C && cases[i].value == 0) {
            flatmem_put32(&w->m, P_TSS_B + 0x38, P_STACK2); /* CPL 0, and SS is not loaded */
            protmode_idt(&w->m, VEC_DF, S_TSS_16, 0, 0x85);
            flatmem_put16(&w->m, P_TSS_16 + 0x0E, 0x7777);
            flatmem_put16(&w->m, P_TSS_16 + 0x1A, 0x800);
            flatmem_put16(&w->m, P_TSS_16 + 0x24, S_CODE0);
            flatmem_put16(&w->m, P_TSS_16 + 0x26, S_DATA0);
        }
        assert_int_equal(transfer_jmp_far(v, S_TSS_B, 0, 4, NEXT), 0);
        if (cases[i].offset == 0x4C && cases[i].value == 0) {
            assert_int_equal(v->rip, 0x7777); /* #TS, then #SS: #DF */
            continue;
        }
        if (v->rip != 0x5000 + cases[i].vector)
            fail_msg("case %u goes to %x", i, (unsigned)v->rip);
        assert_int_equal(v->tr.sel, S_TSS_B);
        assert_int_equal(flatmem_get32(&w->m, P_STACK0 - 24), cases[i].error);
        assert_int_equal(flatmem_get32(&w->m, P_STACK0 - 20), 0x7000);
    }
    /* EIP beyond the limit */
    protmode_init(&w->m, v, 0);
    task_b(w);
    flatmem_put16(&w->m, P_TSS_B + 0x4C, S_SHORT);
    flatmem_put16(&w->m, P_TSS_B + 0x50, S_DATA0);
    flatmem_put32(&w->m, P_TSS_B + 0x38, P_STACK2);
    protmode_idt(&w->m, VEC_GP, S_CODE0, 0x500D, 0x8E);
    assert_int_equal(transfer_jmp_far(v, S_TSS_B, 0, 4, NEXT), 0);
    assert_int_equal(v->rip, 0x500D);
    assert_int_equal(flatmem_get32(&w->m, P_STACK2 - 12), 0x7000);
    /* the T bit */
    protmode_init(&w->m, v, 0);
    task_b(w);
    flatmem_put32(&w->m, P_TSS_B + 4, P_STACK0);
    flatmem_put16(&w->m, P_TSS_B + 8, S_DATA0);
    flatmem_put16(&w->m, P_TSS_B + 0x64, 1);
    protmode_idt(&w->m, VEC_DB, S_CODE0, 0x5001, 0x8E);
    assert_int_equal(transfer_jmp_far(v, S_TSS_B, 0, 4, NEXT), 0);
    assert_int_equal(v->rip, 0x5001);
    assert_int_equal(v->dr[6], 1 << 15);
}

static void a_task_gate_leads_to_its_task(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    protmode_init(&w->m, v, 3);
    task_b(w);
    assert_int_equal(transfer_call_far(v, S_TASK_GATE | 3, 0, 4, NEXT), 0);
    assert_int_equal(v->tr.sel, S_TSS_B);
    assert_int_equal(v->rip, 0x7000);
    w->before = *v;
    check(w, 0, transfer_jmp_far(v, S_TASK_GATE | 3, 0, 4, NEXT), VEC_GP, S_TSS_B); /* busy */
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(jmp_and_call_are_checked),
        TEST(a_direct_call_pushes_and_keeps_the_ring),
        TEST(a_call_gate_changes_stacks_and_copies_parameters),
        TEST(a_16_bit_call_gate_works_in_words),
        TEST(checks_of_the_inner_stack_of_a_call),
        TEST(ret_and_iret_are_checked),
        TEST(iret_to_a_16_bit_stack_keeps_the_upper_half_of_esp),
        TEST(iret_changes_the_flags_that_cpl_and_iopl_allow),
        TEST(iret_enters_virtual_8086_mode_from_ring_0_only),
        TEST(iret_in_virtual_8086_mode_needs_iopl_3_and_keeps_iopl),
        TEST(real_mode_transfers_go_to_16_times_the_selector),
        TEST(sysenter_and_sysexit_make_flat_segments),
        TEST(a_task_switch_saves_and_loads_everything),
        TEST(a_16_bit_tss_holds_words),
        TEST(a_task_may_be_in_virtual_8086_mode),
        TEST(faults_before_the_switch_leave_the_old_task),
        TEST(faults_behind_the_switch_are_the_new_tasks),
        TEST(a_task_gate_leads_to_its_task),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
