/*
 * What a loader (bzImage, multiboot, ELF) gets to work with, and what it gives the machine: a
 * function that puts the image into guest memory and the CPU into its boot state. It is called when
 * the machine is created and again at every reset. RAM keeps its contents over a reset, as on a PC,
 * so a loader writes all that it relies on (zeroed bss included). The ACPI tables are in place, and
 * the vCPU is in the state after RESET, when it is called.
 */
#ifndef MACHINE_BOOT_H
#define MACHINE_BOOT_H

#include "base/err.h"
#include "cpu/state.h"
#include "mmu/mmu.h"

/* Types of the BIOS's INT 15h/E820h, as Linux and multiboot take them. */
enum e820_type { E820_RAM = 1, E820_RESERVED = 2, E820_ACPI = 3, E820_NVS = 4 };

struct e820_entry {
    uint64_t base, size;
    uint32_t type; /* enum e820_type */
};

enum { E820_MAX = 8 };

struct boot_target {
    struct mmu *mmu;                  /* borrowed; mmu_load writes an image */
    struct vcpu *vcpu;                /* borrowed */
    struct e820_entry e820[E820_MAX]; /* by address, without overlaps */
    unsigned e820_count;
    uint32_t rsdp;    /* guest-physical address of the ACPI root pointer (20 bytes, revision 0) */
    uint64_t ram_top; /* end of RAM above 1 MiB: what the loader may use ends here */
};

struct boot_image {
    /* Returns 0, or a negative errno with a sentence in `err`. */
    int (*load)(void *opaque, const struct boot_target *target, struct err *err);
    void *opaque; /* borrowed */
};

#endif
