/*
 * The guest: see guest.h. Guest-physical memory from 0:
 *
 *     10000h  descriptor tables (GDT 0, LDT 100h, IDT 200h, TSS 400h)
 *     11000h  the stubs, 16 bytes a vector
 *     12000h  stack of CPL 0 (two pages)
 *     20000h  page tables, 64 KiB for each set of them
 *    100000h  the regions
 *
 * The first four pages stand at KERNEL_GVA, with U = 0 at CPL 3.
 */
#include "guest.h"

#include <stdio.h>
#include <string.h>

enum {
    KERNEL_GPA = 0x10000,
    TABLES_GPA = 0x20000,
    TABLES_SIZE = 0x10000,
    GDT = 0,
    LDT = 0x100,
    IDT = 0x200,
    TSS = 0x400,
    STUBS = 0x1000,
    STACK_TOP = 0x4000,
    SEL_KERNEL_CS = 0x08,
    SEL_KERNEL_DS = 0x18,
    SEL_TSS = 0x40,
    SEL_CPL1_CS = 0x69,
    SEL_CPL1_DS = 0x71,
    PTE_P = 1,
    PTE_W = 2,
    PTE_U = 4,
};

const char *const guest_variant_names[VARIANT_COUNT] = {"user", "super", "kernel", "mixed", "pae"};

/* arch/x86: cpu/common.c of Linux, as far as a program can see it, and CPL 1's at 13 and 14. */
static const uint64_t gdt[16] = {
    [1] = 0x00CF9B000000FFFF,  [2] = 0x00AF9B000000FFFF,  [3] = 0x00CF93000000FFFF,
    [4] = 0x00CFFB000000FFFF,  [5] = 0x00CFF3000000FFFF,  [6] = 0x00AFFB000000FFFF,
    [8] = 0xE0008B0004000067,  [13] = 0x00CFBB000000FFFF, [14] = 0x00CFB3000000FFFF,
    [15] = 0x0040F30000000000, /* the CPU's number is its limit */
};
static const uint64_t ldt[1] = {0x5050F3000000FFFF};

static struct segment segment_of(uint16_t sel)
{
    struct segment s = {.sel = sel};
    if (sel < 4)
        return s;
    uint64_t d = sel & 4 ? ldt[sel >> 3] : gdt[sel >> 3];
    s.attr = (uint16_t)(d >> 40 & 0xF0FF);
    s.base = (uint32_t)((d >> 16 & 0xFFFFFF) | (d >> 56) << 24);
    s.limit = (uint32_t)((d & 0xFFFF) | (d >> 48 & 0xF) << 16);
    if (s.attr & ATTR_G)
        s.limit = s.limit << 12 | 0xFFF;
    return s;
}

static void phys(struct guest *g, uint32_t gpa, const void *from, uint32_t size)
{
    mmu_phys_write(g->mmu, gpa, from, size);
}

struct tables {
    struct guest *g;
    uint32_t root, next; /* next free page */
    bool pae;
};

static uint64_t entry_at(const struct tables *t, uint32_t gpa)
{
    uint64_t e = 0;
    memcpy(&e, mmu_ram(t->g->mmu) + gpa, t->pae ? 8 : 4);
    return e;
}

static uint32_t table_of(struct tables *t, uint32_t entry_gpa, unsigned bits)
{
    uint64_t e = entry_at(t, entry_gpa);
    if (!e) {
        e = t->next | bits;
        t->next += PAGE_SIZE;
        phys(t->g, entry_gpa, &e, t->pae ? 8 : 4);
    }
    return (uint32_t)e & ~PAGE_MASK;
}

static void map_page(struct tables *t, uint32_t gva, uint32_t gpa, unsigned bits, bool nx)
{
    uint64_t e = gpa | bits | PTE_P;
    if (!t->pae) {
        uint32_t table = table_of(t, t->root + (gva >> 22) * 4, PTE_P | PTE_W | PTE_U);
        phys(t->g, table + (gva >> 12 & 0x3FF) * 4, &e, 4);
        return;
    }
    uint32_t dir = table_of(t, t->root + (gva >> 30) * 8, PTE_P);
    uint32_t table = table_of(t, dir + (gva >> 21 & 0x1FF) * 8, PTE_P | PTE_W | PTE_U);
    e |= (uint64_t)nx << 63;
    phys(t->g, table + (gva >> 12 & 0x1FF) * 8, &e, 8);
}

static void make_tables(struct guest *g, enum variant variant)
{
    struct tables t = {.g = g, .pae = variant == VARIANT_PAE};
    t.root = TABLES_GPA + TABLES_SIZE * variant;
    t.next = t.root + PAGE_SIZE;
    bool user_code = variant == VARIANT_USER || variant == VARIANT_PAE;
    bool user_data = user_code || variant == VARIANT_MIXED;
    for (uint32_t at = 0; at < KERNEL_SIZE; at += PAGE_SIZE)
        map_page(&t, KERNEL_GVA + at, KERNEL_GPA + at, PTE_W, false);
    for (unsigned i = 0; i < REGION_COUNT; i++) {
        const struct region *r = &layout_regions[i];
        bool code = r->rights & REGION_X;
        unsigned bits =
            (r->rights & REGION_W ? PTE_W : 0) | ((code ? user_code : user_data) ? PTE_U : 0);
        if (!g->memory->golden[i])
            continue;
        for (uint32_t at = 0; at < r->size; at += PAGE_SIZE)
            map_page(&t, r->gva + at, r->gpa + at, bits, !code);
    }
}

void guest_map(struct guest *g, uint32_t gva, uint32_t gpa)
{
    static const uint8_t variants[] = {VARIANT_USER, VARIANT_KERNEL};
    for (unsigned i = 0; i < ARRAY_LEN(variants); i++) {
        struct tables t = {.g = g, .root = TABLES_GPA + TABLES_SIZE * (uint32_t)variants[i]};
        t.next = t.root + TABLES_SIZE - PAGE_SIZE * (1 + (gva >> 22) % 4);
        map_page(&t, gva, gpa, PTE_W | (variants[i] == VARIANT_USER ? PTE_U : 0), false);
    }
}

static void make_kernel(struct guest *g)
{
    uint8_t tss[0x68] = {0};
    put_u32(tss + 4, KERNEL_GVA + STACK_TOP);
    put_u16(tss + 8, SEL_KERNEL_DS);
    put_u16(tss + 0x66, sizeof tss);
    phys(g, KERNEL_GPA + GDT, gdt, sizeof gdt);
    phys(g, KERNEL_GPA + LDT, ldt, sizeof ldt);
    phys(g, KERNEL_GPA + TSS, tss, sizeof tss);
    for (unsigned vector = 0; vector < 32; vector++) {
        uint32_t stub = KERNEL_GVA + STUBS + 16 * vector;
        uint8_t gate[8] = {0}, hlt[2] = {0xF4, 0xF4};
        put_u16(gate, stub);
        put_u16(gate + 2, SEL_KERNEL_CS);
        gate[5] = vector == VEC_BP || vector == VEC_OF ? 0xEE : 0x8E;
        put_u16(gate + 6, stub >> 16);
        phys(g, KERNEL_GPA + IDT + 8 * vector, gate, sizeof gate);
        phys(g, KERNEL_GPA + STUBS + 16 * vector, hlt, sizeof hlt);
    }
}

static void fill_markers(struct guest *g)
{
    static uint8_t page[PAGE_SIZE];
    memset(page, g->variant == VARIANT_KERNEL ? 0xF4 : END_MARKER, sizeof page);
    for (unsigned i = 0; i < REGION_COUNT; i++) {
        const struct region *r = &layout_regions[i];
        if (!g->memory->golden[i] || !(r->rights & REGION_X))
            continue;
        for (uint32_t at = 0; at < r->size; at += PAGE_SIZE)
            phys(g, r->gpa + at, page, PAGE_SIZE);
    }
}

bool guest_init(struct guest *g, const struct cpu_model *model, const struct memory *memory,
                const struct dbt_options *options)
{
    struct err err = {{0}};
    memset(g, 0, sizeof *g);
    g->model = model;
    g->memory = memory;
    g->mmu = mmu_create(GUEST_RAM, 0, &err);
    if (g->mmu)
        g->dbt = dbt_create(g->mmu, model, options, &err);
    if (!g->dbt) {
        fprintf(stderr, "differential: %s\n", err.text);
        return false;
    }
    g->v = dbt_vcpu(g->dbt);
    make_kernel(g);
    for (unsigned i = 0; i < VARIANT_COUNT; i++)
        make_tables(g, (enum variant)i);
    for (unsigned i = 0; i < REGION_COUNT; i++) {
        if (memory->golden[i])
            phys(g, layout_regions[i].gpa, memory->golden[i], layout_regions[i].size);
    }
    guest_set_variant(g, VARIANT_USER);
    return true;
}

void guest_fini(struct guest *g)
{
    if (g->dbt)
        dbt_destroy(g->dbt);
    if (g->mmu)
        mmu_destroy(g->mmu);
}

void guest_set_variant(struct guest *g, enum variant variant)
{
    struct vcpu *v = g->v;
    uint32_t cr0 = v->cr0, cr3 = v->cr3, cr4 = v->cr4;
    bool kernel = g->variant == VARIANT_KERNEL;
    g->variant = variant;
    if (kernel || variant == VARIANT_KERNEL)
        fill_markers(g);
    v->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
    v->cr3 = TABLES_GPA + TABLES_SIZE * (uint32_t)variant;
    v->cr4 = CR4_PSE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    v->efer = 0;
    if (variant == VARIANT_PAE) {
        v->cr4 |= CR4_PAE;
        v->efer |= EFER_NXE;
    }
    if (g->model->xcr0_mask) {
        v->cr4 |= CR4_OSXSAVE;
        v->xcr0 = g->model->xcr0_mask;
    }
    if (variant == VARIANT_PAE)
        v->mem->load_pdptes(v, v->cr3);
    v->mem->paging_changed(v, cr0, cr3, cr4);
    v->gdtr = (struct table_register){KERNEL_GVA + GDT, sizeof gdt - 1};
    v->idtr = (struct table_register){KERNEL_GVA + IDT, 32 * 8 - 1};
    v->ldtr = (struct segment){0x48, 0x82, KERNEL_GVA + LDT, sizeof ldt - 1};
    v->tr = segment_of(SEL_TSS);
    vcpu_mode_changed(v);
}

void guest_write(struct guest *g, uint32_t gva, const void *from, uint32_t size)
{
    const struct region *r = layout_find(gva, size);
    if (r)
        phys(g, r->gpa + (gva - r->gva), from, size);
}

const uint8_t *guest_at(const struct guest *g, uint32_t gpa)
{
    return mmu_ram(g->mmu) + gpa;
}

void guest_restore(struct guest *g, uint32_t dirty)
{
    for (; dirty; dirty &= dirty - 1) {
        const struct memory_page *p = &g->memory->page[__builtin_ctz(dirty)];
        phys(g, p->gpa, p->golden, PAGE_SIZE);
    }
}

static uint16_t guest_selector(const struct guest *g, uint16_t native)
{
    if (g->variant == VARIANT_USER || g->variant == VARIANT_PAE)
        return native;
    bool kernel = g->variant == VARIANT_KERNEL;
    if (native == SEL_CS)
        return kernel ? SEL_KERNEL_CS : SEL_CPL1_CS;
    if (native == SEL_DS)
        return kernel ? SEL_KERNEL_DS : SEL_CPL1_DS;
    return native;
}

uint16_t guest_native_selector(const struct guest *g, uint16_t selector)
{
    if (g->variant == VARIANT_USER || g->variant == VARIANT_PAE)
        return selector;
    if (selector == SEL_KERNEL_CS || selector == SEL_CPL1_CS)
        return SEL_CS;
    if (selector == SEL_KERNEL_DS || selector == SEL_CPL1_DS)
        return SEL_DS;
    return selector;
}

static void load(struct guest *g, const struct cpu_state *s)
{
    struct vcpu *v = g->v;
    for (unsigned i = 0; i < 8; i++)
        v->regs[i] = s->gpr[i];
    v->rip = s->eip;
    vcpu_set_eflags(v, s->eflags & ~2u);
    v->cpl = g->variant == VARIANT_KERNEL                              ? 0
             : g->variant == VARIANT_USER || g->variant == VARIANT_PAE ? 3
                                                                       : 1;
    for (unsigned i = 0; i < SEG_COUNT; i++)
        v->seg[i] = segment_of(guest_selector(g, s->sel[i]));
    v->halted = false;
    v->shadow = 0;
    memcpy(v->fpu_area, s->fpu, 416);
    uint64_t present = g->model->host_xsave ? s->fpu[XSAVE_HEADER] & g->model->host_xsave : 0;
    memcpy(v->fpu_area + XSAVE_HEADER, &present, sizeof present);
    if (present & 4)
        memcpy(v->fpu_area + XSAVE_YMM, s->fpu + XSAVE_YMM, 128);
    v->fpu_parked = true;
    vcpu_mode_changed(v);
}

static void take_fpu(const struct guest *g, uint8_t fpu[XSAVE_SIZE])
{
    const uint8_t *area = g->v->fpu_area;
    memset(fpu, 0, XSAVE_SIZE);
    memcpy(fpu, area, 416);
    fpu[XSAVE_HEADER] = 7;
    if (!g->model->host_xsave)
        return;
    uint8_t present = area[XSAVE_HEADER];
    if (!(present & 1)) {
        memset(fpu, 0, 24);
        memset(fpu + 32, 0, 128);
        put_u16(fpu, 0x37F);
    }
    if (!(present & 2))
        memset(fpu + 160, 0, 256);
    if (present & 4)
        memcpy(fpu + XSAVE_YMM, area + XSAVE_YMM, 128);
}

/* Reads guest memory for the exception's frame; false outside regions and the kernel's stack. */
static bool read_stack(const struct guest *g, uint32_t gva, uint32_t *value)
{
    const struct region *r = layout_find(gva, 4);
    uint32_t gpa = r ? r->gpa + (gva - r->gva) : KERNEL_GPA + (gva - KERNEL_GVA);
    if (!r && gva - KERNEL_GVA > KERNEL_SIZE - 4)
        return false;
    *value = get_u32(mmu_ram(g->mmu) + gpa);
    return true;
}

bool guest_run(struct guest *g, const struct cpu_state *from, struct outcome *out)
{
    struct vcpu *v = g->v;
    load(g, from);
    enum dbt_stop stop = dbt_run(g->dbt);
    memset(out, 0, offsetof(struct outcome, state.fpu));
    out->has_error = false;
    out->error = out->cr2 = 0;
    for (unsigned i = 0; i < 8; i++)
        out->state.gpr[i] = (uint32_t)v->regs[i];
    for (unsigned i = 0; i < SEG_COUNT; i++)
        out->state.sel[i] = v->seg[i].sel;
    out->state.eip = (uint32_t)v->rip;
    out->state.eflags = vcpu_eflags(v);
    take_fpu(g, out->state.fpu);
    out->vector = 0xFF;
    if (stop != DBT_HALTED || v->cpl != 0)
        return false;
    uint32_t stub = (uint32_t)v->rip - (KERNEL_GVA + STUBS);
    if (stub >= 32 * 16) {
        out->vector = VEC_BP;
        return g->variant == VARIANT_KERNEL;
    }
    uint32_t esp = (uint32_t)v->regs[REG_SP], frame[6];
    out->vector = (uint8_t)(stub / 16);
    bool error_vector =
        out->vector == 8 || (out->vector >= 10 && out->vector <= 14) || out->vector == 17;
    out->has_error =
        g->variant == VARIANT_KERNEL ? error_vector : KERNEL_GVA + STACK_TOP - esp == 24;
    for (unsigned i = 0; i < 6; i++) {
        if (!read_stack(g, esp + 4 * i, &frame[i]))
            frame[i] = 0;
    }
    const uint32_t *f = frame + out->has_error;
    if (out->has_error)
        out->error = frame[0];
    if (out->vector == VEC_PF)
        out->cr2 = v->cr2;
    out->state.eip = f[0];
    out->state.sel[SEG_CS] = (uint16_t)f[1];
    out->state.eflags = f[2];
    if (g->variant == VARIANT_KERNEL) {
        out->state.gpr[REG_SP] = esp + 12 + 4 * out->has_error;
    } else {
        out->state.gpr[REG_SP] = f[3];
        out->state.sel[SEG_SS] = (uint16_t)f[4];
    }
    return true;
}
