/*
 * Descriptor tables and traps. The GDT is the one that selectors.h describes; all 256 gates of the
 * IDT lead to the stubs of start.S as 32-bit interrupt gates of DPL 0, but VECTOR_END, BP and OF,
 * which every ring may use.
 */
#include "cpu.h"
#include "console.h"

struct descriptor cpu_gdt[GDT_ENTRIES] __attribute__((aligned(16)));
struct descriptor cpu_ldt[LDT_ENTRIES] __attribute__((aligned(16)));
struct descriptor cpu_idt[IDT_ENTRIES] __attribute__((aligned(16)));
struct tss cpu_tss __attribute__((aligned(128)));
uint8_t cpu_stack[4][STACK_BYTES] __attribute__((aligned(4096)));
uint8_t cpu_inner_stack[3][STACK_BYTES] __attribute__((aligned(4096)));

extern struct cpu_state cpu_area;
void cpu_enter(void);
bool cpu_trap(void);

static struct cpu_state *run_state;
static cpu_handler *handlers[IDT_ENTRIES];

struct descriptor cpu_segment(uint32_t base, uint32_t limit, unsigned access, unsigned flags)
{
    struct descriptor d = {
        .low = (limit & 0xFFFF) | base << 16,
        .high = (base >> 16 & 0xFF) | access << 8 | (limit & 0xF0000) | flags << 20 |
                (base & 0xFF000000),
    };
    return d;
}

struct descriptor cpu_gate(uint16_t selector, uint32_t offset, unsigned access, unsigned count)
{
    struct descriptor d = {
        .low = (offset & 0xFFFF) | (uint32_t)selector << 16,
        .high = (offset & 0xFFFF0000) | access << 8 | count,
    };
    return d;
}

void cpu_init(void)
{
    struct table_register r;

    console_init();
    for (unsigned ring = 0; ring < 4; ring++) {
        cpu_gdt[SEL_CODE(ring) / 8] =
            cpu_segment(0, 0xFFFFF, DESC_CODE | DESC_DPL(ring), DESC_G | DESC_DB);
        cpu_gdt[SEL_DATA(ring) / 8] =
            cpu_segment(0, 0xFFFFF, DESC_DATA | DESC_DPL(ring), DESC_G | DESC_DB);
    }
    cpu_gdt[SEL_TSS / 8] = cpu_segment((uint32_t)&cpu_tss, sizeof(cpu_tss) - 1, DESC_TSS, 0);
    cpu_gdt[SEL_LDT / 8] = cpu_segment((uint32_t)cpu_ldt, sizeof(cpu_ldt) - 1, DESC_LDT, 0);
    r.base = (uint32_t)cpu_gdt;
    r.limit = sizeof(cpu_gdt) - 1;
    __asm__ volatile("lgdt %0\n\t"
                     "ljmp %1, $1f\n"
                     "1:\tmovw %w2, %%ds\n\t"
                     "movw %w2, %%es\n\t"
                     "movw %w2, %%fs\n\t"
                     "movw %w2, %%gs\n\t"
                     "movw %w2, %%ss"
                     :
                     : "m"(r), "i"(SEL_KCODE), "r"(SEL_KDATA)
                     : "memory");
    for (unsigned ring = 0; ring < 3; ring++) {
        cpu_tss.stack[ring].esp = (uint32_t)cpu_inner_stack[ring] + STACK_BYTES;
        cpu_tss.stack[ring].ss = SEL_DATA(ring);
    }
    cpu_tss.io_map = sizeof(cpu_tss);
    __asm__ volatile("lldt %w0\n\tltr %w1" : : "r"(SEL_LDT), "r"(SEL_TSS) : "memory");

    for (unsigned i = 0; i < IDT_ENTRIES; i++) {
        bool open = i == VEC_BP || i == VEC_OF || i == VECTOR_END;
        cpu_idt[i] =
            cpu_gate(SEL_KCODE, (uint32_t)cpu_stubs + 16 * i, DESC_INT | DESC_DPL(open ? 3 : 0), 0);
    }
    r.base = (uint32_t)cpu_idt;
    r.limit = sizeof(cpu_idt) - 1;
    __asm__ volatile("lidt %0" : : "m"(r) : "memory");
    outb(0x21, 0xFF);
    outb(0xA1, 0xFF);
}

void cpu_start(struct cpu_state *s, const void *eip, unsigned ring)
{
    *s = (struct cpu_state){
        .eip = (uint32_t)eip,
        .cs = SEL_CODE(ring),
        .ds = SEL_DATA(ring),
        .es = SEL_DATA(ring),
        .fs = SEL_DATA(ring),
        .gs = SEL_DATA(ring),
        .ss = SEL_DATA(ring),
        .esp = (uint32_t)cpu_stack[ring] + STACK_BYTES - 256,
        .eflags = FLAG_ONE,
    };
}

void cpu_run(struct cpu_state *s)
{
    cpu_area = *s;
    run_state = s;
    cpu_enter();
}

void cpu_handle(unsigned vector, cpu_handler *handler)
{
    handlers[vector] = handler;
}

/* Called by start.S with the state in cpu_area: whether to go on with it. */
bool cpu_trap(void)
{
    struct cpu_state *s = &cpu_area;

    s->vector &= 0xFF;
    s->cs &= 0xFFFF;
    s->ss &= 0xFFFF;
    s->ds &= 0xFFFF;
    s->es &= 0xFFFF;
    s->fs &= 0xFFFF;
    s->gs &= 0xFFFF;
    if (handlers[s->vector] && handlers[s->vector](s))
        return true;
    if (run_state) {
        *run_state = *s;
        run_state = NULL;
        return false;
    }
    print("unexpected trap %u (error %x) at %04x:%08x, cr2 %08x, eflags %08x\n", s->vector,
          s->error, s->cs, s->eip, s->cr2, s->eflags);
    print("eax %08x ebx %08x ecx %08x edx %08x esi %08x edi %08x ebp %08x esp %08x\n", s->eax,
          s->ebx, s->ecx, s->edx, s->esi, s->edi, s->ebp, s->esp);
    guest_exit(1);
}
