/*
 * x87, MMX and SSE state: that it outlives exceptions, interrupts and I/O; CR0.TS, EM, MP and
 * CR4.OSFXSR; what FNSAVE, FNSTENV and FXSAVE store; #MF and #XM; rounding and precision; faulting
 * operands.
 *
 * Bochs passes. QEMU 7.2's TCG raises #MF at FWAIT only and #XM never, takes #NM before #UD where
 * both EM and TS are set, and takes any MXCSR. The code and data selectors of an environment are
 * not looked at: recent CPUs store 0.
 */
#include "check.h"
#include "paging.h"

enum { HOLE = 0x40000000, VECTOR_NOTHING = 0x31, PIC1 = 0x20, IRQ_BASE = 0x50 };

static USER_DATA uint32_t values[64];
static USER_DATA uint8_t area[544] __attribute__((aligned(64)));
static USER_DATA uint32_t results[64];

/* Everything is loaded; then something happens ECX times; then everything is stored. */
#define LOAD_ALL                                                                                   \
    "fninit\n"                                                                                     \
    "fldl values\n"                                                                                \
    "fldl values+8\n"                                                                              \
    "fldl values+16\n"                                                                             \
    "fldl values+24\n"                                                                             \
    "movups values+32, %xmm0\n"                                                                    \
    "movups values+48, %xmm1\n"                                                                    \
    "movups values+64, %xmm2\n"                                                                    \
    "movups values+80, %xmm7\n"                                                                    \
    "ldmxcsr values+96\n"                                                                          \
    "fldcw values+100\n"
#define STORE_ALL                                                                                  \
    "fnstcw results+100\n"                                                                         \
    "stmxcsr results+96\n"                                                                         \
    "movups %xmm0, results+32\n"                                                                   \
    "movups %xmm1, results+48\n"                                                                   \
    "movups %xmm2, results+64\n"                                                                   \
    "movups %xmm7, results+80\n"                                                                   \
    "fstpl results+24\n"                                                                           \
    "fstpl results+16\n"                                                                           \
    "fstpl results+8\n"                                                                            \
    "fstpl results\n"                                                                              \
    "fninit\n"

CODE(keep_int, LOAD_ALL "1: int $0x31\ndecl %ecx\njnz 1b\n" STORE_ALL);
CODE(keep_ud, LOAD_ALL "1: ud2\ndecl %ecx\njnz 1b\n" STORE_ALL);
CODE(keep_pf, LOAD_ALL "1: movl 0x40000000, %eax\ndecl %ecx\njnz 1b\n" STORE_ALL);
CODE(keep_io, LOAD_ALL "1: outb %al, $0x80\ninb $0x64, %al\ndecl %ecx\njnz 1b\n" STORE_ALL);
CODE(keep_cpuid,
     LOAD_ALL "1: xorl %eax, %eax\npushl %ecx\ncpuid\npopl %ecx\ndecl %ecx\njnz 1b\n" STORE_ALL);
CODE(keep_loop, LOAD_ALL "1: fld %st(0)\nfadd %st(1), %st\nfstp %st(0)\nmulps %xmm0, %xmm3\n"
                         "cmpl $0, stop\nje 1b\n" STORE_ALL);
CODE(keep_call, LOAD_ALL "1: call 2f\ndecl %ecx\njnz 1b\njmp 3f\n2: ret\n3: " STORE_ALL);
CODE(keep_rep, LOAD_ALL "1: pushl %ecx\nmovl $area, %edi\nmovl $100, %ecx\nrep stosb\npopl %ecx\n"
                        "decl %ecx\njnz 1b\n" STORE_ALL);

static USER_DATA volatile uint32_t stop;
static uint32_t events;

static bool ignore(struct cpu_state *s)
{
    events++;
    if (s->vector == VEC_UD)
        s->eip += 2;
    else if (s->vector == VEC_PF)
        s->eip += 5;
    return true;
}

static bool tick(struct cpu_state *s)
{
    (void)s;
    outb(PIC1, 0x20);
    stop = ++events >= 5;
    return true;
}

static void fill(uint32_t seed)
{
    for (unsigned i = 0; i < 24; i++)
        values[i] = seed = seed * 1664525 + 1013904223;
    /* Doubles that are numbers, with a full mantissa. */
    for (unsigned i = 1; i < 8; i += 2)
        values[i] = 0x3FF00000 | (values[i] & 0xFFFFF);
    values[24] = 0x1F80 | (seed & 0x6000);
    values[25] = 0x037F | (seed & 0x0C00);
}

static void keep(const char *what, const char *code, unsigned ring, uint32_t count)
{
    struct cpu_state s;

    fill(count * 7 + ring);
    memset(results, 0, sizeof(results));
    cpu_start(&s, code, ring);
    s.ecx = count;
    s.eflags |= FLAG_IOPL;
    if (code == keep_loop)
        s.eflags |= FLAG_IF;
    events = 0;
    stop = 0;
    run_to_end(&s, what);
    check(!memcmp(results, values, 96) && results[24] == values[24] &&
              (results[25] & 0xFFFF) == (values[25] & 0xFFFF),
          "%s at ring %u: the FPU's state changed", what, ring);
    for (unsigned i = 0; i < 24; i++)
        check_equal(results[i], values[i], "%s at ring %u: word %u", what, ring, i);
}

static void timer(bool on)
{
    if (on) {
        outb(0x20, 0x11);
        outb(0x21, IRQ_BASE);
        outb(0x21, 4);
        outb(0x21, 1);
        outb(0x43, 0x34);
        outb(0x40, 0xA9);
        outb(0x40, 0x04);
    }
    outb(0x21, on ? 0xFE : 0xFF);
}

static void check_kept(unsigned ring)
{
    cpu_handle(VECTOR_NOTHING, ignore);
    cpu_handle(VEC_UD, ignore);
    cpu_handle(VEC_PF, ignore);
    cpu_handle(IRQ_BASE, tick);
    keep("int", keep_int, ring, 50);
    keep("#UD", keep_ud, ring, 50);
    keep("#PF", keep_pf, ring, 50);
    keep("I/O", keep_io, ring, 50);
    keep("cpuid", keep_cpuid, ring, 50);
    keep("call", keep_call, ring, 100);
    keep("rep stos", keep_rep, ring, 20);
    timer(true);
    keep("timer", keep_loop, ring, 1);
    timer(false);
    cpu_handle(VECTOR_NOTHING, NULL);
    cpu_handle(VEC_UD, NULL);
    cpu_handle(VEC_PF, NULL);
    cpu_handle(IRQ_BASE, NULL);
}

CODE(do_x87, "fld1\nfstp %st(0)");
CODE(do_fwait, "fwait");
CODE(do_fninit, "fninit");
CODE(do_mmx, "movd %eax, %mm0\nemms");
CODE(do_sse, "xorps %xmm0, %xmm0");
CODE(do_sse_load, "movups values, %xmm0");
CODE(do_fxsave, "fxsave area");
CODE(do_ldmxcsr, "ldmxcsr values+96");

/* SDM 3A 2.5, tables 12-1 and 13-1. */
static void check_availability(unsigned ring)
{
    static const struct {
        const char *code, *name;
        bool wait, sse, mmx;
    } insns[] = {
        {do_x87, "fld", false, false, false},       {do_fninit, "fninit", false, false, false},
        {do_fwait, "fwait", true, false, false},    {do_mmx, "movd", false, false, true},
        {do_sse, "xorps", false, true, false},      {do_sse_load, "movups", false, true, false},
        {do_fxsave, "fxsave", false, false, false}, {do_ldmxcsr, "ldmxcsr", false, true, false},
    };
    uint32_t cr0 = read_cr0(), cr4 = read_cr4();

    for (unsigned n = 0; n < 16; n++) {
        bool ts = n & 1, em = n & 2, mp = n & 4, osfxsr = !(n & 8);
        uint32_t set = (ts ? CR0_TS : 0) | (em ? CR0_EM : 0) | (mp ? CR0_MP : 0);
        fill(n);
        for (unsigned i = 0; i < ARRAY_LEN(insns); i++) {
            bool fx = insns[i].code == do_fxsave;
            unsigned want = VEC_END;
            if (insns[i].wait)
                want = ts && mp ? VEC_NM : VEC_END;
            else if (insns[i].sse && (em || !osfxsr))
                want = VEC_UD;
            else if (insns[i].mmx && em)
                want = VEC_UD;
            else if (ts || (em && !insns[i].sse))
                want = VEC_NM;
            /* FXSAVE with EM: #NM by SDM 2A, #UD in 64-bit mode's table; not looked at. */
            if (fx && em)
                continue;
            struct cpu_state s;
            write_cr0((cr0 & ~(uint32_t)(CR0_TS | CR0_EM | CR0_MP)) | set);
            write_cr4(osfxsr ? cr4 : cr4 & ~(uint32_t)CR4_OSFXSR);
            cpu_start(&s, insns[i].code, ring);
            cpu_run(&s);
            write_cr4(cr4);
            write_cr0(cr0);
            check(s.vector == want, "%s with TS %u EM %u MP %u OSFXSR %u: vector %u, expected %u",
                  insns[i].name, ts, em, mp, osfxsr, s.vector, want);
            if (want != VEC_END)
                check_equal(s.eip, (uint32_t)insns[i].code, "%s: eip", insns[i].name);
        }
    }
}

/* Lazy switching: two contexts, the state of each loaded by #NM only. */
static uint8_t contexts[2][512] __attribute__((aligned(16)));
static unsigned current, owner, switches;

static bool device_not_available(struct cpu_state *s)
{
    (void)s;
    __asm__ volatile("clts");
    if (owner != current) {
        __asm__ volatile("fxsave (%0)\n\tfxrstor (%1)"
                         :
                         : "r"(contexts[owner]), "r"(contexts[current])
                         : "memory");
        owner = current;
    }
    switches++;
    return true;
}

CODE(lazy_add,
     "fldl values+8\nfaddl values\nfstpl values+8\naddps %xmm1, %xmm0\nmovups %xmm0, results\n");

static void check_lazy(void)
{
    static const uint32_t one[4] = {0x3F800000, 0x40000000, 0x40400000, 0x40800000};
    struct cpu_state s;

    cpu_handle(VEC_NM, device_not_available);
    for (unsigned n = 0; n < 2; n++) {
        __asm__ volatile("fninit\n\txorps %%xmm0, %%xmm0\n\tmovups %0, %%xmm1" : : "m"(one));
        if (n)
            __asm__ volatile("addps %xmm1, %xmm1");
        __asm__ volatile("fxsave (%0)" : : "r"(contexts[n]) : "memory");
    }
    owner = 1;
    switches = 0;
    values[0] = 0;
    values[1] = 0x3FF00000; /* 1.0 */
    values[2] = values[3] = 0;
    for (unsigned turn = 1; turn <= 20; turn++) {
        current = turn & 1;
        write_cr0(read_cr0() | CR0_TS);
        cpu_start(&s, lazy_add, 3);
        run_to_end(&s, "lazy switching");
        check(!(read_cr0() & CR0_TS), "lazy switching: TS");
    }
    check_equal(switches, 20, "lazy switching: #NM");
    check_equal(values[3], 0x40340000, "lazy switching: 20.0");
    /* Context 0 added 1.0 ten times, context 1 2.0. */
    check_equal(results[0], 0x41200000, "lazy switching: 10.0");
    cpu_handle(VEC_NM, NULL);
}

CODE(store_env, "fninit\nfldpi\nstore_env_at: fldl values\nfnstenv area\nfninit");
CODE(store_env16, "fninit\nfld1\n.byte 0x66\nfnstenv area\nfninit");
CODE(save_restore,
     "fninit\nfldpi\nfldl values\nfnsave area\nfnstsw %ax\nfrstor area\nfstpl results\n"
     "fstpt results+16\nfnstsw results+40\n");
CODE(save_mmx, "fninit\nmovd %eax, %mm0\nmovd %ecx, %mm7\nfnsave area\nfninit");
CODE(
    fx_both,
    "fninit\nfldpi\nmovups values+32, %xmm0\nmovups values+48, %xmm7\nldmxcsr values+96\nfxsave area\n"
    "xorps %xmm0, %xmm0\nxorps %xmm7, %xmm7\nfninit\nldmxcsr default_mxcsr\nfxrstor area\n"
    "movups %xmm0, results+32\nmovups %xmm7, results+48\nstmxcsr results+96\nfstpt results\nfninit");
extern const char store_env_at[];
USER_DATA uint32_t default_mxcsr = 0x1F80;

static uint32_t at(unsigned offset)
{
    uint32_t value;

    memcpy(&value, area + offset, 4);
    return value;
}

static void check_images(unsigned ring)
{
    struct cpu_state s;

    fill(99);
    memset(area, 0xEE, sizeof(area));
    cpu_start(&s, store_env, ring);
    run_to_end(&s, "fnstenv");
    check_equal(at(0) & 0xFFFF, 0x037F, "fnstenv: control word");
    check_equal(at(4) & 0x3800, 6 << 11, "fnstenv: top of stack");
    check_equal(at(8) & 0xFFFF, 0x0FFF, "fnstenv: tags");
    /* A machine that does not keep them stores 0, never an address of its own. */
    check(at(12) == (uint32_t)store_env_at || at(12) == 0, "fnstenv: last instruction at %x",
          at(12));
    check(at(20) == (uint32_t)values || at(20) == 0, "fnstenv: its operand at %x", at(20));
    check_equal(at(28), 0xEEEEEEEE, "fnstenv: behind it");
    memset(area, 0xEE, sizeof(area));
    cpu_start(&s, store_env16, ring);
    run_to_end(&s, "16-bit fnstenv");
    check_equal(at(0), 7u << 27 | 0x037F, "16-bit fnstenv: control and status");
    check_equal(at(4) & 0xFFFF, 0x3FFF, "16-bit fnstenv: tags");
    check_equal(at(12) >> 16, 0xEEEE, "16-bit fnstenv: behind it");

    memset(area, 0xEE, sizeof(area));
    cpu_start(&s, save_restore, ring);
    run_to_end(&s, "fnsave");
    check_equal(s.eax & 0x3800, 0, "fnsave: initialises");
    check_equal(results[10] & 0x3800, 0, "frstor: top of stack after the pops");
    check(results[0] == values[0] && results[1] == values[1], "frstor: st(0)");
    check(results[4] == 0x2168C235 && results[5] == 0xC90FDAA2 && (results[6] & 0xFFFF) == 0x4000,
          "frstor: pi");
    check_equal(at(108), 0xEEEEEEEE, "fnsave: behind it");

    cpu_start(&s, save_mmx, ring);
    s.eax = 0x12345678;
    s.ecx = 0x9ABCDEF0;
    run_to_end(&s, "MMX");
    check(at(28) == 0x12345678 && at(32) == 0 && (at(36) & 0xFFFF) == 0xFFFF, "mm0 in the image");
    check_equal(at(28 + 70), 0x9ABCDEF0, "mm7 in the image");
    check_equal(at(4) & 0x3800, 0, "MMX: top of stack");

    memset(area, 0xEE, sizeof(area));
    cpu_start(&s, fx_both, ring);
    run_to_end(&s, "fxsave");
    check(!memcmp(results + 8, values + 8, 16) && !memcmp(results + 12, values + 12, 16),
          "fxrstor: xmm");
    check_equal(results[24], values[24], "fxrstor: mxcsr");
    check(results[0] == 0x2168C235 && results[1] == 0xC90FDAA2, "fxrstor: pi");
    check_equal(at(24), values[24], "fxsave: mxcsr");
    check_equal(at(4) & 0xFF, 0x80, "fxsave: abridged tags");
    check(!memcmp(area + 160, values + 8, 16) && !memcmp(area + 160 + 112, values + 12, 16),
          "fxsave: xmm");
    for (unsigned i = 288; i < 416; i += 4)
        check_equal(at(i), 0xEEEEEEEE, "fxsave: the place of xmm8-15, byte %u", i);
}

CODE(mf_pending, "fninit\nfldcw values\nfld1\nfldz\nfdivrp\nnop\nfnstsw %ax\nmf_at: fwait");
CODE(mf_next, "fninit\nfldcw values\nfld1\nfldz\nfdivrp\nincl %ecx\nmf_next_at: fld1");
CODE(mf_mmx, "fninit\nfldcw values\nfld1\nfldz\nfdivrp\nmf_mmx_at: movd %eax, %mm0");
CODE(mf_clear, "fninit\nfldcw values\nfld1\nfldz\nfdivrp\nfnclex\nfwait\nfninit");
CODE(
    xm_div,
    "ldmxcsr values+4\nmovups values+16, %xmm0\nmovups values+32, %xmm1\nxm_at: divps %xmm1, %xmm0\n");
CODE(xm_state, "movups %xmm0, results\nstmxcsr results+16\nldmxcsr default_mxcsr");
CODE(gp_ldmxcsr, "gp_ldmxcsr_at: ldmxcsr values+8");
CODE(gp_movaps, "gp_movaps_at: movaps values+4, %xmm0");
CODE(gp_movaps_st, "gp_movaps_st_at: movaps %xmm0, values+8");
CODE(gp_addps, "gp_addps_at: addps values+4, %xmm0");
CODE(gp_fxsave, "gp_fxsave_at: fxsave area+8");
CODE(pf_movups, "pf_movups_at: movups 0x3FFFFFF8, %xmm0");
CODE(pf_movups_st, "pf_movups_st_at: movups %xmm0, 0x3FFFFFF8");
CODE(pf_fld, "pf_fld_at: fldt 0x3FFFFFFC");
CODE(pf_fstp, "fninit\nfld1\npf_fstp_at: fstpl 0x3FFFFFFC");
CODE(look_fpu, "fnstsw %ax\nmovups %xmm0, results\nfninit");
extern const char mf_at[], mf_next_at[], mf_mmx_at[], xm_at[], gp_ldmxcsr_at[], gp_movaps_at[];
extern const char gp_movaps_st_at[], gp_addps_at[], gp_fxsave_at[], pf_movups_at[],
    pf_movups_st_at[];
extern const char pf_fld_at[], pf_fstp_at[];

static void fault(const char *what, const char *code, unsigned ring, unsigned vector, int error,
                  const char *eip)
{
    struct cpu_state s;

    cpu_start(&s, code, ring);
    cpu_run(&s);
    check_trap(&s, vector, error, eip, what);
}

static void check_faults(unsigned ring)
{
    static uint8_t page[4096] __attribute__((aligned(4096)));
    unsigned u = ring == 3 ? PF_U : 0;
    struct cpu_state s;
    uint32_t cr4 = read_cr4();

    /* #MF waits for the next waiting instruction. */
    values[0] = 0x037B;
    fault("#MF at fwait", mf_pending, ring, VEC_MF, -1, mf_at);
    fault("#MF at fld", mf_next, ring, VEC_MF, -1, mf_next_at);
    fault("#MF at movd", mf_mmx, ring, VEC_MF, -1, mf_mmx_at);
    __asm__ volatile("fnclex");
    cpu_start(&s, mf_clear, ring);
    run_to_end(&s, "fnclex");

    /* #XM, or #UD without CR4.OSXMMEXCPT; the destination stays, the flag is set. */
    values[1] = 0x1D80;
    for (unsigned i = 0; i < 4; i++) {
        values[4 + i] = 0x3F800000 + i;
        values[8 + i] = i == 2 ? 0 : 0x40000000;
    }
    fault("#XM", xm_div, ring, VEC_XM, -1, xm_at);
    cpu_start(&s, xm_state, ring);
    run_to_end(&s, "after #XM");
    check(!memcmp(results, values + 4, 16), "#XM: the destination");
    check_equal(results[4] & 0x3F, 4, "#XM: flags");
    write_cr4(cr4 & ~(uint32_t)CR4_OSXMMEXCPT);
    fault("#XM without OSXMMEXCPT", xm_div, ring, VEC_UD, -1, xm_at);
    write_cr4(cr4);
    cpu_start(&s, xm_state, ring);
    run_to_end(&s, "after #UD");

    values[2] = 0x80000000 | 0x1F80;
    fault("ldmxcsr of a reserved bit", gp_ldmxcsr, ring, VEC_GP, 0, gp_ldmxcsr_at);
    fault("movaps", gp_movaps, ring, VEC_GP, 0, gp_movaps_at);
    fault("movaps store", gp_movaps_st, ring, VEC_GP, 0, gp_movaps_st_at);
    fault("addps", gp_addps, ring, VEC_GP, 0, gp_addps_at);
    fault("fxsave", gp_fxsave, ring, VEC_GP, 0, gp_fxsave_at);

    /* Operands that run into a page that is not there: nothing stored, nothing loaded. */
    paging_map(HOLE - 4096, page, PAGE_URW);
    memset(page, 0x33, 4096);
    __asm__ volatile("fninit\n\tmovups %0, %%xmm0" : : "m"(values[4]));
    fault("movups", pf_movups, ring, VEC_PF, (int)u, pf_movups_at);
    fault("movups store", pf_movups_st, ring, VEC_PF, (int)(u | PF_W), pf_movups_st_at);
    fault("fld", pf_fld, ring, VEC_PF, (int)u, pf_fld_at);
    cpu_start(&s, look_fpu, ring);
    run_to_end(&s, "after the faults");
    check_equal(s.eax & 0x3800, 0, "after the faults: top of stack");
    check(!memcmp(results, values + 4, 16), "after the faults: xmm0");
    fault("fstp", pf_fstp, ring, VEC_PF, (int)(u | PF_W), pf_fstp_at);
    cpu_start(&s, look_fpu, ring);
    run_to_end(&s, "after fstp");
    check_equal(s.eax & 0x3800, 7 << 11, "fstp: still on the stack");
    for (unsigned i = 0; i < 4096; i++) {
        if (page[i] != 0x33) {
            check(false, "a store across pages wrote byte %u", i);
            break;
        }
    }
}

CODE(third, "fninit\nfldcw values\nfld1\nfldl values+8\nfdivrp\nfstpt results\nfninit");
CODE(to_int,
     "ldmxcsr values\nmovups values+16, %xmm0\ncvtps2dq %xmm0, %xmm0\nmovups %xmm0, results\n"
     "ldmxcsr default_mxcsr");

static void check_rounding(unsigned ring)
{
    /* 3.0 / 1.0 the other way round: 1/3 by precision and rounding. */
    static const struct {
        uint16_t control;
        uint32_t high, low;
    } thirds[] = {
        {0x037F, 0xAAAAAAAA, 0xAAAAAAAB}, {0x0F7F, 0xAAAAAAAA, 0xAAAAAAAA},
        {0x027F, 0xAAAAAAAA, 0xAAAAA800}, {0x0A7F, 0xAAAAAAAA, 0xAAAAB000},
        {0x007F, 0xAAAAAB00, 0},          {0x0C7F, 0xAAAAAA00, 0},
    };
    static const uint32_t integers[4][4] = {{2, 2, (uint32_t)-2, 4},
                                            {1, 2, (uint32_t)-3, 3},
                                            {2, 3, (uint32_t)-2, 4},
                                            {1, 2, (uint32_t)-2, 3}};
    struct cpu_state s;

    for (unsigned i = 0; i < ARRAY_LEN(thirds); i++) {
        values[0] = thirds[i].control;
        values[2] = 0;
        values[3] = 0x40080000; /* 3.0 */
        cpu_start(&s, third, ring);
        run_to_end(&s, "1/3");
        check(results[1] == thirds[i].high && results[0] == thirds[i].low,
              "1/3 under %x: %08x %08x", thirds[i].control, results[1], results[0]);
    }
    for (unsigned rc = 0; rc < 4; rc++) {
        values[0] = 0x1F80 | rc << 13;
        values[4] = 0x3FE00000; /* 1.75 */
        values[5] = 0x40200000; /* 2.5 */
        values[6] = 0xC0100000; /* -2.25 */
        values[7] = 0x40600000; /* 3.5 */
        cpu_start(&s, to_int, ring);
        run_to_end(&s, "cvtps2dq");
        for (unsigned i = 0; i < 4; i++)
            check_equal(results[i], integers[rc][i], "cvtps2dq, rounding %u, element %u", rc, i);
    }
}

int guest_main(void)
{
    paging_init();
    cpu_idt[VECTOR_NOTHING].high |= DESC_DPL(3) << 8;
    write_cr0((read_cr0() & ~(uint32_t)(CR0_EM | CR0_TS)) | CR0_MP | CR0_NE);
    write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned ring = 0; ring < 4; ring += 3) {
            check_kept(ring);
            check_availability(ring);
            check_images(ring);
            check_faults(ring);
            check_rounding(ring);
        }
        check_lazy();
        if (round & 1)
            touch_all_code();
    }
    return check_done("fpu");
}
