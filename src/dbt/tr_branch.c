/*
 * Control transfer. A CALL is also a host CALL and a RET a host RET, so that the CPU's return
 * predictor works; the landing pad behind the CALL checks the guest's return address, which RET
 * brings in r8d. Direct jumps are patched to lead straight to their target where block.c allows it,
 * and go by way of the jump cache otherwise; what goes there carries the target in r8d, and the
 * target's entry checks it.
 *
 * CALLs and backward jumps load the poll slot: after a kick that load faults (context.c).
 */
#include "dbt/translate.h"

void tr_poll(struct tr *t)
{
    struct hmem slot = hmem_at(R_CACHE, OFF_POLL);

    if (t->in_shadow)
        return;
    tr_site(t, SITE_POLL, 0);
    emit_load(&t->e, R_SEG, &slot, 4);
}

static uint32_t branch_target(const struct tr *t)
{
    uint32_t target = t->next + (uint32_t)t->in.imm;
    return t->in.opsize == 2 ? target & 0xFFFF : target;
}

/* A target beyond the limit is the branch's own fault. */
static bool beyond_limit(const struct tr *t, uint32_t target)
{
    return !(t->key & KEY_CS_FLAT) && target > t->block->cs_limit;
}

/* Whether a jump to `eip` may ever be patched (block.c says why). */
static bool linkable(const struct tr *t, uint32_t eip)
{
    uint32_t from = t->block->eip + t->block->cs_base, to = eip + t->block->cs_base;
    return window_kind(t->d->window) != WINDOW_USER || (from ^ to) < PAGE_SIZE;
}

static void add_exit(struct tr *t, uint32_t eip, uint32_t patch)
{
    t->exits[t->exit_count].eip = eip;
    t->exits[t->exit_count].patch = patch;
    t->exits[t->exit_count].direct = linkable(t, eip);
    t->exit_count++;
}

static struct hmem cache_slot(uint32_t eip)
{
    return hmem_at(R_CACHE, (int32_t)((eip & (JUMP_CACHE_ENTRIES - 1)) * 8));
}

void tr_goto(struct tr *t, uint32_t eip)
{
    tr_commit_esp(t);
    t->ended = true;
    if (linkable(t, eip)) {
        add_exit(t, eip, emit_jmp(&t->e));
    } else {
        struct hmem slot = cache_slot(eip);
        emit_imm32(&t->e, R_ADDR, eip);
        emit_jmp_mem(&t->e, &slot);
    }
}

void tr_tails(struct tr *t)
{
    struct hmem chain = tr_jit(OFF_STUBS + 8 * STUB_CHAIN);

    for (unsigned i = 0; i < t->exit_count; i++) {
        struct exit_link *link = &t->block->exits[i];
        link->from = t->block;
        link->eip = t->exits[i].eip;
        link->patch = t->exits[i].patch;
        link->stub = emit_offset(&t->e);
        emit_patch(&t->e, link->patch, link->stub);
        if (t->exits[i].direct) {
            emit_imm64(&t->e, R_LINK, (uint64_t)link);
            emit_jmp_mem(&t->e, &chain);
        } else {
            struct hmem slot = cache_slot(link->eip);
            emit_imm32(&t->e, R_ADDR, link->eip);
            emit_jmp_mem(&t->e, &slot);
        }
    }
    t->block->exit_count = (uint8_t)t->exit_count;
}

/* To the EIP in r8d, by way of the jump cache. */
static void jump_indirect(struct tr *t)
{
    struct emit *e = &t->e;

    if (t->d->bmi2) {
        struct hmem slot = {.base = R_CACHE, .index = R_SEG, .scale = 8};
        emit_imm32(e, R_LINK, 32 - JUMP_CACHE_BITS);
        emit_shiftx(e, R_SEG, R_ADDR, R_LINK, false);
        emit_shiftx(e, R_SEG, R_SEG, R_LINK, true);
        emit_jmp_mem(e, &slot);
    } else {
        struct hmem stub = tr_jit(OFF_STUBS + 8 * STUB_INDIRECT);
        emit_jmp_mem(e, &stub);
    }
}

/* Behind the host CALL: r8d is where the guest returns to. */
static void landing_pad(struct tr *t)
{
    struct emit *e = &t->e;
    struct hmem difference = hmem_at(R_ADDR, (int32_t)-t->next);

    t->block->pad = emit_offset(e);
    emit_mov64(e, R_SEG, RCX);
    emit_lea32_mem(e, RCX, &difference);
    uint32_t same = emit_jecxz(e);
    emit_mov64(e, RCX, R_SEG);
    jump_indirect(t);
    emit_here8(e, same);
    emit_mov64(e, RCX, R_SEG);
    t->pend = 0;
    tr_goto(t, t->next);
}

/* Pushes the return address; the block's last host instruction that may fault. */
static void push_return(struct tr *t)
{
    unsigned size = t->in.opsize;
    struct hmem m = tr_stack(t, -(int32_t)size);

    tr_site(t, SITE_MEM, 1);
    emit_store_imm(&t->e, &m, t->next, size);
    t->pend -= (int32_t)size;
    tr_commit_esp(t);
}

void tr_call_near(struct tr *t)
{
    uint32_t target = branch_target(t);
    struct emit *e = &t->e;

    if (!tr_stack_is_flat(t) || t->mixed || beyond_limit(t, target)) {
        tr_callout(t);
        return;
    }
    tr_poll(t);
    push_return(t);
    if (target ==
        t->next) /* how code finds its own address: not a call, and no RET will match it */
        return;
    if (linkable(t, target)) {
        add_exit(t, target, emit_call(e));
    } else {
        struct hmem slot = cache_slot(target);
        emit_imm32(e, R_ADDR, target);
        emit_call_mem(e, &slot);
    }
    landing_pad(t);
}

/* r8d or r10d = the register or memory operand of an indirect jump or call. */
static void load_target(struct tr *t, unsigned to)
{
    const struct insn *in = &t->in;

    if (in->has_mem) {
        struct hmem m = tr_operand(t, in->opsize, false);
        tr_site(t, SITE_MEM, 0);
        emit_load(&t->e, to, &m, in->opsize);
    } else if (in->rm == REG_SP) {
        emit_lea32(&t->e, to, R_ESP, t->pend);
    } else {
        emit_mov32(&t->e, to, in->rm);
    }
    if (!in->has_mem && in->opsize == 2)
        emit_movzx16(&t->e, to, to);
}

void tr_call_ind(struct tr *t)
{
    struct hmem stub = tr_jit(OFF_STUBS + 8 * STUB_INDIRECT);

    if (!tr_stack_is_flat(t) || t->mixed || !(t->key & KEY_CS_FLAT)) {
        tr_callout(t);
        return;
    }
    tr_poll(t);
    load_target(t, R_VAL);
    push_return(t);
    emit_mov32(&t->e, R_ADDR, R_VAL);
    emit_call_mem(&t->e, &stub);
    landing_pad(t);
}

void tr_jmp_near(struct tr *t)
{
    uint32_t target = branch_target(t);

    if (beyond_limit(t, target)) {
        tr_callout(t);
        return;
    }
    if (target <= t->eip)
        tr_poll(t);
    tr_goto(t, target);
}

void tr_jmp_ind(struct tr *t)
{
    if (t->mixed || !(t->key & KEY_CS_FLAT)) {
        tr_callout(t);
        return;
    }
    load_target(t, R_ADDR);
    tr_commit_esp(t);
    jump_indirect(t);
    t->ended = true;
}

void tr_ret_near(struct tr *t)
{
    const struct insn *in = &t->in;

    if (!tr_stack_is_flat(t) || t->mixed || !(t->key & KEY_CS_FLAT)) {
        tr_callout(t);
        return;
    }
    struct hmem m = tr_stack(t, 0);
    tr_site(t, SITE_MEM, 1);
    emit_load(&t->e, R_ADDR, &m, in->opsize);
    t->pend += (int32_t)in->opsize + (in->imm_size ? (uint16_t)in->imm : 0);
    tr_commit_esp(t);
    emit_ret(&t->e);
    t->ended = true;
}

void tr_jcc(struct tr *t)
{
    uint32_t target = branch_target(t);

    if (beyond_limit(t, target)) {
        tr_callout(t);
        return;
    }
    if (target == t->next) /* taken or not, control goes straight on */
        return;
    tr_commit_esp(t);
    if (target <= t->eip)
        tr_poll(t);
    add_exit(t, target, emit_jcc(&t->e, t->in.opcode & 15));
    /* Straight on where there is room for this exit and those of the last instruction. */
    if (t->exit_count > TR_MAX_EXITS - 3)
        tr_goto(t, t->next);
}

void tr_loop(struct tr *t)
{
    struct emit *e = &t->e;
    uint32_t target = branch_target(t), other = 0;

    if (t->in.addrsize != 4 || beyond_limit(t, target)) {
        tr_callout(t);
        return;
    }
    tr_commit_esp(t);
    if (target <= t->eip)
        tr_poll(t);
    emit_lea32(e, RCX, RCX, -1);
    uint32_t zero = emit_jecxz(e);
    if (t->in.op == OP_LOOPE)
        other = emit_jcc8(e, 5);
    else if (t->in.op == OP_LOOPNE)
        other = emit_jcc8(e, 4);
    add_exit(t, target, emit_jmp(e));
    emit_here8(e, zero);
    if (other)
        emit_here8(e, other);
    tr_goto(t, t->next);
}

void tr_jcxz(struct tr *t)
{
    struct emit *e = &t->e;
    uint32_t target = branch_target(t);

    if (t->in.addrsize != 4 || beyond_limit(t, target)) {
        tr_callout(t);
        return;
    }
    tr_commit_esp(t);
    if (target <= t->eip)
        tr_poll(t);
    uint32_t zero = emit_jecxz(e);
    tr_goto(t, t->next);
    emit_here8(e, zero);
    add_exit(t, target, emit_jmp(e));
}
