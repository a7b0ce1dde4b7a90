/*
 * Timer interrupts in the middle of everything: loops of all kinds, at rings 0 and 3, each of which
 * has an invariant that must hold at the very instruction that was interrupted. Then the rules
 * about when an interrupt may come: STI's and MOV SS's shadow, POPF, IRET, HLT.
 */
#include "check.h"

enum { PIC1 = 0x20, PIC2 = 0xA0, PIT = 0x40, IRQ_BASE = 0x50, TICKS = 8 };

static volatile uint32_t ticks, goal;
static USER_DATA volatile uint32_t stop;
static void (*invariant)(const struct cpu_state *s);

static void pic_init(void)
{
    outb(PIC1, 0x11);
    outb(PIC2, 0x11);
    outb(PIC1 + 1, IRQ_BASE);
    outb(PIC2 + 1, IRQ_BASE + 8);
    outb(PIC1 + 1, 4);
    outb(PIC2 + 1, 2);
    outb(PIC1 + 1, 1);
    outb(PIC2 + 1, 1);
    outb(PIC2 + 1, 0xFF);
    outb(PIC1 + 1, 0xFE);
}

static void pit_rate(unsigned hertz)
{
    unsigned divisor = 1193182 / hertz;

    outb(PIT + 3, 0x34);
    outb(PIT, (uint8_t)divisor);
    outb(PIT, (uint8_t)(divisor >> 8));
}

static bool tick(struct cpu_state *s)
{
    ticks++;
    outb(PIC1, 0x20);
    if (invariant)
        invariant(s);
    if (ticks < goal)
        return true;
    stop = 1;
    /* Without an invariant of its own the code looks at `stop`; otherwise the run ends here. */
    return !invariant;
}

static void start(struct cpu_state *s, const char *code, unsigned ring,
                  void (*holds)(const struct cpu_state *s))
{
    cpu_start(s, code, ring);
    s->eflags |= FLAG_IF;
    ticks = 0;
    goal = TICKS;
    stop = 0;
    invariant = holds;
}

CODE(loop_tight, "1: jmp 1b");
CODE(loop_two, "1: incl %eax\nloop_two_mid: incl %ebx\nloop_two_jmp: jmp 1b");
CODE(loop_jcc, "1: addl $3, %eax\nloop_jcc_mid: subl $3, %ebx\nloop_jcc_jmp: jnz 1b\njmp 1b");
CODE(loop_push, "1: pushl %eax\nloop_push_mid: popl %ecx\nloop_push_jmp: jmp 1b");
CODE(loop_rep, "1: movl %edx, %edi\nloop_rep_ecx: movl $0x40000, %ecx\nloop_rep_at: rep stosb\n"
               "loop_rep_jmp: jmp 1b");
CODE(loop_movs,
     "1: movl %edx, %edi\nmovl %edx, %esi\nmovl $0x10000, %ecx\nloop_movs_at: rep movsl\n"
     "loop_movs_jmp: jmp 1b");
CODE(loop_flags, "1: jnc 2f\ncmc\ncmc\nincl %eax\ndecl %eax\njmp 1b\n2: ud2");
extern const char loop_two_mid[], loop_two_jmp[], loop_jcc_mid[], loop_jcc_jmp[], loop_push_mid[];
extern const char loop_push_jmp[], loop_rep_at[], loop_rep_jmp[], loop_movs_at[], loop_movs_jmp[];

/* These end by themselves, when `stop` is set. */
CODE(loop_recursion, "1: movl $200, %ecx\n"
                     "call 2f\n"
                     "incl %eax\n"
                     "cmpl $0, stop\n"
                     "je 1b\n"
                     "jmp loop_recursion_end\n"
                     "2: decl %ecx\n"
                     "jz 3f\n"
                     "call 2b\n"
                     "3: incl %ebx\n"
                     "ret");
CODE(loop_indirect, "1: movl %eax, %ecx\n"
                    "andl $3, %ecx\n"
                    "jmp *2f(,%ecx,4)\n"
                    ".balign 4\n"
                    "2: .long 3f, 4f, 5f, 6f\n"
                    "3: addl $1, %ebx\n"
                    "jmp 7f\n"
                    "4: addl $2, %ebx\n"
                    "jmp 7f\n"
                    "5: addl $3, %ebx\n"
                    "jmp 7f\n"
                    "6: addl $4, %ebx\n"
                    "7: incl %eax\n"
                    "testb $3, %al\n"
                    "jnz 1b\n"
                    "cmpl $0, stop\n"
                    "je 1b");
CODE(loop_loop, "1: movl $1000, %ecx\n"
                "2: incl %eax\n"
                "loop 2b\n"
                "incl %ebx\n"
                "cmpl $0, stop\n"
                "je 1b");

static void at(const struct cpu_state *s, bool ok, const char *what)
{
    check(ok, "%s: eip %08x eax %08x ebx %08x ecx %08x edi %08x esp %08x flags %x", what, s->eip,
          s->eax, s->ebx, s->ecx, s->edi, s->esp, s->eflags);
}

static void holds_tight(const struct cpu_state *s)
{
    at(s,
       s->eip == (uint32_t)loop_tight && s->eax == 0x01234567 && s->ecx == 0x89ABCDEF &&
           s->ebp == 0xDEADBEEF && (s->eflags & FLAGS_ARITH) == (FLAG_CF | FLAG_PF | FLAG_OF),
       "tight loop");
}

static void holds_two(const struct cpu_state *s)
{
    bool mid = s->eip == (uint32_t)loop_two_mid;
    at(s,
       s->eax == s->ebx + mid && s->eip >= (uint32_t)loop_two && s->eip <= (uint32_t)loop_two_jmp,
       "two counters");
}

static void holds_jcc(const struct cpu_state *s)
{
    bool mid = s->eip == (uint32_t)loop_jcc_mid;
    at(s, s->eax + s->ebx == (mid ? 3u : 0), "sum of two counters");
}

static void holds_push(const struct cpu_state *s)
{
    uint32_t top = (uint32_t)cpu_stack[s->cs & 3] + STACK_BYTES - 256;
    bool mid = s->eip == (uint32_t)loop_push_mid;
    at(s, s->esp == top - (mid ? 4 : 0) && s->ecx == 0x5555, "push and pop");
}

static void holds_rep(const struct cpu_state *s)
{
    uint32_t done = s->edi - s->edx;
    bool in = s->eip == (uint32_t)loop_rep_at, after = s->eip == (uint32_t)loop_rep_jmp;
    at(s, in ? done + s->ecx == 0x40000 : !after || (done == 0x40000 && s->ecx == 0), "rep stosb");
}

static void holds_movs(const struct cpu_state *s)
{
    uint32_t done = s->edi - s->edx;
    bool in = s->eip == (uint32_t)loop_movs_at, after = s->eip == (uint32_t)loop_movs_jmp;
    at(s,
       in ? s->esi == s->edi && done + 4 * s->ecx == 0x40000
          : !after || (done == 0x40000 && s->esi == s->edi && s->ecx == 0),
       "rep movsl");
}

static void holds_flags(const struct cpu_state *s)
{
    at(s, s->vector == IRQ_BASE && (s->eflags & FLAG_DF) && (s->eflags & FLAG_IF), "flags");
}

static void check_loops(unsigned ring)
{
    struct cpu_state s;

    start(&s, loop_tight, ring, holds_tight);
    s.eax = 0x01234567;
    s.ecx = 0x89ABCDEF;
    s.ebp = 0xDEADBEEF;
    s.eflags |= FLAG_CF | FLAG_PF | FLAG_OF;
    cpu_run(&s);
    check_trap(&s, IRQ_BASE, -1, loop_tight, "tight loop");

    start(&s, loop_two, ring, holds_two);
    cpu_run(&s);
    start(&s, loop_jcc, ring, holds_jcc);
    cpu_run(&s);
    start(&s, loop_push, ring, holds_push);
    s.eax = s.ecx = 0x5555;
    cpu_run(&s);
    start(&s, loop_rep, ring, holds_rep);
    s.edx = s.edi = 0x800000;
    cpu_run(&s);
    start(&s, loop_movs, ring, holds_movs);
    s.edx = s.esi = s.edi = 0x800000;
    cpu_run(&s);
    start(&s, loop_flags, ring, holds_flags);
    s.eflags |= FLAG_CF | FLAG_DF;
    cpu_run(&s);
    check_trap(&s, IRQ_BASE, -1, NULL, "carry in a loop");

    start(&s, loop_recursion, ring, NULL);
    uint32_t esp = s.esp;
    run_to_end(&s, "recursion");
    check_equal(s.ebx, s.eax * 200, "recursion: levels");
    check_equal(s.esp, esp, "recursion: esp");
    start(&s, loop_indirect, ring, NULL);
    run_to_end(&s, "indirect jumps");
    check_equal(s.ebx, s.eax / 4 * 10, "indirect jumps: sum");
    start(&s, loop_loop, ring, NULL);
    run_to_end(&s, "loop");
    check_equal(s.eax, s.ebx * 1000, "loop: count");
}

CODE(sti_shadow, "sti\nincl %eax\nsti_shadow_at: incl %eax");
CODE(sti_cli, "sti\ncli\nincl %eax\nsti\nnop\nsti_cli_at: incl %eax");
CODE(sti_hlt, "sti\nhlt\nsti_hlt_at: incl %eax");
CODE(sti_sti, "sti\nincl %eax\nsti\nincl %eax");
CODE(by_popf, "pushfl\norl $0x200, (%esp)\npopfl\nby_popf_at: incl %eax");
CODE(by_iret, "by_iret_at: incl %eax");
CODE(wait_hlt, "incl %eax\nhlt\nwait_hlt_at: incl %eax");
CODE(sti_call, "sti\ncall sti_call_at\nsti_call_at: incl %eax");
CODE(sti_fault, "sti\nsti_fault_at: ud2");
CODE(step_mov_ss, "movl %eax, %ss\nincl %ebx\nstep_mov_ss_at: incl %ebx");
CODE(step_pop_ss, "popl %ss\nincl %ebx\nstep_pop_ss_at: incl %ebx");
extern const char sti_shadow_at[], sti_cli_at[], sti_hlt_at[], by_popf_at[], by_iret_at[],
    wait_hlt_at[];
extern const char sti_call_at[], sti_fault_at[], step_mov_ss_at[], step_pop_ss_at[];

/* Until the timer's request is in the PIC, with interrupts off. */
static void wait_for_request(void)
{
    outb(PIC1, 0x0A);
    while (!(inb(PIC1) & 1))
        ;
}

/* The interrupt that is pending, or comes, must end the run at `eip`, with EAX instructions done.
 */
static void one_interrupt(const char *what, const char *code, unsigned ring, uint32_t flags,
                          const char *eip, uint32_t eax, bool pending)
{
    struct cpu_state s;

    cpu_start(&s, code, ring);
    s.eflags |= flags;
    ticks = 0;
    goal = 0;
    invariant = NULL;
    cpu_handle(IRQ_BASE, NULL);
    if (pending)
        wait_for_request();
    cpu_run(&s);
    cpu_handle(IRQ_BASE, tick);
    check_trap(&s, IRQ_BASE, -1, eip, what);
    check_equal(s.eax, eax, "%s: instructions done", what);
    check_equal(s.eflags & FLAG_IF, FLAG_IF, "%s: IF", what);
    if (s.vector == IRQ_BASE)
        outb(PIC1, 0x20);
}

static void check_rules(void)
{
    struct cpu_state s;

    for (unsigned ring = 0; ring < 4; ring += 3) {
        one_interrupt("sti", sti_shadow, ring, FLAG_IOPL, sti_shadow_at, 1, true);
        one_interrupt("sti, cli", sti_cli, ring, FLAG_IOPL, sti_cli_at, 1, true);
        one_interrupt("iret", by_iret, ring, FLAG_IF, by_iret_at, 0, true);
        one_interrupt("popf", by_popf, ring, FLAG_IOPL, by_popf_at, 0, true);
        one_interrupt("sti, call", sti_call, ring, FLAG_IOPL, sti_call_at, 0, true);
    }
    one_interrupt("sti, hlt with a request", sti_hlt, 0, 0, sti_hlt_at, 0, true);
    one_interrupt("sti, hlt", sti_hlt, 0, 0, sti_hlt_at, 0, false);
    /* The timer may be faster than the way to HLT, but not every time. */
    bool waited = false;
    for (unsigned i = 0; i < 50 && !waited; i++) {
        cpu_start(&s, wait_hlt, 0);
        s.eflags |= FLAG_IF;
        cpu_handle(IRQ_BASE, NULL);
        cpu_run(&s);
        cpu_handle(IRQ_BASE, tick);
        outb(PIC1, 0x20);
        waited = s.eax;
    }
    check_trap(&s, IRQ_BASE, -1, wait_hlt_at, "hlt");
    check_equal(s.eax, 1, "hlt: instructions done");

    /* With IF = 1 already, STI has no shadow; the first interrupt has come before it. */
    one_interrupt("sti with IF = 1", sti_sti, 0, FLAG_IF, sti_sti, 0, true);

    /* A fault in the shadow wins. */
    wait_for_request();
    cpu_start(&s, sti_fault, 0);
    cpu_run(&s);
    check_trap(&s, VEC_UD, -1, sti_fault_at, "fault behind sti");

    /* MOV SS and POP SS hold off single steps, too. */
    static const char *const code[] = {step_mov_ss, step_pop_ss}, *const end[] = {step_mov_ss_at,
                                                                                  step_pop_ss_at};
    for (unsigned i = 0; i < 4; i++) {
        unsigned ring = i & 1 ? 3 : 0;
        cpu_start(&s, code[i / 2], ring);
        s.eax = SEL_DATA(ring);
        *(uint32_t *)s.esp = SEL_DATA(ring);
        s.eflags |= FLAG_TF;
        cpu_run(&s);
        check_trap(&s, VEC_DB, -1, end[i / 2], "single step behind mov ss");
        check_equal(s.ebx, 1, "single step behind mov ss: ebx");
    }
}

/* Interrupts held off are not lost, and not counted twice. */
static void check_masking(void)
{
    struct cpu_state s;

    cpu_handle(IRQ_BASE, tick);
    start(&s, loop_loop, 0, NULL);
    s.eflags &= ~(uint32_t)FLAG_IF;
    stop = 1;
    wait_for_request();
    run_to_end(&s, "interrupts off");
    check_equal(ticks, 0, "interrupts off: ticks");
    outb(PIC1 + 1, 0xFF);
    start(&s, loop_loop, 0, NULL);
    stop = 1;
    run_to_end(&s, "PIC masked");
    check_equal(ticks, 0, "PIC masked: ticks");
    outb(PIC1 + 1, 0xFE);
    start(&s, loop_loop, 0, NULL);
    stop = 1;
    run_to_end(&s, "PIC open");
    check(ticks >= 1, "PIC open: %u ticks", ticks);
}

int guest_main(void)
{
    pic_init();
    pit_rate(1000);
    cpu_handle(IRQ_BASE, tick);
    for (unsigned round = 0; round < ROUNDS; round++) {
        check_loops(0);
        check_loops(3);
        check_rules();
        check_masking();
        if (round & 1)
            touch_all_code();
    }
    outb(PIC1 + 1, 0xFF);
    return check_done("interrupts");
}
