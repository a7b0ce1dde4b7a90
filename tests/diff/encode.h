/*
 * Random encodings of a decode row: prefixes, ModRM, SIB, displacement and immediates of every kind
 * that the row allows. The bytes are given to the decoder, and count only if it finds the same row
 * again; what an operand points to is settled afterwards (operands.h), by way of registers or of
 * encode_set_disp.
 */
#ifndef DIFF_ENCODE_H
#define DIFF_ENCODE_H

#include "cpu/decode.h"
#include "rng.h"

struct encode_wish {
    bool pinned; /* memory operands get a 32-bit displacement, for registers that are given */
    bool flat;   /* no address-size prefix and no FS or GS, which need registers or regions of their
                    own */
};

/* False if no try gave the row. */
bool encode_random(struct rng *rng, const struct decode_row *row, const struct encode_wish *wish,
                   struct insn *in);
/* Puts another displacement, immediate or moffs into the bytes. */
void encode_set_disp(struct insn *in, uint32_t disp);
void encode_set_imm(struct insn *in, uint32_t imm);
void encode_set_imm2(struct insn *in, uint16_t imm);

#endif
