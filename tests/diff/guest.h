/*
 * The engine's side: a guest without a system, set up directly in the vCPU. Its page tables map the
 * regions of layout.h, its GDT is Linux's (so that selectors mean the same as natively), and each
 * gate of its IDT leads to a HLT of its own at CPL 0, so that any exception ends dbt_run and tells
 * its vector.
 */
#ifndef DIFF_GUEST_H
#define DIFF_GUEST_H

#include "cpu/cpuid.h"
#include "dbt/dbt.h"
#include "memory.h"
#include "outcome.h"

/* In which mode the guest runs what natively runs at CPL 3. */
enum variant {
    VARIANT_USER,   /* CPL 3, pages with U = 1 */
    VARIANT_SUPER,  /* CPL 1, pages with U = 0 */
    VARIANT_KERNEL, /* CPL 0: the end marker is HLT, exceptions push onto the case's own stack */
    VARIANT_MIXED,  /* CPL 1, code with U = 0, data with U = 1 */
    VARIANT_PAE,    /* CPL 3, PAE paging with NX */
    VARIANT_COUNT
};

struct guest {
    struct mmu *mmu;
    struct dbt *dbt;
    struct vcpu *v;
    const struct cpu_model *model; /* borrowed */
    const struct memory *memory;   /* borrowed */
    enum variant variant;
    bool has_based;
};

extern const char *const guest_variant_names[VARIANT_COUNT];

bool guest_init(struct guest *g, const struct cpu_model *model, const struct memory *memory,
                const struct dbt_options *options);
void guest_fini(struct guest *g);
void guest_set_variant(struct guest *g, enum variant variant);
/* Puts the golden contents back into these pages. */
void guest_restore(struct guest *g, uint32_t dirty);
/* `gva` must lie in a region. */
void guest_write(struct guest *g, uint32_t gva, const void *from, uint32_t size);
const uint8_t *guest_at(const struct guest *g, uint32_t gpa);
/* Maps one more page, in the tables of all variants that it suits: user pages for CPL 3. */
void guest_map(struct guest *g, uint32_t gva, uint32_t gpa);
/* False if the engine stopped for another reason than a HLT where one stands. */
bool guest_run(struct guest *g, const struct cpu_state *from, struct outcome *out);
/* The selectors at CPL 1 are others than natively: the native one for what the guest shows. */
uint16_t guest_native_selector(const struct guest *g, uint16_t selector);

#endif
