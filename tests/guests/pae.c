/*
 * PAE paging with 4K and 2M pages, NX, reserved bits and the page-directory-pointer registers. The
 * first 16 MiB are mapped to themselves.
 *
 * Bochs passes. QEMU 7.2's TCG leaves P out of the error code for reserved bits, and loads any
 * pointers.
 */
#include "check.h"

enum { BASE = 0x40000000, MSR_EFER = 0xC0000080, EFER_NXE = 1 << 11, FRAMES = 8 };
#define PAGE(n) (BASE + 0x1000 * (uint32_t)(n))
#define NX      0x8000000000000000ull

enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80 };
enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16 };

static uint64_t pdpt[2][4] __attribute__((aligned(64)));
static uint64_t identity[512] __attribute__((aligned(4096)));
static uint64_t upper[2][512] __attribute__((aligned(4096)));
static uint64_t table[2][512] __attribute__((aligned(4096)));
static uint64_t low_table[2][512] __attribute__((aligned(4096)));
static uint32_t frames[FRAMES][1024] __attribute__((aligned(4096)));

CODE(do_read, "movl (%ebx), %eax");
CODE(do_write, "movl %eax, (%ebx)");
CODE(do_jump, "jmp *%ebx");
CODE(do_cr3, "do_cr3_at: movl %eax, %cr3");
extern const char do_cr3_at[];
extern char user_start[], user_end[];

static struct cpu_state last;
static bool nx;

static void access_run(const char *code, unsigned ring, uint32_t address, uint32_t value)
{
    cpu_start(&last, code, ring);
    last.ebx = address;
    last.eax = value;
    cpu_run(&last);
}

static uint32_t good(const char *code, unsigned ring, uint32_t address, uint32_t value,
                     const char *what)
{
    access_run(code, ring, address, value);
    check_trap(&last, VEC_END, -1, NULL, what);
    return last.eax;
}

static void bad(const char *code, unsigned ring, uint32_t address, unsigned error, const char *what)
{
    access_run(code, ring, address, 0x77777777);
    check_trap(&last, VEC_PF, (int)(error | (ring == 3 ? PF_U : 0)), NULL, what);
    check_equal(last.cr2, address, "%s: cr2", what);
}

static void set(uint64_t *entry, uint64_t value, uint32_t address)
{
    *entry = value;
    invlpg((void *)address);
}

static void make_tables(void)
{
    for (unsigned i = 0; i < 8; i++)
        identity[i] = (uint64_t)i << 21 | P | W | PS;
    /* The first 4 MiB in small pages, of which those of CODE and the stack are open to ring 3. */
    for (unsigned t = 0; t < 2; t++) {
        for (unsigned i = 0; i < 512; i++) {
            uint32_t at = t << 21 | i << 12;
            bool user = (at >= (uint32_t)user_start && at < (uint32_t)user_end) ||
                        (at >= (uint32_t)cpu_stack[3] && at < (uint32_t)cpu_stack[3] + STACK_BYTES);
            low_table[t][i] = at | P | W | (user ? U : 0);
        }
        identity[t] = (uint32_t)low_table[t] | P | W | U;
    }
    for (unsigned i = 0; i < 2; i++) {
        upper[i][0] = (uint32_t)table[i] | P | W | U;
        pdpt[i][0] = (uint32_t)identity | P;
        pdpt[i][1] = (uint32_t)upper[i] | P;
    }
}

static void check_small(unsigned ring)
{
    uint64_t *pte = &table[0][1];

    set(pte, (uint32_t)frames[1] | P | W | U, PAGE(1));
    frames[1][0] = 11;
    check_equal(good(do_read, ring, PAGE(1), 0, "4K page"), 11, "4K page");
    check_equal((uint32_t)*pte & (A | D), A, "4K page: A and D after a read");
    good(do_write, ring, PAGE(1), 12, "4K page");
    check_equal((uint32_t)*pte & (A | D), A | D, "4K page: A and D after a write");
    check_equal(frames[1][0], 12, "4K page: frame");
    set(pte, (uint32_t)frames[1] | P | U, PAGE(1));
    bad(do_write, ring, PAGE(1), PF_P | PF_W, "4K page, read-only");
    set(pte, (uint32_t)frames[1] | P | W, PAGE(1));
    if (ring == 3)
        bad(do_read, ring, PAGE(1), PF_P, "4K page, supervisor only");
    set(pte, 0, PAGE(1));
    bad(do_read, ring, PAGE(1), 0, "4K page, absent");
    bad(do_read, ring, 0x80000000, 0, "no page directory");
    /* Bits 52-62 are reserved; 63 is, unless EFER.NXE. */
    set(pte, (uint32_t)frames[1] | P | W | U | 1ull << 55, PAGE(1));
    bad(do_read, ring, PAGE(1), PF_P | PF_RSVD, "4K page, reserved bit");
    set(pte, (uint32_t)frames[1] | P | W | U, PAGE(1));
    good(do_read, ring, PAGE(1), 0, "4K page");
}

static void check_large(unsigned ring)
{
    uint32_t frame = (uint32_t)frames[3] & ~0x1FFFFFu,
             at = BASE + 0x400000 + ((uint32_t)frames[3] & 0x1FFFFF);
    uint64_t *pde = &upper[0][2];

    frames[3][0] = 33;
    set(pde, frame | P | W | U | PS, at);
    check_equal(good(do_read, ring, at, 0, "2M page"), 33, "2M page");
    check_equal((uint32_t)*pde & (A | D), A, "2M page: A and D after a read");
    good(do_write, ring, at, 34, "2M page");
    check_equal((uint32_t)*pde & (A | D), A | D, "2M page: A and D after a write");
    check_equal(frames[3][0], 34, "2M page: frame");
    set(pde, frame | P | U | PS, BASE + 0x400000);
    bad(do_write, ring, at, PF_P | PF_W, "2M page, read-only");
    set(pde, frame | P | W | U | PS | 1 << 14, at);
    bad(do_read, ring, at, PF_P | PF_RSVD, "2M page, reserved bit");
    if (nx) {
        uint8_t *code = (uint8_t *)&frames[3][8];
        code[0] = 0xCD;
        code[1] = VECTOR_END;
        set(pde, frame | P | W | U | PS | NX, at);
        check_equal(good(do_read, ring, at, 0, "2M page with NX"), 34, "2M page with NX");
        bad(do_jump, ring, at + 32, PF_P | PF_I, "2M page with NX");
        set(pde, frame | P | W | U | PS, at);
        good(do_jump, ring, at + 32, 0, "2M page without NX");
    }
    set(pde, 0, at);
}

static void check_nx(unsigned ring)
{
    uint64_t *pte = &table[0][2];
    uint8_t *code = (uint8_t *)frames[2];

    code[0] = 0xCD;
    code[1] = VECTOR_END;
    for (unsigned turn = 0; turn < 3; turn++) {
        set(pte, (uint32_t)frames[2] | P | W | U, PAGE(2));
        good(do_jump, ring, PAGE(2), 0, "page without NX");
        set(pte, (uint32_t)frames[2] | P | W | U | NX, PAGE(2));
        bad(do_jump, ring, PAGE(2), PF_P | PF_I, "page with NX");
        good(do_read, ring, PAGE(2), 0, "page with NX");
        good(do_write, ring, PAGE(2) + 64, 0, "page with NX");
        /* In the directory's entry, it holds for the whole table. */
        set(pte, (uint32_t)frames[2] | P | W | U, PAGE(2));
        set(&upper[0][0], (uint32_t)table[0] | P | W | U | NX, PAGE(2));
        bad(do_jump, ring, PAGE(2), PF_P | PF_I, "table with NX");
        set(&upper[0][0], (uint32_t)table[0] | P | W | U, PAGE(2));
        good(do_jump, ring, PAGE(2), 0, "table without NX");
        /* Absent and not executable: only I. */
        set(pte, NX, PAGE(2));
        bad(do_jump, ring, PAGE(2), PF_I, "absent page");
    }
    /* EFER.NXE off: bit 63 is reserved, and the error code has no I. */
    write_msr(MSR_EFER, read_msr(MSR_EFER) & ~(uint64_t)EFER_NXE);
    set(pte, (uint32_t)frames[2] | P | W | U | NX, PAGE(2));
    bad(do_read, ring, PAGE(2), PF_P | PF_RSVD, "bit 63 without NXE");
    set(pte, 0, PAGE(2));
    bad(do_jump, ring, PAGE(2), 0, "fetch without NXE");
    write_msr(MSR_EFER, read_msr(MSR_EFER) | EFER_NXE);
    write_cr3(read_cr3());
}

/* MOV CR3 loads the pointers, and refuses reserved bits in them (SDM 3A 4.4.1). */
static void check_pointers(void)
{
    for (unsigned turn = 0; turn < 6; turn++) {
        unsigned n = turn & 1;
        table[n][3] = (uint32_t)frames[4 + n] | P | W | U;
        frames[4 + n][0] = 500 + n;
        write_cr3((uint32_t)pdpt[n]);
        check_equal(good(do_read, 3, PAGE(3), 0, "two address spaces"), 500 + n,
                    "two address spaces");
    }
    write_cr3((uint32_t)pdpt[0]);
    pdpt[0][1] = (uint32_t)upper[1] | P;
    write_cr3((uint32_t)pdpt[0]);
    check_equal(good(do_read, 3, PAGE(3), 0, "changed pointer"), 501, "changed pointer");
    pdpt[0][1] = (uint32_t)upper[0] | P;
    write_cr3((uint32_t)pdpt[0]);
    check_equal(good(do_read, 3, PAGE(3), 0, "changed pointer"), 500, "pointer changed back");

    struct cpu_state s;
    pdpt[1][2] = P | W;
    cpu_start(&s, do_cr3, 0);
    s.eax = (uint32_t)pdpt[1];
    cpu_run(&s);
    check_trap(&s, VEC_GP, 0, do_cr3_at, "reserved bit in a pointer");
    pdpt[1][2] = 0;
    write_cr3((uint32_t)pdpt[0]);
}

int guest_main(void)
{
    uint32_t leaf[4];

    cpuid(0x80000000, leaf);
    if (leaf[0] >= 0x80000001) {
        cpuid(0x80000001, leaf);
        nx = leaf[3] >> 20 & 1;
    }
    make_tables();
    write_cr4(read_cr4() | CR4_PAE);
    if (nx)
        write_msr(MSR_EFER, read_msr(MSR_EFER) | EFER_NXE);
    write_cr3((uint32_t)pdpt[0]);
    write_cr0(read_cr0() | CR0_PG | CR0_WP);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned ring = 0; ring < 4; ring += 3) {
            check_small(ring);
            check_large(ring);
            if (nx)
                check_nx(ring);
        }
        check_pointers();
        if (round & 1)
            touch_all_code();
        write_cr0(read_cr0() & ~CR0_PG);
        write_cr0(read_cr0() | CR0_PG);
    }
    return check_done("pae");
}
