/*
 * Windows as objects: making, choosing and recycling them, and what goes through all of them (code
 * protection, flushes, the VMA budget).
 *
 * There is one FLAT and one SUPER window, made when first needed, and up to USER_WINDOWS user
 * windows, found by CR3. The super window is compared with the guest's tables at each flush; of the
 * user ones only the current, while the others are compared when they become current, which always
 * takes a MOV CR3. So a CR3 whose page was given to another process needs nothing special, and
 * INVLPG concerns just the two windows at hand.
 *
 * What a window maps depends on CR4.PAE, CR4.PSE and EFER.NXE (how tables are read): when one of
 * them differs from what the windows were filled under, they are emptied. With CR0.WP = 0 a
 * supervisor write makes read-only supervisor pages writable in the super window; it is emptied
 * when WP is 1 again.
 *
 * The listener's code_unmapped and window_recycled are called in the midst of changes: of all
 * functions of mmu/, they may call mmu_unprotect_code only.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "cpu/fpu.h"
#include "mmu/internal.h"

enum { ID_FLAT = 1, ID_SUPER, ID_USER };

static void log_window(const struct window *w, const char *what)
{
    if (!log_on(LOG_WINDOW))
        return;
    if (w->m->v)
        fpu_park(w->m->v);
    log_write("window %u (%s) at %llx: %s, %u slots, %u vmas\n", w->id,
              w->kind == WINDOW_FLAT    ? "flat"
              : w->kind == WINDOW_SUPER ? "super"
                                        : "user",
              (unsigned long long)w->base, what, w->slot_count, w->vmas);
}

uint64_t window_base(const struct window *w)
{
    return w->base;
}

enum window_kind window_kind(const struct window *w)
{
    return w->kind;
}

void window_set_private(struct window *w, void *data)
{
    w->private = data;
}

void *window_private(const struct window *w)
{
    return w->private;
}

static uint32_t paging_mode(const struct vcpu *v)
{
    return (v->cr4 & (CR4_PAE | CR4_PSE)) | ((v->cr4 & CR4_PAE) && (v->efer & EFER_NXE));
}

/* The part of CR3 that selects tables. */
static uint32_t user_key(const struct vcpu *v)
{
    return v->cr3 & (v->cr4 & CR4_PAE ? ~0x1Fu : ~0xFFFu);
}

/* ---- emptying ---- */

void window_unmap_all(struct window *w)
{
    host_unmap_window(w);
    for (unsigned i = 0; i < ARRAY_LEN(w->live); i++) {
        for (uint64_t bits = w->live[i]; bits; bits &= bits - 1) {
            struct slot *slot = w->slot[i * 64 + (unsigned)__builtin_ctzll(bits)];
            memset(slot->mapped, 0, sizeof(slot->mapped));
            memset(slot->writable, 0, sizeof(slot->writable));
        }
    }
    w->bypasses_wp = false;
    log_window(w, "unmapped");
}

void window_clear(struct window *w)
{
    struct batch b = {.w = w};

    host_unmap_window(w);
    for (unsigned i = 0; i < ARRAY_LEN(w->live); i++) {
        while (w->live[i])
            snapshot_drop_slot(&b, i * 64 + (unsigned)__builtin_ctzll(w->live[i]));
    }
    w->bypasses_wp = false;
    log_window(w, "cleared");
}

static void recycle(struct window *w)
{
    struct mmu *m = w->m;

    if (m->listener.window_recycled)
        m->listener.window_recycled(m->listener.opaque, w);
    window_clear(w);
    m->counters.windows_recycled++;
}

void window_destroy(struct window *w)
{
    recycle(w);
    arena_release(w->base);
    w->m->by_id[w->id] = NULL;
    munmap(w, sizeof(*w));
}

/* ---- making and choosing ---- */

static struct window *make(struct mmu *m, enum window_kind kind, unsigned id)
{
    uint64_t base = arena_claim();

    if (!base)
        return NULL;
    struct window *w = mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (w == MAP_FAILED) {
        arena_release(base);
        return NULL;
    }
    w->m = m;
    w->base = base;
    w->kind = kind;
    w->id = id;
    w->shift = 22;
    m->by_id[id] = w;
    m->counters.windows_made++;
    log_window(w, "made");
    return w;
}

static unsigned oldest_user(const struct mmu *m)
{
    unsigned oldest = 0;

    for (unsigned i = 1; i < m->user_count; i++) {
        if (m->users[i]->used < m->users[oldest]->used)
            oldest = i;
    }
    return oldest;
}

/* Gives the oldest user window's place to whoever needs it more. */
static bool give_up_user(struct mmu *m)
{
    if (m->user_count == 0)
        return false;
    unsigned i = oldest_user(m);
    if (m->users[i] == m->user)
        m->user = NULL;
    window_destroy(m->users[i]);
    m->user_count--;
    m->users[i] = m->users[m->user_count];
    m->user_key[i] = m->user_key[m->user_count];
    return true;
}

static struct window *single(struct mmu *m, struct window **w, enum window_kind kind, unsigned id)
{
    while (!*w) {
        *w = make(m, kind, id);
        if (!*w && !give_up_user(m))
            break;
    }
    return *w;
}

static unsigned free_user_id(const struct mmu *m)
{
    unsigned id = ID_USER;

    while (m->by_id[id])
        id++;
    return id;
}

static struct window *select_user(struct vcpu *v)
{
    struct mmu *m = v->mmu;
    uint32_t key = user_key(v);
    unsigned i;

    if (m->user)
        return m->user;
    for (i = 0; i < m->user_count; i++) {
        if (m->user_key[i] == key)
            break;
    }
    if (i == m->user_count) {
        struct window *w = NULL;
        if (m->user_count < USER_WINDOWS)
            w = make(m, WINDOW_USER, free_user_id(m));
        if (w) {
            m->users[m->user_count++] = w;
        } else if (m->user_count) {
            i = oldest_user(m);
            recycle(m->users[i]);
        } else {
            return NULL;
        }
        m->users[i]->key = m->user_key[i] = key;
    }
    m->user = m->users[i];
    m->user->used = ++m->clock;
    m->user->shift = v->cr4 & CR4_PAE ? 21 : 22;
    snapshot_revalidate(v, m->user);
    return m->user;
}

struct window *mmu_user_window(struct vcpu *v)
{
    if (!(v->cr0 & CR0_PG))
        return single(v->mmu, &v->mmu->flat, WINDOW_FLAT, ID_FLAT);
    return select_user(v);
}

struct window *mmu_window(struct vcpu *v)
{
    struct mmu *m = v->mmu;

    if (!(v->cr0 & CR0_PG))
        return single(m, &m->flat, WINDOW_FLAT, ID_FLAT);
    if (v->cpl == 3)
        return select_user(v);
    if (!m->super && single(m, &m->super, WINDOW_SUPER, ID_SUPER))
        m->super->shift = v->cr4 & CR4_PAE ? 21 : 22;
    return m->super;
}

/* ---- flushes ---- */

static void clear_paged(struct mmu *m, unsigned shift)
{
    if (m->super) {
        window_clear(m->super);
        m->super->shift = shift;
    }
    for (unsigned i = 0; i < m->user_count; i++)
        window_clear(m->users[i]);
    m->user = NULL;
}

void window_paging_changed(struct vcpu *v)
{
    struct mmu *m = v->mmu;
    bool wp = v->cr0 & CR0_WP;

    if (!(v->cr0 & CR0_PG)) {
        m->user = NULL;
        return;
    }
    if (paging_mode(v) != m->mode) {
        m->mode = paging_mode(v);
        m->wp = wp;
        clear_paged(m, v->cr4 & CR4_PAE ? 21 : 22);
        return;
    }
    if (m->super) {
        if (wp && !m->wp && m->super->bypasses_wp)
            window_unmap_all(m->super);
        snapshot_revalidate(v, m->super);
    }
    m->wp = wp;
    if (m->user && m->user->key == user_key(v))
        snapshot_revalidate(v, m->user);
    else
        m->user = NULL;
}

void window_invlpg(struct vcpu *v, uint32_t gva)
{
    struct mmu *m = v->mmu;
    bool hit = false;

    if (!(v->cr0 & CR0_PG))
        return;
    if (m->super)
        hit |= snapshot_revalidate_page(v, m->super, gva);
    if (m->user)
        hit |= snapshot_revalidate_page(v, m->user, gva);
    if (hit)
        m->counters.invlpg_hits++;
    else
        m->counters.invlpg_misses++;
}

/* ---- code pages ---- */

/* Large pages that hold `frame` are found by looking at all of them. */
static void protect_large(struct window *w, uint32_t frame)
{
    for (unsigned i = 0; i < ARRAY_LEN(w->large); i++) {
        for (uint64_t bits = w->large[i]; bits; bits &= bits - 1) {
            unsigned s = i * 64 + (unsigned)__builtin_ctzll(bits);
            struct slot *slot = w->slot[s];
            uint32_t offset = frame - slot->frame;
            if (offset >= slot_pages(w) || !bit_test(slot->writable, offset))
                continue;
            bit_clear(slot->writable, offset);
            host_protect(w, s * slot_pages(w) + offset, 1, false);
        }
    }
}

void mmu_protect_code(struct mmu *m, uint32_t page)
{
    uint8_t flags = frame_flags(m, page);

    if (!(flags & PAGE_RAM) || (flags & (PAGE_CODE | PAGE_ROM)))
        return;
    m->page_flags[page] |= PAGE_CODE;
    rmap_protect(m, page);
    for (unsigned i = 0; i < ARRAY_LEN(m->by_id); i++) {
        if (m->by_id[i])
            protect_large(m->by_id[i], page);
    }
}

void mmu_unprotect_code(struct mmu *m, uint32_t page)
{
    if (page < FRAMES)
        m->page_flags[page] &= (uint8_t)~PAGE_CODE;
}

/* ---- the budget ---- */

/* The next window to give something up: old ones first, `last` last. */
static struct window *victim(const struct mmu *m, struct window *last,
                             bool (*has_something)(const struct window *))
{
    struct window *best = NULL;

    for (unsigned i = 0; i < ARRAY_LEN(m->by_id); i++) {
        struct window *w = m->by_id[i];
        if (!w || w == last || w == m->user || w->kind != WINDOW_USER || !has_something(w))
            continue;
        if (!best || w->used < best->used)
            best = w;
    }
    for (unsigned i = 0; !best && i < ARRAY_LEN(m->by_id); i++) {
        struct window *w = m->by_id[i];
        if (w && w != last && has_something(w))
            best = w;
    }
    return best ? best : has_something(last) ? last : NULL;
}

static bool has_vmas(const struct window *w)
{
    return w->vmas;
}

static bool has_slots(const struct window *w)
{
    return w->slot_count;
}

static void count_again(struct mmu *m)
{
    m->vmas = 0;
    for (unsigned i = 0; i < ARRAY_LEN(m->by_id); i++) {
        if (m->by_id[i]) {
            m->by_id[i]->vmas = snapshot_count_runs(m->by_id[i]);
            m->vmas += m->by_id[i]->vmas;
        }
    }
}

void window_check_budget(struct mmu *m, struct window *w)
{
    if (m->vmas + 2 <= m->budget)
        return;
    count_again(m);
    while (m->vmas + 2 > m->budget - m->budget / 4)
        window_unmap_all(victim(m, w, has_vmas));
}

bool window_relieve(struct mmu *m, struct window *w)
{
    struct window *from = victim(m, w, has_slots);

    if (from)
        window_clear(from);
    return from;
}
