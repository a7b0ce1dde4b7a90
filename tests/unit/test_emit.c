/*
 * The emitter against Capstone: what is emitted is disassembled, and operation and operands are
 * compared with what was asked for, over all registers and shapes of memory operands.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <capstone/capstone.h>
#include <cmocka.h>

#include "dbt/emit.h"

enum { ROOM = 64, GUARD = 16 };

struct bench {
    csh handle;
    uint8_t buffer[GUARD + ROOM + GUARD];
    struct emit e;
    cs_insn *insn;
};

static int setup(void **state)
{
    static struct bench b;

    if (cs_open(CS_ARCH_X86, CS_MODE_64, &b.handle) != CS_ERR_OK)
        return -1;
    cs_option(b.handle, CS_OPT_DETAIL, CS_OPT_ON);
    b.insn = cs_malloc(b.handle);
    *state = &b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;

    cs_free(b->insn, 1);
    cs_close(&b->handle);
    return 0;
}

static struct emit *begin(struct bench *b, unsigned room)
{
    memset(b->buffer, 0xEE, sizeof(b->buffer));
    b->e = (struct emit){.at = b->buffer + GUARD, .start = b->buffer + GUARD};
    b->e.end = b->e.start + room;
    return &b->e;
}

/* All that was emitted must be one instruction of this mnemonic. */
static const cs_x86 *decode_one(struct bench *b, const char *mnemonic)
{
    const uint8_t *code = b->e.start;
    size_t left = (size_t)(b->e.at - b->e.start);
    uint64_t address = 0x1000;

    assert_false(b->e.overflow);
    if (!cs_disasm_iter(b->handle, &code, &left, &address, b->insn))
        fail_msg("%s: Capstone does not know %02x %02x %02x %02x", mnemonic, b->e.start[0],
                 b->e.start[1], b->e.start[2], b->e.start[3]);
    if (left || strcmp(b->insn->mnemonic, mnemonic))
        fail_msg("%s, not %s %s (%zu bytes left)", mnemonic, b->insn->mnemonic, b->insn->op_str,
                 left);
    return &b->insn->detail->x86;
}

/* ---- names ---- */

static const x86_reg names64[] = {X86_REG_RAX, X86_REG_RCX, X86_REG_RDX, X86_REG_RBX,
                                  X86_REG_RSP, X86_REG_RBP, X86_REG_RSI, X86_REG_RDI,
                                  X86_REG_R8,  X86_REG_R9,  X86_REG_R10, X86_REG_R11,
                                  X86_REG_R12, X86_REG_R13, X86_REG_R14, X86_REG_R15};
static const x86_reg names32[] = {X86_REG_EAX,  X86_REG_ECX,  X86_REG_EDX,  X86_REG_EBX,
                                  X86_REG_ESP,  X86_REG_EBP,  X86_REG_ESI,  X86_REG_EDI,
                                  X86_REG_R8D,  X86_REG_R9D,  X86_REG_R10D, X86_REG_R11D,
                                  X86_REG_R12D, X86_REG_R13D, X86_REG_R14D, X86_REG_R15D};
static const x86_reg names16[] = {X86_REG_AX,   X86_REG_CX,   X86_REG_DX,   X86_REG_BX,
                                  X86_REG_SP,   X86_REG_BP,   X86_REG_SI,   X86_REG_DI,
                                  X86_REG_R8W,  X86_REG_R9W,  X86_REG_R10W, X86_REG_R11W,
                                  X86_REG_R12W, X86_REG_R13W, X86_REG_R14W, X86_REG_R15W};
/* Without a REX prefix 4 to 7 are AH to BH. */
static const x86_reg names8[] = {X86_REG_AL,   X86_REG_CL,   X86_REG_DL,   X86_REG_BL,
                                 X86_REG_AH,   X86_REG_CH,   X86_REG_DH,   X86_REG_BH,
                                 X86_REG_R8B,  X86_REG_R9B,  X86_REG_R10B, X86_REG_R11B,
                                 X86_REG_R12B, X86_REG_R13B, X86_REG_R14B, X86_REG_R15B};
static const x86_reg names8_rex[] = {X86_REG_SPL, X86_REG_BPL, X86_REG_SIL, X86_REG_DIL};

static x86_reg name_of(unsigned reg, unsigned size, bool rex)
{
    switch (size) {
    case 1:
        return rex && reg >= 4 && reg < 8 ? names8_rex[reg - 4] : names8[reg];
    case 2:
        return names16[reg];
    case 4:
        return names32[reg];
    default:
        return names64[reg];
    }
}

static void assert_reg(const cs_x86 *x, unsigned n, x86_reg want)
{
    assert_true(n < x->op_count);
    assert_int_equal(x->operands[n].type, X86_OP_REG);
    assert_int_equal(x->operands[n].reg, want);
}

static void assert_imm(const cs_x86 *x, unsigned n, int64_t want)
{
    assert_true(n < x->op_count);
    assert_int_equal(x->operands[n].type, X86_OP_IMM);
    assert_int_equal(x->operands[n].imm, want);
}

static void assert_mem(const cs_x86 *x, unsigned n, const struct hmem *m)
{
    const x86_op_mem *got = &x->operands[n].mem;
    const x86_reg *names = m->addr32 ? names32 : names64;
    x86_reg base = m->base == H_NONE ? X86_REG_INVALID : names[m->base];
    x86_reg index = m->index == H_NONE ? X86_REG_INVALID : names[m->index];

    assert_true(n < x->op_count);
    assert_int_equal(x->operands[n].type, X86_OP_MEM);
    assert_int_equal(got->segment, m->gs ? X86_REG_GS : X86_REG_INVALID);
    assert_int_equal(got->base, base);
    /* Capstone names the absence of both RIZ. */
    if (m->index != H_NONE) {
        assert_int_equal(got->index, index);
        assert_int_equal(got->scale, m->scale);
    } else {
        assert_true(got->index == X86_REG_INVALID || got->index == X86_REG_RIZ ||
                    got->index == X86_REG_EIZ);
    }
    assert_int_equal((int32_t)got->disp, m->disp);
    assert_int_equal(x->addr_size, m->addr32 ? 4 : 8);
}

/* ---- every shape of memory operand ---- */

typedef void visit_fn(struct bench *b, const struct hmem *m);

static void for_every_operand(struct bench *b, visit_fn *visit)
{
    static const int32_t disps[] = {0,    1,      -1,      127,        -128,           128,
                                    -129, 0x1234, -0x7FFF, 0x7FFFFFFF, -0x7FFFFFFF - 1};
    static const uint8_t scales[] = {1, 2, 4, 8};

    for (unsigned base = 0; base <= 16; base++) {
        for (unsigned index = 0; index <= 16; index++) {
            if (index == RSP)
                continue; /* not encodable */
            for (unsigned s = 0; s < (index == 16 ? 1 : ARRAY_LEN(scales)); s++) {
                for (unsigned i = 0; i < ARRAY_LEN(disps); i++) {
                    for (unsigned prefixes = 0; prefixes < 4; prefixes++) {
                        struct hmem m = {.base = base == 16 ? H_NONE : (uint8_t)base,
                                         .index = index == 16 ? H_NONE : (uint8_t)index,
                                         .scale = scales[s],
                                         .gs = prefixes & 1,
                                         .addr32 = prefixes & 2,
                                         .disp = disps[i]};
                        visit(b, &m);
                    }
                }
            }
        }
    }
}

static void visit_op_mem(struct bench *b, const struct hmem *m)
{
    static const struct hop add = {.opcode = 0x03};
    unsigned reg = (unsigned)(m->base + m->index + m->scale + m->disp) & 15;

    emit_op_mem(begin(b, ROOM), &add, reg, m);
    const cs_x86 *x = decode_one(b, "add");
    assert_reg(x, 0, names32[reg]);
    assert_mem(x, 1, m);
}

static void memory_operands_are_what_was_asked_for(void **state)
{
    for_every_operand(*state, visit_op_mem);
}

static void visit_lea(struct bench *b, const struct hmem *m)
{
    struct hmem plain = *m;

    plain.gs = plain.addr32 = false;
    emit_lea32_mem(begin(b, ROOM), R_ADDR, m);
    const cs_x86 *x = decode_one(b, "lea");
    assert_reg(x, 0, X86_REG_R8D);
    assert_mem(x, 1, &plain);
    if (m->gs || m->addr32)
        return;
    emit_lea64(begin(b, ROOM), RSI, m);
    x = decode_one(b, "lea");
    assert_reg(x, 0, X86_REG_RSI);
    assert_mem(x, 1, m);
}

static void lea_ignores_window_and_cut(void **state)
{
    for_every_operand(*state, visit_lea);
}

static void visit_vex_mem(struct bench *b, const struct hmem *m)
{
    struct hop op = {.map = 1, .opcode = 0x58, .vex = true, .vex_vvvv = 5, .vex_l = m->scale == 4};
    unsigned reg = (unsigned)(m->base + m->disp) & 7;

    emit_op_mem(begin(b, ROOM), &op, reg, m);
    const cs_x86 *x = decode_one(b, "vaddps");
    assert_reg(x, 0, (op.vex_l ? X86_REG_YMM0 : X86_REG_XMM0) + reg);
    assert_reg(x, 1, (op.vex_l ? X86_REG_YMM0 : X86_REG_XMM0) + 5);
    assert_mem(x, 2, m);
}

static void vex_memory_operands_are_what_was_asked_for(void **state)
{
    for_every_operand(*state, visit_vex_mem);
}

/* ---- loads and stores ---- */

static void visit_load_store(struct bench *b, const struct hmem *m)
{
    unsigned reg = (unsigned)(m->index + m->disp) & 15;
    bool rex =
        reg >= 8 || (m->base != H_NONE && m->base >= 8) || (m->index != H_NONE && m->index >= 8);

    for (unsigned size = 1; size <= 4; size *= 2) {
        emit_load(begin(b, ROOM), reg, m, size);
        const cs_x86 *x = decode_one(b, size == 4 ? "mov" : "movzx");
        assert_reg(x, 0, names32[reg]);
        assert_mem(x, 1, m);
        assert_int_equal(x->operands[1].size, size);

        emit_store(begin(b, ROOM), m, reg, size);
        x = decode_one(b, "mov");
        assert_mem(x, 0, m);
        assert_int_equal(x->operands[0].size, size);
        assert_reg(x, 1, name_of(reg, size, rex));
    }
    emit_load64(begin(b, ROOM), reg, m);
    const cs_x86 *x = decode_one(b, "mov");
    assert_reg(x, 0, names64[reg]);
    assert_mem(x, 1, m);
    for (unsigned size = 2; size <= 4; size *= 2) {
        emit_store_imm(begin(b, ROOM), m, 0x12348765, size);
        x = decode_one(b, "mov");
        assert_mem(x, 0, m);
        assert_int_equal(x->operands[0].size, size);
        assert_int_equal((uint32_t)x->operands[1].imm & width_mask(size),
                         0x12348765 & width_mask(size));
    }
}

static void loads_and_stores_have_their_widths(void **state)
{
    for_every_operand(*state, visit_load_store);
}

static void visit_jumps(struct bench *b, const struct hmem *m)
{
    emit_jmp_mem(begin(b, ROOM), m);
    assert_mem(decode_one(b, "jmp"), 0, m);
    emit_call_mem(begin(b, ROOM), m);
    assert_mem(decode_one(b, "call"), 0, m);
}

static void jumps_and_calls_through_memory(void **state)
{
    for_every_operand(*state, visit_jumps);
}

/* ---- registers ---- */

static void moves_name_every_register(void **state)
{
    struct bench *b = *state;

    for (unsigned to = 0; to < 16; to++) {
        for (unsigned from = 0; from < 16; from++) {
            emit_mov32(begin(b, ROOM), to, from);
            const cs_x86 *x = decode_one(b, "mov");
            assert_reg(x, 0, names32[to]);
            assert_reg(x, 1, names32[from]);

            emit_mov64(begin(b, ROOM), to, from);
            x = decode_one(b, "mov");
            assert_reg(x, 0, names64[to]);
            assert_reg(x, 1, names64[from]);

            emit_movzx16(begin(b, ROOM), to, from);
            x = decode_one(b, "movzx");
            assert_reg(x, 0, names32[to]);
            assert_reg(x, 1, names16[from]);

            emit_movzx8(begin(b, ROOM), to, from);
            x = decode_one(b, "movzx");
            assert_reg(x, 0, names32[to]);
            assert_reg(x, 1, name_of(from, 1, to >= 8 || from >= 8));

            emit_lea32(begin(b, ROOM), to, from, -12);
            x = decode_one(b, "lea");
            struct hmem m = hmem_at(from, -12);
            assert_reg(x, 0, names32[to]);
            assert_mem(x, 1, &m);
        }
    }
}

static void immediates_are_loaded_whole(void **state)
{
    static const uint64_t values[] = {0,          1,           0x7FFFFFFF,         0x80000000,
                                      0xFFFFFFFF, 0x100000000, 0x123456789ABCDEF0, ~0ull};
    struct bench *b = *state;

    for (unsigned to = 0; to < 16; to++) {
        for (unsigned i = 0; i < ARRAY_LEN(values); i++) {
            bool wide = values[i] > UINT32_MAX;
            emit_imm64(begin(b, ROOM), to, values[i]);
            const cs_x86 *x = decode_one(b, wide ? "movabs" : "mov");
            assert_reg(x, 0, wide ? names64[to] : names32[to]);
            assert_true((uint64_t)x->operands[1].imm == values[i] ||
                        (!wide && (uint32_t)x->operands[1].imm == values[i]));

            emit_imm32(begin(b, ROOM), to, (uint32_t)values[i]);
            x = decode_one(b, "mov");
            assert_reg(x, 0, names32[to]);
            assert_int_equal((uint32_t)x->operands[1].imm, (uint32_t)values[i]);
        }
    }
}

static void shifts_of_bmi2_name_every_register(void **state)
{
    struct bench *b = *state;

    for (unsigned to = 0; to < 16; to++) {
        for (unsigned from = 0; from < 16; from++) {
            for (unsigned count = 0; count < 16; count++) {
                for (unsigned right = 0; right < 2; right++) {
                    emit_shiftx(begin(b, ROOM), to, from, count, right);
                    const cs_x86 *x = decode_one(b, right ? "shrx" : "shlx");
                    assert_reg(x, 0, names32[to]);
                    assert_reg(x, 1, names32[from]);
                    assert_reg(x, 2, names32[count]);
                }
            }
        }
    }
}

/* ---- opcodes: maps, prefixes, extensions ---- */

static void opcode_maps_and_prefixes_are_chosen_by_data(void **state)
{
    static const struct {
        struct hop op;
        const char *name;
        unsigned size; /* of general registers; 16: XMM */
    } rows[] = {
        {{.opcode = 0x03}, "add", 4},
        {{.opcode = 0x03, .opsize = true}, "add", 2},
        {{.opcode = 0x03, .rex_w = true}, "add", 8},
        {{.map = 1, .opcode = 0xAF}, "imul", 4},
        {{.map = 1, .opcode = 0xAF, .opsize = true}, "imul", 2},
        {{.map = 1, .opcode = 0xBD}, "bsr", 4},
        {{.map = 1, .opcode = 0xBD, .rep = 0xF3}, "lzcnt", 4},
        {{.map = 1, .opcode = 0xBD, .rep = 0xF3, .opsize = true}, "lzcnt", 2},
        {{.map = 1, .opcode = 0x58}, "addps", 16},
        {{.map = 1, .opcode = 0x58, .opsize = true}, "addpd", 16},
        {{.map = 1, .opcode = 0x58, .rep = 0xF3}, "addss", 16},
        {{.map = 1, .opcode = 0x58, .rep = 0xF2}, "addsd", 16},
        {{.map = 2, .opcode = 0x00, .opsize = true}, "pshufb", 16},
        {{.map = 2, .opcode = 0xF6, .rep = 0xF3}, "adox", 4},
        {{.map = 2, .opcode = 0xF7, .vex = true, .vex_vvvv = 9}, "bextr", 4},
        {{.map = 2, .opcode = 0xF7, .vex = true, .vex_vvvv = 9, .vex_pp = 2}, "sarx", 4},
        {{.map = 2, .opcode = 0xF7, .vex = true, .vex_vvvv = 9, .vex_w = 1}, "bextr", 8},
    };
    struct bench *b = *state;

    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        for (unsigned reg = 0; reg < 16; reg++) {
            for (unsigned rm = 0; rm < 16; rm++) {
                emit_op_reg(begin(b, ROOM), &rows[i].op, reg, rm);
                const cs_x86 *x = decode_one(b, rows[i].name);
                if (rows[i].size == 16) {
                    assert_reg(x, 0, X86_REG_XMM0 + reg);
                    assert_reg(x, 1, X86_REG_XMM0 + rm);
                    continue;
                }
                assert_reg(x, 0, name_of(reg, rows[i].size, false));
                assert_reg(x, 1, name_of(rm, rows[i].size, false));
                if (rows[i].op.vex)
                    assert_reg(x, 2, name_of(9, rows[i].size, false));
            }
        }
    }
    /* 0F 3A, with an immediate behind. */
    emit_op_reg(begin(b, ROOM), &(struct hop){.map = 3, .opcode = 0x0F, .opsize = true}, 3, 11);
    emit_byte(&b->e, 0x42);
    const cs_x86 *x = decode_one(b, "palignr");
    assert_reg(x, 0, X86_REG_XMM3);
    assert_reg(x, 1, X86_REG_XMM11);
    assert_imm(x, 2, 0x42);
}

static void prefixes_come_in_an_order_that_counts(void **state)
{
    struct bench *b = *state;
    struct hmem m = {.base = R12, .index = RDI, .scale = 4, .gs = true, .addr32 = true, .disp = 8};
    struct hop lock_add = {.opcode = 0x01, .lock = true, .opsize = true};
    struct hop movss = {.map = 1, .opcode = 0x10, .rep = 0xF3};

    emit_op_mem(begin(b, ROOM), &lock_add, RBX, &m);
    const cs_x86 *x = decode_one(b, "lock add");
    assert_mem(x, 0, &m);
    assert_reg(x, 1, X86_REG_BX);
    /* REX stands directly before the opcode, or behind it the CPU would ignore it. */
    assert_int_equal(b->e.start[4] & 0xF0, 0x40);
    assert_int_equal(b->e.start[5], 0x01);

    emit_op_mem(begin(b, ROOM), &movss, 9, &m);
    x = decode_one(b, "movss");
    assert_reg(x, 0, X86_REG_XMM9);
    assert_mem(x, 1, &m);
}

static void plain_opcodes_carry_a_register(void **state)
{
    struct bench *b = *state;

    for (unsigned reg = 0; reg < 16; reg++) {
        emit_op_plain(begin(b, ROOM), &(struct hop){.map = 1, .opcode = 0xC8}, reg);
        assert_reg(decode_one(b, "bswap"), 0, names32[reg]);
        emit_op_plain(begin(b, ROOM), &(struct hop){.opcode = 0x50}, reg);
        assert_reg(decode_one(b, "push"), 0, names64[reg]);
    }
    emit_op_plain(begin(b, ROOM), &(struct hop){.opcode = 0xA5, .opsize = true}, 0);
    decode_one(b, "movsw");
    emit_op_plain(begin(b, ROOM), &(struct hop){.opcode = 0xA5, .rep = 0xF3}, 0);
    decode_one(b, "rep movsd");
    emit_op_plain(begin(b, ROOM), &(struct hop){.opcode = 0xAE, .rep = 0xF2}, 0);
    decode_one(b, "repne scasb");
    emit_ret(begin(b, ROOM));
    decode_one(b, "ret");
}

static void the_extension_stands_where_the_register_would(void **state)
{
    static const char *const names[] = {"rol", "ror", "rcl", "rcr", "shl", "shr", "shl", "sar"};
    struct bench *b = *state;

    for (unsigned ext = 0; ext < 8; ext++) {
        if (ext == 6)
            continue; /* SAL, which Capstone does not know by this encoding */
        emit_op_reg(begin(b, ROOM), &(struct hop){.opcode = 0xD3}, ext, R13);
        assert_reg(decode_one(b, names[ext]), 0, X86_REG_R13D);
    }
}

/* ---- control transfer ---- */

static void relative_jumps_are_patched_to_their_targets(void **state)
{
    static const struct {
        const char *name;
        unsigned condition; /* 16: JMP, 17: CALL */
    } jumps[] = {
        {"jo", 0},  {"jno", 1},  {"jb", 2},   {"jae", 3}, {"je", 4},   {"jne", 5},
        {"jbe", 6}, {"ja", 7},   {"js", 8},   {"jns", 9}, {"jp", 10},  {"jnp", 11},
        {"jl", 12}, {"jge", 13}, {"jle", 14}, {"jg", 15}, {"jmp", 16}, {"call", 17},
    };
    static const uint32_t targets[] = {0, 1, 20, 0x10000, 0x7FFFFFF0};
    struct bench *b = *state;

    for (unsigned i = 0; i < ARRAY_LEN(jumps); i++) {
        for (unsigned j = 0; j < ARRAY_LEN(targets); j++) {
            unsigned c = jumps[i].condition;
            struct emit *e = begin(b, ROOM);
            uint32_t at = c == 16 ? emit_jmp(e) : c == 17 ? emit_call(e) : emit_jcc(e, c);
            assert_int_equal(at, emit_offset(e) - 4);
            emit_patch(e, at, targets[j]);
            assert_imm(decode_one(b, jumps[i].name), 0, 0x1000 + (int64_t)targets[j]);
        }
    }
}

static void short_jumps_lead_here(void **state)
{
    struct bench *b = *state;

    for (unsigned kind = 0; kind < 19; kind++) {
        static const char *const names[] = {"jo",  "jno", "jb",    "jae",   "je",  "jne", "jbe",
                                            "ja",  "js",  "jns",   "jp",    "jnp", "jl",  "jge",
                                            "jle", "jg",  "jecxz", "jrcxz", "jmp"};
        for (unsigned distance = 0; distance <= 40; distance += 8) {
            struct emit *e = begin(b, ROOM);
            uint32_t label = kind == 16   ? emit_jecxz(e)
                             : kind == 17 ? emit_jrcxz(e)
                             : kind == 18 ? emit_jmp8(e)
                                          : emit_jcc8(e, kind);
            uint32_t end = emit_offset(e);
            for (unsigned i = 0; i < distance; i++)
                emit_byte(e, 0x90);
            emit_here8(e, label);
            e->at = e->start + end;
            assert_imm(decode_one(b, names[kind]), 0, 0x1000 + end + distance);
        }
    }
}

/* ---- overflow ---- */

static void emit_something_of_everything(struct emit *e)
{
    struct hmem m = {.base = R13, .index = R12, .scale = 8, .gs = true, .disp = 0x1000};
    struct hop op = {.map = 2, .opcode = 0xF7, .vex = true, .vex_vvvv = 3};

    emit_byte(e, 0x90);
    emit_bytes(e, "abc", 3);
    emit_u32(e, 1);
    emit_u64(e, 2);
    emit_op_mem(e, &op, RAX, &m);
    emit_imm64(e, R8, ~0ull);
    emit_store_imm(e, &m, 5, 4);
    uint32_t jump = emit_jmp(e), label = emit_jecxz(e);
    emit_patch(e, jump, 0);
    emit_here8(e, label);
    emit_shiftx(e, RAX, RBX, RCX, true);
}

static void overflow_is_sticky_and_writes_nothing_outside(void **state)
{
    struct bench *b = *state;

    for (unsigned room = 0; room < ROOM; room++) {
        struct emit *e = begin(b, room);
        emit_something_of_everything(e);
        uint32_t length = emit_offset(e);
        assert_true(e->at <= e->end);
        for (unsigned i = 0; i < GUARD; i++)
            assert_int_equal(b->buffer[i], 0xEE);
        for (unsigned i = GUARD + room; i < sizeof(b->buffer); i++)
            assert_int_equal(b->buffer[i], 0xEE);
        if (e->overflow) {
            emit_ret(e);
            assert_true(e->overflow);
        } else {
            assert_true(length <= room);
        }
    }
    /* It does overflow at first, and in the end it does not. */
    emit_something_of_everything(begin(b, 10));
    assert_true(b->e.overflow);
    begin(b, ROOM);
    emit_bytes(&b->e, b->buffer, ROOM);
    assert_false(b->e.overflow);
    emit_byte(&b->e, 0);
    assert_true(b->e.overflow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_operands_are_what_was_asked_for),
        cmocka_unit_test(lea_ignores_window_and_cut),
        cmocka_unit_test(vex_memory_operands_are_what_was_asked_for),
        cmocka_unit_test(loads_and_stores_have_their_widths),
        cmocka_unit_test(jumps_and_calls_through_memory),
        cmocka_unit_test(moves_name_every_register),
        cmocka_unit_test(immediates_are_loaded_whole),
        cmocka_unit_test(shifts_of_bmi2_name_every_register),
        cmocka_unit_test(opcode_maps_and_prefixes_are_chosen_by_data),
        cmocka_unit_test(prefixes_come_in_an_order_that_counts),
        cmocka_unit_test(plain_opcodes_carry_a_register),
        cmocka_unit_test(the_extension_stands_where_the_register_would),
        cmocka_unit_test(relative_jumps_are_patched_to_their_targets),
        cmocka_unit_test(short_jumps_lead_here),
        cmocka_unit_test(overflow_is_sticky_and_writes_nothing_outside),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
