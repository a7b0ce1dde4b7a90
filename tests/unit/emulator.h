/*
 * Runs single instructions, given as bytes, through decode and emulate in the small world of
 * protmode.h, with the default CPU model and ports that remember what was done to them.
 */
#ifndef TESTS_UNIT_EMULATOR_H
#define TESTS_UNIT_EMULATOR_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cpu/cpuid.h"
#include "cpu/emulate.h"
#include "cpu/fpu.h"
#include "protmode.h"

struct ports {
    unsigned reads, writes, size;
    uint16_t port;
    uint32_t value; /* last written; reads give it plus the number of reads before */
    bool parked;    /* every call came with the FPU parked */
    struct vcpu *v;
};

struct emulator {
    struct world w;
    struct cpu_model model;
    struct ports ports;
};

static uint32_t emulator_io_read(void *opaque, uint16_t port, unsigned size)
{
    struct ports *p = opaque;
    p->port = port;
    p->size = size;
    p->parked &= p->v->fpu_parked;
    return p->value + p->reads++;
}

static void emulator_io_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct ports *p = opaque;
    p->port = port;
    p->size = size;
    p->value = value;
    p->parked &= p->v->fpu_parked;
    p->writes++;
}

static const struct vcpu_ops emulator_ops = {
    .io_read = emulator_io_read,
    .io_write = emulator_io_write,
};

static int emulator_setup(void **state)
{
    struct emulator *e = aligned_alloc(64, (sizeof *e + 63) / 64 * 64);
    if (!e)
        return -1;
    memset(e, 0, sizeof *e);
    cpuid_init(&e->model);
    *state = e;
    return 0;
}

static int emulator_teardown(void **state)
{
    free(*state);
    return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, emulator_setup, emulator_teardown)

static inline void emulator_connect(struct emulator *e)
{
    e->ports = (struct ports){.parked = true, .v = &e->w.v};
    e->w.v.model = &e->model;
    e->w.v.ops = &emulator_ops;
    e->w.v.ops_opaque = &e->ports;
    fpu_reset(&e->w.v);
}

static inline struct vcpu *emulator_protected(struct emulator *e, unsigned cpl)
{
    protmode_init(&e->w.m, &e->w.v, cpl);
    emulator_connect(e);
    return &e->w.v;
}

static inline struct vcpu *emulator_v86(struct emulator *e, unsigned iopl)
{
    protmode_v86(&e->w.m, &e->w.v, iopl);
    emulator_connect(e);
    return &e->w.v;
}

static inline struct vcpu *emulator_real(struct emulator *e)
{
    protmode_real(&e->w.m, &e->w.v);
    emulator_connect(e);
    return &e->w.v;
}

/* Executes the instruction; the FPU is parked before and after. */
static inline int emulator_bytes(struct emulator *e, const uint8_t *bytes, unsigned size)
{
    struct vcpu *v = &e->w.v;
    struct insn in;
    unsigned mode = v->seg[SEG_CS].attr & ATTR_DB ? 32 : 16;

    if (decode(&in, bytes, size, mode) != DECODE_OK)
        fail_msg("%02x %02x is not decoded", bytes[0], bytes[1]);
    e->w.before = *v;
    v->exc = (struct exception){.vector = 0xFF};
    int r = emulate(v, &in);
    fpu_park(v);
    return r;
}

#define RUN(e, ...)                                                                                \
    emulator_bytes(e, (const uint8_t[]){__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 15)

/* The instruction is executed and moves EIP by `length`. */
#define RUN_OK(e, length, ...)                                                                     \
    do {                                                                                           \
        assert_int_equal(RUN(e, __VA_ARGS__), 0);                                                  \
        assert_int_equal((e)->w.v.rip, (e)->w.before.rip + (length));                              \
    } while (0)

/* It faults with this vector and error code (-1: none), and changes nothing. */
#define RUN_FAULTS(e, exception, code, ...)                                                        \
    do {                                                                                           \
        assert_int_equal(RUN(e, __VA_ARGS__), FAULT);                                              \
        assert_int_equal((e)->w.v.exc.vector, exception);                                          \
        assert_int_equal((e)->w.v.exc.has_error ? (int)(e)->w.v.exc.error : -1, code);             \
        assert_true(protmode_same_state(&(e)->w.v, &(e)->w.before));                               \
    } while (0)

#endif
