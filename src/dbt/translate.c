/*
 * Translation of one block: decode straight through from an address until control may leave, a page
 * ends or the block is long enough; one template an instruction.
 *
 * A block's code: the tag check (entry for indirect jumps, which bring the target in r8d), the
 * direct entry, the instructions, and the stubs of its exits.
 */
#include "dbt/translate.h"

#include "base/log.h"
#include "cpu/cpuid.h"
#include "dbt/listing.h"

enum { BLOCK_ROOM = 32768, META_ROOM = 65536 };

typedef void template_fn(struct tr *t);

/* What is neither copied nor executed in C. */
static template_fn *const templates[OP_COUNT] = {
    [OP_PUSH] = tr_push,
    [OP_POP] = tr_pop,
    [OP_LEAVE] = tr_leave,
    [OP_CALL_NEAR] = tr_call_near,
    [OP_CALL_IND] = tr_call_ind,
    [OP_JMP_NEAR] = tr_jmp_near,
    [OP_JMP_IND] = tr_jmp_ind,
    [OP_RET_NEAR] = tr_ret_near,
    [OP_JCC] = tr_jcc,
    [OP_LOOP] = tr_loop,
    [OP_LOOPE] = tr_loop,
    [OP_LOOPNE] = tr_loop,
    [OP_JCXZ] = tr_jcxz,
    [OP_MOVS] = tr_string,
    [OP_STOS] = tr_string,
    [OP_LODS] = tr_string,
    [OP_CMPS] = tr_string,
    [OP_SCAS] = tr_string,
    [OP_XLAT] = tr_xlat,
    [OP_PUSHF] = tr_pushf,
    [OP_CLI] = tr_cli,
    [OP_STI] = tr_sti,
    [OP_PUSH_SREG] = tr_push_sreg,
    [OP_MOV_SREG_TO] = tr_mov_sreg_to,
};

bool translate_has_template(unsigned op)
{
    return templates[op] != NULL;
}

void translate_narrow(struct insn *in, const struct cpu_model *model)
{
    while (in->row && !cpuid_has(model, in->row->feature)) {
        in->row = decode_plain_row(in);
        if (in->row)
            in->op = in->row->op;
    }
}

void tr_site(struct tr *t, enum site_kind kind, unsigned operand)
{
    if (t->single || t->site_count == TR_MAX_SITES)
        return;
    t->sites[t->site_count++] = (struct fault_site){
        .host = emit_offset(&t->e),
        .guest = (uint16_t)(t->eip - t->block->eip),
        .esp = (int16_t)t->start_esp,
        .kind = (uint8_t)kind,
        .operand = (uint8_t)operand,
        .borrowed = NO_REG,
    };
}

void tr_commit_esp(struct tr *t)
{
    if (!t->pend)
        return;
    emit_lea32(&t->e, R_ESP, R_ESP, t->pend);
    t->start_esp -= t->pend;
    t->pend = 0;
}

/* MOV SS, POP SS and STI: nothing is to come between them and the next instruction. */
static bool casts_shadow(const struct insn *in)
{
    return in->op == OP_STI || (in->op == OP_MOV_SREG_FROM && in->reg == SEG_SS) ||
           (in->op == OP_POP_SREG && in->row->operand[0].reg == SEG_SS);
}

void tr_callout(struct tr *t)
{
    struct emit *e = &t->e;
    struct hmem rip = tr_jit(OFF_RIP), stub = tr_jit(OFF_STUBS + 8 * STUB_CALLOUT);
    struct callout *call = cache_meta(&t->d->cache, sizeof(*call));
    const struct insn *in = &t->in;

    if (!call) {
        e->overflow = true;
        return;
    }
    call->in = t->in;
    t->callout = call;
    t->shadow = in->row && casts_shadow(in);
    tr_commit_esp(t);
    emit_store_imm(e, &rip, t->eip, 4);
    emit_imm64(e, R_ADDR, (uint64_t)call);
    emit_call_mem(e, &stub);
    if (!in->row || (in->row->attr & A_ENDS_BLOCK))
        tr_goto(t, t->next);
}

/* Whether CR0 and CR4 make this instruction raise an exception: then C raises it. */
static bool fpu_refused(const struct tr *t)
{
    uint32_t attr = t->in.row->attr;

    if (t->in.op == OP_FWAIT)
        return t->key & KEY_WAIT_NM;
    if (t->in.vex && (t->key & (KEY_PROTECTED | KEY_V86)) != KEY_PROTECTED)
        return true;
    return ((attr & A_X87) && (t->key & KEY_X87_NM)) ||
           ((attr & A_MMX) && (t->key & (KEY_MMX_UD | KEY_SIMD_NM))) ||
           ((attr & A_SSE) && (t->key & (KEY_SIMD_UD | KEY_SIMD_NM))) ||
           ((attr & A_AVX) && (!(t->key & KEY_AVX) || (t->key & KEY_SIMD_NM)));
}

/* Instructions whose access is not just their operand, so that a limit cannot be probed before: bit
   tests with a register offset, gathers, and moves of which a mask decides what is accessed at all.
 */
static bool reaches_elsewhere(const struct insn *in)
{
    return translate_has_bit_offset(in) || in->vsib || translate_is_masked(in);
}

static bool may_copy(const struct tr *t)
{
    const struct insn *in = &t->in;

    if (!(in->row->attr & A_COPY) || fpu_refused(t))
        return false;
    if (!in->has_mem || (in->row->attr & A_NO_ACCESS))
        return true;
    if (t->mixed || in->mem_size == 0)
        return false;
    if (reaches_elsewhere(in) && (in->addrsize != 4 || !tr_flat(t, in->seg) || (t->user & 1)))
        return false;
    return true;
}

static void translate_insn(struct tr *t)
{
    const struct insn *in = &t->in;
    struct dbt *d = t->d;

    if (in->row && may_copy(t)) {
        d->stats.copied_insns++;
        tr_copy(t);
    } else if (in->row && templates[in->op]) {
        templates[in->op](t);
    } else {
        tr_callout(t);
    }
}

/* What the accesses of the instruction at `gpa` have learned. Only the supervisor window needs it.
 */
static void recall(struct tr *t, uint32_t gpa)
{
    const struct learned_site *s = learned_site_at(t->d, gpa);

    t->user = t->mixed = 0;
    if (s->gpa == gpa && window_kind(t->d->window) == WINDOW_SUPER) {
        t->user = s->user;
        t->mixed = s->mixed;
    }
}

enum fetch { FETCH_OK, FETCH_FAULT, FETCH_IO };

/* Decodes the instruction at t->eip, `offset` bytes into `page`. FETCH_FAULT: v->exc is set. */
static enum fetch fetch(struct tr *t, uint32_t page, uint32_t offset)
{
    struct dbt *d = t->d;
    struct vcpu *v = &d->cpu;
    unsigned mode = t->key & KEY_CODE32 ? 32 : 16;
    unsigned avail = min_u32(PAGE_SIZE - offset, INSN_MAX);
    uint8_t bytes[INSN_MAX];
    enum decode_result r;

    r = decode(&t->in, mmu_page_bytes(d->mmu, page) + offset, avail, mode);
    if (r == DECODE_TRUNCATED && (uint64_t)t->eip + avail > t->block->cs_limit &&
        !(t->key & KEY_CS_FLAT)) {
        vcpu_raise_error(v, VEC_GP, 0);
        return FETCH_FAULT;
    }
    if (r == DECODE_TRUNCATED) {
        uint32_t gva = t->eip + t->block->cs_base, page2;
        int f = context_fetch(d, (gva | PAGE_MASK) + 1, &page2);
        if (f == FAULT)
            return FETCH_FAULT;
        if (f) /* code that runs into I/O memory is executed alone */
            return FETCH_IO;
        __builtin_memcpy(bytes, mmu_page_bytes(d->mmu, page) + offset, avail);
        __builtin_memcpy(bytes + avail, mmu_page_bytes(d->mmu, page2), INSN_MAX - avail);
        r = decode(&t->in, bytes, INSN_MAX, mode);
        t->block->page2 = page2;
    }
    if (r == DECODE_TOO_LONG) {
        vcpu_raise_error(v, VEC_GP, 0);
        return FETCH_FAULT;
    }
    if (r == DECODE_UNDEFINED || r == DECODE_TRUNCATED) {
        t->in.row = NULL;
        t->in.op = OP_INVALID;
    } else {
        translate_narrow(&t->in, v->model);
    }
    if (!(t->key & KEY_CS_FLAT) && (uint64_t)t->eip + t->in.len - 1 > t->block->cs_limit) {
        vcpu_raise_error(v, VEC_GP, 0);
        return FETCH_FAULT;
    }
    return FETCH_OK;
}

static void tag_check(struct tr *t)
{
    struct emit *e = &t->e;
    struct hmem difference = hmem_at(R_ADDR, (int32_t)-t->block->eip);
    struct hmem miss = tr_jit(OFF_STUBS + 8 * STUB_MISS);

    emit_mov64(e, R_SEG, RCX);
    emit_lea32_mem(e, RCX, &difference);
    uint32_t same = emit_jecxz(e);
    emit_mov64(e, RCX, R_SEG);
    emit_jmp_mem(e, &miss);
    emit_here8(e, same);
    emit_mov64(e, RCX, R_SEG);
    t->block->direct = emit_offset(e);
}

/* rcx = `size` source bytes at offset `at` of the page at r10, less what they were: 0 if the same.
 */
static void compare_source(struct emit *e, const uint8_t *page, uint32_t at, unsigned size)
{
    struct hmem now = hmem_at(R_VAL, (int32_t)at), sum = {.base = RCX, .index = R_LINK, .scale = 1};
    uint64_t was = 0;

    __builtin_memcpy(&was, page + at, size);
    if (size == 8)
        emit_load64(e, RCX, &now);
    else
        emit_load(e, RCX, &now, size);
    emit_imm64(e, R_LINK, -was);
    emit_lea64(e, RCX, &sum);
}

/* Leads to `stale` if the source bytes [offset, offset+len) of `page` are not what they are now. */
static void check_range(struct tr *t, uint32_t page, uint32_t offset, uint32_t len, uint32_t stale)
{
    const uint8_t *bytes = mmu_page_bytes(t->d->mmu, page);
    struct emit *e = &t->e;

    emit_imm64(e, R_VAL, (uint64_t)bytes);
    for (uint32_t end = offset + len; offset < end;) {
        unsigned left = end - offset, size = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        compare_source(e, bytes, offset, size);
        uint32_t same = emit_jrcxz(e);
        emit_patch(e, emit_jmp(e), stale);
        emit_here8(e, same);
        offset += size;
    }
}

/* Behind the block's code: what the jump at its direct entry (`entry`) leads to. */
static void check_source(struct tr *t, uint32_t entry)
{
    struct block *b = t->block;
    struct exit_link *link = &b->exits[t->exit_count];
    struct hmem chain = tr_jit(OFF_STUBS + 8 * STUB_CHAIN);
    struct emit *e = &t->e;
    uint32_t offset = b->gpa & PAGE_MASK, first = min_u32(b->len, PAGE_SIZE - offset);

    link->from = b;
    link->eip = b->eip;
    link->stale = true;
    uint32_t stale = emit_offset(e);
    emit_mov64(e, RCX, R_SEG);
    emit_imm64(e, R_LINK, (uint64_t)link);
    emit_jmp_mem(e, &chain);

    emit_patch(e, entry, emit_offset(e));
    emit_mov64(e, R_SEG, RCX);
    check_range(t, b->gpa >> PAGE_SHIFT, offset, first, stale);
    if (b->page2 != NO_PAGE)
        check_range(t, b->page2, 0, b->len - first, stale);
    emit_mov64(e, RCX, R_SEG);
    emit_patch(e, emit_jmp(e), entry + 4);
}

/* Whether the instruction may have stored into its own block, or made a device do so. */
static bool may_store(const struct insn *in)
{
    return in->row && (!(in->row->attr & A_COPY) || (in->row->attr & A_MEM_WRITE));
}

static void start(struct tr *t, struct dbt *d, uint8_t *at, uint32_t room)
{
    t->d = d;
    t->e = (struct emit){.at = at, .start = at, .end = at + room};
    t->pend = t->start_esp = 0;
    t->site_count = t->exit_count = 0;
    t->callout = NULL;
    t->user = t->mixed = 0;
    t->ended = t->single = t->shadow = t->in_shadow = false;
}

struct block *translate(struct dbt *d, uint32_t eip, uint32_t page, uint32_t key)
{
    uint64_t began = __builtin_ia32_rdtsc();
    struct cache *c = &d->cache;
    struct vcpu *v = &d->cpu;
    uint16_t starts[BLOCK_MAX_INSNS];
    struct tr t;

    if (c->size - c->used < BLOCK_ROOM || c->meta_size - c->meta_used < META_ROOM ||
        c->block_count == c->block_max)
        block_drop_all(d);

    struct block *b = cache_meta(c, sizeof(*b));
    b->eip = eip;
    b->cs_base = v->seg[SEG_CS].base;
    b->cs_limit = v->seg[SEG_CS].limit;
    b->key = key;
    b->page2 = NO_PAGE;
    uint32_t offset = (eip + b->cs_base) & PAGE_MASK;
    b->gpa = page << PAGE_SHIFT | offset;
    b->code = c->rx + c->used;

    start(&t, d, c->rw + c->used, BLOCK_ROOM);
    t.block = b;
    t.key = key;
    t.next = eip;
    tag_check(&t);
    bool checked = block_page_is_checked(d, page);
    bool may_cross = offset + INSN_MAX > PAGE_SIZE; /* into a page that is checked */
    uint32_t entry = checked || may_cross ? emit_jmp(&t.e) : 0;
    while (!t.ended && b->insns < BLOCK_MAX_INSNS && offset < PAGE_SIZE) {
        t.eip = t.next;
        enum fetch f = fetch(&t, page, offset);
        if (f != FETCH_OK && !b->insns) {
            d->runs_into_io = f == FETCH_IO;
            return NULL;
        }
        if (f != FETCH_OK)
            break;
        if (b->page2 != NO_PAGE && block_page_is_checked(d, b->page2) && !checked) {
            if (b->insns)
                break; /* it begins a block of its own */
            checked = true;
        }
        if (d->options.verify && b->insns && !verify_checks(&t.in)) {
            t.next = t.eip;
            break;
        }
        recall(&t, b->gpa + b->len);
        t.next = t.eip + t.in.len;
        t.start_esp = t.pend;
        t.callout = NULL;
        t.in_shadow = t.shadow;
        t.shadow = false;
        t.last_in_page =
            checked || offset + t.in.len + INSN_MAX > PAGE_SIZE || b->insns + 1 == BLOCK_MAX_INSNS;
        starts[b->insns] = (uint16_t)emit_offset(&t.e);
        translate_insn(&t);
        offset += t.in.len;
        b->len = (uint16_t)(b->len + t.in.len);
        b->insns++;
        if (t.next < t.eip || (checked && may_store(&t.in)))
            break;
    }
    if (t.callout)
        t.callout->last = true;
    if (offset <= PAGE_SIZE)
        b->page2 = NO_PAGE;
    if (!t.ended)
        tr_goto(&t, t.next);
    b->exits = cache_meta(c, (t.exit_count + 1) * (uint32_t)sizeof(*b->exits));
    tr_tails(&t);
    if (checked)
        check_source(&t, entry);
    else if (entry)
        emit_patch(&t.e, entry, entry + 4);

    b->sites = cache_meta(c, t.site_count * (uint32_t)sizeof(*b->sites));
    if (t.e.overflow || !b->sites) {
        block_drop_all(d);
        return translate(d, eip, page, key);
    }
    __builtin_memcpy(b->sites, t.sites, t.site_count * sizeof(*b->sites));
    b->site_count = (uint16_t)t.site_count;
    if (UNLIKELY(log_on(LOG_OUT_ASM)) && (b->starts = cache_meta(c, sizeof(starts))))
        __builtin_memcpy(b->starts, starts, sizeof(starts));
    b->code_len = emit_offset(&t.e);
    c->used += (b->code_len + 15) & ~15u;
    block_insert(d, b);
    d->stats.blocks++;
    d->stats.guest_insns += b->insns;
    d->stats.guest_bytes += b->len;
    d->stats.host_bytes += b->code_len;
    d->stats.translate_cycles += __builtin_ia32_rdtsc() - began;
    if (UNLIKELY(log_on_at(LOG_IN_ASM, eip) || log_on_at(LOG_OUT_ASM, eip)))
        listing_block(d, b);
    return b;
}

const void *translate_single(struct dbt *d, const struct insn *in, int32_t offset)
{
    struct tr t;
    struct block none = {0};

    if (!(in->row->attr & A_COPY) || (in->vsib && in->has_mem))
        return NULL;
    start(&t, d, d->cache.rw, SINGLE_CODE_SIZE);
    t.in = *in;
    t.block = &none;
    t.single = true;
    t.single_offset = offset;
    t.key = context_key(&d->cpu);
    tr_copy(&t);
    emit_ret(&t.e);
    return t.e.overflow ? NULL : d->cache.rx;
}
