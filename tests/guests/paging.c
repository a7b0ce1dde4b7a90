/*
 * Page translation: rights by every combination of U/S, R/W and WP, A and D bits, 4K and 4M pages,
 * aliases, INVLPG and MOV CR3, many address spaces, code that is remapped. A TLB may be stale only
 * as SDM 3A 4.10 allows, so each change is either announced or one that needs no announcement. PAE
 * is in pae.c.
 *
 * QEMU 7.2's TCG gives a reserved bit of a 4M page without P in the error code (SDM 3A 4.7: RSVD
 * implies P); Bochs 2.7 runs stale code where an instruction crosses into a page that was remapped.
 */
#include "check.h"
#include "paging.h"

enum { BASE = 0x40000000, LARGE = 0x50000000, SPACES = 24, SPACE_PAGES = 40, FRAMES = 64 };
#define PAGE(n) (BASE + 0x1000 * (uint32_t)(n))

static uint32_t frames[FRAMES][1024] __attribute__((aligned(4096)));

CODE(do_read, "movl (%ebx), %eax");
CODE(do_write, "movl %eax, (%ebx)");
CODE(do_add, "addl %eax, (%ebx)");
CODE(do_jump, "jmp *%ebx");
/* EAX = sum of the first dwords of ECX pages from EBX on, each of which is then increased by EDX.
 */
CODE(do_sum, "1: addl (%ebx), %eax\n"
             "addl %edx, (%ebx)\n"
             "addl $4096, %ebx\n"
             "decl %ecx\n"
             "jnz 1b");

static struct cpu_state last;

static void access_run(const char *code, unsigned ring, uint32_t address, uint32_t value)
{
    cpu_start(&last, code, ring);
    last.ebx = address;
    last.eax = value;
    cpu_run(&last);
}

/* An access that must succeed; a read gives the value. */
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
    check_trap(&last, VEC_PF, (int)error, NULL, what);
    check_equal(last.cr2, address, "%s: cr2", what);
}

/* SDM 3A 4.6: both levels must grant; the supervisor may write anything while CR0.WP = 0. */
static void check_rights(void)
{
    uint32_t cr0 = read_cr0();
    uint32_t *pde = &paging_directory[BASE >> 22];

    paging_pte(BASE);
    uint32_t kept = *pde;
    for (unsigned n = 0; n < 64; n++) {
        unsigned upper = n & 3, lower = n >> 2 & 3, ring = n & 16 ? 3 : 0, wp = n & 32 ? CR0_WP : 0;
        bool user = upper & lower & 2, write = upper & lower & 1;
        char what[64];

        format_text(what, sizeof(what), "rights: PDE %u PTE %u ring %u WP %u", upper, lower, ring,
                    !!wp);
        *pde = (kept & ~(uint32_t)(PAGE_W | PAGE_U)) | upper << 1;
        *paging_pte(PAGE(1)) = (uint32_t)frames[1] | PAGE_P | lower << 1;
        invlpg((void *)PAGE(1));
        write_cr0((cr0 & ~(uint32_t)CR0_WP) | wp);
        frames[1][0] = 0xC0FFEE + n;
        unsigned u = ring == 3 ? PF_U : 0;
        if (ring == 3 && !user)
            bad(do_read, 3, PAGE(1), PF_P | PF_U, what);
        else
            check_equal(good(do_read, ring, PAGE(1), 0, what), 0xC0FFEE + n, "%s: read", what);
        if (ring == 3 ? user && write : write || !wp) {
            good(do_write, ring, PAGE(1), n, what);
            check_equal(frames[1][0], n, "%s: write", what);
            check(*paging_pte(PAGE(1)) & PAGE_D, "%s: D", what);
        } else {
            bad(do_write, ring, PAGE(1), PF_P | PF_W | u, what);
            check_equal(frames[1][0], 0xC0FFEE + n, "%s: refused write", what);
            check(!(*paging_pte(PAGE(1)) & PAGE_D), "%s: D after a refused write", what);
            /* WP's change takes effect at once, also for a page in use. */
            if (ring == 0) {
                write_cr0(cr0 & ~(uint32_t)CR0_WP);
                good(do_write, 0, PAGE(1), n, what);
                write_cr0(cr0);
                bad(do_write, 0, PAGE(1), PF_P | PF_W, what);
            }
        }
    }
    *pde = kept;
    write_cr0(cr0);
    write_cr3(read_cr3());
}

/* A and D of user pages are exact; a supervisor neighbour may get A by speculation, never D. */
static void check_accessed(unsigned ring)
{
    enum { AD = PAGE_A | PAGE_D };
    uint32_t *pde = &paging_directory[BASE >> 22];

    for (unsigned i = 0; i < 8; i++)
        paging_map(PAGE(i), frames[i], PAGE_URW);
    *pde &= ~(uint32_t)AD;
    write_cr3(read_cr3());
    for (unsigned turn = 0; turn < 3; turn++) {
        good(do_read, ring, PAGE(2), 0, "A and D");
        check_equal(*paging_pte(PAGE(2)) & AD, PAGE_A, "after a read");
        check_equal(*pde & PAGE_A, PAGE_A, "the PDE's A");
        good(do_write, ring, PAGE(3), 0, "A and D");
        check_equal(*paging_pte(PAGE(3)) & AD, AD, "after a write");
        good(do_add, ring, PAGE(4), 0, "A and D");
        check_equal(*paging_pte(PAGE(4)) & AD, AD, "after a read-modify-write");
        good(do_write, ring, PAGE(2), 0, "A and D");
        check_equal(*paging_pte(PAGE(2)) & AD, AD, "after a read, then a write");
        good(do_write, ring, PAGE(6) - 2, 0, "A and D");
        check_equal(*paging_pte(PAGE(5)) & *paging_pte(PAGE(6)) & AD, AD,
                    "after a write across pages");
        for (unsigned i = 0; i < 8; i += 7)
            check_equal(*paging_pte(PAGE(i)) & AD, 0, "page %u, not touched", i);
        /* Cleared and announced, they are set again: by INVLPG, then by MOV CR3. */
        for (unsigned i = 2; i < 7; i++) {
            *paging_pte(PAGE(i)) &= ~(uint32_t)AD;
            if (turn == 0)
                invlpg((void *)PAGE(i));
        }
        if (turn == 1) {
            *pde &= ~(uint32_t)AD;
            write_cr3(read_cr3());
        } else if (turn == 0) {
            good(do_write, ring, PAGE(3), 0, "D alone");
            *paging_pte(PAGE(3)) &= ~(uint32_t)PAGE_D;
            invlpg((void *)PAGE(3));
            good(do_read, ring, PAGE(3), 0, "D alone");
            check_equal(*paging_pte(PAGE(3)) & AD, PAGE_A, "after clearing D and reading");
        }
    }
}

static void check_changes(unsigned ring)
{
    /* Aliases. */
    paging_map(PAGE(1), frames[1], PAGE_URW);
    paging_map(PAGE(9), frames[1], PAGE_URW);
    paging_map(PAGE(10), frames[1], PAGE_UR);
    good(do_write, ring, PAGE(1), 111, "alias");
    check_equal(good(do_read, ring, PAGE(9), 0, "alias"), 111, "alias");
    good(do_write, ring, PAGE(9) + 4, 222, "alias");
    check_equal(good(do_read, ring, PAGE(10) + 4, 0, "alias"), 222, "read-only alias");
    bad(do_write, ring, PAGE(10), PF_P | PF_W | (ring == 3 ? PF_U : 0), "read-only alias");

    /* Another frame, fewer rights, away: announced by INVLPG and by MOV CR3. */
    for (unsigned way = 0; way < 2; way++) {
        frames[2][0] = 2000;
        frames[3][0] = 3000;
        paging_map(PAGE(2), frames[2], PAGE_URW);
        good(do_add, ring, PAGE(2), 1, "remap");
        *paging_pte(PAGE(2)) = (uint32_t)frames[3] | PAGE_URW;
        if (way)
            write_cr3(read_cr3());
        else
            invlpg((void *)PAGE(2));
        check_equal(good(do_read, ring, PAGE(2), 0, "remap"), 3000, "remapped page");
        good(do_add, ring, PAGE(2), 1, "remap");
        check(frames[2][0] == 2001 && frames[3][0] == 3001, "remapped page: frames");
        *paging_pte(PAGE(2)) = (uint32_t)frames[3] | PAGE_UR;
        if (way)
            write_cr3(read_cr3());
        else
            invlpg((void *)PAGE(2));
        bad(do_write, ring, PAGE(2), PF_P | PF_W | (ring == 3 ? PF_U : 0), "made read-only");
        *paging_pte(PAGE(2)) = 0;
        if (way)
            write_cr3(read_cr3());
        else
            invlpg((void *)PAGE(2));
        bad(do_read, ring, PAGE(2), ring == 3 ? PF_U : 0, "taken away");
        /* No announcement is needed to make a page present. */
        *paging_pte(PAGE(2)) = (uint32_t)frames[2] | PAGE_URW;
        check_equal(good(do_read, ring, PAGE(2), 0, "made present"), 2001, "made present");
    }
    /* A whole table, by its PDE. */
    uint32_t *pde = &paging_directory[BASE >> 22], kept = *pde;
    *pde = 0;
    write_cr3(read_cr3());
    bad(do_read, ring, PAGE(2), ring == 3 ? PF_U : 0, "no page table");
    *pde = kept;
    check_equal(good(do_read, ring, PAGE(2), 0, "page table back"), 2001, "page table back");
}

static unsigned spurious;

static bool count_fault(struct cpu_state *s)
{
    (void)s;
    return ++spurious < 3;
}

/* More rights without INVLPG: one fault at most, as a stale entry dies by the fault that it makes.
 */
static void check_spurious(unsigned ring)
{
    paging_map(PAGE(2), frames[2], PAGE_UR);
    frames[2][0] = 5;
    good(do_read, ring, PAGE(2), 0, "before more rights");
    *paging_pte(PAGE(2)) |= PAGE_W;
    spurious = 0;
    cpu_handle(VEC_PF, count_fault);
    good(do_write, ring, PAGE(2), 6, "more rights");
    cpu_handle(VEC_PF, NULL);
    check(spurious <= 1, "more rights: %u faults", spurious);
    check_equal(frames[2][0], 6, "more rights");
}

/* Pages of 4 MiB (CR4.PSE) over the first 8 MiB of memory, where `frames` are. */
static void check_large(unsigned ring)
{
    uint32_t *pde = &paging_directory[LARGE >> 22];
    uint32_t at = LARGE + ((uint32_t)frames[7] & 0x3FFFFF),
             frame = (uint32_t)frames[7] & ~0x3FFFFFu;
    unsigned u = ring == 3 ? PF_U : 0;

    write_cr4(read_cr4() | CR4_PSE);
    pde[0] = frame | PAGE_URW | PAGE_PS;
    pde[1] = frame | PAGE_UR | PAGE_PS;
    write_cr3(read_cr3());
    frames[7][0] = 77;
    check_equal(good(do_read, ring, at, 0, "4M page"), 77, "4M page");
    check_equal(pde[0] & (PAGE_A | PAGE_D), PAGE_A, "4M page: A and D after a read");
    good(do_write, ring, at, 78, "4M page");
    check_equal(pde[0] & (PAGE_A | PAGE_D), PAGE_A | PAGE_D, "4M page: A and D after a write");
    check_equal(good(do_read, ring, at + 0x400000, 0, "4M page, read-only"), 78,
                "4M page, read-only");
    bad(do_write, ring, at + 0x400000, PF_P | PF_W | u, "4M page, read-only");
    check_equal(frames[7][0], 78, "4M page: frame");
    /* INVLPG of any address in it. */
    pde[0] = frame | PAGE_UR | PAGE_PS;
    invlpg((void *)(LARGE + 0x1234));
    bad(do_write, ring, at, PF_P | PF_W | u, "4M page, made read-only");
    pde[0] = frame | PAGE_RW | PAGE_PS;
    invlpg((void *)(LARGE + 0x3FFFFF));
    if (ring == 3)
        bad(do_read, 3, at, PF_P | PF_U, "4M page, supervisor only");
    /* Bit 21 is reserved. */
    pde[0] = frame | PAGE_URW | PAGE_PS | 1 << 21;
    write_cr3(read_cr3());
    bad(do_read, ring, at, PF_P | PF_RSVD | u, "4M page, reserved bit");
    /* Cut into small pages, and back. */
    uint32_t *table = (uint32_t *)frames[8];
    memset(table, 0, 4096);
    table[at >> 12 & 1023] = (uint32_t)frames[9] | PAGE_URW;
    frames[9][0] = 99;
    pde[0] = (uint32_t)table | PAGE_URW;
    invlpg((void *)at);
    check_equal(good(do_read, ring, at, 0, "table for a 4M page"), 99, "table for a 4M page");
    /* Without CR4.PSE, PS means nothing. */
    pde[0] |= PAGE_PS;
    write_cr4(read_cr4() & ~(uint32_t)CR4_PSE);
    check_equal(good(do_read, ring, at, 0, "PS without PSE"), 99, "PS without PSE");
    write_cr4(read_cr4() | CR4_PSE);
    pde[0] = frame | PAGE_URW | PAGE_PS;
    write_cr3(read_cr3());
    check_equal(good(do_read, ring, at, 0, "4M page again"), 78, "4M page again");
    pde[0] = pde[1] = 0;
    write_cr3(read_cr3());
    write_cr4(read_cr4() & ~(uint32_t)CR4_PSE);
}

/* Global pages: gone after INVLPG and after CR4.PGE is toggled; MOV CR3 may keep them. */
static void check_global(unsigned ring)
{
    for (unsigned way = 0; way < 3; way++) {
        write_cr4(read_cr4() | CR4_PGE);
        frames[4][0] = 40;
        frames[5][0] = 50;
        paging_map(PAGE(4), frames[4], PAGE_URW | PAGE_G);
        check_equal(good(do_read, ring, PAGE(4), 0, "global page"), 40, "global page");
        write_cr3(read_cr3());
        check_equal(good(do_read, ring, PAGE(4), 0, "global page"), 40,
                    "global page after MOV CR3");
        *paging_pte(PAGE(4)) = (uint32_t)frames[5] | PAGE_URW | (way == 2 ? 0 : PAGE_G);
        if (way == 0)
            invlpg((void *)PAGE(4));
        else
            write_cr4(read_cr4() & ~(uint32_t)CR4_PGE);
        check_equal(good(do_read, ring, PAGE(4), 0, "global page"), 50, "global page replaced");
        write_cr4(read_cr4() & ~(uint32_t)CR4_PGE);
    }
}

/* More address spaces than there are likely to be windows near: each with a table of its own. */
static void check_spaces(unsigned ring)
{
    static uint32_t directories[SPACES][1024] __attribute__((aligned(4096)));
    static uint32_t tables[SPACES][1024] __attribute__((aligned(4096)));
    static uint32_t private[SPACES][1024] __attribute__((aligned(4096)));
    struct cpu_state s;

    for (unsigned n = 0; n < SPACES; n++) {
        memcpy(directories[n], paging_directory, 4096);
        memset(tables[n], 0, 4096);
        directories[n][BASE >> 22] = (uint32_t)tables[n] | PAGE_URW;
        for (unsigned i = 0; i < SPACE_PAGES; i++)
            tables[n][i] = (uint32_t)frames[(i + n) % FRAMES] | PAGE_URW;
        tables[n][SPACE_PAGES] = (uint32_t) private[n] | PAGE_URW;
        private[n][0] = n;
    }
    for (unsigned i = 0; i < FRAMES; i++)
        frames[i][0] = i;
    for (unsigned turn = 0; turn < 3 * SPACES; turn++) {
        unsigned n = turn * 7 % SPACES;
        uint32_t want = private[n][0];
        for (unsigned i = 0; i < SPACE_PAGES; i++)
            want += frames[(i + n) % FRAMES][0];
        write_cr3((uint32_t)directories[n]);
        cpu_start(&s, do_sum, ring);
        s.ebx = BASE;
        s.ecx = SPACE_PAGES + 1;
        s.edx = turn;
        run_to_end(&s, "address spaces");
        check_equal(s.eax, want, "address space %u, turn %u: sum", n, turn);
        /* A change in a space that is not the current one, seen when it is. */
        unsigned other = (n + 7) % SPACES;
        uint32_t swap = tables[other][0];
        tables[other][0] = tables[other][1];
        tables[other][1] = swap;
        if (turn % 5 == 0) {
            tables[other][2] &= ~(uint32_t)PAGE_P;
            write_cr3((uint32_t)directories[other]);
            bad(do_read, ring, PAGE(2), ring == 3 ? PF_U : 0, "page of another space");
            tables[other][2] |= PAGE_P;
            check(good(do_read, ring, PAGE(2), 0, "page of another space") ==
                      frames[(2 + other) % FRAMES][0],
                  "page of another space");
        }
    }
    write_cr3((uint32_t)paging_directory);
    for (unsigned n = 0; n < SPACES; n++) {
        uint32_t want = n;
        for (unsigned turn = 0; turn < 3 * SPACES; turn++)
            want += turn * 7 % SPACES == n ? turn : 0;
        check_equal(private[n][0], want, "private page of space %u", n);
    }
}

/* mov eax, imm; int VECTOR_END */
static void put_code(uint32_t *at, uint32_t value)
{
    uint8_t *p = (uint8_t *)at;

    p[0] = 0xB8;
    memcpy(p + 1, &value, 4);
    p[5] = 0xCD;
    p[6] = VECTOR_END;
}

/* Another frame behind the same linear address is other code. */
static void check_code(unsigned ring)
{
    static uint32_t directory[1024] __attribute__((aligned(4096)));
    static uint32_t table[1024] __attribute__((aligned(4096)));

    for (unsigned i = 0; i < 3; i++)
        put_code(&frames[i + 10][25], 100 + i);
    uint32_t at = PAGE(1) + 100;
    for (unsigned turn = 0; turn < 9; turn++) {
        paging_map(PAGE(1), frames[10 + turn % 3], PAGE_UR);
        check_equal(good(do_jump, ring, at, 0, "remapped code"), 100 + turn % 3, "remapped code");
        check_equal(good(do_jump, ring, at, 0, "remapped code"), 100 + turn % 3,
                    "remapped code again");
    }
    memcpy(directory, paging_directory, 4096);
    memcpy(table, (void *)(paging_directory[BASE >> 22] & ~0xFFFu), 4096);
    directory[BASE >> 22] = (uint32_t)table | PAGE_URW;
    table[1] = (uint32_t)frames[11] | PAGE_UR;
    paging_map(PAGE(1), frames[10], PAGE_UR);
    for (unsigned turn = 0; turn < 8; turn++) {
        write_cr3(turn & 1 ? (uint32_t)directory : (uint32_t)paging_directory);
        check_equal(good(do_jump, ring, at, 0, "code of two spaces"), 100 + turn % 2,
                    "code of two spaces");
    }
    write_cr3((uint32_t)paging_directory);
    *paging_pte(PAGE(1)) = 0;
    invlpg((void *)PAGE(1));
    bad(do_jump, ring, at, ring == 3 ? PF_U : 0, "code taken away");
    /* An instruction whose halves lie in frames that are not neighbours. */
    uint8_t code[8];
    put_code((uint32_t *)code, 0xAABBCCDD);
    memcpy((uint8_t *)frames[30] + 4094, code, 2);
    memcpy(frames[20], code + 2, 5);
    for (unsigned turn = 0; turn < 4; turn++) {
        paging_map(PAGE(1), frames[30], PAGE_UR);
        paging_map(PAGE(2), frames[20 + turn % 2], PAGE_UR);
        memcpy(frames[21], frames[20], 64);
        ((uint8_t *)frames[21])[0] = 0x11;
        check_equal(good(do_jump, ring, PAGE(2) - 2, 0, "code across frames"),
                    turn % 2 ? 0xAABB11DD : 0xAABBCCDD, "code across frames");
    }
}

/* The tables seen through a directory entry that points at the directory. */
static void check_self_map(unsigned ring)
{
    uint32_t *const view = (uint32_t *)0xFFC00000;

    paging_directory[1023] = (uint32_t)paging_directory | PAGE_RW;
    write_cr3(read_cr3());
    for (unsigned i = 0; i < 6; i++) {
        frames[40 + i][0] = 4000 + i;
        view[PAGE(3) >> 12] = (uint32_t)frames[40 + i] | PAGE_URW;
        invlpg((void *)PAGE(3));
        check_equal(good(do_read, ring, PAGE(3), 0, "self-map"), 4000 + i, "self-map");
        check(view[PAGE(3) >> 12] & PAGE_A, "self-map: A");
    }
    paging_directory[1023] = 0;
    write_cr3(read_cr3());
}

int guest_main(void)
{
    paging_init();
    for (unsigned round = 0; round < ROUNDS; round++) {
        check_rights();
        for (unsigned ring = 0; ring < 4; ring += 3) {
            check_accessed(ring);
            check_changes(ring);
            check_spurious(ring);
            check_large(ring);
            check_global(ring);
            check_spaces(ring);
            check_code(ring);
            check_self_map(ring);
        }
        if (round & 1)
            touch_all_code();
        /* Off and on again. */
        write_cr0(read_cr0() & ~CR0_PG);
        check_equal(paging_directory[0] & PAGE_P, PAGE_P, "paging off");
        write_cr0(read_cr0() | CR0_PG);
    }
    return check_done("paging");
}
