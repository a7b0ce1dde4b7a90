/*
 * The guest that is inside novt: runs every sensitive instruction at rings 0, 1 and 3, compares
 * what happened with what a bare machine does (model.h), prints a table, and powers off with the
 * verdict. Every snippet runs with all selectors or flags, so its code is met cold, hot and linked.
 */
#include "lib/console.h"
#include "model.h"
#include "report.h"

static const unsigned rings[] = {0, 1, 3};

static const struct row rows[] = {
    {"SGDT", "GDTR's base and limit", check_sgdt},
    {"SIDT", "IDTR's base and limit", check_sidt},
    {"SLDT", "selector of the LDT", check_sldt},
    {"SMSW", "machine status word", check_smsw},
    {"PUSHF", "IF and IOPL as the guest set them", check_pushf},
    {"POPF", "IF and IOPL by privilege, silently", check_popf},
    {"LAR", "access rights, by CPL and RPL", check_lar},
    {"LSL", "segment limit, by CPL and RPL", check_lsl},
    {"VERR", "readable, by CPL and RPL", check_verr},
    {"VERW", "writable, by CPL and RPL", check_verw},
    {"PUSH sreg", "selectors with the guest's ring", check_push},
    {"POP sreg", "segment loads and their faults", check_pop},
    {"MOV r, sreg", "selectors with the guest's ring", check_mov_from},
    {"MOV sreg, r", "segment loads and their faults", check_mov_to},
    {"STR", "selector of the TSS", check_str},
    {"CALL far", "segments, call gates, stacks", check_call},
    {"JMP far", "segments and call gates", check_jmp},
    {"RET far", "to the same and to outer rings", check_ret},
    {"INT n", "gates, their DPL, frames", check_int},
    {"IRET", "flags by privilege, outer rings", check_iret},
};

static struct cell cells[ARRAY_LEN(rows)][ARRAY_LEN(rings)];

void expect(struct cell *c, uint32_t got, uint32_t want, const char *format, ...)
{
    va_list args;

    c->checks++;
    if (got == want || c->wrong++)
        return;
    va_start(args, format);
    unsigned n = format_list(c->first, sizeof(c->first), format, args);
    va_end(args);
    format_text(c->first + n, sizeof(c->first) - n, ": got %08x, expected %08x", got, want);
}

void expect_trap(struct cell *c, const struct cpu_state *s, unsigned vector, uint32_t error,
                 const void *eip, const char *what, uint32_t detail)
{
    expect(c, s->vector, vector, "vector, %s %04x (error %04x)", what, detail, s->error);
    if (!eip || s->vector != vector)
        return;
    expect(c, s->error, error, "error code, %s %04x", what, detail);
    expect(c, s->eip, (uint32_t)eip, "address of the fault, %s %04x", what, detail);
}

static void print_cell(const struct cell *c)
{
    if (c->wrong)
        print("WRONG %-6u", c->wrong);
    else
        print("ok %-9u", c->checks);
}

static void print_rule(void)
{
    for (unsigned i = 0; i < 85; i++)
        print("-");
    print("\n");
}

int guest_main(void)
{
    unsigned checks = 0, wrong = 0;

    tables_init();
    print("\nSensitive instructions, each compared with what a bare machine gives\n\n");
    print("%-14s%-36s%-12s%-12s%s\n", "instruction", "looked at", "ring 0", "ring 1", "ring 3");
    print_rule();
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        print("%-14s%-36s", rows[i].mnemonic, rows[i].about);
        for (unsigned r = 0; r < ARRAY_LEN(rings); r++) {
            struct cell *c = &cells[i][r];
            rows[i].check(c, rings[r]);
            print_cell(c);
            checks += c->checks;
            wrong += c->wrong;
        }
        print("\n");
        for (unsigned r = 0; r < ARRAY_LEN(rings); r++) {
            if (cells[i][r].wrong)
                print("    ring %u: %s\n", rings[r], cells[i][r].first);
        }
    }
    print_rule();
    if (wrong)
        print("%u of %u comparisons WRONG\n", wrong, checks);
    else
        print("all %u comparisons ok: these instructions act as on a bare machine\n", checks);
    return wrong != 0;
}
