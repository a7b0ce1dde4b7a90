/*
 * The selectors that cpu_init puts into the GDT, for C and assembly. Ring r has code at 08h + 10h*r
 * and data behind it, both flat; what a guest adds begins at SEL_FREE.
 */
#ifndef GUEST_SELECTORS_H
#define GUEST_SELECTORS_H

#define SEL_KCODE 0x08
#define SEL_KDATA 0x10
#define SEL_UCODE 0x3B
#define SEL_UDATA 0x43
#define SEL_TSS   0x48
#define SEL_LDT   0x50
#define SEL_FREE  0x58

#define SEL_CODE(ring) (0x08 + 0x10 * (ring) + (ring))
#define SEL_DATA(ring) (0x10 + 0x10 * (ring) + (ring))

/* The vector that ends a cpu_run, open to every ring. */
#define VECTOR_END 0x30

#endif
