/*
 * Which rows are compared: every copied one, and those others whose result at CPL 3 does not depend
 * on the operating system. Privileged ones are run for the fault that they give.
 */
#ifndef DIFF_ROWS_H
#define DIFF_ROWS_H

#include "cpu/cpuid.h"

enum row_use {
    ROW_SKIP,
    ROW_USER, /* only where the guest's CPL and selectors are the native ones */
    ROW_FREE,
};

enum row_use rows_use(const struct decode_row *row, const struct cpu_model *model);

#endif
