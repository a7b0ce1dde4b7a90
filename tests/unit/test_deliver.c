/*
 * Delivery of exceptions and interrupts: what is pushed where, which flags are cleared, every check
 * with its vector and error code, double and triple faults, task gates.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cpu/emulate.h"
#include "protmode.h"

#define TEST(f) cmocka_unit_test_setup_teardown(f, world_setup, world_teardown)

enum { HANDLER = 0x00054321 };

static uint32_t stack32(struct world *w, unsigned index)
{
    return flatmem_get32(&w->m, w->v.seg[SEG_SS].base + vcpu_reg32(&w->v, REG_SP) + 4 * index);
}

static uint16_t stack16(struct world *w, unsigned index)
{
    uint32_t sp = vcpu_reg32(&w->v, REG_SP) & 0xFFFF;
    return flatmem_get16(&w->m, w->v.seg[SEG_SS].base + sp + 2 * index);
}

static void real_mode_pushes_flags_cs_ip_and_clears_if_tf_ac(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    protmode_real(&w->m, v);
    flatmem_put32(&w->m, 4 * 0x21, 0xF0001234);
    vcpu_set_eflags(v, FLAG_IF | FLAG_TF | FLAG_AC | FLAG_CF | FLAG_DF);
    v->seg[SEG_CS].limit = 0xFFFFF; /* kept */
    v->regs[REG_SP] = 0x55550800;
    v->shadow = 1;
    v->halted = true;
    assert_int_equal(deliver_software(v, 0x21, EVENT_SOFTWARE), 0);
    assert_int_equal(v->seg[SEG_CS].base, 0xF0000);
    assert_int_equal(v->seg[SEG_CS].sel, 0xF000);
    assert_int_equal(v->seg[SEG_CS].limit, 0xFFFFF);
    assert_int_equal(v->rip, 0x1234);
    assert_int_equal(v->regs[REG_SP], 0x555507FA);
    assert_int_equal(stack16(w, 0), 0x100);
    assert_int_equal(stack16(w, 1), 0x1000);
    assert_int_equal(stack16(w, 2), FLAG_IF | FLAG_TF | FLAG_CF | FLAG_DF | 2);
    assert_int_equal(vcpu_eflags(v), FLAG_CF | FLAG_DF | 2);
    assert_int_equal(v->shadow, 0);
    assert_false(v->halted);
}

static void real_mode_exceptions_push_no_error_code(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    protmode_real(&w->m, v);
    flatmem_put32(&w->m, 4 * VEC_GP, 0xF0001234);
    v->regs[REG_SP] = 0;
    vcpu_raise_error(v, VEC_GP, 0);
    deliver_exception(v);
    assert_int_equal(v->rip, 0x1234);
    assert_int_equal(v->regs[REG_SP], 0xFFFA);
    assert_int_equal(stack16(w, 0), 0x100);
}

static void real_mode_faults_of_the_table_and_stack_become_double_faults(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    protmode_real(&w->m, v);
    v->idtr.limit = 4 * 0x21 + 2;
    w->before = *v;
    assert_int_equal(deliver_software(v, 0x21, EVENT_SOFTWARE), FAULT);
    assert_int_equal(v->exc.vector, VEC_GP);
    assert_true(protmode_same_state(v, &w->before));

    flatmem_put32(&w->m, 4 * 0x21, 0xF0001234);
    v->seg[SEG_CS].limit = 0x1233;
    v->idtr.limit = 0x3FF;
    assert_int_equal(deliver_software(v, 0x21, EVENT_SOFTWARE), FAULT);
    assert_int_equal(v->exc.vector, VEC_GP);

    /* #SS for SP = 3, and then #SS again: shutdown */
    v->regs[REG_SP] = 3;
    assert_int_equal(deliver_software(v, 0x21, EVENT_SOFTWARE), FAULT);
    assert_int_equal(v->exc.vector, VEC_SS);
    deliver_exception(v);
    assert_true(v->shutdown);
}

static void a_gate_of_the_same_ring_pushes_on_the_same_stack(void **state)
{
    static const struct {
        uint8_t type;
        bool wide, clears_if;
    } gates[] = {
        {0x8E, true, true}, {0x8F, true, false}, {0x86, false, true}, {0x87, false, false}};
    struct world *w = *state;
    struct vcpu *v = &w->v;
    for (unsigned i = 0; i < ARRAY_LEN(gates); i++) {
        uint32_t flags = FLAG_IF | FLAG_TF | FLAG_NT | FLAG_RF | FLAG_AC | FLAG_ZF | FLAG_IOPL;
        protmode_init(&w->m, v, 0);
        protmode_idt(&w->m, 0x30, S_CODE0 | 3, HANDLER, gates[i].type);
        vcpu_set_eflags(v, flags);
        deliver_interrupt(v, 0x30);
        assert_int_equal(v->rip, gates[i].wide ? HANDLER : HANDLER & 0xFFFF);
        assert_int_equal(v->seg[SEG_CS].sel, S_CODE0);
        assert_int_equal(v->seg[SEG_SS].sel, S_DATA0);
        assert_int_equal(v->cpl, 0);
        assert_int_equal(vcpu_eflags(v),
                         FLAG_AC | FLAG_ZF | FLAG_IOPL | 2 | (gates[i].clears_if ? 0 : FLAG_IF));
        uint32_t pushed = (flags & ~(uint32_t)FLAG_RF) | 2;
        if (gates[i].wide) {
            assert_int_equal(v->regs[REG_SP], P_STACK - 12);
            assert_int_equal(stack32(w, 0), P_EIP);
            assert_int_equal(stack32(w, 1), S_CODE0);
            assert_int_equal(stack32(w, 2), pushed);
        } else {
            assert_int_equal(v->regs[REG_SP], P_STACK - 6);
            assert_int_equal(flatmem_get16(&w->m, P_STACK - 6), P_EIP & 0xFFFF);
            assert_int_equal(flatmem_get16(&w->m, P_STACK - 4), S_CODE0);
            assert_int_equal(flatmem_get16(&w->m, P_STACK - 2), pushed & 0xFFFF);
        }
    }
}

static void an_inner_ring_gets_the_stack_of_the_tss(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    protmode_init(&w->m, v, 3);
    protmode_gdt(&w->m, S_DATA0, 0, 0xFFFFF, 0xC092);
    protmode_gdt(&w->m, S_CODE0, 0, 0xFFFFF, 0xC09A);
    protmode_idt(&w->m, VEC_PF, S_CODE0, HANDLER, 0x8E);
    flatmem_fault(&w->m, P_STACK0 - 0x1000, P_STACK0, FLATMEM_USER, true);
    vcpu_set_eflags(v, FLAG_IF | FLAG_ZF);
    v->exc = (struct exception){.vector = VEC_PF, .has_error = true, .error = 6, .cr2 = 0x1234};
    v->mode_dirty = false;
    deliver_exception(v);
    assert_int_equal(v->cr2, 0x1234);
    assert_int_equal(v->cpl, 0);
    assert_true(v->mode_dirty);
    assert_int_equal(v->rip, HANDLER);
    assert_int_equal(v->seg[SEG_CS].sel, S_CODE0);
    assert_int_equal(v->seg[SEG_CS].attr, 0xC09B);
    assert_int_equal(v->seg[SEG_SS].sel, S_DATA0);
    assert_int_equal(v->seg[SEG_SS].attr, 0xC093);
    assert_int_equal(v->seg[SEG_DS].sel, S_DATA3 | 3);
    assert_int_equal(flatmem_get32(&w->m, P_GDT + S_DATA0 + 4), 0x00CF9300);
    assert_int_equal(flatmem_get32(&w->m, P_GDT + S_CODE0 + 4), 0x00CF9B00);
    assert_int_equal(v->regs[REG_SP], P_STACK0 - 24);
    assert_int_equal(stack32(w, 0), 6);
    assert_int_equal(stack32(w, 1), P_EIP);
    assert_int_equal(stack32(w, 2), S_CODE3 | 3);
    assert_int_equal(stack32(w, 3), FLAG_IF | FLAG_ZF | FLAG_RF | 2); /* a fault: RF */
    assert_int_equal(stack32(w, 4), P_STACK);
    assert_int_equal(stack32(w, 5), S_DATA3 | 3);
    assert_int_equal(vcpu_eflags(v), FLAG_ZF | 2);
}

static void rf_is_pushed_for_faults_only(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    static const struct {
        enum vector vector;
        bool rf;
    } cases[] = {{VEC_DE, true}, {VEC_DB, false}, {VEC_UD, true},  {VEC_NM, true}, {VEC_GP, true},
                 {VEC_MF, true}, {VEC_XM, true},  {VEC_BP, false}, {VEC_OF, false}};
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        protmode_init(&w->m, v, 0);
        protmode_idt(&w->m, cases[i].vector, S_CODE0, HANDLER, 0x8E);
        v->sys_flags = FLAG_RF;
        vcpu_raise(v, cases[i].vector);
        deliver_exception(v);
        assert_int_equal(stack32(w, 2), (cases[i].rf ? FLAG_RF : 0) | 2);
    }
    protmode_init(&w->m, v, 0);
    protmode_idt(&w->m, VEC_DB, S_CODE0, HANDLER, 0x8E);
    v->dr[7] = 1 << 13 | 0x400;
    vcpu_raise(v, VEC_DB);
    deliver_exception(v);
    assert_int_equal(v->dr[7], 0x400);
}

static void a_16_bit_tss_and_a_16_bit_stack_serve_too(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    protmode_init(&w->m, v, 3);
    v->tr = (struct segment){.sel = S_TSS_16, .attr = 0x83, .base = P_TSS_16, .limit = 0x2B};
    flatmem_put16(&w->m, P_TSS_16 + 2, 4); /* the frame wraps at 64K */
    flatmem_put16(&w->m, P_TSS_16 + 4, S_DATA16);
    protmode_idt(&w->m, 0x30, S_CODE16, HANDLER, 0x86);
    /* nothing is written of a wrapping frame that faults */
    flatmem_fault(&w->m, 0x60000, 0x60000, FLATMEM_WRITE, true);
    assert_int_equal(deliver_software(v, 0x30, EVENT_ICEBP), FAULT);
    assert_int_equal(v->exc.vector, VEC_PF);
    assert_int_equal(flatmem_get16(&w->m, 0x6FFFC), 0);
    w->m.faults = 0;
    deliver_interrupt(v, 0x30);
    assert_int_equal(v->rip, HANDLER & 0xFFFF);
    assert_int_equal(v->seg[SEG_CS].base, 0x50000);
    assert_int_equal(v->seg[SEG_SS].base, 0x60000);
    assert_int_equal(v->regs[REG_SP], 0xFFFA);
    assert_int_equal(flatmem_get16(&w->m, 0x60002), S_DATA3 | 3);
    assert_int_equal(flatmem_get16(&w->m, 0x60000), P_STACK & 0xFFFF);
    assert_int_equal(flatmem_get16(&w->m, 0x6FFFE), 2);
    assert_int_equal(flatmem_get16(&w->m, 0x6FFFC), S_CODE3 | 3);
    assert_int_equal(flatmem_get16(&w->m, 0x6FFFA), P_EIP & 0xFFFF);
}

static void a_conforming_handler_keeps_the_ring(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    protmode_init(&w->m, v, 3);
    protmode_idt(&w->m, 0x30, S_CONFORMING, HANDLER, 0x8F);
    deliver_interrupt(v, 0x30);
    assert_int_equal(v->cpl, 3);
    assert_int_equal(v->seg[SEG_CS].sel, S_CONFORMING | 3);
    assert_int_equal(v->regs[REG_SP], P_STACK - 12);
}

static void virtual_8086_mode_is_left_with_its_segments_pushed(void **state)
{
    static const uint16_t expected[] = {0x100,  0x1000, 0,      0x800, 0x2000,
                                        0x4000, 0x3000, 0x5000, 0x6000};
    struct world *w = *state;
    struct vcpu *v = &w->v;
    for (unsigned wide = 0; wide < 2; wide++) {
        protmode_v86(&w->m, v, 0);
        protmode_idt(&w->m, 0x30, S_CODE0, HANDLER, wide ? 0x8E : 0x86);
        uint32_t flags = vcpu_eflags(v);
        deliver_interrupt(v, 0x30);
        assert_int_equal(v->cpl, 0);
        assert_int_equal(vcpu_eflags(v), 2);
        assert_int_equal(v->seg[SEG_SS].sel, S_DATA0);
        assert_int_equal(v->regs[REG_SP], P_STACK0 - 9 * (wide ? 4 : 2));
        for (unsigned i = 0; i < ARRAY_LEN(expected); i++) {
            uint32_t value =
                wide ? stack32(w, i) : flatmem_get16(&w->m, vcpu_reg32(v, REG_SP) + 2 * i);
            assert_int_equal(value, i == 2 ? (wide ? flags : flags & 0xFFFF) : expected[i]);
        }
        for (unsigned seg = 0; seg < SEG_COUNT; seg++) {
            if (seg != SEG_CS && seg != SEG_SS) {
                assert_int_equal(v->seg[seg].sel, 0);
                assert_int_equal(v->seg[seg].attr, 0);
            }
        }
    }
}

static void int_n_in_virtual_8086_mode_needs_iopl_3(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    protmode_v86(&w->m, v, 2);
    protmode_idt(&w->m, 0x21, S_CODE0, HANDLER, 0xEE);
    protmode_idt(&w->m, VEC_BP, S_CODE0, HANDLER, 0xEE);
    w->before = *v;
    assert_int_equal(deliver_software(v, 0x21, EVENT_SOFTWARE), FAULT);
    assert_int_equal(v->exc.vector, VEC_GP);
    assert_int_equal(v->exc.error, 0);
    assert_true(protmode_same_state(v, &w->before));
    assert_int_equal(deliver_software(v, VEC_BP, EVENT_SOFTWARE_EXCEPTION), 0);
    assert_int_equal(v->cpl, 0);
    protmode_v86(&w->m, v, 3);
    protmode_idt(&w->m, 0x21, S_CODE0, HANDLER, 0xEE);
    protmode_idt(&w->m, 0x22, S_CODE1, HANDLER, 0xEE);
    protmode_idt(&w->m, 0x23, S_CONFORMING, HANDLER, 0xEE);
    protmode_idt(&w->m, 0x24, S_CODE3, HANDLER, 0xEE);
    for (unsigned n = 0x22; n <= 0x24; n++) {
        static const uint16_t error[] = {S_CODE1, S_CONFORMING, S_CODE3};
        assert_int_equal(deliver_software(v, (uint8_t)n, EVENT_SOFTWARE), FAULT);
        assert_int_equal(v->exc.vector, VEC_GP);
        assert_int_equal(v->exc.error, error[n - 0x22]);
    }
    assert_int_equal(deliver_software(v, 0x21, EVENT_SOFTWARE), 0);
    assert_int_equal(v->cpl, 0);
}

/* Each case alters the sound world of an INT 30h from ring 3 to ring 0. */
enum alteration {
    SOUND,
    IDT_LIMIT,
    GATE_TYPE,
    GATE_DPL,
    GATE_ABSENT,
    CODE_NULL,
    CODE_OUTSIDE,
    CODE_IS_DATA,
    CODE_OUTER,
    CODE_ABSENT,
    TSS_LIMIT,
    STACK_NULL,
    STACK_OUTSIDE,
    STACK_RPL,
    STACK_DPL,
    STACK_READ_ONLY,
    STACK_ABSENT,
    STACK_ROOM,
    EIP_LIMIT,
    TASK_LOCAL,
    TASK_BUSY,
    TASK_ABSENT,
    TASK_NO_TSS,
    ALTERATIONS,
};

static void alter(struct world *w, enum alteration what)
{
    struct flatmem *m = &w->m;
    protmode_init(m, &w->v, 3);
    protmode_idt(m, 0x30, S_CODE0, HANDLER, 0xEE);
    switch (what) {
    case IDT_LIMIT:
        w->v.idtr.limit = 0x30 * 8 + 6;
        break;
    case GATE_TYPE:
        protmode_idt(m, 0x30, S_CODE0, HANDLER, 0xEC);
        break;
    case GATE_DPL:
        protmode_idt(m, 0x30, S_CODE0, HANDLER, 0xCE);
        break;
    case GATE_ABSENT:
        protmode_idt(m, 0x30, S_CODE0, HANDLER, 0x6E);
        break;
    case CODE_NULL:
        protmode_idt(m, 0x30, 3, HANDLER, 0xEE);
        break;
    case CODE_OUTSIDE:
        protmode_idt(m, 0x30, S_END, HANDLER, 0xEE);
        break;
    case CODE_IS_DATA:
        protmode_idt(m, 0x30, S_DATA0, HANDLER, 0xEE);
        break;
    case CODE_OUTER:
        w->v.cpl = 0;
        protmode_idt(m, 0x30, S_CODE3, HANDLER, 0xEE);
        break;
    case CODE_ABSENT:
        protmode_idt(m, 0x30, S_ABSENT_CODE, HANDLER, 0xEE);
        break;
    case TSS_LIMIT:
        w->v.tr.limit = 8;
        break;
    case STACK_NULL:
        flatmem_put16(m, P_TSS_A + 8, 0);
        break;
    case STACK_OUTSIDE:
        flatmem_put16(m, P_TSS_A + 8, S_END);
        break;
    case STACK_RPL:
        flatmem_put16(m, P_TSS_A + 8, S_DATA0 | 1);
        break;
    case STACK_DPL:
        flatmem_put16(m, P_TSS_A + 8, S_DATA1);
        break;
    case STACK_READ_ONLY:
        flatmem_put16(m, P_TSS_A + 8, S_CODE0);
        break;
    case STACK_ABSENT:
        flatmem_put16(m, P_TSS_A + 8, S_ABSENT_STACK);
        break;
    case STACK_ROOM:
        protmode_gdt(m, S_DATA0, 0, 0xFFF, 0x4097);
        flatmem_put32(m, P_TSS_A + 4, 0x1000 + 19);
        break;
    case EIP_LIMIT:
        protmode_idt(m, 0x30, S_SHORT, HANDLER, 0xEE);
        break;
    case TASK_LOCAL:
        protmode_idt(m, 0x30, S_TSS_B | 4, 0, 0xE5);
        break;
    case TASK_BUSY:
        protmode_idt(m, 0x30, S_TSS_A, 0, 0xE5);
        break;
    case TASK_ABSENT:
        protmode_gdt(m, S_TSS_B, P_TSS_B, 0x67, 0x0009);
        protmode_idt(m, 0x30, S_TSS_B, 0, 0xE5);
        break;
    case TASK_NO_TSS:
        protmode_idt(m, 0x30, S_CODE0, 0, 0xE5);
        break;
    default:
        break;
    }
}

static void each_check_of_a_delivery_has_its_vector_and_error_code(void **state)
{
    static const struct {
        int vector;
        uint32_t error;
        bool software_only;
    } expected[ALTERATIONS] = {
        [SOUND] = {-1, 0, false},
        [IDT_LIMIT] = {VEC_GP, 0x182, false},
        [GATE_TYPE] = {VEC_GP, 0x182, false},
        [GATE_DPL] = {VEC_GP, 0x182, true},
        [GATE_ABSENT] = {VEC_NP, 0x182, false},
        [CODE_NULL] = {VEC_GP, 0, false},
        [CODE_OUTSIDE] = {VEC_GP, S_END, false},
        [CODE_IS_DATA] = {VEC_GP, S_DATA0, false},
        [CODE_OUTER] = {VEC_GP, S_CODE3, false},
        [CODE_ABSENT] = {VEC_NP, S_ABSENT_CODE, false},
        [TSS_LIMIT] = {VEC_TS, S_TSS_A, false},
        [STACK_NULL] = {VEC_TS, 0, false},
        [STACK_OUTSIDE] = {VEC_TS, S_END, false},
        [STACK_RPL] = {VEC_TS, S_DATA0, false},
        [STACK_DPL] = {VEC_TS, S_DATA1, false},
        [STACK_READ_ONLY] = {VEC_TS, S_CODE0, false},
        [STACK_ABSENT] = {VEC_SS, S_ABSENT_STACK, false},
        [STACK_ROOM] = {VEC_SS, S_DATA0, false},
        [EIP_LIMIT] = {VEC_GP, 0, false},
        [TASK_LOCAL] = {VEC_GP, S_TSS_B | 4, false},
        [TASK_BUSY] = {VEC_GP, S_TSS_A, false},
        [TASK_ABSENT] = {VEC_NP, S_TSS_B, false},
        [TASK_NO_TSS] = {VEC_GP, S_CODE0, false},
    };
    struct world *w = *state;
    struct vcpu *v = &w->v;
    for (unsigned i = 0; i < ALTERATIONS; i++) {
        alter(w, (enum alteration)i);
        w->before = *v;
        int r = deliver_software(v, 0x30, EVENT_SOFTWARE);
        if ((r == 0 ? -1 : v->exc.vector) != expected[i].vector)
            fail_msg("alteration %u gives vector %d", i, r == 0 ? -1 : v->exc.vector);
        if (r == FAULT) {
            if (v->exc.error != expected[i].error)
                fail_msg("alteration %u gives error %x", i, v->exc.error);
            assert_true(protmode_same_state(v, &w->before));
        }
        /* From the pins: the DPL does not matter, and its faults have EXT. */
        alter(w, (enum alteration)i);
        protmode_idt(&w->m, VEC_TS, S_CONFORMING, HANDLER + 1, 0x8E);
        protmode_idt(&w->m, VEC_NP, S_CONFORMING, HANDLER + 1, 0x8E);
        protmode_idt(&w->m, VEC_SS, S_CONFORMING, HANDLER + 1, 0x8E);
        protmode_idt(&w->m, VEC_GP, S_CONFORMING, HANDLER + 1, 0x8E);
        deliver_interrupt(v, 0x30);
        assert_false(v->shutdown);
        if (expected[i].vector < 0 || expected[i].software_only) {
            assert_int_equal(v->rip, HANDLER);
        } else {
            assert_int_equal(v->rip, HANDLER + 1);
            assert_int_equal(stack32(w, 0), expected[i].error | 1);
            assert_int_equal(stack32(w, 1), P_EIP);
        }
    }
}

static void a_page_fault_in_a_delivery_comes_out_unchanged(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    static const uint32_t where[] = {P_IDT + 8 * 0x30, P_GDT + S_CODE0, P_TSS_A + 4,
                                     P_GDT + S_DATA0, P_STACK0 - 20};
    for (unsigned i = 0; i < ARRAY_LEN(where); i++) {
        alter(w, SOUND);
        flatmem_fault(&w->m, where[i], where[i] + 3, FLATMEM_ANY, false);
        w->before = *v;
        assert_int_equal(deliver_software(v, 0x30, EVENT_SOFTWARE), FAULT);
        assert_int_equal(v->exc.vector, VEC_PF);
        assert_int_equal(v->exc.cr2, where[i]);
        assert_int_equal(v->exc.error, i == 4 ? 2 : 0);
        assert_true(protmode_same_state(v, &w->before));
        assert_int_equal(v->cr2, 0);
    }
}

enum outcome { SECOND, DOUBLE, SHUTDOWN };

static void two_exceptions_combine_by_class(void **state)
{
    static const struct {
        enum vector first;
        enum vector second;
        enum outcome outcome;
    } cases[] = {
        {VEC_UD, VEC_NP, SECOND},   {VEC_UD, VEC_PF, SECOND},   {VEC_NM, VEC_TS, SECOND},
        {VEC_GP, VEC_NP, DOUBLE},   {VEC_DE, VEC_TS, DOUBLE},   {VEC_TS, VEC_SS, DOUBLE},
        {VEC_GP, VEC_PF, SECOND},   {VEC_PF, VEC_NP, DOUBLE},   {VEC_PF, VEC_PF, DOUBLE},
        {VEC_DF, VEC_NP, SHUTDOWN}, {VEC_DF, VEC_PF, SHUTDOWN}, {VEC_AC, VEC_GP, SECOND},
        {VEC_MF, VEC_SS, SECOND},
    };
    struct world *w = *state;
    struct vcpu *v = &w->v;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        protmode_init(&w->m, v, 3);
        /* The first one's gate leads into `second`; later handlers are conforming, and so sound. */
        uint16_t bad = S_CODE0;
        switch (cases[i].second) {
        case VEC_NP:
            bad = S_ABSENT_CODE;
            break;
        case VEC_GP:
            bad = S_DATA0;
            break;
        case VEC_TS:
            flatmem_put16(&w->m, P_TSS_A + 8, S_DATA1);
            break;
        case VEC_SS:
            flatmem_put16(&w->m, P_TSS_A + 8, S_ABSENT_STACK);
            break;
        default:
            flatmem_fault(&w->m, P_STACK0 - 4, P_STACK0 - 1, FLATMEM_ANY, false);
        }
        for (unsigned n = 0; n < 20; n++)
            protmode_idt(&w->m, n, S_CONFORMING, HANDLER + n, 0x8E);
        protmode_idt(&w->m, cases[i].first, bad, HANDLER, 0x8E);
        v->exc = (struct exception){.vector = cases[i].first, .has_error = true, .error = 0x77};
        v->exc.cr2 = 0x5555;
        deliver_exception(v);
        if (v->shutdown != (cases[i].outcome == SHUTDOWN))
            fail_msg("case %u shutdown %d", i, v->shutdown);
        if (v->shutdown)
            continue;
        unsigned taken = cases[i].outcome == DOUBLE ? VEC_DF : cases[i].second;
        if (v->rip != HANDLER + taken)
            fail_msg("case %u ends at %x", i, (unsigned)v->rip);
        if (taken == VEC_DF)
            assert_int_equal(stack32(w, 0), 0);
        if (cases[i].second == VEC_PF)
            assert_int_equal(v->cr2, P_STACK0 - 4);
        else if (cases[i].first == VEC_PF)
            assert_int_equal(v->cr2, 0x5555);
    }
}

static void an_empty_idt_is_a_triple_fault(void **state)
{
    struct world *w = *state;
    protmode_init(&w->m, &w->v, 0);
    w->v.idtr.limit = 0;
    w->before = w->v;
    vcpu_raise(&w->v, VEC_UD);
    deliver_exception(&w->v);
    assert_true(w->v.shutdown);
    assert_true(protmode_same_state(&w->v, &w->before));
}

static void int1_and_int3_differ_in_their_checks(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    protmode_init(&w->m, v, 3);
    protmode_idt(&w->m, VEC_DB, S_CODE0, HANDLER, 0x8E);
    protmode_idt(&w->m, VEC_BP, S_CODE0, HANDLER, 0x8E);
    assert_int_equal(deliver_software(v, VEC_BP, EVENT_SOFTWARE_EXCEPTION), FAULT);
    assert_int_equal(v->exc.vector, VEC_GP);
    assert_int_equal(v->exc.error, VEC_BP * 8 + 2);
    protmode_idt(&w->m, VEC_DB, S_CODE0, HANDLER, 0x0E);
    assert_int_equal(deliver_software(v, VEC_DB, EVENT_ICEBP), FAULT);
    assert_int_equal(v->exc.vector, VEC_NP);
    assert_int_equal(v->exc.error, VEC_DB * 8 + 3);
    protmode_idt(&w->m, VEC_DB, S_CODE0, HANDLER, 0x8E);
    assert_int_equal(deliver_software(v, VEC_DB, EVENT_ICEBP), 0);
    assert_int_equal(v->rip, HANDLER);
}

static void task_b(struct world *w)
{
    flatmem_put32(&w->m, P_TSS_B + 0x20, 0x7000);
    flatmem_put32(&w->m, P_TSS_B + 0x24, FLAG_CF | 2);
    flatmem_put32(&w->m, P_TSS_B + 0x38, P_STACK2);
    flatmem_put16(&w->m, P_TSS_B + 0x48, S_DATA0);
    flatmem_put16(&w->m, P_TSS_B + 0x4C, S_CODE0);
    flatmem_put16(&w->m, P_TSS_B + 0x50, S_DATA0);
    flatmem_put16(&w->m, P_TSS_B + 0x54, S_DATA0);
}

static void a_task_gate_switches_and_pushes_the_error_code(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    protmode_init(&w->m, v, 3);
    task_b(w);
    protmode_idt(&w->m, VEC_DF, S_TSS_B, 0, 0x85);
    v->exc = (struct exception){.vector = VEC_DF, .has_error = true, .error = 0x1234};
    v->halted = true;
    deliver_exception(v);
    assert_false(v->shutdown || v->halted);
    assert_int_equal(v->tr.sel, S_TSS_B);
    assert_int_equal(v->rip, 0x7000);
    assert_int_equal(v->cpl, 0);
    assert_int_equal(v->regs[REG_SP], P_STACK2 - 4);
    assert_int_equal(stack32(w, 0), 0x1234);
    assert_int_equal(vcpu_eflags(v), FLAG_NT | FLAG_CF | 2);
    assert_int_equal(flatmem_get16(&w->m, P_TSS_B), S_TSS_A);
    assert_int_equal(flatmem_get32(&w->m, P_TSS_A + 0x20), P_EIP);
    assert_int_equal(flatmem_get32(&w->m, P_TSS_A + 0x38), P_STACK);
    /* both busy */
    assert_int_equal(flatmem_get32(&w->m, P_GDT + S_TSS_A + 4) >> 8 & 0xF, 0xB);
    assert_int_equal(flatmem_get32(&w->m, P_GDT + S_TSS_B + 4) >> 8 & 0xF, 0xB);
}

static void a_fault_in_the_new_task_is_delivered_there(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    protmode_init(&w->m, v, 3);
    task_b(w);
    flatmem_put16(&w->m, P_TSS_B + 0x54, S_ABSENT_DATA);
    protmode_idt(&w->m, 0x30, S_TSS_B, 0, 0xE5);
    protmode_idt(&w->m, VEC_NP, S_CODE0, HANDLER, 0x8E);
    assert_int_equal(deliver_software(v, 0x30, EVENT_SOFTWARE), 0);
    assert_int_equal(v->tr.sel, S_TSS_B);
    assert_int_equal(v->rip, HANDLER);
    assert_int_equal(stack32(w, 0), S_ABSENT_DATA);
    assert_int_equal(stack32(w, 1), 0x7000);
    assert_int_equal(v->seg[SEG_DS].attr, 0);

    /* The same while #GP was being delivered is a double fault. */
    protmode_init(&w->m, v, 3);
    task_b(w);
    flatmem_put16(&w->m, P_TSS_B + 0x54, S_ABSENT_DATA);
    protmode_idt(&w->m, VEC_GP, S_TSS_B, 0, 0x85);
    protmode_idt(&w->m, VEC_DF, S_CODE0, HANDLER, 0x8E);
    vcpu_raise_error(v, VEC_GP, 0);
    deliver_exception(v);
    assert_int_equal(v->rip, HANDLER);
    assert_int_equal(stack32(w, 1), 0x7000);
    assert_int_equal(v->tr.sel, S_TSS_B);
}

static void a_task_gate_that_traps_for_ever_ends_in_a_shutdown(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    protmode_init(&w->m, v, 0);
    task_b(w);
    flatmem_put16(&w->m, P_TSS_B + 0x64, 1);
    protmode_idt(&w->m, VEC_DB, S_TSS_B, 0, 0x85);
    vcpu_raise(v, VEC_DB);
    deliver_exception(v);
    assert_true(v->shutdown); /* B is busy: #GP, without a gate: #DF, without a gate */
    assert_true(v->dr[6] & 1 << 15);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(real_mode_pushes_flags_cs_ip_and_clears_if_tf_ac),
        TEST(real_mode_exceptions_push_no_error_code),
        TEST(real_mode_faults_of_the_table_and_stack_become_double_faults),
        TEST(a_gate_of_the_same_ring_pushes_on_the_same_stack),
        TEST(an_inner_ring_gets_the_stack_of_the_tss),
        TEST(rf_is_pushed_for_faults_only),
        TEST(a_16_bit_tss_and_a_16_bit_stack_serve_too),
        TEST(a_conforming_handler_keeps_the_ring),
        TEST(virtual_8086_mode_is_left_with_its_segments_pushed),
        TEST(int_n_in_virtual_8086_mode_needs_iopl_3),
        TEST(each_check_of_a_delivery_has_its_vector_and_error_code),
        TEST(a_page_fault_in_a_delivery_comes_out_unchanged),
        TEST(two_exceptions_combine_by_class),
        TEST(an_empty_idt_is_a_triple_fault),
        TEST(int1_and_int3_differ_in_their_checks),
        TEST(a_task_gate_switches_and_pushes_the_error_code),
        TEST(a_fault_in_the_new_task_is_delivered_there),
        TEST(a_task_gate_that_traps_for_ever_ends_in_a_shutdown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
