/*
 * Pushes and pops of several values. The usual case, a frame that does not wrap round the end of
 * the stack segment, is one limit check and one memory access; a frame that wraps is probed value
 * by value first, so that nothing is written if any of it faults.
 */
#include "cpu/stack.h"

#include <string.h>

#include "cpu/segment.h"

struct stack stack_current(const struct vcpu *v)
{
    return (struct stack){
        .ss = v->seg[SEG_SS],
        .esp = vcpu_reg32(v, REG_SP),
        .user = v->cpl == 3,
        .align = segment_checks_alignment(v),
    };
}

static uint32_t address_mask(const struct stack *st)
{
    return st->ss.attr & ATTR_DB ? 0xFFFFFFFF : 0xFFFF;
}

uint32_t stack_offset(const struct stack *st, int32_t bytes)
{
    return (st->esp + (uint32_t)bytes) & address_mask(st);
}

void stack_drop(struct stack *st, uint32_t bytes)
{
    uint32_t mask = address_mask(st);
    st->esp = (st->esp & ~mask) | ((st->esp + bytes) & mask);
}

static int overflow(struct vcpu *v, const struct stack *st)
{
    return vcpu_raise_error(v, VEC_SS, st->error);
}

/* Whether `bytes` from offset `low` upwards are one piece under the address size. */
static bool contiguous(const struct stack *st, uint32_t low, uint32_t bytes)
{
    return bytes - 1 <= address_mask(st) - low;
}

/* The limit check of `count` values from offset `low` upwards. */
static int check(struct vcpu *v, const struct stack *st, uint32_t low, unsigned count,
                 unsigned size)
{
    uint32_t mask = address_mask(st);
    if (!(st->ss.attr & ATTR_P))
        return overflow(v, st);
    if (contiguous(st, low, count * size))
        return segment_within(&st->ss, low, count * size) ? 0 : overflow(v, st);
    for (unsigned i = 0; i < count; i++) {
        if (!segment_within(&st->ss, (low + i * size) & mask, size))
            return overflow(v, st);
    }
    return 0;
}

static int check_alignment(struct vcpu *v, const struct stack *st, uint32_t low, unsigned size)
{
    if (st->align && ((st->ss.base + low) & (size - 1)))
        return vcpu_raise_error(v, VEC_AC, 0);
    return 0;
}

int stack_room(struct vcpu *v, const struct stack *st, unsigned count, unsigned size)
{
    return check(v, st, stack_offset(st, -(int32_t)(count * size)), count, size);
}

int stack_push(struct vcpu *v, struct stack *st, const uint32_t *values, unsigned count,
               unsigned size)
{
    uint32_t mask = address_mask(st), low = stack_offset(st, -(int32_t)(count * size));
    uint8_t frame[4 * STACK_MAX];
    for (unsigned i = 0; i < count; i++) {
        uint32_t value = values[count - 1 - i];
        for (unsigned b = 0; b < size; b++)
            frame[i * size + b] = (uint8_t)(value >> 8 * b);
    }
    if (check(v, st, low, count, size) || check_alignment(v, st, low, size))
        return FAULT;
    /* In the order of the pushes, so that the first that faults gives CR2. */
    for (unsigned i = count; i-- > 0;) {
        uint32_t gva = st->ss.base + ((low + i * size) & mask);
        if (v->mem->probe_write(v, gva, size, st->user))
            return FAULT;
    }
    if (contiguous(st, low, count * size)) {
        if (v->mem->write(v, st->ss.base + low, frame, count * size, st->user))
            return FAULT;
    } else {
        for (unsigned i = 0; i < count; i++) {
            uint32_t gva = st->ss.base + ((low + i * size) & mask);
            if (v->mem->write(v, gva, frame + i * size, size, st->user))
                return FAULT;
        }
    }
    stack_drop(st, 0 - count * size);
    return 0;
}

int stack_pop(struct vcpu *v, struct stack *st, uint32_t *values, unsigned count, unsigned size)
{
    uint32_t mask = address_mask(st), low = stack_offset(st, 0);
    uint8_t frame[4 * STACK_MAX];
    if (count == 0)
        return 0;
    if (check(v, st, low, count, size) || check_alignment(v, st, low, size))
        return FAULT;
    if (contiguous(st, low, count * size)) {
        if (v->mem->read(v, st->ss.base + low, frame, count * size, st->user))
            return FAULT;
    } else {
        for (unsigned i = 0; i < count; i++) {
            uint32_t gva = st->ss.base + ((low + i * size) & mask);
            if (v->mem->read(v, gva, frame + i * size, size, st->user))
                return FAULT;
        }
    }
    for (unsigned i = 0; i < count; i++) {
        values[i] = 0;
        memcpy(&values[i], frame + i * size, size);
    }
    stack_drop(st, count * size);
    return 0;
}
