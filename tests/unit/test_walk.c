/*
 * The page walk against tables of cases: rights, error codes, reserved bits, A and D (SDM
 * 3A 4.3-4.8). One linear address, one directory entry and one table entry; `expect` is an error
 * code, or OK.
 */
#include "paging.h"

enum { OK = -1, GVA = 0x00403ABC, R = ACCESS_READ, WR = ACCESS_WRITE, X = ACCESS_EXEC };
enum { SUPER, USER };
enum { EP = 1, EW = 2, EU = 4, ERSVD = 8, EID = 16 };

static int setup(void **state)
{
    *state = guest_create(0);
    return 0;
}

static int teardown(void **state)
{
    guest_destroy(*state);
    return 0;
}

struct row {
    const char *name;
    uint64_t pde, pte; /* flags; the frame is added, unless PS */
    bool wp, user;
    unsigned access;
    int expect;
    uint32_t pde_gets, pte_gets; /* bits that are set afterwards in addition */
};

static const struct row rows_32[] = {
    {"no table", 0, 0, 1, SUPER, R, 0, 0, 0},
    {"no table, user write", W | U, 0, 1, USER, WR, EW | EU, 0, 0},
    {"no page", P | W | U, W | U, 1, USER, R, EU, A, 0},
    {"no page, fetch", P | W | U, 0, 1, SUPER, X, 0, A, 0},
    {"supervisor read", P, P, 1, SUPER, R, OK, A, A},
    {"supervisor write", P | W, P | W, 1, SUPER, WR, OK, A, A | D},
    {"supervisor write, read-only PTE", P | W, P, 1, SUPER, WR, EP | EW, A, 0},
    {"supervisor write, read-only PDE", P, P | W, 1, SUPER, WR, EP | EW, A, 0},
    {"supervisor write, read-only, WP = 0", P, P, 0, SUPER, WR, OK, A, A | D},
    {"supervisor write to user read-only, WP = 0", P | U, P | U, 0, SUPER, WR, OK, A, A | D},
    {"supervisor write to user read-only", P | U, P | U, 1, SUPER, WR, EP | EW, A, 0},
    {"user read", P | U, P | U, 1, USER, R, OK, A, A},
    {"user read of supervisor PTE", P | U, P, 1, USER, R, EP | EU, A, 0},
    {"user read of supervisor PDE", P, P | U, 1, USER, R, EP | EU, A, 0},
    {"user write", P | W | U, P | W | U, 1, USER, WR, OK, A, A | D},
    {"user write, read-only, WP = 0", P | W | U, P | U, 0, USER, WR, EP | EW | EU, A, 0},
    {"user fetch", P | U, P | U, 1, USER, X, OK, A, A},
    {"user fetch of supervisor page has no I/D", P, P, 1, USER, X, EP | EU, A, 0},
    {"read-modify-write reports a write", P | U, P | U, 1, USER, R | WR, EP | EW | EU, A, 0},
    {"PAT bit of a PTE", P, P | PS, 1, SUPER, R, OK, A, A},
    {"A and D already there", P | W | A, P | W | A | D, 1, SUPER, WR, OK, 0, 0},
    {"large, read", P | PS, 0, 1, SUPER, R, OK, A, 0},
    {"large, write", P | W | PS, 0, 1, SUPER, WR, OK, A | D, 0},
    {"large, user", P | PS, 0, 1, USER, R, EP | EU, 0, 0},
    {"large, user write, read-only", P | U | PS, 0, 1, USER, WR, EP | EW | EU, 0, 0},
    {"large, not present", PS, 0, 1, SUPER, R, 0, 0, 0},
    {"large, PAT", P | PS | 0x1000, 0, 1, SUPER, R, OK, A, 0},
    {"large, reserved bit 13", P | PS | 0x2000, 0, 1, SUPER, R, EP | ERSVD, 0, 0},
    {"large, reserved bit 21", P | PS | 0x200000, 0, 1, USER, WR, EP | EW | EU | ERSVD, 0, 0},
};

static const struct row rows_pae[] = {
    {"no table", 0, 0, 1, SUPER, R, 0, 0, 0},
    {"no page", P, 0, 1, USER, WR, EW | EU, A, 0},
    {"write", P | W, P | W, 1, SUPER, WR, OK, A, A | D},
    {"read-only", P | W | U, P | U, 1, USER, WR, EP | EW | EU, A, 0},
    {"reserved bit 36 of PTE", P, P | 1ull << 36, 1, SUPER, R, EP | ERSVD, A, 0},
    {"reserved bit 62 of PDE", P | 1ull << 62, P, 1, SUPER, R, EP | ERSVD, 0, 0},
    {"NX is reserved without NXE", P, P | NX, 1, SUPER, R, EP | ERSVD, A, 0},
    {"NX is reserved without NXE in a PDE", P | NX, P, 1, USER, X, EP | EU | ERSVD, 0, 0},
    {"2M read", P | PS, 0, 1, SUPER, R, OK, A, 0},
    {"2M reserved bit 13", P | PS | 0x2000, 0, 1, SUPER, R, EP | ERSVD, 0, 0},
    {"2M reserved bit 20", P | PS | 0x100000, 0, 1, SUPER, R, EP | ERSVD, 0, 0},
    {"2M PAT", P | PS | 0x1000, 0, 1, SUPER, R, OK, A, 0},
    {"fetch without NXE has no I/D", P, P, 1, USER, X, EP | EU, A, 0},
};

static const struct row rows_nx[] = {
    {"fetch", P | U, P | U, 1, USER, X, OK, A, A},
    {"fetch from NX page", P | U, P | U | NX, 1, USER, X, EP | EU | EID, A, 0},
    {"fetch from NX table", P | U | NX, P | U, 1, USER, X, EP | EU | EID, A, 0},
    {"read from NX page", P | U, P | U | NX, 1, USER, R, OK, A, A},
    {"fetch, not present", P, 0, 1, SUPER, X, EID, A, 0},
    {"fetch, supervisor page", P, P, 1, USER, X, EP | EU | EID, A, 0},
    {"2M NX", P | PS | NX, 0, 1, SUPER, X, EP | EID, 0, 0},
    {"2M NX read", P | PS | NX, 0, 1, SUPER, R, OK, A, 0},
    {"reserved wins over NX", P, P | NX | 1ull << 40, 1, SUPER, X, EP | ERSVD | EID, A, 0},
};

static void check_row(struct guest *g, const struct row *row, bool pae)
{
    uint64_t pde = row->pde & PS ? row->pde | 0x400000 : row->pde | PT;
    uint64_t pte = row->pte | 0x345000;
    uint32_t pde_at = pae ? PD + (GVA >> 21) * 8 : PD + (GVA >> 22) * 4;
    uint32_t pte_at = pae ? PT + (GVA >> 12 & 511) * 8 : PT + (GVA >> 12 & 1023) * 4;
    struct translation t;

    put64(g, pde_at, 0);
    put64(g, pte_at, 0);
    if (pae) {
        put64(g, pde_at, pde);
        put64(g, pte_at, pte);
    } else {
        put32(g, pde_at, (uint32_t)pde);
        put32(g, pte_at, (uint32_t)pte);
    }
    set_wp(g, row->wp);
    g->v.exc = (struct exception){0};
    int ret = walk(&g->v, GVA, row->access, row->user, &t);
    if (row->expect == OK) {
        if (ret != 0)
            fail_msg("%s: fault %x", row->name, g->v.exc.error);
        uint64_t large = 0x400000 | (GVA & (pae ? 0x1FFFFF : 0x3FFFFF));
        assert_int_equal(t.gpa, row->pde & PS ? large : 0x345ABC);
        assert_int_equal(t.page_size, row->pde & PS ? pae ? MIB(2) : MIB(4) : 4096);
        uint64_t rights = row->pde & PS ? row->pde : row->pde & row->pte;
        assert_int_equal(t.user, (rights & U) != 0);
        assert_int_equal(t.write, (rights & W) != 0);
    } else {
        if (ret != FAULT || g->v.exc.error != (uint32_t)row->expect)
            fail_msg("%s: returned %d, error %x, not %x", row->name, ret, g->v.exc.error,
                     row->expect);
        assert_int_equal(g->v.exc.vector, VEC_PF);
        assert_true(g->v.exc.has_error);
        assert_int_equal(g->v.exc.cr2, GVA);
    }
    uint64_t pde_now = pae ? get64(g, pde_at) : get32(g, pde_at);
    uint64_t pte_now = pae ? get64(g, pte_at) : get32(g, pte_at);
    if (pde_now != (pde | row->pde_gets) || pte_now != (pte | row->pte_gets))
        fail_msg("%s: entries have become %llx and %llx", row->name, (unsigned long long)pde_now,
                 (unsigned long long)pte_now);
}

static void walks_of_32_bit_paging_give_rights_errors_and_bits(void **state)
{
    struct guest *g = *state;
    set_paging(g, CR0_PE | CR0_PG | CR0_WP, PD | 0x18, CR4_PSE, EFER_NXE);
    for (unsigned i = 0; i < ARRAY_LEN(rows_32); i++)
        check_row(g, &rows_32[i], false);
}

static void walks_of_pae_give_rights_errors_and_bits(void **state)
{
    struct guest *g = *state;
    put64(g, ROOT2, PD | P);
    assert_int_equal(g->v.mem->load_pdptes(&g->v, ROOT2), 0);
    set_paging(g, CR0_PE | CR0_PG | CR0_WP, ROOT2, CR4_PAE, 0);
    for (unsigned i = 0; i < ARRAY_LEN(rows_pae); i++)
        check_row(g, &rows_pae[i], true);
    set_paging(g, CR0_PE | CR0_PG | CR0_WP, ROOT2, CR4_PAE, EFER_NXE);
    for (unsigned i = 0; i < ARRAY_LEN(rows_nx); i++)
        check_row(g, &rows_nx[i], true);
}

static void without_pse_the_ps_bit_means_nothing(void **state)
{
    struct guest *g = *state;
    struct translation t;

    set_paging(g, CR0_PE | CR0_PG, PD, 0, 0);
    put32(g, PD + 4, PT | P | PS);
    put32(g, PT + 3 * 4, 0x345000 | P);
    assert_int_equal(walk(&g->v, GVA, R, false, &t), 0);
    assert_int_equal(t.gpa, 0x345ABC);
}

static void with_paging_off_addresses_are_physical(void **state)
{
    struct guest *g = *state;
    struct translation t;

    assert_int_equal(walk(&g->v, 0xFFFFFFFF, WR, true, &t), 0);
    assert_int_equal(t.gpa, 0xFFFFFFFF);
    assert_true(t.user && t.write && t.dirty);
}

static void pae_has_no_table_where_the_pdpte_loaded_is_absent(void **state)
{
    struct guest *g = *state;
    struct translation t;

    put64(g, ROOT2 + 8, PD | P);
    assert_int_equal(g->v.mem->load_pdptes(&g->v, ROOT2), 0);
    set_paging(g, CR0_PE | CR0_PG, ROOT2, CR4_PAE, 0);
    put64(g, PD, 0x600000 | P | PS);
    assert_int_equal(walk(&g->v, 0x1234, R, true, &t), FAULT);
    assert_int_equal(g->v.exc.error, EU);
    assert_int_equal(walk(&g->v, 0x40001234, R, false, &t), 0);
    assert_int_equal(t.gpa, 0x601234);
    /* PDPTEs in memory count only when they are loaded. */
    put64(g, ROOT2 + 8, 0);
    assert_int_equal(walk(&g->v, 0x40001234, R, false, &t), 0);
}

static void reserved_bits_of_pdptes_are_refused_all_or_nothing(void **state)
{
    static const uint64_t bad[] = {2, 4, 0x20, 0x100, 1ull << 36, 1ull << 63};
    struct guest *g = *state;

    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        put64(g, ROOT2, 0x77000 | P);
        put64(g, ROOT2 + 24, 0x78000 | P | bad[i]);
        assert_int_equal(g->v.mem->load_pdptes(&g->v, ROOT2), FAULT);
        assert_int_equal(g->v.exc.vector, VEC_GP);
        assert_true(g->v.exc.has_error);
        assert_int_equal(g->v.exc.error, 0);
        assert_int_equal(g->v.pdpte[0], 0);
        put64(g, ROOT2 + 24, bad[i]); /* not present: anything goes */
        assert_int_equal(g->v.mem->load_pdptes(&g->v, ROOT2 | 0x18), 0);
        assert_int_equal(g->v.pdpte[0], 0x77000 | P);
        g->v.pdpte[0] = 0;
    }
}

static void tables_in_rom_keep_their_bits(void **state)
{
    struct guest *g = *state;
    struct translation t;

    set_paging(g, CR0_PE | CR0_PG, 0xF0000, 0, 0);
    put32(g, 0xF0004, 0xF1000 | P | W);
    put32(g, 0xF100C, 0x345000 | P | W);
    mmu_set_rom(g->m, 0xF0000, 0x2000);
    assert_int_equal(walk(&g->v, GVA, WR, false, &t), 0);
    assert_int_equal(t.gpa, 0x345ABC);
    assert_true(t.in_ram);
    assert_int_equal(get32(g, 0xF0004), 0xF1000 | P | W);
    assert_int_equal(get32(g, 0xF100C), 0x345000 | P | W);
}

static void tables_outside_ram_go_by_the_bus(void **state)
{
    struct guest *g = *state;
    struct translation t;

    g->io_answer = 0x345000 | P | W;
    set_paging(g, CR0_PE | CR0_PG, PD, 0, 0);
    put32(g, PD + 4, 0xF8000000u | P | W);
    assert_int_equal(walk(&g->v, GVA, R, false, &t), 0);
    assert_int_equal(t.gpa, 0x345ABC);
    assert_false(t.in_ram);
    assert_int_equal(g->io_gpa, 0xF800000C);
    assert_int_equal(g->io_reads, 1);
    assert_int_equal(g->io_writes, 1);
    assert_int_equal(g->io_value, 0x345000 | P | W | A);
}

static void setting_a_bit_in_a_code_page_is_reported(void **state)
{
    struct guest *g = *state;
    struct translation t;

    set_paging(g, CR0_PE | CR0_PG, PD, 0, 0);
    put32(g, PD + 4, PT | P | A);
    put32(g, PT + 12, 0x345000 | P);
    mmu_protect_code(g->m, PT >> 12);
    mmu_protect_code(g->m, PD >> 12);
    assert_int_equal(walk(&g->v, GVA, R, false, &t), 0);
    assert_int_equal(g->code_written, 1);
    assert_int_equal(g->written_page, PT >> 12);
    assert_int_equal(g->written_offset, 12);
    assert_int_equal(g->written_size, 4);
}

static void accesses_from_c_check_all_pages_before_the_first_byte(void **state)
{
    struct guest *g = *state;
    uint64_t value = ~0ull;

    set_paging(g, CR0_PE | CR0_PG | CR0_WP, PD, 0, 0);
    put32(g, PD, PT | P | W);
    put32(g, PT + 0x300 * 4, 0x300000 | P | W);
    put32(g, PT + 0x301 * 4, 0x380000 | P);
    assert_int_equal(g->v.mem->write(&g->v, 0x300FFC, &value, 8, false), FAULT);
    assert_int_equal(g->v.exc.error, EP | EW);
    assert_int_equal(g->v.exc.cr2, 0x301000);
    assert_int_equal(get32(g, 0x300FFC), 0);
    assert_int_equal(g->v.mem->probe_write(&g->v, 0x300FFC, 4, false), 0);
    assert_int_equal(g->v.mem->probe_write(&g->v, 0x300FFC, 5, false), FAULT);
    put32(g, 0x300FFC, 0x11111111);
    put32(g, 0x380000, 0x22222222);
    assert_int_equal(g->v.mem->read(&g->v, 0x300FFC, &value, 8, false), 0);
    assert_true(value == 0x2222222211111111ull);
    assert_int_equal(g->v.mem->read(&g->v, 0x301FFF, &value, 2, false), FAULT);
    assert_int_equal(g->v.exc.cr2, 0x302000);
    assert_int_equal(g->v.mem->fetch(&g->v, 0x301FFC, &value, 8, false), 4);
    assert_int_equal(g->v.mem->fetch(&g->v, 0x302000, &value, 8, false), FAULT);
    assert_int_equal(g->v.mem->read(&g->v, 0x300000, &value, 4, true), FAULT);
    assert_int_equal(g->v.exc.error, EP | EU);
}

static void the_lookaside_is_flushed_when_the_guest_orders_it(void **state)
{
    struct guest *g = *state;
    uint32_t value;

    set_paging(g, CR0_PE | CR0_PG | CR0_WP, PD, 0, 0);
    put32(g, PD, PT | P | W);
    put32(g, PT + 0x300 * 4, 0x300000 | P | W);
    put32(g, 0x300000, 1);
    put32(g, 0x380000, 2);
    g->v.mem->read(&g->v, 0x300000, &value, 4, false);
    assert_int_equal(value, 1);
    put32(g, PT + 0x300 * 4, 0x380000 | P | W);
    g->v.mem->invlpg(&g->v, 0x300000);
    g->v.mem->read(&g->v, 0x300000, &value, 4, false);
    assert_int_equal(value, 2);
    put32(g, PT + 0x300 * 4, 0);
    set_cr3(g, PD);
    assert_int_equal(g->v.mem->read(&g->v, 0x300000, &value, 4, false), FAULT);
}

static void a_cached_write_still_reports_code_pages(void **state)
{
    struct guest *g = *state;
    uint32_t value = 3;

    g->v.mem->write(&g->v, 0x300000, &value, 4, false);
    mmu_protect_code(g->m, 0x300);
    g->v.mem->write(&g->v, 0x300008, &value, 4, false);
    assert_int_equal(g->code_written, 1);
    assert_int_equal(g->written_offset, 8);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(walks_of_32_bit_paging_give_rights_errors_and_bits),
        TEST(walks_of_pae_give_rights_errors_and_bits),
        TEST(without_pse_the_ps_bit_means_nothing),
        TEST(with_paging_off_addresses_are_physical),
        TEST(pae_has_no_table_where_the_pdpte_loaded_is_absent),
        TEST(reserved_bits_of_pdptes_are_refused_all_or_nothing),
        TEST(tables_in_rom_keep_their_bits),
        TEST(tables_outside_ram_go_by_the_bus),
        TEST(setting_a_bit_in_a_code_page_is_reported),
        TEST(accesses_from_c_check_all_pages_before_the_first_byte),
        TEST(the_lookaside_is_flushed_when_the_guest_orders_it),
        TEST(a_cached_write_still_reports_code_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
