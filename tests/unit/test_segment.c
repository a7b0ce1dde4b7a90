/*
 * Segmentation against tables of cases: which access and which load is allowed, and the exact
 * vector and error code of each that is not; the instructions that look at descriptors; the state
 * after RESET.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cpu/cpuid.h"
#include "cpu/descriptor.h"
#include "cpu/emulate.h"
#include "cpu/segment.h"
#include "protmode.h"

#define TEST(f) cmocka_unit_test_setup_teardown(f, world_setup, world_teardown)

enum { OK = -1 };

static void an_access_is_checked_against_type_and_limit(void **state)
{
    static const struct {
        uint16_t attr;
        uint32_t limit, offset;
        unsigned size, access;
        bool ok;
    } cases[] = {
        /* expand-up */
        {0x40F3, 0xFFF, 0xFFC, 4, ACCESS_READ, true},
        {0x40F3, 0xFFF, 0xFFD, 4, ACCESS_READ, false},
        {0x40F3, 0xFFF, 0x1000, 1, ACCESS_READ, false},
        {0x40F3, 0xFFF, 0xFFFFFFFF, 4, ACCESS_READ, false},
        {0x40F3, 0xFFF, 0xFFF, 1, ACCESS_WRITE, true},
        {0x40F3, 0, 0, 1, ACCESS_WRITE, true},
        {0x40F3, 0, 0, 2, ACCESS_WRITE, false},
        {0xC0F3, 0xFFFFFFFF, 0xFFFFFFFE, 4, ACCESS_WRITE, true},
        {0xC0F3, 0xFFFFEFFF, 0xFFFFFFFE, 4, ACCESS_WRITE, false},
        {0xC0F3, 0xFFFFFFFE, 0xFFFFFFFE, 1, ACCESS_WRITE, true},
        {0xC0F3, 0xFFFFFFFE, 0xFFFFFFFF, 2, ACCESS_WRITE, false},
        /* expand-down: from limit+1 to the top of the address size */
        {0x40F7, 0xFFF, 0xFFF, 1, ACCESS_READ, false},
        {0x40F7, 0xFFF, 0x1000, 1, ACCESS_READ, true},
        {0x40F7, 0xFFF, 0, 1, ACCESS_READ, false},
        {0x40F7, 0xFFF, 0xFFFFFFFC, 4, ACCESS_READ, true},
        {0x40F7, 0xFFF, 0xFFFFFFFD, 4, ACCESS_READ, false},
        {0x00F7, 0xFFF, 0xFFFC, 4, ACCESS_READ, true},
        {0x00F7, 0xFFF, 0xFFFD, 4, ACCESS_READ, false},
        {0x00F7, 0xFFF, 0x10000, 1, ACCESS_READ, false},
        {0x00F7, 0xFFFF, 0xFFFF, 1, ACCESS_READ, false},
        {0x40F7, 0xFFFFFFFF, 0xFFFFFFFF, 1, ACCESS_READ, false},
        /* types */
        {0x40F1, 0xFFF, 0, 4, ACCESS_READ, true},
        {0x40F1, 0xFFF, 0, 4, ACCESS_WRITE, false},
        {0x40F1, 0xFFF, 0, 4, ACCESS_READ | ACCESS_WRITE, false},
        {0x40F5, 0, 0x1000, 4, ACCESS_WRITE, false},
        {0x40FB, 0xFFF, 0, 4, ACCESS_READ, true},
        {0x40FB, 0xFFF, 0, 4, ACCESS_WRITE, false},
        {0x40F9, 0xFFF, 0, 4, ACCESS_READ, false},
        {0x40F9, 0xFFF, 0, 4, ACCESS_EXEC, true},
        {0x40FD, 0xFFF, 0, 4, ACCESS_READ, false},
        {0x40FF, 0xFFF, 0xFFC, 4, ACCESS_READ, true},
        {0x40FF, 0xFFF, 0x1000, 4, ACCESS_READ, false},
        /* null */
        {0, 0, 0, 1, ACCESS_READ, false},
        {0, 0xFFFFFFFF, 0, 1, ACCESS_READ, false},
    };
    struct world *w = *state;
    protmode_init(&w->m, &w->v, 3);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        for (unsigned seg = SEG_SS; seg <= SEG_DS; seg++) {
            uint32_t gva = 0;
            w->v.seg[seg] = (struct segment){
                .sel = 0x23, .attr = cases[i].attr, .base = 0x12345, .limit = cases[i].limit};
            int r = segment_linear(&w->v, (enum seg)seg, cases[i].offset, cases[i].size,
                                   cases[i].access, &gva);
            if ((r == 0) != cases[i].ok)
                fail_msg("case %u gives %d", i, r);
            if (r == 0) {
                assert_int_equal(gva, 0x12345 + cases[i].offset);
            } else {
                assert_int_equal(w->v.exc.vector, seg == SEG_SS ? VEC_SS : VEC_GP);
                assert_true(w->v.exc.has_error);
                assert_int_equal(w->v.exc.error, 0);
            }
        }
    }
}

static void reads_and_writes_have_the_rights_of_the_cpl_and_wrap_at_4_gib(void **state)
{
    struct world *w = *state;
    uint32_t value = 0xAABBCCDD, back = 0;
    protmode_init(&w->m, &w->v, 3);
    assert_int_equal(segment_write(&w->v, SEG_DS, 0xFFFFFFFE, &value, 4), 0);
    assert_int_equal(flatmem_get16(&w->m, 0xFFFFFFFE), 0xCCDD);
    assert_int_equal(flatmem_get16(&w->m, 0), 0xAABB);
    assert_int_equal(segment_read(&w->v, SEG_DS, 0xFFFFFFFE, &back, 4), 0);
    assert_int_equal(back, value);

    flatmem_fault(&w->m, 0x7000, 0x7FFF, FLATMEM_USER, true);
    assert_int_equal(segment_write(&w->v, SEG_DS, 0x6FFE, &value, 4), FAULT);
    assert_int_equal(w->v.exc.vector, VEC_PF);
    assert_int_equal(w->v.exc.error, 7);
    assert_int_equal(w->v.exc.cr2, 0x7000);
    segment_set_cpl(&w->v, 2);
    assert_int_equal(segment_write(&w->v, SEG_DS, 0x6FFE, &value, 4), 0);
}

static void alignment_is_checked_at_cpl_3_with_am_and_ac(void **state)
{
    struct world *w = *state;
    uint32_t value = 0;
    protmode_init(&w->m, &w->v, 3);
    w->v.cr0 |= CR0_AM;
    assert_int_equal(segment_read(&w->v, SEG_DS, 0x5001, &value, 4), 0);
    w->v.sys_flags |= FLAG_AC;
    assert_int_equal(segment_read(&w->v, SEG_DS, 0x5001, &value, 4), FAULT);
    assert_int_equal(w->v.exc.vector, VEC_AC);
    assert_int_equal(w->v.exc.error, 0);
    assert_int_equal(segment_read(&w->v, SEG_DS, 0x5001, &value, 1), 0);
    assert_int_equal(segment_read(&w->v, SEG_DS, 0x5004, &value, 4), 0);
    w->v.cpl = 0;
    assert_int_equal(segment_read(&w->v, SEG_DS, 0x5001, &value, 4), 0);
}

static void a_load_is_checked_against_selector_type_privilege_and_presence(void **state)
{
    static const struct {
        enum seg seg;
        uint16_t sel;
        unsigned cpl;
        int vector; /* OK or the vector */
        uint32_t error;
    } cases[] = {
        {SEG_DS, 0, 0, OK, 0},
        {SEG_ES, 3, 3, OK, 0},
        {SEG_FS, S_DATA0, 0, OK, 0},
        {SEG_GS, S_DATA0 | 3, 0, VEC_GP, S_DATA0},
        {SEG_DS, S_DATA0, 3, VEC_GP, S_DATA0},
        {SEG_DS, S_DATA3 | 3, 3, OK, 0},
        {SEG_DS, S_DATA3, 3, OK, 0},
        {SEG_DS, S_DATA3 | 3, 0, OK, 0},
        {SEG_DS, S_READ_ONLY | 3, 3, OK, 0},
        {SEG_DS, S_EXEC_ONLY | 3, 3, VEC_GP, S_EXEC_ONLY},
        {SEG_DS, S_CODE3 | 3, 3, OK, 0},
        {SEG_DS, S_CODE0, 3, VEC_GP, S_CODE0},
        {SEG_DS, S_CONFORMING | 3, 3, OK, 0},
        {SEG_DS, S_DOWN | 3, 3, OK, 0},
        {SEG_DS, S_ABSENT_DATA | 3, 3, VEC_NP, S_ABSENT_DATA},
        {SEG_DS, S_TSS_B, 0, VEC_GP, S_TSS_B},
        {SEG_DS, S_LDT, 0, VEC_GP, S_LDT},
        {SEG_DS, S_CALL32 | 3, 3, VEC_GP, S_CALL32},
        {SEG_DS, S_END, 0, VEC_GP, S_END},
        {SEG_DS, 0xFFFB, 0, VEC_GP, 0xFFF8},
        {SEG_DS, L_DATA3 | 3, 3, OK, 0},
        {SEG_DS, L_DATA3 + 8, 3, OK, 0}, /* made below: 1Ch */
        {SEG_DS, 0x24, 3, VEC_GP, 0x24},
        {SEG_DS, 4, 3, VEC_GP, 4}, /* entry 0 of the LDT is no null selector */
        {SEG_SS, 0, 0, VEC_GP, 0},
        {SEG_SS, 3, 3, VEC_GP, 0},
        {SEG_SS, S_DATA0, 0, OK, 0},
        {SEG_SS, S_DATA0 | 1, 0, VEC_GP, S_DATA0},
        {SEG_SS, S_DATA3 | 3, 3, OK, 0},
        {SEG_SS, S_DATA3, 3, VEC_GP, S_DATA3},
        {SEG_SS, S_DATA3 | 3, 0, VEC_GP, S_DATA3},
        {SEG_SS, S_DATA3, 0, VEC_GP, S_DATA3},
        {SEG_SS, S_DATA1 | 1, 1, OK, 0},
        {SEG_SS, S_READ_ONLY | 3, 3, VEC_GP, S_READ_ONLY},
        {SEG_SS, S_CODE0, 0, VEC_GP, S_CODE0},
        {SEG_SS, S_DOWN | 3, 3, OK, 0},
        {SEG_SS, S_ABSENT_STACK, 0, VEC_SS, S_ABSENT_STACK},
        {SEG_SS, S_ABSENT_STACK, 3, VEC_GP, S_ABSENT_STACK},
        {SEG_SS, S_TSS_B, 0, VEC_GP, S_TSS_B},
        {SEG_SS, S_END, 0, VEC_GP, S_END},
        {SEG_SS, L_DATA3 | 3, 3, OK, 0},
    };
    struct world *w = *state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct vcpu *v = &w->v;
        protmode_init(&w->m, v, cases[i].cpl);
        flatmem_put_descriptor(&w->m, P_LDT + 0x18, 0x5000, 0xFF, 0x40F2);
        w->before = *v;
        int r = segment_load(v, cases[i].seg, cases[i].sel);
        int vector = r == 0 ? OK : v->exc.vector;
        if (vector != cases[i].vector || (r == FAULT && v->exc.error != cases[i].error))
            fail_msg("case %u gives vector %d error %x", i, vector, v->exc.error);
        if (r == FAULT) {
            assert_true(protmode_same_state(v, &w->before));
        } else {
            assert_int_equal(v->seg[cases[i].seg].sel, cases[i].sel);
            assert_int_equal(!(v->seg[cases[i].seg].attr & ATTR_P), selector_null(cases[i].sel));
        }
    }
}

static void a_load_fills_the_hidden_part_and_sets_the_accessed_bit(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    protmode_init(&w->m, v, 0);
    protmode_gdt(&w->m, S_DATA1, 0x89ABCDEF, 0x54321, 0xC0F2);
    assert_int_equal(segment_load(v, SEG_FS, S_DATA1), 0);
    assert_int_equal(v->seg[SEG_FS].base, 0x89ABCDEF);
    assert_int_equal(v->seg[SEG_FS].limit, 0x54321FFF);
    assert_int_equal(v->seg[SEG_FS].attr, 0xC0F3);
    assert_int_equal(flatmem_get32(&w->m, P_GDT + S_DATA1 + 4), 0x89C5F3AB);
    assert_int_equal(w->m.cmpxchgs, 1);
    assert_true(v->mode_dirty);

    v->mode_dirty = false;
    assert_int_equal(segment_load(v, SEG_FS, S_DATA1), 0);
    assert_int_equal(w->m.cmpxchgs, 1);
    assert_false(v->mode_dirty);

    /* not aligned to 4 */
    v->gdtr.base = P_GDT - 0xFFE;
    flatmem_put_descriptor(&w->m, 2 + 8, 0x1000, 0xFF, 0x4092);
    assert_int_equal(segment_load(v, SEG_GS, 8), 0);
    assert_int_equal(flatmem_get32(&w->m, 2 + 12), 0x00409300);
    assert_int_equal(w->m.cmpxchgs, 1);
}

static void the_tables_are_read_as_supervisor_and_their_page_faults_come_out(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    protmode_init(&w->m, v, 3);
    flatmem_fault(&w->m, P_GDT, P_GDT + 0xFFF, FLATMEM_USER, true);
    assert_int_equal(segment_load(v, SEG_ES, S_DATA3 | 3), 0);
    protmode_gdt(&w->m, S_DATA3, 0, 0xFFFFF, 0xC0F2);
    flatmem_fault(&w->m, P_GDT + S_DATA3 + 4, P_GDT + S_DATA3 + 4, FLATMEM_WRITE, true);
    w->before = *v;
    assert_int_equal(segment_load(v, SEG_ES, S_DATA3 | 3), FAULT);
    assert_int_equal(v->exc.vector, VEC_PF);
    assert_int_equal(v->exc.error, 3);
    assert_int_equal(v->exc.cr2, P_GDT + S_DATA3 + 4);
    assert_true(protmode_same_state(v, &w->before));
    flatmem_fault(&w->m, P_LDT, P_LDT + 0xFFF, FLATMEM_ANY, false);
    assert_int_equal(segment_load(v, SEG_ES, L_DATA3 | 3), FAULT);
    assert_int_equal(v->exc.error, 0);
    assert_int_equal(v->exc.cr2, P_LDT + (L_DATA3 & ~7));
}

static void a_selector_of_an_unloaded_ldt_is_outside(void **state)
{
    struct world *w = *state;
    protmode_init(&w->m, &w->v, 3);
    w->v.ldtr.attr = 0;
    assert_int_equal(segment_load(&w->v, SEG_ES, L_DATA3 | 3), FAULT);
    assert_int_equal(w->v.exc.vector, VEC_GP);
    assert_int_equal(w->v.exc.error, L_DATA3);
}

static void a_descriptor_must_lie_in_the_table_as_a_whole(void **state)
{
    struct world *w = *state;
    protmode_init(&w->m, &w->v, 3);
    w->v.gdtr.limit = S_DATA3 + 6;
    assert_int_equal(segment_load(&w->v, SEG_ES, S_DATA3 | 3), FAULT);
    assert_int_equal(w->v.exc.error, S_DATA3);
    w->v.gdtr.limit = S_DATA3 + 7;
    assert_int_equal(segment_load(&w->v, SEG_ES, S_DATA3 | 3), 0);
}

static void a_real_mode_load_keeps_limit_and_size(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    protmode_real(&w->m, v);
    v->seg[SEG_DS].limit = 0xFFFFFFFF;
    v->seg[SEG_DS].attr = 0xC0F1;
    assert_int_equal(segment_load(v, SEG_DS, 0x1234), 0);
    assert_int_equal(v->seg[SEG_DS].sel, 0x1234);
    assert_int_equal(v->seg[SEG_DS].base, 0x12340);
    assert_int_equal(v->seg[SEG_DS].limit, 0xFFFFFFFF);
    assert_int_equal(v->seg[SEG_DS].attr, 0xC093);
    v->seg[SEG_ES] = (struct segment){.limit = 0xFFFF};
    assert_int_equal(segment_load(v, SEG_ES, 0), 0);
    assert_int_equal(v->seg[SEG_ES].attr, 0x93);

    protmode_v86(&w->m, v, 0);
    v->seg[SEG_DS] = (struct segment){0};
    assert_int_equal(segment_load(v, SEG_DS, 0xFFFF), 0);
    assert_int_equal(v->seg[SEG_DS].base, 0xFFFF0);
    assert_int_equal(v->seg[SEG_DS].limit, 0xFFFF);
    assert_int_equal(v->seg[SEG_DS].attr, 0xF3);
}

static void lar_lsl_verr_verw_see_what_privilege_and_type_allow(void **state)
{
    static const struct {
        uint16_t sel;
        unsigned cpl;
        bool lar, lsl, verr, verw;
    } cases[] = {
        {0, 0, 0, 0, 0, 0},
        {3, 3, 0, 0, 0, 0},
        {S_CODE0, 0, 1, 1, 1, 0},
        {S_CODE0, 3, 0, 0, 0, 0},
        {S_CODE0 | 3, 0, 0, 0, 0, 0},
        {S_DATA0, 0, 1, 1, 1, 1},
        {S_DATA3 | 3, 3, 1, 1, 1, 1},
        {S_CONFORMING | 3, 3, 1, 1, 1, 0},
        {S_READ_ONLY | 3, 3, 1, 1, 1, 0},
        {S_EXEC_ONLY | 3, 3, 1, 1, 0, 0},
        {S_ABSENT_DATA | 3, 3, 1, 1, 1, 1}, /* presence does not matter */
        {S_TSS_A, 0, 1, 1, 0, 0},
        {S_TSS_B, 0, 1, 1, 0, 0},
        {S_TSS_16, 0, 1, 1, 0, 0},
        {S_TSS_B, 3, 0, 0, 0, 0},
        {S_LDT, 0, 1, 1, 0, 0},
        {S_CALL32 | 3, 3, 1, 0, 0, 0},
        {S_CALL16 | 3, 3, 1, 0, 0, 0},
        {S_TASK_GATE | 3, 3, 1, 0, 0, 0},
        {S_END, 0, 0, 0, 0, 0},
        {L_DATA3 | 3, 3, 1, 1, 1, 1},
        {0x24, 3, 0, 0, 0, 0},
    };
    struct world *w = *state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        uint32_t out;
        protmode_init(&w->m, &w->v, cases[i].cpl);
        int lar = descriptor_lar(&w->v, cases[i].sel, &out);
        int lsl = descriptor_lsl(&w->v, cases[i].sel, &out);
        int verr = descriptor_verr(&w->v, cases[i].sel);
        int verw = descriptor_verw(&w->v, cases[i].sel);
        if (lar != cases[i].lar || lsl != cases[i].lsl || verr != cases[i].verr ||
            verw != cases[i].verw)
            fail_msg("case %u gives %d %d %d %d", i, lar, lsl, verr, verw);
    }
    uint32_t rights, limit;
    protmode_init(&w->m, &w->v, 0);
    assert_int_equal(descriptor_lar(&w->v, S_DATA3, &rights), 1);
    assert_int_equal(rights, 0x00CFF300);
    assert_int_equal(descriptor_lsl(&w->v, S_DATA3, &limit), 1);
    assert_int_equal(limit, 0xFFFFFFFF);
    assert_int_equal(descriptor_lsl(&w->v, S_LDT, &limit), 1);
    assert_int_equal(limit, 0x1F);
    /* interrupt gates and reserved types are seen by neither */
    for (unsigned type = 0; type < 16; type++) {
        static const uint16_t lar = 0x1A3E, lsl = 0x0A0E;
        protmode_gdt(&w->m, S_TSS_B, 0, 0, (uint16_t)(0x80 | type));
        assert_int_equal(descriptor_lar(&w->v, S_TSS_B, &rights), lar >> type & 1);
        assert_int_equal(descriptor_lsl(&w->v, S_TSS_B, &limit), lsl >> type & 1);
    }
    flatmem_fault(&w->m, P_GDT, P_GDT + 0xFFF, FLATMEM_ANY, false);
    assert_int_equal(descriptor_lar(&w->v, S_DATA3, &rights), FAULT);
    assert_int_equal(descriptor_lsl(&w->v, S_DATA3, &limit), FAULT);
    assert_int_equal(descriptor_verr(&w->v, S_DATA3), FAULT);
    assert_int_equal(descriptor_verw(&w->v, S_DATA3), FAULT);
}

static void reset_gives_the_state_of_the_manual(void **state)
{
    struct world *w = *state;
    struct vcpu *v = &w->v;
    struct cpu_model model = {.leaf_count = 2};
    model.leaves[1] = (struct cpuid_leaf){.leaf = 1, .eax = 0x6F5};
    protmode_init(&w->m, v, 3);
    v->model = &model;
    v->irq_line = v->shutdown = v->halted = v->nmi_blocked = true;
    v->mode_dirty = false;
    vcpu_reset(v);
    assert_int_equal(v->seg[SEG_CS].base + v->rip, 0xFFFFFFF0);
    assert_int_equal(v->seg[SEG_CS].sel, 0xF000);
    assert_int_equal(v->seg[SEG_CS].attr, 0x93);
    assert_int_equal(v->seg[SEG_SS].limit, 0xFFFF);
    assert_int_equal(v->cr0, 0x60000010);
    assert_int_equal(vcpu_eflags(v), 2);
    assert_int_equal(v->regs[REG_DX], 0x6F5);
    assert_int_equal(v->regs[REG_SP], 0);
    assert_int_equal(v->cpl, 0);
    assert_int_equal(v->idtr.limit, 0xFFFF);
    assert_int_equal(v->dr[6], 0xFFFF0FF0);
    assert_int_equal(v->dr[7], 0x400);
    assert_true(v->irq_line);
    assert_false(v->shutdown || v->halted || v->nmi_blocked);
    assert_true(v->mode_dirty);
    assert_int_equal(w->m.paging_changes, 1);
    assert_ptr_equal(v->mem, &flatmem_functions);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(an_access_is_checked_against_type_and_limit),
        TEST(reads_and_writes_have_the_rights_of_the_cpl_and_wrap_at_4_gib),
        TEST(alignment_is_checked_at_cpl_3_with_am_and_ac),
        TEST(a_load_is_checked_against_selector_type_privilege_and_presence),
        TEST(a_load_fills_the_hidden_part_and_sets_the_accessed_bit),
        TEST(the_tables_are_read_as_supervisor_and_their_page_faults_come_out),
        TEST(a_selector_of_an_unloaded_ldt_is_outside),
        TEST(a_descriptor_must_lie_in_the_table_as_a_whole),
        TEST(a_real_mode_load_keeps_limit_and_size),
        TEST(lar_lsl_verr_verw_see_what_privilege_and_type_allow),
        TEST(reset_gives_the_state_of_the_manual),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
