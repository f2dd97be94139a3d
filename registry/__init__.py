"""The control plane: what is declared, what is built, what must be done about the difference.

Read it in the direction of the data:

    documents, schema     text with places -> valid data, or problems
    tree, catalog         files of the working tree or of a revision -> `spec` values
    crosscheck, preflight what one document cannot tell; what headers of weights tell
    output_rules, form    what may be asked of an output; whether it came out in that form
    request               declarations -> build requests and their keys
    record, observation   what was built, what the store has
    plan, comparison      the difference, as ordered changes with reasons (pure)
    sealed, sweep, settled, outlook
                          what was found out last time, believed while no file has changed
    validation, readers, quick_check
                          the same for `validate`; cold catalogs on all processors
    reconcile, lane       carries a plan out, through build, publish, inputs, evaluation, judge,
                          store, shards, logbook and tracking; MLflow beside the next build
    lineage, containment, impact
                          the graph of models and ingredients, up and down, with signs (pure)
    ancestry              what is known of models, declared and live, for that graph
    graph_layout, graph_picture, lineage_report, impact_report
                          the graph as a drawing, as text, JSON and a page (pure)
    report, shown         plans, and what is inside a model, as text, JSON or Markdown
    mergekit              a file of mergekit -> a merge spec, or what stands in the way (pure)
    analysis, charts      how terms agree and what a merge leaves of them; what is drawn of it
    recommendation        which method to start with, as a table of rules (pure)
    lane, executor, gpus  MLflow beside the builds; workers, and which GPU each of them sees
    shards                what merges of one base share in the store
    service               the reconciler as a service: follows a branch, answers over HTTP
    cli                   parsing, choosing the collaborators, one call, one print, an exit code

What is only there to be quick, and says what reading everything would say: sealed, index, readers
and quick_check (documents), sweep, settled and outlook (plans), validation.

Doors to the outside, one file each: documents (yaml), schema (jsonschema), git, store (dvc),
tracking (mlflow), plots (matplotlib), worker (`python -m merger`); the package service (fastapi,
uvicorn). Nothing here knows a tensor.
"""
