/*
 * The table of regions: see layout.h. Guest-physical addresses go up in the order of the table.
 */
#include "layout.h"

#define GPA(n) (GUEST_REGIONS_GPA + 0x1000u * (n))

const struct region layout_regions[REGION_COUNT] = {
    [REGION_LOW] = {0x1000, 0x2000, REGION_W, GPA(0)},
    [REGION_LOW_CODE] = {0x8000, 0x1000, REGION_X, GPA(2)},
    [REGION_LOW_TOP] = {0xF000, 0x1000, REGION_W, GPA(3)},
    [REGION_DATA] = {0x30000000, 0x2000, REGION_W, GPA(4)},
    [REGION_DATA1] = {0x30003000, 0x1000, REGION_W, GPA(6)},
    [REGION_RO] = {0x30004000, 0x1000, 0, GPA(7)},
    [REGION_DATA2] = {0x30006000, 0x2000, REGION_W, GPA(8)},
    [REGION_BASED] = {BASED_GVA, 0x2000, REGION_W, GPA(10)},
    [REGION_BASED_TOP] = {BASED_GVA + 0xF000, 0x1000, REGION_W, GPA(12)},
    [REGION_STACK] = {0xBFFF0000, 0x4000, REGION_W, GPA(13)},
    [REGION_HIGH] = {0xFFFFC000, 0x2000, REGION_W, GPA(17)},
    [REGION_LANDING] = {LANDING_GVA, 0x10000, REGION_X, GPA(19)},
    [REGION_CODE] = {CODE_GVA, CODE_SIZE, REGION_X, GPA(35)},
};

const struct region *layout_find(uint32_t gva, uint32_t size)
{
    for (unsigned i = 0; i < REGION_COUNT; i++) {
        const struct region *r = &layout_regions[i];
        if (gva - r->gva < r->size && size <= r->size - (gva - r->gva))
            return r;
    }
    return NULL;
}
