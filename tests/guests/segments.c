/*
 * Segments that are not flat: bases, limits of every kind, rights, stacks of 16 bits, based code,
 * strings through based ES, addresses that wrap at 4 GiB and at 64 KiB.
 *
 * Bochs passes. QEMU's TCG checks neither limits nor rights of segments, so only the cases without
 * a fault hold there.
 */
#include "check.h"

enum {
    AREA = 0x900000, /* where the based segments lie: 128 KiB of memory, filled by fill() */
    SEL_BASED = SEL_FREE,
    SEL_SMALL = SEL_FREE + 8,   /* bytes 0-FFF */
    SEL_DOWN = SEL_FREE + 16,   /* from 1000 up, to 4G */
    SEL_DOWN16 = SEL_FREE + 24, /* from 1000 to FFFF */
    SEL_RO = SEL_FREE + 32,
    SEL_WRAP = SEL_FREE + 40,    /* base FFFF0000: offset 10000 + n is n */
    SEL_STACK16 = SEL_FREE + 48, /* B = 0 */
    SEL_CODE_BASED = SEL_FREE + 56,
    SEL_CODE_SHORT = SEL_FREE + 64,
    SEL_CODE_XO = SEL_FREE + 72,
    SEL_PAGES = SEL_FREE + 80, /* limit 0 with G: bytes 0-FFF */
    SEL_OTHER = SEL_FREE + 88, /* base AREA + 10000h */
};

/* What the offsets of based code count from. */
CODE(code_base, "nop");

static uint32_t word_at(uint32_t address)
{
    return *(volatile uint32_t *)address;
}

static uint32_t pattern(uint32_t address)
{
    return address * 0x9E3779B1u ^ 0x5A5A1234;
}

static void fill(void)
{
    static uint32_t pristine[0x20000 / 4];

    if (!pristine[1]) {
        for (uint32_t i = 0; i < ARRAY_LEN(pristine); i++)
            pristine[i] = pattern(AREA + 4 * i);
        memcpy((void *)AREA, pristine, sizeof(pristine));
    }
    /* What the cases change and rely on. */
    memcpy((void *)AREA, pristine, 0x1200);
    memcpy((void *)(AREA + 0x10000), pristine + 0x4000, 0x600);
    memcpy((void *)(AREA + 0xFF00), (uint8_t *)pristine + 0xFF00, 0x100);
}

static void set(unsigned selector, uint32_t base, uint32_t limit, unsigned access, unsigned flags,
                unsigned ring)
{
    cpu_gdt[selector / 8] = cpu_segment(base, limit, access | DESC_DPL(ring), flags);
}

static void make_segments(unsigned ring)
{
    set(SEL_BASED, AREA, 0xFFFFF, DESC_DATA, DESC_G | DESC_DB, ring);
    set(SEL_SMALL, AREA, 0xFFF, DESC_DATA, DESC_DB, ring);
    set(SEL_DOWN, AREA, 0xFFF, DESC_DATA_DOWN, DESC_DB, ring);
    set(SEL_DOWN16, AREA, 0xFFF, DESC_DATA_DOWN, 0, ring);
    set(SEL_RO, AREA, 0xFFFFF, DESC_DATA_RO, DESC_G | DESC_DB, ring);
    set(SEL_WRAP, 0xFFFF0000, 0xFFFFF, DESC_DATA, DESC_G | DESC_DB, ring);
    set(SEL_STACK16, AREA, 0xFFFF, DESC_DATA, 0, ring);
    set(SEL_CODE_BASED, (uint32_t)code_base, 0xFFFFF, DESC_CODE, DESC_G | DESC_DB, ring);
    set(SEL_CODE_XO, (uint32_t)code_base, 0xFFFFF, DESC_CODE_XO, DESC_G | DESC_DB, ring);
    set(SEL_PAGES, AREA, 0, DESC_DATA, DESC_G | DESC_DB, ring);
    set(SEL_OTHER, AREA + 0x10000, 0xFFFFF, DESC_DATA, DESC_G | DESC_DB, ring);
}

CODE(ds_load, "movl (%ebx), %eax");
CODE(ds_load8, "movzbl (%ebx), %eax");
CODE(ds_load16, "movzwl (%ebx), %eax");
CODE(ds_load64, "fldl (%ebx)\nfstp %st(0)");
CODE(ds_disp, "movl 0x10(%ebx,%esi,4), %eax");
CODE(ds_store, "movl %ecx, (%ebx)");
CODE(ds_store8, "movb %cl, (%ebx)");
CODE(ds_add, "addl %ecx, (%ebx)");
CODE(ds_xchg, "xchgl %ecx, (%ebx)");
CODE(ds_cmpxchg8b, "cmpxchg8b (%ebx)");
CODE(ds_inc8, "incb (%ebx)");
CODE(fs_load, "movl %fs:(%ebx), %eax");
CODE(gs_store, "movl %ecx, %gs:(%ebx)");
CODE(es_add, "addl %ecx, %es:(%ebx)");
CODE(ds_moffs, "movl 0x40, %eax");
CODE(ds_push, "pushl (%ebx)\npopl %eax");
CODE(ds_call, "call *(%ebx)");
CODE(ds_ebp, "movl %ds:(%ebp), %eax");
CODE(ss_ebp, "movl (%ebp), %eax");
CODE(ss_esp, "movl 4(%esp), %eax");
CODE(ds_xlat, "xlatb");
CODE(ds_bt, "btsl %ecx, (%ebx)\nsbbl %eax, %eax");
CODE(cs_load, "movl %cs:(%ebx), %eax");
CODE(cs_store, "movl %ecx, %cs:(%ebx)");

struct seg_case {
    const char *name, *code;
    uint16_t selector; /* for every data register and, with `stack`, SS */
    uint32_t ebx;
    uint8_t vector;
    uint8_t read; /* EAX must be what is at AREA + ebx */
};

#define OK(code, selector, ebx)                                                                    \
    {                                                                                              \
#code " " #selector " " #ebx, code, selector, ebx, VEC_END, 1                              \
    }
#define DONE(code, selector, ebx)                                                                  \
    {                                                                                              \
#code " " #selector " " #ebx, code, selector, ebx, VEC_END, 0                              \
    }
#define GP(code, selector, ebx)                                                                    \
    {                                                                                              \
#code " " #selector " " #ebx, code, selector, ebx, VEC_GP, 0                               \
    }

static const struct seg_case cases[] = {
    OK(ds_load, SEL_BASED, 0),
    OK(ds_load, SEL_BASED, 0x12344),
    OK(fs_load, SEL_BASED, 0x100),
    DONE(gs_store, SEL_BASED, 0x104),
    DONE(es_add, SEL_BASED, 0x108),
    DONE(ds_add, SEL_BASED, 0x10C),
    DONE(ds_xchg, SEL_BASED, 0x110),
    /* Expand-up, by the byte. */
    OK(ds_load, SEL_SMALL, 0),
    OK(ds_load, SEL_SMALL, 0xFFC),
    GP(ds_load, SEL_SMALL, 0xFFD),
    GP(ds_load, SEL_SMALL, 0xFFF),
    GP(ds_load, SEL_SMALL, 0x1000),
    GP(ds_load, SEL_SMALL, 0x80000000),
    GP(ds_load, SEL_SMALL, 0xFFFFFFFC),
    GP(ds_load, SEL_SMALL, 0xFFFFFFFE),
    DONE(ds_load8, SEL_SMALL, 0xFFF),
    GP(ds_load8, SEL_SMALL, 0x1000),
    DONE(ds_load16, SEL_SMALL, 0xFFE),
    GP(ds_load16, SEL_SMALL, 0xFFF),
    DONE(ds_load64, SEL_SMALL, 0xFF8),
    GP(ds_load64, SEL_SMALL, 0xFFC),
    DONE(ds_store, SEL_SMALL, 0xFFC),
    GP(ds_store, SEL_SMALL, 0xFFE),
    DONE(ds_store8, SEL_SMALL, 0xFFF),
    GP(ds_store8, SEL_SMALL, 0x1000),
    GP(ds_add, SEL_SMALL, 0xFFD),
    GP(ds_inc8, SEL_SMALL, 0x1000),
    GP(ds_xchg, SEL_SMALL, 0x1000),
    GP(ds_cmpxchg8b, SEL_SMALL, 0xFFC),
    GP(es_add, SEL_SMALL, 0x1FF0),
    GP(gs_store, SEL_SMALL, 0x1000),
    GP(fs_load, SEL_SMALL, 0x1000),
    GP(ds_push, SEL_SMALL, 0xFFE),
    GP(ds_call, SEL_SMALL, 0xFFE),
    OK(ds_load, SEL_PAGES, 0xFFC),
    GP(ds_load, SEL_PAGES, 0x1000),
    /* Expand-down: above the limit. */
    OK(ds_load, SEL_DOWN, 0x1000),
    OK(ds_load, SEL_DOWN, 0x10000),
    GP(ds_load, SEL_DOWN, 0xFFF),
    GP(ds_load, SEL_DOWN, 0xFFC),
    GP(ds_load, SEL_DOWN, 0),
    GP(ds_store, SEL_DOWN, 0xFFF),
    DONE(ds_store, SEL_DOWN, 0x1000),
    GP(ds_add, SEL_DOWN, 4),
    OK(ds_load, SEL_DOWN16, 0x1000),
    OK(ds_load, SEL_DOWN16, 0xFFFC),
    GP(ds_load, SEL_DOWN16, 0xFFFD),
    GP(ds_load, SEL_DOWN16, 0x10000),
    GP(ds_load, SEL_DOWN16, 0xFFF),
    /* Rights, and no segment at all. */
    OK(ds_load, SEL_RO, 0x20),
    GP(ds_store, SEL_RO, 0x20),
    GP(ds_add, SEL_RO, 0x20),
    GP(ds_xchg, SEL_RO, 0x20),
    GP(gs_store, SEL_RO, 0x20),
    GP(ds_load, 0, 0),
    GP(ds_store, 0, AREA),
    GP(fs_load, 0, AREA),
    GP(gs_store, 0, AREA),
    GP(es_add, 0, AREA),
};

static void start(struct cpu_state *s, const char *code, unsigned ring, unsigned selector)
{
    cpu_start(s, code, ring);
    if (selector)
        selector |= ring;
    s->ds = s->es = s->fs = s->gs = selector;
    s->eax = 0x0BADF00D;
    s->ecx = 0x11223344;
    s->eflags |= FLAG_CF | FLAG_ZF;
}

static void check_data(unsigned ring)
{
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        const struct seg_case *k = &cases[i];
        struct cpu_state s, before;
        uint32_t address = AREA + k->ebx;
        fill();
        start(&s, k->code, ring, k->selector);
        s.ebx = k->ebx;
        before = s;
        cpu_run(&s);
        check_trap(&s, k->vector, k->vector == VEC_END ? -1 : 0,
                   k->vector == VEC_END ? NULL : k->code, k->name);
        if (k->vector != VEC_END) {
            check(s.eax == before.eax && s.ecx == before.ecx && s.esp == before.esp &&
                      !((s.eflags ^ before.eflags) & ~(uint32_t)FLAG_RF),
                  "%s: registers changed", k->name);
            check_equal(word_at(AREA + 0xFFC), pattern(AREA + 0xFFC), "%s: memory at the limit",
                        k->name);
            check_equal(word_at(AREA + 0x1000), pattern(AREA + 0x1000), "%s: memory past it",
                        k->name);
        } else if (k->read) {
            check_equal(s.eax, pattern(address), "%s: value", k->name);
        } else if (k->code == ds_store || k->code == gs_store) {
            check_equal(word_at(address), 0x11223344, "%s: stored", k->name);
        } else if (k->code == ds_add || k->code == es_add) {
            check_equal(word_at(address), pattern(address) + 0x11223344, "%s: added", k->name);
        }
    }
}

/* Effective addresses are cut to 32 bits before the base is added, linear ones after. */
static void check_wrap(unsigned ring)
{
    struct cpu_state s;

    fill();
    start(&s, ds_disp, ring, SEL_BASED);
    s.ebx = 0xFFFFFF00;
    s.esi = 0x40;
    run_to_end(&s, "offset wraps");
    check_equal(s.eax, pattern(AREA + 0x10), "offset wraps");

    start(&s, ds_load, ring, SEL_WRAP);
    s.ebx = AREA + 0x10000 + 0x20;
    run_to_end(&s, "linear address wraps");
    check_equal(s.eax, pattern(AREA + 0x20), "linear address wraps");

    start(&s, ds_store, ring, SEL_WRAP);
    s.ebx = AREA + 0x10000 + 0x24;
    run_to_end(&s, "linear address wraps, store");
    check_equal(word_at(AREA + 0x24), 0x11223344, "linear address wraps, store");

    volatile uint32_t null = 0;
    uint32_t kept = word_at(null);
    *(volatile uint16_t *)null = 0xBEEF;
    start(&s, ds_load, ring, SEL_WRAP);
    s.ebx = 0x10000;
    run_to_end(&s, "linear 0");
    check_equal(s.eax & 0xFFFF, 0xBEEF, "linear 0");
    *(volatile uint32_t *)null = kept;

    start(&s, ds_moffs, ring, SEL_BASED);
    run_to_end(&s, "moffs");
    check_equal(s.eax, pattern(AREA + 0x40), "moffs");

    start(&s, ds_xlat, ring, SEL_BASED);
    s.eax = 0x07;
    s.ebx = 0x1001;
    run_to_end(&s, "xlat");
    check_equal(s.eax, pattern(AREA + 0x1008) & 0xFF, "xlat");

    /* BT with a register reaches 2^28 bytes to either side of its operand. */
    for (unsigned i = 0; i < 2; i++) {
        uint32_t bit = i ? 8 * 0x1000 + 3 : (uint32_t)(-8 * 0x1000 + 3);
        uint32_t at = AREA + 0x4000 + (i ? 0x1000 : -0x1000);
        *(volatile uint32_t *)at &= ~8u;
        start(&s, ds_bt, ring, SEL_BASED);
        s.ebx = 0x4000;
        s.ecx = bit;
        run_to_end(&s, "bts");
        check_equal(s.eax, 0, "bts: old bit");
        check_equal(word_at(at) & 8, 8, "bts: new bit");
    }
    /* EBP and ESP go by SS unless DS is said. */
    fill();
    start(&s, ds_ebp, ring, SEL_BASED);
    s.ebp = 0x30;
    run_to_end(&s, "ebp with ds");
    check_equal(s.eax, pattern(AREA + 0x30), "ebp with ds");
    start(&s, ss_ebp, ring, SEL_BASED);
    s.ebp = AREA + 0x34;
    run_to_end(&s, "ebp with ss");
    check_equal(s.eax, pattern(AREA + 0x34), "ebp with ss");
    start(&s, ss_esp, ring, SEL_BASED);
    *(uint32_t *)(s.esp + 4) = 1234;
    run_to_end(&s, "esp with ss");
    check_equal(s.eax, 1234, "esp with ss");
}

CODE(stack_all, "movl %edx, %esp\n"
                "pushl $0x11111111\n"
                "pushw $0x2222\n"
                "call 1f\n"
                "addl $1, %ecx\n"
                "jmp 2f\n"
                "1: enter $8, $0\n"
                "movl %ecx, -4(%ebp)\n"
                "movl -4(%ebp), %edx\n"
                "leave\n"
                "ret\n"
                "2: pushal\n"
                "addl $32, %esp\n"
                "pushfl\n"
                "popl %edi\n"
                "popw %ax\n"
                "popl %ebx");
/* IRET to a 16-bit stack leaves the upper half of ESP (SDM 2A, IRET), so these load all of it. */
CODE(small_push, "movl %edx, %esp\npushl %ecx");
CODE(small_pop, "movl %edx, %esp\npopl %eax");
CODE(small_call, "movl %edx, %esp\ncall small_call_end");
CODE(small_ret, "movl %edx, %esp\nret");
CODE(small_leave, "movl %edx, %esp\nleave");
CODE(stack_push, "pushl %ecx");
CODE(stack_pop, "popl %eax");
CODE(stack_call, "call stack_call_end");
CODE(stack_ret, "ret");
CODE(stack_pusha, "pushal");
CODE(stack_enter, "enter $16, $0");
CODE(stack_leave, "leave");

/* Stacks that are not flat, at ring 3, where traps take another one. */
static void check_stacks(void)
{
    static const uint16_t selectors[] = {SEL_BASED, SEL_STACK16, SEL_DOWN, SEL_WRAP};
    struct cpu_state s;

    for (unsigned i = 0; i < ARRAY_LEN(selectors); i++) {
        fill();
        uint32_t base = selectors[i] == SEL_WRAP ? 0xFFFF0000 : AREA;
        start(&s, stack_all, 3, SEL_BASED);
        s.ss = selectors[i] | 3;
        s.esp = selectors[i] == SEL_WRAP ? AREA + 0x18000 : 0x8000;
        uint32_t esp = s.edx = s.esp;
        run_to_end(&s, "stack");
        check_equal(s.esp, esp, "stack %x: esp", selectors[i]);
        check(s.ebx == 0x11111111 && (s.eax & 0xFFFF) == 0x2222 && s.edx == 0x11223344,
              "stack %x: values", selectors[i]);
        check_equal(word_at(base + esp - 4), 0x11111111, "stack %x: memory", selectors[i]);
    }

    /* SP of 16 bits: it wraps, and the upper half of ESP stays. */
    fill();
    start(&s, small_push, 3, SEL_BASED);
    s.ss = SEL_STACK16 | 3;
    s.edx = 0xABCD0000;
    run_to_end(&s, "push at sp = 0");
    check_equal(s.esp, 0xABCDFFFC, "push at sp = 0: esp");
    check_equal(word_at(AREA + 0xFFFC), 0x11223344, "push at sp = 0: memory");
    start(&s, small_pop, 3, SEL_BASED);
    s.ss = SEL_STACK16 | 3;
    s.edx = 0xABCDFFFC;
    run_to_end(&s, "pop at sp = fffc");
    check_equal(s.esp, 0xABCD0000, "pop at sp = fffc: esp");
    check_equal(s.eax, 0x11223344, "pop at sp = fffc: value");
    start(&s, small_call, 3, SEL_BASED);
    s.ss = SEL_STACK16 | 3;
    s.edx = 0xABCD0010;
    run_to_end(&s, "call with sp");
    check_equal(s.esp, 0xABCD000C, "call with sp: esp");
    check_equal(word_at(AREA + 0xC), (uint32_t)small_call_end, "call with sp: memory");
    *(volatile uint32_t *)(AREA + 0x20) = (uint32_t)small_ret_end;
    start(&s, small_ret, 3, SEL_BASED);
    s.ss = SEL_STACK16 | 3;
    s.edx = 0x12340020;
    run_to_end(&s, "ret with sp");
    check_equal(s.esp, 0x12340024, "ret with sp: esp");
    *(volatile uint32_t *)(AREA + 0x40) = 0x99887766;
    start(&s, small_leave, 3, SEL_BASED);
    s.ss = SEL_STACK16 | 3;
    s.edx = 0x12345678;
    s.ebp = 0xFFFF0040;
    run_to_end(&s, "leave with bp");
    check_equal(s.esp, 0x12340044, "leave with bp: esp");
    check_equal(s.ebp, 0x99887766, "leave with bp: ebp");

    /* Limits of stacks: #SS(0), and nothing done. */
    static const struct {
        const char *code, *name;
        uint16_t ss;
        uint32_t esp, ebp;
    } faults[] = {
        {stack_push, "push below an expand-up stack", SEL_SMALL, 0, 0},
        {stack_push, "push at the top of it", SEL_SMALL, 0x1004, 0},
        {stack_push, "push half out", SEL_SMALL, 2, 0},
        {stack_pop, "pop past the limit", SEL_SMALL, 0x1000, 0},
        {stack_pop, "pop half past the limit", SEL_SMALL, 0xFFD, 0},
        {stack_call, "call", SEL_SMALL, 2, 0},
        {stack_ret, "ret", SEL_SMALL, 0xFFE, 0},
        {stack_pusha, "pusha", SEL_SMALL, 16, 0},
        {stack_enter, "enter", SEL_SMALL, 2, 0},
        {stack_leave, "leave", SEL_SMALL, 0x100, 0xFFE},
        {stack_push, "push into the limit of an expand-down stack", SEL_DOWN, 0x1002, 0},
        {stack_pop, "pop below it", SEL_DOWN, 0xFFC, 0},
        {ss_ebp, "ebp", SEL_SMALL, 0x100, 0xFFE},
        {ss_esp, "esp", SEL_SMALL, 0xFFA, 0},
    };
    for (unsigned i = 0; i < ARRAY_LEN(faults); i++) {
        start(&s, faults[i].code, 3, SEL_BASED);
        s.ss = faults[i].ss | 3;
        s.esp = faults[i].esp;
        s.ebp = faults[i].ebp;
        cpu_run(&s);
        check_trap(&s, VEC_SS, 0, faults[i].code, faults[i].name);
        check_equal(s.esp, faults[i].esp, "%s: esp", faults[i].name);
        check_equal(s.ebp, faults[i].ebp, "%s: ebp", faults[i].name);
    }
}

CODE(string_movs, "rep movsl");
CODE(string_movs_fs, "rep movsb %fs:(%esi), (%edi)");
CODE(string_stos, "rep stosl");
CODE(string_cmps, "repe cmpsb");
CODE(string_scas, "repne scasb");
CODE(string_lods, "rep lodsl");

static void check_strings(unsigned ring)
{
    struct cpu_state s;

    for (unsigned down = 0; down < 2; down++) {
        fill();
        start(&s, string_movs, ring, SEL_BASED);
        s.es = SEL_OTHER | ring;
        s.esi = s.edi = 0x200;
        s.ecx = 16;
        s.eflags |= down ? FLAG_DF : 0;
        run_to_end(&s, "rep movs between segments");
        int step = down ? -4 : 4;
        for (int i = 0; i < 16; i++)
            check_equal(word_at(AREA + 0x10200 + (uint32_t)(i * step)),
                        pattern(AREA + 0x200 + (uint32_t)(i * step)),
                        "rep movs between segments: dword %d", i);
        check_equal(s.esi, 0x200 + (uint32_t)(16 * step), "rep movs: esi");
        check_equal(s.edi, 0x200 + (uint32_t)(16 * step), "rep movs: edi");
        check_equal(s.ecx, 0, "rep movs: ecx");
    }
    fill();
    start(&s, string_movs_fs, ring, SEL_BASED);
    s.fs = SEL_OTHER | ring;
    s.esi = 0x300;
    s.edi = 0x400;
    s.ecx = 8;
    run_to_end(&s, "movs with fs");
    check_equal(word_at(AREA + 0x404), pattern(AREA + 0x10304), "movs with fs");
    start(&s, string_stos, ring, SEL_BASED);
    s.ds = 0;
    s.edi = 0x500;
    s.ecx = 4;
    run_to_end(&s, "stos");
    check_equal(word_at(AREA + 0x50C), 0x0BADF00D, "stos");
    start(&s, string_scas, ring, SEL_BASED);
    s.ds = 0;
    s.eax = pattern(AREA + 0x600) >> 24;
    *(volatile uint32_t *)(AREA + 0x600) = pattern(AREA + 0x600) & 0xFF000000;
    s.edi = 0x600;
    s.ecx = 100;
    run_to_end(&s, "scas");
    check_equal(s.edi, 0x604, "scas: edi");

    /* Over a limit in the middle: the elements before it are done. */
    fill();
    start(&s, string_stos, ring, SEL_SMALL);
    s.edi = 0xFF0;
    s.ecx = 8;
    cpu_run(&s);
    check_trap(&s, VEC_GP, 0, string_stos, "stos over the limit");
    check(s.edi == 0x1000 && s.ecx == 4, "stos over the limit: edi %x ecx %x", s.edi, s.ecx);
    check_equal(word_at(AREA + 0xFFC), 0x0BADF00D, "stos over the limit: last dword");
    check_equal(word_at(AREA + 0x1000), pattern(AREA + 0x1000), "stos over the limit: next dword");
    start(&s, string_movs, ring, SEL_SMALL);
    s.es = SEL_OTHER | ring;
    s.esi = 0xFF8;
    s.edi = 0;
    s.ecx = 9;
    cpu_run(&s);
    check_trap(&s, VEC_GP, 0, string_movs, "movs over the limit");
    check(s.esi == 0x1000 && s.edi == 8 && s.ecx == 7, "movs over the limit: esi %x ecx %x", s.esi,
          s.ecx);
    start(&s, string_movs, ring, SEL_BASED);
    s.es = SEL_RO | ring;
    s.esi = s.edi = 0;
    s.ecx = 3;
    cpu_run(&s);
    check_trap(&s, VEC_GP, 0, string_movs, "movs to a read-only segment");
    check(s.esi == 0 && s.edi == 0 && s.ecx == 3, "movs to a read-only segment: registers");
    /* No element: no check. */
    start(&s, string_stos, ring, 0);
    s.ecx = 0;
    run_to_end(&s, "stos of nothing");
}

CODE(code_tour, "call 1f\n"
                "movl $2f - code_base, %edx\n"
                "call *%edx\n"
                "jmp *%cs:3f - code_base\n"
                "ud2\n"
                "1: incl %ecx\n"
                "ret\n"
                "2: addl $2, %ecx\n"
                "movl (%esp), %ebx\n"
                "ret\n"
                ".balign 4\n"
                "3: .long 4f - code_base\n"
                "4: movl $10, %esi\n"
                "5: addl $16, %ecx\n"
                "decl %esi\n"
                "jnz 5b");
CODE(code_fault, "nop\ncode_fault_at: ud2");
CODE(code_edge, "movl $1, %eax\ncode_edge_at: movl $2, %eax\nnop");
CODE(code_jump_out, "code_jump_out_at: jmp *%ebx");
CODE(code_call_out, "call *%ebx");
CODE(code_ret_out, "ret");
CODE(code_last, "nop");
extern const char code_fault_at[], code_edge_at[];

static void start_based(struct cpu_state *s, const char *code, unsigned ring, unsigned cs)
{
    cpu_start(s, (const void *)(code - code_base), ring);
    s->cs = cs | ring;
}

/* Code with a base; the offsets are from code_base. */
static void check_code(unsigned ring)
{
    struct cpu_state s;

    start_based(&s, code_tour, ring, SEL_CODE_BASED);
    run_to_end(&s, "based code");
    check_equal(s.ecx, 1 + 2 + 160, "based code: count");
    check_equal(s.eip, (uint32_t)(code_tour_end - code_base) + 2, "based code: eip");
    check((s.ebx & 0xFFFFF000) == ((uint32_t)(code_tour - code_base) & 0xFFFFF000),
          "based code: return");
    start_based(&s, code_fault, ring, SEL_CODE_BASED);
    cpu_run(&s);
    check_trap(&s, VEC_UD, 0, (const void *)(code_fault_at - code_base), "based code that faults");

    /* Reads through CS: of code that may be read, and of code that may not; never writes. */
    start_based(&s, cs_load, ring, SEL_CODE_BASED);
    s.ebx = (uint32_t)(cs_load - code_base);
    run_to_end(&s, "read through cs");
    check_equal(s.eax, word_at((uint32_t)cs_load), "read through cs");
    start_based(&s, cs_load, ring, SEL_CODE_XO);
    cpu_run(&s);
    check_trap(&s, VEC_GP, 0, (const void *)(cs_load - code_base), "read of execute-only code");
    start_based(&s, cs_store, ring, SEL_CODE_BASED);
    cpu_run(&s);
    check_trap(&s, VEC_GP, 0, (const void *)(cs_store - code_base), "write through cs");

    /* The limit ends within the second instruction of code_edge. */
    uint32_t limit = (uint32_t)(code_edge_at - code_base) + 2;
    set(SEL_CODE_SHORT, (uint32_t)code_base, limit, DESC_CODE, DESC_DB, ring);
    start_based(&s, code_edge, ring, SEL_CODE_SHORT);
    cpu_run(&s);
    check_trap(&s, VEC_GP, 0, (const void *)(code_edge_at - code_base), "code over its limit");
    check_equal(s.eax, 1, "code over its limit: eax");
    /* Jumps out fault where they stand. */
    static const char *const outs[] = {code_jump_out, code_call_out, code_ret_out};
    for (unsigned i = 0; i < ARRAY_LEN(outs); i++) {
        limit = (uint32_t)(code_last_end - code_base) - 1;
        set(SEL_CODE_SHORT, (uint32_t)code_base, limit, DESC_CODE, DESC_DB, ring);
        start_based(&s, outs[i], ring, SEL_CODE_SHORT);
        s.ebx = limit + 1;
        *(uint32_t *)s.esp = s.ebx;
        uint32_t esp = s.esp;
        cpu_run(&s);
        check_trap(&s, VEC_GP, 0, (const void *)(outs[i] - code_base), "jump over the limit");
        check_equal(s.esp, esp, "jump over the limit: esp");
    }
}

/* The hidden part: a descriptor that is changed counts when it is loaded again. */
CODE(reload, "movl $100, %ecx\n"
             "1: movl %eax, %ds\n"
             "movl (%ebx), %esi\n"
             "addl %esi, %edi\n"
             "movl %edx, %ds\n"
             "movl (%ebx), %esi\n"
             "subl %esi, %edi\n"
             "movl %eax, %gs\n"
             "addl %gs:(%ebx), %ebp\n"
             "decl %ecx\n"
             "jnz 1b");

static void check_reload(unsigned ring)
{
    struct cpu_state s;

    fill();
    start(&s, reload, ring, 0);
    s.eax = SEL_BASED | ring;
    s.edx = SEL_OTHER | ring;
    s.ebx = 0x80;
    run_to_end(&s, "two segments by turns");
    check_equal(s.edi, 100 * (pattern(AREA + 0x80) - pattern(AREA + 0x10080)),
                "two segments by turns");
    check_equal(s.ebp, 100 * pattern(AREA + 0x80), "gs");
    for (uint32_t n = 0; n < 4; n++) {
        set(SEL_OTHER, AREA + 0x1000 * n, 0xFFFFF, DESC_DATA, DESC_G | DESC_DB, ring);
        start(&s, fs_load, ring, SEL_BASED);
        s.fs = SEL_OTHER | ring;
        s.ebx = 0x10;
        run_to_end(&s, "changed descriptor");
        check_equal(s.eax, pattern(AREA + 0x1000 * n + 0x10), "changed descriptor");
    }
}

/* 16-bit addresses: offsets wrap at 64 KiB. */
CODE(addr16_index, ".byte 0x67, 0x8B, 0x40, 0x10"); /* mov eax, [bx+si+10h] */
CODE(addr16_bp, ".byte 0x67, 0x8B, 0x46, 0x00");    /* mov eax, [bp] */
CODE(addr16_store, ".byte 0x67, 0x89, 0x0F");       /* mov [bx], ecx */
CODE(addr16_lods, ".byte 0x67, 0xF3, 0xAC");
CODE(addr16_lea, ".byte 0x67, 0x8D, 0x41, 0xFF"); /* lea eax, [bx+di-1] */

static void check_addr16(unsigned ring)
{
    struct cpu_state s;

    fill();
    start(&s, addr16_index, ring, SEL_BASED);
    s.ebx = 0xFFFFF000;
    s.esi = 0xABCD1010;
    run_to_end(&s, "[bx+si+10h]");
    check_equal(s.eax, pattern(AREA + 0x20), "[bx+si+10h]");
    start(&s, addr16_bp, ring, SEL_BASED);
    s.ebp = 0xFFFF8000;
    uint32_t kept = word_at(0x8000);
    *(volatile uint32_t *)0x8000 = 0x8BADBEEF;
    run_to_end(&s, "[bp]");
    check_equal(s.eax, 0x8BADBEEF, "[bp] goes by ss");
    *(volatile uint32_t *)0x8000 = kept;
    start(&s, addr16_store, ring, SEL_OTHER);
    s.ebx = 0xFFFF0040;
    run_to_end(&s, "[bx] store");
    start(&s, addr16_lea, ring, SEL_BASED);
    s.ebx = 0x10000;
    s.edi = 0;
    run_to_end(&s, "lea [bx+di-1]");
    check_equal(s.eax, 0xFFFF, "lea [bx+di-1]");
    start(&s, addr16_lods, ring, SEL_BASED);
    s.esi = 0x5678FFFE;
    s.ecx = 0xFFFF0004;
    run_to_end(&s, "rep lods with si");
    check_equal(s.esi, 0x56780002, "rep lods with si: esi");
    check_equal(s.ecx, 0xFFFF0000, "rep lods with si: ecx");
    check_equal(s.eax & 0xFF, pattern(AREA) >> 8 & 0xFF, "rep lods with si: al");
}

int guest_main(void)
{
    __asm__ volatile("fninit");
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned ring = 0; ring < 4; ring += 3) {
            make_segments(ring);
            check_data(ring);
            check_wrap(ring);
            check_strings(ring);
            check_code(ring);
            check_addr16(ring);
            if (ring == 3)
                check_stacks();
            check_reload(ring);
        }
        if (round & 1)
            touch_all_code();
    }
    return check_done("segments");
}
