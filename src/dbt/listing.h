/*
 * The listings of -d in_asm and out_asm, disassembled by Capstone: each guest instruction, and
 * under it the host instructions that it became.
 */
#ifndef DBT_LISTING_H
#define DBT_LISTING_H

#include "dbt/engine.h"

/* Prints `b`, newly translated, to the log, as log_mask asks. Parks the FPU. */
void listing_block(struct dbt *d, const struct block *b);

#endif
