/*
 * Values that find mistakes: boundaries of widths, signs, few bits set, and floating-point numbers
 * of every class.
 */
#ifndef DIFF_VALUES_H
#define DIFF_VALUES_H

#include "outcome.h"
#include "rng.h"

uint32_t values_u32(struct rng *r);
uint32_t values_f32(struct rng *r);
uint64_t values_f64(struct rng *r);
void values_f80(struct rng *r, uint8_t to[10]);
/* Fills memory with a mixture of all of them. */
void values_fill(struct rng *r, uint8_t *to, uint32_t size);
/* A whole state but EIP, ESP and segments. */
void values_state(struct rng *r, struct cpu_state *s, bool avx);
/* An FXSAVE image (512 bytes), a 28-byte FNSTENV or 108-byte FNSAVE image with valid control bits.
 */
void values_fxsave(struct rng *r, uint8_t to[512]);
void values_fsave(struct rng *r, uint8_t to[108]);
uint32_t values_mxcsr(struct rng *r);

#endif
