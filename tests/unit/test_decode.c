/*
 * The decoder's fields, by hand-made cases: prefixes, addresses, immediates, sizes, limits, and
 * what rows say. That lengths and mnemonics are right for any string is test_decode_oracle.c's
 * affair.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <sys/mman.h>

#include "cpu/decode.h"

/* Decodes the bytes, followed by zeros, and checks result and length. */
#define DECODE(in, mode, len, ...)                                                                 \
    decode_case(in, mode, DECODE_OK, len, BYTES(__VA_ARGS__), __LINE__)
#define REFUSE(mode, ...)                                                                          \
    decode_case(&(struct insn){0}, mode, DECODE_UNDEFINED, 0, BYTES(__VA_ARGS__), __LINE__)
#define BYTES(...) (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})

static void decode_case(struct insn *in, unsigned mode, enum decode_result expect, unsigned len,
                        const uint8_t *bytes, size_t size, int line)
{
    uint8_t string[32] = {0};
    memcpy(string, bytes, size);
    memset(in, 0xA5, sizeof(*in));
    enum decode_result result = decode(in, string, sizeof(string), mode);
    if (result != expect || (len && in->len != len))
        fail_msg("line %d: result %d, length %u", line, result, in->len);
    if (result == DECODE_OK && memcmp(in->bytes, string, in->len) != 0)
        fail_msg("line %d: bytes", line);
}

static void sixteen_bit_addresses_have_their_base_and_index(void **state)
{
    (void)state;
    static const struct {
        uint8_t base, index, seg;
    } forms[8] = {
        {REG_BX, REG_SI, SEG_DS}, {REG_BX, REG_DI, SEG_DS}, {REG_BP, REG_SI, SEG_SS},
        {REG_BP, REG_DI, SEG_SS}, {REG_SI, NO_REG, SEG_DS}, {REG_DI, NO_REG, SEG_DS},
        {REG_BP, NO_REG, SEG_SS}, {REG_BX, NO_REG, SEG_DS},
    };
    for (unsigned mod = 0; mod < 3; mod++) {
        for (unsigned rm = 0; rm < 8; rm++) {
            struct insn in;
            bool direct = mod == 0 && rm == 6;
            unsigned disp_size = direct ? 2 : mod;
            DECODE(&in, 16, 2 + disp_size, 0x8B, mod << 6 | 3 << 3 | rm, 0xFE, 0xFF);
            assert_int_equal(in.op, OP_MOV);
            assert_true(in.has_modrm && in.has_mem && !in.has_sib && !in.moffs);
            assert_int_equal(in.addrsize, 2);
            assert_int_equal(in.opsize, 2);
            assert_int_equal(in.mem_size, 2);
            assert_int_equal(in.base, direct ? NO_REG : forms[rm].base);
            assert_int_equal(in.index, forms[rm].index);
            assert_int_equal(in.scale, 1);
            assert_int_equal(in.seg, direct ? SEG_DS : forms[rm].seg);
            assert_int_equal(in.disp_size, disp_size);
            assert_int_equal(in.disp, disp_size ? -2 : 0);
            assert_int_equal(in.reg, REG_BX);
            assert_int_equal(in.rm, rm);
            assert_int_equal(in.mod, mod);
            assert_int_equal(in.modrm_off, 1);
        }
    }
}

static void thirty_two_bit_addresses_have_base_index_scale(void **state)
{
    (void)state;
    struct insn in;
    DECODE(&in, 32, 2, 0x8B, 0x03); /* [ebx] */
    assert_int_equal(in.base, REG_BX);
    assert_int_equal(in.index, NO_REG);
    assert_int_equal(in.seg, SEG_DS);
    assert_int_equal(in.disp_size, 0);
    DECODE(&in, 32, 6, 0x8B, 0x05, 0x78, 0x56, 0x34, 0xF2); /* [disp32] */
    assert_int_equal(in.base, NO_REG);
    assert_int_equal(in.seg, SEG_DS);
    assert_int_equal(in.disp, (int32_t)0xF2345678);
    assert_false(in.rip_relative);
    DECODE(&in, 32, 3, 0x8B, 0x45, 0x80); /* [ebp-80h] */
    assert_int_equal(in.base, REG_BP);
    assert_int_equal(in.seg, SEG_SS);
    assert_int_equal(in.disp, -0x80);
    DECODE(&in, 32, 4, 0x8B, 0x44, 0xB4, 0x10); /* [esp+esi*4+10h] */
    assert_true(in.has_sib);
    assert_int_equal(in.sib, 0xB4);
    assert_int_equal(in.base, REG_SP);
    assert_int_equal(in.index, REG_SI);
    assert_int_equal(in.scale, 4);
    assert_int_equal(in.seg, SEG_SS);
    DECODE(&in, 32, 3, 0x8B, 0x04, 0x24); /* [esp], no index */
    assert_int_equal(in.base, REG_SP);
    assert_int_equal(in.index, NO_REG);
    DECODE(&in, 32, 7, 0x8B, 0x04, 0xED, 4, 3, 2, 1); /* [ebp*8+disp32]: EBP as index leaves DS */
    assert_int_equal(in.base, NO_REG);
    assert_int_equal(in.index, REG_BP);
    assert_int_equal(in.scale, 8);
    assert_int_equal(in.seg, SEG_DS);
    assert_int_equal(in.disp, 0x01020304);
    DECODE(&in, 32, 2, 0x8B, 0xC3); /* register */
    assert_false(in.has_mem);
    assert_int_equal(in.seg, SEG_NONE);
    assert_int_equal(in.mem_size, 0);
    DECODE(&in, 32, 4, 0x67, 0x8B, 0x40, 0x01); /* 16-bit form in 32-bit mode */
    assert_int_equal(in.addrsize, 2);
    assert_int_equal(in.base, REG_BX);
    assert_int_equal(in.index, REG_SI);
    DECODE(&in, 16, 4, 0x67, 0x8B, 0x04, 0x24); /* and the other way round */
    assert_int_equal(in.addrsize, 4);
    assert_int_equal(in.opsize, 2);
    assert_int_equal(in.base, REG_SP);
}

static void sixty_four_bit_addresses_take_rex_and_rip(void **state)
{
    (void)state;
    struct insn in;
    DECODE(&in, 64, 7, 0x48, 0x8B, 0x05, 0x10, 0, 0, 0);
    assert_true(in.rip_relative);
    assert_int_equal(in.base, NO_REG);
    assert_int_equal(in.opsize, 8);
    assert_int_equal(in.addrsize, 8);
    DECODE(&in, 64, 5, 0x4F, 0x8B, 0x5C, 0x25, 0x08); /* mov r11, [r13+r12+8] */
    assert_int_equal(in.reg, 11);
    assert_int_equal(in.base, 13);
    assert_int_equal(in.index, 12);
    assert_int_equal(in.seg, SEG_DS);
    assert_int_equal(in.rex, 0x4F);
    DECODE(&in, 64, 5, 0x64, 0x2E, 0x41, 0x8B, 0x00); /* CS does not undo FS */
    assert_int_equal(in.seg, SEG_FS);
    assert_int_equal(in.base, 8);
    DECODE(&in, 64, 4, 0x48, 0x2E, 0x8B, 0x00); /* REX before another prefix is nothing */
    assert_int_equal(in.rex, 0);
    assert_int_equal(in.opsize, 4);
    assert_int_equal(in.seg, SEG_DS);
    assert_false(in.prefixes & PREFIX_SEGMENT);
    DECODE(&in, 64, 10, 0x48, 0xB8, 1, 2, 3, 4, 5, 6, 7, 8);
    assert_int_equal(in.imm_size, 8);
    assert_int_equal(in.imm, 0x0807060504030201);
    DECODE(&in, 64, 1, 0x50);
    assert_int_equal(in.opsize, 8);
    DECODE(&in, 64, 2, 0x66, 0x50);
    assert_int_equal(in.opsize, 2);
    DECODE(&in, 64, 2, 0x41, 0x57);
    assert_int_equal(in.rm, 15);
    DECODE(&in, 64, 1, 0x90);
    assert_int_equal(in.op, OP_NOP);
    DECODE(&in, 64, 2, 0x41, 0x90);
    assert_int_equal(in.op, OP_XCHG);
    assert_int_equal(in.rm, 8);
    DECODE(&in, 64, 3, 0x48, 0x63, 0xC1);
    assert_int_equal(in.op, OP_MOVSXD);
    DECODE(&in, 32, 2, 0x63, 0xC1);
    assert_int_equal(in.op, OP_ARPL);
}

static void moffs_have_the_address_size(void **state)
{
    (void)state;
    struct insn in;
    DECODE(&in, 32, 5, 0xA1, 0xF0, 0xFF, 0xFF, 0xFF);
    assert_true(in.has_mem && in.moffs && !in.has_modrm);
    assert_int_equal(in.disp_size, 4);
    assert_true(in.disp == 0xFFFFFFF0);
    assert_int_equal(in.base, NO_REG);
    assert_int_equal(in.mem_size, 4);
    assert_int_equal(in.imm_size, 0);
    assert_int_equal(in.seg, SEG_DS);
    DECODE(&in, 32, 5, 0x65, 0x67, 0xA0, 0x34, 0x12);
    assert_int_equal(in.disp, 0x1234);
    assert_int_equal(in.seg, SEG_GS);
    assert_int_equal(in.mem_size, 1);
    DECODE(&in, 16, 3, 0xA3, 0x34, 0xF2);
    assert_true(in.disp == 0xF234);
    assert_int_equal(in.mem_size, 2);
    DECODE(&in, 64, 9, 0xA1, 8, 7, 6, 5, 4, 3, 2, 1);
    assert_true(in.disp == 0x0102030405060708);
}

static void immediates_are_sign_extended(void **state)
{
    (void)state;
    struct insn in;
    DECODE(&in, 32, 3, 0x83, 0xC0, 0xFE);
    assert_int_equal(in.imm_size, 1);
    assert_int_equal(in.imm_off, 2);
    assert_int_equal(in.imm, -2);
    DECODE(&in, 32, 4, 0x66, 0x05, 0x00, 0x80);
    assert_int_equal(in.imm_size, 2);
    assert_int_equal(in.imm, -0x8000);
    DECODE(&in, 32, 5, 0x05, 0, 0, 0, 0x80);
    assert_int_equal(in.imm, INT32_MIN);
    DECODE(&in, 32, 7, 0xEA, 0x78, 0x56, 0x34, 0x12, 0xCD, 0xAB);
    assert_int_equal(in.imm, 0x12345678);
    assert_int_equal(in.imm2, 0xABCD);
    assert_int_equal(in.imm2_size, 2);
    DECODE(&in, 16, 5, 0x9A, 0x34, 0x12, 0xCD, 0xAB);
    assert_int_equal(in.imm, 0x1234);
    assert_int_equal(in.imm2, 0xABCD);
    DECODE(&in, 32, 4, 0xC8, 0x34, 0x12, 0x05);
    assert_int_equal(in.imm, 0x1234);
    assert_int_equal(in.imm_size, 2);
    assert_int_equal(in.imm2, 5);
    assert_int_equal(in.imm2_size, 1);
    DECODE(&in, 32, 2, 0xEB, 0xFE);
    assert_int_equal(in.op, OP_JMP_NEAR);
    assert_int_equal(in.imm, -2);
    DECODE(&in, 32, 4, 0x66, 0xE8, 0xFC, 0xFF);
    assert_int_equal(in.op, OP_CALL_NEAR);
    assert_int_equal(in.imm, -4);
    DECODE(&in, 32, 8, 0xF7, 0x44, 0x24, 0x08, 1, 0, 0, 0);
    assert_int_equal(in.op, OP_TEST);
    assert_int_equal(in.imm_off, 4);
    DECODE(&in, 32, 2, 0xF7, 0xD8);
    assert_int_equal(in.op, OP_NEG);
    assert_int_equal(in.imm_size, 0);
    DECODE(&in, 32, 6, 0xF7, 0xC8, 1, 0, 0, 0); /* /1 is TEST too */
    assert_int_equal(in.op, OP_TEST);
}

static void the_last_prefix_of_a_group_counts(void **state)
{
    (void)state;
    struct insn in;
    DECODE(&in, 32, 5, 0x26, 0x64, 0x2E, 0x8B, 0x00);
    assert_int_equal(in.seg, SEG_CS);
    assert_true(in.prefixes & PREFIX_SEGMENT);
    DECODE(&in, 32, 4, 0xF2, 0xF3, 0x66, 0xA5);
    assert_int_equal(in.op, OP_MOVS);
    assert_int_equal(in.prefixes & (PREFIX_REP | PREFIX_REPNE), PREFIX_REP);
    assert_int_equal(in.prefixes & (PREFIX_F2 | PREFIX_F3), PREFIX_F3);
    assert_int_equal(in.opsize, 2);
    assert_int_equal(in.mem_size, 2);
    DECODE(&in, 32, 3, 0xF3, 0xF2, 0xAE);
    assert_int_equal(in.prefixes & (PREFIX_REP | PREFIX_REPNE), PREFIX_REPNE);
    DECODE(&in, 32, 3, 0xF3, 0x89, 0xC8); /* not a string: F3 means nothing */
    assert_int_equal(in.prefixes & (PREFIX_REP | PREFIX_REPNE), 0);
    assert_true(in.prefixes & PREFIX_F3);
    DECODE(&in, 32, 5, 0xF2, 0x66, 0x0F, 0x58, 0xC1); /* F2 outranks 66 */
    assert_int_equal(in.op, OP_ADDSD);
    DECODE(&in, 32, 4, 0x66, 0x66, 0x01, 0xC8); /* twice is once */
    assert_int_equal(in.opsize, 2);
}

static void strings_tell_the_segment_of_their_source(void **state)
{
    (void)state;
    struct insn in;
    DECODE(&in, 32, 2, 0x64, 0xA4);
    assert_int_equal(in.seg, SEG_FS);
    assert_false(in.has_mem);
    DECODE(&in, 32, 1, 0xA7);
    assert_int_equal(in.seg, SEG_DS);
    assert_int_equal(in.mem_size, 4);
    DECODE(&in, 32, 2, 0x64, 0xAB); /* STOS: ES whatever the prefix */
    assert_int_equal(in.seg, SEG_ES);
    DECODE(&in, 32, 2, 0x36, 0xD7); /* XLAT */
    assert_int_equal(in.seg, SEG_SS);
    DECODE(&in, 32, 1, 0x55); /* PUSH: the stack is implied */
    assert_int_equal(in.seg, SEG_NONE);
}

static void mandatory_prefixes_select_the_row(void **state)
{
    (void)state;
    struct insn in;
    DECODE(&in, 32, 3, 0x0F, 0x58, 0xC1);
    assert_int_equal(in.op, OP_ADDPS);
    DECODE(&in, 32, 4, 0x66, 0x0F, 0x58, 0xC1);
    assert_int_equal(in.op, OP_ADDPD);
    assert_int_equal(in.opsize, 4); /* 66 is part of the opcode */
    assert_true(in.prefixes & PREFIX_OPSIZE);
    DECODE(&in, 32, 4, 0xF3, 0x0F, 0x58, 0x00);
    assert_int_equal(in.op, OP_ADDSS);
    assert_int_equal(in.mem_size, 4);
    DECODE(&in, 32, 5, 0x66, 0xF3, 0x0F, 0xB8, 0x00);
    assert_int_equal(in.op, OP_POPCNT);
    assert_int_equal(in.opsize, 2); /* here it is the operand size */
    DECODE(&in, 32, 6, 0xF2, 0x66, 0x0F, 0x38, 0xF1, 0x00);
    assert_int_equal(in.op, OP_CRC32);
    assert_int_equal(in.mem_size, 2);
    DECODE(&in, 32, 5, 0x66, 0x0F, 0x38, 0xF0, 0x00);
    assert_int_equal(in.op, OP_MOVBE);
    assert_int_equal(in.mem_size, 2);
    DECODE(&in, 32, 2, 0xF3, 0x90);
    assert_int_equal(in.op, OP_PAUSE);
    DECODE(&in, 32, 4, 0xF3, 0x0F, 0x1E, 0xFB); /* ENDBR32 */
    assert_int_equal(in.op, OP_NOP);
    REFUSE(32, 0x0F, 0xB8, 0xC0);
    REFUSE(32, 0xF2, 0x0F, 0xFC, 0xC0);
    REFUSE(32, 0xF3, 0x66, 0x0F, 0x38, 0x00, 0xC0);
}

static void a_hidden_feature_leaves_the_older_meaning(void **state)
{
    (void)state;
    struct insn in;
    DECODE(&in, 32, 4, 0xF3, 0x0F, 0xBC, 0xC1);
    assert_int_equal(in.op, OP_TZCNT);
    assert_int_equal(in.row->feature, F_BMI1);
    assert_int_equal(decode_plain_row(&in)->op, OP_BSF);
    DECODE(&in, 32, 4, 0xF3, 0x0F, 0xBD, 0xC1);
    assert_int_equal(in.op, OP_LZCNT);
    assert_int_equal(decode_plain_row(&in)->op, OP_BSR);
    DECODE(&in, 32, 4, 0xF3, 0x0F, 0xB8, 0xC1);
    assert_null(decode_plain_row(&in));
    DECODE(&in, 32, 5, 0x66, 0x0F, 0x38, 0xDC, 0xC1);
    assert_int_equal(in.row->feature, F_AES);
    assert_null(decode_plain_row(&in));
}

static void lock_is_for_read_modify_write_of_memory(void **state)
{
    (void)state;
    struct insn in;
    DECODE(&in, 32, 3, 0xF0, 0x01, 0x00);
    assert_true(in.prefixes & PREFIX_LOCK);
    DECODE(&in, 32, 4, 0xF2, 0xF0, 0x87, 0x00); /* XACQUIRE is a hint */
    DECODE(&in, 32, 4, 0xF0, 0x0F, 0xC7, 0x08);
    assert_int_equal(in.op, OP_CMPXCHG8B);
    REFUSE(32, 0xF0, 0x01, 0xC0); /* register */
    REFUSE(32, 0xF0, 0x03, 0x00); /* memory is the source */
    REFUSE(32, 0xF0, 0x39, 0x00); /* CMP writes nothing */
    REFUSE(32, 0xF0, 0x89, 0x00);
    REFUSE(32, 0xF0, 0x0F, 0xA3, 0x00); /* BT */
    REFUSE(32, 0xF0, 0x90);
    REFUSE(32, 0xF0, 0xA4);
    REFUSE(32, 0xF0, 0x0F, 0x20, 0xC0);
}

static void what_no_row_describes_is_undefined(void **state)
{
    (void)state;
    struct insn in;
    REFUSE(32, 0x0F, 0x04);
    REFUSE(32, 0x0F, 0x0E); /* FEMMS */
    REFUSE(32, 0x0F, 0x0F, 0xC0, 0x9E);
    REFUSE(32, 0xC6, 0x08, 0x00);
    REFUSE(32, 0xFE, 0x10);
    REFUSE(32, 0xFF, 0xF8);
    REFUSE(32, 0xFF, 0xD8); /* far CALL wants memory */
    REFUSE(32, 0x8D, 0xC0);
    REFUSE(32, 0x8F, 0xC8); /* XOP */
    REFUSE(32, 0x8E, 0xC8); /* MOV CS */
    REFUSE(32, 0x8E, 0xF0);
    REFUSE(32, 0x8C, 0xF8);
    REFUSE(32, 0x0F, 0x20, 0xC8); /* CR1 */
    REFUSE(32, 0x0F, 0x24, 0xC0);
    REFUSE(32, 0x0F, 0x01, 0xC1); /* VMCALL */
    REFUSE(32, 0x62, 0xF1, 0x7C, 0x48, 0x58, 0xC0);
    REFUSE(32, 0xD9, 0x08);
    REFUSE(32, 0xD9, 0xD1);
    REFUSE(64, 0x06);
    REFUSE(64, 0x27);
    REFUSE(64, 0x60);
    REFUSE(64, 0x82, 0xC0, 0x00);
    REFUSE(64, 0x9A);
    REFUSE(64, 0xD6);
    DECODE(&in, 32, 2, 0x62, 0x00);
    assert_int_equal(in.op, OP_BOUND);
    assert_int_equal(in.mem_size, 8);
    DECODE(&in, 32, 1, 0xD6);
    assert_int_equal(in.op, OP_SALC);
    DECODE(&in, 32, 1, 0xF1);
    assert_int_equal(in.op, OP_INT1);
    DECODE(&in, 32, 3, 0x82, 0xC0, 0x01);
    assert_int_equal(in.op, OP_ADD);
    DECODE(&in, 32, 3, 0xC1, 0xF0, 0x01);
    assert_int_equal(in.op, OP_SHL);
    DECODE(&in, 32, 3, 0x0F, 0x20, 0x18); /* mod is ignored */
    assert_int_equal(in.op, OP_MOV_CR_READ);
    assert_int_equal(in.mod, 3);
    assert_false(in.has_mem);
    DECODE(&in, 32, 2, 0x8E, 0xD0);
    assert_int_equal(in.reg, SEG_SS);
}

static void vex_is_told_from_les_and_lds(void **state)
{
    (void)state;
    struct insn in;
    DECODE(&in, 32, 2, 0xC4, 0x00);
    assert_int_equal(in.op, OP_LES);
    assert_int_equal(in.mem_size, 6);
    DECODE(&in, 16, 2, 0xC5, 0x07);
    assert_int_equal(in.op, OP_LDS);
    assert_int_equal(in.mem_size, 4);
    DECODE(&in, 32, 4, 0xC5, 0xF4, 0x58, 0x00); /* vaddps ymm0, ymm1, [eax] */
    assert_int_equal(in.op, OP_VADDPS);
    assert_true(in.vex);
    assert_int_equal(in.vex_l, 1);
    assert_int_equal(in.vex_vvvv, 1);
    assert_int_equal(in.mem_size, 32);
    assert_int_equal(in.map, 1);
    assert_int_equal(in.modrm_off, 3);
    DECODE(&in, 32, 5, 0xC4, 0xE2, 0xF1, 0xB8, 0x00);
    assert_int_equal(in.op, OP_VFMADD231PD);
    assert_int_equal(in.vex_w, 1);
    assert_int_equal(in.vex_pp, 1);
    DECODE(&in, 32, 5, 0xC4, 0xE2, 0xB8, 0xF2, 0xC1); /* vvvv has three bits outside 64-bit mode */
    assert_int_equal(in.op, OP_ANDN);
    assert_int_equal(in.vex_vvvv, 0);
    assert_int_equal(in.opsize, 4);
    DECODE(&in, 64, 5, 0xC4, 0x42, 0xB0, 0xF2, 0xC1);
    assert_int_equal(in.vex_vvvv, 9);
    assert_int_equal(in.reg, 8);
    assert_int_equal(in.rm, 9);
    assert_int_equal(in.opsize, 8);
    REFUSE(32, 0x66, 0xC5, 0xF4, 0x58, 0x00);
    REFUSE(32, 0xF3, 0xC5, 0xF4, 0x58, 0x00);
    REFUSE(32, 0xF0, 0xC5, 0xF4, 0x58, 0x00);
    REFUSE(64, 0x40, 0xC5, 0xF4, 0x58, 0x00);
    REFUSE(32, 0xC5, 0xF0, 0x10, 0x00);       /* vmovups: vvvv is not used */
    REFUSE(32, 0xC4, 0xE2, 0xF9, 0x18, 0x00); /* vbroadcastss: W1 */
    REFUSE(32, 0xC4, 0xE2, 0x79, 0x19, 0x00); /* vbroadcastsd: L0 */
    REFUSE(32, 0xC4, 0xE0, 0x79, 0x58, 0x00); /* no such map */
}

static void gathers_want_sib_and_three_registers(void **state)
{
    (void)state;
    struct insn in;
    DECODE(&in, 32, 6, 0xC4, 0xE2, 0x69, 0x90, 0x04,
           0x8B); /* vpgatherdd xmm0, [ebx+xmm1*4], xmm2 */
    assert_int_equal(in.op, OP_VPGATHERDD);
    assert_true(in.vsib);
    assert_int_equal(in.base, REG_BX);
    assert_int_equal(in.index, 1);
    assert_int_equal(in.scale, 4);
    assert_int_equal(in.mem_size, 4);
    DECODE(&in, 32, 6, 0xC4, 0xE2, 0x69, 0x90, 0x04, 0xA3); /* index 4 is xmm4 here */
    assert_int_equal(in.index, 4);
    REFUSE(32, 0xC4, 0xE2, 0x69, 0x90, 0x00);
    REFUSE(32, 0xC4, 0xE2, 0x69, 0x90, 0xC4);
    REFUSE(32, 0xC4, 0xE2, 0x79, 0x90, 0x04, 0x8B);
    REFUSE(32, 0xC4, 0xE2, 0x71, 0x90, 0x04, 0x8B);
    REFUSE(32, 0x67, 0xC4, 0xE2, 0x69, 0x90, 0x04, 0x8B);
}

static void memory_operands_have_their_size(void **state)
{
    (void)state;
    struct insn in;
    static const struct {
        uint8_t len, size, bytes[6];
    } cases[] = {
        {2, 1, {0x88, 0x00}},
        {3, 1, {0x0F, 0xB6, 0x00}},
        {3, 2, {0x0F, 0xB7, 0x00}},
        {2, 6, {0xFF, 0x28}},
        {3, 4, {0x66, 0xFF, 0x28}},
        {3, 6, {0x0F, 0x01, 0x10}},
        {2, 10, {0xDB, 0x28}},
        {2, 28, {0xD9, 0x30}},
        {3, 14, {0x66, 0xD9, 0x30}},
        {2, 108, {0xDD, 0x30}},
        {3, 94, {0x66, 0xDD, 0x30}},
        {3, 8, {0x0F, 0xC7, 0x08}},
        {3, 0, {0x0F, 0xAE, 0x00}},
        {3, 8, {0x0F, 0x5A, 0x00}},
        {5, 4, {0x66, 0x0F, 0x38, 0x21, 0x00}},
        {5, 8, {0xC4, 0xE2, 0x7D, 0x21, 0x00}},
        {3, 4, {0x0F, 0x60, 0x00}},
        {4, 16, {0x66, 0x0F, 0x60, 0x00}},
        {2, 0, {0x8D, 0x00}},
        {2, 2, {0x8C, 0x00}},
    };
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        decode_case(&in, 32, DECODE_OK, cases[i].len, cases[i].bytes, sizeof(cases[i].bytes),
                    (int)i);
        assert_int_equal(in.mem_size, cases[i].size);
    }
}

static void fifteen_bytes_are_the_limit(void **state)
{
    (void)state;
    uint8_t b[20];
    struct insn in;
    memset(b, 0x26, sizeof(b));
    b[14] = 0x90;
    assert_int_equal(decode(&in, b, sizeof(b), 32), DECODE_OK);
    assert_int_equal(in.len, 15);
    b[14] = 0x26;
    b[15] = 0x90;
    assert_int_equal(decode(&in, b, sizeof(b), 32), DECODE_TOO_LONG);
    assert_int_equal(decode(&in, b, 15, 32), DECODE_TOO_LONG);
    assert_int_equal(decode(&in, b, 14, 32), DECODE_TRUNCATED);
    b[14] = 0x0F;
    assert_int_equal(decode(&in, b, sizeof(b), 32), DECODE_TOO_LONG);
    memset(b, 0x26, sizeof(b));
    b[9] = 0x81; /* 9 prefixes, opcode, modrm, imm32: 15 */
    b[10] = 0xC0;
    assert_int_equal(decode(&in, b, sizeof(b), 32), DECODE_OK);
    assert_int_equal(in.len, 15);
    b[10] = 0x40; /* one more byte of displacement */
    assert_int_equal(decode(&in, b, sizeof(b), 32), DECODE_TOO_LONG);
}

/* The bytes end where an unreadable page begins. */
static void a_truncated_instruction_is_told_and_nothing_read_behind_it(void **state)
{
    (void)state;
    static const struct {
        uint8_t mode, len, bytes[15];
    } cases[] = {
        {32, 1, {0x90}},
        {32, 11, {0x66, 0x2E, 0x81, 0x84, 0x24, 1, 2, 3, 4, 5, 6}},
        {32, 7, {0xEA, 1, 2, 3, 4, 5, 6}},
        {32, 5, {0xA1, 1, 2, 3, 4}},
        {32, 4, {0xC8, 1, 2, 3}},
        {32, 6, {0x0F, 0x38, 0xF0, 0x44, 0x24, 1}},
        {32, 6, {0x0F, 0x3A, 0x0F, 0x44, 0x24, 1}}, /* and its immediate: 7, see below */
        {32, 5, {0xC4, 0xE2, 0xF1, 0xB8, 0x00}},
        {32, 6, {0xC5, 0xF9, 0x70, 0x40, 0x01, 0x02}},
        {32, 2, {0xC4, 0x00}},
        {32, 2, {0x62, 0x00}},
        {16, 5, {0xC7, 0x46, 1, 2, 3}},
        {64, 10, {0x49, 0xBF, 1, 2, 3, 4, 5, 6, 7, 8}},
        {64, 9, {0xA1, 1, 2, 3, 4, 5, 6, 7, 8}},
        {32, 15, {0x66, 0x26, 0x26, 0x26, 0x26, 0x26, 0x81, 0x84, 0x24, 1, 2, 3, 4, 5, 6}},
    };
    uint8_t *page =
        mmap(NULL, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(page, MAP_FAILED);
    assert_int_equal(mprotect(page + PAGE_SIZE, PAGE_SIZE, PROT_NONE), 0);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        unsigned len = cases[i].len;
        struct insn in;
        if (cases[i].bytes[1] == 0x3A)
            len = 7;
        for (unsigned avail = 0; avail <= len; avail++) {
            uint8_t *at = page + PAGE_SIZE - avail;
            memcpy(at, cases[i].bytes, avail);
            enum decode_result result = decode(&in, at, avail, cases[i].mode);
            if (result != (avail < len ? DECODE_TRUNCATED : DECODE_OK))
                fail_msg("case %u with %u bytes: %d", i, avail, result);
        }
        assert_int_equal(in.len, len);
    }
    munmap(page, 2 * PAGE_SIZE);
}

static void flags_of_shifts_depend_on_the_count(void **state)
{
    (void)state;
    struct insn in;
    struct insn_flags f;
    DECODE(&in, 32, 3, 0xC1, 0xE0, 0x04);
    f = decode_flags(&in);
    assert_int_equal(f.set, FLAGS_ARITH);
    assert_int_equal(f.undef, FLAG_OF | FLAG_AF);
    assert_int_equal(f.read, 0);
    DECODE(&in, 32, 3, 0xC1, 0xE0, 0x20); /* count 0 after masking */
    f = decode_flags(&in);
    assert_int_equal(f.set | f.undef | f.read, 0);
    DECODE(&in, 32, 3, 0xC0, 0xE0, 0x09); /* more than the width */
    assert_true(decode_flags(&in).undef & FLAG_CF);
    DECODE(&in, 32, 3, 0xC1, 0xD0, 0x01); /* RCL */
    f = decode_flags(&in);
    assert_int_equal(f.set, FLAG_OF | FLAG_CF);
    assert_int_equal(f.undef, 0);
    assert_int_equal(f.read, FLAG_CF);
    DECODE(&in, 32, 2, 0xD3, 0xE0); /* CL may be 0 */
    assert_int_equal(decode_flags(&in).read, FLAGS_ARITH);
    DECODE(&in, 32, 1, 0xA6);
    assert_int_equal(decode_flags(&in).read, FLAG_DF);
    DECODE(&in, 32, 2, 0xF3, 0xA6);
    assert_int_equal(decode_flags(&in).read, FLAGS_HOST);
    DECODE(&in, 32, 2, 0x7F, 0x00); /* JG */
    assert_int_equal(decode_flags(&in).read, FLAG_OF | FLAG_SF | FLAG_ZF);
}

/* What the attributes promise each other. */
static void rows_are_consistent(void **state)
{
    (void)state;
    const uint32_t never = A_SENSITIVE | A_STACK | A_IMPLICIT_MEM | A_BRANCH | A_FPU_CONTROL |
                           A_PRIV | A_IOPL | A_ENDS_BLOCK;
    for (unsigned i = 0; i < decode_row_count; i++) {
        const struct decode_row *row = &decode_rows[i];
        bool memory = false;
        unsigned implicit = 0;
        for (unsigned k = 0; k < ARRAY_LEN(row->operand); k++) {
            unsigned kind = row->operand[k].kind;
            memory |= kind == K_M || kind == K_VM || kind == K_O ||
                      ((kind == K_E || kind == K_Q || kind == K_W) && row->mod != 3);
            implicit += kind == K_X || kind == K_Y;
        }
        uint32_t access = row->attr & (A_MEM_READ | A_MEM_WRITE | A_NO_ACCESS);
        const char *name = decode_op_name(row->op);
        if (memory != (access != 0))
            fail_msg("row %u, %s: memory operand and access", i, name);
        if (row->attr & A_NO_ACCESS && access != A_NO_ACCESS)
            fail_msg("row %u, %s: access", i, name);
        if (row->attr & A_COPY && row->attr & never)
            fail_msg("row %u, %s: must not be copied", i, name);
        if (implicit && !(row->attr & A_IMPLICIT_MEM))
            fail_msg("row %u, %s: implicit memory", i, name);
        if (row->flags_undef & ~row->flags_set)
            fail_msg("row %u, %s: flags", i, name);
        if (row->vex && row->prefix != ROW_NP && row->prefix != ROW_66 && row->prefix != ROW_F3 &&
            row->prefix != ROW_F2)
            fail_msg("row %u, %s: prefix", i, name);
        if (row->attr & A_LOCK && access != (A_MEM_READ | A_MEM_WRITE))
            fail_msg("row %u, %s: LOCK", i, name);
    }
}

static void no_row_is_hidden_by_another(void **state)
{
    (void)state;
    for (unsigned i = 0; i < decode_row_count; i++)
        for (unsigned k = 0; k < i; k++) {
            const struct decode_row *a = &decode_rows[i], *b = &decode_rows[k];
            if (a->vex != b->vex || a->map != b->map || a->opcode != b->opcode ||
                a->prefix != b->prefix || (a->ext >= 0 && b->ext >= 0 && a->ext != b->ext) ||
                (a->mod >= 0 && b->mod >= 0 && a->mod != b->mod) ||
                (a->rm >= 0 && b->rm >= 0 && a->rm != b->rm) ||
                (a->vex_l >= 0 && b->vex_l >= 0 && a->vex_l != b->vex_l) ||
                (a->w >= 0 && b->w >= 0 && a->w != b->w) ||
                ((a->attr ^ b->attr) & (A_MODE32 | A_MODE64) && (a->attr | b->attr) & A_MODE64))
                continue;
            fail_msg("rows %u and %u, %s and %s", k, i, decode_op_name(b->op),
                     decode_op_name(a->op));
        }
}

static void what_must_not_reach_the_host_is_not_copied(void **state)
{
    (void)state;
    static const uint16_t ops[] = {
        OP_SYSCALL,  OP_SYSENTER, OP_SYSEXIT,  OP_SYSRET,    OP_WRPKRU,   OP_RDPKRU,
        OP_RDFSBASE, OP_WRFSBASE, OP_WRGSBASE, OP_MOVDIR64B, OP_XRSTOR,   OP_XSAVE,
        OP_FXSAVE,   OP_FXRSTOR,  OP_FNSAVE,   OP_FRSTOR,    OP_FLDENV,   OP_FNSTENV,
        OP_CPUID,    OP_RDTSC,    OP_RDTSCP,   OP_RDPMC,     OP_XGETBV,   OP_SGDT,
        OP_SIDT,     OP_SLDT,     OP_SMSW,     OP_STR,       OP_PUSHF,    OP_POPF,
        OP_LAR,      OP_LSL,      OP_VERR,     OP_VERW,      OP_INT_N,    OP_INT3,
        OP_INT1,     OP_UD0,      OP_UD1,      OP_UD2,       OP_MASKMOVQ, OP_MASKMOVDQU,
        OP_XLAT,     OP_AAA,      OP_DAA,      OP_BOUND,     OP_INTO,     OP_ARPL,
        OP_SALC,     OP_LES,      OP_LDS,      OP_LSS,       OP_PUSHA,    OP_ENTER,
        OP_CLI,      OP_STI,      OP_RDPID,    OP_PUSH_SREG, OP_POP_SREG, OP_MOV_SREG_TO,
    };
    unsigned found = 0;
    for (unsigned i = 0; i < decode_row_count; i++)
        for (unsigned k = 0; k < ARRAY_LEN(ops); k++)
            if (decode_rows[i].op == ops[k]) {
                found++;
                if (decode_rows[i].attr & A_COPY)
                    fail_msg("%s", decode_op_name(ops[k]));
            }
    assert_true(found >= ARRAY_LEN(ops));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sixteen_bit_addresses_have_their_base_and_index),
        cmocka_unit_test(thirty_two_bit_addresses_have_base_index_scale),
        cmocka_unit_test(sixty_four_bit_addresses_take_rex_and_rip),
        cmocka_unit_test(moffs_have_the_address_size),
        cmocka_unit_test(immediates_are_sign_extended),
        cmocka_unit_test(the_last_prefix_of_a_group_counts),
        cmocka_unit_test(strings_tell_the_segment_of_their_source),
        cmocka_unit_test(mandatory_prefixes_select_the_row),
        cmocka_unit_test(a_hidden_feature_leaves_the_older_meaning),
        cmocka_unit_test(lock_is_for_read_modify_write_of_memory),
        cmocka_unit_test(what_no_row_describes_is_undefined),
        cmocka_unit_test(vex_is_told_from_les_and_lds),
        cmocka_unit_test(gathers_want_sib_and_three_registers),
        cmocka_unit_test(memory_operands_have_their_size),
        cmocka_unit_test(fifteen_bytes_are_the_limit),
        cmocka_unit_test(a_truncated_instruction_is_told_and_nothing_read_behind_it),
        cmocka_unit_test(flags_of_shifts_depend_on_the_count),
        cmocka_unit_test(rows_are_consistent),
        cmocka_unit_test(no_row_is_hidden_by_another),
        cmocka_unit_test(what_must_not_reach_the_host_is_not_copied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
