/*
 * AVX instructions whose mask decides which elements are accessed, an element at a time: VGATHER,
 * VPGATHER, VMASKMOV and VPMASKMOV (SDM 2C). For operands that translated code does not reach:
 * segments that are not flat, both windows, I/O memory. The guest's registers are taken from the
 * parked FPU area (XSAVE's standard format: the low halves among FXSAVE's, the high ones at 576).
 *
 * A gather that faults leaves what was gathered so far and its mask elements cleared, as the manual
 * allows.
 */
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/fpu.h"
#include "cpu/op.h"

enum { XMM_AREA = 160, XSAVE_HEADER = 512, YMM_AREA = 576 };

static uint8_t *element(struct vcpu *v, unsigned reg, unsigned offset)
{
    return v->fpu_area +
           (offset < 16 ? XMM_AREA + 16 * reg + offset : YMM_AREA + 16 * reg + offset - 16);
}

static uint32_t element_offset(struct vcpu *v, const struct insn *in, unsigned index_size,
                               unsigned i)
{
    int64_t index = 0;

    memcpy(&index, element(v, in->index, i * index_size), index_size);
    uint32_t offset = (uint32_t)(sign_extend((uint64_t)index, index_size) * in->scale + in->disp);
    return in->base == NO_REG ? offset : offset + vcpu_reg32(v, in->base);
}

static void clear_from(struct vcpu *v, unsigned reg, unsigned offset)
{
    for (; offset < 32; offset++)
        *element(v, reg, offset) = 0;
}

static int check_avx(struct vcpu *v)
{
    if (vcpu_real_segments(v) || !(v->cr4 & CR4_OSXSAVE) || !(v->xcr0 & XCR0_AVX))
        return vcpu_raise(v, VEC_UD);
    if (v->cr0 & CR0_TS)
        return vcpu_raise(v, VEC_NM);
    fpu_park(v);
    v->fpu_area[XSAVE_HEADER] |= XCR0_X87 | XCR0_SSE | XCR0_AVX;
    return 0;
}

static bool element_is_set(struct vcpu *v, unsigned mask, unsigned i, unsigned size)
{
    return *element(v, mask, i * size + size - 1) & 0x80;
}

/* The first thing a gather does: each mask element becomes its sign bit, what is above them 0. */
static void extend_mask(struct vcpu *v, unsigned mask, unsigned count, unsigned size)
{
    for (unsigned i = 0; i < count; i++)
        memset(element(v, mask, i * size), element_is_set(v, mask, i, size) ? 0xFF : 0, size);
    clear_from(v, mask, count * size);
}

int op_avx_gather(struct vcpu *v, const struct insn *in)
{
    unsigned size = in->vex_w ? 8 : 4, index_size = in->opcode & 1 ? 8 : 4;
    unsigned dest = in->reg & 7, mask = in->vex_vvvv & 7, count;
    uint8_t value[8];

    if (in->addrsize != 4 || dest == mask || dest == in->index || mask == in->index)
        return vcpu_raise(v, VEC_UD);
    if (check_avx(v) == FAULT)
        return FAULT;
    count = (in->vex_l ? 32 : 16) / max_u32(size, index_size);
    extend_mask(v, mask, (in->vex_l ? 32 : 16) / size, size);
    clear_from(v, dest, in->vex_l ? 32 : 16);
    for (unsigned i = 0; i < count; i++) {
        if (element_is_set(v, mask, i, size)) {
            uint32_t offset = element_offset(v, in, index_size, i);
            if (segment_read(v, in->seg, offset, value, size) == FAULT)
                return FAULT;
            memcpy(element(v, dest, i * size), value, size);
        }
        memset(element(v, mask, i * size), 0, size);
    }
    clear_from(v, mask, 0);
    clear_from(v, dest, count * size);
    return op_done(v, in);
}

/* Elements of 8 bytes: VMASKMOVPD (2D, 2F), VPMASKMOVQ (8C, 8E with W). */
static unsigned masked_size(const struct insn *in)
{
    return in->opcode < 0x80 ? (in->opcode & 1 ? 8 : 4) : in->vex_w ? 8 : 4;
}

static int load_masked(struct vcpu *v, const struct insn *in, unsigned size)
{
    unsigned bytes = in->vex_l ? 32 : 16, dest = in->reg & 7;
    uint32_t ea = emulate_ea(v, in);
    uint8_t values[32] = {0};

    for (unsigned i = 0; i < bytes / size; i++) {
        if (element_is_set(v, in->vex_vvvv & 7, i, size) &&
            segment_read(v, in->seg, ea + i * size, values + i * size, size) == FAULT)
            return FAULT;
    }
    for (unsigned i = 0; i < 32; i += size)
        memcpy(element(v, dest, i), values + i, size);
    return op_done(v, in);
}

static int store_masked(struct vcpu *v, const struct insn *in, unsigned size)
{
    unsigned count = (in->vex_l ? 32 : 16) / size, mask = in->vex_vvvv & 7;
    uint32_t ea = emulate_ea(v, in), gva;

    for (unsigned i = 0; i < count; i++) {
        if (element_is_set(v, mask, i, size) &&
            op_probe_write(v, in->seg, ea + i * size, size, &gva) == FAULT)
            return FAULT;
    }
    for (unsigned i = 0; i < count; i++) {
        if (element_is_set(v, mask, i, size) &&
            segment_write(v, in->seg, ea + i * size, element(v, in->reg & 7, i * size), size) ==
                FAULT)
            return FAULT;
    }
    return op_done(v, in);
}

int op_avx_maskmov(struct vcpu *v, const struct insn *in)
{
    bool store = in->opcode == 0x2E || in->opcode == 0x2F || in->opcode == 0x8E;

    if (check_avx(v) == FAULT)
        return FAULT;
    return store ? store_masked(v, in, masked_size(in)) : load_masked(v, in, masked_size(in));
}
