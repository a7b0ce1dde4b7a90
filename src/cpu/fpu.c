/*
 * Parking the guest's FPU state (fpu.h). The area is in XSAVE's standard format where the host has
 * XSAVE, with the components of model->host_xsave; elsewhere it is FXSAVE's. The parts that both
 * have (the first 512 bytes) are the same.
 *
 * The header behind them is only ever written by XSAVE and by fpu_reset, so its reserved bytes stay
 * 0, as XRSTOR demands.
 */
#include "cpu/fpu.h"

#include <string.h>

#include "cpu/cpuid.h"

enum { XSAVE_HEADER = 512, MXCSR_RESET = 0x1F80 };

static uint32_t components(const struct vcpu *v)
{
    return (uint32_t)v->model->host_xsave & (XCR0_X87 | XCR0_SSE | XCR0_AVX);
}

void fpu_park(struct vcpu *v)
{
    static const uint32_t mxcsr = MXCSR_RESET;
    uint32_t mask = components(v);

    if (v->fpu_parked)
        return;
    if (mask)
        __asm__ volatile("xsave64 %0" : "+m"(v->fpu_area) : "a"(mask), "d"(0) : "memory");
    else
        __asm__ volatile("fxsave64 %0" : "+m"(v->fpu_area) : : "memory");
    __asm__ volatile("fninit; ldmxcsr %0" : : "m"(mxcsr));
    if (mask & XCR0_AVX)
        __asm__ volatile("vzeroupper");
    v->fpu_parked = true;
}

void fpu_unpark(struct vcpu *v)
{
    uint32_t mask = components(v);

    if (!v->fpu_parked)
        return;
    if (mask)
        __asm__ volatile("xrstor64 %0" : : "m"(v->fpu_area), "a"(mask), "d"(0) : "memory");
    else
        __asm__ volatile("fxrstor64 %0" : : "m"(v->fpu_area) : "memory");
    v->fpu_parked = false;
}

/*
 * SDM 3A table 9-1: FCW 0040h, FSW 0, FTW 5555h (all registers hold +0.0: none is empty, which the
 * abridged tag word writes as FFh), XMM 0, MXCSR 1F80h.
 */
void fpu_reset(struct vcpu *v)
{
    uint16_t fcw = 0x0040;
    uint32_t mxcsr = MXCSR_RESET;
    uint64_t xstate_bv = XCR0_X87 | XCR0_SSE;

    memset(v->fpu_area, 0, sizeof v->fpu_area);
    memcpy(v->fpu_area, &fcw, sizeof fcw);
    v->fpu_area[4] = 0xFF;
    memcpy(v->fpu_area + 24, &mxcsr, sizeof mxcsr);
    memcpy(v->fpu_area + XSAVE_HEADER, &xstate_bv, sizeof xstate_bv);
    v->fpu_parked = true;
}
