/*
 * Text to the first serial port, the end of the guest, and the mem* functions that compilers
 * assume.
 */
#ifndef GUEST_CONSOLE_H
#define GUEST_CONSOLE_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

void console_init(void);
/* %s %c %d %u %x %%, with '-', '0' and a width. */
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same into a buffer; returns the length without the 0. */
unsigned format_text(char *to, unsigned size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
unsigned format_list(char *to, unsigned size, const char *format, va_list args);
/* Ends the machine: isa-debug-exit at port F4h, else ACPI soft-off at PM1a 604h, else Bochs's port.
 */
_Noreturn void guest_exit(int status);

void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int memcmp(const void *a, const void *b, size_t size);

#endif
