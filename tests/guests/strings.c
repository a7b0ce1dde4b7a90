/*
 * MOVS STOS LODS CMPS SCAS in all sizes, with and without REP and REPNE, up and down, with 16- and
 * 32-bit addresses, across pages, onto themselves, and with a page missing in the middle: each
 * compared with a model that goes element by element. A fault must show exactly the elements before
 * it as done, and the instruction must go on from there.
 */
#include "check.h"
#include "paging.h"

enum { BASE = 0x40000000, PAGES = 8, BYTES = PAGES * 4096, CASES = 60 };
enum op { MOVS, STOS, LODS, CMPS, SCAS, OPS };
enum form { ONCE, REP, REPNE, FORMS };

/* [op][form][log2 size][address size 16], 8 bytes each: prefixes, opcode, INT VECTOR_END. */
__asm__(".pushsection .user.text, \"ax\"\n"
        ".balign 64\n"
        ".globl string_code\n"
        "string_code:\n"
        ".irp op, 0xA4, 0xAA, 0xAC, 0xA6, 0xAE\n"
        ".irp prefix, 0, 0xF3, 0xF2\n"
        ".irp size, 0, 1, 2\n"
        ".irp address, 0, 1\n"
        ".balign 8\n"
        ".if \\address\n.byte 0x67\n.endif\n"
        ".if \\size == 1\n.byte 0x66\n.endif\n"
        ".if \\prefix\n.byte \\prefix\n.endif\n"
        ".if \\size\n.byte \\op + 1\n.else\n.byte \\op\n.endif\n"
        "int $0x30\n"
        ".endr\n.endr\n.endr\n.endr\n"
        ".popsection");
extern const char string_code[];

static uint8_t frames[BYTES] __attribute__((aligned(4096)));
static uint8_t shadow[65536];

struct model {
    enum op op;
    enum form form;
    unsigned size;
    bool small; /* 16-bit addresses: offsets are in the first 64 KiB of memory */
    uint32_t esi, edi, ecx, eax, flags;
    uint32_t base;   /* linear address of shadow[0] */
    uint32_t absent; /* a page that is missing, or 0 */
    uint32_t cr2, error;
};

static uint32_t random_state = 0x2545F491;

static uint32_t pick(uint32_t below)
{
    random_state = random_state * 1664525 + 1013904223;
    return (random_state >> 8) % below;
}

static uint32_t load(const struct model *m, uint32_t address)
{
    uint32_t value = 0;

    memcpy(&value, shadow + (address - m->base), m->size);
    return value;
}

static bool hits(struct model *m, uint32_t address, bool write)
{
    uint32_t last = address + m->size - 1;

    if (!m->absent || (address >> 12 != m->absent >> 12 && last >> 12 != m->absent >> 12))
        return false;
    m->cr2 = address >> 12 == m->absent >> 12 ? address : last & ~0xFFFu;
    m->error = write ? PF_W : 0;
    return true;
}

static uint32_t compare_flags(uint32_t a, uint32_t b, unsigned size)
{
    uint32_t mask = size == 4 ? ~0u : (1u << 8 * size) - 1, top = 1u << (8 * size - 1);
    uint32_t d = (a - b) & mask, parity = d & 0xFF;

    parity ^= parity >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    return (a < b ? FLAG_CF : 0) | (parity & 1 ? 0 : FLAG_PF) | ((a ^ b ^ d) & 0x10 ? FLAG_AF : 0) |
           (d == 0 ? FLAG_ZF : 0) | (d & top ? FLAG_SF : 0) |
           ((a ^ b) & (a ^ d) & top ? FLAG_OF : 0);
}

static void move_index(const struct model *m, uint32_t *index)
{
    uint32_t next = *index + (m->flags & FLAG_DF ? -m->size : m->size);
    *index = m->small ? (*index & 0xFFFF0000) | (next & 0xFFFF) : next;
}

/* One element; false for a fault. */
static bool step(struct model *m)
{
    uint32_t mask = m->size == 4 ? ~0u : (1u << 8 * m->size) - 1;
    uint32_t from = m->small ? m->esi & 0xFFFF : m->esi, to = m->small ? m->edi & 0xFFFF : m->edi;
    bool source = m->op == MOVS || m->op == LODS || m->op == CMPS;
    bool writes = m->op == MOVS || m->op == STOS;

    if (source && hits(m, from, false))
        return false;
    if (m->op != LODS && hits(m, to, writes))
        return false;
    if (writes) {
        uint32_t value = m->op == MOVS ? load(m, from) : m->eax;
        memcpy(shadow + (to - m->base), &value, m->size);
    } else if (m->op == LODS) {
        m->eax = (m->eax & ~mask) | load(m, from);
    } else {
        uint32_t a = m->op == CMPS ? load(m, from) : m->eax & mask;
        m->flags = (m->flags & ~(uint32_t)FLAGS_ARITH) | compare_flags(a, load(m, to), m->size);
    }
    if (source)
        move_index(m, &m->esi);
    if (m->op != LODS)
        move_index(m, &m->edi);
    return true;
}

static bool model_run(struct model *m)
{
    if (m->form == ONCE)
        return step(m);
    for (;;) {
        if (!(m->small ? m->ecx & 0xFFFF : m->ecx))
            return true;
        if (!step(m))
            return false;
        m->ecx = m->small ? (m->ecx & 0xFFFF0000) | ((m->ecx - 1) & 0xFFFF) : m->ecx - 1;
        if (m->op >= CMPS && !!(m->flags & FLAG_ZF) != (m->form == REP))
            return true;
    }
}

static const char *code_of(const struct model *m)
{
    unsigned log = m->size == 4 ? 2 : m->size / 2;
    return string_code + 8 * (((m->op * FORMS + m->form) * 3 + log) * 2 + m->small);
}

static void compare(const struct model *m, const struct cpu_state *s, const uint8_t *memory,
                    const char *when)
{
    check(s->esi == m->esi && s->edi == m->edi && s->ecx == m->ecx && s->eax == m->eax,
          "op %u form %u size %u%s %s: esi %x/%x edi %x/%x ecx %x/%x eax %x/%x", m->op, m->form,
          m->size, m->small ? " (16)" : "", when, s->esi, m->esi, s->edi, m->edi, s->ecx, m->ecx,
          s->eax, m->eax);
    check_equal(s->eflags & (FLAGS_ARITH | FLAG_DF), m->flags & (FLAGS_ARITH | FLAG_DF),
                "op %u form %u size %u %s: flags", m->op, m->form, m->size, when);
    check(!memcmp(shadow, memory, m->small ? sizeof(shadow) : BYTES),
          "op %u form %u size %u %s: memory", m->op, m->form, m->size, when);
}

static void start(struct cpu_state *s, const struct model *m, unsigned ring)
{
    cpu_start(s, code_of(m), ring);
    s->esi = m->esi;
    s->edi = m->edi;
    s->ecx = m->ecx;
    s->eax = m->eax;
    s->eflags = m->flags | FLAG_ONE;
}

static void choose(struct model *m)
{
    static const uint16_t counts[] = {0, 1, 2, 3, 7, 16, 63, 250, 1000};

    m->op = pick(OPS);
    m->form = pick(FORMS);
    m->size = 1u << pick(3);
    m->ecx = counts[pick(ARRAY_LEN(counts))];
    m->eax = pick(2) ? 0x61616161 : random_state;
    m->flags = (pick(2) ? FLAG_DF : 0) | (random_state & FLAGS_ARITH);
    m->absent = 0;
    bool down = m->flags & FLAG_DF;
    /* Sources in the lower half, destinations in the upper; 1000 dwords fit in front or behind. */
    uint32_t from = (down ? 2 : 1) * 4096 + pick(4096), to = (down ? 6 : 5) * 4096 + pick(4096);
    if (pick(3) == 0) {
        from &= ~3u;
        to &= ~3u;
    }
    m->esi = m->base + from;
    m->edi = m->base + to;
    for (unsigned i = 0; i < 200; i++) {
        uint32_t value = pick(4) ? 0x61616161 : random_state;
        memcpy(shadow + pick(BYTES - 4), &value, 4);
    }
}

static void check_plain(unsigned ring)
{
    struct model m = {.base = BASE};
    struct cpu_state s;

    choose(&m);
    /* Some onto themselves, at a short distance. */
    if (pick(4) == 0)
        m.edi = m.esi + pick(40) - 20;
    memcpy(frames, shadow, BYTES);
    start(&s, &m, ring);
    run_to_end(&s, "string");
    model_run(&m);
    compare(&m, &s, frames, "plain");
}

static struct model faulty;
static uint32_t flags_before;
static unsigned faults;

static bool page_fault(struct cpu_state *s)
{
    faults++;
    /* CMPS and SCAS may show the flags of before the instruction (SDM 2B, REP). */
    struct cpu_state shown = *s;
    if (faulty.op >= CMPS && ((s->eflags ^ flags_before) & FLAGS_ARITH) == 0)
        shown.eflags = faulty.flags;
    compare(&faulty, &shown, frames, "at the fault");
    check_equal(s->cr2, faulty.cr2, "op %u form %u size %u: cr2", faulty.op, faulty.form,
                faulty.size);
    check_equal(s->error, faulty.error | (s->cs & 3 ? PF_U : 0), "op %u form %u: error code",
                faulty.op, faulty.form);
    check_equal(s->eip, (uint32_t)code_of(&faulty), "op %u form %u: eip", faulty.op, faulty.form);
    paging_map(faulty.absent, frames + (faulty.absent - BASE), PAGE_URW);
    faulty.absent = 0;
    return true;
}

static void check_missing(unsigned ring)
{
    struct cpu_state s;

    faulty = (struct model){.base = BASE};
    choose(&faulty);
    memcpy(frames, shadow, BYTES);
    flags_before = faulty.flags;
    bool source = pick(2);
    uint32_t index = source ? faulty.esi : faulty.edi;
    uint32_t ahead = pick(faulty.ecx * faulty.size + 1);
    faulty.absent = (faulty.flags & FLAG_DF ? index - ahead : index + ahead) & ~0xFFFu;
    uint32_t absent = faulty.absent;
    start(&s, &faulty, ring);
    paging_map(absent, frames + (absent - BASE), 0);
    bool done = model_run(&faulty);
    faults = 0;
    cpu_handle(VEC_PF, page_fault);
    if (done)
        faulty.absent = absent;
    /* The handler compares with the model as it stands at the fault; then the model goes on, too.
     */
    cpu_run(&s);
    cpu_handle(VEC_PF, NULL);
    check_trap(&s, VEC_END, -1, NULL, "string with a missing page");
    check_equal(faults, !done, "op %u form %u size %u: faults", faulty.op, faulty.form,
                faulty.size);
    faulty.absent = 0;
    if (!done)
        model_run(&faulty);
    compare(&faulty, &s, frames, "after the fault");
    paging_map(absent, frames + (absent - BASE), PAGE_URW);
}

/* The first 64 KiB, with indices that wrap. */
static void check_small(unsigned ring)
{
    struct model m = {.base = 0, .small = true};
    struct cpu_state s;
    volatile uint32_t low = 0;

    choose(&m);
    m.esi = 0xABCD0000 | ((pick(2) ? 0xFF00 : 0x4000) + m.size * pick(64));
    m.edi = 0x12340000 | (0x8000 + m.size * pick(64));
    m.ecx = 0x55550000 | (m.ecx & 0x3FF);
    memcpy((void *)low, shadow, sizeof(shadow));
    start(&s, &m, ring);
    run_to_end(&s, "16-bit string");
    model_run(&m);
    compare(&m, &s, (const uint8_t *)low, "with 16-bit addresses");
}

int guest_main(void)
{
    paging_init();
    for (unsigned i = 0; i < PAGES; i++)
        paging_map(BASE + 4096 * i, frames + 4096 * i, PAGE_URW);
    for (unsigned i = 0; i < 16; i++)
        paging_map(4096 * i, (void *)(4096 * i), PAGE_URW);
    for (unsigned round = 0; round < ROUNDS; round++) {
        memset(shadow, 0x61, sizeof(shadow));
        for (unsigned i = 0; i < CASES; i++) {
            unsigned ring = i & 1 ? 3 : 0;
            check_plain(ring);
            check_missing(ring);
            if (i % 10 < 2)
                check_small(ring);
        }
        if (round & 1)
            touch_all_code();
    }
    return check_done("strings");
}
