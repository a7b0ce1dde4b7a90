/*
 * In QEMU's layout ("info registers"), so that what people know, and their scripts, still work.
 */
#include "machine/print_state.h"

static void print_flags(uint32_t flags, FILE *to)
{
    static const struct {
        uint32_t bit;
        char letter;
    } letters[] = {{FLAG_DF, 'D'}, {FLAG_OF, 'O'}, {FLAG_SF, 'S'}, {FLAG_ZF, 'Z'},
                   {FLAG_AF, 'A'}, {FLAG_PF, 'P'}, {FLAG_CF, 'C'}};

    fprintf(to, "EFL=%08x [", flags);
    for (unsigned i = 0; i < ARRAY_LEN(letters); i++)
        fputc(flags & letters[i].bit ? letters[i].letter : '-', to);
    fputc(']', to);
}

static void print_segment(const char *name, const struct segment *s, FILE *to)
{
    fprintf(to, "%s=%04x %08x %08x %08x DPL=%d%s\n", name, s->sel, s->base, s->limit,
            (uint32_t)s->attr << 8, (s->attr & ATTR_DPL) >> ATTR_DPL_SHIFT,
            s->attr & ATTR_P ? "" : " not present");
}

void print_state(const struct vcpu *v, FILE *to)
{
    static const char *const segments[] = {"ES ", "CS ", "SS ", "DS ", "FS ", "GS "};

    fprintf(to, "EAX=%08x EBX=%08x ECX=%08x EDX=%08x\n", vcpu_reg32(v, REG_AX),
            vcpu_reg32(v, REG_BX), vcpu_reg32(v, REG_CX), vcpu_reg32(v, REG_DX));
    fprintf(to, "ESI=%08x EDI=%08x EBP=%08x ESP=%08x\n", vcpu_reg32(v, REG_SI),
            vcpu_reg32(v, REG_DI), vcpu_reg32(v, REG_BP), vcpu_reg32(v, REG_SP));
    fprintf(to, "EIP=%08x ", (uint32_t)v->rip);
    print_flags(vcpu_eflags(v), to);
    fprintf(to, " CPL=%u HLT=%d\n", v->cpl, v->halted);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        print_segment(segments[i], &v->seg[i], to);
    print_segment("LDT", &v->ldtr, to);
    print_segment("TR ", &v->tr, to);
    fprintf(to, "GDT=     %08x %08x\nIDT=     %08x %08x\n", v->gdtr.base, v->gdtr.limit,
            v->idtr.base, v->idtr.limit);
    fprintf(to, "CR0=%08x CR2=%08x CR3=%08x CR4=%08x\n", v->cr0, v->cr2, v->cr3, v->cr4);
    fprintf(to, "DR0=%08x DR1=%08x DR2=%08x DR3=%08x DR6=%08x DR7=%08x\n", v->dr[0], v->dr[1],
            v->dr[2], v->dr[3], v->dr[6], v->dr[7]);
    fprintf(to, "EFER=%016llx\n", (unsigned long long)v->efer);
}
