/*
 * Golden listings: guest snippets, the host code that they are translated to, and how many
 * instructions and bytes that is. A change that makes code longer shows in review as a change of
 * listings.txt; NOVT_GOLDEN_UPDATE=1 writes the file anew.
 *
 * Nothing is run. Host addresses are offsets into the block, pointers are named by what they point
 * to, and offsets from r15 by the field that stands there; BMI2 is taken for granted.
 */
#include "engine_bench.h"

#include <capstone/capstone.h>

#include "dbt/dbt.h"

/* How the block is entered, and what its instructions have learned. */
enum how {
    KERNEL,       /* ring 0, paging on */
    USER,         /* ring 3 */
    LEARNED,      /* ring 0, operand 0 of each instruction in the user window */
    LEARNED_BOTH, /* operands 0 and 1 */
    MIXED,        /* ring 0, operand 0 in both windows */
    BASED,        /* ring 0, DS and SS with a base and a limit */
    CHECKED,      /* ring 0, on a page that mixes code and data */
};

/* name, how, code */
#define SNIPPETS(X)                                                                                \
    X(arithmetic, KERNEL, "add %ebx, %eax\n adc $0, %edx\n inc %ecx\n dec %esi\n neg %edi\n")      \
    X(load_store, KERNEL, "mov (%ebx), %eax\n mov %eax, 8(%ebx,%ecx,4)\n mov 0x1234, %edx\n")      \
    X(accumulator_moves, KERNEL, "mov 0x300000, %eax\n mov %al, 0x300004\n")                       \
    X(read_modify_write, KERNEL, "addl $5, (%ebx)\n incl (%ebx)\n lock cmpxchg %ecx, (%ebx)\n")    \
    X(byte_registers, KERNEL, "mov %ah, (%ebx)\n movzbl %dh, %eax\n mov (%esi), %ch\n")            \
    X(high_byte_and_esp, KERNEL, "mov %ah, 4(%esp)\n movzbl %ah, %esp\n")                          \
    X(esp_arithmetic, KERNEL, "sub $12, %esp\n mov %esp, %ebp\n lea 4(%esp), %eax\n")              \
    X(prologue, KERNEL, "push %ebp\n mov %esp, %ebp\n push %edi\n push %esi\n push %ebx\n")        \
    X(epilogue, KERNEL, "add $12, %esp\n pop %ebx\n pop %esi\n pop %edi\n pop %ebp\n ret\n")       \
    X(leave_ret, KERNEL, "leave\n ret $8\n")                                                       \
    X(push_pop_memory, KERNEL, "push 8(%ebx)\n pop 4(%esp)\n push $7\n push %esp\n pop %esp\n")    \
    X(call_direct, KERNEL, "call .+0x100\n")                                                       \
    X(call_register, KERNEL, "call *%ebx\n")                                                       \
    X(call_memory, KERNEL, "call *0x300000(,%eax,4)\n")                                            \
    X(call_next, KERNEL, "call 1f\n 1: pop %ebx\n")                                                \
    X(call_user, USER, "call .+0x2000\n")                                                          \
    X(ret_alone, KERNEL, "ret\n")                                                                  \
    X(jump_table, KERNEL, "jmp *0x300000(,%eax,4)\n")                                              \
    X(jump_forward, KERNEL, "cmp %eax, %ebx\n jne .+0x40\n")                                       \
    X(jump_backward, KERNEL, "1: dec %ecx\n jnz 1b\n")                                             \
    X(jump_to_itself, KERNEL, "1: jmp 1b\n")                                                       \
    X(jump_out_of_a_user_page, USER, "test %eax, %eax\n je .+0x2000\n")                            \
    X(loop_and_jecxz, KERNEL, "1: jecxz 1b\n loop 1b\n")                                           \
    X(bit_tests, KERNEL, "bt %eax, (%ebx)\n btsl $3, (%ebx)\n bsf %eax, %ecx\n")                   \
    X(strings, KERNEL, "rep movsl\n rep stosb\n lodsb\n repne scasb\n")                            \
    X(lea_forms, KERNEL, "lea 3(%eax,%ebx,8), %ecx\n lea (%bx,%si), %eax\n")                       \
    X(sixteen_bit_address, KERNEL, "mov 4(%bx,%si), %ax\n")                                        \
    X(xlat_alone, KERNEL, "xlat\n")                                                                \
    X(thread_pointer, KERNEL, "mov %gs:0x14, %eax\n")                                              \
    X(based_segment, BASED, "mov (%ebx), %eax\n movw $1, 4(%ebx)\n push %eax\n")                   \
    X(user_copy, LEARNED, "mov (%ebx), %eax\n mov %eax, (%ecx)\n rep movsl\n")                     \
    X(user_copy_both, LEARNED_BOTH, "rep movsl\n push (%ebx)\n")                                   \
    X(mixed_copy, MIXED, "mov (%ebx), %eax\n rep movsl\n")                                         \
    X(checked, CHECKED, "mov (%ebx), %eax\n inc %eax\n mov %eax, (%ebx)\n")                        \
    X(flags_and_interrupts, KERNEL, "pushf\n cli\n popf\n")                                        \
    X(system_call, USER, "int $0x80\n")                                                            \
    X(ports, KERNEL, "in %dx, %al\n out %al, $0x80\n")                                             \
    X(system_registers, KERNEL, "mov %cr3, %eax\n mov %eax, %cr3\n")                               \
    X(x87, KERNEL, "fldl (%ebx)\n fmull 8(%ebx)\n fstpl 8(%esp)\n")                                \
    X(sse, KERNEL, "movups (%ebx), %xmm0\n addps %xmm1, %xmm0\n movaps %xmm0, 16(%esp)\n")         \
    X(mmx, KERNEL, "movq (%ebx), %mm0\n paddb %mm1, %mm0\n emms\n")

#define X(name, how, text) GUEST(snippet_##name, text);
SNIPPETS(X)
#undef X

static const struct snippet {
    const char *name;
    enum how how;
    const uint8_t *begin, *end;
} snippets[] = {
#define X(name, how, text) {#name, how, snippet_##name, snippet_##name##_end},
    SNIPPETS(X)
#undef X
};

/* ---- names ---- */

static const char *const segment_names[] = {"es", "cs", "ss", "ds", "fs", "gs"};
static const char *const stub_names[STUB_COUNT] = {"callout", "chain", "miss", "indirect"};

/* What stands at r15 + offset. */
static void name_field(char *to, size_t size, uint32_t offset)
{
    uint32_t seg = (uint32_t)offsetof(struct dbt, cpu.seg);

    snprintf(to, size, "r15 + ?%x", offset);
    if (offset == OFF_RIP)
        snprintf(to, size, "eip");
    if (offset == OFF_UBASE)
        snprintf(to, size, "user window");
    if (offset - OFF_STUBS < 8 * STUB_COUNT)
        snprintf(to, size, "stub %s", stub_names[(offset - OFF_STUBS) / 8]);
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        if (offset == offsetof(struct dbt, jit.probe_read) + 8 * i)
            snprintf(to, size, "read probe of %s", segment_names[i]);
        if (offset == offsetof(struct dbt, jit.probe_write) + 8 * i)
            snprintf(to, size, "write probe of %s", segment_names[i]);
        if (offset == seg + i * sizeof(struct segment) + offsetof(struct segment, base))
            snprintf(to, size, "base of %s", segment_names[i]);
    }
}

static const char *name_pointer(const struct bench *b, uint64_t value)
{
    const struct cache *c = &b->d->cache;

    if (value - (uint64_t)c->meta < c->meta_size)
        return "(record)";
    if (value - (uint64_t)mmu_ram(b->m) < BENCH_RAM)
        return "(source)";
    return value > UINT32_MAX ? "(less what it was)" : NULL;
}

static void print_host_insn(struct bench *b, const cs_insn *insn, FILE *to)
{
    const cs_x86 *x = &insn->detail->x86;
    char text[256], field[64];

    snprintf(text, sizeof(text), "%s", insn->op_str);
    for (unsigned i = 0; i < x->op_count; i++) {
        const cs_x86_op *o = &x->operands[i];
        char *at = NULL;
        if (o->type == X86_OP_MEM && o->mem.base == X86_REG_R15 && (at = strstr(text, "[r15")))
            name_field(field, sizeof(field), (uint32_t)o->mem.disp);
        if (at)
            snprintf(at + 1, sizeof(text) - (size_t)(at + 1 - text), "%s]%s", field,
                     strchr(insn->op_str + (at - text), ']') + 1);
        const char *pointer = o->type == X86_OP_IMM ? name_pointer(b, (uint64_t)o->imm) : NULL;
        if (pointer && !strcmp(insn->mnemonic, "movabs"))
            snprintf(strstr(text, ", ") + 2, 32, "%s", pointer);
    }
    fprintf(to, "    %3llx  %-7s %s\n", (unsigned long long)insn->address, insn->mnemonic, text);
}

/* ---- listings ---- */

static unsigned print_code(struct bench *b, cs_mode mode, const uint8_t *code, size_t left,
                           uint64_t address, FILE *to)
{
    unsigned count = 0;
    csh handle;

    assert_int_equal(cs_open(CS_ARCH_X86, mode, &handle), CS_ERR_OK);
    cs_option(handle, CS_OPT_DETAIL, CS_OPT_ON);
    cs_insn *insn = cs_malloc(handle);
    while (cs_disasm_iter(handle, &code, &left, &address, insn)) {
        count++;
        if (!to)
            continue;
        if (mode == CS_MODE_32)
            fprintf(to, "  %-7s %s\n", insn->mnemonic, insn->op_str);
        else
            print_host_insn(b, insn, to);
    }
    assert_int_equal(left, 0);
    cs_free(insn, 1);
    cs_close(&handle);
    return count;
}

static void set_up(struct bench *b, const struct snippet *s)
{
    bool user = s->how == USER;

    bench_reset(b);
    bench_paging(b, PT_P | PT_W | (user ? PT_U : 0));
    if (user)
        bench_ring3(b);
    if (s->how == BASED) {
        bench_descriptor(b, SEL_TEST, 0x10000, 0xFFFF, 0x4093);
        bench_segment(b, SEG_DS, SEL_TEST);
        bench_segment(b, SEG_SS, SEL_TEST);
    }
    bench_load(b, CODE, s->begin, s->end);
    uint32_t len = (uint32_t)(s->end - s->begin);
    bench_write(b, CODE + len, "\xF4", 1);
    b->d->code_writes[CODE >> PAGE_SHIFT] = (struct code_writes){.checked = s->how == CHECKED};
    for (uint32_t offset = 0; offset <= len; offset++) {
        uint32_t gpa = CODE + offset;
        struct learned_site *site = &b->d->learned[(gpa * 0x9E3779B1u) >> (32 - SITE_BITS)];
        *site = (struct learned_site){
            .gpa = gpa,
            .user = s->how == LEARNED        ? 1
                    : s->how == LEARNED_BOTH ? 3
                                             : 0,
            .mixed = s->how == MIXED,
        };
    }
}

static void list(struct bench *b, const struct snippet *s, FILE *to)
{
    static const char *const hows[] = {
        [KERNEL] = "supervisor",
        [USER] = "user",
        [LEARNED] = "supervisor, operand 0 on a user page",
        [LEARNED_BOTH] = "supervisor, both operands on user pages",
        [MIXED] = "supervisor, operand 0 on both kinds of pages",
        [BASED] = "supervisor, DS and SS with base and limit",
        [CHECKED] = "supervisor, checks its source",
    };
    uint32_t len = (uint32_t)(s->end - s->begin);

    set_up(b, s);
    vcpu_mode_changed(b->v);
    assert_int_equal(context_update(b->d), 0);
    struct block *block = translate(b->d, CODE, CODE >> PAGE_SHIFT, context_key(b->v));
    assert_non_null(block);
    unsigned host = print_code(b, CS_MODE_64, block->code, block->code_len, 0, NULL);
    unsigned guest = print_code(b, CS_MODE_32, s->begin, len, CODE, NULL);
    /* Without its last instruction, HLT, where the snippet does not end the block. */
    fprintf(to, "%s (%s): %u%s guest instructions, %u host instructions, %u bytes\n", s->name,
            hows[s->how], guest, block->insns > guest ? " + HLT" : "", host, block->code_len);
    print_code(b, CS_MODE_32, s->begin, len, CODE, to);
    print_code(b, CS_MODE_64, block->code, block->code_len, 0, to);
    fprintf(to, "\n");
    block_drop(b->d, block);
}

static void translations_are_as_listed(void **state)
{
    bool update = getenv("NOVT_GOLDEN_UPDATE") != NULL;
    const char *path = update ? GOLDEN_FILE : GOLDEN_NOW;
    struct bench *b = bench_create();
    FILE *to = fopen(path, "w");
    (void)state;

    assert_non_null(to);
    b->d->bmi2 = true;
    fprintf(
        to,
        "Guest code and what it is translated to: see test_golden.c. The first host lines of a\n"
        "block check that it is the one that an indirect jump asked for; the last ones ask\n"
        "for the blocks behind its exits.\n\n");
    for (unsigned i = 0; i < ARRAY_LEN(snippets); i++)
        list(b, &snippets[i], to);
    assert_int_equal(fclose(to), 0);
    bench_destroy(b);
    if (!update && system("diff -u " GOLDEN_FILE " " GOLDEN_NOW) != 0)
        fail_msg("translations differ from " GOLDEN_FILE
                 "; NOVT_GOLDEN_UPDATE=1 writes it anew, for review");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(translations_are_as_listed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
