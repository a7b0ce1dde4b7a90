/*
 * SGDT SIDT SLDT STR SMSW PUSHF POPF: what they store or load, against what the kernel loaded
 * itself.
 */
#include "report.h"
#include "snippets.h"

enum { FILL = 0xA5A5A5A5u };

static uint32_t buffer[4];

static void run(struct cell *c, struct cpu_state *s, const char *code, unsigned ring,
                const char *what)
{
    for (unsigned i = 0; i < ARRAY_LEN(buffer); i++)
        buffer[i] = FILL;
    cpu_start(s, code, ring);
    s->eax = (uint32_t)buffer;
    s->ecx = FILL;
    cpu_run(s);
    expect_trap(c, s, VEC_END, 0, NULL, what, 0);
}

/* A table register is 6 bytes: limit, then base. Both operand sizes store the same for a base <
 * 16M. */
static void check_table(struct cell *c, unsigned ring, const char *code, uint32_t limit,
                        uint32_t base)
{
    struct cpu_state s;

    run(c, &s, code, ring, "storing");
    expect(c, buffer[0] & 0xFFFF, limit, "limit");
    expect(c, buffer[0] >> 16 | buffer[1] << 16, base, "base");
    expect(c, buffer[1] >> 16, FILL >> 16, "the bytes behind");
}

static void check_two_tables(struct cell *c, unsigned ring, const char *code, const char *code16,
                             void (*load)(uint32_t base, uint32_t limit), uint32_t base,
                             uint32_t size)
{
    for (uint32_t cut = 0; cut < 2; cut++) {
        load(base, size - 1 - 8 * cut);
        check_table(c, ring, code, size - 1 - 8 * cut, base);
        check_table(c, ring, code16, size - 1 - 8 * cut, base);
    }
    load(base, size - 1);
}

static void load_gdt(uint32_t base, uint32_t limit)
{
    struct table_register r = {(uint16_t)limit, base};
    __asm__ volatile("lgdt %0" : : "m"(r) : "memory");
}

static void load_idt(uint32_t base, uint32_t limit)
{
    struct table_register r = {(uint16_t)limit, base};
    __asm__ volatile("lidt %0" : : "m"(r) : "memory");
}

void check_sgdt(struct cell *c, unsigned ring)
{
    check_two_tables(c, ring, s_sgdt, s_sgdt16, load_gdt, (uint32_t)cpu_gdt, sizeof(cpu_gdt));
}

void check_sidt(struct cell *c, unsigned ring)
{
    check_two_tables(c, ring, s_sidt, s_sidt16, load_idt, (uint32_t)cpu_idt, sizeof(cpu_idt));
}

/* SLDT, STR and SMSW to a 32-bit register, a 16-bit one, and memory, which is 16 bits always. */
static void check_word(struct cell *c, unsigned ring, const char *const code[3], uint32_t want,
                       uint32_t mask32)
{
    struct cpu_state s;

    run(c, &s, code[0], ring, "to a 32-bit register");
    expect(c, s.ecx & mask32, want & mask32, "32-bit register");
    run(c, &s, code[1], ring, "to a 16-bit register");
    expect(c, s.ecx, (FILL & 0xFFFF0000) | (want & 0xFFFF), "16-bit register");
    run(c, &s, code[2], ring, "to memory");
    expect(c, buffer[0], (FILL & 0xFFFF0000) | (want & 0xFFFF), "memory");
}

void check_sldt(struct cell *c, unsigned ring)
{
    static const char *const code[] = {s_sldt, s_sldt16, s_sldt_m};

    check_word(c, ring, code, SEL_LDT, ~0u);
    __asm__ volatile("lldt %w0" : : "r"(0));
    check_word(c, ring, code, 0, ~0u);
    __asm__ volatile("lldt %w0" : : "r"(SEL_LDT));
}

void check_str(struct cell *c, unsigned ring)
{
    static const char *const code[] = {s_str, s_str16, s_str_m};

    check_word(c, ring, code, SEL_TSS, ~0u);
}

void check_smsw(struct cell *c, unsigned ring)
{
    static const char *const code[] = {s_smsw, s_smsw16, s_smsw_m};
    static const uint32_t toggles[] = {0, CR0_TS, CR0_MP, CR0_TS | CR0_MP};
    uint32_t cr0 = read_cr0();

    /* The upper half of a 32-bit destination is undefined. */
    for (unsigned i = 0; i < ARRAY_LEN(toggles); i++) {
        write_cr0(cr0 ^ toggles[i]);
        check_word(c, ring, code, cr0 ^ toggles[i], 0xFFFF);
    }
    write_cr0(cr0);
}

static const uint32_t flag_sets[] = {
    FLAG_ONE,
    FLAG_ONE | FLAGS_ARITH | FLAG_DF | FLAG_IF | FLAG_NT | FLAG_AC | FLAG_ID,
    FLAG_ONE | FLAG_CF | FLAG_ZF | FLAG_IF,
    FLAG_ONE | FLAG_OF | FLAG_SF | FLAG_DF | FLAG_ID,
    FLAG_ONE | FLAG_IF | FLAG_AC | FLAG_PF,
};

/* The three rings meet all IOPLs, as only CPL <= IOPL may see its IF changed. */
static void start_flags(struct cpu_state *s, const char *code, unsigned ring, unsigned set,
                        unsigned iopl)
{
    cpu_start(s, code, ring);
    s->eflags = flag_sets[set] | FLAGS_IOPL(iopl);
}

void check_pushf(struct cell *c, unsigned ring)
{
    for (unsigned i = 0; i < 4 * ARRAY_LEN(flag_sets); i++) {
        for (unsigned size = 2; size <= 4; size += 2) {
            struct cpu_state s;
            start_flags(&s, size == 4 ? s_pushf : s_pushf16, ring, i / 4, i % 4);
            uint32_t esp = s.esp, flags = s.eflags;
            uint32_t *top = (uint32_t *)(esp - 4);
            *top = FILL;
            cpu_run(&s);
            expect_trap(c, &s, VEC_END, 0, NULL, "PUSHF", size);
            expect(c, esp - s.esp, size, "%u-bit: bytes pushed", 8 * size);
            if (size == 2)
                flags = flags << 16 | (FILL & 0xFFFF);
            /* At ring 0 what traps push overwrites the word below the one pushed. */
            uint32_t mask = size == 2 && ring == 0 ? 0xFFFF0000 : ~0u;
            expect(c, *top & mask, flags & mask, "%u-bit: image pushed", 8 * size);
        }
    }
}

/* POPF (SDM 2B): IOPL needs CPL 0, IF needs CPL <= IOPL; else they stay, without a fault. */
static uint32_t popf_result(unsigned ring, uint32_t old, uint32_t image, unsigned size)
{
    uint32_t changeable = FLAGS_ARITH | FLAG_DF | FLAG_NT;

    if (size == 4)
        changeable |= FLAG_AC | FLAG_ID;
    if (ring == 0)
        changeable |= FLAG_IOPL;
    if (ring <= (old & FLAG_IOPL) >> 12)
        changeable |= FLAG_IF;
    return (old & ~changeable) | (image & changeable);
}

void check_popf(struct cell *c, unsigned ring)
{
    static const uint32_t images[] = {
        0,
        FLAG_IF,
        FLAG_IOPL,
        FLAGS_ARITH | FLAG_DF | FLAG_IF | FLAG_NT | FLAGS_IOPL(1) | FLAG_AC | FLAG_ID,
        0xFFFFFFFF & ~(uint32_t)FLAG_TF,
    };

    for (unsigned i = 0; i < 4 * ARRAY_LEN(flag_sets); i++) {
        for (unsigned k = 0; k < 2 * ARRAY_LEN(images); k++) {
            unsigned size = k & 1 ? 2 : 4;
            struct cpu_state s;
            start_flags(&s, size == 4 ? s_popf : s_popf16, ring, i / 4, i % 4);
            uint32_t esp = s.esp, old = s.eflags;
            *(uint32_t *)esp = images[k / 2];
            cpu_run(&s);
            expect_trap(c, &s, VEC_END, 0, NULL, "POPF", size);
            expect(c, s.esp - esp, size, "%u-bit: bytes popped", 8 * size);
            expect(c, s.eflags, popf_result(ring, old, images[k / 2], size),
                   "%u-bit: flags after popping %08x over %08x", 8 * size, images[k / 2], old);
        }
    }
}
