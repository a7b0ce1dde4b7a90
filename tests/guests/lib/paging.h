/*
 * 32-bit paging for the guests: the first 16 MiB are mapped to themselves, for the kernel only, but
 * what CODE and USER_DATA made and the stack of ring 3; everything above is free for tests.
 */
#ifndef GUEST_PAGING_H
#define GUEST_PAGING_H

#include "cpu.h"

enum page_bits {
    PAGE_P = 1 << 0,
    PAGE_W = 1 << 1,
    PAGE_U = 1 << 2,
    PAGE_A = 1 << 5,
    PAGE_D = 1 << 6,
    PAGE_PS = 1 << 7,
    PAGE_G = 1 << 8,
    PAGE_RW = PAGE_P | PAGE_W,
    PAGE_URW = PAGE_P | PAGE_W | PAGE_U,
    PAGE_UR = PAGE_P | PAGE_U,
};

enum pf_error { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16 };

/* Makes the tables and turns paging on, with CR0.WP set. */
void paging_init(void);
extern uint32_t paging_directory[1024];
/* The PTE of a linear address, its table made if need be (all rights in the PDE). */
uint32_t *paging_pte(uint32_t address);
/* Sets the PTE and does INVLPG. */
void paging_map(uint32_t address, const volatile void *frame, unsigned bits);
/* A zeroed page for tables. */
uint32_t *paging_table(void);

#endif
