/*
 * The engine's inner structures, shared by the files of dbt/ only.
 *
 * The road of a block: run_miss or run_chain (run.c) -> block_find (block.c) -> translate
 * (translate.c)
 * -> emit, cache -> host code. The way back: a stub (stubs.S) or the signal handler (fault.c).
 */
#ifndef DBT_ENGINE_H
#define DBT_ENGINE_H

#include "cpu/cpuid.h"
#include "cpu/decode.h"
#include "cpu/emulate.h"
#include "cpu/state.h"
#include "dbt/dbt.h"
#include "dbt/layout.h"
#include "mmu/mmu.h"

/*
 * The mode key: all that translated code takes for granted besides its bytes and their address. A
 * change of any of it is a change of context.
 */
enum key {
    KEY_CPL = 3,
    KEY_CODE32 = 1u << 2,  /* CS.D */
    KEY_STACK32 = 1u << 3, /* SS.B */
    KEY_DS_FLAT = 1u << 4, /* base 0, limit 4G, writable */
    KEY_ES_FLAT = 1u << 5,
    KEY_SS_FLAT = 1u << 6,
    KEY_CS_FLAT = 1u << 7, /* limit 4G: fetches need no check; the base is part of the context */
    KEY_PROTECTED = 1u << 8,
    KEY_V86 = 1u << 9,
    KEY_X87_NM = 1u << 10,  /* CR0.EM or TS: x87 raises #NM */
    KEY_SIMD_UD = 1u << 11, /* CR0.EM or CR4.OSFXSR = 0: SSE raises #UD; EM: MMX too */
    KEY_SIMD_NM = 1u << 12, /* CR0.TS */
    KEY_WAIT_NM = 1u << 13, /* CR0.MP and TS */
    KEY_MMX_UD = 1u << 14,  /* CR0.EM */
    KEY_AVX = 1u << 15,     /* CR4.OSXSAVE and XCR0.AVX */
    KEY_LONG = 1u << 17,    /* reserved for 64-bit guests */
    KEY_PAGED = 1u << 18,
};

enum stub { STUB_CALLOUT, STUB_CHAIN, STUB_MISS, STUB_INDIRECT, STUB_COUNT };

/* What assembly and translated code see, at OFF_JIT. */
struct jit {
    uint64_t c_sp, ring_sp, r14, base, ubase;
    uint64_t frame[16], frame_rip, frame_flags;
    uint64_t single_sp;
    const void *stub[STUB_COUNT];
    /* For a segment that is not flat: an access at offset o of n bytes is within the limit and
       allowed iff the byte at probe + o + n - 1 can be read. */
    uint64_t probe_read[SEG_COUNT], probe_write[SEG_COUNT];
};

struct block;

/* A way out of a block to an address known when it was translated. */
struct exit_link {
    struct block *from, *to; /* to: while patched */
    struct exit_link *next;  /* in to->incoming */
    uint32_t eip;
    uint32_t patch, stub; /* offsets in from's code: the rel32, and the code that asks run_chain */
    bool stale;           /* not an exit: the source bytes of `from` have changed */
};

enum { TRAP_KICK = -1 };

enum site_kind { SITE_MEM, SITE_POLL, SITE_PROBE };

enum { OPERAND_BOTH = 2 };

/* A host instruction that may fault: what it belongs to, and how to undo what its template did
 * before. */
struct fault_site {
    uint32_t host;    /* offset in the block's code */
    uint16_t guest;   /* offset of the guest instruction from block.eip */
    int16_t esp;      /* guest ESP = r12 + esp at the start of the instruction */
    uint8_t kind;     /* enum site_kind */
    uint8_t operand;  /* 0: ModRM operand or string source; 1: stack or string
                         destination; OPERAND_BOTH: of a string instruction that has both */
    uint8_t borrowed; /* a guest register whose value is in scratch R_SEG, or H_NONE */
};

struct block {
    uint32_t eip, cs_base, cs_limit, key;
    uint32_t gpa;
    uint32_t page2; /* guest-physical page of the part behind the page end, or NO_PAGE */
    uint16_t len, insns;
    bool dead;
    uint8_t exit_count;
    uint16_t site_count;
    uint32_t direct; /* offset of the entry for chained jumps; the tag check is at 0 */
    uint32_t pad;    /* offset of the landing pad behind a CALL, or 0 */
    uint32_t code_len;
    uint8_t *code; /* executable address */
    struct block *hash_next, *lin_next[2];
    struct exit_link *incoming, *exits;
    struct fault_site *sites;
    uint16_t *starts; /* where each instruction's host code begins; only while out_asm is on */
};

enum { NO_PAGE = 0xFFFFFFFF };

/* What a callout is told. */
struct callout {
    struct insn in;
    bool last; /* no other instruction follows in the block */
};

struct page_ref {
    struct block *block;
    struct page_ref *next;
};

/*
 * A context is a window seen through one mode key: jump cache and return ring, which hold addresses
 * that are only good there.
 */
struct context {
    struct window *window; /* borrowed; NULL: free */
    uint32_t key, cs_base, cs_limit;
    bool stale;                 /* jump cache and ring are to be emptied before they are used */
    bool user_code;             /* of the supervisor: it holds code of user_window's pages */
    struct window *user_window; /* borrowed; the user window that went with it last */
    struct context *next;       /* of the same window */
    const void **jump_cache;
    uint64_t *ring;
    uint64_t ring_sp;
};

enum {
    CONTEXT_COUNT = 160,
    RING_ENTRIES = 1024,
    HASH_BITS = 18,
    LIN_BITS = 12,
    SITE_BITS = 14,
    BLOCK_MAX_INSNS = 64,
    PHYSICAL_PAGES = 1 << 20,
    SINGLE_CODE_SIZE = 256,
    CACHE_LEAST = 128 << 10,
};

/* What a supervisor access has learned (design: adaptive sites), by guest-physical address. */
struct learned_site {
    uint32_t gpa;
    uint8_t user;  /* bit n: operand n is in the user window */
    uint8_t mixed; /* bit n: operand n was met in both */
    uint8_t flips;
};

/* How a page with code fares that is written again and again (block.c). */
struct code_writes {
    uint32_t last; /* host TSC >> CODE_WRITE_SHIFT */
    uint8_t count;
    uint8_t backoff; /* log2 of how long it stays checked, in units of `last` */
    bool checked;    /* its translations check their source bytes, and it is not write-protected */
};

enum { CODE_WRITE_SHIFT = 26, CODE_WRITE_LIMIT = 16, CODE_BACKOFF_MAX = 12, CHECKED_PAGES = 256 };

enum { VERIFY_STORES = 512, VERIFY_FPU = 1024 };

struct verify_state {
    uint64_t regs[8], rip, host_flags;
    uint32_t sys_flags;
    uint8_t shadow;
    uint8_t fpu[VERIFY_FPU];
};

struct verify_store {
    uint32_t gpa, size;
    uint8_t before[64], after[64];
};

/* What single steps of the block that is running now have given (verify.c). */
struct verify {
    bool active, abandoned, faulted;
    struct exception exc;
    struct verify_state expected;
    struct block block;
    const struct vcpu_mem *real; /* borrowed */
    unsigned count;
    struct verify_store store[VERIFY_STORES];
};

/* For how long what a fetch has found stays good: until the mmu says otherwise of the page in the
   current window (OWN), of the supervisor's in its user window (BY_USER: code on U=1 pages at CPL
   0-2), or for one execution (ONCE: its page tables are not in RAM). */
enum fetch_scope { FETCH_ONCE, FETCH_BY_USER, FETCH_OWN };

struct cache {
    uint8_t *rw, *rx;
    uint32_t size, used;
    uint8_t *meta; /* arena of blocks and their parts */
    uint32_t meta_size, meta_used;
    struct block **blocks; /* in order of code address */
    uint32_t block_count, block_max;
};

struct dbt {
    union {
        struct vcpu cpu;
        uint8_t room[OFF_JIT];
    };
    struct jit jit;

    struct mmu *mmu; /* borrowed */
    struct context *context;
    struct window *window, *user_window; /* of the current context */
    struct dbt_options options;
    bool bmi2, fsgsbase;
    enum fetch_scope fetched; /* of the block found or translated last */
    bool diverged;            /* verify_end found a difference */
    bool runs_into_io;        /* the last translation met an instruction that ends in I/O memory */
    enum dbt_stop stopped;
    uint32_t drops; /* changes whenever a block is dropped */

    struct { /* the fault that brought run_fault in; trap: the host's vector, or TRAP_KICK */
        int trap;
        uint32_t error;
        uint64_t address;
    } fault;

    struct cache cache;
    struct block *hash[1 << HASH_BITS];
    struct block *by_lin[1 << LIN_BITS];
    struct code_writes *code_writes; /* likewise */
    uint32_t checked[CHECKED_PAGES]; /* the pages that are */
    unsigned checked_count;
    struct page_ref **pages; /* by guest-physical page, of which there are PHYSICAL_PAGES */
    struct learned_site learned[1 << SITE_BITS];

    struct context contexts[CONTEXT_COUNT];
    unsigned context_next; /* round robin, when all are taken */
    uint8_t *context_area;
    const void **all_miss; /* a jump cache of misses, followed by a page that faults: the poll */

    uint8_t *probe_area;
    uint64_t probe_end;

    struct verify verify;

    struct {
#define STAT(name, text) uint64_t name;
#include "dbt/stats.def"
#undef STAT
    } stats;
    uint64_t callouts_by_op[OP_COUNT];
};

_Static_assert(offsetof(struct dbt, cpu.regs) == OFF_REGS, "layout.h");
_Static_assert(offsetof(struct dbt, cpu.rip) == OFF_RIP, "layout.h");
_Static_assert(offsetof(struct dbt, cpu.host_flags) == OFF_HOST_FLAGS, "layout.h");
_Static_assert(sizeof(struct vcpu) <= OFF_JIT, "layout.h");
_Static_assert(offsetof(struct dbt, jit) == OFF_JIT, "layout.h");
_Static_assert(offsetof(struct dbt, jit.ring_sp) == OFF_RING_SP, "layout.h");
_Static_assert(offsetof(struct dbt, jit.r14) == OFF_R14, "layout.h");
_Static_assert(offsetof(struct dbt, jit.base) == OFF_BASE, "layout.h");
_Static_assert(offsetof(struct dbt, jit.ubase) == OFF_UBASE, "layout.h");
_Static_assert(offsetof(struct dbt, jit.frame) == OFF_FRAME, "layout.h");
_Static_assert(offsetof(struct dbt, jit.frame_rip) == OFF_FRAME_RIP, "layout.h");
_Static_assert(offsetof(struct dbt, jit.frame_flags) == OFF_FRAME_FL, "layout.h");
_Static_assert(offsetof(struct dbt, jit.single_sp) == OFF_SINGLE_SP, "layout.h");
_Static_assert(offsetof(struct dbt, jit.stub) == OFF_STUBS, "layout.h");

static inline struct learned_site *learned_site_at(struct dbt *d, uint32_t gpa)
{
    return &d->learned[(gpa * 0x9E3779B1u) >> (32 - SITE_BITS)];
}

/* ---- stubs.S ---- */
extern const uint8_t stubs_begin[], stubs_end[];
void stub_enter(struct dbt *d);
int stub_run_single(struct dbt *d, const void *code);
void stub_callout(void);
void stub_chain(void);
void stub_miss(void);
void stub_fault(void);
void stub_leave(void);
void stub_retry(void);
void stub_indirect_bmi2(void);
void stub_indirect_plain(void);
void stub_single_fault(void);

/* ---- cache.c: memory of host code and of what describes it ---- */
int cache_init(struct cache *c, uint32_t size, struct err *err);
void cache_fini(struct cache *c);
/* `bytes` of metadata, 8-byte aligned and zeroed; NULL when the arena is full. */
void *cache_meta(struct cache *c, uint32_t bytes);
void cache_empty(struct cache *c);
/* The block whose code contains host address `pc`, dead or not; NULL if none. */
struct block *cache_block_at(const struct cache *c, uint64_t pc);
static inline uint8_t *cache_writable(const struct cache *c, const uint8_t *code)
{
    return c->rw + (code - c->rx);
}

/* ---- block.c: finding, linking and dropping blocks ---- */
struct block *block_find(struct dbt *d, uint32_t eip, uint32_t page, uint32_t key);
void block_insert(struct dbt *d, struct block *b);
/* Patches `link` to lead to `to`. */
void block_link(struct dbt *d, struct exit_link *link, struct block *to);
void block_drop(struct dbt *d, struct block *b);
void block_drop_all(struct dbt *d);
/* Whether translations of the page are to check their own source bytes. */
static inline bool block_page_is_checked(const struct dbt *d, uint32_t page)
{
    return d->code_writes[page].checked;
}
/* Gives pages that have been checked for a while their protection back: innocent until proven
 * guilty. */
void block_expire_checked(struct dbt *d);
/* The listener of the mmu. */
void block_code_written(void *opaque, uint32_t page, uint32_t offset, uint32_t size);
void block_code_unmapped(void *opaque, struct window *w, uint32_t first, uint32_t count);
void block_window_recycled(void *opaque, struct window *w);

/* ---- context.c: windows, jump caches, rings ---- */
int context_init(struct dbt *d, struct err *err);
void context_fini(struct dbt *d);
/* Chooses the context for the vCPU's state, after vcpu_mode_changed. Returns 0, or -1 if the host
   has no address space for a window. */
int context_update(struct dbt *d);
/* Walks `gva` as an instruction fetch and registers it with the mmu. *page is guest-physical;
   d->fetched falls to the scope of the result. 0, FAULT with v->exc set, or 1 if it is not in RAM
   or ROM. */
int context_fetch(struct dbt *d, uint32_t gva, uint32_t *page);
/* Sets r14 to the context's jump cache, or to the all-miss table if a kick came meanwhile. */
void context_arm(struct dbt *d);
void context_reset_ring(struct dbt *d, struct context *c);
void context_flush(struct context *c, const struct dbt *d);
uint32_t context_key(const struct vcpu *v);

/* ---- translate.c ---- */
/* Translates the block at v->rip in the current context. NULL with v->exc set if the first
   instruction cannot even be fetched. When cache or arena are full, empties them and starts again.
 */
struct block *translate(struct dbt *d, uint32_t eip, uint32_t page, uint32_t key);
/* Host code of `in` with its memory operand at vcpu.bounce + offset, followed by RET; NULL if `in`
   is not of the kind that is copied. */
const void *translate_single(struct dbt *d, const struct insn *in, int32_t offset);

/* BT and kin with a register as bit offset, which reaches beyond the operand (SDM 2A, BT). */
static inline bool translate_has_bit_offset(const struct insn *in)
{
    return (in->op == OP_BT || in->op == OP_BTS || in->op == OP_BTR || in->op == OP_BTC) &&
           in->row->operand[1].kind == K_G;
}
/* AVX moves of which a mask decides what is accessed at all. */
static inline bool translate_is_masked(const struct insn *in)
{
    return in->op == OP_VMASKMOVPS || in->op == OP_VMASKMOVPD || in->op == OP_VPMASKMOVD ||
           in->op == OP_VPMASKMOVQ;
}
/* Whether an op is translated by a template of its own, neither copied nor executed in C. */
bool translate_has_template(unsigned op);
/* Applies the features that `model` hides: in->row becomes what the same bytes mean without them,
   or NULL for #UD. */
void translate_narrow(struct insn *in, const struct cpu_model *model);

/* ---- verify.c ---- */
/* Executes the instructions of `b`, at v->rip, one at a time, notes the result and undoes it.
   Returns the host address to run the block at, or NULL if it was dropped meanwhile. */
const void *verify_block(struct dbt *d, struct block *b);
/* The block has ended, with the vCPU's state and, if `faulted`, v->exc: false if that differs,
   which has been logged. */
bool verify_end(struct dbt *d, bool faulted);
/* Whether an instruction may stand in a block that is verified. */
bool verify_checks(const struct insn *in);

/* ---- single.c ---- */
/* Executes `in`, at v->rip, whatever it is, without translated blocks. Returns 0 or FAULT. */
int single_step(struct dbt *d, const struct insn *in);
/* Fills v->exc with what a host trap means to the guest. Returns FAULT. */
int single_raise_host(struct vcpu *v, int trap);
/* Fetches and decodes the instruction at v->rip. Returns 0 or FAULT. `in->row` is NULL for #UD. */
int single_fetch(struct dbt *d, struct insn *in);

/* ---- run.c: C called from the stubs ---- */
const void *run_dispatch(struct dbt *d);
const void *run_miss(struct dbt *d);
const void *run_chain(struct dbt *d, struct exit_link *link);
const void *run_callout(struct dbt *d, const struct callout *call);
const void *run_fault(struct dbt *d);
/* After an instruction was executed in C: goes to where rip leads. */
const void *run_continue(struct dbt *d);

/* ---- fault.c ---- */
int fault_install(struct err *err);
/* Makes `d` the engine of this thread, with an alternate signal stack. */
int fault_attach(struct dbt *d, struct err *err);
/* If it is `d`, this thread has no engine any more. */
void fault_detach(const struct dbt *d);

#endif
