/*
 * System calls and the registers behind them: INT, SYSENTER and call gates there and back, stacks
 * from the TSS, the I/O bitmap and IOPL, LGDT LIDT LLDT LTR, LMSW and CLTS, control and debug
 * registers, MSRs, far pointer loads, ARPL, CPUID.
 *
 * Bochs passes. QEMU 7.2's TCG has no check of the reserved bits of CR0 and CR4.
 */
#include "check.h"

enum {
    SEL_SYSENTER = SEL_FREE, /* four descriptors in SYSENTER's order */
    SEL_GATE = SEL_FREE + 32,
    SEL_GATE1 = SEL_FREE + 40,
    SEL_TSS2 = SEL_FREE + 48,
    SEL_LDT2 = SEL_FREE + 56,
    SEL_BASED = SEL_FREE + 64,
    MSR_SYSENTER_CS = 0x174,
    MSR_SYSENTER_ESP,
    MSR_SYSENTER_EIP,
};

/* Handlers at ring 0: they stand in kernel pages and return by themselves. */
__asm__(".text\n"
        "int80: addl $3, %eax\n"
        "incl %ebx\n"
        "iretl\n"
        "int81: pushl %ds\n"
        "pushl %es\n"
        "pushl %fs\n"
        "movl $0x10, %edx\n"
        "movl %edx, %ds\n"
        "movl %edx, %es\n"
        "movl %edx, %fs\n"
        "movl 12+4(%esp), %edx\n" /* CS of the caller */
        "addl $3, %eax\n"
        "popl %fs\n"
        "popl %es\n"
        "popl %ds\n"
        "iretl\n"
        "fast_call: addl $3, %eax\n"
        "incl %ebx\n"
        "sysexit\n"
        "fast_look: int $0x30\n"
        "gate_call: movl 8(%esp), %edx\n"
        "addl 12(%esp), %edx\n"
        "addl %edx, %eax\n"
        "lret $8\n"
        "gate_call1: pushl $5\n"
        "pushl $2\n"
        "lcall $0x78, $0\n"
        "incl %ebx\n"
        "lret\n");
extern const char int80[], int81[], fast_call[], fast_look[], gate_call[], gate_call1[];

CODE(use_int80, "1: int $0x80\ndecl %ecx\njnz 1b");
CODE(use_int81, "1: int $0x81\naddl %edx, %esi\ndecl %ecx\njnz 1b");
CODE(use_sysenter, "movl %ecx, %ebp\n"
                   "1: movl %esp, %ecx\n"
                   "movl $2f, %edx\n"
                   "sysenter\n"
                   "ud2\n"
                   "2: decl %ebp\n"
                   "jnz 1b");
CODE(one_sysenter, "one_sysenter_at: sysenter");
CODE(one_sysexit, "one_sysexit_at: sysexit");
CODE(use_gate, "1: pushl $5\n"
               "pushl $2\n"
               "lcall $0x78, $0\n"
               "decl %ecx\n"
               "jnz 1b");
/* Through ring 1 to ring 0 and back; the inner gate takes two words of ring 1's stack. */
CODE(use_gate1, "1: lcall $0x80, $0\ndecl %ecx\njnz 1b");
CODE(one_int82, "int $0x82");
extern const char one_sysenter_at[], one_sysexit_at[];

static void check_calls(void)
{
    struct cpu_state s;

    cpu_idt[0x80] = cpu_gate(SEL_KCODE, (uint32_t)int80, DESC_INT | DESC_DPL(3), 0);
    cpu_idt[0x81] = cpu_gate(SEL_KCODE, (uint32_t)int81, DESC_TRAP | DESC_DPL(3), 0);
    for (unsigned ring = 0; ring < 4; ring++) {
        cpu_start(&s, use_int80, ring);
        s.ecx = 500;
        s.eflags |= FLAG_CF | FLAG_IF;
        struct cpu_state before = s;
        run_to_end(&s, "int 80h");
        check_equal(s.eax, 1500, "int 80h at ring %u: eax", ring);
        check_equal(s.ebx, 500, "int 80h at ring %u: ebx", ring);
        check(s.esp == before.esp && s.ss == before.ss && s.cs == before.cs, "int 80h: stack");
        check_equal(s.eflags & (FLAG_CF | FLAG_IF), FLAG_CF | FLAG_IF, "int 80h: flags");
        cpu_start(&s, use_int81, ring);
        s.ecx = 200;
        before = s;
        run_to_end(&s, "int 81h");
        check_equal(s.eax, 600, "int 81h at ring %u: eax", ring);
        check_equal(s.esi, 200 * before.cs, "int 81h at ring %u: CS", ring);
        check(!memcmp(&s.gs, &before.gs, 16), "int 81h: segment registers");
    }

    /* Call gates, with parameters. */
    cpu_gdt[SEL_GATE / 8] = cpu_gate(SEL_KCODE, (uint32_t)gate_call, DESC_CALL | DESC_DPL(3), 2);
    cpu_gdt[SEL_GATE1 / 8] =
        cpu_gate(SEL_CODE(1), (uint32_t)gate_call1, DESC_CALL | DESC_DPL(3), 0);
    for (unsigned ring = 0; ring < 4; ring++) {
        cpu_start(&s, use_gate, ring);
        s.ecx = 300;
        uint32_t esp = s.esp;
        run_to_end(&s, "call gate");
        check_equal(s.eax, 300 * 7, "call gate at ring %u: eax", ring);
        check_equal(s.esp, esp, "call gate at ring %u: esp", ring);
    }
    cpu_start(&s, use_gate1, 3);
    s.ecx = 100;
    uint32_t esp = s.esp;
    run_to_end(&s, "call gate by way of ring 1");
    check_equal(s.eax, 700, "call gate by way of ring 1: eax");
    check_equal(s.ebx, 100, "call gate by way of ring 1: ebx");
    check_equal(s.esp, esp, "call gate by way of ring 1: esp");
}

static void check_sysenter(void)
{
    struct cpu_state s;
    uint32_t leaf[4];

    cpuid(1, leaf);
    if (!(leaf[3] >> 11 & 1))
        return;
    for (unsigned i = 0; i < 4; i++)
        cpu_gdt[SEL_SYSENTER / 8 + i] =
            cpu_segment(0, 0xFFFFF, (i & 1 ? DESC_DATA : DESC_CODE) | DESC_DPL(i < 2 ? 0 : 3),
                        DESC_G | DESC_DB);
    write_msr(MSR_SYSENTER_CS, SEL_SYSENTER);
    write_msr(MSR_SYSENTER_ESP, (uint32_t)cpu_inner_stack[0] + 4096);
    write_msr(MSR_SYSENTER_EIP, (uint32_t)fast_call);
    check_equal((uint32_t)read_msr(MSR_SYSENTER_EIP), (uint32_t)fast_call, "SYSENTER_EIP");
    cpu_start(&s, use_sysenter, 3);
    s.ecx = 500;
    uint32_t esp = s.esp;
    run_to_end(&s, "sysenter");
    check_equal(s.eax, 1500, "sysenter: eax");
    check_equal(s.ebx, 500, "sysenter: ebx");
    check_equal(s.esp, esp, "sysenter: esp");
    check_equal(s.cs, SEL_SYSENTER + 16 + 3, "sysexit: CS");
    check_equal(s.ss, SEL_SYSENTER + 24 + 3, "sysexit: SS");

    write_msr(MSR_SYSENTER_EIP, (uint32_t)fast_look);
    for (unsigned ring = 0; ring < 4; ring += 3) {
        cpu_start(&s, one_sysenter, ring);
        s.eflags |= FLAG_IF | FLAG_CF;
        run_to_end(&s, "sysenter, looked at");
        check_equal(s.cs, SEL_SYSENTER, "sysenter: CS");
        check_equal(s.ss, SEL_SYSENTER + 8, "sysenter: SS");
        check_equal(s.eip, (uint32_t)fast_look + 2, "sysenter: EIP");
        check_equal(s.esp, (uint32_t)cpu_inner_stack[0] + 4096, "sysenter: ESP");
        check_equal(s.eflags & (FLAG_IF | FLAG_CF), FLAG_CF, "sysenter: flags");
    }
    cpu_start(&s, one_sysexit, 3);
    cpu_run(&s);
    check_trap(&s, VEC_GP, 0, one_sysexit_at, "sysexit at ring 3");
    write_msr(MSR_SYSENTER_CS, 0);
    cpu_start(&s, one_sysenter, 3);
    cpu_run(&s);
    check_trap(&s, VEC_GP, 0, one_sysenter_at, "sysenter without a selector");
    cpu_start(&s, one_sysexit, 0);
    cpu_run(&s);
    check_trap(&s, VEC_GP, 0, one_sysexit_at, "sysexit without a selector");
}

/* The TSS is memory: a new ESP0 counts from the next interrupt on. */
static void check_tss(void)
{
    struct cpu_state s;
    uint32_t kept = cpu_tss.stack[0].esp;

    for (uint32_t n = 0; n < 4; n++) {
        uint32_t esp = (uint32_t)cpu_inner_stack[0] + 2048 + 256 * n;
        memset(cpu_inner_stack[0] + 2048, 0, 1024);
        cpu_tss.stack[0].esp = esp;
        cpu_start(&s, one_int82, 3);
        cpu_idt[0x82] = cpu_gate(SEL_KCODE, (uint32_t)fast_look, DESC_INT | DESC_DPL(3), 0);
        uint32_t user = s.esp;
        run_to_end(&s, "stack of the TSS");
        check_equal(s.esp, esp - 20, "stack of the TSS: ESP");
        uint32_t *frame = (uint32_t *)s.esp;
        check(frame[0] == (uint32_t)one_int82_end && (frame[1] & 0xFFFF) == SEL_UCODE &&
                  frame[3] == user && (frame[4] & 0xFFFF) == SEL_UDATA,
              "stack of the TSS: frame");
    }
    cpu_tss.stack[0].esp = kept;
}

CODE(in8, "inb %dx, %al");
CODE(in16, "inw %dx, %ax");
CODE(in32, "inl %dx, %eax");
CODE(out8, "outb %al, %dx");
CODE(out16, "outw %ax, %dx");
CODE(outs8, "outsb");
CODE(in_imm, "inb $0x84, %al");
CODE(ring_sti, "sti\nnop\npushfl\npopl %ebx\ncli\npushfl\npopl %ecx");

static void io(const char *what, const char *code, unsigned ring, unsigned iopl, uint16_t port,
               bool ok)
{
    struct cpu_state s;

    cpu_start(&s, code, ring);
    s.edx = port;
    s.esi = (uint32_t)cpu_stack[3];
    s.eflags |= FLAGS_IOPL(iopl);
    cpu_run(&s);
    check_trap(&s, ok ? VEC_END : VEC_GP, ok ? -1 : 0, ok ? NULL : code, what);
}

static void allow(unsigned port, bool yes)
{
    uint8_t bit = (uint8_t)(1 << port % 8);

    cpu_tss.io[port / 8] =
        (uint8_t)(yes ? cpu_tss.io[port / 8] & ~bit : cpu_tss.io[port / 8] | bit);
}

/* SDM 1 19.5: every byte of the access needs its bit, unless CPL <= IOPL. 80h-8Fh are harmless
 * ports. */
static void check_io(void)
{
    memset(cpu_tss.io, 0xFF, sizeof(cpu_tss.io));
    cpu_tss.io_map = offsetof(struct tss, io);
    io("no bit", in8, 3, 0, 0x84, false);
    allow(0x84, true);
    io("bit of the port", in8, 3, 0, 0x84, true);
    io("bit of the port, OUT", out8, 3, 0, 0x84, true);
    io("bit of the port, OUTS", outs8, 3, 0, 0x84, true);
    io("bit of the port, immediate", in_imm, 3, 0, 0, true);
    io("one of two bits", in16, 3, 0, 0x84, false);
    io("neighbour", in8, 3, 0, 0x85, false);
    allow(0x85, true);
    io("two bits", in16, 3, 0, 0x84, true);
    io("two bits, OUT", out16, 3, 0, 0x84, true);
    io("two of four bits", in32, 3, 0, 0x84, false);
    allow(0x86, true);
    allow(0x87, true);
    io("four bits", in32, 3, 0, 0x84, true);
    io("across a byte of the map", in16, 3, 0, 0x87, false);
    allow(0x88, true);
    io("across a byte of the map", in16, 3, 0, 0x87, true);
    allow(0x84, false);
    io("bit taken back", in8, 3, 0, 0x84, false);
    io("bit taken back, OUTS", outs8, 3, 0, 0x84, false);
    io("bit taken back, immediate", in_imm, 3, 0, 0, false);
    io("IOPL", in8, 3, 3, 0x84, true);
    io("IOPL too low", in8, 3, 2, 0x84, false);
    io("ring 1 with IOPL 1", in8, 1, 1, 0x84, true);
    io("ring 1 with IOPL 0", in8, 1, 0, 0x84, false);
    io("ring 0", in8, 0, 0, 0x84, true);
    /* A map past the TSS's limit is none. */
    cpu_tss.io_map = sizeof(cpu_tss);
    allow(0x84, true);
    io("no map", in8, 3, 0, 0x84, false);

    struct cpu_state s;
    for (unsigned ring = 1; ring < 4; ring++) {
        cpu_start(&s, ring_sti, ring);
        s.eflags |= FLAG_IOPL;
        run_to_end(&s, "sti with IOPL 3");
        check_equal(s.ebx & (FLAG_IF | FLAG_IOPL), FLAG_IF | FLAG_IOPL, "sti with IOPL 3");
        check_equal(s.ecx & (FLAG_IF | FLAG_IOPL), FLAG_IOPL, "cli with IOPL 3");
    }
}

CODE(do_ltr, "ltr %ax");
CODE(do_lldt, "lldt %ax");
CODE(do_str, "str %eax");
CODE(do_fs, "movl %eax, %fs\nmovl %fs:0, %ecx");

static void system_insn(const char *what, const char *code, uint32_t eax, unsigned vector,
                        int error)
{
    struct cpu_state s;

    cpu_start(&s, code, 0);
    s.eax = eax;
    cpu_run(&s);
    check_trap(&s, vector, error, vector == VEC_END ? NULL : code, what);
}

static void check_table_registers(void)
{
    static struct descriptor other_gdt[GDT_ENTRIES] __attribute__((aligned(16)));
    static struct descriptor ldt2[4] __attribute__((aligned(16)));
    static uint32_t one = 0x1111, two = 0x2222;
    struct table_register r = {sizeof(cpu_gdt) - 1, (uint32_t)cpu_gdt}, saved;
    struct cpu_state s;

    /* LTR marks its TSS busy and refuses a busy one. */
    cpu_gdt[SEL_TSS2 / 8] = cpu_segment((uint32_t)&cpu_tss, sizeof(cpu_tss) - 1, DESC_TSS, 0);
    system_insn("ltr of null", do_ltr, 0, VEC_GP, 0);
    system_insn("ltr", do_ltr, SEL_TSS2, VEC_END, -1);
    check_equal(cpu_gdt[SEL_TSS2 / 8].high >> 8 & 15, 11, "ltr: busy");
    system_insn("ltr of a busy TSS", do_ltr, SEL_TSS2, VEC_GP, SEL_TSS2);
    system_insn("ltr of data", do_ltr, SEL_KDATA, VEC_GP, SEL_KDATA);
    system_insn("ltr past the limit", do_ltr, 0xFFF8, VEC_GP, 0xFFF8);
    cpu_gdt[SEL_TSS / 8].high = (cpu_gdt[SEL_TSS / 8].high & ~0xFF00u) | DESC_TSS << 8;
    system_insn("ltr back", do_ltr, SEL_TSS, VEC_END, -1);
    cpu_gdt[SEL_TSS2 / 8].high &= ~0x8200u;
    system_insn("ltr of an absent TSS", do_ltr, SEL_TSS2, VEC_NP, SEL_TSS2);

    /* LLDT: selectors of the LDT lead elsewhere. */
    cpu_ldt[1] = cpu_segment((uint32_t)&one, 3, DESC_DATA | DESC_DPL(3), DESC_DB);
    ldt2[1] = cpu_segment((uint32_t)&two, 3, DESC_DATA | DESC_DPL(3), DESC_DB);
    cpu_gdt[SEL_LDT2 / 8] = cpu_segment((uint32_t)ldt2, sizeof(ldt2) - 1, DESC_LDT, 0);
    for (unsigned i = 0; i < 6; i++) {
        system_insn("lldt", do_lldt, i & 1 ? SEL_LDT2 : SEL_LDT, VEC_END, -1);
        cpu_start(&s, do_fs, 3);
        s.eax = 8 + 4 + 3;
        run_to_end(&s, "segment of the LDT");
        check_equal(s.ecx, i & 1 ? 0x2222 : 0x1111, "segment of the LDT");
    }
    cpu_start(&s, do_fs, 3);
    s.eax = 4 * 8 + 4 + 3;
    cpu_run(&s);
    check_trap(&s, VEC_GP, 4 * 8 + 4, do_fs, "past the LDT's limit");
    system_insn("lldt of data", do_lldt, SEL_KDATA, VEC_GP, SEL_KDATA);
    system_insn("lldt of null", do_lldt, 0, VEC_END, -1);
    cpu_start(&s, do_fs, 3);
    s.eax = 8 + 4 + 3;
    cpu_run(&s);
    check_trap(&s, VEC_GP, 8 + 4, do_fs, "no LDT");
    system_insn("lldt back", do_lldt, SEL_LDT, VEC_END, -1);

    /* LGDT: the same selector in another table. */
    cpu_gdt[SEL_BASED / 8] = cpu_segment((uint32_t)&one, 3, DESC_DATA | DESC_DPL(3), DESC_DB);
    memcpy(other_gdt, cpu_gdt, sizeof(cpu_gdt));
    other_gdt[SEL_BASED / 8] = cpu_segment((uint32_t)&two, 3, DESC_DATA | DESC_DPL(3), DESC_DB);
    for (unsigned i = 0; i < 6; i++) {
        r.base = (uint32_t)(i & 1 ? other_gdt : cpu_gdt);
        __asm__ volatile("lgdt %0" : : "m"(r));
        __asm__ volatile("sgdt %0" : "=m"(saved));
        check(saved.base == r.base && saved.limit == r.limit, "lgdt and sgdt");
        cpu_start(&s, do_fs, 3);
        s.eax = SEL_BASED + 3;
        run_to_end(&s, "segment of another GDT");
        check_equal(s.ecx, i & 1 ? 0x2222 : 0x1111, "segment of another GDT");
    }
    r.base = (uint32_t)cpu_gdt;
    __asm__ volatile("lgdt %0" : : "m"(r));

    /* LIDT: another handler for the same vector. */
    static struct descriptor other_idt[IDT_ENTRIES] __attribute__((aligned(16)));
    struct table_register idt = {sizeof(cpu_idt) - 1, (uint32_t)cpu_idt};
    memcpy(other_idt, cpu_idt, sizeof(cpu_idt));
    other_idt[0x80] =
        cpu_gate(SEL_KCODE, (uint32_t)cpu_stubs + 16 * 0x60, DESC_INT | DESC_DPL(3), 0);
    for (unsigned i = 0; i < 4; i++) {
        idt.base = (uint32_t)(i & 1 ? other_idt : cpu_idt);
        __asm__ volatile("lidt %0" : : "m"(idt));
        cpu_start(&s, use_int80, 3);
        s.ecx = 1;
        cpu_run(&s);
        check_equal(s.vector, i & 1 ? 0x60 : VECTOR_END, "lidt");
    }
    idt.base = (uint32_t)cpu_idt;
    __asm__ volatile("lidt %0" : : "m"(idt));
}

CODE(do_lmsw, "lmsw %ax\nsmsww %cx");
CODE(do_clts, "clts\nsmsww %cx");
CODE(set_cr0, "movl %eax, %cr0\nmovl %cr0, %ecx");
CODE(set_cr4, "movl %eax, %cr4\nmovl %cr4, %ecx");
CODE(get_msr, "rdmsr");
CODE(set_msr, "wrmsr");
CODE(debug_registers, "movl %eax, %dr0\n"
                      "incl %eax\n"
                      "movl %eax, %dr3\n"
                      "movl %dr0, %ecx\n"
                      "movl %dr3, %edx\n"
                      "movl %dr7, %ebx\n"
                      "xorl %eax, %eax\n"
                      "movl %eax, %dr0\n"
                      "movl %eax, %dr3");

static void check_control_registers(void)
{
    struct cpu_state s;
    uint32_t cr0 = read_cr0(), cr4 = read_cr4();

    cpu_start(&s, do_lmsw, 0);
    s.eax = CR0_TS | CR0_MP;
    run_to_end(&s, "lmsw");
    check_equal(s.ecx & 15, CR0_TS | CR0_MP | CR0_PE, "lmsw leaves PE set");
    cpu_start(&s, do_clts, 0);
    run_to_end(&s, "clts");
    check_equal(s.ecx & 15, CR0_MP | CR0_PE, "clts");
    write_cr0(cr0);

    for (unsigned i = 0; i < 3; i++) {
        /* PG without PE; NW without CD; a reserved upper bit cannot be tested in 32 bits. */
        static const uint32_t set[] = {0x80000000, 0x20000000, 0},
                              clear[] = {CR0_PE, 0x40000000, 0};
        cpu_start(&s, set_cr0, 0);
        s.eax = (cr0 & ~clear[i]) | set[i];
        cpu_run(&s);
        check_trap(&s, i < 2 ? VEC_GP : VEC_END, i < 2 ? 0 : -1, i < 2 ? set_cr0 : NULL, "mov cr0");
        check_equal(read_cr0(), cr0, "cr0 after it");
    }
    cpu_start(&s, set_cr4, 0);
    s.eax = cr4 | 1u << 31;
    cpu_run(&s);
    check_trap(&s, VEC_GP, 0, set_cr4, "reserved bit of cr4");
    check_equal(read_cr4(), cr4, "cr4 after it");

    cpu_start(&s, get_msr, 0);
    s.ecx = 0x12345;
    cpu_run(&s);
    check_trap(&s, VEC_GP, 0, get_msr, "rdmsr of nothing");
    cpu_start(&s, debug_registers, 0);
    s.eax = 0x12345678;
    run_to_end(&s, "debug registers");
    check(s.ecx == 0x12345678 && s.edx == 0x12345679, "debug registers");
    check_equal(s.ebx & 0xFFFFFFFF, 0x400, "dr7");
}

CODE(far_loads, "ldsl (%ebx), %ecx\n"
                "lesl %ss:8(%ebx), %edx\n"
                "lfsl %ss:(%ebx), %esi\n"
                "lgsl %ss:8(%ebx), %edi");
CODE(do_lss,
     "movl %esp, %edi\nlssl (%ebx), %esp\npushl %eax\npopl %ecx\nmovl %esp, %edx\nmovl %edi, %esp");
CODE(do_arpl, "arpl %cx, %ax");
CODE(do_cpuid, "cpuid");
CODE(flip_id, "pushfl\n"
              "popl %eax\n"
              "movl %eax, %ebx\n"
              "xorl $0x200000, %eax\n"
              "pushl %eax\n"
              "popfl\n"
              "pushfl\n"
              "popl %ecx\n"
              "xorl %ebx, %ecx");

static void check_rest(unsigned ring)
{
    struct cpu_state s;
    USER_DATA static struct {
        uint32_t offset, selector;
    } far[2];

    far[0].offset = 0xAAAA5555;
    far[1].offset = 0x12345678;
    far[0].selector = far[1].selector = SEL_DATA(3);
    far[1].selector = 0;
    cpu_start(&s, far_loads, ring);
    s.ebx = (uint32_t)far;
    run_to_end(&s, "far pointer loads");
    check(s.ecx == 0xAAAA5555 && s.edx == 0x12345678 && s.esi == 0xAAAA5555 && s.edi == 0x12345678,
          "far pointer loads: offsets");
    check(s.ds == SEL_DATA(3) && s.es == 0 && s.fs == SEL_DATA(3) && s.gs == 0,
          "far pointer loads: selectors");
    far[0].offset = (uint32_t)cpu_stack[3] + 1024;
    far[0].selector = SEL_DATA(ring);
    cpu_start(&s, do_lss, ring);
    s.ebx = (uint32_t)far;
    s.eax = 77;
    run_to_end(&s, "lss");
    check(s.ecx == 77 && s.edx == (uint32_t)cpu_stack[3] + 1024, "lss");

    for (unsigned i = 0; i < 16; i++) {
        cpu_start(&s, do_arpl, ring);
        s.eax = 0x10 | (i & 3);
        s.ecx = 0x20 | i >> 2;
        s.eflags |= i & 1 ? FLAG_ZF : 0;
        run_to_end(&s, "arpl");
        bool raised = (i & 3) < i >> 2;
        check_equal(s.eax, 0x10 | (raised ? i >> 2 : i & 3), "arpl: selector");
        check_equal(!!(s.eflags & FLAG_ZF), raised, "arpl: ZF");
    }

    cpu_start(&s, flip_id, ring);
    run_to_end(&s, "EFLAGS.ID");
    check_equal(s.ecx, FLAG_ID, "EFLAGS.ID");
    cpu_start(&s, do_cpuid, ring);
    run_to_end(&s, "cpuid 0");
    check(s.eax >= 1 && s.ebx && s.ecx && s.edx, "cpuid 0");
    cpu_start(&s, do_cpuid, ring);
    s.eax = 1;
    run_to_end(&s, "cpuid 1");
    check(s.edx & 1, "cpuid 1: FPU");
}

int guest_main(void)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        check_calls();
        check_sysenter();
        check_tss();
        check_io();
        check_table_registers();
        check_control_registers();
        check_rest(0);
        check_rest(3);
        if (round & 1)
            touch_all_code();
    }
    return check_done("system");
}
