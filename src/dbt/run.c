/*
 * The C side of the engine: what stubs call when translated code has to be found, an instruction is
 * executed in C, or an access faulted. Each function returns the host address to go on at; 0 means
 * behind the stub's caller.
 *
 * Interrupts are looked for in run_dispatch only; a kick makes translated code come there by way of
 * the all-miss table (context.c), and instructions that may enable interrupts are executed in C and
 * come back by way of run_continue.
 */
#include "dbt/engine.h"

#include <stdlib.h>

#include "base/log.h"
#include "cpu/fpu.h"
#include "cpu/segment.h"
#include "dbt/emit.h"

static bool irq_deliverable(const struct vcpu *v)
{
    return v->irq_line && (v->sys_flags & FLAG_IF) && !v->shadow;
}

/* Whether the next instruction is to be executed alone, in C: so as to trap behind it, take nothing
   before it, or check its operands for alignment. */
static bool stepping(const struct vcpu *v)
{
    return v->shadow || (v->sys_flags & FLAG_TF) ||
           ((v->sys_flags & FLAG_AC) && segment_checks_alignment(v));
}

/* Whether run_dispatch has anything to do before the next instruction. */
static bool attention(const struct vcpu *v)
{
    return v->kicked || v->mode_dirty || v->halted || v->shutdown || stepping(v) ||
           irq_deliverable(v) || (v->nmi_pending && !v->nmi_blocked);
}

static const void *leave(struct dbt *d, enum dbt_stop why)
{
    d->stopped = why;
    fpu_park(&d->cpu);
    return stub_leave;
}

static const void *go(struct dbt *d, const void *host)
{
    if (d->cpu.fpu_parked)
        fpu_unpark(&d->cpu);
    return host;
}

static void log_exit(struct dbt *d, const char *what)
{
    if (UNLIKELY(log_on_at(LOG_EXITS, (uint32_t)d->cpu.rip))) {
        fpu_park(&d->cpu);
        log_write("exit %s eip=%08x cpl=%u\n", what, (uint32_t)d->cpu.rip, d->cpu.cpl);
    }
}

static void deliver(struct dbt *d)
{
    struct vcpu *v = &d->cpu;

    d->stats.exceptions++;
    if (UNLIKELY(log_on_at(LOG_FAULT, (uint32_t)v->rip))) {
        fpu_park(v);
        log_write("exception %u error=%04x cr2=%08x at %04x:%08x cpl=%u esp=%08x\n", v->exc.vector,
                  v->exc.error, v->exc.cr2, v->seg[SEG_CS].sel, (uint32_t)v->rip, v->cpl,
                  vcpu_reg32(v, REG_SP));
    }
    v->shadow = 0;
    if (UNLIKELY(d->options.verify) && !verify_end(d, true))
        d->diverged = true;
    deliver_exception(v);
}

/* Executes the instruction at rip in C, with its trap if EFLAGS.TF asks for one (SDM 3B 17.3.1.4).
 */
static void step(struct dbt *d)
{
    struct vcpu *v = &d->cpu;
    struct insn in;
    bool trap = v->sys_flags & FLAG_TF;

    v->shadow = 0;
    if (single_fetch(d, &in) || single_step(d, &in)) {
        deliver(d);
        return;
    }
    /* Neither MOV SS nor a software interrupt, which clears TF, is followed by a trap. */
    bool interrupt = in.op == OP_INT_N || in.op == OP_INT3 || in.op == OP_INTO || in.op == OP_INT1;
    if (trap && v->shadow != 2 && !(interrupt && !(v->sys_flags & FLAG_TF))) {
        v->dr[6] |= 1u << 14;
        vcpu_raise(v, VEC_DB);
        deliver(d);
    }
}

/* Takes what is pending before an instruction boundary; true if the engine is to be left, with
 * *out. */
static bool take_events(struct dbt *d, const void **out)
{
    struct vcpu *v = &d->cpu;

    if (v->shutdown) {
        *out = leave(d, DBT_SHUTDOWN);
        return true;
    }
    if (v->kicked) {
        v->kicked = false;
        d->stats.kicks++;
        block_expire_checked(d);
        fpu_park(v);
        v->ops->poll(v->ops_opaque);
    }
    if (UNLIKELY(d->diverged)) {
        *out = leave(d, DBT_DIVERGED);
        return true;
    }
    if (v->stop) {
        *out = leave(d, DBT_STOPPED);
        return true;
    }
    if (v->nmi_pending && !v->nmi_blocked && !v->shadow) {
        v->nmi_pending = false;
        v->nmi_blocked = true;
        deliver_interrupt(v, VEC_NMI);
    }
    if (irq_deliverable(v)) {
        fpu_park(v);
        int vector = v->ops->irq_ack(v->ops_opaque);
        if (vector >= 0) {
            d->stats.interrupts++;
            if (UNLIKELY(log_on(LOG_IRQ)))
                log_write("interrupt vector=%02x at eip=%08x\n", (unsigned)vector,
                          (uint32_t)v->rip);
            deliver_interrupt(v, (uint8_t)vector);
        }
    }
    if (v->shutdown) {
        *out = leave(d, DBT_SHUTDOWN);
        return true;
    }
    if (v->halted) {
        d->stats.halts++;
        *out = leave(d, DBT_HALTED);
        return true;
    }
    return false;
}

/* The block at rip, translated if need be. NULL with v->exc set if it cannot be fetched, or with
 *in_memory false if it is to be executed alone. */
static struct block *find_block(struct dbt *d, bool *in_memory)
{
    struct vcpu *v = &d->cpu;
    uint32_t eip = (uint32_t)v->rip, page;
    uint32_t gva = eip + v->seg[SEG_CS].base;

    *in_memory = true;
    d->fetched = FETCH_OWN;
    if (eip > v->seg[SEG_CS].limit) {
        vcpu_raise_error(v, VEC_GP, 0);
        return NULL;
    }
    int r = context_fetch(d, gva, &page);
    if (r == FAULT)
        return NULL;
    if (r) {
        *in_memory = false;
        return NULL;
    }
    d->runs_into_io = false;
    struct block *b = block_find(d, eip, page, d->context->key);
    if (!b)
        b = translate(d, eip, page, d->context->key);
    /* Behind the translation, which may have emptied the cache and with it the context. */
    d->context->user_code |= d->fetched == FETCH_BY_USER;
    *in_memory = !d->runs_into_io;
    return b;
}

const void *run_dispatch(struct dbt *d)
{
    struct vcpu *v = &d->cpu;
    const void *out;

    if (UNLIKELY(d->options.verify) && !verify_end(d, false))
        return leave(d, DBT_DIVERGED);
    for (;;) {
        if (take_events(d, &out))
            return out;
        if (v->mode_dirty && context_update(d) < 0) {
            v->shutdown = true;
            continue;
        }
        context_arm(d);
        if (UNLIKELY(stepping(v))) {
            step(d);
            continue;
        }
        bool in_memory;
        struct block *b = find_block(d, &in_memory);
        if (UNLIKELY(v->mode_dirty))
            continue;
        if (!b && !in_memory) {
            step(d);
            continue;
        }
        if (!b) {
            deliver(d);
            continue;
        }
        if (UNLIKELY(d->options.verify)) {
            out = verify_block(d, b);
            if (out)
                return out;
            step(d); /* it stores into its own page: only single steps get past that */
            continue;
        }
        if (d->fetched == FETCH_ONCE) {
            context_reset_ring(d, d->context);
            d->jit.ring_sp = d->context->ring_sp;
        } else {
            d->context->jump_cache[b->eip & (JUMP_CACHE_ENTRIES - 1)] = b->code;
        }
        v->sys_flags &= ~FLAG_RF;
        return go(d, b->code);
    }
}

const void *run_miss(struct dbt *d)
{
    d->stats.misses++;
    log_exit(d, "miss");
    return run_dispatch(d);
}

const void *run_continue(struct dbt *d)
{
    if (attention(&d->cpu) || d->options.verify)
        return run_dispatch(d);
    d->cpu.sys_flags &= ~FLAG_RF;
    return go(d, d->jit.stub[STUB_INDIRECT]);
}

/* Whether a jump from `from` may lead straight to `to`, just found: see the head of block.c. */
static bool may_link(const struct dbt *d, const struct block *from, const struct block *to)
{
    bool same_page = ((from->eip + from->cs_base) ^ (to->eip + to->cs_base)) < PAGE_SIZE;

    if (d->fetched == FETCH_OWN && window_kind(d->window) != WINDOW_USER)
        return true;
    return d->fetched != FETCH_ONCE && same_page && to->page2 == NO_PAGE;
}

const void *run_chain(struct dbt *d, struct exit_link *link)
{
    struct vcpu *v = &d->cpu;
    struct block *from = link->from;
    bool in_memory;

    v->rip = link->eip;
    log_exit(d, "chain");
    if (link->stale) {
        d->stats.stale_blocks++;
        d->verify.active = false;
        block_drop(d, from);
        return run_dispatch(d);
    }
    if (attention(v) || d->options.verify)
        return run_dispatch(d);
    uint64_t flushes = d->stats.flushes;
    struct block *b = find_block(d, &in_memory);
    if (!b || v->mode_dirty)
        return run_dispatch(d);
    if (d->stats.flushes == flushes && !from->dead && !link->to && may_link(d, from, b))
        block_link(d, link, b);
    else
        d->stats.unchained++;
    return go(d, b->code);
}

const void *run_callout(struct dbt *d, const struct callout *call)
{
    struct vcpu *v = &d->cpu;
    const struct insn *in = &call->in;
    uint32_t drops = d->drops;
    uint32_t next = (uint32_t)v->rip + in->len;

    d->stats.callouts++;
    d->callouts_by_op[in->op]++;
    d->verify.active &= verify_checks(in);
    log_exit(d, "callout");
    if (single_step(d, in)) {
        d->jit.ring_sp += 8;
        deliver(d);
        return run_dispatch(d);
    }
    /* A shadow holds off what is pending now; with nothing pending, the next instruction in this
       block is executed before anything is looked for again. */
    uint8_t shadow = v->shadow;
    if (!call->last && !v->irq_line && !v->nmi_pending)
        v->shadow = 0;
    if (v->rip == next && d->drops == drops && !attention(v)) {
        fpu_unpark(v);
        return NULL;
    }
    v->shadow = shadow;
    d->verify.active &= call->last;
    d->jit.ring_sp += 8;
    return run_continue(d);
}

/* ---- faults ---- */

static const void *execute_faulting(struct dbt *d)
{
    struct insn in;

    d->stats.emulated_faults++;
    d->verify.active = false;
    if (single_fetch(d, &in) || single_step(d, &in)) {
        deliver(d);
        return run_dispatch(d);
    }
    return run_continue(d);
}

static void learn(struct dbt *d, uint32_t gpa, unsigned operand, bool user)
{
    struct learned_site *s = learned_site_at(d, gpa);

    if (s->gpa != gpa)
        *s = (struct learned_site){.gpa = gpa};
    if (user) {
        s->user |= BIT(operand);
        d->stats.user_sites++;
    } else {
        s->user &= ~BIT(operand);
    }
    if (++s->flips > 6) {
        s->mixed |= BIT(operand);
        d->stats.mixed_sites++;
    }
}

/* Which operand of a string instruction with two was it? */
static unsigned faulting_operand(const struct vcpu *v, const struct fault_site *site, uint32_t gva,
                                 bool write)
{
    if (site->operand != OPERAND_BOTH)
        return site->operand;
    if (write)
        return 1;
    bool source = gva >> PAGE_SHIFT == vcpu_reg32(v, REG_SI) >> PAGE_SHIFT;
    bool dest = gva >> PAGE_SHIFT == vcpu_reg32(v, REG_DI) >> PAGE_SHIFT;
    return dest && !source;
}

static bool within(uint64_t address, uint64_t start, uint64_t size)
{
    return address - start < size;
}

static void restore_guest(struct dbt *d, const struct block *b, const struct fault_site *site)
{
    struct vcpu *v = &d->cpu;

    for (unsigned i = 0; i < 8; i++)
        v->regs[i] = (uint32_t)d->jit.frame[i];
    v->regs[REG_SP] = (uint32_t)(d->jit.frame[R_ESP] + (uint64_t)(int64_t)site->esp);
    if (site->borrowed != NO_REG)
        v->regs[site->borrowed] = (uint32_t)d->jit.frame[R_SEG];
    v->host_flags = d->jit.frame_flags;
    v->rip = b->eip + site->guest;
}

static const struct fault_site *find_site(const struct block *b, uint64_t pc)
{
    uint32_t host = (uint32_t)(pc - (uint64_t)b->code);
    for (unsigned i = 0; i < b->site_count; i++) {
        if (b->sites[i].host == host)
            return &b->sites[i];
    }
    return NULL;
}

/* We did it: a fault that no template accounts for. Prints what is known and aborts. */
static const void *unexpected(struct dbt *d, const struct block *b)
{
    fpu_park(&d->cpu);
    fprintf(
        stderr,
        "novt: internal error: trap %d error %x address %llx at host %llx (block eip %08x + %llx)\n",
        d->fault.trap, d->fault.error, (unsigned long long)d->fault.address,
        (unsigned long long)d->jit.frame_rip, b ? b->eip : 0,
        b ? (unsigned long long)(d->jit.frame_rip - (uint64_t)b->code) : 0);
    abort();
}

const void *run_fault(struct dbt *d)
{
    struct vcpu *v = &d->cpu;
    uint64_t address = d->fault.address;
    bool write = d->fault.error & 2;

    d->jit.ring_sp = d->jit.frame[RSP];
    if (d->fault.trap == 14 && d->context &&
        within(address, (uint64_t)d->context->ring - 4096, RING_ENTRIES * 8 + 8192)) {
        d->stats.ring_resets++;
        context_reset_ring(d, d->context);
        d->jit.ring_sp = d->context->ring_sp;
        return stub_retry;
    }
    struct block *b = cache_block_at(&d->cache, d->jit.frame_rip);
    const struct fault_site *site = b ? find_site(b, d->jit.frame_rip) : NULL;
    if (!site)
        return unexpected(d, b);
    restore_guest(d, b, site);
    if (site->kind == SITE_POLL || d->fault.trap == TRAP_KICK) {
        d->stats.polls++;
        d->verify.active = false;
        return run_dispatch(d);
    }
    if (d->fault.trap != 14) {
        single_raise_host(v, d->fault.trap);
        deliver(d);
        return run_dispatch(d);
    }
    if (site->kind == SITE_PROBE)
        return execute_faulting(d);

    struct window *w = within(address, d->jit.base, GIB(4))    ? d->window
                       : within(address, d->jit.ubase, GIB(4)) ? d->user_window
                                                               : NULL;
    if (!w)
        return execute_faulting(d); /* a string that wraps at 4 GiB ran into the guard */
    enum mmu_fault r = mmu_fault(v, w, (uint32_t)address, write);
    if (UNLIKELY(log_on_at(LOG_FAULT, (uint32_t)v->rip))) {
        fpu_park(v);
        log_write("fault gva=%08x %s eip=%08x cpl=%u -> %d\n", (uint32_t)address,
                  write ? "write" : "read", (uint32_t)v->rip, v->cpl, (int)r);
    }
    switch (r) {
    case MMU_MAPPED:
        d->stats.mapped_faults++;
        if (b->dead || v->mode_dirty)
            return execute_faulting(d);
        if (v->fpu_parked)
            fpu_unpark(v);
        return stub_retry;
    case MMU_GUEST:
        deliver(d);
        return run_dispatch(d);
    case MMU_USER_PAGE:
    case MMU_SUPER_PAGE:
        learn(d, b->gpa + site->guest, faulting_operand(v, site, (uint32_t)address, write),
              r == MMU_USER_PAGE);
        block_drop(d, b);
        d->verify.active = false;
        return run_dispatch(d);
    default:
        return execute_faulting(d);
    }
}
