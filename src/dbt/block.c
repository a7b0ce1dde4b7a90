/*
 * Blocks: found by guest-physical address, EIP, CS base and mode key, so that address spaces share
 * them; linked by patching direct jumps; dropped when their source bytes change.
 *
 * Invariants:
 *
 * A dropped block is never entered again: every jump that was patched to lead to it is led back to
 * its own stub, its tag-checked entry becomes a jump to the look-up, and so does its landing pad.
 * Jump caches and return rings may therefore hold its address until the code cache is emptied.
 *
 * A jump is patched only within one linear page, or in the supervisor's or unpaged window, of which
 * there is one address space at any time: block_code_unmapped undoes it (docs/translation.md).
 *
 * Pages that hold blocks are write-protected in every window. But where code and data are mixed, so
 * that a page is written and executed in turn, its blocks check their own source bytes when entered
 * and end behind stores, and the page stays writable. After a time, longer at each relapse, it is
 * protected again.
 */
#include "dbt/engine.h"

#include "dbt/emit.h"

static unsigned hash_of(uint32_t gpa, uint32_t eip, uint32_t key)
{
    uint32_t h = (gpa ^ eip * 3 ^ key * 0x1F351F35u) * 0x9E3779B1u;
    return h >> (32 - HASH_BITS);
}

static unsigned lin_hash(uint32_t linear_page)
{
    return linear_page & ((1u << LIN_BITS) - 1);
}

static uint32_t block_linear(const struct block *b)
{
    return b->eip + b->cs_base;
}

/* Whether the part of `b` behind the page end is still what it was. */
static bool second_page_holds(struct dbt *d, const struct block *b)
{
    uint32_t page;

    if (b->page2 == NO_PAGE)
        return true;
    struct exception saved = d->cpu.exc;
    int r = context_fetch(d, (block_linear(b) | PAGE_MASK) + 1, &page);
    d->cpu.exc = saved;
    return r == 0 && page == b->page2;
}

struct block *block_find(struct dbt *d, uint32_t eip, uint32_t page, uint32_t key)
{
    const struct segment *cs = &d->cpu.seg[SEG_CS];
    uint32_t gpa = page << PAGE_SHIFT | ((eip + cs->base) & PAGE_MASK);

    for (struct block *b = d->hash[hash_of(gpa, eip, key)]; b; b = b->hash_next) {
        if (b->gpa == gpa && b->eip == eip && b->key == key && b->cs_base == cs->base &&
            b->cs_limit == cs->limit && second_page_holds(d, b))
            return b;
    }
    return NULL;
}

static void add_to_page(struct dbt *d, struct block *b, uint32_t page)
{
    struct page_ref *ref = cache_meta(&d->cache, sizeof(*ref));
    ref->block = b;
    ref->next = d->pages[page];
    if (!d->pages[page] && !block_page_is_checked(d, page))
        mmu_protect_code(d->mmu, page);
    d->pages[page] = ref;
}

void block_insert(struct dbt *d, struct block *b)
{
    unsigned h = hash_of(b->gpa, b->eip, b->key);
    uint32_t linear_page = block_linear(b) >> PAGE_SHIFT;

    b->hash_next = d->hash[h];
    d->hash[h] = b;
    b->lin_next[0] = d->by_lin[lin_hash(linear_page)];
    d->by_lin[lin_hash(linear_page)] = b;
    add_to_page(d, b, b->gpa >> PAGE_SHIFT);
    if (b->page2 != NO_PAGE)
        add_to_page(d, b, b->page2);
    d->cache.blocks[d->cache.block_count++] = b;
}

static void patch(struct dbt *d, const struct exit_link *link, const uint8_t *target)
{
    const uint8_t *site = link->from->code + link->patch;
    int32_t rel = (int32_t)(target - (site + 4));
    __builtin_memcpy(cache_writable(&d->cache, site), &rel, 4);
}

void block_link(struct dbt *d, struct exit_link *link, struct block *to)
{
    link->to = to;
    link->next = to->incoming;
    to->incoming = link;
    patch(d, link, to->code + to->direct);
    d->stats.chains++;
}

static void unlink_incoming(struct dbt *d, struct block *b)
{
    while (b->incoming) {
        struct exit_link *link = b->incoming;
        b->incoming = link->next;
        link->to = NULL;
        patch(d, link, link->from->code + link->stub);
    }
}

static void unlink_outgoing(struct block *b)
{
    for (unsigned i = 0; i < b->exit_count; i++) {
        struct exit_link *link = &b->exits[i];
        if (!link->to)
            continue;
        for (struct exit_link **p = &link->to->incoming; *p; p = &(*p)->next) {
            if (*p == link) {
                *p = link->next;
                break;
            }
        }
        link->to = NULL;
    }
}

/* Writes `jmp [r15 + stub]` at an entry of a block that is dead. */
static void poison(struct dbt *d, const uint8_t *at, enum stub stub)
{
    uint8_t *rw = cache_writable(&d->cache, at);
    struct emit e = {.at = rw, .start = rw, .end = rw + 7};
    struct hmem m = hmem_at(R_CPU, (int32_t)(OFF_STUBS + 8 * stub));
    emit_jmp_mem(&e, &m);
}

void block_drop(struct dbt *d, struct block *b)
{
    if (b->dead)
        return;
    b->dead = true;
    d->drops++;
    d->stats.dropped_blocks++;
    unlink_incoming(d, b);
    unlink_outgoing(b);
    poison(d, b->code, STUB_MISS);
    if (b->pad)
        poison(d, b->code + b->pad, STUB_INDIRECT);
    for (struct block **p = &d->hash[hash_of(b->gpa, b->eip, b->key)]; *p; p = &(*p)->hash_next) {
        if (*p == b) {
            *p = b->hash_next;
            break;
        }
    }
    unsigned lin = lin_hash(block_linear(b) >> PAGE_SHIFT);
    for (struct block **p = &d->by_lin[lin]; *p; p = &(*p)->lin_next[0]) {
        if (*p == b) {
            *p = b->lin_next[0];
            break;
        }
    }
}

static void forget_page(struct dbt *d, uint32_t page)
{
    if (page == NO_PAGE || !d->pages[page])
        return;
    d->pages[page] = NULL;
    mmu_unprotect_code(d->mmu, page);
}

/* Drops all blocks of a guest-physical page and gives up its write protection. */
static void drop_page(struct dbt *d, uint32_t page)
{
    if (!d->pages[page])
        return;
    for (struct page_ref *ref = d->pages[page]; ref; ref = ref->next)
        block_drop(d, ref->block);
    forget_page(d, page);
}

void block_drop_all(struct dbt *d)
{
    for (uint32_t i = 0; i < d->cache.block_count; i++) {
        forget_page(d, d->cache.blocks[i]->gpa >> PAGE_SHIFT);
        forget_page(d, d->cache.blocks[i]->page2);
    }
    __builtin_memset(d->hash, 0, sizeof(d->hash));
    __builtin_memset(d->by_lin, 0, sizeof(d->by_lin));
    for (unsigned i = 0; i < CONTEXT_COUNT; i++)
        d->contexts[i].stale = true;
    if (d->context)
        context_flush(d->context, d);
    cache_empty(&d->cache);
    d->drops++;
    d->stats.flushes++;
}

void block_code_written(void *opaque, uint32_t page, uint32_t offset, uint32_t size)
{
    struct dbt *d = opaque;
    struct code_writes *w = &d->code_writes[page];
    uint32_t now = (uint32_t)(__builtin_ia32_rdtsc() >> CODE_WRITE_SHIFT);

    (void)offset;
    (void)size;
    if (now - w->last > 1)
        w->count = 0;
    w->last = now;
    drop_page(d, page);
    if (++w->count < CODE_WRITE_LIMIT || w->checked || d->checked_count == CHECKED_PAGES)
        return;
    w->checked = true;
    w->count = 0;
    if (w->backoff < CODE_BACKOFF_MAX)
        w->backoff++;
    d->checked[d->checked_count++] = page;
    d->stats.checked_pages++;
}

void block_expire_checked(struct dbt *d)
{
    uint32_t now = (uint32_t)(__builtin_ia32_rdtsc() >> CODE_WRITE_SHIFT);

    for (unsigned i = 0; i < d->checked_count;) {
        struct code_writes *w = &d->code_writes[d->checked[i]];
        if (now - w->last < 1u << w->backoff) {
            i++;
            continue;
        }
        drop_page(d, d->checked[i]);
        w->checked = false;
        d->checked[i] = d->checked[--d->checked_count];
    }
}

/* Contexts of the supervisor that hold code of this user window's pages. */
static void forget_user_code(struct dbt *d, const struct window *w)
{
    for (unsigned i = 0; i < CONTEXT_COUNT; i++) {
        if (d->contexts[i].user_code && d->contexts[i].user_window == w)
            d->contexts[i].stale = true;
    }
}

void block_code_unmapped(void *opaque, struct window *w, uint32_t first, uint32_t count)
{
    struct dbt *d = opaque;

    for (struct context *c = window_private(w); c; c = c->next)
        c->stale = true;
    if (window_kind(w) == WINDOW_USER)
        forget_user_code(d, w);
    if (d->context && d->context->stale)
        vcpu_mode_changed(&d->cpu);
    if (window_kind(w) == WINDOW_USER)
        return;
    /* Chains into these pages. A block that begins on the page before may reach into the first one.
     */
    for (unsigned lists = 0; lists <= count && lists < (1u << LIN_BITS); lists++) {
        for (struct block *b = d->by_lin[lin_hash(first - 1 + lists)]; b; b = b->lin_next[0]) {
            if (block_linear(b) >> PAGE_SHIFT == first - 1 && b->page2 == NO_PAGE)
                continue;
            if ((b->key & KEY_CPL) != 3 && (block_linear(b) >> PAGE_SHIFT) - (first - 1) <= count)
                unlink_incoming(d, b);
        }
    }
}

void block_window_recycled(void *opaque, struct window *w)
{
    struct dbt *d = opaque;

    for (struct context *c = window_private(w), *next; c; c = next) {
        next = c->next;
        c->window = NULL;
        c->next = NULL;
        c->stale = true;
        if (c == d->context) {
            d->context = NULL;
            vcpu_mode_changed(&d->cpu);
        }
    }
    window_set_private(w, NULL);
    forget_user_code(d, w);
    if (w == d->window || w == d->user_window)
        vcpu_mode_changed(&d->cpu);
    if (window_kind(w) != WINDOW_USER)
        block_code_unmapped(d, w, 0, 1u << 20);
}
