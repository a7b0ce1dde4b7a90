/*
 * Page faults: error codes and CR2, and that an instruction that faults has done nothing. Each case
 * is run three times: with all pages there, which gives the result to expect; with one page taken
 * away, where it must fault with every register, flag and byte of memory as before; and so again
 * with a handler that brings the page back and returns, where the result must be that of the first
 * run.
 *
 * Pages 0-5 stand at BASE. EBX points at page 1, ESI at page 2, EDI and EBP at page 3; ESP is the
 * start of page 5, so that pushes write page 4 and pops read page 5, whose first dwords make a
 * return address or an IRET frame.
 *
 * QEMU 7.2's TCG fails in RCR to a read-only page (it has changed the flags) and reads the stack of
 * far RET and IRET with supervisor rights; Bochs 2.7 runs an instruction whose second page INVLPG
 * has taken away. Each passes what the other fails.
 */
#include "check.h"
#include "paging.h"

enum { BASE = 0x40000000, PAGES = 6, DATA = 0x1000, CROSS = 0x1FFE };
#define PAGE(n) (BASE + 0x1000 * (uint32_t)(n))

static uint8_t frames[PAGES][4096] __attribute__((aligned(4096)));
static uint8_t snapshot[PAGES][4096], result[PAGES][4096];

enum how { ABSENT, READ_ONLY };
enum {
    ANY_W = 1,     /* the error code's W is not checked: a read-modify-write may read first */
    PAGE_ONLY = 2, /* CR2 is checked by the page: several accesses, in no given order */
    STACK = 4,     /* at ring 3 only: no stack for the trap at ring 0 */
    PARTLY = 8,    /* may have written part of its memory operands (PUSHA, ENTER) */
};

struct fault_case {
    const char *code;
    const char *name;
    uint8_t page;
    uint8_t how; /* enum how */
    uint8_t write;
    uint8_t flags;
    uint32_t cr2;
};

/* The faulting instruction is the first; the rest sees what it gave. */
#define INSN(id, text) CODE(id, text "\n")
INSN(i_load, "movl (%ebx), %eax");
INSN(i_load8, "movb (%ebx), %ah");
INSN(i_loadzx, "movzwl (%ebx), %ecx");
INSN(i_store, "movl %eax, (%ebx)");
INSN(i_store8, "movb %ch, 5(%ebx)");
INSN(i_storei, "movl $0x55AA55AA, 8(%ebx)");
INSN(i_add_load, "adcl (%ebx), %eax");
INSN(i_cmp, "cmpl %eax, (%ebx)");
INSN(i_test, "testl %eax, (%ebx)");
INSN(i_add, "addl %eax, (%ebx)");
INSN(i_adc, "adcl $5, (%ebx)");
INSN(i_inc, "incl (%ebx)");
INSN(i_neg, "negl (%ebx)");
INSN(i_not, "notl (%ebx)");
INSN(i_shl, "shll %cl, (%ebx)");
INSN(i_rcr, "rcrl $3, (%ebx)");
INSN(i_shld, "shldl $5, %eax, (%ebx)");
INSN(i_lock_add, "lock addl %eax, (%ebx)");
INSN(i_xchg, "xchgl %eax, (%ebx)");
INSN(i_xadd, "xaddl %eax, (%ebx)");
INSN(i_cmpxchg, "cmpxchgl %ecx, (%ebx)");
INSN(i_cmpxchg8b, "cmpxchg8b (%ebx)");
INSN(i_bts, "btsl $3, (%ebx)");
INSN(i_bts_reg, "btsl %eax, (%ebx)");
INSN(i_setcc, "setc (%ebx)");
INSN(i_mul, "mull (%ebx)");
INSN(i_div, "divl (%ebx)");
INSN(i_push_m, "pushl (%ebx)");
INSN(i_pop_m, "popl (%ebx)");
INSN(i_pop_esp, "popl 16(%esp)");
INSN(i_xlat, "xlatb");
INSN(i_bound, ".byte 0x62, 0x03");
INSN(i_sgdt, "sgdtl (%ebx)");
INSN(i_sldt, "sldt (%ebx)");
INSN(i_sreg, "movw %ds, (%ebx)");
INSN(i_verr, "verr (%ebx)");
INSN(i_lar, "larl (%ebx), %ecx");
INSN(i_lds, "ldsl (%ebx), %eax");
INSN(i_cross_load, "movl 0xFFE(%ebx), %eax");
INSN(i_cross_store, "movl %eax, 0xFFE(%ebx)");
INSN(i_cross_add, "addl %eax, 0xFFE(%ebx)");
INSN(i_cross_xchg, "xchgl %eax, 0xFFE(%ebx)");
INSN(i_push, "pushl %eax");
INSN(i_push16, "pushw %ax");
INSN(i_push_i, "pushl $0x12345678");
INSN(i_push_i8, "pushl $-2");
INSN(i_push_esp, "pushl %esp");
INSN(i_push_ds, "pushl %ds");
INSN(i_pushf, "pushfl");
INSN(i_pusha, "pushal");
INSN(i_call, "call 1f\n1: nop");
INSN(i_call_far_next, "call 1f\nnop\nnop\n1: nop");
INSN(i_call_r, "movl $1f, %ecx\nfault_call_r: call *%ecx\nnop\n1: nop");
INSN(i_enter, "enter $16, $0");
INSN(i_enter2, "enter $16, $2");
INSN(i_pop, "popl %eax");
INSN(i_pop16, "popw %ax");
INSN(i_popa, "popal");
INSN(i_popf, "popfl");
INSN(i_ret, "ret\nnop");
INSN(i_reti, "ret $8\nnop");
INSN(i_lret, "lret\nnop");
INSN(i_iret, "iret\nnop");
INSN(i_leave, "leave");
INSN(i_movs, "movsl");
INSN(i_stos, "stosl");
INSN(i_lods, "lodsl");
INSN(i_cmps, "cmpsl");
INSN(i_scas, "scasl");
INSN(i_jmp_m, "jmp *(%ebx)");
INSN(i_call_m, "call *(%ebx)");
INSN(i_fld, "fldl (%ebx)\nfault_fld: fstp %st(0)");

#define CASE(id, page, how, write, flags, cr2)                                                     \
    {                                                                                              \
        id, #id, page, how, write, flags, cr2                                                      \
    }
#define READS(id)  CASE(id, 1, ABSENT, 0, 0, BASE + DATA)
#define WRITES(id) CASE(id, 1, ABSENT, 1, 0, BASE + DATA), CASE(id, 1, READ_ONLY, 1, 0, BASE + DATA)
#define RMWS(id)                                                                                   \
    CASE(id, 1, ABSENT, 1, ANY_W, BASE + DATA), CASE(id, 1, READ_ONLY, 1, 0, BASE + DATA)
#define PUSHES(id)                                                                                 \
    CASE(id, 4, ABSENT, 1, STACK, PAGE(5) - 4), CASE(id, 4, READ_ONLY, 1, STACK, PAGE(5) - 4)
#define POPS(id) CASE(id, 5, ABSENT, 0, STACK, PAGE(5))

static const struct fault_case cases[] = {
    READS(i_load),
    READS(i_load8),
    READS(i_loadzx),
    WRITES(i_store),
    CASE(i_store8, 1, ABSENT, 1, 0, BASE + DATA + 5),
    CASE(i_store8, 1, READ_ONLY, 1, 0, BASE + DATA + 5),
    CASE(i_storei, 1, ABSENT, 1, 0, BASE + DATA + 8),
    CASE(i_storei, 1, READ_ONLY, 1, 0, BASE + DATA + 8),
    READS(i_add_load),
    READS(i_cmp),
    READS(i_test),
    RMWS(i_add),
    RMWS(i_adc),
    RMWS(i_inc),
    RMWS(i_neg),
    RMWS(i_not),
    RMWS(i_shl),
    RMWS(i_rcr),
    RMWS(i_shld),
    RMWS(i_lock_add),
    RMWS(i_xchg),
    RMWS(i_xadd),
    RMWS(i_cmpxchg),
    RMWS(i_cmpxchg8b),
    RMWS(i_bts),
    CASE(i_bts_reg, 1, ABSENT, 1, ANY_W | PAGE_ONLY, BASE + DATA),
    CASE(i_bts_reg, 1, READ_ONLY, 1, PAGE_ONLY, BASE + DATA),
    WRITES(i_setcc),
    READS(i_mul),
    READS(i_div),
    READS(i_push_m),
    CASE(i_push_m, 4, ABSENT, 1, STACK, PAGE(5) - 4),
    CASE(i_pop_m, 1, ABSENT, 1, STACK, BASE + DATA),
    CASE(i_pop_m, 1, READ_ONLY, 1, STACK, BASE + DATA),
    CASE(i_pop_m, 5, ABSENT, 0, STACK, PAGE(5)),
    POPS(i_pop_esp),
    CASE(i_xlat, 1, ABSENT, 0, PAGE_ONLY, BASE + DATA),
    READS(i_bound),
    CASE(i_sgdt, 1, ABSENT, 1, PAGE_ONLY, BASE + DATA),
    CASE(i_sgdt, 1, READ_ONLY, 1, PAGE_ONLY, BASE + DATA),
    WRITES(i_sldt),
    WRITES(i_sreg),
    READS(i_verr),
    READS(i_lar),
    CASE(i_lds, 1, ABSENT, 0, PAGE_ONLY, BASE + DATA),
    CASE(i_cross_load, 1, ABSENT, 0, 0, BASE + CROSS),
    CASE(i_cross_load, 2, ABSENT, 0, 0, PAGE(2)),
    CASE(i_cross_store, 1, ABSENT, 1, 0, BASE + CROSS),
    CASE(i_cross_store, 2, ABSENT, 1, 0, PAGE(2)),
    CASE(i_cross_store, 1, READ_ONLY, 1, 0, BASE + CROSS),
    CASE(i_cross_store, 2, READ_ONLY, 1, 0, PAGE(2)),
    CASE(i_cross_add, 1, ABSENT, 1, ANY_W, BASE + CROSS),
    CASE(i_cross_add, 2, ABSENT, 1, ANY_W, PAGE(2)),
    CASE(i_cross_add, 1, READ_ONLY, 1, 0, BASE + CROSS),
    CASE(i_cross_add, 2, READ_ONLY, 1, 0, PAGE(2)),
    CASE(i_cross_xchg, 1, READ_ONLY, 1, 0, BASE + CROSS),
    CASE(i_cross_xchg, 2, READ_ONLY, 1, 0, PAGE(2)),
    PUSHES(i_push),
    CASE(i_push16, 4, ABSENT, 1, STACK, PAGE(5) - 2),
    PUSHES(i_push_i),
    PUSHES(i_push_i8),
    PUSHES(i_push_esp),
    PUSHES(i_push_ds),
    PUSHES(i_pushf),
    CASE(i_pusha, 4, ABSENT, 1, STACK | PAGE_ONLY, PAGE(4)),
    PUSHES(i_call),
    PUSHES(i_call_far_next),
    CASE(i_enter, 4, ABSENT, 1, STACK | PAGE_ONLY, PAGE(4)),
    CASE(i_enter2, 4, ABSENT, 1, STACK | PAGE_ONLY, PAGE(4)),
    CASE(i_enter2, 2, ABSENT, 0, STACK | PARTLY, PAGE(3) - 4),
    POPS(i_pop),
    POPS(i_pop16),
    CASE(i_popa, 5, ABSENT, 0, STACK | PAGE_ONLY, PAGE(5)),
    POPS(i_popf),
    POPS(i_ret),
    POPS(i_reti),
    CASE(i_lret, 5, ABSENT, 0, STACK | PAGE_ONLY, PAGE(5)),
    CASE(i_iret, 5, ABSENT, 0, STACK | PAGE_ONLY, PAGE(5)),
    CASE(i_leave, 3, ABSENT, 0, 0, PAGE(3)),
    CASE(i_movs, 2, ABSENT, 0, 0, PAGE(2)),
    CASE(i_movs, 3, ABSENT, 1, 0, PAGE(3)),
    CASE(i_movs, 3, READ_ONLY, 1, 0, PAGE(3)),
    CASE(i_stos, 3, ABSENT, 1, 0, PAGE(3)),
    CASE(i_stos, 3, READ_ONLY, 1, 0, PAGE(3)),
    CASE(i_lods, 2, ABSENT, 0, 0, PAGE(2)),
    CASE(i_cmps, 2, ABSENT, 0, 0, PAGE(2)),
    CASE(i_cmps, 3, ABSENT, 0, 0, PAGE(3)),
    CASE(i_scas, 3, ABSENT, 0, 0, PAGE(3)),
    READS(i_jmp_m),
    READS(i_call_m),
    CASE(i_call_m, 4, ABSENT, 1, STACK, PAGE(5) - 4),
    READS(i_fld),
};

static unsigned rights;

static void map_all(void)
{
    for (unsigned i = 0; i < PAGES; i++)
        paging_map(PAGE(i), frames[i], PAGE_RW | rights);
}

static void break_page(const struct fault_case *k)
{
    paging_map(PAGE(k->page), frames[k->page], k->how == ABSENT ? 0 : (PAGE_P | rights) | PAGE_A);
}

/* Page 5 begins with what RET, lret and IRET take: the end of the code, CS, flags, ESP, SS. */
static void fill_pages(const struct fault_case *k, unsigned ring)
{
    const char *end = k->code;
    while (end[0] != (char)0xCD || end[1] != VECTOR_END)
        end++;
    static uint8_t pristine[PAGES][4096];
    if (!pristine[0][0]) {
        for (unsigned i = 0; i < PAGES; i++) {
            for (unsigned n = 0; n < 4096; n++)
                pristine[i][n] = (uint8_t)(n * 7 + i * 31 + 1);
        }
    }
    memcpy(frames, pristine, sizeof(frames));
    uint32_t *top = (uint32_t *)frames[5];
    top[0] = (uint32_t)end;
    top[1] = SEL_CODE(ring);
    top[2] = FLAG_ONE | FLAG_PF | FLAG_OF;
    uint32_t *data = (uint32_t *)frames[1];
    if (k->code == i_jmp_m || k->code == i_call_m)
        data[0] = (uint32_t)end;
    else if (k->code == i_verr || k->code == i_lar)
        data[0] = SEL_DATA(3);
    else if (k->code == i_bound)
        data[0] = 0;
    if (k->code == i_lds)
        *(uint16_t *)(frames[1] + 4) = SEL_DATA(3);
    if (k->code == i_leave)
        *(uint32_t *)frames[3] = 0x600DF00D;
    memcpy(snapshot, frames, sizeof(frames));
}

static void start(struct cpu_state *s, const struct fault_case *k, unsigned ring)
{
    cpu_start(s, k->code, ring);
    s->eax = 0x11;
    s->ecx = 0x03000003;
    s->edx = 1;
    s->ebx = BASE + DATA;
    s->esi = PAGE(2);
    s->edi = PAGE(3);
    s->ebp = PAGE(3);
    if (ring == 3)
        s->esp = PAGE(5);
    s->eflags |= FLAG_CF | FLAG_SF | FLAG_AF;
}

static const struct fault_case *current;
static unsigned handled;

static bool bring_back(struct cpu_state *s)
{
    (void)s;
    paging_map(PAGE(current->page), frames[current->page], PAGE_RW | rights);
    return ++handled < 10;
}

static bool same_state(const struct cpu_state *a, const struct cpu_state *b, uint32_t ignore_flags)
{
    return !memcmp(a, b, 12) && !memcmp(&a->ebx, &b->ebx, 16) && !memcmp(&a->gs, &b->gs, 16) &&
           a->esp == b->esp && a->ss == b->ss && a->cs == b->cs &&
           !((a->eflags ^ b->eflags) & ~(ignore_flags | FLAG_RF));
}

static void run_case(const struct fault_case *k, unsigned ring)
{
    struct cpu_state s, before, want;

    map_all();
    fill_pages(k, ring);
    start(&s, k, ring);
    before = s;
    cpu_run(&s);
    check_trap(&s, VEC_END, -1, NULL, k->name);
    want = s;
    memcpy(result, frames, sizeof(frames));

    fill_pages(k, ring);
    break_page(k);
    s = before;
    cpu_run(&s);
    unsigned error = (k->how == ABSENT ? 0 : PF_P) | (k->write ? PF_W : 0) | (ring == 3 ? PF_U : 0);
    if (k->flags & ANY_W)
        s.error = (s.error & ~(unsigned)PF_W) | (error & PF_W);
    check_trap(&s, VEC_PF, (int)error, k->code, k->name);
    uint32_t mask = k->flags & PAGE_ONLY ? 0xFFFFF000 : ~0u;
    check_equal(s.cr2 & mask, k->cr2 & mask, "%s at ring %u: cr2", k->name, ring);
    check(same_state(&s, &before, 0),
          "%s at ring %u, page %u: registers changed (esp %08x, %08x; eax %08x; flags %x, %x)",
          k->name, ring, k->page, s.esp, before.esp, s.eax, s.eflags, before.eflags);
    if (!(k->flags & PARTLY))
        check(!memcmp(frames, snapshot, sizeof(frames)), "%s at ring %u, page %u: memory changed",
              k->name, ring, k->page);

    fill_pages(k, ring);
    break_page(k);
    current = k;
    handled = 0;
    cpu_handle(VEC_PF, bring_back);
    s = before;
    cpu_run(&s);
    cpu_handle(VEC_PF, NULL);
    check_trap(&s, VEC_END, -1, (const void *)want.eip, k->name);
    check(handled == 1, "%s at ring %u: %u faults", k->name, ring, handled);
    check(same_state(&s, &want, 0), "%s at ring %u, page %u: another result after the fault",
          k->name, ring, k->page);
    check(!memcmp(frames, result, sizeof(frames)),
          "%s at ring %u, page %u: other memory after the fault", k->name, ring, k->page);
}

/* Runs of pushes and pops of which the third faults: the first two have happened. */
CODE(run_push, "pushl %eax\npushl %ecx\nrun_push_at: pushl %edx\npushl %ebx");
CODE(run_pop, "popl %eax\npopl %ecx\nrun_pop_at: popl %edx\npopl %ebx");
CODE(run_mixed, "pushl %eax\nmovl %esp, %esi\npushl $5\nrun_mixed_at: call 1f\n1: popl %ecx\n");
CODE(run_flags, "addl %eax, %eax\nmovl (%ebx), %ecx\n");
CODE(run_inc, "movl $7, %eax\nincl %eax\nrun_inc_at: movl %eax, (%ebx)\nincl %eax");
extern const char run_push_at[], run_pop_at[], run_mixed_at[], run_inc_at[];

static void check_runs(void)
{
    struct cpu_state s;

    rights = PAGE_U;
    map_all();
    paging_map(PAGE(4), frames[4], 0);
    cpu_start(&s, run_push, 3);
    s.esp = PAGE(5) + 8;
    s.eax = 1;
    s.ecx = 2;
    cpu_run(&s);
    check_trap(&s, VEC_PF, PF_U | PF_W, run_push_at, "third push");
    check_equal(s.esp, PAGE(5), "third push: esp");
    check_equal(s.cr2, PAGE(5) - 4, "third push: cr2");
    check(((uint32_t *)frames[5])[1] == 1 && ((uint32_t *)frames[5])[0] == 2, "third push: memory");

    cpu_start(&s, run_mixed, 3);
    s.esp = PAGE(5) + 8;
    cpu_run(&s);
    check_trap(&s, VEC_PF, PF_U | PF_W, run_mixed_at, "call after pushes");
    check_equal(s.esp, PAGE(5), "call after pushes: esp");
    check_equal(s.esi, PAGE(5) + 4, "call after pushes: esi");

    map_all();
    paging_map(PAGE(5), frames[5], 0);
    ((uint32_t *)frames[4])[1022] = 77;
    ((uint32_t *)frames[4])[1023] = 88;
    cpu_start(&s, run_pop, 3);
    s.esp = PAGE(5) - 8;
    s.edx = 99;
    cpu_run(&s);
    check_trap(&s, VEC_PF, PF_U, run_pop_at, "third pop");
    check(s.esp == PAGE(5) && s.eax == 77 && s.ecx == 88 && s.edx == 99, "third pop: registers");

    /* A push that crosses from one page into the other. */
    for (unsigned page = 4; page <= 5; page++) {
        map_all();
        paging_map(PAGE(page), frames[page], 0);
        cpu_start(&s, i_push, 3);
        s.esp = PAGE(5) + 2;
        cpu_run(&s);
        check_trap(&s, VEC_PF, PF_U | PF_W, i_push, "push across pages");
        check_equal(s.esp, PAGE(5) + 2, "push across pages: esp");
        check_equal(s.cr2, page == 4 ? PAGE(5) - 2 : PAGE(5), "push across pages: cr2");
    }

    /* The flags of an instruction before the fault. */
    map_all();
    paging_map(PAGE(1), frames[1], 0);
    cpu_start(&s, run_flags, 3);
    s.eax = 0x80000000;
    s.ebx = PAGE(1);
    cpu_run(&s);
    check_trap(&s, VEC_PF, PF_U, NULL, "flags before a fault");
    check_equal(s.eflags & FLAGS_ARITH, FLAG_CF | FLAG_OF | FLAG_ZF | FLAG_PF,
                "flags before a fault");
    cpu_start(&s, run_inc, 3);
    s.ebx = PAGE(1);
    cpu_run(&s);
    check_trap(&s, VEC_PF, PF_U | PF_W, run_inc_at, "store after inc");
    check_equal(s.eax, 8, "store after inc: eax");
}

/* Instruction fetch: a jump to a page that is not there, and an instruction that runs into one. */
static void check_fetch(unsigned ring)
{
    static const char *const ways[] = {"jump", "call", "return", "fall"};
    static const uint8_t code[] = {0xB8, 0x78, 0x56, 0x34, 0x12, 0xCD, VECTOR_END};
    struct cpu_state s;

    rights = ring == 3 ? PAGE_U : 0;
    for (uint32_t split = 0; split < 6; split++) {
        map_all();
        uint32_t at = PAGE(2) - split;
        memcpy(frames[1] + 4096 - split, code, split);
        memcpy(frames[2], code + split, sizeof(code) - split);
        for (unsigned warm = 0; warm < 2; warm++) {
            paging_map(PAGE(2), frames[2], 0);
            cpu_start(&s, (const void *)at, ring);
            cpu_run(&s);
            check_trap(&s, VEC_PF, ring == 3 ? PF_U : 0, (const void *)(split == 5 ? PAGE(2) : at),
                       ways[3]);
            check_equal(s.cr2, PAGE(2), "fetch split at %u: cr2", split);
            check_equal(s.eax, split == 5 ? 0x12345678 : 0, "fetch split at %u: eax", split);
            paging_map(PAGE(2), frames[2], PAGE_RW | rights);
            cpu_start(&s, (const void *)at, ring);
            run_to_end(&s, "fetch after the page came");
            check_equal(s.eax, 0x12345678, "fetch after the page came: eax");
        }
    }
    /* A supervisor page from ring 3. */
    if (ring == 3) {
        paging_map(PAGE(2), frames[2], PAGE_RW);
        cpu_start(&s, (const void *)PAGE(2), 3);
        cpu_run(&s);
        check_trap(&s, VEC_PF, PF_P | PF_U, (const void *)PAGE(2), "fetch of a supervisor page");
    }
}

/* Ring 3 and supervisor pages: reads and writes. */
static void check_rights(void)
{
    struct cpu_state s;

    rights = PAGE_U;
    map_all();
    paging_map(PAGE(1), frames[1], PAGE_RW);
    cpu_start(&s, i_load, 3);
    s.ebx = PAGE(1);
    cpu_run(&s);
    check_trap(&s, VEC_PF, PF_P | PF_U, i_load, "read of a supervisor page");
    cpu_start(&s, i_store, 3);
    s.ebx = PAGE(1);
    cpu_run(&s);
    check_trap(&s, VEC_PF, PF_P | PF_U | PF_W, i_store, "write of a supervisor page");
}

int guest_main(void)
{
    paging_init();
    __asm__ volatile("fninit");
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
            rights = PAGE_U;
            run_case(&cases[i], 3);
            if (cases[i].flags & STACK)
                continue;
            run_case(&cases[i], 0);
            rights = 0;
            run_case(&cases[i], 0);
        }
        check_runs();
        check_fetch(0);
        check_fetch(3);
        check_rights();
        if (round & 1)
            touch_all_code();
    }
    return check_done("faults");
}
