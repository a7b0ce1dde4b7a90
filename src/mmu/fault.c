/*
 * Hidden faults: an access through a window met a page that is not mapped, or not for writing. A
 * fresh walk decides whether that is the guest's own page fault; else the page is mapped, and with
 * it what can be had in the same system call.
 *
 * By way of a page table, that is the entries next to it which are accessed already, name the
 * frames next to this one, and are to be mapped in the same way (PREFILL pages to each side at
 * most). By way of a large page it is the whole page and its neighbours, as far as they go on with
 * the same rights: a kernel's direct map comes with one mmap. A run ends at frames that are not
 * RAM, and where writable frames and protected ones (code, ROM) meet.
 *
 * Writable is what the guest may write, has D set already, and is neither ROM nor code. A page that
 * is mapped read-only and is now to be writable gets that by mprotect, with its likes around.
 */
#include "mmu/internal.h"

enum { PREFILL = 16 };

/* What is to be mapped for the page that was touched. */
struct request {
    struct vcpu *v;
    struct window *w;
    const struct translation *t;
    struct entry_format format;
    bool entry_writable; /* as far as the guest's entries go */
    bool writable;       /* and the frame allows it */
};

static bool frame_fits(const struct request *r, uint64_t frame, bool entry_writable)
{
    uint8_t flags = frame_flags(r->w->m, frame);
    return (flags & PAGE_RAM) && (entry_writable && flags == PAGE_RAM) == r->writable;
}

static void bits_set_range(uint64_t *map, unsigned first, unsigned end)
{
    for (unsigned i = first; i < end;) {
        if (i % 64 == 0 && i + 64 <= end) {
            map[i / 64] = ~0ull;
            i += 64;
        } else {
            bit_set(map, i++);
        }
    }
}

/* ---- by way of a page table ---- */

/* True if entry `e`, for page `i` of the slot, can be mapped in the same way as what was asked for.
 */
static bool table_fits(const struct request *r, const struct slot *slot, uint64_t pde, unsigned i,
                       uint64_t e, uint64_t frame)
{
    if ((e & (PTE_P | PTE_A)) != (PTE_P | PTE_A) || (e & r->format.reserved) ||
        (e & PTE_FRAME) >> PAGE_SHIFT != frame || !(pde & e & PTE_U) != (r->w->kind != WINDOW_USER))
        return false;
    if (bit_test(slot->code, i) &&
        snapshot_judge(entry_at(slot->copy, i, r->format.wide), e) == ENTRY_DROP)
        return false;
    return frame_fits(r, frame, (pde & e & PTE_W) && (e & PTE_D));
}

/* A page that is mapped as `e` says, but read-only, and may be writable. */
static bool table_upgrades(const struct request *r, const struct slot *slot, uint64_t pde,
                           unsigned i, uint64_t e)
{
    return bit_test(slot->mapped, i) && !bit_test(slot->writable, i) &&
           snapshot_judge(entry_at(slot->copy, i, r->format.wide), e) == ENTRY_KEEP &&
           table_fits(r, slot, pde, i, e, (e & PTE_FRAME) >> PAGE_SHIFT);
}

static bool map_table(const struct request *r, struct slot *slot)
{
    struct window *w = r->w;
    struct mmu *m = w->m;
    bool wide = r->format.wide;
    unsigned pages = slot_pages(w), s = r->t->gva >> w->shift;
    unsigned page = r->t->gva >> PAGE_SHIFT, i = page & (pages - 1), first = i, end = i + 1;
    uint64_t frame = r->t->gpa >> PAGE_SHIFT, pde = w->pde[s];
    const void *table = m->ram + ((uint64_t)slot->frame << PAGE_SHIFT);

    if (!rmap_reserve(m, 2 * PREFILL + 1))
        return false;
    if ((bit_test(slot->mapped, i) || bit_test(slot->code, i)) &&
        snapshot_judge(entry_at(slot->copy, i, wide), r->t->entry) == ENTRY_DROP)
        snapshot_forget(w, s, i);
    bool upgrade = bit_test(slot->mapped, i) && !bit_test(slot->writable, i) && r->writable;
    for (; end < pages && end <= i + PREFILL; end++) {
        uint64_t e = entry_at(table, end, wide);
        if (upgrade ? !table_upgrades(r, slot, pde, end, e)
                    : bit_test(slot->mapped, end) ||
                          !table_fits(r, slot, pde, end, e, frame + (end - i)))
            break;
    }
    for (; first > 0 && first + PREFILL > i; first--) {
        uint64_t e = entry_at(table, first - 1, wide);
        if (upgrade ? !table_upgrades(r, slot, pde, first - 1, e)
                    : bit_test(slot->mapped, first - 1) ||
                          !table_fits(r, slot, pde, first - 1, e, frame - (i - first + 1)))
            break;
    }
    if (!upgrade &&
        !host_map(w, page - (i - first), end - first, frame - (i - first), r->writable, page))
        return false;
    bits_set_range(slot->mapped, first, end);
    for (unsigned j = first; j < end; j++) {
        uint64_t e = j == i ? r->t->entry : entry_at(table, j, wide);
        entry_put(slot->copy, j, wide, e);
        if (r->writable) {
            bit_set(slot->writable, j);
            rmap_add(m, (uint32_t)((e & PTE_FRAME) >> PAGE_SHIFT), w, page - i + j);
        } else {
            bit_clear(slot->writable, j);
        }
    }
    if (upgrade)
        host_protect(w, page - (i - first), end - first, true);
    return true;
}

/* ---- by way of large pages ---- */

/*
 * Makes the record of slot `s` if it is a large page that goes on with `frame`, in the same way as
 * the one that was asked for.
 */
static bool join_large(const struct request *r, unsigned s, uint64_t frame)
{
    struct window *w = r->w;
    uint64_t size = 1ull << w->shift, e = 0;

    if (w->kind == WINDOW_FLAT) {
        e = (r->t->pde & PAGE_MASK) | (uint64_t)s << w->shift;
    } else {
        uint32_t need = PTE_P | PTE_A | PTE_PS;
        e = walk_directory_entry(r->v, s);
        if ((e & need) != need || (e & (r->format.reserved | r->format.reserved_large)) ||
            !(e & PTE_U) != (w->kind != WINDOW_USER) ||
            ((e & PTE_W) && (e & PTE_D)) != r->entry_writable)
            return false;
    }
    if ((e & PTE_FRAME & ~(size - 1)) >> PAGE_SHIFT != frame)
        return false;
    if (w->slot[s] && (w->slot[s]->kind != SLOT_LARGE || w->pde[s] != e))
        return false;
    struct translation t = {
        .gpa = frame << PAGE_SHIFT,
        .page_size = (uint32_t)size,
        .pde = e,
    };
    return snapshot_slot(w, s << w->shift, &t);
}

static bool large_fits(const struct request *r, unsigned page, uint64_t frame)
{
    unsigned pages = slot_pages(r->w);
    const struct slot *slot = r->w->slot[page / pages];
    return !bit_test(slot->mapped, page % pages) && frame_fits(r, frame, r->entry_writable);
}

/* Likewise for the 64 pages from `page` on, a multiple of 64: all plain RAM and none mapped. */
static bool large_fits_64(const struct request *r, unsigned page, uint64_t frame)
{
    unsigned pages = slot_pages(r->w);
    const struct slot *slot = r->w->slot[page / pages];
    const uint8_t *flags = r->w->m->page_flags + frame;

    if (slot->mapped[page % pages / 64] || r->writable != r->entry_writable || frame + 64 > FRAMES)
        return false;
    for (unsigned i = 0; i < 8; i++) {
        uint64_t eight;
        __builtin_memcpy(&eight, flags + 8 * i, 8);
        if (eight != PAGE_RAM * 0x0101010101010101ull)
            return false;
    }
    return true;
}

static void mark_large(struct window *w, unsigned first, unsigned end, bool writable)
{
    unsigned pages = slot_pages(w);

    while (first < end) {
        struct slot *slot = w->slot[first / pages];
        unsigned stop = min_u32(end, (first / pages + 1) * pages);
        unsigned i = first % pages, j = i + (stop - first);
        bits_set_range(slot->mapped, i, j);
        if (writable) {
            bits_set_range(slot->writable, i, j);
        } else {
            for (; i < j; i++)
                bit_clear(slot->writable, i);
        }
        first = stop;
    }
}

static bool upgrade_large(const struct request *r, struct slot *slot, unsigned page)
{
    struct window *w = r->w;
    unsigned pages = slot_pages(w), i = page % pages, first = i, end = i + 1;

#define UPGRADES(j)                                                                                \
    (bit_test(slot->mapped, j) && !bit_test(slot->writable, j) &&                                  \
     frame_fits(r, slot->frame + (j), r->entry_writable))
    while (first > 0 && UPGRADES(first - 1))
        first--;
    while (end < pages && UPGRADES(end))
        end++;
#undef UPGRADES
    bits_set_range(slot->writable, first, end);
    host_protect(w, page - (i - first), end - first, true);
    return true;
}

static bool map_large(const struct request *r, struct slot *slot)
{
    struct window *w = r->w;
    unsigned pages = slot_pages(w), page = r->t->gva >> PAGE_SHIFT, first = page, end = page + 1;
    uint64_t frame = r->t->gpa >> PAGE_SHIFT;

    if (r->writable && bit_test(slot->mapped, page % pages) &&
        !bit_test(slot->writable, page % pages))
        return upgrade_large(r, slot, page);
    while (end < WINDOW_PAGES) {
        uint64_t next = frame + (end - page);
        if (end % pages == 0 && !join_large(r, end / pages, next))
            break;
        if (end % 64 == 0 && large_fits_64(r, end, next))
            end += 64;
        else if (large_fits(r, end, next))
            end++;
        else
            break;
    }
    while (first > 0 && frame > page - first) {
        uint64_t before = frame - (page - first) - 1;
        if (first % pages == 0 &&
            (before + 1 < pages || !join_large(r, first / pages - 1, before + 1 - pages)))
            break;
        if (first % 64 == 0 && large_fits_64(r, first - 64, before - 63))
            first -= 64;
        else if (large_fits(r, first - 1, before))
            first--;
        else
            break;
    }
    if (!host_map(w, first, end - first, frame - (page - first), r->writable, page))
        return false;
    mark_large(w, first, end, r->writable);
    return true;
}

/* ---- the entries ---- */

static bool map(struct request *r, bool write)
{
    struct window *w = r->w;
    struct mmu *m = w->m;
    bool done = false;

    /* A write has D set by now, unless its entry is in ROM. */
    r->entry_writable = write || (r->t->write && r->t->dirty);
    r->writable = r->entry_writable && frame_flags(m, r->t->gpa >> PAGE_SHIFT) == PAGE_RAM;
    r->format = walk_format(r->v);
    window_check_budget(m, w);
    do {
        struct slot *slot = snapshot_slot(w, r->t->gva, r->t);
        if (slot)
            done = slot->kind == SLOT_TABLE ? map_table(r, slot) : map_large(r, slot);
    } while (!done && window_relieve(m, w));
    if (!done)
        m->counters.map_failures++;
    else if (write && !r->t->write)
        w->bypasses_wp = true;
    return done;
}

static bool is_current(const struct vcpu *v, const struct window *w)
{
    const struct mmu *m = v->mmu;
    return v->cr0 & CR0_PG ? w == m->super || w == m->user : w == m->flat;
}

static enum mmu_fault fault(struct vcpu *v, struct window *w, uint32_t gva, bool write)
{
    struct mmu *m = v->mmu;
    struct translation t;
    struct request r = {.v = v, .w = w, .t = &t};

    if (!is_current(v, w))
        return MMU_EMULATE;
    if (walk(v, gva, write ? ACCESS_WRITE : ACCESS_READ, v->cpl == 3, &t) == FAULT)
        return MMU_GUEST;
    if (w->kind == WINDOW_SUPER && t.user)
        return MMU_USER_PAGE;
    if (w->kind == WINDOW_USER && !t.user)
        return MMU_SUPER_PAGE;
    uint64_t frame = t.gpa >> PAGE_SHIFT;
    uint8_t flags = frame_flags(m, frame);
    if (!(flags & PAGE_RAM) || !t.in_ram ||
        (write && ((flags & PAGE_ROM) || (!t.write && w->kind != WINDOW_SUPER))))
        return MMU_EMULATE;
    if (write && (flags & PAGE_CODE)) {
        m->counters.code_write_faults++;
        ram_code_written(m, frame, gva & PAGE_MASK, 0);
        if (m->page_flags[frame] & PAGE_CODE)
            return MMU_EMULATE;
    }
    return map(&r, write) ? MMU_MAPPED : MMU_EMULATE;
}

enum mmu_fault mmu_fault(struct vcpu *v, struct window *w, uint32_t gva, bool write)
{
    struct mmu_counters *counters = &v->mmu->counters;
    enum mmu_fault result = fault(v, w, gva, write);

    counters->hidden_faults += result == MMU_MAPPED;
    counters->guest_faults += result == MMU_GUEST;
    counters->emulated += result == MMU_EMULATE;
    return result;
}

int mmu_fetch_page(struct vcpu *v, struct window *w, uint32_t gva, uint32_t *page, bool *registered)
{
    struct mmu *m = v->mmu;
    struct translation t;

    *registered = false;
    if (walk(v, gva, ACCESS_EXEC, v->cpl == 3, &t) == FAULT)
        return FAULT;
    if (!(frame_flags(m, t.gpa >> PAGE_SHIFT) & PAGE_RAM))
        return EMULATE_UNKNOWN;
    *page = (uint32_t)(t.gpa >> PAGE_SHIFT);
    if (!t.in_ram || !is_current(v, w) ||
        (w->kind != WINDOW_FLAT && t.user != (w->kind == WINDOW_USER)))
        return 0;
    struct slot *slot;
    do {
        slot = snapshot_slot(w, gva, &t);
    } while (!slot && window_relieve(m, w));
    if (!slot)
        return 0;
    unsigned s = gva >> w->shift, i = gva >> PAGE_SHIFT & (slot_pages(w) - 1);
    if (slot->kind == SLOT_TABLE) {
        bool tracked = bit_test(slot->mapped, i) || bit_test(slot->code, i);
        if (tracked) {
            enum verdict verdict = snapshot_judge(entry_at(slot->copy, i, window_wide(w)), t.entry);
            bool mapped = bit_test(slot->mapped, i);
            if (verdict == ENTRY_DROP)
                snapshot_forget(w, s, i);
            if (verdict == ENTRY_DROP && mapped)
                host_unmap(w, gva >> PAGE_SHIFT, 1);
            if (verdict == ENTRY_READ_ONLY && mapped && bit_test(slot->writable, i)) {
                bit_clear(slot->writable, i);
                host_protect(w, gva >> PAGE_SHIFT, 1, false);
            }
        }
        entry_put(slot->copy, i, window_wide(w), t.entry);
    }
    bit_set(slot->code, i);
    *registered = true;
    return 0;
}
