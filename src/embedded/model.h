/*
 * What a bare machine gives, computed from the descriptor tables that this guest made itself: the
 * protection checks of SDM 2A/2B, each in the order of the manual's pseudo-code.
 */
#ifndef EMBEDDED_MODEL_H
#define EMBEDDED_MODEL_H

#include "lib/cpu.h"

/* Descriptors of every kind in both tables, behind those of cpu_init. */
enum specimen {
    /* Code and data of each type (type / 2 of SDM 3A table 3-1) and DPL. */
    SPEC_FIRST = SEL_FREE,
    SPEC_SYSTEM0 = SPEC_FIRST + 8 * 8 * 4, /* system types 0-15, DPL 0 */
    SPEC_SYSTEM3 = SPEC_SYSTEM0 + 8 * 16,  /* system types 0-15, DPL 3 */
    SPEC_ABSENT = SPEC_SYSTEM3 + 8 * 16,   /* not present: data and code of DPL 0 and 3 */
    SPEC_GATES = SPEC_ABSENT + 8 * 4,      /* call gates: tables_init lists them */
    SPEC_SHORT = SPEC_GATES + 8 * 16,      /* code of DPL 3 that ends before any offset used */
    SPEC_DATA3 = SPEC_SHORT + 8,           /* data of DPL 3 at `based_data` */
    SPEC_END = SPEC_DATA3 + 8,
};
#define SPEC_TYPE(type, dpl) (SPEC_FIRST + 8 * ((type) / 2 * 4 + (dpl)))

/* Specimens of code segments are based here, so that a 16-bit offset can reach `landing`. */
#define LANDING_OFFSET 0x40

extern const char landing[];
extern const uint32_t based_data[4];

void tables_init(void);
/* Every selector worth trying, RPLs included: selector_at(0), ... selector_at(selector_count() -
 * 1). */
unsigned selector_count(void);
uint16_t selector_at(unsigned i);

/* The descriptor, or NULL for a null selector and for one past its table's limit. */
struct descriptor *model_descriptor(uint16_t selector);

static inline unsigned desc_type(const struct descriptor *d)
{
    return d->high >> 8 & 15;
}

static inline bool desc_s(const struct descriptor *d)
{
    return d->high >> 12 & 1;
}

static inline unsigned desc_dpl(const struct descriptor *d)
{
    return d->high >> 13 & 3;
}

static inline bool desc_present(const struct descriptor *d)
{
    return d->high >> 15 & 1;
}

static inline uint32_t desc_base(const struct descriptor *d)
{
    return d->low >> 16 | (d->high & 0xFF) << 16 | (d->high & 0xFF000000);
}

uint32_t desc_limit(const struct descriptor *d);

bool model_lar(unsigned cpl, uint16_t selector, uint32_t *rights);
bool model_lsl(unsigned cpl, uint16_t selector, uint32_t *limit);
bool model_verr(unsigned cpl, uint16_t selector);
bool model_verw(unsigned cpl, uint16_t selector);

/* VEC_END where the instruction simply goes on. */
struct outcome {
    unsigned vector;
    uint32_t error;
};

struct outcome model_load(unsigned cpl, bool stack, uint16_t selector);

/* Where a far transfer leads. */
struct far_target {
    bool task;           /* a task switch: not looked at here */
    bool inner;          /* a call gate to an inner ring: the stack is switched */
    unsigned gate_width; /* 2 or 4 through a call gate, else 0 */
    unsigned gate_count; /* parameters */
    unsigned cpl;
    uint16_t cs;
    uint32_t eip;
    const struct descriptor *code;
};

struct outcome model_far(unsigned cpl, bool call, uint16_t selector, uint32_t offset,
                         struct far_target *to);
/* RET and IRET to cs:eip, with ss of the outer stack. */
struct outcome model_return(unsigned cpl, uint16_t cs, uint32_t eip, uint16_t ss);

#endif
