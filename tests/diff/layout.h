/*
 * The linear addresses that both sides have: the test process maps them below 4 GiB for the native
 * run, and the guest's page tables map the same ones. What is not listed is unmapped on both sides,
 * so that every region ends at a page that faults.
 *
 *     LOW      what 16-bit addresses without a base reach; left out where the host refuses it
 *     CODE     the slots where cases stand; read-only and executable
 *     LANDING  filled with the end marker: where indirect jumps go
 *     DATA, RO, STACK, HIGH    operands
 *     BASED    64 KiB with holes, also reached through GS with that base
 *
 * The guest has four more pages at KERNEL (descriptor tables, stubs, stack) that the native side
 * lacks. All changes to memory, by either side, are undone after each case, so that a case always
 * starts from the same contents.
 */
#ifndef DIFF_LAYOUT_H
#define DIFF_LAYOUT_H

#include "base/base.h"

enum region_id {
    REGION_LOW,
    REGION_LOW_CODE,
    REGION_LOW_TOP,
    REGION_CODE,
    REGION_LANDING,
    REGION_DATA,
    REGION_DATA1,
    REGION_RO,
    REGION_DATA2,
    REGION_BASED,
    REGION_BASED_TOP,
    REGION_STACK,
    REGION_HIGH,
    REGION_COUNT
};

enum region_rights { REGION_W = 1, REGION_X = 2 };

struct region {
    uint32_t gva;
    uint32_t size;
    unsigned rights;
    uint32_t gpa; /* in the guest */
};

enum {
    CODE_SIZE = 0x100000,
    GUEST_REGIONS_GPA = 0x100000, /* the first region's guest-physical address */
    GUEST_RAM = 0x400000,
};
#define CODE_GVA    0x20000000u
#define LANDING_GVA 0x28000000u
#define BASED_GVA   0x50000000u
#define KERNEL_GVA  0xE0000000u
#define KERNEL_SIZE 0x4000u

/* The byte that ends a run: INT3. At CPL 0 the guest has HLT in its place. */
enum { END_MARKER = 0xCC };

extern const struct region layout_regions[REGION_COUNT];

/* The region that holds all of [gva, gva + size), or NULL. */
const struct region *layout_find(uint32_t gva, uint32_t size);

#endif
