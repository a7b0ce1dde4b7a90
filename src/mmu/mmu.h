/*
 * Guest memory: RAM and the physical address map, the page walk, and the windows that serve as the
 * TLB.
 *
 * A window is 4 GiB of host addresses, 4-GiB aligned, at the bottom of an 8-GiB stride whose other
 * half stays unmapped; it stands for a guest linear address space. It is a TLB and obeys TLB rules:
 * it may be stale until the guest executes MOV CR3, INVLPG or changes CR0 or CR4 (docs/memory.md).
 *
 *  - WINDOW_USER: one per CR3; holds only pages with U=1; used at CPL 3, and by supervisor sites
 *    that have learned that they touch user pages.
 *  - WINDOW_SUPER: one; holds only pages with U=0; used at CPL 0-2. At MOV CR3 it is revalidated
 *    against the new directory, so that what address spaces share stays warm.
 *  - WINDOW_FLAT: one; paging off.
 *
 * Invariants:
 *  - Nothing but guest RAM and ROM is ever mapped inside a window's stride.
 *  - What a window maps has its A bits set, and its D bit where it is mapped writable.
 *  - A guest-physical page that holds translated code (page flag RAM_CODE) is writable in no
 *    window.
 *  - A drop never fails silently: where munmap of a part fails, the whole enclosing run goes.
 *
 * Built with -mgeneral-regs-only; callbacks into C that uses the FPU park it first.
 */
#ifndef MMU_MMU_H
#define MMU_MMU_H

#include "base/base.h"
#include "base/err.h"
#include "cpu/state.h"

struct mmu;
struct window;

enum window_kind { WINDOW_FLAT, WINDOW_SUPER, WINDOW_USER };

/* What dbt wants to know. All three are called in normal context, never from a signal handler. The
   last two come in the midst of changes: of mmu's functions they may call mmu_unprotect_code only.
 */
struct mmu_listener {
    /* Guest-physical page `page` (gpa >> 12), which holds translations, is about to be written at
       [offset, offset+size) of it (size 0: unknown). When this returns, the page is made writable
       unless mmu_protect_code was called for it again meanwhile. */
    void (*code_written)(void *opaque, uint32_t page, uint32_t offset, uint32_t size);
    /* Linear pages [first, first+count) (gva >> 12) of `w`, from which code was fetched
       (mmu_fetch_page), no longer map to what they did. */
    void (*code_unmapped)(void *opaque, struct window *w, uint32_t first, uint32_t count);
    /* `w` is emptied to be used for another address space, or for good. */
    void (*window_recycled)(void *opaque, struct window *w);
    void *opaque;
};

/* Physical addresses that are neither RAM nor ROM. Sizes 1, 2, 4; called with the FPU parked. */
struct mmu_io {
    uint32_t (*read)(void *opaque, uint32_t gpa, unsigned size);
    void (*write)(void *opaque, uint32_t gpa, unsigned size, uint32_t value);
    void *opaque;
};

struct mmu_counters {
    uint64_t hidden_faults, guest_faults, pages_mapped, runs_mapped, pages_dropped, windows_made,
        windows_recycled, tables_compared, code_write_faults, invlpg_hits, invlpg_misses, emulated,
        map_failures;
};

/*
 * Creates RAM of `ram_size` bytes (a multiple of 4 KiB, at most 3.5 GiB): [0, 640K) and [1M,
 * ram_size) are RAM, [640K, 768K) is I/O, [768K, 1M) is ROM once mmu_set_rom is called and RAM
 * before. The window arena (0x3000_0000_0000 to 0x5000_0000_0000) is shared by all mmus of the
 * process: strides are claimed one by one with MAP_FIXED_NOREPLACE. `vma_budget` 0 means
 * vm.max_map_count less 4096; tests pass less.
 */
struct mmu *mmu_create(uint64_t ram_size, unsigned vma_budget, struct err *err);
/* The listener hears nothing of it. */
void mmu_destroy(struct mmu *m);
void mmu_set_listener(struct mmu *m, const struct mmu_listener *listener);
void mmu_set_io(struct mmu *m, const struct mmu_io *io);
const struct mmu_counters *mmu_counters(const struct mmu *m);
/* Connects v->mem and v->mmu. One vCPU per mmu. */
void mmu_attach(struct mmu *m, struct vcpu *v);

/* ---- physical memory: ram.c ---- */

uint64_t mmu_ram_size(const struct mmu *m);
/* The host's view of RAM: gpa p is at mmu_ram(m) + p wherever p is RAM or ROM. To be read only;
   writes go through mmu_phys_write. */
const uint8_t *mmu_ram(const struct mmu *m);
/* True if all of [gpa, gpa+size) is RAM (or ROM, which reads as RAM). */
bool mmu_is_ram(const struct mmu *m, uint64_t gpa, uint64_t size);
bool mmu_is_rom(const struct mmu *m, uint64_t gpa);
void mmu_set_rom(struct mmu *m, uint32_t gpa, uint32_t size);
/* Reads and writes physical memory, as devices and loaders do: reports code pages; parts that are
   not RAM read as FFh and ignore writes. ROM is writable for loaders only (mmu_load). */
void mmu_phys_read(struct mmu *m, uint32_t gpa, void *to, uint32_t size);
void mmu_phys_write(struct mmu *m, uint32_t gpa, const void *from, uint32_t size);
void mmu_load(struct mmu *m, uint32_t gpa, const void *from, uint32_t size);

/* ---- the page walk: walk.c (SDM 3A 4.3-4.7) ---- */

struct translation {
    uint32_t gva;
    uint64_t gpa;       /* of gva, offset included */
    uint32_t page_size; /* 4K, 2M, 4M */
    bool user, write;   /* combined rights */
    bool no_execute, global;
    bool dirty;
    uint32_t entry_gpa; /* of the last entry walked: PTE or large PDE */
    uint64_t entry;     /* as it is after A and D were set */
    uint64_t pde;       /* the directory entry likewise: the same as `entry` for a large page */
    bool in_ram;        /* all entries walked lie in RAM or ROM: a window may hold the page */
};

/*
 * Walks the guest's tables for one access: `access` is a set of enum access (cpu/emulate.h), `user`
 * the rights it is made with. Sets A, and D for a write, by compare-and-exchange, as a CPU does.
 * With paging off: identity. FAULT with v->exc = #PF, error code and cr2 filled in.
 */
int walk(struct vcpu *v, uint32_t gva, unsigned access, bool user, struct translation *out);

/* ---- windows: window.c ---- */

/* Host address of the window's start: what GS base is set to. */
uint64_t window_base(const struct window *w);
enum window_kind window_kind(const struct window *w);
/* For dbt's contexts: whatever it hangs on a window. */
void window_set_private(struct window *w, void *data);
void *window_private(const struct window *w);

/*
 * The window for code at v->cpl under the current CR0 and CR3 (FLAT, SUPER or USER), making it if
 * need be. NULL only if the host has no address space left even after recycling every other window.
 */
struct window *mmu_window(struct vcpu *v);
/* The user window of the current CR3, for supervisor accesses to user pages; FLAT when paging is
 * off. */
struct window *mmu_user_window(struct vcpu *v);

enum mmu_fault {
    MMU_MAPPED,     /* mapped now: retry the access */
    MMU_GUEST,      /* the guest's page fault: v->exc is set */
    MMU_USER_PAGE,  /* a supervisor access through the super window to a U=1 page */
    MMU_SUPER_PAGE, /* a supervisor access through the user window to a U=0 page */
    MMU_EMULATE,    /* cannot be mapped for this access: I/O, a write to ROM, tables in I/O, a write
                       that    only CR0.WP = 0 allows, a write to a page that code_written has
                       protected    again:    execute it by way of v->mem */
};

/*
 * Handles a host fault at `gva` of window `w`: one byte of an access; rights are those of v->cpl
 * (user if 3). Maps the page or the run around it. A write to a RAM_CODE page calls code_written
 * first.
 */
enum mmu_fault mmu_fault(struct vcpu *v, struct window *w, uint32_t gva, bool write);

/*
 * For the translator: walks `gva` as an instruction fetch with v->cpl's rights and registers its
 * PTE in `w` (code_unmapped will tell when it changes). `*page` is the guest-physical page number.
 * FAULT with #PF; EMULATE_UNKNOWN (1) if the page is not RAM or ROM: not to be kept as a
 * translation. Registration is skipped (and `*registered` false) where `w` does not hold such
 * pages: a user page executed by the supervisor. Then the result is good for one execution only.
 */
int mmu_fetch_page(struct vcpu *v, struct window *w, uint32_t gva, uint32_t *page,
                   bool *registered);

/* The page now holds translated code: takes write permission away in every window. */
void mmu_protect_code(struct mmu *m, uint32_t page);
/* It no longer does; write permission comes back at the next write fault. */
void mmu_unprotect_code(struct mmu *m, uint32_t page);
/* Host pointer to the page's bytes. */
const uint8_t *mmu_page_bytes(const struct mmu *m, uint32_t page);

/* ---- memory access from C: access.c. The functions of struct vcpu_mem, with a small lookaside of
   recent walks that obeys the same TLB rules; I/O goes to mmu_io with the FPU parked. ---- */

#endif
