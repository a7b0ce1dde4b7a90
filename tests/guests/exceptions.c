/*
 * Every exception that software can provoke, with its error code and the address pushed, and double
 * faults by way of a gate that is not present. Page faults are in faults.c.
 *
 * Bochs passes. QEMU 7.2's TCG executes LOCK MOV and C6 /1, takes ICEBP for undefined, and leaves
 * EXT out of the error code of an exception that is met while another is delivered (SDM 3A 6.13
 * sets it).
 */
#include "check.h"

CODE(code_div, "div_at: divl %ecx");
CODE(code_div8, "div8_at: divb %cl");
CODE(code_idiv, "idiv_at: idivl %ecx");
CODE(code_aam, "aam_at: aam $0");
CODE(code_int3, "int3\nint3_next: nop");
CODE(code_into, "into\ninto_next: nop");
CODE(code_bound, "bound_at: .byte 0x62, 0x02");
CODE(code_icebp, ".byte 0xF1\nicebp_next: nop");
CODE(code_step, "incl %eax\nstep_next: incl %eax");
CODE(code_step_rep, "step_rep_at: rep stosb");
CODE(code_step_branch, "jmp step_target\nnop\nstep_target: nop");
CODE(code_step_popf, "pushfl\norl $0x100, (%esp)\npopfl\nincl %eax\nstep_popf_next: incl %eax");
extern const char div_at[], div8_at[], idiv_at[], aam_at[], int3_next[], into_next[], bound_at[];
extern const char icebp_next[], step_next[], step_rep_at[], step_target[], step_popf_next[];

static const unsigned rings[] = {0, 3};

/* The general registers, segments and flags are as before the run; only what the trap says differs.
 */
static void check_unchanged(const struct cpu_state *before, const struct cpu_state *after,
                            const char *what)
{
    check(!memcmp(before, after, 12) && !memcmp(&before->ebx, &after->ebx, 16),
          "%s: a register changed", what);
    check_equal(after->esp, before->esp, "%s: esp", what);
    check_equal(after->eflags & ~(uint32_t)FLAG_RF, before->eflags, "%s: flags", what);
    check(!memcmp(&before->gs, &after->gs, 16), "%s: a segment register changed", what);
}

static void fault(const char *what, const char *code, unsigned ring, uint32_t eax, uint32_t ecx,
                  uint32_t edx, unsigned vector, int error, const char *eip)
{
    struct cpu_state s, before;

    cpu_start(&s, code, ring);
    s.eax = eax;
    s.ecx = ecx;
    s.edx = edx;
    s.eflags |= FLAG_CF | FLAG_ZF;
    before = s;
    cpu_run(&s);
    check_trap(&s, vector, error, eip, what);
    check_unchanged(&before, &s, what);
}

static void check_arithmetic(unsigned ring)
{
    static const uint32_t bounds[2] = {10, 20};

    fault("divide by 0", code_div, ring, 5, 0, 0, VEC_DE, 0, div_at);
    fault("quotient too large", code_div, ring, 0, 5, 5, VEC_DE, 0, div_at);
    fault("byte quotient too large", code_div8, ring, 0x1000, 2, 0, VEC_DE, 0, div8_at);
    fault("-2^31 / -1", code_idiv, ring, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFF, VEC_DE, 0, idiv_at);
    fault("aam 0", code_aam, ring, 5, 0, 0, VEC_DE, 0, aam_at);
    fault("bound below", code_bound, ring, 9, 0, (uint32_t)bounds, VEC_BR, 0, bound_at);
    fault("bound above", code_bound, ring, 21, 0, (uint32_t)bounds, VEC_BR, 0, bound_at);

    struct cpu_state s;
    for (uint32_t i = 10; i <= 20; i += 10) {
        cpu_start(&s, code_bound, ring);
        s.eax = i;
        s.edx = (uint32_t)bounds;
        run_to_end(&s, "bound within");
    }
    cpu_start(&s, code_idiv, ring);
    s.eax = (uint32_t)-100;
    s.edx = 0xFFFFFFFF;
    s.ecx = 7;
    run_to_end(&s, "idiv");
    check_equal(s.eax, (uint32_t)-14, "idiv quotient");
    check_equal(s.edx, (uint32_t)-2, "idiv remainder");
}

static void check_traps(unsigned ring)
{
    struct cpu_state s;
    static USER_DATA uint8_t bytes[4];

    fault("int3", code_int3, ring, 0, 0, 0, VEC_BP, 0, int3_next);
    cpu_start(&s, code_into, ring);
    s.eflags |= FLAG_OF;
    cpu_run(&s);
    check_trap(&s, VEC_OF, 0, into_next, "into");
    fault("icebp", code_icebp, ring, 0, 0, 0, VEC_DB, 0, icebp_next);

    cpu_start(&s, code_step, ring);
    s.eflags |= FLAG_TF;
    cpu_run(&s);
    check_trap(&s, VEC_DB, 0, step_next, "single step");
    check_equal(s.eax, 1, "single step: eax");
    check_equal(s.eflags & FLAG_TF, FLAG_TF, "single step: pushed TF");
    cpu_start(&s, code_step_branch, ring);
    s.eflags |= FLAG_TF;
    cpu_run(&s);
    check_trap(&s, VEC_DB, 0, step_target, "single step of a jump");
    /* TF is tested before an instruction: the one after POPF runs. */
    cpu_start(&s, code_step_popf, ring);
    cpu_run(&s);
    check_trap(&s, VEC_DB, 0, step_popf_next, "single step by popf");
    check_equal(s.eax, 1, "single step by popf: eax");
    cpu_start(&s, code_step_rep, ring);
    s.eflags |= FLAG_TF;
    s.ecx = 3;
    s.edi = (uint32_t)bytes;
    cpu_run(&s);
    check_trap(&s, VEC_DB, 0, step_rep_at, "single step of rep stosb");
    check_equal(s.ecx, 2, "single step of rep stosb: ecx");
    check_equal(s.edi, (uint32_t)bytes + 1, "single step of rep stosb: edi");
}

/* Encodings that no CPU executes. */
static void check_undefined(unsigned ring)
{
    static const uint8_t encodings[][8] = {
        {0x0F, 0x0B},          /* UD2 */
        {0x0F, 0xB9, 0xC0},    /* UD1 */
        {0xF0, 0x01, 0xC8},    /* LOCK ADD to a register */
        {0xF0, 0x8B, 0x00},    /* LOCK MOV */
        {0xF0, 0x90},          /* LOCK NOP */
        {0x8D, 0xC0},          /* LEA of a register */
        {0x8E, 0xC8},          /* MOV to CS */
        {0xFE, 0xD0},          /* FE /2 */
        {0xFF, 0xF8},          /* FF /7 */
        {0x0F, 0xC7, 0xC8},    /* CMPXCHG8B of a register */
        {0x0F, 0xBA, 0xC0, 1}, /* 0F BA /0 */
        {0xC6, 0xC8, 0},       /* C6 /1 */
        {0xFF, 0xD8},          /* far CALL of a register */
        {0x0F, 0x05},          /* SYSCALL outside 64-bit mode without EFER.SCE */
    };
    static USER_DATA uint8_t place[32];
    char what[24];

    for (unsigned i = 0; i < ARRAY_LEN(encodings); i++) {
        memcpy(place, encodings[i], 8);
        place[8] = 0xCD;
        place[9] = VECTOR_END;
        format_text(what, sizeof(what), "%02x %02x %02x", place[0], place[1], place[2]);
        fault(what, (const char *)place, ring, 0, 0, 0, VEC_UD, 0, (const char *)place);
    }
}

/* What ring 3 may not do: #GP(0), nothing done. */
static void check_privileged(void)
{
    static const uint8_t encodings[][8] = {
        {0xF4},             /* HLT */
        {0xFA},             /* CLI */
        {0xFB},             /* STI */
        {0xEC},             /* IN AL, DX */
        {0xEE},             /* OUT DX, AL */
        {0xE5, 0x80},       /* IN EAX, 80h */
        {0x6C},             /* INSB */
        {0x6F},             /* OUTSD */
        {0x0F, 0x20, 0xC0}, /* MOV EAX, CR0 */
        {0x0F, 0x22, 0xD8}, /* MOV CR3, EAX */
        {0x0F, 0x21, 0xF8}, /* MOV EAX, DR7 */
        {0x0F, 0x06},       /* CLTS */
        {0x0F, 0x08},       /* INVD */
        {0x0F, 0x09},       /* WBINVD */
        {0x0F, 0x01, 0x3A}, /* INVLPG [EDX] */
        {0x0F, 0x01, 0x12}, /* LGDT [EDX] */
        {0x0F, 0x01, 0x1A}, /* LIDT [EDX] */
        {0x0F, 0x00, 0xD0}, /* LLDT AX */
        {0x0F, 0x00, 0xD8}, /* LTR AX */
        {0x0F, 0x01, 0xF0}, /* LMSW AX */
        {0x0F, 0x30},       /* WRMSR */
        {0x0F, 0x32},       /* RDMSR */
        {0xCD, 0x20},       /* INT 20h: the gate's DPL */
    };
    static USER_DATA uint8_t place[32];
    char what[24];

    for (unsigned i = 0; i < ARRAY_LEN(encodings); i++) {
        memcpy(place, encodings[i], 8);
        place[8] = 0xCD;
        place[9] = VECTOR_END;
        format_text(what, sizeof(what), "%02x %02x %02x at ring 3", place[0], place[1], place[2]);
        int error = place[0] == 0xCD ? 0x20 * 8 + 2 : 0;
        fault(what, (const char *)place, 3, 0, 0, (uint32_t)place, VEC_GP, error,
              (const char *)place);
    }
}

CODE(code_set_ds, "set_ds_at: movl %eax, %ds");
CODE(code_set_ss, "set_ss_at: movl %eax, %ss");
CODE(code_gate, "gate_at: lcall $0x78, $0");
CODE(code_ud, "ud_at: ud2");
CODE(code_gp, "gp_at: movl %eax, %es");
extern const char set_ds_at[], set_ss_at[], gate_at[], ud_at[], gp_at[];

enum { SEL_ABSENT = SEL_FREE, SEL_GATE = 0x78 };

static void check_segment_faults(unsigned ring)
{
    unsigned dpl = DESC_DPL(ring);

    cpu_gdt[SEL_ABSENT / 8] =
        cpu_segment(0, 0xFFFFF, (DESC_DATA | dpl) & ~(unsigned)DESC_PRESENT, 12);
    fault("#NP", code_set_ds, ring, SEL_ABSENT | ring, 0, 0, VEC_NP, SEL_ABSENT, set_ds_at);
    fault("#SS", code_set_ss, ring, SEL_ABSENT | ring, 0, 0, VEC_SS, SEL_ABSENT, set_ss_at);
    fault("#GP", code_set_ds, ring, 0xFFFB, 0, 0, VEC_GP, 0xFFF8, set_ds_at);
    fault("#GP by a null SS", code_set_ss, ring, 3, 0, 0, VEC_GP, 0, set_ss_at);
}

/* A call gate to ring 1 whose stack in the TSS is bad. */
static void check_invalid_tss(void)
{
    static const struct {
        uint16_t ss, error;
    } stacks[] = {
        {0, 0}, {SEL_DATA(0), SEL_DATA(0)}, {SEL_CODE(1), SEL_CODE(1) & ~3}, {0xFFF9, 0xFFF8}};
    uint32_t kept = cpu_tss.stack[1].ss;

    cpu_gdt[SEL_GATE / 8] = cpu_gate(SEL_CODE(1), (uint32_t)code_ud, DESC_CALL | DESC_DPL(3), 0);
    for (unsigned i = 0; i < ARRAY_LEN(stacks); i++) {
        cpu_tss.stack[1].ss = stacks[i].ss;
        fault("#TS", code_gate, 3, 0, 0, 0, VEC_TS, stacks[i].error, gate_at);
    }
    cpu_tss.stack[1].ss = kept;
}

/* A gate that is not present: #NP with EXT for a benign exception, #DF for a contributory one. */
static void check_delivery(unsigned ring)
{
    struct descriptor kept = cpu_idt[VEC_UD];

    cpu_idt[VEC_UD].high &= ~0x8000u;
    fault("#UD gate not present", code_ud, ring, 0, 0, 0, VEC_NP, VEC_UD * 8 + 3, ud_at);
    cpu_idt[VEC_UD] = cpu_gate(SEL_DATA(0), (uint32_t)cpu_stubs, DESC_INT, 0);
    fault("#UD gate to data", code_ud, ring, 0, 0, 0, VEC_GP, SEL_DATA(0) | 1, ud_at);
    cpu_idt[VEC_UD] = kept;

    kept = cpu_idt[VEC_GP];
    cpu_idt[VEC_GP].high &= ~0x8000u;
    fault("#GP gate not present", code_gp, ring, 0xFFFF, 0, 0, VEC_DF, 0, gp_at);
    cpu_idt[VEC_GP] = kept;
}

int guest_main(void)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < ARRAY_LEN(rings); i++) {
            check_arithmetic(rings[i]);
            check_traps(rings[i]);
            check_undefined(rings[i]);
            check_segment_faults(rings[i]);
            check_delivery(rings[i]);
        }
        check_privileged();
        check_invalid_tss();
        if (round & 1)
            touch_all_code();
    }
    return check_done("exceptions");
}
