/*
 * Windows: what hidden faults map, what flushes drop, code pages, the VMA budget and the kernel's
 * limit. Accesses are tried by process_vm_readv and _writev, which find what an instruction would.
 */
#include "paging.h"

#include <errno.h>

enum { SUPER_GVA = 0xC0000000u, USER_GVA = 0x08048000u };

static void page_tables(struct guest *g)
{
    set_paging(g, CR0_PE | CR0_PG | CR0_WP, PD, CR4_PSE | CR4_PGE, 0);
    put32(g, PD + (USER_GVA >> 22) * 4, PT | P | W | U);
    put32(g, PD + (SUPER_GVA >> 22) * 4, (PT + 0x1000) | P | W);
}

static int setup(void **state)
{
    *state = guest_create(0);
    page_tables(*state);
    return 0;
}

static int teardown(void **state)
{
    guest_destroy(*state);
    return 0;
}

static uint32_t pte_of(uint32_t gva)
{
    uint32_t table = gva >> 31 ? PT + 0x1000 : PT;
    return table + (gva >> 12 & 1023) * 4;
}

static struct window *window_for(struct guest *g, unsigned cpl)
{
    g->v.cpl = (uint8_t)cpl;
    return mmu_window(&g->v);
}

/* Maps `gva` as an access at `cpl` would have it, and expects success. */
static struct window *fault_in(struct guest *g, unsigned cpl, uint32_t gva, bool write)
{
    struct window *w = window_for(g, cpl);
    assert_int_equal(mmu_fault(&g->v, w, gva, write), MMU_MAPPED);
    assert_true(write ? writable(w, gva) : readable(w, gva));
    return w;
}

/* Lines of /proc/self/maps between two addresses; fails if one is not the memory file's. */
static unsigned maps_between(uint64_t low, uint64_t high, const char *only)
{
    FILE *f = fopen("/proc/self/maps", "r");
    char line[512];
    unsigned count = 0;

    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        unsigned long long start, end;
        assert_int_equal(sscanf(line, "%llx-%llx", &start, &end), 2);
        if (start >= high || end <= low)
            continue;
        if (!strstr(line, only) || strstr(line, "r-x") || strstr(line, "rwx"))
            fail_msg("in a window: %s", line);
        count++;
    }
    fclose(f);
    return count;
}

static unsigned vmas(struct window *w)
{
    return maps_between(window_base(w), window_base(w) + GIB(8), "novt-ram");
}

static void windows_are_4_gib_aligned_in_the_arena(void **state)
{
    struct guest *g = *state;
    uint64_t user = window_base(window_for(g, 3)), super = window_base(window_for(g, 0));

    assert_int_equal(user % GIB(4), 0);
    assert_true(user >= 0x300000000000ull && user < 0x500000000000ull);
    assert_true(super >= 0x300000000000ull && super < 0x500000000000ull);
    assert_true(user >= super + GIB(8) || super >= user + GIB(8));
    assert_int_equal(window_kind(window_for(g, 3)), WINDOW_USER);
    assert_int_equal(window_kind(window_for(g, 1)), WINDOW_SUPER);
    assert_ptr_equal(mmu_user_window(&g->v), window_for(g, 3));
}

static void a_hidden_fault_maps_the_page_with_its_bytes(void **state)
{
    struct guest *g = *state;

    put32(g, pte_of(USER_GVA), DATA | P | W | U);
    put32(g, DATA + 0x124, 0xCAFE);
    struct window *w = fault_in(g, 3, USER_GVA + 0x124, false);
    assert_int_equal(*(uint32_t *)host_of(w, USER_GVA + 0x124), 0xCAFE);
    assert_int_equal(get32(g, pte_of(USER_GVA)), DATA | P | W | U | A);
    assert_false(writable(w, USER_GVA));
    assert_false(readable(w, USER_GVA + 0x1000));
    assert_false(readable(w, USER_GVA - 1));
    fault_in(g, 3, USER_GVA, true);
    assert_int_equal(get32(g, pte_of(USER_GVA)), DATA | P | W | U | A | D);
    *(uint32_t *)host_of(w, USER_GVA + 0x124) = 0xBEEF;
    assert_int_equal(get32(g, DATA + 0x124), 0xBEEF);
}

static void neighbours_are_mapped_only_if_they_are_alike(void **state)
{
    struct guest *g = *state;
    struct {
        uint32_t entry;
        bool mapped;
    } row[] = {
        {DATA - 0x4000 + 0x0000, false},            /* -4: not present */
        {(DATA - 0x3000) | USER_A_D, false},        /* -3: behind a gap */
        {(DATA - 0x2000) | P | W | U | D, false},   /* -2: not accessed */
        {(DATA - 0x1000) | USER_A_D, true},         /* -1 */
        {DATA | USER_A_D, true},                    /* the page */
        {(DATA + 0x1000) | USER_A_D | 0xE00, true}, /* software bits do not matter */
        {(DATA + 0x2000) | P | W | U | A, false},   /* not dirty: not writable */
    };

    for (unsigned i = 0; i < ARRAY_LEN(row); i++)
        put32(g, pte_of(USER_GVA) + i * 4, row[i].entry);
    struct window *w = fault_in(g, 3, USER_GVA + 0x4000, true);
    for (unsigned i = 0; i < ARRAY_LEN(row); i++)
        assert_int_equal(writable(w, USER_GVA + i * 0x1000), row[i].mapped);
    assert_int_equal(vmas(w), 1);
    /* Frames that do not follow on, and a supervisor page among user pages. */
    put32(g, pte_of(USER_GVA) + 100 * 4, 0x300000 | USER_A_D);
    put32(g, pte_of(USER_GVA) + 101 * 4, 0x302000 | USER_A_D);
    put32(g, pte_of(USER_GVA) + 99 * 4, 0x2FF000 | RW_A_D);
    fault_in(g, 3, USER_GVA + 100 * 0x1000, true);
    assert_false(readable(w, USER_GVA + 101 * 0x1000));
    assert_false(readable(w, USER_GVA + 99 * 0x1000));
}

static void user_and_supervisor_pages_stay_apart(void **state)
{
    struct guest *g = *state;

    put32(g, pte_of(USER_GVA), DATA | USER_A_D);
    put32(g, pte_of(SUPER_GVA), 0x300000 | RW_A_D);
    struct window *user = window_for(g, 3), *super = window_for(g, 0);
    assert_int_equal(mmu_fault(&g->v, super, USER_GVA, false), MMU_USER_PAGE);
    assert_int_equal(mmu_fault(&g->v, user, SUPER_GVA, false), MMU_SUPER_PAGE);
    assert_int_equal(mmu_fault(&g->v, user, USER_GVA, true), MMU_MAPPED);
    assert_int_equal(mmu_fault(&g->v, super, SUPER_GVA, true), MMU_MAPPED);
    assert_false(readable(super, USER_GVA));
    assert_false(readable(user, SUPER_GVA));
    g->v.cpl = 3;
    assert_int_equal(mmu_fault(&g->v, user, SUPER_GVA, false), MMU_GUEST);
    assert_int_equal(g->v.exc.error, 5);
    assert_int_equal(mmu_fault(&g->v, user, 0x1000, true), MMU_GUEST);
    assert_int_equal(g->v.exc.error, 6);
    assert_int_equal(g->v.exc.cr2, 0x1000);
}

static void devices_and_writes_to_rom_are_emulated(void **state)
{
    struct guest *g = *state;

    mmu_set_rom(g->m, 0xF0000, 0x10000);
    put32(g, pte_of(SUPER_GVA), 0xB8000 | RW_A_D);
    put32(g, pte_of(SUPER_GVA) + 4, 0xF0000 | RW_A_D);
    struct window *w = window_for(g, 0);
    assert_int_equal(mmu_fault(&g->v, w, SUPER_GVA, false), MMU_EMULATE);
    assert_int_equal(mmu_fault(&g->v, w, SUPER_GVA + 0x1000, true), MMU_EMULATE);
    fault_in(g, 0, SUPER_GVA + 0x1000, false);
    assert_false(writable(w, SUPER_GVA + 0x1000));
    put32(g, PD + 4, 0xE0000000u | P | W); /* a table in a device */
    g->io_answer = DATA | RW_A_D;
    assert_int_equal(mmu_fault(&g->v, w, 0x400000, false), MMU_EMULATE);
    assert_false(readable(w, 0x400000));
}

static void large_pages_are_mapped_with_their_neighbours_in_one_run(void **state)
{
    struct guest *g = *state;

    for (unsigned i = 0; i < RAM_SIZE >> 22; i++)
        put32(g, PD + ((SUPER_GVA >> 22) + i) * 4, i << 22 | RW_A_D | PS | G);
    struct window *w = fault_in(g, 0, SUPER_GVA + 0x2345678, true);
    assert_true(writable(w, SUPER_GVA + 0x100000));
    assert_true(writable(w, SUPER_GVA + RAM_SIZE - 1));
    assert_false(readable(w, SUPER_GVA + 0xA0000));
    assert_false(readable(w, SUPER_GVA + RAM_SIZE));
    assert_int_equal(mmu_fault(&g->v, w, SUPER_GVA + 0xB8000, true), MMU_EMULATE);
    fault_in(g, 0, SUPER_GVA + 0x1000, true);
    assert_true(writable(w, SUPER_GVA + 0x9FFFF));
    assert_int_equal(vmas(w), 2);
    assert_int_equal(mmu_counters(g->m)->runs_mapped, 2);
    *(uint32_t *)host_of(w, SUPER_GVA + 0x2000000) = 0x12345;
    assert_int_equal(get32(g, 0x2000000), 0x12345);
}

static void a_large_page_that_is_not_dirty_is_read_only_until_written(void **state)
{
    struct guest *g = *state;
    uint32_t pde = PD + (SUPER_GVA >> 22) * 4;

    put32(g, pde, 0x800000 | P | W | A | PS);
    put32(g, pde + 4, 0xC00000 | RW_A_D | PS);
    struct window *w = fault_in(g, 0, SUPER_GVA + 0x3FF000, false);
    assert_false(writable(w, SUPER_GVA));
    assert_false(readable(w, SUPER_GVA + 0x400000));
    fault_in(g, 0, SUPER_GVA + 5, true);
    assert_true(writable(w, SUPER_GVA + 0x3FFFFF));
    assert_int_equal(get32(g, pde), 0x800000 | RW_A_D | PS);
}

static void pae_windows_map_2m_pages_and_nx_is_no_matter_for_data(void **state)
{
    struct guest *g = *state;

    put64(g, ROOT2, (PD + 0x4000) | P);
    assert_int_equal(g->v.mem->load_pdptes(&g->v, ROOT2), 0);
    set_paging(g, g->v.cr0, ROOT2, CR4_PAE, EFER_NXE);
    for (unsigned i = 0; i < 4; i++)
        put64(g, PD + 0x4000 + (64 + i) * 8, (uint64_t)(4 + i) << 21 | RW_A_D | PS | NX);
    put64(g, PD + 0x4000 + 68 * 8, (PT + 0x2000) | P | W | U | A);
    put64(g, PT + 0x2000, DATA | USER_A_D | NX);
    put64(g, PT + 0x2008, (DATA + 0x1000) | USER_A_D);
    struct window *w = fault_in(g, 0, 64u << 21, true);
    assert_true(writable(w, (68u << 21) - 1));
    assert_int_equal(vmas(w), 1);
    struct window *u = fault_in(g, 3, 68u << 21, true);
    assert_true(writable(u, (68u << 21) + 0x1FFF));
    put64(g, PT + 0x2008, 0);
    g->v.pdpte[0] = (PD + 0x4000) | P;
    set_cr3(g, ROOT2);
    assert_true(writable(u, 68u << 21));
    assert_false(readable(u, (68u << 21) + 0x1000));
    g->v.pdpte[0] = 0;
    set_cr3(g, ROOT2);
    assert_false(readable(u, 68u << 21));
    assert_int_equal(vmas(w), 0);
}

/* ---- flushes ---- */

static void a_window_may_be_stale_until_the_guest_flushes(void **state)
{
    struct guest *g = *state;

    put32(g, pte_of(USER_GVA), DATA | USER_A_D);
    put32(g, pte_of(USER_GVA) + 4, 0x300000 | USER_A_D);
    struct window *w = fault_in(g, 3, USER_GVA, true);
    fault_in(g, 3, USER_GVA + 0x1000, true);
    put32(g, pte_of(USER_GVA), 0);
    put32(g, pte_of(USER_GVA) + 4, 0);
    g->v.mem->invlpg(&g->v, USER_GVA + 0xFFF);
    assert_false(readable(w, USER_GVA));
    assert_true(writable(w, USER_GVA + 0x1000));
    set_cr3(g, PD);
    assert_false(readable(w, USER_GVA + 0x1000));
    assert_int_equal(vmas(w), 0);
    assert_int_equal(mmu_counters(g->m)->invlpg_hits, 1);
    g->v.mem->invlpg(&g->v, USER_GVA);
    assert_int_equal(mmu_counters(g->m)->invlpg_misses, 1);
}

static void a_flush_judges_each_change_of_an_entry(void **state)
{
    static const struct {
        const char *name;
        uint32_t before, after;
        bool read, write; /* possible after the flush, without a fault */
    } row[] = {
        {"nothing changed", DATA | USER_A_D, DATA | USER_A_D, true, true},
        {"not present", DATA | USER_A_D, DATA | (USER_A_D & ~P), false, false},
        {"another frame", DATA | USER_A_D, (DATA + 0x1000) | USER_A_D, false, false},
        {"no longer user", DATA | USER_A_D, DATA | RW_A_D, false, false},
        {"A cleared", DATA | USER_A_D, DATA | (USER_A_D & ~A), false, false},
        {"D cleared", DATA | USER_A_D, DATA | (USER_A_D & ~D), true, false},
        {"write right taken", DATA | USER_A_D, DATA | (USER_A_D & ~W), true, false},
        {"PAT", DATA | USER_A_D, DATA | USER_A_D | PS, false, false},
        {"global and software bits", DATA | USER_A_D, DATA | USER_A_D | G | 0xE00, true, true},
        {"write right given", DATA | P | U | A, DATA | P | W | U | A | D, true, false},
    };

    for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
        for (unsigned by_cr3 = 0; by_cr3 < 2; by_cr3++) {
            struct guest *g = *state;
            put32(g, pte_of(USER_GVA), row[i].before);
            g->v.mem->invlpg(&g->v, USER_GVA);
            struct window *w = fault_in(g, 3, USER_GVA, row[i].before & D);
            put32(g, pte_of(USER_GVA), row[i].after);
            if (by_cr3)
                set_cr3(g, PD);
            else
                g->v.mem->invlpg(&g->v, USER_GVA);
            if (readable(w, USER_GVA) != row[i].read || writable(w, USER_GVA) != row[i].write)
                fail_msg("%s, by %s", row[i].name, by_cr3 ? "CR3" : "INVLPG");
            if (row[i].after & P && row[i].after & U) {
                fault_in(g, 3, USER_GVA, false);
                assert_true(readable(w, USER_GVA));
            }
        }
    }
}

static void a_flush_keeps_what_lies_between_two_drops(void **state)
{
    struct guest *g = *state;

    for (unsigned i = 0; i < 8; i++)
        put32(g, pte_of(USER_GVA) + i * 4, (DATA + i * 0x1000) | USER_A_D);
    struct window *w = fault_in(g, 3, USER_GVA, true);
    assert_int_equal(vmas(w), 1);
    put32(g, pte_of(USER_GVA) + 1 * 4, 0);
    put32(g, pte_of(USER_GVA) + 3 * 4, (DATA + 0x3000) | P | U | A);
    put32(g, pte_of(USER_GVA) + 4 * 4, (DATA + 0x4000) | P | U | A);
    put32(g, pte_of(USER_GVA) + 6 * 4, 0);
    set_cr3(g, PD);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(readable(w, USER_GVA + i * 0x1000), i != 1 && i != 6);
        assert_int_equal(writable(w, USER_GVA + i * 0x1000), i == 0 || i == 2 || i == 5 || i == 7);
    }
    assert_int_equal(vmas(w), 5);
}

static void a_changed_directory_entry_drops_the_slot_unread(void **state)
{
    struct guest *g = *state;
    uint32_t pde = PD + (USER_GVA >> 22) * 4;

    for (unsigned i = 0; i < 1024; i += 3)
        put32(g, PT + i * 4, (DATA + i * 0x1000) | USER_A_D);
    struct window *w = window_for(g, 3);
    for (unsigned i = 0; i < 1024; i += 3)
        fault_in(g, 3, (USER_GVA & 0xFFC00000) + i * 0x1000, i & 1);
    put32(g, pde, 0xFFFFF000u | P | W | U | A);
    set_cr3(g, PD);
    assert_int_equal(vmas(w), 0);
    put32(g, pde, PT | P | W | U | A);
    fault_in(g, 3, USER_GVA & 0xFFC00000, true);
    put32(g, pde, PT | P | U | A);
    set_cr3(g, PD);
    assert_false(writable(w, USER_GVA & 0xFFC00000));
}

static void a_large_page_split_by_the_guest_goes_by_invlpg(void **state)
{
    struct guest *g = *state;
    uint32_t pde = PD + (SUPER_GVA >> 22) * 4;

    put32(g, pde, 0x800000 | RW_A_D | PS);
    struct window *w = fault_in(g, 0, SUPER_GVA, true);
    for (unsigned i = 0; i < 1024; i++)
        put32(g, PT + 0x1000 + i * 4, (0x800000 + i * 0x1000) | (i == 7 ? P | A : RW_A_D));
    put32(g, pde, (PT + 0x1000) | P | W);
    assert_true(writable(w, SUPER_GVA + 0x7000));
    g->v.mem->invlpg(&g->v, SUPER_GVA + 0x100000);
    assert_int_equal(vmas(w), 0);
    fault_in(g, 0, SUPER_GVA + 0x6000, true);
    assert_false(writable(w, SUPER_GVA + 0x7000));
    assert_int_equal(mmu_fault(&g->v, w, SUPER_GVA + 0x7000, true), MMU_GUEST);
}

static void a_slot_whose_table_was_exchanged_unseen_takes_no_new_page(void **state)
{
    struct guest *g = *state;

    put32(g, pte_of(USER_GVA), DATA | USER_A_D);
    struct window *w = fault_in(g, 3, USER_GVA, true);
    put32(g, PT + 0x3000 + (USER_GVA >> 12 & 1023) * 4 + 4, 0x300000 | USER_A_D);
    put32(g, PD + (USER_GVA >> 22) * 4, (PT + 0x3000) | P | W | U);
    fault_in(g, 3, USER_GVA + 0x1000, true);
    assert_false(readable(w, USER_GVA));
    set_cr3(g, PD);
    assert_true(writable(w, USER_GVA + 0x1000));
}

static void each_cr3_has_its_user_window_and_finds_it_again(void **state)
{
    struct guest *g = *state;

    put32(g, pte_of(USER_GVA), DATA | USER_A_D);
    put32(g, ROOT2 + (USER_GVA >> 22) * 4, (PT + 0x3000) | P | W | U);
    put32(g, PT + 0x3000 + (USER_GVA >> 12 & 1023) * 4, 0x300000 | USER_A_D);
    struct window *a = fault_in(g, 3, USER_GVA, true);
    set_cr3(g, ROOT2);
    struct window *b = fault_in(g, 3, USER_GVA, true);
    assert_ptr_not_equal(a, b);
    set_cr3(g, PD);
    assert_ptr_equal(window_for(g, 3), a);
    assert_true(writable(a, USER_GVA));
    /* What another address space does to its tables is seen when it is entered. */
    put32(g, PT + 0x3000 + (USER_GVA >> 12 & 1023) * 4, 0);
    set_cr3(g, ROOT2);
    assert_ptr_equal(window_for(g, 3), b);
    assert_false(readable(b, USER_GVA));
    assert_int_equal(mmu_counters(g->m)->windows_made, 2);
}

static void the_supervisor_window_keeps_what_address_spaces_share(void **state)
{
    struct guest *g = *state;

    put32(g, pte_of(SUPER_GVA), DATA | RW_A_D);
    put32(g, PD + 0x340 * 4, 0x800000 | RW_A_D | PS);
    struct window *w = fault_in(g, 0, SUPER_GVA, true);
    fault_in(g, 0, 0xD0000000u, true);
    put32(g, ROOT2 + (SUPER_GVA >> 22) * 4, get32(g, PD + (SUPER_GVA >> 22) * 4));
    set_cr3(g, ROOT2);
    assert_ptr_equal(window_for(g, 0), w);
    assert_true(writable(w, SUPER_GVA));
    assert_false(readable(w, 0xD0000000u));
}

static void more_user_windows_than_there_may_be_are_recycled(void **state)
{
    struct guest *g = *state;
    enum { SPACES = 100 };

    put32(g, pte_of(USER_GVA), DATA | USER_A_D);
    for (unsigned i = 0; i < SPACES; i++) {
        uint32_t root = 0x1000000 + i * 0x1000;
        put32(g, root + (USER_GVA >> 22) * 4, PT | P | W | U);
        set_cr3(g, root);
        fault_in(g, 3, USER_GVA, true);
    }
    assert_true(g->recycled > 0 && g->recycled < SPACES);
    assert_int_equal(mmu_counters(g->m)->windows_recycled, g->recycled);
    assert_int_equal(mmu_counters(g->m)->windows_made, SPACES - g->recycled);
    assert_int_equal(maps_between(0x300000000000ull, 0x500000000000ull, "novt-ram"),
                     SPACES - g->recycled);
    set_cr3(g, 0x1000000 + (SPACES - 1) * 0x1000);
    assert_true(writable(window_for(g, 3), USER_GVA));
}

/* ---- modes ---- */

static void with_paging_off_the_flat_window_holds_ram(void **state)
{
    struct guest *g = *state;

    mmu_set_rom(g->m, 0xFFFF0000u, 0x10000);
    set_paging(g, CR0_PE, 0, 0, 0);
    struct window *w = window_for(g, 0);
    assert_int_equal(window_kind(w), WINDOW_FLAT);
    assert_ptr_equal(mmu_user_window(&g->v), w);
    fault_in(g, 3, 0x100000, true);
    assert_true(writable(w, RAM_SIZE - 1));
    assert_false(readable(w, RAM_SIZE));
    assert_int_equal(mmu_fault(&g->v, w, RAM_SIZE, false), MMU_EMULATE);
    fault_in(g, 0, 0xFFFFFFFFu, false);
    assert_int_equal(mmu_fault(&g->v, w, 0xFFFFFFF0u, true), MMU_EMULATE);
    set_paging(g, CR0_PE | CR0_PG, PD, 0, 0);
    assert_int_equal(mmu_fault(&g->v, w, 0x100000, true), MMU_EMULATE);
    set_paging(g, CR0_PE, PD, 0, 0);
    assert_ptr_equal(window_for(g, 0), w);
    assert_true(writable(w, 0x100000));
}

static void write_protection_off_is_not_remembered_when_it_is_on(void **state)
{
    struct guest *g = *state;

    put32(g, pte_of(SUPER_GVA), DATA | P | A);
    put32(g, pte_of(USER_GVA), 0x300000 | P | U | A);
    set_wp(g, false);
    struct window *w = fault_in(g, 0, SUPER_GVA, true);
    assert_int_equal(mmu_fault(&g->v, mmu_user_window(&g->v), USER_GVA, true), MMU_EMULATE);
    assert_int_equal(get32(g, pte_of(USER_GVA)), 0x300000 | P | U | A | D);
    set_wp(g, true);
    assert_false(writable(w, SUPER_GVA));
    assert_int_equal(mmu_fault(&g->v, w, SUPER_GVA, true), MMU_GUEST);
    assert_int_equal(g->v.exc.error, 3);
}

static void a_change_of_the_tables_form_empties_the_windows(void **state)
{
    struct guest *g = *state;

    put32(g, pte_of(USER_GVA), DATA | USER_A_D);
    put32(g, PD + 0x340 * 4, 0x800000 | RW_A_D | PS);
    struct window *u = fault_in(g, 3, USER_GVA, true), *s = fault_in(g, 0, 0xD0000000u, true);
    set_paging(g, g->v.cr0, PD, 0, 0);
    assert_int_equal(vmas(u), 0);
    assert_int_equal(vmas(s), 0);
    fault_in(g, 3, USER_GVA, true);
}

/* ---- code ---- */

static void a_code_page_is_writable_through_no_alias(void **state)
{
    struct guest *g = *state;

    put32(g, pte_of(USER_GVA), 0x800000 | USER_A_D);
    put32(g, pte_of(USER_GVA) + 0x20, 0x800000 | USER_A_D);
    put32(g, PD + 0x340 * 4, 0x800000 | RW_A_D | PS);
    put32(g, ROOT2 + (USER_GVA >> 22) * 4, PT | P | W | U);
    struct window *a = fault_in(g, 3, USER_GVA, true);
    fault_in(g, 3, USER_GVA + 0x8000, true);
    struct window *s = fault_in(g, 0, 0xD0000000u, true);
    set_cr3(g, ROOT2);
    struct window *b = fault_in(g, 3, USER_GVA, true);
    set_cr3(g, PD);
    fault_in(g, 0, 0xD0000000u, true);

    mmu_protect_code(g->m, 0x800);
    assert_false(writable(a, USER_GVA));
    assert_false(writable(a, USER_GVA + 0x8000));
    assert_false(writable(b, USER_GVA));
    assert_false(writable(s, 0xD0000000u));
    assert_true(writable(s, 0xD0001000u));
    assert_true(readable(a, USER_GVA) && readable(s, 0xD0000000u));

    /* A write through one of them reports it, and gives that one back. */
    fault_in(g, 0, 0xD0000004u, true);
    assert_int_equal(g->code_written, 1);
    assert_int_equal(g->written_page, 0x800);
    assert_int_equal(g->written_offset, 4);
    assert_int_equal(g->written_size, 0);
    window_for(g, 3);
    fault_in(g, 3, USER_GVA, true);
    assert_int_equal(g->code_written, 1);
    assert_int_equal(vmas(s), 1);
}

static void a_code_page_is_mapped_read_only_from_the_start(void **state)
{
    struct guest *g = *state;

    mmu_protect_code(g->m, 0x801);
    put32(g, PD + 0x340 * 4, 0x800000 | RW_A_D | PS);
    for (unsigned i = 0; i < 3; i++)
        put32(g, pte_of(USER_GVA) + i * 4, (0x800000 + i * 0x1000) | USER_A_D);
    struct window *u = fault_in(g, 3, USER_GVA, true);
    assert_false(readable(u, USER_GVA + 0x1000));
    fault_in(g, 3, USER_GVA + 0x1000, false);
    assert_false(writable(u, USER_GVA + 0x1000));
    struct window *s = fault_in(g, 0, 0xD0002000u, true);
    fault_in(g, 0, 0xD0001000u, false);
    assert_false(writable(s, 0xD0001000u));
    assert_true(writable(s, 0xD03FFFFFu));
    /* Protected again by the listener: the write is not to be made through a window. */
    g->protect_again = true;
    assert_int_equal(mmu_fault(&g->v, s, 0xD0001000u, true), MMU_EMULATE);
    assert_false(writable(s, 0xD0001000u));
    mmu_unprotect_code(g->m, 0x801);
    fault_in(g, 0, 0xD0001000u, true);
    assert_int_equal(g->code_written, 1);
    assert_int_equal(vmas(s), 1);
}

static void registered_code_is_reported_when_its_mapping_goes(void **state)
{
    struct guest *g = *state;
    uint32_t page = 0;
    bool registered = false;

    put32(g, pte_of(USER_GVA), DATA | USER_A_D);
    put32(g, pte_of(USER_GVA) + 4, (DATA + 0x1000) | USER_A_D);
    struct window *w = window_for(g, 3);
    assert_int_equal(mmu_fetch_page(&g->v, w, USER_GVA + 5, &page, &registered), 0);
    assert_true(registered);
    assert_int_equal(page, DATA >> 12);
    assert_false(readable(w, USER_GVA));
    assert_int_equal(mmu_fetch_page(&g->v, w, USER_GVA + 0x1000, &page, &registered), 0);
    set_cr3(g, PD);
    g->v.mem->invlpg(&g->v, USER_GVA);
    assert_int_equal(g->code_unmapped, 0);
    put32(g, pte_of(USER_GVA), 0x300000 | USER_A_D);
    g->v.mem->invlpg(&g->v, USER_GVA);
    assert_int_equal(g->code_unmapped, 1);
    assert_int_equal(g->unmapped_first, USER_GVA >> 12);
    assert_int_equal(g->unmapped_count, 1);
    assert_int_equal(mmu_fetch_page(&g->v, w, USER_GVA, &page, &registered), 0);
    assert_int_equal(page, 0x300);
    put32(g, PD + (USER_GVA >> 22) * 4, 0);
    set_cr3(g, PD);
    assert_int_equal(g->code_unmapped, 2);
    assert_int_equal(g->unmapped_first, USER_GVA >> 12);
    assert_int_equal(g->unmapped_count, 2);
    assert_int_equal(mmu_fetch_page(&g->v, w, USER_GVA, &page, &registered), FAULT);
    assert_int_equal(g->v.exc.error, 4);
}

static void code_is_registered_only_in_the_window_of_its_kind(void **state)
{
    struct guest *g = *state;
    uint32_t page;
    bool registered;

    put32(g, pte_of(USER_GVA), DATA | USER_A_D);
    put32(g, pte_of(SUPER_GVA), 0xE0000000u | RW_A_D);
    struct window *s = window_for(g, 0);
    assert_int_equal(mmu_fetch_page(&g->v, s, USER_GVA, &page, &registered), 0);
    assert_false(registered);
    assert_int_equal(mmu_fetch_page(&g->v, s, SUPER_GVA, &page, &registered), EMULATE_UNKNOWN);
}

static void a_page_mapped_over_stale_code_reports_it(void **state)
{
    struct guest *g = *state;
    uint32_t page;
    bool registered;

    put32(g, pte_of(USER_GVA), DATA | USER_A_D);
    struct window *w = window_for(g, 3);
    mmu_fetch_page(&g->v, w, USER_GVA, &page, &registered);
    put32(g, pte_of(USER_GVA), 0x300000 | USER_A_D);
    fault_in(g, 3, USER_GVA, true);
    assert_int_equal(g->code_unmapped, 1);
    /* And the other way round: a fetch over a stale mapping leaves none. */
    put32(g, pte_of(USER_GVA), 0x301000 | USER_A_D);
    mmu_fetch_page(&g->v, w, USER_GVA, &page, &registered);
    assert_int_equal(page, 0x301);
    assert_false(readable(w, USER_GVA));
    set_cr3(g, PD);
    assert_int_equal(g->code_unmapped, 1);
}

/* ---- limits ---- */

/* Pages that can only be mapped one by one, each a VMA of its own. */
static void scatter(struct guest *g, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        put32(g, PT + i * 4, (DATA + (count - i) * 0x2000) | USER_A_D);
}

static void a_small_budget_is_never_passed_and_drops_still_work(void **state)
{
    (void)state;
    struct guest *g = guest_create(64);
    enum { PAGES = 1024 };
    uint32_t base = USER_GVA & 0xFFC00000;

    page_tables(g);
    scatter(g, PAGES);
    struct window *w = window_for(g, 3);
    for (unsigned i = 0; i < PAGES; i++) {
        fault_in(g, 3, base + i * 0x1000, true);
        assert_true(vmas(w) <= 64);
    }
    put32(g, PT + (PAGES - 1) * 4, 0);
    g->v.mem->invlpg(&g->v, base + (PAGES - 1) * 0x1000);
    assert_false(readable(w, base + (PAGES - 1) * 0x1000));
    put32(g, PD + (USER_GVA >> 22) * 4, 0);
    set_cr3(g, PD);
    assert_int_equal(vmas(w), 0);
    guest_destroy(g);
}

static void a_small_budget_takes_old_windows_first(void **state)
{
    (void)state;
    struct guest *g = guest_create(64);

    page_tables(g);
    scatter(g, 1024);
    put32(g, pte_of(SUPER_GVA), DATA | RW_A_D);
    struct window *super = fault_in(g, 0, SUPER_GVA, true);
    for (unsigned i = 0; i < 20; i++) {
        uint32_t root = 0x1000000 + i * 0x1000;
        put32(g, root + (USER_GVA >> 22) * 4, PT | P | W | U | A);
        put32(g, root + (SUPER_GVA >> 22) * 4, get32(g, PD + (SUPER_GVA >> 22) * 4));
        set_cr3(g, root);
        for (unsigned j = 0; j < 20; j++)
            fault_in(g, 3, USER_GVA + j * 0x1000, true);
        assert_true(maps_between(0x300000000000ull, 0x500000000000ull, "novt-ram") <= 64);
        assert_true(writable(super, SUPER_GVA));
    }
    guest_destroy(g);
}

/* Takes every VMA that the kernel will give, two pages of different protection at a time. */
static void *exhaust_vmas(size_t *size)
{
    *size = 70000 * 4096ul;
    char *at = mmap(NULL, *size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(at != MAP_FAILED);
    for (size_t i = 0; i < *size; i += 8192) {
        if (mprotect(at + i, 4096, PROT_READ) < 0)
            break;
    }
    /* The last few, which the pairs could not take. */
    for (unsigned i = 0; i < 4; i++)
        mmap(NULL, 4096, i & 1 ? PROT_READ : PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return at;
}

static void at_the_kernels_limit_every_drop_is_effective(void **state)
{
    struct guest *g = *state;
    size_t size;

    for (unsigned i = 0; i < RAM_SIZE >> 22; i++)
        put32(g, PD + ((SUPER_GVA >> 22) + i) * 4, i << 22 | RW_A_D | PS);
    for (unsigned i = 0; i < 16; i++)
        put32(g, PT + i * 4, (DATA + i * 0x1000) | USER_A_D);
    struct window *s = fault_in(g, 0, SUPER_GVA + 0x1000000, true);
    struct window *u = fault_in(g, 3, USER_GVA & 0xFFC00000, true);
    void *hog = exhaust_vmas(&size);

    errno = 0;
    assert_int_equal(mprotect(host_of(s, SUPER_GVA + 0x800000), 4096, PROT_READ), -1);
    assert_int_equal(errno, ENOMEM);

    mmu_protect_code(g->m, 0x1400);
    bool still_writable = writable(s, SUPER_GVA + 0x1400000);
    put32(g, PT + 8 * 4, 0);
    g->v.mem->invlpg(&g->v, (USER_GVA & 0xFFC00000) + 0x8000);
    bool still_readable = readable(u, (USER_GVA & 0xFFC00000) + 0x8000);
    g->v.cpl = 0;
    put32(g, PD + ((SUPER_GVA >> 22) + 2) * 4, 0);
    mmu_fault(&g->v, s, SUPER_GVA, true);
    set_cr3(g, PD);
    bool slot_readable = readable(s, SUPER_GVA + 0x800000);

    munmap(hog, size);
    assert_false(still_writable);
    assert_false(still_readable);
    assert_false(slot_readable);
    fault_in(g, 0, SUPER_GVA + 0x1401000, true);
    assert_false(writable(s, SUPER_GVA + 0x1400000));
}

static void nothing_but_guest_memory_lies_in_the_arena(void **state)
{
    struct guest *g = *state;
    struct guest *other = guest_create(0);

    page_tables(other);
    put32(g, pte_of(USER_GVA), DATA | USER_A_D);
    put32(other, pte_of(USER_GVA), DATA | USER_A_D);
    struct window *a = fault_in(g, 3, USER_GVA, true), *b = fault_in(other, 3, USER_GVA, true);
    assert_true(window_base(a) != window_base(b));
    *(uint32_t *)host_of(a, USER_GVA) = 1;
    *(uint32_t *)host_of(b, USER_GVA) = 2;
    assert_int_equal(get32(g, DATA), 1);
    assert_int_equal(get32(other, DATA), 2);
    assert_int_equal(maps_between(0x300000000000ull, 0x500000000000ull, "novt-ram"), 2);
    guest_destroy(other);
    assert_int_equal(maps_between(0x300000000000ull, 0x500000000000ull, "novt-ram"), 1);
}

static void a_taken_stride_is_passed_over(void **state)
{
    struct guest *g = *state;
    uint64_t next = window_base(window_for(g, 3)) + GIB(8) + GIB(5);
    void *squat =
        mmap((void *)next, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

    assert_ptr_equal(squat, (void *)next);
    for (unsigned i = 0; i < 4; i++) {
        set_cr3(g, 0x1000000 + i * 0x1000);
        uint64_t base = window_base(window_for(g, 3));
        assert_true(next < base || next >= base + GIB(8));
    }
    munmap(squat, 4096);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(windows_are_4_gib_aligned_in_the_arena),
        TEST(a_hidden_fault_maps_the_page_with_its_bytes),
        TEST(neighbours_are_mapped_only_if_they_are_alike),
        TEST(user_and_supervisor_pages_stay_apart),
        TEST(devices_and_writes_to_rom_are_emulated),
        TEST(large_pages_are_mapped_with_their_neighbours_in_one_run),
        TEST(a_large_page_that_is_not_dirty_is_read_only_until_written),
        TEST(pae_windows_map_2m_pages_and_nx_is_no_matter_for_data),
        TEST(a_window_may_be_stale_until_the_guest_flushes),
        TEST(a_flush_judges_each_change_of_an_entry),
        TEST(a_flush_keeps_what_lies_between_two_drops),
        TEST(a_changed_directory_entry_drops_the_slot_unread),
        TEST(a_large_page_split_by_the_guest_goes_by_invlpg),
        TEST(a_slot_whose_table_was_exchanged_unseen_takes_no_new_page),
        TEST(each_cr3_has_its_user_window_and_finds_it_again),
        TEST(the_supervisor_window_keeps_what_address_spaces_share),
        TEST(more_user_windows_than_there_may_be_are_recycled),
        TEST(with_paging_off_the_flat_window_holds_ram),
        TEST(write_protection_off_is_not_remembered_when_it_is_on),
        TEST(a_change_of_the_tables_form_empties_the_windows),
        TEST(a_code_page_is_writable_through_no_alias),
        TEST(a_code_page_is_mapped_read_only_from_the_start),
        TEST(registered_code_is_reported_when_its_mapping_goes),
        TEST(code_is_registered_only_in_the_window_of_its_kind),
        TEST(a_page_mapped_over_stale_code_reports_it),
        TEST(a_small_budget_is_never_passed_and_drops_still_work),
        TEST(a_small_budget_takes_old_windows_first),
        TEST(at_the_kernels_limit_every_drop_is_effective),
        TEST(nothing_but_guest_memory_lies_in_the_arena),
        TEST(a_taken_stride_is_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
