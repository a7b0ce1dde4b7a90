/*
 * Precise, restartable faults of every template: an instruction behind three pushes or pops, whose
 * ESP is still pending, meets a page that is not there (or not writable). Registers, flags, FPU and
 * memory must then be as they were before it; when the page has been mapped and the instruction is
 * started again, all must be as if there had been no fault.
 *
 * Guests run in ring 3 (user window) and in ring 1 (supervisor window), so that the exception's
 * frame goes to another stack than the one that faults.
 */
#include "engine_bench.h"

#include "cpu/fpu.h"
#include "dbt/dbt.h"

/*
 * FIRST to LAST are looked at. Of them, the page of LOW is there and what stands below and above it
 * is not; of DATA_BAD neither is, but the page before it; READ_ONLY can be read.
 */
enum {
    FIRST = 0x40E000,
    LOW = 0x410000,
    HIGH = 0x411000,
    DATA_BAD = 0x420000,
    READ_ONLY = 0x422000,
    LAST = 0x424000,
    PUSHES = LOW + 12, /* ESP before three pushes that reach LOW */
    POPS = HIGH - 12,  /* before three pops that reach HIGH */
    ODD_PUSHES = LOW + 14,
    ODD_POPS = HIGH - 14,
};

enum { READS = 0, WRITES = 2, PRESENT = 1, PARTIAL = 0x100 /* a REP that gets somewhere */ };

/* name, instruction, ESP at the start, CR2, what of the error code. With PUSHES, ESP is LOW then.
 */
#define ROWS(X)                                                                                    \
    X(push_r, "push %esi", PUSHES, LOW - 4, WRITES)                                                \
    X(push_r_odd, "push %esi", ODD_PUSHES, LOW - 2, WRITES)                                        \
    X(push_esp, "push %esp", PUSHES, LOW - 4, WRITES)                                              \
    X(push_r16, "push %si", PUSHES, LOW - 2, WRITES)                                               \
    X(push_imm8, "push $-5", PUSHES, LOW - 4, WRITES)                                              \
    X(push_imm32, "push $0x12345678", PUSHES, LOW - 4, WRITES)                                     \
    X(push_m, "push (%esp)", PUSHES, LOW - 4, WRITES)                                              \
    X(push_m_bad, "push (%edx)", PUSHES, DATA_BAD + 0x100, READS)                                  \
    X(push_m_esp_bad, "push 0x10100(%esp)", PUSHES, DATA_BAD + 0x100, READS)                       \
    X(push_ds, "push %ds", PUSHES, LOW - 4, WRITES)                                                \
    X(pusha, "pusha", PUSHES, LOW - 4, WRITES)                                                     \
    X(pushf, "pushf", PUSHES, LOW - 4, WRITES)                                                     \
    X(call_near, "call 1f\n 1: nop\n nop", PUSHES, LOW - 4, WRITES)                                \
    X(call_over, "call 1f\n hlt\n 1: nop", PUSHES, LOW - 4, WRITES)                                \
    X(call_r, "mov $" AT("1f") ", %edi\n call *%edi\n 1: nop", PUSHES, LOW - 4, WRITES)            \
    X(call_m_bad, "call *(%edx)", PUSHES, DATA_BAD + 0x100, READS)                                 \
    X(enter, "enter $8, $0", PUSHES, LOW - 4, WRITES)                                              \
    X(pop_r, "pop %esi", POPS, HIGH, READS)                                                        \
    X(pop_r_odd, "pop %esi", ODD_POPS, HIGH, READS)                                                \
    X(pop_esp, "pop %esp", POPS, HIGH, READS)                                                      \
    X(pop_r16, "pop %si", POPS, HIGH, READS)                                                       \
    X(pop_m, "pop (%ebp)", POPS, HIGH, READS)                                                      \
    X(pop_m_bad, "pop (%ebp)", LOW, DATA_BAD + 0x300, WRITES)                                      \
    X(pop_m_esp_bad, "pop 0x100F4(%esp)", LOW, DATA_BAD + 0x104, WRITES)                           \
    X(pop_m_read_only, "pop 0x422000", LOW, READ_ONLY, WRITES | PRESENT)                           \
    X(popa, "popa", POPS, HIGH, READS)                                                             \
    X(popf, "popf", POPS, HIGH, READS)                                                             \
    X(pop_es, "pop %es", POPS, HIGH, READS)                                                        \
    X(ret, "ret", POPS, HIGH, READS)                                                               \
    X(ret_imm, "ret $8", POPS, HIGH, READS)                                                        \
    X(leave, "leave", PUSHES, DATA_BAD + 0x300, READS)                                             \
    X(jmp_m, "jmp *(%edx)", PUSHES, DATA_BAD + 0x100, READS)                                       \
    X(load, "mov (%edx), %eax", PUSHES, DATA_BAD + 0x100, READS)                                   \
    X(load_esp, "mov (%edx), %esp", PUSHES, DATA_BAD + 0x100, READS)                               \
    X(load_moffs, "mov 0x420104, %eax", PUSHES, DATA_BAD + 0x104, READS)                           \
    X(store, "mov %eax, (%edx)", PUSHES, DATA_BAD + 0x100, WRITES)                                 \
    X(store_esp, "mov %esp, (%edx)", PUSHES, DATA_BAD + 0x100, WRITES)                             \
    X(store_imm, "movl $7, (%edx)", PUSHES, DATA_BAD + 0x100, WRITES)                              \
    X(store_moffs, "movb %al, 0x420104", PUSHES, DATA_BAD + 0x104, WRITES)                         \
    X(store_index, "mov %eax, 3(%edx,%ecx,4)", PUSHES, DATA_BAD + 0x117, WRITES)                   \
    X(store_esp_index, "mov %eax, 0x100F0(%esp,%ecx,4)", PUSHES, DATA_BAD + 0x104, WRITES)         \
    X(store_crossing, "mov %eax, 0x41FFFE", PUSHES, DATA_BAD, WRITES)                              \
    X(load_crossing, "mov 0x41FFFE, %ecx", PUSHES, DATA_BAD, READS)                                \
    X(store_read_only, "mov %eax, 0x422008", PUSHES, READ_ONLY + 8, WRITES | PRESENT)              \
    X(add_read_only, "add %eax, 0x422008", PUSHES, READ_ONLY + 8, WRITES | PRESENT)                \
    X(load_ah_esp, "mov 0x10100(%esp), %ah", PUSHES, DATA_BAD + 0x100, READS)                      \
    X(store_ah_esp, "mov %ah, 0x10100(%esp)", PUSHES, DATA_BAD + 0x100, WRITES)                    \
    X(store_dh_esp_index, "mov %dh, 0x100F0(%esp,%ecx,4)", PUSHES, DATA_BAD + 0x104, WRITES)       \
    X(add_ch_esp, "add %ch, 0x10100(%esp)", PUSHES, DATA_BAD + 0x100, WRITES)                      \
    X(xchg_bh_esp, "xchg %bh, 0x10100(%esp)", PUSHES, DATA_BAD + 0x100, WRITES)                    \
    X(cmp_ah_esp, "cmp %ah, 0x10100(%esp)", PUSHES, DATA_BAD + 0x100, READS)                       \
    X(cmpxchg_dh_esp, "lock cmpxchg %dh, 0x10100(%esp)", PUSHES, DATA_BAD + 0x100, WRITES)         \
    X(xadd_ah_esp, "lock xadd %ah, 0x10100(%esp)", PUSHES, DATA_BAD + 0x100, WRITES)               \
    X(add_esp_m, "add (%edx), %esp", PUSHES, DATA_BAD + 0x100, READS)                              \
    X(inc_m, "incl (%edx)", PUSHES, DATA_BAD + 0x100, WRITES)                                      \
    X(not_m, "notb (%edx)", PUSHES, DATA_BAD + 0x100, WRITES)                                      \
    X(add_m_imm, "addl $5, (%edx)", PUSHES, DATA_BAD + 0x100, WRITES)                              \
    X(adc_m_r, "adc %esi, (%edx)", PUSHES, DATA_BAD + 0x100, WRITES)                               \
    X(sbb_r_m, "sbb (%edx), %esi", PUSHES, DATA_BAD + 0x100, READS)                                \
    X(cmp_m_imm, "cmpw $5, (%edx)", PUSHES, DATA_BAD + 0x100, READS)                               \
    X(rcl_m, "rcll $3, (%edx)", PUSHES, DATA_BAD + 0x100, WRITES)                                  \
    X(shl_m_cl, "shlw %cl, (%edx)", PUSHES, DATA_BAD + 0x100, WRITES)                              \
    X(shld_m, "shld $7, %esi, (%edx)", PUSHES, DATA_BAD + 0x100, WRITES)                           \
    X(bts_m_imm, "btsl $3, (%edx)", PUSHES, DATA_BAD + 0x100, WRITES)                              \
    X(bts_m_r, "mov $-64, %edi\n btsl %edi, (%edx)", PUSHES, DATA_BAD + 0xF8, WRITES)              \
    X(lock_inc, "lock incl (%edx)", PUSHES, DATA_BAD + 0x100, WRITES)                              \
    X(lock_xadd, "lock xadd %esi, (%edx)", PUSHES, DATA_BAD + 0x100, WRITES)                       \
    X(lock_cmpxchg, "lock cmpxchg %esi, (%edx)", PUSHES, DATA_BAD + 0x100, WRITES)                 \
    X(lock_cmpxchg8b, "lock cmpxchg8b (%edx)", PUSHES, DATA_BAD + 0x100, WRITES)                   \
    X(lock_bts, "lock btsl $9, (%edx)", PUSHES, DATA_BAD + 0x100, WRITES)                          \
    X(xchg_m, "xchg %eax, (%edx)", PUSHES, DATA_BAD + 0x100, WRITES)                               \
    X(xchg_m_esp, "xchg %esp, (%edx)", PUSHES, DATA_BAD + 0x100, WRITES)                           \
    X(imul_m, "imul (%edx), %esi", PUSHES, DATA_BAD + 0x100, READS)                                \
    X(mul_m, "mull (%ebp)", PUSHES, DATA_BAD + 0x300, READS)                                       \
    X(movsx_m, "movsbl (%edx), %esi", PUSHES, DATA_BAD + 0x100, READS)                             \
    X(cmov_m, "cmovo (%edx), %esi", PUSHES, DATA_BAD + 0x100, READS)                               \
    X(setcc_m, "setc (%edx)", PUSHES, DATA_BAD + 0x100, WRITES)                                    \
    X(bsf_m, "bsf (%ebp), %esi", PUSHES, DATA_BAD + 0x300, READS)                                  \
    X(bswap_add, "bswap %esi\n add %esi, (%edx)", PUSHES, DATA_BAD + 0x100, WRITES)                \
    X(xlat, "xlat", PUSHES, DATA_BAD + 0x244, READS)                                               \
    X(movs_source, "mov %edx, %esi\n mov %esp, %edi\n movsl", PUSHES, DATA_BAD + 0x100, READS)     \
    X(movs_dest, "mov %edx, %edi\n mov %esp, %esi\n movsb", PUSHES, DATA_BAD + 0x100, WRITES)      \
    X(stos, "mov %edx, %edi\n stosw", PUSHES, DATA_BAD + 0x100, WRITES)                            \
    X(lods, "mov %edx, %esi\n lodsl", PUSHES, DATA_BAD + 0x100, READS)                             \
    X(cmps, "mov %edx, %esi\n mov %esp, %edi\n cmpsl", PUSHES, DATA_BAD + 0x100, READS)            \
    X(cmps_dest, "mov %edx, %edi\n mov %esp, %esi\n cmpsl", PUSHES, DATA_BAD + 0x100, READS)       \
    X(scas, "mov %edx, %edi\n scasl", PUSHES, DATA_BAD + 0x100, READS)                             \
    X(rep_stos, "mov $0x41FFF8, %edi\n rep stosl", PUSHES, DATA_BAD, WRITES | PARTIAL)             \
    X(rep_movs, "mov $0x41FFF6, %edi\n mov %esp, %esi\n rep movsl", PUSHES, DATA_BAD,              \
      WRITES | PARTIAL)                                                                            \
    X(rep_movs_source, "mov $0x41FFF8, %esi\n mov %esp, %edi\n rep movsl", PUSHES, DATA_BAD,       \
      READS | PARTIAL)                                                                             \
    X(rep_movs_down, "std\n mov $0x421004, %esi\n mov $0x410020, %edi\n rep movsl", PUSHES,        \
      DATA_BAD + 0xFFC, READS | PARTIAL)                                                           \
    X(rep_lods, "mov $0x41FFF8, %esi\n rep lodsl", PUSHES, DATA_BAD, READS | PARTIAL)              \
    X(repe_scas, "mov $0x41FFFD, %edi\n mov $0, %eax\n repe scasb", PUSHES, DATA_BAD,              \
      READS | PARTIAL)                                                                             \
    X(fld_m, "fldl (%edx)", PUSHES, DATA_BAD + 0x100, READS)                                       \
    X(fstp_m, "fld1\n fstpl (%edx)", PUSHES, DATA_BAD + 0x100, WRITES)                             \
    X(fistp_m, "fldpi\n fistpl (%edx)", PUSHES, DATA_BAD + 0x100, WRITES)                          \
    X(fstp_esp, "fld1\n fstpt 0x10100(%esp)", PUSHES, DATA_BAD + 0x100, WRITES)                    \
    X(movq_load, "movq (%edx), %mm3", PUSHES, DATA_BAD + 0x100, READS)                             \
    X(movups_load, "movups (%edx), %xmm1", PUSHES, DATA_BAD + 0x100, READS)                        \
    X(movups_store, "movups %xmm1, 0x41FFF8", PUSHES, DATA_BAD, WRITES)                            \
    X(paddb_m, "paddb (%edx), %xmm1", PUSHES, DATA_BAD + 0x100, READS)                             \
    X(movd_esp, "movd 0x10100(%esp), %xmm2", PUSHES, DATA_BAD + 0x100, READS)

/* The three NOPs become pushes or pops, so that they stand in the same block. */
#define X(name, text, ...) GUEST(row_##name, "nop\n nop\n nop\n" text "\n hlt\n");
ROWS(X)
#undef X

static const struct row {
    const char *name;
    const uint8_t *begin, *end;
    uint32_t esp, cr2, error;
} rows[] = {
#define X(name, text, ...) {#name, row_##name, row_##name##_end, __VA_ARGS__},
    ROWS(X)
#undef X
};

struct state {
    uint32_t regs[8], eip, eflags;
    uint8_t fpu[416];
    uint8_t memory[LAST - FIRST];
};

static void set_ring(struct bench *b, unsigned cpl)
{
    bench_descriptor(b, SEL_TEST, 0, 0xFFFFF, 0xC0BB);  /* code, DPL 1 */
    bench_descriptor(b, SEL_TEST2, 0, 0xFFFFF, 0xC0B3); /* data, DPL 1 */
    bench_ring3(b);
    if (cpl == 3)
        return;
    for (unsigned seg = 0; seg < SEG_COUNT; seg++)
        bench_segment(b, seg, seg == SEG_CS ? SEL_TEST | 1 : SEL_TEST2 | 1);
    b->v->cpl = 1;
}

static void prepare(struct bench *b, const struct row *row, unsigned cpl, bool bad)
{
    unsigned flags = PT_P | PT_W | (cpl == 3 ? PT_U : 0);
    uint8_t code[64];

    bench_reset(b);
    bench_paging(b, flags);
    for (uint32_t gpa = FIRST; gpa < LAST; gpa += 4)
        bench_put32(b, gpa, gpa % 0x1000 < 4 || gpa % 0x1000 > 0xFF0 ? 0 : gpa * 0x9E3779B1u);
    if (bad) {
        bench_map(b, LOW - 0x1000, 0, 0);
        bench_map(b, HIGH, 0, 0);
        bench_map(b, DATA_BAD, 0, 0);
        bench_map(b, READ_ONLY, READ_ONLY, flags & ~(unsigned)PT_W);
        bench_flush(b);
    }
    set_ring(b, cpl);
    memcpy(code, row->begin, (size_t)(row->end - row->begin));
    memcpy(code, row->esp == PUSHES || row->esp == ODD_PUSHES ? "\x50\x53\x51" : "\x5F\x5F\x5F", 3);
    bench_load(b, CODE, code, code + (row->end - row->begin));
    b->v->rip = CODE;
    b->v->regs[REG_AX] = 0x11223344;
    b->v->regs[REG_CX] = 5;
    b->v->regs[REG_DX] = DATA_BAD + 0x100;
    b->v->regs[REG_BX] = DATA_BAD + 0x200;
    b->v->regs[REG_SP] = row->esp;
    b->v->regs[REG_BP] = DATA_BAD + 0x300;
    b->v->regs[REG_SI] = 0x55667788;
    b->v->regs[REG_DI] = 0x99AABBCC;
    vcpu_set_eflags(b->v, FLAG_CF | FLAG_PF | FLAG_ZF | FLAG_OF);
    memset(b->v->fpu_area + 160, 0x77, 128); /* XMM0-7 */
}

static void capture(struct bench *b, const struct bench_frame *f, struct state *s)
{
    for (unsigned i = 0; i < 8; i++)
        s->regs[i] = bench_reg(b, i);
    s->regs[REG_SP] = f->esp;
    s->eip = f->eip;
    s->eflags = f->eflags & ~(uint32_t)FLAG_RF;
    fpu_park(b->v);
    memset(s->fpu, 0, sizeof(s->fpu));
    memcpy(s->fpu, b->v->fpu_area, 5);
    memcpy(s->fpu + 24, b->v->fpu_area + 24, sizeof(s->fpu) - 24);
    memcpy(s->memory, mmu_ram(b->m) + FIRST, sizeof(s->memory));
}

/* Prints a complaint. All rows are tried before the test fails. */
__attribute__((format(printf, 3, 4))) static bool wrong(const struct row *row, unsigned cpl,
                                                        const char *format, ...)
{
    va_list list;

    print_error("%s, cpl %u: ", row->name, cpl);
    va_start(list, format);
    vprint_error(format, list);
    va_end(list);
    print_error("\n");
    return false;
}

static bool same(const struct row *row, unsigned cpl, const char *when, const struct state *got,
                 const struct state *want)
{
    static const char *const names[] = {"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"};

    for (unsigned i = 0; i < 8; i++) {
        if (got->regs[i] != want->regs[i])
            return wrong(row, cpl, "%s: %s is %08x instead of %08x", when, names[i], got->regs[i],
                         want->regs[i]);
    }
    if (got->eip != want->eip)
        return wrong(row, cpl, "%s: eip %08x instead of %08x", when, got->eip, want->eip);
    if (got->eflags != want->eflags)
        return wrong(row, cpl, "%s: eflags %08x instead of %08x", when, got->eflags, want->eflags);
    if (memcmp(got->fpu, want->fpu, sizeof(got->fpu)))
        return wrong(row, cpl, "%s: FPU state differs", when);
    for (unsigned i = 0; i < sizeof(got->memory); i++) {
        if (got->memory[i] != want->memory[i])
            return wrong(row, cpl, "%s: memory at %08x is %02x instead of %02x", when, FIRST + i,
                         got->memory[i], want->memory[i]);
    }
    return true;
}

/* Goes on where the exception came from. */
static void resume(struct bench *b, const struct bench_frame *f, const struct state *s,
                   unsigned cpl)
{
    set_ring(b, cpl);
    b->v->rip = f->eip;
    b->v->regs[REG_SP] = s->regs[REG_SP];
    vcpu_set_eflags(b->v, f->eflags);
}

/* The last instruction of a row is the one that faults: how long is what stands before it? */
static uint32_t fault_offset(const struct row *row)
{
    uint32_t offset = 3;
    struct insn in;

    for (;;) {
        decode(&in, row->begin + offset, (unsigned)(row->end - row->begin) - offset, 32);
        bool last = row->begin + offset + in.len + 1 >= row->end;
        if (last || in.op == OP_CALL_NEAR || in.op == OP_CALL_IND)
            return offset;
        offset += in.len;
    }
}

static bool faults_and_goes_on(struct bench *b, const struct row *row, unsigned cpl)
{
    static struct state before, fault, done, undisturbed;
    unsigned flags = PT_P | PT_W | (cpl == 3 ? PT_U : 0);
    uint32_t offset = fault_offset(row);

    /* What stands before the instruction, without it: HLT in its place. */
    prepare(b, row, cpl, true);
    bench_write(b, CODE + offset, "\xF4", 1);
    struct bench_frame f = bench_run_to(b, VEC_GP);
    capture(b, &f, &before);
    assert_int_equal(f.eip, CODE + offset);

    /* With every page there. (What jumps by way of memory ends elsewhere than at the HLT.) */
    prepare(b, row, cpl, false);
    bench_run(b);
    f = bench_exception(b);
    int end = f.vector;
    capture(b, &f, &undisturbed);

    for (unsigned round = 0; round < 2; round++) {
        prepare(b, row, cpl, true);
        bench_run(b);
        f = bench_exception(b);
        capture(b, &f, &fault);
        uint32_t error = (row->error & 3) | (cpl == 3 ? 4 : 0);
        if (f.vector != VEC_PF || f.error != error || b->v->cr2 != row->cr2)
            return wrong(row, cpl, "vector %d, error %x instead of %x, cr2 %08x instead of %08x",
                         f.vector, f.error, error, b->v->cr2, row->cr2);
        if (row->error & PARTIAL)
            assert_int_equal(fault.eip, before.eip);
        else if (!same(row, cpl, "after the fault", &fault, &before))
            return false;

        for (uint32_t gpa = FIRST; gpa < LAST; gpa += PAGE_SIZE)
            bench_map(b, gpa, gpa, flags);
        bench_flush(b);
        resume(b, &f, &fault, cpl);
        bench_run(b);
        f = bench_exception(b);
        capture(b, &f, &done);
        if (f.vector != end)
            return wrong(row, cpl, "ends with vector %d instead of %d", f.vector, end);
        if (!same(row, cpl, "at the end", &done, &undisturbed))
            return false;
    }
    return true;
}

static void all_rows(const struct dbt_options *options, unsigned cpl)
{
    struct bench *b = bench_create_with(options, 0);
    unsigned bad = 0;

    for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
        bad += !faults_and_goes_on(b, &rows[i], cpl);
    bench_destroy(b);
    assert_int_equal(bad, 0);
}

static void user_faults_are_precise_and_restartable(void **state)
{
    (void)state;
    all_rows(NULL, 3);
}

static void supervisor_faults_are_precise_and_restartable(void **state)
{
    (void)state;
    all_rows(NULL, 1);
}

static void they_are_under_verify(void **state)
{
    (void)state;
    all_rows(&(struct dbt_options){.verify = true}, 3);
    all_rows(&(struct dbt_options){.verify = true}, 1);
}

static void they_are_without_bmi2_and_fsgsbase(void **state)
{
    (void)state;
    all_rows(&(struct dbt_options){.no_bmi2 = true, .no_fsgsbase = true}, 3);
    all_rows(&(struct dbt_options){.no_bmi2 = true, .no_fsgsbase = true}, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(user_faults_are_precise_and_restartable),
        cmocka_unit_test(supervisor_faults_are_precise_and_restartable),
        cmocka_unit_test(they_are_under_verify),
        cmocka_unit_test(they_are_without_bmi2_and_fsgsbase),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
