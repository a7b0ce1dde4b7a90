/*
 * One case: up to eight instructions in a slot of the code region, the state and memory they start
 * from, and how they end natively. A case is a function of (seed, index).
 *
 * It is made step by step: each instruction is chosen with the state known that the ones before it
 * left natively, so that later ones can be given operands that exist. Branches may lead elsewhere
 * in the slot, where the case then goes on.
 */
#ifndef DIFF_TESTCASE_H
#define DIFF_TESTCASE_H

#include "cpu/decode.h"
#include "guest.h"
#include "memory.h"
#include "native.h"
#include "rng.h"

enum {
    SLOT_SIZE = 1024,
    SLOT_START = 256, /* where the first instruction stands */
    STEPS_MAX = 8,
    POKES_MAX = 6,
    POKE_SIZE = 512,
    IGNORES_MAX = 12,
};

struct poke {
    uint32_t gva, len;
    uint8_t bytes[POKE_SIZE];
};

struct range {
    uint32_t gva, len;
};

struct step {
    struct insn in;
    uint32_t eip;
    struct cpu_state before; /* natively */
    uint32_t undef;          /* flags that are undefined after it */
};

struct testcase {
    uint64_t index;
    enum variant variant;
    uint32_t slot, slot_size;
    uint8_t code[SLOT_SIZE];
    bool used[SLOT_SIZE];
    unsigned steps;
    struct step step[STEPS_MAX];
    struct cpu_state start;
    unsigned pokes;
    struct poke poke[POKES_MAX];
    unsigned ignores; /* memory that is not compared: FPU instruction and data pointers */
    struct range ignore[IGNORES_MAX];
    struct outcome native;
};

/* Where the program's parts meet to make cases. */
struct maker {
    const struct native *native;   /* borrowed */
    const struct memory *memory;   /* borrowed */
    const struct cpu_model *model; /* borrowed */
    uint64_t seed;
    const struct decode_row **first; /* rows that first instructions are taken from, in turn */
    unsigned first_count;
    const struct decode_row **rows; /* rows of the others */
    unsigned row_count;
    bool twice;       /* run each step natively twice */
    uint64_t unequal; /* steps whose two runs differed */
};

/*
 * Makes case `index`; native memory has to hold the golden contents, and holds the case's results
 * afterwards. False if the index gives no case that both sides could be compared on.
 */
bool testcase_make(struct maker *m, uint64_t index, struct testcase *c);
/* The variant of a case: the same for runs of neighbouring indices, since a switch is slow. */
enum variant testcase_variant(uint64_t index);
/* Writes the case as text: bytes, disassembly, state. */
void testcase_print(const struct testcase *c);

#endif
