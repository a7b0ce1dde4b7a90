/*
 * What happens at the limits: so few host mappings that windows are emptied all the time, so many
 * address spaces that windows are recycled, more mode keys than there are contexts, and a small
 * code cache with all of it. The guest must always see the right data.
 */
#include "engine_bench.h"

#include "dbt/dbt.h"

enum { KERNEL = PT_P | PT_W, USER = KERNEL | PT_U };

/* ---- scattered pages, remapped all the time ---- */

/*
 * PAGES virtual pages at 0x800000, each of which maps one of FRAMES frames at 0x1000000, that hold
 * their own number. Rounds: the guest remaps a page to another frame (INVLPG), reads and adds up
 * many of them, and writes to some; the sum is to be what the tables say.
 */
enum { PAGES = 1024, WINDOW = 0x800000, FRAMES = 0x1000000 };

GUEST(remaps, /* EDI: PTEs of WINDOW, EBP: rounds, EDX: a random number */
      "1: imul $1664525, %edx\n"
      "add $1013904223, %edx\n"
      "mov %edx, %eax\n"
      "shr $22, %eax\n" /* a page */
      "mov %edx, %ebx\n"
      "shr $8, %ebx\n"
      "and $1023, %ebx\n" /* a frame */
      "shl $12, %ebx\n"
      "add $0x1000003, %ebx\n"
      "mov %ebx, (%edi,%eax,4)\n"
      "shl $12, %eax\n"
      "invlpg 0x800000(%eax)\n"
      /* Read this page and seven others, far apart. */
      "mov $8, %ecx\n"
      "2: add 0x800000(%eax), %esi\n"
      "incl 0x800008(%eax)\n"
      "add $0x83000, %eax\n"
      "and $0x3FF000, %eax\n"
      "loop 2b\n"
      "dec %ebp\n"
      "jnz 1b\n"
      "hlt\n");

static void remaps_with(unsigned vma_budget, const struct dbt_options *options, unsigned rounds)
{
    struct bench *b = bench_create_with(options, vma_budget);
    static uint32_t frame_of[PAGES], counted[PAGES];
    uint32_t sum = 0, random = 12345;

    bench_paging(b, KERNEL);
    for (unsigned i = 0; i < PAGES; i++) {
        bench_put32(b, FRAMES + i * PAGE_SIZE, i * 0x10001);
        frame_of[i] = i;
        counted[i] = 0;
        bench_map(b, WINDOW + i * PAGE_SIZE, FRAMES + i * PAGE_SIZE, KERNEL);
    }
    bench_flush(b);
    BENCH_LOAD(b, CODE, remaps);
    b->v->regs[REG_DI] = bench_pte_gpa(WINDOW);
    b->v->regs[REG_BP] = rounds;
    b->v->regs[REG_DX] = random;
    bench_run(b);

    for (unsigned round = 0; round < rounds; round++) {
        random = random * 1664525 + 1013904223;
        unsigned page = random >> 22;
        frame_of[page] = random >> 8 & 1023;
        for (unsigned i = 0; i < 8; i++) {
            sum += frame_of[page] * 0x10001;
            counted[frame_of[page]]++;
            page = (page + 0x83) & 1023;
        }
    }
    assert_int_equal(bench_reg(b, REG_SI), sum);
    for (unsigned i = 0; i < PAGES; i++) {
        assert_int_equal(bench_get32(b, FRAMES + i * PAGE_SIZE), i * 0x10001);
        assert_int_equal(bench_get32(b, FRAMES + i * PAGE_SIZE + 8), counted[i]);
    }
    bench_destroy(b);
}

static void a_tiny_budget_of_mappings_is_slow_but_right(void **state)
{
    static const struct dbt_options options[] = {
        {.verify = false}, {.verify = true}, {.no_bmi2 = true, .no_fsgsbase = true}};
    (void)state;

    for (unsigned i = 0; i < ARRAY_LEN(options); i++) {
        remaps_with(16, &options[i], 1000);
        remaps_with(64, &options[i], 1000);
    }
    remaps_with(0, NULL, 20000);
}

/* ---- many address spaces ---- */

/*
 * 100 processes (more than there are user windows), each with its own directory and a private page
 * at the same address. They take turns; each counts in its page, in user mode, by code that all
 * share, and the kernel adds to the count through the same page.
 */
enum { SPACES = 100, SPACE_TABLES = 0x1400000, PRIVATE = 0xC00000, PRIVATE_FRAMES = 0x1800000 };

GUEST(counts, "incl 0xC00000\n"
              "call 1f\n"
              "int $0x60\n"
              "1: mov 0xC00000, %eax\n"
              "ret\n");
GUEST(kernel_counts, "addl $100, 0xC00000\n"
                     "hlt\n");

static void takes_turns(unsigned vma_budget, const struct dbt_options *options)
{
    struct bench *b = bench_create_with(options, vma_budget);
    unsigned rounds = 5;

    bench_paging(b, USER);
    bench_load(b, 0x9000, kernel_counts, kernel_counts_end);
    bench_gate(b, 0x60, 0x9000, 0xEE);
    bench_map(b, 0x9000, 0x9000, KERNEL);
    BENCH_LOAD(b, CODE, counts);
    for (unsigned i = 0; i < SPACES; i++) {
        uint32_t directory = SPACE_TABLES + i * 0x2000, table = directory + 0x1000;
        for (unsigned j = 0; j < 3; j++)
            bench_put32(b, directory + 4 * j, bench_get32(b, TABLES + 4 * j));
        bench_put32(b, directory + 4 * (PRIVATE >> 22), table | USER);
        bench_put32(b, table, (PRIVATE_FRAMES + i * PAGE_SIZE) | USER);
    }
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned i = 0; i < SPACES; i++) {
            b->v->cr3 = SPACE_TABLES + i * 0x2000;
            bench_flush(b);
            bench_ring3(b);
            b->v->rip = CODE;
            assert_int_equal(bench_run(b), 0x9000 + (kernel_counts_end - kernel_counts));
            assert_int_equal(bench_reg(b, REG_AX), round * 101 + 1);
            b->v->cpl = 0;
            for (unsigned seg = 0; seg < SEG_COUNT; seg++)
                bench_segment(b, seg, seg == SEG_CS ? SEL_CODE0 : SEL_DATA0);
        }
    }
    for (unsigned i = 0; i < SPACES; i++)
        assert_int_equal(bench_get32(b, PRIVATE_FRAMES + i * PAGE_SIZE), rounds * 101);
    assert_true(mmu_counters(b->m)->windows_recycled > 0 || vma_budget);
    bench_destroy(b);
}

static void more_address_spaces_than_windows_take_turns(void **state)
{
    (void)state;
    takes_turns(0, NULL);
    takes_turns(0, &(struct dbt_options){.verify = true});
    takes_turns(0, &(struct dbt_options){.cache_size = 256 << 10});
    takes_turns(24, NULL);
    takes_turns(24, &(struct dbt_options){.no_bmi2 = true, .no_fsgsbase = true});
}

/* ---- many contexts ---- */

/* The same code under 300 code segments with other bases, each a context of its own: more than
   there are. Each calls itself by way of the ring. */
GUEST(small_recursion, "cmp $0, %ecx\n"
                       "je 1f\n"
                       "dec %ecx\n"
                       "call 0b\n"
                       "inc %eax\n"
                       "1: ret\n");

static void runs_many_contexts(const struct dbt_options *options)
{
    struct bench *b = bench_create_with(options, 0);

    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 300; i++) {
            uint32_t base = 0x400000 + i * 0x100;
            bench_load(b, base, small_recursion, small_recursion_end);
            bench_write(b, base + 0x80, "\xE8\x7B\xFF\xFF\xFF\xF4", 6); /* call 0; hlt */
            bench_reset(b);
            bench_descriptor(b, SEL_TEST, base, 0xFFFFF, 0xC09B);
            bench_segment(b, SEG_CS, SEL_TEST);
            b->v->rip = 0x80;
            b->v->regs[REG_CX] = 20;
            assert_int_equal(bench_run(b), 0x86);
            assert_int_equal(bench_reg(b, REG_AX), 20);
            assert_int_equal(bench_reg(b, REG_SP), STACK);
        }
    }
    bench_destroy(b);
}

static void more_modes_than_contexts_take_turns(void **state)
{
    (void)state;
    runs_many_contexts(NULL);
    runs_many_contexts(&(struct dbt_options){.verify = true});
    runs_many_contexts(&(struct dbt_options){.no_bmi2 = true});
}

/* ---- a small code cache ---- */

/* Blocks as long as they can be, of instructions that become long. */
static void runs_long_blocks(struct bench *b)
{
    static const uint8_t add[] = {0x64, 0x03, 0x8C, 0x98, 0x00, 0x00, 0x30, 0x00};
    uint8_t code[512 * sizeof(add) + 1]; /* add %fs:0x300000(%eax,%ebx,4), %ecx */

    for (unsigned i = 0; i < 512; i++)
        memcpy(code + i * sizeof(add), add, sizeof(add));
    code[sizeof(code) - 1] = 0xF4;
    bench_load(b, CODE, code, code + sizeof(code));
    bench_put32(b, DATA, 3);
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_CX), 3 * 512);
}

static void a_code_cache_of_any_size_is_served(void **state)
{
    (void)state;
    for (uint32_t size = 4096; size <= 1 << 20; size *= 4)
        bench_scenario_with(runs_long_blocks, &(struct dbt_options){.cache_size = size});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tiny_budget_of_mappings_is_slow_but_right),
        cmocka_unit_test(more_address_spaces_than_windows_take_turns),
        cmocka_unit_test(more_modes_than_contexts_take_turns),
        cmocka_unit_test(a_code_cache_of_any_size_is_served),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
