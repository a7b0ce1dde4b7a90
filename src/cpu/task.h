/*
 * Hardware tasks (SDM 3A ch. 7): the stacks that a TSS holds for inner rings, and the task switch.
 */
#ifndef CPU_TASK_H
#define CPU_TASK_H

#include "cpu/descriptor.h"
#include "cpu/stack.h"

enum task_reason { TASK_JMP, TASK_CALL, TASK_IRET, TASK_EVENT };

struct task_request {
    uint16_t sel;
    struct descriptor d; /* of the new TSS: checked for type, busy bit and presence */
    enum task_reason reason;
    uint32_t eip, eflags; /* what the old task is saved with */
    unsigned ext;
    bool has_error; /* TASK_EVENT: `error` is pushed on the new task's stack */
    uint32_t error;
};

/* The switch is done, and v->exc is to be delivered in the new task. */
enum { TASK_SWITCHED_FAULT = 2 };

/* Follows a task gate that the caller has checked: fills in sel and d. 0 or FAULT. */
int task_gate(struct vcpu *v, const struct descriptor *gate, unsigned ext, struct task_request *r);
/* 0, TASK_SWITCHED_FAULT, or FAULT with nothing changed. */
int task_switch(struct vcpu *v, const struct task_request *r);
/* The stack for ring `dpl` from the current TSS. 0 or FAULT. */
int task_inner_stack(struct vcpu *v, unsigned dpl, unsigned ext, struct stack *out);

#endif
