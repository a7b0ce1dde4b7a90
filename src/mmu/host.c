/*
 * The system calls on windows. At the limit of VMAs (vm.max_map_count) even munmap and mprotect of
 * a part fail, since they would split a VMA; a munmap that takes only whole ones cannot. So where a
 * part cannot be taken away, all of the window is: a TLB may always hold less.
 *
 * The count of VMAs kept here is an upper bound: the kernel merges neighbours of the same file,
 * offset and protection. window_check_budget counts again when it matters.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "mmu/internal.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/* A run of up to so many pages is populated whole, of a longer one the aligned part with the page
   that is wanted now. Reading populates with writable host PTEs, since it is shared memory: 0.25 us
   a page against 1.3 us for a first touch. */
enum { POPULATE_PAGES = 64 };

static void *page_address(const struct window *w, uint32_t page)
{
    return (void *)(w->base + ((uint64_t)page << PAGE_SHIFT));
}

static void count_vmas(struct window *w, int n)
{
    w->vmas += (unsigned)n;
    w->m->vmas += (unsigned)n;
}

bool host_map(struct window *w, uint32_t page, uint32_t count, uint64_t frame, bool writable,
              uint32_t touched)
{
    int prot = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    int flags = MAP_SHARED | MAP_FIXED;

    if (count <= POPULATE_PAGES)
        flags |= MAP_POPULATE;
    if (mmap(page_address(w, page), (size_t)count << PAGE_SHIFT, prot, flags, w->m->fd,
             (off_t)(frame << PAGE_SHIFT)) == MAP_FAILED)
        return false;
    if (count > POPULATE_PAGES) {
        uint32_t first = max_u32(touched & ~(POPULATE_PAGES - 1u), page);
        uint32_t end = min_u32((touched | (POPULATE_PAGES - 1u)) + 1, page + count);
        madvise(page_address(w, first), (size_t)(end - first) << PAGE_SHIFT, MADV_POPULATE_READ);
    }
    if (w->low == w->high) {
        w->low = page;
        w->high = page + count;
    } else {
        w->low = min_u32(w->low, page);
        w->high = max_u32(w->high, page + count);
    }
    count_vmas(w, 2); /* it may lie in the middle of another */
    w->m->counters.runs_mapped++;
    w->m->counters.pages_mapped += count;
    return true;
}

void host_unmap_window(struct window *w)
{
    if (w->low != w->high &&
        munmap(page_address(w, w->low), (size_t)(w->high - w->low) << PAGE_SHIFT) < 0)
        abort(); /* whole VMAs only: nothing that the kernel may refuse */
    w->low = w->high = 0;
    w->m->vmas -= w->vmas;
    w->vmas = 0;
}

void host_unmap(struct window *w, uint32_t page, uint32_t count)
{
    if (munmap(page_address(w, page), (size_t)count << PAGE_SHIFT) == 0)
        count_vmas(w, 1);
    else
        window_unmap_all(w);
}

void host_protect(struct window *w, uint32_t page, uint32_t count, bool writable)
{
    int prot = writable ? PROT_READ | PROT_WRITE : PROT_READ;

    if (mprotect(page_address(w, page), (size_t)count << PAGE_SHIFT, prot) == 0)
        count_vmas(w, 2);
    else
        window_unmap_all(w);
}
