/*
 * The tables and the rules. Nothing here knows how the machine under test does it: only descriptors
 * are looked at. QEMU 7.2's TCG differs in a few places, which come out WRONG there; Bochs does
 * what the manual says in all of them: reads through a null selector fault; a call gate to a
 * conforming segment keeps the CPL; JMP through a gate to code that is not present is #NP; far RET
 * and IRET compare EIP with CS's limit. Bochs 2.7 differs in one: IRET to a stack segment that is
 * not present is #SS (APM 3, IRET), not #NP.
 */
#include "model.h"

const uint32_t based_data[4] = {0x600DDA7A, 0x11223344, 0x55667788, 0x99AABBCC};

enum { TABLE_LDT = 4 };

static struct descriptor code_specimen(unsigned type, unsigned dpl)
{
    bool code = type & 8;
    bool down = !code && (type & 4);

    if (code)
        return cpu_segment((uint32_t)landing - LANDING_OFFSET, 0x1FF, 0x90 | type | DESC_DPL(dpl),
                           DESC_DB);
    return cpu_segment(0, down ? 0 : 0xFFFFF, 0x90 | type | DESC_DPL(dpl), DESC_G | DESC_DB);
}

static void call_gate(unsigned n, uint16_t code, unsigned access, unsigned count)
{
    const struct descriptor *d = model_descriptor(code);
    bool based = d && desc_base(d);

    cpu_gdt[SPEC_GATES / 8 + n] =
        cpu_gate(code, based ? LANDING_OFFSET : (uint32_t)landing, access, count);
}

void tables_init(void)
{
    enum { CODE = 10, CONFORMING = 14 };

    for (unsigned type = 0; type < 16; type += 2) {
        for (unsigned dpl = 0; dpl < 4; dpl++) {
            cpu_gdt[SPEC_TYPE(type, dpl) / 8] = code_specimen(type, dpl);
            cpu_ldt[1 + type / 2 + 8 * (dpl / 2)] = code_specimen(type, dpl);
        }
    }
    for (unsigned type = 0; type < 16; type++) {
        cpu_gdt[SPEC_SYSTEM0 / 8 + type] = cpu_segment(0x1000, 0x67 + type, 0x80 | type, 0);
        cpu_gdt[SPEC_SYSTEM3 / 8 + type] = cpu_segment(0x1000, 0x67 + type, 0xE0 | type, DESC_G);
    }
    for (unsigned i = 0; i < 4; i++) {
        unsigned access = (i & 1 ? 0x10 | CODE : 0x12) | DESC_DPL(i & 2 ? 3 : 0);
        cpu_gdt[SPEC_ABSENT / 8 + i] = cpu_segment(0, 0xFFFFF, access, DESC_G | DESC_DB);
    }
    cpu_gdt[SPEC_SHORT / 8] = cpu_segment(0, 0xF, DESC_CODE | DESC_DPL(3), DESC_DB);
    cpu_gdt[SPEC_DATA3 / 8] =
        cpu_segment((uint32_t)based_data, sizeof(based_data) - 1, DESC_DATA | DESC_DPL(3), DESC_DB);

    call_gate(0, SEL_CODE(0), DESC_CALL | DESC_DPL(3), 0);
    call_gate(1, SEL_CODE(0), DESC_CALL | DESC_DPL(3), 3);
    call_gate(2, SEL_CODE(1), DESC_CALL | DESC_DPL(3), 1);
    call_gate(3, SEL_CODE(3), DESC_CALL | DESC_DPL(3), 0);
    call_gate(4, SPEC_TYPE(CONFORMING, 0), DESC_CALL | DESC_DPL(3), 2);
    call_gate(5, SEL_CODE(0), DESC_CALL | DESC_DPL(0), 0);
    call_gate(6, SEL_CODE(1), DESC_CALL | DESC_DPL(1), 0);
    call_gate(7, SEL_CODE(0), DESC_CALL - DESC_PRESENT + DESC_DPL(3), 0);
    call_gate(8, SEL_DATA(0), DESC_CALL | DESC_DPL(3), 0);
    call_gate(9, 3, DESC_CALL | DESC_DPL(3), 0);
    call_gate(10, 0xFFF8, DESC_CALL | DESC_DPL(3), 0);
    call_gate(11, SPEC_ABSENT + 8, DESC_CALL | DESC_DPL(3), 0);
    call_gate(12, SPEC_TYPE(CODE, 0), DESC_CALL16 | DESC_DPL(3), 0);
    call_gate(13, SPEC_TYPE(CODE, 0), DESC_CALL16 | DESC_DPL(3), 5);
    call_gate(14, SPEC_TYPE(CODE, 3), DESC_CALL16 | DESC_DPL(3), 0);
    call_gate(15, SPEC_SHORT, DESC_CALL | DESC_DPL(3), 0);
}

static const uint16_t special[] = {
    0,      1,      2,      3, 4, 7, sizeof(cpu_gdt), sizeof(cpu_gdt) + 11, sizeof(cpu_ldt) + 4,
    0x7FF8, 0xFFFB, 0xFFFF,
};

enum { LDT_TRIED = 18 };

unsigned selector_count(void)
{
    return ARRAY_LEN(special) + 4 * (SPEC_END / 8 - 1 + LDT_TRIED);
}

uint16_t selector_at(unsigned i)
{
    if (i < ARRAY_LEN(special))
        return special[i];
    i -= ARRAY_LEN(special);
    if (i < 4 * LDT_TRIED)
        return (uint16_t)(i / 4 * 8 + TABLE_LDT + i % 4);
    i -= 4 * LDT_TRIED;
    return (uint16_t)(8 + i / 4 * 8 + i % 4);
}

struct descriptor *model_descriptor(uint16_t selector)
{
    uint16_t ldtr;
    bool local = selector & TABLE_LDT;

    if (selector < 4)
        return NULL;
    __asm__("sldt %0" : "=m"(ldtr));
    if (local)
        return ldtr && selector / 8 < LDT_ENTRIES ? &cpu_ldt[selector / 8] : NULL;
    return selector / 8 < GDT_ENTRIES ? &cpu_gdt[selector / 8] : NULL;
}

uint32_t desc_limit(const struct descriptor *d)
{
    uint32_t limit = (d->low & 0xFFFF) | (d->high & 0xF0000);
    return d->high & 1u << 23 ? limit << 12 | 0xFFF : limit;
}

static bool is_code(const struct descriptor *d)
{
    return desc_s(d) && (desc_type(d) & 8);
}

static bool is_conforming(const struct descriptor *d)
{
    return desc_s(d) && (desc_type(d) & 12) == 12;
}

static bool is_writable_data(const struct descriptor *d)
{
    return desc_s(d) && (desc_type(d) & 10) == 2;
}

/* The privilege check of LAR, LSL, VERR, VERW and of data segment loads. */
static bool visible(const struct descriptor *d, unsigned cpl, uint16_t selector)
{
    return is_conforming(d) || (cpl <= desc_dpl(d) && (selector & 3u) <= desc_dpl(d));
}

bool model_lar(unsigned cpl, uint16_t selector, uint32_t *rights)
{
    /* Valid system types: 1-5, 9, B, C (SDM 2A, LAR). */
    const struct descriptor *d = model_descriptor(selector);

    if (!d || (!desc_s(d) && !(0x1A3E >> desc_type(d) & 1)) || !visible(d, cpl, selector))
        return false;
    *rights = d->high & 0xF0FF00;
    return true;
}

bool model_lsl(unsigned cpl, uint16_t selector, uint32_t *limit)
{
    /* Valid system types: 1-3, 9, B. */
    const struct descriptor *d = model_descriptor(selector);

    if (!d || (!desc_s(d) && !(0x0A0E >> desc_type(d) & 1)) || !visible(d, cpl, selector))
        return false;
    *limit = desc_limit(d);
    return true;
}

bool model_verr(unsigned cpl, uint16_t selector)
{
    const struct descriptor *d = model_descriptor(selector);
    return d && desc_s(d) && (desc_type(d) & 10) != 8 && visible(d, cpl, selector);
}

bool model_verw(unsigned cpl, uint16_t selector)
{
    const struct descriptor *d = model_descriptor(selector);
    return d && is_writable_data(d) && visible(d, cpl, selector);
}

static struct outcome fault(unsigned vector, uint16_t selector)
{
    return (struct outcome){vector, selector & 0xFFFCu};
}

static const struct outcome fine = {VEC_END, 0};

static struct outcome load_stack(unsigned cpl, uint16_t selector)
{
    const struct descriptor *d = model_descriptor(selector);

    if (!d || (selector & 3u) != cpl || !is_writable_data(d) || desc_dpl(d) != cpl)
        return fault(VEC_GP, selector);
    return desc_present(d) ? fine : fault(VEC_SS, selector);
}

struct outcome model_load(unsigned cpl, bool stack, uint16_t selector)
{
    const struct descriptor *d = model_descriptor(selector);

    if (stack)
        return load_stack(cpl, selector);
    if (selector < 4)
        return fine;
    if (!d || !desc_s(d) || (desc_type(d) & 10) == 8 || !visible(d, cpl, selector))
        return fault(VEC_GP, selector);
    return desc_present(d) ? fine : fault(VEC_NP, selector);
}

static struct outcome far_gate(unsigned cpl, bool call, const struct descriptor *gate,
                               uint16_t selector, struct far_target *to)
{
    uint16_t cs = (uint16_t)(gate->low >> 16);
    const struct descriptor *d = model_descriptor(cs);

    to->gate_width = desc_type(gate) == 4 ? 2 : 4;
    to->gate_count = gate->high & 31;
    to->eip = (gate->low & 0xFFFF) | (to->gate_width == 4 ? gate->high & 0xFFFF0000 : 0);
    if (!desc_present(gate))
        return fault(VEC_NP, selector);
    if (!d || !is_code(d) || desc_dpl(d) > cpl)
        return fault(VEC_GP, cs);
    if (!call && !is_conforming(d) && desc_dpl(d) != cpl)
        return fault(VEC_GP, cs);
    if (!desc_present(d))
        return fault(VEC_NP, cs);
    if (to->eip > desc_limit(d))
        return fault(VEC_GP, 0);
    to->inner = !is_conforming(d) && desc_dpl(d) < cpl;
    to->cpl = to->inner ? desc_dpl(d) : cpl;
    to->cs = (uint16_t)((cs & ~3u) | to->cpl);
    to->code = d;
    return fine;
}

struct outcome model_far(unsigned cpl, bool call, uint16_t selector, uint32_t offset,
                         struct far_target *to)
{
    const struct descriptor *d = model_descriptor(selector);
    unsigned rpl = selector & 3;

    *to = (struct far_target){.cpl = cpl, .eip = offset, .code = d};
    if (!d)
        return fault(VEC_GP, selector);
    if (!desc_s(d)) {
        unsigned type = desc_type(d);
        bool gate = type == 4 || type == 12;
        bool task = type == 1 || type == 5 || type == 9;
        if ((!gate && !task) || desc_dpl(d) < cpl || desc_dpl(d) < rpl)
            return fault(VEC_GP, selector);
        to->task = task;
        return gate ? far_gate(cpl, call, d, selector, to) : fine;
    }
    if (!is_code(d))
        return fault(VEC_GP, selector);
    if (is_conforming(d) ? desc_dpl(d) > cpl : rpl > cpl || desc_dpl(d) != cpl)
        return fault(VEC_GP, selector);
    if (!desc_present(d))
        return fault(VEC_NP, selector);
    if (offset > desc_limit(d))
        return fault(VEC_GP, 0);
    to->cs = (uint16_t)((selector & ~3u) | cpl);
    return fine;
}

struct outcome model_return(unsigned cpl, uint16_t cs, uint32_t eip, uint16_t ss)
{
    const struct descriptor *d = model_descriptor(cs);
    unsigned rpl = cs & 3;

    if (!d || !is_code(d) || rpl < cpl)
        return fault(VEC_GP, cs);
    if (is_conforming(d) ? desc_dpl(d) > rpl : desc_dpl(d) != rpl)
        return fault(VEC_GP, cs);
    if (!desc_present(d))
        return fault(VEC_NP, cs);
    if (rpl > cpl) {
        struct outcome o = load_stack(rpl, ss);
        if (o.vector != VEC_END)
            return o;
    }
    return eip > desc_limit(d) ? fault(VEC_GP, 0) : fine;
}
