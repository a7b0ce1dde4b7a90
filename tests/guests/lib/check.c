#include "check.h"

enum { SHOWN = 20 };

extern char user_start[], user_end[];

static unsigned checks, failures;

static void failed(const char *text)
{
    if (failures++ < SHOWN)
        print("  %s\n", text);
}

void check(bool ok, const char *format, ...)
{
    char text[200];
    va_list args;

    checks++;
    if (ok)
        return;
    va_start(args, format);
    format_list(text, sizeof(text), format, args);
    va_end(args);
    failed(text);
}

void check_equal(uint32_t got, uint32_t want, const char *format, ...)
{
    char text[200];
    va_list args;

    checks++;
    if (got == want)
        return;
    va_start(args, format);
    unsigned n = format_list(text, sizeof(text), format, args);
    va_end(args);
    format_text(text + n, sizeof(text) - n, ": got %x, expected %x", got, want);
    failed(text);
}

void check_trap(const struct cpu_state *s, unsigned vector, int error, const void *eip,
                const char *what)
{
    check(s->vector == vector, "%s: vector %u (error %x, eip %08x, cr2 %08x), expected %u", what,
          s->vector, s->error, s->eip, s->cr2, vector);
    if (s->vector != vector)
        return;
    if (error >= 0)
        check_equal(s->error, (uint32_t)error, "%s: error code", what);
    if (eip)
        check_equal(s->eip, (uint32_t)eip, "%s: eip", what);
}

void run_to_end(struct cpu_state *s, const char *what)
{
    cpu_run(s);
    check_trap(s, VEC_END, -1, NULL, what);
}

int check_done(const char *name)
{
    if (failures)
        print("%s: %u of %u checks FAILED\n", name, failures, checks);
    else
        print("%s: ok, %u checks\n", name, checks);
    return failures != 0;
}

void touch_code(const void *code, size_t size)
{
    volatile uint8_t *p = (volatile uint8_t *)(uintptr_t)code;

    for (size_t i = 0; i < size; i += 64)
        p[i] = p[i];
}

void touch_all_code(void)
{
    touch_code(user_start, (size_t)(user_end - user_start));
}
