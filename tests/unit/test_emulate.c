/*
 * Instructions executed in C: the stack, near branches, strings, decimal arithmetic. What faults
 * must leave everything as it was; what wraps, overlaps or has two sizes is tried at its edges.
 */
#include "emulator.h"

/* ---- operands and dispatch ---- */

static void every_row_that_the_host_may_not_execute_is_emulated(void **state)
{
    struct emulator *e = *state;
    emulator_protected(e, 0);
    for (unsigned i = 0; i < decode_row_count; i++) {
        struct insn in = {.row = &decode_rows[i], .op = decode_rows[i].op, .opsize = 4};
        if (decode_rows[i].attr & (A_COPY | A_MODE64) || decode_rows[i].feature != F_BASE)
            continue;
        in.addrsize = 4;
        in.len = 2;
        in.base = in.index = NO_REG;
        in.seg = SEG_DS;
        in.modrm = 0xC0;
        in.imm = 1;
        emulator_protected(e, 0);
        if (emulate(&e->w.v, &in) == EMULATE_UNKNOWN)
            fail_msg("%s has no handler", decode_op_name(in.op));
    }
}

static void what_the_host_may_execute_is_left_to_it(void **state)
{
    struct emulator *e = *state;
    emulator_protected(e, 3);
    assert_int_equal(RUN(e, 0x01, 0xD8), EMULATE_UNKNOWN); /* ADD EAX, EBX */
    assert_int_equal(e->w.v.rip, P_EIP);
}

static void an_effective_address_is_cut_to_the_address_size(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    struct insn in;
    v->regs[REG_BX] = 0xFFFFFFF0;
    v->regs[REG_SI] = 0x10008;
    /* lea eax, [ebx+esi*4+12345678h] */
    static const uint8_t wide[15] = {0x8D, 0x84, 0xB3, 0x78, 0x56, 0x34, 0x12};
    assert_int_equal(decode(&in, wide, 15, 32), DECODE_OK);
    assert_int_equal(emulate_ea(v, &in), 0xFFFFFFF0u + 0x10008u * 4 + 0x12345678u);
    /* lea ax, [bx+si+20h], 16-bit */
    static const uint8_t narrow[15] = {0x8D, 0x40, 0x20};
    assert_int_equal(decode(&in, narrow, 15, 16), DECODE_OK);
    assert_int_equal(emulate_ea(v, &in), 0x18);
    /* mov al, [moffs32] */
    static const uint8_t moffs[15] = {0xA0, 0x00, 0x00, 0x00, 0x80};
    assert_int_equal(decode(&in, moffs, 15, 32), DECODE_OK);
    assert_int_equal(emulate_ea(v, &in), 0x80000000u);
}

/* ---- stack ---- */

static void push_stores_below_the_stack_pointer(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    v->regs[REG_BX] = 0x11223344;
    RUN_OK(e, 1, 0x53);
    assert_int_equal(v->regs[REG_SP], P_STACK - 4);
    assert_int_equal(flatmem_get32(&e->w.m, P_STACK - 4), 0x11223344);
    RUN_OK(e, 2, 0x66, 0x53);
    assert_int_equal(v->regs[REG_SP], P_STACK - 6);
    assert_int_equal(flatmem_get16(&e->w.m, P_STACK - 6), 0x3344);
    RUN_OK(e, 2, 0x6A, 0xFE);
    assert_int_equal(flatmem_get32(&e->w.m, P_STACK - 10), 0xFFFFFFFE);
    RUN_OK(e, 5, 0x68, 0x78, 0x56, 0x34, 0x12);
    assert_int_equal(flatmem_get32(&e->w.m, P_STACK - 14), 0x12345678);
    RUN_OK(e, 1, 0x54); /* PUSH ESP pushes what it was */
    assert_int_equal(flatmem_get32(&e->w.m, P_STACK - 18), P_STACK - 14);
    RUN_OK(e, 3, 0xFF, 0x34, 0x24); /* PUSH [ESP] */
    assert_int_equal(flatmem_get32(&e->w.m, P_STACK - 22), P_STACK - 14);
}

static void push_and_pop_fault_without_a_trace(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    flatmem_fault(&e->w.m, P_STACK - 0x1000, P_STACK - 1, FLATMEM_WRITE, true);
    RUN_FAULTS(e, VEC_PF, 7, 0x53);
    assert_int_equal(v->exc.cr2, P_STACK - 4);
    RUN_FAULTS(e, VEC_PF, 7, 0x60);
    RUN_FAULTS(e, VEC_PF, 7, 0xC8, 0x10, 0x00, 0x03);
    RUN_FAULTS(e, VEC_PF, 7, 0xE8, 0x10, 0x00, 0x00, 0x00);
    /* POP [mem]: the store faults after the load */
    v->regs[REG_BX] = P_STACK - 8;
    RUN_FAULTS(e, VEC_PF, 7, 0x8F, 0x03);
    v->seg[SEG_SS].limit = P_STACK + 2;
    RUN_FAULTS(e, VEC_SS, 0, 0x5B);
    RUN_FAULTS(e, VEC_SS, 0, 0x61);
    RUN_FAULTS(e, VEC_SS, 0, 0xC3);
}

static void pop_to_memory_is_addressed_with_the_new_stack_pointer(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    flatmem_put32(&e->w.m, P_STACK, 0xCAFE0001);
    RUN_OK(e, 4, 0x8F, 0x44, 0x24, 0x10); /* POP [ESP+10h] */
    assert_int_equal(v->regs[REG_SP], P_STACK + 4);
    assert_int_equal(flatmem_get32(&e->w.m, P_STACK + 0x14), 0xCAFE0001);
    flatmem_put32(&e->w.m, P_STACK + 4, 0x77777777);
    RUN_OK(e, 1, 0x5C); /* POP ESP */
    assert_int_equal(v->regs[REG_SP], 0x77777777);
}

static void a_16_bit_stack_moves_sp_only(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 0);
    protmode_segment(v, SEG_SS, S_DATA16);
    v->regs[REG_SP] = 0xABCD0002;
    v->regs[REG_BX] = 0x1234;
    RUN_OK(e, 2, 0x66, 0x53);
    assert_int_equal(v->regs[REG_SP], 0xABCD0000);
    RUN_OK(e, 1, 0x53);
    assert_int_equal(v->regs[REG_SP], 0xABCDFFFC);
    assert_int_equal(flatmem_get32(&e->w.m, 0x6FFFC), 0x1234);
    v->regs[REG_SP] = 0xABCD0002;
    RUN_FAULTS(e, VEC_SS, 0, 0x53); /* FFFEh: past the limit */
}

static void pusha_and_popa_move_eight_registers_but_not_esp(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    for (unsigned r = 0; r < 8; r++) {
        if (r != REG_SP)
            v->regs[r] = 0x11111111u * (r + 1);
    }
    RUN_OK(e, 1, 0x60);
    assert_int_equal(v->regs[REG_SP], P_STACK - 32);
    assert_int_equal(flatmem_get32(&e->w.m, P_STACK - 4), 0x11111111);
    assert_int_equal(flatmem_get32(&e->w.m, P_STACK - 20), P_STACK);
    assert_int_equal(flatmem_get32(&e->w.m, P_STACK - 32), 0x88888888);
    flatmem_put32(&e->w.m, P_STACK - 20, 0xDEAD);
    for (unsigned r = 0; r < 8; r++) {
        if (r != REG_SP)
            v->regs[r] = 0;
    }
    RUN_OK(e, 1, 0x61);
    assert_int_equal(v->regs[REG_SP], P_STACK);
    assert_int_equal(v->regs[REG_AX], 0x11111111);
    assert_int_equal(v->regs[REG_DI], 0x88888888);
    RUN_OK(e, 2, 0x66, 0x61);
    assert_int_equal(v->regs[REG_SP], P_STACK + 16);
    assert_int_equal(v->regs[REG_DI], 0x88880000);
}

static void pusha_in_real_mode_wraps_between_values_and_not_within(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_real(e);
    v->regs[REG_AX] = 0xAAAA;
    v->regs[REG_DI] = 0xDDDD;
    v->regs[REG_SP] = 2;
    RUN_OK(e, 1, 0x60);
    assert_int_equal(v->regs[REG_SP], 0xFFF2);
    assert_int_equal(flatmem_get16(&e->w.m, 0x20000), 0xAAAA);
    assert_int_equal(flatmem_get16(&e->w.m, 0x2FFF2), 0xDDDD);
    v->regs[REG_SP] = 7;
    RUN_FAULTS(e, VEC_GP, 0, 0x60);
}

static void enter_copies_frame_pointers_even_those_that_it_has_just_pushed(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    v->regs[REG_BP] = 0x40000;
    RUN_OK(e, 4, 0xC8, 0x20, 0x00, 0x00);
    assert_int_equal(v->regs[REG_BP], P_STACK - 4);
    assert_int_equal(v->regs[REG_SP], P_STACK - 0x24);
    assert_int_equal(flatmem_get32(&e->w.m, P_STACK - 4), 0x40000);

    v->regs[REG_SP] = P_STACK;
    v->regs[REG_BP] = 0x40000;
    flatmem_put32(&e->w.m, 0x40000 - 4, 0x1001);
    flatmem_put32(&e->w.m, 0x40000 - 8, 0x1002);
    RUN_OK(e, 4, 0xC8, 0x08, 0x00, 0x23); /* level 3: bits 5-7 do not count */
    assert_int_equal(flatmem_get32(&e->w.m, P_STACK - 8), 0x1001);
    assert_int_equal(flatmem_get32(&e->w.m, P_STACK - 12), 0x1002);
    assert_int_equal(flatmem_get32(&e->w.m, P_STACK - 16), P_STACK - 4);
    assert_int_equal(v->regs[REG_SP], P_STACK - 16 - 8);
    assert_int_equal(v->regs[REG_BP], P_STACK - 4);

    /* EBP = ESP: [EBP-4] is the EBP pushed first */
    v->regs[REG_SP] = v->regs[REG_BP] = P_STACK;
    RUN_OK(e, 4, 0xC8, 0x00, 0x00, 0x02);
    assert_int_equal(flatmem_get32(&e->w.m, P_STACK - 8), P_STACK);
    assert_int_equal(flatmem_get32(&e->w.m, P_STACK - 12), P_STACK - 4);
}

static void enter_looks_at_the_new_top_of_the_stack(void **state)
{
    struct emulator *e = *state;
    emulator_protected(e, 3);
    flatmem_fault(&e->w.m, P_STACK - 0x2000, P_STACK - 0x1001, FLATMEM_WRITE, false);
    RUN_FAULTS(e, VEC_PF, 6, 0xC8, 0x00, 0x18, 0x00);
    assert_int_equal(flatmem_get32(&e->w.m, P_STACK - 4), 0);
}

static void leave_takes_the_frame_pointer_under_the_stack_address_size(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 0);
    v->regs[REG_BP] = 0x31000;
    flatmem_put32(&e->w.m, 0x31000, 0x32000);
    RUN_OK(e, 1, 0xC9);
    assert_int_equal(v->regs[REG_SP], 0x31004);
    assert_int_equal(v->regs[REG_BP], 0x32000);
    protmode_segment(v, SEG_SS, S_DATA16);
    v->regs[REG_SP] = 0xAAAA0000;
    v->regs[REG_BP] = 0xBBBB0010;
    flatmem_put32(&e->w.m, 0x60010, 0x12345678);
    RUN_OK(e, 1, 0xC9);
    assert_int_equal(v->regs[REG_SP], 0xAAAA0014);
    assert_int_equal(v->regs[REG_BP], 0x12345678);
}

static void pushf_shows_the_guests_flags(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    vcpu_set_eflags(v, FLAG_CF | FLAG_DF | FLAG_IF | FLAG_RF | FLAG_AC | FLAG_ID | 2u << 12);
    RUN_OK(e, 1, 0x9C);
    assert_int_equal(flatmem_get32(&e->w.m, P_STACK - 4),
                     FLAG_CF | FLAG_DF | FLAG_IF | FLAG_AC | FLAG_ID | 2u << 12 | 2);
    v = emulator_v86(e, 3);
    RUN_OK(e, 2, 0x66, 0x9C);
    assert_int_equal(flatmem_get32(&e->w.m, 0x207FC), FLAG_IF | FLAG_IOPL | 2);
    emulator_v86(e, 2);
    RUN_FAULTS(e, VEC_GP, 0, 0x9C);
    RUN_FAULTS(e, VEC_GP, 0, 0x9D);
}

static void popf_changes_what_the_privilege_allows(void **state)
{
    const uint32_t arith = FLAGS_HOST | FLAG_TF | FLAG_NT, all = 0x3F7FD7;
    static const struct {
        uint8_t cpl, iopl, size;
        uint32_t changes;
    } cases[] = {
        {0, 0, 4, FLAG_IF | FLAG_IOPL | FLAG_AC | FLAG_ID},
        {0, 3, 2, FLAG_IF | FLAG_IOPL},
        {1, 1, 4, FLAG_IF | FLAG_AC | FLAG_ID},
        {1, 0, 4, FLAG_AC | FLAG_ID},
        {3, 3, 2, FLAG_IF},
        {3, 2, 4, FLAG_AC | FLAG_ID},
        {3, 2, 2, 0},
    };
    struct emulator *e = *state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        for (unsigned set = 0; set < 2; set++) {
            struct vcpu *v = emulator_protected(e, cases[i].cpl);
            uint32_t old = (uint32_t)cases[i].iopl << 12 | FLAG_RF, popped = all;
            uint32_t changes = cases[i].changes | arith;
            if (!set) {
                old |= all & ~(FLAG_VM | FLAG_VIF | FLAG_VIP | FLAG_IOPL);
                popped = 0;
            }
            vcpu_set_eflags(v, old);
            flatmem_put32(&e->w.m, P_STACK, popped);
            if (cases[i].size == 4)
                RUN_OK(e, 1, 0x9D);
            else
                RUN_OK(e, 2, 0x66, 0x9D);
            assert_int_equal(vcpu_eflags(v) & ~2u,
                             ((old & ~(changes | FLAG_RF)) | (popped & changes)) & ~2u);
            assert_int_equal(v->regs[REG_SP], P_STACK + cases[i].size);
        }
    }
    struct vcpu *v = emulator_v86(e, 3);
    flatmem_put32(&e->w.m, 0x20800, FLAG_TF);
    RUN_OK(e, 1, 0x9D);
    assert_int_equal(vcpu_eflags(v), FLAG_TF | FLAG_VM | FLAG_IOPL | 2);
    assert_true(v->mode_dirty);
}

static void segment_registers_are_pushed_and_popped(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    flatmem_put32(&e->w.m, P_STACK - 4, 0xFFFFFFFF);
    RUN_OK(e, 1, 0x0E);
    assert_int_equal(flatmem_get32(&e->w.m, P_STACK - 4), S_CODE3 | 3);
    RUN_OK(e, 3, 0x66, 0x0F, 0xA0);
    assert_int_equal(flatmem_get16(&e->w.m, P_STACK - 6), S_DATA3 | 3);
    v->regs[REG_SP] = P_STACK;
    flatmem_put32(&e->w.m, P_STACK, 0xFFFF0000 | S_READ_ONLY | 3);
    RUN_OK(e, 1, 0x07);
    assert_int_equal(v->seg[SEG_ES].sel, S_READ_ONLY | 3);
    assert_int_equal(v->seg[SEG_ES].base, 0x1000);
    assert_int_equal(v->regs[REG_SP], P_STACK + 4);
    assert_int_equal(v->shadow, 0);
    flatmem_put32(&e->w.m, P_STACK + 4, S_DATA0);
    RUN_FAULTS(e, VEC_GP, S_DATA0, 0x1F);
    RUN_FAULTS(e, VEC_GP, S_DATA0, 0x17);
    flatmem_put32(&e->w.m, P_STACK + 4, S_DATA3 | 3);
    RUN_OK(e, 1, 0x17);
    assert_int_equal(v->shadow, 2);
}

/* ---- near branches ---- */

static void near_calls_push_the_return_address_and_check_the_target(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 0);
    assert_int_equal(RUN(e, 0xE8, 0x10, 0x00, 0x00, 0x00), 0);
    assert_int_equal(v->rip, P_EIP + 0x15);
    assert_int_equal(flatmem_get32(&e->w.m, P_STACK - 4), P_EIP + 5);
    v->rip = P_EIP;
    assert_int_equal(RUN(e, 0x66, 0xE8, 0x10, 0x00), 0); /* cuts EIP to 16 bits */
    assert_int_equal(v->rip, 0x14);
    v->rip = P_EIP;
    v->regs[REG_BX] = 0x54321;
    assert_int_equal(RUN(e, 0xFF, 0xD3), 0);
    assert_int_equal(v->rip, 0x54321);
    v->rip = 0x100;
    protmode_segment(v, SEG_CS, S_SHORT);
    RUN_FAULTS(e, VEC_GP, 0, 0xFF, 0xD3);
    RUN_FAULTS(e, VEC_GP, 0, 0xFF, 0xE3);
    RUN_FAULTS(e, VEC_GP, 0, 0xE8, 0x00, 0x10, 0x00, 0x00);
    RUN_FAULTS(e, VEC_GP, 0, 0xE9, 0x00, 0x10, 0x00, 0x00);
    RUN_FAULTS(e, VEC_GP, 0, 0x0F, 0x81, 0x00, 0x10, 0x00, 0x00);
    v->rip = 0x40;
    RUN_FAULTS(e, VEC_GP, 0, 0xEB, 0x80); /* EIP wraps to the top */
    v->regs[REG_CX] = 2;
    RUN_FAULTS(e, VEC_GP, 0, 0xE2, 0x80); /* ECX stays */
    flatmem_put32(&e->w.m, (uint32_t)v->regs[REG_SP], 0x1000);
    RUN_FAULTS(e, VEC_GP, 0, 0xC3);
}

static void near_returns_drop_parameters(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    flatmem_put32(&e->w.m, P_STACK, 0x12345);
    assert_int_equal(RUN(e, 0xC2, 0x08, 0x80), 0);
    assert_int_equal(v->rip, 0x12345);
    assert_int_equal(v->regs[REG_SP], P_STACK + 4 + 0x8008);
    v->regs[REG_SP] = P_STACK;
    assert_int_equal(RUN(e, 0x66, 0xC3), 0);
    assert_int_equal(v->rip, 0x2345);
    assert_int_equal(v->regs[REG_SP], P_STACK + 2);
}

static void conditional_jumps_follow_the_flags(void **state)
{
    static const uint32_t cases[] = {
        0,
        FLAG_OF,
        FLAG_CF,
        FLAG_ZF,
        FLAG_SF,
        FLAG_PF,
        FLAG_SF | FLAG_OF,
        FLAG_CF | FLAG_ZF,
        FLAG_SF | FLAG_OF | FLAG_ZF,
    };
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        for (unsigned cc = 0; cc < 16; cc++) {
            bool of = cases[i] & FLAG_OF, cf = cases[i] & FLAG_CF, zf = cases[i] & FLAG_ZF,
                 sf = cases[i] & FLAG_SF, pf = cases[i] & FLAG_PF;
            const bool base[8] = {of, cf, zf, cf || zf, sf, pf, sf != of, zf || sf != of};
            v->rip = P_EIP;
            v->host_flags = cases[i];
            assert_int_equal(RUN(e, 0x70 | cc, 0x10), 0);
            assert_int_equal(v->rip, P_EIP + 2 + (base[cc / 2] != (cc & 1) ? 0x10 : 0));
        }
    }
}

static void loops_count_under_the_address_size(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    v->regs[REG_CX] = 0x10001;
    assert_int_equal(RUN(e, 0xE2, 0xFE), 0);
    assert_int_equal(v->rip, P_EIP);
    assert_int_equal(v->regs[REG_CX], 0x10000);
    v->regs[REG_CX] = 0x10001;
    RUN_OK(e, 3, 0x67, 0xE2, 0xFD);
    assert_int_equal(v->regs[REG_CX], 0x10000);
    v->regs[REG_CX] = 5;
    v->host_flags = FLAG_ZF;
    RUN_OK(e, 2, 0xE0, 0x10);
    assert_int_equal(v->regs[REG_CX], 4);
    RUN_OK(e, 2 + 0x10, 0xE1, 0x10);
    v->regs[REG_CX] = 0x10000;
    RUN_OK(e, 2, 0xE3, 0x10);
    RUN_OK(e, 3 + 0x10, 0x67, 0xE3, 0x10);
}

/* ---- strings ---- */

static void rep_movs_copies_and_leaves_the_registers_behind_the_end(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    for (unsigned i = 0; i < 16; i++)
        flatmem_put32(&e->w.m, 0x8000 + 4 * i, i * 0x01010101);
    v->regs[REG_SI] = 0x8000;
    v->regs[REG_DI] = 0x9000;
    v->regs[REG_CX] = 16;
    RUN_OK(e, 2, 0xF3, 0xA5);
    assert_memory_equal(flatmem_byte(&e->w.m, 0x8000), flatmem_byte(&e->w.m, 0x9000), 64);
    assert_int_equal(v->regs[REG_SI], 0x8040);
    assert_int_equal(v->regs[REG_DI], 0x9040);
    assert_int_equal(v->regs[REG_CX], 0);
    /* count 0: not even a look */
    v->regs[REG_SI] = 0x80000000;
    RUN_OK(e, 2, 0xF3, 0xA5);
    /* DF, bytes, 16-bit addresses that wrap, an override */
    v->host_flags = FLAG_DF;
    v->seg[SEG_FS].base = 0x30000;
    v->regs[REG_SI] = 0x55550001;
    v->regs[REG_DI] = 0x66660000;
    v->regs[REG_CX] = 0x77770003;
    flatmem_put16(&e->w.m, 0x30000, 0xBBAA);
    *flatmem_byte(&e->w.m, 0x3FFFF) = 0xCC;
    RUN_OK(e, 4, 0x67, 0x64, 0xF3, 0xA4);
    assert_int_equal(v->regs[REG_SI], 0x5555FFFE);
    assert_int_equal(v->regs[REG_DI], 0x6666FFFD);
    assert_int_equal(v->regs[REG_CX], 0x77770000);
    assert_int_equal(*flatmem_byte(&e->w.m, 0), 0xBB);
    assert_int_equal(flatmem_get16(&e->w.m, 0xFFFE), 0xAACC);
}

static void a_fault_in_a_rep_commits_the_elements_before_it(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    flatmem_fault(&e->w.m, 0x9FF8, 0x9FFF, FLATMEM_WRITE, true);
    v->regs[REG_AX] = 0x5A5A5A5A;
    v->regs[REG_DI] = 0x9FE8;
    v->regs[REG_CX] = 100;
    assert_int_equal(RUN(e, 0xF3, 0xAB), FAULT);
    assert_int_equal(v->exc.vector, VEC_PF);
    assert_int_equal(v->exc.cr2, 0x9FF8);
    assert_int_equal(v->regs[REG_CX], 96);
    assert_int_equal(v->regs[REG_DI], 0x9FF8);
    assert_int_equal(v->rip, P_EIP);
    assert_int_equal(flatmem_get32(&e->w.m, 0x9FF4), 0x5A5A5A5A);
}

static void comparing_strings_stops_at_the_difference_and_restores_flags_on_a_fault(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    memcpy(flatmem_byte(&e->w.m, 0x8000), "abcdef", 6);
    memcpy(flatmem_byte(&e->w.m, 0x9000), "abcxef", 6);
    v->regs[REG_SI] = 0x8000;
    v->regs[REG_DI] = 0x9000;
    v->regs[REG_CX] = 6;
    RUN_OK(e, 2, 0xF3, 0xA6);
    assert_int_equal(v->regs[REG_CX], 2);
    assert_int_equal(v->regs[REG_SI], 0x8004);
    assert_int_equal(v->host_flags, FLAG_CF | FLAG_SF | FLAG_AF); /* 64h - 78h = ECh */
    v->regs[REG_AX] = 'e';
    RUN_OK(e, 2, 0xF2, 0xAE);
    assert_int_equal(v->regs[REG_CX], 1);
    assert_int_equal(v->host_flags, FLAG_ZF | FLAG_PF);
    /* REPE SCAS over zeros, then a fault: the flags are the old ones, the count is not */
    flatmem_fault(&e->w.m, 0xA008, 0xA008, FLATMEM_ANY, true);
    v->regs[REG_AX] = 0;
    v->regs[REG_DI] = 0xA000;
    v->regs[REG_CX] = 50;
    v->host_flags = FLAG_OF | FLAG_CF;
    assert_int_equal(RUN(e, 0xF3, 0xAE), FAULT);
    assert_int_equal(v->regs[REG_CX], 42);
    assert_int_equal(v->host_flags, FLAG_OF | FLAG_CF);
}

static void compare_flags_are_those_of_a_subtraction(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    static const uint32_t values[] = {0,          1,          0x0F,       0x10,       0x7F,
                                      0x80,       0xFF,       0x7FFF,     0x8000,     0xFFFF,
                                      0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x12345678, 0x87654321};
    for (unsigned i = 0; i < ARRAY_LEN(values); i++) {
        for (unsigned k = 0; k < ARRAY_LEN(values); k++) {
            for (unsigned size = 1; size <= 4; size *= 2) {
                uint64_t a = values[i], b = values[k], flags;
                if (size == 1)
                    __asm__("cmpb %b2, %b1; pushfq; popq %0" : "=r"(flags) : "q"(a), "q"(b) : "cc");
                else if (size == 2)
                    __asm__("cmpw %w2, %w1; pushfq; popq %0" : "=r"(flags) : "r"(a), "r"(b) : "cc");
                else
                    __asm__("cmpl %k2, %k1; pushfq; popq %0" : "=r"(flags) : "r"(a), "r"(b) : "cc");
                v->rip = P_EIP;
                v->regs[REG_AX] = values[i];
                v->regs[REG_DI] = 0x8000;
                flatmem_put32(&e->w.m, 0x8000, values[k]);
                if (size == 1)
                    RUN_OK(e, 1, 0xAE);
                else if (size == 2)
                    RUN_OK(e, 2, 0x66, 0xAF);
                else
                    RUN_OK(e, 1, 0xAF);
                assert_int_equal(v->host_flags & FLAGS_ARITH, flags & FLAGS_ARITH);
            }
        }
    }
}

static void a_rep_gives_way_between_elements(void **state)
{
    struct emulator *e = *state;
    for (unsigned why = 0; why < 4; why++) {
        struct vcpu *v = emulator_protected(e, 3);
        v->regs[REG_DI] = 0x8000;
        v->regs[REG_CX] = 3;
        v->kicked = why == 0;
        v->irq_line = why == 1;
        v->nmi_pending = why == 2;
        v->sys_flags = why == 1 ? FLAG_IF : why == 3 ? FLAG_TF : 0;
        assert_int_equal(RUN(e, 0xF3, 0xAA), 0);
        assert_int_equal(v->rip, P_EIP);
        assert_int_equal(v->regs[REG_CX], 2);
        assert_int_equal(RUN(e, 0xF3, 0xAA), 0);
        RUN_OK(e, 2, 0xF3, 0xAA);
        assert_int_equal(v->regs[REG_CX], 0);
    }
    struct vcpu *v = emulator_protected(e, 3);
    v->irq_line = true; /* but IF = 0 */
    v->regs[REG_DI] = 0x8000;
    v->regs[REG_CX] = 3;
    RUN_OK(e, 2, 0xF3, 0xAA);
}

static void ins_and_outs_move_between_port_and_memory(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 0);
    v->regs[REG_DX] = 0x1F0;
    v->regs[REG_DI] = 0x8000;
    v->regs[REG_CX] = 4;
    e->ports.value = 0xABCD0000;
    RUN_OK(e, 3, 0xF3, 0x66, 0x6D);
    assert_int_equal(e->ports.reads, 4);
    assert_int_equal(e->ports.size, 2);
    assert_int_equal(e->ports.port, 0x1F0);
    assert_int_equal(flatmem_get32(&e->w.m, 0x8004), 0x00030002);
    v->regs[REG_SI] = 0x8004;
    v->regs[REG_CX] = 1;
    RUN_OK(e, 2, 0xF3, 0x6F);
    assert_int_equal(e->ports.value, 0x00030002);
    assert_true(e->ports.parked);
    /* a store that would fault does not read the port; a load that faults does not write it */
    flatmem_fault(&e->w.m, 0xA000, 0xAFFF, FLATMEM_ANY, true);
    v->regs[REG_DI] = v->regs[REG_SI] = 0xA000;
    RUN_FAULTS(e, VEC_PF, 3, 0x6C);
    RUN_FAULTS(e, VEC_PF, 1, 0x6E);
    assert_int_equal(e->ports.reads, 4);
    assert_int_equal(e->ports.writes, 1);
    v = emulator_protected(e, 3);
    flatmem_put16(&e->w.m, P_TSS_A + 102, 0x68);
    RUN_FAULTS(e, VEC_GP, 0, 0x6C);
    v->regs[REG_CX] = 1;
    RUN_FAULTS(e, VEC_GP, 0, 0xF3, 0x6E);
}

static void xlat_adds_al_to_ebx(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    v->regs[REG_AX] = 0x112233FF;
    v->regs[REG_BX] = 0x8001;
    *flatmem_byte(&e->w.m, 0x8100) = 0x42;
    RUN_OK(e, 1, 0xD7);
    assert_int_equal(v->regs[REG_AX], 0x11223342);
    v->regs[REG_AX] = 0xFF;
    v->regs[REG_BX] = 0xFFFFFF10;
    *flatmem_byte(&e->w.m, 0xF) = 0x43;
    RUN_OK(e, 2, 0x67, 0xD7);
    assert_int_equal(v->regs[REG_AX], 0x43);
}

/* ---- decimal arithmetic ---- */

/* FNV-1a of AX and the arithmetic flags over all AL, some AH and flags, as an Intel CPU gave them
   in a 32-bit code segment. */
static void decimal_arithmetic_gives_what_silicon_gives(void **state)
{
    static const struct {
        uint8_t bytes[2], size;
        uint64_t hash;
    } cases[] = {
        {{0x37}, 1, 0x6282975d4b875f25},       {{0x3F}, 1, 0x4194d7975bd93f25},
        {{0x27}, 1, 0x4ba885f8f2015805},       {{0x2F}, 1, 0xd695ffe47cb52945},
        {{0xD4, 10}, 2, 0xe453eea88287f625},   {{0xD5, 10}, 2, 0x8fb0b8352932a05},
        {{0xD6}, 1, 0x4c8a2f60e38fab25},       {{0xD4, 7}, 2, 0x14618889c1d03325},
        {{0xD5, 0xC3}, 2, 0xa074cef1473375e5},
    };
    static const uint8_t ah[] = {0, 0x12, 0xFF, 0x80};
    static const uint16_t flags[] = {0x202, 0x203, 0x212, 0x213, 0xAC6, 0xAD7, 0xAC6, 0xAD6};
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t hash = 0xcbf29ce484222325;
        for (unsigned n = 0; n < 4 * 8 * 256; n++) {
            v->rip = P_EIP;
            v->regs[REG_AX] = 0xABCD0000 | ah[n / 2048] << 8 | (n & 0xFF);
            v->host_flags = flags[n / 256 % 8] & FLAGS_HOST;
            RUN_OK(e, cases[i].size, cases[i].bytes[0], cases[i].bytes[1]);
            assert_int_equal(v->regs[REG_AX] >> 16, 0xABCD);
            hash = (hash ^ (v->regs[REG_AX] & 0xFFFF)) * 0x100000001b3;
            hash = (hash ^ (v->host_flags & FLAGS_ARITH)) * 0x100000001b3;
        }
        if (hash != cases[i].hash)
            fail_msg("case %u: %016llx", i, (unsigned long long)hash);
    }
    RUN_FAULTS(e, VEC_DE, -1, 0xD4, 0x00);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_row_that_the_host_may_not_execute_is_emulated),
        TEST(what_the_host_may_execute_is_left_to_it),
        TEST(an_effective_address_is_cut_to_the_address_size),
        TEST(push_stores_below_the_stack_pointer),
        TEST(push_and_pop_fault_without_a_trace),
        TEST(pop_to_memory_is_addressed_with_the_new_stack_pointer),
        TEST(a_16_bit_stack_moves_sp_only),
        TEST(pusha_and_popa_move_eight_registers_but_not_esp),
        TEST(pusha_in_real_mode_wraps_between_values_and_not_within),
        TEST(enter_copies_frame_pointers_even_those_that_it_has_just_pushed),
        TEST(enter_looks_at_the_new_top_of_the_stack),
        TEST(leave_takes_the_frame_pointer_under_the_stack_address_size),
        TEST(pushf_shows_the_guests_flags),
        TEST(popf_changes_what_the_privilege_allows),
        TEST(segment_registers_are_pushed_and_popped),
        TEST(near_calls_push_the_return_address_and_check_the_target),
        TEST(near_returns_drop_parameters),
        TEST(conditional_jumps_follow_the_flags),
        TEST(loops_count_under_the_address_size),
        TEST(rep_movs_copies_and_leaves_the_registers_behind_the_end),
        TEST(a_fault_in_a_rep_commits_the_elements_before_it),
        TEST(comparing_strings_stops_at_the_difference_and_restores_flags_on_a_fault),
        TEST(compare_flags_are_those_of_a_subtraction),
        TEST(a_rep_gives_way_between_elements),
        TEST(ins_and_outs_move_between_port_and_memory),
        TEST(xlat_adds_al_to_ebx),
        TEST(decimal_arithmetic_gives_what_silicon_gives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
