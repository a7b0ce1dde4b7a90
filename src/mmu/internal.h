/*
 * What the files of mmu/ share: the state of one mmu, the record of a window, and the functions
 * that pass between them. Nobody outside mmu/ includes this.
 *
 * A window's record is its directory as mapped (window.pde) and, for each slot in use, a struct
 * slot. A slot is what one directory entry covers: 4 MiB, 2 MiB with PAE. A slot of kind TABLE has
 * a copy of the guest's page-table page in which only the entries of pages that are tracked
 * (mapped, or registered for code) mean anything; a slot of kind LARGE is one large page. Pages are
 * named by their linear page number (gva >> 12), frames by their guest-physical one.
 */
#ifndef MMU_INTERNAL_H
#define MMU_INTERNAL_H

#include "cpu/emulate.h"
#include "mmu/mmu.h"

/* ---- the guest's entries (SDM 3A 4.3, 4.4) ---- */

enum pte {
    PTE_P = 1u << 0,
    PTE_W = 1u << 1,
    PTE_U = 1u << 2,
    PTE_PWT = 1u << 3,
    PTE_PCD = 1u << 4,
    PTE_A = 1u << 5,
    PTE_D = 1u << 6,
    PTE_PS = 1u << 7,
    PTE_G = 1u << 8,
    PTE_AVL = 7u << 9,
};
#define PTE_NX    (1ull << 63)
#define PTE_FRAME 0x0000000FFFFFF000ull /* 36 physical address bits */

enum page_fault_error { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_ID = 16 };

/* Bits that are reserved in each entry, and in a large one besides, under the current mode. */
struct entry_format {
    bool wide;  /* 8-byte entries: PAE */
    bool large; /* PS is honoured */
    uint64_t reserved, reserved_large;
};

/* ---- physical memory ---- */

enum page_flag {
    PAGE_RAM = 1,  /* backed by the memfd */
    PAGE_ROM = 2,  /* and not writable by the guest */
    PAGE_CODE = 4, /* holds translated code */
};

enum { FRAMES = 1 << 20 };

/* Items of one size out of one reservation of addresses; memory is committed as items are first
 * used. */
struct pool {
    uint8_t *base;
    uint32_t item, limit;
    uint32_t fresh; /* items [fresh, limit) were never used */
    uint32_t free;  /* index + 1 of the first free item; its first four bytes name the next */
    uint32_t used;
};

/* ---- windows ---- */

enum {
    WINDOW_PAGES = 1 << 20,
    SLOTS = 2048,
    SLOT_PAGES = 1024,
    SLOT_WORDS = SLOT_PAGES / 64,
    USER_WINDOWS = 64,
    WINDOW_ID_SHIFT = 20, /* rmap names a mapping as id << 20 | page */
};

enum slot_kind { SLOT_TABLE, SLOT_LARGE };

struct slot {
    uint8_t kind;
    uint32_t frame; /* of the table page; of the large page's first page */
    void *copy;     /* TABLE only */
    uint64_t mapped[SLOT_WORDS], writable[SLOT_WORDS], code[SLOT_WORDS];
};

struct window {
    struct mmu *m;
    uint64_t base;
    enum window_kind kind;
    unsigned id;        /* from 1; 0 means no window */
    uint32_t key;       /* USER: the CR3 it belongs to */
    unsigned shift;     /* log2 of a slot's size */
    bool bypasses_wp;   /* something is writable only because CR0.WP was 0 when it was mapped */
    uint32_t low, high; /* pages [low, high) enclose all that is mapped */
    unsigned vmas;      /* at least as many as the kernel has in this window */
    uint64_t used;      /* mmu.clock when last selected */
    unsigned slot_count;
    void *private;
    uint64_t live[SLOTS / 64], large[SLOTS / 64];
    uint64_t pde[SLOTS];
    struct slot *slot[SLOTS];
};

struct rmap_node {
    uint32_t where; /* id << 20 | page; 0: none */
    uint32_t next;  /* index + 1 into the pool */
};

/* ---- the lookaside of access.c ---- */

enum { LOOKASIDE_SIZE = 64, LOOKASIDE_KINDS = 6 };

struct lookaside_entry {
    uint64_t key; /* generation << 20 | page */
    uint64_t frame;
};

struct mmu {
    /* ram.c */
    int fd;
    uint64_t ram_size;
    uint8_t *ram;        /* view of the whole file: every frame at its gpa */
    uint8_t *page_flags; /* one byte a frame: enum page_flag */

    struct vcpu *v; /* borrowed */
    struct mmu_listener listener;
    struct mmu_io io;
    struct mmu_counters counters;

    /* windows */
    struct window *flat, *super;
    struct window *user; /* the current CR3's, or NULL until it is asked for */
    struct window *users[USER_WINDOWS];
    uint32_t user_key[USER_WINDOWS]; /* users[i]->key, close together */
    unsigned user_count;
    struct window *by_id[USER_WINDOWS + 3];
    uint64_t clock;
    unsigned budget, vmas;
    uint32_t mode; /* of paging that super and users were filled under: see paging_mode */
    bool wp;       /* CR0.WP likewise */
    struct pool slots, copies;

    /* rmap.c */
    struct rmap_node *rmap; /* one a RAM frame, the list's first node */
    struct pool rmap_pool;

    /* access.c */
    uint64_t generation;
    struct lookaside_entry lookaside[LOOKASIDE_KINDS][LOOKASIDE_SIZE];
};

/* ---- small things ---- */

static inline bool bit_test(const uint64_t *map, unsigned i)
{
    return map[i / 64] >> (i % 64) & 1;
}

static inline void bit_set(uint64_t *map, unsigned i)
{
    map[i / 64] |= 1ull << (i % 64);
}

static inline void bit_clear(uint64_t *map, unsigned i)
{
    map[i / 64] &= ~(1ull << (i % 64));
}

static inline uint64_t entry_at(const void *table, unsigned i, bool wide)
{
    return wide ? ((const uint64_t *)table)[i] : ((const uint32_t *)table)[i];
}

static inline void entry_put(void *table, unsigned i, bool wide, uint64_t entry)
{
    if (wide)
        ((uint64_t *)table)[i] = entry;
    else
        ((uint32_t *)table)[i] = (uint32_t)entry;
}

/* Flags of a frame; 0 (neither RAM nor ROM) from 4 GiB on. */
static inline uint8_t frame_flags(const struct mmu *m, uint64_t frame)
{
    return frame < FRAMES ? m->page_flags[frame] : 0;
}

static inline unsigned slot_pages(const struct window *w)
{
    return 1u << (w->shift - PAGE_SHIFT);
}

static inline bool window_wide(const struct window *w)
{
    return w->shift == 21;
}

/* ---- ram.c ---- */

int ram_init(struct mmu *m, uint64_t size, struct err *err);
void ram_fini(struct mmu *m);
/* Reports that a page with PAGE_CODE is about to be written; clears the flag first. */
void ram_code_written(struct mmu *m, uint64_t frame, uint32_t offset, uint32_t size);
/* I/O by way of mmu_io, any size, with the FPU parked. */
void ram_io_read(struct mmu *m, uint64_t gpa, void *to, uint32_t size);
void ram_io_write(struct mmu *m, uint64_t gpa, const void *from, uint32_t size);

/* ---- pool.c ---- */

int pool_init(struct pool *p, uint32_t item, uint32_t limit);
void pool_fini(struct pool *p);
/* Index of a free item, or -1. Its contents are undefined. */
int64_t pool_take(struct pool *p);
void pool_give(struct pool *p, uint32_t index);

static inline void *pool_at(const struct pool *p, uint32_t index)
{
    return p->base + (size_t)index * p->item;
}

/* ---- walk.c ---- */

struct entry_format walk_format(const struct vcpu *v);
/* The directory entry of `slot` under the current CR3 (PDPTEs), 0 where the tables are not in RAM.
 */
uint64_t walk_directory_entry(const struct vcpu *v, unsigned slot);

/* ---- arena.c ---- */

/* The start of a free stride, or 0. */
uint64_t arena_claim(void);
void arena_release(uint64_t base);

/* ---- host.c: system calls on windows; what they cannot do in part they do in whole ---- */

/* False if the kernel refused; nothing changed then. */
bool host_map(struct window *w, uint32_t page, uint32_t count, uint64_t frame, bool writable,
              uint32_t touched);
/* Never fail. Where the kernel refuses, everything mapped in the window goes (window_unmap_all). */
void host_unmap(struct window *w, uint32_t page, uint32_t count);
void host_protect(struct window *w, uint32_t page, uint32_t count, bool writable);
void host_unmap_window(struct window *w);

/* ---- snapshot.c ---- */

/* Changes to a window's mappings, gathered into few system calls: pages come in ascending order. */
struct batch {
    struct window *w;
    uint32_t drop_first, drop_end;
    uint32_t protect_first, protect_end;
};

void batch_flush(struct batch *b);

enum verdict { ENTRY_KEEP, ENTRY_READ_ONLY, ENTRY_DROP };
/* What becomes of a mapping made from `old` when its entry has become `now`. */
enum verdict snapshot_judge(uint64_t old, uint64_t now);
/* The slot for what `t` says of `gva`, made if need be; NULL when records have run out. */
struct slot *snapshot_slot(struct window *w, uint32_t gva, const struct translation *t);
/* Forgets page `i` of slot `s`, but leaves unmapping to the caller. */
void snapshot_forget(struct window *w, unsigned s, unsigned i);
/* Drops one slot with its record. */
void snapshot_drop_slot(struct batch *b, unsigned s);
/* Compares all that the window holds with the tables of the current CR3, and drops what differs. */
void snapshot_revalidate(struct vcpu *v, struct window *w);
/* The same for one address. True if anything was tracked there. */
bool snapshot_revalidate_page(struct vcpu *v, struct window *w, uint32_t gva);
/* True if `page` of `w` maps `frame` writable by way of a table. */
bool snapshot_maps_writable(const struct window *w, uint32_t page, uint32_t frame);
/* Counts the runs of pages that the kernel holds as one VMA each. */
unsigned snapshot_count_runs(const struct window *w);

/* ---- rmap.c ---- */

int rmap_init(struct mmu *m);
void rmap_fini(struct mmu *m);
/* True if `count` calls of rmap_add will find memory. */
bool rmap_reserve(struct mmu *m, uint32_t count);
/* `page` of `w` has become a writable mapping of `frame`. */
void rmap_add(struct mmu *m, uint32_t frame, const struct window *w, uint32_t page);
/* Makes all writable mappings of `frame` that were made by way of tables read-only. */
void rmap_protect(struct mmu *m, uint32_t frame);

/* ---- window.c ---- */

/* Unmaps everything, keeps the records of code. */
void window_unmap_all(struct window *w);
/* Unmaps and forgets everything, reporting code. */
void window_clear(struct window *w);
void window_destroy(struct window *w);
/* Flushes (SDM 3A 4.10). */
void window_paging_changed(struct vcpu *v);
void window_invlpg(struct vcpu *v, uint32_t gva);
/* Keeps mmu.vmas under the budget; may unmap windows, `w` last. */
void window_check_budget(struct mmu *m, struct window *w);
/* After the kernel or a pool refused: gives something up, `w` last. False when nothing is left. */
bool window_relieve(struct mmu *m, struct window *w);

/* ---- access.c ---- */

extern const struct vcpu_mem access_mem;

#endif
