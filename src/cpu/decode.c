/*
 * The decoder: one pass over the bytes.
 *
 * An index built before main (decode_build, a constructor; constant from then on) takes (VEX, map,
 * opcode) to a slot. A slot lists its candidate rows, those that ask for a mandatory prefix first;
 * the slots of opcodes whose rows are told apart by ModRM are split in sixteen lists, by reg field
 * and by whether mod is 3. What the rows say in operands is boiled down to a `struct form` a row:
 * which prefixes, modes and VEX bits it accepts, which immediate follows, how wide the memory
 * operand is. decode() is then prefixes, opcode, ModRM, row, address, immediate, checks.
 *
 * Prefixes (SDM 2A 2.1.1 leaves combinations open; this is what CPUs do): the last segment override
 * and the last of F2 and F3 count; F2 and F3 outrank 66 as mandatory prefixes; what plays no role
 * is ignored. In 64-bit mode ES, CS, SS and DS overrides do nothing, and REX counts only right
 * before the opcode. Bytes are never read beyond `avail`.
 */
#include "cpu/decode.h"

enum { MAX_ROWS = 2048, MAX_ORDER = 8192, MAX_SPLITS = 128, NAME_SIZE = 20 };

/* What follows the opcode, ModRM and displacement. */
enum imm_form {
    IMM_NONE,
    IMM_B,
    IMM_W,
    IMM_Z,
    IMM_V,
    IMM_FAR,   /* offset by operand size, then a selector */
    IMM_ENTER, /* Iw, Ib */
    IMM_MOFFS,
};

enum form_check {
    CHECK_NO_VVVV = 1, /* VEX.vvvv must be 1111b */
    CHECK_SREG = 2,
    CHECK_CREG = 4,
    CHECK_VSIB = 8,
};

/* What a row comes to. */
struct form {
    uint8_t prefixes; /* set of enum pp */
    uint8_t modes;    /* set of mode / 32 */
    uint8_t lw;       /* set of L * 2 + W */
    uint8_t rm;       /* the rm field it wants, or NO_REG */
    uint8_t imm;      /* enum imm_form */
    uint8_t width;    /* enum operand_width of the memory operand */
    uint8_t checks;   /* set of enum form_check */
    uint8_t seg;      /* segment of an implicit memory operand: DS (overridable), ES, or SEG_NONE */
};

/* Mandatory prefix as found, in VEX.pp's encoding. */
enum pp { PP_NONE, PP_66, PP_F3, PP_F2 };

struct slot {
    uint16_t first; /* into order[], or into splits[] */
    uint8_t count;
    bool split, has_modrm;
};

struct split {
    uint16_t first[16];
    uint8_t count[16];
};

/* Written once, by decode_build, before main; read only afterwards. */
static struct {
    struct slot slots[2][4][256];
    struct split splits[MAX_SPLITS];
    uint16_t order[MAX_ORDER];
    struct form forms[MAX_ROWS];
    char names[OP_COUNT][NAME_SIZE];
} table;

/* ---- building the index ---- */

static uint8_t prefix_set(unsigned row_prefix)
{
    static const uint8_t sets[] = {
        [ROW_ANY] = 1 << PP_NONE | 1 << PP_66 | 1 << PP_F3 | 1 << PP_F2,
        [ROW_NP] = 1 << PP_NONE,
        [ROW_66] = 1 << PP_66,
        [ROW_F3] = 1 << PP_F3,
        [ROW_F2] = 1 << PP_F2,
        [ROW_NFX] = 1 << PP_NONE | 1 << PP_66,
    };
    return sets[row_prefix];
}

static uint8_t imm_form(const struct operand *o)
{
    switch (o->kind) {
    case K_L:
        return IMM_B;
    case K_A:
        return IMM_FAR;
    case K_O:
        return IMM_MOFFS;
    case K_I:
    case K_J:
        return o->width == W_B ? IMM_B : o->width == W_W ? IMM_W : o->width == W_Z ? IMM_Z : IMM_V;
    default:
        return IMM_NONE;
    }
}

static void form_build(struct form *f, const struct decode_row *row)
{
    *f = (struct form){
        .prefixes = prefix_set(row->prefix),
        .modes = row->attr & A_MODE32   ? 3
                 : row->attr & A_MODE64 ? 4
                                        : 7,
        .lw = (row->vex_l < 0 ? 0xF
               : row->vex_l   ? 0xC
                              : 3) &
              (row->w < 0 ? 0xF
               : row->w   ? 0xA
                          : 5),
        .rm = row->rm < 0 ? NO_REG : row->rm,
        .checks = row->vex ? CHECK_NO_VVVV : 0,
        .seg = row->attr & A_IMPLICIT_MEM ? SEG_DS : SEG_NONE,
    };
    bool from_x = false, to_y = false;
    for (unsigned i = 0; i < ARRAY_LEN(row->operand); i++) {
        const struct operand *o = &row->operand[i];
        uint8_t imm = imm_form(o);
        if (imm != IMM_NONE)
            f->imm = f->imm == IMM_W ? IMM_ENTER : imm;
        switch (o->kind) {
        case K_E:
        case K_M:
        case K_Q:
        case K_W:
        case K_O:
            f->width = o->width;
            break;
        case K_VM:
            f->width = o->width;
            f->checks |= CHECK_VSIB;
            break;
        case K_X:
            f->width = o->width;
            from_x = true;
            break;
        case K_Y:
            f->width = o->width;
            to_y = true;
            break;
        case K_S:
            f->checks |= CHECK_SREG;
            break;
        case K_C:
            f->checks |= CHECK_CREG;
            break;
        case K_H:
        case K_B:
            f->checks &= ~CHECK_NO_VVVV;
            break;
        default:
            break;
        }
    }
    if (to_y && !from_x)
        f->seg = SEG_ES;
}

/* Appends the rows of an opcode to order[]; of one half of `bucket` (mod 3 or not, then reg), or
 * all. */
static unsigned list_rows(unsigned at, bool vex, unsigned map, unsigned opcode, int bucket)
{
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < decode_row_count; i++) {
            const struct decode_row *row = &decode_rows[i];
            if (row->vex != vex || row->map != map || row->opcode != opcode)
                continue;
            if ((row->prefix == ROW_ANY) != (pass == 1))
                continue;
            if (bucket >= 0 && row->ext >= 0 && row->ext != (bucket & 7))
                continue;
            if (bucket >= 0 && row->mod >= 0 && (row->mod == 3) != (bucket >= 8))
                continue;
            table.order[at++] = i;
        }
    }
    return at;
}

/* A table that does not fit is a mistake in the .def files: it shows at the first start. */
static void must_fit(bool fits)
{
    if (!fits)
        __builtin_trap();
}

__attribute__((constructor)) static void decode_build(void)
{
    static const char *const names[OP_COUNT] = {
        "invalid",
#define MNEMONIC(name) #name,
#define OP(...)
#include "cpu/opcodes.def"
#undef OP
#undef MNEMONIC
    };
    for (unsigned i = 0; i < OP_COUNT; i++)
        for (unsigned j = 0; names[i][j]; j++) {
            char c = names[i][j];
            must_fit(j < NAME_SIZE - 1);
            table.names[i][j] = c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c;
        }

    must_fit(decode_row_count <= MAX_ROWS);
    for (unsigned i = 0; i < decode_row_count; i++) {
        const struct decode_row *row = &decode_rows[i];
        struct slot *slot = &table.slots[row->vex][row->map][row->opcode];
        form_build(&table.forms[i], row);
        slot->count++;
        slot->has_modrm = row->modrm != MODRM_NONE;
        slot->split |= row->ext >= 0 || row->mod >= 0;
    }
    unsigned at = 0, splits = 0;
    for (unsigned i = 0; i < 2 * 4 * 256; i++) {
        unsigned vex = i >> 10, map = i >> 8 & 3, opcode = i & 0xFF;
        struct slot *slot = &table.slots[vex][map][opcode];
        must_fit(at + 16 * slot->count <= MAX_ORDER);
        if (!slot->count)
            continue;
        if (!slot->split) {
            slot->first = at;
            at = list_rows(at, vex, map, opcode, -1);
            continue;
        }
        must_fit(splits < MAX_SPLITS);
        struct split *split = &table.splits[splits];
        slot->first = splits++;
        for (unsigned b = 0; b < 16; b++) {
            split->first[b] = at;
            at = list_rows(at, vex, map, opcode, b);
            split->count[b] = at - split->first[b];
        }
    }
}

/* ---- decoding ---- */

enum prefix_class {
    CLASS_NONE,
    CLASS_SEG,
    CLASS_66,
    CLASS_67,
    CLASS_LOCK,
    CLASS_F2,
    CLASS_F3,
    CLASS_REX
};

static const uint8_t prefix_class[256] = {
    [0x26] = CLASS_SEG,  [0x2E] = CLASS_SEG, [0x36] = CLASS_SEG, [0x3E] = CLASS_SEG,
    [0x64] = CLASS_SEG,  [0x65] = CLASS_SEG, [0x66] = CLASS_66,  [0x67] = CLASS_67,
    [0xF0] = CLASS_LOCK, [0xF2] = CLASS_F2,  [0xF3] = CLASS_F3,  [0x40] = CLASS_REX,
    [0x41] = CLASS_REX,  [0x42] = CLASS_REX, [0x43] = CLASS_REX, [0x44] = CLASS_REX,
    [0x45] = CLASS_REX,  [0x46] = CLASS_REX, [0x47] = CLASS_REX, [0x48] = CLASS_REX,
    [0x49] = CLASS_REX,  [0x4A] = CLASS_REX, [0x4B] = CLASS_REX, [0x4C] = CLASS_REX,
    [0x4D] = CLASS_REX,  [0x4E] = CLASS_REX, [0x4F] = CLASS_REX,
};

/* Where the pass is. */
struct cursor {
    const uint8_t *bytes;
    unsigned at;     /* next byte */
    unsigned limit;  /* bytes that there are, at most 15 */
    uint8_t r, x, b; /* REX or VEX extension bits, as 0 or 8 */
    bool w;
    uint8_t pp;
    uint8_t seg; /* override, or SEG_NONE */
};

static enum decode_result stop(struct insn *in, const struct cursor *c, enum decode_result why)
{
    in->len = c->at;
    return why;
}

/* The bytes are used up: either there were 15, or more may come. */
static enum decode_result out_of_bytes(struct insn *in, const struct cursor *c)
{
    in->len = c->limit;
    return c->limit == INSN_MAX ? DECODE_TOO_LONG : DECODE_TRUNCATED;
}

static void copy_bytes(struct insn *in, const uint8_t *bytes, unsigned limit)
{
    if (limit == INSN_MAX) {
        __builtin_memcpy(in->bytes, bytes, 8);
        __builtin_memcpy(in->bytes + 7, bytes + 7, 8);
        return;
    }
    for (unsigned i = 0; i < limit; i++)
        in->bytes[i] = bytes[i];
}

static uint64_t get_le(const uint8_t *p, unsigned size)
{
    uint64_t value = 0;
    switch (size) {
    case 1:
        return p[0];
    case 2:
        __builtin_memcpy(&value, p, 2);
        break;
    case 4:
        __builtin_memcpy(&value, p, 4);
        break;
    case 8:
        __builtin_memcpy(&value, p, 8);
        break;
    }
    return value;
}

/* Takes legacy prefixes and REX; leaves the cursor at the opcode. False when there is none. */
static bool take_prefixes(struct insn *in, struct cursor *c)
{
    for (; c->at < c->limit; c->at++) {
        uint8_t byte = c->bytes[c->at];
        uint8_t class = prefix_class[byte];
        if (LIKELY(class == CLASS_NONE))
            return true;
        if (class == CLASS_REX) {
            if (in->mode != 64)
                return true;
            in->rex = byte;
            continue;
        }
        in->rex = 0;
        switch (class) {
        case CLASS_SEG:
            if (byte >= 0x64)
                c->seg = byte == 0x64 ? SEG_FS : SEG_GS;
            else if (in->mode != 64)
                c->seg = byte >> 3 & 3;
            break;
        case CLASS_66:
            in->prefixes |= PREFIX_OPSIZE;
            break;
        case CLASS_67:
            in->prefixes |= PREFIX_ADDRSIZE;
            break;
        case CLASS_LOCK:
            in->prefixes |= PREFIX_LOCK;
            break;
        case CLASS_F2:
            in->prefixes = (in->prefixes & ~PREFIX_F3) | PREFIX_F2;
            break;
        default:
            in->prefixes = (in->prefixes & ~PREFIX_F2) | PREFIX_F3;
            break;
        }
    }
    return false;
}

/* C4 or C5 at the cursor, known to be VEX (SDM 2A 2.3.5). DECODE_OK: in->map is set, opcode is
 * next. */
static enum decode_result take_vex(struct insn *in, struct cursor *c)
{
    bool three = c->bytes[c->at] == 0xC4;
    if (c->at + (three ? 3 : 2) > c->limit)
        return out_of_bytes(in, c);
    uint8_t first = c->bytes[c->at + 1];
    uint8_t last = c->bytes[c->at + (three ? 2 : 1)];
    c->at += three ? 3 : 2;
    if (in->rex || in->prefixes & (PREFIX_LOCK | PREFIX_OPSIZE | PREFIX_F2 | PREFIX_F3))
        return stop(in, c, DECODE_UNDEFINED);
    in->map = three ? first & 0x1F : 1;
    if (in->map < 1 || in->map > 3)
        return stop(in, c, DECODE_UNDEFINED);
    in->vex = true;
    in->vex_l = last >> 2 & 1;
    in->vex_w = three ? last >> 7 : 0;
    in->vex_pp = c->pp = last & 3;
    in->vex_vvvv = ~last >> 3 & 0xF;
    c->w = in->vex_w;
    if (in->mode == 64) {
        c->r = first & 0x80 ? 0 : 8;
        c->x = three && !(first & 0x40) ? 8 : 0;
        c->b = three && !(first & 0x20) ? 8 : 0;
    }
    return DECODE_OK;
}

/* Map and opcode. */
static enum decode_result take_opcode(struct insn *in, struct cursor *c)
{
    uint8_t byte = c->bytes[c->at];
    if (byte == 0x0F) {
        in->map = 1;
        if (++c->at == c->limit)
            return out_of_bytes(in, c);
        byte = c->bytes[c->at];
        if (byte == 0x38 || byte == 0x3A) {
            in->map = byte == 0x38 ? 2 : 3;
            if (++c->at == c->limit)
                return out_of_bytes(in, c);
        }
    } else if (UNLIKELY(byte == 0xC4 || byte == 0xC5 || byte == 0x62)) {
        bool other = in->mode == 64;
        if (!other) {
            if (c->at + 1 == c->limit)
                return out_of_bytes(in, c);
            other = c->bytes[c->at + 1] >= 0xC0;
        }
        if (other && byte == 0x62) { /* EVEX */
            c->at++;
            return stop(in, c, DECODE_UNDEFINED);
        }
        if (other) {
            enum decode_result result = take_vex(in, c);
            if (result != DECODE_OK)
                return result;
            if (c->at == c->limit)
                return out_of_bytes(in, c);
        }
    }
    in->opcode = c->bytes[c->at++];
    return DECODE_OK;
}

/* The row for opcode, prefixes and ModRM, or -1. */
static int find_row(const struct insn *in, const struct cursor *c, const struct slot *slot)
{
    unsigned first = slot->first, count = slot->count;
    if (slot->split) {
        unsigned bucket = (in->modrm >= 0xC0 ? 8 : 0) | (in->modrm >> 3 & 7);
        const struct split *split = &table.splits[first];
        first = split->first[bucket];
        count = split->count[bucket];
    }
    for (unsigned i = first; i < first + count; i++) {
        const struct form *f = &table.forms[table.order[i]];
        if ((f->prefixes >> c->pp & f->modes >> (in->mode >> 5) & f->lw >> (in->vex_l * 2 + c->w) &
             1) &&
            (f->rm == NO_REG || f->rm == (in->modrm & 7)))
            return table.order[i];
    }
    return -1;
}

/* ModRM memory forms of 16-bit addressing (SDM 2A table 2-1). */
static bool take_address16(struct insn *in, struct cursor *c)
{
    static const uint8_t bases[8] = {REG_BX, REG_BX, REG_BP, REG_BP,
                                     REG_SI, REG_DI, REG_BP, REG_BX};
    static const uint8_t indexes[8] = {REG_SI, REG_DI, REG_SI, REG_DI,
                                       NO_REG, NO_REG, NO_REG, NO_REG};
    unsigned rm = in->modrm & 7;
    in->base = bases[rm];
    in->index = indexes[rm];
    in->disp_size = in->mod;
    if (in->mod == 0 && rm == 6) {
        in->base = NO_REG;
        in->disp_size = 2;
    }
    if (c->at + in->disp_size > c->limit)
        return false;
    in->seg = in->base == REG_BP ? SEG_SS : SEG_DS;
    return true;
}

/* ModRM memory forms of 32- and 64-bit addressing (SDM 2A tables 2-2 and 2-3). */
static bool take_address(struct insn *in, struct cursor *c)
{
    unsigned base = in->modrm & 7;
    in->disp_size = in->mod == 2 ? 4 : in->mod;
    if (base == REG_SP) {
        if (c->at == c->limit)
            return false;
        in->has_sib = true;
        in->sib = c->bytes[c->at++];
        base = in->sib & 7;
        in->scale = 1 << (in->sib >> 6);
        in->index = (in->sib >> 3 & 7) | c->x;
        if (in->index == REG_SP && !in->vsib)
            in->index = NO_REG;
    } else if (in->mod == 0 && base == REG_BP && in->mode == 64) {
        in->rip_relative = true;
    }
    if (in->mod == 0 && base == REG_BP) {
        in->base = NO_REG;
        in->disp_size = 4;
        in->seg = SEG_DS;
    } else {
        in->base = base | c->b;
        in->seg = in->base == REG_SP || in->base == REG_BP ? SEG_SS : SEG_DS;
    }
    return c->at + in->disp_size <= c->limit;
}

/* The memory operand that ModRM describes. False when bytes are missing. */
static bool take_memory(struct insn *in, struct cursor *c, const struct form *f)
{
    in->has_mem = true;
    in->vsib = f->checks & CHECK_VSIB;
    bool complete = in->addrsize == 2 ? take_address16(in, c) : take_address(in, c);
    if (!complete)
        return false;
    if (in->disp_size) {
        in->disp = sign_extend(get_le(c->bytes + c->at, in->disp_size), in->disp_size);
        c->at += in->disp_size;
    }
    if (c->seg != SEG_NONE)
        in->seg = c->seg;
    in->mem_size = decode_width(in, f->width);
    return true;
}

/* Immediates, far pointers, moffs. False when bytes are missing. */
static bool take_immediate(struct insn *in, struct cursor *c, const struct form *f)
{
    unsigned size = 0, second = 0;
    switch (f->imm) {
    case IMM_B:
        size = 1;
        break;
    case IMM_W:
        size = 2;
        break;
    case IMM_Z:
        size = in->opsize == 2 ? 2 : 4;
        break;
    case IMM_V:
        size = in->opsize;
        break;
    case IMM_FAR:
        size = in->opsize;
        second = 2;
        break;
    case IMM_ENTER:
        size = 2;
        second = 1;
        break;
    case IMM_MOFFS:
        if (c->at + in->addrsize > c->limit)
            return false;
        in->has_mem = in->moffs = true;
        in->disp_size = in->addrsize;
        in->disp = get_le(c->bytes + c->at, in->addrsize);
        in->seg = c->seg != SEG_NONE ? c->seg : SEG_DS;
        in->mem_size = decode_width(in, f->width);
        c->at += in->addrsize;
        return true;
    }
    if (c->at + size + second > c->limit)
        return false;
    in->imm_off = c->at;
    in->imm_size = size;
    in->imm = sign_extend(get_le(c->bytes + c->at, size), size);
    if (second) {
        in->imm2_size = second;
        in->imm2 = get_le(c->bytes + c->at + size, second);
    }
    c->at += size + second;
    return true;
}

/* Operand size in bytes. 66 as a mandatory prefix is not an operand size. */
static unsigned operand_size(const struct insn *in, const struct cursor *c)
{
    bool other = in->prefixes & PREFIX_OPSIZE && in->row->prefix != ROW_66;
    if (in->mode == 64) {
        if (in->row->attr & A_FORCE64)
            return 8;
        if (c->w)
            return 8;
        if (other)
            return 2;
        return in->row->attr & A_DEFAULT64 ? 8 : 4;
    }
    if (in->vex)
        return 4;
    return (in->mode == 32) != other ? 4 : 2;
}

/* What makes #UD of an encoding although a row matches. */
static bool valid(const struct insn *in, const struct form *f)
{
    if (in->prefixes & PREFIX_LOCK && !(in->row->attr & A_LOCK && in->has_mem))
        return false;
    if (LIKELY(!f->checks))
        return true;
    unsigned reg = in->modrm >> 3 & 7;
    if (f->checks & CHECK_NO_VVVV && in->vex && in->vex_vvvv)
        return false;
    if (f->checks & CHECK_SREG &&
        (reg >= SEG_COUNT || (in->op == OP_MOV_SREG_FROM && reg == SEG_CS)))
        return false;
    if (f->checks & CHECK_CREG &&
        !(1u << in->reg & (1u << 0 | 1u << 2 | 1u << 3 | 1u << 4 | 1u << 8)))
        return false;
    if (f->checks & CHECK_VSIB) {
        /* SDM 2A 2.3.12: a SIB byte, and three different registers. */
        uint8_t mask = in->vex_vvvv;
        if (!in->has_sib || in->reg == in->index || in->reg == mask || in->index == mask)
            return false;
    }
    return true;
}

enum decode_result decode(struct insn *in, const uint8_t *bytes, unsigned avail, unsigned mode)
{
    struct cursor c = {.bytes = bytes, .limit = min_u32(avail, INSN_MAX), .seg = SEG_NONE};
    *in = (struct insn){.mode = mode, .seg = SEG_NONE, .base = NO_REG, .index = NO_REG, .scale = 1};
    copy_bytes(in, bytes, c.limit);

    if (!take_prefixes(in, &c))
        return out_of_bytes(in, &c);
    if (c.seg != SEG_NONE)
        in->prefixes |= PREFIX_SEGMENT;
    if (in->rex) {
        c.w = in->rex & 8;
        c.r = in->rex << 1 & 8;
        c.x = in->rex << 2 & 8;
        c.b = in->rex << 3 & 8;
    }
    c.pp = in->prefixes & PREFIX_F3       ? PP_F3
           : in->prefixes & PREFIX_F2     ? PP_F2
           : in->prefixes & PREFIX_OPSIZE ? PP_66
                                          : PP_NONE;
    enum decode_result result = take_opcode(in, &c);
    if (result != DECODE_OK)
        return result;

    unsigned opcode = in->opcode;
    if (UNLIKELY(opcode == 0x90 && c.b && in->map == 0 && c.pp != PP_F3))
        opcode = 0x91; /* XCHG r8, rAX, not NOP */
    const struct slot *slot = &table.slots[in->vex][in->map][opcode];
    if (slot->has_modrm) {
        if (c.at == c.limit)
            return out_of_bytes(in, &c);
        in->modrm_off = c.at;
        in->modrm = bytes[c.at++];
        in->has_modrm = true;
        in->mod = in->modrm >> 6;
        in->reg = (in->modrm >> 3 & 7) | c.r;
        in->rm = (in->modrm & 7) | c.b;
    } else {
        in->rm = (in->opcode & 7) | c.b;
    }
    int found = find_row(in, &c, slot);
    if (found < 0)
        return stop(in, &c, DECODE_UNDEFINED);

    const struct form *f = &table.forms[found];
    in->row = &decode_rows[found];
    in->op = in->row->op;
    in->opsize = operand_size(in, &c);
    bool other = in->prefixes & PREFIX_ADDRSIZE;
    in->addrsize = mode == 64 ? (other ? 4 : 8) : (mode == 32) != other ? 4 : 2;
    if (in->row->attr & A_REP) {
        if (in->prefixes & PREFIX_F3)
            in->prefixes |= PREFIX_REP;
        if (in->prefixes & PREFIX_F2)
            in->prefixes |= PREFIX_REPNE;
    }
    if (in->vex && mode != 64)
        in->vex_vvvv &= f->checks & CHECK_NO_VVVV ? 0xF : 7;

    if (in->row->modrm == MODRM_REG) {
        in->mod = 3;
    } else if (in->has_modrm && in->mod != 3) {
        if (!take_memory(in, &c, f))
            return out_of_bytes(in, &c);
    } else if (f->seg != SEG_NONE) {
        in->seg = f->seg == SEG_DS && c.seg != SEG_NONE ? c.seg : f->seg;
        in->mem_size = decode_width(in, f->width);
    }
    if (f->imm != IMM_NONE && !take_immediate(in, &c, f))
        return out_of_bytes(in, &c);
    in->len = c.at;
    return valid(in, f) ? DECODE_OK : DECODE_UNDEFINED;
}

/* ---- what callers ask about an instruction ---- */

unsigned decode_width(const struct insn *in, unsigned width)
{
    unsigned l = in->vex_l;
    switch (width) {
    case W_B:
        return 1;
    case W_W:
        return 2;
    case W_D:
        return 4;
    case W_Q:
        return 8;
    case W_DQ:
        return 16;
    case W_V:
        return in->opsize;
    case W_Z:
        return in->opsize == 2 ? 2 : 4;
    case W_Y:
        return in->opsize == 8 ? 8 : 4;
    case W_X:
        return 16 << l;
    case W_P:
        return 2 + in->opsize;
    case W_A:
        return 2 * in->opsize;
    case W_S:
        return in->mode == 64 ? 10 : 6;
    case W_T:
        return 10;
    case W_ENV:
        return in->opsize == 2 ? 14 : 28;
    case W_FSAVE:
        return in->opsize == 2 ? 94 : 108;
    case W_8W:
        return 8 << l;
    case W_4W:
        return 4 << l;
    case W_2W:
        return 2 << l;
    case W_64:
        return 64;
    case W_FX:
    case W_XS:
    default:
        return 0;
    }
}

const char *decode_op_name(unsigned op)
{
    return table.names[op < OP_COUNT ? op : OP_INVALID];
}

const struct decode_row *decode_plain_row(const struct insn *in)
{
    const struct slot *slot = &table.slots[in->vex][in->map][in->opcode];
    unsigned first = slot->first, count = slot->count;
    if (slot->split) {
        unsigned bucket = (in->modrm >= 0xC0 ? 8 : 0) | (in->modrm >> 3 & 7);
        first = table.splits[slot->first].first[bucket];
        count = table.splits[slot->first].count[bucket];
    }
    const struct decode_row *last = count ? &decode_rows[table.order[first + count - 1]] : NULL;
    return last && last->prefix == ROW_ANY && last->feature == F_BASE ? last : NULL;
}
