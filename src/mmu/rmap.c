/*
 * From a frame to the places where it is mapped writable by way of page tables, so that a frame can
 * be protected when code is translated from it. (Large pages are few: window.c looks through them.)
 * Each RAM frame has a list of (window, page), its first node in the array itself.
 *
 * A node is only a hint: it is never taken out when a mapping goes, and is checked against the
 * window's record when it is used. Adding to a list first throws out what no longer holds, so a
 * list is never longer than the frame's writable mappings were at one time.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>

#include "mmu/internal.h"

enum { RMAP_POOL = 1 << 20 };

static uint32_t ram_frames(const struct mmu *m)
{
    return (uint32_t)(m->ram_size >> PAGE_SHIFT);
}

int rmap_init(struct mmu *m)
{
    void *at = mmap(NULL, ram_frames(m) * sizeof(*m->rmap), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return -errno;
    m->rmap = at;
    return pool_init(&m->rmap_pool, sizeof(struct rmap_node), RMAP_POOL);
}

void rmap_fini(struct mmu *m)
{
    if (m->rmap)
        munmap(m->rmap, ram_frames(m) * sizeof(*m->rmap));
    pool_fini(&m->rmap_pool);
}

static struct rmap_node *node_at(const struct mmu *m, uint32_t next)
{
    return pool_at(&m->rmap_pool, next - 1);
}

static bool node_holds(const struct mmu *m, const struct rmap_node *node, uint32_t frame)
{
    const struct window *w = m->by_id[node->where >> WINDOW_ID_SHIFT];
    return w && snapshot_maps_writable(w, node->where & (WINDOW_PAGES - 1), frame);
}

/* Throws out of `frame`'s list what does not hold. */
static void clean(struct mmu *m, uint32_t frame)
{
    struct rmap_node *head = &m->rmap[frame];
    uint32_t *link = &head->next;

    while (*link) {
        uint32_t next = *link;
        struct rmap_node *node = node_at(m, next);
        if (node_holds(m, node, frame)) {
            link = &node->next;
        } else {
            *link = node->next;
            pool_give(&m->rmap_pool, next - 1);
        }
    }
    if (!head->where || node_holds(m, head, frame))
        return;
    if (head->next) {
        uint32_t next = head->next;
        *head = *node_at(m, next);
        pool_give(&m->rmap_pool, next - 1);
    } else {
        head->where = 0;
    }
}

bool rmap_reserve(struct mmu *m, uint32_t count)
{
    if (m->rmap_pool.limit - m->rmap_pool.used >= count)
        return true;
    for (uint32_t frame = 0; frame < ram_frames(m); frame++) {
        if (m->rmap[frame].next)
            clean(m, frame);
    }
    return m->rmap_pool.limit - m->rmap_pool.used >= count;
}

void rmap_add(struct mmu *m, uint32_t frame, const struct window *w, uint32_t page)
{
    struct rmap_node *head = &m->rmap[frame];
    uint32_t where = w->id << WINDOW_ID_SHIFT | page;

    if (head->where == 0 || head->where == where) {
        head->where = where;
        return;
    }
    clean(m, frame);
    if (head->where == 0) {
        head->where = where;
        return;
    }
    for (struct rmap_node *node = head;; node = node_at(m, node->next)) {
        if (node->where == where)
            return;
        if (!node->next)
            break;
    }
    int64_t index = pool_take(&m->rmap_pool);
    *(struct rmap_node *)pool_at(&m->rmap_pool, (uint32_t)index) =
        (struct rmap_node){.where = where, .next = head->next};
    head->next = (uint32_t)index + 1;
}

void rmap_protect(struct mmu *m, uint32_t frame)
{
    if (frame >= ram_frames(m))
        return;
    struct rmap_node node = m->rmap[frame];
    m->rmap[frame] = (struct rmap_node){0};
    while (node.where) {
        if (node_holds(m, &node, frame)) {
            struct window *w = m->by_id[node.where >> WINDOW_ID_SHIFT];
            uint32_t page = node.where & (WINDOW_PAGES - 1);
            struct slot *slot = w->slot[page >> (w->shift - PAGE_SHIFT)];
            bit_clear(slot->writable, page & (slot_pages(w) - 1));
            host_protect(w, page, 1, false);
        }
        if (!node.next)
            break;
        uint32_t next = node.next;
        node = *node_at(m, next);
        pool_give(&m->rmap_pool, next - 1);
    }
}
