/*
 * A stack that is not yet, or still is, SS:ESP: far transfers and the delivery of events push to
 * and pop from it and put it into the vCPU when nothing can fault any more. ESP moves under the
 * stack's address size (SS.B); what is not under it stays.
 */
#ifndef CPU_STACK_H
#define CPU_STACK_H

#include "cpu/state.h"

enum { STACK_MAX = 40 };

struct stack {
    struct segment ss;
    uint32_t esp;
    bool user;      /* accesses are made with user rights */
    bool align;     /* misaligned ones get #AC */
    uint32_t error; /* error code of #SS when the limit is passed */
};

/* SS:ESP with the CPL's rights. */
struct stack stack_current(const struct vcpu *v);
/*
 * Pushes `count` (at most STACK_MAX) values of `size` bytes (2 or 4), values[0] first. All of it is
 * checked before anything is written.
 */
int stack_push(struct vcpu *v, struct stack *st, const uint32_t *values, unsigned count,
               unsigned size);
/* What the pushes would find wrong with the limit, only. */
int stack_room(struct vcpu *v, const struct stack *st, unsigned count, unsigned size);
/* The offset `bytes` above (or, negative, below) the top. */
uint32_t stack_offset(const struct stack *st, int32_t bytes);
/* Reads `count` (at most STACK_MAX) values of `size` bytes from the top upwards, and moves ESP
 * behind them. */
int stack_pop(struct vcpu *v, struct stack *st, uint32_t *values, unsigned count, unsigned size);
/* Moves ESP by `bytes`, up. */
void stack_drop(struct stack *st, uint32_t bytes);

#endif
