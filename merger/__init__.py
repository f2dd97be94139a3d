"""The numerics of the merge registry: a build request in, an artifact and a report out.

Knows no Git, no YAML, no DVC, no MLflow and no HTTP. `python -m merger --help` tells how to use it
alone. The way of a request, top to bottom:

    __main__      the command line, standard input and output
    worker        one work order: events, versions, device, peak memory
    request       the request as frozen values, checked against the methods' schemas
    engine        the one loop: open, lay out, merge on threads, write in order
    target        what is made: the base's tensors, those of a union of vocabularies, a stack
    pieces        the work on all tensors, cut so that threads share it
    tensor_merge  one tensor of the result
    candidates    many merges of the same operands, in memory and in place
    in_place      one tensor of a merge written into a model in memory
    resident      what stays in memory between merges
    adapter       LoRA files as a task vector
    checkpoint    model folders read piece by piece; a model as a task vector
    vocabulary    which rows the result has and where operands have them
    vocabulary_views  models seen through these rows
    tokenizer     the union of tokens and its tokenizer.json
    stack         layers read from the operands that they come from
    task_vector   what every operand gives: one delta per tensor
    methods/      pure functions on tensors, one file per family
    selection     the k-th largest magnitude, exactly, without sorting
    sparsify      trim: what a cut leaves of a delta
    marks         one byte per element where something holds
    random_mask, kept_mask
                  which elements a random drop keeps, from a counter; the same, computed once
    rounding      base + delta, one rounding
    blocks        the fixed cut of a tensor that makes results independent of threads
    adapter_output, adapter_plan, adapter_report, factorise
                  a merge as a LoRA adapter: files, ranks and refusals, what was lost, the algebra
    pools         threads, results in the order of the work
    layout        which file holds which tensor, known beforehand
    writer        files written in order and hashed meanwhile
    untouched     shards that no term touches, taken from where they lie
    memory, libc  how much is free; two calls that Python has no name for
    statistics    norms, cosines, sign conflict from the same pass
    analysis      task vectors compared, and what a merge leaves of them, without making it
    interference  the sums behind that
    card          README.md and recipe.json
    evaluate/     suites and metrics
"""
