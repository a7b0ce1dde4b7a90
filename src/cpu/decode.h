/*
 * The decoder: bytes to struct insn, one pass, driven by the rows of cpu/opcodes.def. It finds
 * length and operand layout only and judges nothing: privilege, features and modes are its callers'
 * affair, but encodings that no row describes are not decoded (DECODE_UNDEFINED).
 */
#ifndef CPU_DECODE_H
#define CPU_DECODE_H

#include "base/base.h"
#include "cpu/state.h"

/*
 * Mnemonics: OP_ADD, OP_POPF, ... . opcodes.def is a list of MNEMONIC(NAME) lines, each followed by
 * the OP(...) rows of that mnemonic, so that a name and its encodings stand in one place.
 */
enum op {
    OP_INVALID,
#define MNEMONIC(name) OP_##name,
#define OP(...)
#include "cpu/opcodes.def"
#undef OP
#undef MNEMONIC
    OP_COUNT
};

/*
 * Operands in the manual's letters (SDM 2D, appendix A.2): the first letter is where, the second
 * how wide. OPD_Ev is OPD_E with width W_V. Fixed registers have their own.
 */
enum operand_kind {
    K_NONE,
    K_E,    /* ModRM rm: general register or memory */
    K_G,    /* ModRM reg: general register */
    K_M,    /* ModRM rm: memory only */
    K_R,    /* ModRM rm: general register only */
    K_S,    /* ModRM reg: segment register */
    K_C,    /* ModRM reg: control register */
    K_D,    /* ModRM reg: debug register */
    K_P,    /* ModRM reg: MMX register */
    K_Q,    /* ModRM rm: MMX register or memory */
    K_N,    /* ModRM rm: MMX register only */
    K_V,    /* ModRM reg: XMM/YMM register */
    K_W,    /* ModRM rm: XMM/YMM register or memory */
    K_U,    /* ModRM rm: XMM/YMM register only */
    K_H,    /* VEX.vvvv: XMM/YMM register */
    K_B,    /* VEX.vvvv: general register */
    K_L,    /* imm8[7:4]: XMM/YMM register */
    K_Z,    /* low three bits of the opcode: general register */
    K_I,    /* immediate, sign-extended to the operand size where shorter */
    K_J,    /* relative branch target */
    K_A,    /* far pointer in the instruction */
    K_O,    /* moffs: address in the instruction, no ModRM */
    K_X,    /* memory at DS:[(e)si] */
    K_Y,    /* memory at ES:[(e)di] */
    K_F,    /* EFLAGS */
    K_ST,   /* x87 stack register in rm (D8-DF with mod 3); layout only */
    K_GPR,  /* a fixed general register: number in operand.reg */
    K_SREG, /* a fixed segment register: number in operand.reg */
    K_ONE,  /* the constant 1 (D0, D1) */
    K_VM,   /* VSIB memory */
};

enum operand_width {
    W_NONE,
    W_B,     /* 1 */
    W_W,     /* 2 */
    W_D,     /* 4 */
    W_Q,     /* 8 */
    W_DQ,    /* 16 */
    W_V,     /* operand size: 2, 4 or 8 */
    W_Z,     /* 2 or 4 (4 with REX.W) */
    W_Y,     /* 4, or 8 with REX.W; never 2 */
    W_X,     /* 16, or 32 with VEX.L */
    W_P,     /* far pointer: 2 + operand size */
    W_A,     /* two operand-size bounds (BOUND) */
    W_S,     /* pseudo-descriptor: 6 */
    W_T,     /* 10: x87 extended, BCD */
    W_ENV,   /* FNSTENV: 14 or 28 */
    W_FSAVE, /* FNSAVE: 94 or 108 */
    W_FX,    /* 512 */
    W_XS,    /* XSAVE: by XCR0 */
    W_8W,    /* XMM half of a VEX.L-dependent operand: 8, or 16 with VEX.L */
    W_4W,    /* 4, or 8 with VEX.L */
    W_2W,    /* 2, or 4 with VEX.L */
    W_64,    /* 64: MOVDIR64B */
    W_COUNT
};

struct operand {
    uint8_t kind;  /* enum operand_kind */
    uint8_t width; /* enum operand_width */
    uint8_t reg;   /* K_GPR, K_SREG */
};

/* Facts about an encoding. */
enum op_attr {
    A_SENSITIVE = 1u << 0,   /* never copied: reads or changes state that is virtual */
    A_ENDS_BLOCK = 1u << 1,  /* control does not simply go on behind it */
    A_LOCK = 1u << 2,        /* LOCK allowed with a memory destination */
    A_REP = 1u << 3,         /* F3/F2 repeat it (string instructions) */
    A_READS_FLAGS = 1u << 4, /* any arithmetic flag */
    A_SETS_FLAGS = 1u << 5,  /* writes some arithmetic flags (see flags_set, flags_undef) */
    A_MEM_READ = 1u << 6,    /* reads the ModRM/moffs memory operand */
    A_MEM_WRITE = 1u << 7,   /* writes it; with A_MEM_READ: read-modify-write */
    A_NO_ACCESS = 1u << 8,   /* computes the address only (LEA, NOP Ev, prefetch, ...) */
    A_X87 = 1u << 9,    /* #NM by CR0.EM/TS; #MF pending is checked by all but the no-wait forms */
    A_MMX = 1u << 10,   /* #UD by EM, #NM by TS, then #MF if pending */
    A_SSE = 1u << 11,   /* #UD by EM or CR4.OSFXSR = 0, #NM by TS */
    A_AVX = 1u << 12,   /* #UD unless CR4.OSXSAVE and XCR0 allow, #NM by TS. All rows with `vex`
                           are #UD in real and virtual-8086 mode. */
    A_STACK = 1u << 13, /* implicit stack access: push, pop, call, ret, enter, ... */
    A_IMPLICIT_MEM = 1u << 14, /* other implicit memory access: strings, XLAT, MASKMOV */
    A_PRIV = 1u << 15,         /* #GP unless CPL 0 */
    A_IOPL = 1u << 16,         /* checked against IOPL (and the I/O bitmap for IN and OUT) */
    A_BRANCH = 1u << 17,       /* changes EIP */
    /* Invalid in 64-bit mode. With A_COPY: the same operation has another opcode there (40-4F:
       FE/FF group; 82: 80), and is copied by way of it. */
    A_MODE32 = 1u << 18,
    A_MODE64 = 1u << 19,  /* valid in 64-bit mode only */
    A_ALIGNED = 1u << 20, /* #GP on a memory operand that is not aligned to its size */
    /* Exposes or loads the FPU environment: FSTENV, FSAVE, FXSAVE, XSAVE ... */
    A_FPU_CONTROL = 1u << 21,
    A_COPY = 1u << 22,      /* innocuous: the host may execute it as it stands */
    A_DEFAULT64 = 1u << 23, /* operand size in 64-bit mode is 8, or 2 with 66h (stack) */
    A_FORCE64 = 1u << 24,   /* operand size in 64-bit mode is 8 (near branches, MOV CRn) */
};

/* The mandatory prefix of a row (SDM 2A 3.1.1.1). The last of F2 and F3 counts, and outranks 66. */
enum row_prefix {
    ROW_ANY, /* prefixes do not matter; taken where no row of the opcode asks for the one present */
    ROW_NP,  /* none of 66, F2, F3 */
    ROW_66,
    ROW_F3,
    ROW_F2,
    ROW_NFX, /* neither F2 nor F3; 66 is the operand size */
};

/* How a row uses ModRM. */
enum row_modrm {
    MODRM_NONE,
    MODRM_RM,
    MODRM_REG, /* the rm field is a register whatever mod says (MOV CRn, DRn); insn.mod is 3 then */
};

/* The CPUID feature that brings an encoding (enum feature names are F_x in cpu/features.def). */
enum feature {
    F_BASE,
#define FEATURE(name, leaf, subleaf, reg, bit, help) F_##name,
#include "cpu/features.def"
#undef FEATURE
    F_COUNT
};

struct decode_row {
    uint8_t opcode;
    uint8_t map;    /* 0: one byte, 1: 0F, 2: 0F 38, 3: 0F 3A */
    uint8_t prefix; /* mandatory: enum row_prefix */
    int8_t ext;     /* ModRM reg field /0-/7, or -1 */
    int8_t mod;     /* 0: memory only, 3: register only, -1: any */
    int8_t rm;      /* with mod 3: fixed rm, or -1 */
    bool vex;
    uint16_t op; /* enum op */
    struct operand operand[4];
    uint32_t attr; /* enum op_attr */
    /* Bits of FLAGS_ARITH and DF; undef is part of set. A flag that may also be left alone (shift
       by 0, REP CMPS with a count of 0) is part of read too; decode_flags knows more of one
       instruction. */
    uint16_t flags_set, flags_undef, flags_read;
    uint8_t feature; /* enum feature */
    uint8_t modrm;   /* enum row_modrm */
    int8_t vex_l;    /* VEX.L that the encoding asks for, or -1 */
    int8_t w;        /* VEX.W or REX.W that it asks for, or -1 */
};

enum insn_prefix {
    PREFIX_LOCK = 1u << 0,
    PREFIX_REP = 1u << 1,   /* F3, when it is not part of the opcode */
    PREFIX_REPNE = 1u << 2, /* F2, likewise */
    PREFIX_OPSIZE = 1u << 3,
    PREFIX_ADDRSIZE = 1u << 4,
    PREFIX_SEGMENT = 1u << 5,
    /* F3 was there, in whatever role; likewise F2. Of both only the last is told. */
    PREFIX_F3 = 1u << 6,
    PREFIX_F2 = 1u << 7,
};

enum { NO_REG = 0xFF, INSN_MAX = 15 };

/* A decoded instruction: all facts that its bytes state, none that depend on registers. */
struct insn {
    const struct decode_row *row;
    uint16_t op; /* enum op, as in the row */
    uint8_t len; /* 1-15 */
    uint8_t bytes[INSN_MAX];
    uint8_t mode;        /* 16, 32, 64: what it was decoded as */
    uint8_t opsize;      /* operand size in bytes: 2, 4, 8 */
    uint8_t addrsize;    /* address size in bytes: 2, 4, 8 */
    uint8_t prefixes;    /* enum insn_prefix */
    uint8_t seg;         /* enum seg of the memory operand: the override, or DS, or SS for a base of
                            (e)sp/(e)bp. Strings: the source's. SEG_NONE where there is no memory. */
    uint8_t rex;         /* 64-bit mode only, else 0 */
    uint8_t map, opcode; /* final opcode byte and its map */
    bool vex;
    uint8_t vex_l, vex_w, vex_vvvv, vex_pp; /* vvvv is stored uninverted: a register number */
    bool has_modrm;
    uint8_t modrm, mod, reg, rm; /* reg and rm with REX bits added; rm also for K_Z */
    bool has_sib;
    uint8_t sib;
    /* Memory operand (has_mem): base, index (NO_REG where absent), scale (1, 2, 4, 8) and disp, for
       every address size, moffs included. 16-bit forms such as [bx+si] have base BX and index SI.
       disp is sign-extended from its encoding; moffs are zero-extended. With vsib, index is a
       vector register. */
    bool has_mem;
    bool moffs;
    bool vsib;
    bool rip_relative;
    uint8_t base, index, scale;
    int64_t disp;
    uint8_t disp_size; /* bytes in the encoding: 0, 1, 2, 4, 8 */
    /* 0 where absent. Far pointers: imm is the offset, imm2 the selector; ENTER has two as well. */
    uint8_t imm_size, imm2_size;
    int64_t imm; /* sign-extended from imm_size; K_J: the displacement */
    uint16_t imm2;
    uint8_t modrm_off, imm_off; /* offsets into bytes[], 0 where absent */
    /* Bytes of the memory operand or of a string's element; 0 where only run time tells (XSAVE),
       and for FXSAVE. */
    uint8_t mem_size;
};

enum decode_result {
    DECODE_OK,
    DECODE_UNDEFINED, /* no row: #UD. insn.len is the length up to where that was known */
    DECODE_TRUNCATED, /* `avail` bytes are not enough to tell */
    DECODE_TOO_LONG,  /* more than 15 bytes: #GP(0) */
};

/*
 * Decodes one instruction of a `mode` (16, 32, 64) code segment from `avail` bytes. LOCK on what
 * may not have it is DECODE_UNDEFINED.
 */
enum decode_result decode(struct insn *in, const uint8_t *bytes, unsigned avail, unsigned mode);

/* The name of an op, lower case ("add"). */
const char *decode_op_name(unsigned op);

/* All rows, for the test generator and the lab. */
extern const struct decode_row decode_rows[];
extern const unsigned decode_row_count;

/* Bytes of an operand of this width in this instruction; 0 where only run time tells. */
unsigned decode_width(const struct insn *in, unsigned width);

struct insn_flags {
    uint16_t set, undef, read;
};

/* The flags of the row, made precise by what this instruction's bytes say: immediate shift counts,
   REP. SET holds what is written for certain; READ what can matter to the instruction or go on
   behind it. */
struct insn_flags decode_flags(const struct insn *in);

/*
 * The row that the same bytes have on a CPU without the feature of in->row: BSF for TZCNT, BSR for
 * LZCNT, NOP for hints. NULL: #UD there.
 */
const struct decode_row *decode_plain_row(const struct insn *in);

#endif
