/*
 * Physical memory: the map of RAM, ROM and nothing, and the reporting of code pages.
 */
#include "paging.h"

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

static void what_is_written_is_read_back_across_pages(void **state)
{
    struct guest *g = *state;
    uint8_t in[9000], out[9000];

    for (unsigned i = 0; i < sizeof(in); i++)
        in[i] = (uint8_t)(i * 7);
    mmu_phys_write(g->m, 0x123456, in, sizeof(in));
    mmu_phys_read(g->m, 0x123456, out, sizeof(out));
    assert_memory_equal(in, out, sizeof(in));
    assert_memory_equal(mmu_ram(g->m) + 0x123456, in, sizeof(in));
    assert_memory_equal(mmu_page_bytes(g->m, 0x124), in + 0x124000 - 0x123456, 4096);
}

static void the_vga_hole_and_what_lies_behind_ram_read_as_ff(void **state)
{
    struct guest *g = *state;
    uint8_t byte = 0x12;

    assert_true(mmu_is_ram(g->m, 0x9F000, 0x1000));
    assert_false(mmu_is_ram(g->m, 0x9F000, 0x1001));
    assert_false(mmu_is_ram(g->m, 0xA0000, 1));
    assert_false(mmu_is_ram(g->m, 0xBFFFF, 1));
    assert_true(mmu_is_ram(g->m, 0xC0000, RAM_SIZE - 0xC0000));
    assert_false(mmu_is_ram(g->m, RAM_SIZE - 1, 2));
    assert_false(mmu_is_ram(g->m, 0xFFFFFFFF, 1));
    assert_false(mmu_is_ram(g->m, 0x100000000ull, 1));
    assert_false(mmu_is_ram(g->m, 0, ~0ull));
    mmu_phys_write(g->m, 0xA0000, &byte, 1);
    mmu_phys_read(g->m, 0xA0000, &byte, 1);
    assert_int_equal(byte, 0xFF);
    mmu_phys_write(g->m, RAM_SIZE, &byte, 1);
    byte = 0;
    mmu_phys_read(g->m, RAM_SIZE, &byte, 1);
    assert_int_equal(byte, 0xFF);
}

static void an_access_that_runs_over_4_gib_wraps(void **state)
{
    struct guest *g = *state;
    uint8_t out[8];

    put32(g, 0, 0x44332211);
    mmu_phys_read(g->m, 0xFFFFFFFC, out, 8);
    assert_memory_equal(out, "\xFF\xFF\xFF\xFF\x11\x22\x33\x44", 8);
}

static void rom_is_written_by_loaders_only(void **state)
{
    struct guest *g = *state;
    uint32_t value = 0xAABBCCDD;

    put32(g, 0xF0000, 1);
    mmu_set_rom(g->m, 0xF0000, 0x10000);
    assert_true(mmu_is_rom(g->m, 0xF0000));
    assert_false(mmu_is_rom(g->m, 0xEFFFF));
    assert_true(mmu_is_ram(g->m, 0xF0000, 0x10000));
    put32(g, 0xF0000, 2);
    assert_int_equal(get32(g, 0xF0000), 1);
    mmu_load(g->m, 0xF0000, &value, 4);
    assert_int_equal(get32(g, 0xF0000), 0xAABBCCDD);
}

static void rom_can_lie_above_ram(void **state)
{
    struct guest *g = *state;
    uint8_t jump[16] = {0xEA, 1, 2, 3};

    mmu_set_rom(g->m, 0xFFFC0000, 0x40000);
    mmu_load(g->m, 0xFFFFFFF0, jump, 16);
    assert_true(mmu_is_ram(g->m, 0xFFFC0000, 0x40000));
    assert_false(mmu_is_ram(g->m, 0xFFFBFFFF, 1));
    assert_memory_equal(mmu_ram(g->m) + 0xFFFFFFF0, jump, 16);
    assert_int_equal(get32(g, 0xFFFFFFF0), 0x030201EA);
}

static void a_write_to_a_code_page_is_reported_first_with_its_place(void **state)
{
    struct guest *g = *state;
    uint8_t bytes[20] = {0};

    mmu_protect_code(g->m, 0x300);
    mmu_phys_write(g->m, 0x2FFFF8, bytes, sizeof(bytes));
    assert_int_equal(g->code_written, 1);
    assert_int_equal(g->written_page, 0x300);
    assert_int_equal(g->written_offset, 0);
    assert_int_equal(g->written_size, 12);
    mmu_phys_write(g->m, 0x300000, bytes, 4);
    assert_int_equal(g->code_written, 1);
}

static void a_code_page_protected_again_is_reported_again(void **state)
{
    struct guest *g = *state;

    g->protect_again = true;
    mmu_protect_code(g->m, 0x300);
    put32(g, 0x300010, 5);
    put32(g, 0x300020, 6);
    assert_int_equal(g->code_written, 2);
    assert_int_equal(g->written_offset, 0x20);
    assert_int_equal(g->written_size, 4);
    assert_int_equal(get32(g, 0x300010), 5);
    mmu_unprotect_code(g->m, 0x300);
    put32(g, 0x300020, 6);
    assert_int_equal(g->code_written, 2);
}

static void unusable_sizes_are_refused_with_a_sentence(void **state)
{
    static const uint64_t sizes[] = {0, 4096, MIB(1) + 1, GIB(4), GIB(8), ~0ull};
    (void)state;

    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        struct err err = {""};
        assert_null(mmu_create(sizes[i], 0, &err));
        assert_true(strlen(err.text) > 10);
    }
}

static void the_cpu_reaches_devices_by_the_bus(void **state)
{
    struct guest *g = *state;
    uint32_t value = 0;
    uint8_t three[3] = {1, 2, 3};

    g->io_answer = 0x55667788;
    assert_int_equal(g->v.mem->read(&g->v, 0xFEE00020, &value, 4, false), 0);
    assert_int_equal(value, 0x55667788);
    assert_int_equal(g->io_gpa, 0xFEE00020);
    assert_int_equal(g->io_size, 4);
    assert_int_equal(g->v.mem->write(&g->v, 0xA0001, three, 3, false), 0);
    assert_int_equal(g->io_writes, 2);
    assert_int_equal(g->io_gpa, 0xA0003);
    assert_int_equal(g->io_value, 3);
}

static void locked_exchange_writes_only_what_matches(void **state)
{
    struct guest *g = *state;
    uint32_t old = 7;

    put32(g, 0x5000, 9);
    assert_int_equal(g->v.mem->cmpxchg32(&g->v, 0x5000, &old, 1, false), 0);
    assert_int_equal(old, 9);
    assert_int_equal(get32(g, 0x5000), 9);
    assert_int_equal(g->v.mem->cmpxchg32(&g->v, 0x5000, &old, 1, false), 0);
    assert_int_equal(get32(g, 0x5000), 1);
    old = 0;
    assert_int_equal(g->v.mem->cmpxchg32(&g->v, 0x6FFE, &old, 0x01020304, false), 0);
    assert_int_equal(get32(g, 0x6FFE), 0x01020304);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_is_written_is_read_back_across_pages),
        TEST(the_vga_hole_and_what_lies_behind_ram_read_as_ff),
        TEST(an_access_that_runs_over_4_gib_wraps),
        TEST(rom_is_written_by_loaders_only),
        TEST(rom_can_lie_above_ram),
        TEST(a_write_to_a_code_page_is_reported_first_with_its_place),
        TEST(a_code_page_protected_again_is_reported_again),
        TEST(unusable_sizes_are_refused_with_a_sentence),
        TEST(the_cpu_reaches_devices_by_the_bus),
        TEST(locked_exchange_writes_only_what_matches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
