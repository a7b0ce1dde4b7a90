/*
 * A polled 16550 at 3F8h and a printf of the smallest useful size.
 */
#include "console.h"
#include "cpu.h"

enum uart {
    UART_THR = 0x3F8,
    UART_FCR = 0x3FA,
    UART_LCR = 0x3FB,
    UART_MCR = 0x3FC,
    UART_LSR = 0x3FD
};

void console_init(void)
{
    outb(UART_LCR, 0x83);
    outb(UART_THR, 1);
    outb(UART_THR + 1, 0);
    outb(UART_LCR, 0x03);
    outb(UART_THR + 1, 0);
    outb(UART_FCR, 0x07);
    outb(UART_MCR, 0x03);
}

static void put(char c)
{
    for (unsigned i = 0; i < 100000 && !(inb(UART_LSR) & 0x20); i++)
        ;
    outb(UART_THR, (uint8_t)c);
}

struct sink {
    char *to;
    unsigned size, length;
};

static void emit(struct sink *s, char c)
{
    if (!s->to) {
        if (c == '\n')
            put('\r');
        put(c);
    } else if (s->length + 1 < s->size) {
        s->to[s->length++] = c;
    }
}

static void format(struct sink *s, const char *f, va_list args)
{
    for (; *f; f++) {
        if (*f != '%') {
            emit(s, *f);
            continue;
        }
        bool left = *++f == '-';
        f += left;
        char fill = *f == '0' ? '0' : ' ';
        unsigned width = 0;
        while (*f >= '0' && *f <= '9')
            width = width * 10 + (unsigned)(*f++ - '0');

        char digits[12];
        const char *text = digits;
        unsigned length = 0;
        if (*f == 's') {
            text = va_arg(args, const char *);
            while (text[length])
                length++;
        } else if (*f == 'c' || *f == '%') {
            digits[0] = *f == 'c' ? (char)va_arg(args, int) : '%';
            length = 1;
        } else {
            uint32_t value = va_arg(args, uint32_t);
            uint32_t base = *f == 'x' ? 16 : 10;
            bool minus = *f == 'd' && (int32_t)value < 0;
            char *p = digits + sizeof(digits);
            if (minus)
                value = -value;
            do
                *--p = "0123456789abcdef"[value % base];
            while (value /= base);
            if (minus)
                *--p = '-';
            text = p;
            length = (unsigned)(digits + sizeof(digits) - p);
        }
        for (unsigned i = length; !left && i < width; i++)
            emit(s, fill);
        for (unsigned i = 0; i < length; i++)
            emit(s, text[i]);
        for (unsigned i = length; left && i < width; i++)
            emit(s, ' ');
    }
}

void print(const char *f, ...)
{
    struct sink s = {0};
    va_list args;

    va_start(args, f);
    format(&s, f, args);
    va_end(args);
}

unsigned format_list(char *to, unsigned size, const char *f, va_list args)
{
    struct sink s = {.to = to, .size = size};

    format(&s, f, args);
    to[s.length] = 0;
    return s.length;
}

unsigned format_text(char *to, unsigned size, const char *f, ...)
{
    va_list args;

    va_start(args, f);
    unsigned length = format_list(to, size, f, args);
    va_end(args);
    return length;
}

_Noreturn void guest_exit(int status)
{
    while (!(inb(UART_LSR) & 0x40))
        ;
    outb(0xF4, status ? 1 : 0);
    /* SLP_EN with the SLP_TYP that means S5: 5 for novt, 0 for QEMU. */
    outw(0x604, 0x3400);
    outw(0x604, 0x2000);
    for (const char *p = "Shutdown"; *p; p++)
        outb(0x8900, (uint8_t)*p);
    for (;;)
        __asm__ volatile("cli\n\thlt");
}

void *memcpy(void *to, const void *from, size_t size)
{
    void *d = to;
    size_t words = size / 4, bytes = size % 4;
    __asm__ volatile("rep movsl\n\tmovl %3, %%ecx\n\trep movsb"
                     : "+D"(d), "+S"(from), "+c"(words)
                     : "r"(bytes)
                     : "memory");
    return to;
}

void *memset(void *to, int value, size_t size)
{
    void *d = to;
    __asm__ volatile("rep stosb" : "+D"(d), "+c"(size) : "a"(value) : "memory");
    return to;
}

int memcmp(const void *a, const void *b, size_t size)
{
    const uint8_t *x = a, *y = b;
    size_t words = size / 4;

    /* The first difference is in the dword before X, or there is none among the dwords. */
    __asm__ volatile("cmpl %%eax, %%eax\n\trepe cmpsl"
                     : "+S"(x), "+D"(y), "+c"(words)
                     :
                     : "cc", "memory");
    if (size >= 4) {
        x -= 4;
        y -= 4;
        size = size % 4 + 4;
    }
    for (; size; size--, x++, y++) {
        if (*x != *y)
            return *x < *y ? -1 : 1;
    }
    return 0;
}
