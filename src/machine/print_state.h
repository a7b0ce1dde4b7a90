/*
 * The guest's registers for a person to read.
 */
#ifndef MACHINE_PRINT_STATE_H
#define MACHINE_PRINT_STATE_H

#include <stdio.h>

#include "cpu/state.h"

void print_state(const struct vcpu *v, FILE *to);

#endif
