/*
 * The public face of the engine (dbt.h): making, running and undoing one, and its statistics.
 */
#define _GNU_SOURCE
#include "dbt/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu/fpu.h"

struct dbt *dbt_create(struct mmu *mmu, const struct cpu_model *model,
                       const struct dbt_options *options, struct err *err)
{
    struct dbt *d =
        mmap(NULL, sizeof(*d), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (d == MAP_FAILED) {
        err_set(err, errno, "no memory for the engine: %s", strerror(errno));
        return NULL;
    }
    d->mmu = mmu;
    if (options)
        d->options = *options;
    d->bmi2 = __builtin_cpu_supports("bmi2") && !d->options.no_bmi2;
    d->jit.stub[STUB_CALLOUT] = stub_callout;
    d->jit.stub[STUB_CHAIN] = stub_chain;
    d->jit.stub[STUB_MISS] = stub_miss;
    d->jit.stub[STUB_INDIRECT] = d->bmi2 ? stub_indirect_bmi2 : stub_indirect_plain;
    d->pages = calloc(PHYSICAL_PAGES, sizeof(*d->pages));
    d->code_writes = calloc(PHYSICAL_PAGES, sizeof(*d->code_writes));
    if (!d->pages || !d->code_writes) {
        err_set(err, ENOMEM, "no memory for the engine");
        goto fail_cache;
    }
    uint32_t size = d->options.cache_size ? d->options.cache_size : (uint32_t)MIB(64);
    size = max_u32(size, CACHE_LEAST); /* room for a block and for what describes it */
    if (cache_init(&d->cache, size, err) < 0)
        goto fail_cache;
    if (context_init(d, err) < 0)
        goto fail_context;
    if (fault_install(err) < 0)
        goto fail_install;
    d->cpu.model = model;
    mmu_attach(mmu, &d->cpu);
    mmu_set_listener(mmu, &(struct mmu_listener){.code_written = block_code_written,
                                                 .code_unmapped = block_code_unmapped,
                                                 .window_recycled = block_window_recycled,
                                                 .opaque = d});
    vcpu_reset(&d->cpu);
    fpu_reset(&d->cpu);
    vcpu_mode_changed(&d->cpu);
    return d;

fail_install:
    context_fini(d);
fail_context:
    cache_fini(&d->cache);
fail_cache:
    free(d->pages);
    free(d->code_writes);
    munmap(d, sizeof(*d));
    return NULL;
}

void dbt_destroy(struct dbt *d)
{
    if (!d)
        return;
    fault_detach(d);
    mmu_set_listener(d->mmu, &(struct mmu_listener){0});
    context_fini(d);
    cache_fini(&d->cache);
    free(d->pages);
    free(d->code_writes);
    munmap(d, sizeof(*d));
}

struct vcpu *dbt_vcpu(struct dbt *d)
{
    return &d->cpu;
}

enum dbt_stop dbt_run(struct dbt *d)
{
    struct err err = {0};

    if (fault_attach(d, &err) < 0) {
        fprintf(stderr, "novt: %s\n", err.text);
        return DBT_STOPPED;
    }
    vcpu_mode_changed(&d->cpu);
    d->window = NULL;
    stub_enter(d);
    return d->stopped;
}

void dbt_print_stats(const struct dbt *d, FILE *to)
{
#define STAT(name, text) fprintf(to, "%14llu  %s\n", (unsigned long long)d->stats.name, text);
#include "dbt/stats.def"
#undef STAT
    for (unsigned op = 0; op < OP_COUNT; op++) {
        if (d->callouts_by_op[op])
            fprintf(to, "%14llu  %s executed in C\n", (unsigned long long)d->callouts_by_op[op],
                    decode_op_name(op));
    }
}
