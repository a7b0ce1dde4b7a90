/*
 * Building bytes from rows: see encode.h.
 */
#include "encode.h"

#include <string.h>

#include "values.h"

struct bytes {
    uint8_t b[32];
    unsigned len;
};

static void put(struct bytes *to, unsigned byte)
{
    to->b[to->len++] = (uint8_t)byte;
}

static void put_value(struct bytes *to, uint32_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++, value >>= 8)
        put(to, value & 0xFF);
}

static bool row_has(const struct decode_row *row, unsigned kind)
{
    for (unsigned i = 0; i < ARRAY_LEN(row->operand); i++) {
        if (row->operand[i].kind == kind)
            return true;
    }
    return false;
}

static bool may_be_memory(const struct decode_row *row)
{
    static const uint8_t kinds[] = {K_E, K_M, K_Q, K_W, K_VM};
    if (row->modrm != MODRM_RM || row->mod == 3)
        return false;
    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
        if (row_has(row, kinds[i]))
            return true;
    }
    return row->mod == 0;
}

static bool must_be_memory(const struct decode_row *row)
{
    return row->mod == 0 || row_has(row, K_M) || row_has(row, K_VM);
}

static bool touches_memory(const struct decode_row *row, bool mem)
{
    return mem || row_has(row, K_O) || row_has(row, K_X) || row_has(row, K_Y) ||
           (row->attr & A_IMPLICIT_MEM);
}

struct prefixes {
    bool opsize, addrsize;
};

static struct prefixes put_prefixes(struct rng *r, const struct decode_row *row,
                                    const struct encode_wish *wish, bool mem, struct bytes *to)
{
    static const uint8_t overrides[] = {0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x65, 0x65};
    uint8_t list[8];
    unsigned n = 0;
    struct prefixes p = {false, false};
    bool free66 = !row->vex && (row->prefix == ROW_ANY || row->prefix == ROW_NFX);
    if (free66 && rng_chance(r, 25)) {
        p.opsize = true;
        list[n++] = 0x66;
        if (rng_chance(r, 3))
            list[n++] = 0x66;
    }
    if (!wish->flat && rng_chance(r, touches_memory(row, mem) ? 10 : 2)) {
        p.addrsize = true;
        list[n++] = 0x67;
    }
    if (rng_chance(r, touches_memory(row, mem) ? 20 : 2))
        list[n++] = overrides[rng_below(r, wish->flat ? 4 : ARRAY_LEN(overrides))];
    if (!row->vex && (row->attr & A_LOCK) && mem && rng_chance(r, 25))
        list[n++] = 0xF0;
    if (!row->vex && (row->attr & A_REP) && rng_chance(r, 60))
        list[n++] = rng_chance(r, 50) ? 0xF3 : 0xF2;
    else if (!row->vex && row->map == 0 && row->prefix == ROW_ANY && rng_chance(r, 1))
        list[n++] = rng_chance(r, 50) ? 0xF3 : 0xF2;
    if (!row->vex && row->prefix == ROW_66)
        list[n++] = 0x66;
    if (!row->vex && row->prefix == ROW_F3)
        list[n++] = 0xF3;
    if (!row->vex && row->prefix == ROW_F2)
        list[n++] = 0xF2;
    for (unsigned i = n; i > 1; i--) {
        unsigned j = rng_below(r, i);
        uint8_t t = list[i - 1];
        list[i - 1] = list[j];
        list[j] = t;
    }
    for (unsigned i = 0; i < n; i++)
        put(to, list[i]);
    return p;
}

static void put_opcode(struct rng *r, const struct decode_row *row, struct bytes *to)
{
    static const uint8_t pp[] = {[ROW_66] = 1, [ROW_F3] = 2, [ROW_F2] = 3, [ROW_NFX] = 0};
    if (row->vex) {
        unsigned p = row->prefix < ARRAY_LEN(pp) ? pp[row->prefix] : 0;
        unsigned l = row->vex_l >= 0 ? (unsigned)row->vex_l : rng_below(r, 2);
        unsigned w = row->w >= 0 ? (unsigned)row->w : rng_below(r, 2);
        bool has_v = row_has(row, K_H) || row_has(row, K_B);
        unsigned v = has_v ? rng_below(r, 8) : 0;
        if (row->map == 1 && w == 0 && rng_chance(r, 70)) {
            put(to, 0xC5);
            put(to, 0x80 | (v ^ 15) << 3 | l << 2 | p);
        } else {
            put(to, 0xC4);
            put(to, 0xE0 | row->map);
            put(to, w << 7 | (v ^ 15) << 3 | l << 2 | p);
        }
    } else if (row->map) {
        put(to, 0x0F);
        if (row->map == 2)
            put(to, 0x38);
        if (row->map == 3)
            put(to, 0x3A);
    }
    put(to, row->opcode);
}

static void put_modrm(struct rng *r, const struct decode_row *row, const struct encode_wish *wish,
                      bool mem, bool addr16, struct bytes *to)
{
    unsigned reg = row->ext >= 0 ? (unsigned)row->ext : rng_below(r, 8);
    unsigned rm = row->rm >= 0 ? (unsigned)row->rm : rng_below(r, 8);
    if (row_has(row, K_S) && row->ext < 0)
        reg = rng_below(r, 6);
    if (!mem) {
        put(to, 0xC0 | reg << 3 | rm);
        return;
    }
    unsigned mod = wish->pinned ? 2 : rng_below(r, 3);
    bool vsib = row_has(row, K_VM);
    if (addr16) {
        put(to, mod << 6 | reg << 3 | rm);
        put_value(to, values_u32(r), mod == 0 ? (rm == 6 ? 2 : 0) : mod);
        return;
    }
    if (vsib || rng_chance(r, 35))
        rm = 4;
    if (wish->pinned && rng_chance(r, 20)) {
        mod = 0;
        rm = 5;
    }
    put(to, mod << 6 | reg << 3 | rm);
    unsigned base = rm;
    if (rm == 4) {
        unsigned sib = rng_below(r, 256);
        base = sib & 7;
        if (wish->pinned && mod == 0)
            base = 5;
        put(to, (sib & ~7u) | base);
    }
    unsigned disp = mod == 1 ? 1 : mod == 2 || (mod == 0 && base == 5) ? 4 : 0;
    put_value(to, values_u32(r), disp);
}

static void put_immediates(struct rng *r, const struct decode_row *row, struct prefixes p,
                           struct bytes *to)
{
    unsigned opsize = p.opsize ? 2 : 4;
    for (unsigned i = 0; i < ARRAY_LEN(row->operand); i++) {
        const struct operand *o = &row->operand[i];
        unsigned width = o->width == W_B ? 1 : o->width == W_W ? 2 : o->width == W_D ? 4 : opsize;
        switch (o->kind) {
        case K_I:
        case K_J:
            put_value(to, values_u32(r), width);
            break;
        case K_A:
            put_value(to, values_u32(r), opsize);
            put_value(to, values_u32(r), 2);
            break;
        case K_O:
            put_value(to, values_u32(r), p.addrsize ? 2 : 4);
            break;
        case K_L:
            put_value(to, rng_below(r, 8) << 4 | rng_below(r, 16), 1);
            break;
        default:
            break;
        }
    }
}

bool encode_random(struct rng *r, const struct decode_row *row, const struct encode_wish *wish,
                   struct insn *in)
{
    for (unsigned tries = 0; tries < 8; tries++) {
        struct bytes b = {.len = 0};
        bool mem = may_be_memory(row) && (must_be_memory(row) || rng_chance(r, 60));
        struct prefixes p = put_prefixes(r, row, wish, mem, &b);
        put_opcode(r, row, &b);
        if (row->modrm != MODRM_NONE)
            put_modrm(r, row, wish, mem, p.addrsize, &b);
        put_immediates(r, row, p, &b);
        if (b.len > INSN_MAX || decode(in, b.b, b.len, 32) != DECODE_OK)
            continue;
        if (in->row == row && in->len == b.len)
            return true;
    }
    return false;
}

void encode_set_disp(struct insn *in, uint32_t disp)
{
    unsigned at = in->moffs ? (unsigned)in->len - in->addrsize : in->modrm_off + 1u + in->has_sib;
    unsigned size = in->moffs ? in->addrsize : in->disp_size;
    for (unsigned i = 0; i < size; i++)
        in->bytes[at + i] = (uint8_t)(disp >> 8 * i);
    in->disp = in->moffs ? (int64_t)disp : size ? sign_extend(disp, size) : 0;
}

void encode_set_imm2(struct insn *in, uint16_t imm)
{
    unsigned at = in->imm_off + in->imm_size;
    for (unsigned i = 0; i < in->imm2_size; i++)
        in->bytes[at + i] = (uint8_t)(imm >> 8 * i);
    in->imm2 = imm;
}

void encode_set_imm(struct insn *in, uint32_t imm)
{
    for (unsigned i = 0; i < in->imm_size; i++)
        in->bytes[in->imm_off + i] = (uint8_t)(imm >> 8 * i);
    in->imm = in->imm_size ? sign_extend(imm, in->imm_size) : 0;
}
