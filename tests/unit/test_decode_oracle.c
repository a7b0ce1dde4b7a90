/*
 * The decoder against Capstone, byte string by byte string, in 16-, 32- and 64-bit mode: whether it
 * is an instruction, how long it is, its mnemonic; and for one string in eight also where its
 * ModRM, displacement and immediate stand, its address size and its memory operand.
 *
 * Three strings in four are made from a row of cpu/opcodes.def, with random prefixes, ModRM,
 * address and tail, and now and then a broken byte; the rest is random. Every row must be reached.
 *
 * A difference is a failure unless an entry of known_errors explains it. Wherever that is possible
 * an entry asks Capstone about the same instruction in another spelling, and lets the difference
 * pass only if there is none then.
 *
 * Arguments or environment: [NOVT_DECODE_COUNT=]strings, [NOVT_DECODE_SEED=]seed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <capstone/capstone.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/decode.h"

enum { STRING = 40, DEFAULT_COUNT = 12000000, MAX_ROWS_SEEN = 4096 };

static const unsigned modes[] = {16, 32, 64};

/* ---- byte strings ---- */

struct rng {
    uint64_t state;
};

static uint32_t rng_next(struct rng *r)
{
    r->state ^= r->state << 13;
    r->state ^= r->state >> 7;
    r->state ^= r->state << 17;
    return r->state >> 16;
}

static uint32_t below(struct rng *r, uint32_t n)
{
    return rng_next(r) % n;
}

static bool one_in(struct rng *r, uint32_t n)
{
    return below(r, n) == 0;
}

static bool row_uses_vvvv(const struct decode_row *row)
{
    for (unsigned i = 0; i < ARRAY_LEN(row->operand); i++)
        if (row->operand[i].kind == K_H || row->operand[i].kind == K_B)
            return true;
    return false;
}

static unsigned put_prefixes(struct rng *r, uint8_t *b, bool vex)
{
    static const uint8_t legacy[] = {0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x2E, 0x36,
                                     0x3E, 0x26, 0x64, 0x65, 0x66, 0x67};
    static const uint8_t harmless[] = {0x67, 0x67, 0x2E, 0x64, 0x65};
    unsigned n = 0;
    if (one_in(r, 2))
        for (unsigned k = 1 + below(r, 3); k; k--)
            b[n++] = vex && !one_in(r, 8) ? harmless[below(r, sizeof(harmless))]
                                          : legacy[below(r, sizeof(legacy))];
    return n;
}

static unsigned put_vex(struct rng *r, uint8_t *b, const struct decode_row *row, unsigned mode)
{
    static const uint8_t pp[] = {[ROW_NP] = 0, [ROW_66] = 1, [ROW_F3] = 2, [ROW_F2] = 3};
    unsigned n = 0;
    unsigned l = row->vex_l < 0 ? below(r, 2) : (unsigned)row->vex_l;
    unsigned w = row->w < 0 ? below(r, 2) : (unsigned)row->w;
    l ^= one_in(r, 16);
    w ^= one_in(r, 16);
    unsigned vvvv = row_uses_vvvv(row) || one_in(r, 16) ? below(r, 16) : 15;
    unsigned last = vvvv << 3 | l << 2 | pp[row->prefix];
    if (row->map == 1 && !w && one_in(r, 2)) {
        b[n++] = 0xC5;
        b[n++] = mode == 64 ? last | below(r, 2) << 7 : last | 0xC0;
    } else {
        b[n++] = 0xC4;
        b[n++] = row->map | (mode == 64 ? below(r, 8) << 5 : 0xE0);
        b[n++] = last | w << 7;
    }
    return n;
}

/* Bytes of an instruction of `row`, up to its ModRM; what follows is random already. */
static void put_row(struct rng *r, uint8_t *b, const struct decode_row *row, unsigned mode)
{
    static const uint8_t mandatory[] = {
        [ROW_66] = 0x66, [ROW_F3] = 0xF3, [ROW_F2] = 0xF2, [ROW_NFX] = 0};
    unsigned n = put_prefixes(r, b, row->vex);
    if (row->vex) {
        n += put_vex(r, b + n, row, mode);
    } else {
        if (mandatory[row->prefix] && !one_in(r, 16))
            b[n++] = mandatory[row->prefix];
        if (mode == 64 && (one_in(r, 2) || row->w == 1))
            b[n++] = 0x40 | below(r, 16) | (row->w == 1 ? 8 : 0);
        if (row->map)
            b[n++] = 0x0F;
        if (row->map > 1)
            b[n++] = row->map == 2 ? 0x38 : 0x3A;
    }
    b[n++] = row->opcode;
    if (row->modrm != MODRM_NONE) {
        unsigned modrm = below(r, 256);
        if (row->mod == 3)
            modrm |= 0xC0;
        else if (row->mod == 0 && modrm >= 0xC0)
            modrm &= ~(0x40u << below(r, 2));
        if (row->ext >= 0)
            modrm = (modrm & ~0x38u) | (unsigned)row->ext << 3;
        if (row->rm >= 0)
            modrm = (modrm & ~7u) | (unsigned)row->rm;
        b[n++] = modrm;
    }
    if (one_in(r, 32))
        b[below(r, n)] = rng_next(r);
}

/* ---- both opinions ---- */

struct oracle {
    csh plain[3], detailed[3];
    cs_insn *insn;
};

struct subject {
    struct oracle *oracle;
    uint8_t bytes[STRING];
    unsigned mode_index, mode;
    struct insn in;
    enum decode_result result;
    bool valid; /* Capstone's opinion */
    unsigned size;
    const char *name;
};

static bool ask(struct oracle *o, csh handle, const uint8_t *bytes)
{
    size_t size = INSN_MAX;
    uint64_t address = 0x1000;
    return cs_disasm_iter(handle, &bytes, &size, &address, o->insn);
}

static void form_opinions(struct subject *s)
{
    csh handle = s->oracle->plain[s->mode_index];
    s->result = decode(&s->in, s->bytes, INSN_MAX, s->mode);
    s->valid = ask(s->oracle, handle, s->bytes);
    s->size = s->valid ? s->oracle->insn->size : 0;
    s->name = s->valid ? cs_insn_name(handle, s->oracle->insn->id) : "";
}

/* ---- mnemonics ---- */

/* Ours against Capstone's, where they are not the same word. A `*` is the operand size in letters.
 */
static const struct alias {
    uint16_t op;
    const char *names;
} aliases[] = {
    {OP_CALL_NEAR, "call"},
    {OP_CALL_IND, "call"},
    {OP_CALL_FAR, "lcall"},
    {OP_CALL_FAR_IND, "lcall"},
    {OP_JMP_NEAR, "jmp"},
    {OP_JMP_IND, "jmp"},
    {OP_JMP_FAR, "ljmp"},
    {OP_JMP_FAR_IND, "ljmp"},
    {OP_RET_NEAR, "ret"},
    {OP_RET_FAR, "retf retfq"},
    {OP_IRET, "iret iretd iretq"},
    {OP_INT_N, "int"},
    {OP_MOV_CR_READ, "mov"},
    {OP_MOV_CR_WRITE, "mov"},
    {OP_MOV_DR_READ, "mov"},
    {OP_MOV_DR_WRITE, "mov"},
    {OP_MOV_SREG_TO, "mov"},
    {OP_MOV_SREG_FROM, "mov"},
    {OP_PUSH_SREG, "push"},
    {OP_POP_SREG, "pop"},
    {OP_PUSHA, "pushaw pushal"},
    {OP_POPA, "popaw popal"},
    {OP_PUSHF, "pushf pushfd pushfq"},
    {OP_POPF, "popf popfd popfq"},
    {OP_CBW, "cbw cwde cdqe"},
    {OP_CWD, "cwd cdq cqo"},
    {OP_JCXZ, "jcxz jecxz jrcxz"},
    {OP_XLAT, "xlatb"},
    {OP_FWAIT, "wait"},
    {OP_FENI, "feni8087_nop"},
    {OP_FDISI, "fdisi8087_nop"},
    {OP_SHL, "shl sal"},
    {OP_MOV, "mov movabs"},
    {OP_MOVD, "movd movq"},
    {OP_VMOVD, "vmovd vmovq"},
    {OP_PEXTRD, "pextrd pextrq"},
    {OP_VPEXTRD, "vpextrd vpextrq"},
    {OP_PINSRD, "pinsrd pinsrq"},
    {OP_VPINSRD, "vpinsrd vpinsrq"},
    {OP_VCVTPD2DQ, "vcvtpd2dq vcvtpd2dqx"},
    {OP_VCVTPD2PS, "vcvtpd2ps vcvtpd2psx"},
    {OP_VCVTTPD2DQ, "vcvttpd2dq vcvttpd2dqx"},
    {OP_FXSAVE, "fxsave fxsave64"},
    {OP_FXRSTOR, "fxrstor fxrstor64"},
    {OP_XSAVE, "xsave xsave64"},
    {OP_XRSTOR, "xrstor xrstor64"},
    {OP_XSAVEC, "xsavec xsavec64"},
    {OP_XSAVEOPT, "xsaveopt xsaveopt64"},
    {OP_XSAVES, "xsaves xsaves64"},
    {OP_XRSTORS, "xrstors xrstors64"},
    {OP_UD1, "ud2b"},
    {OP_MOVQ, "movq movd"},
};

static bool word_in(const char *word, const char *list)
{
    size_t n = strlen(word);
    for (const char *p = strstr(list, word); p; p = strstr(p + 1, word))
        if ((p == list || p[-1] == ' ') && (p[n] == 0 || p[n] == ' '))
            return true;
    return false;
}

static bool conditional(const char *name, const char *stem, unsigned condition)
{
    static const char *const conditions[] = {"o", "no", "b", "ae", "e", "ne", "be", "a",
                                             "s", "ns", "p", "np", "l", "ge", "le", "g"};
    size_t n = strlen(stem);
    return strncmp(name, stem, n) == 0 && strcmp(name + n, conditions[condition & 15]) == 0;
}

static bool fcmov(const char *name, const struct insn *in)
{
    static const char *const conditions[2][4] = {{"b", "e", "be", "u"}, {"nb", "ne", "nbe", "nu"}};
    return strncmp(name, "fcmov", 5) == 0 &&
           strcmp(name + 5, conditions[in->opcode & 1][in->reg & 3]) == 0;
}

/* Strings: the size's letter. */
static bool string_name(const char *name, const struct insn *in)
{
    static const char letters[] = {[1] = 'b', [2] = 'w', [4] = 'd', [8] = 'q'};
    const char *ours = decode_op_name(in->op);
    size_t n = strlen(ours);
    return strncmp(name, ours, n) == 0 && name[n] == letters[in->mem_size] && name[n + 1] == 0;
}

/* CMPPS as CMPEQPS and so on: what the immediate says is part of Capstone's name. */
static bool compare_name(const char *name, const struct insn *in)
{
    const char *ours = decode_op_name(in->op);
    size_t n = strlen(ours), m = strlen(name);
    return m >= n && strncmp(name, ours, n - 2) == 0 && strcmp(name + m - 2, ours + n - 2) == 0;
}

static bool name_agrees(const struct insn *in, const char *name)
{
    switch (in->op) {
    case OP_JCC:
        return conditional(name, "j", in->opcode);
    case OP_SETCC:
        return conditional(name, "set", in->opcode);
    case OP_CMOVCC:
        return conditional(name, "cmov", in->opcode);
    case OP_FCMOVCC:
        return fcmov(name, in);
    case OP_MOVS:
    case OP_CMPS:
    case OP_STOS:
    case OP_LODS:
    case OP_SCAS:
    case OP_INS:
    case OP_OUTS:
        return string_name(name, in);
    case OP_CMPPS:
    case OP_CMPPD:
    case OP_CMPSS:
    case OP_CMPSD:
    case OP_VCMPPS:
    case OP_VCMPPD:
    case OP_VCMPSS:
    case OP_VCMPSD:
        return compare_name(name, in);
    default:
        break;
    }
    for (unsigned i = 0; i < ARRAY_LEN(aliases); i++)
        if (aliases[i].op == in->op)
            return word_in(name, aliases[i].names);
    return strcmp(name, decode_op_name(in->op)) == 0;
}

static bool opinions_agree(const struct subject *s)
{
    if (s->result != DECODE_OK || !s->valid)
        return (s->result == DECODE_OK) == s->valid;
    return s->size == s->in.len && name_agrees(&s->in, s->name);
}

/* ---- other spellings ---- */

static bool is_legacy_prefix(uint8_t byte)
{
    return memchr("\x66\x67\xF0\xF2\xF3\x2E\x36\x3E\x26\x64\x65", byte, 11);
}

static unsigned legacy_prefixes(const struct subject *s)
{
    unsigned n = 0;
    while (n < INSN_MAX &&
           (is_legacy_prefix(s->bytes[n]) ||
            (s->mode == 64 && (s->bytes[n] & 0xF0) == 0x40 &&
             (is_legacy_prefix(s->bytes[n + 1]) || (s->bytes[n + 1] & 0xF0) == 0x40))))
        n++;
    return n;
}

/* The subject with other prefixes: `front`, then what follows the old ones. */
static void respell(struct subject *to, const struct subject *from, const uint8_t *front,
                    unsigned n)
{
    unsigned old = legacy_prefixes(from);
    *to = *from;
    memset(to->bytes, 0, sizeof(to->bytes));
    memcpy(to->bytes, front, n);
    memcpy(to->bytes + n, from->bytes + old, STRING - 4 - old);
    form_opinions(to);
}

/* Ours is that prefixes, VEX.W or VEX.vvvv make it #UD: then, with these mended, it must be valid
   and what Capstone says. */
static bool is_not_checked(const struct subject *s)
{
    enum { NO_66 = 1, NO_REP = 2, NO_LOCK = 4, OTHER_W = 8, NO_VVVV = 16, ALL = 31 };
    if (s->result == DECODE_OK || !s->valid)
        return false;
    unsigned n = legacy_prefixes(s);
    for (unsigned mend = 1; mend <= ALL; mend++) {
        uint8_t front[INSN_MAX];
        unsigned kept = 0;
        for (unsigned k = 0; k < n; k++) {
            uint8_t p = s->bytes[k];
            if (is_legacy_prefix(p) && !(mend & NO_66 && p == 0x66) &&
                !(mend & NO_LOCK && p == 0xF0) && !(mend & NO_REP && (p == 0xF2 || p == 0xF3)))
                front[kept++] = p;
        }
        struct subject other;
        respell(&other, s, front, kept);
        uint8_t *vex = other.bytes + kept;
        bool three = vex[0] == 0xC4;
        if (mend & (OTHER_W | NO_VVVV) && !three && vex[0] != 0xC5)
            continue;
        if (mend & OTHER_W && three)
            vex[2] ^= 0x80;
        if (mend & NO_VVVV)
            vex[three ? 2 : 1] |= 0x78;
        form_opinions(&other);
        if (other.result == DECODE_OK && name_agrees(&other.in, s->name))
            return true;
    }
    return false;
}

/* Opinions agree when each prefix stands once, those that play no role are gone, and the mandatory
   one is the last. */
static bool order_is_misread(const struct subject *s)
{
    if (s->result != DECODE_OK || s->in.vex)
        return false;
    uint8_t front[INSN_MAX];
    unsigned n = 0, wanted = s->in.row->prefix;
    if (s->in.prefixes & PREFIX_SEGMENT)
        front[n++] = (const uint8_t[]){0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x3E}[s->in.seg];
    if (s->in.prefixes & PREFIX_LOCK)
        front[n++] = 0xF0;
    if (s->in.prefixes & PREFIX_ADDRSIZE)
        front[n++] = 0x67;
    bool sized = wanted == ROW_ANY || wanted == ROW_NFX || s->in.opsize == 2;
    if (s->in.prefixes & PREFIX_OPSIZE && sized)
        front[n++] = 0x66;
    if (wanted == ROW_66)
        front[n++] = 0x66;
    if (wanted == ROW_F3 || (s->in.prefixes & PREFIX_REP))
        front[n++] = 0xF3;
    if (wanted == ROW_F2 || (s->in.prefixes & PREFIX_REPNE))
        front[n++] = 0xF2;
    struct subject other;
    respell(&other, s, front, n);
    return opinions_agree(&other) && other.in.row == s->in.row;
}

/* 16-bit mode against 32-bit mode with the other address size. */
static bool is_known_in_32_bit_mode(const struct subject *s)
{
    if (s->mode != 16 || s->result != DECODE_OK || (s->in.row->prefix == ROW_ANY && !s->in.vex))
        return false;
    uint8_t front[INSN_MAX + 2];
    unsigned n = 0, wanted = s->in.row->prefix;
    if (!(s->in.prefixes & PREFIX_ADDRSIZE))
        front[n++] = 0x67;
    if (wanted == ROW_66 && !s->in.vex)
        front[n++] = 0x66;
    if (wanted == ROW_F3 && !s->in.vex)
        front[n++] = 0xF3;
    if (wanted == ROW_F2 && !s->in.vex)
        front[n++] = 0xF2;
    struct subject other;
    struct subject wide = *s;
    wide.mode = 32;
    wide.mode_index = 1;
    respell(&other, &wide, front, n);
    return opinions_agree(&other) && other.in.row == s->in.row;
}

/* ---- what Capstone 4.0.2 does not know or gets wrong ---- */

static bool is_newer(const struct subject *s)
{
    if (s->result != DECODE_OK)
        return false;
    switch (s->in.row->feature) {
    case F_GFNI:
    case F_VAES:
    case F_VPCLMULQDQ:
    case F_MOVDIRI:
    case F_MOVDIR64B:
    case F_RDPID:
    case F_SERIALIZE:
    case F_PKU:
        return true;
    default:
        return s->in.op == OP_VBROADCASTI128 || s->in.op == OP_CLWB;
    }
}

static bool is_hint_without_name(const struct subject *s)
{
    return s->result == DECODE_OK && s->in.map == 1 &&
           (s->in.op == OP_NOP || s->in.op == OP_PREFETCH) && (!s->valid || s->size == s->in.len);
}

static bool is_fence_with_rm(const struct subject *s)
{
    return s->result == DECODE_OK && s->in.rm &&
           (s->in.op == OP_LFENCE || s->in.op == OP_MFENCE || s->in.op == OP_SFENCE);
}

static bool is_pcommit(const struct subject *s)
{
    return strcmp(s->name, "pcommit") == 0;
}

static bool is_undefined_with_modrm(const struct subject *s)
{
    return s->result == DECODE_OK && (s->in.op == OP_UD0 || s->in.op == OP_UD1);
}

static bool has_no_such_register(const struct subject *s)
{
    if (s->result == DECODE_OK) /* 64-bit mode: REX.R before a segment register is ignored */
        return !s->valid && s->in.rex & 4 &&
               (s->in.op == OP_MOV_SREG_FROM || s->in.op == OP_MOV_SREG_TO);
    if (!s->valid || strcmp(s->name, "mov") != 0)
        return false;
    bool control = s->in.map == 1 && (s->in.opcode == 0x20 || s->in.opcode == 0x22);
    bool segment = s->in.map == 0 && s->in.opcode == 0x8E && (s->in.modrm >> 3 & 7) == SEG_CS;
    return control || segment;
}

static bool is_gather_that_faults(const struct subject *s)
{
    return s->result == DECODE_UNDEFINED && strstr(s->name, "gather");
}

static bool has_no_row(const struct subject *s)
{
    static const uint8_t groups[] = {X86_GRP_VM,   X86_GRP_3DNOW, X86_GRP_SSE4A, X86_GRP_XOP,
                                     X86_GRP_FMA4, X86_GRP_TBM,   X86_GRP_RTM,   X86_GRP_AVX512,
                                     X86_GRP_HLE,  X86_GRP_PFI};
    if (s->result == DECODE_OK || !s->valid)
        return false;
    csh handle = s->oracle->detailed[s->mode_index];
    ask(s->oracle, handle, s->bytes);
    for (unsigned i = 0; i < ARRAY_LEN(groups); i++)
        if (cs_insn_group(handle, s->oracle->insn, groups[i]))
            return true;
    /* AVX-512 and its mask registers, VIA PadLock, and single ones. */
    return s->bytes[legacy_prefixes(s)] == 0x62 || s->name[0] == 'k' ||
           strncmp(s->name, "xcrypt", 6) == 0 ||
           word_in(
               s->name,
               "xsha1 xsha256 xstore montmul getsec encls enclu xabort xbegin xend xtest femms");
}

static bool is_size_of_string(const struct subject *s)
{
    const char *ours = decode_op_name(s->in.op);
    return s->in.row && s->in.row->attr & A_REP && s->in.prefixes & PREFIX_OPSIZE &&
           (s->in.rex & 8 || s->in.prefixes & (PREFIX_F2 | PREFIX_F3)) &&
           strncmp(s->name, ours, strlen(ours)) == 0;
}

static bool is_90_with_rex(const struct subject *s)
{
    return s->in.map == 0 && s->in.opcode == 0x90 && s->in.rex &&
           word_in(s->name, "xchg nop pause");
}

static bool is_near_branch_with_66(const struct subject *s)
{
    return s->mode == 64 && s->result == DECODE_OK && s->in.row->attr & A_FORCE64 &&
           s->in.prefixes & PREFIX_OPSIZE && name_agrees(&s->in, s->name);
}

static bool is_swapgs_elsewhere(const struct subject *s)
{
    return s->mode != 64 && s->result == DECODE_UNDEFINED && strcmp(s->name, "swapgs") == 0;
}

static bool takes_67_for_66(const struct subject *s)
{
    return s->mode == 64 && s->in.rex & 8 && s->in.prefixes & PREFIX_ADDRSIZE;
}

static const struct known_error {
    bool (*explains)(const struct subject *s);
    const char *reason;
} known_errors[] = {
    {is_not_checked, "stray prefixes, VEX.W and VEX.vvvv that make #UD: Capstone ignores them"},
    {has_no_row,
     "VMX, SVM, SMX, SGX, TSX, 3DNow!, SSE4A, XOP, FMA4, TBM, AVX-512, PadLock: left out"},
    {is_size_of_string, "66 before a string: Capstone loses it beside F2 or F3, REX.W beside it"},
    {is_90_with_rex, "90 is PAUSE with F3 whatever REX says, XCHG with REX.B (tried on a CPU)"},
    {order_is_misread, "Capstone sees a mandatory prefix only where it is the last one"},
    {is_known_in_32_bit_mode, "Capstone has no mandatory prefixes in 16-bit mode"},
    {is_newer, "newer than Capstone 4.0.2, or missing in its tables"},
    {is_hint_without_name, "Capstone does not have all hint NOPs"},
    {is_fence_with_rm, "Capstone knows fences with rm = 0 only"},
    {is_pcommit, "PCOMMIT was withdrawn"},
    {is_undefined_with_modrm, "UD0 and UD1 have a ModRM byte"},
    {has_no_such_register,
     "Capstone has control registers that do not exist, MOV to CS, and REX.R of sreg"},
    {is_gather_that_faults, "gathers want a SIB byte and three different registers"},
    {is_near_branch_with_66,
     "66 before a near branch in 64-bit mode: Intel ignores it, AMD does not"},
    {is_swapgs_elsewhere, "SWAPGS exists in 64-bit mode only"},
    {takes_67_for_66, "Capstone takes 67 with REX.W for 66 in 64-bit mode"},
};

/* ---- layout ---- */

static unsigned cs_register(unsigned reg, unsigned size)
{
    static const uint16_t r64[] = {X86_REG_RAX, X86_REG_RCX, X86_REG_RDX, X86_REG_RBX,
                                   X86_REG_RSP, X86_REG_RBP, X86_REG_RSI, X86_REG_RDI,
                                   X86_REG_R8,  X86_REG_R9,  X86_REG_R10, X86_REG_R11,
                                   X86_REG_R12, X86_REG_R13, X86_REG_R14, X86_REG_R15};
    static const uint16_t r32[] = {X86_REG_EAX,  X86_REG_ECX,  X86_REG_EDX,  X86_REG_EBX,
                                   X86_REG_ESP,  X86_REG_EBP,  X86_REG_ESI,  X86_REG_EDI,
                                   X86_REG_R8D,  X86_REG_R9D,  X86_REG_R10D, X86_REG_R11D,
                                   X86_REG_R12D, X86_REG_R13D, X86_REG_R14D, X86_REG_R15D};
    static const uint16_t r16[] = {X86_REG_AX, X86_REG_CX, X86_REG_DX, X86_REG_BX,
                                   X86_REG_SP, X86_REG_BP, X86_REG_SI, X86_REG_DI};
    if (reg == NO_REG)
        return X86_REG_INVALID;
    return size == 8 ? r64[reg] : size == 4 ? r32[reg] : r16[reg & 7];
}

static const cs_x86_op *memory_operand(const cs_x86 *x)
{
    for (unsigned i = 0; i < x->op_count; i++)
        if (x->operands[i].type == X86_OP_MEM)
            return &x->operands[i];
    return NULL;
}

/* NULL, or what differs. */
static const char *layout_differs(const struct insn *in, const cs_x86 *x)
{
    if (in->has_modrm && in->row->modrm == MODRM_RM && x->modrm != in->modrm)
        return "modrm";
    if (in->has_modrm && x->encoding.modrm_offset != in->modrm_off)
        return "offset of modrm";
    if (in->has_sib && x->sib != in->sib)
        return "sib";
    if (x->addr_size != in->addrsize)
        return "address size";
    if (in->imm_size && in->imm2_size == 0 && in->row->operand[3].kind != K_L) {
        if (x->encoding.imm_offset != in->imm_off)
            return "offset of the immediate";
    }
    if (!in->has_mem || in->vsib)
        return NULL;
    const cs_x86_op *op = memory_operand(x);
    if (!op)
        return "no memory operand";
    unsigned base = in->rip_relative ? (in->addrsize == 8 ? X86_REG_RIP : X86_REG_EIP)
                                     : cs_register(in->base, in->addrsize);
    if (op->mem.base != base)
        return "base";
    if (op->mem.index != cs_register(in->index, in->addrsize) &&
        !(in->index == NO_REG && (op->mem.index == X86_REG_RIZ || op->mem.index == X86_REG_EIZ)))
        return "index";
    if (in->index != NO_REG && op->mem.scale != in->scale)
        return "scale";
    if (((uint64_t)op->mem.disp ^ (uint64_t)in->disp) & width_mask(in->addrsize))
        return "displacement";
    if (in->mode != 64 && in->prefixes & PREFIX_SEGMENT) {
        static const uint16_t segs[] = {X86_REG_ES, X86_REG_CS, X86_REG_SS,
                                        X86_REG_DS, X86_REG_FS, X86_REG_GS};
        if (op->mem.segment != segs[in->seg])
            return "segment";
    }
    /* Beside F2 or F3 Capstone loses a 66 that is the operand size; in 64-bit mode it prefers 66
       (and even 67) to REX.W, and reads 32 bits for MOVSXD with 66. */
    bool lost = (in->prefixes & PREFIX_OPSIZE && in->prefixes & (PREFIX_F2 | PREFIX_F3)) ||
                (in->prefixes & (PREFIX_OPSIZE | PREFIX_ADDRSIZE) && in->rex & 8) ||
                in->op == OP_MOVSXD;
    bool integer = !(in->row->attr & (A_X87 | A_MMX | A_SSE | A_AVX | A_FPU_CONTROL | A_SENSITIVE |
                                      A_NO_ACCESS | A_BRANCH | A_IMPLICIT_MEM));
    if (integer && !lost && in->mem_size && op->size != in->mem_size)
        return "size of the memory operand";
    return NULL;
}

/* ---- the run ---- */

static unsigned long long setting(const char *name, unsigned long long otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 0) : otherwise;
}

static void print_subject(const struct subject *s)
{
    print_message("%u-bit:", s->mode);
    for (unsigned i = 0; i < INSN_MAX; i++)
        print_message(" %02x", s->bytes[i]);
    print_message("\n  novt: result %d, length %u, %s; Capstone: length %u, %s\n", s->result,
                  s->in.len, s->in.row ? decode_op_name(s->in.op) : "-", s->size,
                  s->valid ? s->name : "-");
}

static int open_oracle(void **state)
{
    static const cs_mode cs_modes[] = {CS_MODE_16, CS_MODE_32, CS_MODE_64};
    struct oracle *o = calloc(1, sizeof(*o));
    for (unsigned i = 0; i < ARRAY_LEN(modes); i++) {
        if (cs_open(CS_ARCH_X86, cs_modes[i], &o->plain[i]) ||
            cs_open(CS_ARCH_X86, cs_modes[i], &o->detailed[i]))
            return -1;
        cs_option(o->detailed[i], CS_OPT_DETAIL, CS_OPT_ON);
    }
    o->insn = cs_malloc(o->detailed[0]);
    *state = o;
    return 0;
}

static int close_oracle(void **state)
{
    struct oracle *o = *state;
    cs_free(o->insn, 1);
    for (unsigned i = 0; i < ARRAY_LEN(modes); i++) {
        cs_close(&o->plain[i]);
        cs_close(&o->detailed[i]);
    }
    free(o);
    return 0;
}

static void agrees_with_capstone_on_every_string(void **state)
{
    struct oracle *o = *state;
    unsigned long long count = setting("NOVT_DECODE_COUNT", DEFAULT_COUNT);
    struct rng r = {setting("NOVT_DECODE_SEED", 0x9E3779B97F4A7C15) | 1};
    unsigned long long explained[ARRAY_LEN(known_errors)] = {0};
    static bool seen[MAX_ROWS_SEEN];
    unsigned failures = 0;
    print_message("%llu strings, seed %#llx\n", count, (unsigned long long)r.state);
    assert_true(decode_row_count <= MAX_ROWS_SEEN);

    for (unsigned long long i = 0; i < count && failures < 20; i++) {
        struct subject s = {.oracle = o, .mode_index = i % 3, .mode = modes[i % 3]};
        for (unsigned k = 0; k < STRING; k++)
            s.bytes[k] = rng_next(&r);
        if (!one_in(&r, 4))
            put_row(&r, s.bytes, &decode_rows[below(&r, decode_row_count)], s.mode);
        form_opinions(&s);
        if (s.result == DECODE_OK)
            seen[s.in.row - decode_rows] = true;
        if (opinions_agree(&s)) {
            if (i % 8 || s.result != DECODE_OK)
                continue;
            ask(o, o->detailed[s.mode_index], s.bytes);
            const char *what = layout_differs(&s.in, &o->insn->detail->x86);
            if (what) {
                print_subject(&s);
                print_message("  differs: %s (%s %s)\n", what, o->insn->mnemonic, o->insn->op_str);
                failures++;
            }
            continue;
        }
        unsigned k = 0;
        while (k < ARRAY_LEN(known_errors) && !known_errors[k].explains(&s))
            k++;
        if (k < ARRAY_LEN(known_errors)) {
            explained[k]++;
        } else {
            print_subject(&s);
            failures++;
        }
    }
    for (unsigned k = 0; k < ARRAY_LEN(known_errors); k++)
        print_message("%9llu  %s\n", explained[k], known_errors[k].reason);
    assert_int_equal(failures, 0);
    for (unsigned k = 0; k < decode_row_count && count >= DEFAULT_COUNT; k++)
        if (!seen[k]) {
            print_message("row %u (%s, map %u, %02x) was not reached\n", k,
                          decode_op_name(decode_rows[k].op), decode_rows[k].map,
                          decode_rows[k].opcode);
            failures++;
        }
    assert_int_equal(failures, 0);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        setenv("NOVT_DECODE_COUNT", argv[1], 1);
    if (argc > 2)
        setenv("NOVT_DECODE_SEED", argv[2], 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(agrees_with_capstone_on_every_string, open_oracle,
                                        close_oracle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
