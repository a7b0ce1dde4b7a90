/*
 * Calls and returns: in pairs, without pairs, over more levels than a return predictor or a ring of
 * host return addresses holds, with stacks switched under them, and with 16-bit operands.
 */
#include "check.h"

enum { DEPTH = 12000 };

static uint32_t USER_DATA big_stack[32768];
static uint32_t *const big_top = big_stack + 32768;

/* EAX = how often f was called: directly, through a register, through memory and through a table.
 */
CODE(code_pairs, "movl $100, %ecx\n"
                 "1: call 2f\n"
                 "movl $2f, %edx\n"
                 "call *%edx\n"
                 "call *pairs_pointer\n"
                 "movl %ecx, %ebx\n"
                 "andl $3, %ebx\n"
                 "call *pairs_table(,%ebx,4)\n"
                 "decl %ecx\n"
                 "jnz 1b\n"
                 "jmp code_pairs_end\n"
                 "2: incl %eax\n"
                 "ret\n"
                 "3: addl $0x100, %eax\n"
                 "call 2b\n"
                 "ret\n"
                 "4: addl $0x10000, %eax\n"
                 "jmp 3b\n"
                 ".balign 4\n"
                 "pairs_pointer: .long 2b\n"
                 "pairs_table: .long 2b, 3b, 4b, 2b");

/* ECX levels down, counting up on the way back. */
CODE(code_deep, "call 1f\n"
                "jmp code_deep_end\n"
                "1: jecxz 2f\n"
                "decl %ecx\n"
                "call 1b\n"
                "incl %eax\n"
                "2: ret");

/* Down ECX levels in two functions that alternate, then out of all of them at once, EDX times. */
CODE(code_escape, "1: movl %esp, %ebp\n"
                  "movl $5000, %ecx\n"
                  "call 2f\n"
                  "4: decl %edx\n"
                  "jnz 1b\n"
                  "jmp code_escape_end\n"
                  "2: decl %ecx\n"
                  "jz 3f\n"
                  "call 5f\n"
                  "ud2\n"
                  "5: decl %ecx\n"
                  "jz 3f\n"
                  "call 2b\n"
                  "ud2\n"
                  "3: incl %eax\n"
                  "movl %ebp, %esp\n"
                  "pushl $4b\n"
                  "ret");

/* Return addresses that no CALL made: ECX gadgets on the stack. */
CODE(code_gadgets, "pushl $code_gadgets_end\n"
                   "1: pushl $2f\n"
                   "pushl $3f\n"
                   "decl %ecx\n"
                   "jnz 1b\n"
                   "ret\n"
                   "2: incl %eax\n"
                   "ret\n"
                   "3: addl $0x10000, %eax\n"
                   "ret");

/* Returns moved: behind data that follows the CALL, and to one of two places by turns. */
CODE(code_moved, "movl $50, %ecx\n"
                 "1: call 2f\n"
                 ".long 0x12345678\n"
                 "cmpl $0x12345678, %edx\n"
                 "jne 9f\n"
                 "call 4f\n"
                 "3: addl $0x100, %eax\n"
                 "jmp 5f\n"
                 "6: addl $0x10000, %eax\n"
                 "5: decl %ecx\n"
                 "jnz 1b\n"
                 "jmp code_moved_end\n"
                 "2: popl %ebx\n"
                 "movl (%ebx), %edx\n"
                 "addl $4, %ebx\n"
                 "incl %eax\n"
                 "jmp *%ebx\n"
                 "4: testb $1, %cl\n"
                 "jz 7f\n"
                 "addl $6b - 3b, (%esp)\n"
                 "7: ret\n"
                 "9: ud2");

/* CALL to the next instruction, as position-independent code does. */
CODE(code_next, "movl $1000, %ecx\n"
                "1: call 2f\n"
                "2: popl %ebx\n"
                "cmpl $2b, %ebx\n"
                "jne 9f\n"
                "incl %eax\n"
                "decl %ecx\n"
                "jnz 1b\n"
                "jmp code_next_end\n"
                "9: ud2");

/* Two coroutines, each on a stack of its own, change over by RET. EBX holds the other stack. */
CODE(code_coroutines, "movl $3f, -4(%ebx)\n"
                      "subl $4, %ebx\n"
                      "movl $1000, %ecx\n"
                      "1: call 2f\n"
                      "incl %eax\n"
                      "decl %ecx\n"
                      "jnz 1b\n"
                      "jmp code_coroutines_end\n"
                      "2: xchgl %ebx, %esp\n"
                      "ret\n"
                      "3: call 4f\n"
                      "addl $0x10000, %eax\n"
                      "jmp 3b\n"
                      "4: call 2b\n"
                      "incl %edx\n"
                      "ret");

/* RET imm16, ENTER and LEAVE, PUSHA and POPA, and operands that use ESP itself. */
CODE(code_stack, "movl %esp, %edi\n"
                 "movl $200, %ecx\n"
                 "1: pushl $3\n"
                 "pushl $4\n"
                 "call 2f\n"
                 "pushl $5f\n"
                 "call *(%esp)\n"
                 "popl %ebx\n"
                 "pushl %esp\n"
                 "popl %ebx\n"
                 "cmpl %ebx, %esp\n"
                 "jne 9f\n"
                 "pushl $7\n"
                 "pushl (%esp)\n"
                 "popl %ebx\n"
                 "addl %ebx, %eax\n"
                 "pushl $11\n"
                 "popl (%esp)\n"
                 "popl %ebx\n"
                 "addl %ebx, %eax\n"
                 "pushl $0\n"
                 "pushl $13\n"
                 "popl 0(%esp)\n"
                 "popl %ebx\n"
                 "addl %ebx, %eax\n"
                 "pushal\n"
                 "xorl %ebx, %ebx\n"
                 "xorl %esi, %esi\n"
                 "movl $17, 28(%esp)\n"
                 "addl %eax, 28(%esp)\n"
                 "popal\n"
                 "pushw $0x1234\n"
                 "popw %bx\n"
                 "cmpw $0x1234, %bx\n"
                 "jne 9f\n"
                 "cmpl %edi, %esp\n"
                 "jne 9f\n"
                 "decl %ecx\n"
                 "jnz 1b\n"
                 "jmp code_stack_end\n"
                 "2: enter $16, $0\n"
                 "movl 8(%ebp), %ebx\n"
                 "addl 12(%ebp), %ebx\n"
                 "movl %ebx, -16(%ebp)\n"
                 "addl -16(%ebp), %eax\n"
                 "call 3f\n"
                 "leave\n"
                 "ret $8\n"
                 "3: enter $8, $2\n"
                 "cmpl -4(%ebp), %ebp\n"
                 "je 9f\n"
                 "movl (%ebp), %ebx\n"
                 "cmpl -8(%ebp), %ebp\n"
                 "jne 9f\n"
                 "leave\n"
                 "ret\n"
                 "5: incl %eax\n"
                 "ret\n"
                 "9: ud2");

static void simple(const char *what, const char *code, unsigned ring, uint32_t ecx, uint32_t edx,
                   uint32_t want)
{
    struct cpu_state s;

    cpu_start(&s, code, ring);
    s.esp = (uint32_t)big_top;
    s.ecx = ecx;
    s.edx = edx;
    s.ebx = (uint32_t)(big_stack + 1024);
    run_to_end(&s, what);
    check_equal(s.eax, want, "%s: count", what);
    check_equal(s.esp, (uint32_t)big_top, "%s: esp", what);
}

/*
 * 16-bit operands cut EIP to 16 bits, so this code is copied below 64K. EAX counts; the stack holds
 * words.
 */
CODE(code_small, ".byte 0x66, 0xE8\n"
                 ".word 2f - 1f\n"
                 "1: addl $0x100, %eax\n"
                 "movl $0x8000 + 3f - code_small, %edx\n"
                 ".byte 0x66, 0xFF, 0xD2\n"
                 "addl $0x10000, %eax\n"
                 ".byte 0x66, 0xE9\n"
                 ".word 5f - 4f\n"
                 "4: ud2\n"
                 "2: incl %eax\n"
                 ".byte 0x66, 0xC3\n"
                 "3: addl $2, %eax\n"
                 "pushw $7\n"
                 "call 6f\n"
                 ".byte 0x66, 0xC2, 0, 0\n"
                 "6: movw 6(%esp), %bx\n"
                 "movzwl 4(%esp), %ebx\n"
                 "addl %ebx, %eax\n"
                 "popl %ebx\n"
                 "addl $2, %esp\n"
                 "jmp *%ebx\n"
                 "5: nop");

/* A taken 16-bit Jcc, JMP and LOOP from above 64K land below it. */
CODE(code_cut_jcc, "xorl %ebx, %ebx\n.byte 0x66, 0x74, 0x10");
CODE(code_cut_jmp, ".byte 0x66, 0xEB, 0x10");
CODE(code_cut_call, ".byte 0x66, 0xE8, 0x10, 0");
CODE(code_cut_jcc_not, "orl $1, %ebx\n.byte 0x66, 0x74, 0x10");

static void check_cut(const char *what, const char *code, uint32_t skip, unsigned pushed)
{
    uint32_t target = ((uint32_t)code + skip + 0x10) & 0xFFFF;
    uint8_t *low = (uint8_t *)target, saved[2] = {low[0], low[1]};
    struct cpu_state s;

    low[0] = 0xCD;
    low[1] = VECTOR_END;
    cpu_start(&s, code, 3);
    uint32_t esp = s.esp;
    run_to_end(&s, what);
    check_equal(s.eip, target + 2, "%s: eip", what);
    check_equal(esp - s.esp, pushed, "%s: bytes pushed", what);
    if (pushed)
        check_equal(*(uint16_t *)s.esp, ((uint32_t)code + skip) & 0xFFFF, "%s: address pushed",
                    what);
    low[0] = saved[0];
    low[1] = saved[1];
}

static void check_small(unsigned ring)
{
    uint8_t *low = (uint8_t *)0x8000;
    struct cpu_state s;

    memcpy(low, code_small, (size_t)(code_small_end - code_small) + 2);
    cpu_start(&s, low, ring);
    uint32_t esp = s.esp;
    run_to_end(&s, "16-bit calls");
    check_equal(s.eax, 0x10100 + 1 + 2 + 7, "16-bit calls: count");
    check_equal(s.esp, esp, "16-bit calls: esp");
}

static unsigned __attribute__((noinline)) fibonacci(unsigned n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

int guest_main(void)
{
    static const unsigned rings[] = {0, 3};

    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < ARRAY_LEN(rings); i++) {
            unsigned ring = rings[i];
            simple("pairs", code_pairs, ring, 0, 0, 400 + 50 * 0x100 + 25 * 0x10000);
            simple("deep recursion", code_deep, ring, DEPTH, 0, DEPTH);
            simple("deep recursion again", code_deep, ring, DEPTH / 3, 0, DEPTH / 3);
            simple("escape", code_escape, ring, 0, 20, 20);
            simple("gadgets", code_gadgets, ring, 3000, 0, 3000 * 0x10001u);
            simple("moved returns", code_moved, ring, 0, 0, 50 + 25 * 0x10100);
            simple("call next", code_next, ring, 0, 0, 1000);
            simple("coroutines", code_coroutines, ring, 0, 0, 1000 + 999 * 0x10000u);
            simple("stack", code_stack, ring, 0, 0, 200 * (7 + 1 + 7 + 11 + 13 + 17));
            check_small(ring);
            check_cut("16-bit jcc", code_cut_jcc, 5, 0);
            check_cut("16-bit jmp", code_cut_jmp, 3, 0);
            check_cut("16-bit call", code_cut_call, 4, 2);
        }
        struct cpu_state s;
        cpu_start(&s, code_cut_jcc_not, 0);
        run_to_end(&s, "16-bit jcc not taken");
        check_equal(s.eip, (uint32_t)code_cut_jcc_not_end + 2, "16-bit jcc not taken: eip");
        check_equal(fibonacci(18), 2584, "fibonacci");
        if (round & 1)
            touch_all_code();
    }
    return check_done("calls");
}
