/*
 * What a window remembers of the guest's tables, and how it is kept in step with them.
 *
 * Mapping a page, or registering it for code, records the two entries that it came from. Entries
 * that nothing came from are not recorded, so the guest may fill and change them at no cost. When
 * the guest orders a flush (MOV CR3 and the like), the recorded entries are compared with what now
 * stands in memory: first the directory entry, which decides over the whole slot and spares reading
 * a table that is none any more; then the entries of pages that are tracked. What does not matter
 * for a mapping (PCD, PWT, G, the bits left to software, A and D that rose) is recorded anew; where
 * W or D fell, a writable page becomes read-only and keeps its place; all else that differs is
 * dropped. Global pages are compared like the others: a TLB may hold less than it could.
 *
 * Pages are visited in ascending order, so that what is dropped together goes in one munmap: a
 * pending range grows over holes until a page that stays is met.
 */
#include "mmu/internal.h"

/* ---- batches ---- */

static void batch_flush_drop(struct batch *b)
{
    if (b->drop_first != b->drop_end)
        host_unmap(b->w, b->drop_first, b->drop_end - b->drop_first);
    b->drop_first = b->drop_end = 0;
}

static void batch_flush_protect(struct batch *b)
{
    if (b->protect_first != b->protect_end)
        host_protect(b->w, b->protect_first, b->protect_end - b->protect_first, false);
    b->protect_first = b->protect_end = 0;
}

void batch_flush(struct batch *b)
{
    batch_flush_protect(b);
    batch_flush_drop(b);
}

/* A mapped page stays: nothing may be unmapped across it. */
static void batch_keep(struct batch *b)
{
    if (b->drop_first != b->drop_end)
        batch_flush_drop(b);
}

static void batch_drop(struct batch *b, uint32_t first, uint32_t end)
{
    if (b->drop_first == b->drop_end)
        b->drop_first = first;
    b->drop_end = end;
}

/* mprotect does not pass over holes, so such a range has none. */
static void batch_protect(struct batch *b, uint32_t page)
{
    batch_keep(b);
    if (b->protect_end != page || b->protect_first == b->protect_end) {
        batch_flush_protect(b);
        b->protect_first = page;
    }
    b->protect_end = page + 1;
}

/* ---- one entry ---- */

#define ENTRY_SOFT ((uint64_t)(PTE_W | PTE_PWT | PTE_PCD | PTE_A | PTE_D | PTE_G | PTE_AVL))

enum verdict snapshot_judge(uint64_t old, uint64_t now)
{
    uint64_t changed = old ^ now, fell = old & ~now;

    if ((changed & ~ENTRY_SOFT) || (fell & PTE_A))
        return ENTRY_DROP;
    return fell & (PTE_W | PTE_D) ? ENTRY_READ_ONLY : ENTRY_KEEP;
}

/* For a directory entry; D is not defined in one that names a table. */
static enum verdict judge_directory(const struct slot *slot, uint64_t old, uint64_t now)
{
    enum verdict verdict = snapshot_judge(old, now);

    if (verdict == ENTRY_READ_ONLY && slot->kind == SLOT_TABLE && !(old & ~now & PTE_W))
        return ENTRY_KEEP;
    return verdict;
}

/* ---- slots ---- */

static void slot_free(struct window *w, unsigned s)
{
    struct mmu *m = w->m;
    struct slot *slot = w->slot[s];

    if (slot->copy)
        pool_give(&m->copies, (uint32_t)(((uint8_t *)slot->copy - m->copies.base) / PAGE_SIZE));
    pool_give(&m->slots, (uint32_t)(((uint8_t *)slot - m->slots.base) / sizeof(*slot)));
    w->slot[s] = NULL;
    w->pde[s] = 0;
    w->slot_count--;
    bit_clear(w->live, s);
    bit_clear(w->large, s);
}

static struct slot *slot_make(struct window *w, unsigned s, const struct translation *t)
{
    struct mmu *m = w->m;
    bool table = t->page_size == PAGE_SIZE;
    int64_t copy = -1, index = pool_take(&m->slots);

    if (index < 0)
        return NULL;
    if (table) {
        copy = pool_take(&m->copies);
        if (copy < 0) {
            pool_give(&m->slots, (uint32_t)index);
            return NULL;
        }
    }
    struct slot *slot = pool_at(&m->slots, (uint32_t)index);
    uint64_t first = table ? t->pde & PTE_FRAME : t->gpa & ~((uint64_t)t->page_size - 1);
    *slot = (struct slot){
        .kind = table ? SLOT_TABLE : SLOT_LARGE,
        .frame = (uint32_t)(first >> PAGE_SHIFT),
        .copy = table ? pool_at(&m->copies, (uint32_t)copy) : NULL,
    };
    w->slot[s] = slot;
    w->slot_count++;
    bit_set(w->live, s);
    if (!table)
        bit_set(w->large, s);
    return slot;
}

static void report_code(struct window *w, uint32_t first, uint32_t count)
{
    if (count && w->m->listener.code_unmapped)
        w->m->listener.code_unmapped(w->m->listener.opaque, w, first, count);
}

void snapshot_drop_slot(struct batch *b, unsigned s)
{
    struct window *w = b->w;
    struct slot *slot = w->slot[s];
    uint32_t base = s * slot_pages(w), first = ~0u, end = 0;
    uint32_t code = 0, code_count = 0;

    for (unsigned i = 0; i < slot_pages(w) / 64; i++) {
        if (slot->mapped[i]) {
            if (first == ~0u)
                first = i * 64 + (unsigned)__builtin_ctzll(slot->mapped[i]);
            end = i * 64 + 64 - (unsigned)__builtin_clzll(slot->mapped[i]);
            w->m->counters.pages_dropped += (unsigned)__builtin_popcountll(slot->mapped[i]);
        }
        for (uint64_t bits = slot->code[i]; bits; bits &= bits - 1) {
            uint32_t page = base + i * 64 + (unsigned)__builtin_ctzll(bits);
            if (page != code + code_count) {
                report_code(w, code, code_count);
                code = page;
                code_count = 0;
            }
            code_count++;
        }
    }
    report_code(w, code, code_count);
    if (end)
        batch_drop(b, base + first, base + end);
    slot_free(w, s);
}

struct slot *snapshot_slot(struct window *w, uint32_t gva, const struct translation *t)
{
    unsigned s = gva >> w->shift;
    struct slot *slot = w->slot[s];
    bool table = t->page_size == PAGE_SIZE;

    if (slot && (table != (slot->kind == SLOT_TABLE) ||
                 judge_directory(slot, w->pde[s], t->pde) != ENTRY_KEEP)) {
        struct batch b = {.w = w};
        snapshot_drop_slot(&b, s);
        batch_flush(&b);
        slot = NULL;
    }
    if (!slot)
        slot = slot_make(w, s, t);
    if (slot)
        w->pde[s] = t->pde;
    return slot;
}

void snapshot_forget(struct window *w, unsigned s, unsigned i)
{
    struct slot *slot = w->slot[s];

    if (bit_test(slot->mapped, i))
        w->m->counters.pages_dropped++;
    if (bit_test(slot->code, i))
        report_code(w, s * slot_pages(w) + i, 1);
    bit_clear(slot->mapped, i);
    bit_clear(slot->writable, i);
    bit_clear(slot->code, i);
}

/* ---- comparing ---- */

/* True if one of the 64 entries picked by `tracked` differs. */
static inline bool any_differs(const void *table, const void *copy, uint64_t tracked, bool wide)
{
    const uint64_t *a = table, *b = copy;
    uint64_t any = 0;

    if (tracked == ~0ull) {
        for (unsigned i = 0; i < (wide ? 64 : 32); i++)
            any |= a[i] ^ b[i];
    } else {
        for (; tracked; tracked &= tracked - 1) {
            unsigned i = (unsigned)__builtin_ctzll(tracked);
            any |= entry_at(table, i, wide) ^ entry_at(copy, i, wide);
        }
    }
    return any;
}

/* Those of the entries [first, first+64) picked by `tracked` that differ from the copy. */
static uint64_t differing(const void *table, const void *copy, unsigned first, uint64_t tracked,
                          bool wide)
{
    uint64_t changed = 0;

    table = (const uint8_t *)table + first * (wide ? 8 : 4);
    copy = (const uint8_t *)copy + first * (wide ? 8 : 4);
    if (LIKELY(!(wide ? any_differs(table, copy, tracked, true)
                      : any_differs(table, copy, tracked, false))))
        return 0;
    for (; tracked; tracked &= tracked - 1) {
        unsigned i = (unsigned)__builtin_ctzll(tracked);
        if (entry_at(table, i, wide) != entry_at(copy, i, wide))
            changed |= 1ull << i;
    }
    return changed;
}

/* Judges page `i` of slot `s` by what its entry is now. */
static void compare_entry(struct batch *b, unsigned s, unsigned i, uint64_t now)
{
    struct window *w = b->w;
    struct slot *slot = w->slot[s];
    uint32_t page = s * slot_pages(w) + i;
    enum verdict verdict = snapshot_judge(entry_at(slot->copy, i, window_wide(w)), now);

    if (verdict == ENTRY_DROP) {
        if (bit_test(slot->mapped, i))
            batch_drop(b, page, page + 1);
        snapshot_forget(w, s, i);
        return;
    }
    entry_put(slot->copy, i, window_wide(w), now);
    if (!bit_test(slot->mapped, i))
        return;
    if (verdict == ENTRY_READ_ONLY && bit_test(slot->writable, i)) {
        bit_clear(slot->writable, i);
        batch_protect(b, page);
    } else {
        batch_keep(b);
    }
}

static void compare_table(struct batch *b, unsigned s)
{
    struct window *w = b->w;
    struct slot *slot = w->slot[s];
    const void *table = w->m->ram + ((uint64_t)slot->frame << PAGE_SHIFT);
    bool wide = window_wide(w);
    uint64_t left = 0;

    w->m->counters.tables_compared++;
    for (unsigned i = 0; i < slot_pages(w) / 64; i++) {
        uint64_t tracked = slot->mapped[i] | slot->code[i];
        if (!tracked)
            continue;
        uint64_t changed = differing(table, slot->copy, i * 64, tracked, wide);
        if (!changed) {
            if (slot->mapped[i])
                batch_keep(b);
            left = tracked;
            continue;
        }
        for (uint64_t bits = tracked; bits; bits &= bits - 1) {
            unsigned j = i * 64 + (unsigned)__builtin_ctzll(bits);
            if (changed >> (j % 64) & 1)
                compare_entry(b, s, j, entry_at(table, j, wide));
            else if (bit_test(slot->mapped, j))
                batch_keep(b);
        }
        left |= slot->mapped[i] | slot->code[i];
    }
    if (!left)
        slot_free(w, s);
}

void snapshot_revalidate(struct vcpu *v, struct window *w)
{
    struct batch b = {.w = w};

    for (unsigned i = 0; i < ARRAY_LEN(w->live); i++) {
        for (uint64_t bits = w->live[i]; bits; bits &= bits - 1) {
            unsigned s = i * 64 + (unsigned)__builtin_ctzll(bits);
            uint64_t now = walk_directory_entry(v, s);
            if (now != w->pde[s]) {
                if (judge_directory(w->slot[s], w->pde[s], now) != ENTRY_KEEP) {
                    snapshot_drop_slot(&b, s);
                    continue;
                }
                w->pde[s] = now;
            }
            if (w->slot[s]->kind == SLOT_TABLE)
                compare_table(&b, s);
            else
                batch_keep(&b);
        }
    }
    batch_flush(&b);
}

bool snapshot_revalidate_page(struct vcpu *v, struct window *w, uint32_t gva)
{
    struct batch b = {.w = w};
    unsigned s = gva >> w->shift, i = gva >> PAGE_SHIFT & (slot_pages(w) - 1);
    struct slot *slot = w->slot[s];

    if (!slot ||
        (slot->kind == SLOT_TABLE && !bit_test(slot->mapped, i) && !bit_test(slot->code, i)))
        return false;
    uint64_t now = walk_directory_entry(v, s);
    if (judge_directory(slot, w->pde[s], now) != ENTRY_KEEP) {
        snapshot_drop_slot(&b, s);
    } else {
        w->pde[s] = now;
        if (slot->kind == SLOT_TABLE) {
            const void *table = w->m->ram + ((uint64_t)slot->frame << PAGE_SHIFT);
            compare_entry(&b, s, i, entry_at(table, i, window_wide(w)));
        }
    }
    batch_flush(&b);
    return true;
}

/* ---- questions ---- */

static uint32_t mapped_frame(const struct window *w, const struct slot *slot, unsigned i)
{
    if (slot->kind == SLOT_LARGE)
        return slot->frame + i;
    return (uint32_t)((entry_at(slot->copy, i, window_wide(w)) & PTE_FRAME) >> PAGE_SHIFT);
}

bool snapshot_maps_writable(const struct window *w, uint32_t page, uint32_t frame)
{
    const struct slot *slot = w->slot[page >> (w->shift - PAGE_SHIFT)];
    unsigned i = page & (slot_pages(w) - 1);

    return slot && slot->kind == SLOT_TABLE && bit_test(slot->writable, i) &&
           mapped_frame(w, slot, i) == frame;
}

unsigned snapshot_count_runs(const struct window *w)
{
    uint32_t next_page = ~0u, next_frame = 0;
    bool writable = false;
    unsigned runs = 0;

    for (unsigned s = 0; s < SLOTS; s++) {
        const struct slot *slot = w->slot[s];
        if (!slot)
            continue;
        for (unsigned i = 0; i < slot_pages(w); i++) {
            if (!bit_test(slot->mapped, i))
                continue;
            uint32_t page = s * slot_pages(w) + i, frame = mapped_frame(w, slot, i);
            if (page != next_page || frame != next_frame || bit_test(slot->writable, i) != writable)
                runs++;
            writable = bit_test(slot->writable, i);
            next_page = page + 1;
            next_frame = frame + 1;
        }
    }
    return runs;
}
