"""The reconciler as a service: follow a branch, sync what is due, answer over HTTP.

    place                 the service's own directory: its mark, its clone, its lock
    branch                is the branch's commit one to follow: rewritten, unsigned, invalid
    view, reading         the catalog at that commit with its plan, as one value; read by a child
    memory                what outlives a restart: suspensions, failures, attempts
    choice, pace          which models are due, and what is done next and when (pure)
    conditions, metrics   Ready, Reconciling and Stalled; Prometheus' text (pure)
    jobs                  `registry sync` as a child process, with a log
    progress              how far a running sync is, from what it writes (pure)
    snapshot, transitions the one value that everybody reads, and what becomes of it (pure)
    reconciler            the thread that makes it: looks, syncs, waits
    access                bearer tokens and the signatures of webhooks (pure)
    answers, guard        HTTP: the shapes, and who may do what
    routes, commands, api the routes that read, those that ask, the whole
    site, pages, links    the routes for people, their HTML and its addresses (the last two pure)
    details, contents     what pages show of models, and of ingredients, beyond the snapshot
    past, drawn           what changed, and the plots; all four read by a child
    kept                  the answers of children about the view of the moment
    server                the process: port, threads, an end in order

Reading catalogs and building are left to children, so that the service holds neither the catalog
nor torch, MLflow or DVC while it idles. FastAPI and uvicorn have their only doors here.
"""
