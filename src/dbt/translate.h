/*
 * One block being translated. A template (tr_*) turns one guest instruction into host code and
 * obeys:
 *
 *  - It commits guest state only behind its last host instruction that can fault; each of those is
 *    announced by tr_site just before it is emitted.
 *  - Flags, DF and the FPU are the guest's throughout: templates use flag-free instructions only.
 *  - Guest ESP is r12 + pend; tr_commit_esp makes pend 0. Blocks and callouts begin with pend = 0.
 *  - r8-r11 are scratch: r8 address, r9 segment base or saved register, r10 value, r11 link or
 *    count.
 */
#ifndef DBT_TRANSLATE_H
#define DBT_TRANSLATE_H

#include "dbt/emit.h"
#include "dbt/engine.h"

enum { TR_MAX_SITES = 6 * BLOCK_MAX_INSNS, TR_MAX_EXITS = 16 };

struct tr {
    struct dbt *d;
    struct emit e;
    struct insn in;
    struct block *block;
    uint32_t key;
    uint32_t eip, next;      /* of the current instruction, and behind it */
    int32_t pend;            /* guest ESP = r12 + pend, now */
    int32_t start_esp;       /* guest ESP at the start of the instruction = r12 + start_esp */
    struct callout *callout; /* of the current instruction, or NULL */
    uint8_t user, mixed;     /* what the instruction's accesses have learned: bit n for operand n */
    bool ended;              /* the block ends with this instruction */
    bool last_in_page;       /* the next instruction is, or may reach, in another block's page */
    bool shadow, in_shadow;  /* nothing may come behind this instruction; nor before it */
    bool single; /* for translate_single: the operand is at vcpu.bounce + single_offset */
    int32_t single_offset;
    unsigned site_count, exit_count;
    struct fault_site sites[TR_MAX_SITES];
    struct {
        uint32_t eip, patch;
        bool direct;
    } exits[TR_MAX_EXITS];
};

/* ---- translate.c ---- */
void tr_site(struct tr *t, enum site_kind kind, unsigned operand);
void tr_commit_esp(struct tr *t);
/* Executes the instruction in C; control comes back behind it unless it went elsewhere. */
void tr_callout(struct tr *t);
void tr_copy(struct tr *t);

/* ---- tr_operand.c ---- */
bool tr_flat(const struct tr *t, unsigned seg);
/* The registers and displacement of the ModRM operand, as host ones: its offset, before it is cut
   to the address size. */
struct hmem tr_address(struct tr *t);
/* From the offset in r8d: checks the segment, adds its base, chooses the window. */
struct hmem tr_linear(struct tr *t, unsigned seg, unsigned size, bool write, unsigned operand);
/* The ModRM operand, ready to be used in the next host instruction (announce it by tr_site). */
struct hmem tr_operand(struct tr *t, unsigned size, bool write);
/* Stack memory at guest ESP + disp. Only where tr_stack_is_flat. */
bool tr_stack_is_flat(const struct tr *t);
struct hmem tr_stack(struct tr *t, int32_t disp);

static inline struct hmem tr_jit(size_t offset)
{
    return hmem_at(R_CPU, (int32_t)offset);
}

static inline unsigned tr_gpr(unsigned guest)
{
    return guest == REG_SP ? R_ESP : guest;
}

/* ---- templates ---- */
void tr_push(struct tr *t);
void tr_pop(struct tr *t);
void tr_leave(struct tr *t);
void tr_call_near(struct tr *t);
void tr_call_ind(struct tr *t);
void tr_jmp_near(struct tr *t);
void tr_jmp_ind(struct tr *t);
void tr_ret_near(struct tr *t);
void tr_jcc(struct tr *t);
void tr_loop(struct tr *t);
void tr_jcxz(struct tr *t);
void tr_string(struct tr *t);
void tr_pushf(struct tr *t);
void tr_cli(struct tr *t);
void tr_sti(struct tr *t);
void tr_push_sreg(struct tr *t);
void tr_mov_sreg_to(struct tr *t);
void tr_xlat(struct tr *t);
/* Loads the poll slot: faults after a kick, with nothing of the instruction done. Not in the shadow
   of STI. */
void tr_poll(struct tr *t);
/* Ends the block with a jump to `eip`. */
void tr_goto(struct tr *t, uint32_t eip);
/* The stubs of the exits, behind the block's code. */
void tr_tails(struct tr *t);

#endif
