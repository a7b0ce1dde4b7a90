/*
 * memcpy and its kin for the whole program, without vector registers. The C library's own use SSE or
 * AVX, chosen by the host CPU, and would spoil the guest's FPU state, which stays live in the host's
 * registers while cpu/, mmu/ and dbt/ run (docs/translation.md). Defined here, they are the ones that
 * every object of the executable links to. DF is 0 whenever C runs.
 */
#include <stddef.h>
#include <string.h>
#include <strings.h>

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    void *ret = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    return ret;
}

void *memset(void *to, int byte, size_t n)
{
    void *ret = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(byte) : "memory");
    return ret;
}

void *memmove(void *to, const void *from, size_t n)
{
    unsigned char *t = to;
    const unsigned char *f = from;
    if (t <= f || t >= f + n)
        return memcpy(to, from, n);
    while (n--)
        __asm__ volatile("movb (%1,%2), %%al; movb %%al, (%0,%2)"
                         :
                         : "r"(t), "r"(f), "r"(n)
                         : "al", "memory");
    return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const unsigned char *x = a, *y = b;
    for (; n; n--, x++, y++) {
        if (*x != *y)
            return *x - *y;
    }
    return 0;
}

/* What clang makes of memcmp() == 0. */
int bcmp(const void *a, const void *b, size_t n)
{
    return memcmp(a, b, n);
}
