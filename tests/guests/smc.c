/*
 * Code that changes: the next instruction, its own block, another page, through another linear
 * address, next to data, by every kind of store. All at rings 0 and 3, and again after having run
 * for a while.
 *
 * A store by the address that is executed takes effect at once (P6 and later); through another
 * address, after a serializing instruction (SDM 3A 8.1.3), here CPUID or IRET.
 */
#include "check.h"
#include "paging.h"

enum { ALIAS = 0x40000000, ARENA_PAGES = 4 };

static USER_DATA __attribute__((aligned(4096))) uint8_t arena[ARENA_PAGES * 4096];

/* EAX += what a patched instruction loads, for ECX values. */
CODE(next_insn, "1: movl %ecx, 2f+1\n"
                "2: movl $0, %ebx\n"
                "addl %ebx, %eax\n"
                "decl %ecx\n"
                "jnz 1b");
CODE(next_byte, "1: movb %cl, 2f+1\n"
                "2: movb $0, %bl\n"
                "addl %ebx, %eax\n"
                "decl %ecx\n"
                "jnz 1b");
CODE(before, "jmp 2f\n"
             "1: movl $0, %ebx\n"
             "addl %ebx, %eax\n"
             "decl %ecx\n"
             "jz before_end\n"
             "2: movl %ecx, 1b+1\n"
             "jmp 1b");
CODE(by_inc, "movl $0, 1f+1\n"
             "2: incl 1f+1\n"
             "1: movl $0, %ebx\n"
             "addl %ebx, %eax\n"
             "decl %ecx\n"
             "jnz 2b");
CODE(by_xadd, "movl $0, 1f+1\n"
              "2: movl $1, %edx\n"
              "lock xaddl %edx, 1f+1\n"
              "1: movl $0, %ebx\n"
              "addl %ebx, %eax\n"
              "decl %ecx\n"
              "jnz 2b");
CODE(by_stos, "movl %ecx, %edx\n"
              "1: movl $2f+1, %edi\n"
              "movl %eax, %esi\n"
              "movl %edx, %eax\n"
              "cld\n"
              "stosl\n"
              "movl %esi, %eax\n"
              "2: movl $0, %ebx\n"
              "addl %ebx, %eax\n"
              "decl %edx\n"
              "jnz 1b");
CODE(by_movs, "1: pushl %ecx\n"
              "movl %esp, %esi\n"
              "movl $2f+1, %edi\n"
              "movl $4, %ecx\n"
              "rep movsb\n"
              "2: movl $0, %ebx\n"
              "popl %ecx\n"
              "addl %ebx, %eax\n"
              "decl %ecx\n"
              "jnz 1b");
CODE(by_movs_down, "1: pushl %ecx\n"
                   "leal 3(%esp), %esi\n"
                   "movl $2f+4, %edi\n"
                   "movl $4, %ecx\n"
                   "std\n"
                   "rep movsb\n"
                   "2: movl $0, %ebx\n"
                   "cld\n"
                   "popl %ecx\n"
                   "addl %ebx, %eax\n"
                   "decl %ecx\n"
                   "jnz 1b");
CODE(by_push, "movl %esp, %ebp\n"
              "1: movl $2f+5, %esp\n"
              "pushl %ecx\n"
              "2: movl $0, %ebx\n"
              "movl %ebp, %esp\n"
              "addl %ebx, %eax\n"
              "decl %ecx\n"
              "jnz 1b");
CODE(by_pop, "1: pushl %ecx\n"
             "popl 2f+1\n"
             "2: movl $0, %ebx\n"
             "addl %ebx, %eax\n"
             "decl %ecx\n"
             "jnz 1b");
/* Each value is the address that the CALL pushes into the instruction behind the place it calls. */
CODE(by_call, "movl %esp, %ebp\n"
              "1: movl $3f+5, %esp\n"
              "call 3f\n"
              "2: nop\n"
              "3: movl $0, %ebx\n"
              "movl %ebp, %esp\n"
              "subl $2b, %ebx\n"
              "addl %ecx, %ebx\n"
              "addl %ebx, %eax\n"
              "decl %ecx\n"
              "jnz 1b");
CODE(by_fist, "1: pushl %ecx\n"
              "fildl (%esp)\n"
              "popl %edx\n"
              "fistpl 2f+1\n"
              "2: movl $0, %ebx\n"
              "addl %ebx, %eax\n"
              "decl %ecx\n"
              "jnz 1b");
CODE(by_cmpxchg8b, "movl %eax, %esi\n"
                   "movl %ecx, %edi\n"
                   "1: movl 2f, %eax\n"
                   "movl 2f+4, %edx\n"
                   "movl %edi, %ebx\n"
                   "shll $8, %ebx\n"
                   "movb $0xBD, %bl\n"
                   "movl $0x90EE0100, %ecx\n"
                   "lock cmpxchg8b 2f\n"
                   "jnz 3f\n"
                   "jmp 2f\n"
                   ".balign 8\n"
                   "2: movl $0, %ebp\n"
                   ".byte 0x01, 0xEE, 0x90\n"
                   "decl %edi\n"
                   "jnz 1b\n"
                   "movl %esi, %eax\n"
                   "jmp by_cmpxchg8b_end\n"
                   "3: ud2");
/* Data between code: a counter in each gap. */
CODE(mixed, "1: incl 2f\n"
            "jmp 3f\n"
            "2: .long 0\n"
            "3: addl $1, 4f\n"
            "call 5f\n"
            "jmp 6f\n"
            "4: .long 0\n"
            "5: incl 7f\n"
            "ret\n"
            "7: .long 0\n"
            "6: addl %ecx, %eax\n"
            "decl %ecx\n"
            "jnz 1b\n"
            "movl 2b, %ebx\n"
            "addl 4b, %ebx\n"
            "addl 7b, %ebx\n"
            "movl $0, 2b\n"
            "movl $0, 4b\n"
            "movl $0, 7b");
/* A direct jump whose displacement is changed by turns. */
CODE(jump_target, "1: xorl $(2f - 3f), 9f+1\n"
                  "9: jmp 3f\n"
                  "3: addl $0x10000, %edx\n"
                  "jmp 4f\n"
                  "2: incl %edx\n"
                  "4: addl %ecx, %eax\n"
                  "decl %ecx\n"
                  "jnz 1b");

static void sum_case(const char *what, const char *code, unsigned ring, uint32_t count)
{
    struct cpu_state s;

    cpu_start(&s, code, ring);
    s.ecx = count;
    run_to_end(&s, what);
    check_equal(s.eax, count * (count + 1) / 2, "%s at ring %u: sum", what, ring);
    if (code == mixed)
        check_equal(s.ebx, 3 * count, "%s at ring %u: counters", what, ring);
}

#define SUM(code, count)                                                                           \
    {                                                                                              \
        code, #code, count                                                                         \
    }
static const struct {
    const char *code, *name;
    uint32_t count;
} sums[] = {
    SUM(next_insn, 50), SUM(next_byte, 100), SUM(before, 50),  SUM(by_inc, 50),
    SUM(by_xadd, 20),   SUM(by_stos, 50),    SUM(by_movs, 50), SUM(by_movs_down, 50),
    SUM(by_push, 50),   SUM(by_pop, 50),     SUM(by_call, 20), SUM(by_fist, 50),
    SUM(mixed, 3000),   SUM(mixed, 10),
};

/* mov eax, value; int VECTOR_END */
static void put_code(uint8_t *at, uint32_t value)
{
    at[0] = 0xB8;
    memcpy(at + 1, &value, 4);
    at[5] = 0xCD;
    at[6] = VECTOR_END;
}

static void expect_code(const void *at, unsigned ring, uint32_t value, const char *what)
{
    struct cpu_state s;

    cpu_start(&s, at, ring);
    run_to_end(&s, what);
    check_equal(s.eax, value, "%s at ring %u", what, ring);
}

/* The kernel as a code generator: whole pieces replaced, at every place of a page, also across its
 * end. */
static void check_generated(unsigned ring)
{
    for (unsigned i = 0; i < 300; i++) {
        uint8_t *at = arena + 4096 - 20 + i % 24;
        put_code(at, i);
        expect_code(at, ring, i, "generated code");
        if (i % 3 == 0) {
            at[2] ^= 0x55;
            expect_code(at, ring, i ^ 0x5500, "a patched byte");
        }
    }
    /* Of the bytes of an instruction across the page end, those behind it. */
    for (unsigned split = 1; split < 5; split++) {
        uint8_t *at = arena + 8192 - split;
        put_code(at, 0x01020304);
        expect_code(at, ring, 0x01020304, "code across the page end");
        at[4] = 0x77;
        expect_code(at, ring, 0x77020304, "code patched behind the page end");
        at[1] = 0x66;
        expect_code(at, ring, 0x77020366, "code patched before the page end");
    }
    /* Moved code: the same bytes from place to place by REP MOVSB, and over itself. */
    for (unsigned i = 0; i < 40; i++) {
        uint8_t *from = arena + 3 * i, *to = arena + 12288 - 30 + 2 * i;
        put_code(from, 7000 + i);
        memcpy(to, from, 7);
        expect_code(to, ring, 7000 + i, "copied code");
        memset(to, 0x90, 4);
        put_code(to + 4, 8000 + i);
        expect_code(to, ring, 8000 + i, "filled code");
    }
}

/* The same frame at ALIAS. */
CODE(alias_patch, "1: movl %ecx, (%esi)\n"
                  "pushl %ecx\n"
                  "pushl %eax\n"
                  "xorl %eax, %eax\n"
                  "cpuid\n"
                  "popl %eax\n"
                  "popl %ecx\n"
                  "call *%edi\n"
                  "addl %ebp, %eax\n"
                  "decl %ecx\n"
                  "jnz 1b");

static void check_alias(unsigned ring)
{
    struct cpu_state s;
    uint8_t *alias = (uint8_t *)ALIAS;

    for (unsigned i = 0; i < ARENA_PAGES; i++)
        paging_map(ALIAS + 4096 * i, arena + 4096 * i, PAGE_URW);
    for (unsigned i = 0; i < 50; i++) {
        put_code(arena + 512, 100 + i);
        expect_code(alias + 512, ring, 100 + i, "executed through an alias");
        put_code(alias + 512, 200 + i);
        expect_code(arena + 512, ring, 200 + i, "written through an alias");
        expect_code(alias + 512, ring, 200 + i, "both through an alias");
    }
    /* mov ebp, imm; ret, patched from ring 3 through either address. */
    for (unsigned way = 0; way < 4; way++) {
        uint8_t *code = arena + 1024;
        code[0] = 0xBD;
        code[5] = 0xC3;
        cpu_start(&s, alias_patch, ring);
        s.esi = (uint32_t)(way & 1 ? alias : arena) + 1025;
        s.edi = (uint32_t)(way & 2 ? alias : arena) + 1024;
        s.ecx = 30;
        run_to_end(&s, "patched through an alias");
        check_equal(s.eax, 30 * 31 / 2, "patched through an alias, way %u, ring %u: sum", way,
                    ring);
    }
}

/* A block that jumps to another, which is replaced: the link between them must not stay. */
static void check_links(unsigned ring)
{
    for (unsigned i = 0; i < 60; i++) {
        /* inc ebx; jmp to the end of the next page, which comes back here for a second value. */
        uint8_t *a = arena + 100, *b = arena + 4096 + 200;
        a[0] = 0x43;
        a[1] = 0xE9;
        uint32_t distance = (uint32_t)(b - (a + 6));
        memcpy(a + 2, &distance, 4);
        if (i % 2 || i < 2)
            put_code(b, i);
        expect_code(a, ring, i % 2 || i < 2 ? i : i - 1, "linked blocks");
        expect_code(b, ring, i % 2 || i < 2 ? i : i - 1, "a linked block");
    }
}

int guest_main(void)
{
    paging_init();
    __asm__ volatile("fninit");
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned ring = 0; ring < 4; ring += 3) {
            for (unsigned i = 0; i < ARRAY_LEN(sums); i++)
                sum_case(sums[i].name, sums[i].code, ring, sums[i].count);
            struct cpu_state s;
            cpu_start(&s, jump_target, ring);
            s.ecx = 40;
            run_to_end(&s, "jump_target");
            check_equal(s.eax, 40 * 41 / 2, "jump_target: sum");
            check_equal(s.edx, 20 * 0x10001, "jump_target: ways");
            cpu_start(&s, by_cmpxchg8b, ring);
            s.ecx = 40;
            run_to_end(&s, "by_cmpxchg8b");
            check_equal(s.eax, 40 * 41 / 2, "by_cmpxchg8b: sum");
            check_generated(ring);
            check_alias(ring);
            check_links(ring);
        }
        if (round & 1)
            touch_all_code();
    }
    return check_done("smc");
}
