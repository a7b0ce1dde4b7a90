/*
 * Memory accesses that are not plain: user pages touched by the supervisor, CR0.WP = 0, I/O memory
 * and ROM, addresses that wrap.
 */
#include "engine_bench.h"

#include "dbt/dbt.h"

enum { USER_PAGE = 0x600000, SUPER_PAGE = 0x700000, KERNEL = PT_P | PT_W, USER = KERNEL | PT_U };

/* ---- user pages from supervisor code ---- */

static void map_both(struct bench *b)
{
    bench_paging(b, KERNEL);
    for (unsigned i = 0; i < 4; i++) {
        bench_map(b, USER_PAGE + i * PAGE_SIZE, USER_PAGE + i * PAGE_SIZE, USER);
        bench_map(b, SUPER_PAGE + i * PAGE_SIZE, SUPER_PAGE + i * PAGE_SIZE, KERNEL);
    }
    bench_flush(b);
}

/* get_user and put_user: each site sees user pages only. */
GUEST(copies_a_word, "mov $50, %ecx\n"
                     "1: mov 0x600000, %eax\n"
                     "inc %eax\n"
                     "mov %eax, 0x600004(,%ecx,4)\n"
                     "mov %eax, 0x600000\n"
                     "lock addl $1, 0x601000\n"
                     "movzbl 0x600000, %edx\n"
                     "dec %ecx\n"
                     "jnz 1b\n"
                     "push 0x600000\n"
                     "pop 0x601004\n"
                     "mov %esp, %ebp\n"
                     "mov $0x603000, %esp\n"
                     "push $0x77\n"
                     "push %esp\n"
                     "pop %esi\n"
                     "pop %edi\n"
                     "mov %ebp, %esp\n"
                     "fldpi\n"
                     "fstpl 0x602000\n"
                     "mov 0x600000, %ah\n"
                     "hlt\n");

static void copies_words(struct bench *b)
{
    map_both(b);
    bench_put32(b, USER_PAGE, 0);
    bench_put32(b, USER_PAGE + 0x1000, 0);
    BENCH_LOAD(b, CODE, copies_a_word);
    bench_run(b);
    assert_int_equal(bench_get32(b, USER_PAGE), 50);
    assert_int_equal(bench_get32(b, USER_PAGE + 0x1000), 50);
    assert_int_equal(bench_get32(b, USER_PAGE + 0x1004), 50);
    for (unsigned i = 1; i <= 50; i++)
        assert_int_equal(bench_get32(b, USER_PAGE + 4 + 4 * i), 51 - i);
    assert_int_equal(bench_reg(b, REG_SI), USER_PAGE + 0x2FFC);
    assert_int_equal(bench_reg(b, REG_DI), 0x77);
    assert_int_equal(bench_get32(b, USER_PAGE + 0x2000), 0x54442D18); /* pi */
    assert_int_equal(bench_reg(b, REG_AX) >> 8 & 0xFF, 50);
}

static void supervisor_code_reaches_user_pages(void **state)
{
    (void)state;
    bench_everywhere(copies_words);
}

static void a_site_that_has_learned_faults_no_more(void **state)
{
    struct bench *b = bench_create();
    (void)state;

    copies_words(b);
    assert_true(b->d->stats.user_sites > 5);
    bench_reset(b);
    uint64_t sites = b->d->stats.user_sites, emulated = b->d->stats.emulated_faults;
    copies_words(b);
    assert_int_equal(b->d->stats.user_sites, sites);
    assert_int_equal(b->d->stats.emulated_faults, emulated);
    assert_int_equal(b->d->stats.mixed_sites, 0);
    bench_destroy(b);
}

/* copy_to_user, copy_from_user, and both: REP MOVS with one operand or two in the user window. */
GUEST(copies_strings, "mov $0x600000, %edi\n"
                      "mov $0x700000, %esi\n"
                      "mov $0x500, %ecx\n"
                      "rep movsl\n"
                      "mov $0x600000, %esi\n"
                      "mov $0x702000, %edi\n"
                      "mov $0x500, %ecx\n"
                      "rep movsl\n"
                      "mov $0x600000, %esi\n"
                      "mov $0x602000, %edi\n"
                      "mov $0x500, %ecx\n"
                      "rep movsl\n"
                      "mov $0x602000, %esi\n"
                      "mov $0x702000, %edi\n"
                      "mov $0x500, %ecx\n"
                      "repe cmpsl\n"
                      "sete %al\n"
                      "mov %esi, %ebx\n"
                      "mov %edi, %edx\n"
                      "hlt\n");

static void copies_strings_about(struct bench *b)
{
    map_both(b);
    for (uint32_t i = 0; i < 0x1400; i += 4)
        bench_put32(b, SUPER_PAGE + i, i * 0x01010101u);
    BENCH_LOAD(b, CODE, copies_strings);
    bench_run(b);
    const uint8_t *ram = mmu_ram(b->m);
    assert_memory_equal(ram + SUPER_PAGE, ram + USER_PAGE, 0x1400);
    assert_memory_equal(ram + SUPER_PAGE, ram + SUPER_PAGE + 0x2000, 0x1400);
    assert_memory_equal(ram + SUPER_PAGE, ram + USER_PAGE + 0x2000, 0x1400);
    assert_int_equal(bench_reg(b, REG_AX) & 0xFF, 1);
    assert_int_equal(bench_reg(b, REG_BX), USER_PAGE + 0x2000 + 0x1400);
    assert_int_equal(bench_reg(b, REG_DX), SUPER_PAGE + 0x2000 + 0x1400);
}

static void strings_may_lie_on_user_pages_on_either_side(void **state)
{
    (void)state;
    bench_everywhere(copies_strings_about);
}

/* memcpy and a load and store that serve user and supervisor pages in turn. */
GUEST(serves_both, "mov $40, %ecx\n"
                   "1: mov $0x600000, %esi\n"
                   "mov $0x700000, %edi\n"
                   "call 2f\n"
                   "mov $0x700000, %esi\n"
                   "mov $0x601000, %edi\n"
                   "call 2f\n"
                   "mov $0x600000, %esi\n"
                   "mov $0x602000, %edi\n"
                   "call 2f\n"
                   "mov $0x700000, %esi\n"
                   "mov $0x701000, %edi\n"
                   "call 2f\n"
                   "loop 1b\n"
                   "hlt\n"
                   "2: mov (%esi), %eax\n" /* the first dword by itself */
                   "inc %eax\n"
                   "mov %eax, (%esi)\n"
                   "push (%esi)\n"
                   "pop (%edi)\n"
                   "add $4, %esi\n"
                   "add $4, %edi\n"
                   "push %ecx\n"
                   "mov $63, %ecx\n"
                   "rep movsl\n"
                   "pop %ecx\n"
                   "ret\n");

static void serves_both_kinds(struct bench *b)
{
    map_both(b);
    for (uint32_t i = 0; i < 0x100; i += 4) {
        bench_put32(b, USER_PAGE + i, i ? i * 0x01010101u : 0);
        bench_put32(b, SUPER_PAGE + i, 0);
    }
    BENCH_LOAD(b, CODE, serves_both);
    bench_run(b);
    const uint8_t *ram = mmu_ram(b->m);
    assert_int_equal(bench_get32(b, USER_PAGE), 80);
    assert_int_equal(bench_get32(b, SUPER_PAGE), 81); /* copied from 79, then raised twice */
    assert_memory_equal(ram + USER_PAGE + 4, ram + SUPER_PAGE + 4, 0xFC);
    assert_memory_equal(ram + USER_PAGE + 4, ram + USER_PAGE + 0x1004, 0xFC);
    assert_memory_equal(ram + USER_PAGE + 4, ram + USER_PAGE + 0x2004, 0xFC);
    assert_memory_equal(ram + USER_PAGE + 4, ram + SUPER_PAGE + 0x1004, 0xFC);
    assert_int_equal(bench_reg(b, REG_SP), STACK);
}

static void a_site_may_touch_both_kinds_of_pages_in_turn(void **state)
{
    (void)state;
    bench_everywhere(serves_both_kinds);
}

/* One access, half on a user page and half on a supervisor's. */
GUEST(straddles, "movl $0x11223344, 0x5FFFFE\n"
                 "mov 0x5FFFFE, %eax\n"
                 "mov %eax, 0x603FFE\n"
                 "addl $0x01010101, 0x603FFE\n"
                 "mov 0x603FFE, %ebx\n"
                 "movups 0x603FF8, %xmm0\n"
                 "movups %xmm0, 0x700010\n"
                 "hlt\n");

static void straddles_pages(struct bench *b)
{
    map_both(b);
    BENCH_LOAD(b, CODE, straddles);
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 0x11223344);
    assert_int_equal(bench_reg(b, REG_BX), 0x12233445);
    assert_int_equal(bench_get32(b, 0x5FFFFC) >> 16, 0x3344);
    assert_int_equal(bench_get32(b, 0x600000) & 0xFFFF, 0x1122);
    assert_memory_equal(mmu_ram(b->m) + 0x603FF8, mmu_ram(b->m) + 0x700010, 16);
}

static void an_access_may_straddle_user_and_supervisor_pages(void **state)
{
    (void)state;
    bench_everywhere(straddles_pages);
}

/* A user page that is remapped is seen through learned sites as well. */
GUEST(reads_user, "mov 0x600000, %eax\n"
                  "hlt\n");

static void reads_remapped(struct bench *b)
{
    map_both(b);
    bench_put32(b, USER_PAGE, 1);
    bench_put32(b, USER_PAGE + 0x1000, 2);
    BENCH_LOAD(b, CODE, reads_user);
    for (unsigned i = 0; i < 6; i++) {
        bench_map(b, USER_PAGE, i & 1 ? USER_PAGE + 0x1000 : USER_PAGE, USER);
        bench_flush(b);
        b->v->rip = CODE;
        bench_run(b);
        assert_int_equal(bench_reg(b, REG_AX), i & 1 ? 2 : 1);
    }
    bench_map(b, USER_PAGE, 0, 0);
    bench_flush(b);
    b->v->rip = CODE;
    struct bench_frame f = bench_run_to(b, VEC_PF);
    assert_int_equal(f.error, 0);
    assert_int_equal(b->v->cr2, USER_PAGE);
    /* And one that has become the supervisor's. */
    bench_map(b, USER_PAGE, USER_PAGE, KERNEL);
    bench_flush(b);
    b->v->rip = CODE;
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 1);
}

static void learned_sites_see_changes_of_the_tables(void **state)
{
    (void)state;
    bench_everywhere(reads_remapped);
}

/* User code gets none of the supervisor's pages, whatever the supervisor did before. */
static void user_reads_kernel(struct bench *b)
{
    map_both(b);
    for (uint32_t gpa = CODE; gpa < DATA; gpa += PAGE_SIZE)
        bench_map(b, gpa, gpa, USER);
    bench_flush(b);
    bench_write(b, CODE, "\xA1\x00\x00\x70\x00\xF4", 6); /* mov 0x700000, %eax; hlt */
    bench_run(b);
    bench_ring3(b);
    b->v->rip = CODE;
    struct bench_frame f = bench_run_to(b, VEC_PF);
    assert_int_equal(f.error, 5);
    assert_int_equal(b->v->cr2, SUPER_PAGE);
    assert_int_equal(f.eip, CODE);
}

static void user_code_never_reaches_supervisor_pages(void **state)
{
    (void)state;
    bench_everywhere(user_reads_kernel);
}

/* ---- CR0.WP ---- */

GUEST(writes_read_only, "incl 0x700000\n"
                        "incl 0x600000\n"
                        "hlt\n");

static void ignores_write_protection(struct bench *b)
{
    map_both(b);
    bench_map(b, SUPER_PAGE, SUPER_PAGE, PT_P);
    bench_map(b, USER_PAGE, USER_PAGE, PT_P | PT_U);
    bench_set_cr0(b, b->v->cr0 & ~(uint32_t)CR0_WP);
    bench_put32(b, SUPER_PAGE, 1);
    bench_put32(b, USER_PAGE, 1);
    BENCH_LOAD(b, CODE, writes_read_only);
    for (unsigned i = 0; i < 4; i++) {
        b->v->rip = CODE;
        bench_run(b);
        assert_int_equal(bench_get32(b, SUPER_PAGE), 2 + i);
        assert_int_equal(bench_get32(b, USER_PAGE), 2 + i);
    }
    /* With WP both fault again. */
    bench_set_cr0(b, b->v->cr0 | CR0_WP);
    b->v->rip = CODE;
    struct bench_frame f = bench_run_to(b, VEC_PF);
    assert_int_equal(f.error, 3);
    assert_int_equal(b->v->cr2, SUPER_PAGE);
    b->v->rip = CODE + 6;
    b->v->regs[REG_SP] = STACK;
    f = bench_run_to(b, VEC_PF);
    assert_int_equal(f.error, 3);
    assert_int_equal(b->v->cr2, USER_PAGE);
    assert_int_equal(bench_get32(b, SUPER_PAGE), 5);
    assert_int_equal(bench_get32(b, USER_PAGE), 5);
}

static void the_supervisor_may_write_anything_without_wp(void **state)
{
    (void)state;
    bench_everywhere(ignores_write_protection);
}

/* ---- I/O memory and ROM ---- */

static uint32_t mmio_read(void *opaque, uint32_t gpa, unsigned size)
{
    struct bench *b = opaque;
    b->out[b->outs++ % BENCH_OUT_MAX] = 0x10000000 | size << 20 | (gpa & 0xFFFFF);
    return 0x80818283 >> 8 * (gpa & 3);
}

static void mmio_write(void *opaque, uint32_t gpa, unsigned size, uint32_t value)
{
    struct bench *b = opaque;
    b->out[b->outs++ % BENCH_OUT_MAX] = 0x20000000 | size << 20 | (gpa & 0xFFFFF);
    b->out[b->outs++ % BENCH_OUT_MAX] = value & (uint32_t)width_mask(size);
}

GUEST(touches_mmio, "mov 0xA0000, %eax\n"
                    "mov 0xA0004, %bl\n"
                    "movw $0x1234, 0xA0008\n"
                    "addl $1, 0xA000C\n"
                    "mov $0xA0010, %edi\n"
                    "mov $2, %ecx\n"
                    "rep stosl\n"
                    "push 0xA0000\n"
                    "pop %edx\n"
                    "hlt\n");

static void reaches_mmio(struct bench *b)
{
    static const uint32_t seen[] = {0x104A0000, 0x101A0004, 0x202A0008, 0x1234,
                                    0x104A000C, 0x204A000C, 0x80818284, 0x204A0010,
                                    0x80818283, 0x204A0014, 0x80818283, 0x104A0000};

    mmu_set_io(b->m, &(struct mmu_io){mmio_read, mmio_write, b});
    BENCH_LOAD(b, CODE, touches_mmio);
    for (unsigned i = 0; i < 3; i++) {
        b->v->rip = CODE;
        b->outs = 0;
        bench_run(b);
        assert_int_equal(bench_reg(b, REG_AX), 0x80818283);
        assert_int_equal(bench_reg(b, REG_BX) & 0xFF, 0x83);
        assert_int_equal(bench_reg(b, REG_DX), 0x80818283);
        assert_int_equal(b->outs, ARRAY_LEN(seen));
        for (unsigned j = 0; j < ARRAY_LEN(seen); j++)
            assert_int_equal(b->out[j], j == 1 ? 0x101A0004 : seen[j]);
    }
}

static void io_memory_sees_each_access_once(void **state)
{
    (void)state;
    bench_scenario_with(reaches_mmio, NULL);
    bench_scenario_with(reaches_mmio, &(struct dbt_options){.verify = true});
    bench_scenario_with(reaches_mmio, &(struct dbt_options){.no_bmi2 = true, .no_fsgsbase = true});
}

GUEST(writes_rom, "movl $0, 0xF0000\n"
                  "incl 0xF0000\n"
                  "mov 0xF0000, %eax\n"
                  "call *%esi\n"
                  "hlt\n");

static void rom_stays(struct bench *b)
{
    static const uint8_t rom[] = {0xBB, 0x01, 0x00, 0x00, 0x00, 0xC3}; /* mov $1, %ebx; ret */

    mmu_set_rom(b->m, 0xF0000, 0x10000);
    mmu_load(b->m, 0xF0000, rom, sizeof(rom));
    BENCH_LOAD(b, CODE, writes_rom);
    b->v->regs[REG_SI] = 0xF0000;
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 0x000001BB);
    assert_int_equal(bench_reg(b, REG_BX), 1);
}

static void rom_can_be_run_and_not_written(void **state)
{
    (void)state;
    bench_everywhere(rom_stays);
}

/* Code in I/O memory is executed, an instruction at a time. */
static uint32_t mmio_code(void *opaque, uint32_t gpa, unsigned size)
{
    static const uint8_t code[] = {0xB8, 0x2A, 0x00, 0x00, 0x00, 0x40, 0xC3, 0, 0, 0};
    uint32_t value = 0xFFFFFFFF;
    (void)opaque;
    for (unsigned i = 0; i < size; i++) {
        if (gpa - 0xB0000 + i < sizeof(code))
            value = (value & ~(0xFFu << 8 * i)) | (uint32_t)code[gpa - 0xB0000 + i] << 8 * i;
    }
    return value;
}

static void runs_in_mmio(struct bench *b)
{
    mmu_set_io(b->m, &(struct mmu_io){mmio_code, mmio_write, b});
    bench_write(b, CODE, "\xFF\xD6\xF4", 3); /* call *%esi; hlt */
    b->v->regs[REG_SI] = 0xB0000;
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 43);
    assert_int_equal(bench_reg(b, REG_SP), STACK);
}

static void code_in_io_memory_runs(void **state)
{
    (void)state;
    bench_everywhere(runs_in_mmio);
}

/* ---- the ends of the address space ---- */

/* Paging maps the last page and the first: accesses and strings wrap from one to the other. */
GUEST(wraps_around, "movl $0x44332211, 0xFFFFFFFE\n"
                    "mov 0xFFFFFFFE, %eax\n"
                    "mov $0xFFFFFFF8, %edi\n"
                    "mov $0x5A5A5A5A, %edx\n"
                    "xchg %eax, %edx\n"
                    "mov $6, %ecx\n"
                    "rep stosl\n"
                    "mov $8, %ebx\n"
                    "mov -10(%ebx), %esi\n"         /* FFFFFFFE by way of a sum */
                    "btl %edx, 0xFFFFFFF0(,%ebx)\n" /* anywhere: must stay in the window */
                    "hlt\n");

static void wraps(struct bench *b)
{
    bench_paging(b, KERNEL);
    bench_put32(b, TABLES + 4 * 1023, (TABLES + 0x6000) | KERNEL);
    bench_put32(b, TABLES + 0x6000 + 4 * 1023, 0x310000 | KERNEL);
    bench_flush(b);
    BENCH_LOAD(b, CODE, wraps_around);
    bench_run(b);
    struct bench_frame f = bench_exception(b);
    assert_int_equal(bench_reg(b, REG_DX), 0x44332211);
    assert_int_equal(bench_reg(b, REG_DI), 16);
    assert_int_equal(bench_reg(b, REG_SI), 0x5A5A5A5A);
    assert_int_equal(bench_get32(b, 0x310FFC), 0x5A5A5A5A);
    assert_int_equal(bench_get32(b, 0), 0x5A5A5A5A);
    assert_int_equal(bench_get32(b, 12), 0x5A5A5A5A);
    assert_int_equal(bench_get32(b, 16), 0);
    /* BT: bit 44332211h of FFFFFFF8h is in the dword at 8866438h, which is not mapped. */
    assert_int_equal(f.vector, VEC_PF);
    assert_int_equal(b->v->cr2, 0xFFFFFFF8u + (0x44332211u >> 5) * 4);
}

static void addresses_wrap_at_four_gigabytes(void **state)
{
    (void)state;
    bench_everywhere(wraps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(supervisor_code_reaches_user_pages),
        cmocka_unit_test(a_site_that_has_learned_faults_no_more),
        cmocka_unit_test(strings_may_lie_on_user_pages_on_either_side),
        cmocka_unit_test(a_site_may_touch_both_kinds_of_pages_in_turn),
        cmocka_unit_test(an_access_may_straddle_user_and_supervisor_pages),
        cmocka_unit_test(learned_sites_see_changes_of_the_tables),
        cmocka_unit_test(user_code_never_reaches_supervisor_pages),
        cmocka_unit_test(the_supervisor_may_write_anything_without_wp),
        cmocka_unit_test(io_memory_sees_each_access_once),
        cmocka_unit_test(rom_can_be_run_and_not_written),
        cmocka_unit_test(code_in_io_memory_runs),
        cmocka_unit_test(addresses_wrap_at_four_gigabytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
