/*
 * --verify: before a block runs, its instructions are executed one at a time (single.c), their
 * stores logged and then rolled back; when the block has run, registers, flags, FPU, the stored
 * bytes and the exception, if there was one, must be the same. It checks what blocks add:
 * addresses, pending ESP, scratch registers, chaining state, faults and their fix-ups.
 *
 * Blocks that verify end before the first instruction that is executed in C anyway and changes more
 * than registers and memory. A block is run unchecked when single steps met I/O memory or stored
 * too much, and its comparison is passed over when it stopped early: at a poll, or behind an
 * instruction that was executed in C because it faulted.
 */
#include "dbt/engine.h"

#include "base/log.h"
#include "cpu/fpu.h"
#include "dbt/listing.h"
#include "dbt/translate.h"

enum {
    FX_FIRST = 32,
    FX_LAST = 416,
    FX_MXCSR = 24,
    XSTATE_BV = 512,
    YMM_FIRST = 576,
    YMM_BYTES = 128
};

/* Splits an access at page ends and logs it. Returns 0, FAULT, or 1 when verification is abandoned.
 */
static int log_access(struct vcpu *v, uint32_t gva, unsigned size, bool user, unsigned access)
{
    struct dbt *d = CONTAINER_OF(v, struct dbt, cpu);
    struct verify *check = &d->verify;

    while (size) {
        unsigned part = min_u32(size, PAGE_SIZE - (gva & PAGE_MASK));
        struct translation tr;
        if (walk(v, gva, access, user, &tr))
            return FAULT;
        if (!mmu_is_ram(d->mmu, tr.gpa, part) || check->count == VERIFY_STORES ||
            part > sizeof(check->store[0].before)) {
            check->abandoned = true;
            return 1;
        }
        if (access & ACCESS_WRITE) {
            struct verify_store *s = &check->store[check->count++];
            s->gpa = (uint32_t)tr.gpa;
            s->size = part;
            mmu_phys_read(d->mmu, s->gpa, s->before, part);
        }
        gva += part;
        size -= part;
    }
    return 0;
}

static int log_read(struct vcpu *v, uint32_t gva, void *to, unsigned size, bool user)
{
    struct dbt *d = CONTAINER_OF(v, struct dbt, cpu);
    int r = log_access(v, gva, size, user, ACCESS_READ);

    if (r == 1)
        __builtin_memset(to, 0, size);
    return r == 1 ? 0 : r ? r : d->verify.real->read(v, gva, to, size, user);
}

static int log_write_memory(struct vcpu *v, uint32_t gva, const void *from, unsigned size,
                            bool user)
{
    struct dbt *d = CONTAINER_OF(v, struct dbt, cpu);
    int r = d->verify.real->probe_write(v, gva, size, user);

    if (r == 0)
        r = log_access(v, gva, size, user, ACCESS_WRITE);
    return r == 1 ? 0 : r ? r : d->verify.real->write(v, gva, from, size, user);
}

static int log_cmpxchg32(struct vcpu *v, uint32_t gva, uint32_t *old, uint32_t value, bool user)
{
    struct dbt *d = CONTAINER_OF(v, struct dbt, cpu);
    int r = log_access(v, gva, 4, user, ACCESS_WRITE);

    return r == 1 ? 0 : r ? r : d->verify.real->cmpxchg32(v, gva, old, value, user);
}

bool verify_checks(const struct insn *in)
{
    if (in->op == OP_RDRAND || in->op == OP_RDSEED) /* never the same twice */
        return false;
    return in->row && ((in->row->attr & A_COPY) || translate_has_template(in->op));
}

/* Instructions that the manual leaves some freedom in what they have done, or say in CR2, when they fault. */
static bool fault_is_open(const struct insn *in)
{
    bool mmx_store = (in->row->attr & A_MMX) && (in->row->attr & A_MEM_WRITE);
    return in->op == OP_CMPS || in->vsib || translate_is_masked(in) || mmx_store;
}

static void capture(struct verify_state *s, struct vcpu *v)
{
    fpu_park(v);
    __builtin_memcpy(s->regs, v->regs, sizeof(s->regs));
    s->rip = v->rip;
    s->host_flags = v->host_flags & FLAGS_HOST;
    s->sys_flags = v->sys_flags;
    s->shadow = v->shadow;
    __builtin_memcpy(s->fpu, v->fpu_area, sizeof(s->fpu));
}

static void restore(const struct verify_state *s, struct vcpu *v)
{
    fpu_park(v);
    __builtin_memcpy(v->regs, s->regs, sizeof(s->regs));
    v->rip = s->rip;
    v->host_flags = s->host_flags;
    v->sys_flags = s->sys_flags;
    v->shadow = s->shadow;
    __builtin_memcpy(v->fpu_area, s->fpu, sizeof(s->fpu));
}

const void *verify_block(struct dbt *d, struct block *b)
{
    struct vcpu *v = &d->cpu;
    struct verify *check = &d->verify;
    struct vcpu_mem logging = *v->mem;
    struct verify_state before;
    struct insn in;

    check->active = false;
    capture(&before, v);
    check->count = 0;
    check->abandoned = check->faulted = false;
    check->real = v->mem;
    logging.read = log_read;
    logging.write = log_write_memory;
    logging.cmpxchg32 = log_cmpxchg32;
    v->mem = &logging;
    uint32_t drops = d->drops;
    unsigned done;
    for (done = 0; done < b->insns && !check->abandoned; done++) {
        uint64_t rip = v->rip;
        bool fetched = single_fetch(d, &in) == 0;
        if (!fetched || (verify_checks(&in) && single_step(d, &in) == FAULT)) {
            check->faulted = true;
            check->abandoned = fetched && fault_is_open(&in);
            check->exc = v->exc;
            break;
        }
        if (!verify_checks(&in)) {
            check->abandoned = true;
            break;
        }
        if (v->rip == rip) /* a REP string that gave way to an interrupt */
            check->abandoned = true;
        if (v->rip != rip + in.len)
            break;
    }
    v->mem = check->real;
    capture(&check->expected, v);
    for (unsigned i = 0; i < check->count; i++)
        mmu_phys_read(d->mmu, check->store[i].gpa, check->store[i].after, check->store[i].size);
    for (unsigned i = check->count; i-- > 0;)
        mmu_phys_write(d->mmu, check->store[i].gpa, check->store[i].before, check->store[i].size);
    restore(&before, v);
    check->block = *b;
    check->active = !check->abandoned && d->drops == drops;
    /* The log may have been the first to write a page with code: this block may be gone by now. */
    if (b->dead)
        return NULL;
    fpu_unpark(v);
    return b->code;
}

static void print_state(const char *who, const struct verify_state *s)
{
    log_write(
        "  %-7s eip=%08x eax=%08x ecx=%08x edx=%08x ebx=%08x esp=%08x ebp=%08x esi=%08x edi=%08x "
        "flags=%04x\n",
        who, (uint32_t)s->rip, (uint32_t)s->regs[0], (uint32_t)s->regs[1], (uint32_t)s->regs[2],
        (uint32_t)s->regs[3], (uint32_t)s->regs[4], (uint32_t)s->regs[5], (uint32_t)s->regs[6],
        (uint32_t)s->regs[7], (uint32_t)s->host_flags);
}

static const char *difference(struct dbt *d, const struct verify_state *got, bool faulted)
{
    struct verify *check = &d->verify;
    const struct verify_state *want = &check->expected;
    uint8_t bytes[sizeof(check->store[0].after)];

    if (faulted != check->faulted ||
        (faulted && (d->cpu.exc.vector != check->exc.vector ||
                     d->cpu.exc.error != check->exc.error || d->cpu.exc.cr2 != check->exc.cr2)))
        return "exception";
    if (got->rip != want->rip)
        return "EIP";
    if (__builtin_memcmp(got->regs, want->regs, sizeof(got->regs)))
        return "general registers";
    if (got->host_flags != want->host_flags || got->sys_flags != want->sys_flags)
        return "flags";
    /* Control, status and tag words; registers; MXCSR. The pointers are the host's. */
    if (__builtin_memcmp(got->fpu, want->fpu, 5) ||
        __builtin_memcmp(got->fpu + FX_MXCSR, want->fpu + FX_MXCSR, 4) ||
        __builtin_memcmp(got->fpu + FX_FIRST, want->fpu + FX_FIRST, FX_LAST - FX_FIRST))
        return "FPU state";
    if ((got->fpu[XSTATE_BV] & want->fpu[XSTATE_BV] & XCR0_AVX) &&
        __builtin_memcmp(got->fpu + YMM_FIRST, want->fpu + YMM_FIRST, YMM_BYTES))
        return "YMM registers";
    for (unsigned i = 0; i < check->count; i++) {
        mmu_phys_read(d->mmu, check->store[i].gpa, bytes, check->store[i].size);
        if (__builtin_memcmp(bytes, check->store[i].after, check->store[i].size))
            return "memory";
    }
    return NULL;
}

bool verify_end(struct dbt *d, bool faulted)
{
    struct verify *check = &d->verify;
    struct vcpu *v = &d->cpu;
    struct verify_state got;

    if (!check->active)
        return true;
    check->active = false;
    if (v->kicked && v->rip != check->expected.rip)
        return true;
    capture(&got, v);
    d->stats.verified++;
    const char *what = difference(d, &got, faulted);
    if (!what)
        return true;
    log_write("verify: %s differ after block %08x (%u instructions, cpl %u)\n", what,
              check->block.eip, check->block.insns, v->cpl);
    print_state("single", &check->expected);
    print_state("block", &got);
    if (faulted || check->faulted)
        log_write("  exception: single %s %u/%x/%08x, block %s %u/%x/%08x\n",
                  check->faulted ? "yes" : "no", check->exc.vector, check->exc.error,
                  check->exc.cr2, faulted ? "yes" : "no", v->exc.vector, v->exc.error, v->exc.cr2);
    uint32_t mask = log_mask;
    log_mask |= LOG_IN_ASM | LOG_OUT_ASM;
    listing_block(d, &check->block);
    log_mask = mask;
    return false;
}
